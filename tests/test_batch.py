"""Papermill runs: what is refused before, what is noticed after, and what is left behind."""

import io
import json
import platform
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import nbformat
import papermill
import pytest
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


def notebook(folder, *sources, parameters=PARAMETERS, name="7_toy", kernelspec=batch.KERNEL):
    """Write a notebook of these cells after one with parameters; returns its path. Cells that begin with # are text."""
    first = new_code_cell(parameters, metadata={"tags": ["parameters"]})
    rest = [new_markdown_cell(own) if own.startswith("#") else new_code_cell(own) for own in sources]
    book = new_notebook(cells=[first, *rest], metadata={"kernelspec": kernelspec} if kernelspec else {})
    nbformat.write(book, folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"


@pytest.fixture
def make(tmp_path):
    return lambda *sources, **options: notebook(tmp_path, *sources, **options)


@pytest.fixture
def out(tmp_path):
    """A folder for figures, which isn't there yet."""
    return tmp_path / "out"


def run(path, out, **parameters):
    return batch.run(path, {"figure_dir": str(out)} | parameters)


def run_here(patch=setattr, errors=b""):
    """Let papermill run the cells in this process, beside a kernel that would have said `errors`; gives what it ran."""
    ran = []

    def execute(path, executed, parameters, **_):
        book, names = nbformat.read(path, as_version=4), {}
        ran.append(book)
        for number, cell in enumerate(book.cells):
            if cell.cell_type == "code":
                exec(cell.source, names)
                cell.execution_count = None if "not run" in cell.source else number
                names |= parameters if "parameters" in cell.metadata.get("tags", []) else {}
        nbformat.write(book, executed)
        Path(executed).with_suffix(".errors").write_bytes(errors)
        return book

    patch(papermill, "execute_notebook", execute)
    return ran


@pytest.fixture
def no_kernel(monkeypatch):
    return run_here(monkeypatch.setattr)


def contents(folder):
    return {str(own.relative_to(folder)): own.read_bytes() for own in folder.rglob("*") if own.is_file()}


# ---------------------------------------------------------------- before a run


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"sed": 1}, "7_toy has no parameter 'sed': choose among dataset, profile, seed, device, figure_dir"),
        ({"seed": "1"}, "seed must be of type int, but '1' is of type str"),
        ({"seed": True}, "seed must be of type int, but True is of type bool"),
        ({"seed": 1.0}, "seed must be of type int, but 1.0 is of type float"),
        ({"profile": "fast"}, "unknown profile 'fast': choose one of smoke, quick, full"),
        ({"dataset": "cifar"}, "unknown dataset 'cifar': choose one of auto, mnist, digits"),
        ({"figure_dir": None}, "figure_dir must be of type str, but None is of type NoneType"),
        ({"device": "tpu"}, "unknown device 'tpu': choose one of auto, cpu, cuda, mps"),
        ({"seed": 2**64}, "seed must be from 0 to 4,294,967,295, but is 18,446,744,073,709,551,616"),
        ({"seed": -3}, "seed must be from 0 to 4,294,967,295, but is -3"),
        ({"figure_dir": "gs://bucket/x"}, "gs://bucket/x is an address on a network: name a folder of this machine"),
    ],
)
def test_a_wrong_parameter_is_refused_before_the_run(make, out, no_kernel, parameters, sentence):
    with pytest.raises(UsageError) as refused:
        run(make(), out, **parameters)
    assert str(refused.value) == sentence
    assert no_kernel == []
    assert not out.exists()


@pytest.mark.parametrize(
    ("declared", "sentence"),
    [
        ('profile: str = "quik"', "unknown profile 'quik': choose one of smoke, quick, full"),
        ("seed: int = -1", "seed must be from 0 to 4,294,967,295, but is -1"),
        *(
            (f"{name} = None", f"7_toy has no parameter '{name}': its cell tagged 'parameters' must declare it as text")
            for name in ("dataset", "profile", "device", "figure_dir")
        ),
    ],
)
def test_a_wrong_default_is_refused_as_a_wrong_value_is(make, declared, sentence):
    with pytest.raises(UsageError) as refused:
        batch.check(make(parameters=f"{PARAMETERS}{declared}\n"), {})
    assert str(refused.value) == sentence


@pytest.mark.parametrize("parameters", [{}, {"seed": 1}])
def test_a_notebook_without_a_cell_of_parameters_is_refused_with_what_it_must_declare(make, parameters):
    with pytest.raises(UsageError, match=r"^7_toy has no parameter 'dataset': its cell tagged 'parameters' must"):
        batch.check(make(parameters=""), parameters)


def test_a_default_that_is_computed_is_refused(make):
    path = make(parameters=PARAMETERS.replace('"digits"', 'max("digits", "mnist")'))
    with pytest.raises(UsageError, match=r"7_toy.ipynb: the cell tagged 'parameters' may hold plain values alone"):
        batch.check(path, {})


@pytest.mark.parametrize(
    "content", ["", "<<<<<<< HEAD\n{}\n", "[]", "{}", '{"cells": 3}', '{"nbformat": 4, "nbformat_minor": 5}', "\0"]
)
def test_what_is_no_notebook_is_named(tmp_path, content):
    (tmp_path / "broken.ipynb").write_text(content)
    sentence = f"^{tmp_path}/broken.ipynb is no notebook, or holds the marks of an unfinished merge: mend it first$"
    with pytest.raises(UsageError, match=sentence):
        batch.check(tmp_path / "broken.ipynb", {})


@pytest.mark.parametrize("kernelspec", [None, batch.KERNEL | {"name": "other", "language": "of no translator"}])
def test_a_notebook_that_is_not_said_to_be_of_python_is_refused(make, kernelspec):
    with pytest.raises(UsageError, match=r"7_toy.ipynb can't be run as a notebook of Python \(No .*\)$"):
        batch.check(make(kernelspec=kernelspec), {})


def test_the_course_s_notebooks_are_those_that_have_a_source(tmp_path, monkeypatch):
    (tmp_path / "source").mkdir()
    for name in ("source/1_a.md", "source/notes.txt", "1_a.ipynb", "Untitled.ipynb"):
        (tmp_path / name).touch()
    monkeypatch.setattr(batch, "NOTEBOOKS", tmp_path)
    assert batch.course() == ["1_a"]
    sentence = r"^there is no notebook '2_b': choose one of 1_a, or give the path of a file$"
    with pytest.raises(UsageError, match=sentence):
        batch.find("2_b")
    (tmp_path / "1_a.ipynb").unlink()
    with pytest.raises(UsageError, match=r"1_a.ipynb is missing: make it from its source by `make notebooks`$"):
        batch.find("1_a")


@pytest.mark.parametrize(
    ("declared", "text", "value"),
    [
        ("x: int = 0", "3", 3),
        ('x: str = ""', "3", "3"),
        ("x = 0.5", "0.25", 0.25),
        ("x: bool = True", "False", False),
        ("x = None", "3", 3),
        ("x = None", "three", "three"),
        ("x = None", "None", None),
    ],
)
def test_a_text_is_read_by_the_type_that_is_declared_or_the_default_has(make, declared, text, value):
    path = make(parameters=f"{PARAMETERS}{declared}\n")
    found = batch.check(path, batch.parse(path, {"x": text}))["x"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("declared", "text"), [("x: int = 0", "three"), ("x: int = 0", "3 4"), ("x = 0.5", "fast"), ("x = True", "false")]
)
def test_a_text_that_is_none_of_that_type_is_refused(make, declared, text):
    path = make(parameters=f"{PARAMETERS}{declared}\n")
    with pytest.raises(UsageError, match=rf"^x must be of type \w+, but '{text}' is of type str$"):
        batch.check(path, batch.parse(path, {"x": text}))


# ---------------------------------------------------------------- failures


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "sentence"),
    [
        ("1 / 0", "cell 3: ZeroDivisionError: division by zero"),
        ("import sys; sys.exit()", "cell 3: SystemExit"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "cell 3: the kernel died"),
        ("import ipywidgets\nwith ipywidgets.Output():\n    raise KeyError('inside')", "cell 3: KeyError: 'inside'"),
        # what a thread prints between two cells is lost to the notebook
        (
            "import threading, time\n"
            "def fail():\n    time.sleep(0.2)\n    raise LookupError('late')\n"
            "thread = threading.Thread(target=fail)\nthread.start()",
            "cell 3: LookupError: late",
        ),
        (
            "import subprocess, sys\nsubprocess.run([sys.executable, '-c', '1 / 0'])",
            "a thread or program: ZeroDivisionError: division by zero",
        ),
    ],
)
def test_a_failing_cell_is_named_and_the_figures_of_the_last_good_run_stay_as_they_were(make, out, cell, sentence):
    (out / "notebooks").mkdir(parents=True)
    (out / "7.1-a.png").write_text("good")
    (out / "notebooks" / "7_toy.ipynb").write_text("good")
    path = make(DRAW.format("7.1-a.png", "bad"), cell, "if 'thread' in globals():\n    thread.join()")
    with pytest.raises(batch.NotebookError) as failed:
        run(path, out)
    assert str(failed.value) == f"7_toy, {sentence}"
    assert contents(out) == {"7.1-a.png": b"good", "notebooks/7_toy.ipynb": b"good"}
    assert list(out.glob(".*")) == []


@pytest.mark.slow
def test_a_cell_without_end_is_named(make, out, monkeypatch):
    monkeypatch.setattr(batch, "CELL_TIMEOUT", 1)
    with pytest.raises(batch.NotebookError, match=r"^7_toy, cell 1: no end after 1 s$"):
        run(make(parameters=f"import time; time.sleep(600){PARAMETERS}"), out)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failing", "reason"),
    [
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        (r"import sys; sys.stderr.buffer.write(b'no \xff\n')", "no \N{REPLACEMENT CHARACTER}"),
    ],
)
def test_a_kernel_that_does_not_start_is_said_with_its_reason(make, out, monkeypatch, failing, reason):
    monkeypatch.setattr(batch, "make_ipkernel_cmd", lambda: [sys.executable, "-c", failing])
    with pytest.raises(batch.NotebookError) as failed:
        run(make("1"), out)
    assert str(failed.value) == f"7_toy: the kernel doesn't start ({reason})"
    assert list(out.glob(".*")) == []


def test_another_error_of_a_run_is_not_taken_for_the_notebook_s(make, out, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(papermill, "execute_notebook", fail)
    with pytest.raises(RuntimeError, match=r"^a bug of ours$") as failed:
        run(make(), out)
    assert failed.type is RuntimeError


def traceback(*sources, error="KeyError: 1", before=""):
    """What Python prints where a thread fails in these cells, which call one another."""
    names = [f"/x/ipykernel_9/{Path(get_file_name(source)).name}" for source in sources]
    frames = "".join(f'  File "{name}", line 1, in <lambda>\n    1 / 0\n' for name in names)
    return f"{before}Traceback (most recent call last):\n  File 'threading.py', line 1, in run\n{frames}{error}\n"


THEN = "\nDuring handling of the above exception, another exception occurred:\n\n"
CAUSED = "\nThe above exception was the direct cause of the following exception:\n\n"


@pytest.mark.parametrize(
    ("errors", "problem"),
    [
        ("", None),
        ("careful: a warning\n  with two lines\n", None),
        (traceback("2", before="Exception in thread Thread-1:\n"), "cell 3: KeyError: 1"),
        (traceback("1", "3", "2"), "cell 3: KeyError: 1"),
        (traceback("3", before="50 %|###|") + "more\n", None),
        (traceback("3", before="50 %|###|\n") + "more\n", "cell 4: KeyError: 1"),
        (traceback("1") + traceback("3", error="OSError"), "cell 2: KeyError: 1"),
        (traceback("elsewhere"), "a thread or program: KeyError: 1"),
        ("Traceback (most recent call last):\n  File 'x'\n", "a thread or program: an error without a name"),
        (traceback("1") + THEN + traceback("2") + CAUSED + traceback("3", error="OSError: 3"), "cell 4: OSError: 3"),
        (traceback("1", before="Exception ignored in: <function f at 0x1>\n"), None),
        (traceback("1", before="\udcff\n"), "cell 2: KeyError: 1"),
    ],
)
def test_a_traceback_on_standard_error_is_a_problem_of_the_last_cell_in_it(make, out, monkeypatch, errors, problem):
    run_here(monkeypatch.setattr, errors.encode(errors="surrogateescape"))
    with pytest.raises(batch.NotebookError, match=f"^7_toy, {problem}$") if problem else nullcontext():
        run(make("1", "2", "3"), out)


def test_a_cell_that_was_not_run_is_noticed(make, out, no_kernel):
    with pytest.raises(batch.NotebookError, match=r"^7_toy, cell 3 was not run$"):
        run(make("1", "'not run'", "3"), out)


# ---------------------------------------------------------------- what is said meanwhile


@pytest.mark.slow
def test_what_a_notebook_prints_stays_out_of_the_terminal(make, out, capfd):
    speak = 'import os, sys, warnings; print("a"); print("b", file=sys.stderr); os.system("echo c"); warnings.warn("d")'
    run(make(speak), out)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_on_a_terminal_one_line_tells_each_cell_with_its_heading_and_is_wiped_at_the_end(make, out, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    cells = "# Title\n\ntext", "a = 1", "## 7.1 What is this?\n\n### 7.1a A heading of some length", "", "a", "1 / 0"
    with pytest.raises(batch.NotebookError):
        run(make(*cells), out)
    first, second = "7_toy: cell 1 of 4", "7_toy: cell 2 of 4, Title"
    others = [f"7_toy: cell {number} of 4, 7.1a A heading of s" for number in (3, 4)]
    assert sys.stderr.getvalue().split("\r\x1b[K") == ["", first, second, *others, ""]


# ---------------------------------------------------------------- what is left behind

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
    with pytest.MonkeyPatch.context() as patch:
        run_here(patch.setattr)
        run(notebook(folder, *[DRAW.format(name, "old") for name in ("7.1-a.png", "7.1-old.png", "7.1-old.txt")]), out)
    for name in USERS:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("a user's")
    look = f"print(sorted((own.name, own.read_text()) for own in Path({str(out)!r}).glob('7.1-[ao]*')))"
    draw = [DRAW.format(name, "new") for name in ("7.1-a.png", "7.1-a.txt", "sub/7.2-b.png")]
    path = notebook(
        folder, "import os, sys; os.mkdir(f'{figure_dir}/sub')", *draw, "", look, "print(os.getcwd(), sys.executable)"
    )
    before = path.read_bytes()
    spec = folder / "share" / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text('{"argv": ["/bin/false"], "display_name": "another", "language": "python"}')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(folder / "share"))
        patch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
        assert KernelSpecManager().get_kernel_spec("python3").argv == ["/bin/false"]
        drawn = run(path, out, seed=4)
    book = nbformat.read(out / "notebooks" / "7_toy.ipynb", as_version=4)
    return SimpleNamespace(out=out, drawn=drawn, book=book, untouched=path.read_bytes() == before)


@pytest.mark.slow
def test_a_run_returns_the_pictures_that_it_drew_also_in_subfolders(finished):
    assert finished.drawn == [finished.out / "7.1-a.png", finished.out / "sub" / "7.2-b.png"]
    assert {path.read_text() for path in finished.drawn} == {"new"}


@pytest.mark.slow
def test_until_the_whole_notebook_has_succeeded_the_old_figures_stay(finished):
    during = finished.book.cells[-2].outputs[0].text
    assert during == "[('7.1-a.png', 'old'), ('7.1-old.png', 'old'), ('7.1-old.txt', 'old')]\n"


@pytest.mark.slow
def test_figures_that_are_no_longer_drawn_go_and_nothing_else_does(finished):
    ours = {"7.1-a.png", "7.1-a.txt", "sub/7.2-b.png", "notebooks/7_toy.ipynb", "7_toy.figures.json"}
    assert contents(finished.out).keys() == {*ours, *USERS}
    assert {contents(finished.out)[name] for name in USERS} == {b"a user's"}


@pytest.mark.slow
def test_the_executed_notebook_is_kept_and_the_one_that_was_run_is_untouched(finished):
    counts = [cell.execution_count for cell in finished.book.cells if cell.source]
    assert counts == [1, 2, 3, 4, 5, 6, 7, 8]  # the parameters, papermill's own, six cells
    assert "seed = 4" in finished.book.cells[1].source
    assert finished.untouched


@pytest.mark.slow
def test_a_notebook_runs_in_the_notebooks_folder_and_with_this_python_whatever_else_is_called_python3(finished):
    assert finished.book.cells[-1].outputs[0].text == f"{batch.NOTEBOOKS} {sys.executable}\n"


def test_figures_go_to_the_folder_of_their_profile_where_none_is_given(make, no_kernel, tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "ROOT", tmp_path)
    assert batch.run(make(), {"profile": "smoke"}) == []
    assert contents(tmp_path / "figures").keys() == {"smoke/notebooks/7_toy.ipynb", "smoke/7_toy.figures.json"}


def test_a_run_that_would_replace_its_own_notebook_is_refused(no_kernel, tmp_path):
    (tmp_path / "notebooks").mkdir()
    path = notebook(tmp_path / "notebooks")
    for out in (tmp_path, tmp_path / "notebooks" / ".."):
        with pytest.raises(UsageError, match=f"^the executed notebook would replace {path}: choose another figure"):
            run(path, out)
    assert no_kernel == []


@pytest.mark.parametrize(
    ("obstacle", "sentence"),
    [
        ("out", "cannot write to {0} ({0} is a file): choose another figure_dir"),
        ("out/notebooks", "cannot write to {0} ({0} is a file): choose another figure_dir"),
        ("out/notebooks/7_toy.ipynb", "{0} is a folder, where the notebook is to go: choose another figure_dir"),
    ],
)
def test_what_is_in_the_way_of_a_run_is_said_before_it(make, out, no_kernel, obstacle, sentence):
    place = out.parent / obstacle
    place.parent.mkdir(parents=True, exist_ok=True)
    (place.mkdir if place.suffix else place.touch)()
    with pytest.raises(UsageError) as refused:
        run(make(), out)
    assert str(refused.value) == sentence.format(place)
    assert no_kernel == []


@pytest.mark.parametrize("place", ["7.1-a.png", "7_toy.figures.json"])
def test_where_a_folder_has_a_file_s_name_the_figures_are_kept_and_named(make, out, no_kernel, place):
    (out / place).mkdir(parents=True)
    path = make(DRAW.format("7.1-a.png", "new"))
    with pytest.raises(batch.NotebookError) as failed:
        run(path, out)
    [kept] = out.glob(".gm_helpers-7_toy-*")
    what = f"{out / place}: is a folder, where a file was to go; its figures are kept in {kept}"
    assert str(failed.value) == f"7_toy ran to its end, but {what}"
    (out / place).rmdir()
    run(path, out)
    assert (kept / "figures" / "7.1-a.png").read_text() == "new"  # it is not taken for what a killed run left


def test_two_runs_of_one_notebook_into_one_folder_do_not_meet(make, out, no_kernel):
    sentence = f"^another run of 7_toy writes to {out}: wait for it, or choose another figure_dir$"
    with publish.scratch(out, "7_toy", ""), pytest.raises(CourseError, match=sentence):
        run(make(), out)
    assert no_kernel == []
    run(make(), out)


# ---------------------------------------------------------------- the committed notebooks

SOURCE = """---
kernelspec: {display_name: Python 3, language: python, name: python3}
---

# Title

```{code-cell} ipython3
:tags: [check]

from IPython.display import display
display({"text/plain": "7 of 9"}, raw=True, display_id="bar")
display({"text/plain": "9 of 9"}, raw=True, display_id="bar", update=True)
print(6 * 7)
display({"text/plain": "a still picture", "image/png": "cGljdHVyZQ=="}, raw=True)
display({"application/vnd.jupyter.widget-view+json": {}, "text/plain": "a slider"}, raw=True)
display({"text/html": '<div class="gm-page"></div><script>1</script>', "text/plain": ""}, raw=True)
display({"text/html": "<div>a table</div>", "text/plain": "a table"}, raw=True)
```

```{code-cell} ipython3
:tags: [hide-input, hide-output]

2
```
"""


@pytest.fixture
def source(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "7_toy.md").write_text(SOURCE)
    return tmp_path / "source" / "7_toy.md"


@pytest.mark.slow
def test_writing_a_notebook_executes_it_and_keeps_what_stands_by_itself(source):
    """The last state of a bar, and of what needs a kernel or a script the still picture before it."""
    path = source.parent.parent / "7_toy.ipynb"
    assert batch.write(source) == [path]
    book = json.loads(path.read_text())
    bar, text, picture, table = book["cells"][1]["outputs"]
    assert table["data"]["text/html"] == ["<div>a table</div>"]
    assert (bar["data"], text["text"]) == ({"text/plain": ["9 of 9"]}, ["42\n"])
    assert picture["data"].keys() == {"text/plain", "image/png"}
    assert set(book["metadata"]) == {"kernelspec", "language_info", "widgets", "gm_helpers_cells"}
    assert book["metadata"]["kernelspec"] == {
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "name": "python3",
    }
    assert book["metadata"]["language_info"]["version"] == platform.python_version()
    assert [own["state"] for own in book["metadata"]["widgets"].values()] == [{}]


def test_of_a_cell_s_metadata_its_tags_are_kept_and_what_they_mean_in_jupyterlab(source, no_kernel):
    tags = ["hide-input", "hide-output, check", "hide-output, hide-input", "check"]
    cells = [f"```{{code-cell}} ipython3\n:tags: [{own}]\n:mine: true\n\n1\n```\n" for own in tags]
    source.write_text("\n".join([SOURCE.partition("```")[0], *cells]))
    shown = [own["metadata"] for own in json.loads(batch.write(source)[0].read_text())["cells"][1:]]
    inside, outside = {"source_hidden": True}, {"outputs_hidden": True}
    assert shown == [
        {"tags": ["hide-input"], "jupyter": inside},
        {"tags": ["hide-output", "check"], "jupyter": outside, "collapsed": True},
        {"tags": ["hide-output", "hide-input"], "jupyter": inside | outside, "collapsed": True},
        {"tags": ["check"]},
    ]


def test_a_notebook_that_is_written_again_is_the_same(source, no_kernel):
    source.write_text(SOURCE.partition("from IPython")[0] + "1\n```\n")
    first = batch.write(source)[0].read_bytes()
    assert batch.write(source)[0].read_bytes() == first
    assert {own.name for own in source.parent.parent.iterdir()} == {"source", "7_toy.ipynb"}


def edit_a_cell(book):
    book["cells"][0]["source"] = ["# mine"]


def add_a_cell(book):
    book["cells"].append({"cell_type": "markdown", "id": "mine", "metadata": {}, "source": []})


def forget_who_wrote_it(book):
    del book["metadata"]["gm_helpers_cells"]


@pytest.mark.parametrize("edit", [edit_a_cell, add_a_cell, forget_who_wrote_it])
def test_a_notebook_that_somebody_has_edited_is_kept_under_another_name(source, no_kernel, edit, capsys):
    source.write_text(SOURCE.partition("from IPython")[0] + "1\n```\n")
    [path] = batch.write(source)
    book = json.loads(first := path.read_text())
    edit(book)
    path.write_text(mine := json.dumps(book))
    batch.write(source)
    assert (path.read_text(), path.with_name("7_toy.kept.ipynb").read_text()) == (first, mine)
    assert capsys.readouterr().out == f"{path} is not of an earlier run: it is kept as 7_toy.kept.ipynb.\n"


def test_a_notebook_with_other_outputs_or_settings_of_an_editor_is_not_taken_for_an_edited_one(source, no_kernel):
    source.write_text(SOURCE.partition("from IPython")[0] + "1\n```\n")
    [path] = batch.write(source)
    book = nbformat.read(path, as_version=4)
    for cell in book.cells:
        cell.metadata["collapsed"] = True
        if cell.cell_type == "code":
            cell.outputs = []
    nbformat.write(book, path)
    assert not batch.edited(path)
    for other in (b"no notebook", b"{}", b"\xff"):
        path.write_bytes(other)
        assert batch.edited(path)


EXERCISE = """```{code-cell} ipython3
from types import SimpleNamespace
exercises = SimpleNamespace(one=lambda answer: answer)
```

+++ {"tags": ["exercise"]}

### Exercise: one

```{code-cell} ipython3
:tags: [exercise, check]

answer = (
    # BEGIN SOLUTION
    1
    # END SOLUTION
)
exercises.one(answer)
```

+++ {"tags": ["solution"]}

Because.
"""


def test_of_a_source_with_exercises_the_chapter_and_its_solutions_are_written(source, no_kernel):
    source.write_text(SOURCE.partition("```")[0] + EXERCISE)
    chapter, solutions = batch.write(source)
    assert solutions == chapter.parent / "solutions" / chapter.name
    gaps, solved = ([own.source for own in nbformat.read(path, as_version=4).cells] for path in (chapter, solutions))
    assert "answer = (\n    ...  # your turn\n)\nexercises.one(answer)" in gaps
    assert "answer = (\n    1\n)\nexercises.one(answer)" in solved
    assert ("Because." in gaps, "Because." in solved) == (False, True)
    assert not batch.edited(solutions)


def test_a_source_may_be_named_from_where_it_lies(source, no_kernel, monkeypatch):
    source.write_text(SOURCE.partition("from IPython")[0] + "1\n```\n")
    monkeypatch.chdir(source.parent)
    assert batch.write(Path(source.name)) == [source.parent.parent / "7_toy.ipynb"]


def test_solutions_that_fail_are_named_and_leave_both_notebooks_as_they_were(source, no_kernel):
    source.write_text(SOURCE.partition("```")[0] + EXERCISE)
    paths = batch.write(source)
    before = [path.read_bytes() for path in paths]
    source.write_text(source.read_text().replace("    1\n", "    'not run'\n"))
    with pytest.raises(batch.NotebookError, match=r"^7_toy, solutions, cell 2 was not run$"):
        batch.write(source)
    assert [path.read_bytes() for path in paths] == before


@pytest.mark.parametrize("name", ["text/7_toy.md", "source/7_toy.txt", "source/8_none.md", "source"])
def test_what_is_no_source_in_its_folder_is_refused(tmp_path, source, name):
    for own in ("text/7_toy.md", "source/7_toy.txt"):
        (tmp_path / own).parent.mkdir(exist_ok=True)
        (tmp_path / own).write_text(SOURCE)
    with pytest.raises(UsageError, match=f"^there is no source {tmp_path}/{name}: choose one of notebooks/source/"):
        batch.write(tmp_path / name)


@pytest.mark.parametrize(
    "content", [b"# \xff", b"---\nkernelspec: [\n---\n", b"```{code-cell} ipython3\n:tags: [check\n\n1\n```\n"]
)
def test_a_source_that_is_no_myst_is_refused_in_one_sentence(source, content):
    source.write_bytes(content)
    with pytest.raises(UsageError, match=rf"^{source} can't be read as MyST text \(.+\): mend it first$"):
        batch.write(source)


def test_a_source_that_fails_leaves_the_notebook_as_it_was(tmp_path, source, monkeypatch):
    run_here(monkeypatch.setattr, errors=traceback("elsewhere").encode())
    (tmp_path / "7_toy.ipynb").write_text("as it was")
    source.write_text(SOURCE.partition("from IPython")[0] + "1\n```\n")
    with pytest.raises(batch.NotebookError, match="7_toy, a thread or program: KeyError"):
        batch.write(source)
    assert (tmp_path / "7_toy.ipynb").read_text() == "as it was"
    assert {own.name for own in tmp_path.iterdir()} == {"source", "7_toy.ipynb"}


def test_the_kernel_is_of_the_python_that_runs_this(tmp_path):
    spec = batch.ThisPython(errors=str(tmp_path / "errors")).kernel_spec
    assert (spec.argv[0], spec.language) == (sys.executable, "python")
