"""The notebooks in a real JupyterLab and a real Chromium: everything runs, every slider moves its picture."""

import json
import math
import re
import shutil

import nbformat
import pytest
import torch
from browser import NOTEBOOKS, command, jupyterlab, open_notebook, run_all, run_cells
from conftest import script
from nbclient import NotebookClient

from gm_helpers import recipes
from gm_helpers.nn import slerp

pytestmark = pytest.mark.slow

WIDGETS = {  # of each notebook, in their order: the label of a slider that changes the picture
    "1_vae": ["curvature", "mean μ", "image no.", "humps at ±h", "fraction t"],
    "2_gan": ["mean of p_g", "logit a", "training (stages)", "noise t"],
    "3_flows": ["depth (layers)", "steepness s", "temperature T", "fraction t", "time τ"],
}


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
    kind = "own => own.dataset.page ?? (own.closest('.jp-OutputArea').querySelector('.gm-page') ? 'with stages' : '')"
    kinds = [own.evaluate(kind) for own in all_seen(page, ".gm-explorer, .gm-page")]
    stills = list(zip(before, kinds, strict=True))
    plain = ".jp-OutputArea:not(:has(.gm-page)) .gm-explorer img"
    assert sizes(page, plain) == [size for size, name in stills if not name]
    # the still picture of a page or of stages has more in it than what lives, but the plane of a pad is as high
    heights = [height for _, height in sizes(page, "canvas.gm-pad")]
    assert heights == [size[1] for size, name in stills if name.endswith("pad")]
    in_sight = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-WindowedPanel-outer").bounding_box()["height"]
    assert max(own.bounding_box()["height"] for own in all_seen(page, ".gm-explorer, .gm-page")) < in_sight
    for latent in all_seen(page, ".gm-page input[type=range]")[:1]:  # JupyterLab takes no arrow key for itself
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
    pages.latent_sliders(recipes.pretrained("vae-20d", "cpu"), x, labels)
    pages.walk(recipes.pretrained("gan", "cpu"), torch.randn(30, 100, generator=generator), labels)"""


def export(path, folder):
    """A notebook as an HTML page, made as `make html` makes it."""
    return script(NOTEBOOKS.parent / "site" / "export.py").export([path], folder)[0]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A notebook with all pages, after a run, as HTML."""
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


def grey_values(canvas, column=0):
    """A decoded digit's grey values, (784,), as the page shows them; of a row, the one in this column."""
    pixels = canvas.evaluate(
        "(canvas, left) => [...canvas.getContext('2d').getImageData(left, 0, 28, 28).data]", 28 * column
    )
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
    assert len(all_seen(offline, ".gm-page")) == 3
    assert all_seen(offline, ".gm-still, .jp-RenderedImage") == []


def test_an_exported_chapter_folds_what_is_tagged_and_its_pictures_have_alternative_texts(page, tmp_path):
    page.context.set_offline(True)
    path = NOTEBOOKS / "2_gan.ipynb"
    page.goto(export(path, tmp_path).as_uri(), wait_until="domcontentloaded")
    assert len(all_seen(page, ".gm-still")) == 6
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


def test_an_exported_chapter_typesets_its_formulas_and_asks_nobody(page, tmp_path):
    page.context.set_offline(True)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(export(NOTEBOOKS / "2_gan.ipynb", tmp_path).as_uri(), wait_until="domcontentloaded")
    page.wait_for_function("window.MathJax?.startup?.promise?.then(() => true)", timeout=60_000)
    assert page.locator("mjx-container").count() > 300
    assert page.locator("mjx-merror, [data-mml-node=merror]").count() == 0
    text = page.locator(".jp-RenderedMarkdown").all_inner_texts()
    assert [own for own in text if re.search(r"\$[^$]+\$|\\frac", own)] == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


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
    for again in (own for own in scripts if "gm-page" in own):
        offline.evaluate(again)
    assert offline.locator("canvas.gm-pad").count() == 1
    assert offline.locator("[data-page='1.14-sliders'] canvas").count() == 1
    assert offline.locator("[data-page='2.7-walk'] select").count() == 3


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


# ---------------------------------------------------------------- the walk


@pytest.fixture
def stroll(offline):
    """The page of a walk."""
    return offline.locator("[data-page='2.7-walk']")


def noises(page):
    """The codes between which the page goes, (N, 100), as its lists have them."""
    return torch.tensor(json.loads(re.search(r"latentWalk, (\{.*\})\);", page.content())[1])["codes"])


def generated(z):
    """By torch, for a code z: (784,) from 0 to 255."""
    with torch.no_grad():
        return 255 * (recipes.pretrained("gan", "cpu").generator(z[None])[0] + 1) / 2


def go(stroll, start, end, t, way="straight"):
    """Choose a way and a place on it, and wait for the picture."""
    for label, option in (("from", start), ("to", end), ("way", ["straight", "spherical"].index(way))):
        stroll.get_by_role("combobox", name=label, exact=True).select_option(index=option)
    stroll.get_by_role("slider").fill(str(t))
    frames(stroll.page)


def norms(stroll):
    """As they can be read: at the start, here, and at the end."""
    return [float(own) for own in re.findall(r"([\d.]+) (?:at|here)", stroll.locator("[aria-live]").inner_text())]


def test_a_walk_decodes_ten_draws_offline_as_torch_does(offline, stroll):
    codes = noises(offline)
    assert codes.std() == pytest.approx(1, abs=0.05)
    digit = stroll.locator("canvas.gm-digit")
    for i in range(10):
        go(stroll, i, 29 - i, 0)
        assert (grey_values(digit) - generated(codes[i])).abs().max() <= 2
    go(stroll, 3, 8, 1)
    assert (grey_values(digit) - generated(codes[8])).abs().max() <= 2


def test_both_ways_lead_where_torch_s_lead_and_tell_the_norm(offline, stroll):
    codes, digit, row = noises(offline), stroll.locator("canvas.gm-digit"), stroll.locator("canvas.gm-row")
    for start, end, t in ((2, 21, 0.5), (14, 7, 0.25), (5, 26, 0.83)):
        a, b = codes[start], codes[end]
        for way, z in (("straight", torch.lerp(a, b, t)), ("spherical", slerp(a, b, torch.tensor([t]))[0])):
            go(stroll, start, end, t, way)
            assert (grey_values(digit) - generated(z)).abs().max() <= 2
            assert norms(stroll) == pytest.approx([own.norm().item() for own in (a, z, b)], abs=0.051)
            assert f"t = {t:.2f}" in stroll.locator("[aria-live]").inner_text()
            for stop in (0, 3, 8):
                z = torch.lerp(a, b, stop / 8) if way == "straight" else slerp(a, b, torch.tensor([stop / 8]))[0]
                assert (grey_values(row, stop) - generated(z)).abs().max() <= 2


def test_the_mark_stands_under_the_image_of_its_t_and_so_does_the_slider_s_handle(stroll):
    row = stroll.locator("canvas.gm-row").bounding_box()
    bar = stroll.get_by_role("slider").bounding_box()
    for stop in (0, 4, 8):
        go(stroll, 2, 7, stop / 8)
        box = stroll.locator("canvas.gm-row + div").bounding_box()
        middle = row["x"] + (stop + 0.5) / 9 * row["width"]
        assert box["x"] + box["width"] / 2 == pytest.approx(middle, abs=1)
        # a handle is 16 pixels wide
        at = float(stroll.get_by_role("slider").input_value())
        assert bar["x"] + 8 + at * (bar["width"] - 16) == pytest.approx(middle, abs=3)


def test_a_way_from_a_code_to_itself_stays_there(offline, stroll):
    codes = noises(offline)
    for i in range(0, 30, 3):  # of some of them the cosine with themselves is 1 to the last bit
        go(stroll, i, i, 0.37, "spherical")
        assert (grey_values(stroll.locator("canvas.gm-digit")) - generated(codes[i])).abs().max() <= 2


def test_a_new_draw_is_standard_normal_and_another_each_time(stroll):
    found = []
    for _ in range(12):
        go(stroll, 30, 0, 0)
        found.append(norms(stroll)[0])
        assert "from a draw of N(0, I) to a 0" in stroll.locator("[aria-live]").inner_text()
        go(stroll, 1, 0, 0)
    assert len(set(found)) > 5
    assert sum(found) / 12 == pytest.approx(9.97, abs=5 * 0.705 / 12**0.5)  # of 100 normals; five standard errors


def test_a_walk_plays_on_from_its_end_to_a_new_draw_and_pauses(offline, stroll):
    button, reading = stroll.get_by_role("button"), stroll.locator("[aria-live]")
    digit, row = stroll.locator("canvas.gm-digit"), stroll.locator("canvas.gm-row")
    go(stroll, 2, 17, 0.9)
    before, (_, _, end) = reading.inner_text(), norms(stroll)
    frames(offline)
    assert reading.inner_text() == before  # nothing plays unasked
    picture, images = grey_values(digit), row.evaluate("row => row.toDataURL()")
    button.click()
    assert button.inner_text() == "pause"
    assert reading.get_attribute("aria-live") == "off"
    reading.filter(has_text="from a 5 to a draw of N(0, I)").wait_for()
    start = "reading => Number(reading.textContent.match(/t = ([\\d.]+)/)[1]) > 0.05"
    offline.wait_for_function(start, arg=reading.element_handle())
    button.click()
    assert button.inner_text() == "walk"
    assert reading.get_attribute("aria-live") == "polite"
    frames(offline)
    after = reading.inner_text(), grey_values(digit), row.evaluate("row => row.toDataURL()")
    assert norms(stroll)[0] == end
    assert not torch.equal(after[1], picture)
    assert after[2] != images
    chosen = [own.evaluate("own => own.selectedIndex") for own in stroll.locator("select").all()]
    assert chosen == [17, 30, 0]
    frames(offline)
    assert (reading.inner_text(), row.evaluate("row => row.toDataURL()")) == (after[0], after[2])


def test_an_even_pace_takes_four_seconds_for_a_way(offline, stroll):
    go(stroll, 2, 17, 0)
    seconds = offline.evaluate(
        """page => new Promise(done => {
        const slider = page.querySelector('input'), began = performance.now();
        const look = () => slider.value < 0.5 ? requestAnimationFrame(look) : done((performance.now() - began) / 1000);
        page.querySelector('button').click();
        look();
    })""",
        stroll.element_handle(),
    )
    assert 1.9 < seconds < 20  # frames that come late by more than 0.1 s count less


def test_a_walk_that_is_scrolled_out_of_sight_pauses_and_so_does_one_whose_slider_is_moved(offline, stroll):
    button, slider = stroll.get_by_role("button"), stroll.get_by_role("slider")
    offline.set_viewport_size({"width": 1200, "height": 300})
    for interrupt in (lambda: offline.evaluate("scrollTo(0, 0)"), lambda: slider.press("ArrowLeft")):
        stroll.scroll_into_view_if_needed()
        button.click()
        offline.wait_for_function("own => own.textContent === 'pause'", arg=button.element_handle())
        interrupt()
        offline.wait_for_function("own => own.textContent === 'walk'", arg=button.element_handle())


def test_arrow_keys_move_a_walk_s_slider_and_nothing_of_it_is_cut_off_on_a_telephone(offline, stroll):
    offline.set_viewport_size({"width": 390, "height": 800})
    go(stroll, 2, 17, 0.5)
    stroll.get_by_role("slider").press("ArrowRight")
    frames(offline)
    assert "t = 0.51" in stroll.locator("[aria-live]").inner_text()
    outer = stroll.bounding_box()
    assert outer["x"] + outer["width"] <= 390
    for own in stroll.locator("canvas, select, input, button").all():
        box = own.bounding_box()
        assert outer["x"] <= box["x"] < box["x"] + box["width"] <= outer["x"] + outer["width"] + 0.1


def test_whoever_uses_a_walk_by_keys_sees_where_they_are(stroll):
    for own in stroll.locator("select, input, button").all():
        own.focus()
        assert own.evaluate("own => getComputedStyle(own).outlineWidth") == "3px"
        assert own.get_attribute("data-lm-suppress-shortcuts") == "true"


# ---------------------------------------------------------------- the playground


PLAYGROUND = """from gm_helpers import playground
playground.STORED = {False: (0, 1), True: (0, 1)}  # few, which take no time
playground.playground()"""


def test_the_playground_is_played_by_mouse_and_by_keys_and_jupyterlab_takes_none_of_them(page, tmp_path):
    with jupyterlab(tmp_path, [PLAYGROUND]) as lab:
        assert run_all(page, lab.format("cells")) == []
        box, reading = page.locator(".gm-explorer"), page.locator(".gm-reading")
        image, first = box.locator("img"), box.get_by_role("button", name="step D")

        def steps(d, g):
            reading.filter(has_text=f"Steps: D {d}, G {g};").wait_for()

        steps(0, 0)
        assert not page.locator(".gm-stages").is_visible()
        before = picture(image)
        first.click()
        steps(1, 0)
        wait_for_another(image, before)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "step G"
        before = picture(image)
        page.keyboard.press("Enter")
        steps(1, 1)
        wait_for_another(image, before)
        page.keyboard.press("Space")
        steps(1, 2)
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")  # at once: both are taken
        steps(1, 4)
        assert page.locator(".jp-Notebook.jp-mod-commandMode").count() == 1
        assert page.evaluate("document.activeElement.textContent") == "step G"
        box.get_by_role("button", name="run").press("Enter")
        steps(51, 54)
        loss = box.locator("select").nth(1)
        loss.select_option("saturating")
        reading.filter(has_text="from here on G's loss is saturating").wait_for()
        loss.press("ArrowDown")
        reading.filter(has_text="Steps: D 0, G 0; the critic").wait_for()
        assert loss.input_value() == "Wasserstein"
        page.wait_for_function("box => !box.classList.contains('gm-waiting')", arg=box.element_handle())
        assert box.bounding_box()["height"] <= 620


def test_stages_of_the_playground_play_in_an_exported_page_without_kernel_and_network(page, tmp_path):
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(PLAYGROUND)])
    nbformat.write(NotebookClient(book).execute(), tmp_path / "played.ipynb")
    page.context.set_offline(True)
    page.goto(export(tmp_path / "played.ipynb", tmp_path).as_uri(), wait_until="domcontentloaded")
    root, reading = page.locator(".gm-stages"), page.locator(".gm-stages [aria-live]")
    slider, button, image = root.get_by_role("slider"), root.get_by_role("button"), root.locator("img")
    assert not all_seen(page, ".jp-RenderedImage, .gm-still")
    seen = [image.get_attribute("src")]
    for press, expected in (("ArrowRight", "Steps: D 50, G 0; D says"), ("ArrowRight", "Steps: D 51, G 1; D says")):
        slider.press(press)
        seen.append(image.get_attribute("src"))
        assert reading.inner_text().startswith(expected)
        assert image.get_attribute("alt") == reading.inner_text()
        assert expected.partition(";")[0] in slider.get_attribute("aria-valuetext")
    root.get_by_role("combobox").select_option("Wasserstein")
    seen.append(image.get_attribute("src"))
    assert reading.inner_text().startswith("Steps: D 55, G 1; the critic")
    assert len({*seen}) == 4
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 300
    assert button.inner_text() == "play"  # nothing moves by itself
    press = """root => {  // and read at once
        root.querySelector('button').click();
        return [root.querySelector('button').textContent, root.querySelector('input').value];
    }"""
    assert root.evaluate(press) == ["pause", "0"]  # at the end: from the start
    page.wait_for_function("own => own.textContent === 'play'", arg=button.element_handle())
    assert slider.input_value() == "2"
    assert reading.inner_text().startswith("Steps: D 55, G 1; the critic")
    button.click()
    slider.press("End")  # which pauses
    assert (button.inner_text(), slider.input_value()) == ("play", "2")
    assert [root.evaluate(press), root.evaluate(press)] == [["pause", "0"], ["play", "0"]]
    page.set_viewport_size({"width": 390, "height": 800})
    outer = root.bounding_box()
    for own in root.locator("select, input, button, img").all():
        box = own.bounding_box()
        assert outer["x"] <= box["x"] < box["x"] + box["width"] <= min(outer["x"] + outer["width"], 390) + 0.1
    for own in root.locator("select, input, button").all():
        assert own.get_attribute("data-lm-suppress-shortcuts") == "true"  # where the page lives in JupyterLab
    # where there is a network, nbconvert's page shows the widget that was saved, which has no kernel
    saved = (
        """root => root.closest('.jp-OutputArea').insertAdjacentHTML('beforeend', '<p class="gm-explorer">dead</p>')"""
    )
    root.evaluate(saved)
    assert page.locator(".gm-explorer").is_hidden()
    assert root.is_visible()
