"""Figures: what is saved, what is displayed, and that the pictures show the numbers they were given."""

import io
import subprocess
import sys

import matplotlib.pyplot as plt
import pytest
import torch
from conftest import seeded
from matplotlib.colors import to_hex
from matplotlib.markers import MarkerStyle
from PIL import Image as Picture
from PIL import ImageChops

from gm_helpers import figures


@pytest.fixture(autouse=True)
def style(shown):
    with plt.rc_context():
        figures.use_style()
        yield


def line():
    figure, axis = plt.subplots(figsize=(4, 3))
    axis.plot([1, 2], [3, 4])
    return figure


@pytest.mark.slow
def test_importing_the_figures_changes_no_setting_of_matplotlib():
    code = "import matplotlib as m; before = {**m.rcParams}; import gm_helpers.figures; print({**m.rcParams} == before)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True\n"


def test_the_style_is_the_course_s_once_it_is_asked_for():
    assert {name: plt.rcParams[name] for name in figures.STYLE} == figures.STYLE


def test_lines_of_different_colours_differ_in_style_too():
    styles = figures.STYLE["axes.prop_cycle"].by_key()
    assert len(set(map(str, styles["linestyle"]))) == len({*styles["color"]}) == len(figures.COLOURS)


def test_a_shown_figure_is_displayed_and_saved_with_its_alternative_text(shown, tmp_path):
    figures.show(line(), "1.1-line", str(tmp_path), "A rising line.")
    [own], png = shown, tmp_path / "1.1-line.png"
    assert own.content == {"image/png": png.read_bytes(), "text/plain": "Figure 1.1-line\nA rising line."}
    assert own.metadata == {"image/png": {"width": 400, "alt": "A rising line."}}
    assert own.raw
    assert {*tmp_path.iterdir()} == {png, png.with_suffix(".txt")}
    assert png.with_suffix(".txt").read_text() == "A rising line.\n"
    with Picture.open(png) as picture:
        assert picture.size == (600, 450)
        assert picture.text == {"Description": "A rising line."}  # no version of a program: new ones draw the same


@pytest.mark.parametrize("name", ["../up", "a/b", "/a", "", ".hidden", "a b", 'a"b', "..", "-out"])
def test_a_figure_whose_name_is_none_of_a_file_in_the_folder_is_refused(shown, tmp_path, name):
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="can't be a figure's name"):
        figures.show(line(), name, str(tmp_path / "in"), "A rising line.")
    assert list(tmp_path.rglob("*")) == [tmp_path / "in"]
    assert shown == []


def test_the_same_figure_gives_the_same_bytes(shown):
    for _ in range(2):
        figures.show(line(), "1-a", alt="A rising line.")
    assert shown[0].content == shown[1].content


def test_the_alternative_text_of_a_figure_of_the_notebooks_is_the_one_of_its_name(shown):
    figures.show(line(), "1.13-curves")
    assert shown[0].metadata["image/png"]["alt"].startswith("Training and validation curves")


def test_a_figure_without_an_alternative_text_is_refused_by_its_name(shown):
    with pytest.raises(ValueError, match="the figure '7-toy' has no alternative text"):
        figures.show(line(), "7-toy")
    assert shown == []


def test_without_a_folder_nothing_is_saved_and_the_figure_is_closed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    figures.show(line(), "1.1-line", alt="A rising line.")
    assert list(tmp_path.iterdir()) == []
    assert plt.get_fignums() == []


def test_a_palette_changes_no_colour_visibly(tmp_path):
    """256 grey levels and eight colours of lines: no pixel of the file differs by more than 1/32 from matplotlib's."""
    figure, (left, right) = plt.subplots(1, 2)
    left.imshow([[level / 255 for level in range(256)]], cmap="gray", aspect="auto")
    right.plot([[0] * 8, [1] * 8], [range(8), range(8)])
    plain = io.BytesIO()
    figure.savefig(plain, format="png")
    figures.show(figure, "a", str(tmp_path), "Greys and lines.")
    with Picture.open(tmp_path / "a.png") as saved, Picture.open(plain) as drawn:
        assert saved.mode == "P"
        difference = ImageChops.difference(saved.convert("RGB"), drawn.convert("RGB"))
        assert max(high for _, high in difference.getextrema()) <= 8


def test_a_grey_picture_keeps_its_greys_and_gets_its_text():
    greys, plain = Picture.new("L", (256, 2)), io.BytesIO()
    greys.putdata([*range(256)] * 2)
    greys.save(plain, "png")
    with Picture.open(io.BytesIO(figures.with_palette(plain, "All greys."))) as saved:
        assert (saved.mode, saved.text) == ("L", {"Description": "All greys."})
        assert saved.tobytes() == bytes(range(256)) * 2


def test_each_code_is_drawn_at_its_place_as_its_digit_in_its_colour():
    axis = plt.figure().subplots()
    codes, labels = torch.randn(50, 2, generator=seeded(0)).requires_grad_(), torch.arange(50) % 10
    figures.draw_classes(axis, codes, labels)
    for digit, drawn in enumerate(axis.collections):
        assert drawn.get_offsets().data == pytest.approx(codes[digit::10].detach().numpy())
        assert to_hex(drawn.get_facecolor()[0]) == figures.CLASS_COLOURS[digit].lower()
        [path], style = drawn.get_paths(), MarkerStyle(f"${digit}$")
        assert path.vertices == pytest.approx(style.get_path().transformed(style.get_transform()).vertices)
    assert len({*figures.CLASS_COLOURS}) == len(axis.collections) == 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_images_as_models_return_them_stand_in_reading_order_neither_turned_nor_rescaled(dtype):
    images = torch.rand(6, 1, 28, 28, generator=seeded(0)).to(dtype).requires_grad_()
    axis = plt.figure().subplots()
    figures.draw_images(axis, images, columns=3)
    [drawn] = axis.images
    expected = torch.cat([torch.cat([*row], dim=2) for row in images.detach().float().split(3)], dim=1)[0]
    assert (drawn.get_array().filled() == expected.numpy()).all()
    assert (drawn.get_clim(), drawn.get_cmap()(1.0)[:3]) == ((0, 1), (1, 1, 1))
    assert not axis.axison


def test_rows_of_images_have_their_labels_and_one_scale_and_fill_the_page():
    figure = figures.image_rows({"first": torch.zeros(9, 784), "second": torch.zeros(3, 784)}, columns=3, width=4.0)
    assert [axis.get_title() for axis in figure.axes] == ["first", "second"]
    assert [axis.images[0].get_array().shape for axis in figure.axes] == [(84, 84), (28, 84)]
    figure.canvas.draw()
    widths = [axis.get_window_extent().width / figure.dpi for axis in figure.axes]
    assert widths == pytest.approx([4.0, 4.0], rel=0.05)


def test_curves_draw_both_splits_of_one_player_against_the_step():
    history = [
        {"step": 10, "train": {"b": {"loss": 0.0}, "a": {"loss": 5.0, "kl": 1.0}}},  # a step without validation
        {"step": 20, "train": {"b": {"loss": 0.0}, "a": {"loss": 3.0, "kl": 2.0}}, "val": {"a": {"loss": 4, "kl": 6}}},
        {"step": 30, "train": {"b": {"loss": 0.0}, "a": {"loss": 2.0, "kl": 3.0}}, "val": {"a": {"loss": 3, "kl": 7}}},
    ]
    axes = plt.figure().subplots(1, 2)
    figures.curves(history, "a", {"loss": "loss (nats)", "kl": "KL (nats)"}, axes)
    loss, kl = [{(own.get_label(), own.get_linestyle()): own.get_xydata().tolist() for own in a.lines} for a in axes]
    assert loss == {("training", "-"): [[10, 5], [20, 3], [30, 2]], ("validation", "--"): [[20, 4], [30, 3]]}
    assert kl == {("training", "-"): [[10, 1], [20, 2], [30, 3]], ("validation", "--"): [[20, 6], [30, 7]]}
    assert [own.get_ylabel() for own in axes] == ["loss (nats)", "KL (nats)"]
    assert [text.get_text() for text in axes[1].get_legend().get_texts()] == ["training", "validation"]


class Taught:
    def method(self):
        return "shown"


def test_shown_source_is_that_of_each_function_and_starts_at_the_margin(shown):
    figures.show_source(line, Taught.method)
    first, second = [own.content.data for own in shown]
    assert first.startswith("```python\ndef line():\n    figure, axis")
    assert second == '```python\ndef method(self):\n    return "shown"\n```'


def test_a_png_is_shown_with_the_width_of_its_pixels_by_the_scale(shown, tmp_path):
    picture = io.BytesIO()
    Picture.new("L", (300, 200)).save(picture, "png")
    figures.show_png(picture.getvalue(), "1-a", "A plane.", str(tmp_path), scale=2)
    assert shown[0].content["image/png"] == picture.getvalue() == (tmp_path / "1-a.png").read_bytes()
    assert shown[0].metadata == {"image/png": {"width": 150, "alt": "A plane."}}
