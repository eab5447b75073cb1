"""The package as others install it: what a wheel of it brings, and what a notebook says where it is missing."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
BOOKS = [
    *sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")),
    *sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb")),
]


def test_every_file_of_the_package_is_in_a_wheel_of_it():
    package, patterns = ROOT / "gm_helpers", PROJECT["tool"]["setuptools"]["package-data"]["gm_helpers"]
    there = {own for own in package.rglob("*") if own.is_file() and "__pycache__" not in own.parts}
    modules = {
        own for name in PROJECT["tool"]["setuptools"]["packages"] for own in ROOT.glob(f"{name.replace('.', '/')}/*.py")
    }
    scratch = {own for own in there if own.name.startswith(".") or own.suffix == ".state"}  # of trainings that go on
    assert there - scratch - modules - {own for pattern in patterns for own in package.glob(pattern)} == set()


def test_the_extras_name_what_the_pinned_requirements_do_and_nothing_else():
    def names(lines):
        return {re.split(r"[=><\[ ;]", own.strip())[0].lower() for own in lines if re.match(r"\w", own)}

    extras, core = PROJECT["project"]["optional-dependencies"], PROJECT["project"]["dependencies"]
    pinned, site = (ROOT / own for own in ("requirements.txt", "site/requirements.txt"))
    assert names(extras["notebooks"] + extras["test"] + core) == names(pinned.read_text(encoding="utf-8").splitlines())
    assert names(extras["site"]) == names(site.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: str(path.relative_to(ROOT / "notebooks")))
def test_where_the_package_is_missing_the_first_cell_says_in_one_sentence_what_to_do(path, tmp_path):
    book = nbformat.read(path, as_version=4)
    first = next(cell.source for cell in book.cells if cell.cell_type == "code").replace("%matplotlib inline\n", "")
    bare = [sys.executable, "-S", "-c", first]  # without what is installed
    run = subprocess.run(bare, cwd=tmp_path, env={}, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    sentence = run.stderr.splitlines()[-1]
    assert sentence.startswith("ModuleNotFoundError: The course's package is missing: run %pip install ")
    assert sentence.count(". ") == 0


@pytest.mark.rare
def test_notebook_2_runs_in_another_folder_where_only_a_wheel_and_its_extra_are_installed(tmp_path):
    shutil.copytree(ROOT / "gm_helpers", tmp_path / "source" / "gm_helpers")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / "source")
    shutil.copy(ROOT / "notebooks" / "2_gan.ipynb", tmp_path / "mine.ipynb")
    python, clean = tmp_path / "venv/bin/python", {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}

    def run(*command):
        own = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False)
        assert own.returncode == 0, own.stdout + own.stderr
        return own.stdout

    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", "wheels", "./source")
    [wheel] = (tmp_path / "wheels").glob("*.whl")
    run(sys.executable, "-m", "venv", "venv")
    run(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", f"{wheel}[notebooks]")
    shutil.rmtree(tmp_path / "source")
    assert str(tmp_path / "venv") in run(python, "-c", "import gm_helpers; print(gm_helpers.__file__)")
    run(python, "-m", "gm_helpers", "figures", "mine.ipynb", "--profile", "smoke")
    assert len([*(tmp_path / "figures" / "smoke").glob("2.*.png")]) >= 10
