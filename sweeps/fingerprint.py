"""What a result depends on, as a short hash: the definitions in gm_helpers that it reaches, read without running them.

From a recipe's row names are followed from definition to definition, through imports too, so that another recipe, or a
function that this one never uses, may change. Comments and docstrings don't count.
"""

import ast
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "gm_helpers"
TRAINED_BY = ("__init__", ""), ("__main__", "_train"), ("recipes", "fit"), ("recipes", "ship")
MEASURED_BY = ("__init__", ""), ("__main__", "_evaluate"), ("recipes", "evaluate"), ("recipes", "pretrained")
REFUSING = ("check", "rehearse", "_metadata", "evaluate")  # what those call to refuse or to tell, and changes no weight
NOT_TRAINED_BY = ("measure", "shipped")  # fields of a recipe
NOT_MEASURED_BY = ("schedules", "in_full", "shipped")
Place = tuple[str, str]  # a module and a name in it


@dataclass
class Module:
    """Top-level statements by the names that they bind, its imports of the package, and what else runs on import."""

    bound: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imported: dict[str, Place] = field(default_factory=dict)  # of a whole module the second part is empty
    effects: list[ast.stmt] = field(default_factory=list)


@cache
def module(package: Path, name: str) -> Module:
    """That file of the package, taken apart; empty where there is none."""
    path, own = package / f"{name}.py", Module()
    tree = ast.parse(path.read_text("utf-8")) if path.is_file() else ast.Module([], [])
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package.name:
            inside = (node.module or "").partition(".")[2]
            for alias in node.names:
                own.imported[alias.asname or alias.name] = (inside, alias.name) if inside else (alias.name, "")
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            node.body = body[1:] or [ast.Pass()]  # without its docstring
    for node in tree.body:
        names = list(_binds(node))
        for bound in names:
            if bound not in own.imported:
                own.bound.setdefault(bound, []).append(node)
        if not names and not isinstance(node, ast.Pass):
            own.effects.append(node)
    return own


def _binds(node: ast.stmt) -> Iterator[str]:
    """The names that a top-level statement defines or imports."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from (own.asname or own.name.partition(".")[0] for own in node.names)
    elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        for target in getattr(node, "targets", None) or [node.target]:
            parts = target.elts if isinstance(target, ast.Tuple | ast.List) else [target]
            yield from (own.id for own in parts if isinstance(own, ast.Name))  # os.environ["…"] = … defines none


def uses(own: Module, name: str, node: ast.AST) -> Iterator[Place]:
    """What a piece of that module's code names of the package: `data.load` by its module, the rest by its name."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        where, inside = own.imported.get(node.value.id, ("", "x"))
        if not inside:
            yield where, node.attr
            return
    if isinstance(node, ast.Name) and node.id in own.imported:
        yield own.imported[node.id]
    elif isinstance(node, ast.Name):
        yield name, node.id
    for child in ast.iter_child_nodes(node):
        yield from uses(own, name, child)


@cache
def definition(package: Path, where: str, name: str) -> tuple[str, list[Place]]:
    """The source of what that name is in that module, and of what runs on its import; and what both use."""
    own = module(package, where)
    nodes = own.bound.get(name, []) if name else [node for nodes in own.bound.values() for node in nodes]
    nodes = [*nodes, *own.effects] if nodes else []
    return "\n".join(map(ast.unparse, nodes)), [place for node in nodes for place in uses(own, where, node)]


def reached(package: Path, start: list[Place], but: set[Place]) -> dict[Place, str]:
    """The source of every definition to which a way leads from there, around some."""
    found: dict[Place, str] = {}
    todo = list(start)
    while todo:
        place = todo.pop()
        if place in found or place in but:
            continue
        if place[1] in (imported := module(package, place[0]).imported):
            todo.append(imported[place[1]])
            continue
        text, used = definition(package, *place)
        if text:
            found[place] = text
            todo += used
    return found


@cache
def rows(package: Path = PACKAGE) -> dict[str, dict[str, ast.expr]]:
    """The table of recipes: name -> field -> what stands there."""
    own = module(package, "recipes")
    [table], [kind] = own.bound["RECIPES"], own.bound["Recipe"]
    order = [node.target.id for node in kind.body if isinstance(node, ast.AnnAssign)]
    return {
        key.value: dict(zip(order, call.args, strict=False)) | {word.arg: word.value for word in call.keywords}
        for key, call in zip(table.value.keys, table.value.values, strict=True)
    }


def _in_profile(package: Path, row: dict[str, ast.expr], profile: str) -> dict[str, ast.expr]:
    """The row with the one schedule that counts there, and without what holds in `full` alone."""
    row = {name: node for name, node in row.items() if name != "in_full" or profile == "full"}
    table = row["schedules"]
    if isinstance(table, ast.Name):
        [table] = [node.value for node in module(package, "recipes").bound[table.id]]
    for key, value in zip(table.keys, table.values, strict=True):
        if key.value == profile:
            row["schedules"] = value
    return row


@cache
def recipe(name: str, profile: str, measuring: bool = False, package: Path = PACKAGE) -> str:
    """The hash of all that decides a training by that recipe, or a measurement of what came out of it."""
    row, own = _in_profile(package, rows(package)[name], profile), module(package, "recipes")
    left_out = NOT_MEASURED_BY if measuring else NOT_TRAINED_BY
    row = {key: node for key, node in row.items() if key not in left_out}
    start = [*(MEASURED_BY if measuring else TRAINED_BY)]
    start += [place for node in row.values() for place in uses(own, "recipes", node)]
    but = {("recipes", function) for function in ("RECIPES", *(() if measuring else REFUSING))}
    found = reached(package, start, but)
    parts = [f"{key}={ast.unparse(node)}" for key, node in sorted(row.items())]
    parts += [f"{place} {text}" for place, text in sorted(found.items())]
    parts += [_digest(own.read_bytes()) for text in found.values() for own in _weights(package, text)]
    return _digest("\n".join(parts).encode())


def _weights(package: Path, text: str) -> Iterator[Path]:
    """The shipped weights that a piece of code takes as `pretrained("NAME")`."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "pretrained":
            yield from (
                package / "weights" / f"{a.value}.safetensors" for a in node.args if isinstance(a, ast.Constant)
            )


@cache
def notebook(path: Path, package: Path = PACKAGE) -> str:
    """The hash of a notebook's code and of the whole package, which it may use as it likes."""
    cells = [own for own in json.loads(path.read_text("utf-8"))["cells"] if own["cell_type"] == "code"]
    code = json.dumps([(own["source"], own["metadata"].get("tags")) for own in cells])
    kinds = (".py", ".toml", ".csv", ".js", ".safetensors")
    files = sorted(path for path in package.rglob("*") if path.suffix in kinds)
    return _digest("\n".join([code, *(_digest(own.read_bytes()) for own in files)]).encode())


def draws(name: str, package: Path = PACKAGE) -> bool:
    """Whether the measurement by that recipe draws samples, whose number can be another."""
    [place] = uses(module(package, "recipes"), "recipes", rows(package)[name]["measure"])
    return any("samples" in own for own in map(_parameters, module(package, place[0]).bound[place[1]]))


def arguments(name: str, package: Path = PACKAGE) -> list[str]:
    """What can be set in that recipe: arguments of its model, fields of its schedule."""
    [schedule] = module(package, "recipes").bound["Schedule"]
    fields = [node.target.id for node in schedule.body if isinstance(node, ast.AnnAssign)]
    [place] = uses(module(package, "recipes"), "recipes", rows(package)[name]["model"])
    [model] = module(package, place[0]).bound[place[1]]
    if isinstance(model, ast.ClassDef):
        [model] = [node for node in model.body if getattr(node, "name", "") == "__init__"]
    return [own for own in _parameters(model) if own != "self"] + fields


def _parameters(function: ast.FunctionDef) -> list[str]:
    return [own.arg for own in function.args.args]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
