"""The exercises of notebook 2 in the hands of each grader: handed out, handed in and graded."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from gm_helpers import __main__, batch, data, sources

GRADERS = Path(__file__).parent.parent / ".venv-graders"
BOOK = sources.read(batch.NOTEBOOKS / "source" / "2_gan.md")
OPEN, SOLVED = (
    {cell.id: cell.source for cell in book.cells if sources.is_exercise(cell)}
    for book in (sources.chapter(BOOK), sources.solutions(BOOK))
)
# It is wrong, and an error where the kernel is not of the graders' environment.
WRONG = """import sys

assert sys.prefix.endswith(".venv-graders")


def spiral_radius(eta, n):
    return 1.0
"""
CHEATED = {"exercise-spiral_radius": WRONG, "exercise-spiral_radius-is-right": "pass"}  # nbgrader's test, taken out
ANSWERS = {"solved": SOLVED, "untouched": {}, "one_wrong": SOLVED | CHEATED}
UNSOLVED = {"solved": [], "untouched": list(SOLVED), "one_wrong": ["exercise-spiral_radius"]}
SCORES = {"solved": (6, 6), "untouched": (0, 6), "one_wrong": (5, 6)}


@pytest.fixture
def assigned(tmp_path):
    """What `make assignments` writes."""
    batch.assignments(tmp_path)
    return tmp_path


def run(folder, *command):
    """A command of the graders' environment, in that folder."""
    assert (GRADERS / ".installed").exists(), "the graders are not installed: run make .venv-graders/.installed"
    path = os.pathsep.join([str(GRADERS / "bin"), os.environ["PATH"]])  # nbgrader calls alembic from there, too
    environment = os.environ | {"PATH": path, "GM_DATA": str(data.folder())}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def check_that_nothing_is_given_away(released, stub):
    book = nbformat.read(released, as_version=4)
    sheet = {cell.id: cell.source for cell in book.cells}
    assert {own: sheet[own] for own in OPEN} == {own: text.replace(sources.STUB, stub) for own, text in OPEN.items()}
    text = "\n".join([*sheet.values(), json.dumps(book.metadata)])
    lines = {line for own in SOLVED for line in {*SOLVED[own].splitlines()} - {*OPEN[own].splitlines()}}
    reasons = {cell.source for cell in BOOK.cells if "solution" in sources.tags(cell)}
    assert [own for own in {"SOLUTION", *lines, *reasons} if own in text] == []


def hand_in(released, target, answers):
    book = nbformat.read(released, as_version=4)
    for cell in book.cells:
        cell.source = answers.get(cell.id, cell.source)
    target.parent.mkdir(parents=True)
    nbformat.write(book, target)


def errors(path):
    """The errors in an executed notebook, each with the id of its cell."""
    book = nbformat.read(path, as_version=4)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    return [(cell.id, own.ename) for cell in cells for own in cell.outputs if own.output_type == "error"]


def test_the_command_names_each_file_that_it_writes_and_writes_the_same_again(tmp_path, monkeypatch, capsys):
    written = []
    for out in (tmp_path / "first", tmp_path / "second"):
        monkeypatch.setattr(sys, "argv", ["gm_helpers", "assignments", "--out", str(out)])
        assert __main__.main() == 0
        found = {own.relative_to(out): own.read_bytes() for own in out.rglob("*") if own.is_file()}
        assert sorted(capsys.readouterr().out.splitlines()) == sorted(f"{out / own} written" for own in found)
        written.append(found)
    assert written[0] == written[1]
    config = Path("nbgrader_config.py")
    assert written[0]["nbgrader" / config] == (batch.ROOT / "graders" / config).read_bytes()
    handed_out = {own.stem for own in written[0] if own.parent == Path("otter")}
    assert handed_out == {*batch.course()}
    for name, made in (("nbgrader/source/2_gan", sources.for_nbgrader), ("otter", sources.for_otter)):
        assert nbformat.reads(written[0][Path(name, "2_gan.ipynb")].decode(), as_version=4) == made(BOOK)


@pytest.mark.rare
def test_nbgrader_gives_a_point_for_each_right_answer(assigned):
    course = assigned / "nbgrader"
    run(course, "nbgrader", "generate_assignment", "2_gan", "--create")
    released = course / "release" / "2_gan" / "2_gan.ipynb"
    check_that_nothing_is_given_away(released, "...  # your turn")
    cells = nbformat.read(released, as_version=4).cells
    assert {own.id for own in cells if own.metadata.get("editable", True)} == {*SOLVED}
    for name, answers in ANSWERS.items():
        hand_in(released, course / "submitted" / name / "2_gan" / "2_gan.ipynb", answers)
    run(course, "nbgrader", "autograde", "2_gan", "--create")
    run(course, "nbgrader", "export")
    rows = csv.DictReader((course / "grades.csv").read_text().splitlines())
    assert {own["student_id"]: (float(own["score"]), float(own["max_score"])) for own in rows} == SCORES
    for name, unsolved in UNSOLVED.items():
        found = errors(course / "autograded" / name / "2_gan" / "2_gan.ipynb")
        assert found == [(f"{own}-is-right", "AssertionError") for own in unsolved]
    run(course, "nbgrader", "generate_feedback", "2_gan")
    assert len(list((course / "feedback").glob("*/2_gan/2_gan.html"))) == len(ANSWERS)


@pytest.mark.rare
def test_otter_gives_a_point_for_each_right_answer(assigned):
    folder = assigned / "otter"
    run(folder, "otter", "assign", "--no-pdfs", "2_gan.ipynb", "dist")
    released = folder / "dist" / "student" / "2_gan.ipynb"
    check_that_nothing_is_given_away(released, "...")
    [autograder] = (folder / "dist" / "autograder").glob("*.zip")
    for name, answers in ANSWERS.items():
        hand_in(released, folder / name / "2_gan.ipynb", answers)
        # with --debug it fails at an error in a cell; a test that fails is none
        run(folder / name, "otter", "run", "--debug", "-a", str(autograder), "2_gan.ipynb")
        found = json.loads((folder / name / "results.json").read_text())["tests"]
        scores = {own["name"]: own["score"] for own in found if "score" in own}
        assert (sum(scores.values()), len(scores)) == SCORES[name]
        assert [f"exercise-{own}" for own, score in scores.items() if score == 0] == UNSOLVED[name]
