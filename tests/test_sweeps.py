"""What sweeps are made of; that Snakemake runs them is in test_sweeps_run.py."""

import csv
import inspect
import json
import shlex
import shutil
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from PIL import Image

from gm_helpers import __main__, checkpoint, recipes, settings
from gm_helpers.recipes import RECIPES, Schedule

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "sweeps"))

import draw  # noqa: E402
import fingerprint  # noqa: E402
import gather  # noqa: E402
import plan  # noqa: E402

SWEEPS = sorted(own.stem for own in (ROOT / "sweeps").glob("*.yaml"))

# ---------------------------------------------------------------- fingerprint

MODELS = "vae-20d", "gan", "flow-fc", "flow-2d"


@pytest.fixture
def changes(tmp_path):
    """The models whose hash is another one where a file of the package has other bytes in place of these."""
    package = tmp_path / "gm_helpers"
    (package / "weights").mkdir(parents=True)
    for own in (*fingerprint.PACKAGE.glob("*.py"), fingerprint.PACKAGE / "weights" / "digit-classifier.safetensors"):
        shutil.copy(own, package / own.relative_to(fingerprint.PACKAGE))

    def changes(file, old, new, profile="quick", measuring=False):
        content = (package / file).read_bytes()
        assert old in content
        (package / file).write_bytes(content.replace(old, new))
        how = profile, measuring
        return [name for name in MODELS if fingerprint.recipe(name, *how) != fingerprint.recipe(name, *how, package)]

    return changes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "old", "new", "trained"),
    [
        ("recipes.py", b"steps=3_500", b"steps=3_600", ["vae-20d"]),
        ("recipes.py", b"steps=60_000", b"steps=3_600", []),  # another profile
        ("recipes.py", b'{"latent_dim": 2}', b'{"latent_dim": 3}', []),  # another recipe
        ("recipes.py", b'in_full={"dropout": 0.1}', b'in_full={"dropout": 0.2}', []),
        ("recipes.py", b'{"hidden": 256}', b'{"hidden": 255}', ["flow-fc"]),
        ("recipes.py", b"torch.manual_seed(seed)\n", b"torch.manual_seed(seed + 1)\n", list(MODELS)),
        ("recipes.py", b"holds a training with", b"has a training with", []),
        ("gan.py", b"nn.LeakyReLU(0.2), nn.Dropout", b"nn.LeakyReLU(0.1), nn.Dropout", ["gan"]),
        ("gan.py", b"import torch\n", b"import torch\n\nVAE = 3\n", []),
        ("vae.py", b"import torch.nn.functional as F", b"import numpy as F", ["vae-20d"]),
        ("data.py", b"def binarize(", b"@torch.no_grad()\ndef binarize(", ["vae-20d"]),
        ("__main__.py", b"recipes.ship(name, *rest", b"recipes.ship(name, 3, *rest", list(MODELS)),
        ("settings.py", b"ast.literal_eval(text)", b"ast.literal_eval(text + '0')", list(MODELS)),
        ("train.py", b"import torch\n", b"import os\n\nimport torch\n\nos.environ['A'] = 'b'\n", list(MODELS)),
        ("vae.py", b"LOG_VAR_BOUND = 15.0", b"LOG_VAR_BOUND = 14.0", ["vae-20d"]),
        ("nn.py", b"def mlp(", b"@torch.no_grad()\ndef mlp(", ["vae-20d", "flow-fc", "flow-2d"]),
        ("flows.py", b"def checkerboard(", b"@torch.no_grad()\ndef checkerboard(", ["flow-fc"]),
        ("data.py", b"def two_moons(", b"@torch.no_grad()\ndef two_moons(", ["flow-2d"]),
        ("train.py", b"run.step += 1\n", b"run.step += 2\n", list(MODELS)),
        ("train.py", b"import torch\n", b"import torch\n\ntorch.set_num_threads(1)\n", list(MODELS)),
        ("train.py", b"SAVE_EVERY = 60.0  # seconds", b"SAVE_EVERY = 60.0  # many seconds", []),
        ("train.py", b'"""Of that step, counted from 0', b'"""Of this step, counted from 0', []),
        ("metrics.py", b"def bounds(", b"@torch.no_grad()\ndef bounds(", []),
        ("widgets.py", b"import", b"import abc\nimport", []),
    ],
)
def test_a_training_depends_on_its_row_and_on_the_definitions_that_it_reaches(file, old, new, trained, changes):
    assert changes(file, old, new) == trained


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "old", "new", "measured"),
    [
        ("metrics.py", b"def bounds(", b"@torch.no_grad()\ndef bounds(", ["vae-20d"]),
        ("metrics.py", b"def flow_bounds(", b"@torch.no_grad()\ndef flow_bounds(", ["flow-fc"]),
        ("recipes.py", b"steps=3_500", b"steps=3_600", []),
        ("data.py", b"def binarize(", b"@torch.no_grad()\ndef binarize(", ["vae-20d"]),
        ("recipes.py", b'{"hidden": 256}', b'{"hidden": 255}', ["flow-fc"]),
        ("data.py", b"def two_moons(", b"@torch.no_grad()\ndef two_moons(", ["flow-2d"]),
        ("recipes.py", b"round(value, 3)", b"round(value, 4)", list(MODELS)),
        ("weights/digit-classifier.safetensors", b"gm_helpers", b"gm_helperz", ["gan"]),
    ],
)
def test_a_measurement_depends_on_what_measures(file, old, new, measured, changes):
    assert changes(file, old, new, measuring=True) == measured


def test_what_holds_in_full_alone_counts_in_full(changes):
    assert changes("recipes.py", b'in_full={"dropout": 0.1}', b'in_full={"dropout": 0.2}', "full") == ["gan"]


def test_a_name_that_a_module_has_from_another_is_followed_there():
    assert ("vae", "VAE") in fingerprint.reached(fingerprint.PACKAGE, [("recipes", "VAE")], set())


def test_the_sources_tell_the_same_table_as_the_package():
    assert list(fingerprint.rows()) == list(RECIPES)
    for name, recipe in RECIPES.items():
        declared = settings.declared(recipe.model) | settings.declared(Schedule)
        assert set(fingerprint.arguments(name)) == set(declared)


def test_a_notebook_run_depends_on_the_code_that_is_executed_and_on_the_package(changes, tmp_path):
    package, path = tmp_path / "gm_helpers", tmp_path / "mine.ipynb"

    def digest(source, kind="code"):
        cells = [
            {"cell_type": "code", "source": "x", "metadata": {}},
            {"cell_type": kind, "source": source, "metadata": {}},
        ]
        path.write_text(json.dumps({"cells": cells}))
        fingerprint.notebook.cache_clear()
        return fingerprint.notebook(path, package)

    assert digest("a") != digest("b")
    assert digest("a", "markdown") == digest("b", "markdown")
    before = digest("a")
    (package / "vae.py").write_text("")
    assert digest("a") != before


def test_only_where_samples_are_drawn_can_their_number_be_another():
    assert [name for name in RECIPES if fingerprint.draws(name)] == [
        name for name, recipe in RECIPES.items() if "samples" in inspect.signature(recipe.measure).parameters
    ]


def test_a_run_holds_the_hashes_of_the_code_that_trains_and_measures_it(monkeypatch):
    monkeypatch.setattr(fingerprint, "recipe", lambda name, profile, measuring=False: f"<{name} {profile} {measuring}>")
    monkeypatch.setattr(fingerprint, "notebook", lambda path: f"<{path.name}>")
    training, notebook = plan.runs(sweep(seeds=[0], models={"gan": {"samples": 9}}, notebooks=["1_vae"]))
    assert "<gan smoke False>" in training.begun()
    assert "<gan smoke True>" in training.measured()
    assert "<1_vae.ipynb>" in notebook.begun()


# ---------------------------------------------------------------- plan


def sweep(**changes):
    own = {"profile": "smoke", "dataset": "digits", "device": "cpu", "threads": 1, "seeds": [0, 1]}
    return {key: value for key, value in (own | changes).items() if value is not None}


def test_a_sweep_is_every_combination_with_every_seed():
    block = {"latent_dim": [2, 5], "hidden": [100, 200], "learning_rate": 0.1, "seeds": [3]}
    runs = plan.runs(sweep(models={"vae-20d": block, "gan": None}, notebooks=["1_vae"]))
    told = [(run.name, run.told, run.seed) for run in runs]
    grid = [f"latent_dim={a} hidden={b} learning_rate=0.1" for a in (2, 5) for b in (100, 200)]
    assert told == [
        *(("vae-20d", own, 3) for own in grid),
        ("gan", "", 0),
        ("gan", "", 1),
        *(("1_vae", "", own) for own in (0, 1)),
    ]
    assert len({run.folder for run in runs}) == len(runs)
    assert [plan.settings_in(run.told) for run in runs] == [run.settings for run in runs]


def test_sweeps_share_what_is_the_same_run_and_nothing_else():
    [first], [same] = (plan.runs(sweep(seeds=[1], models={"gan": own})) for own in ({}, {"samples": 9}))
    assert (first.folder, first.begun()) == (same.folder, same.begun())
    assert first.measured() != same.measured()
    for own in ({"profile": "quick"}, {"dataset": "mnist"}, {"seeds": [2]}, {"models": {"gan": {"dropout": 0.1}}}):
        [other] = plan.runs(sweep(**{"seeds": [1], "models": {"gan": {}}} | own))
        assert other.folder != first.folder
    for own in ({"device": "cuda"}, {"threads": 2}):
        [other] = plan.runs(sweep(seeds=[1], models={"gan": {}}, **own))
        assert other.begun() != first.begun()


def test_a_number_that_yaml_takes_for_a_text_is_a_number():
    [one] = plan.runs(sweep(seeds=[1], models={"flow-2d": {"learning_rate": "1e-3"}}))
    [same] = plan.runs(sweep(seeds=[1], models={"flow-2d": {"learning_rate": 0.001}}))
    assert one == same
    [text] = plan.runs(sweep(seeds=[1], models={"gan": {"generator_loss": "saturating"}}))
    assert text.settings == {"generator_loss": "saturating"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"seed": [1]}, "the sweep can't have 'seed': choose among profile, dataset, device, threads, seeds, models,"),
        ({"profile": "fast"}, "profile must be one of smoke, quick, full, but is 'fast'"),
        ({"dataset": "auto"}, "dataset must be one of mnist, digits, but is 'auto'"),
        ({"threads": 0}, "threads must be a whole number, at least 1, but is 0"),
        ({"models": None}, "a sweep needs models"),
        ({"models": ["gan"]}, "a sweep needs models"),
        ({"models": {"gam": {}}}, "models can't have 'gam': choose among vae-2d, vae-20d"),
        ({"models": {"gan": 3}}, "under gan must stand arguments with their values, but there is 3"),
        ({"models": {"gan": {"latent": 3}}}, "gan can't have 'latent': choose among latent_dim, generator_loss"),
        ({"models": {"gan": {"latent_dim": []}}}, r"latent_dim of gan must have values, each once, but is \[\]"),
        ({"models": {"gan": {"latent_dim": [2, 2]}}}, "latent_dim of gan must have values, each once"),
        ({"models": {"gan": {"samples": "many"}}}, "samples must be a whole number, at least 1, but is 'many'"),
        *(
            ({"seeds": own}, "seeds must be a list of whole numbers")
            for own in ([], None, 3, [-1], [1, 1], ["a"], [True])
        ),
        ({"notebooks": ["9_none"]}, "notebooks can't have '9_none': choose among 1_vae, 2_gan, 3_flows"),
        ({"notebooks": ["1_vae", "1_vae"]}, "notebooks must be named once each"),
        ({"models": {"flow-2d": {"samples": 3}}}, "flow-2d has no samples whose number could be set"),
        (
            {"models": {"flow-2d": {"learning_rate": ["1e-3", 0.001]}}},
            "learning_rate of flow-2d must have values, each once",
        ),
    ],
)
def test_what_a_sweep_cannot_mean_is_one_sentence(changes, sentence):
    with pytest.raises(plan.SweepError, match=f"^{sentence}"):
        plan.runs(sweep(**{"models": {"gan": {}}} | changes))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("- a", "must have keys: profile"),
        ("a: [", "is no YAML"),
        (None, "choose one of course, demo"),
        (
            "table: sweeps/course.csv",
            "table of mine.yaml must be a .csv with mine in its name, but is sweeps/course.csv",
        ),
        ("figure: mine.svg", "figure of mine.yaml must be a .png with mine in its name, but is mine.svg"),
        ("table: 3", "table of mine.yaml must be a .csv with mine in its name, but is 3"),
    ],
)
def test_a_file_that_is_no_sweep_is_one_sentence(text, sentence, tmp_path):
    if text is not None:
        (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(plan.SweepError, match=sentence):
        plan.read(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_that_comes_with_the_course_asks_for_trainings_that_can_be(name):
    for run in plan.runs(plan.read(name)):
        told = __main__._parser().parse_args(["train", run.name, *shlex.split(run.options)])
        assert (told.profile, told.dataset, told.seed, told.device) == (run.profile, run.dataset, run.seed, run.device)
        own = recipes.parse(run.name, dict(told.set))
        assert own == run.settings
        recipes.variant(run.name, own)


# ---------------------------------------------------------------- table and figure


@pytest.fixture
def gathered(tmp_path, monkeypatch):
    """The table of a sweep of three runs whose files were made by hand, as rows, and its path."""
    (tmp_path / "mine.yaml").write_text(
        json.dumps(sweep(seeds=[4], models={"vae-20d": {"hidden": [3, 5]}}, notebooks=["1_vae"]))
    )
    for run, value in zip(plan.runs(plan.read(str(tmp_path / "mine.yaml"))), (1.5, 2.5, None), strict=True):
        (tmp_path / run.result).parent.mkdir(parents=True)
        if run.notebook:
            (tmp_path / run.result).write_text(json.dumps({"metadata": {"papermill": {"duration": 61.7}}}))
            (tmp_path / run.folder / "1.1-a.png").touch()
        else:
            (tmp_path / run.result).write_text(json.dumps({"val_loss": 0, "test_loss": value, "test_other": 9}))
            checkpoint.save(tmp_path / run.folder / f"{run.name}.safetensors", {"w": torch.ones(1)}, {"seconds": 7})
    gather.main(str(tmp_path / "mine.yaml"), tmp_path, tmp_path / "mine.csv")
    return list(csv.DictReader((tmp_path / "mine.csv").read_text().splitlines())), tmp_path / "mine.csv"


def test_the_table_has_a_row_for_each_run_and_metric(gathered):
    rows = [tuple(own.values()) for own in gathered[0]]
    common = "4", "smoke", "digits"
    assert tuple(gathered[0][0]) == ("model", "arguments", "seed", "profile", "dataset", "metric", "value", "seconds")
    assert rows == [
        ("vae-20d", "hidden=3", *common, "val_loss", "0", "7"),
        ("vae-20d", "hidden=3", *common, "test_loss", "1.5", "7"),
        ("vae-20d", "hidden=3", *common, "test_other", "9", "7"),
        ("vae-20d", "hidden=5", *common, "val_loss", "0", "7"),
        ("vae-20d", "hidden=5", *common, "test_loss", "2.5", "7"),
        ("vae-20d", "hidden=5", *common, "test_other", "9", "7"),
        ("1_vae", "", *common, "figures", "1", "62"),
    ]


def test_the_headline_is_the_first_metric_of_the_test_images(gathered):
    assert draw.headlines(gathered[1]) == {
        "vae-20d": ("test_loss", {"hidden=3": [1.5], "hidden=5": [2.5]}),
        "1_vae": ("figures", {"": [1.0]}),
    }


@pytest.mark.parametrize(
    ("told", "axis"),
    [
        (["latent_dim=2 hidden=9", "latent_dim=40 hidden=9"], ("latent_dim", [2, 40], ["2", "40"])),
        (["a=1 b=1", "a=2 b=2"], ("", [0, 1], ["a=1\nb=1", "a=2\nb=2"])),
        (['loss="x"', 'loss="y"'], ("", [0, 1], ['loss="x"', 'loss="y"'])),
        (["on=true", "on=false"], ("", [0, 1], ["on=true", "on=false"])),
        ([""], ("", [0], ["as in the recipe"])),
    ],
)
def test_the_one_number_that_varies_is_the_axis(told, axis):
    assert draw.places(told) == axis


def test_the_bars_are_mean_and_standard_deviation_over_seeds():
    assert draw.summary([1.0, 2.0, 3.0]) == (2.0, 1.0)
    assert draw.summary([1.0]) == (1.0, 0.0)


def test_in_the_figure_the_bars_end_where_the_deviation_does_in_the_order_of_the_argument(style):
    _, axes = plt.subplots()
    values = {"latent_dim=40": [4.0, 6.0], "latent_dim=2": [1.0, 1.0]}
    draw.panel(axes, "vae-20d", "test_loss", values)
    [bars] = axes.containers
    line, _, [ends] = bars
    assert line.get_xydata().tolist() == [[2, 1], [40, 5]]
    spread = 2**0.5
    assert [own.tolist() for own in ends.get_segments()] == [[[2, 1], [2, 1]], [[40, 5 - spread], [40, 5 + spread]]]
    assert axes.get_xscale() == "log"
    assert [own.get_text() for own in axes.get_xticklabels()] == ["2", "40"]


def test_the_figure_says_in_words_what_it_shows(gathered, style, tmp_path):
    draw.main(gathered[1], tmp_path / "mine.png")
    with Image.open(tmp_path / "mine.png") as picture:
        text = picture.text["Description"]
    assert (
        "vae-20d, loss, test data: hidden=3 1.5 ± 0, hidden=5 2.5 ± 0; 1_vae, figures: as in the recipe 1 ± 0" in text
    )


def test_what_the_course_says_of_its_sweep_is_what_its_table_has():
    found = {}
    for row in csv.DictReader((ROOT / "sweeps" / "course.csv").read_text("utf-8").splitlines()):
        found.setdefault((row["model"], row["arguments"], row["metric"]), []).append(float(row["value"]))

    def told(model, arguments, metric, digits):
        return "{:.{digits}f} ± {:.{digits}f}".format(*draw.summary(found[model, arguments, metric]), digits=digits)

    sizes = [told("vae-20d", f"latent_dim={size}", "test_negative_elbo", 1) for size in (2, 5, 10, 20, 40)]
    gans = {
        split: [
            told("gan", f"betas=[{betas},0.999] average={average}", f"{split}_frechet", 0)
            for betas, average in (("0.5", "0.0"), ("0.5", "0.99"), ("0.0", "0.0"))
        ]
        + [told("gan", "betas=[0.0,0.999] average=0.99", f"{split}_frechet", 1)]
        for split in ("test", "val")
    }
    texts = {
        "README.md": [", ".join(sizes[:3]), f"{sizes[3]} and {sizes[4]} nats", *gans["test"]],
        "gm_helpers/recipes.py": gans["val"],
        "notebooks/source/2_gan.md": [f"from {gans['test'][2]} to {gans['test'][3]}"],
    }
    texts["README.md"].append(told("flow-fc", "", "test_bits_per_dim", 3))
    for name, said in texts.items():
        text = " ".join((ROOT / name).read_text(encoding="utf-8").replace("#", "").split())
        assert [own for own in said if own not in text] == [], name
