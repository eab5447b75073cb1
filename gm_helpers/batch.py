"""Notebooks run from the command line: parameters checked before, outputs after, and nothing half-made left behind."""

import ast
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import papermill
import psutil
import torch
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from gm_helpers import data, recipes, train
from gm_helpers.checkpoint import write_atomically

ROOT = Path(__file__).parent.parent
NOTEBOOKS = ROOT / "notebooks"
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
CELL_TIMEOUT = 4 * 3600  # seconds: far above any training; a message of the kernel that is lost would wait for ever
OTHERS_WATCHED = 1.0  # seconds in which this process rests, to see what others take
WIDGET = "application/vnd.jupyter.widget-view+json"
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
CHOICES = {"profile": recipes.PROFILES, "dataset": data.DATASETS, "weights": ("shipped", "fresh")}


class ParameterError(ValueError):
    """A parameter that the notebook doesn't have, or a value that it can't take."""


class NotebookError(data.CourseError):
    """A notebook that did not run to its end; the message names it and the cell."""


def run(notebook: str | Path, parameters: dict[str, Any]) -> list[Path]:
    """Run a notebook by papermill; returns the figures that it drew, in the folder `figure_dir`.

    notebook: a name in `notebooks/`, such as "1_vae", or a path. parameters: values for those of the notebook's
    parameters that are to differ from its defaults; `figure_dir` is figures/PROFILE where none is given. Figures, and
    the executed notebook in `notebooks/` beside them, appear only after the whole run has succeeded.
    Raises ParameterError before the run and NotebookError after it.
    """
    path = find(notebook)
    parameters = check(path, parameters)
    target = Path(parameters["figure_dir"] or ROOT / "figures" / parameters["profile"]).absolute()
    with _scratch(target, path.stem) as scratch:
        executed = scratch / path.name
        with _a_thread_for_each_idle_core():
            _execute(path, executed, {**parameters, "figure_dir": str(scratch / "figures")})
        return _promote(scratch, executed, target)


def find(notebook: str | Path) -> Path:
    """The file of that notebook. Raises ParameterError with the names that there are."""
    path = Path(notebook) if str(notebook).endswith(".ipynb") else NOTEBOOKS / f"{notebook}.ipynb"
    if not path.is_file():
        names = ", ".join(sorted(own.stem for own in NOTEBOOKS.glob("*.ipynb")))
        raise ParameterError(
            f"there is no notebook {str(notebook)!r}: choose one of {names}, or give the path of a file"
        )
    return path


def check(path: Path, parameters: dict[str, Any]) -> dict[str, Any]:
    """All parameters of the notebook, with these values in place of its defaults. Raises ParameterError."""
    declared = papermill.inspect_notebook(str(path))
    for name, value in parameters.items():
        if name not in declared:
            raise ParameterError(f"{path.stem} has no parameter {name!r}: choose among {', '.join(declared)}")
        expected = declared[name]["inferred_type_name"]
        if type(value).__name__ != expected:
            raise ParameterError(f"{name} must be of type {expected}, but {value!r} is of type {type(value).__name__}")
        if value not in CHOICES.get(name, (value,)):
            raise ParameterError(f"unknown {name} {value!r}: choose one of {', '.join(CHOICES[name])}")
    for name in ("dataset", "profile", "device", "figure_dir"):
        if name not in declared:
            raise ParameterError(f"{path.stem} has no parameter {name!r}: its cell tagged 'parameters' must declare it")
    complete = {name: ast.literal_eval(entry["default"]) for name, entry in declared.items()} | parameters
    train.choose_device(complete["device"])
    return complete


def parse(path: Path, texts: dict[str, str]) -> dict[str, Any]:
    """Values from texts of a command line, by the types that the notebook declares; `check` judges what they are."""
    declared = papermill.inspect_notebook(str(path))
    values: dict[str, Any] = dict(texts)
    for name in texts.keys() & declared.keys():
        if declared[name]["inferred_type_name"] != "str":
            with suppress(ValueError, SyntaxError):  # what is no Python value stays text
                values[name] = ast.literal_eval(texts[name])
    return values


def write(source: Path) -> Path:
    """Execute a MyST source and write it with its outputs as the notebook that students open; returns its path."""
    book = jupytext.read(source)
    target = source.parent.parent / f"{source.stem}.ipynb"
    with _scratch(target.parent, source.stem) as scratch:
        plain, executed = scratch / target.name, scratch / "executed.ipynb"
        nbformat.write(book, plain)
        _execute(plain, executed, {})
        book = nbformat.read(executed, as_version=4)
    for number, cell in enumerate(book.cells):
        cell["id"] = f"cell-{number}"  # jupytext draws new ones each time
        cell.metadata = NotebookNode({"tags": cell.metadata.tags} if cell.metadata.get("tags") else {})
        if cell.cell_type == "code":  # without a kernel a progress bar is of no use, and a widget is its static picture
            for output in cell.outputs:
                if output.get("data", {}).keys() > {WIDGET, "image/png"}:
                    del output.data[WIDGET]
            cell.outputs = [own for own in cell.outputs if WIDGET not in own.get("data", {})]
    book.metadata = NotebookNode({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    nbformat.validate(book)
    write_atomically(target, f"{nbformat.writes(book)}\n".encode())
    return target


@contextmanager
def _a_thread_for_each_idle_core() -> Iterator[None]:
    """For a kernel that starts meanwhile, unless OMP_NUM_THREADS says how many; announced where it is fewer than usual.

    Threads that share a core with another process keep each other waiting in every sum. Idle is what the whole machine
    has idle, in or outside a container.
    """
    usual = threads = torch.get_num_threads()
    if "OMP_NUM_THREADS" not in os.environ:
        threads = max(1, round((psutil.cpu_count() or 1) * (1 - psutil.cpu_percent(OTHERS_WATCHED) / 100)))
    if threads >= usual:
        yield
        return
    print(f"PyTorch takes {threads} of {usual} threads, because other processes keep this machine busy.")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]


def _execute(path: Path, executed: Path, parameters: dict[str, Any]) -> None:
    """Papermill's run, and what it lets pass: a kernel that left early, and errors that no cell reports."""
    try:
        book = papermill.execute_notebook(
            str(path),
            str(executed),
            parameters,
            kernel_name=KERNEL["name"],
            cwd=str(NOTEBOOKS),
            progress_bar=False,
            execution_timeout=CELL_TIMEOUT,
            extra_arguments=["--IPKernelApp.log_level=ERROR"],
        )
    except (papermill.PapermillExecutionError, DeadKernelError, CellTimeoutError) as error:
        cells = _cells(nbformat.read(executed, as_version=4))
        last = sum(cell.metadata.papermill.start_time is not None for cell in cells)
        if isinstance(error, papermill.PapermillExecutionError):
            what = f"{error.ename}: {error.evalue}"
        else:
            what = "the kernel died" if isinstance(error, DeadKernelError) else f"no end after {CELL_TIMEOUT:,} s"
        raise NotebookError(f"{path.stem}, cell {last}: {what}") from error
    for problem in _problems(book):
        raise NotebookError(f"{path.stem}, {problem}")


def _problems(book: NotebookNode) -> Iterator[str]:
    """What went wrong in an executed notebook although papermill reported success; each names its cell."""
    cells = _cells(book)
    errors = ["".join(own.text for own in cell.outputs if own.get("name") == "stderr") for cell in cells]
    for number, cell in enumerate(cells, 1):
        for output in cell.outputs:
            if output.output_type == "error":  # sys.exit() in a cell
                yield f"cell {number}: {output.ename}: {output.evalue}".rstrip(": ")
        if "Traceback (most recent call last)" in errors[number - 1]:  # a thread's; its end may stand in the next cell
            last = re.search(r"Traceback .*\n(?: .*\n)*(\S.*)", "".join(errors[number - 1 :]))
            yield f"cell {number}: {last[1] if last else 'an error in a thread'}"
        if cell.execution_count is None:
            yield f"cell {number} was not run"
    counts = [cell.execution_count for cell in cells]
    for model in book.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {}).values():
        for output in model["state"].get("outputs", []):
            if output["output_type"] == "error":  # raised inside `with Output():`, named in its traceback alone
                where = re.search(r"Cell In\[(\d+)\]", re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(output["traceback"])))
                origin = f"cell {counts.index(int(where[1])) + 1}" if where else "a widget's output"
                yield f"{origin}: {output['ename']}: {output['evalue']}"


def _cells(book: NotebookNode) -> list[NotebookNode]:
    """The code cells of the notebook that was run, without the one that papermill adds for its parameters."""
    code = (cell for cell in book.cells if cell.cell_type == "code" and cell.source.strip())
    return [cell for cell in code if "injected-parameters" not in cell.metadata.get("tags", [])]


@contextmanager
def _scratch(target: Path, stem: str) -> Iterator[Path]:
    """A folder of this process beside the results, removed at the end; also those that killed processes left behind."""
    try:
        target.mkdir(parents=True, exist_ok=True)
        for left in target.glob(f".{stem}-*"):
            process = int(left.name.rpartition("-")[2])
            if process == os.getpid() or not _alive(process):  # a new container counts its processes from 1 again
                shutil.rmtree(left)
        scratch = target / f".{stem}-{os.getpid()}"
        (scratch / "figures").mkdir(parents=True)
    except OSError as error:
        raise ParameterError(f"cannot write to {target} ({error.strerror}): choose another figure_dir") from error
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it lives, and is somebody else's
        return True
    return True


def _promote(scratch: Path, executed: Path, target: Path) -> list[Path]:
    """Move the figures and the notebook into place, each whole; figures that the notebook no longer draws go."""
    drawn = sorted((scratch / "figures").iterdir())
    number = executed.name.partition("_")[0]
    for old in target.glob(f"{number}.*"):
        if old.name not in {own.name for own in drawn}:
            old.unlink()
    for figure in drawn:
        os.replace(figure, target / figure.name)
    (target / "notebooks").mkdir(exist_ok=True)
    os.replace(executed, target / "notebooks" / executed.name)
    return [target / figure.name for figure in drawn if figure.suffix == ".png"]
