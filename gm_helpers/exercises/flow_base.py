"""The checker of notebook 3's exercise on a flow's base."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.ndimage
import scipy.stats
import torch
from torch import Tensor

from gm_helpers.exercises.checking import Wrong, call, exercise, numbers, rng, shown
from gm_helpers.exercises.flow_density import NOTEBOOK, explained
from gm_helpers.exercises.flow_noise import drawn, method, refuse_hollow

DRAWS = 50_000
QUANTILES = torch.linspace(0.01, 0.99, 9, dtype=torch.float64)  # where the plane is cut into boxes
NOWHERE = -1e4  # in place of an infinite log-density where the density is 0
GAPS = 2
NODES, LEVELS, MOST = 4, 12, 8000  # of a rule in one dimension; how often, and how many boxes are divided
LOG_DENSITY = "log p is one number for each point, both coordinates together"

WEIGHTS = "the density has the right shape, but is too large: what do the weights add up to, and is a constant missing?"
RENORMALISE = "the density has the right shape, but is too small: if some of it is cut off, what becomes of the rest?"
OF_LOGS = "most of the mass is where hardly any of the samples are: is that a log of a sum, or a sum of logs?"
SIGN = "it grows away from the samples: what is the sign of a log-density?"
NO_LOG = "no value of `log_prob` is negative: is that the density itself?"
OTHER = "are means, deviations and weights the same in both, and is each sample one hump's alone?"
BETWEEN = "between two humps the density falls to less than half of the lower one"


def _object(answer: Any) -> Any:
    """The base itself, made here if the answer is a class; raises Open where that has no body."""
    refuse_hollow(answer if isinstance(answer, type) else type(answer))
    if not isinstance(answer, type):
        return answer
    try:
        return call(answer, {}, "without arguments")
    except Wrong as wrong:
        what = f"your answer is the class {shown(answer.__name__)}, which can't be made without arguments"
        raise Wrong(f"{what}: hand in an object that you have made of it") from wrong


def _points(given: Any, n: int, where: str) -> Tensor:
    return numbers(given, (n, 2), f"{where}, `sample`: ")


def _log_prob(base: Any, z: Tensor) -> Tensor:
    """The answer's log-density at points (N, 2), asked for in float64 or, where that fails, in float32."""
    where, own = f"at {len(z):,} points", method(base, "log_prob", "for the log-density")
    try:
        given = call(own, {"z": z}, where)
    except Wrong as wrong:
        try:
            given = call(own, {"z": z.float()}, where)
        except Wrong:
            raise wrong from None
    if isinstance(given, np.ndarray) and given.dtype.kind == "f":
        given = torch.from_numpy(given)
    if isinstance(given, Tensor) and given.is_floating_point():
        given = torch.where(given == -math.inf, NOWHERE, given)
    with explained(LOG_DENSITY, "shape"):
        return numbers(given, (len(z),), f"{where}, `log_prob`: ")


# ---------------------------------------------------------------- the mass in boxes


def _cuts(values: Tensor) -> Tensor:
    """Where one axis is cut, in order: at quantiles of the samples, at the ends of their widest gaps, and outside."""
    own = values.sort().values
    gaps = own.diff().topk(GAPS).indices
    least, most = own[0], own[-1]
    room = (most - least) * torch.tensor([0.0, 0.2, 2.0], dtype=torch.float64)
    return torch.cat([least - room, own.quantile(QUANTILES), own[gaps], own[gaps + 1], most + room]).unique()


def _boxes(samples: Tensor) -> Tensor:
    """(K, 2, 2), the lower and the upper corner of each; they hold all samples, and few each."""
    first, second = (torch.stack([own[:-1], own[1:]], dim=1) for own in map(_cuts, samples.T))  # (K₁, 2) and (K₂, 2)
    return torch.stack([first.repeat_interleave(len(second), 0), second.repeat(len(first), 1)], dim=2)


def _rule(density: Callable[[Tensor], Tensor], boxes: Tensor) -> Tensor:
    """The integral over each box by Gauss and Legendre's nodes, (K,)."""
    nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(NODES))
    square, areas = torch.cartesian_prod(nodes, nodes), torch.cartesian_prod(weights, weights).prod(1)
    middle, half = boxes.mean(1), (boxes[:, 1] - boxes[:, 0]) / 2
    points = middle[:, None] + half[:, None] * square
    return (density(points.flatten(0, 1)).view(len(boxes), -1) @ areas) * half.prod(1)


def _quarters(boxes: Tensor) -> Tensor:
    """Four of each, (4K, 2, 2), those of the same box in a row."""
    (low, high), middle = boxes.unbind(1), boxes.mean(1)
    upper = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=torch.bool)
    lows = torch.where(upper, middle[:, None], low[:, None])
    highs = torch.where(upper, high[:, None], middle[:, None])
    return torch.stack([lows, highs], dim=2).flatten(0, 1)


def _masses(density: Callable[[Tensor], Tensor], boxes: Tensor) -> Tensor:
    """The integral over each box, (K,), divided in four again and again where that changes it."""
    masses, whose, coarse = torch.zeros(len(boxes)).double(), torch.arange(len(boxes)), _rule(density, boxes)
    for _ in range(LEVELS):
        boxes = _quarters(boxes)
        parts = _rule(density, boxes)
        fine = parts.view(-1, 4).sum(1)
        rough = (fine - coarse).abs() > 2e-5
        masses.index_add_(0, whose[~rough], fine[~rough])
        again = rough.repeat_interleave(4)
        boxes, coarse, whose = boxes[again], parts[again], whose[rough].repeat_interleave(4)
        if not 0 < len(boxes) <= MOST:
            break
    return masses.index_add_(0, whose, coarse)


def _counts(samples: Tensor, boxes: Tensor) -> Tensor:
    """How many samples lie in each box, (K,)."""
    inside = samples[((samples >= boxes[0, 0]) & (samples < boxes[-1, 1])).all(1)]
    cuts = [own.unique() for own in boxes[:, 0].T]
    rows, columns = (torch.bucketize(*own, right=True) - 1 for own in zip(inside.T.contiguous(), cuts, strict=True))
    return torch.bincount(rows * len(cuts[1]) + columns, minlength=len(boxes)).double()


def _misfit(counts: Tensor, masses: Tensor) -> Tensor | None:
    """How many samples are too many or too few in each box, where all together are more than by chance; else None."""
    expected = DRAWS * masses / masses.sum().clamp(min=1e-300)
    few = expected < 20  # counted as one
    seen, told = (torch.cat([own[~few], own[few].sum()[None]]) for own in (counts, expected))
    error = (told + (0.005 * told) ** 2 + 4).sqrt()  # of chance, and of the integrals
    chance = scipy.stats.chi2.sf((((seen - told) / error) ** 2).sum().item(), len(seen))
    return None if chance > 1e-8 else (counts - expected).abs()


# ---------------------------------------------------------------- humps


def _humps(density: Callable[[Tensor], Tensor], samples: Tensor) -> int:
    """How many parts of the plane there are, at one level, in which the density rises to twice that level.

    A part counts if a hundredth of the mass lies in it.
    """
    at = torch.linspace(0.001, 0.999, 80, dtype=torch.float64)
    ends = samples.quantile(torch.tensor([0.001, 0.999], dtype=torch.float64), dim=0)
    even = ends[0] + (ends[1] - ends[0]) * torch.linspace(0, 1, 80, dtype=torch.float64)[:, None]
    axes = torch.cat([samples.quantile(at, dim=0), even]).sort(0).values.T.contiguous()
    values = density(torch.cartesian_prod(*axes)).view(len(axes[0]), -1).numpy()
    areas = np.outer(*(np.gradient(own.numpy()) for own in axes))
    levels = values.max() * 2 ** -np.arange(1, 16, 1 / 12)
    some = max(_parts(values, areas, own) for own in levels[::6])
    return some if some > 1 else max(_parts(values, areas, own) for own in levels)


def _parts(values: np.ndarray, areas: np.ndarray, level: float) -> int:
    labels, count = scipy.ndimage.label(values > level, structure=np.ones((3, 3)))
    index = np.arange(1, count + 1)
    tops = scipy.ndimage.maximum(values, labels, index)
    masses = scipy.ndimage.sum_labels(values * areas, labels, index) / (values * areas).sum()
    return int(((np.array(tops) >= 2 * level) & (np.array(masses) > 0.01)).sum())


# ---------------------------------------------------------------- Beyond (a)


@exercise(NOTEBOOK, "Beyond (a)", seconds=30)
def two_humped_base(answer: Any) -> str:
    """(z (B, 2)) -> (B,) is its method log_prob, and (n, generator) -> (n, 2) its method sample: a base of two humps.

    Its density has to integrate to 1, to be that of its samples, which are counted in boxes, and to have two humps.
    """
    base = _object(answer)
    first, second = drawn(method(base, "sample", "for samples"), _points, DRAWS, rng())

    def density(z: Tensor) -> Tensor:
        return _log_prob(base, z).clamp(max=80).exp()

    _log_prob(base, first[:3])  # the smallest case for what has a wrong shape
    boxes = _boxes(first)
    masses, counts = _masses(density, boxes), _counts(second, boxes)
    misfit, total = _misfit(counts, masses), masses.sum().item()
    if abs(total - 1) > 0.01:
        where = f"from {shown(boxes[0, 0])} to {shown(boxes[-1, 1])}, far beyond all of your samples,"
        idea = _idea(masses, counts, misfit is not None, _log_prob(base, first[:1000]), _log_prob(base, boxes[:, 0]))
        raise Wrong(f"{where} your density integrates to {shown(total)}.\n{idea}".strip())
    if misfit is not None:
        raise Wrong(f"{_worst(misfit, boxes, masses, counts)}.\n{OTHER}")
    humps = _humps(density, first)
    if humps != 2:
        raise Wrong(f"your density has {humps} hump{'s' * (humps != 1)}, and two are asked for.\n{BETWEEN}")
    return f"the integral, two humps, and {DRAWS:,} samples, counted in boxes"


def _worst(misfit: Tensor, boxes: Tensor, masses: Tensor, counts: Tensor) -> str:
    """The box in which the number of samples is most wrong, in words."""
    at = int(misfit.argmax())
    where = f"from {shown(boxes[at, 0])} to {shown(boxes[at, 1])} lie {int(counts[at]):,} of {DRAWS:,} samples"
    return f"{where}, and should be about {DRAWS * masses[at]:,.0f} by your density"


def _idea(masses: Tensor, counts: Tensor, misfit: bool, near: Tensor, far: Tensor) -> str:
    """What may have gone wrong where the integral is not 1. near, far: values of log_prob at samples and elsewhere."""
    if min(near.min(), far.min()) >= 0:
        return SIGN if far.mean() > near.mean() else NO_LOG
    if not misfit:
        return WEIGHTS if masses.sum() > 1 else RENORMALISE
    shared = torch.minimum(masses / masses.sum().clamp(min=1e-300), counts / DRAWS).sum()
    return OF_LOGS if shared < 0.5 else ""
