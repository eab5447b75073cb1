"""The checkers of notebook 3's exercises on layers; that on a flow's base is in flow_base.py."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gm_helpers.exercises.checking import (
    FEW,
    Mistake,
    Wrong,
    call,
    exercise,
    numbers,
    rng,
    shown,
    stated,
)
from gm_helpers.exercises.flow_density import NO_LOGARITHM, NOTEBOOK, explained, pair
from gm_helpers.exercises.flow_noise import method, refuse_hollow

Case = dict[str, Any]
PRECISION = 1e-4  # as float32 knows it, as a share of what is largest


_EACH = "`log_det` is one number for each example of the batch, also where all of them are the same"
_NO_VOLUME = "a volume is positive: what becomes of the sign of a determinant?"


def _mapped(function: Any, arguments: Case, name: str, where: str) -> tuple[Tensor, Tensor]:
    """What a map gives: a tensor of the first argument's shape, of that name, and one number for each example."""
    shape = tuple(next(iter(arguments.values())).shape)
    with explained(_NO_VOLUME, *NO_LOGARITHM):
        value, log_det = pair(call(function, arguments, where), f"{name} and log_det", where)
        value = numbers(value, shape, f"{where}, {name}: ")
        with explained(_EACH, "shape"):
            return value, numbers(log_det, shape[:1], f"{where}, log_det: ")


def settle_largest(
    given: Sequence[Tensor],
    cases: Sequence[Case],
    right: Callable[..., Tensor],
    mistakes: Sequence[Mistake],
    what: str,
) -> None:
    """As `settle` does, but what is given may be off by a share of the largest number of the right ones."""

    def agree(other: Callable[..., Tensor], at: int) -> bool:
        expected = other(*cases[at].values())
        return bool(((given[at] - expected).abs() <= PRECISION * (1 + expected.abs().max())).all())

    off = next((at for at in range(len(cases)) if not agree(right, at)), None)
    if off is not None:
        expected = right(*cases[off].values())
        known = (own.idea for own in mistakes if all(agree(own.gives, at) for at in range(len(cases))))
        said = f"{stated(cases[off])}: {what} {_difference(given[off], expected)}."
        raise Wrong(f"{said}\n{next(known, '')}".strip())


def _difference(given: Tensor, expected: Tensor) -> str:
    """What is given and what is right; of many numbers those that differ most."""
    if given.numel() <= FEW:
        return f"is {shown(given)}, and should be {shown(expected)}"
    at = tuple(int(own) for own in np.unravel_index(int((given - expected).abs().argmax()), given.shape))
    return f"has {shown(given[at])} at {list(at)}, and should have {shown(expected[at])}"


# ---------------------------------------------------------------- 3.7, a 1×1 convolution


def _convolved(matrix: Tensor, x: Tensor) -> Tensor:
    return F.conv2d(x, matrix[:, :, None, None])


def _undone(matrix: Tensor, z: Tensor) -> Tensor:
    return torch.linalg.solve(matrix, z.transpose(0, 1).flatten(1)).unflatten(1, (len(z), *z.shape[2:])).transpose(0, 1)


def _by_jacobian(matrix: Tensor, x: Tensor) -> Tensor:
    """log |det| of the Jacobian of one whole example, (B,): the map is linear, so that all have the same."""
    jacobian: Any = torch.autograd.functional.jacobian(lambda own: _convolved(matrix, own[None])[0].flatten(), x[0])
    return jacobian.flatten(1).slogdet()[1].expand(len(x))


def _one(matrix: Tensor) -> Tensor:
    """log |det M|."""
    return matrix.slogdet()[1]


CONVOLVED_MISTAKES = [
    Mistake(lambda w, x: _convolved(w.T, x), "z_i = Σ_j M_ij x_j: over which index does yours add up?"),
    Mistake(_undone, "that is x from z: the two directions are exchanged"),
    Mistake(lambda w, x: x, "nothing has been moved"),
    Mistake(lambda w, x: w.diagonal()[:, None, None] * x, "channels are to be mixed, and not only scaled"),
]
UNDONE_MISTAKES = [
    Mistake(lambda w, z: _undone(w.T, z), "in one of the two directions M is transposed, and in the other it is not"),
    Mistake(lambda w, z: _convolved(w.T, z), "the transpose undoes an orthogonal matrix alone; is M orthogonal?"),
    Mistake(_convolved, "that is z from x once more"),
    Mistake(lambda w, z: z, "nothing has been moved back"),
    Mistake(lambda w, z: _convolved(1 / w, z), "a matrix is not inverted entry by entry"),
]
_AREA = "the same matrix moves every pixel: how many times does its determinant enter?"
_BATCH = "`log_det` is that of one example; how many others are in the batch doesn't matter"
_DETERMINANTS = [
    Mistake(lambda w, x: _one(w).expand(len(x)), _AREA),
    Mistake(lambda w, x: _by_jacobian(w, x) * len(x), _BATCH),
    Mistake(lambda w, x: (_one(w) * len(x)).expand(len(x)), f"{_AREA}\n{_BATCH}"),
    Mistake(lambda w, x: _by_jacobian(w, x) * len(w), "the determinant is that of all channels together already"),
    Mistake(lambda w, x: (_one(w) * len(w)).expand(len(x)), "the determinant is that of all channels together already"),
    *(
        Mistake(lambda w, x, own=own: (_one(w) * own(*x.shape[2:])).expand(len(x)), "how many pixels has an image?")
        for own in (lambda h, w: h, lambda h, w: w, lambda h, w: h * h, lambda h, w: w * w, lambda h, w: h + w)
    ),
    Mistake(
        lambda w, x: w.diagonal().abs().log().sum() * x[0, 0].numel() * x.new_ones(len(x)),
        "the product of the diagonal is the determinant of a triangular matrix alone",
    ),
    Mistake(lambda w, x: x[0, 0].numel() * w.det().expand(len(x)), "the logarithm of the determinant is asked for"),
    Mistake(
        lambda w, x: x[0, 0].numel() * w.det().abs().expand(len(x)), "the logarithm of the determinant is asked for"
    ),
    Mistake(lambda w, x: _by_jacobian(w, x) / math.log(2), "those are bits, and nats are asked for"),
    Mistake(lambda w, x: x.new_zeros(len(x)), "0 would keep all volumes; has M the determinant ±1?"),
]
STRETCH_MISTAKES = [
    Mistake(lambda w, x: -_by_jacobian(w, x), "the sign: is that of `forward`, or of its inverse?"),
    *_DETERMINANTS,
]
SHRINK_MISTAKES = [
    Mistake(_by_jacobian, "the sign: the inverse undoes what `forward` does to a volume"),
    *(Mistake(lambda w, x, own=own.gives: -own(w, x), own.idea) for own in _DETERMINANTS),
]


# matrices of one channel and of two, and for each two examples of 1 × 2 pixels
SMALLEST = (([[-2]], [[[[1, 3]]], [[[0, 2]]]]), ([[1, 2], [3, 4]], [[[[1, 0]], [[2, 1]]], [[[0, 3]], [[1, 1]]]]))


def _matrix(random: np.random.Generator, channels: int, negative: bool) -> Tensor:
    """A random one that float32 can invert, and whose determinant is not near ±1."""
    while True:
        own = torch.from_numpy(random.normal(size=(channels, channels)))
        if torch.linalg.cond(own) < 20 and abs(_one(own)) > 0.2:
            own[0] *= 1 if (own.det() < 0) == negative else -1
            return own


def _by_layer(answer: Any, case: Case, direction: str) -> tuple[Tensor, Tensor]:
    """What a new object gives in that direction, the first time and after it was asked something wider."""
    where = f"{stated(case)}, `{direction}`"
    (_, matrix), (name, value) = case.items()
    other = {"x": "z", "z": "x"}[name]
    wide = torch.cat([value, value], dim=3)
    for inputs in ((value,), (wide, value)):
        function = method(call(answer, {"matrix": matrix}, stated(case)), direction, where)
        given = [_mapped(function, {name: own}, other, where) for own in inputs]
    return given[-1]


def _as_class(answer: Any) -> None:
    """Raise Wrong for what makes no objects, and Open for a class without a body."""
    if isinstance(answer, type):
        refuse_hollow(answer)
    elif hasattr(type(answer), "forward"):
        raise Wrong("your answer is an object already; the class is asked for, which the checker makes objects of")
    elif not callable(answer):
        raise Wrong(f"your answer is {shown(answer)}, and should be a class that is made from a matrix")


@exercise(NOTEBOOK, "3.7")
def invertible_1x1(answer: Any) -> str:
    """(matrix (C, C)) -> an object, so a class: forward(x (B, C, H, W)) -> (z, log_det (B,)), and inverse(z).

    z_i = Σ_j M_ij x_j in every pixel. Compared with torch's convolution, a linear solver, and the Jacobian of a whole
    example by autograd.
    """
    _as_class(answer)
    random = rng()
    shapes = [tuple(random.permutation([2, 3, 4, own])) for own in (1, 2, 3, 4, 5, 5)]
    for name, direction, right, mistakes, stretch, others in (
        ("x", "forward", _convolved, CONVOLVED_MISTAKES, _by_jacobian, STRETCH_MISTAKES),
        ("z", "inverse", _undone, UNDONE_MISTAKES, lambda m, z: -_by_jacobian(m, z), SHRINK_MISTAKES),
    ):
        cases = [{"matrix": torch.tensor(m).double(), name: torch.tensor(x).double()} for m, x in SMALLEST]
        for at, own in enumerate(shapes):
            matrix = _matrix(random, own[1], negative=at % 3 != 2)
            cases.append({"matrix": matrix, name: torch.from_numpy(random.normal(size=own))})
        values, log_dets = zip(*(_by_layer(answer, own, direction) for own in cases), strict=True)
        settle_largest(values, cases, right, mistakes, f"what your `{direction}` makes of it")
        settle_largest(log_dets, cases, stretch, others, f"the log_det of your `{direction}`")
    return "8 random matrices, most with a negative determinant, both directions, by autograd and by a linear solver"


# ---------------------------------------------------------------- 3.7, straight pieces


def _interpolated(x: Tensor, widths: Tensor, heights: Tensor) -> Tensor:
    edges, levels = (np.pad(own.numpy().cumsum(1), ((0, 0), (1, 0))) for own in (widths, heights))
    columns = [np.interp(*own) for own in zip(x.T.numpy(), edges, levels, strict=True)]
    return torch.from_numpy(np.stack(columns, axis=1))


def _by_differences(x: Tensor, widths: Tensor, heights: Tensor) -> Tensor:
    """log |det| of the interpolation, (B,); no x is so near to an edge that it is stepped over."""
    ends = (_interpolated(x + own, widths, heights) for own in (1e-6, -1e-6))
    return ((next(ends) - next(ends)) / 2e-6).log().sum(1)


Picked = Callable[..., Tensor]  # (of widths, heights, or where they begin, and how many bins further) -> (B, D)


def _in_bins(formula: Callable[[Tensor, Picked], Tensor]) -> Callable[..., Tensor]:
    """(x, widths, heights) -> formula(x, pick); pick("w"), ("h"), ("a"), ("b"): of each x's bin, see there."""

    def gives(x: Tensor, widths: Tensor, heights: Tensor) -> Tensor:
        left, low = (F.pad(own.cumsum(1), (1, 0)) for own in (widths, heights))
        tables = {"w": widths, "h": heights, "a": left, "b": low, "s": heights / widths}
        bins = (x[:, :, None] >= left[:, 1:-1]).sum(2)

        def pick(name: str, further: int = 0) -> Tensor:
            table = tables[name]
            return table[torch.arange(len(table)), (bins + further).clamp(0, table.shape[1] - 1)]

        return formula(x, pick)

    return gives


def _even(own: Tensor) -> Tensor:
    return torch.full_like(own, 1 / own.shape[1])


_STEEP = "is the piece as steep as its bin is high? What if the bin is narrow, too?"
_PIECE = "off by one: are the bin, its left end and what lies below it those of the same bin?"
_EVEN = "the bins are not of equal width: in which one is x?"
PIECES_MISTAKES = [
    Mistake(_in_bins(lambda x, p: p("b") + p("h") * (x - p("a"))), _STEEP),
    Mistake(_in_bins(lambda x, p: p("b") + x - p("a")), "how steep is the piece?"),
    Mistake(_in_bins(lambda x, p: p("b") + (x - p("a")) / p("w")), "within the bin: how high is the piece?"),
    Mistake(_in_bins(lambda x, p: p("b") + (x - p("a")) / p("s")), "the slope is upside down"),
    Mistake(_in_bins(lambda x, p: p("s") * (x - p("a"))), "a piece begins where the one before it ends"),
    Mistake(_in_bins(lambda x, p: p("s") * x), "a piece begins where the one before it ends"),
    Mistake(_in_bins(lambda x, p: p("b") + p("s") * x), "how far is x from the left end of its bin?"),
    *(
        Mistake(_in_bins(own), _PIECE)
        for own in (
            lambda x, p: p("b", 1) + p("s") * (x - p("a")),
            lambda x, p: p("b") + p("s") * (x - p("a", 1)),
            lambda x, p: p("b") + p("s", 1) * (x - p("a")),
            lambda x, p: p("b") + p("s", -1) * (x - p("a")),
            lambda x, p: p("b", 1) + p("s", 1) * (x - p("a", 1)),
        )
    ),
    Mistake(lambda x, w, h: _interpolated(x, _even(w), h), _EVEN),
    Mistake(lambda x, w, h: _interpolated(x, w, _even(h)), "the bins are not of equal height"),
    Mistake(lambda x, w, h: _interpolated(x, h, w), "widths belong to x and heights to z; that is the inverse"),
    Mistake(
        lambda x, w, h: _interpolated(x, w[:1].expand_as(w), h[:1].expand_as(h)),
        "each dimension has bins of its own; those are the first one's",
    ),
]
SLOPES_MISTAKES = [
    Mistake(_in_bins(lambda x, p: p("h").log().sum(1)), _STEEP),
    Mistake(_in_bins(lambda x, p: p("w").log().sum(1)), "how steep is the piece?"),
    Mistake(_in_bins(lambda x, p: -p("w").log().sum(1)), "how steep is the piece?"),
    Mistake(_in_bins(lambda x, p: -p("s").log().sum(1)), "the sign: is that of this map, or of its inverse?"),
    Mistake(_in_bins(lambda x, p: p("s").log().mean(1)), "a mean over the dimensions; what does a determinant take?"),
    Mistake(_in_bins(lambda x, p: p("s").sum(1).log()), "a determinant is a product of slopes, and not their sum"),
    Mistake(_in_bins(lambda x, p: p("s").mean(1).log()), "a determinant is a product of slopes, and not their mean"),
    Mistake(_in_bins(lambda x, p: p("s").sum(1)), "where is the logarithm?"),
    Mistake(_in_bins(lambda x, p: p("s").prod(1)), "where is the logarithm?"),
    Mistake(_in_bins(lambda x, p: p("s").log().sum().expand(len(x))), "that is summed over the batch, too"),
    Mistake(_in_bins(lambda x, p: p("s").log2().sum(1)), "those are bits, and nats are asked for"),
    Mistake(_in_bins(lambda x, p: p("s", 1).log().sum(1)), _PIECE),
    Mistake(_in_bins(lambda x, p: p("s", -1).log().sum(1)), _PIECE),
    Mistake(_in_bins(lambda x, p: p("s").log()[:, 0]), "a determinant takes the slopes in all dimensions"),
    Mistake(lambda x, w, h: (h / w).log().sum().expand(len(x)), "only the bins in which x lies are used"),
    Mistake(lambda x, w, h: _in_bins(lambda x, p: p("s").log().sum(1))(x, _even(w), h), _EVEN),
    Mistake(lambda x, w, h: _in_bins(lambda x, p: (p("h") * h.shape[1]).log().sum(1))(x, w, h), _EVEN),
    Mistake(lambda x, w, h: x.new_zeros(len(x)), "0 would keep all volumes"),
]


def _pieces(random: np.random.Generator, count: int, dims: int, bins: int) -> Case:
    """Random bins, and points that are not at their edges."""
    widths, heights = (torch.from_numpy(random.dirichlet(np.ones(bins), size=dims)) * 0.7 + 0.3 / bins for _ in "wh")
    edges, inside = F.pad(widths.cumsum(1), (1, 0)), torch.from_numpy(random.uniform(0.01, 0.99, size=(count, dims)))
    rows, which = torch.arange(dims), torch.from_numpy(random.integers(bins, size=(count, dims)))
    return {"x": edges[rows, which] + widths[rows, which] * inside, "widths": widths, "heights": heights}


@exercise(NOTEBOOK, "3.7")
def piecewise_linear(answer: Any) -> str:
    """(x (B, D), widths (D, K), heights (D, K)) -> (z, log_det (B,)), by straight pieces over bins of [0, 1].

    Compared with NumPy's interpolation and its differences, inside of bins, there and back; and z at all edges.
    """
    random = rng()
    first = {"x": [[0.5], [0.1]], "widths": [[0.25, 0.75]], "heights": [[0.6, 0.4]]}
    cases = [{name: torch.tensor(own, dtype=torch.float64) for name, own in first.items()}]
    sizes = [(2, 2, 2), *random.integers((2, 1, 2), (20, 6, 9), size=(16, 3)).tolist()]
    cases += [_pieces(random, *own) for own in sizes]
    back = [{"x": _interpolated(*own.values()), "widths": own["heights"], "heights": own["widths"]} for own in cases]
    exchanged = "back with widths and heights exchanged, "
    for own_cases, where in ((cases, ""), (back, exchanged)):
        values, log_dets = zip(*(_mapped(answer, own, "z", where + stated(own)) for own in own_cases), strict=True)
        settle_largest(values, own_cases, _interpolated, PIECES_MISTAKES, f"{where}your z")
        settle_largest(log_dets, own_cases, _by_differences, SLOPES_MISTAKES, f"{where}your log_det")
    for case in cases:
        _refuse_edges(answer, case)
    return "18 sets of random bins, there and back, against NumPy's interpolation, and the edges of all bins"


def _refuse_edges(answer: Any, case: Case) -> None:
    """Raise Wrong where z is not right at the edges of the bins; which slope it has there is anybody's choice."""
    edges = F.pad(case["widths"].cumsum(1), (1, 0)).T
    edges[-1] = 1  # but for rounding
    case, where = case | {"x": edges}, "at the edges of the bins, 0 and 1 too,"
    said = f"{where} {stated(case)}"
    value = numbers(pair(call(answer, case, said), "z and log_det", said)[0], tuple(edges.shape), f"{said}, z: ")
    settle_largest([value], [case], _interpolated, [], f"{where} your z")
