"""The README's tables of what the shipped models reach, written from the metadata of their files.

.venv/bin/python benchmarks/measured.py     # after new weights; a test compares
"""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gm_helpers import checkpoint, data, recipes

README = Path(__file__).parent.parent / "README.md"
BITS = 784 * math.log(2)  # nats of a bit per dimension
Row = Callable[[dict[str, Any]], list[str]]


def binary(metrics: dict[str, Any]) -> list[str]:
    """Of a VAE of black and white pixels, in nats."""
    return [
        f"**{metrics[f'test_{name}']:.1f}** ± {metrics[f'test_{name}_error']:.1f} nats"
        for name in ("negative_elbo", "importance_weighted_500")
    ]


def grey(metrics: dict[str, Any]) -> list[str]:
    """Of a density of grey values, in bits per dimension; a VAE's metrics are in nats."""
    unit = BITS if "test_negative_elbo" in metrics else 1.0
    one = "bits_per_dim" if unit == 1.0 else "negative_elbo"
    [tighter] = [key for key in metrics if re.fullmatch(r"test_importance_weighted_\d+", key)]
    error = metrics[f"test_{one}_error"] / unit
    draws = tighter.rpartition("_")[2]
    return [f"**{metrics[f'test_{one}'] / unit:.3f}** ± {error:.3f}", f"{metrics[tighter] / unit:.3f} ({draws})"]


def samples(metrics: dict[str, Any]) -> list[str]:
    """Of a model that has samples alone."""
    return [
        # the floor was measured on halves, and falls with one over their size
        f"**{metrics['test_frechet']:.1f}** ({metrics['test_frechet_floor'] / 2:.1f})",
        f"{metrics['test_rarest_digit']:.1%}".replace("%", " %"),
        f"{metrics['test_precision']:.2f}, {metrics['test_recall']:.2f}",
    ]


def matching(metrics: dict[str, Any]) -> list[str]:
    """Of flow matching, whose samples take some of Euler's steps."""
    steps = sorted(int(key.rpartition("_")[2]) for key in metrics if re.fullmatch(r"test_frechet_\d+", key))
    distances = ", ".join(f"{metrics[f'test_frechet_{own}']:.1f}" for own in steps)
    return [
        f"{distances} ({metrics['test_frechet_floor'] / 2:.1f})",
        f"{metrics[f'test_precision_{steps[-1]}']:.2f}, {metrics[f'test_recall_{steps[-1]}']:.2f}",
        f"**{metrics['test_bits_per_dim']:.2f}** ± {metrics['test_bits_per_dim_error']:.2f}",
    ]


# name -> which recipes are in it, its columns, and a row of them
TABLES: dict[str, tuple[Callable[[recipes.Recipe], bool], list[str], Row]] = {
    "binary": (
        lambda recipe: recipe.kind == "vae" and recipe.prepare is data.binarize,
        ["−ELBO", "Importance-weighted bound on −log p(x), 500 draws"],
        binary,
    ),
    "samples": (
        lambda recipe: recipe.kind == "gan",
        ["Fréchet distance (floor)", "Rarest digit", "Precision, recall"],
        samples,
    ),
    "grey": (
        lambda recipe: recipe.prepare is data.levels and recipe.kind != "matching",
        ["Bits per dimension, one draw", "Importance-weighted (draws)"],
        grey,
    ),
    "matching": (
        lambda recipe: recipe.kind == "matching" and not recipe.points,
        ["Fréchet distance by 2, 5, 20, 100 steps (floor)", "Precision, recall by 100", "Bits per dimension"],
        matching,
    ),
}


def duration(metadata: dict[str, Any]) -> str:
    """How long the training took, and where."""
    seconds = metadata["seconds"]
    device = "CPU" if metadata["device"] == "cpu" else metadata["device"]
    return f"{seconds} s, {device}" if seconds < 400 else f"{seconds / 60:.0f} min, {device}"


def table(name: str) -> str:
    """That table as Markdown."""
    fits, columns, row = TABLES[name]
    lines = [f"| Shipped | {' | '.join(columns)} | Trained in |", "|---" * (len(columns) + 2) + "|"]
    for own in recipes.SHIPPED:
        if fits(recipes.RECIPES[own]):
            metadata = checkpoint.load(recipes.weights_file(own))[1]
            lines.append(f"| `{own}` | {' | '.join(row(metadata['metrics']))} | {duration(metadata)} |")
    return "\n".join(lines)


def written(text: str) -> str:
    """The README with its tables as they should be."""
    for name in TABLES:
        mark = f"<!-- measured: {name} -->"
        if mark not in text:
            raise SystemExit(f"the README has no line {mark}, under which a table is to stand: write it")
        text = re.sub(
            rf"(?<={mark}\n).*?(?=<!-- end -->)", lambda _, own=name: f"{table(own)}\n", text, count=1, flags=re.S
        )
    return text


if __name__ == "__main__":
    README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
