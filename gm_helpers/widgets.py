"""What each widget shows."""

import math
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from gm_helpers import figures, gan
from gm_helpers.explore import Drawing, choice, digits, explore, slider
from gm_helpers.flows import Flow
from gm_helpers.nn import slerp
from gm_helpers.vae import kl_standard_normal


def two_normals(figure_dir: str = "") -> None:
    """KL(N(μ, σ²) ‖ N(0, 1)) and the two densities, for any μ and σ."""
    x = torch.linspace(-6, 6, 400, dtype=torch.float64)
    standard = torch.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)

    def draw(mean: float, std: float) -> Drawing:
        kl = kl_standard_normal(torch.tensor([[mean]]), torch.tensor([[2 * math.log(std)]])).item()
        figure, axis = plt.subplots(figsize=(6, 3))
        axis.plot(x, standard, label="$p$ = N(0, 1)")
        axis.plot(x, torch.exp(-((x - mean) ** 2) / (2 * std**2)) / (std * math.sqrt(2 * math.pi)), label="$q$")
        axis.set(xlabel="$z$", ylabel="density", ylim=(0, 1.5))
        axis.legend(loc="upper right")
        return figure, f"KL(q ‖ p) = {kl:.3f} nats at μ = {mean:.2f}, σ = {std:.2f}"

    controls = {"mean": slider("mean μ", 1.0, -4, 4, 0.05), "std": slider("deviation σ", 0.5, 0.05, 4, 0.05)}
    alt = "The density of q, a normal with mean 1 and deviation 0.5, beside that of the standard normal p."
    explore("1.5a-widget", alt, draw, controls, figure_dir)


def generator_losses(figure_dir: str = "") -> None:
    """Both losses of a GAN's generator against the logit, with value and slope at one point."""
    logits = torch.linspace(-8, 8, 300)
    names = {"saturating": "log(1 − D)", "non_saturating": "−log D"}

    def draw(logit: float) -> Drawing:
        figure, axis = plt.subplots(figsize=(6, 3.2))
        at, readings = torch.tensor(logit, requires_grad=True), []
        for name, loss in gan.GENERATOR_LOSSES.items():
            value = loss(at)
            slope = torch.autograd.grad(value, at)[0].item()
            [line] = axis.plot(logits, loss(logits), label=names[name])
            reach = torch.tensor([logit - 1.5, logit + 1.5])
            axis.plot(
                reach, value.item() + slope * (reach - logit), "-", color=line.get_color(), linewidth=3, alpha=0.5
            )
            axis.plot(logit, value.item(), "o", color=line.get_color())
            readings.append(f"{names[name]} = {value.item():.3f} nats, slope {slope:.4f}")
        axis.set(xlabel="logit $a$", ylabel="loss (nats)", ylim=(-9, 9))
        axis.legend()
        return figure, f"D(G(z)) = {torch.sigmoid(at).item():.4f}: " + "; ".join(readings)

    alt = "Both losses of the generator against the logit, each with its tangent at a = −4, flat for log(1 − D)."
    explore("2.4-widget", alt, draw, {"logit": slider("logit a", -4.0, -8, 8, 0.1)}, figure_dir)


def stretched_density(figure_dir: str = "") -> None:
    """A monotone map x = z + steepness · tanh(z − centre), and the density that it makes of a normal one."""
    z = torch.linspace(-5, 5, 1001, dtype=torch.float64)
    normal = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)

    def draw(steepness: float, centre: float) -> Drawing:
        x, stretch = z + steepness * torch.tanh(z - centre), 1 + steepness / torch.cosh(z - centre) ** 2
        figure, axes = plt.subplots(1, 2, figsize=(8, 3))
        axes[0].plot(x, z)
        axes[0].set(xlabel="$x$", ylabel="$z = f(x)$", xlim=(-12, 12))
        axes[1].plot(x, normal / stretch)
        axes[1].set(xlabel="$x$", ylabel="$p(x)$", xlim=(-12, 12), ylim=(0, 0.45))
        total = torch.trapezoid(normal / stretch, x).item()
        return (
            figure,
            f"slope f′ from {1 / stretch.max().item():.3f} to {1 / stretch.min().item():.3f}; area {total:.3f}",
        )

    controls = {"steepness": slider("steepness s", 4.0, 0, 9, 0.1), "centre": slider("centre", 0.0, -2, 2, 0.05)}
    alt = (
        "A monotone map, flat in the middle, and the density that it makes of a normal one: low where the map is flat."
    )
    explore("3.1-widget", alt, draw, controls, figure_dir)


def warped_plane(flow: Flow, points: Tensor, figure_dir: str = "") -> None:
    """Points (N, 2) and a grid, carried through the first layers of a flow of the plane."""
    side, fine = (torch.linspace(-2, 2, n, device=points.device, dtype=points.dtype) for n in (25, 400))
    upright = torch.stack(torch.meshgrid(side, 0.75 * fine, indexing="ij"), dim=2)
    level = torch.stack(torch.meshgrid(fine, 0.75 * side, indexing="xy"), dim=2)
    lines = torch.cat([upright, level])  # (50, 400, 2): fine enough that no two chords cross

    @torch.no_grad()
    def draw(depth: float) -> Drawing:
        own, grid, log_det = points, lines.flatten(0, 1), points.new_zeros(len(points))
        for layer in flow.bijection.layers[: int(depth)]:
            own, change = layer(own)
            grid, log_det = layer(grid)[0], log_det + change
        figure, axis = plt.subplots(figsize=(4.5, 4.5))
        axis.scatter(own[:, 0].cpu(), own[:, 1].cpu(), s=2, color=figures.COLOURS[0])
        for line in grid.view(lines.shape).cpu():
            axis.plot(*line.T, "-", color="#777777", linewidth=0.5)
        axis.set(xlim=(-4, 4), ylim=(-4, 4), aspect="equal", xlabel="$h_1$", ylabel="$h_2$")
        return figure, f"after {int(depth)} layers: mean log-determinant {log_det.mean().item():.3f} nats"

    controls = {"depth": slider("depth (layers)", 4, 0, len(flow.bijection.layers), 1)}
    alt = "Two moons and a grid of lines after four of the flow's eight layers: bent, but nowhere torn."
    explore("3.beyond-a-widget", alt, draw, controls, figure_dir)


def samples_over_training(stages: dict[float, Tensor], centres: Tensor, figure_dir: str = "") -> None:
    """Samples of the plane at several fractions of a training, fraction -> (N, 2), and the modes they should cover."""
    fractions = sorted(stages)

    def draw(stage: float) -> Drawing:
        fraction = fractions[int(stage)]
        figure, axis = plt.subplots(figsize=(4.2, 4.2))
        axis.scatter(
            centres[:, 0].cpu(), centres[:, 1].cpu(), s=120, facecolors="none", edgecolors="black", linewidths=0.8
        )
        axis.scatter(stages[fraction][:, 0].cpu(), stages[fraction][:, 1].cpu(), s=2, color=figures.COLOURS[0])
        axis.set(xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
        return figure, f"after {100 * fraction:.0f} % of the steps"

    controls = {"stage": slider("training (stages)", len(fractions) - 1, 0, len(fractions) - 1, 1)}
    alt = "Samples of the GAN at the end of its training, on the ring of eight modes."
    explore("2.beyond-a-training-widget", alt, draw, controls, figure_dir)


def interpolation(name: str, codes: Tensor, decode: Callable[[Tensor], Tensor], figure_dir: str = "") -> None:
    """From the code of one digit to that of another, straight or spherical: both ends and the image between.

    codes: (10, D), one for each digit. decode: codes (N, D) to images (N, 784) or (N, 1, 28, 28) in [0, 1].
    """

    @torch.no_grad()
    def draw(start: int, end: int, way: str, fraction: float) -> Drawing:
        ends, t = (codes[start], codes[end]), torch.tensor([fraction], device=codes.device, dtype=codes.dtype)
        straight = way == "straight" or start == end  # there is no angle between a code and itself
        between = torch.lerp(*ends, t)[None] if straight else slerp(*ends, t)
        images = decode(torch.cat([codes[start][None], between.view(1, -1), codes[end][None]]))
        norms = [own.norm().item() for own in (ends[0], between, ends[1])]
        return digits(images, 3), f"norms of the codes: {norms[0]:.1f}, {norms[1]:.1f}, {norms[2]:.1f}"

    controls: dict[str, Any] = {
        "start": choice("from the digit", range(10)),
        "end": choice("to the digit", range(10)),
        "way": choice("way", ("straight", "spherical")),
        "fraction": slider("fraction t", 0.5, 0, 1, 0.02),
    }
    controls["start"].value, controls["end"].value = 2, 7
    alt = "Three images: the start, a 2, the one half way, and the end, a 7."
    explore(name, alt, draw, controls, figure_dir)


def temperature(models: dict[str, Callable[[Tensor], Tensor]], codes: dict[str, Tensor], figure_dir: str = "") -> None:
    """The same draws of the prior, multiplied by a temperature, decoded: a row of digits for each model.

    models: name -> decoder of codes to images in [0, 1]. codes: name -> draws (N, D), N the same for all.
    """

    @torch.no_grad()
    def draw(factor: float) -> Drawing:
        images = torch.cat([decode(factor * codes[name]).reshape(-1, 784) for name, decode in models.items()])
        return digits(images, len(images) // len(models)), f"T = {factor:.2f}; rows: {', '.join(models)}"

    controls = {"factor": slider("temperature T", 0.7, 0, 1.5, 0.05)}
    alt = f"Rows of digits drawn at the temperature 0.7: {', '.join(models)}."
    explore("3.beyond-b-widget", alt, draw, controls, figure_dir)
