"""The Makefile, run with Pythons that only write down what they were asked: nothing is installed."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

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
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-c import sysconfig"*) echo "${0%/bin/python}" ;;
    "-m gm_helpers figures "*)
        touch "drawing-$4"
        for turn in 1 2 3 4 5 6 7 8 9 10; do
            if test ! -e wait || test -e drawing-1_a -a -e drawing-2_b; then exit 0; fi
            sleep 1
        done
        exit 1 ;;
esac
"""


@pytest.fixture
def bare(tmp_path):
    """A copy of the Makefile with stubs of what it reads, all of them made an hour ago, and no Python on the path."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    sources = [f"notebooks/source/{own}.md" for own in ("0_c", "1_a", "2_b")]
    for name in [
        *INPUTS,
        "README.md",
        "graders/requirements.txt",
        "site/requirements.txt",
        "sweeps/requirements.txt",
        "sweeps/local/config.yaml",
        *sources,
    ]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
        age(tmp_path / name, 3600)
    (tmp_path / "bin").mkdir()
    for tool in ["awk", "cp", "make", "mkdir", "rm", "sleep", "touch"]:
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    offer(tmp_path, "id", content="#!/bin/sh\necho 1000\n")
    return tmp_path


@pytest.fixture
def course(bare):
    """With a Python on the path."""
    offer(bare, "python3.12")
    return bare


@pytest.fixture
def installed(course):
    """After make setup."""
    make(course, "setup")
    calls(course)
    return course


def age(path, seconds):
    now = path.stat().st_mtime_ns // 10**9
    os.utime(path, (now - seconds, now - seconds))


def offer(course, *names, content=PYTHON):
    for name in names:
        (course / "bin" / name).write_text(content)
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


def complaint(run):
    """The one line on standard error but for make's own that a target failed."""
    assert run.returncode != 0
    [sentence] = [line for line in run.stderr.splitlines() if not line.startswith("make: ***")]
    return sentence


def test_plain_make_lists_each_public_target_with_one_line_and_does_nothing_else(course):
    run = make(course)
    phony = re.search(r"^\.PHONY: (.*)$", (course / "Makefile").read_text(), flags=re.MULTILINE)[1].split()
    targets = [name for name in phony if re.fullmatch("[a-z-]+", name)]
    assert (run.returncode, run.stderr) == (0, "")
    assert [re.fullmatch(r"make ([\w-]+) +\w.*", line)[1] for line in run.stdout.splitlines()] == targets
    assert calls(course) == []


def test_without_a_suitable_python_one_sentence_names_those_that_are(bare):
    offer(bare, "python3.14", "python3.10", "python3", "python")
    assert "Python 3.13, 3.12 or 3.11" in complaint(make(bare, "setup"))
    assert calls(bare) == []


def test_a_python_without_venv_is_named_with_the_package_that_is_missing(course):
    fail(course, "ensurepip")
    assert "apt install python3.12-venv" in complaint(make(course, "setup"))
    assert calls(course) == []


@pytest.mark.parametrize(
    ("names", "newest"),
    [
        (["python3.11", "python3.12", "python3.13"], "python3.13"),
        (["python3.11", "python3.12"], "python3.12"),
        (["python3.11", "python3.14"], "python3.11"),
    ],
)
def test_the_newest_python_that_suits_makes_the_environment(bare, names, newest):
    offer(bare, *names)
    assert make(bare, "setup").returncode == 0
    assert calls(bare) == [f"{newest} -m venv .venv", PIP, INSTALL]


def test_a_python_that_is_on_the_path_but_does_not_start_is_passed_over(course):
    offer(course, "python3.13", content="#!/bin/sh\nexit 127\n")  # so does pyenv's shim
    assert make(course, "setup").returncode == 0
    assert calls(course)[0] == "python3.12 -m venv .venv"


def test_pip_options_reach_pip(course):
    make(course, "setup", "PIP_OPTIONS=--no-index --find-links=/wheels")
    assert calls(course)[1:] == [own.replace("-q", "-q --no-index --find-links=/wheels") for own in (PIP, INSTALL)]


@pytest.mark.parametrize(("changed", "again"), [*((name, True) for name in INPUTS), ("README.md", False)])
def test_setup_runs_again_once_when_what_is_installed_has_changed(installed, changed, again):
    age(installed / ".venv" / ".installed", 1800)
    (installed / changed).touch()
    assert make(installed, "setup").returncode == 0
    assert (INSTALL in calls(installed)) == again
    make(installed, "setup")
    assert calls(installed) == []


def test_after_a_failed_installation_the_next_make_tries_again(course):
    fail(course, "-m pip")
    assert make(course, "setup").returncode != 0
    fail(course, "nothing")
    calls(course)
    assert make(course, "setup").returncode == 0
    assert INSTALL in calls(course)


def test_without_its_environment_the_course_is_set_up_again(installed):
    shutil.rmtree(installed / ".venv")
    make(installed, "setup")
    assert INSTALL in calls(installed)


def test_every_notebook_has_its_own_figures_and_the_profile_reaches_it(installed):
    assert make(installed, "figures", "PROFILE=full").returncode == 0
    drawn = [f"python -m gm_helpers figures {name} --profile full" for name in ["1_a", "2_b"]]
    assert sorted(calls(installed)) == drawn
    make(installed, "figures-2_b")
    assert calls(installed) == ["python -m gm_helpers figures 2_b --profile quick"]


def test_notebooks_are_drawn_side_by_side(installed):
    (installed / "wait").touch()
    assert make(installed, "--jobs=2", "figures").returncode == 0


@pytest.mark.parametrize(
    "target",
    ["figures", "test", "test-all", "check", "lint", "lab", "notebooks", "html", "assignments", "sweep", "weights"],
)
def test_targets_set_up_what_they_need_and_then_do_their_work(course, target):
    assert make(course, target).returncode == 0
    first, second, third, *work = calls(course)
    assert (first, second, third) == ("python3.12 -m venv .venv", PIP, INSTALL)
    assert work
    assert all(line.startswith(("python -m ", "python site/")) for line in work)


def test_weights_are_those_that_are_shipped_trained_in_full_to_where_they_are_shipped(installed):
    make(installed, "weights")
    assert calls(installed) == ["python -m gm_helpers train --shipped --profile full --out gm_helpers/weights"]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("mine", "{here}/mine"),
        ("my data/x", "{here}/my data/x"),
        ("/data", "/data"),
        ("/my data", "/my data"),
        ("~/x", "~/x"),
        ("", ""),
    ],
)
def test_a_relative_data_folder_is_handed_down_as_an_absolute_one(installed, given, meant):
    for arguments, environment in (([f"GM_DATA={given}"], {}), ([], {"GM_DATA": given})):
        make(installed, "figures-1_a", *arguments, **environment)
        assert (installed / "data").read_text() == meant.format(here=installed) + "\n"


def test_lint_takes_the_notebooks_that_have_a_source_and_nbval_the_chapters_among_them(installed):
    (installed / "notebooks" / "Untitled.ipynb").touch()
    assert make(installed, "test").returncode == 0
    *lint, nbval = [line for line in calls(installed) if ".ipynb" in line]
    assert len(lint) == 2
    assert all(line.endswith(" notebooks/0_c.ipynb notebooks/1_a.ipynb notebooks/2_b.ipynb") for line in lint)
    assert nbval.endswith(
        "--nbval-cell-timeout=600 -p no:cacheprovider --durations=5 notebooks/1_a.ipynb notebooks/2_b.ipynb"
    )
    assert "--nbval-current-env" in nbval


def test_all_notebooks_or_those_that_are_named_become_pages(installed):
    call = "python site/export.py"
    make(installed, "html")
    books = " ".join(f"notebooks/{own}.ipynb" for own in ("0_c", "1_a", "2_b"))
    assert calls(installed) == [f"{call} {books}"]
    make(installed, "html", "BOOKS=figures/quick/notebooks/1_a.ipynb")
    assert calls(installed) == [f"{call} figures/quick/notebooks/1_a.ipynb"]


def test_jupyterlab_keeps_the_state_of_widgets_and_opens_where_the_course_starts(installed):
    assert make(installed, "lab").returncode == 0
    [call] = calls(installed)
    assert "--LabApp.default_url=/lab/tree/0_start.ipynb" in call
    settings = installed / ".venv/share/jupyter/lab/settings/overrides.json"
    assert json.loads(settings.read_text()) == {
        "@jupyter-widgets/jupyterlab-manager:plugin": {"saveState": True},
        "@jupyterlab/apputils-extension:notification": {"fetchNews": "false"},
    }


def test_root_is_told_in_a_sentence_how_to_start_jupyterlab(installed):
    offer(installed, "id", content="#!/bin/sh\necho 0\n")
    sentence = "JupyterLab doesn't start as root: work as another user, or run make lab LAB_OPTIONS=--allow-root."
    assert complaint(make(installed, "lab")) == sentence
    assert calls(installed) == []
    assert make(installed, "lab", "LAB_OPTIONS=--no-browser --allow-root").returncode == 0
    assert calls(installed) == [
        "python -m jupyterlab --notebook-dir=notebooks --LabApp.default_url=/lab/tree/0_start.ipynb --no-browser "
        "--allow-root"
    ]


@pytest.mark.parametrize("target", ["assignments", "test-all"])
def test_the_graders_are_installed_into_an_environment_of_their_own_before_they_are_needed(installed, target):
    assert make(installed, target).returncode == 0
    asked = calls(installed)
    at = asked.index("python -m venv .venv-graders")
    assert asked[at + 1 : at + 3] == [PIP, "python -m pip install -q -r graders/requirements.txt"]
    assert [own for own in asked[at + 3 :] if re.search("assignments|numprocesses", own)]
    make(installed, target)
    assert not [own for own in calls(installed) if "venv" in own]


def test_the_site_is_gathered_built_without_a_warning_and_put_where_it_is_read(installed):
    (installed / "build" / "pages" / "site").mkdir(parents=True)
    (installed / "build" / "pages" / "site" / "index.html").touch()
    assert make(installed, "site").returncode == 0
    asked = calls(installed)
    assert "python -m pip install -q -r site/requirements.txt" in asked
    build = "python -m sphinx -b html -W --keep-going -q build/site build/pages/site"
    assert asked[-2:] == ["python site/gather.py build/site", build]
    assert (installed / "_site" / "index.html").exists()
    for part in ("gather", "sphinx"):
        fail(installed, part)
        assert make(installed, "site").returncode != 0


def test_a_sweep_is_run_by_snakemake_in_an_environment_of_its_own(installed):
    assert make(installed, "sweep").returncode == 0
    asked = calls(installed)
    common = "python -m snakemake --snakefile sweeps/Snakefile --directory runs/sweeps --workflow-profile sweeps"
    assert asked[:3] == ["python -m venv .venv-sweep", PIP, "python -m pip install -q -r sweeps/requirements.txt"]
    assert asked[3:] == [f"{common}/local --config sweep=demo"]
    (installed / "sweeps" / "slurm").mkdir()
    (installed / "sweeps" / "slurm" / "config.yaml").touch()
    assert make(installed, "sweep", "SWEEP=mine", "ON=slurm", "SWEEP_OPTIONS=--unlock").returncode == 0
    assert calls(installed) == [f"{common}/slurm --config sweep=mine --unlock"]
    assert "sweeps/moon/config.yaml: say ON=local or ON=slurm" in complaint(make(installed, "sweep", "ON=moon"))


@pytest.mark.rare
@pytest.mark.parametrize(
    ("name", "inputs"), [(".venv-bench", "benchmarks"), (".venv-graders", "graders"), (".venv-site", "site")]
)
def test_the_other_environments_see_the_course_s_in_a_folder_of_any_name(tmp_path, name, inputs):
    course = tmp_path / "Cours d'été #1"
    (course / inputs).mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", course)
    for own in [*INPUTS, f"{inputs}/requirements.txt"]:
        (course / own).touch()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", course / ".venv"], check=True)
    [packages] = (course / ".venv" / "lib").glob("python*/site-packages")
    (packages / "of_the_course.py").touch()
    (course / ".venv" / ".installed").touch()
    environment = os.environ | {"PIP_NO_INDEX": "1"}  # there is nothing to install
    subprocess.run(["make", f"{name}/.installed"], cwd=course, env=environment, check=True, capture_output=True)
    subprocess.run([course / name / "bin" / "python", "-c", "import of_the_course"], check=True)


@pytest.mark.parametrize(
    "part",
    [
        *("setup: -m venv", "setup: --upgrade pip", "figures: figures 1_a", "test: --durations=15", "test: --nbval"),
        *(
            "test-all: --nbval",
            "test-all: --numprocesses",
            "check: not slow",
            "lint: ruff check .",
            "lint: ruff format --check .",
        ),
        *("lint: ruff check --line-length", "lint: ruff format --check --line-length", "html: site/export.py"),
        *("lint: mypy", "lab: jupyterlab", "notebooks: notebooks", "weights: train", "sweep: snakemake"),
        *("assignments: -m venv .venv-graders", "assignments: -r graders", "assignments: assignments"),
    ],
)
def test_a_target_fails_with_each_part_of_its_work(course, part):
    target, work = part.split(": ")
    fail(course, work)
    assert make(course, target).returncode != 0


def test_clean_removes_what_was_installed_keeps_what_runs_have_made_and_needs_no_python(bare):
    made = [
        ".venv/half-made",
        ".venv-bench/x",
        ".venv-graders/x",
        ".venv-site/x",
        ".venv-sweep/x",
        ".ruff_cache/0",
        ".mypy_cache/0",
        "gm_helpers.egg-info/x",
    ]
    kept = ["figures/quick/1.png", "figures/full/1.png", "runs/gan.state", "notebooks/1_a.ipynb", "mine.egg-info/x"]
    for name in [*made, *kept]:
        (bare / name).parent.mkdir(parents=True, exist_ok=True)
        (bare / name).touch()
    assert make(bare, "clean").returncode == 0
    assert [name for name in made if (bare / name).exists()] == []
    assert [name for name in [*kept, *INPUTS] if not (bare / name).exists()] == []
