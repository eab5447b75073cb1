import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gm_helpers

CONTRIBUTING = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
ORDER = re.findall(r"^    (\w+)\.py ", CONTRIBUTING, flags=re.MULTILINE)  # "a module imports only modules above it"
FILES = sorted(path for path in Path(gm_helpers.__file__).parent.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_module_imports_only_modules_below_it(path):
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == "gm_helpers"):
            inside = (node.module or "").removeprefix("gm_helpers").strip(".")
            imported |= {inside.split(".")[0]} if inside else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("gm_helpers.")}
    assert imported <= set(ORDER[: ORDER.index(path.stem)])


def test_every_module_has_its_line_in_contributing():
    assert sorted(ORDER) == [path.stem for path in FILES]


@pytest.mark.slow
def test_training_needs_no_notebook_and_no_plotting_package():
    unwanted = ["papermill", "jupytext", "ipywidgets", "IPython", "torchvision", "matplotlib", "sklearn", "scipy"]
    code = f"import sys, gm_helpers.__main__; print([name for name in {unwanted} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
