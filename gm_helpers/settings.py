"""Values for a model's arguments and a schedule's fields, from texts or as they are: checked by what is declared."""

import ast
import inspect
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, get_type_hints

from gm_helpers.files import UsageError

PAIR = tuple[float, float]
KINDS: dict[Any, str] = {
    int: "a whole number, at least 1",
    float: "a finite number",
    bool: "True or False",
    str: "text",
}
KINDS |= {PAIR: "two finite numbers, such as (0.5, 0.999)"}


def declared(function: Callable[..., Any]) -> dict[str, Any]:
    """Those parameters of a function or class that a person can set, name -> type."""
    hints = get_type_hints(function.__init__ if inspect.isclass(function) else function)
    return {name: kind for name, kind in hints.items() if kind in KINDS and name != "return"}


def parse(texts: dict[str, str], kinds: dict[str, Any]) -> dict[str, Any]:
    """Values from the texts of a command line; what is no value of Python stays text, which `check` judges."""
    values: dict[str, Any] = dict(texts)
    for name, text in texts.items():
        if kinds.get(name) is not str:
            with suppress(ValueError, SyntaxError):
                values[name] = ast.literal_eval(text)
    return values


def check(values: Mapping[str, Any], kinds: dict[str, Any], of: str) -> dict[str, Any]:
    """The values in the types that are declared. Raises UsageError for an unknown name or a wrong value."""
    for name in values:
        if name not in kinds:
            raise UsageError(f"{of} has nothing called {name!r} to set: choose among {', '.join(kinds)}")
    return {name: _as(kinds[name], name, value) for name, value in values.items()}


def _as(kind: Any, name: str, value: Any) -> Any:
    if kind is float and _is_number(value):
        return float(value)
    if kind == PAIR and isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_number, value)):
        return tuple(map(float, value))
    if kind is int and type(value) is int and value >= 1:
        return value
    if kind in (bool, str) and type(value) is kind:
        return value
    raise UsageError(f"{name} must be {KINDS[kind]}, but is {value!r}")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
