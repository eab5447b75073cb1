"""What a checker says of an answer, and what keeps it from failing with whatever it is given."""

import dis
import functools
import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gm_helpers.exercises.isolation import TimeUp, foreign, stopped_after, unnoticed

SECONDS = 5.0  # after which an answer is stopped
FEW, WIDTH = 8, 100  # numbers, and characters, in a message
COLOURS = {"open": "#999999", "wrong": "#D55E00", "right": "#009E73"}  # of figures.py


@dataclass(frozen=True)
class Verdict:
    """What a checker says: status is "open", "wrong" or "right", message the reason, in lines for a person.

    As the last value of a cell it shows itself.
    """

    status: str
    message: str

    def __repr__(self) -> str:
        return f"{self.status}: {self.message}"

    def _repr_html_(self) -> str:
        lines = html.escape(self.message).replace("\n", "<br>")
        style = f"border-left: 4px solid {COLOURS[self.status]}; padding-left: 0.8em"
        return f'<div style="{style}"><b>{self.status}</b><br>{lines}</div>'


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that is known: what it gives in place of the right one, and which idea went wrong."""

    gives: Callable[..., Any]
    idea: str


@dataclass
class Exercise:
    """A row of the table of exercises: the checker's name, where the exercise stands, and what was said last."""

    name: str
    notebook: str
    section: str
    verdict: Verdict


class Wrong(Exception):  # noqa: N818 - no error: it carries a verdict
    """Raised by a checker where an answer is wrong; its text is the message."""


class Open(Exception):  # noqa: N818
    """Raised by a checker where an answer is incomplete, or can't be checked here; its text says why."""


EXERCISES: dict[str, Exercise] = {}
UNTOUCHED = Verdict("open", "Nothing is filled in yet.")


def exercise(
    notebook: str, section: str, seconds: float = SECONDS
) -> Callable[[Callable[[Any], str]], Callable[[Any], Verdict]]:
    """A checker made of a function that takes an answer, returns what was tested, and raises Wrong or Open.

    The checker never raises, whatever the answer does, and stops it after that many seconds. It leaves the notebook's
    random states as they were.
    """

    def decorate(check: Callable[[Any], str]) -> Callable[[Any], Verdict]:
        own = EXERCISES[check.__name__] = Exercise(check.__name__, notebook, section, UNTOUCHED)

        @functools.wraps(check)
        def checker(answer: Any) -> Verdict:
            own.verdict = _judge(check, answer, seconds)
            return own.verdict

        checker.__annotations__ = {"answer": Any, "return": Verdict}
        return checker

    return decorate


def _judge(check: Callable[[Any], str], answer: Any, seconds: float) -> Verdict:
    try:
        with stopped_after(seconds), unnoticed():
            return UNTOUCHED if is_open(answer) else _verdict("right", check(answer))
    except Wrong as wrong:
        return _verdict("wrong", str(wrong))
    except Open as reason:
        return _verdict("open", str(reason))
    except TimeUp:
        what = f"your answer was stopped after {seconds:.0f} s: does it come to an end, or is it only slow?"
        return _verdict("wrong", what)
    except KeyboardInterrupt:
        return _verdict("open", "interrupted before it was checked")
    except BaseException as error:
        return _verdict("wrong", f"the checker failed with your answer, a defect of ours: {described(error)}")


def _verdict(status: str, message: str) -> Verdict:
    """Each line of the message becomes a sentence."""

    def sentence(line: str) -> str:
        word = line.partition(" ")[0]
        first = word[:1].upper() if word == "a" or word[1:2].isalpha() else word[:1]  # a symbol stays as it is
        return f"{first}{line[1:]}{'' if line.endswith(('.', '?', '…', ')')) else '.'}"

    return Verdict(status, "\n".join(sentence(own) for own in message.split("\n")))


def is_open(answer: Any) -> bool:
    """Whether nothing was filled in: `...`, None, or a function without a body."""
    if answer is None or answer is ...:
        return True
    if not isinstance(answer, FunctionType):
        return False
    steps = [own for own in dis.get_instructions(answer) if own.opname not in ("RESUME", "NOP")]
    loads = [own.argval for own in steps if own.opname in ("LOAD_CONST", "RETURN_CONST")]
    return len(steps) <= 2 and all(own is None or own is ... for own in loads) and bool(loads)


def rng() -> np.random.Generator:
    """Fresh random cases for each check."""
    return np.random.default_rng()


def call(answer: Any, arguments: dict[str, Any], where: str = "") -> Any:
    """answer(*arguments), of copies, with the same random states at each call.

    Raises Wrong, with the arguments or with what stands for them, where that fails.
    """
    if not callable(answer):
        raise Wrong(f"your answer is {shown(answer)}, and should be a function of ({', '.join(arguments)})")
    copies = [own.clone() if isinstance(own, Tensor) else own for own in arguments.values()]
    try:
        with unnoticed():
            return foreign(answer, *copies)
    except TimeUp:
        raise
    except BaseException as error:  # sys.exit() and the like, too
        raise Wrong(f"{where or stated(arguments)}: your function raises {described(error)}") from error


def numbers(value: Any, shape: tuple[int, ...] = (), where: str = "") -> Tensor:
    """The numbers of an answer, however they are kept, as float64 of that shape; raises Wrong for what is none.

    where: what stands before the sentence. A single number may come in any shape.
    """
    if value is None:
        raise Wrong(f"{where}your function returns nothing: is a `return` missing?")
    unfit = f"your answer is {shown(value)}, and should be made of real numbers"

    def refuse(own: tuple[int, ...]) -> None:
        if own != shape and not (math.prod(own) == math.prod(shape) == 1):
            asked = f"numbers of the shape {shape}" if shape else "one number"
            raise Wrong(f"{where}your answer has the shape {own}, and should be {asked}")

    if isinstance(value, Tensor | np.ndarray):
        refuse(tuple(value.shape))  # before what may be huge is copied
    if isinstance(value, list | tuple | range) and len(value) != math.prod(shape[:1]):
        refuse((len(value),))
    try:
        array = foreign(_as_array, value)
    except TimeUp:
        raise
    except BaseException as error:
        raise Wrong(f"{where}{unfit}") from error
    if array.dtype.kind not in "fiu":
        raise Wrong(f"{where}{unfit}")
    refuse(array.shape)
    tensor = torch.from_numpy(array.astype(np.float64)).reshape(shape)
    if not bool(tensor.isfinite().all()):
        what = f"your answer is {shown(value)}" if tensor.numel() <= FEW else "some of its numbers are nan or infinite"
        raise Wrong(f"{where}{what}, and should be finite")
    return tensor


def _as_array(value: Any) -> np.ndarray:
    if isinstance(value, Tensor):
        own = value.detach().cpu().to_dense()
        return (own.double() if own.is_floating_point() else own).numpy()  # NumPy knows no bfloat16
    if isinstance(value, list | tuple):
        value = [_as_array(own) if isinstance(own, Tensor) else own for own in value]
    array = np.asarray(value)
    # what knows of itself how to be a number, such as SymPy's, is an object to NumPy
    return array.astype(np.float64) if array.dtype.kind == "O" else array


def compare(
    answer: Any,
    cases: Sequence[dict[str, Any]],
    right: Callable[..., Any],
    mistakes: Sequence[Mistake],
    relative: float,
    parts: int = 1,
    tell: bool = True,
) -> None:
    """Raise Wrong where answer(**case) is not right(**case), as `settle` does; an answer is so many numbers."""
    given = [numbers(call(answer, own), () if parts == 1 else (parts,), f"{stated(own)}: ") for own in cases]
    settle(given, cases, right, mistakes, relative, tell=tell)


def settle(
    given: Sequence[Tensor],
    cases: Sequence[dict[str, Any]],
    right: Callable[..., Any],
    mistakes: Sequence[Mistake],
    relative: float,
    what: str = "your answer",
    tell: bool = True,
) -> None:
    """Raise Wrong where what is given for a case is not right(**case).

    It tells the first such case, so give the smallest first, and the idea of the first mistake that gives the same
    numbers in *every* case. relative: how far it may be off, as a share of the right one. tell: whether to say what is
    right, which where one number is asked for would give it away.
    """

    def agree(other: Callable[..., Any], at: int) -> bool:
        expected = torch.tensor(other(*cases[at].values()), dtype=torch.float64)
        return bool(((given[at] - expected).abs() <= relative * (1 + 1e-9) * expected.abs()).all())

    off = next((at for at in range(len(cases)) if not agree(right, at)), None)
    if off is not None:
        expected = right(*cases[off].values())
        right_one = f", and should be {shown(expected)}" if tell else ""
        sentence = f"{stated(cases[off])}: {what} is {shown(given[off])}{right_one}."
        known = (own.idea for own in mistakes if all(agree(own.gives, at) for at in range(len(cases))))
        raise Wrong("\n".join([sentence, next(known, "")]).strip())


def stated(case: dict[str, Any]) -> str:
    """A case in words, such as "for eta = 0.5, n = 2"."""
    return "for " + ", ".join(f"{name} = {shown(value)}" for name, value in case.items())


def shown(value: Any) -> str:
    """A value in a message: numbers with four digits, and never more than a line."""
    try:
        if isinstance(value, Tensor | np.ndarray):
            size = value.shape.numel() if isinstance(value, Tensor) else value.size
            if size > FEW:
                return f"{size:,} numbers"
            value = value.tolist()
        if isinstance(value, float):
            text = f"{value:.4g}"
        elif isinstance(value, list | tuple) and len(value) <= FEW:
            text = f"({', '.join(map(shown, value))})"
        else:
            text = foreign(str if isinstance(value, BaseException) else repr, value)
    except TimeUp:
        raise
    except BaseException:  # of an answer's own making
        text = f"a {type(value).__name__}"
    line = " ".join(text.encode(errors="replace").decode().split())
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"


def described(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {shown(error)}".removesuffix(": ")
