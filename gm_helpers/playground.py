"""The game of notebook 2 in the plane, to be watched and played, as GAN Lab has it (Kahng et al. 2018)."""

import base64
import io
import json
import math
from collections.abc import Iterator
from functools import partial
from itertools import pairwise

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from PIL import Image

from gm_helpers import figures, pages
from gm_helpers.explore import STYLE, Drawing, choice, explore, png
from gm_helpers.game2d import CRITIC_STEPS, LOSSES, POINTS, TURNS, Game2D

# Blue where D takes points for data, orange where for samples, as the points are, and so pale that these are seen on it
PALE = LinearSegmentedColormap.from_list("pale", ["#ee9c66", "#ffffff", "#66aad1"])
DATA, SAMPLES, D_LINE, G_LINE = "#004c78", "#b34700", figures.COLOURS[2], figures.COLOURS[3]
REACH, GRID = 2, 61  # of the plane that is drawn, from the origin; points on each side at which D is asked
ARROWS = 40  # samples that have one
LENGTHS, LONGEST = {False: 0.1, True: 0.2}, 0.6  # of an arrow for a slope of 1, GAN and critic; of any arrow
Layout = tuple[float, float, dict[str, tuple[float, float, float, float]]]  # width, height; left, bottom, … in inches
WIDE: Layout = 9, 4.2, {"map": (0.5, 0.5, 3.55, 3.55), "bar": (4.2, 0.5, 0.13, 3.55), "losses": (5.6, 0.5, 3.2, 2.55)}
TALL: Layout = 4.6, 5.9, {"map": (0.45, 1.8, 3.3, 3.3), "bar": (3.87, 1.8, 0.12, 3.3), "losses": (0.45, 0.45, 4, 0.8)}


def _draw_map(axis: Axes, bar: Axes | None, game: Game2D) -> None:
    """What D says of the plane, with a colour bar if it has a place, the data, the samples, and arrows from some."""
    side, samples, low, high = torch.linspace(-REACH, REACH, GRID), game.samples(), 0, 1
    values = game.verdicts(torch.cartesian_prod(side, side)).view(GRID, GRID).T
    if game.is_wasserstein:  # whose values have no zero of their own: here it is half way between data and samples
        values = values - (game.verdicts(game.real).mean() + game.verdicts(samples).mean()) / 2
        low, high = -2, 2
    filled = axis.contourf(side, side, values.clamp(low, high), torch.linspace(low, high, 21), cmap=PALE)
    if bar:
        label = "critic, 0 half way from samples to data" if game.is_wasserstein else "D: probability of data"
        axis.figure.colorbar(filled, cax=bar, label=label, ticks=torch.linspace(low, high, 5))
    axis.plot(*game.real.T, "o", markersize=3, color=DATA, markeredgewidth=0, label="data")
    axis.plot(*samples.T, "^", markersize=4, color=SAMPLES, markeredgewidth=0, label="samples")
    start = samples[:ARROWS]
    arrows = LENGTHS[game.is_wasserstein] * game.pull(start)
    arrows = arrows * (LONGEST / arrows.norm(dim=1, keepdim=True)).clamp(max=1)
    axis.quiver(*start.T, *arrows.T, angles="xy", scale_units="xy", scale=1, width=0.005, zorder=3)
    axis.plot([], [], "k", linestyle="", marker=r"$\rightarrow$", markersize=12, label="lowers G's loss")
    axis.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), xticks=range(-REACH, REACH + 1), xlabel="$x_1$")
    axis.set(yticks=range(-REACH, REACH + 1), aspect="equal")
    axis.set_ylabel("$x_2$", labelpad=-4)
    axis.grid(visible=False)


def _draw_losses(axis: Axes, game: Game2D) -> None:
    """The loss of each player at its steps; the axis grows to twice its length when it is full."""
    for player, colour, style in (("D", D_LINE, "-"), ("G", G_LINE, "--")):
        moments, losses = zip(*(game.history[player] or [(0, math.nan)]), strict=True)
        axis.plot(moments, losses, color=colour, linestyle=style, linewidth=1, label=f"{player}'s loss")
    low, high, unit = -2, 2, ""
    if not game.is_wasserstein:
        axis.axhline(2 * math.log(2), color="black", linestyle=":", linewidth=1, label="2 log 2: D can't tell")
        high, unit = 6, " (nats)"
    full = 100 * 2 ** math.ceil(math.log2(max(sum(game.steps.values()) / 100, 1)))
    axis.set(xlim=(0, full), ylim=(low, high), yticks=range(low, high + 1, 2), xlabel=f"steps of both; losses{unit}")
    axis.set_xticks([0, full // 4, full // 2, 3 * full // 4, full])


def draw(game: Game2D, layout: Layout = WIDE) -> Figure:
    """The game as it stands: the map with its arrows, and the losses of all steps so far."""
    width, height, places = layout
    figure, axes = plt.figure(figsize=(width, height), layout="none"), {}
    for name, (left, bottom, across, up) in places.items():
        axes[name] = figure.add_axes((left / width, bottom / height, across / width, up / height))
    _draw_map(axes["map"], axes["bar"], game)
    _draw_losses(axes["losses"], game)
    handles = [own for name in ("map", "losses") for own in axes[name].get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="upper right", ncols=2, frameon=False)
    return figure


def read(game: Game2D) -> str:
    """The same in words and numbers."""
    real, fake = (game.verdicts(own).mean().item() for own in (game.real, game.samples()))
    said, unit = f"D says {real:.3f} of data and {fake:.3f} of samples, on average", " nats"
    if game.is_wasserstein:
        said, unit = f"the critic D finds samples and data {game.distance():.2f} apart".replace("-", "−"), ""
    longest, length = game.pull(game.samples()[:ARROWS]).norm(dim=1).max(), LENGTHS[game.is_wasserstein]
    outside = int((game.samples().abs() > REACH).any(dim=1).sum())
    gone = f" {outside} of {len(game.noise)} samples lie outside the picture." if outside else ""
    return (
        f"Steps: D {game.steps['D']}, G {game.steps['G']}; {said}. Norm of G's gradient: {game.gradient_norm():.2g}. "
        f"Longest arrow: a slope of {longest:.2g}{unit} (1 is drawn {length} long, and nothing longer than {LONGEST})."
        f"{gone}"
    )


def note(game: Game2D) -> str:
    """What a player should know about the move just made: that it began a new game, or changed G's loss."""
    if not any(game.steps.values()):
        turn = f"{CRITIC_STEPS} steps" if game.is_wasserstein else "a step"
        return (
            f" A new game; a turn is {turn} of D and one of G. Other data start a new game, and so does a change to or "
            "from Wasserstein; between the other losses it goes on."
        )
    if game.history["G"] and math.isnan(game.history["G"][-1][1]):
        return f" The game goes on; from here on G's loss is {game.loss}."
    return ""


# ---------------------------------------------------------------- the widget, and stages that need no kernel

NAME = "2.5-playground"
STORED = {False: (0, 10, 50, 100, 150, 200, 300, 400), True: (0, 10, 25, 50, 75, 100, 125, 150)}  # turns
# The colours of a stored picture: those of the map, greys, and the four of points and lines, pale and whole
PALETTE = [to_rgb(PALE((i + 0.5) / 20)) for i in range(20)] + [(i / 8, i / 8, i / 8) for i in range(9)]
PALETTE += [to_rgb((own, alpha)) for own in (DATA, SAMPLES, D_LINE, G_LINE) for alpha in (0.5, 1)]
HIDE = """
<style>
.jp-NotebookPanel .jp-OutputArea:has(.gm-explorer) .gm-stages,
.jp-OutputArea:has(.gm-stages[data-alive]):not(.jp-NotebookPanel *) .gm-explorer { display: none; }
</style>"""  # the stages where the widget lives, and the widget in an exported page, where it has no kernel


def stages(loss: str, seed: int) -> Iterator[Game2D]:
    """One game at nine stages: at its start, when D is ahead by as many steps as a run has turns, and after turns."""
    game = Game2D(loss=loss, seed=seed)
    yield game
    game.alone("D")
    yield game
    for before, after in pairwise(STORED[game.is_wasserstein]):
        game.run(after - before)
        yield game


def store(game: Game2D) -> dict[str, str]:
    """A stage as the page takes it: a PNG in few colours, and its text."""
    figure, large, small, palette = draw(game, TALL), io.BytesIO(), io.BytesIO(), Image.new("P", (1, 1))
    figure.savefig(large, dpi=80, pil_kwargs={"compress_level": 1})
    plt.close(figure)
    exact = [round(255 * part) for own in PALETTE for part in own]
    palette.putpalette([own & ~3 for own in exact])  # Pillow looks at six bits of a pixel to find the nearest colour
    picture = Image.open(large).convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE)
    picture.putpalette(exact)
    picture.save(small, "png", optimize=True)
    return {"picture": base64.b64encode(small.getvalue()).decode(), "reading": read(game)}


def draw_still(late: Game2D) -> Figure:
    """Three maps: two of the same players with either loss of G, when D is ahead, and one of a game that is late."""
    figure, axes = plt.subplots(1, 3, figsize=WIDE[:2], sharey=True, layout="none")  # as large as what takes its place
    figure.subplots_adjust(left=0.05, right=0.9, bottom=0.25, top=0.82, wspace=0.1)
    games = {"D ahead, G's loss log(1 − D)": Game2D(loss="saturating", seed=late.seed)}
    games["D ahead, G's loss −log D"] = Game2D(seed=late.seed)
    for game in games.values():
        game.alone("D")
    games[f"−log D, {late.steps['G']} turns later"] = late
    _, bottom, _, height = axes[-1].get_position().bounds
    bars = None, None, figure.add_axes((0.915, bottom, 0.013, height))
    for axis, bar, (title, game) in zip(axes, bars, games.items(), strict=True):
        _draw_map(axis, bar, game)
        axis.set_title(f"{title}\nnorm of G's gradient: {game.gradient_norm():.2g}")
        axis.label_outer()
    figure.legend(handles=axes[0].get_legend_handles_labels()[0], loc="lower center", ncols=3, frameon=False)
    return figure


def playground(figure_dir: str = "", seed: int = 0) -> None:
    """The game as a widget, each press of a button a real step; and, where no kernel is, stages of a game of each loss.

    The stages are computed here, on the CPU, in about ten seconds.
    """
    game, stored = Game2D(seed=seed), dict[str, list[dict[str, str]]]()

    def show(points: str, loss: str) -> Drawing:
        game.choose(points, loss)
        return draw(game), read(game) + note(game)

    for loss in LOSSES:
        stored[loss] = []
        for stage in stages(loss, seed):
            stored[loss].append(store(stage))
        if loss == game.loss:
            still = png(draw_still(stage))
    alt = (
        "Three maps of the plane with data on a ring. Where D is ahead, the arrows on the samples are too short to be "
        "seen with the saturating loss, and long with the other one. At last the samples lie on the ring."
    )
    controls = {"points": choice("data", [*POINTS]), "loss": choice("loss of G", [*LOSSES])}
    buttons = {"step D": game.step_discriminator, "step G": game.step_generator}
    buttons |= {f"{TURNS} × {own}": partial(game.alone, own) for own in "DG"}
    buttons |= {f"run {TURNS} turns": game.run, "start again": game.start}
    explore(NAME, alt, show, controls, figure_dir, buttons=buttons, still=still)
    pages.embed(
        NAME, "stages.js", f"start({json.dumps(NAME)}, {json.dumps(stored)});", STYLE + HIDE, "gm-page gm-stages"
    )
