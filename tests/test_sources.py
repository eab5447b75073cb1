import ast
import copy
import re

import nbformat
import pytest

from gm_helpers import batch, sources
from gm_helpers.files import UsageError

HEAD = "---\nkernelspec:\n  display_name: Python 3\n  language: python\n  name: python3\n---\n\n"
TASK = """+++ {"tags": ["exercise"]}

### Exercise: twice

What is twice x?

"""
GAP = """```{code-cell} ipython3
:tags: [exercise, check]

def twice(x):
    # a number
    # BEGIN SOLUTION
    y = x
    return x + y
    # END SOLUTION


exercises.doubled(twice)
```

"""
WHY = """+++ {"tags": ["solution"]}

Because of the sum.

"""
WHY_TEXT = "Because of the sum."
PROGRESS = """+++

The end.

```{code-cell} ipython3
:tags: [progress, check]

exercises.progress("7_toy")
```
"""


def cell(code, tags=""):
    return f"```{{code-cell}} ipython3\n:tags: [{tags}]\n\n{code}\n```\n\n"


NEEDED = f"{cell('import toys')}{cell('profile: str = 1', 'parameters')}{cell('load()')}"
TOY = f"# 7 Toys\n\n{NEEDED}Text.\n\n{cell('play()')}"
FULL = TOY + TASK + GAP + WHY + PROGRESS


@pytest.fixture
def read(tmp_path):
    def read(text):
        (tmp_path / "7_toy.md").write_text(HEAD + text)
        return sources.read(tmp_path / "7_toy.md")

    return read


def texts(book):
    return [own.source for own in book.cells]


def test_the_chapter_has_a_gap_in_place_of_the_solution_and_no_explanation(read):
    book = sources.chapter(read(FULL))
    [gap] = filter(sources.is_exercise, book.cells)
    assert gap.source == "def twice(x):\n    # a number\n    ...  # your turn\n\n\nexercises.doubled(twice)"
    assert not re.search(r"return|SOLUTION|Because", nbformat.writes(book))
    assert texts(book)[:2] == ["# 7 Toys", "import toys"]
    assert texts(book)[-2:] == ["The end.", 'exercises.progress("7_toy")']


def test_the_solutions_are_the_exercises_alone_after_what_they_need(read):
    title, *book = texts(sources.solutions(read(FULL)))
    assert title.startswith("# Solutions: 7 Toys\n\n")
    assert book == [
        "import toys",
        "profile: str = 1",
        "load()",
        "### Exercise: twice\n\nWhat is twice x?",
        "def twice(x):\n    # a number\n    y = x\n    return x + y\n\n\nexercises.doubled(twice)",
        "Because of the sum.",
        'exercises.progress("7_toy")',
    ]


def test_a_source_without_exercises_has_no_solutions(read):
    assert sources.solutions(read(TOY)) is None


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (FULL.replace("    # BEGIN SOLUTION\n", ""), "give it one solution"),
        (FULL.replace("exercises.doubled(twice)", "exercises.doubled(twice, 2)"), "give it one solution"),
        (FULL.replace("    y = x\n", "    y = x\n    # END SOLUTION\n    # BEGIN SOLUTION\n"), "give it one solution"),
        (TOY + GAP + WHY, "before it goes its task"),
        (TOY + TASK + GAP + PROGRESS, "after it one tagged 'solution'"),
        (TOY + TASK + GAP, "after it one tagged 'solution'"),
        (GAP + WHY, "before it goes its task"),
    ],
)
def test_an_exercise_that_lacks_a_part_is_refused_in_one_sentence(read, text, what):
    with pytest.raises(UsageError, match=rf"7_toy\.md, the exercise 'def twice\(x\):': .*{what}"):
        read(text)


def test_two_exercises_of_one_name_are_refused(read):
    with pytest.raises(UsageError, match="and another exercise have the same checker"):
        read(TOY + TASK + GAP + WHY + TASK + GAP + WHY)


def test_what_stands_behind_the_last_line_of_an_exercise_is_refused(read):
    with pytest.raises(UsageError, match="as its last line"):
        read(FULL.replace("exercises.doubled(twice)", "exercises.doubled(twice)\nx = 1"))


def test_an_exercise_right_after_the_parameters_stands_once_in_the_solutions(read):
    book = texts(sources.solutions(read(f"# 7 Toys\n\n{cell('import toys')}" + TASK + GAP + WHY)))
    assert [own.partition("\n")[0] for own in book[1:]] == [
        "import toys",
        "### Exercise: twice",
        "def twice(x):",
        WHY_TEXT,
    ]


def test_for_nbgrader_each_exercise_has_a_locked_test_of_one_point_and_no_reason(read):
    book = read(FULL)
    before = copy.deepcopy(book)
    made = sources.for_nbgrader(book)
    [answer] = filter(sources.is_exercise, book.cells)
    asserted = 'said = exercises.doubled(twice)\nassert said.status == "right", said.message'
    task = "### Exercise: twice\n\nWhat is twice x?"
    assert texts(made) == ["# 7 Toys", "import toys", "profile: str = 1", "load()", task, answer.source, asserted]
    own = [cell.metadata["nbgrader"] for cell in made.cells]
    assert [cell["locked"] for cell in own] == [True] * 5 + [False, True]
    assert [cell["solution"] for cell in own] == [False] * 5 + [True, False]
    assert (own[-1]["grade"], own[-1]["points"], own[-1]["grade_id"]) == (True, 1, "exercise-doubled-is-right")
    assert made.metadata.kernelspec == sources.KERNEL
    assert book == before


def test_for_otter_each_exercise_is_a_question_with_its_test_and_no_reason(read):
    made = sources.for_otter(read(FULL))
    raw = [own.source.partition("\n")[0] for own in made.cells if own.cell_type == "raw"]
    assert raw == [
        "# ASSIGNMENT CONFIG",
        "# BEGIN QUESTION",
        *(f"# {edge} {what}" for what in ("SOLUTION", "TESTS") for edge in ("BEGIN", "END")),
        "# END QUESTION",
    ]
    assert "Because" not in nbformat.writes(made)
    assert 'assert said.status == "right"' in nbformat.writes(made).replace("\\", "")


def test_ids_come_from_the_exercise_and_else_from_the_cell_so_that_a_new_cell_changes_one(read):
    def ids(text):
        return [own.id for own in sources.chapter(read(text)).cells]

    before, after = ids(FULL), ids(FULL.replace("Text.", f"New.\n\n{cell('new()')}Text."))
    assert {"task-doubled", "exercise-doubled"} <= {*before}
    assert "why-doubled" in [own.id for own in sources.solutions(read(FULL)).cells]
    assert len({*before}) == len(before)
    assert len({*after} - {*before}) == 2
    assert {*before} <= {*after}


def test_equal_cells_have_different_ids_in_their_order(read):
    first, second = [own.id for own in sources.chapter(read(cell("play()") + cell("play()"))).cells]
    assert second == f"{first}-2"


COURSE = [sources.read(batch.NOTEBOOKS / "source" / f"{name}.md") for name in batch.course()]


def names(cell):
    """What a cell binds at its top level."""
    tree = ast.parse(re.sub(r"^%.*", "", cell.source, flags=re.MULTILINE))
    stored = {own.id for own in ast.walk(tree) if isinstance(own, ast.Name) and isinstance(own.ctx, ast.Store)}
    inside = {
        own.id
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.Lambda)
        for own in ast.walk(function)
        if isinstance(own, ast.Name) and isinstance(own.ctx, ast.Store)
    }
    return stored - inside | {own.name for own in tree.body if isinstance(own, ast.FunctionDef | ast.ClassDef)}


@pytest.mark.parametrize("book", COURSE, ids=batch.course())
def test_what_an_exercise_defines_is_a_name_of_nothing_else_in_its_notebook(book):
    code = [own for own in book.cells if own.cell_type == "code"]
    taught = set().union(*(names(own) for own in code if not sources.is_exercise(own)))
    for own in filter(sources.is_exercise, code):
        [(_, answer)] = sources.CHECKED.findall(own.source)
        assert names(own) == {answer}
        assert answer not in taught


@pytest.mark.parametrize("book", COURSE, ids=batch.course())
def test_a_task_says_what_kind_it_is_and_how_long_it_takes_and_has_two_hints(book):
    for own, after in zip(book.cells, book.cells[1:], strict=False):
        if sources.is_exercise(after):
            assert re.match(
                r"### Exercise(?: to [^:\n]+)?: .+\n\n\*(Predict|Pencil|Code|Experiment), about \d+ minutes\.\*\n\n",
                own.source,
            )
            hints = re.findall(
                r"<details>\n<summary>(Hint \d)</summary>\n\n(?:(?!<details>).)+\n\n</details>",
                own.source,
                flags=re.DOTALL,
            )
            assert hints == ["Hint 1", "Hint 2"]
