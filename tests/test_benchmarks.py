"""That the README quotes what `make bench` wrote. No test times anything."""

import json
import statistics
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


SEEDS = script(ROOT / "benchmarks" / "seeds.py")
ROWS = SEEDS.TARGET.read_text(encoding="utf-8").splitlines()[3:]


def test_each_part_of_the_table_of_seeds_has_its_rows_and_every_seed():
    parts = {part: [row for row in ROWS if SEEDS.part_of(row) == part] for part in SEEDS.PARTS}
    seeds = {part: {row.split(";")[1] for row in rows} for part, rows in parts.items()}
    assert [len(own) for own in seeds.values()] == [5, 5, 3, 3, 3]
    counts = {"betas": 6 * 5 * 3, "bases": 2 * 5 * 2, "layers": 2 * 3, "fully_connected": 3, "act_norm": 2 * 3}
    assert {part: len(own) for part, own in parts.items()} == counts


def test_a_named_part_is_made_anew_and_the_rows_of_the_others_stay(tmp_path, monkeypatch):
    table = tmp_path / "seeds.csv"
    table.write_text("# a\n# b\nmodel;seed;measure;value\nflow-2d;0;mass;1\nvae-beta-1;0;kl;2\nflow-fc;0;bits;3\n")
    monkeypatch.setattr(SEEDS, "TARGET", table)
    monkeypatch.setattr("sys.argv", ["seeds.py", "betas"])
    monkeypatch.setitem(SEEDS.PARTS, "betas", lambda: iter(["vae-beta-1;0;kl;9", "vae-beta-1;1;kl;8"]))
    SEEDS.main()
    assert table.read_text().splitlines()[2:] == [
        "model;seed;measure;value",
        *("vae-beta-1;0;kl;9", "vae-beta-1;1;kl;8", "flow-2d;0;mass;1", "flow-fc;0;bits;3"),
    ]


def test_notebook_1_says_how_many_components_were_active_at_each_beta():
    active = {}
    for model, _, measure, value in (row.split(";") for row in ROWS):
        if measure == "active":
            active.setdefault(model.removeprefix("vae-beta-"), []).append(int(value))
    ends = {beta: (min(own), max(own)) for beta, own in active.items()}
    assert (ends["1"], ends["3"], ends["10"], ends["100"]) == ((20, 20), (19, 20), (8, 13), (0, 0))
    said = r"with five seeds, 8 to 13 are active at $\beta = 10$"
    assert said in (ROOT / "notebooks" / "source" / "1_vae.md").read_text(encoding="utf-8")


def test_recipes_say_what_act_norm_bought():
    bits = {}
    for model, _, _, value in (row.split(";") for row in ROWS):
        if model.endswith("act-norm"):
            bits.setdefault(model, []).append(float(value))
    told = [f"{statistics.fmean(own):.3f} ± {statistics.stdev(own):.3f}" for own in bits.values()]
    text = (ROOT / "gm_helpers" / "recipes.py").read_text(encoding="utf-8")
    assert f"ActNorm 0.05, {told[1]} to {told[0]}" in " ".join(text.replace("#", "").split())
