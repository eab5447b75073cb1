"""The Makefile, run with Pythons that only write down what they were asked: nothing is installed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
INPUTS = ["requirements.txt", "constraints.txt", "pyproject.toml"]
PIP = "python -m pip install -q --upgrade pip"
INSTALL = "python -m pip install -q -c constraints.txt -r requirements.txt"

# It fails where it is asked what the file `fail` says. The environment that it makes has itself as Python. Where there
# is a file `wait`, two figures wait for each other: they succeed only side by side.
PYTHON = """#!/bin/sh
echo "${0##*/} $*" >> log
echo "$GM_DATA" > data
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
    user(tmp_path, 1000)
    return tmp_path


def user(course, number):
    """Who makes it: 0 is root."""
    (course / "bin" / "id").write_text(f"#!/bin/sh\necho {number}\n")
    (course / "bin" / "id").chmod(0o755)


def age(path, seconds):
    now = path.stat().st_mtime_ns // 10**9
    os.utime(path, (now - seconds, now - seconds))


def offer(course, *names):
    for name in names:
        (course / "bin" / name).write_text(PYTHON)
        (course / "bin" / name).chmod(0o755)


def fail(course, what):
    (course / "fail").write_text(f"{what}\n")


def make(course, *arguments, **environment):
    environment |= {"PATH": str(course / "bin")}
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
    assert calls(course) == [f"{newest} -m venv .venv", PIP, INSTALL]


def test_a_python_that_is_on_the_path_but_does_not_start_is_passed_over(course):
    offer(course, "python3.12")
    (course / "bin" / "python3.13").write_text("#!/bin/sh\nexit 127\n")  # so does pyenv's shim
    (course / "bin" / "python3.13").chmod(0o755)
    assert make(course, "setup").returncode == 0
    assert calls(course)[0] == "python3.12 -m venv .venv"


def test_pip_options_reach_pip(course):
    offer(course, "python3.12")
    make(course, "setup", "PIP_OPTIONS=--no-index --find-links=/wheels")
    assert calls(course)[1:] == [own.replace("-q", "-q --no-index --find-links=/wheels") for own in (PIP, INSTALL)]


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
    assert sorted(calls(course)[3:]) == drawn
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
    first, second, third, *work = calls(course)
    assert (first, second, third) == ("python3.12 -m venv .venv", PIP, INSTALL)
    assert work
    assert all(line.startswith("python -m ") for line in work)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("mine", "{here}/mine"),
        ("my data/x", "{here}/my data/x"),
        ("/data", "/data"),
        ("/my data", "/my data"),
        ("~/x", "~/x"),
        ("", ""),
        (None, ""),
    ],
)
@pytest.mark.parametrize("way", ["environment", "argument"])
def test_a_relative_data_folder_is_handed_down_as_an_absolute_one(course, given, meant, way):
    offer(course, "python3.12")
    if given is None:
        make(course, "figures-1_a")
    elif way == "environment":
        make(course, "figures-1_a", GM_DATA=given)
    else:
        make(course, "figures-1_a", f"GM_DATA={given}")
    assert (course / "data").read_text() == meant.format(here=course) + "\n"


def test_nbval_and_lint_take_the_notebooks_that_have_a_source_and_the_kernel_of_this_python(course):
    offer(course, "python3.12")
    (course / "notebooks" / "Untitled.ipynb").touch()
    assert make(course, "test").returncode == 0
    with_notebooks = [line for line in calls(course) if ".ipynb" in line]
    assert len(with_notebooks) == 3
    assert all(line.endswith(" notebooks/1_a.ipynb notebooks/2_b.ipynb") for line in with_notebooks)
    assert "--nbval-current-env" in with_notebooks[-1]


def test_root_is_told_in_a_sentence_how_to_start_jupyterlab(course):
    offer(course, "python3.12")
    make(course, "setup")
    user(course, 0)
    calls(course)
    run = make(course, "lab")
    assert run.returncode != 0
    assert complaints(run) == [
        "JupyterLab doesn't start as root: work as another user, or run make lab LAB_OPTIONS=--allow-root."
    ]
    assert calls(course) == []
    assert make(course, "lab", "LAB_OPTIONS=--no-browser --allow-root").returncode == 0
    assert calls(course) == ["python -m jupyterlab --notebook-dir=notebooks --no-browser --allow-root"]


def test_options_reach_jupyterlab(course):
    offer(course, "python3.12")
    make(course, "setup")
    calls(course)
    assert make(course, "lab", "LAB_OPTIONS=--port=9999").returncode == 0
    assert calls(course) == ["python -m jupyterlab --notebook-dir=notebooks --port=9999"]


def test_the_benchmarks_environment_sees_the_course_s_in_a_folder_of_any_name(tmp_path):
    course = tmp_path / "Cours d'été #1"
    (course / "benchmarks").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", course)
    for name in [*INPUTS, "benchmarks/requirements.txt"]:
        (course / name).touch()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", course / ".venv"], check=True)
    [packages] = (course / ".venv" / "lib").glob("python*/site-packages")
    (packages / "of_the_course.py").touch()
    (course / ".venv" / ".installed").touch()
    environment = os.environ | {"PIP_NO_INDEX": "1"}  # there is nothing to install
    subprocess.run(["make", ".venv-bench/.installed"], cwd=course, env=environment, check=True, capture_output=True)
    subprocess.run([course / ".venv-bench" / "bin" / "python", "-c", "import of_the_course"], check=True)


@pytest.mark.parametrize(
    ("target", "work"),
    [
        ("setup", "-m venv"),
        ("setup", "--upgrade pip"),
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


def test_clean_removes_what_was_installed_keeps_what_runs_have_made_and_needs_no_python(course):
    made = [".venv/half-made", ".venv-bench/x", ".ruff_cache/0", ".mypy_cache/0", "gm_helpers.egg-info/x"]
    kept = ["figures/quick/1.png", "figures/full/1.png", "runs/gan.state", "notebooks/1_a.ipynb", "mine.egg-info/x"]
    for name in [*made, *kept]:
        (course / name).parent.mkdir(parents=True, exist_ok=True)
        (course / name).touch()
    assert make(course, "clean").returncode == 0
    assert [name for name in made if (course / name).exists()] == []
    assert [name for name in [*kept, *INPUTS] if not (course / name).exists()] == []
