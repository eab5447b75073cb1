"""The exact posterior of a VAE with two latents, with the encoder's normal and the best one beside it, and what each of
the two loses. All sums are deterministic: no noise of draws is in them."""

import copy
import math
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse, Patch
from torch import Tensor

from gm_helpers import figures
from gm_helpers.normals import LOG_2_PI, log_normal, maximised
from gm_helpers.vae import VAE, kl_standard_normal

REACH, SPACING = 8.0, 0.1  # of the first grid of codes: the farthest of 10,000 test images has its code at 7.2
DEPTH = 30.0  # nats below the highest point, where a finer grid is not worth its codes: e⁻³⁰ is 1e-13


def log_joint(model: VAE, x: Tensor, z: Tensor, at_once: int = 8192) -> Tensor:
    """log p(x|z) p(z) of every image with every code, in nats, float64: x (N, …) zeros and ones, z (M, 2) to (N, M).

    log p(x|z) = Σ x a − log(1 + eᵃ), a the logits: the second part is the same for all images. The codes come by
    `at_once`, so that their logits take 25 MB at a time.
    """
    x, parts = x.flatten(1), []
    for own in z.split(at_once):
        logits = model.decode(own.to(x.dtype))
        log_likelihood = (x @ logits.T).double() - F.softplus(logits).sum(1, dtype=torch.float64)
        parts.append(log_likelihood - (0.5 * own.double() ** 2).sum(1) - LOG_2_PI)
    return torch.cat(parts, 1)


@dataclass(frozen=True)
class Posterior:
    """The exact posterior of an image on the points of an even grid, without those where it has nothing.

    codes: (M, 2). log_density: log p(z|x), (M,). spacing: of the grid. log_px: log p(x), in nats.
    """

    codes: Tensor
    log_density: Tensor
    spacing: float
    log_px: float

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and log-deviation of each latent, (2,) each."""
        mass = torch.exp(self.log_density) * self.spacing**2
        mean = mass @ self.codes
        return mean, 0.5 * torch.log(mass @ (self.codes - mean) ** 2)

    def bend(self) -> float:
        """KL(posterior ‖ the normal with its moments and independent latents), in nats: 0 for such a normal."""
        mean, log_std = self.moments()
        log_q = log_normal((self.codes - mean) / log_std.exp(), 0.0, 1.0).sum(1) - log_std.sum()
        return (self.log_density.exp() * (self.log_density - log_q)).sum().item() * self.spacing**2

    def density(self, code: Tensor) -> float:
        """p(z|x) at the point of the grid that is nearest to a code (2,); 0 where the grid has none near."""
        distance = (self.codes - code).abs().amax(1)
        return self.log_density[distance.argmin()].exp().item() if distance.min() < self.spacing else 0.0

    def level(self, mass: float) -> float:
        """The density above which that share of the mass lies."""
        falling = self.log_density.exp().sort(descending=True).values * self.spacing**2
        enclosed = falling.cumsum(0) - falling / 2  # a point's own density lies in the middle of its mass
        return float(np.interp(mass, enclosed.numpy(), falling.numpy())) / self.spacing**2


@torch.no_grad()
def exact(model: VAE, x: Tensor, reach: float = REACH, spacing: float = SPACING) -> list[Posterior]:
    """The exact posterior of each image: x (N, …), zeros and ones.

    A sum over an even grid is exact as soon as its spacing is no more than the deviation of the narrowest hump. That
    is not known before, so the grid is refined: a first one for all images, then, for each, half the spacing around the
    points that are at most DEPTH nats below the highest, until log p(x) changes by less than 10⁻⁴. (A hump with a
    deviation below 0.01 could fall between the points of the first grid, and be missed.)
    """
    model, x = _on_cpu(model, x)
    side = torch.arange(-reach, reach + spacing / 2, spacing, dtype=torch.float64)
    codes = torch.cartesian_prod(side, side)
    every = log_joint(model, x, codes)
    found = []
    for image, values in zip(x, every, strict=True):
        sparse = values.view(len(side), len(side))[::2, ::2]
        found.append(_refined(model, image, codes, values, spacing, _log_sum(sparse.flatten(), 2 * spacing)))
    return found


def _log_sum(values: Tensor, spacing: float) -> float:
    """The logarithm of the sum over an even grid of the plane."""
    return torch.logsumexp(values, 0).item() + 2 * math.log(spacing)


def _on_cpu(model: VAE, x: Tensor) -> tuple[VAE, Tensor]:
    """Copies where float64 is to be had, without gradients of the weights."""
    return copy.deepcopy(model).cpu().requires_grad_(False), x.detach().cpu()


def _refined(model: VAE, x: Tensor, codes: Tensor, values: Tensor, spacing: float, before: float) -> Posterior:
    """The posterior of one image from log p(x, z) on a first grid, and log p(x) by one with twice the spacing."""
    corners = torch.tensor([[-1, -1], [-1, 1], [1, -1], [1, 1]], dtype=torch.float64)
    while True:
        log_px = _log_sum(values, spacing)
        high = values > values.max() - DEPTH
        codes, values = codes[high], values[high]
        if abs(log_px - before) < 1e-4 or spacing < 0.002:  # float32 has no finer steps to be waited for
            return Posterior(codes, values - log_px, spacing, log_px)
        spacing, before = spacing / 2, log_px
        codes = (codes[:, None] + spacing / 2 * corners).flatten(0, 1)  # each gives way to four, in its quarters
        values = log_joint(model, x[None], codes)[0]


def elbo(model: VAE, x: Tensor, mean: Tensor, log_std: Tensor, nodes: int = 20) -> Tensor:
    """The ELBO of one image for normals q with independent latents, in nats: means, log-deviations (S, 2) to (S,).

    E_q[log p(x|z)] is summed at nodes² codes (Gauss–Hermite), so it has no noise; gradients pass.
    """
    points, weights = (torch.from_numpy(own) for own in np.polynomial.hermite_e.hermegauss(nodes))
    eps, weights = torch.cartesian_prod(points, points), torch.outer(weights, weights).flatten() / (2 * math.pi)
    z = mean[:, None] + log_std.exp()[:, None] * eps  # (S, nodes², 2)
    logits = model.decode(z.flatten(0, 1).to(x.dtype))
    log_likelihood = (logits @ x.flatten()).double() - F.softplus(logits).sum(1, dtype=torch.float64)
    return log_likelihood.view(len(z), -1) @ weights - kl_standard_normal(mean, 2 * log_std)


def best_normal(model: VAE, x: Tensor, mean: Tensor, log_std: Tensor) -> tuple[Tensor, Tensor]:
    """The normal with independent latents that has the highest ELBO for one image: mean and log-deviation, (2,) each.

    mean, log_std: (S, 2), starts of the search, none of which is better than what is found.
    """
    # Few nodes for the search from all starts, all for the last steps; float32 has no finer steps than 10⁻⁵
    found = maximised(lambda own, log_own: elbo(model, x, own, log_own, 10), mean, log_std, 1e-5)
    means, log_stds = torch.cat([mean, found[0]]), torch.cat([log_std, found[1]])
    with torch.no_grad():
        best = elbo(model, x, means, log_stds).argmax()[None]
    last = maximised(lambda own, log_own: elbo(model, x, own, log_own), means[best], log_stds[best], 1e-5)
    return last[0][0], last[1][0]


@dataclass(frozen=True)
class Gap:
    """What separates the ELBO of one image from log p(x), in nats, and in whose account it is.

    family: what remains with the best normal with independent latents. encoder: what that one gains over the encoder's.
    Their sum is KL(q ‖ posterior) (Cremer, Li & Duvenaud 2018: approximation gap and amortisation gap).
    q, best: mean and log-deviation, (2,) each, of the encoder's normal and of the best one.
    """

    log_px: float
    elbo: float
    family: float
    encoder: float
    q: tuple[Tensor, Tensor]
    best: tuple[Tensor, Tensor]


def gap(model: VAE, x: Tensor, own: Posterior) -> Gap:
    """The gap of one image, (…) with 784 pixels, whose exact posterior is known.

    The best normal is sought from the encoder's, from one with the moments of the posterior, and from a narrow one at
    its highest point, because a posterior with several humps has a best normal on each.
    """
    model, x = _on_cpu(model, x)
    mean, log_var = (part[0].double() for part in model.encode(x.reshape(1, -1)))
    narrow = own.codes[own.log_density.argmax()], torch.full((2,), math.log(2 * own.spacing), dtype=torch.float64)
    starts = [(mean, 0.5 * log_var), own.moments(), narrow]
    best = best_normal(model, x, *(torch.stack(part) for part in zip(*starts, strict=True)))
    reached, highest = (elbo(model, x, q[0][None], q[1][None]).item() for q in (starts[0], best))
    return Gap(own.log_px, reached, own.log_px - highest, highest - reached, starts[0], best)


# ---------------------------------------------------------------- its picture

SHARES = (0.99, 0.9, 0.5)  # of the mass, that the areas hold
SHADES = ("#d6e6f2", "#9cc4e0", "#5a9bc8")
NORMALS: dict[str, tuple[str, Any, str]] = {
    "encoder's q": (figures.COLOURS[1], "-", "+"),
    "best normal": ("black", "--", "x"),
}


def legend() -> list[Artist]:
    """What the areas and the ellipses of `draw_posterior` are, to be given to a legend as handles."""
    areas = [Patch(color=shade, label=f"{100 * share:.0f} %") for shade, share in zip(SHADES, SHARES, strict=True)]
    areas.reverse()
    areas[0].set_label(f"posterior: {areas[0].get_label()}")
    lines = [
        Line2D([], [], color=colour, linestyle=style, marker=mark, label=f"{name}, 1σ and 2σ")
        for name, (colour, style, mark) in NORMALS.items()
    ]
    return [*areas, *lines]


def _window(own: Posterior, normals: list[tuple[Tensor, Tensor]]) -> tuple[tuple[float, float], float]:
    """Centre and half the side of a square that holds nearly all of the posterior and the ellipses of the normals."""
    parts = [own.codes[own.log_density.exp() > own.level(0.995)]]
    parts += [(mean + side * 2.2 * log_std.exp())[None] for mean, log_std in normals for side in (-1, 1)]
    points = torch.cat(parts)
    low, high = points.amin(0), points.amax(0)
    across, up = ((low + high) / 2).tolist()
    return (across, up), 0.54 * (high - low).max().item()


@torch.no_grad()
def draw_posterior(axes: Axes, model: VAE, x: Tensor, own: Posterior, found: Gap, points: int = 90) -> None:
    """The exact posterior of an image as areas that hold 50, 90 and 99 % of its mass, and the ellipses of both normals.

    x: the image, with 784 pixels. The posterior is decoded anew at points² codes of the window that is drawn.
    """
    model, x = _on_cpu(model, x)
    normals = [found.q, found.best]
    (across, up), half = _window(own, normals)
    side = torch.linspace(-half, half, points, dtype=torch.float64)
    codes = torch.cartesian_prod(side + across, side + up)
    density = torch.exp(log_joint(model, x[None], codes)[0] - own.log_px).view(points, points).T.numpy()
    levels = [own.level(share) for share in SHARES]
    axes.contourf((side + across).numpy(), (side + up).numpy(), density, [*levels, math.inf], colors=SHADES)
    for (mean, log_std), (colour, style, mark) in zip(normals, NORMALS.values(), strict=True):
        middle = float(mean[0]), float(mean[1])
        axes.plot(*middle, mark, color=colour, markersize=6)
        for deviations in (2, 4):  # across
            width, height = (deviations * log_std.exp()).tolist()
            ellipse = Ellipse(middle, width, height, fill=False)
            ellipse.set(color=colour, linestyle=style, linewidth=1.4)
            axes.add_patch(ellipse)
    axes.set(xlabel="$z_1$", ylabel="$z_2$", aspect="equal")
    axes.set(xlim=(across - half, across + half), ylim=(up - half, up + half))
    axes.locator_params(nbins=4)


def draw_posteriors(model: VAE, x: Tensor, labels: Tensor) -> Figure:
    """For each of six images its exact posterior, the encoder's normal and the best one, and how large the gaps are.

    x: (6, …), zeros and ones. labels: their classes, (6,).
    """
    figure = plt.figure(figsize=(8, 6.7), layout="none")
    figure.subplots_adjust(left=0.075, right=0.985, bottom=0.07, top=0.855, wspace=0.3, hspace=0.55)
    figure.legend(handles=legend(), loc="upper center", ncols=5, fontsize=9, columnspacing=1.4)
    panels = figure.subplots(2, 3).flat
    for axes, image, label, own in zip(panels, x, labels.tolist(), exact(model, x), strict=True):
        found = gap(model, image, own)
        draw_posterior(axes, model, image, own, found)
        figures.draw_images(axes.inset_axes((-0.2, 1.03, 0.27, 0.27)), image.reshape(1, 784), 1)
        lines = (
            f"a {label}: $\\log p(x)$ = {found.log_px:.2f}",
            f"ELBO = {found.elbo:.2f}, gap {found.log_px - found.elbo:.2f}",
            f"family {found.family:z.2f} + encoder {found.encoder:z.2f}",
        )
        text = "\n".join(lines).replace("-", "−")
        axes.text(0.12, 1.165, text, transform=axes.transAxes, fontsize=9, va="center", linespacing=1.35)
    return figure
