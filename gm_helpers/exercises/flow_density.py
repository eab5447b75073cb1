"""The checkers of notebook 3's exercises on densities and bits; the others are in flow_layers.py."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.stats
import torch
from torch import Tensor
from torch.distributions import Normal

from gm_helpers.exercises.checking import Mistake, Open, Wrong, call, exercise, numbers, rng, settle, shown, stated

NOTEBOOK = "3_flows"
NO_LOGARITHM = "nan", "math domain error", "expected a positive input"  # what comes of that of a negative number


@contextmanager
def explained(idea: str, *words: str) -> Iterator[None]:
    """Adds the idea to what is raised as Wrong inside, where one of the words stands in its message."""
    try:
        yield
    except Wrong as wrong:
        raise Wrong(f"{wrong}\n{idea}" if any(own in str(wrong) for own in words) else str(wrong)) from wrong


def pair(given: Any, names: str, where: str) -> tuple[Any, Any]:
    """The two parts of an answer; raises Wrong where it has not two. names: what they are called."""
    if given is None:
        raise Wrong(f"{where}: your function returns nothing: is a `return` missing?")
    if isinstance(given, tuple | list) and len(given) == 2:
        return given[0], given[1]
    raise Wrong(f"{where}: your answer is {shown(given)}, and should be a pair, {names}")


# ---------------------------------------------------------------- 3.1


def _base(z: Tensor) -> Tensor:
    return Normal(0.0, 1.0).log_prob(z)


def _of_x_and_log(formula: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor], list[float]]:
    """(x) -> formula(x, log x)."""
    return lambda x: formula(x, x.log()).tolist()


def _lognormal(x: Tensor) -> list[float]:
    return scipy.stats.lognorm(1).logpdf(x.numpy()).tolist()  # −z is standard normal, too


_UPSIDE_DOWN = "the determinant is upside down: is it that of f, from x to z, or that of its inverse?"
_AT_X = "the base's density is to be taken at the latent of x, and not at x"
_NO_LENGTH = "f′ enters as a length: what becomes of its sign, and of which function of it is the term made?"
_DIRECTION = "f leads from x to z; that is built with the map from z to x"
DENSITY_MISTAKES = [
    Mistake(_of_x_and_log(lambda x, log: _base(log) + log), _UPSIDE_DOWN),
    Mistake(_of_x_and_log(lambda x, log: _base(log)), "where is the determinant?"),
    Mistake(_of_x_and_log(lambda x, log: _base(x) - log), _AT_X),
    Mistake(_of_x_and_log(lambda x, log: _base(x)), f"{_AT_X}; and where is the determinant?"),
    Mistake(_of_x_and_log(lambda x, log: _base(x) + log), f"{_AT_X}; and the determinant is upside down"),
    Mistake(_of_x_and_log(lambda x, log: _base((-x).exp()) - x), _DIRECTION),
    Mistake(_of_x_and_log(lambda x, log: _base((-x).exp()) - log), _DIRECTION),
    Mistake(_of_x_and_log(lambda x, log: _base(log) - x), "which variable is the slope of f a function of, x or z?"),
    Mistake(_of_x_and_log(lambda x, log: _base(log) - 1 / x), _NO_LENGTH),
    Mistake(_of_x_and_log(lambda x, log: _base(log) + 1 / x), "the determinant enters by its logarithm"),
    Mistake(_of_x_and_log(lambda x, log: (_base(log) - log).exp()), "that is the density; its logarithm is asked for"),
    Mistake(_of_x_and_log(lambda x, log: -(_base(log) - log).exp()), _NO_LENGTH),
    Mistake(_of_x_and_log(lambda x, log: (_base(log) - log) / math.log(2)), "those are bits, and nats are asked for"),
    Mistake(_of_x_and_log(lambda x, log: (_base(log) - log) / math.log(10)), "log is the natural logarithm"),
    Mistake(_of_x_and_log(lambda x, log: log - _base(log)), "the sign: that is minus the log-density"),
    Mistake(
        _of_x_and_log(lambda x, log: -(log**2) / 2 - log),
        "what does its exponential integrate to? A normal density has a constant",
    ),
    Mistake(
        _of_x_and_log(lambda x, log: -(log**2) / 2 - log - math.log(2 * math.pi)),
        "the constant of a normal density: is it 2π, or its root?",
    ),
    Mistake(
        _of_x_and_log(lambda x, log: -(log**2) - log - math.log(2 * math.pi) / 2),
        "the exponent of a normal density: where is its ½?",
    ),
    Mistake(
        _of_x_and_log(lambda x, log: _base(log) - 2 * log),
        "the determinant is there twice, or squared",
    ),
]
_OF_A_NEGATIVE = "a logarithm of a negative number? f falls as x grows: which sign has its slope, and has a length one?"


@exercise(NOTEBOOK, "3.1")
def log_density(answer: Any) -> str:
    """(x (N,)) -> (N,), the log-density in nats of x = exp(−z), z standard normal.

    Compared with SciPy's log-normal density; its exponential has to integrate to 1.
    """
    random = rng()
    sets = [[2.0], [0.5, 3.0], [0.001, 1000.0]] + [
        np.exp(random.uniform(-4, 4, size=n)) for n in random.integers(1, 20, size=17)
    ]
    cases: list[dict[str, Any]] = [{"x": torch.as_tensor(own, dtype=torch.float64)} for own in sets]
    settle([_log_density(answer, own) for own in cases], cases, _lognormal, DENSITY_MISTAKES, relative=1e-4)
    t = torch.linspace(-9, 9, 401, dtype=torch.float64)
    total = torch.trapezoid((_log_density(answer, {"x": t.exp()}) + t).exp(), t).item()
    if abs(total - 1) > 1e-3:
        raise Wrong(f"your density integrates to {total:.4g} over x > 0")
    return "20 sets of x against SciPy's log-normal density, and its integral, which is 1"


def _log_density(answer: Any, case: dict[str, Any]) -> Tensor:
    with explained(_OF_A_NEGATIVE, *NO_LOGARITHM):
        return numbers(call(answer, case), (len(case["x"]),), f"{stated(case)}: ")


# ---------------------------------------------------------------- 3.2

LINE = np.linspace(-12, 12, 240_001)
TO_TWO_DIGITS = 0.006


@dataclass(frozen=True)
class _Map:
    """A map of the line, with its slope; integrals that are known as wrong; what goes wrong in calling it a flow."""

    name: str
    f: Callable[[np.ndarray], np.ndarray]
    slope: Callable[[np.ndarray], np.ndarray]
    mistakes: list[Mistake]
    flow: str

    def integral(self) -> float:
        """∫ p_z(f(x)) |f′(x)| dx, on a grid."""
        return float(np.trapezoid(scipy.stats.norm.pdf(self.f(LINE)) * np.abs(self.slope(LINE)), LINE))


_CANCELS = "left and right of 0 cancel only where the slope keeps its sign: is that what the integral has?"
_OF_THE_EXAMPLE = "that is the integral of the example with three preimages"
SQUARE_MISTAKES = [
    Mistake(lambda: 2.0, "how many x have the latent z, if z is positive, and how many, if z is negative?"),
    Mistake(lambda: 0.5, "which z are reached by some x, and *by how many*?"),
    Mistake(lambda: 0.0, _CANCELS),
    Mistake(lambda: 2.909, _OF_THE_EXAMPLE),
    Mistake(lambda: 1.5, "a z that no x reaches has no preimage, and counts 0"),
]
ABS_MISTAKES = [
    Mistake(lambda: 2.0, "two for each z? Which z have no x at all?"),
    Mistake(lambda: 1.0, "the fold is at another place than that of x²: how much of the normal's mass is reached?"),
    Mistake(lambda: 0.8413, "that is the mass of the z that are reached; by how many x is each?"),
    Mistake(lambda: 0.3173, "that counts the z on the other side of the fold: which are reached?"),
    Mistake(lambda: 0.1587, "that is the mass of the z that are *not* reached"),
    Mistake(lambda: 0.6827, "which z are reached? Is there an end on the other side?"),
    Mistake(lambda: 1.3654, "which z are reached? Is there an end on the other side?"),
    Mistake(lambda: 0.5, "where is the fold: which is the least z that is reached?"),
    Mistake(lambda: 1.8413, "a z that no x reaches has no preimage, and counts 0"),
    Mistake(lambda: 0.0, _CANCELS),
    Mistake(lambda: 2.909, _OF_THE_EXAMPLE),
]
MAPS = (
    _Map(
        "x²",
        np.square,
        lambda x: 2 * x,
        SQUARE_MISTAKES,
        "the integral is the *mean* number of preimages: does it tell how many each z has?",
    ),
    _Map(
        "|x| − 1", lambda x: np.abs(x) - 1, np.sign, ABS_MISTAKES, "which x has the latent 0, and which the latent −2?"
    ),
)


@exercise(NOTEBOOK, "3.2")
def preimages(answer: Any) -> str:
    """(integral_square, square_is_a_flow, integral_abs, abs_is_a_flow): numbers to two decimals, and booleans.

    The integrals of p_z(f(x)) |f′(x)| for f(x) = x² and f(x) = |x| − 1, compared with sums on a grid.
    """
    if isinstance(answer, np.ndarray) and answer.shape == (4,):
        answer = answer.tolist()
    if not isinstance(answer, tuple | list) or len(answer) != 4:
        asked = "a number, True or False, a number, True or False"
        raise Wrong(f"your answer is {shown(answer)}, and should be four things: {asked}")
    missing = sum(own is None or own is ... for own in answer)
    if missing:
        raise Open(f"{missing} of 4 have no answer yet")
    given = [numbers(own, where=f"for {map_.name}: ").item() for own, map_ in zip(answer[::2], MAPS, strict=True)]
    flows = [_truth(own, f"whether {map_.name} is a flow") for own, map_ in zip(answer[1::2], MAPS, strict=True)]
    for value, is_flow, map_ in zip(given, flows, MAPS, strict=True):
        _refuse_integral(value, map_)
        if is_flow:
            raise Wrong(f"whether {map_.name} is a flow: your answer is True.\n{map_.flow}")
    return "both integrals, to two decimals, against sums on a grid, and both booleans"


def _truth(value: Any, what: str) -> bool:
    if isinstance(value, Tensor | np.ndarray) and str(value.dtype).endswith("bool") and math.prod(value.shape) == 1:
        value = value.item()
    if not isinstance(value, bool | np.bool_):
        raise Wrong(f"{what}: your answer is {shown(value)}, and should be True or False")
    return bool(value)


def _refuse_integral(value: float, map_: _Map) -> None:
    if abs(value - map_.integral()) > TO_TWO_DIGITS:
        known = (own.idea for own in map_.mistakes if abs(value - own.gives()) <= TO_TWO_DIGITS)
        raise Wrong(f"for {map_.name}: your integral is {shown(value)}.\n{next(known, '')}".strip())


# ---------------------------------------------------------------- 3.4, bits

Terms = Callable[[Tensor, int, float], Tensor]  # of logits (D,), levels and margin


def _by_autograd(logits: Tensor, levels: int, margin: float) -> Tensor:
    """log da/dy of each pixel, by differentiating the way from y to a."""
    y = ((logits.sigmoid() - margin) / (1 - 2 * margin) * levels).requires_grad_()
    return torch.autograd.grad(torch.logit(margin + (1 - 2 * margin) * y / levels).sum(), y)[0].log()


def _logs(
    scale: float = -1, inside: float = 1, logit: float = -1, of: Callable[[Tensor, float], Tensor] = lambda w, _: w
) -> Terms:
    """The three terms of each pixel, with these signs, and the third one's of(w, margin) in place of w."""

    def terms(logits: Tensor, levels: int, margin: float) -> Tensor:
        w = of(logits.sigmoid(), margin)
        return scale * math.log(levels) + inside * math.log(1 - 2 * margin) + logit * (w.log() + (1 - w).log())

    return terms


def _bits(
    terms: Terms = _by_autograd,
    share: Callable[[Tensor], Tensor] = torch.sum,
    per: Callable[[int], float] = lambda d: d,
) -> Callable[..., float]:
    """(log_prob, logits, levels, margin) -> bits, the terms put together by `share`, divided by per(D)."""

    def bits(log_prob: float, logits: Tensor, levels: int, margin: float) -> float:
        total = log_prob + share(terms(logits, levels, margin)).item()
        return round(-total / (per(len(logits)) * math.log(2)), 9)  # so that what is 0 for a mistake, is 0

    return bits


def _once(scale: bool, inside: bool) -> Callable[..., float]:
    """The constants of scaling, or of the margin, or of both, added once for the whole image."""

    def bits(log_prob: float, logits: Tensor, levels: int, margin: float) -> float:
        too_many = (len(logits) - 1) * (scale * math.log(levels) - inside * math.log(1 - 2 * margin))
        return _bits()(log_prob + too_many, logits, levels, margin)

    return bits


def _w_to_v(w: Tensor, margin: float) -> Tensor:
    return (w - margin) / (1 - 2 * margin)


_NO_LOG_L = "one grey value is an interval of which length, once all are scaled into [0, 1)?"
_SIGN_OF_MARGIN = "the sign of the margin's term: does w move more than v, or less?"
_ONCE = "the log-determinant is that of D pixels; {} there once"
BITS_MISTAKES = [
    Mistake(
        lambda log_prob, logits, levels, margin: _bits()(log_prob, logits, 256, margin), "how many levels? Not 256"
    ),
    Mistake(_once(True, True), _ONCE.format("the constants are")),
    Mistake(_once(True, False), _ONCE.format("the scaling's constant is")),
    Mistake(_once(False, True), _ONCE.format("the margin's constant is")),
    Mistake(_bits(_logs(inside=-1)), _SIGN_OF_MARGIN),
    Mistake(_bits(_logs(inside=0)), "the margin's own slope is missing, or is that of another margin"),
    Mistake(_bits(_logs(scale=1)), _NO_LOG_L),
    Mistake(_bits(_logs(scale=0)), _NO_LOG_L),
    Mistake(_bits(_logs(logit=0)), "which of the three maps has no term?"),
    Mistake(_bits(_logs(logit=1)), "the sign of the logit's term: is its slope above 1, or below?"),
    Mistake(_bits(_logs(scale=0, inside=0, logit=0)), "that is the density of the logits: where are the three maps?"),
    Mistake(
        _bits(lambda a, levels, margin: _logs()(a, levels, margin) + (1 - a.sigmoid()).log()),
        "the logit's slope has two factors",
    ),
    Mistake(
        _bits(lambda a, levels, margin: _logs()(a, levels, margin) + a.sigmoid().log()),
        "the logit's slope has two factors",
    ),
    Mistake(_bits(_logs(of=_w_to_v)), "what is handed to the logit, v or w?"),
    Mistake(
        _bits(lambda a, levels, margin: -_by_autograd(a, levels, margin)),
        "the signs: the determinant is that of the map from y to the logits",
    ),
    Mistake(_bits(per=lambda d: d / math.log(2)), "those are nats"),
    Mistake(_bits(per=lambda d: 1), "*per dimension*: of how many?"),
    Mistake(_bits(per=lambda d: 1 / math.log(2)), "those are nats, and of the whole image"),
    Mistake(_bits(per=lambda d: -d), "the sign: fewer bits are better"),
    Mistake(_bits(share=torch.mean), "the pixels' terms are averaged, and then divided by D once more"),
    Mistake(
        lambda log_prob, logits, levels, margin: _bits()(log_prob * len(logits), logits, levels, margin),
        "`log_prob_of_logits` is the log-density of the whole vector already",
    ),
    Mistake(
        lambda log_prob, logits, levels, margin: _bits()(log_prob / len(logits), logits, levels, margin),
        "`log_prob_of_logits` is divided by D twice",
    ),
    Mistake(
        _bits(lambda a, levels, margin: _logs()(a, levels, margin) + math.log((1 - margin) / (1 - 2 * margin))),
        "a margin is left on both sides",
    ),
]
_NO_SIGMOID = "logits lie on the whole line; what has a logarithm lies between 0 and 1"


def _bits_case(random: np.random.Generator, dims: int, levels: int, margin: float, extra: float) -> dict[str, Any]:
    """Random pixels under a density that costs so many bits per dimension more than the uniform one."""
    logits = torch.logit(torch.from_numpy(margin + (1 - 2 * margin) * random.uniform(0.02, 0.98, size=dims)))
    uniform = (-_logs(scale=0)(logits, levels, margin)).sum().item()
    return {
        "log_prob_of_logits": uniform - dims * extra * math.log(2),
        "logits": logits,
        "levels": levels,
        "margin": margin,
    }


@exercise(NOTEBOOK, "3.4")
def bits_of(answer: Any) -> str:
    """(log_prob_of_logits, logits (D,), levels, margin) -> bits per dimension of one dequantized image.

    Compared with autograd's slopes of the way from grey values to logits; a uniform density scores log₂ of the levels.
    """
    random = rng()
    first = {"log_prob_of_logits": -1.0, "logits": torch.tensor([0.5]).double(), "levels": 4, "margin": 0.05}
    cases = [first, first | {"log_prob_of_logits": -3.0, "logits": torch.tensor([0.5, -1.0]).double()}]
    cases += [_bits_case(random, dims, levels, 0.05, 0.0) for dims, levels in ((3, 2), (784, 256))]  # uniform
    for _ in range(16):
        dims, levels, margin = random.integers(2, 60), random.choice([2, 5, 16, 32, 1000]), random.uniform(0.01, 0.2)
        cases.append(_bits_case(random, int(dims), int(levels), float(margin), random.uniform(-0.5, 4)))
    settle([_number(answer, own) for own in cases], cases, _bits(), BITS_MISTAKES, relative=1e-4)
    return "18 random densities with margins of 0.01 to 0.2, and uniform ones, by autograd"


def _number(answer: Any, case: dict[str, Any]) -> Tensor:
    with explained(_NO_SIGMOID, *NO_LOGARITHM):
        return numbers(call(answer, case), where=f"{stated(case)}: ").round(decimals=9)
