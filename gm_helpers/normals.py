"""Normals in place of densities on a line, by either divergence: the model of one latent and one datum, and two humps.
All is summed over grids: no noise of draws is in it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

LOG_2_PI = math.log(2 * math.pi)
NOISE = 0.5  # deviation of the datum on a line
# Where a normal is summed: within 8 deviations, 48 steps a deviation, because far humps meet at a sharp bend.
STEPS = torch.linspace(-8, 8, 769, dtype=torch.float64)
MASSES = torch.exp(-(STEPS**2) / 2) / (torch.exp(-(STEPS**2) / 2)).sum()


def maximised(
    bound: Callable[[Tensor, Tensor], Tensor], mean: Tensor, log_std: Tensor, tolerance: float = 1e-10
) -> tuple[Tensor, Tensor]:
    """From each of S starts the normal at a local maximum of a bound: means and log-deviations (S, …), float64.

    bound: means and log-deviations to (S,), of which the sum is maximised until it gains less than `tolerance`. The
    search counts in deviations of its start, in which no direction is much steeper than another.
    """
    shift, stretch = (torch.zeros_like(mean, requires_grad=True) for _ in range(2))
    search = torch.optim.LBFGS(
        [shift, stretch], max_iter=100, tolerance_grad=1e-7, tolerance_change=tolerance, line_search_fn="strong_wolfe"
    )

    def moved() -> tuple[Tensor, Tensor]:
        return mean + log_std.exp() * shift, log_std + stretch

    def loss() -> Tensor:
        value = -bound(*moved()).sum()
        shift.grad, stretch.grad = torch.autograd.grad(value, [shift, stretch])
        return value

    search.step(loss)
    found = moved()
    return found[0].detach(), found[1].detach()


def bound_on_a_line(log_density: Callable[[Tensor], Tensor], mean: Tensor, log_std: Tensor) -> Tensor:
    """E_q[log density(z) − log q(z)] of normals q on a line, (S,), in nats: minus KL(q ‖ density) if that sums to 1."""
    z = mean[:, None] + log_std.exp()[:, None] * STEPS
    return (MASSES * log_density(z)).sum(1) + log_std + 0.5 * (1 + LOG_2_PI)


def log_normal(z: Tensor, mean: Tensor | float, std: float) -> Tensor:
    """log N(z; mean, std²) of each number."""
    return -0.5 * ((z - mean) / std) ** 2 - math.log(std) - 0.5 * LOG_2_PI


def density(z: Tensor, mean: Tensor | float, std: float) -> Tensor:
    """N(z; mean, std²) of each number."""
    return torch.exp(log_normal(z, mean, std))


@dataclass(frozen=True)
class OneDimension:
    """The model with a latent and a datum of one dimension each, at one x: values on a grid, and the best normal.

    z: the grid, (M,). log_joint: log p(x|z) p(z) there. log_px, elbo: in nats. mean, std: of the normal q with the
    highest ELBO. gap: log p(x) − ELBO, which is KL(q ‖ posterior).
    """

    z: Tensor
    log_joint: Tensor
    log_px: float
    mean: float
    std: float
    elbo: float

    @property
    def gap(self) -> float:
        return self.log_px - self.elbo


def one_dimension(x: float, curvature: float) -> OneDimension:
    """z ~ N(0, 1), x | z ~ N(z + curvature · z², NOISE²): likelihood by a sum over a grid, and the best normal q.

    With curvature 0 the posterior is a normal, N(x / (1 + NOISE²), NOISE² / (1 + NOISE²)), and the gap is 0.
    """

    def log_joint(z: Tensor) -> Tensor:
        return log_normal(z, 0.0, 1.0) + log_normal(z + curvature * z**2, x, NOISE)

    z = torch.linspace(-8, 8, 3201, dtype=torch.float64)
    values = log_joint(z)
    starts = torch.linspace(-2, 2, 5, dtype=torch.float64)  # a posterior with two humps has a best normal on each
    mean, log_std = maximised(lambda *q: bound_on_a_line(log_joint, *q), starts, torch.full_like(starts, math.log(0.3)))
    bounds = bound_on_a_line(log_joint, mean, log_std)
    best = int(bounds.argmax())
    log_px = torch.logsumexp(values, 0) + math.log(z[1] - z[0])
    return OneDimension(z, values, log_px.item(), mean[best].item(), log_std[best].exp().item(), bounds[best].item())


@dataclass(frozen=True)
class Fit:
    """A normal in place of a density: its mean and deviation, and the divergence between the two, in nats."""

    mean: float
    std: float
    kl: float


def log_two_humps(z: Tensor, separation: float) -> Tensor:
    """log density of 0.6 · N(−separation, 0.6²) + 0.4 · N(separation, 0.6²)."""
    humps = [math.log(0.6) + log_normal(z, -separation, 0.6), math.log(0.4) + log_normal(z, separation, 0.6)]
    return torch.logsumexp(torch.stack(humps), 0)


def both_directions(separation: float) -> tuple[Fit, list[Fit]]:
    """One normal q in place of two humps p: the one with the least KL(p ‖ q), and all with a locally least KL(q ‖ p).

    The first has the mean and the variance of p. The others are found from several starts, the least first.
    """
    mean, variance = -0.2 * separation, 0.36 + 0.96 * separation**2
    z = torch.linspace(-10, 10, 4001, dtype=torch.float64)
    log_p = log_two_humps(z, separation)
    ratio = log_p - log_normal(z, mean, math.sqrt(variance))
    forward = Fit(mean, math.sqrt(variance), ((log_p.exp() * ratio).sum() * (z[1] - z[0])).item())

    def bound(*q: Tensor) -> Tensor:
        return bound_on_a_line(lambda z: log_two_humps(z, separation), *q)

    starts = torch.tensor([-separation, mean, separation], dtype=torch.float64)
    stds = torch.tensor([0.6, math.sqrt(variance), 0.6], dtype=torch.float64)
    means, log_stds = maximised(bound, starts, stds.log())
    found: list[Fit] = []
    for own in sorted(zip((-bound(means, log_stds)).tolist(), means.tolist(), log_stds.exp().tolist(), strict=True)):
        if all(abs(own[1] - other.mean) + abs(own[2] - other.std) > 1e-2 for other in found):
            found.append(Fit(own[1], own[2], own[0]))
    return forward, found
