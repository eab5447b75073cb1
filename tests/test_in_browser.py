"""The notebooks in a real JupyterLab and a real Chromium: everything runs, every slider moves its picture."""

import base64
import contextlib
import io
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from gm_helpers import recipes

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
WIDGETS = {  # of each notebook, in their order: the label of a slider that changes the picture
    "1_vae": ["mean μ", "fraction t"],
    "2_gan": ["logit a", "fraction t", "training (stages)"],
    "3_flows": ["steepness s", "depth (layers)", "temperature T", "fraction t"],
}
TWO_WIDGETS = (
    "from gm_helpers import widgets\nwidgets.two_normals()",
    """import torch
from gm_helpers import recipes
vae = recipes.pretrained("vae-20d", "cpu")
widgets.interpolation("digits", torch.linspace(-2, 2, 200).view(10, 20).sin(), lambda z: vae.decode(z).sigmoid())""",
)
START, RUN = 60_000, 300_000  # ms that JupyterLab and a notebook in profile smoke may take


def chromium():
    """The path of the system's browser; where the tests run as root in CI, Debian's is installed."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = [path for name in names if (path := shutil.which(name))]
    if not found and os.environ.get("CI") == "true":
        if os.geteuid() == 0:
            subprocess.run(["apt-get", "update", "-qq"], check=True)
            subprocess.run(["apt-get", "install", "-y", "-qq", "chromium"], check=True, stdout=subprocess.DEVNULL)
            return shutil.which("chromium")
        pytest.fail("no Chromium here: install the package chromium")
    if not found:
        pytest.skip("no Chromium here: install the package chromium, and these tests will run")
    return found[0]


@pytest.fixture(scope="module")
def browser():
    path = chromium()
    with sync_playwright() as playwright:
        own = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield own
        own.close()


@contextlib.contextmanager
def jupyterlab(root):
    """Address of a JupyterLab in a new folder, with its token; it touches neither repository nor user's settings."""
    (root / "notebooks").mkdir()
    for name in WIDGETS:
        path = NOTEBOOKS / f"{name}.ipynb"
        book = nbformat.read(path, as_version=4)
        for cell in book.cells:
            if "parameters" in cell.metadata.get("tags", []):
                cell.source = cell.source.replace('profile: str = "quick"', 'profile: str = "smoke"')
        nbformat.write(book, root / "notebooks" / path.name)
    book.cells = [nbformat.v4.new_code_cell(own) for own in TWO_WIDGETS]
    nbformat.write(book, root / "notebooks" / "two_widgets.ipynb")
    tracker = root / "settings" / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    tracker.parent.mkdir(parents=True)
    tracker.write_text('{"windowingMode": "none"}')  # else cells that are out of sight are not in the page
    folders = {
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    folders |= {f"JUPYTER_{name}_DIR": name.lower() for name in ("CONFIG", "DATA", "RUNTIME")}
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        port = own.getsockname()[1]
    options = ["--no-browser", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0", "--allow-root"]
    options += ["--IdentityProvider.token=secret", "--expose-app-in-browser", "--LabApp.news_url="]
    with open(root / "server.log", "w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options, f"--ServerApp.root_dir={root}"],
            env=os.environ | {name: str(root / folder) for name, folder in folders.items()},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        for _ in range(240):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=2):
                break
            assert server.poll() is None, (root / "server.log").read_text()
            time.sleep(0.25)
        yield f"http://127.0.0.1:{port}/lab/tree/notebooks/{{}}.ipynb?token=secret"
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture
def lab(tmp_path):
    """One for each test, because a second page would restore the first one's tabs."""
    with jupyterlab(tmp_path) as address:
        yield address


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1200, "height": 1000})
    yield context.new_page()
    context.close()


def run_all(page, address):
    """Open a notebook, run all its cells, and return their errors; waits on JupyterLab's own promises."""
    page.goto(address)
    page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook").wait_for(timeout=START)
    page.set_default_timeout(20_000)
    return page.evaluate(
        """async limit => {
        const app = window.jupyterapp; await app.restored;
        const panel = app.shell.currentWidget;
        await panel.context.ready; await panel.sessionContext.ready;
        await panel.sessionContext.session.kernel.info;
        const late = new Promise((_, reject) => setTimeout(() => reject(Error('the run takes too long')), limit));
        await Promise.race([late, app.commands.execute('notebook:run-all-cells')]);
        return panel.content.model.sharedModel.cells.flatMap(cell => cell.cell_type === 'code' ?
            cell.outputs.filter(own => own.output_type === 'error').map(own => own.ename + ': ' + own.evalue) : []);
    }""",
        RUN,
    )


def picture(image):
    """What an <img> shows, as bytes."""
    text = image.evaluate("""async image => {
        const bytes = new Uint8Array(await (await fetch(image.src)).arrayBuffer());
        return btoa(bytes.reduce((text, byte) => text + String.fromCharCode(byte), ''));
    }""")
    return base64.b64decode(text)


def wait_for_another(page, image, before, text):
    """Until the picture differs; returns the new one."""
    deadline = time.monotonic() + 20
    while (now := picture(image)) == before:
        assert time.monotonic() < deadline, f"{text}: the picture did not change"
        page.wait_for_timeout(50)
    return now


@pytest.mark.parametrize("name", WIDGETS)
def test_a_notebook_runs_in_jupyterlab_and_its_sliders_move_their_pictures(name, page, lab):
    assert run_all(page, lab.format(name)) == []
    for label in WIDGETS[name]:
        box = page.locator(
            ".widget-vbox", has=page.locator(".widget-label", has_text=re.compile(f"^{re.escape(label)}$"))
        )
        row = box.locator(".widget-slider", has=page.locator(".widget-label", has_text=label))
        handle, image = row.get_by_role("slider", name=label), box.locator("img.widget-image")
        box.scroll_into_view_if_needed()
        before, value = picture(image), float(handle.get_attribute("aria-valuenow"))
        assert before.startswith(b"\x89PNG")
        handle.focus()
        at_the_low_end = value == float(handle.get_attribute("aria-valuemin"))
        page.keyboard.press("PageUp" if at_the_low_end else "PageDown")
        before = wait_for_another(page, image, before, f"{label}, by key")
        assert (float(handle.get_attribute("aria-valuenow")) > value) == at_the_low_end
        bounds = row.locator(".noUi-base").bounding_box()
        page.mouse.click(bounds["x"] + 0.87 * bounds["width"], bounds["y"] + bounds["height"] / 2)
        wait_for_another(page, image, before, f"{label}, by mouse")
        expect(box.get_by_role("status")).to_have_count(1)
        # both at the same moment, because picture and reading arrive one after the other
        same = "box => box.querySelector('img').alt === box.querySelector('[role=status]').textContent"
        page.wait_for_function(same, arg=box.element_handle())
        assert image.get_attribute("alt")


def test_the_reading_of_a_moved_slider_is_the_formulas_value(page, lab):
    assert run_all(page, lab.format("two_widgets")) == []
    handle = page.locator(".widget-slider", has_text="mean μ").get_by_role("slider")
    handle.focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    mean, std = 1.5, 0.5
    expected = f"{0.5 * (mean**2 + std**2 - 1 - 2 * math.log(std)):.3f} nats at μ = {mean:.2f}"
    page.locator(".widget-html", has_text=expected).wait_for(timeout=10_000)
    assert float(handle.get_attribute("aria-valuenow")) == pytest.approx(mean)


def test_a_moved_slider_shows_the_digits_that_torch_decodes(page, lab):
    assert run_all(page, lab.format("two_widgets")) == []
    box = page.locator(".widget-vbox", has=page.get_by_role("slider", name="fraction t"))
    handle, image = box.get_by_role("slider", name="fraction t"), box.locator("img.widget-image")
    before = picture(image)
    handle.focus()
    page.keyboard.press("ArrowRight")
    shown = Image.open(io.BytesIO(wait_for_another(page, image, before, "fraction t, by key")))
    codes = torch.linspace(-2, 2, 200).view(10, 20).sin()
    z = torch.stack([codes[2], torch.lerp(codes[2], codes[7], 0.52), codes[7]])
    with torch.no_grad():
        expected = 255 * recipes.pretrained("vae-20d", "cpu").decode(z).sigmoid().view(3, 28, 28)
    pixel = shown.height // 28
    digits = torch.from_numpy(np.array(shown)[::pixel, ::pixel].astype("float32")).view(28, 3, 28).transpose(0, 1)
    assert (digits - expected).abs().max() < 1


# ---------------------------------------------------------------- pages without a kernel


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The committed notebook 1 as HTML."""
    folder = tmp_path_factory.mktemp("html")
    command = ["-m", "nbconvert", "--to", "html", f"--output-dir={folder}", str(NOTEBOOKS / "1_vae.ipynb")]
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
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
    return [
        float(number.replace("−", "-")) for number in re.findall(r"= ([−\d.]+)", pad.get_attribute("aria-valuetext"))
    ]


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


def test_the_pads_keys_move_the_point_and_stop_at_the_edge(offline):
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
    latents = root.locator("input[type=range]")
    assert latents.count() == 20
    root.scroll_into_view_if_needed()
    names = [latents.nth(i).get_attribute("aria-label") for i in range(20)]
    order = [int(own.removeprefix("latent z")) - 1 for own in names]
    root.get_by_role("button", name="random").click()
    for i in range(20):  # values that the sliders can stand on
        latents.nth(i).fill(str(round(0.05 * (i - 10), 2)))
    latents.nth(3).focus()
    offline.keyboard.press("ArrowRight")
    frames(offline)
    z = [0.0] * 20
    for i, latent in enumerate(order):
        z[latent] = float(latents.nth(i).input_value())
    assert z[order[3]] == pytest.approx(-0.3)
    assert (grey_values(digit) - decoded("vae-20d", z)).abs().max() <= 2


def test_buttons_reset_and_encode_another_digit(offline):
    root = offline.locator("[data-page='1.14-sliders']")
    first = root.locator("canvas.gm-digit").evaluate("canvas => canvas.toDataURL()")
    seen = [first]
    for name in ("random", "reset", "encode another digit"):
        root.get_by_role("button", name=name).click()
        frames(offline)
        seen.append(root.locator("canvas.gm-digit").evaluate("canvas => canvas.toDataURL()"))
    assert seen[2] == first
    assert len({*seen}) == 3


@pytest.mark.parametrize("width", [520, 900, 1200])  # 520 leaves what JupyterLab leaves of 900 beside its file browser
def test_no_slider_of_a_latent_is_cut_off_in_a_narrow_window(offline, width):
    offline.set_viewport_size({"width": width, "height": 1000})
    root = offline.locator("[data-page='1.14-sliders']")
    outer = root.bounding_box()
    rows = [own.bounding_box() for own in root.locator("label").all()]
    assert max(own["x"] + own["width"] for own in rows) <= outer["x"] + outer["width"]
