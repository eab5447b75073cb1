"""The committed notebooks: whole, executed, the same as their sources, and with checks that can fail."""

import json
import os
import re
import shutil
import subprocess
import symtable
import sys
import tomllib
from pathlib import Path

import nbclient
import nbformat
import pytest

from gm_helpers import batch, exercises, explore, recipes, sources
from gm_helpers.files import UsageError

ROOT = Path(__file__).parent.parent
BOOKS = [ROOT / "notebooks" / f"{name}.ipynb" for name in batch.course()]
START = ROOT / "notebooks" / "0_start.ipynb"
SOLUTIONS = sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))
# cells whose output nbval compares; a notebook that loses one has lost a claim
CHECKS = {"1_vae": 46, "2_gan": 38, "3_flows": 48}

each = pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
each_solved = pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
each_made = pytest.mark.parametrize(
    "path", [START, *BOOKS, *SOLUTIONS], ids=lambda path: f"{path.parent.name}-{path.stem}"
)
each_and_the_start = pytest.mark.parametrize("path", [START, *BOOKS], ids=lambda path: path.stem)


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def tags(cell):
    return cell.metadata.get("tags", [])


def text(cell):
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def markdown(path):
    book = nbformat.read(path, as_version=4)
    return "\n\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")


def source(path):
    return sources.read(ROOT / "notebooks" / "source" / f"{path.stem}.md")


@each_made
def test_the_notebook_is_made_from_its_source(path):
    def essence(book):
        return [(cell.cell_type, cell.id, cell.source, tags(cell)) for cell in book.cells]

    book, edition = nbformat.read(path, as_version=4), sources.solutions if path in SOLUTIONS else sources.chapter
    assert essence(book) == essence(edition(source(path)))
    assert not batch.edited(path)
    assert "jupytext" not in book.metadata  # with `formats`, saving in JupyterLab would rewrite the source


def verdicts(path):
    """What each exercise's checker says, and the last line of the table, which is the last cell's."""
    *cells, table = [cell for cell in code_cells(path) if {"exercise", "progress"} & {*tags(cell)}]
    said = [cell.outputs[0].data["text/plain"].partition(":")[0] for cell in cells]
    assert code_cells(path)[-1] == table
    return said, table.outputs[0].data["text/plain"].splitlines()[-1]


def test_every_chapter_with_exercises_has_its_solutions():
    known = {own.notebook for own in exercises.checking.EXERCISES.values()}
    assert [path.stem for path in SOLUTIONS] == [path.stem for path in BOOKS if sources.solutions(source(path))]
    assert [path.stem for path in SOLUTIONS] == sorted(known)


@each_solved
def test_in_the_chapter_every_exercise_is_open_and_in_its_solutions_every_one_is_right(path):
    count = len(verdicts(path)[0])
    assert verdicts(path) == (["right"] * count, f"{count} of {count} right")
    assert verdicts(START.parent / path.name) == (["open"] * count, f"0 of {count} right")
    assert count == len([own for own in exercises.checking.EXERCISES.values() if own.notebook == path.stem])


@each
def test_the_student_s_notebook_holds_no_solution_anywhere(path):
    """No line of a solution or of its explanation that isn't taught, in whichever cell, metadata or output."""
    chapter = path.read_text(encoding="utf-8")
    book = source(path)
    solved = [own[0] for cell in book.cells for own in [sources.SOLUTION.search(cell.source)] if own]
    lines = [line.strip() for own in solved for line in own.splitlines()[1:-1]]
    lines += [line for cell in book.cells if "solution" in tags(cell) for line in cell.source.splitlines()]
    taught = "\n".join(own.source for own in book.cells if not {"exercise", "solution"} & {*tags(own)})
    secret = [json.dumps(line, ensure_ascii=False)[1:-1] for line in lines if len(line) > 12 and line not in taught]
    assert secret or path not in [START.parent / own.name for own in SOLUTIONS]
    assert [line for line in secret if line in chapter] == []
    assert "SOLUTION" not in chapter


@each_solved
def test_solutions_are_light_and_what_they_print_is_compared_or_depends_on_data(path):
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert [own for own in cells if own.outputs and not {"check", "nbval-ignore-output"} & {*tags(own)}] == []
    assert path.stat().st_size < 100_000


@each
@pytest.mark.parametrize("mistake", ['profile = "quik"', 'weights = "shiped"', 'seed = "a"', 'figure_dir = "s3://x"'])
def test_a_typing_mistake_in_the_parameters_is_told_by_the_next_cell(path, mistake):
    """The cell alone, in the names that the parameters' cell leaves: it fails before it needs any import but one."""
    cells = code_cells(path)
    at = next(i for i, cell in enumerate(cells) if "parameters" in tags(cell))
    with pytest.raises(UsageError):
        exec(f"{cells[at].source}\n{mistake}\n{cells[at + 1].source}", {"recipes": recipes})


@each_and_the_start
def test_every_cell_was_run_in_order_without_error_or_warning(path):
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert not [output for cell in cells for output in cell.outputs if output.get("name") == "stderr"]


def test_the_number_of_compared_cells_is_the_expected_one():
    def compared(cell):
        return "check" in tags(cell) and cell.outputs and cell.execution_count

    found = {path.stem: sum(1 for cell in code_cells(path) if compared(cell)) for path in BOOKS}
    assert found == CHECKS, f"if that is meant, write CHECKS = {json.dumps(found)}"


@each
def test_what_prints_is_compared_or_declared_to_depend_on_data(path):
    loose = [
        cell.source
        for cell in code_cells(path)
        if cell.outputs and not {"check", "nbval-ignore-output"} & {*tags(cell)}
    ]
    assert loose == []


@each
def test_in_checks_every_mistake_is_rejected_and_every_claim_accepted(path):
    verdicts = [line for cell in code_cells(path) if "check" in tags(cell) for line in text(cell).splitlines()]
    wrong = [line for line in verdicts if "accepted" in line and "✗" in line]
    wrong += [line for line in verdicts if "rejected" in line and "✗" not in line]
    assert wrong == []
    assert [line for line in verdicts if "rejected" in line]


@each_and_the_start
def test_every_picture_has_an_alternative_text(path):
    pictures = [output for cell in code_cells(path) for output in cell.outputs if "image/png" in output.get("data", {})]
    assert pictures
    assert [own.metadata["image/png"]["alt"] for own in pictures if len(own.metadata["image/png"]["alt"]) < 30] == []


@each
def test_a_notebook_begins_with_a_picture_before_its_symbols(path):
    cells = nbformat.read(path, as_version=4).cells
    pictures = [
        i for i, cell in enumerate(cells) if any("image/png" in own.get("data", {}) for own in cell.get("outputs", []))
    ]
    assert pictures[0] < next(i for i, cell in enumerate(cells) if "| Symbol | Meaning |" in cell.source)


DEEPER = r"<details>\n<summary><b>Deeper: [^\n]+</b></summary>\n\n(?:(?!<details>).)+\n\n</details>"
ANSWER = r"<details>\n<summary><b>Answer</b></summary>\n\n(?:(?!<details>).)+\n\n</details>(?:\n\n|\Z)"


@each
def test_every_prediction_has_its_answer_folded_and_so_is_what_comes_out_between_them(path):
    waiting = ""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            hidden = cell.metadata.get("jupyter", {}).get("outputs_hidden", False)
            assert hidden == ("hide-output" in tags(cell)) == bool(waiting and cell.outputs), cell.source
            continue
        if "exercise" in tags(cell):  # which has hints to unfold
            continue
        text = re.sub(DEEPER, "", cell.source, flags=re.DOTALL)
        for part in re.findall(rf"\*\*Predict:\*\*[^\n]*|{ANSWER}|</?details>", text, flags=re.DOTALL):
            if part.startswith("**Predict"):
                assert not waiting, f"{part}: the one before has no answer"
                waiting = part
            else:
                assert re.fullmatch(ANSWER, part, flags=re.DOTALL), f"no answer as they are written: {cell.source}"
                assert waiting, f"{part}: an answer to nothing"
                waiting = ""
    assert not waiting


@each_and_the_start
def test_what_lives_after_a_run_is_not_in_the_committed_notebook_but_its_still_picture_is(path):
    text = path.read_text()
    assert "<script" not in text
    assert "widget-view" not in text
    stills = [cell for cell in code_cells(path) if explore.SENTENCE in json.dumps(cell.outputs, ensure_ascii=False)]
    makers = r"\b(widgets|matching_widgets|pages|playground)\.\w+\(|\bgan_widgets\.\w+\([^)]*figure_dir\)"
    calls = [cell for cell in code_cells(path) if re.search(makers, cell.source)]
    assert [cell.source for cell in stills] == [cell.source for cell in calls]
    assert all("image/png" in cell.outputs[0].data for cell in stills)


def test_the_largest_notebook_stays_light():
    assert max(path.stat().st_size for path in BOOKS) < 2_500_000


def sections(book):
    """Code cells by section, that is, by the last heading of the second level before them."""
    found, heading = {}, ""
    for cell in book.cells:
        if cell.cell_type == "code":
            found.setdefault(heading, []).append(cell)
        else:
            heading = (re.findall(r"^## (.*)$", cell.source, flags=re.MULTILINE) or [heading])[-1]
    return found


def names(cell):
    """What a cell binds, and what it takes from others."""
    code = "\n".join(line for line in cell.source.splitlines() if not line.startswith("%"))
    scopes = [symtable.symtable(code, "cell", "exec")]
    bound = {own.get_name() for own in scopes[0].get_symbols() if own.is_assigned() or own.is_imported()}
    free = set()
    while scopes:
        scope = scopes.pop()
        scopes += scope.get_children()
        free |= {own.get_name() for own in scope.get_symbols() if own.is_global() or scope.get_type() == "module"}
    return bound, free - bound


@each
def test_no_name_that_passes_from_cell_to_cell_is_bound_by_two_sections(path):
    """So any cell can be run again when those after it have run."""
    found = {heading: [names(cell) for cell in cells] for heading, cells in sections(source(path)).items()}
    passed = set().union(*(free for cells in found.values() for _, free in cells))
    binders = {
        name: [own for own, cells in found.items() if any(name in bound for bound, _ in cells)] for name in passed
    }
    assert {name: own for name, own in binders.items() if len(own) > 1} == {}


@each
def test_a_cell_shows_its_idea_in_at_most_twelve_lines_and_one_that_draws_takes_twenty(path):
    def lines(cell):
        return [line for line in cell.source.splitlines() if line.strip() and not line.strip().startswith("#")]

    cells = code_cells(path)[1:]  # the first imports
    assert [own.source for own in cells if len(lines(own)) > (20 if "hide-input" in tags(own) else 12)] == []


def prose(text):
    """Words of a source's text, without formulas, code, hints and solutions."""
    text = re.sub(r'\+\+\+ \{"tags": \["solution"\]\}.*?(?=\n\+\+\+)', "", text, flags=re.DOTALL)
    text = re.sub(
        r"<details>\n<summary>Hint.*?</details>|```.*?```|\$\$.*?\$\$|\$[^$]*\$|<[^>]*>", " ", text, flags=re.DOTALL
    )
    return len(re.findall(r"[^\W_][\w’'.,:%–-]*", text))


@each
def test_a_chapter_can_be_read_in_an_afternoon(path):
    """What a first reader needs has at most so many words, and all of it, references and exercises included."""
    at_most = {"1_vae": (5_500, 10_500), "2_gan": (3_400, 8_200), "3_flows": (4_400, 12_500)}[path.stem]
    text = (ROOT / "notebooks" / "source" / f"{path.stem}.md").read_text(encoding="utf-8")
    parts = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    folded = r"<details>.*?</details>"
    core = [re.sub(folded, "", own, flags=re.DOTALL) for own in parts if re.match(r"## (Part|\d\.)", own)]
    deeper = [own for own in parts if own.startswith("## Deeper")] + re.findall(folded, text, flags=re.DOTALL)
    assert sum(map(prose, core)) <= at_most[0]
    assert prose(text) <= at_most[1]
    assert sum(map(prose, deeper)) <= 0.4 * prose(text)


@each
def test_a_bar_ends_as_a_line_of_text(path):
    trained = [cell for cell in code_cells(path) if re.search(r"\btrain\(|recipes\.fit\(", cell.source)]
    lines = [own.get("data", {}).get("text/plain", "") for cell in trained for own in cell.outputs]
    assert [own for own in lines if re.fullmatch(r".+: [\d,]+ steps in \d+ s, .+", own)]
    assert [own for own in lines if "%|" in own] == []


def test_every_alternative_text_belongs_to_a_figure_and_every_figure_has_one():
    written = tomllib.loads((ROOT / "gm_helpers" / "alt_texts.toml").read_text(encoding="utf-8"))
    code = "\n".join(cell.source for path in BOOKS for cell in code_cells(path))
    shown = re.findall(r'figures\.show\((?:[^"]|"(?!\d))*"([\w.-]+)",\s*figure_dir\s*\)', code)
    assert sorted(written) == sorted(shown)
    assert [name for name, own in written.items() if not 30 <= len(own) <= 140] == []


def test_the_page_where_the_course_starts_leads_to_every_chapter_and_to_nothing_else_in_the_folder():
    links = re.findall(r"\]\(([^)]+)\)", markdown(START))
    assert links == [path.name for path in BOOKS]


@each
def test_headings_carry_the_number_of_the_syllabus(path):
    headings = re.findall(r"^## (.*)$", markdown(path), flags=re.MULTILINE)
    number = path.stem[0]
    assert [
        own
        for own in headings
        if not re.match(
            rf"{number}\.\d+[ab]? \S|Part I|Part V|Exercises of|Deeper|Beyond|References|4 Conclusion|Your exercises",
            own,
        )
    ] == []


@each_made
def test_no_path_of_a_machine_is_in_the_notebook(path):
    assert re.findall(r"/(?:home|root|Users|tmp|work)/[^\"]{0,40}", path.read_text()) == []


def failures(book, copy):
    """The numbers of the cells that fail under nbval where next to nothing is trained, and what it says of them."""
    parameters = next(cell for cell in book["cells"] if "parameters" in cell["metadata"].get("tags", []))
    parameters["source"] = "".join(parameters["source"]).replace('"quick"', '"smoke"')
    copy.write_text(json.dumps(book))
    options = ["--nbval", "--nbval-current-env", "--nbval-cell-timeout=300", "-q", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, str(copy)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, cwd=copy.parent, env=environment, capture_output=True, text=True, check=False)
    assert re.search(r"\d+ passed", run.stdout), run.stdout[-3000:]
    return re.findall(r"^FAILED .*::Cell (\d+)", run.stdout, flags=re.MULTILINE), run.stdout[-3000:]


@pytest.mark.slow
@each
def test_on_other_data_one_changed_digit_in_a_check_fails_exactly_that_cell(path, tmp_path):
    """With digits for MNIST and next to no training, all other checks still give the committed output."""
    book = json.loads(path.read_text())
    checks = [cell for cell in book["cells"] if "check" in cell["metadata"].get("tags", [])]
    changed = next(cell for cell in reversed(checks) if re.search(r"\d", "".join(cell["outputs"][0].get("text", ""))))
    changed["outputs"][0]["text"] = re.sub(
        r"(\d)", lambda d: str((int(d[1]) + 1) % 10), "".join(changed["outputs"][0]["text"]), count=1
    )
    parameters = next(cell for cell in book["cells"] if "parameters" in cell["metadata"].get("tags", []))
    parameters["source"] = "".join(parameters["source"]).replace('"auto"  # auto, m', '"digits"  # ')
    number = [cell for cell in book["cells"] if cell["cell_type"] == "code"].index(changed)
    failed, said = failures(book, tmp_path / path.name)
    assert failed == [str(number)], said


@pytest.mark.rare
@each_solved
def test_solving_the_exercises_even_twice_changes_nothing_else_in_the_chapter(path, tmp_path):
    """Each exercise solved and its cell run twice in a row: it is right, and all other checks are as committed."""
    book = json.loads((START.parent / path.name).read_text())
    solved = {cell["id"]: cell for cell in json.loads(path.read_text())["cells"]}
    table = [cell for cell in solved.values() if "progress" in cell["metadata"].get("tags", [])]
    cells = []
    for cell in book["cells"]:
        own = cell["metadata"].get("tags", [])
        if "exercise" in own and cell["cell_type"] == "code":
            cells += [solved[cell["id"]], solved[cell["id"]] | {"id": f"{cell['id']}-again"}]
        else:
            cells += table if "progress" in own else [cell]
    assert len(cells) > len(book["cells"])
    failed, said = failures(book | {"cells": cells}, tmp_path / path.name)
    assert failed == [], said


@pytest.mark.rare
@each
def test_each_section_can_be_run_twice_and_once_more_after_the_end(path):
    """Where next to nothing is trained, and without comparing outputs: the random draws go on."""
    book = sources.chapter(source(path))
    for cell in book.cells:
        if "parameters" in tags(cell):
            cell.source = cell.source.replace('"quick"', '"smoke"')
    parts = list(sections(book).values())
    again = [cell for part in parts for cell in [*part, *part]] + [cell for part in parts for cell in part]
    copies = [nbformat.v4.new_code_cell(cell.source) for cell in again]
    where = {"metadata": {"path": str(path.parent)}}
    client = nbclient.NotebookClient(nbformat.v4.new_notebook(cells=copies), timeout=300, resources=where)
    client.execute()  # raises where a cell fails


@pytest.mark.rare
@pytest.mark.parametrize("path", BOOKS[:1], ids=lambda path: path.stem)
def test_the_whole_chain_runs_without_data_and_without_network_and_says_so(path, tmp_path):
    """A stranger's `make figures` with nothing fetched: scikit-learn's digits, and a sentence on terminal and page.

    For one notebook: that each runs with these digits, the test above has seen.
    """
    closed = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    environment = {**os.environ, **closed, "GM_DATA": str(tmp_path / "data")}
    command = [sys.executable, "-m", "gm_helpers", "figures", str(path), "--profile", "smoke"]
    run = subprocess.run(
        [*command, "-p", "figure_dir", str(tmp_path / "out")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "Going on with scikit-learn's handwritten digits" in run.stdout
    assert "Going on with scikit-learn's handwritten digits" in (tmp_path / "out" / "notebooks" / path.name).read_text()
    drawn = {own.stem for own in (tmp_path / "out").glob("*.png")}
    assert len(drawn) >= 6
    assert drawn == {own.stem for own in (tmp_path / "out").glob("*.txt")}
    shutil.rmtree(tmp_path / "out")
