"""The notebooks in a real JupyterLab and a real Chromium: everything runs, every slider moves its picture."""

import math
import os
import re
import subprocess
import sys

import pytest
import torch
from browser import NOTEBOOKS, chromium, installed, jupyterlab, run_all

from gm_helpers import recipes

pytestmark = pytest.mark.slow

WIDGETS = {  # of each notebook, in their order: the label of a slider that changes the picture
    "1_vae": ["mean μ", "fraction t"],
    "2_gan": ["logit a", "fraction t", "training (stages)"],
    "3_flows": ["steepness s", "depth (layers)", "temperature T", "fraction t"],
}


@pytest.fixture(scope="module")
def browser():
    if not (path := installed()):
        without = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        without("no Chromium here: install the package chromium, and these tests will run")
    with chromium(path) as own:
        yield own


@pytest.fixture
def lab(tmp_path):
    """One for each test, because a second page would restore the first one's tabs."""
    with jupyterlab(tmp_path, ["from gm_helpers import widgets\nwidgets.two_normals()"]) as address:
        yield address


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1200, "height": 1000})
    yield context.new_page()
    context.close()


def picture(image):
    """What an <img> shows: its bytes, read as text."""
    return image.evaluate("image => fetch(image.src).then(own => own.text())")


def wait_for_another(image, before):
    """Until the picture differs."""
    another = "([image, before]) => fetch(image.src).then(own => own.text()).then(text => text !== before)"
    image.page.wait_for_function(another, arg=[image.element_handle(), before])


@pytest.mark.parametrize("name", WIDGETS)
def test_a_notebook_runs_in_jupyterlab_and_its_sliders_move_their_pictures(name, page, lab):
    assert run_all(page, lab.format(name)) == []
    for label in WIDGETS[name]:
        handle = page.get_by_role("slider", name=label, exact=True)
        box = page.locator(".gm-explorer", has=handle)
        image, bar = box.locator("img.widget-image"), box.locator(".widget-slider", has=handle).locator(".noUi-base")
        before, value = picture(image), float(handle.get_attribute("aria-valuenow"))
        assert before.startswith("\N{REPLACEMENT CHARACTER}PNG")
        handle.focus()
        at_the_low_end = value == float(handle.get_attribute("aria-valuemin"))
        page.keyboard.press("PageUp" if at_the_low_end else "PageDown")
        wait_for_another(image, before)
        assert (float(handle.get_attribute("aria-valuenow")) > value) == at_the_low_end
        before, bounds = picture(image), bar.bounding_box()
        page.mouse.click(bounds["x"] + 0.87 * bounds["width"], bounds["y"] + bounds["height"] / 2)
        wait_for_another(image, before)
        # both at the same moment, because picture and reading arrive one after the other
        same = "box => box.querySelector('img').alt === box.querySelector('[role=status]').textContent"
        page.wait_for_function(same, arg=box.element_handle())
        assert image.get_attribute("alt")


def test_after_many_key_presses_the_reading_is_the_formula_s_value_for_the_newest(page, lab):
    assert run_all(page, lab.format("cells")) == []
    handle = page.locator(".widget-slider", has_text="mean μ").get_by_role("slider")
    handle.focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    mean, std = 1.5, 0.5
    expected = f"{0.5 * (mean**2 + std**2 - 1 - 2 * math.log(std)):.3f} nats at μ = {mean:.2f}"
    page.locator(".widget-html", has_text=expected).wait_for(timeout=10_000)
    assert float(handle.get_attribute("aria-valuenow")) == pytest.approx(mean)


# ---------------------------------------------------------------- pages without a kernel


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The committed notebook 1 as HTML."""
    folder = tmp_path_factory.mktemp("html")
    command = [sys.executable, "-m", "nbconvert", "--to=html", f"--output-dir={folder}", NOTEBOOKS / "1_vae.ipynb"]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "1_vae.html"


@pytest.fixture
def offline(page, exported):
    """The exported notebook, opened without any network."""
    page.context.set_offline(True)
    page.goto(exported.as_uri(), wait_until="domcontentloaded")
    return page


def grey_values(canvas):
    """A decoded digit's grey values, (784,), as the page shows them."""
    pixels = canvas.evaluate("canvas => [...canvas.getContext('2d').getImageData(0, 0, 28, 28).data]")
    return torch.tensor(pixels).view(784, 4)[:, 0]


def decoded(name, z):
    """The same by torch: (784,) from 0 to 255."""
    with torch.no_grad():
        return 255 * recipes.pretrained(name, "cpu").decode(torch.tensor([z])).sigmoid()[0]


def frames(page):
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def coordinates(pad):
    text = pad.get_attribute("aria-valuetext").replace("−", "-")
    return [float(number) for number in re.findall(r"= ([-\d.]+)", text)]


def test_the_pad_decodes_offline_what_torch_decodes_wherever_it_is_dragged(offline):
    pad = offline.locator("[data-page='1.15-pad'] canvas.gm-pad")
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    offline.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    offline.mouse.down()
    for across, down in ((0.6, 0.45), (0.7, 0.4), (0.25, 0.75)):
        offline.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"], steps=5)
        frames(offline)
        z = coordinates(pad)
        assert z == pytest.approx([8 * across - 4, 4 - 8 * down], abs=0.06)  # a pixel of the screen is 0.024
        shown = grey_values(offline.locator("[data-page='1.15-pad'] canvas.gm-digit"))
        assert (shown - decoded("vae-2d", z)).abs().max() < 8  # the coordinates that can be read are rounded to 0.01
    offline.mouse.up()


def test_the_pad_s_keys_move_the_point_and_stop_at_the_edge(offline):
    pad, digit = (offline.locator(f"[data-page='1.15-pad'] canvas.{own}") for own in ("gm-pad", "gm-digit"))
    pad.focus()
    for key in ("ArrowRight", "ArrowUp", "ArrowUp", "PageDown", "End", "End", "Home"):
        offline.keyboard.press(key)
    frames(offline)
    assert coordinates(pad) == pytest.approx([1.1, -0.8], abs=1e-9)
    assert (grey_values(digit) - decoded("vae-2d", [1.1, -0.8])).abs().max() <= 2
    for _ in range(10):
        offline.keyboard.press("End")
    frames(offline)
    assert coordinates(pad)[0] == 4


def test_the_latent_sliders_decode_offline_what_torch_decodes(offline):
    root = offline.locator("[data-page='1.14-sliders']")
    digit = root.locator("canvas.gm-digit")
    latents = root.locator("input[type=range]").all()
    order = [int(own.get_attribute("aria-label").removeprefix("latent z")) - 1 for own in latents]
    assert sorted(order) == list(range(20))
    root.get_by_role("button", name="random").click()
    for i, own in enumerate(latents):  # values that the sliders can stand on
        own.fill(str(round(0.05 * (i - 10), 2)))
    latents[3].focus()
    offline.keyboard.press("ArrowRight")
    frames(offline)
    z = [float(latents[order.index(latent)].input_value()) for latent in range(20)]
    assert z[order[3]] == pytest.approx(-0.3)
    assert (grey_values(digit) - decoded("vae-20d", z)).abs().max() <= 2


def test_buttons_reset_and_encode_another_digit(offline):
    root = offline.locator("[data-page='1.14-sliders']")
    seen = [grey_values(root.locator("canvas.gm-digit"))]
    for name in ("random", "reset", "encode another digit"):
        root.get_by_role("button", name=name).click()
        frames(offline)
        seen.append(grey_values(root.locator("canvas.gm-digit")))
    assert [(own == seen[0]).all() for own in seen] == [True, False, True, False]


@pytest.mark.parametrize("width", [520, 900, 1200])  # 520 leaves what JupyterLab leaves of 900 beside its file browser
def test_no_slider_of_a_latent_is_cut_off_in_a_narrow_window(offline, width):
    offline.set_viewport_size({"width": width, "height": 1000})
    root = offline.locator("[data-page='1.14-sliders']")
    outer = root.bounding_box()
    rows = [own.bounding_box() for own in root.locator("label").all()]
    assert max(own["x"] + own["width"] for own in rows) <= outer["x"] + outer["width"]
