"""What came out of a sweep's runs, as one table: a row for each run and metric.

.venv/bin/python sweeps/gather.py SWEEP FOLDER TABLE    # `make sweep` does
"""

import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import plan

from gm_helpers import checkpoint
from gm_helpers.files import write_atomically

COLUMNS = ("model", "arguments", "seed", "profile", "dataset", "metric", "value", "seconds")


def rows(run: plan.Run, folder: Path) -> Iterator[dict]:
    """Of one run; a notebook has the number of its figures as the one metric."""
    result = json.loads((folder / run.result).read_text("utf-8"))
    if run.notebook:
        figures = len(list((folder / run.folder).glob("*.png")))
        metrics, seconds = {"figures": figures}, round(result["metadata"]["papermill"]["duration"])
    else:
        weights = checkpoint.load(folder / run.folder / f"{run.name}.safetensors")[1]
        metrics, seconds = result, weights["seconds"]
    own = {"model": run.name, "arguments": run.told, "seed": run.seed, "profile": run.profile, "dataset": run.dataset}
    for metric, value in metrics.items():
        yield own | {"metric": metric, "value": value, "seconds": seconds}


def main(sweep: str, folder: Path, table: Path) -> None:
    """Write the table of that sweep, whose runs lie in that folder."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for run in plan.runs(plan.read(sweep)):
        writer.writerows(rows(run, folder))
    write_atomically(table, text.getvalue().encode())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
