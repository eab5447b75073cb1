"""The checker of notebook 3's exercise on noise, and how objects are read, and whatever draws by a generator."""

import math
import random as python_random
from collections.abc import Callable
from types import MethodType
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.distributions import Normal

from gm_helpers.exercises.checking import (
    UNTOUCHED,
    Mistake,
    Open,
    TimeUp,
    Wrong,
    call,
    exercise,
    foreign,
    is_open,
    numbers,
    rng,
    shown,
)
from gm_helpers.exercises.flow_density import NOTEBOOK, pair


def refuse_hollow(kind: type) -> None:
    """Raise Open for a class of which nothing is filled in, be it that of a module."""
    parents = [own for own in kind.__mro__ if own not in (object, nn.Module)]
    parts = [value for own in parents for value in vars(own).values()]
    if all(is_open(own) for own in parts if callable(own) or isinstance(own, staticmethod | classmethod)):
        raise Open(UNTOUCHED.message)


def method(own: Any, name: str, where: str) -> Any:
    """The object's method of that name; raises Wrong where it has none, and Open where it has no body."""
    try:
        found = foreign(getattr, own, name, None)
    except TimeUp:
        raise
    except BaseException:  # of an answer's own making
        found = None
    if not callable(found):
        raise Wrong(f"{where}: your object, {shown(own)}, has no method `{name}`")
    if isinstance(found, MethodType) and is_open(found.__func__):
        raise Open(f"`{name}` is not filled in yet")
    return found


NO_DRAWS = "are they draws, and does each of them come from the generator, which moves on with every draw?"
OWN_CHANCE = "is all chance taken from the generator?"


def drawn(
    sampler: Any, read: Callable[[Any, int, str], Tensor], n: int, random: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """What sampler(n, generator) gives twice in a row, as read(given, n, where) reads it, (n, …).

    Raises Wrong where the draws don't come from the generator: the second time they are others, and from the same
    state they are the same.
    """

    def draw(count: int, generator: Generator) -> Tensor:
        where = f"for n = {count:,}"
        return read(call(sampler, {"n": count, "generator": generator}, where), count, where)

    draw(3, Generator().manual_seed(0))  # the smallest case for what has a wrong shape
    seed = int(random.integers(2**31))
    generator = Generator().manual_seed(seed)
    first, second = draw(n, generator), draw(n, generator)
    for other in (torch.manual_seed, np.random.seed, python_random.seed):  # chance that is not the generator's
        other(seed + 1)
    again = draw(n, Generator().manual_seed(seed))
    if torch.equal(first[:, 0].sort().values, second[:, 0].sort().values):
        raise Wrong(f"called again with the same generator, it gives the same numbers.\n{NO_DRAWS}")
    if not torch.equal(first, again):
        raise Wrong(f"called again with a generator in the same state, it gives other numbers.\n{OWN_CHANCE}")
    return first, second


# ---------------------------------------------------------------- 3.4

MEAN, DEVIATION = -6.525, 0.954  # of the logits of black pixels under uniform noise
LEVELS, ALPHA = 256, 1e-5
DRAWS = 100_000
LIMIT = 0.25  # bits
ROUNDING = 1e-6  # of float32, at the ends of [0, 1)


def _logit(u: Tensor) -> Tensor:
    w = ALPHA + (1 - 2 * ALPHA) * u / LEVELS
    return w.log() - (-w).log1p()


def _log_slope(u: Tensor) -> Tensor:
    """log da/du."""
    w = ALPHA + (1 - 2 * ALPHA) * u / LEVELS
    return math.log((1 - 2 * ALPHA) / LEVELS) - w.log() - (-w).log1p()


def _log_normal(u: Tensor) -> Tensor:
    """The normal's log-density at the logit."""
    return Normal(MEAN, DEVIATION).log_prob(_logit(u))


def _log_p(u: Tensor) -> Tensor:
    """The log-density of x + u that the normal gives, not normalised on the cell."""
    return _log_normal(u) + _log_slope(u)


def _log_mass() -> float:
    """Of the normal on the cell, by a sum over the logits."""
    first, last = _logit(torch.tensor([0.0, 1.0], dtype=torch.float64))
    a = torch.linspace(first.item(), last.item(), 20_001, dtype=torch.float64)
    return math.log(torch.trapezoid(Normal(MEAN, DEVIATION).log_prob(a).exp(), a).item())


_CONSTANT = "the normal is cut off to the logits of the cell: what is left of it has to be a density again"
_SLOPE = "u and its logit have different densities: is log q one of u?"
# what each gives for log q where the draws are those of the best density
NOISE_MISTAKES = [
    Mistake(_log_p, _CONSTANT),
    Mistake(lambda u: _log_p(u) + _log_mass(), "the constant of the cut: is log q larger for it, or smaller?"),
    Mistake(lambda u: _log_normal(u) - _log_mass(), _SLOPE),
    Mistake(_log_normal, f"{_SLOPE}\n{_CONSTANT}"),
    Mistake(
        lambda u: _log_normal(u) - _log_mass() - _log_slope(u), "the slope's sign: is it that of a in u, or of u in a?"
    ),
    Mistake(
        lambda u: _log_p(u) - _log_mass() + math.log(LEVELS),
        "from u to the logit there are three maps, and the scaling is one of them",
    ),
    Mistake(lambda u: (_log_p(u) - _log_mass()) / math.log(2), "log q is asked for in nats"),
    Mistake(lambda u: _log_mass() - _log_p(u), "the sign: that is −log q"),
    Mistake(lambda u: (_log_p(u) - _log_mass()).exp(), "that is q, and log q is asked for"),
    Mistake(lambda u: _log_p(u) * 0, "log q = 0 is that of uniform noise; which density has yours?"),
]
UNIFORM = "that is uniform noise, whatever the model: where in [0, 1) does the normal put its mass?"
NOT_ITS_OWN = "is log q the density of these draws, of u itself, and does it integrate to 1?"
LOOSE = "that is a bound, but a loose one: for which q is Jensen's inequality an equality?"
PILED = "have draws been moved to the edge of the cell? A density has no mass on a point"
BEYOND = "the normal reaches beyond the cell of a black pixel, and u must not"


def _noise(given: Any, n: int, where: str) -> Tensor:
    """u and log q as the columns of one tensor (n, 2)."""
    if isinstance(given, Tensor | np.ndarray) and given.ndim == 2 and len(given) == 2:
        given = given[0], given[1]
    parts = zip(pair(given, "u and log_q", where), ("u", "log_q"), strict=True)
    u, log_q = (numbers(own, (n,), f"{where}, {name}: ") for own, name in parts)
    outside = (u < -ROUNDING) | (u >= 1 + ROUNDING)
    if outside.any():
        which = f"{int(outside.sum()):,} of {n:,} draws lie outside [0, 1), one at {shown(u[outside][0])}"
        raise Wrong(f"{where}: {which}.\n{BEYOND}")
    return torch.stack([u.clamp(0, 1), log_q], dim=1)


def _integral(u: Tensor, log_q: Tensor) -> tuple[float, str]:
    """q's integral over the range of the draws; in words, where its distribution function is not that of the draws."""
    order = u.argsort()
    reached = torch.cumulative_trapezoid(log_q[order].clamp(max=50).exp(), u[order])
    shares, masses = torch.arange(1, len(u), dtype=torch.float64) / len(u), reached / reached[-1]
    at = int((masses - shares).abs().argmax())
    by_chance = 2.7 / math.sqrt(len(u)) + 0.002  # is exceeded once in a million times (Kolmogorov)
    if abs(masses[at] - shares[at]) <= by_chance:
        return reached[-1].item(), ""
    where = f"below u = {u[order][at]:.2f} lie {shares[at]:.0%} of the draws, and {masses[at]:.0%} of the mass of q"
    return reached[-1].item(), where


@exercise(NOTEBOOK, "3.4", seconds=20)
def black_noise(answer: Any) -> str:
    """(n, generator) -> (u (n,), log_q (n,)): noise in [0, 1) for a black pixel, and its log-density in nats.

    Its cost is E_q[log q(u) − log p(u)] in bits, with p the density that the normal of the logits gives u. The least
    is that of the normal's own density on the cell.
    """
    u, log_q = drawn(answer, _noise, DRAWS, rng())[0].T
    cost = (log_q - _log_p(u)) / math.log(2)
    mean, error = cost.mean().item(), cost.std().item() / math.sqrt(DRAWS)
    fault = _fault(u, log_q, mean + 5 * error)
    if fault:
        known = (own.idea for own in NOISE_MISTAKES if (own.gives(u) - log_q).abs().max() < 2e-3)
        raise Wrong(f"for n = {DRAWS:,}: {fault}, at a cost of {mean:.3f} bits.\n{next(known, NOT_ITS_OWN)}")
    if mean > LIMIT:
        raise Wrong(f"the cost is {mean:.3f} bits.\n{UNIFORM if log_q.abs().max() < 1e-3 else LOOSE}")
    return f"{DRAWS:,} draws: they have the density that is told, and cost at most {LIMIT} bits"


def _fault(u: Tensor, log_q: Tensor, cost: float) -> str:
    """Why log q can't be the log-density of these draws, of which this is the cost at most; nothing where it can."""
    often = u.unique(return_counts=True)[1].max().item()
    if often > DRAWS / 1000:
        raise Wrong(f"for n = {DRAWS:,}: {often:,} draws are one and the same number.\n{PILED}")
    integral, elsewhere = _integral(u, log_q)
    if abs(integral - 1) > 0.012:
        return f"q integrates to {integral:.3g}"
    too_cheap = cost < -_log_mass() / math.log(2) - 1e-3
    return elsewhere or ("less than is possible" if too_cheap else "")
