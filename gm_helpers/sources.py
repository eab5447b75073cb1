"""One MyST source, several notebooks: the chapter that students open, its solutions, and what two graders take.

An exercise stands in a source as a task (a markdown cell tagged `exercise`), a code cell of that tag, whose solution
stands between `# BEGIN SOLUTION` and `# END SOLUTION` and whose last line is `exercises.NAME(ANSWER)`, and a markdown
cell tagged `solution`, which says why.
"""

import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import Any

import jupytext
import yaml
from jupytext.myst import MystMetadataParsingError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_raw_cell

from gm_helpers.files import UsageError

KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
STUB = "...  # your turn"
SOLUTION = re.compile(r"^( *)# BEGIN SOLUTION\n.*?^ *# END SOLUTION$", flags=re.MULTILINE | re.DOTALL)
MARKS = re.compile(r"^ *# (?:BEGIN|END) SOLUTION\n", flags=re.MULTILINE)
CHECKED = re.compile(r"^exercises\.(\w+)\((\w+)\)\Z", flags=re.MULTILINE)  # a code cell's last line


def read(source: Path) -> NotebookNode:
    """The cells of a MyST source. Raises UsageError for what is none, and for an exercise that lacks a part."""
    try:
        book = jupytext.read(source)
    except (UnicodeDecodeError, yaml.YAMLError, MystMetadataParsingError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{source} can't be read as MyST text ({reason}): mend it first") from error
    names = [own[0] for cell in filter(is_exercise, book.cells) for own in CHECKED.findall(cell.source)]
    for before, cell, after in zip([None, *book.cells], book.cells, [*book.cells[1:], None], strict=False):
        if is_exercise(cell):
            first = cell.source.partition("\n")[0]
            if len(SOLUTION.findall(cell.source)) != 1 or not CHECKED.search(cell.source):
                raise UsageError(
                    f"{source}, the exercise {first!r}: give it one solution, between the lines '# BEGIN SOLUTION' and "
                    "'# END SOLUTION', and 'exercises.NAME(ANSWER)' as its last line"
                )
            if names.count(_checked(cell)[0]) > 1:
                raise UsageError(f"{source}: {first!r} and another exercise have the same checker: give each its own")
            if before is None or "exercise" not in tags(before) or after is None or "solution" not in tags(after):
                raise UsageError(
                    f"{source}, the exercise {first!r}: before it goes its task, a markdown cell tagged 'exercise', "
                    "and after it one tagged 'solution', which says why"
                )
    return book


def tags(cell: NotebookNode) -> list[str]:
    """The tags of a cell."""
    return list(cell.metadata.get("tags", []))


def is_exercise(cell: NotebookNode) -> bool:
    """Whether that is the code cell of an exercise."""
    return cell.cell_type == "code" and "exercise" in tags(cell)


def chapter(book: NotebookNode) -> NotebookNode:
    """The notebook that students open: every exercise open, no solution in it."""
    cells = [_copy(cell) for cell in book.cells if "solution" not in tags(cell)]
    for cell in filter(is_exercise, cells):
        cell.source = SOLUTION.sub(rf"\1{STUB}", cell.source)
    return _with_ids(cells)


def solutions(book: NotebookNode) -> NotebookNode | None:
    """The exercises alone, solved and explained, after the cells that they need; None where there is none."""
    cells = _alone(book)
    for cell in filter(is_exercise, cells):
        cell.source = MARKS.sub("", cell.source)
    if not any(map(is_exercise, cells)):
        return None
    title = book.cells[0].source.partition("\n")[0].removeprefix("# ")
    head = f"# Solutions: {title}\n\nThe chapter's exercises, solved, with what the usual wrong answers would mean."
    return _with_ids([new_markdown_cell(f"{head}\nTry them in the chapter first."), *cells])


def for_nbgrader(book: NotebookNode) -> NotebookNode:
    """The exercises as the source of an assignment: each with a locked cell of one point that asks its checker."""
    cells: list[NotebookNode] = []
    for cell in _with_ids(_assigned(book)).cells:
        task = not is_exercise(cell)
        cell.metadata["nbgrader"] = _nbgrader(cell, locked=task, solution=not task)
        cells.append(cell)
        if not task:
            test = new_code_cell(_assertion(cell), id=f"{cell.id}-is-right")
            test.metadata["nbgrader"] = _nbgrader(test, locked=True, grade=True, points=1)
            cells.append(test)
    return _notebook(cells)


def _nbgrader(cell: NotebookNode, **own: Any) -> dict[str, Any]:
    """What nbgrader wants to know of a cell; it finds a student's cell again by the id alone."""
    none = {"grade": False, "solution": False, "locked": False, "task": False}
    return {"schema_version": 3, "grade_id": cell.id, "cell_type": cell.cell_type, **none, **own}


def for_otter(book: NotebookNode) -> NotebookNode:
    """The exercises as the master notebook of `otter assign`: each a question of one point.

    No cell of otter's is added: a student needs none to be told what is wrong, and no otter to run the notebook.
    """
    cells: list[NotebookNode] = []
    for cell in _assigned(book):
        if is_exercise(cell):
            task, question = cells.pop(), f"# BEGIN QUESTION\nname: {_checked(cell)[0]}\npoints: 1\ncheck_cell: false"
            cells += [new_raw_cell(question), task]
            cells += [new_raw_cell("# BEGIN SOLUTION"), cell, new_raw_cell("# END SOLUTION")]
            cells += [new_raw_cell("# BEGIN TESTS"), new_code_cell(_assertion(cell)), new_raw_cell("# END TESTS")]
            cells += [new_raw_cell("# END QUESTION")]
        else:
            cells.append(cell)
    return _with_ids([new_raw_cell("# ASSIGNMENT CONFIG\ninit_cell: false\nexport_cell: false"), *cells])


def _alone(book: NotebookNode) -> list[NotebookNode]:
    """What the exercises need, the code cells up to the one after the parameters, and all that belongs to them."""
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    at = next((i for i, cell in enumerate(code) if "parameters" in tags(cell)), -1)
    own = [cell for cell in book.cells if {"exercise", "solution", "progress"} & {*tags(cell)}]
    return [_copy(cell) for cell in [*(cell for cell in code[: at + 2] if cell not in own), *own]]


def _assigned(book: NotebookNode) -> list[NotebookNode]:
    """The title, and what a student's work begins with."""
    return [_copy(book.cells[0]), *(cell for cell in _alone(book) if not {"solution", "progress"} & {*tags(cell)})]


def _checked(cell: NotebookNode) -> tuple[str, str]:
    """The name of an exercise, which is its checker's, and that of its answer."""
    [(name, answer)] = CHECKED.findall(cell.source)
    return name, answer


def _assertion(cell: NotebookNode) -> str:
    """A checker never raises; a grader wants an error. (The notebook has a function `verdict`.)"""
    name, answer = _checked(cell)
    return f'said = exercises.{name}({answer})\nassert said.status == "right", said.message'


def _copy(cell: NotebookNode) -> NotebookNode:
    """A cell of the same source and tags, and nothing else."""
    metadata = {"tags": tags(cell)} if tags(cell) else {}
    if cell.cell_type == "code":
        return new_code_cell(cell.source, metadata=metadata)
    return new_markdown_cell(cell.source, metadata=metadata)


def _with_ids(cells: list[NotebookNode]) -> NotebookNode:
    """Ids that stay when another cell comes in: from an exercise's name, else from the source and its occurrence."""
    seen: Counter[str] = Counter()
    for cell, before, after in zip(cells, [None, *cells], [*cells[1:], None], strict=False):
        if is_exercise(cell):
            own = f"exercise-{_checked(cell)[0]}"
        elif "exercise" in tags(cell) and after is not None and is_exercise(after):
            own = f"task-{_checked(after)[0]}"
        elif "solution" in tags(cell) and before is not None and is_exercise(before):
            own = f"why-{_checked(before)[0]}"
        else:
            own = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[own] += 1
        cell.id = own if seen[own] == 1 else f"{own}-{seen[own]}"
    return _notebook(cells)


def _notebook(cells: list[NotebookNode]) -> NotebookNode:
    return new_notebook(cells=cells, metadata={"kernelspec": KERNEL})
