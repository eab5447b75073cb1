"""Sliders without a browser: controls are set as a frontend sets them, and what would be seen is read back."""

import gc
import html
import io
import json
import re
import weakref

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import seeded
from ipywidgets import Widget
from PIL import Image

from gm_helpers import explore

pytestmark = pytest.mark.usefixtures("shown")


def slider():
    return explore.slider("value", 0, 0, 255, 1)


def show(draw, **controls):
    """Show a widget, by default with one slider named `value`; returns it."""
    explore.explore("test", "One grey value.", draw, controls or {"value": slider()})
    return explore.live["test"]


ERRORS = {13: RuntimeError("no <b>digit</b> & no code"), 99: KeyboardInterrupt()}


def flat(value):
    """One grey value, and what it reads; some can't be drawn."""
    if value in ERRORS:
        raise ERRORS[value]
    return explore.digits(torch.full((1, 784), value / 255), 1), f"{value:.0f}"


def grey(png):
    with Image.open(io.BytesIO(png)) as picture:
        assert (picture.format, picture.mode) == ("PNG", "L")
        return np.asarray(picture)


def read(explorer):
    """What the reading says, without the element around it."""
    return re.fullmatch(r'<span data-drawn="[^"]*">(.*)</span>', explorer.reading.value)[1]


def assert_shows(value):
    assert read(explore.live["test"]) == f"{value}"
    assert (grey(explore.live["test"].picture.value) == value).all()


def models():
    """The ids of all models in the kernel."""
    return {*Widget.get_manager_state()["state"]}


# ---------------------------------------------------------------- pictures and controls


def test_digits_stand_in_reading_order_rounded_and_within_0_and_255():
    images = 0.5 + 0.5 * torch.randn(6, 1, 28, 28, generator=seeded(0))
    tiles = np.rint(255 * images.clamp(0, 1).numpy()).reshape(2, 3, 28, 28)
    expected = np.kron(np.block([[*row] for row in tiles]), np.ones((explore.PIXEL, explore.PIXEL)))
    assert np.array_equal(grey(explore.digits(images.requires_grad_(), columns=3)), expected)


def test_a_figure_is_shown_as_a_png_and_closed():
    explorer = show(lambda value: (plt.figure(figsize=(3, 2)), ""))
    with Image.open(io.BytesIO(explorer.picture.value)) as picture:
        assert (picture.format, picture.size) == ("PNG", (300, 200))
    assert plt.get_fignums() == []


@pytest.mark.parametrize("step", [0.02, 0.05, 0.1, 1])
def test_a_control_has_its_name_in_front_and_as_a_hint_and_a_readout_as_fine_as_its_steps(step):
    own, other = explore.slider("mean μ", 0, -4, 4, step), explore.choice("way", ["straight"])
    assert own.description == own.tooltip == "mean μ"
    assert other.description == other.tooltip == "way"
    assert format(step, own.readout_format) == (f"{step:.2f}" if step < 1 else "1")
    assert own.layout.max_width == "100%"


def test_a_widget_comes_after_its_first_state_as_a_still_picture_and_a_sentence_that_says_so(shown, tmp_path):
    controls = {"value": slider()}
    explore.explore("test", "One grey value.", flat, controls, str(tmp_path))
    explorer = explore.live["test"]
    explorer.controls["value"].value = 7
    still, sentence, page, live = shown
    assert live.content["application/vnd.jupyter.widget-view+json"]["model_id"] == explorer.box.model_id
    assert explorer.box.children == (controls["value"], explorer.reading, explorer.picture)
    assert (grey(still.content["image/png"]) == 0).all()
    assert (tmp_path / "test.png").read_bytes() == still.content["image/png"]
    assert still.metadata["image/png"] == {"width": 28 * explore.PIXEL, "alt": "One grey value."}
    assert sentence.content["text/plain"] == explore.SENTENCE
    assert sentence.content["text/html"] == f'<p class="gm-still"><em>{explore.SENTENCE}</em></p>'
    assert page.content["text/html"] == explore.STYLE + explore.SCRIPT
    assert all(own.raw for own in shown)


def test_a_player_stands_below_the_sliders_one_of_which_it_moves():
    controls = {"value": explore.slider("value", 0, -3, 252, 0.5), "other": slider()}
    explore.explore("test", "One grey value.", lambda value, other: flat(value), controls, play="value")
    explorer, [player] = explore.live["test"], explore.live["test"].player
    assert explorer.box.children[2] is player
    assert (player.max, player.interval) == (510, 250)  # steps, milliseconds
    player.value = 20
    assert_shows(7)
    assert (controls["value"].value, controls["other"].value) == (7, 0)


class Counter:
    """A value that buttons change, and what is drawn of it."""

    def __init__(self):
        self.count, self.drawn = 0, []
        self.buttons = {"one more": lambda: self.add(1), "ten more": lambda: self.add(10), "too much": lambda: 1 / 0}

    def add(self, more):
        self.count += more

    def show(self):
        explore.explore("test", "One grey value.", self.draw, {"value": slider()}, buttons=self.buttons)
        return explore.live["test"]

    def draw(self, value):
        self.drawn.append((self.count, value))
        return flat(self.count + value)


def test_buttons_stand_in_a_row_below_the_controls_each_with_its_label_and_as_wide_as_that():
    explorer = Counter().show()
    control, row, reading, picture = explorer.box.children
    assert (control, reading, picture) == (explorer.controls["value"], explorer.reading, explorer.picture)
    assert [(own.description, own.tooltip, own.layout.width) for own in row.children] == [
        (own, own, "auto") for own in ("one more", "ten more", "too much")
    ]
    assert row.layout.flex_flow == "row wrap"  # none is cut off in a narrow window


def test_a_button_does_its_action_and_then_draws_with_the_controls_values():
    counter = Counter()
    explorer = counter.show()
    explorer.controls["value"].value = 5
    explorer.buttons[1].click()
    explorer.buttons[0].click()
    explorer.buttons[0].click()  # at once: none is left out
    assert counter.drawn == [(0, 0), (0, 5), (10, 5), (11, 5), (12, 5)]
    assert_shows(17)


def test_what_a_button_raises_is_said_as_an_alert_and_the_next_one_heals_it():
    counter = Counter()
    explorer = counter.show()
    explorer.buttons[2].click()
    assert read(explorer) == '<b role="alert">ZeroDivisionError: division by zero</b>'
    assert counter.drawn == [(0, 0)]
    explorer.buttons[0].click()
    assert_shows(1)


def test_what_is_drawn_after_a_button_and_fails_is_said_too():
    counter = Counter()
    explorer = counter.show()
    for _ in range(13):
        explorer.buttons[0].click()
    assert "RuntimeError: no" in explorer.reading.value


def test_a_button_that_is_pressed_during_a_drawing_is_answered_by_one_more():
    counter, drawn = Counter(), []

    def draw(value):
        drawn.append(counter.count)
        if counter.count == 1:
            explore.live["test"].buttons[1].click()
        return flat(counter.count)

    explore.explore("test", "One grey value.", draw, {"value": slider()}, buttons=counter.buttons)
    explore.live["test"].buttons[0].click()
    assert drawn == [0, 1, 11]
    assert_shows(11)


def test_a_still_picture_may_be_of_another_state(shown):
    other = flat(77)[0]
    explore.explore("test", "One grey value.", flat, {"value": slider()}, still=other)
    assert (grey(shown[0].content["image/png"]) == 77).all()
    assert_shows(0)


def test_a_reading_is_text_and_not_html():
    explorer = show(lambda value: (flat(value)[0], "KL < 2 & <b>σ</b>"))
    assert read(explorer) == "KL &lt; 2 &amp; &lt;b&gt;σ&lt;/b&gt;"


def test_a_reading_has_the_minus_of_the_sliders_and_keeps_a_hyphen():
    explorer = show(lambda value: (flat(value)[0], "a = -1.5, z is -2, vae-20d, 1e-05, log-determinant (-0.3)"))
    assert read(explorer) == "a = −1.5, z is −2, vae-20d, 1e-05, log-determinant (−0.3)"


def test_with_its_reading_a_widget_tells_the_page_for_which_values_it_is():
    controls = {"value": slider(), "kind": explore.choice("kind", ['"a" & b', "c"])}
    explore.explore("test", "One grey value.", lambda value, kind: flat(value), controls)
    explorer = explore.live["test"]

    def told():
        return json.loads(html.unescape(re.search('data-drawn="(.*?)"', explorer.reading.value)[1]))

    assert told() == [0, '"a" & b']
    controls["value"].value = 13  # which can't be drawn
    assert told() == [13, '"a" & b']
    controls["kind"].value = "c"
    assert told() == [13, "c"]


def test_a_row_of_digits_has_its_label_on_its_left():
    images, labels = torch.rand(6, 784, generator=seeded(0)), ["first", "second, longer"]
    plain, labelled = grey(explore.digits(images, 3, pixel=4)), grey(explore.digits(images, 3, labels, pixel=4))
    left = labelled[:, : -plain.shape[1]]
    assert (labelled[:, -plain.shape[1] :] == plain).all()
    for half in np.split(left, 2):
        dark = np.flatnonzero((half < 128).any(1))
        assert (dark[0] + dark[-1]) / 2 == pytest.approx(28 * 4 / 2, abs=4)  # in the middle of its row
        assert (half[:, [0, -1]] == 255).all()  # not cut off


def test_a_value_that_the_page_sends_with_a_rounding_error_is_drawn_as_the_step_where_the_slider_stands():
    drawn = []
    explorer = show(lambda value: (drawn.append(value), flat(value))[1])
    explorer.controls["value"].value = 40.99999999999999
    assert drawn == [0, 41]


# ---------------------------------------------------------------- the newest value, and errors


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({1: [2, 3, 4]}, [0, 1, 4], id="several"),
        pytest.param({1: [2], 2: [3]}, [0, 1, 2, 3], id="in the additional drawing too"),
        pytest.param({0: [5]}, [0, 5, 1], id="in the first drawing"),
        pytest.param({1: [13], 13: [2]}, [0, 1, 13, 2], id="in a drawing that fails"),
    ],
)
def test_changes_during_a_drawing_are_answered_by_one_more_with_the_newest_value(changes, expected):
    control, drawn = slider(), []

    def draw(value):
        drawn.append(value)
        for newer in changes.get(value, []):
            control.value = newer
        return flat(value)

    show(draw, value=control)
    control.value = 1
    assert drawn == expected
    assert_shows(expected[-1])


def test_a_change_of_one_control_draws_once_with_the_values_of_all():
    drawn = []
    explorer = show(lambda a, b: (drawn.append((a, b)), flat(0))[1], a=slider(), b=slider())
    explorer.controls["a"].value = 1
    explorer.controls["b"].value = 2
    assert drawn == [(0, 0), (1, 0), (1, 2)]


def test_what_a_later_drawing_raises_is_said_as_an_alert_and_the_next_good_value_heals_it():
    explorer = show(flat)
    explorer.controls["value"].value = 13
    assert read(explorer) == '<b role="alert">RuntimeError: no &lt;b&gt;digit&lt;/b&gt; &amp; no code</b>'
    explorer.controls["value"].value = 2
    assert_shows(2)


def test_an_error_of_the_newest_value_is_what_stays():
    control = slider()

    def draw(value):
        if value == 2:
            control.value = 13
        return flat(value)

    explorer = show(draw, value=control)
    control.value = 2
    assert "RuntimeError: no" in explorer.reading.value


def test_an_interrupted_drawing_does_not_keep_later_ones_from_being_seen():
    explorer = show(flat)
    with pytest.raises(KeyboardInterrupt):
        explorer.controls["value"].value = 99
    explorer.controls["value"].value = 2
    assert_shows(2)


def test_what_the_first_drawing_raises_is_raised_and_leaves_no_half_made_widget(shown):
    before = models()
    with pytest.raises(ZeroDivisionError):
        show(lambda value: 1 / 0)
    assert (explore.live, shown, models()) == ({}, [], before)


# ---------------------------------------------------------------- a cell that is run again


def test_running_a_cell_again_adds_no_model_and_closing_takes_all_away():
    before, counts = models(), []
    for _ in range(3):
        controls = {"value": slider(), "kind": explore.choice("kind", range(3))}
        draw, buttons = lambda value, kind: flat(value), Counter().buttons
        explore.explore("test", "One grey value.", draw, controls, play="value", buttons=buttons)
        explorer = explore.live["test"]
        counts.append(len(models()))
    assert len({*counts}) == 1
    explorer.close()
    assert models() == before


def test_a_replaced_widget_is_forgotten_with_all_that_it_drew_from():
    counter = Counter()
    explorer = counter.show()
    first = [weakref.ref(own) for own in (explorer, counter, explorer.controls["value"])]
    del explorer, counter
    show(flat)
    gc.collect()
    assert [own() for own in first] == [None] * 3


def test_a_packed_picture_is_the_same_when_it_is_read():
    picture = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    assert (grey(explore.pack(picture)) == np.asarray(picture)).all()


def test_a_still_picture_is_an_output_of_its_own_and_then_comes_the_sentence(shown):
    explore.show_still(explore.pack(Image.new("L", (300, 200))), "1-a", "A plane.", scale=1.5)
    still, sentence = shown
    assert still.metadata["image/png"] == {"width": 200, "alt": "A plane."}
    assert sentence.content["text/plain"] == explore.SENTENCE
