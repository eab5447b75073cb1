"""That the README quotes what `make bench` wrote. No test times anything."""

import json
from pathlib import Path

from conftest import script

ROOT = Path(__file__).parent.parent


SPEED = script(ROOT / "benchmarks" / "speed.py")


def test_the_readme_s_table_is_that_of_the_last_benchmark():
    measured = json.loads((ROOT / "benchmarks" / "speed-cpu.json").read_text())
    readme = (ROOT / "README.md").read_text()
    assert SPEED.table(measured["threads"]) in readme


def test_the_table_has_medians_ranges_and_ratios_to_the_reference():
    found = {"mine": {"rates": [90, 300, 100], "loss": 1.5}, "usual loop": {"rates": [50, 40, 60], "loss": 2}}
    assert SPEED.table({"1": {"vae": found}, "8": {"vae": found}}).splitlines() == [
        "| Model | Trained by | One thread | 8 threads | Loss |",
        "|---|---|---|---|---|",
        "| vae | mine | 100 (90–300), **2.00** | 100 (90–300), **2.00** | 1.50 |",
        "| vae | usual loop | 50 (40–60), **1.00** | 50 (40–60), **1.00** | 2.00 |",
    ]
