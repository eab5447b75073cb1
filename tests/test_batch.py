"""Papermill runs: what is refused before, what is noticed after, and what is left behind."""

import io
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from conftest import processes
from ipykernel.compiler import get_file_name
from jupyter_client.kernelspec import KernelSpecManager
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from gm_helpers import batch, publish
from gm_helpers.files import CourseError, UsageError

PARAMETERS = """
dataset: str = "digits"  # data set
profile: str = "quick"  # profile
seed: int = 0  # seed
device: str = "cpu"  # device
figure_dir: str = ""  # folder
"""
DRAW = "from pathlib import Path; Path(figure_dir, '{}').write_text('{}')"


def notebook(folder, *sources, parameters=PARAMETERS, name="7_toy"):
    """Write a notebook of these cells after one with parameters; returns its path. Cells that begin with # are text."""
    first = new_code_cell(parameters, metadata={"tags": ["parameters"]})
    rest = [new_markdown_cell(own) if own.startswith("#") else new_code_cell(own) for own in sources]
    book = new_notebook(cells=[first, *rest], metadata={"kernelspec": batch.KERNEL})
    nbformat.write(book, folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"


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
        ({"seed": 2**64}, "seed must be from 0 to 4,294,967,295, but is 18,446,744,073,709,551,616"),
        ({"seed": -3}, "seed must be from 0 to 4,294,967,295, but is -3"),
        ({"figure_dir": "gs://bucket/x"}, "gs://bucket/x is an address on a network: name a folder of this machine"),
        (
            {"figure_dir": "~nobody-here/x"},
            "~nobody-here/x is in the home of a user who isn't here: name another folder",
        ),
    ],
)
def test_a_wrong_parameter_is_refused_before_the_run(make, tmp_path, parameters, sentence):
    with pytest.raises(UsageError, match=r".") as refused:
        batch.run(make("1"), {"figure_dir": str(tmp_path / "out")} | parameters)
    assert sentence in str(refused.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["dataset", "profile", "device", "figure_dir"])
def test_a_notebook_without_a_parameter_that_a_run_needs_is_refused(make, name):
    fewer = "\n".join(line for line in PARAMETERS.splitlines() if not line.startswith(name))
    with pytest.raises(UsageError, match=f"7_toy has no parameter '{name}': its cell tagged 'parameters'"):
        batch.check(make(parameters=fewer), {})


def test_a_parameter_declared_bool_does_not_take_the_text_false(make):
    path = make(parameters=f"{PARAMETERS}fast: bool = True  # fast\n")
    with pytest.raises(UsageError, match="fast must be of type bool, but 'false' is of type str"):
        batch.check(path, batch.parse(path, {"fast": "false"}))
    assert batch.check(path, batch.parse(path, {"fast": "False"}))["fast"] is False


def test_a_parameter_without_a_declared_type_has_that_of_its_default(make):
    path = make(parameters=f"{PARAMETERS}rate = 0.5  # rate\n")
    assert batch.check(path, batch.parse(path, {"rate": "0.25"}))["rate"] == 0.25
    with pytest.raises(UsageError, match=r"^rate must be of type float, but 'fast' is of type str$"):
        batch.check(path, batch.parse(path, {"rate": "fast"}))


@pytest.mark.parametrize(("text", "value"), [("3", 3), ("three", "three"), ("None", None)])
def test_a_parameter_whose_default_is_nothing_takes_anything(make, text, value):
    path = make(parameters=f"{PARAMETERS}limit = None  # limit\n")
    assert batch.check(path, batch.parse(path, {"limit": text}))["limit"] == value


def test_a_notebook_without_a_cell_of_parameters_is_refused_with_what_it_must_declare(tmp_path):
    nbformat.write(new_notebook(cells=[new_code_cell("1 / 0")]), tmp_path / "scratch.ipynb")
    for parameters in ({}, {"seed": 1}):
        with pytest.raises(UsageError, match=r"^scratch has no parameter 'dataset': its cell tagged 'parameters' must"):
            batch.check(tmp_path / "scratch.ipynb", parameters)


def test_a_default_that_is_computed_is_refused(make):
    path = make(parameters=PARAMETERS.replace('"digits"', 'max("digits", "mnist")'))
    with pytest.raises(UsageError, match=r"7_toy.ipynb: the cell tagged 'parameters' may hold plain values alone"):
        batch.check(path, {})


@pytest.mark.parametrize(
    "content", ["", "<<<<<<< HEAD\n{}\n", "[]", "{}", '{"cells": 3}', '{"nbformat": 4, "nbformat_minor": 5}', "\0"]
)
def test_what_is_no_notebook_is_named(tmp_path, content):
    (tmp_path / "broken.ipynb").write_text(content)
    with pytest.raises(
        UsageError, match=rf"^{tmp_path}/broken.ipynb is no notebook, or holds the marks of an unfinished"
    ):
        batch.check(tmp_path / "broken.ipynb", {})


def test_a_notebook_with_the_marks_of_a_merge_is_named(make):
    path = make("1")
    path.write_text(path.read_text().replace('"cells": [', '"cells": [\n<<<<<<< HEAD\n'))
    with pytest.raises(
        UsageError, match=r"7_toy.ipynb is no notebook, or holds the marks of an unfinished merge: mend it"
    ):
        batch.check(path, {})


def test_the_course_s_notebooks_are_those_that_have_a_source(tmp_path, monkeypatch):
    (tmp_path / "source").mkdir()
    for name in ("source/1_a.md", "source/notes.txt", "1_a.ipynb", "Untitled.ipynb"):
        (tmp_path / name).touch()
    monkeypatch.setattr(batch, "NOTEBOOKS", tmp_path)
    assert batch.course() == ["1_a"]
    with pytest.raises(
        UsageError, match=r"^there is no notebook '2_b': choose one of 1_a, or give the path of a file$"
    ):
        batch.find("2_b")


@pytest.mark.parametrize(
    ("declared", "sentence"),
    [
        ('profile: str = "quik"', "unknown profile 'quik': choose one of smoke, quick, full"),
        (
            "figure_dir = None",
            "7_toy has no parameter 'figure_dir': its cell tagged 'parameters' must declare it as text",
        ),
        ("seed: int = -1", "seed must be from 0 to 4,294,967,295, but is -1"),
    ],
)
def test_a_wrong_default_is_refused_as_a_wrong_value_is(make, declared, sentence):
    with pytest.raises(UsageError) as refused:
        batch.check(make(parameters=f"{PARAMETERS}{declared}\n"), {})
    assert str(refused.value) == sentence


def test_command_line_texts_are_read_by_the_declared_types(make):
    assert batch.parse(make(), {"seed": "3", "dataset": "3", "nix": "3"}) == {"seed": 3, "dataset": "3", "nix": "3"}


@pytest.mark.parametrize("word", ["three", "3 4"])
def test_a_number_that_is_none_is_refused(make, word):
    path = make()
    with pytest.raises(UsageError, match=f"seed must be of type int, but '{word}' is of type str"):
        batch.check(path, batch.parse(path, {"seed": word}))


def test_defaults_fill_what_is_not_given(make):
    complete = batch.check(make(), {"seed": 4})
    assert complete == {"dataset": "digits", "profile": "quick", "seed": 4, "device": "cpu", "figure_dir": ""}


def test_an_unknown_notebook_is_refused_with_the_names_that_there_are():
    with pytest.raises(UsageError, match=r"no notebook '9_none': choose one of 1_vae"):
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


def book_of(*sources, counts=(1, 2, 3)):
    """An executed notebook of these cells."""
    cells = [new_code_cell(own, execution_count=count) for own, count in zip(sources, counts, strict=True)]
    return new_notebook(cells=cells)


def traceback(source, error, chained=""):
    """What Python prints where a thread fails in that cell."""
    frame = f'  File "/x/ipykernel_9/{Path(get_file_name(source)).name}", line 1, in <lambda>\n    1 / 0\n'
    return f"{chained}Traceback (most recent call last):\n  File 'threading.py', line 1, in run\n{frame}{error}\n"


@pytest.mark.parametrize(
    ("errors", "problems"),
    [
        ("", []),
        ("careful: a warning\n  with two lines\n", []),
        (traceback("b", "ZeroDivisionError: no", "Exception in thread Thread-1:\n"), ["cell 2: ZeroDivisionError: no"]),
        (f"50 %|###|{traceback('c', 'KeyError: 1')}more\n", []),
        (f"50 %|###|\n{traceback('c', 'KeyError: 1')}more\n", ["cell 3: KeyError: 1"]),
        (traceback("a", "KeyError: 1") + traceback("c", "OSError"), ["cell 1: KeyError: 1", "cell 3: OSError"]),
        (traceback("elsewhere", "KeyError: 1"), ["a thread or program: KeyError: 1"]),
        ("Traceback (most recent call last):\n  File 'x'\n", ["a thread or program: an error without a name"]),
        (
            traceback("a", "KeyError: 1")
            + "\nDuring handling of the above exception, another exception occurred:\n\n"
            + traceback("b", "OSError: 2")
            + "\nThe above exception was the direct cause of the following exception:\n\n"
            + traceback("c", "ValueError: 3"),
            ["cell 3: ValueError: 3"],
        ),
        (traceback("a", "KeyError: 1", "Exception ignored in: <function f at 0x1>\n"), []),
    ],
)
def test_each_traceback_on_standard_error_is_a_problem_of_the_cell_that_it_leads_to(errors, problems):
    assert list(batch._problems(book_of("a", "b", "c"), errors)) == problems


def test_a_cell_that_was_not_run_is_noticed():
    assert list(batch._problems(book_of("a", "b", "c", counts=(1, None, 2)), "")) == ["cell 2 was not run"]


LATE = """import threading, time
def fail():
    time.sleep({})
    raise LookupError("late")
threading.Thread(target=fail).start()"""


@pytest.mark.parametrize("seconds", [0, 0.3, 0.6, 0.9])
def test_a_thread_that_fails_while_later_cells_run_is_named_with_the_cell_that_it_comes_from(make, tmp_path, seconds):
    path = make(LATE.format(seconds), *["import time; time.sleep(0.2)"] * 6)
    with pytest.raises(batch.NotebookError, match=r"^7_toy, cell 2: LookupError: late$"):
        batch.run(path, {"figure_dir": str(tmp_path / "out")})


def test_a_program_that_fails_is_noticed_though_its_cell_does_not(make, tmp_path):
    with pytest.raises(batch.NotebookError, match=r"^7_toy, a thread or program: ZeroDivisionError: division by zero$"):
        batch.run(
            make('import subprocess, sys\nsubprocess.run([sys.executable, "-c", "1/0"])', "1"),
            {"figure_dir": str(tmp_path / "out")},
        )


def test_what_a_notebook_prints_stays_out_of_the_terminal(make, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # on a busy machine its number would be said
    speak = 'import os, sys, warnings; print("a"); print("b", file=sys.stderr); os.system("echo c"); warnings.warn("d")'
    batch.run(make(speak), {"figure_dir": str(tmp_path / "out")})
    assert capfd.readouterr() == ("", "")


def test_a_kernel_is_of_this_python_whatever_else_is_called_python3(make, tmp_path, monkeypatch):
    spec = tmp_path / "share" / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text('{"argv": ["/bin/false"], "display_name": "another", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    assert KernelSpecManager().get_kernel_spec("python3").argv == ["/bin/false"]
    batch.run(make("import sys; print(sys.executable)"), {"figure_dir": str(tmp_path / "out")})
    book = nbformat.read(tmp_path / "out" / "notebooks" / "7_toy.ipynb", as_version=4)
    assert book.cells[-1].outputs[0].text == f"{sys.executable}\n"


def test_a_kernel_that_does_not_start_is_said_with_its_reason(make, tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "make_ipkernel_cmd", lambda: [sys.executable, "-c", "import nothing_of_that_name"])
    sentence = r"^7_toy: the kernel doesn't start \(ModuleNotFoundError: No module named 'nothing_of_that_name'\)$"
    with pytest.raises(batch.NotebookError, match=sentence):
        batch.run(make("1"), {"figure_dir": str(tmp_path / "out")})
    assert list((tmp_path / "out").glob(".*")) == []


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_each_cell_is_told_with_the_heading_that_it_stands_under_and_the_line_is_wiped_at_the_end(
    make, tmp_path, monkeypatch
):
    told = []
    monkeypatch.setattr(batch, "_tell", told.append)
    cells = "# Title\n\ntext", "a = 1", "## 7.1 What is this?\n\n### 7.1a Really", "", "a", "1 / 0"
    with pytest.raises(batch.NotebookError):
        batch.run(make(*cells), {"figure_dir": str(tmp_path / "out")})
    cells = "7_toy: cell 1 of 4", "7_toy: cell 2 of 4, Title"
    assert told == [*cells, "7_toy: cell 3 of 4, 7.1a Really", "7_toy: cell 4 of 4, 7.1a Really", ""]


def test_a_line_takes_the_place_of_the_last_one_on_a_terminal_only(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    for kind, written in ((Terminal, f"\r\x1b[K{'long ' * 4}"[:-1] + "\r\x1b[K"), (io.StringIO, "")):
        monkeypatch.setattr(sys, "stderr", kind())
        batch._tell("long " * 9)
        batch._tell("")
        assert sys.stderr.getvalue() == written


# What may lie in a folder that a user names: names like ours, and like those of our scratch folders.
USERS = [
    *("7. Introduction.pdf", "7.3 exercise solutions.docx", "7.txt", "7.9-mine.png", "71.1-other.png", ".env"),
    *(".7_toy-old/notes", ".7_toy-2025/a.png", ".7_toy-notes", ".gm_helpers-7_toy-mine/a.png", "7.backup/a.png"),
    *("notebooks/8_other.ipynb", "7_toy.figures.json.old"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One successful run into a folder where others have been before; what the tests below look at."""
    folder = tmp_path_factory.mktemp("finished")
    out = folder / "out"
    batch.run(
        notebook(folder, *[DRAW.format(name, "old") for name in ("7.1-a.png", "7.1-old.png", "7.1-old.txt")]),
        {"figure_dir": str(out)},
    )
    for name in USERS:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("a user's")
    look = f"print(sorted((own.name, own.read_text()) for own in Path({str(out)!r}).glob('7.1-[ao]*')))"
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


def test_figures_that_are_no_longer_drawn_go_and_nothing_else_does(finished):
    ours = {"7.1-a.png", "7.1-a.txt", "7.2-b.png", "notebooks/7_toy.ipynb", "7_toy.figures.json"}
    assert contents(finished.out).keys() == {*ours, *USERS}
    assert {contents(finished.out)[name] for name in USERS} == {b"a user's"}


def test_the_executed_notebook_is_kept_and_the_one_that_was_run_is_untouched(finished):
    counts = [cell.execution_count for cell in finished.book.cells if cell.source]
    assert counts == [1, 2, 3, 4, 5, 6, 7]  # the parameters, papermill's own, five cells
    assert "seed = 4" in finished.book.cells[1].source
    assert finished.untouched


def test_a_notebook_runs_in_the_folder_of_the_notebooks(finished):
    assert finished.book.cells[-1].outputs[0].text == f"{batch.NOTEBOOKS}\n"


def test_figures_go_to_the_folder_of_their_profile_where_none_is_given(make, no_kernel, tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "ROOT", tmp_path)
    assert batch.run(make(), {"profile": "smoke"}) == []
    assert contents(tmp_path / "figures").keys() == {"smoke/notebooks/7_toy.ipynb", "smoke/7_toy.figures.json"}


def test_a_relative_folder_is_meant_from_where_the_command_is_given(make, no_kernel, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    batch.run(make(), {"figure_dir": "out"})
    assert contents(tmp_path / "out").keys() == {"notebooks/7_toy.ipynb", "7_toy.figures.json"}
    assert Path(no_kernel[0]["figure_dir"]).parent.parent == tmp_path / "out"


def test_a_folder_may_be_meant_from_home(make, no_kernel, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    batch.run(make(), {"figure_dir": "~/out"})
    assert (tmp_path / "home" / "out" / "notebooks" / "7_toy.ipynb").exists()


def test_a_run_that_would_replace_its_own_notebook_is_refused(no_kernel, tmp_path):
    (tmp_path / "notebooks").mkdir()
    path = notebook(tmp_path / "notebooks")
    for out in (tmp_path, tmp_path / "notebooks" / ".."):
        with pytest.raises(
            UsageError, match=r"^the executed notebook would replace .*7_toy.ipynb: choose another figure_dir$"
        ):
            batch.run(path, {"figure_dir": str(out)})
    assert no_kernel == []


@pytest.mark.parametrize("name", ["_draft", "[x]", "7_toy"])
def test_a_stem_of_any_kind_names_no_file_of_the_user(tmp_path, no_kernel, name):
    (tmp_path / "out").mkdir()
    for own in (".env", "x", "7.txt", ".gm_helpers-x-1"):
        (tmp_path / "out" / own).write_text("a user's")
    for _ in range(2):
        batch.run(notebook(tmp_path, name=name), {"figure_dir": str(tmp_path / "out")})
    ours = {f"notebooks/{name}.ipynb", f"{name}.figures.json"}
    assert contents(tmp_path / "out").keys() == {".env", "x", "7.txt", ".gm_helpers-x-1", *ours}


@pytest.mark.parametrize("obstacle", ["out", "out/notebooks"])
def test_a_file_in_the_place_of_a_folder_is_refused_before_the_run(make, tmp_path, no_kernel, obstacle):
    (tmp_path / obstacle).parent.mkdir(exist_ok=True)
    (tmp_path / obstacle).touch()
    with pytest.raises(
        UsageError, match=rf"^cannot write to {tmp_path / obstacle} .* is a file\): choose another figure_dir$"
    ):
        batch.run(make(), {"figure_dir": str(tmp_path / "out")})
    assert no_kernel == []


def test_a_folder_in_the_place_of_the_executed_notebook_is_refused_before_the_run(make, tmp_path, no_kernel):
    place = tmp_path / "out" / "notebooks" / "7_toy.ipynb"
    place.mkdir(parents=True)
    with pytest.raises(
        UsageError, match=rf"^{place} is a folder, where the notebook is to go: choose another figure_dir$"
    ):
        batch.run(make(), {"figure_dir": str(tmp_path / "out")})
    assert no_kernel == []


def test_a_full_disk_is_said_with_the_folder(make, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(batch, "_execute", full)
    with pytest.raises(OSError, match="No space") as failed:
        batch.run(make(), {"figure_dir": str(tmp_path / "out")})
    assert failed.value.filename == str(tmp_path / "out")


@pytest.mark.parametrize("place", ["7.1-a.png", "7_toy.figures.json"])
def test_where_a_folder_has_a_file_s_name_the_figures_are_kept_and_named(make, tmp_path, place):
    out = tmp_path / "out"
    (out / place).mkdir(parents=True)
    path = make(DRAW.format("7.1-a.png", "new"))
    with pytest.raises(batch.NotebookError) as failed:
        batch.run(path, {"figure_dir": str(out)})
    [kept] = out.glob(".gm_helpers-7_toy-*")
    what = (
        f"7_toy ran to its end, but {out / place}: is a folder, where a file was to go; its figures are kept in {kept}"
    )
    assert str(failed.value) == what
    assert (kept / "figures" / "7.1-a.png").read_text() == "new"
    (out / place).rmdir()
    batch.run(path, {"figure_dir": str(out)})
    assert (kept / "figures" / "7.1-a.png").exists()  # the next run doesn't take it for one that was killed


def test_two_runs_of_one_notebook_into_one_folder_do_not_meet(make, tmp_path, no_kernel):
    (tmp_path / "out").mkdir()
    with (
        publish.scratch(tmp_path / "out", "7_toy", "choose another figure_dir"),
        pytest.raises(
            CourseError, match=r"^another run of 7_toy writes to .*out: wait for it, or choose another figure_dir$"
        ),
    ):
        batch.run(make(), {"figure_dir": str(tmp_path / "out")})
    batch.run(make(), {"figure_dir": str(tmp_path / "out")})


def test_a_folder_that_cannot_be_written_is_refused_before_the_run(make, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot write to .* choose another figure_dir"):
        batch.run(make("1 / 0"), {"figure_dir": str(tmp_path / "file" / "out")})

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(batch.Path, "mkdir", refuse)
    with pytest.raises(UsageError, match=r"cannot write to .* \(Permission denied\)"):
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
    while not (flag.exists() or (moment == "starting" and list(out.glob(".gm_helpers-7_toy-*/figures")))):
        assert run.is_alive()
        time.sleep(0.02)
    os.kill(run.pid, signal.SIGKILL)
    run.join()
    [left] = out.glob(".gm_helpers-7_toy-*/")
    assert (left / "figures" / "7.1-a.png").exists() == (moment == "drawn")
    assert (out / "7.1-a.png").read_text() == "old"
    assert path.read_bytes() == before
    batch.run(path, {"figure_dir": str(out)})
    assert not list(out.glob(".*"))


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


@pytest.mark.parametrize("name", ["text/7_toy.md", "source/7_toy.txt", "source/8_none.md", "source"])
def test_what_is_no_source_in_its_folder_is_refused(tmp_path, name):
    for own in ("text/7_toy.md", "source/7_toy.txt"):
        (tmp_path / own).parent.mkdir()
        (tmp_path / own).write_text(SOURCE)
    with pytest.raises(UsageError, match=rf"^there is no source {tmp_path}/{name}: choose one of notebooks/source/"):
        batch.write(tmp_path / name)


def test_a_folder_of_notebooks_that_cannot_be_written_is_named_for_what_it_is(tmp_path, monkeypatch):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "7_toy.md").write_text(SOURCE)

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(publish.files.tempfile, "TemporaryFile", refuse)
    with pytest.raises(
        UsageError, match=rf"^cannot write to {tmp_path} \(Read-only file system\): the notebook is written"
    ):
        batch.write(tmp_path / "source" / "7_toy.md")


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
