"""The course's one style, and the pictures that are drawn more than once."""

import inspect
import io
import re
import textwrap
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import matplotlib.pyplot as plt
from IPython.display import Markdown, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from gm_helpers import files

# Okabe & Ito's colours, told apart with every common colour vision; yellow is left out, it is too light for a line.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
CLASS_COLOURS = (*COLOURS, "#999999", "#882255", "#999933")  # ten, for points that are marked by their digit too
LINES = (
    "-",
    "--",
    "-.",
    ":",
    (0, (5, 1)),
    (0, (3, 1, 1, 1)),
    (0, (1, 1)),
)  # so that colour is never the only difference
PIXELS_PER_INCH = 150
SCALE = 1.5  # pixels of the file for each pixel on the page

STYLE = {
    "axes.prop_cycle": plt.cycler(color=COLOURS) + plt.cycler(linestyle=LINES),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "font.size": 10,
    "axes.titlesize": 10,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "image.cmap": "cividis",
    "savefig.dpi": PIXELS_PER_INCH,
}


def use_style() -> None:
    """Draw all that follows in the course's style: a notebook's first cell asks for it."""
    plt.style.use(STYLE)


def show(figure: Figure, name: str, figure_dir: str = "", alt: str = "") -> None:
    """Display a figure with its alternative text and close it; with a folder, save both as NAME.png and NAME.txt.

    name: section number and a word, such as "1.13-curves". alt: by default what alt_texts.toml has for that name. The
    same figure gives the same bytes. Raises ValueError for a name that is none of a file in that folder, and for a
    figure without an alternative text.
    """
    alt = alt or alternative(name)
    show_png(to_png(figure, alt), name, alt, figure_dir, SCALE)


def alternative(name: str) -> str:
    """The alternative text that the course has for a figure of its notebooks. Raises ValueError where it has none."""
    texts = tomllib.loads((Path(__file__).parent / "alt_texts.toml").read_text(encoding="utf-8"))
    if name not in texts:
        raise ValueError(f"the figure {name!r} has no alternative text: say in a sentence what it shows, by alt=…")
    return texts[name]


def to_png(figure: Figure, alt: str) -> bytes:
    """The PNG of a figure, which is closed, with SCALE pixels for each of the page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return with_palette(buffer, alt)


def show_png(png: bytes, name: str, alt: str, figure_dir: str = "", scale: float = 1.0) -> None:
    """Display a picture, `scale` of its pixels for each of the page; with a folder, save it and its text beside it."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError(
            f"{name!r} can't be a figure's name: take letters, digits, '-', '_' and '.', a letter or digit first"
        )
    if figure_dir:
        where = files.folder(figure_dir)
        files.write_atomically(where / f"{name}.png", png)
        files.write_atomically(where / f"{name}.txt", f"{alt}\n".encode())
    width = int.from_bytes(png[16:20])  # a PNG's header holds its width there
    # JupyterLab shows the first line of the text in place of an output that is folded: it must give no answer away
    content = {"image/png": png, "text/plain": f"Figure {name}\n{alt}"}
    display(content, metadata={"image/png": {"width": round(width / scale), "alt": alt}}, raw=True)


def with_palette(picture: BinaryIO, alt: str) -> bytes:
    """The PNG with 256 colours chosen for it and its text: half the bytes, and nothing that the eye sees is lost."""
    text, buffer = PngInfo(), io.BytesIO()
    text.add_itxt("Description", alt)
    colours: Image.Image = Image.open(picture)
    if colours.mode != "L":  # 256 greys are no more already
        colours = colours.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    colours.save(buffer, "png", optimize=True, pnginfo=text)
    return buffer.getvalue()


def show_source(*functions: Any) -> None:
    """Display the source of functions or classes, highlighted: the code that is taught is the code that is tested.

    Raises ValueError for an exercise's checker.
    """
    for function in functions:
        if function.__module__.startswith("gm_helpers.exercises"):
            raise ValueError(f"{function.__name__} is a checker: its source would give the exercise away")
        display(Markdown(f"```python\n{textwrap.dedent(inspect.getsource(function)).rstrip()}\n```"))


def draw_images(axes: Axes, images: Tensor, columns: int, title: str = "") -> None:
    """Draw grey images, (N, 784) or (N, 1, 28, 28) with values in [0, 1], as one grid with `columns` columns."""
    tiles = images.detach().cpu().float().reshape(-1, columns, 28, 28)  # (rows, columns, 28, 28)
    picture = tiles.permute(0, 2, 1, 3).reshape(len(tiles) * 28, columns * 28)
    axes.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=1)
    axes.set(title=title)
    axes.set_axis_off()


def draw_classes(axes: Axes, codes: Tensor, labels: Tensor) -> None:
    """Scatter two-dimensional codes, (N, 2), each drawn as its digit in the colour of its class; labels: (N,)."""
    for digit, colour in enumerate(CLASS_COLOURS):
        own = codes[labels.to(codes.device) == digit]
        x, y = own.detach().cpu().T
        axes.scatter(x, y, s=18, marker=f"${digit}$", color=colour, linewidths=0.2)


def image_rows(rows: dict[str, Tensor], columns: int, width: float = 8.0) -> Figure:
    """One labelled grid under the other: label -> images, (N, 784) or (N, 1, 28, 28), N a multiple of `columns`."""
    heights = [len(images) / columns for images in rows.values()]
    size = (width, width / columns * sum(heights) + 0.3 * len(rows))
    figure, axes = plt.subplots(len(rows), height_ratios=heights, figsize=size, squeeze=False)
    for own, (label, images) in zip(axes[:, 0], rows.items(), strict=True):
        draw_images(own, images, columns, label)
    return figure


def curves(history: list[dict[str, Any]], player: str, panels: dict[str, str], axes: Sequence[Axes]) -> None:
    """Training and validation means of a run against the step, one panel for each logged name: name -> axis label."""
    for own, (key, label) in zip(axes, panels.items(), strict=True):
        for split, style in (("train", "-"), ("val", "--")):
            points = [(row["step"], row[split][player][key]) for row in history if split in row]
            own.plot(*zip(*points, strict=True), style, label="training" if split == "train" else "validation")
        own.set(xlabel="training step", ylabel=label)
        own.legend()
