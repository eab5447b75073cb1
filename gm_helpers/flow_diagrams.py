"""Drawings of flows: strips of equal mass, a Jacobian's parallelogram, a coupling, the squeeze, scales and masks.

The numbers that stand in them are computed from what is drawn, or are those of the models in flows.py.
"""

import itertools

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from torch import Tensor
from torch.autograd.functional import jacobian

from gm_helpers.bijections import AutoregressiveLayer, MaskedLinear, Squeeze
from gm_helpers.diagrams import BLACK, SEVEN, Point, Shade, arrow, box, canvas, key, note, panel, picture, planes, table
from gm_helpers.figures import COLOURS
from gm_helpers.flows import CHECKERBOARD, standard_normal_log_prob

BLUE, ORANGE, GREEN, PURPLE = COLOURS[:4]
GREY = "#aaaaaa"
WHITE: Shade = ("white", 1.0)


def strips(s: float = 2.0, count: int = 12) -> Figure:
    """A normal density cut into `count` strips of equal mass, and where x = z + s·tanh z carries them.

    Equal masses are equal areas on the page. How wide two strips are is said beside the curve. s: from 1.5 to 3.
    """
    end, unit, tall = 3.2, 0.45, 3.0  # the last z; inches to a unit of z or x, and to one of density
    reach, top = end + s, 0.5 + 2 * end * unit
    figure, page = canvas(2 * reach * unit + 2.05, top + 0.75)
    plane = panel(page, (1.5, 0.5), (-reach, -end), (reach, end), (unit, unit))
    beside = panel(page, (0.1, 0.5), (0, -end), (1.4 / tall, end), (tall, unit))
    above = panel(page, (1.5, top), (-reach, 0), (reach, 1 / tall), (unit, tall))
    edges = torch.special.ndtri(torch.linspace(0, 1, count + 1, dtype=torch.float64)).clamp(-end, end).tolist()
    chosen, words = {count // 2: ORANGE, count - 2: PURPLE}, figure.get_figwidth() - 3.15
    for number, (low, high) in enumerate(itertools.pairwise(edges)):
        z = torch.linspace(low, high, 101, dtype=torch.float64)
        x, density = z + s * z.tanh(), standard_normal_log_prob(z[:, None]).exp()
        shade = (chosen[number], 0.75) if number in chosen else (BLUE, (0.2, 0.4)[number % 2])
        beside.fill_betweenx(z, density, color=shade, linewidth=0)
        above.fill_between(x, density / (1 + s / z.cosh() ** 2), color=shade, linewidth=0)
        plane.plot(x, z, color=BLACK, linewidth=2, linestyle="-", zorder=3)
        carried = _carry(plane, x, z, shade if number in chosen else None)
        if number in chosen:
            key(page, (words, 1.6 if number == count // 2 else 1.1), shade, carried)
    note(page, (words, 0.72), f"all {count} strips have the mass 1/{count}", ha="left")
    _name_axes(page, plane, beside, above)
    return figure


def _carry(plane: Axes, x: Tensor, z: Tensor, shade: Shade | None) -> str:
    """Draw the way of a strip from the z axis to its part x, z of the curve and up to x; say how wide it becomes."""
    (left, right), (low, high) = x[[0, -1]].tolist(), z[[0, -1]].tolist()
    start, top = plane.get_xlim()[0], plane.get_ylim()[1]
    plane.plot([start, left, left], [low, low, top], color=GREY, linewidth=0.6, linestyle="-")
    if shade:
        back = [(right, top), (left, top), (left, high), (start, high), (start, low)]
        plane.add_patch(Polygon([*zip(x.tolist(), z.tolist(), strict=True), *back], facecolor=(shade[0], 0.25)))
    wider = (right - left) / (high - low)
    return f"from {high - low:.2f} of $z$ to {right - left:.2f} of $x$:\nwidth × {wider:.1f}, height ÷ {wider:.1f}"


def _name_axes(page: Axes, plane: Axes, beside: Axes, above: Axes) -> None:
    """The words at the axes of `strips`; both densities stand on the frame of the plane."""
    beside.set(xlim=beside.get_xlim()[::-1])
    for own in (beside, above):
        own.set_axis_off()
    plane.spines[:].set_visible(True)
    plane.yaxis.tick_right()
    plane.set(xlabel="$x$")
    right, top = page.get_xlim()[1], page.get_ylim()[1]
    note(page, (0.55, top - 1.15), "density of $z$")
    note(page, (2.0, top - 0.2), "density of $x$")
    note(page, (right - 0.1, 1.94), "$z$")


def bend(x: Tensor) -> Tensor:
    """The smooth map of the plane that `parallelogram` draws, (N, 2) to (N, 2)."""
    first, second = x.T
    return torch.stack([1.2 * first - 0.4 * second**2, 0.4 * first**2 + 1.1 * second], dim=1)


def parallelogram(corner: Point = (0.5, 0.5), side: float = 0.5) -> Figure:
    """A square, its image under `bend`, and the parallelogram that the Jacobian at its corner makes of it."""
    figure, page = canvas(7.35, 4)
    before = panel(page, (0.6, 1.85), (0, 0), (1.5, 1.5), (1.3, 1.3))
    after = panel(page, (3.6, 0.5), (-0.95, 0), (1.85, 2.6), (1.3, 1.3))
    start, zero = torch.tensor(corner, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    origin, columns = bend(start[None])[0], jacobian(lambda x: bend(x[None])[0], start).T  # its rows: J's columns
    sides = side * torch.eye(2, dtype=torch.float64), side * columns
    pair = zip((before, after), "xz", (lambda x: x, bend), (start, origin), sides, strict=True)
    for axes, name, taken, begin, vectors in pair:
        for number, way in enumerate([*_grid(zero, 1.5, 4), *_grid(start, side, 6)]):
            axes.plot(*taken(way).T, color=GREY if number < 8 else BLUE, linewidth=0.7, linestyle="-")
        axes.add_patch(Polygon(taken(_outline(start, side)), facecolor=(BLUE, 0.2), edgecolor=BLUE, linewidth=1.2))
        for vector, colour in zip(vectors, (ORANGE, GREEN), strict=True):
            arrow(axes, tuple(begin.tolist()), tuple((begin + vector).tolist()), colour=colour)
        axes.set(xlabel=f"${name}_1$", ylabel=f"${name}_2$")
        axes.locator_params(nbins=7, steps=(1, 5, 10))
    spanned = origin + (_outline(start, side) - start) @ columns
    after.add_patch(Polygon(spanned, facecolor="none", edgecolor=BLACK, linestyle="--", zorder=0.9))
    _areas(page, columns, start, side)
    return figure


def _grid(corner: Tensor, side: float, lines: int) -> list[Tensor]:
    """The lines of a square's grid, both ways, each (101, 2)."""
    fine = torch.linspace(0, side, 101, dtype=torch.float64)
    pairs = [(own.expand(101), fine) for own in torch.linspace(0, side, lines, dtype=torch.float64)]
    return [corner + torch.stack(pair, dim=1) for own in pairs for pair in (own, own[::-1])]


def _outline(corner: Tensor, side: float) -> Tensor:
    """Points all along the sides of a square, (400, 2), counterclockwise from its lower left corner (2,)."""
    t = torch.linspace(0, 4, 401, dtype=torch.float64)[:-1]
    return corner + side * torch.stack([torch.minimum(t, 3 - t), torch.minimum(t - 1, 4 - t)], dim=1).clamp(0, 1)


def _ratio(corner: Tensor, side: float) -> float:
    """The area of a square's image under `bend`, by the shoelace formula, over that of the square."""
    x, y = bend(_outline(corner, side)).T
    return abs((x * y.roll(-1) - y * x.roll(-1)).sum().item()) / (2 * side**2)


def _areas(page: Axes, columns: Tensor, corner: Tensor, side: float) -> None:
    """The legend of `parallelogram`: columns and determinant, and how the areas of smaller and smaller squares grow."""
    arrow(page, (2.65, 2.82), (3.1, 2.82))
    note(page, (2.86, 2.98), "$f$")
    first, second = (f"{side:g} · ({own[0]:.2f}, {own[1]:.2f})".replace("-", "−") for own in columns.tolist())
    key(page, (0.12, 1.15), (ORANGE, 1.0), f"{side:g} · first column of $J$ = {first}")
    key(page, (0.12, 0.91), (GREEN, 1.0), f"{side:g} · second column of $J$ = {second}")
    spanned = f"parallelogram: area {side:g}² · |det $J$|, and\n|det $J$| = {torch.det(columns).abs():.2f}"
    key(page, (0.12, 0.6), WHITE, spanned, "--")
    whole, small, tiny = (_ratio(corner, own) for own in (side, side / 10, side / 100))
    smaller = f"{small:.2f} times for the side {side / 10:g}, {tiny:.2f} for {side / 100:g}"
    key(page, (0.12, 0.22), (BLUE, 0.2), f"image: {whole:.2f} times the square's area;\n{smaller}")


def coupling() -> Figure:
    """An affine coupling layer, forward, and its inverse, in which the same network runs in the same direction."""
    figure, axes = canvas(5.6, 5.7)
    formulas = {
        "forward": (r"$z_a = x_a$", r"$z_b = x_b \odot \exp(s) + t$", r"$\log|\det J| = \sum_i s_i$"),
        "inverse": (r"$x_a = z_a$", r"$x_b = (z_b - t) \odot \exp(-s)$", r"log-determinant $-\sum_i s_i$"),
    }
    for base, (way, own) in zip((2.95, 0.05), formulas.items(), strict=True):
        axes.text(0.25, base + 2.5, f"{way}:", fontsize=10, weight="bold")
        for x, formula in zip((1.1, 1.95, 3.85), own, strict=True):
            axes.text(x, base + 2.5, formula, fontsize=10)
        _one_way(axes, base, way == "inverse")
    return figure


def _one_way(axes: Axes, base: float, inverse: bool) -> None:
    """One way through a coupling layer, x on the left and z on the right, from `base` on upwards."""
    left, scale, shift, right = 0.5, 1.9, 3.7, 5.1
    top, middle, bottom = base + 2.0, base + 1.2, base + 0.4
    for x, name in ((left, "x"), (right, "z")):
        box(axes, (x, top), (0.5, 0.46), f"${name}_a$")
        box(axes, (x, bottom), (0.5, 0.46), f"${name}_b$", ORANGE)
    box(axes, (2.8, middle), (2.9, 0.46), "the same network" if inverse else "network", BLUE)
    axes.plot(2.8, top, "o", color=BLUE, markersize=5, zorder=3)
    arrow(axes, (2.8, top), (2.8, middle + 0.23), colour=BLUE)
    note(axes, (2.92, base + 1.72), "reads $z_a$, which is $x_a$" if inverse else "reads $x_a$", ha="left")
    texts = (r"$\odot\ \exp(-s)$", "$-\\ t$") if inverse else (r"$\odot\ \exp(s)$", "$+\\ t$")
    for x, text, name in zip((scale, shift), texts, "st", strict=True):
        box(axes, (x, bottom), (1.1, 0.46), text, ORANGE)
        arrow(axes, (x, middle - 0.23), (x, bottom + 0.23), colour=BLUE)
        note(axes, (x + 0.12, base + 0.8), f"${name}$", ha="left")
    ends = ((left + 0.25, scale - 0.55), (scale + 0.55, shift - 0.55), (shift + 0.55, right - 0.25))
    ways = [(left + 0.25, right - 0.25, top, BLACK), *((start, end, bottom, ORANGE) for start, end in ends)]
    for start, end, y, colour in ways:
        arrow(axes, *((end, y), (start, y)) if inverse else ((start, y), (end, y)), colour=colour)


def squeeze() -> Figure:
    """Numbered pixels, and the channels that `Squeeze` makes of them; strong in colour where the checkerboard is 1."""
    figure, axes = canvas(5.9, 2.9)
    pixels, mask = torch.arange(1.0, 17).view(1, 1, 4, 4), CHECKERBOARD.tolist()
    block, channels = pixels[0, 0].int().numpy(), Squeeze()(pixels)[0][0].int().numpy()  # (4, 4), (4, 2, 2)
    shades = [(own, 0.65 if kept else 0.2) for own, kept in zip((BLUE, ORANGE, GREEN, PURPLE), mask, strict=True)]
    of_pixel = {number: shades[channel] for channel in range(4) for number in channels[channel].flat}
    places = [(0.2, 2.45), (3.3, 2.75), (4.7, 2.75), (3.3, 1.35), (4.7, 1.35)]
    for place, own in zip(places, (block, *channels), strict=True):
        table(axes, place, 0.44, [[of_pixel[number] for number in row] for row in own], own)
    note(axes, (1.08, 0.52), "4 × 4 pixels; strong:\nthe checkerboard's 1", va="top")
    arrow(axes, (2.1, 1.57), (2.95, 1.57))
    note(axes, (2.51, 1.72), "squeeze")
    for channel, (x, y) in enumerate(places[1:]):
        note(axes, (x + 0.44, y - 1.05), f"channel {channel + 1}: mask {mask[channel]}")
    return figure


def scales() -> Figure:
    """The way of an image through `flows.flow_convolutional`: half of the latents leave after the first scale."""
    figure, axes = canvas(8, 3.8)
    first, second = 2.9, 1.03  # heights of the two scales
    leave, stay, plain = (ORANGE, 0.45), (BLUE, 0.35), (BLACK, 0.1)
    seven = np.array([[int(own) for own in row] for row in SEVEN.split()])
    picture(axes, (0.62, first), 0.9, np.kron(np.pad(seven, 2), np.ones((2, 2))))
    box(axes, (1.8, first), (0.9, 0.76), "to logits,\nActNorm", GREEN)
    box(axes, (4.65, first), (1.4, 0.76), "8 couplings:\n4 checkerboard,\n4 channels", GREEN)
    box(axes, (4.65, second), (1.4, 0.76), "4 couplings:\nchannels", GREEN)
    planes(axes, (3.3, first), 0.45, 4 * [plain])
    planes(axes, (6.0, first), 0.45, [leave, leave, stay, stay])
    planes(axes, (1.8, second), 0.45, 2 * [stay])
    planes(axes, (3.3, second), 0.225, 8 * [stay])
    box(axes, (7.62, 2.68), (0.44, 1.38), "392", ORANGE)
    box(axes, (7.62, 1.26), (0.44, 1.38), "392", BLUE)
    for start, end in ((1.07, 1.35), (2.25, 2.97), (3.63, 3.95), (5.35, 5.67)):
        arrow(axes, (start, first), (end, first))
    for start, end in ((2.06, 3.08), (3.52, 3.95), (5.35, 7.4)):
        arrow(axes, (start, second), (end, second), colour=BLUE)
    arrow(axes, (6.33, first), (7.4, first), colour=ORANGE)
    arrow(axes, (5.9, first - 0.33), (5.9, 1.92), (1.8, 1.92), (1.8, second + 0.26), colour=BLUE)
    _shapes(axes, first, second)
    return figure


def _shapes(axes: Axes, first: float, second: float) -> None:
    """The words in `scales`: the shapes, and what becomes of the log-determinants."""
    for text, *places in (
        ("1 × 28 × 28", (0.62, first - 0.6)),
        ("4 × 14 × 14", (3.3, first - 0.5)),
        ("squeeze", (2.58, first + 0.14), (2.56, second + 0.14)),
        ("2 × 14 × 14", (6.87, first + 0.14), (1.8, second - 0.45)),
        ("split: 2 × 14 × 14 go on", (3.85, 2.06)),
        ("8 × 7 × 7", (3.3, second - 0.45), (6.38, second + 0.14)),
        ("$z$: 784", (7.62, 3.52)),
        (r"$\ell_1$", (1.8, first - 0.53)),
        (r"$\ell_2$", (4.65, first - 0.53)),
        (r"$\ell_3$", (4.65, second - 0.53)),
    ):
        for at in places:
            note(axes, at, text)
    total = r"log-determinants add: $\log|\det J| = \ell_1 + \ell_2 + \ell_3$; squeeze and split add 0"
    note(axes, (0.17, 0.2), total, ha="left")


def masks(dims: int = 4, output: int = 3) -> Figure:
    """The masked network of an autoregressive layer of 3 or 4 values; what leads to s and t of x_output stands out."""
    figure, axes = canvas(7.6, 4.9)
    own = _masks(dims)
    values, units = np.arange(1, dims + 1), own[0].sum(1)  # a unit has the number of inputs that it sees
    numbers, leading = [values, units, units, values], [values == output]
    for mask in reversed(own):
        leading.insert(0, mask[leading[0]].any(0))
    _network(axes, own, numbers, leading)
    for x, title, mask, seen, seeing in (
        (1.0, "first mask", own[0], 0, 1),
        (2.9, "second mask", own[1], 1, 2),
        (4.85, "third mask", own[2], 2, 3),
        (6.65, "together: inputs seen", own[2] @ own[1] @ own[0], 0, 3),
    ):
        note(axes, (x, 1.82), title, va="baseline")
        _mask(axes, (x, 1.53), mask, leading[seeing], numbers[seeing], numbers[seen])
    note(axes, (0.15, 0.2), "rows: who sees; columns: who is seen; filled: the mask is 1", ha="left")
    return figure


def _masks(dims: int) -> list[np.ndarray]:
    """The masks of an autoregressive layer, two hidden units of each number in order; of the last the rows for s."""
    with torch.random.fork_rng(devices=[]):  # its weights are not looked at: a drawing leaves the random numbers alone
        layer = AutoregressiveLayer(dims, hidden=2 * (dims - 1))
    first, middle, last = (part.mask.bool().numpy() for part in layer.network if isinstance(part, MaskedLinear))
    order = first.sum(1).argsort(kind="stable")
    return [first[order], middle[order][:, order], last[:dims, order]]


def _network(axes: Axes, own: list[np.ndarray], numbers: list[np.ndarray], leading: list[np.ndarray]) -> None:
    """The units of `masks` in four columns, and a line where a mask is 1; orange what leads to the chosen output."""
    columns, height = (0.7, 2.75, 4.8, 6.85), 0.8 * 2.3 / len(numbers[1])
    places = [3.45 + 2.3 * (0.5 - (np.arange(len(each)) + 0.5) / len(each)) for each in numbers]
    for k, mask in enumerate(own):
        for i, j in np.argwhere(mask):
            colour, width, order = (ORANGE, 1.6, 0.7) if leading[k + 1][i] else (GREY, 0.8, 0.6)
            ends = columns[k : k + 2], (places[k][j], places[k + 1][i])
            axes.plot(*ends, color=colour, linewidth=width, linestyle="-", zorder=order)
    kinds = ("inputs", "$x_{}$"), ("hidden units", "{}"), ("hidden units", "{}"), ("outputs", "$s_{0},\\ t_{0}$")
    for x, (kind, form), ys, names, strong in zip(columns, kinds, places, numbers, leading, strict=True):
        note(axes, (x, 4.68), kind, va="baseline")
        size = 0.7 if kind == "outputs" else 0.4, height
        for y, number, stands_out in zip(ys, names, strong, strict=True):
            box(axes, (x, y), size, form.format(number), ORANGE if stands_out else BLACK)


def _mask(axes: Axes, top: Point, mask: np.ndarray, strong: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> None:
    """A mask as a table, the middle of its upper side there: filled where it is 1, orange in rows that stand out."""
    side, left = 0.17, top[0] - 0.17 * len(columns) / 2
    filled = [(ORANGE, 0.8) if own else (BLACK, 0.45) for own in strong]
    shades = [[filled[i] if seen else WHITE for seen in row] for i, row in enumerate(mask)]
    table(axes, (left, top[1]), side, shades)
    for i, number in enumerate(rows):
        note(axes, (left - 0.09, top[1] - (i + 0.5) * side), f"{number}")
    for j, number in enumerate(columns):
        note(axes, (left + (j + 0.5) * side, top[1] + 0.1), f"{number}")
