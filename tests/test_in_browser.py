"""The notebooks in a real JupyterLab and a real Chromium: everything runs, every slider moves its picture."""

import json
import math
import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
import torch
from browser import NOTEBOOKS, chromium, command, installed, jupyterlab, open_notebook, run_all, run_cells
from nbclient import NotebookClient

from gm_helpers import recipes

pytestmark = pytest.mark.slow

WIDGETS = {  # of each notebook, in their order: the label of a slider that changes the picture
    "1_vae": ["curvature", "mean μ", "image no.", "humps at ±h", "fraction t"],
    "2_gan": ["logit a", "fraction t", "training (stages)"],
    "3_flows": ["depth (layers)", "steepness s", "temperature T", "fraction t"],
}


@pytest.fixture(scope="module")
def browser():
    if not (path := installed()):
        without = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        without("no Chromium here: install the package chromium, and these tests will run")
    with chromium(path) as own:
        yield own


CELLS = [
    "from gm_helpers import recipes, widgets\nwidgets.two_normals()",
    "_ = recipes.fit('vae-2d', 'smoke', 'digits', device='cpu')",
]
NO_MODEL = "Error displaying widget"


@pytest.fixture
def lab(tmp_path):
    """One for each test, because a second page would restore the first one's tabs."""
    with jupyterlab(tmp_path, CELLS[:1]) as address:
        yield address


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1200, "height": 1000})
    yield context.new_page()
    context.close()


@pytest.fixture
def laptop(browser):
    """A page as large as a laptop's."""
    context = browser.new_context(viewport={"width": 1366, "height": 768})
    yield context.new_page()
    context.close()


def picture(image):
    """What an <img> shows: its bytes, read as text."""
    return image.evaluate("image => fetch(image.src).then(own => own.text())")


def wait_for_another(image, before):
    """Until the picture differs."""
    another = "([image, before]) => fetch(image.src).then(own => own.text()).then(text => text !== before)"
    image.page.wait_for_function(another, arg=[image.element_handle(), before])


def all_seen(page, selector):
    """Those that are to be seen."""
    return [own for own in page.locator(selector).all() if own.is_visible()]


def sizes(page, selector):
    """Width and height of the pictures in the cells that hold what can live, in pixels of the page."""
    cells = page.locator(".jp-CodeCell", has=page.locator(".gm-still"))
    boxes = [own.bounding_box() for own in cells.locator(selector).all() if own.is_visible()]
    return [(round(own["width"]), round(own["height"])) for own in boxes]


@pytest.mark.parametrize("name", WIDGETS)
def test_a_notebook_runs_in_jupyterlab_and_its_sliders_move_their_pictures(name, laptop, lab):
    page = laptop
    open_notebook(page, lab.format(name))
    before = sizes(page, "img")
    assert all_seen(page, ".gm-still")  # under each a sentence that says what brings it to life
    assert not all_seen(page, ".gm-explorer, .gm-page")
    assert run_cells(page) == []
    assert not all_seen(page, ".gm-still")
    assert len(all_seen(page, ".gm-explorer, .gm-page")) == len(before)
    pages = page.locator(".gm-explorer, .gm-page").evaluate_all("all => all.map(own => own.dataset.page || '')")
    stills = list(zip(before, pages, strict=True))
    assert sizes(page, ".gm-explorer img") == [size for size, name in stills if not name]
    # the still picture of a page has more in it than the page, but the plane of a pad is as high
    heights = [height for _, height in sizes(page, "canvas.gm-pad")]
    assert heights == [size[1] for size, name in stills if name.endswith("pad")]
    in_sight = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-WindowedPanel-outer").bounding_box()["height"]
    assert max(own.bounding_box()["height"] for own in all_seen(page, ".gm-explorer, .gm-page")) < in_sight
    for latent in page.locator(".gm-page input[type=range]").all()[:1]:  # JupyterLab takes no arrow key for itself
        before = latent.input_value()
        latent.press("ArrowRight")
        assert latent.input_value() != before
    for label in WIDGETS[name]:
        handle = page.get_by_role("slider", name=label, exact=True).first
        box = page.locator(".gm-explorer", has=handle).first
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


def test_a_typing_mistake_in_the_parameters_stops_the_run_there_with_one_sentence(page, lab, tmp_path):
    path = tmp_path / "notebooks" / "2_gan.ipynb"
    path.write_text(path.read_text().replace('profile: str = \\"smoke\\"', 'profile: str = \\"quik\\"'))
    assert run_all(page, lab.format("2_gan")) == [
        "UsageError: unknown profile 'quik': choose one of smoke, quick, full"
    ]


RUN_ONE = """async ([at, source]) => {
    const app = window.jupyterapp, panel = app.shell.currentWidget, notebook = panel.content;
    const code = notebook.widgets.filter(own => own.model.type === 'code');
    const cell = typeof at === 'number' ? code.at(at) : code.find(own => own.model.id === at);
    if (source) cell.model.sharedModel.setSource(source);
    notebook.activeCellIndex = notebook.widgets.indexOf(cell);
    await app.commands.execute('notebook:run-cell');
    return cell.outputArea.node.querySelector('.jp-OutputArea-output')?.innerText;
}"""


def test_an_exercise_answers_at_once_and_the_table_counts_it(page, lab):
    open_notebook(page, lab.format("2_gan"))
    for at in range(3):  # all that an exercise needs
        page.evaluate(RUN_ONE, [at, None])
    name, wrong = "exercise-spiral_radius", "exercises.spiral_radius(lambda eta, n: (1 + eta) ** n)"
    assert page.evaluate(RUN_ONE, [name, None]) == "open\nNothing is filled in yet."
    said = page.evaluate(RUN_ONE, [name, wrong]).splitlines()
    assert said[:2] == ["wrong", "For eta = 0.5, n = 1: your answer is 1.5, and should be 1.118."]
    assert said[2].startswith("The step is at a right angle to the radius")
    assert "0 of 6 right" in page.evaluate(RUN_ONE, [-1, None])
    assert page.evaluate(RUN_ONE, [name, wrong.replace("eta) ** n", "eta**2) ** (n / 2)")]).startswith(
        "right\n20 pairs"
    )
    assert "1 of 6 right" in page.evaluate(RUN_ONE, [-1, None])


def test_a_control_that_waits_for_a_busy_kernel_says_so_until_the_answer_comes(page, tmp_path):
    """A slider at a negative value, whose minus is none of a number in JavaScript, and a list."""
    cell = """from gm_helpers import explore
draw = lambda value, way: (explore.pack(explore.Image.new("L", (9, 9))), f"{value:.2f} {way}")
controls = {"value": explore.slider("value", -1, -4, 4, 0.05), "way": explore.choice("way", "ab")}
explore.explore("x", "Nothing.", draw, controls)"""
    with jupyterlab(tmp_path, [cell]) as lab:
        assert run_all(page, lab.format("cells")) == []
        box, reading = page.locator(".gm-explorer"), page.locator(".gm-reading")
        handle, choice = page.get_by_role("slider"), box.get_by_role("combobox")
        change = {"−0.95 a": lambda: handle.press("ArrowRight"), "−0.95 b": lambda: choice.select_option("b")}
        reading.filter(has_text="−1.00 a").wait_for()
        for number, (expected, act) in enumerate(change.items()):
            flag = tmp_path / str(number)
            page.evaluate(
                """code => {
                const {kernel} = window.jupyterapp.shell.currentWidget.sessionContext.session;
                kernel.requestExecute({code});
            }""",
                f"import os, time\nwhile not os.path.exists({str(flag)!r}): time.sleep(0.1)",
            )
            act()
            page.wait_for_function("box => box.classList.contains('gm-waiting')", arg=box.element_handle())
            said = "reading => getComputedStyle(reading, '::after').content"
            assert "No answer from the kernel yet" in reading.evaluate(said)
            flag.touch()
            reading.filter(has_text=expected).wait_for()
            page.wait_for_function("box => !box.classList.contains('gm-waiting')", arg=box.element_handle())
            assert reading.evaluate(said) == "none"


def test_a_depth_that_is_played_moves_its_slider_and_its_picture(page, tmp_path):
    cell = "import torch\nfrom gm_helpers import recipes, widgets\n"
    with jupyterlab(tmp_path, [f"{cell}widgets.warped_plane(recipes.pretrained('flow-2d'), torch.rand(9, 2))"]) as lab:
        assert run_all(page, lab.format("cells")) == []
        image, handle = page.locator(".gm-explorer img"), page.get_by_role("slider")
        before = picture(image)
        page.locator(".widget-play button").first.click()
        wait_for_another(image, before)
        page.wait_for_function(
            "handle => Number(handle.ariaValueNow) === 8", arg=handle.element_handle(), timeout=60_000
        )


@pytest.mark.parametrize("as_by_make", [True, False])
def test_what_was_run_saved_and_shut_down_stands_by_itself_when_it_is_opened_again(as_by_make, laptop, tmp_path):
    """In a Lab that `make lab` did not start the still picture comes back in the widget's place, and nothing else."""
    with jupyterlab(tmp_path, CELLS[:2], as_by_make) as lab:
        assert run_all(laptop, lab.format("cells")) == []
        live = laptop.locator(".gm-explorer img").bounding_box()
        command(laptop, "docmanager:save")
        command(laptop, "notebook:shutdown-kernel")
        path = tmp_path / "notebooks" / "cells.ipynb"
        assert NO_MODEL not in path.read_text()
        open_notebook(laptop, lab.format("cells") + "&reset")
        laptop.get_by_text("vae-2d: 60 steps in").wait_for()
        still = laptop.locator(".jp-RenderedImage img")
        if as_by_make:
            laptop.locator(".gm-explorer img").wait_for()
            assert not still.is_visible()
            assert len(all_seen(laptop, ".widget-slider")) == 2
            assert laptop.get_by_text(NO_MODEL).count() == 0
        else:
            laptop.get_by_text(NO_MODEL).wait_for(state="attached")
            assert not laptop.get_by_text(NO_MODEL).is_visible()
            assert still.is_visible()
            assert all_seen(laptop, ".gm-still")
        again = (laptop.locator(".gm-explorer img") if as_by_make else still).bounding_box()
        assert (again["width"], again["height"]) == (live["width"], live["height"])
        command(laptop, "docmanager:save")
        assert NO_MODEL not in path.read_text()


@pytest.mark.parametrize("name", ["0_start", "3_flows"])
def test_opening_and_saving_a_committed_notebook_changes_no_byte_but_the_version_of_python(name, page, lab, tmp_path):
    copy = tmp_path / "notebooks" / f"{name}.ipynb"
    shutil.copy(NOTEBOOKS / copy.name, copy)
    open_notebook(page, lab.format(name))
    page.evaluate("""() => new Promise(done => {  // the language of the kernel is put down when it is known
        const {model} = window.jupyterapp.shell.currentWidget.content;
        const look = () => model.getMetadata('language_info')?.version ? done() : setTimeout(look, 100);
        look();
    })""")
    page.evaluate("window.jupyterapp.shell.currentWidget.context.save()")
    version = re.compile(r'"version": "3\.[\d.]+"')
    assert version.sub("", copy.read_text()) == version.sub("", (NOTEBOOKS / copy.name).read_text())


def test_the_course_starts_with_a_page_that_runs_and_leads_to_the_chapters(laptop, lab):
    open_notebook(laptop, lab.format("0_start"))
    laptop.locator(".jp-RenderedImage img").click()  # as the text says
    laptop.keyboard.press("Control+Enter")
    laptop.locator("canvas.gm-pad").wait_for()
    assert laptop.locator(".jp-CodeCell .jp-InputPlaceholder").is_visible()  # the code stays folded
    assert run_cells(laptop) == []
    laptop.get_by_role("link", name="2 Generative adversarial networks").click()
    laptop.wait_for_function("window.jupyterapp.shell.currentWidget.context?.path === 'notebooks/2_gan.ipynb'")


# ---------------------------------------------------------------- pages without a kernel


PAGES = """import torch
from gm_helpers import figures, pages, recipes
figures.use_style()
generator, labels = torch.Generator().manual_seed(0), torch.arange(30) % 10
with torch.no_grad():
    pages.latent_pad(recipes.pretrained("vae-2d", "cpu"), torch.randn(30, 2, generator=generator), labels)
    x = torch.rand(30, 784, generator=generator).round()
    pages.latent_sliders(recipes.pretrained("vae-20d", "cpu"), x, labels)"""


def export(path, folder):
    """A notebook as an HTML page, made as `make html` makes it."""
    template = ["--template=export", f"--TemplateExporter.extra_template_basedirs={NOTEBOOKS.parent / 'site'}"]
    command = [sys.executable, "-m", "nbconvert", "--to=html", *template, f"--output-dir={folder}", path]
    subprocess.run(command, check=True, capture_output=True)
    return folder / f"{path.stem}.html"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A notebook with both pages, after a run, as HTML."""
    folder = tmp_path_factory.mktemp("html")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(PAGES)])
    nbformat.write(NotebookClient(book).execute(), folder / "pages.ipynb")
    return export(folder / "pages.ipynb", folder)


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


def test_where_a_page_lives_its_still_picture_and_the_sentence_below_are_hidden(offline):
    assert len(all_seen(offline, ".gm-page")) == 2
    assert all_seen(offline, ".gm-still, .jp-RenderedImage") == []


def test_an_exported_chapter_folds_what_is_tagged_and_its_pictures_have_alternative_texts(page, tmp_path):
    page.context.set_offline(True)
    path = NOTEBOOKS / "2_gan.ipynb"
    page.goto(export(path, tmp_path).as_uri(), wait_until="domcontentloaded")
    assert len(all_seen(page, ".gm-still")) == 3
    assert min(len(own.get_attribute("alt")) for own in page.locator(".jp-RenderedImage img").all()) >= 30
    for tag, part in (("hide-input", ".jp-InputArea"), ("hide-output", ".jp-OutputArea")):
        cells = page.locator(f".celltag_{tag}")
        assert cells.count() > 5
        for cell in cells.all():
            assert not cell.locator(part).is_visible()
        cells.first.locator("summary").first.click()
        assert cells.first.locator(part).is_visible()
    first = next(own for own in nbformat.read(path, as_version=4).cells if "hide-input" in own.metadata.get("tags", []))
    summary = page.locator(".celltag_hide-input summary").first
    assert summary.inner_text() == first.source.splitlines()[0].removeprefix("# ") + " …"
    assert summary.evaluate("own => getComputedStyle(own).cursor") == "pointer"


def test_an_alternative_text_with_quotes_stands_in_the_exported_page_as_it_is(page, tmp_path):
    picture = nbformat.v4.new_output(
        "display_data", {"image/png": "cGljdHVyZQ=="}, metadata={"image/png": {"alt": '"a" < b'}}
    )
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", outputs=[picture])])
    nbformat.write(book, tmp_path / "x.ipynb")
    page.goto(export(tmp_path / "x.ipynb", tmp_path).as_uri(), wait_until="domcontentloaded")
    assert page.locator(".jp-RenderedImage img").get_attribute("alt") == '"a" < b'


def test_the_pad_decodes_offline_what_torch_decodes_wherever_it_is_dragged(offline):
    pad = offline.locator("[data-page='1.15-pad'] canvas.gm-pad")
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    left, top, right, bottom = json.loads(re.search(r'"frame": (\[.*?\])', offline.content())[1])
    offline.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    offline.mouse.down()
    for across, down in ((0.6, 0.45), (0.7, 0.4), (0.25, 0.75)):
        offline.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"], steps=5)
        frames(offline)
        z = coordinates(pad)
        assert z == pytest.approx(
            [(across - left) / (right - left) * 8 - 4, 4 - (down - top) / (bottom - top) * 8], abs=0.06
        )
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


def test_the_cross_stands_where_the_code_is_over_the_still_picture_and_is_told_to_screen_readers(offline):
    pad = offline.locator("[data-page='1.15-pad'] canvas.gm-pad")
    assert re.search(r'"still": "(.*?)"', offline.content())[1] in pad.evaluate(
        "pad => getComputedStyle(pad).backgroundImage"
    )
    pad.focus()
    for key in ("End", "PageUp", "PageUp", "ArrowRight"):
        offline.keyboard.press(key)
    frames(offline)
    left, top, right, bottom = json.loads(re.search(r'"frame": (\[.*?\])', offline.content())[1])
    dark = pad.evaluate("""pad => {
        const {data} = pad.getContext('2d').getImageData(0, 0, pad.width, pad.height), found = [];
        for (let i = 3; i < data.length; i += 4) if (data[i] > 200 && data[i - 1] < 50) found.push((i - 3) / 4);
        return [found.map(i => i % pad.width), found.map(i => Math.floor(i / pad.width)), pad.width];
    }""")
    x, y = (sum(own) / len(own) / dark[2] for own in dark[:2])
    z = [(x - left) / (right - left) * 8 - 4, 4 - (y - top) / (bottom - top) * 8]
    assert z == pytest.approx([1.1, 2], abs=0.03)
    assert float(pad.get_attribute("aria-valuenow")) == pytest.approx(1.1)
    assert "z₁ = 1.10, z₂ = 2.00" in offline.locator("[data-page='1.15-pad'] canvas.gm-digit").get_attribute(
        "aria-label"
    )


def test_a_page_whose_script_runs_twice_is_built_once(offline):
    scripts = [own.text_content() for own in offline.locator("script").all()]
    for script in (own for own in scripts if "gm-page" in own):
        offline.evaluate(script)
    assert offline.locator("canvas.gm-pad").count() == 1
    assert offline.locator("[data-page='1.14-sliders'] canvas").count() == 1


def test_beside_each_latent_s_slider_stand_its_divergence_and_its_value_and_below_the_norm_of_all(offline):
    root = offline.locator("[data-page='1.14-sliders']")
    data = json.loads(re.search(r"latentSliders, (\{.*\})\);", offline.content())[1])
    names = [own.inner_text() for own in root.locator("label span").all()]
    assert names == [f"z{own + 1} ({data['kl'][own]:.2f} nats)" for own in data["order"]]
    root.locator("input[type=range]").nth(2).focus()
    offline.keyboard.press("ArrowRight")
    frames(offline)
    shown = [float(own.inner_text().replace("−", "-")) for own in root.locator("output").all()]
    assert shown[2] == float(root.locator("input[type=range]").nth(2).input_value())
    norm = float(root.locator("[aria-live]").inner_text().rpartition(" ")[2])
    assert norm == pytest.approx(math.hypot(*shown), abs=0.03)  # each shown to two decimals


def test_random_codes_are_standard_normal(offline):
    root = offline.locator("[data-page='1.14-sliders']")
    drawn = []
    for _ in range(100):
        root.get_by_role("button", name="random").click()
        drawn += [float(own.replace("−", "-")) for own in root.locator("output").all_inner_texts()]
    drawn = torch.tensor(drawn)
    assert drawn.mean().abs() < 5 / 2000**0.5  # five standard errors
    assert (drawn.var() - 1).abs() < 5 * (2 / 2000) ** 0.5


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


def test_what_the_sliders_start_from_is_said_and_a_random_code_is_not_called_a_digit_s(offline):
    root = offline.locator("[data-page='1.14-sliders']")
    said = []
    for name in ("reset", "random", "encode another digit"):
        root.get_by_role("button", name=name).click()
        frames(offline)
        said.append(root.locator("[aria-live]").inner_text().partition(";")[0])
    root.locator("input[type=range]").first.focus()
    for _ in range(2):
        offline.keyboard.press("ArrowRight")
    frames(offline)
    said.append(root.locator("[aria-live]").inner_text().partition(";")[0])
    assert said == ["the code of a 0", "a draw of N(0, I)", "the code of a 1", "the code of a 1, moved"]


def test_over_the_plane_stand_on_demand_the_digits_that_are_decoded_there(offline):
    root = offline.locator("[data-page='1.15-pad']")
    pad = root.locator("canvas.gm-pad")
    left, top, right, bottom = json.loads(re.search(r'"frame": (\[.*?\])', offline.content())[1])
    pad.focus()
    for _ in range(8):  # the cross to a corner
        offline.keyboard.press("Home")
        offline.keyboard.press("PageDown")
    plain = pad.evaluate("pad => pad.toDataURL()")
    root.get_by_role("checkbox").check()
    frames(offline)
    row, column = 6, 9  # of 15 × 15 cells
    z = [((column + 0.5) / 15 * 2 - 1) * 4, (1 - (row + 0.5) / 15 * 2) * 4]
    x, y, side = left + (right - left) * column / 15, top + (bottom - top) * row / 15, (right - left) / 15
    shown = pad.evaluate(
        """(pad, [x, y, side]) => {
        const copy = document.createElement('canvas'), context = copy.getContext('2d');
        copy.width = copy.height = 28;
        context.drawImage(pad, x * pad.width, y * pad.height, side * pad.width, side * pad.height, 0, 0, 28, 28);
        return [...context.getImageData(0, 0, 28, 28).data].filter((_, i) => i % 4 === 0);
    }""",
        [x, y, side],
    )
    digit = 255 - decoded("vae-2d", z)
    agreement = torch.corrcoef(torch.stack([digit, torch.tensor(shown).float()]))[0, 1]
    assert agreement > 0.9  # twice scaled
    root.get_by_role("checkbox").uncheck()
    frames(offline)
    assert pad.evaluate("pad => pad.toDataURL()") == plain


@pytest.mark.parametrize("width", [520, 900, 1200])  # 520 leaves what JupyterLab leaves of 900 beside its file browser
def test_no_slider_of_a_latent_is_cut_off_in_a_narrow_window(offline, width):
    offline.set_viewport_size({"width": width, "height": 1000})
    root = offline.locator("[data-page='1.14-sliders']")
    outer = root.bounding_box()
    rows = [own.bounding_box() for own in root.locator("label").all()]
    assert max(own["x"] + own["width"] for own in rows) <= outer["x"] + outer["width"]
