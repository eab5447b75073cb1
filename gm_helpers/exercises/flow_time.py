"""The checkers of notebook 3's exercises on flows in time, Beyond (h)."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gm_helpers.exercises.checking import Mistake, Wrong, call, exercise, numbers, rng, shown, stated
from gm_helpers.exercises.flow_density import NOTEBOOK, explained, pair
from gm_helpers.exercises.flow_layers import PRECISION, settle_largest

Case = dict[str, Any]

# ---------------------------------------------------------------- the velocity of a Gaussian path


def _spread(tau: float, s: float) -> float:
    """The variance of (1 − τ)·ε + τ·x."""
    return (1 - tau) ** 2 + (tau * s) ** 2


def _moved_quantile(y: Tensor, tau: float, m: float, s: float) -> Tensor:
    """d/dτ of the point that keeps its quantile: on a line no velocity without crossings carries normals otherwise."""
    z, at = (y - tau * m) / math.sqrt(_spread(tau, s)), torch.full_like(y, tau).requires_grad_()
    with torch.enable_grad():
        moved = at * m + ((1 - at) ** 2 + (at * s) ** 2).sqrt() * z
        return torch.autograd.grad(moved.sum(), at)[0]


def _regressed(
    covariance: Callable[[float, float], float],
    variance: Callable[[float, float], float] = _spread,
    mean: Callable[[float, float], float] = lambda tau, m: m,
    at: Callable[[float, float], float] = lambda tau, m: tau * m,
) -> Callable[..., Tensor]:
    """mean + covariance / variance · (y − at), of y at time τ."""
    return lambda y, tau, m, s: mean(tau, m) + covariance(tau, s) / variance(tau, s) * (y - at(tau, m))


def _right_covariance(tau: float, s: float) -> float:
    return tau * s**2 - (1 - tau)


_ONE_NAME = "that is E[x | x_τ]: how much of the velocity is the noise's, E[ε | x_τ]?"
_NOISE = "that is E[ε | x_τ], or minus that: where is the datum?"
_SIGNS = "Cov(x − ε, x_τ) has two terms, one of the datum and one of the noise: which signs have they?"
_SHARES = "x_τ has the datum τ times and the noise (1 − τ) times: in the covariance, too"
_SQUARES = "the variance of (1 − τ)·ε: does it have the factor 1 − τ, or its square?"
VELOCITY_MISTAKES = [
    Mistake(lambda y, tau, m, s: torch.full_like(y, m), "that is the mean of all velocities; which of them pass y?"),
    Mistake(_regressed(lambda tau, s: tau * s**2), _ONE_NAME),
    Mistake(_regressed(lambda tau, s: 1 - tau, mean=lambda tau, m: 0.0), _NOISE),
    Mistake(_regressed(lambda tau, s: tau - 1, mean=lambda tau, m: 0.0), _NOISE),
    Mistake(
        lambda y, tau, m, s: (1 - tau) * _moved_quantile(y, tau, m, s),
        "that is the way that is left, E[x | x_τ] − x_τ; in which time is it gone?",
    ),
    Mistake(_regressed(lambda tau, s: tau * s**2 + (1 - tau)), _SIGNS),
    Mistake(_regressed(lambda tau, s: (1 - tau) - tau * s**2), _SIGNS),
    Mistake(_regressed(lambda tau, s: s**2 - 1), _SHARES),
    Mistake(_regressed(lambda tau, s: tau**2 * s**2 - (1 - tau) ** 2), _SHARES),
    Mistake(_regressed(lambda tau, s: tau * s - (1 - tau)), "s is a deviation: what is the variance of x?"),
    Mistake(_regressed(_right_covariance, lambda tau, s: (1 - tau) + tau * s**2), _SQUARES),
    Mistake(
        _regressed(_right_covariance, lambda tau, s: ((1 - tau) + tau * s) ** 2),
        "variances of independent parts add up, and not their deviations",
    ),
    Mistake(
        _regressed(_right_covariance, lambda tau, s: math.sqrt(_spread(tau, s))),
        "a regression divides by the variance of x_τ, and not by its deviation",
    ),
    Mistake(_regressed(_right_covariance, lambda tau, s: 1.0), "by what is the covariance to be divided?"),
    Mistake(_regressed(_right_covariance, at=lambda tau, m: 0.0), "the point enters by its distance from a mean"),
    Mistake(_regressed(_right_covariance, at=lambda tau, m: m), "is m the mean of x_τ?"),
    Mistake(_regressed(_right_covariance, mean=lambda tau, m: 0.0), "what is E[x − ε], before anything is known of y?"),
    Mistake(
        _regressed(_right_covariance, mean=lambda tau, m: tau * m),
        "τm is the mean of x_τ; which is the mean of x − ε?",
    ),
    Mistake(
        lambda y, tau, m, s: (m - y) / (1 - tau),
        "that leads straight to the mean: is x there, whatever y is?",
    ),
    Mistake(lambda y, tau, m, s: m - y, "that holds at τ = 0 alone"),
    Mistake(lambda y, tau, m, s: y, "that holds at τ = 1 alone"),
    Mistake(lambda y, tau, m, s: -_moved_quantile(y, tau, m, s), "the sign: at τ = 1 is the datum"),
]


@exercise(NOTEBOOK, "Beyond (h)")
def gaussian_velocity(answer: Any) -> str:
    """(y (N,), tau, m, s) -> (N,), E[x − ε | x_τ = y] for x ~ N(m, s²), ε ~ N(0, 1), x_τ = (1 − τ)·ε + τ·x.

    Compared with the motion of quantiles, by autograd, at random times and at both ends.
    """
    random = rng()
    cases: list[Case] = [{"y": torch.tensor([1.0]).double(), "tau": 0.25, "m": 2.0, "s": 3.0}]
    for tau in [*random.uniform(0.05, 0.95, size=17).tolist(), 0.0, 1.0]:
        m, s = float(random.choice([-1, 1]) * random.uniform(0.5, 3)), float(random.uniform(0.3, 3))
        y = tau * m + math.sqrt(_spread(tau, s)) * torch.from_numpy(random.normal(size=random.integers(1, 9)))
        cases.append({"y": y, "tau": tau, "m": m, "s": s})
    inside = len(cases) - 2
    for some, mistakes in ((cases[:inside], VELOCITY_MISTAKES), (cases[inside:], [])):  # some divide by 0 at an end
        with explained("at the ends of the time τ or 1 − τ is 0: is something divided by it?", "finite"):
            given = [numbers(call(answer, own), tuple(own["y"].shape), f"{stated(own)}: ") for own in some]
        settle_largest(given, some, _moved_quantile, mistakes, "your velocity")
    return "18 random normals at random times against the motion of their quantiles, and both ends of the time"


# ---------------------------------------------------------------- one Euler step


def _jacobians(velocity: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """(B, D, D), row by row."""
    rows: list[Any] = [torch.autograd.functional.jacobian(velocity, row) for row in x]
    return torch.stack(rows)


def _log_det(jacobians: Tensor, delta: float) -> Tensor:
    """log |det(I + delta·J)| of each, (B,)."""
    return (torch.eye(jacobians.shape[1]) + delta * jacobians).slogdet()[1]


def _traces(jacobians: Tensor) -> Tensor:
    return jacobians.diagonal(dim1=1, dim2=2).sum(1)


MOVED_MISTAKES = [
    Mistake(lambda v, x, log_p, delta: x, "nothing has been moved"),
    Mistake(lambda v, x, log_p, delta: x + v(x), "how long is the step?"),
    Mistake(lambda v, x, log_p, delta: x - delta * v(x), "the sign: the velocity says where to go"),
    Mistake(lambda v, x, log_p, delta: delta * v(x), "that is the step; from where?"),
    Mistake(lambda v, x, log_p, delta: v(x), "that is the velocity; from where, and how far?"),
    Mistake(
        lambda v, x, log_p, delta: x + delta * v(x + delta / 2 * v(x)),
        "that is a midpoint step: Euler's takes the velocity where it begins",
    ),
]
Change = Callable[[Tensor, float], Tensor]  # of the log-density by a step, of the Jacobians (B, D, D) and delta
_ALL_ENTRIES = "that adds up all entries of the Jacobian: which of them make the divergence?"
_BATCH = "each point has a divergence of its own"
DENSITY_MISTAKES: list[tuple[Change, str]] = [
    (lambda j, delta: 0 * _traces(j), "the points have moved apart, or together: what does that do to their density?"),
    (lambda j, delta: delta * _traces(j), "the sign: where points move apart, does the density grow?"),
    (lambda j, delta: -_traces(j), "how long is the step?"),
    (lambda j, delta: _traces(j), "how long is the step, and where points move apart, does the density grow?"),
    (lambda j, delta: -delta * j.sum((1, 2)), _ALL_ENTRIES),
    (lambda j, delta: delta * j.sum((1, 2)), f"{_ALL_ENTRIES}\nAnd the sign?"),
    (lambda j, delta: -delta * _traces(j) / j.shape[1], "a mean over the dimensions; a divergence is a sum"),
    (lambda j, delta: (-delta * _traces(j).sum()).expand(len(j)), _BATCH),
    (lambda j, delta: (-delta * _traces(j).mean()).expand(len(j)), _BATCH),
    (lambda j, delta: -delta * j[:, 0, 0], "each coordinate has a slope of its own"),
    (lambda j, delta: -j.slogdet()[1], "the step's Jacobian is not that of the velocity: what does x itself add?"),
    (
        lambda j, delta: -(delta * j).slogdet()[1],
        "the step's Jacobian is not that of the velocity: what does x itself add?",
    ),
    (lambda j, delta: -delta * j.slogdet()[1], "the divergence is the trace of the Jacobian, and not its determinant"),
    (lambda j, delta: -delta * j.det(), "the divergence is the trace of the Jacobian, and not its determinant"),
    (lambda j, delta: -delta * _traces(j) / math.log(2), "those are bits, and nats are asked for"),
]


class _Field:
    """A smooth random velocity of rows, (D,) or (B, D), whose Jacobian at any point has a trace of its own."""

    def __init__(self, random: np.random.Generator, dims: int):
        inner, outer = (torch.from_numpy(random.normal(size=own)) for own in ((dims, 3 * dims), (3 * dims, dims)))
        self.inner, self.outer = inner, outer / math.sqrt(dims)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.inner.to(x.dtype)) @ self.outer.to(x.dtype)

    def __repr__(self) -> str:
        return "a random velocity"


class _Square:
    """The velocity (x₁², x₁x₂, 0, …), simple enough to be followed by hand."""

    def __call__(self, x: Tensor) -> Tensor:
        return x[..., :1] * x

    def __repr__(self) -> str:
        return "x ↦ x₁·x"


@exercise(NOTEBOOK, "Beyond (delta)")
def euler_step(answer: Any) -> str:
    """(velocity, x (B, D), log_p (B,), delta) -> (x', log_p'), one Euler step and the log-density after it, in nats.

    velocity: (B, D) to (B, D), each row by itself. Right to first order in delta: compared with the determinant of the
    step's Jacobian by autograd, so that exact answers pass, too.
    """
    random = rng()
    first = {"velocity": _Square(), "x": torch.tensor([[1.0, 2.0]]).double(), "log_p": torch.tensor([-1.0]).double()}
    cases: list[Case] = [first | {"delta": 0.01}]
    for dims in (2, 1, *random.integers(1, 7, size=14).tolist()):
        x = torch.from_numpy(random.normal(size=(int(random.integers(2, 6)), dims)))
        log_p = torch.from_numpy(random.normal(-3, 1, size=len(x)))
        case = {"velocity": _Field(random, dims), "x": x, "log_p": log_p, "delta": float(random.uniform(0.005, 0.02))}
        cases.append(case)
    moved, after = zip(*(_stepped(answer, own) for own in cases), strict=True)
    settle_largest(moved, cases, lambda v, x, log_p, delta: x + delta * v(x), MOVED_MISTAKES, "your x′")
    _settle_density(after, cases)
    return "17 velocities, against the determinant of the step's Jacobian by autograd"


def _stepped(answer: Any, case: Case) -> tuple[Tensor, Tensor]:
    said = stated(case)
    value, log_p = pair(call(answer, case), "x′ and log_p′", said)
    count, dims = case["x"].shape
    return numbers(value, (count, dims), f"{said}, x′: "), numbers(log_p, (count,), f"{said}, log_p′: ")


def _settle_density(given: tuple[Tensor, ...], cases: list[Case]) -> None:
    """Raise Wrong where log p′ is off by more than twice what two answers of first order differ by.

    The divergence may be taken before the step or after it, and the determinant may be exact.
    """
    jacobians = [_jacobians(own["velocity"], own["x"]) for own in cases]
    later = [_jacobians(own["velocity"], own["x"] + own["delta"] * own["velocity"](own["x"])) for own in cases]

    def agree(change: Change, at: int) -> bool:
        delta, own, before = cases[at]["delta"], jacobians[at], cases[at]["log_p"]
        first, whole, after = delta * _traces(own), _log_det(own, delta), delta * _traces(later[at])
        slack = 2 * torch.stack([first - whole, first - after]).abs().max() + PRECISION / 10 * (1 + before.abs().max())
        return bool(((given[at] - before - change(own, delta)).abs() <= slack).all())

    def right(jacobians: Tensor, delta: float) -> Tensor:
        return -_log_det(jacobians, delta)

    off = next((at for at in range(len(cases)) if not agree(right, at)), None)
    if off is not None:
        expected = cases[off]["log_p"] + right(jacobians[off], cases[off]["delta"])
        said = f"{stated(cases[off])}: your log_p′ is {shown(given[off])}, and should be about {shown(expected)}."
        known = (idea for change, idea in DENSITY_MISTAKES if all(agree(change, at) for at in range(len(cases))))
        raise Wrong(f"{said}\n{next(known, '')}".strip())
