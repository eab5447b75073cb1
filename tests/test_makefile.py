"""The Makefile, run with Pythons that only write down what they were asked: nothing is installed."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
INPUTS = ["requirements.txt", "constraints.txt", "pyproject.toml"]
INSTALL = "python -m pip install -q -c constraints.txt -r requirements.txt"

# It fails where it is asked what the file `fail` says. The environment that it makes has itself as Python. Where there
# is a file `wait`, two figures wait for each other: they succeed only side by side.
PYTHON = """#!/bin/sh
echo "${0##*/} $*" >> log
fail=nothing
if test -e fail; then read -r fail < fail; fi
case "$*" in
    *"$fail"*) exit 1 ;;
    "-m venv .venv") mkdir -p .venv/bin && ln -sf "$0" .venv/bin/python ;;
    "-m gm_helpers figures "*)
        touch "drawing-$4"
        for turn in 1 2 3 4 5 6 7 8 9 10; do
            if test ! -e wait || test -e drawing-1_a -a -e drawing-2_b; then exit 0; fi
            sleep 0.1
        done
        exit 1 ;;
esac
"""


@pytest.fixture
def course(tmp_path):
    """A copy of the Makefile with stubs of what it reads, all of them made an hour ago."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    sources = ["notebooks/source/1_a.md", "notebooks/source/2_b.md"]
    for name in [*INPUTS, *sources, "README.md"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        age(path, 3600)
    (tmp_path / "bin").mkdir()
    for tool in ["awk", "ln", "make", "mkdir", "rm", "sleep", "touch"]:
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    return tmp_path


def age(path, seconds):
    now = path.stat().st_mtime_ns // 10**9
    os.utime(path, (now - seconds, now - seconds))


def offer(course, *names):
    for name in names:
        (course / "bin" / name).write_text(PYTHON)
        (course / "bin" / name).chmod(0o755)


def fail(course, what):
    (course / "fail").write_text(f"{what}\n")


def make(course, *arguments):
    environment = {"PATH": str(course / "bin")}
    return subprocess.run(
        ["make", *arguments], cwd=course, env=environment, capture_output=True, text=True, check=False
    )


def calls(course):
    """What the Pythons were asked since the last look, without the questions whether they are there."""
    log = course / "log"
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return [line for line in lines if not re.match(r"\S+ -c ", line)]


def complaints(run):
    """What is said on standard error but for make's own line that a target failed."""
    return [line for line in run.stderr.splitlines() if not line.startswith("make: ***")]


def test_plain_make_lists_each_public_target_with_one_line_and_does_nothing_else(course):
    run = make(course)
    phony = re.search(r"^\.PHONY: (.*)$", (course / "Makefile").read_text(), flags=re.MULTILINE)[1].split()
    targets = [name for name in phony if re.fullmatch("[a-z]+", name)]
    assert (run.returncode, run.stderr) == (0, "")
    assert [re.fullmatch(r"make (\w+) +\w.*", line)[1] for line in run.stdout.splitlines()] == targets
    assert not (course / ".venv").exists()


def test_without_a_suitable_python_one_sentence_names_those_that_are(course):
    offer(course, "python3.14", "python3.10", "python3", "python")
    run = make(course, "setup")
    assert run.returncode != 0
    [sentence] = complaints(run)
    assert "Python 3.13, 3.12 or 3.11" in sentence
    assert not (course / ".venv").exists()


def test_a_python_without_venv_is_named_with_the_package_that_is_missing(course):
    offer(course, "python3.12")
    fail(course, "ensurepip")
    run = make(course, "setup")
    assert run.returncode != 0
    [sentence] = complaints(run)
    assert "apt install python3.12-venv" in sentence
    assert not (course / ".venv").exists()


@pytest.mark.parametrize(
    ("names", "newest"),
    [
        (["python3.11", "python3.12", "python3.13"], "python3.13"),
        (["python3.11", "python3.12"], "python3.12"),
        (["python3.11", "python3.14"], "python3.11"),
    ],
)
def test_the_newest_python_that_suits_makes_the_environment(course, names, newest):
    offer(course, *names)
    assert make(course, "setup").returncode == 0
    assert calls(course) == [f"{newest} -m venv .venv", INSTALL]


def test_a_python_that_is_on_the_path_but_does_not_start_is_passed_over(course):
    offer(course, "python3.12")
    (course / "bin" / "python3.13").write_text("#!/bin/sh\nexit 127\n")  # so does pyenv's shim
    (course / "bin" / "python3.13").chmod(0o755)
    assert make(course, "setup").returncode == 0
    assert calls(course)[0] == "python3.12 -m venv .venv"


def test_pip_options_reach_pip(course):
    offer(course, "python3.12")
    make(course, "setup", "PIP_OPTIONS=--no-index --find-links=/wheels")
    assert calls(course)[-1] == INSTALL.replace("-q", "-q --no-index --find-links=/wheels")


def test_a_second_setup_does_nothing(course):
    offer(course, "python3.12")
    make(course, "setup")
    calls(course)
    assert make(course, "setup").returncode == 0
    assert calls(course) == []


@pytest.mark.parametrize(("changed", "again"), [*((name, True) for name in INPUTS), ("README.md", False)])
def test_setup_runs_again_when_what_is_installed_has_changed(course, changed, again):
    offer(course, "python3.12")
    make(course, "setup")
    calls(course)
    age(course / ".venv" / ".installed", 1800)
    (course / changed).touch()
    assert make(course, "setup").returncode == 0
    assert (INSTALL in calls(course)) == again
    make(course, "setup")
    assert calls(course) == []


def test_after_a_failed_installation_the_next_make_tries_again(course):
    offer(course, "python3.12")
    fail(course, "-m pip")
    assert make(course, "setup").returncode != 0
    fail(course, "nothing")
    calls(course)
    assert make(course, "setup").returncode == 0
    assert INSTALL in calls(course)


def test_without_its_environment_the_course_is_set_up_again(course):
    offer(course, "python3.12")
    make(course, "setup")
    calls(course)
    shutil.rmtree(course / ".venv")
    make(course, "setup")
    assert INSTALL in calls(course)


def test_every_notebook_has_its_own_figures_and_the_profile_reaches_it(course):
    offer(course, "python3.12")
    assert make(course, "figures", "PROFILE=full").returncode == 0
    drawn = [f"python -m gm_helpers figures {name} --profile full" for name in ["1_a", "2_b"]]
    assert sorted(calls(course)[2:]) == drawn
    make(course, "figures-2_b")
    assert calls(course) == ["python -m gm_helpers figures 2_b --profile quick"]


def test_notebooks_are_drawn_side_by_side(course):
    offer(course, "python3.12")
    (course / "wait").touch()
    assert make(course, "--jobs=2", "figures").returncode == 0


@pytest.mark.parametrize("target", ["figures", "test", "lint", "lab", "notebooks", "weights"])
def test_targets_set_up_what_they_need_and_then_do_their_work(course, target):
    offer(course, "python3.12")
    assert make(course, target).returncode == 0
    first, second, *work = calls(course)
    assert (first, second) == ("python3.12 -m venv .venv", INSTALL)
    assert work
    assert all(line.startswith("python -m ") for line in work)


@pytest.mark.parametrize(
    ("target", "work"),
    [
        ("setup", "-m venv"),
        ("figures", "figures 1_a"),
        ("test", "--durations=15"),
        ("test", "--nbval"),
        ("lint", "ruff check"),
        ("lint", "ruff format"),
        ("lint", "mypy"),
        ("lab", "jupyterlab"),
        ("notebooks", "notebooks"),
        ("weights", "train"),
    ],
)
def test_a_target_fails_with_each_part_of_its_work(course, target, work):
    offer(course, "python3.12")
    fail(course, work)
    assert make(course, target).returncode != 0


def test_clean_removes_what_was_made_and_needs_no_python(course):
    made = [".venv/half-made", "figures/quick/1.png", "figures/smoke/1.png", "runs/state", ".ruff_cache/0"]
    kept = ["figures/full/1.png", "notebooks/1_a.ipynb"]
    for name in [*made, *kept]:
        (course / name).parent.mkdir(parents=True, exist_ok=True)
        (course / name).touch()
    assert make(course, "clean").returncode == 0
    assert [name for name in made if (course / name).exists()] == []
    assert [name for name in [*kept, *INPUTS] if not (course / name).exists()] == []
