import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gm_helpers

CONTRIBUTING = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
# "a module imports only modules above it": its name is followed by .py or, where it is a package, by a slash
ORDER = re.findall(r"^    (\w+)(?:\.py|/(?= .*checkers)) ", CONTRIBUTING, flags=re.MULTILINE)
HERE = Path(gm_helpers.__file__).parent
FILES = sorted(path for path in HERE.glob("**/*.py") if path.parent != HERE or path.stem != "__init__")


def module(path):
    return path.relative_to(HERE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(HERE)))
def test_a_module_imports_only_modules_below_it(path):
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == "gm_helpers"):
            inside = (node.module or "").removeprefix("gm_helpers").strip(".")
            imported |= {inside.split(".")[0]} if inside else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("gm_helpers.")}
    own = module(path)
    assert imported - ({own} if path.parent != HERE else set()) <= set(ORDER[: ORDER.index(own)])


def test_every_module_has_its_line_in_contributing():
    assert sorted(ORDER) == sorted({module(path) for path in FILES})


@pytest.mark.slow
def test_training_needs_no_notebook_and_no_plotting_package():
    unwanted = ["papermill", "jupytext", "ipywidgets", "IPython", "torchvision", "matplotlib", "sklearn", "scipy"]
    code = f"import sys, gm_helpers.__main__; print([name for name in {unwanted} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
