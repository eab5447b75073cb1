"""Draw a sweep's table: for each model its headline on the test images, every seed, and mean ± standard deviation.

    .venv/bin/python sweeps/draw.py TABLE FIGURE    # `make sweep` does

The headline is the first metric of the test images. Where one argument varies, and is a number, it is the axis.
"""

import csv
import statistics
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # also where there is no screen

import matplotlib.pyplot as plt
import plan
from matplotlib.axes import Axes

from gm_helpers import figures
from gm_helpers.files import write_atomically

SAID = {
    "test_negative_elbo": "−ELBO in nats, test images",
    "test_frechet": "Fréchet distance, test images",
    "test_bits_per_dim": "bits per dimension, test images",
    "test_loss": "loss, test data",
}
Values = dict[str, list[float]]  # arguments as the table tells them -> the headline of each seed


def headlines(table: Path) -> dict[str, tuple[str, Values]]:
    """Model -> the metric that is drawn, and its values."""
    found: dict[str, tuple[str, Values]] = {}
    for row in csv.DictReader(table.read_text("utf-8").splitlines()):
        headline = row["metric"].startswith("test_") or row["metric"] == "figures"
        if headline and row["metric"] == found.setdefault(row["model"], (row["metric"], {}))[0]:
            found[row["model"]][1].setdefault(row["arguments"], []).append(float(row["value"]))
    return found


def summary(values: list[float]) -> tuple[float, float]:
    """Mean and standard deviation over seeds; of one seed the latter is 0."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def places(told: list[str]) -> tuple[str, list[float], list[str]]:
    """The axis: its name, where each combination of arguments stands on it, and what is written there."""
    settings = [plan.settings_in(own) for own in told]
    varied = {name for own in settings for name in own if len({str(other.get(name)) for other in settings}) > 1}
    if len(varied) == 1:
        [name] = varied
        values = [own.get(name) for own in settings]
        if all(isinstance(own, int | float) and not isinstance(own, bool) for own in values):
            return name, values, [f"{own:g}" for own in values]
    return "", list(range(len(told))), [own.replace(" ", "\n") or "as in the recipe" for own in told]


def panel(axes: Axes, model: str, metric: str, values: Values) -> None:
    """One model: small dots for the seeds, error bars over them."""
    name, where, labels = places(list(values))
    where, labels, seeds = zip(*sorted(zip(where, labels, values.values(), strict=True)), strict=True)
    for x, own in zip(where, seeds, strict=True):
        axes.plot([x] * len(own), own, "o", color=figures.COLOURS[1], markersize=4, alpha=0.7, zorder=3)
    means, spreads = zip(*map(summary, seeds), strict=True)
    axes.errorbar(where, means, spreads, fmt="-_" if name else "_", markersize=14, capsize=4, color=figures.COLOURS[0])
    if name and min(where) > 0 and max(where) > 5 * min(where):
        axes.set_xscale("log")
    axes.set_xticks(where, labels)
    axes.set_xticks([], minor=True)
    if not name:
        axes.set_xlim(-0.6, len(where) - 0.4)
        axes.tick_params(axis="x", labelsize=8)
    axes.set(title=f"{model}, {len(seeds[0])} seeds", xlabel=name, ylabel=SAID.get(metric, metric))


def main(table: Path, target: Path) -> None:
    """Write the figure, as a PNG with its alternative text."""
    figures.use_style()
    found = headlines(table)
    widths = [3 if places(list(values))[0] else max(2, 1.4 * len(values)) for _, values in found.values()]  # for labels
    size = 1 + sum(widths), 3.4
    figure, axes = plt.subplots(1, len(found), figsize=size, width_ratios=widths, squeeze=False)
    said = []
    for own, (model, (metric, values)) in zip(axes[0], found.items(), strict=True):
        panel(own, model, metric, values)
        ranges = [
            f"{told or 'as in the recipe'} {mean:.4g} ± {spread:.2g}"
            for told, (mean, spread) in ((told, summary(seeds)) for told, seeds in values.items())
        ]
        said.append(f"{model}, {SAID.get(metric, metric)}: {', '.join(ranges)}")
    alt = f"Mean and standard deviation over seeds, each seed a dot. {'; '.join(said)}"
    write_atomically(target, figures.to_png(figure, alt))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
