"""The built site, opened from its folder in Chromium without any network: pages, formulas, links, search, readers."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
import torch
from torch.testing import assert_close

from gm_helpers import recipes
from gm_helpers.flow_matching import carried, exact_divergence, log_prob

pytestmark = pytest.mark.rare

ROOT = Path(__file__).parent.parent
ENVIRONMENT = ROOT / ".venv-site"
PAGES = ["index", "1_vae", "2_gan", "3_flows", "measured", "sweeps", "teachers", "symbols", "references", "search"]
each_page = pytest.mark.parametrize("name", PAGES)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder that `make site` writes, written elsewhere; a warning of Sphinx's fails."""
    assert (ENVIRONMENT / ".installed").exists(), "Sphinx is not installed: run make .venv-site/.installed"
    folder, python = tmp_path_factory.mktemp("site"), str(ENVIRONMENT / "bin" / "python")
    subprocess.run([python, str(ROOT / "site" / "gather.py"), str(folder / "sources")], check=True)
    build = [python, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q"]
    subprocess.run([*build, str(folder / "sources"), str(folder / "site")], check=True)
    return folder / "site"


@pytest.fixture(params=[(1280, "light"), (1280, "dark"), (390, "light")], ids=["wide", "dark", "narrow"])
def page(request, browser):
    """A page of that width and theme, without a network; it keeps what it asked of others, and its errors."""
    width, theme = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, offline=True)
    own = context.new_page()
    own.asked, own.failed = [], []
    own.on("request", lambda request: own.asked.append(request.url))
    own.on("pageerror", lambda error: own.failed.append(str(error)))
    yield own
    context.close()


def opened(page, site, name, query=""):
    page.goto((site / f"{name}.html").as_uri() + query)
    page.wait_for_function("!window.MathJax || !MathJax.startup || MathJax.startup.promise.then(() => true)")
    return page


def test_no_page_is_left_out_of_these_tests(site):
    assert {path.stem for path in site.glob("*.html")} == {*PAGES, "genindex"}


@each_page
def test_a_page_asks_nobody_typesets_every_formula_and_fits_into_its_width(page, site, name):
    opened(page, site, name)
    formulas = page.locator(".math").count()
    page.wait_for_function(f"document.querySelectorAll('.math mjx-container').length === {formulas}", timeout=60_000)
    assert page.locator("mjx-merror, [data-mml-node=merror]").count() == 0
    assert not page.locator("main").inner_text().count("\\frac")
    assert [url for url in page.asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert page.failed == []
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]


def serious(page, part):
    """What axe-core finds in a part of a page that hinders readers seriously; formulas MathJax explains itself."""
    [axe] = ENVIRONMENT.rglob("axe.min.js")
    page.add_script_tag(path=str(axe))
    run = f"axe.run({{include: [['{part}']], exclude: [['mjx-container']]}}, {{resultTypes: ['violations']}})"
    found = page.evaluate(f"{run}.then(own => own.violations)")
    bad = [own for own in found if own["impact"] in ("serious", "critical")]
    return [(own["id"], [node["target"] for node in own["nodes"]][:3]) for own in bad]


@each_page
def test_axe_finds_nothing_serious_on_a_page(page, site, name):
    opened(page, site, name)
    # of the code, a few blocks stand for all
    page.evaluate("[...document.querySelectorAll('.highlight')].slice(12).forEach(own => own.remove())")
    assert serious(page, "html") == []


@pytest.fixture
def three(page, site):
    """The home page, when all three models are there."""
    page.goto((site / "index.html").as_uri())
    page.wait_for_function("document.querySelectorAll('.gm-three [data-ms]').length === 3")
    return page


def test_the_three_models_of_the_home_page_compute_what_torch_computes(three):
    rng = torch.Generator().manual_seed(0)
    vae, gan, flow = (recipes.pretrained(own, "cpu") for own in ("vae-2d", "gan", "flow-2d"))
    z, noise = torch.randn(10, 2, generator=rng), torch.randn(10, 100, generator=rng)

    def by_page(function, codes):
        return torch.tensor([three.evaluate(f"z => [...{function}]", own.tolist()) for own in codes])

    with torch.no_grad():
        assert_close(by_page("GM.decode(z)", z).float(), 255 * vae.decode(z).sigmoid(), rtol=0, atol=1)
        assert_close(by_page("GM.generate(z)", noise).float(), 255 * (gan.generator(noise) + 1) / 2, rtol=0, atol=2)
        x, log_det = flow.inverse(z)
        assert_close(by_page("GM.flow.inverse(z).point", z).float(), x, rtol=0, atol=1e-3)
        assert_close(by_page("[GM.flow.inverse(z).logDet]", z).float()[:, 0], log_det, rtol=0, atol=1e-3)
        assert_close(by_page("GM.flow.forward(z).point", x).float(), z, rtol=0, atol=1e-3)


@pytest.fixture(params=["mouse and keys", "touch"])
def chapter(request, browser, site):
    """Opens a chapter at its n-th page that lives, when it does: the browser's page, and that place in it."""
    touch = request.param == "touch"
    context = browser.new_context(
        offline=True, has_touch=touch, viewport={"width": 390 if touch else 1280, "height": 900}
    )
    page = context.new_page()

    def come_to_life(name, number=0):
        page.goto((site / f"{name}.html").as_uri())
        place = page.locator(".gm-page").nth(number)
        assert not place.get_attribute("data-alive")
        assert page.locator("script[src*=weights]").count() == 0
        place.evaluate("own => own.closest('details')?.setAttribute('open', '')")
        place.scroll_into_view_if_needed()
        page.wait_for_function("own => own.dataset.ms", arg=place.element_handle())
        return place

    def pressed(place, x, y):  # shares of its width and height
        place.scroll_into_view_if_needed()
        box = place.bounding_box()
        at = box["x"] + x * box["width"], box["y"] + y * box["height"]
        (page.touchscreen.tap if touch else page.mouse.click)(*at)
        page.wait_for_timeout(200)

    yield come_to_life, pressed
    context.close()


def pixels(place, number=-1):
    """What stands in one of a page's canvases."""
    return place.locator("canvas").nth(number).evaluate("own => own.toDataURL()")


def moved_by(place, handle, key):
    """Whether a key, pressed on that part of a page, changes both its last picture and what it says."""
    before = pixels(place), place.locator("[aria-live]").inner_text()
    handle.focus()
    handle.press(key)
    place.page.wait_for_timeout(200)
    after = pixels(place), place.locator("[aria-live]").inner_text()
    return [old != new for old, new in zip(before, after, strict=True)] == [True, True]


@pytest.mark.parametrize(
    ("name", "number"),
    [("1_vae", 0), ("1_vae", 1), ("1_vae", 2), ("2_gan", 0), ("3_flows", 0), ("3_flows", 1), ("3_flows", 2)],
)
def test_each_living_page_of_a_chapter_takes_the_place_of_its_still_picture_and_obeys_keys(chapter, name, number):
    come_to_life, _ = chapter
    place = come_to_life(name, number)
    still = place.locator("xpath=../..").locator(".image-reference")
    assert still.count() == 1
    assert not still.is_visible()
    handle = place.locator("[role=slider], input[type=range]").first
    assert moved_by(place, handle, "ArrowRight")
    assert serious(place.page, ".gm-page[data-alive]") == []


def test_weights_that_several_places_wait_for_come_to_all_of_them_and_those_that_are_missing_are_told(page, site):
    page.goto((site / "teachers.html").as_uri())
    assert page.evaluate(
        "Promise.all([weights('flow-2d'), weights('flow-2d')]).then(([a, b]) => a.bound > 0 && a === b)"
    )
    told = page.evaluate("""async () => {
        const place = add(document.body, "div", {"data-model": "nothing"}, "…");
        await Promise.all([filled(place), filled(place)]);
        return [place.textContent, "nothing" in GM.waiting];
    }""")
    assert told == ["The weights of this model did not arrive: load the page again.", False]


def colours(place):
    """How many pixels of the flow's canvas are grey as its grid, and how many are coloured as its points."""
    return place.locator("canvas").evaluate("""own => {
        const data = own.getContext("2d").getImageData(20, 20, own.width - 40, own.height - 60).data;
        let grey = 0, bright = 0;
        for (let i = 0; i < data.length; i += 4) {
            const [r, g, b] = data.slice(i, i + 3);
            if (r === g && g === b && r > 100 && r < 255) grey++;
            if (Math.abs(r - b) > 60) bright++;
        }
        return [grey, bright];
    }""")


def test_the_flow_s_page_has_grid_and_points_and_draws_others_on_demand(chapter):
    come_to_life, pressed = chapter
    place = come_to_life("3_flows")
    grey, bright = colours(place)
    assert grey > 1000
    assert bright > 1000
    before, reading = pixels(place), place.locator("[aria-live]").inner_text()
    pressed(place.get_by_text("draw anew"), 0.5, 0.5)
    assert pixels(place) != before
    assert place.locator("[aria-live]").inner_text() == reading


def test_the_flow_plays_from_noise_to_data_and_stops_there_or_where_it_is_left(chapter):
    come_to_life, pressed = chapter
    place = come_to_life("3_flows")
    page, slider, button = place.page, place.get_by_label("depth (layers)"), place.locator("button").first
    pressed(button, 0.5, 0.5)
    assert button.inner_text() == "pause"
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.wait_for_function("own => own.textContent === '▶ play'", arg=button.element_handle())
    assert float(slider.input_value()) > 0
    pressed(button, 0.5, 0.5)
    page.wait_for_function("own => own.textContent === '▶ play'", arg=button.element_handle(), timeout=60_000)
    assert float(slider.input_value()) == 0
    assert "after 0 layers" in place.locator("[aria-live]").inner_text()


def test_a_point_that_the_layers_carry_out_of_the_picture_is_told_so_and_its_place_is_named(chapter):
    come_to_life, pressed = chapter
    place = come_to_life("3_flows")
    canvas, slider = place.locator("canvas"), place.get_by_label("depth (layers)")
    pressed(canvas, 0.995, 0.3)
    reading = place.locator("[aria-live]").inner_text()
    assert canvas.get_attribute("aria-valuetext") == reading.splitlines()[0]
    assert "outside" not in reading
    slider.press("End")
    place.page.wait_for_timeout(200)
    assert "after 8 layers" in place.locator("[aria-live]").inner_text()
    assert "outside the picture" in place.locator("[aria-live]").inner_text()
    assert abs(float(canvas.get_attribute("aria-valuenow"))) <= 4


def test_a_key_with_a_modifier_is_left_to_the_browser(chapter):
    come_to_life, _ = chapter
    for name in ("1_vae", "3_flows"):
        canvas = come_to_life(name).locator(".gm-pad")
        before = canvas.get_attribute("aria-valuetext")
        for key in ("Control+ArrowRight", "Alt+ArrowUp"):
            canvas.press(key)
        canvas.page.wait_for_timeout(200)
        assert canvas.get_attribute("aria-valuetext") == before


def test_a_chapter_has_no_other_living_pages(page, site):
    for name, builds in {
        "1_vae": ["latentPad", "latentSliders", "latentPad"],
        "2_gan": ["latentWalk"],
        "3_flows": ["flowLayers", "flowLayers", "flowInTime"],
    }.items():
        page.goto((site / f"{name}.html").as_uri())
        assert page.evaluate("[...document.querySelectorAll('.gm-page')].map(own => own.dataset.build)") == builds


def test_the_pad_decodes_where_mouse_or_finger_points(chapter):
    come_to_life, pressed = chapter
    place = come_to_life("1_vae")
    pressed(place.locator(".gm-pad"), 0.3, 0.6)
    z = [float(own.replace("−", "-")) for own in re.findall(r"= (−?[\d.]+)", place.locator("[aria-live]").inner_text())]
    assert z[0] < -1
    assert z[1] < 0
    grey = "own => [...own.getContext('2d').getImageData(0, 0, 28, 28).data].filter((_, i) => i % 4 === 0)"
    shown = torch.tensor(place.locator("canvas.gm-digit").evaluate(grey))
    expected = 255 * recipes.pretrained("vae-2d", "cpu").decode(torch.tensor([z])).sigmoid()[0]
    assert (shown - expected).abs().max() < 8  # the coordinates that can be read are rounded to 0.01


def test_sliders_walk_and_depth_obey_mouse_or_finger(chapter):
    come_to_life, pressed = chapter
    for name, number, position in (("1_vae", 1, 0.9), ("2_gan", 0, 0.9), ("3_flows", 0, 0.1), ("3_flows", 2, 0.9)):
        place = come_to_life(name, number)
        before = pixels(place)
        pressed(place.locator("input[type=range]").first, position, 0.5)
        assert pixels(place) != before


def test_the_flow_s_page_says_the_log_density_that_torch_computes_where_it_is_pointed(chapter):
    come_to_life, pressed = chapter
    place, flow = come_to_life("3_flows"), recipes.pretrained("flow-2d", "cpu")
    for _ in range(16):
        place.get_by_label("depth (layers)").press("ArrowLeft")
    with torch.no_grad():
        [sample] = flow.inverse(torch.tensor([[0.3, -0.4]]))[0].tolist()
    pressed(place.locator("canvas"), (sample[0] + 4) / 8, (4 - sample[1]) / 8)
    told = place.locator("[aria-live]").inner_text().replace("−", "-")
    assert "after 0 layers" in told
    x, z = ([float(own) for own in pair.split(",")] for pair in re.findall(r"[xz] = \(([^)]+)\)", told))
    whole, of_z, log_det = map(float, re.findall(r"(-?[\d.]+) = (-?[\d.]+) \+ (-?[\d.]+) nats", told)[0])
    corners = torch.tensor(x) + 0.005 * torch.cartesian_prod(*[torch.tensor([-1.0, 0, 1])] * 2)  # x was rounded
    with torch.no_grad():
        expected = torch.cat([own.view(9, -1) for own in flow.bijection(corners)], 1)
    rounded = torch.tensor([*z, log_det])
    assert ((rounded > expected.amin(0) - 0.02) & (rounded < expected.amax(0) + 0.02)).all()
    assert abs(whole - of_z - log_det) < 0.02
    assert abs(of_z + torch.tensor(z).square().sum().item() / 2 + 1.8379) < 0.05


def test_the_flow_is_a_bijection_at_every_depth_and_its_tables_are_near(three):
    found = three.evaluate("""() => {
        const exact = flowOf(GM.models['flow-2d']), rough = flowOf(GM.models['flow-2d'], tabled);
        const errors = {back: 0, logDet: 0, table: 0};
        for (const depth of [0, 0.25, 1, 3.5, 8]) for (const x of cloud(exact, 50)) {
            const there = exact.forward(x, depth), near = rough.forward(x, depth);
            const back = exact.inverse(there.point, depth);
            const far = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
            errors.back = Math.max(errors.back, far(back.point, x));
            errors.logDet = Math.max(errors.logDet, Math.abs(there.logDet + back.logDet));
            errors.table = Math.max(errors.table, far(near.point, there.point));
        }
        return errors;
    }""")
    assert found["back"] < 1e-4  # the networks compute in float32
    assert found["logDet"] < 1e-3
    assert found["table"] < 0.02  # of a plane eight wide: a pixel


def test_the_log_determinant_of_a_part_of_a_layer_is_that_of_its_jacobian(three):
    error = three.evaluate("""() => {
        const flow = flowOf(GM.models['flow-2d']), step = 1e-3, depth = 2.25;
        return Math.max(...cloud(flow, 20).map(x => {
            const column = i => {
                const shifted = own => x.map((value, j) => value + own * (i === j));
                const [a, b] = [step, -step].map(own => flow.forward(shifted(own), depth).point);
                return a.map((own, j) => (own - b[j]) / (2 * step));
            };
            const [a, b] = [column(0), column(1)];
            return Math.abs(Math.log(Math.abs(a[0] * b[1] - a[1] * b[0])) - flow.forward(x, depth).logDet);
        }));
    }""")
    assert error < 0.02  # differences of float32 over 2e-3


def test_a_part_of_a_layer_goes_straight_from_where_it_begins_to_where_it_ends(three):
    error = three.evaluate("""() => {
        const flow = flowOf(GM.models['flow-2d']), at = (x, depth) => flow.forward(x, depth).point;
        return Math.max(...cloud(flow, 20).map(x => Math.max(...[0, 1].map(i =>
            Math.abs(at(x, 2.25)[i] - 0.75 * at(x, 2)[i] - 0.25 * at(x, 3)[i])))));
    }""")
    assert error < 1e-5


@pytest.mark.parametrize("depth", [0, 2.25, 8])
def test_the_density_at_each_depth_integrates_to_one(three, depth):
    mass = three.evaluate(
        """depth => {
        const flow = flowOf(GM.models['flow-2d'], tabled), step = 0.02;
        let sum = 0;
        for (let a = -5; a < 5; a += step) for (let b = -5; b < 5; b += step)
            sum += step ** 2 * Math.exp(flow.logDensity([a, b], depth));
        return sum;
    }""",
        depth,
    )
    assert abs(mass - 1) < 0.02


def test_the_density_of_the_flow_s_page_is_drawn_on_demand(chapter):
    come_to_life, pressed = chapter
    place = come_to_life("3_flows")
    for _ in range(16):
        place.get_by_label("depth (layers)").press("ArrowRight")
    corner = "own => own.getContext('2d').getImageData(290, 700, 6, 6).data.reduce((sum, value) => sum + value)"
    bright = place.locator("canvas").evaluate(corner)
    pressed(place.get_by_label("density"), 0.5, 0.5)
    assert place.get_by_label("density").is_checked()
    assert place.locator("canvas").evaluate(corner) < bright


def test_the_velocity_the_ways_and_the_divergence_of_the_page_are_those_of_torch(three):
    model, x = recipes.pretrained("matching-2d", "cpu"), torch.randn(10, 2, generator=torch.Generator().manual_seed(0))
    velocities, ends, integrals, back = three.evaluate(
        """async all => {
        const field = fieldOf(await weights('matching-2d')), paths = all.map(field.path);
        return [all.map(x => [...field.velocity(x, 0.3)]), paths.map(own => own.at(-1).point),
                paths.map(own => own.at(-1).integral), paths.map(own => field.back(own.at(-1).point, field.steps))];
    }""",
        x.tolist(),
    )
    with torch.no_grad():
        v = model.velocity(x, torch.full((10,), 0.3))
    moved, integral = carried(model.velocity, x, 0.0, 1.0, 50, exact_divergence)
    assert_close(torch.tensor(velocities), v, rtol=0, atol=1e-4)
    assert_close(torch.tensor(ends), moved, rtol=0, atol=1e-3)
    assert_close(torch.tensor(integrals), integral, rtol=0, atol=0.02)
    assert_close(torch.tensor(back), x, rtol=0, atol=0.02)  # a midpoint step back undoes one but for its error


def test_the_page_of_flow_matching_says_the_log_density_of_the_point_that_is_pointed_at(chapter):
    come_to_life, pressed = chapter
    place, model = come_to_life("3_flows", 2), recipes.pretrained("matching-2d", "cpu")
    place.get_by_label("time τ").press("End")
    [sample] = model.sample(1, torch.Generator().manual_seed(3)).tolist()
    pressed(place.locator("canvas"), (sample[0] + 2.6) / 5.2, (2.6 - sample[1]) / 5.2)
    told = place.locator("[aria-live]").inner_text().replace("−", "-")
    assert told.startswith("τ = 1.00: x = (")
    x = [float(own) for own in re.search(r"x = \(([^)]+)\)", told)[1].split(",")]
    assert x == pytest.approx(sample, abs=0.02)
    whole, of_noise, sign, integral = re.search(r"(-?[\d.]+) = (-?[\d.]+) ([+-]) ([\d.]+) nats$", told).groups()
    assert float(whole) == pytest.approx(float(of_noise) + float(sign + integral), abs=0.02)
    assert f"log p = {whole} nats" in told
    corners = torch.tensor(x) + 0.01 * torch.cartesian_prod(*[torch.tensor([-1.0, 0, 1])] * 2)  # x was rounded
    expected = log_prob(model.velocity, corners, 50, exact=True)
    assert expected.min() - 0.05 < float(whole) < expected.max() + 0.05


def test_flow_matching_plays_from_noise_to_data_and_stops_there(chapter):
    come_to_life, pressed = chapter
    place = come_to_life("3_flows", 2)
    slider, button = place.get_by_label("time τ"), place.locator("button").first
    pressed(button, 0.5, 0.5)
    assert button.inner_text() == "pause"
    place.page.wait_for_function("own => own.textContent === '▶ play'", arg=button.element_handle(), timeout=60_000)
    assert float(slider.input_value()) == 1
    assert "τ = 1.00" in place.locator("[aria-live]").inner_text()


def test_the_arrows_of_flow_matching_can_be_taken_away_and_its_points_drawn_anew(chapter):
    come_to_life, pressed = chapter
    place = come_to_life("3_flows", 2)
    for part in (place.get_by_label("velocity"), place.get_by_text("draw anew")):
        before = pixels(place)
        pressed(part, 0.5, 0.5)
        assert pixels(place) != before


def test_twenty_sliders_decode_what_torch_decodes(chapter):
    come_to_life, _ = chapter
    place, vae = come_to_life("1_vae", 1), recipes.pretrained("vae-20d", "cpu")
    z = torch.randn(10, 20, generator=torch.Generator().manual_seed(0))
    own = "(_, z) => [...network(layers(GM.models['vae-20d']), 0)(z)]"
    shown = torch.tensor([place.evaluate(own, code.tolist()) for code in z])
    with torch.no_grad():
        assert_close(shown.float(), 255 * vae.decode(z).sigmoid(), rtol=0, atol=2)


def test_one_slider_of_the_home_page_moves_all_three_pictures_by_keys_and_a_path_ends_where_it_began(three):
    def pictures():
        return three.evaluate("[...document.querySelectorAll('.gm-three canvas')].map(own => own.toDataURL())")

    slider = three.get_by_label("along the path")
    slider.focus()
    slider.press("Home")
    three.wait_for_timeout(200)
    first = pictures()
    for _ in range(20):
        slider.press("ArrowRight")
    three.wait_for_timeout(200)
    assert [before == after for before, after in zip(first, pictures(), strict=True)] == [False] * 3
    slider.press("End")
    three.wait_for_timeout(200)
    assert pictures()[:2] == first[:2]


def test_the_search_finds_dequantization_in_the_chapter_on_flows(page, site):
    opened(page, site, "search", "?q=dequantization")
    page.wait_for_selector("#search-results li a")
    links = page.evaluate("[...document.querySelectorAll('#search-results li a')].map(own => own.getAttribute('href'))")
    assert any(own.startswith("3_flows.html") for own in links)


class Links(HTMLParser):
    """The targets of a page's links, what can be linked to in it, and the alternative texts of its pictures."""

    def __init__(self, path):
        super().__init__()
        self.targets, self.anchors, self.alts = [], set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        own = dict(attrs)
        self.anchors |= {own[key] for key in ("id", "name") if key in own}
        self.alts += [own.get("alt", "")] if tag == "img" else []
        self.targets += [own[key] for key in ("href", "src") if own.get(key) and tag in ("a", "img", "script", "link")]


def test_every_link_of_the_site_leads_to_a_file_and_a_place_that_are_there(site):
    pages = {path: Links(path) for path in site.glob("*.html")}
    assert len(pages) >= len(PAGES)
    lost = []
    for path, own in pages.items():
        for target in own.targets:
            url = urlparse(target)
            if url.scheme or target.startswith("//"):
                continue
            file = (path.parent / unquote(url.path)) if url.path else path
            if not file.exists() or (url.fragment and file in pages and url.fragment not in pages[file].anchors):
                lost.append((path.name, target))
    assert lost == []


def test_every_picture_of_the_site_has_an_alternative_text(site):
    alts = {path.stem: Links(path).alts for path in site.glob("*.html")}
    assert [(name, own) for name, found in alts.items() for own in found if len(own) < 30] == []
    assert all(alts[name] for name in ("1_vae", "2_gan", "3_flows"))


def test_the_site_is_light(site):
    assert sum(own.stat().st_size for own in site.rglob("*") if own.is_file()) < 40_000_000
    home = site / "index.html"
    pictures = [site / own for own in re.findall(r'<img[^>]* src="([^":]+)"', home.read_text(encoding="utf-8"))]
    assert home.stat().st_size + sum(own.stat().st_size for own in pictures) < 1_000_000


def test_no_path_of_a_machine_is_in_the_site(site):
    texts = [own for own in site.rglob("*") if own.suffix in (".html", ".js") and "mathjax" not in own.parts]
    assert [own.name for own in texts if re.search(rf"{sys.prefix}|{ROOT}/", own.read_text(encoding="utf-8"))] == []
