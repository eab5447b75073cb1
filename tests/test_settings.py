import math

import pytest

from gm_helpers.files import UsageError
from gm_helpers.settings import check, declared, parse


class Model:
    def __init__(
        self, size: int, rate: float = 0.1, both: bool = True, name: str = "", betas: tuple[float, float] = ()
    ):
        pass


def function(size: int, mask: list | None = None) -> int:
    return size


KINDS = declared(Model)


def test_what_can_be_set_is_what_a_person_can_write():
    assert list(KINDS) == ["size", "rate", "both", "name", "betas"]
    assert declared(function) == {"size": int}


def test_texts_become_values_of_the_declared_types():
    texts = {"size": "3", "rate": "2", "both": "False", "name": "1", "betas": "(0, 0.9)"}
    values = check(parse(texts, KINDS), KINDS, "it")
    assert values == {"size": 3, "rate": 2.0, "both": False, "name": "1", "betas": (0.0, 0.9)}
    assert type(values["rate"]) is float


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        *(("size", value, "a whole number, at least 1") for value in (0, -1, 2.0, True, "two", None)),
        *(("rate", value, "a finite number") for value in (math.nan, math.inf, True, "1e-3x")),
        *(("both", value, "True or False") for value in (1, "true")),
        ("name", 1, "text"),
        *(("betas", value, "two finite numbers") for value in (0.5, (0.5,), (0.5, math.inf), "0.5")),
    ],
)
def test_a_value_of_another_type_or_none_that_can_be_is_refused_in_one_sentence(name, value, what):
    with pytest.raises(UsageError, match=f"^{name} must be {what}.*, but is "):
        check({name: value}, KINDS, "it")


def test_an_unknown_name_is_refused_with_the_choices():
    with pytest.raises(UsageError, match=r"^it has nothing called 'sise' to set: choose among size, rate, both, name"):
        check({"sise": 3}, KINDS, "it")
