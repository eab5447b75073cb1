"""Drawings of models, made of boxes and arrows; a drawing's unit of length is the inch."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle

from gm_helpers import figures

Point = tuple[float, float]
Shade = tuple[str, float]  # a colour and its opacity
ROUND = "round,pad=0,rounding_size=0.09"
BLACK, BLUE, ORANGE, GREEN, PURPLE = "#222222", *figures.COLOURS[:4]
# A binary image of ten by ten pixels, so that the drawing needs no data: 1 is white.
SEVEN = """
0000000000
0011111100
0011111110
0000000110
0000001100
0000001100
0000011000
0000011000
0000110000
0000000000
"""

# What stands under the parts: in words, or the sizes of the model with 20 latents.
WORDS = {
    "image": "image $x$:\n784 pixels, 0 or 1",
    "encoder": "guesses the code\nfrom the image",
    "decoder": "draws what\nthe code means",
    "probabilities": "784 probabilities\nof white",
}
SIZES = {
    "image": "image $x$:\n784 pixels, 0 or 1",
    "encoder": "784 → 500, ReLU\n→ 20 + 20: $\\mu$, $\\log\\,\\sigma^2$\n412,540 parameters",
    "decoder": "20 → 500, tanh\n→ 784 logits\n403,284 parameters",
    "probabilities": "784 probabilities\nof white",
}


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure of that many inches, and its axes, in which a point is given in inches from the lower left."""
    figure = plt.figure(figsize=(width, height), layout="none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    return figure, axes


def panel(axes: Axes, corner: Point, low: Point, high: Point, units: Point) -> Axes:
    """Axes of their own under those of a canvas, for curves; their lower left corner is there, in inches.

    low, high: the ends of x and of y. units: the inches to a unit of either.
    """
    width, height = axes.get_xlim()[1], axes.get_ylim()[1]
    across, up = (units[i] * (high[i] - low[i]) for i in range(2))
    figure = axes.figure
    assert isinstance(figure, Figure)
    own = figure.add_axes((corner[0] / width, corner[1] / height, across / width, up / height))
    own.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), zorder=axes.get_zorder() - 1)
    own.grid(visible=False)
    return own


def box(axes: Axes, centre: Point, size: Point, text: str = "", colour: str = BLACK) -> None:
    """A rounded box with text in it, its frame in that colour and its inside in a light shade of it."""
    (x, y), (width, height) = centre, size
    for inside in ("white", (colour, 0.12)):  # white below, so that no line shines through
        frame = FancyBboxPatch((x - width / 2, y - height / 2), width, height, boxstyle=ROUND)
        frame.set(facecolor=inside, edgecolor=colour, linewidth=1.4)
        axes.add_patch(frame)
    axes.text(x, y, text, ha="center", va="center", fontsize=10, linespacing=1.35)


def network(axes: Axes, centre: Point, size: Point, text: str, colour: str, narrow: str = "right") -> None:
    """A network: a trapezium whose sides are as high as its input and its output are large; narrow: "left", "right"."""
    (x, y), (width, height) = centre, size
    ends = np.array([1.0, 0.5] if narrow == "right" else [0.5, 1.0]) * height / 2
    left, right = x - width / 2, x + width / 2
    corners = [(left, y - ends[0]), (left, y + ends[0]), (right, y + ends[1]), (right, y - ends[1])]
    axes.add_patch(Polygon(corners, facecolor=(colour, 0.12), edgecolor=colour, linewidth=1.4, joinstyle="round"))
    axes.text(x, y, text, ha="center", va="center", fontsize=10, linespacing=1.35)


def arrow(axes: Axes, *points: Point, colour: str = BLACK, style: str = "-") -> None:
    """An arrow through these points, with a bend at each but the first and the last; style: of its line."""
    before, end = (np.array(own) for own in points[-2:])
    neck = end - 0.1 * (end - before) / np.linalg.norm(end - before)  # the head is whole, whatever the line's style is
    line = np.array([*points[:-1], neck])
    axes.plot(line[:, 0], line[:, 1], color=colour, linewidth=1.4, linestyle=style)
    head = FancyArrowPatch(
        (neck[0], neck[1]), (end[0], end[1]), arrowstyle="-|>", mutation_scale=11, shrinkA=0, shrinkB=0
    )
    head.set(color=colour, linewidth=1)
    axes.add_patch(head)


def picture(axes: Axes, centre: Point, side: float, image: np.ndarray) -> None:
    """A grey image, square, values in [0, 1], with a thin frame."""
    (x, y), half = centre, side / 2
    extent = (x - half, x + half, y - half, y + half)
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, extent=extent, aspect="auto", interpolation="nearest")
    corners = [(extent[i], extent[j]) for i, j in ((0, 2), (0, 3), (1, 3), (1, 2))]
    axes.add_patch(Polygon(corners, facecolor="none", edgecolor=BLACK, linewidth=1.4))


def square(axes: Axes, corner: Point, side: float, shade: Shade, style: str = "-") -> None:
    """A square with a thin frame, its lower left corner there; style: of the frame's line."""
    own = Rectangle(corner, side, side, facecolor=shade, edgecolor=BLACK, linewidth=0.8, linestyle=style)
    axes.add_patch(own)


def table(
    axes: Axes, corner: Point, side: float, shades: Sequence[Sequence[Shade]], texts: np.ndarray | None = None
) -> None:
    """Rows of squares, the upper left corner of all there: each with its shade, and its text in it."""
    for i, row in enumerate(shades):
        for j, shade in enumerate(row):
            x, y = corner[0] + j * side, corner[1] - (i + 1) * side
            square(axes, (x, y), side, shade)
            if texts is not None:
                axes.text(x + side / 2, y + side / 2, f"{texts[i, j]}", ha="center", va="center", fontsize=10)


def planes(axes: Axes, centre: Point, side: float, shades: Sequence[Shade]) -> None:
    """The channels of an image as squares about that point, the first at the back on the right, the last in front."""
    step = 0.07 if len(shades) <= 4 else 0.03
    for place, shade in enumerate(shades):
        shift = step * ((len(shades) - 1) / 2 - place) - side / 2
        for inside in (("white", 1.0), shade):
            square(axes, (centre[0] + shift, centre[1] + shift), side, inside)


def note(axes: Axes, at: Point, text: str, ha: str = "center", va: str = "center") -> None:
    """A remark beside what is drawn."""
    axes.text(*at, text, color=BLACK, fontsize=9, linespacing=1.3, ha=ha, va=va)


def key(axes: Axes, at: Point, shade: Shade, text: str, style: str = "-") -> None:
    """A line of a legend: a square with that shade and frame, and on its right what it stands for."""
    square(axes, (at[0], at[1] - 0.075), 0.15, shade, style)
    note(axes, (at[0] + 0.25, at[1]), text, ha="left")


def _seven() -> tuple[np.ndarray, np.ndarray]:
    """The binary image, and the smooth one of probabilities that a decoder might make of it."""
    image = np.array([[int(own) for own in row] for row in SEVEN.split()], dtype=float)
    padded = np.pad(image, 1)
    weights = ((1, 2, 1), (2, 6, 2), (1, 2, 1))
    moved = [weights[i][j] * padded[i : i + 10, j : j + 10] for i in range(3) for j in range(3)]
    return image, sum(moved, np.zeros_like(image)) / 18


def vae(sizes: bool = False) -> Figure:
    """The variational autoencoder: the way of an image, where generating starts, and what each part of the loss sees.

    sizes: with the layers and the numbers of parameters of the model that has 20 latents.
    """
    figure, axes = canvas(8, 4.3)
    way, above, below = 2.2, 3.8, 0.4  # heights of the image's way, and of the two terms of the loss
    image, probabilities = _seven()
    picture(axes, (0.62, way), 0.8, image)
    network(axes, (1.93, way), (1.16, 1.3), "encoder\n" r"$q_\phi(z\,|\,x)$" "\n" r"weights $\phi$", BLUE)
    box(axes, (3.1, way + 0.27), (0.44, 0.42), r"$\mu$", BLUE)
    box(axes, (3.1, way - 0.27), (0.44, 0.42), r"$\sigma$", BLUE)
    box(axes, (4.12, way), (0.98, 0.5), r"$\mu + \sigma \odot \varepsilon$")
    box(axes, (4.99, way), (0.36, 0.5), "$z$")
    network(axes, (6.07, way), (1.16, 1.3), "decoder\n" r"$p_\theta(x\,|\,z)$" "\n" r"weights $\theta$", ORANGE, "left")
    picture(axes, (7.38, way), 0.8, probabilities)
    for start, end in ((1.05, 1.33), (4.63, 4.79), (5.19, 5.47), (6.67, 6.95)):
        arrow(axes, (start, way), (end, way))
    for side in (0.27, -0.27):
        arrow(axes, (2.53, way + side / 2), (2.86, way + side))
        arrow(axes, (3.34, way + side), (3.61, way + side / 3))
    _sources(axes, way, above)
    _loss(axes, way, above, below)
    notes = SIZES if sizes else WORDS
    for part, x, y in (
        ("image", 0.62, 1.77),
        ("encoder", 1.93, 1.5),
        ("decoder", 6.07, 1.5),
        ("probabilities", 7.38, 1.77),
    ):
        note(axes, (x, y), notes[part], va="top")
    if sizes:
        note(axes, (4.22, 1.68), r"$z$, $\varepsilon$: 20 numbers", ha="left")
    return figure


def _sources(axes: Axes, way: float, above: float) -> None:
    """The prior, from which generating starts, and the noise that comes in from the side."""
    box(axes, (4.99, above), (1.3, 0.56), "prior\n" r"$p(z) = \mathcal{N}(0, I)$")
    arrow(axes, (4.99, above - 0.3), (4.99, way + 0.27), style="--")
    note(axes, (5.09, 3.05), "to generate, start here:\ndraw a code $z$, decode it", ha="left")
    box(axes, (4.12, 1.2), (1.24, 0.4), r"$\varepsilon \sim \mathcal{N}(0, I)$")
    arrow(axes, (4.12, 1.42), (4.12, way - 0.27))


def _loss(axes: Axes, way: float, above: float, below: float) -> None:
    """Both terms of the loss, dotted lines from what each of them compares."""
    box(axes, (3.1, above), (1.5, 0.56), "KL term\n" r"$\mathrm{KL}(q_\phi(z\,|\,x)\,\|\,p(z))$", GREEN)
    frame = FancyBboxPatch((2.8, way - 0.56), 0.6, 1.12, boxstyle=ROUND)
    frame.set(facecolor="none", edgecolor=GREEN, linewidth=1.4, linestyle=":", zorder=0.5)
    axes.add_patch(frame)
    arrow(axes, (3.1, way + 0.56), (3.1, above - 0.3), colour=GREEN, style=":")
    arrow(axes, (4.32, above), (3.87, above), colour=GREEN, style=":")
    box(axes, (4.0, below), (2.2, 0.56), "reconstruction error\n" r"$-\log p_\theta(x\,|\,z)$ at this $x$", PURPLE)
    arrow(axes, (0.62, way - 0.8), (0.62, below), (2.88, below), colour=PURPLE, style=":")
    note(axes, (1.15, above), "loss = $-$ELBO =\nKL + reconstruction error")
    arrow(axes, (7.38, way - 0.8), (7.38, below), (5.12, below), colour=PURPLE, style=":")


def gan() -> Figure:
    """The game of a GAN: who gets what (solid), and whom the gradient of each loss moves (dotted).

    A loss has the colour of the player that it moves. It is said in words, true of both losses of the generator.
    """
    figure, axes = canvas(8, 4)
    real, fake, verdict = 2.6, 1.36, 1.98  # heights of the two images, and of what D makes of them
    image, sample = _real_and_generated()
    box(axes, (0.74, fake), (1.18, 0.56), "noise\n" r"$z \sim \mathcal{N}(0, I)$")
    network(axes, (2.19, fake), (1.06, 1.3), "generator\n$G$", ORANGE, "left")
    picture(axes, (3.54, fake), 0.8, sample)
    picture(axes, (3.54, real), 0.8, image)
    network(axes, (4.96, verdict), (1.24, 2.1), "discriminator\n$D$", BLUE)
    box(axes, (6.13, verdict), (0.36, 0.5), "$a$")
    box(axes, (7.21, verdict), (1.1, 0.56), "probability\n" r"$D = \sigma(a)$")
    arrow(axes, (1.33, fake), (1.66, fake))
    arrow(axes, (2.72, fake + 0.14), (3.14, fake + 0.14))  # the gradient comes back beside these two
    arrow(axes, (3.94, fake + 0.14), (4.34, fake + 0.14))
    arrow(axes, (3.94, real), (4.34, real))
    for start, end in ((5.58, 5.95), (6.31, 6.66)):
        arrow(axes, (start, verdict), (end, verdict))
    note(axes, (2.98, real), "real image $x$\nfrom the data", ha="right")
    note(axes, (3.54, 0.88), "generated image $G(z)$", va="top")
    note(axes, (6.13, 1.66), "logit", va="top")
    _losses(axes, verdict, fake)
    return figure


def _real_and_generated() -> tuple[np.ndarray, np.ndarray]:
    """A grey image of a digit, and one that a generator might make: the stroke has a gap, and there is grey dust."""
    image, grey = _seven()
    sample, dust = grey.copy(), np.random.default_rng(3).random(grey.shape)
    sample[4:6, 4:7] *= 0.35
    return grey, np.clip(sample + 0.45 * (dust > 0.8) * (image == 0), 0, 1)


def _losses(axes: Axes, verdict: float, fake: float) -> None:
    """Both losses: solid lines from the probability that they judge, dotted lines to the player that they move."""
    above, below = 3.62, 0.4
    box(axes, (6.13, above), (2.5, 0.56), "discriminator's loss: low where\n$D(x)$ is near 1, $D(G(z))$ near 0", BLUE)
    arrow(axes, (7.21, verdict + 0.28), (7.21, above - 0.28), colour=BLUE)
    arrow(axes, (5.2, above - 0.28), (5.2, verdict + 0.7), colour=BLUE, style=":")
    note(axes, (5.3, 3.1), "moves $D$ alone", ha="left")
    box(axes, (6.6, below), (2.3, 0.56), "generator's loss: low where\n$D(G(z))$ is near 1", ORANGE)
    arrow(axes, (7.21, verdict - 0.28), (7.21, below + 0.28), colour=ORANGE)
    back = fake - 0.14
    arrow(axes, (5.45, below), (4.64, below), (4.64, back), (3.94, back), colour=ORANGE, style=":")
    arrow(axes, (3.14, back), (2.72, back), colour=ORANGE, style=":")
    note(
        axes,
        (4.54, below - 0.03),
        "its gradient goes through $D$,\nwhose weights stay, and moves $G$ alone",
        ha="right",
    )
    note(axes, (0.15, 3.75), "solid: what is computed\ndotted: gradients, back", ha="left")
