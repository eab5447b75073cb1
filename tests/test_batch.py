"""Papermill runs: what is refused before, what is noticed after, and what is left behind."""

import json
import os
import shutil
import signal
import time
from types import SimpleNamespace

import nbformat
import pytest
from conftest import processes
from nbformat.v4 import new_code_cell, new_notebook, new_output

from gm_helpers import batch

PARAMETERS = """
dataset: str = "digits"  # data set
profile: str = "quick"  # profile
seed: int = 0  # seed
device: str = "cpu"  # device
figure_dir: str = ""  # folder
"""
DRAW = "from pathlib import Path; Path(figure_dir, '{}').write_text('{}')"
NOBODY = 2**22 + 1  # above the highest number that a process can have


def notebook(folder, *sources, parameters=PARAMETERS):
    """Write the notebook 7_toy of these cells after one with parameters; returns its path."""
    first = new_code_cell(parameters, metadata={"tags": ["parameters"]})
    book = new_notebook(cells=[first, *map(new_code_cell, sources)], metadata={"kernelspec": batch.KERNEL})
    nbformat.write(book, folder / "7_toy.ipynb")
    return folder / "7_toy.ipynb"


@pytest.fixture
def make(tmp_path):
    return lambda *sources, **parameters: notebook(tmp_path, *sources, **parameters)


@pytest.fixture(autouse=True)
def short_timeout(monkeypatch):
    monkeypatch.setattr(batch, "CELL_TIMEOUT", 60)
    monkeypatch.setattr(batch, "OTHERS_WATCHED", 0.01)


@pytest.fixture
def no_kernel(monkeypatch):
    """Runs that only copy the notebook; gives the parameters of each."""
    calls = []

    def execute(path, executed, parameters):
        shutil.copy(path, executed)
        calls.append(parameters)

    monkeypatch.setattr(batch, "_execute", execute)
    return calls


def contents(folder):
    return {str(own.relative_to(folder)): own.read_bytes() for own in folder.rglob("*") if own.is_file()}


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
        ({"figure_dir": None}, "figure_dir must be of type str, but None is of type NoneType"),
        ({"device": "tpu"}, "unknown device 'tpu': choose one of auto, cpu, cuda, mps"),
    ],
)
def test_a_wrong_parameter_is_refused_before_the_run(make, tmp_path, parameters, sentence):
    with pytest.raises(ValueError, match=r".") as refused:
        batch.run(make("1"), {"figure_dir": str(tmp_path / "out")} | parameters)
    assert sentence in str(refused.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["dataset", "profile", "device", "figure_dir"])
def test_a_notebook_without_a_parameter_that_a_run_needs_is_refused(make, name):
    fewer = "\n".join(line for line in PARAMETERS.splitlines() if not line.startswith(name))
    with pytest.raises(batch.ParameterError, match=f"7_toy has no parameter '{name}': its cell tagged 'parameters'"):
        batch.check(make(parameters=fewer), {})


def test_a_parameter_declared_bool_does_not_take_the_text_false(make):
    path = make(parameters=f"{PARAMETERS}fast: bool = True  # fast\n")
    with pytest.raises(batch.ParameterError, match="fast must be of type bool, but 'false' is of type str"):
        batch.check(path, batch.parse(path, {"fast": "false"}))
    assert batch.check(path, batch.parse(path, {"fast": "False"}))["fast"] is False


def test_command_line_texts_are_read_by_the_declared_types(make):
    assert batch.parse(make(), {"seed": "3", "dataset": "3", "nix": "3"}) == {"seed": 3, "dataset": "3", "nix": "3"}


@pytest.mark.parametrize("word", ["three", "3 4"])
def test_a_number_that_is_none_is_refused(make, word):
    path = make()
    with pytest.raises(batch.ParameterError, match=f"seed must be of type int, but '{word}' is of type str"):
        batch.check(path, batch.parse(path, {"seed": word}))


def test_defaults_fill_what_is_not_given(make):
    complete = batch.check(make(), {"seed": 4})
    assert complete == {"dataset": "digits", "profile": "quick", "seed": 4, "device": "cpu", "figure_dir": ""}


def test_an_unknown_notebook_is_refused_with_the_names_that_there_are():
    with pytest.raises(batch.ParameterError, match=r"no notebook '9_none': choose one of 1_vae"):
        batch.find("9_none")


@pytest.mark.parametrize(
    ("cell", "sentence"),
    [
        ("1 / 0", "cell 3: ZeroDivisionError: division by zero"),
        ("import sys; sys.exit()", "cell 3: SystemExit"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "cell 3: the kernel died"),
        ("import os; os._exit(0)", "cell 3: the kernel died"),
        ("import ipywidgets\nwith ipywidgets.Output():\n    raise KeyError('inside')", "cell 3: KeyError: 'inside'"),
        (
            "import threading as t\nt.Thread(target=lambda: 1 / 0).start()",
            "cell 3: ZeroDivisionError: division by zero",
        ),
    ],
)
def test_a_failing_cell_is_named_and_the_figures_of_the_last_good_run_stay_as_they_were(make, tmp_path, cell, sentence):
    out = tmp_path / "out"
    (out / "notebooks").mkdir(parents=True)
    (out / "7.1-a.png").write_text("good")
    (out / "notebooks" / "7_toy.ipynb").write_text("good")
    path = make(DRAW.format("7.1-a.png", "bad"), cell, "import time; time.sleep(0.5)")
    with pytest.raises(batch.NotebookError) as failed:
        batch.run(path, {"figure_dir": str(out)})
    assert str(failed.value) == f"7_toy, {sentence}"
    assert contents(out) == {"7.1-a.png": b"good", "notebooks/7_toy.ipynb": b"good"}
    assert list(out.glob(".*")) == []


def executed(*outputs, counts=(1, 2, 3)):
    """Three executed cells, with these outputs on standard error."""
    cells = [
        new_code_cell(
            "1", execution_count=count, outputs=[new_output("stream", name="stderr", text=own) for own in texts]
        )
        for count, texts in zip(counts, [*outputs, *[[]] * 3], strict=False)
    ]
    return new_notebook(cells=cells)


HEAD = "Exception in thread Thread-1:\nTraceback (most recent call last):\n  File 'a', line 1, in run\n"


@pytest.mark.parametrize(
    ("outputs", "sentence"),
    [
        ([[HEAD, "    1 / 0\nZeroDivisionError: no\n", "and more\n"]], "cell 1: ZeroDivisionError: no"),
        ([["careful\n"], [HEAD], ["    1 / 0\nZeroDivisionError: no\n"]], "cell 2: ZeroDivisionError: no"),
        ([[HEAD]], "cell 1: an error in a thread"),
    ],
    ids=["in pieces", "that ends in the next cell", "cut short"],
)
def test_the_traceback_of_a_thread_is_noticed(outputs, sentence):
    assert list(batch._problems(executed(*outputs))) == [sentence]


def test_a_cell_that_was_not_run_is_noticed_and_a_warning_is_no_problem():
    assert list(batch._problems(executed(["careful\n"], counts=(1, None, 2)))) == ["cell 2 was not run"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One successful run into a folder where others have been before; what the tests below look at."""
    folder = tmp_path_factory.mktemp("finished")
    out = folder / "out"
    for process in (os.getppid(), os.getpid(), NOBODY):
        (out / f".7_toy-{process}" / "figures").mkdir(parents=True)
    for old in ("7.1-a.png", "7.1-old.png", "7.1-old.txt", "71.1-other.png"):
        (out / old).write_text("old")
    look = f"print(sorted((own.name, own.read_text()) for own in Path({str(out)!r}).glob('7.*')))"
    draw = [DRAW.format(name, "new") for name in ("7.1-a.png", "7.1-a.txt", "7.2-b.png")]
    path = notebook(folder, *draw, "", look, "import os; print(os.getcwd())")
    before = path.read_bytes()
    drawn = batch.run(path, {"figure_dir": str(out), "seed": 4})
    book = nbformat.read(out / "notebooks" / "7_toy.ipynb", as_version=4)
    return SimpleNamespace(out=out, drawn=drawn, book=book, untouched=path.read_bytes() == before)


def test_a_run_returns_the_pictures_that_it_drew(finished):
    assert finished.drawn == [finished.out / "7.1-a.png", finished.out / "7.2-b.png"]
    assert {path.read_text() for path in finished.drawn} == {"new"}


def test_until_the_whole_notebook_has_succeeded_the_old_figures_stay(finished):
    during = finished.book.cells[-2].outputs[0].text
    assert during == "[('7.1-a.png', 'old'), ('7.1-old.png', 'old'), ('7.1-old.txt', 'old')]\n"


def test_figures_that_are_no_longer_drawn_go_and_those_of_other_notebooks_stay(finished):
    kept = {own.name for own in finished.out.iterdir() if not own.name.startswith(".")}
    assert kept == {"7.1-a.png", "7.1-a.txt", "7.2-b.png", "71.1-other.png", "notebooks"}


def test_the_executed_notebook_is_kept_and_the_one_that_was_run_is_untouched(finished):
    counts = [cell.execution_count for cell in finished.book.cells if cell.source]
    assert counts == [1, 2, 3, 4, 5, 6, 7]  # the parameters, papermill's own, five cells
    assert "seed = 4" in finished.book.cells[1].source
    assert finished.untouched


def test_a_notebook_runs_in_the_folder_of_the_notebooks(finished):
    assert finished.book.cells[-1].outputs[0].text == f"{batch.NOTEBOOKS}\n"


def test_only_the_scratch_folder_of_another_living_process_is_left_alone(finished):
    """In a new container a process often has the number of one that was killed in the last."""
    assert [own.name for own in finished.out.glob(".*")] == [f".7_toy-{os.getppid()}"]


def test_the_process_of_another_user_lives(monkeypatch, tmp_path):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    (tmp_path / f".7_toy-{NOBODY}").mkdir()
    monkeypatch.setattr(batch.os, "kill", refuse)
    with batch._scratch(tmp_path, "7_toy"):
        pass
    assert [own.name for own in tmp_path.iterdir()] == [f".7_toy-{NOBODY}"]


def test_figures_go_to_the_folder_of_their_profile_where_none_is_given(make, no_kernel, tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "ROOT", tmp_path)
    assert batch.run(make(), {"profile": "smoke"}) == []
    assert list(contents(tmp_path / "figures")) == ["smoke/notebooks/7_toy.ipynb"]


def test_a_relative_folder_is_meant_from_where_the_command_is_given(make, no_kernel, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    batch.run(make(), {"figure_dir": "out"})
    assert list(contents(tmp_path / "out")) == ["notebooks/7_toy.ipynb"]
    assert no_kernel[0]["figure_dir"] == str(tmp_path / "out" / f".7_toy-{os.getpid()}" / "figures")


def test_a_folder_that_cannot_be_written_is_refused_before_the_run(make, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(batch.ParameterError, match=r"cannot write to .* choose another figure_dir"):
        batch.run(make("1 / 0"), {"figure_dir": str(tmp_path / "file" / "out")})

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(batch.Path, "mkdir", refuse)
    with pytest.raises(batch.ParameterError, match=r"cannot write to .* \(Permission denied\)"):
        batch.run(make("1 / 0"), {"figure_dir": str(tmp_path / "out")})


@pytest.mark.parametrize("moment", ["starting", "running", "drawn"])
def test_a_kill_leaves_the_old_figures_whole_and_the_next_run_clean(make, no_kernel, tmp_path, moment):
    out, flag = tmp_path / "out", tmp_path / "flag"
    out.mkdir()
    (out / "7.1-a.png").write_text("old")
    draw = DRAW.format("7.1-a.png", "new")
    wait = f"open({str(flag)!r}, 'w'); import time; time.sleep(600)"
    path = make(*{"starting": [draw], "running": [wait, draw], "drawn": [draw, wait]}[moment])
    before = path.read_bytes()
    run = processes.Process(target=batch.run, args=(path, {"figure_dir": str(out)}))
    run.start()
    while not (flag.exists() or (moment == "starting" and list(out.glob(".7_toy-*")))):
        assert run.is_alive()
        time.sleep(0.02)
    os.kill(run.pid, signal.SIGKILL)
    run.join()
    [left] = out.glob(".7_toy-*")
    assert (left / "figures" / "7.1-a.png").exists() == (moment == "drawn")
    assert (out / "7.1-a.png").read_text() == "old"
    assert path.read_bytes() == before
    batch.run(path, {"figure_dir": str(out)})
    assert not list(out.glob(".7_toy-*"))


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


THREADS = "import os; print(os.environ.get('OMP_NUM_THREADS'))"


def busy_machine(monkeypatch, cores, busy):
    """Two threads are usual, and others use that share of so many cores."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(batch.torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(batch.psutil, "cpu_count", lambda: cores)
    monkeypatch.setattr(batch.psutil, "cpu_percent", {batch.OTHERS_WATCHED: busy}.__getitem__)


@pytest.mark.parametrize(
    ("cores", "busy", "given", "expected"),
    [
        (2, 20, None, "None"),
        (2, 45, None, "1"),
        (2, 100, None, "1"),
        (64, 100 * 62 / 64, None, "None"),
        (2, 100, "2", "2"),
    ],
)
def test_a_notebook_gets_a_thread_for_each_core_that_others_leave_idle(
    tmp_path, make, monkeypatch, capsys, cores, busy, given, expected
):
    busy_machine(monkeypatch, cores, busy)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    environment = dict(os.environ)
    batch.run(make(THREADS), {"figure_dir": str(tmp_path / "out")})
    book = nbformat.read(tmp_path / "out" / "notebooks" / "7_toy.ipynb", as_version=4)
    assert book.cells[-1].outputs[0].text.strip() == expected
    sentence = "PyTorch takes 1 of 2 threads, because other processes keep this machine busy.\n"
    assert capsys.readouterr().out == (sentence if expected == "1" else "")
    assert os.environ == environment


def test_a_failing_notebook_leaves_the_number_of_threads_as_it_was(tmp_path, make, monkeypatch):
    busy_machine(monkeypatch, 2, 100)
    with pytest.raises(batch.NotebookError, match="ZeroDivisionError"):
        batch.run(make("1 / 0"), {"figure_dir": str(tmp_path / "out")})
    assert "OMP_NUM_THREADS" not in os.environ


def test_a_cell_without_end_is_named(make, tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "CELL_TIMEOUT", 1)
    with pytest.raises(batch.NotebookError, match=r"^7_toy, cell 2: no end after 1 s$"):
        batch.run(make("import time; time.sleep(600)"), {"figure_dir": str(tmp_path / "out")})
