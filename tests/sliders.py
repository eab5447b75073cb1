"""Widgets without a browser: controls are set as a frontend sets them, and what would be seen is read back."""

import html
import re

import pytest

from gm_helpers import explore


def only():
    [explorer] = explore.live.values()
    return explorer


def set_to(**values):
    """Set the controls of the only widget; returns what its line then reads."""
    for name, value in values.items():
        only().controls[name].value = value
    return html.unescape(re.sub(r"<[^>]*>", "", only().reading.value))


def numbers(reading):
    return [float(own.replace("−", "-")) for own in re.findall(r"(?<= )−?\d+(?:\.\d+)?", reading)]


def to_three_decimals(*values):
    return pytest.approx([float(own) for own in values], abs=5.01e-4)


def axes(**values):
    """The axes of the figure that the only widget draws for these values."""
    return only().draw(**values)[0].axes


def labelled(axis):
    """The lines of a panel by what its legend calls them."""
    return {own.get_label(): own for own in axis.lines}


def assert_every_control_changes_the_picture_and_back_gives_the_same_bytes(show):
    show()
    first = only().picture.value, set_to()
    for name, control in only().controls.items():
        own = control.value
        others = control.options if hasattr(control, "options") else (control.min, control.max)
        set_to(**{name: next(other for other in others if other != own)})
        assert only().picture.value != first[0]
        set_to(**{name: own})
        assert (only().picture.value, set_to()) == first


def assert_at_the_ends_a_reading_is_finite(show, end):
    """end: "min" or "max", of every slider."""
    show()
    reading = set_to(**{name: getattr(own, end) for name, own in only().controls.items() if hasattr(own, end)})
    assert not re.search(r"\bnan\b|\binf\b|Error", reading)


def assert_saved_with_alternative_text(show, shown, folder):
    show(str(folder))
    [png], [txt] = folder.glob("*.png"), folder.glob("*.txt")
    assert png.read_bytes() == shown[0].content["image/png"]
    assert txt.read_text() == shown[0].metadata["image/png"]["alt"] + "\n"
    assert len(txt.read_text()) >= 30
