"""Figures: what is saved, what is displayed, and that the pictures show the numbers they were given."""

import io

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.markers import MarkerStyle
from PIL import Image as Picture
from PIL import ImageChops

from gm_helpers import figures
from gm_helpers.files import UsageError


@pytest.fixture
def shown(monkeypatch):
    """What `display` was given."""
    calls = []
    monkeypatch.setattr(figures, "display", lambda *what, **how: calls.append((*what, how)))
    return calls


def line():
    figure, axis = plt.subplots(figsize=(4, 3))
    axis.plot([1, 2], [3, 4])
    return figure


def test_a_shown_figure_is_saved_with_its_alternative_text(shown, tmp_path):
    figures.show(line(), "1.1-line", "A rising line.", str(tmp_path))
    assert sorted(own.name for own in tmp_path.iterdir()) == ["1.1-line.png", "1.1-line.txt"]
    assert (tmp_path / "1.1-line.txt").read_text() == "A rising line.\n"
    with Picture.open(tmp_path / "1.1-line.png") as picture:
        assert picture.size == (600, 450)
        assert picture.text == {"Description": "A rising line."}  # no version of a program: new ones draw the same


@pytest.mark.parametrize("name", ["../up", "a/b", "/a", "", ".hidden", "a b", 'a"b', "..", "-out"])
def test_a_figure_whose_name_is_none_of_a_file_in_the_folder_is_refused(shown, tmp_path, name):
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="can't be a figure's name"):
        figures.show(line(), name, "A rising line.", str(tmp_path / "in"))
    assert list(tmp_path.rglob("*")) == [tmp_path / "in"]
    assert shown == []


def test_the_folder_may_be_meant_from_home_and_an_address_is_none(shown, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    figures.show(line(), "1.1-line", "A rising line.", "~/figures")
    assert (tmp_path / "figures" / "1.1-line.png").exists()
    with pytest.raises(UsageError, match=r"^s3://x is an address on a network"):
        figures.show(line(), "1.1-line", "A rising line.", "s3://x")


def test_the_displayed_picture_is_the_saved_one_and_carries_its_alternative_text(shown, tmp_path):
    figures.show(line(), "1.1-line", "A rising line.", str(tmp_path))
    [(content, how)] = shown
    assert content == {"image/png": (tmp_path / "1.1-line.png").read_bytes(), "text/plain": "A rising line."}
    assert how == {"metadata": {"image/png": {"width": 400, "alt": "A rising line."}}, "raw": True}


def test_the_same_figure_gives_the_same_bytes(shown, tmp_path):
    figures.show(line(), "a", "", str(tmp_path))
    figures.show(line(), "b", "", str(tmp_path))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_without_a_folder_nothing_is_saved_and_the_figure_is_closed(shown, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    figures.show(line(), "1.1-line", "A rising line.")
    assert list(tmp_path.iterdir()) == []
    assert plt.get_fignums() == []


def test_a_palette_changes_no_colour_visibly(shown, tmp_path):
    """256 grey levels and eight colours of lines: no pixel of the file differs by more than 1/32 from matplotlib's."""
    figure, (left, right) = plt.subplots(1, 2)
    left.imshow([[level / 255 for level in range(256)]], cmap="gray", aspect="auto")
    right.plot([[0] * 8, [1] * 8], [range(8), range(8)])
    plain = io.BytesIO()
    figure.savefig(plain, format="png")
    figures.show(figure, "a", "", str(tmp_path))
    with Picture.open(tmp_path / "a.png") as saved, Picture.open(plain) as drawn:
        assert saved.mode == "P"
        difference = ImageChops.difference(saved.convert("RGB"), drawn.convert("RGB"))
        assert max(high for _, high in difference.getextrema()) <= 8


def test_each_code_is_drawn_at_its_place_as_its_digit_in_its_colour():
    figure, axis = plt.subplots()
    codes, labels = torch.randn(50, 2, requires_grad=True), torch.arange(50) % 10
    figures.draw_classes(axis, codes, labels)
    for digit, drawn in enumerate(axis.collections):
        assert drawn.get_offsets().data == pytest.approx(codes[digit::10].detach().numpy())
        assert to_hex(drawn.get_facecolor()[0]) == figures.CLASS_COLOURS[digit].lower()
        [path], style = drawn.get_paths(), MarkerStyle(f"${digit}$")
        assert path.vertices == pytest.approx(style.get_path().transformed(style.get_transform()).vertices)
    assert len({*figures.CLASS_COLOURS}) == len(axis.collections) == 10
    plt.close(figure)


def test_images_stand_in_reading_order_and_are_not_rescaled(shown):
    images = torch.linspace(0.2, 0.7, 6)[:, None].expand(6, 784)  # six flat greys
    figure, axis = plt.subplots()
    figures.draw_images(axis, images, columns=3)
    drawn = axis.images[0].get_array().filled()
    assert drawn.shape == (56, 84)
    assert drawn[::28, ::28] == pytest.approx(images[:, 0].reshape(2, 3).numpy())
    assert axis.images[0].get_clim() == (0, 1)
    assert axis.images[0].get_cmap()(1.0)[:3] == (1, 1, 1)
    assert not axis.axison
    plt.close(figure)


def test_what_a_model_returns_can_be_drawn_as_it_is():
    figure, axis = plt.subplots()
    figures.draw_images(axis, torch.full((2, 784), 0.5, dtype=torch.bfloat16, requires_grad=True), columns=2)
    assert (axis.images[0].get_array() == 0.5).all()
    plt.close(figure)


def test_an_image_is_neither_turned_nor_mirrored(shown):
    image = torch.rand(1, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    figure, axis = plt.subplots()
    figures.draw_images(axis, image, columns=1)
    assert (axis.images[0].get_array().filled() == image[0, 0].numpy()).all()
    plt.close(figure)


def test_each_row_of_images_has_its_label():
    figure = figures.image_rows({"first": torch.zeros(4, 784), "second": torch.zeros(2, 784)}, columns=2)
    assert [axis.get_title() for axis in figure.axes] == ["first", "second"]
    assert [axis.images[0].get_array().shape for axis in figure.axes] == [(56, 56), (28, 56)]
    plt.close(figure)


def test_rows_of_images_have_one_scale_and_fill_the_page():
    figure = figures.image_rows({"first": torch.zeros(9, 784), "second": torch.zeros(3, 784)}, columns=3, width=4.0)
    figure.canvas.draw()
    widths = [axis.get_window_extent().width / figure.dpi for axis in figure.axes]
    assert widths == pytest.approx([4.0, 4.0], rel=0.05)
    plt.close(figure)


def test_curves_draw_both_splits_of_one_player_against_the_step():
    history = [
        {"step": 10, "train": {"b": {"loss": 0.0}, "a": {"loss": 5.0, "kl": 1.0}}},  # a step without validation
        {"step": 20, "train": {"b": {"loss": 0.0}, "a": {"loss": 3.0, "kl": 2.0}}, "val": {"a": {"loss": 4, "kl": 6}}},
        {"step": 30, "train": {"b": {"loss": 0.0}, "a": {"loss": 2.0, "kl": 3.0}}, "val": {"a": {"loss": 3, "kl": 7}}},
    ]
    figure, axes = plt.subplots(1, 2)
    figures.curves(history, "a", {"loss": "loss (nats)", "kl": "KL (nats)"}, axes)
    loss, kl = [{(own.get_label(), own.get_linestyle()): own.get_xydata().tolist() for own in a.lines} for a in axes]
    assert loss == {("training", "-"): [[10, 5], [20, 3], [30, 2]], ("validation", "--"): [[20, 4], [30, 3]]}
    assert kl == {("training", "-"): [[10, 1], [20, 2], [30, 3]], ("validation", "--"): [[20, 6], [30, 7]]}
    assert [(own.get_xlabel(), own.get_ylabel()) for own in axes] == [
        ("training step", "loss (nats)"),
        ("training step", "KL (nats)"),
    ]
    assert [text.get_text() for text in axes[1].get_legend().get_texts()] == ["training", "validation"]
    plt.close(figure)


class Taught:
    def method(self):
        return "shown"


def test_shown_source_is_that_of_each_function_and_starts_at_the_margin(shown):
    figures.show_source(line, Taught.method)
    first, second = [content.data for content, _ in shown]
    assert first.startswith("```python\ndef line():\n    figure, axis")
    assert second == '```python\ndef method(self):\n    return "shown"\n```'


def test_lines_differ_in_style_too_and_saving_uses_the_stated_resolution():
    styles = plt.rcParams["axes.prop_cycle"].by_key()
    assert len(set(map(str, styles["linestyle"]))) == len(set(styles["color"])) == len(figures.COLOURS)
    buffer = io.BytesIO()
    figure = line()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    assert Picture.open(buffer).size[0] == 4 * figures.PIXELS_PER_INCH
