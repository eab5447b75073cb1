"""What each widget shows; those of notebook 2 alone: gan_widgets.py."""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from torch import Tensor

from gm_helpers import figures, normals, posterior
from gm_helpers.explore import Drawing, choice, digits, explore, pack, slider, tiled
from gm_helpers.flows import Flow
from gm_helpers.nn import slerp
from gm_helpers.vae import VAE, kl_standard_normal

THUMB = 2  # screen pixels for each of a small digit


def panels(columns: int, width: float, height: float, top: float = 0.12) -> tuple[Figure, Sequence[Axes]]:
    """A figure of that many inches with panels in fixed places; to fit them anew takes as long as to draw them.

    top: inches above the panels.
    """
    left, right, bottom, between = 0.7, 0.15, 0.5, 0.75
    panel = (width - left - right - (columns - 1) * between) / columns
    figure = plt.figure(figsize=(width, height), layout="none")
    figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height, between / panel)
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def two_normals(figure_dir: str = "") -> None:
    """KL(N(μ, σ²) ‖ N(0, 1)): the two densities, and the point (μ, log σ) on the surface of all such divergences."""
    x = torch.linspace(-6, 6, 1201, dtype=torch.float64)  # five points for the least deviation
    standard = normals.density(x, 0.0, 1.0)
    means, log_stds = torch.linspace(-4, 4, 81), torch.linspace(math.log(0.05), math.log(4), 81)
    pairs = torch.cartesian_prod(log_stds, means)
    surface = kl_standard_normal(pairs[:, 1:], 2 * pairs[:, :1]).view(81, 81)
    levels = [0, 0.1, 0.3, 1, 2, 4, 8, 16]

    def draw(mean: float, std: float) -> Drawing:
        kl = kl_standard_normal(torch.tensor([[mean]]), torch.tensor([[2 * math.log(std)]])).item()
        figure, (left, right) = panels(2, 8.4, 3.3, top=0.4)
        peak = max(1 / std, 1) / math.sqrt(2 * math.pi)  # of the higher density: neither is cut off
        left.plot(x, standard, label="$p$ = N(0, 1)")
        left.plot(x, normals.density(x, mean, std), label="$q$")
        left.set(title=f"KL($q$ ‖ $p$) = {kl:.3f} nats", xlabel="$z$", ylabel="density", ylim=(0, 1.3 * peak))
        left.legend(loc="upper right", ncols=2)
        right.set_title(rf"{mean**2 / 2:.3f} of them for $\mu$, {kl - mean**2 / 2:z.3f} for $\sigma$")
        filled = right.contourf(means, log_stds, surface, levels, extend="max", norm=SymLogNorm(0.1, vmin=0, vmax=16))
        figure.colorbar(filled, label="KL (nats)", format="%g")
        right.plot(mean, math.log(std), "o", color="white", markeredgecolor="black", markersize=9, clip_on=False)
        right.set(xlabel="mean $\\mu$", ylabel=r"$\log\,\sigma$")
        return figure, f"KL(q ‖ p) = {kl:.3f} nats at μ = {mean:.2f}, σ = {std:.2f}"

    controls = {"mean": slider("mean μ", 1.0, -4, 4, 0.05), "std": slider("deviation σ", 0.5, 0.05, 4, 0.05)}
    alt = (
        "Left, the density of q, a normal with mean 1 and deviation 0.5, beside that of the standard normal p: 0.818 "
        "nats. Right, its place on the divergence over mean and log deviation, a valley around (0, 0)."
    )
    explore("1.5a-widget", alt, draw, controls, figure_dir)


def one_dimensional_bound(figure_dir: str = "") -> None:
    """The bound where latent and datum are numbers: the model in the plane, its p(x), its posterior, the best normal.

    z ~ N(0, 1), x | z ~ N(z + curvature · z², ½²). The gap between log p(x) and the ELBO is shaded.
    """
    noise = normals.NOISE
    z = torch.linspace(-4, 4, 401, dtype=torch.float64)
    fine = torch.linspace(-8, 8, 801, dtype=torch.float64)
    every_x = torch.linspace(-3, 5, 321, dtype=torch.float64)

    def draw(curvature: float, x: float) -> Drawing:
        found = normals.one_dimension(x, curvature)
        curve = z + curvature * z**2
        figure = plt.figure(figsize=(9, 5.2), layout="none")
        figure.subplots_adjust(left=0.07, right=0.985, bottom=0.09, top=0.94, wspace=0.17, hspace=0.38)
        (plane, marginal), (parts, both) = figure.subplots(2, 2)

        plane.plot(z, curve, label="$f(z)$")
        plane.fill_between(z, curve - noise, curve + noise, color=figures.COLOURS[0], alpha=0.2, linewidth=0)
        plane.axhline(x, color="black", linestyle=":", label="observed $x$")
        formula = f"$f(z) = z + {curvature:.2f} z^2$, $s$ = {noise}"
        plane.set(title=rf"$x = f(z) \pm s$, {formula}", xlabel="$z$", ylabel="$x$", xlim=(-4, 4), ylim=(-3, 5))
        plane.legend(loc="lower right")

        given_z = normals.density(every_x[:, None], fine + curvature * fine**2, noise)
        marginal.plot(every_x, given_z @ normals.density(fine, 0.0, 1.0) * (fine[1] - fine[0]))
        marginal.plot(x, math.exp(found.log_px), "o", color="black", clip_on=False)
        marginal.axvline(x, color="black", linestyle=":")
        value = f"$\\log p(x)$ = {found.log_px:.3f}, ELBO = {found.elbo:.3f} nats".replace("-", "−")
        marginal.set(title=value, xlabel="$x$", ylabel="$p(x)$", xlim=(-3, 5), ylim=(0, None))

        likelihood = normals.density(curve, x, noise)  # the same either way
        parts.plot(z, normals.density(z, 0.0, 1.0), label="prior $p(z)$")
        parts.plot(z, 0.4 * likelihood / likelihood.max(), label="$p(x|z)$, scaled")
        parts.set(title="what is multiplied", xlabel="$z$", ylabel="density", xlim=(-4, 4), ylim=(0, 0.6))
        parts.legend(loc="upper right", ncols=2)

        exact = torch.exp(found.log_joint - found.log_px)
        q = normals.density(found.z, found.mean, found.std)
        both.plot(found.z, exact, label="posterior $p(z|x)$")
        both.plot(found.z, q, label="best normal $q$")
        both.fill_between(found.z, exact, q, color=figures.COLOURS[1], alpha=0.25, linewidth=0)
        both.set(title=f"gap = KL($q$ ‖ posterior) = {found.gap:z.3f} nats", xlabel="$z$", ylabel="density")
        both.set(xlim=(-4, 4), ylim=(0, 1.3 * max(exact.max().item(), q.max().item())))
        both.legend(loc="upper right", ncols=2)
        return figure, (
            f"log p(x) = {found.log_px:.3f}, ELBO = {found.elbo:.3f}, gap = KL(q ‖ posterior) = {found.gap:z.3f} nats; "
            f"q: μ = {found.mean:z.2f}, σ = {found.std:.2f}"
        )

    controls = {"curvature": slider("curvature", 0.7, 0, 1.5, 0.05), "x": slider("observed x", 1.0, -2, 4, 0.05)}
    alt = (
        "A bent line of means in the plane of z and x; the density of x, with a dot at x = 1; the prior, and the "
        "likelihood with two humps; the posterior, whose smaller hump the best normal q leaves out, the gap shaded."
    )
    explore("1.4-widget", alt, draw, controls, figure_dir)


def posterior_of_image(model: VAE, x: Tensor, labels: Tensor, figure_dir: str = "") -> None:
    """The exact posterior of an image in the plane of two latents, the encoder's normal in it, and the best normal.

    x: (N, …), zeros and ones, of the classes `labels` (N,), by which the slider has them sorted.
    """
    order = labels.argsort(stable=True)
    x, classes = x[order.to(x.device)].flatten(1), labels[order].tolist()
    exact = posterior.exact(model, x)
    gaps: dict[int, posterior.Gap] = {}

    @torch.no_grad()
    def images(image: int, found: posterior.Gap) -> dict[str, Tensor]:
        means = torch.stack([found.q[0], found.best[0]]).to(x)
        return dict(zip(("the image", *posterior.NORMALS), (x[image], *model.decode(means).sigmoid()), strict=True))

    def draw(number: float) -> Drawing:
        image = int(number)
        if image not in gaps:
            gaps[image] = posterior.gap(model, x[image], exact[image])
        found = gaps[image]
        figure = plt.figure(figsize=(9, 4.6), layout="none")
        places = ((0.01, 0.42, 0.26, 0.5), (0.01, 0.04, 0.12, 0.24), (0.15, 0.04, 0.12, 0.24))
        for (name, own), place in zip(images(image, found).items(), places, strict=True):
            axis = figure.add_axes(place)
            figures.draw_images(axis, own[None], 1, name if name == "the image" else f"{name}:\nμ decoded")
        axis = figure.add_axes((0.345, 0.115, 0.41, 0.8))
        posterior.draw_posterior(axis, model, x[image], exact[image], found)
        figure.legend(handles=posterior.legend(), loc="center right", fontsize=9)
        whole = found.log_px - found.elbo
        axis.set_title(f"gap {whole:.2f} nats = family {found.family:z.2f} + encoder {found.encoder:z.2f}")
        return figure, (
            f"a {classes[image]}: log p(x) = {found.log_px:.3f}, ELBO = {found.elbo:.3f}, gap = {whole:.3f} nats: "
            f"{found.family:z.3f} for the family, {found.encoder:z.3f} for the encoder"
        )

    # The first: the least normal posterior of those that the encoder finds at all
    codes = model.encode(x)[0].detach().cpu().double()
    found = [own.density(code) > own.level(0.9) for own, code in zip(exact, codes, strict=True)]
    bends = [own.bend() if near else 0.0 for own, near in zip(exact, found, strict=True)]
    controls = {"number": slider("image no.", bends.index(max(bends)), 0, len(x) - 1, 1)}
    alt = (
        "A binary image and the images decoded at the means of two normals; the exact posterior in the plane, not a "
        "normal, with the ellipses of the encoder's normal and of the best one, which covers but a part of it."
    )
    explore("1.6-widget", alt, draw, controls, figure_dir)


def two_directions(figure_dir: str = "") -> None:
    """One normal q in place of two humps p, by KL(p ‖ q) and by KL(q ‖ p), and both divergences against the distance.

    p = 0.6 · N(−h, 0.6²) + 0.4 · N(h, 0.6²). Thin: where KL(q ‖ p) is least among its neighbours alone.
    """
    z = torch.linspace(-7, 7, 701, dtype=torch.float64)
    every = [step / 10 for step in range(31)]
    fits = {h: normals.both_directions(h) for h in every}
    names = "by KL($p$ ‖ $q$)", "by KL($q$ ‖ $p$)"

    def draw(separation: float) -> Drawing:
        forward, (best, *others) = fits.get(separation) or normals.both_directions(separation)
        figure, (left, right) = panels(2, 9, 3.6)
        left.fill_between(z, normals.log_two_humps(z, separation).exp(), color="#cccccc", label="$p$")
        for fit, name, colour, style in zip((forward, best), names, figures.COLOURS, figures.LINES, strict=False):
            left.plot(z, normals.density(z, fit.mean, fit.std), color=colour, linestyle=style, linewidth=2, label=name)
        for number, fit in enumerate(others):
            label = "its other minima" if number == 0 else None
            curve = normals.density(z, fit.mean, fit.std)
            left.plot(z, curve, color=figures.COLOURS[1], linestyle=":", linewidth=1, label=label)
        left.set(xlabel="$z$", ylabel="density", ylim=(0, 0.95))
        left.legend(loc="upper left", ncols=2)
        minima = [(h, fit.kl) for h, (_, found) in fits.items() for fit in found[1:]]
        right.plot(every, [own[0].kl for own in fits.values()], linewidth=2, label="least KL($p$ ‖ $q$)")
        right.plot(every, [own[1][0].kl for own in fits.values()], linewidth=2, label="least KL($q$ ‖ $p$)")
        right.plot(*zip(*minima, strict=True), ".", markersize=3, color=figures.COLOURS[1], label="its other minima")
        right.axvline(separation, color="black", linewidth=1)
        for fit, colour in zip((forward, best), figures.COLOURS, strict=False):
            right.plot(separation, fit.kl, "o", color=colour, clip_on=False)
        right.set(xlabel="$h$: the humps are at $−h$ and $h$", ylabel="divergence (nats)", xlim=(0, 3), ylim=(0, 1.5))
        right.legend(loc="upper left")

        def told(fit: normals.Fit) -> str:
            return f"{fit.kl:z.3f} nats with μ = {fit.mean:z.2f}, σ = {fit.std:.2f}"

        rest = "".join(f"; another minimum: {told(fit)}" for fit in others)
        return figure, f"least KL(p ‖ q): {told(forward)}; least KL(q ‖ p): {told(best)}{rest}"

    controls = {"separation": slider("humps at ±h", 2.0, 0, 3, 0.05)}
    alt = (
        "Left, two humps at −2 and 2; the normal of the least KL(p ‖ q) spans both, that of the least KL(q ‖ p) sits "
        "on the left one. Right, both divergences against h; the second one levels off where its fit leaves one hump."
    )
    explore("1.beyond-d-widget", alt, draw, controls, figure_dir)


def stretched_density(figure_dir: str = "") -> None:
    """A monotone map x = z + steepness · tanh(z − centre), the density that it makes of a normal one, and an interval
    of x with its image in z: both hold the same mass."""
    z = torch.linspace(-5, 5, 1001, dtype=torch.float64)
    width = 2.0

    def draw(steepness: float, centre: float, start: float) -> Drawing:
        def mapped(z: Tensor) -> tuple[Tensor, Tensor]:  # x, and its slope in z
            return z + steepness * torch.tanh(z - centre), 1 + steepness / torch.cosh(z - centre) ** 2

        x, stretch = mapped(z)
        density = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
        ends = np.interp([start, start + width], x, z).tolist()
        figure, axes = panels(3, 9, 3)
        axes[0].plot(x, z)
        axes[0].set(xlabel="$x$", ylabel="$z = f(x)$", xlim=(-12, 12))
        axes[0].axvspan(start, start + width, color=figures.COLOURS[1], alpha=0.4, linewidth=0)
        axes[0].axhspan(*ends, color=figures.COLOURS[1], alpha=0.4, linewidth=0)
        inside = torch.linspace(ends[0], ends[1], 401, dtype=torch.float64)
        own, slope = mapped(inside)
        under = torch.exp(-(inside**2) / 2) / math.sqrt(2 * math.pi)
        parts = (("x", x, density / stretch, own, under / slope), ("z", z, density, inside, under))
        areas = [torch.trapezoid(height, at).item() for _, _, _, at, height in parts]
        for axis, (name, everywhere, curve, at, height) in zip(axes[1:], parts, strict=True):
            axis.plot(everywhere, curve)
            axis.fill_between(at, height, color=figures.COLOURS[1], alpha=0.4, linewidth=0)
            axis.set(xlabel=f"${name}$", ylabel="$p(x)$" if name == "x" else "$p_z(z)$", ylim=(0, 0.45))
        axes[1].set(xlim=(-12, 12))
        return (
            figure,
            f"slope f′ from {1 / stretch.max().item():.3f} to {1 / stretch.min().item():.3f}; "
            f"shaded: {areas[0]:.3f} in x, {areas[1]:.3f} in z",
        )

    controls = {
        "steepness": slider("steepness s", 4.0, 0, 9, 0.1),
        "centre": slider("centre", 0.0, -2, 2, 0.05),
        "start": slider("interval from x =", 2.0, -12, 10, 0.1),
    }
    alt = (
        "A monotone map, flat in the middle, the density that it makes of a normal one, low where the map is flat, and "
        "the normal one; an interval of x and its image in z are shaded under both."
    )
    explore("3.1-widget", alt, draw, controls, figure_dir)


def warped_plane(flow: Flow, points: Tensor, figure_dir: str = "", name: str = "3.beyond-a-widget") -> None:
    """Points (N, 2) and a grid, carried through the layers of a flow of the plane.

    Between two layers each point goes straight from one place to the next. It keeps the colour of where it began.
    """
    side, fine = (torch.linspace(-2, 2, n, device=points.device, dtype=points.dtype) for n in (25, 400))
    upright = torch.stack(torch.meshgrid(side, 0.75 * fine, indexing="ij"), dim=2)
    level = torch.stack(torch.meshgrid(fine, 0.75 * side, indexing="xy"), dim=2)
    lines = torch.cat([upright, level])  # (50, 400, 2): fine enough that no two chords cross
    stages, log_dets = [torch.cat([points, lines.flatten(0, 1)])], [points.new_zeros(len(points))]
    with torch.no_grad():
        for layer in flow.bijection.layers:
            after, change = layer(stages[-1])
            stages.append(after)
            log_dets.append(log_dets[-1] + change[: len(points)])
    last = len(stages) - 1

    def draw(depth: float) -> Drawing:
        before = min(int(depth), last - 1)
        own = torch.lerp(stages[before], stages[before + 1], depth - before).cpu().numpy()
        figure, [axis] = panels(1, 4.5, 4.8, top=0.4)
        axis.scatter(own[: len(points), 0], own[: len(points), 1], s=2, c=points[:, 0].cpu().numpy(), zorder=2)
        axis.add_collection(
            LineCollection([*own[len(points) :].reshape(lines.shape)], colors="#777777", linewidths=0.5)
        )
        axis.set(xlim=(-4, 4), ylim=(-4, 4), aspect="equal", xlabel="$h_1$", ylabel="$h_2$")
        whole = int(depth)
        axis.set_title(f"after {depth:g} layers")
        way = "" if whole == depth else f", on the way to layer {whole + 1}"
        mean = log_dets[whole].mean().item()
        return figure, f"after layer {whole}{way}: mean log-determinant of {whole} layers {mean:.3f} nats"

    controls = {"depth": slider("depth (layers)", 4, 0, last, 0.25)}
    alt = "Two moons and a grid of lines after four of the flow's eight layers: bent, but nowhere torn."
    explore(name, alt, draw, controls, figure_dir, play="depth")


def interpolation(
    name: str, codes: Tensor, labels: Tensor, decode: Callable[[Tensor], Tensor], figure_dir: str = ""
) -> None:
    """The way from one digit's code to another's, straight or spherical: eleven images along it, and the one at t.

    codes: (N, D), of digits of the classes `labels` (N,), by which the sliders have them sorted; they begin with the
    first 2 and the first 7. decode: codes (N, D) to images (N, 784) or (N, 1, 28, 28) in [0, 1].
    """
    order = labels.argsort(stable=True)
    codes, classes = codes[order.to(codes.device)], labels[order].tolist()
    stops = 11
    decoded: dict[tuple[int, int, str], Image.Image] = {}  # the row of the last way alone

    def along(start: int, end: int, way: str, t: Tensor) -> Tensor:
        ends = codes[start], codes[end]
        between = torch.lerp if way == "straight" or start == end else slerp  # a code and itself have no angle
        return torch.stack([between(*ends, own).flatten() for own in t.split(1)])

    @torch.no_grad()
    def draw(start: float, end: float, way: str, fraction: float) -> Drawing:
        chosen = int(start), int(end), way
        if chosen not in decoded:
            t = torch.linspace(0, 1, stops, device=codes.device, dtype=codes.dtype)
            decoded.clear()
            decoded[chosen] = tiled(decode(along(*chosen, t)), stops, pixel=THUMB)
        code = along(*chosen, torch.tensor([fraction], device=codes.device, dtype=codes.dtype))
        picture = below(decoded[chosen], tiled(decode(code), 1), (0.5 + fraction * (stops - 1)) / stops)
        start_norm, norm, end_norm = (own.norm().item() for own in (codes[chosen[0]], code, codes[chosen[1]]))
        reading = f"from a {classes[chosen[0]]} to a {classes[chosen[1]]}, t = {fraction:.2f}; "
        return pack(
            picture
        ), f"{reading}norm of z: {start_norm:.1f} at the start, {norm:.1f} here, {end_norm:.1f} at the end"

    last = len(classes) - 1
    first, second = (min(bisect_left(classes, own), last) for own in (2, 7))
    controls: dict[str, Any] = {
        "start": slider("from image no.", first, 0, last, 1),
        "end": slider("to image no.", second, 0, last, 1),
        "way": choice("way", ("straight", "spherical")),
        "fraction": slider("fraction t", 0.5, 0, 1, 0.02),
    }
    way = f"from a {classes[first]} to a {classes[second]}"
    alt = f"Eleven images on the way {way}, and below, larger, the one half way."
    explore(name, alt, draw, controls, figure_dir)


def below(row: Image.Image, large: Image.Image, share: float) -> Image.Image:
    """A row of images, an arrow that points at this share of its width, and the large image under the arrow."""
    at, gap = share * row.width, 14
    picture = Image.new("L", (row.width, row.height + gap + large.height), 255)
    picture.paste(row)
    left = min(max(at - large.width / 2, 0), row.width - large.width)
    picture.paste(large, (round(left), row.height + gap))
    ends = [(at, row.height + 1), (at - 7, row.height + gap - 2), (at + 7, row.height + gap - 2)]
    ImageDraw.Draw(picture).polygon(ends, fill=0)
    return picture


def temperature(models: dict[str, Callable[[Tensor], Tensor]], codes: dict[str, Tensor], figure_dir: str = "") -> None:
    """The same draws of the prior, multiplied by a temperature, decoded: a row of digits for each model.

    models: name -> decoder of codes to images in [0, 1]. codes: name -> draws (N, D), N the same for all.
    """

    @torch.no_grad()
    def draw(factor: float) -> Drawing:
        images = torch.cat([decode(factor * codes[name]).reshape(-1, 784) for name, decode in models.items()])
        return digits(images, len(images) // len(models), [*models], pixel=2), f"T = {factor:.2f}"

    controls = {"factor": slider("temperature T", 0.7, 0, 1.5, 0.05)}
    alt = f"Rows of digits drawn at the temperature 0.7: {', '.join(models)}."
    explore("3.beyond-b-widget", alt, draw, controls, figure_dir)
