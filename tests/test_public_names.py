import ast
import re
from pathlib import Path

import gm_helpers

PACKAGE = sorted(Path(gm_helpers.__file__).parent.glob("**/*.py"))
TESTED = set(re.findall(r"\w+", " ".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("*.py"))))


def public(body, module):
    """The functions and classes among these statements, and the classes' methods, as (module, name)."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield module, node.name
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, f"{module}.{node.name}")


def test_every_public_name_is_mentioned_in_a_test():
    names = [own for path in PACKAGE for own in public(ast.parse(path.read_text("utf-8")).body, path.stem)]
    untested = [f"{where}.{name}" for where, name in names if name not in TESTED]
    assert not untested, ", ".join(untested)
