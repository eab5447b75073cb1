"""What each widget of notebook 2 shows, but for the walk between two noises."""

import math
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Circle
from torch import Tensor

from gm_helpers import figures, game, gan, normals
from gm_helpers.explore import Drawing, explore, pack, slider, tiled
from gm_helpers.widgets import THUMB, below, panels

# Blue where D takes points for data, orange where it takes them for samples, white where it says ½.
VERDICTS = LinearSegmentedColormap.from_list("verdicts", ["#F5BE90", "white", "#90C4EA"])
REACH = 2.0  # the square of the plane that a stage of a training is drawn in goes from −REACH to REACH


def best_discriminator(figure_dir: str = "") -> None:
    """p_data = N(1, 1) and p_g, a normal that two sliders move; below them D* and the discriminator σ(2x) of 2.2.

    Thin lines where the densities cross, and D* is ½. The reading: V of both, the JSD, and what V of σ(2x) says of it.
    """
    x = torch.linspace(-8, 8, 1601, dtype=torch.float64)

    def log_data(x: Tensor) -> Tensor:
        return normals.log_normal(x, 1.0, 1.0)

    def other(x: Tensor) -> Tensor:
        return 2 * x

    def draw(mean: float, std: float) -> Drawing:
        def log_samples(x: Tensor) -> Tensor:
            return normals.log_normal(x, mean, std)

        best = game.best_logit(log_data, log_samples)
        figure = plt.figure(figsize=(7.4, 4.6), layout="none")
        figure.subplots_adjust(left=0.09, right=0.98, bottom=0.1, top=0.98, hspace=0.12)
        upper, lower = figure.subplots(2, 1, sharex=True)
        upper.plot(x, log_data(x).exp(), label="$p_{data}$ = N(1, 1)")
        upper.plot(x, log_samples(x).exp(), label="$p_g$")
        peak = max(1 / std, 1) / math.sqrt(2 * math.pi)  # of the higher density: neither is cut off
        upper.legend(loc="upper right")
        upper.set(ylabel="density", ylim=(0, 1.1 * peak))
        lower.plot(x, best(x).sigmoid(), color=figures.COLOURS[2], linestyle="-", label="$D^*$, the best", linewidth=2)
        lower.plot(x, other(x).sigmoid(), color=figures.COLOURS[3], linestyle="--", label="$\\sigma(2x)$")
        lower.legend(loc=(0.01, 0.56))  # between ½ and 1, where on this side D* seldom is
        lower.axhline(0.5, color="black", linestyle=":", linewidth=1)
        lower.set(xlabel="$x$", ylabel="$D(x)$", xlim=(-8, 8), ylim=(-0.03, 1.03))
        above = best(x) > 0
        for axis in (upper, lower):
            for crossing in x[:-1][above[1:] != above[:-1]]:
                axis.axvline(crossing, color="black", linewidth=0.5)
        worth, own = (game.value(logit, log_data, log_samples) for logit in (best, other))
        bound = (own + math.log(4)) / 2
        proof = f"so that JSD ≥ {bound:.3f}" if bound > 0 else f"which proves nothing (JSD ≥ {bound:.3f})"
        return figure, (
            f"V(D*, G) = {worth:z.3f} nats, JSD = (V + log 4)/2 = {(worth + math.log(4)) / 2:z.3f} nats; "
            f"for σ(2x) V = {own:.3f} nats, {proof}"
        )

    controls = {"mean": slider("mean of p_g", -1.0, -4, 4, 0.1), "std": slider("deviation of p_g", 1.5, 0.3, 3, 0.05)}
    alt = (
        "Above, the densities N(1, 1) of the data and N(−1, 1.5²) of samples. Below, the best discriminator, which is "
        "½ where they cross, and σ(2x), which is ½ at 0 and steeper."
    )
    explore("2.3-widget", alt, draw, controls, figure_dir)


def generator_losses(figure_dir: str = "") -> None:
    """Both losses of a GAN's generator against the logit, with value and slope at one point."""
    logits = torch.linspace(-8, 8, 300)
    names = {"saturating": "log(1 − D)", "non_saturating": "−log D"}

    def draw(logit: float) -> Drawing:
        figure, [axis] = panels(1, 6, 3.2)
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


class Stage(NamedTuple):
    """How far a game in the plane has come: samples of G, (N, 2), and D(x) at the points of `square`, (M,)."""

    samples: Tensor
    probabilities: Tensor


def square(steps: int = 81) -> Tensor:
    """Points on an even grid, (steps², 2), of the square from −REACH to REACH that a stage is drawn in."""
    side = torch.linspace(-REACH, REACH, steps)
    return torch.stack(torch.meshgrid(side, side, indexing="xy"), dim=2).flatten(0, 1)


def covered(samples: Tensor, centres: Tensor, radius: float) -> int:
    """How many modes have at least 2 % of the samples (N, 2) within the radius around their centre (M, 2)."""
    near = torch.cdist(samples.detach(), centres) < radius
    return int((near.sum(0) >= 0.02 * len(samples)).sum())


def draw_stage(axis: Axes, stage: Stage, points: Tensor, centres: Tensor, radius: float) -> None:
    """Samples in orange over the map of D, from orange for 0.3 and less to blue for 0.7 and more; data in grey.

    points: data (N, 2). centres, radius: of the circles that are drawn around the modes, (M, 2) and a number.
    """
    side = round(math.sqrt(len(stage.probabilities)))
    grid = np.linspace(-REACH, REACH, side)
    samples, shown = stage.samples.detach().cpu(), stage.probabilities.detach().view(side, side).cpu().numpy()
    axis.pcolormesh(grid, grid, shown, cmap=VERDICTS, vmin=0.3, vmax=0.7, shading="gouraud")
    axis.scatter(points[:, 0].cpu(), points[:, 1].cpu(), s=2, color="#777777")
    for centre in centres.tolist():
        axis.add_patch(Circle((centre[0], centre[1]), radius, fill=False, linewidth=0.8))
    axis.scatter(samples[:, 0], samples[:, 1], s=3, color=figures.COLOURS[1])
    axis.grid(visible=False)
    axis.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal", xlabel="$x_1$", ylabel="$x_2$")


def told(stage: Stage, centres: Tensor, radius: float) -> str:
    """How many modes the samples cover, and how many samples lie outside what is drawn, where there are any."""
    lost = int((stage.samples.abs() > REACH).any(1).sum())
    rest = f"; {lost:,} of {len(stage.samples):,} samples lie outside the picture" if lost else ""
    return f"{covered(stage.samples, centres, radius)} of {len(centres)} modes covered{rest}"


def samples_over_training(
    stages: dict[float, Stage], points: Tensor, centres: Tensor, radius: float, figure_dir: str = ""
) -> None:
    """Samples in the plane, and the map of D, at several fractions of a training; the data, and the modes' circles.

    stages: fraction -> stage. points: data (N, 2). centres: (M, 2). radius: within which a sample is on a mode.
    """
    fractions = sorted(stages)

    def draw(stage: float) -> Drawing:
        own = stages[fractions[int(stage)]]
        figure, [axis] = panels(1, 5.2, 4.6)
        draw_stage(axis, own, points, centres, radius)
        figure.colorbar(axis.collections[0], label="$D(x)$", extend="both", shrink=0.85)
        fraction = f"after {100 * fractions[int(stage)]:.0f} % of the steps"
        return figure, f"{fraction}: {told(own, centres, radius)}"

    controls = {"stage": slider("training (stages)", len(fractions) - 1, 0, len(fractions) - 1, 1)}
    alt = (
        "Samples of the GAN at the end of its training, over the map of the discriminator's probabilities, with the "
        f"data and circles around their modes: {told(stages[fractions[-1]], centres, radius)}."
    )
    explore("2.beyond-a-training-widget", alt, draw, controls, figure_dir, play="stage")


def draw_digit(model: gan.ConditionalGAN, figure_dir: str = "") -> None:
    """Ten images of the conditional generator, one for each digit, from the same noise; the chosen one large below.

    The noise goes round a circle about 0, whose radius √D is about the norm of a draw of N(0, I) in D dimensions; at
    t = 1 it is where it began.
    """
    weight = next(model.generator.parameters())
    rng = torch.Generator().manual_seed(0)  # on the CPU, so that every device walks the same circle
    plane = torch.linalg.qr(torch.randn(model.latent_dim, 2, generator=rng, dtype=torch.float64)).Q
    digits = torch.arange(10, device=weight.device)

    def noise(t: float) -> Tensor:
        angle = torch.tensor(2 * math.pi * t, dtype=torch.float64)
        z = math.sqrt(model.latent_dim) * plane @ torch.stack([angle.cos(), angle.sin()])
        return z.to(weight)

    @torch.no_grad()
    def draw(digit: float, t: float) -> Drawing:
        z, chosen = noise(t), int(digit)
        was_training = model.training
        model.eval()  # so that no image depends on the other nine, and nothing is learnt from them
        images = (model.generator(z.expand(10, -1), digits) + 1) / 2
        model.train(was_training)
        picture = below(tiled(images, 10, pixel=THUMB), tiled(images[chosen], 1), (chosen + 0.5) / 10)
        return pack(picture), f"digit {chosen}, t = {t:.2f}, norm of z {z.norm().item():.1f}"

    controls = {"digit": slider("digit", 4, 0, 9, 1), "t": slider("noise t", 0.3, 0, 1, 0.02)}
    alt = "The ten digits drawn by the conditional generator from one noise, and below, larger, its 4."
    explore("2.beyond-d-widget", alt, draw, controls, figure_dir, play="t")
