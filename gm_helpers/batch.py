"""Notebooks run from the command line: parameters checked before, outputs after, and nothing half-made left behind."""

import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbformat
import papermill
from ipykernel.compiler import get_file_name
from ipykernel.kernelspec import make_ipkernel_cmd
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from traitlets import Unicode
from traitlets.config import Config

from gm_helpers import files, publish, recipes, sources
from gm_helpers.files import CourseError, UsageError
from gm_helpers.sources import KERNEL

ROOT = files.root()
NOTEBOOKS = ROOT / "notebooks"
CELL_TIMEOUT = 4 * 3600  # seconds: far above any training; a message of the kernel that is lost would wait for ever
CHAINED = r"Traceback .*\n(?: .*\n)*.*\n\n(?:During handling of|The above exception) .*\n\n(?=Traceback )"
WIDGET = "application/vnd.jupyter.widget-view+json"
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
WRITTEN = "gm_helpers_cells"  # in a notebook's metadata: `_digest` of its cells as they were written
NEEDED = ("dataset", "profile", "device", "figure_dir")  # parameters that every notebook declares


class NotebookError(CourseError):
    """A notebook that did not run to its end; the message names it and the cell."""


def run(notebook: str | Path, parameters: dict[str, Any]) -> list[Path]:
    """Run a notebook by papermill; returns the figures that it drew, in the folder `figure_dir`.

    notebook: a name in `notebooks/`, such as "1_vae", or a path. parameters: values for those of the notebook's
    parameters that are to differ from its defaults; `figure_dir` is figures/PROFILE where none is given. Figures, and
    the executed notebook in `notebooks/` beside them, appear only after the whole run has succeeded. A file of the same
    name that no run put there is kept under another.
    Raises UsageError before the run and NotebookError after it.
    """
    path = find(notebook)
    parameters = check(path, parameters)
    target = files.folder(parameters["figure_dir"] or ROOT / "figures" / parameters["profile"])
    executed = target / "notebooks" / path.name
    if os.path.realpath(executed) == os.path.realpath(path):
        raise UsageError(f"the executed notebook would replace {path}: choose another figure_dir")
    with publish.scratch(target, path.stem, "choose another figure_dir") as scratch:
        publish.make(executed.parent, "choose another figure_dir")
        if executed.is_dir():
            raise UsageError(f"{executed} is a folder, where the notebook is to go: choose another figure_dir")
        _execute(path, scratch / path.name, {**parameters, "figure_dir": str(scratch / "figures")})
        drawn = {str(own.relative_to(scratch / "figures")): own for own in (scratch / "figures").rglob("*")}
        drawn = {name: own for name, own in sorted(drawn.items()) if own.is_file()}
        try:
            publish.publish(drawn | {f"notebooks/{path.name}": scratch / path.name}, target, path.stem)
        except OSError as error:
            publish.release(scratch)
            raise NotebookError(
                f"{path.stem} ran to its end, but {files.sentence(error)}; its figures are kept in {scratch}"
            ) from error
        return [target / name for name in drawn if name.endswith(".png")]


def course() -> list[str]:
    """The names of the course's notebooks: the chapters, not the page where it starts."""
    return sorted(source.stem for source in (NOTEBOOKS / "source").glob("[1-9]*.md"))


def find(notebook: str | Path) -> Path:
    """The file of that notebook. Raises UsageError with the names that there are."""
    path = Path(notebook) if str(notebook).endswith(".ipynb") else NOTEBOOKS / f"{notebook}.ipynb"
    if not path.is_file():
        if str(notebook) in course():
            raise UsageError(f"{path} is missing: make it from its source by `make notebooks`")
        choice = f"choose one of {', '.join(course())}, or give" if course() else "give"
        raise UsageError(f"there is no notebook {str(notebook)!r}: {choice} the path of a file")
    return path


def check(path: Path, parameters: dict[str, Any]) -> dict[str, Any]:
    """All parameters of the notebook, with these values in place of its defaults. Raises UsageError."""
    defaults = _declared(path)
    for name, value in parameters.items():
        if name not in defaults:
            raise UsageError(f"{path.stem} has no parameter {name!r}: choose among {', '.join(defaults)}")
        expected, own = type(defaults[name]).__name__, type(value).__name__
        if own != expected and defaults[name] is not None:
            raise UsageError(f"{name} must be of type {expected}, but {value!r} is of type {own}")
    complete = defaults | parameters
    recipes.check_parameters(**complete)
    return complete


def parse(path: Path, texts: dict[str, str]) -> dict[str, Any]:
    """Values from texts of a command line, by the types that the notebook declares; `check` judges what they are."""
    values: dict[str, Any] = dict(texts)
    for name, default in _declared(path).items():
        if name in texts and not isinstance(default, str):
            with suppress(ValueError, SyntaxError):  # what is no Python value stays text
                values[name] = ast.literal_eval(texts[name])
    return values


def _declared(path: Path) -> dict[str, Any]:
    """The notebook's parameters with their defaults. Raises UsageError for a notebook that can't be run with any."""
    try:
        declared = papermill.inspect_notebook(str(path))
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, AttributeError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no notebook, or holds the marks of an unfinished merge: mend it first") from error
    except (ValueError, papermill.exceptions.PapermillException) as error:
        raise UsageError(f"{path} can't be run as a notebook of Python ({error})") from error
    try:
        defaults = {name: ast.literal_eval(entry["default"]) for name, entry in declared.items()}
    except (ValueError, SyntaxError) as error:
        raise UsageError(f"{path}: the cell tagged 'parameters' may hold plain values alone ({error})") from error
    for name in NEEDED:
        if not isinstance(defaults.get(name), str):
            raise UsageError(
                f"{path.stem} has no parameter {name!r}: its cell tagged 'parameters' must declare it as text"
            )
    return defaults


def write(source: Path) -> list[Path]:
    """Execute a MyST source and write the notebooks that are made of it, with their outputs; returns their paths.

    They are the chapter that students open and, where it has exercises, their solutions. A notebook of that name whose
    cells somebody has edited is kept under another, and a sentence says so.
    Raises UsageError for a source that doesn't lie in a folder `source`, beside which the notebook goes, or is no MyST.
    """
    source = source.absolute()
    if source.suffix != ".md" or source.parent.name != "source" or not source.is_file():
        raise UsageError(f"there is no source {source}: choose one of notebooks/source/*.md")
    own, folder = sources.read(source), source.parent.parent
    books = {folder / f"{source.stem}.ipynb": sources.chapter(own)}
    if solved := sources.solutions(own):
        books[folder / "solutions" / f"{source.stem}.ipynb"] = solved
    with publish.scratch(folder, source.stem, "the notebook is written there") as scratch:
        for target, book in books.items():
            name = target.stem if target.parent == folder else f"{target.stem}, solutions"
            plain, executed = scratch / f"{name}.ipynb", scratch / f"{name}.executed.ipynb"
            nbformat.write(book, plain)
            _execute(plain, executed, {})
            books[target] = _finished(nbformat.read(executed, as_version=4))
    for target, book in books.items():
        if target.exists() and edited(target):
            publish.keep(target)
        files.write_atomically(target, f"{nbformat.writes(book)}\n".encode())
    return list(books)


def assignments(out: Path) -> list[Path]:
    """Write the exercises as graders take them, nbgrader to `out`/nbgrader and otter to `out`/otter; returns the paths.

    The first is a folder to run nbgrader in, the second has the master notebooks of `otter assign`.
    """
    config = "nbgrader_config.py"
    made = {out / "nbgrader" / config: (ROOT / "graders" / config).read_bytes()}
    for name in course():
        book = sources.read(NOTEBOOKS / "source" / f"{name}.md")
        if sources.solutions(book):
            for path, own in (
                (out / "nbgrader" / "source" / name / f"{name}.ipynb", sources.for_nbgrader(book)),
                (out / "otter" / f"{name}.ipynb", sources.for_otter(book)),
            ):
                made[path] = f"{nbformat.writes(own)}\n".encode()
    for path, content in made.items():
        files.write_atomically(path, content)
    return list(made)


def _finished(book: NotebookNode) -> NotebookNode:
    """An executed notebook as it is committed: as JupyterLab writes it, so that opening it changes nothing."""
    for cell in book.cells:
        cell.metadata = _metadata(sources.tags(cell))
        if cell.cell_type == "code":  # what lives after a run is of no use before, and a page's weights are large
            cell.outputs = [own for own in cell.outputs if not _lives(own.get("data", {}))]
    language = book.metadata.get("language_info", {"name": "python"})  # as the kernel told it
    no_widgets = {WIDGET_STATE: {"state": {}, "version_major": 2, "version_minor": 0}}
    book.metadata = NotebookNode(
        {"kernelspec": KERNEL, "language_info": language, "widgets": no_widgets, WRITTEN: _digest(book)}
    )
    nbformat.validate(book)
    return book


def _metadata(tags: list[str]) -> NotebookNode:
    """Of a cell: its tags, and for JupyterLab, which does not know them, what two of them mean."""
    folded = {"source_hidden": "hide-input" in tags, "outputs_hidden": "hide-output" in tags}
    metadata: dict[str, Any] = {"tags": tags} if tags else {}
    if any(folded.values()):
        metadata["jupyter"] = {name: True for name, own in folded.items() if own}
    if folded["outputs_hidden"]:
        metadata["collapsed"] = True  # which JupyterLab writes and reads besides
    return NotebookNode(metadata)


def _lives(data: dict[str, Any]) -> bool:
    """Whether an output is a widget or has a script; a still picture stands before it."""
    return WIDGET in data or "<script" in "".join(data.get("text/html", ""))


def edited(path: Path) -> bool:
    """Whether the notebook's cells are others than those that `write` wrote, whatever their outputs."""
    try:
        book = nbformat.read(path, as_version=4)
        return bool(book.metadata.get(WRITTEN) != _digest(book))
    except (ValueError, nbformat.ValidationError, AttributeError, KeyError, TypeError):
        return True


def _digest(book: NotebookNode) -> str:
    """SHA-256 of the text of the notebook's cells."""
    cells = json.dumps([(cell.cell_type, cell.source) for cell in book.cells])
    return hashlib.sha256(cells.encode()).hexdigest()


class ThisPython(AsyncKernelManager):
    """A kernel of the Python that runs this, whatever else is called python3; its standard error goes to a file."""

    errors = Unicode().tag(config=True)

    @property
    def kernel_spec(self) -> KernelSpec:
        return KernelSpec(argv=make_ipkernel_cmd(), **{key: KERNEL[key] for key in ("display_name", "language")})

    async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
        with open(self.errors, "ab") as errors:
            await super().start_kernel(stdout=subprocess.DEVNULL, stderr=errors, **options)


def _execute(path: Path, executed: Path, parameters: dict[str, Any]) -> None:
    """Papermill's run, and what it lets pass: a kernel that left early, and errors that no cell reports."""
    errors = executed.with_suffix(".errors")
    try:
        book = papermill.execute_notebook(
            str(path),
            str(executed),
            parameters,
            kernel_name=KERNEL["name"],
            cwd=str(NOTEBOOKS if course() else ROOT),
            progress_bar=False,
            execution_timeout=CELL_TIMEOUT,
            # quiet: what is printed goes to the notebook alone. Here it goes to the kernel's own standard error too,
            # because what a thread prints is lost to the notebook between two cells
            extra_arguments=["--IPKernelApp.log_level=ERROR", "--IPKernelApp.quiet=False"],
            kernel_manager_class=ThisPython,
            config=Config({"ThisPython": {"errors": str(errors)}}),
            on_cell_start=_progress(path),
        )
    except (papermill.PapermillExecutionError, DeadKernelError, CellTimeoutError) as error:
        cells = _cells(nbformat.read(executed, as_version=4))
        last = sum(cell.metadata.papermill.start_time is not None for cell in cells)
        if isinstance(error, papermill.PapermillExecutionError):
            what = f"{error.ename}: {error.evalue}"
        else:
            what = "the kernel died" if isinstance(error, DeadKernelError) else f"no end after {CELL_TIMEOUT:,} s"
        raise NotebookError(f"{path.stem}, cell {last}: {what}") from error
    except RuntimeError as error:
        if "Kernel died" not in str(error):
            raise
        said = errors.read_text(errors="replace").splitlines()[-1:]
        raise NotebookError(f"{path.stem}: the kernel doesn't start{''.join(f' ({own})' for own in said)}") from error
    finally:
        _tell("")
    for problem in _problems(book, errors.read_text(errors="replace")):
        raise NotebookError(f"{path.stem}, {problem}")


def _progress(path: Path) -> Callable[..., None]:
    """A hook that says on a terminal which cell is at work, and under which heading it stands."""
    total, done, heading = len(_cells(nbformat.read(path, as_version=4))), 0, ""

    def tell(cell: NotebookNode, cell_index: int) -> None:
        nonlocal done, heading
        if cell.cell_type == "markdown":
            for own in re.findall(r"^#+ (.*)", cell.source, flags=re.MULTILINE):
                heading = f", {own}"
        elif _is_run(cell):
            done += 1
            _tell(f"{path.stem}: cell {done} of {total}{heading}")

    return tell


def _tell(line: str) -> None:
    """Put the line in place of the last one, on a terminal only."""
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns - 1
        print(f"\r\x1b[K{line[:width]}", end="", file=sys.stderr, flush=True)


def _problems(book: NotebookNode, errors: str) -> Iterator[str]:
    """What went wrong in an executed notebook although papermill reported success; each names its cell.

    errors: all of the kernel's standard error. A thread's traceback stands there whole; in the cells pieces may lack.
    """
    cells = _cells(book)
    for number, cell in enumerate(cells, 1):
        for output in cell.outputs:
            if output.output_type == "error":  # sys.exit() in a cell
                yield f"cell {number}: {output.ename}: {output.evalue}".rstrip(": ")
        if cell.execution_count is None:
            yield f"cell {number} was not run"
    errors = re.sub(CHAINED, "", errors)  # of errors that led to one another the last is named
    names = {Path(get_file_name(cell.source)).name: f"cell {number}" for number, cell in enumerate(cells, 1)}
    for before, frames, last in re.findall(r"(.*)\nTraceback .*\n((?: .*\n)*)(.*)", f"\n{errors}"):
        if not before.startswith("Exception ignored"):  # a complaint at the interpreter's end
            cell_names = [names[own] for own in re.findall(r"ipykernel_\d+.(\d+\.py)", frames) if own in names]
            yield f"{cell_names[-1] if cell_names else 'a thread or program'}: {last or 'an error without a name'}"
    counts = [cell.execution_count for cell in cells]
    for model in book.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {}).values():
        for output in model["state"].get("outputs", []):
            if output["output_type"] == "error":  # raised inside `with Output():`, named in its traceback alone
                where = re.search(r"Cell In\[(\d+)\]", re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(output["traceback"])))
                origin = f"cell {counts.index(int(where[1])) + 1}" if where else "a widget's output"
                yield f"{origin}: {output['ename']}: {output['evalue']}"


def _cells(book: NotebookNode) -> list[NotebookNode]:
    """The code cells of the notebook that was run, without the one that papermill adds for its parameters."""
    return [cell for cell in book.cells if _is_run(cell)]


def _is_run(cell: NotebookNode) -> bool:
    own = "injected-parameters" not in cell.metadata.get("tags", [])
    return own and cell.cell_type == "code" and bool(cell.source.strip())
