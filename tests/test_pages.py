"""Pages without a browser: what an output holds is read as HTML, and its weights decode as a page would."""

import base64
import json
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import NoFloat64, normal, random_images, random_vae, randomized, same, seeded, uniform
from test_quantize import read, small_generator
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

from gm_helpers import figures, flow_matching, pages, recipes
from gm_helpers.flows import flow_2d
from gm_helpers.nn import VelocityMLP, slerp

pytestmark = pytest.mark.usefixtures("shown")

VAES = {"latentPad": random_vae(2).float(), "latentSliders": random_vae(4).float()}
CODES, IMAGES = torch.randn(30, 2, generator=seeded(0)), random_images(6).float()
LABELS = torch.tensor([3, 1, 4, 1, 5, 9])
GENERATOR = small_generator()
GAME = SimpleNamespace(generator=SimpleNamespace(layers=GENERATOR))
NOISES, NAMED = torch.randn(60, 20, generator=seeded(2)), torch.randint(10, (60,), generator=seeded(3))
PAGES = {
    "latentPad": lambda folder="": pages.latent_pad(VAES["latentPad"], CODES, torch.arange(30) % 10, folder),
    "latentSliders": lambda folder="": pages.latent_sliders(VAES["latentSliders"], IMAGES, LABELS, folder),
    "latentWalk": lambda folder="": pages.walk(GAME, NOISES, NAMED, folder),
}
every_page = pytest.mark.parametrize("kind", PAGES)


class Page(HTMLParser):
    """The page of the last output: its tags, its script, what `start` is given; and the still picture before it."""

    def __init__(self, shown):
        super().__init__()
        self.content, self.tags, self.script = shown[-1].content, [], ""
        self.still = shown[-3]
        self.feed(self.content["text/html"])
        call = re.search(r"^start\((.+?), (\w+), (\{.*\})\);$", self.script, flags=re.MULTILINE)
        self.name, self.kind, self.data = json.loads(call[1]), call[2], json.loads(call[3])

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, text):
        self.script += text if self.cdata_elem == "script" else ""


@every_page
def test_a_page_is_an_empty_place_and_a_script_after_a_still_picture_with_alternative_text_both_saved(
    kind, shown, tmp_path
):
    PAGES[kind](str(tmp_path))
    page = Page(shown)
    png, alt = page.still.content["image/png"], page.still.metadata["image/png"]["alt"]
    assert page.tags == [("style", {}), ("div", {"class": "gm-page", "data-page": page.name}), ("script", {})]
    assert page.content["text/html"].endswith("})();</script>")
    assert len(shown) == 3
    assert len(alt) >= 30
    assert (tmp_path / f"{page.name}.png").read_bytes() == png
    assert (tmp_path / f"{page.name}.txt").read_text() == alt + "\n"


def test_what_a_page_is_given_can_be_had_without_the_page(shown):
    with torch.no_grad():
        mean, log_var = VAES["latentSliders"].encode(IMAGES)
    kl = kl_divergence(Normal(mean, (log_var / 2).exp()), Normal(0.0, 1.0)).mean(0)
    alone = {
        "latentPad": pages.pad_data(VAES["latentPad"], CODES, torch.arange(30) % 10),
        "latentSliders": pages.sliders_data(VAES["latentSliders"], mean, kl, LABELS),
        "latentWalk": pages.walk_data(GAME, NOISES, NAMED),
    }
    for kind, data in alone.items():
        PAGES[kind]()
        given = Page(shown).data
        assert data.pop("kl", []) == pytest.approx(given.pop("kl", []), rel=1e-5)
        assert data == given


ACTIVATIONS = {
    "tanh": np.tanh,
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "leaky": lambda a: np.where(a > 0, a, 0.2 * a),
}


def decoded(data: dict, z: np.ndarray) -> np.ndarray:
    """What a page decodes from codes (N, D), in numpy: (N, 784), from 0 to 255."""
    shapes = [(after, before) for before, after in zip(data["sizes"][:-1], data["sizes"][1:], strict=True)]
    halves = np.frombuffer(base64.b64decode(data["halves"]), "<f2").astype(float)
    first = [rows if "text" in data else rows * columns for rows, columns in shapes]
    lengths = [own for pair in zip(first, data["sizes"][1:], strict=True) for own in pair]
    *parts, rest = np.split(halves, np.cumsum(lengths))
    assert rest.size == 0
    weights = [own.reshape(len(own), 1) if "text" in data else own for own in parts[::2]]
    if "text" in data:
        weights = [step * own.numpy() for step, own in zip(weights, read(data["text"], shapes), strict=True)]
    for weight, bias, shape, name in zip(weights, parts[1::2], shapes, data["activations"], strict=True):
        z = ACTIVATIONS[name](z @ weight.reshape(shape).T + bias)
    return 255 * (z - data["black"]) / (1 - data["black"])


@every_page
def test_the_numbers_in_a_page_decode_as_the_model_does(kind, shown):
    PAGES[kind]()
    data = Page(shown).data
    z = torch.randn(10, data["sizes"][0], generator=seeded(1))
    with torch.no_grad():
        expected = (GENERATOR(z) + 1) / 2 if kind == "latentWalk" else VAES[kind].decode(z).sigmoid()
    assert decoded(data, z.double().numpy()) == pytest.approx(255 * expected.numpy(), abs=1)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were made into pictures, each with its bytes."""
    made, to_png = [], figures.to_png

    def recorded(figure, alt):
        png = to_png(figure, alt)
        made.append((figure, png))
        return png

    monkeypatch.setattr(figures, "to_png", recorded)
    return made


def test_a_pad_s_plane_has_its_axes_where_the_page_takes_them_to_be(shown, drawn):
    codes = CODES.clone().requires_grad_().as_subclass(NoFloat64)  # of any device
    with plt.rc_context():
        figures.use_style()
        pages.latent_pad(random_vae(2), codes, torch.arange(30) % 10, name="0-pad")
    page = Page(shown)
    assert (page.name, page.kind) == ("0-pad", "latentPad")
    (figure, background), _ = drawn
    assert base64.b64decode(page.data["still"]) == background
    assert (figure.bbox.size / figure.dpi).tolist() == [4.5, 4.5]  # square, as the page's plane is
    [axis] = figure.axes
    left, top, right, bottom = page.data["frame"]
    corners = axis.transAxes.transform([[0, 0], [1, 1]]) / figure.bbox.size
    assert corners == pytest.approx(np.array([[left, 1 - bottom], [right, 1 - top]]))
    assert axis.get_xlim() == axis.get_ylim() == (-page.data["reach"], page.data["reach"])


def test_a_pad_s_still_picture_shows_three_points_between_two_classes_and_what_each_is_decoded_to(shown, drawn):
    model, labels = VAES["latentPad"], torch.arange(30) % 10 + 3
    pages.latent_pad(model, CODES, labels)
    _, (figure, still) = drawn
    assert Page(shown).still.content["image/png"] == still
    plane, *digits = figure.axes
    ends = [CODES[labels == own].median(0).values for own in (3, 4)]
    points = [ends[0], (ends[0] + ends[1]) / 2, ends[1]]
    marks = np.array([own.get_xydata()[0] for own in plane.lines[1::2]])  # each over a white one
    assert marks == pytest.approx(torch.stack(points).numpy(), abs=1e-6)
    for letter, point, own in zip("ABC", points, digits, strict=True):
        decoded = model.decode(point[None]).sigmoid().detach().numpy()
        assert own.images[0].get_array().data.ravel() == pytest.approx(decoded[0], abs=1e-5)
        told = f"{letter}: z = ({point[0]:.2f}, {point[1]:.2f})"
        assert own.get_title().replace("−", "-") == told


def test_the_sliders_still_picture_moves_one_latent_in_each_row_and_keeps_the_others(shown, drawn):
    PAGES["latentSliders"]()
    page, model = Page(shown), VAES["latentSliders"]
    [(figure, still)] = drawn
    assert page.still.content["image/png"] == still
    code, order = model.encode(IMAGES)[0][0].detach(), page.data["order"]
    for axis, latent in zip(figure.axes, [*order[:3], order[-1]], strict=True):
        codes = code.repeat(7, 1)
        codes[:, latent] = torch.arange(-3.0, 4.0)
        decoded = model.decode(codes).sigmoid().detach().view(7, 28, 28)
        assert axis.images[0].get_array().data == pytest.approx(torch.cat([*decoded], 1).numpy(), abs=1e-6)
        assert f"$z_{{{latent + 1}}}$\n({page.data['kl'][latent]:.2f} nats)" in [own.get_text() for own in axis.texts]
    above = [own.get_text() for own in figure.axes[0].texts[1:]]
    assert above == ["moved to", "−3", "−2", "−1", "0", "1", "2", "3"]


def test_sliders_start_from_the_posterior_means_sorted_by_how_much_each_latent_says(shown):
    PAGES["latentSliders"]()
    model = VAES["latentSliders"]
    mean, log_var = model.encode(IMAGES)
    kl = kl_divergence(Normal(mean, (log_var / 2).exp()), Normal(0.0, 1.0)).mean(0).tolist()
    page = Page(shown)
    assert (page.name, page.kind) == ("1.14-sliders", "latentSliders")
    assert page.data["kl"] == pytest.approx(kl)
    assert page.data["order"] == sorted(range(4), key=kl.__getitem__, reverse=True) != sorted(range(4))
    assert page.data["codes"] == np.round(mean.detach().double().numpy(), 3).tolist()
    assert page.data["labels"] == LABELS.tolist()


def test_the_text_of_a_pad_tells_where_its_way_begins_and_where_it_ends(shown):
    pages.latent_pad(VAES["latentPad"], CODES, torch.arange(30) % 10 + 3)
    assert "from the middle of the codes of 3 to that of 4;" in Page(shown).still.metadata["image/png"]["alt"]


def test_a_pad_s_still_picture_has_each_code_as_its_own_digit_and_each_cross_its_letter(drawn):
    labels = torch.arange(30) % 10
    pages.latent_pad(VAES["latentPad"], CODES, labels)
    plane, *_ = drawn[1][0].axes
    for digit, own in enumerate(plane.collections):
        assert own.get_offsets().data == pytest.approx(CODES[labels == digit].numpy())
    crosses = {own.get_text(): own.xy for own in plane.texts}
    assert [*crosses] == ["A", "B", "C"]
    for place, cross in zip(crosses.values(), plane.lines[1::2], strict=True):
        assert place == pytest.approx(cross.get_xydata()[0])


def test_a_pad_s_codes_may_have_another_type_than_its_model(drawn):
    pages.latent_pad(VAES["latentPad"], CODES.double(), torch.arange(30) % 10)
    assert len(drawn) == 2


def test_the_sliders_still_picture_ends_with_the_latent_that_says_least_and_its_text_names_all_four(shown, drawn):
    model = random_vae(6).float()
    pages.latent_sliders(model, IMAGES, LABELS)
    page = Page(shown)
    order = page.data["order"]
    told = [own.texts[0].get_text().partition("$\n")[0] for own in drawn[0][0].axes]
    assert told == [f"$z_{{{latent + 1}}}" for latent in (*order[:3], order[5])]
    names = ", ".join(f"z{latent + 1}" for latent in (*order[:3], order[5]))
    alt = page.still.metadata["image/png"]["alt"]
    assert alt.startswith("A 3, decoded with one latent moved")
    assert f"kept: {names}." in alt


def test_a_walk_offers_the_first_four_samples_of_each_class_and_begins_between_a_2_and_a_7(shown):
    PAGES["latentWalk"]()
    page = Page(shown)
    data, numbers = page.data, page.data["numbers"]
    assert (page.name, page.kind) == ("2.7-walk", "latentWalk")
    assert numbers == [i for digit in range(10) for i in NAMED.eq(digit).nonzero()[:4, 0].tolist()]
    assert data["labels"] == NAMED[numbers].tolist()
    assert data["codes"] == np.round(NOISES[numbers].double().numpy(), 4).tolist()
    assert [numbers[own] for own in data["ends"]] == [NAMED.eq(own).nonzero()[0, 0] for own in (2, 7)]


@pytest.mark.parametrize(("named", "ends"), [([8] * 9, [8, 8]), ([3, 4, 3], [3, 4]), ([0, 1, 0], [0, 1])])
def test_where_2_and_7_are_missing_a_walk_begins_between_two_others(named, ends, shown):
    pages.walk(GAME, NOISES[: len(named)], torch.tensor(named))
    data = Page(shown).data
    assert [data["labels"][own] for own in data["ends"]] == ends
    assert data["ends"][0] != data["ends"][1]


def test_a_walk_s_still_picture_shows_both_ways_and_four_draws_with_the_norm_above_each_image(shown, drawn):
    PAGES["latentWalk"]()
    page = Page(shown)
    [(figure, still)] = drawn
    assert page.still.content["image/png"] == still
    assert figure.get_figwidth() <= 8
    start, end = (NOISES[NAMED.eq(own).nonzero()[0, 0]] for own in (2, 7))
    t = torch.linspace(0, 1, 9)
    rows = {"straight": torch.lerp(start, end, t[:, None]), "spherical": slerp(start, end, t)}
    for axis, (name, z) in zip(figure.axes, rows.items(), strict=False):
        images = ((GENERATOR(z) + 1) / 2).detach().view(9, 28, 28)
        assert axis.images[0].get_array().data == pytest.approx(torch.cat([*images], 1).numpy(), abs=1e-5)
        assert [own.get_text() for own in axis.texts[:10]] == [name, *(f"{own:.1f}" for own in z.norm(dim=1))]
        assert f"{z[4].norm():.1f}" in page.still.metadata["image/png"]["alt"]
    assert figure.axes[2].images[0].get_array().shape == (28, 13 * 28)  # three ways of four steps
    assert [own.get_text() for own in figure.axes[2].texts[-4:]] == ["$z_1$", "$z_2$", "$z_3$", "$z_4$"]
    assert "from a 2 to a 7" in page.still.metadata["image/png"]["alt"]


def test_a_walk_leaves_a_model_in_training_as_it_was_and_takes_codes_of_any_type(shown):
    PAGES["latentWalk"]()
    first, before = Page(shown).data, {name: own.clone() for name, own in GENERATOR.state_dict().items()}
    GENERATOR.train()
    pages.walk(GAME, NOISES.double().requires_grad_(), NAMED)
    GENERATOR.eval()
    assert Page(shown).data == first
    assert same(dict(GENERATOR.state_dict()), before)


@pytest.mark.slow
def test_the_shipped_generator_s_page_is_not_too_large(shown):
    z = torch.randn(60, 100, generator=seeded(0))
    pages.walk(recipes.pretrained("gan", "cpu"), z, NAMED)
    assert len(shown[-1].content["text/html"].encode()) < 2_200_000


def test_no_text_that_a_page_is_given_can_end_its_script(shown):
    pages.embed("a", "stages.js", 'start("a", "</script><b>");')
    text = shown[-1].content["text/html"]
    assert text.count("</script>") == 1
    assert text.endswith('start("a", "<\\/script><b>");\n})();</script>')


def test_a_page_has_all_that_a_flow_of_the_plane_is_computed_from():
    flow = randomized(flow_2d(couplings=3, hidden=8)).half().double()  # as float16 keeps the numbers
    data, x = pages.couplings(flow), normal(20, 2)
    z, log_det = x.clone(), torch.zeros(20, dtype=torch.float64)
    for own in data["couplings"]:
        numbers, at = torch.from_numpy(np.frombuffer(base64.b64decode(own["halves"]), "<f2").astype(float)), 0
        moved, out = own["moved"], z[:, 1 - own["moved"], None]
        for inputs, outputs, activation in zip(own["sizes"][:-1], own["sizes"][1:], own["activations"], strict=True):
            weight, at = numbers[at : at + inputs * outputs].view(outputs, inputs), at + inputs * outputs
            out, at = out @ weight.T + numbers[at : at + outputs], at + outputs
            out = {"relu": lambda a: a.clamp(min=0), "": lambda a: a}[activation](out)
        scale = data["bound"] * torch.tanh(out[:, 0] / data["bound"])
        z[:, moved], log_det = z[:, moved] * scale.exp() + out[:, 1], log_det + scale
        assert at == len(numbers)
    assert_close((z, log_det), flow(x))


def test_what_a_page_decodes_and_generates_with_has_the_sizes_of_the_model_s_layers():
    assert pages.decoder(random_vae(2))["sizes"] == [2, 16, 784]
    assert pages.generator(GAME)["sizes"][0] == 20


def test_a_page_has_all_that_a_velocity_in_the_plane_is_computed_from():
    model = flow_matching.FlowMatching(randomized(VelocityMLP(2, 8, 6)).half().double(), (2,))
    data, x, t = pages.field(model), normal(20, 2), uniform(20)
    angles = t[:, None] * torch.tensor(data["frequencies"], dtype=torch.float64)
    numbers, at = torch.from_numpy(np.frombuffer(base64.b64decode(data["halves"]), "<f2").astype(float)), 0
    out = torch.cat([x, angles.sin(), angles.cos()], 1)
    for inputs, outputs, activation in zip(data["sizes"][:-1], data["sizes"][1:], data["activations"], strict=True):
        weight, at = numbers[at : at + inputs * outputs].view(outputs, inputs), at + inputs * outputs
        out, at = out @ weight.T + numbers[at : at + outputs], at + outputs
        out = {"silu": lambda a: a * a.sigmoid(), "": lambda a: a}[activation](out)
    assert at == len(numbers)
    assert_close(out, model.velocity(x, t))
