"""Widgets without a browser: controls are set as a frontend sets them, and what would be seen is read back."""

import base64
import gc
import html
import io
import json
import re
import threading
import weakref
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import NoFloat64, random_images, random_vae, randomized, seeded
from ipywidgets.widgets.widget import _instances as models
from PIL import Image
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close
from traitlets import TraitError

from gm_helpers import figures, widgets
from gm_helpers.flows import flow_2d

VIEW = "application/vnd.jupyter.widget-view+json"


def draws(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=seeded(seed))


DECODER = draws(3, 784, seed=1)
CODES = draws(10, 3, seed=2)
SPHERE = 3 * CODES / CODES.norm(dim=1, keepdim=True)  # codes of equal norm
FLOW = randomized(flow_2d(couplings=5, hidden=8)).float()
POINTS = draws(40, 2, seed=3).float()
STAGES = {1.0: draws(30, 2, seed=4), 0.0: draws(30, 2, seed=5), 0.25: draws(30, 2, seed=6)}
CENTRES = draws(8, 2, seed=7)
PRIOR = {"square": draws(4, 3, seed=8), "flat": draws(4, 3, seed=9)}
PLANE = draws(30, 2, seed=10), torch.arange(30) % 10


def decode(z):
    return (z @ DECODER).sigmoid()


def decode_square(z):
    return (1 - decode(z)).view(-1, 1, 28, 28)


WIDGETS = {
    "two_normals": widgets.two_normals,
    "generator_losses": widgets.generator_losses,
    "stretched_density": widgets.stretched_density,
    "warped_plane": lambda folder="": widgets.warped_plane(FLOW, POINTS, folder),
    "samples_over_training": lambda folder="": widgets.samples_over_training(STAGES, CENTRES, folder),
    "interpolation": lambda folder="": widgets.interpolation("a-path", CODES, decode, folder),
    "temperature": lambda folder="": widgets.temperature({"square": decode_square, "flat": decode}, PRIOR, folder),
}
PAGES = {
    "latent_pad": lambda folder="": widgets.latent_pad(random_vae(2), *PLANE, folder),
    "latent_sliders": lambda folder="": widgets.latent_sliders(
        random_vae(4), random_images(6), torch.arange(6), folder
    ),
}
every_widget = pytest.mark.parametrize("show", WIDGETS.values(), ids=WIDGETS)
every_page = pytest.mark.parametrize("show", PAGES.values(), ids=PAGES)
every_output = pytest.mark.parametrize("show", (WIDGETS | PAGES).values(), ids=WIDGETS | PAGES)


@pytest.fixture(autouse=True)
def shown(monkeypatch):
    """What `display` was given; the widgets of a test are closed after it."""
    calls = []
    monkeypatch.setattr(
        widgets, "display", lambda content, **how: calls.append(SimpleNamespace(content=content, **how))
    )
    yield calls
    while widgets.live:
        widgets.live.popitem()[1].close()
    plt.close("all")


def flat(value):
    """A PNG of one grey value."""
    return widgets.digits(torch.full((1, 784), value / 255), 1)


@pytest.fixture
def unpainted(monkeypatch):
    """Figures are drawn, but not painted, which is what takes the time."""

    def png(picture):
        if isinstance(picture, bytes):
            return picture
        plt.close(picture)
        return flat(0)

    monkeypatch.setattr(widgets, "_png", png)


unseen = pytest.mark.usefixtures("unpainted")


def only():
    [explorer] = widgets.live.values()
    return explorer


def set_to(**values):
    """Set the controls of the only widget; returns what its line then reads."""
    for name, value in values.items():
        only().controls[name].value = value
    return html.unescape(only().reading.value)


def numbers(reading):
    return [float(own) for own in re.findall(r"(?<= )-?\d+(?:\.\d+)?", reading)]


def to_three_decimals(*values):
    return pytest.approx([float(own) for own in values], abs=5.01e-4)


def axes(**values):
    """The axes of the figure that the only widget draws for these values."""
    return only().draw(**values)[0].axes


def grey(png):
    with Image.open(io.BytesIO(png)) as picture:
        assert (picture.format, picture.mode) == ("PNG", "L")
        return np.asarray(picture)


def enlarged(rows):
    """Grey values of rows of images in [0, 1], (N, …) each, as a screen shows them."""
    tiles = np.block([[np.rint(255 * image.numpy()).reshape(28, 28) for image in row] for row in rows])
    return np.kron(tiles, np.ones((widgets.PIXEL, widgets.PIXEL)))


def assert_seen(*rows):
    assert np.array_equal(grey(only().picture.value), enlarged(rows))


# ---------------------------------------------------------------- what each shows


@unseen
@pytest.mark.parametrize(("mean", "std"), [(1, 0.5), (0, 1), (-4, 0.05), (4, 4)])
def test_two_normals_read_their_divergence_as_torch_does(mean, std):
    widgets.two_normals()
    divergence = kl_divergence(Normal(float(mean), std), Normal(0.0, 1.0))
    assert numbers(set_to(mean=mean, std=std)) == to_three_decimals(divergence, mean, std)


@unseen
def test_two_normals_are_drawn_with_the_densities_of_torch():
    widgets.two_normals()
    [axis] = axes(mean=-1.0, std=0.5)
    for line, normal in zip(axis.lines, [Normal(0.0, 1.0), Normal(-1.0, 0.5)], strict=True):
        x, density = (torch.as_tensor(own) for own in line.get_data())
        assert_close(density, normal.log_prob(x).exp())


@unseen
@pytest.mark.parametrize("logit", [-8, -4, 0, 2.5, 8])
def test_the_generator_s_losses_read_their_values_and_slopes_from_probabilities(logit):
    widgets.generator_losses()
    p = 1 / (1 + np.exp(-logit))
    assert numbers(set_to(logit=logit)) == to_three_decimals(p, np.log(1 - p), -p, -np.log(p), -(1 - p))


@unseen
def test_each_of_the_generator_s_losses_is_drawn_with_its_point_and_tangent():
    widgets.generator_losses()
    lines, p = axes(logit=1.0)[0].lines, 1 / (1 + np.exp(-1))
    cases = [(lines[:3], lambda q: np.log(1 - q), -p), (lines[3:], lambda q: -np.log(q), -(1 - p))]
    for (curve, tangent, point), loss, slope in cases:
        a, value = curve.get_data()
        assert value == pytest.approx(loss(1 / (1 + np.exp(-a.astype(float)))), abs=1e-5)
        assert point.get_xydata() == pytest.approx(np.array([[1, loss(p)]]))
        expected = [[-0.5, loss(p) - 1.5 * slope], [2.5, loss(p) + 1.5 * slope]]
        assert tangent.get_xydata() == pytest.approx(np.array(expected), abs=1e-5)


@unseen
@pytest.mark.parametrize(("steepness", "centre"), [(4, 0), (0, 1), (9, 2), (9, -2)])
def test_a_stretched_density_reads_the_flattest_and_the_steepest_slope_and_keeps_its_area(steepness, centre):
    widgets.stretched_density()
    far = max(abs(5 - centre), abs(-5 - centre))
    steepest = 1 / (1 + steepness * (1 - np.tanh(far) ** 2))
    expected = to_three_decimals(1 / (1 + steepness), steepest, 1)
    assert numbers(set_to(steepness=steepness, centre=centre)) == expected


@unseen
def test_a_stretched_density_is_the_normal_one_times_the_slope_of_its_map():
    widgets.stretched_density()
    left, right = axes(steepness=3.0, centre=0.5)
    x, z = left.lines[0].get_data()
    assert_close(x, z + 3 * np.tanh(z - 0.5))
    expected = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * np.gradient(z, x)
    assert right.lines[0].get_xydata()[5:-5] == pytest.approx(np.stack([x, expected], 1)[5:-5], abs=1e-4)


def after(depth, x):
    for layer in FLOW.bijection.layers[:depth]:
        x = layer(x)[0]
    return x


@unseen
@pytest.mark.parametrize("depth", range(6))
def test_a_warped_plane_reads_the_mean_log_determinant_of_the_layers_so_far(depth):
    widgets.warped_plane(FLOW, POINTS)
    jacobians = torch.func.vmap(torch.func.jacrev(lambda x: after(depth, x[None])[0]))(POINTS)
    assert numbers(set_to(depth=depth)) == to_three_decimals(depth, jacobians.detach().det().abs().log().mean())


@unseen
def test_points_and_grid_of_the_plane_are_carried_through_the_same_layers():
    widgets.warped_plane(FLOW, POINTS)
    [before], [axis] = axes(depth=0), axes(depth=3)
    assert_close(torch.as_tensor(axis.collections[0].get_offsets().data), after(3, POINTS).detach().double())
    for straight, bent in zip(before.lines, axis.lines, strict=True):
        line = torch.as_tensor(straight.get_xydata()).float()
        assert (line - line[0]).abs().amin(1).max() < 1e-6
        assert_close(torch.as_tensor(bent.get_xydata()).float(), after(3, line).detach(), atol=1e-5, rtol=1e-5)
    assert len(axis.lines) == 50


@unseen
def test_a_plane_may_be_of_any_floating_type():
    widgets.warped_plane(randomized(flow_2d(couplings=5, hidden=8)), POINTS.double())
    assert only().reading.value.startswith("after 4 layers")


@unseen
def test_the_plane_s_depth_goes_from_no_layer_to_all():
    widgets.warped_plane(FLOW, POINTS)
    assert [numbers(set_to(depth=depth))[0] for depth in (99, -1)] == [5, 0]


@unseen
def test_samples_over_training_come_in_the_order_of_the_training_and_start_at_its_end():
    widgets.samples_over_training(STAGES, CENTRES)
    seen = [set_to(), *(set_to(stage=stage) for stage in range(3))]
    assert seen == [f"after {percent} % of the steps" for percent in (100, 0, 25, 100)]
    for stage, fraction in enumerate((0.0, 0.25, 1.0)):
        modes, samples = (own.get_offsets().data for own in axes(stage=stage)[0].collections)
        assert (modes == CENTRES.numpy()).all()
        assert (samples == STAGES[fraction].numpy()).all()


def spherical(start, end, t):
    """The rotation from one code to another of the same norm, by t of their angle."""
    across = end - (end @ start) / (start @ start) * start
    angle = t * torch.atan2(across.norm(), (end @ start) / start.norm())
    return start * angle.cos() + across / across.norm() * start.norm() * angle.sin()


@pytest.mark.parametrize("path", [decode, decode_square])
@pytest.mark.parametrize("way", ["straight", "spherical"])
@pytest.mark.parametrize("t", [0, 0.3, 1])
def test_an_interpolation_shows_exactly_what_the_model_decodes(path, way, t):
    widgets.interpolation("a-path", SPHERE, path)
    start, end = SPHERE[3], SPHERE[8]
    between = spherical(start, end, torch.tensor(t)) if way == "spherical" else (1 - t) * start + t * end
    reading = set_to(start=3, end=8, way=way, fraction=t)
    assert_seen(path(torch.stack([start, between, end])))
    assert reading == f"norms of the codes: 3.0, {between.norm():.1f}, 3.0"


def test_an_interpolation_starts_half_way_from_a_2_to_a_7():
    widgets.interpolation("a-path", CODES, decode)
    assert_seen(decode(torch.stack([CODES[2], (CODES[2] + CODES[7]) / 2, CODES[7]])))


def test_the_norms_are_read_in_the_order_of_the_images():
    widgets.interpolation("a-path", CODES, decode)
    expected = [CODES[2].norm().item(), ((CODES[2] + CODES[7]) / 2).norm().item(), CODES[7].norm().item()]
    assert len({round(own, 1) for own in expected}) == 3
    assert numbers(set_to()) == pytest.approx(expected, abs=0.051)


@pytest.mark.parametrize("t", [0, 0.3, 1])
def test_from_a_digit_to_itself_both_ways_stay_there(t):
    widgets.interpolation("a-path", CODES, decode)
    for way in ("straight", "spherical"):
        reading = set_to(start=4, end=4, way=way, fraction=t)
        assert numbers(reading) == pytest.approx([CODES[4].norm().item()] * 3, abs=0.051)
        assert_seen(decode(CODES[[4, 4, 4]]))


def test_a_spherical_path_keeps_the_norm_where_the_straight_one_is_shorter():
    widgets.interpolation("a-path", SPHERE, decode)
    straight, curved = (numbers(set_to(fraction=0.5, way=way)) for way in ("straight", "spherical"))
    assert curved == [3.0, 3.0, 3.0]
    assert straight[1] < 3


@pytest.mark.parametrize("name", ["start", "end", "way"])
def test_what_is_not_in_the_list_is_refused_and_nothing_changes(name):
    widgets.interpolation("a-path", CODES, decode)
    before = only().picture.value, only().reading.value
    with pytest.raises(TraitError):
        set_to(**{name: 10})
    assert (only().picture.value, only().reading.value) == before


@pytest.mark.parametrize(("asked", "factor"), [(0.7, 0.7), (0, 0), (1, 1), (-1, 0), (9, 1.5)])
def test_a_temperature_multiplies_the_codes_of_every_model_exactly(asked, factor):
    WIDGETS["temperature"]()
    reading = set_to(factor=asked)
    assert_seen(decode_square(factor * PRIOR["square"]), decode(factor * PRIOR["flat"]))
    assert reading == f"T = {factor:.2f}; rows: square, flat"


def test_digits_stand_in_reading_order_rounded_and_within_0_and_255():
    images = 0.5 + 0.5 * draws(6, 1, 28, 28)
    expected = enlarged(images.clamp(0, 1).split(3))
    assert (images.min(), images.max()) < (0, 1) < (images.max(), np.inf)
    assert np.array_equal(grey(widgets.digits(images.float().requires_grad_(), columns=3)), expected)


# ---------------------------------------------------------------- what all share


@unseen
@every_widget
def test_every_control_has_a_name_a_hint_and_a_readout_as_fine_as_its_steps(show):
    show()
    for control in only().controls.values():
        assert control.description == control.tooltip != ""
        if hasattr(control, "step"):
            assert float(format(control.step, control.readout_format)) == control.step


@every_widget
def test_every_control_changes_the_picture_and_back_gives_the_same_bytes(show):
    show()
    first = only().picture.value, only().reading.value
    for name, control in only().controls.items():
        own = control.value
        others = control.options if hasattr(control, "options") else (control.min, control.max)
        set_to(**{name: next(other for other in others if other != own)})
        assert only().picture.value != first[0]
        set_to(**{name: own})
        assert (only().picture.value, only().reading.value) == first


@unseen
@every_widget
@pytest.mark.parametrize("end", ["min", "max"])
def test_beyond_its_ends_a_slider_stops_and_the_reading_is_still_finite(show, end):
    show()
    ends = {name: getattr(own, end) for name, own in only().controls.items() if hasattr(own, end)}
    reading = set_to(**dict.fromkeys(ends, {"min": -1e9, "max": 1e9}[end]))
    assert {name: only().controls[name].value for name in ends} == ends
    assert not re.search(r"\bnan\b|\binf\b|alert|Error", reading)


@every_widget
def test_the_line_is_what_the_drawing_says_and_no_figure_stays_open(show):
    show()
    assert plt.get_fignums() == []
    assert set_to() == only().draw(**{name: own.value for name, own in only().controls.items()})[1]


@unseen
@every_widget
def test_the_output_holds_the_live_widget_with_controls_line_and_picture(show, shown):
    show()
    [box] = [models[call.content[VIEW]["model_id"]] for call in shown if VIEW in call.content]
    assert box is only().box
    assert list(box.children) == [*only().controls.values(), only().reading, only().picture]


@every_output
def test_the_output_holds_a_picture_and_its_alternative_text_and_both_are_saved(show, shown, tmp_path):
    show(str(tmp_path))
    call = shown[0]
    assert call.raw
    assert isinstance(call.content["image/png"], bytes)
    with Image.open(io.BytesIO(call.content["image/png"])) as picture:
        picture.load()
    [png], [txt] = tmp_path.glob("*.png"), tmp_path.glob("*.txt")
    assert png.stem == txt.stem
    assert png.read_bytes() == call.content["image/png"]
    assert txt.read_text() == call.content["text/plain"] + "\n"
    assert len(call.content["text/plain"]) >= 30


@unseen
@every_output
def test_the_picture_s_metadata_carry_the_alternative_text_as_those_of_other_figures_do(show, shown):
    show()
    call = shown[0]
    assert call.metadata["image/png"]["alt"] == call.content["text/plain"]


@unseen
@every_output
def test_without_a_folder_nothing_is_saved(show, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    show()
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- the newest value, and errors


def explore(draw, *names):
    """A widget with sliders from 0 to 255, by default one named `value`."""
    controls = {name: widgets.slider(name, 0, 0, 255, 1) for name in names or ["value"]}
    widgets.explore("test", "One grey value.", draw, controls)


def reactive(during):
    """A draw of grey values, during whose first `during[value]` is called; and the list of the values drawn."""
    drawn = []

    def draw(value):
        drawn.append(value)
        during.pop(value, lambda: None)()
        return flat(value), f"{value:.0f}"

    return draw, drawn


def assert_shows(value):
    assert only().reading.value == f"{value}"
    assert (grey(only().picture.value) == value).all()


def test_changes_during_a_drawing_are_answered_by_one_more_with_the_newest_value():
    draw, drawn = reactive({1: lambda: [set_to(value=value) for value in (2, 3, 4)]})
    explore(draw)
    set_to(value=1)
    assert drawn == [0, 1, 4]
    assert_shows(4)


def test_a_change_during_the_additional_drawing_is_answered_too():
    draw, drawn = reactive({1: lambda: set_to(value=2), 2: lambda: set_to(value=3)})
    explore(draw)
    set_to(value=1)
    assert drawn == [0, 1, 2, 3]
    assert_shows(3)


def test_a_change_from_another_thread_during_a_drawing_is_not_lost():
    def elsewhere():
        thread = threading.Thread(target=set_to, kwargs={"value": 2})
        thread.start()
        thread.join()

    draw, drawn = reactive({1: elsewhere})
    explore(draw)
    set_to(value=1)
    assert drawn == [0, 1, 2]
    assert_shows(2)


def test_a_change_during_the_first_drawing_is_not_lost():
    slider = widgets.slider("value", 0, 0, 255, 1)
    draw, drawn = reactive({0: lambda: setattr(slider, "value", 5)})
    widgets.explore("test", "", draw, {"value": slider})
    assert drawn == [0, 5]
    assert_shows(5)


def test_a_change_of_one_control_draws_once_with_the_values_of_all():
    drawn = []
    explore(lambda a, b: (drawn.append((a, b)), (flat(0), ""))[1], "a", "b")
    set_to(a=1, b=2)
    assert drawn == [(0, 0), (1, 0), (1, 2)]


def test_the_static_picture_is_the_first_state_whatever_follows(shown):
    explore(reactive({})[0])
    set_to(value=7)
    assert (grey(shown[0].content["image/png"]) == 0).all()
    assert_shows(7)


def failing(value):
    if value == 1:
        raise ValueError("no <b>digit</b> & no code")
    return flat(value), f"{value:.0f}"


def test_what_a_later_drawing_raises_is_said_as_an_alert_and_the_next_good_value_heals_it():
    explore(failing)
    set_to(value=1)
    alert = '<span role="alert"><b>ValueError: no &lt;b&gt;digit&lt;/b&gt; &amp; no code</b></span>'
    assert only().reading.value == alert
    set_to(value=2)
    assert_shows(2)


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError(""), OSError(5, "gone"), ZeroDivisionError()])
def test_no_kind_of_error_leaves_a_drawing(error):
    def draw(value):
        if value:
            raise error
        return flat(value), ""

    explore(draw)
    assert f"{type(error).__name__}: {error}" in set_to(value=1)


def test_a_reading_is_text_and_not_html():
    explore(lambda value: (flat(value), "KL < 2 & <b>σ</b>"))
    assert only().reading.value == "KL &lt; 2 &amp; &lt;b&gt;σ&lt;/b&gt;"


def test_an_error_of_the_newest_value_is_what_stays():
    def draw(value):
        if value == 2:
            set_to(value=1)
        return failing(value)

    explore(draw)
    assert "ValueError" in set_to(value=2)


def test_an_error_of_an_outdated_value_does_not_keep_the_newest_from_being_seen():
    def draw(value):
        if value == 1:
            set_to(value=2)
        return failing(value)

    explore(draw)
    set_to(value=1)
    assert_shows(2)


def test_an_interrupted_drawing_does_not_keep_later_ones_from_being_seen():
    def draw(value):
        if value == 1:
            raise KeyboardInterrupt
        return flat(value), f"{value:.0f}"

    explore(draw)
    with pytest.raises(KeyboardInterrupt):
        set_to(value=1)
    set_to(value=2)
    assert_shows(2)


def test_what_the_first_drawing_raises_is_raised_and_nothing_is_shown(shown):
    with pytest.raises(ZeroDivisionError):
        explore(lambda value: 1 / 0)
    assert (widgets.live, shown) == ({}, [])


def test_what_the_first_drawing_raises_leaves_no_half_made_widget():
    before = set(models)
    with pytest.raises(ZeroDivisionError):
        explore(lambda value: 1 / 0)
    assert set(models) == before


# ---------------------------------------------------------------- a cell that is run again


@unseen
@every_widget
def test_running_a_cell_again_adds_no_model_and_closing_takes_all_away(show):
    before, counts = set(models), []
    for _ in range(4):
        show()
        counts.append(len(models))
    assert len(set(counts)) == 1
    only().close()
    assert set(models) == before


def test_a_second_call_with_the_same_name_shows_a_new_widget_and_silences_the_first():
    draw, drawn = reactive({})
    explore(draw)
    first = only()
    explore(draw)
    assert only() is not first
    first.controls["value"].value = 7
    assert drawn == [0, 0]
    assert first.box.comm is None


def test_calls_with_different_names_live_side_by_side():
    for name in ("2.7", "1.9"):
        widgets.interpolation(name, CODES, decode)
    assert list(widgets.live) == ["2.7", "1.9"]
    assert all(own.box.comm for own in widgets.live.values())


def test_a_replaced_widget_is_forgotten_with_all_that_it_drew_from():
    explore(lambda value: (flat(value), ""))
    first = [weakref.ref(own) for own in (only(), only().draw, only().controls["value"])]
    explore(lambda value: (flat(value), ""))
    gc.collect()
    assert [own() for own in first] == [None] * 3


@unseen
@every_widget
def test_no_widget_starts_a_thread(show):
    before = threading.active_count()
    show()
    set_to(**{name: own.max for name, own in only().controls.items() if hasattr(own, "max")})
    assert threading.active_count() == before


# ---------------------------------------------------------------- pages that decode by themselves


class Page(HTMLParser):
    """The page of the last output: its tags with their attributes, the script, and what `start` is given."""

    def __init__(self, shown):
        super().__init__()
        self.content, self.tags, self.script = shown[-1].content, [], ""
        self.feed(self.content["text/html"])
        call = re.search(r"^start\((.+?), (\w+), (\{.*\})\);$", self.script, flags=re.MULTILINE)
        self.name, self.kind, self.data = json.loads(call[1]), call[2], json.loads(call[3])

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, text):
        self.script += text if self.cdata_elem == "script" else ""


@every_page
def test_a_page_is_a_static_picture_with_alternative_text_and_a_script(show, shown):
    show()
    page = Page(shown)
    (div, around), (img, picture), (script, plain) = page.tags
    assert (div, img, script, plain) == ("div", "img", "script", {})
    assert around == {"class": "gm-page", "data-page": page.name}
    still = base64.b64encode(page.content["image/png"]).decode()
    assert picture == {"alt": page.content["text/plain"], "src": f"data:image/png;base64,{still}"}
    assert page.content["text/html"].endswith("})();</script>")


@every_page
def test_a_page_needs_no_network(show, shown):
    show()
    page = shown[0].content["text/html"]
    assert "://" not in page
    assert not re.search(r"(?:src|href)\s*=(?!\"data:)|\burl\(|\bimport\b|\bfetch\b|XMLHttpRequest|WebSocket", page)


@every_page
def test_a_page_s_script_is_the_file_beside_the_module_and_holds_what_it_calls(show, shown):
    show()
    page = Page(shown)
    assert (Path(widgets.__file__).parent / "pad.js").read_text(encoding="utf-8").strip() in page.script
    assert f"function {page.kind}(" in page.script


def test_the_file_cannot_end_the_script(shown, monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: 'const end = "</script>";')
    widgets._page("1", "", b"", "latentPad", {}, "")
    assert Page(shown).script.endswith("})();")


def test_the_data_cannot_end_the_script(shown):
    widgets._page("1", "", b"", "latentPad", {"text": "</script><script>"}, "")
    assert Page(shown).data == {"text": "</script><script>"}


def test_a_page_s_alternative_text_may_hold_any_character(shown):
    widgets._page("1", 'a "wide" <page> & more', b"", "latentPad", {}, "")
    assert dict(Page(shown).tags)["img"]["alt"] == 'a "wide" <page> & more'


def test_a_page_s_name_may_hold_any_character_in_its_attribute(shown, monkeypatch):
    monkeypatch.setattr(widgets.figures, "static", lambda *_: {})  # which allows fewer
    widgets._page('1" onclick="x', "", b"", "latentPad", {}, "")
    assert dict(Page(shown).tags)["div"]["data-page"] == '1" onclick="x'


def test_codes_for_a_page_come_from_a_device_without_float64_too(shown):
    codes = torch.tensor([[0.123, -4.5]])
    assert widgets._rounded(codes.as_subclass(NoFloat64), 2) == [[0.12, -4.5]]


@every_page
def test_a_page_s_weights_are_those_of_the_decoder_as_little_endian_float16(show, shown, monkeypatch):
    given = []
    monkeypatch.setattr(widgets, "_decoder", lambda model, own=widgets._decoder: given.append(model) or own(model))
    show()
    [model], data = given, Page(shown).data
    latents, hidden, pixels = data["sizes"]
    assert (latents, hidden, pixels) == (model.latent_dim, 16, 784)
    words, at = np.frombuffer(base64.b64decode(data["weights"]), "<f2"), 0
    for parameter in [model.decoder[0].weight, model.decoder[0].bias, model.decoder[2].weight, model.decoder[2].bias]:
        expected = parameter.detach().float().numpy().astype(np.float16).ravel()
        assert np.array_equal(words[at : at + expected.size], expected)
        at += expected.size
    assert at == words.size


def test_a_pad_draws_the_given_codes_with_their_labels_and_colours(shown):
    codes, labels = PLANE
    widgets.latent_pad(random_vae(2), codes.clone().requires_grad_(), labels)
    page = Page(shown)
    assert (page.name, page.kind) == ("1.15-pad", "latentPad")
    assert page.data["codes"] == pytest.approx(np.round(codes.numpy(), 2), abs=1e-9)
    assert page.data["labels"] == labels.tolist()
    assert page.data["colours"] == list(figures.CLASS_COLOURS)


def test_sliders_start_from_the_posterior_means_sorted_by_how_much_each_latent_says(shown):
    model, x, labels = random_vae(4), random_images(6), torch.tensor([3, 1, 4, 1, 5, 9])
    widgets.latent_sliders(model, x, labels)
    mean, log_var = model.encode(x)
    kl = kl_divergence(Normal(mean, (log_var / 2).exp()), Normal(0.0, 1.0)).mean(0).tolist()
    page = Page(shown)
    assert (page.name, page.kind) == ("1.14-sliders", "latentSliders")
    assert page.data["kl"] == pytest.approx(kl)
    assert page.data["order"] == sorted(range(4), key=kl.__getitem__, reverse=True) != sorted(range(4))
    assert page.data["codes"] == pytest.approx(mean.detach().numpy(), abs=5.01e-4)
    assert page.data["labels"] == labels.tolist()


def test_the_picture_under_the_sliders_is_the_first_code_decoded(shown):
    model, x = random_vae(4), random_images(6)
    widgets.latent_sliders(model, x, torch.arange(6))
    expected = enlarged([model.decode(model.encode(x)[0][:1]).sigmoid().detach()])
    assert np.array_equal(grey(shown[0].content["image/png"]), expected)


def test_codes_are_written_with_no_more_digits_than_they_were_rounded_to(shown):
    widgets.latent_pad(random_vae(2), PLANE[0].float(), PLANE[1])
    widgets.latent_sliders(random_vae(4).float(), random_images(6).float(), torch.arange(6))
    for call, decimals in zip(shown, (2, 3), strict=True):
        codes = re.search(r'"codes": (\[\[.*?\]\])', call.content["text/html"])[1]
        assert max(len(own) for own in re.findall(r"\.(\d+)", codes)) <= decimals


@every_page
def test_a_page_leaves_no_figure_open_and_no_model_behind(show):
    before = set(models)
    show()
    assert plt.get_fignums() == []
    assert set(models) == before
