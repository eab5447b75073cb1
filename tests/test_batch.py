"""Papermill runs: what is refused before, what is noticed after, and what is left behind."""

import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from gm_helpers import batch

PARAMETERS = """
dataset: str = "digits"  # data set
profile: str = "quick"  # profile
seed: int = 0  # seed
device: str = "cpu"  # device
figure_dir: str = ""  # folder
"""
DRAW = "from pathlib import Path; Path(figure_dir).mkdir(exist_ok=True); Path(figure_dir, '{}').write_text('{}')"


@pytest.fixture
def make(tmp_path):
    """Write a notebook of these cells after one with parameters; returns its path."""

    def make(*sources, name="7_toy"):
        first = new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
        book = new_notebook(cells=[first, *map(new_code_cell, sources)], metadata={"kernelspec": batch.KERNEL})
        nbformat.write(book, tmp_path / f"{name}.ipynb")
        return tmp_path / f"{name}.ipynb"

    return make


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"sed": 1}, "has no parameter 'sed': choose among dataset, profile, seed, device, figure_dir"),
        ({"seed": "1"}, "seed must be of type int, but '1' is of type str"),
        ({"seed": True}, "seed must be of type int, but True is of type bool"),
        ({"seed": 1.0}, "seed must be of type int, but 1.0 is of type float"),
        ({"dataset": False}, "dataset must be of type str"),
        ({"profile": "fast"}, "unknown profile 'fast': choose one of smoke, quick, full"),
        ({"dataset": "cifar"}, "unknown dataset 'cifar': choose one of auto, mnist, digits"),
        ({"device": "tpu"}, "unknown device 'tpu': choose one of auto, cpu, cuda, mps"),
    ],
)
def test_a_wrong_parameter_is_refused_before_the_run(make, tmp_path, parameters, sentence):
    with pytest.raises(ValueError, match=r".") as refused:
        batch.run(make("1"), {"figure_dir": str(tmp_path / "out"), **parameters})
    assert sentence in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_a_notebook_declared_bool_does_not_take_the_text_false(tmp_path, make):
    path = make()
    book = nbformat.read(path, as_version=4)
    book.cells[0].source += "fast: bool = True  # fast\n"
    nbformat.write(book, path)
    with pytest.raises(batch.ParameterError, match="fast must be of type bool, but 'false' is of type str"):
        batch.check(path, batch.parse(path, {"fast": "false"}))
    assert batch.check(path, batch.parse(path, {"fast": "False"}))["fast"] is False


def test_command_line_texts_are_read_by_the_declared_types(make):
    assert batch.parse(make(), {"seed": "3", "dataset": "3", "nix": "3"}) == {"seed": 3, "dataset": "3", "nix": "3"}


def test_a_number_that_is_none_is_refused(make):
    path = make()
    with pytest.raises(batch.ParameterError, match="seed must be of type int, but 'three' is of type str"):
        batch.check(path, batch.parse(path, {"seed": "three"}))


def test_defaults_fill_what_is_not_given(make):
    complete = batch.check(make(), {"seed": 4})
    assert complete == {"dataset": "digits", "profile": "quick", "seed": 4, "device": "cpu", "figure_dir": ""}


def test_an_unknown_notebook_is_refused_with_the_names_that_there_are():
    with pytest.raises(batch.ParameterError, match=r"no notebook '9_none': choose one of 1_vae"):
        batch.find("9_none")


@pytest.mark.parametrize(
    ("cell", "sentence"),
    [
        ("1 / 0", "cell 2: ZeroDivisionError: division by zero"),
        ("import sys; sys.exit()", "cell 2: SystemExit"),
        ("import sys; sys.exit(3)", "cell 2: SystemExit: 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "cell 2: the kernel died"),
        ("import os; os._exit(0)", "cell 2: the kernel died"),
        ("import ipywidgets\nwith ipywidgets.Output():\n    raise KeyError('inside')", "cell 2: KeyError: 'inside'"),
        (
            "import threading as t\nt.Thread(target=lambda: 1 / 0).start()",
            "cell 2: ZeroDivisionError: division by zero",
        ),
    ],
)
def test_a_failing_cell_is_named_and_nothing_is_left_behind(make, tmp_path, cell, sentence):
    path = make(cell, "import time; time.sleep(0.2)")
    with pytest.raises(batch.NotebookError) as failed:
        batch.run(path, {"figure_dir": str(tmp_path / "out")})
    assert str(failed.value) == f"7_toy, {sentence}"
    assert list((tmp_path / "out").iterdir()) == []


def test_figures_appear_only_after_the_whole_notebook_succeeded(make, tmp_path):
    out = tmp_path / "out"
    path = make(DRAW.format("7.1-a.png", "new"), f"assert not list(Path({str(out)!r}).glob('*.png'))")
    assert batch.run(path, {"figure_dir": str(out)}) == [out / "7.1-a.png"]
    assert {own.name for own in out.iterdir()} == {"7.1-a.png", "notebooks"}
    executed = nbformat.read(out / "notebooks" / "7_toy.ipynb", as_version=4)
    assert [cell.execution_count for cell in executed.cells] == [
        1,
        2,
        3,
        4,
    ]  # the parameters, papermill's own, two cells


def test_a_failed_run_leaves_the_figures_of_the_last_good_one(make, tmp_path):
    out = {"figure_dir": str(tmp_path / "out")}
    batch.run(make(DRAW.format("7.1-a.png", "good")), out)
    with pytest.raises(batch.NotebookError):
        batch.run(make(DRAW.format("7.1-a.png", "bad"), "1 / 0"), out)
    assert (tmp_path / "out" / "7.1-a.png").read_text() == "good"


def test_figures_that_are_no_longer_drawn_go_and_those_of_other_notebooks_stay(make, tmp_path):
    out = tmp_path / "out"
    batch.run(make(DRAW.format("7.1-old.png", "")), {"figure_dir": str(out)})
    (out / "71.1-other.png").write_text("")
    batch.run(make(DRAW.format("7.1-new.png", "")), {"figure_dir": str(out)})
    assert {own.name for own in out.glob("*.png")} == {"7.1-new.png", "71.1-other.png"}


def test_a_folder_that_cannot_be_written_is_refused_before_the_run(make, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(batch.ParameterError, match=r"cannot write to .* choose another figure_dir"):
        batch.run(make("1 / 0"), {"figure_dir": str(tmp_path / "file" / "out")})

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(batch.Path, "mkdir", refuse)
    with pytest.raises(batch.ParameterError, match=r"cannot write to .* \(Permission denied\)"):
        batch.run(make("1 / 0"), {"figure_dir": str(tmp_path / "out")})


SCRIPT = "import sys; from gm_helpers import batch; batch.run(sys.argv[1], {'figure_dir': sys.argv[2]})"


@pytest.mark.parametrize("moment", ["starting", "running", "drawn"])
def test_a_kill_leaves_the_old_figures_whole_and_the_next_run_clean(make, tmp_path, moment):
    out, flag = tmp_path / "out", tmp_path / "flag"
    batch.run(make(DRAW.format("7.1-a.png", "old")), {"figure_dir": str(out)})
    new = DRAW.format("7.1-a.png", "new")
    wait = f"open({str(flag)!r}, 'w'); import time; time.sleep(600)"
    cells = {"starting": [new], "running": [wait, new], "drawn": [new, wait]}[moment]
    path = make(*cells)
    before = path.read_bytes()
    run = subprocess.Popen([sys.executable, "-c", SCRIPT, str(path), str(out)])
    while not (flag.exists() or (moment == "starting" and list(out.glob(".7_toy-*")))):
        assert run.poll() is None
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert (out / "7.1-a.png").read_text() == "old"
    assert path.read_bytes() == before
    assert list(out.glob(".7_toy-*"))
    batch.run(make(new), {"figure_dir": str(out)})
    assert (out / "7.1-a.png").read_text() == "new"
    assert not list(out.glob(".7_toy-*"))


def test_the_scratch_folder_of_a_living_process_is_left_alone(make, tmp_path):
    living = tmp_path / "out" / f".7_toy-{os.getppid()}"
    living.mkdir(parents=True)
    batch.run(make(), {"figure_dir": str(tmp_path / "out")})
    assert living.is_dir()


SOURCE = """---
kernelspec: {display_name: Python 3, language: python, name: python3}
---

# Title

```{code-cell} ipython3
:tags: [check]

from tqdm.auto import tqdm
for _ in tqdm(range(3)):
    pass
print(6 * 7)
```
"""


def test_writing_a_notebook_executes_it_and_keeps_its_outputs_but_no_progress_bar(tmp_path):
    (tmp_path / "source").mkdir()
    source = tmp_path / "source" / "7_toy.md"
    source.write_text(SOURCE)
    assert batch.write(source) == tmp_path / "7_toy.ipynb"
    book = json.loads((tmp_path / "7_toy.ipynb").read_text())
    assert [output["text"] for output in book["cells"][1]["outputs"]] == [["42\n"]]
    assert book["cells"][1]["metadata"] == {"tags": ["check"]}
    assert set(book["metadata"]) == {"kernelspec", "language_info"}
    first = (tmp_path / "7_toy.ipynb").read_bytes()
    batch.write(source)
    assert (tmp_path / "7_toy.ipynb").read_bytes() == first


def test_a_source_that_fails_leaves_the_notebook_as_it_was(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "7_toy.ipynb").write_text("as it was")
    source = tmp_path / "source" / "7_toy.md"
    source.write_text(SOURCE.replace("6 * 7", "1 / 0"))
    with pytest.raises(batch.NotebookError, match="7_toy, cell 1: ZeroDivisionError"):
        batch.write(source)
    assert (tmp_path / "7_toy.ipynb").read_text() == "as it was"
    assert {own.name for own in tmp_path.iterdir()} == {"source", "7_toy.ipynb"}
