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

pytestmark = pytest.mark.rare

ROOT = Path(__file__).parent.parent
ENVIRONMENT = ROOT / ".venv-site"
PAGES = ["index", "1_vae", "2_gan", "3_flows", "measured", "teachers", "symbols", "references", "search"]
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


@each_page
def test_axe_finds_nothing_serious_on_a_page(page, site, name):
    opened(page, site, name)
    [axe] = ENVIRONMENT.rglob("axe.min.js")
    page.add_script_tag(path=str(axe))
    # formulas have twenty thousand parts, and MathJax says what they mean; of the code, a few blocks stand for all
    page.evaluate("[...document.querySelectorAll('.highlight')].slice(12).forEach(own => own.remove())")
    run = "axe.run({exclude: [['mjx-container']]}, {resultTypes: ['violations']}).then(own => own.violations)"
    found = page.evaluate(run)
    serious = [own for own in found if own["impact"] in ("serious", "critical")]
    assert [(own["id"], [node["target"] for node in own["nodes"]][:3]) for own in serious] == []


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
