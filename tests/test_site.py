"""What the site is made of; the built site is walked through in test_site_in_browser.py."""

import json
import re
from pathlib import Path

import nbformat
import pytest
import torch
from conftest import script
from torch.testing import assert_close

from gm_helpers import recipes

ROOT = Path(__file__).parent.parent


gather = script(ROOT / "site" / "gather.py")
every_chapter = pytest.mark.parametrize("path", gather.CHAPTERS, ids=lambda path: path.stem)
PAGES = sorted((ROOT / "site" / "pages").glob("*.md"))


def in_repository(monkeypatch, address):
    monkeypatch.setattr(gather, "settings", lambda: {"repository": address, "branch": "main"})


def test_the_site_has_every_chapter():
    assert [path.name for path in gather.CHAPTERS] == ["1_vae.ipynb", "2_gan.ipynb", "3_flows.ipynb"]


@every_chapter
def test_a_chapter_s_pictures_have_their_alternative_texts_where_sphinx_looks_for_them(path):
    committed, book = nbformat.read(path, as_version=4), gather.chapter(path)
    for before, cell in zip(committed.cells, book.cells, strict=True):
        alts = [
            own.metadata["image/png"]["alt"] for own in before.get("outputs", []) if "image/png" in own.get("data", {})
        ]
        assert [cell.metadata.get("mystnb", {}).get("image", {}).get("alt")] * len(alts) == alts


@every_chapter
def test_folded_code_is_named_by_its_first_line_and_a_folded_output_gives_nothing_away(path):
    for cell in gather.chapter(path).cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "code" and {"hide-input", "hide-output"} & {*tags}:
            prompt = cell.metadata["mystnb"]["code_prompt_show"]
            assert prompt == (cell.source.split("\n")[0][2:] if "hide-input" in tags else "What comes out")


@every_chapter
def test_nothing_of_a_chapter_but_links_and_sentences_for_jupyterlab_is_changed(path):
    committed, book = nbformat.read(path, as_version=4), gather.chapter(path)
    link = re.compile(r"\[([^\]]+)\]\([^)]*\)")
    for before, cell in zip(committed.cells, book.cells, strict=True):
        assert link.sub(r"\1", cell.source) == link.sub(r"\1", before.source)
        kept = [
            (old, new)
            for old, new in zip(before.get("outputs", []), cell.get("outputs", []), strict=True)
            if "gm-still" in old.get("data", {}).get("text/html", "")
        ]
        assert all(new.data["text/html"] == gather.place(before.source) for _, new in kept)
        assert len(cell.get("outputs", [])) == len(before.get("outputs", []))


def test_what_lives_without_a_kernel_gets_its_place_and_the_rest_a_sentence():
    assert gather.place("x = 1\npages.walk(trained, offered)") == (
        "<div class='gm-page' data-build='latentWalk' data-model='gan'></div>"
    )
    assert gather.place("widgets.two_normals(figure_dir)") == gather.STILL
    sources = "".join(cell.source for path in gather.CHAPTERS for cell in nbformat.read(path, as_version=4).cells)
    assert [call for call in gather.LIVING if call not in sources] == []
    assert "pages.latent_pad(vae_2d, " in sources
    assert "pages.latent_sliders(vae_20d, " in sources


@pytest.mark.slow
def test_the_scripts_of_the_weights_have_the_plane_in_the_course_s_style_and_the_walk_s_digits_by_their_names():
    scripts = {
        name: json.loads(re.fullmatch(r"GM\.arrived\(\"[^\"]+\", (.*)\);\n", text)[1])
        for name, text in gather.weights().items()
    }
    assert {model for _, model in gather.LIVING.values()} == scripts.keys()
    left, _, right, _ = scripts["vae-2d"]["frame"]
    assert left < 0.125  # in matplotlib's own style the margins are wider
    assert right > 0.95
    gan, classifier = (recipes.pretrained(name, "cpu") for name in ("gan", "digit-classifier"))
    with torch.no_grad():
        images = (gan.generator(torch.tensor(scripts["gan"]["codes"])) + 1) / 2
        assert classifier(images).argmax(1).tolist() == scripts["gan"]["labels"]


def test_the_pad_and_the_sliders_of_the_site_begin_where_the_shipped_models_encode_test_images():
    starts = script(ROOT / "site" / "starts.py")
    committed, now = json.loads(starts.STARTS.read_text(encoding="utf-8")), starts.starts()
    assert committed.keys() == now.keys()
    for name, own in now.items():
        assert committed[name]["labels"] == own["labels"]
        for part in ("codes", "kl"):
            expected = torch.tensor(own[part])
            assert_close(torch.tensor(committed[name][part]), expected, rtol=0, atol=0.011)  # both are rounded


def test_a_link_to_a_file_leads_into_the_repository_or_is_only_text_and_other_links_stay(monkeypatch):
    text = "[a](../gm_helpers/train.py), [b](CONTRIBUTING.md), [c](https://x.org/y), [d](#e), ![f](figures/g.png)"
    rest = ", [c](https://x.org/y), [d](#e), ![f](figures/g.png)"
    in_repository(monkeypatch, "")
    assert gather.linked(text) == f"a, b{rest}"
    in_repository(monkeypatch, "https://host/us/course")
    base = "https://host/us/course/blob/main"
    assert gather.linked(text) == f"[a]({base}/gm_helpers/train.py), [b]({base}/CONTRIBUTING.md){rest}"


@every_chapter
def test_every_link_to_a_file_leads_to_one_that_is_there(path, monkeypatch):
    in_repository(monkeypatch, "https://host")
    text = "\n".join(cell.source for cell in gather.chapter(path).cells)
    text += gather.measured() + gather.sweeps()
    files = re.findall(r"\(https://host/blob/main/([^)]+)\)", text)
    assert [own for own in files if not (ROOT / own).exists()] == []
    assert files


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_link_and_picture_of_a_page_of_the_site_is_there(path):
    text = path.read_text(encoding="utf-8")
    made = {
        "measured.md",
        "sweeps.md",
        "symbols.md",
        "references.md",
        *(own.name for own in (*gather.CHAPTERS, *PAGES)),
    }
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert target in made or (ROOT / target).exists(), target
    assert [alt for alt in re.findall(r"!\[([^\]]*)\]", text) if len(alt) < 30] == []
    toctree = re.findall(
        r"^\w+$", "\n".join(re.findall(r"```\{toctree\}.*?\n\n(.*?)```", text, re.DOTALL)), re.MULTILINE
    )
    assert [own for own in toctree if not {f"{own}.md", f"{own}.ipynb"} & made] == []


def test_what_was_measured_is_the_readme_s_section_without_marks():
    readme, page = (ROOT / "README.md").read_text(encoding="utf-8"), gather.measured()
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert len(tables) > 30
    assert [line for line in tables if line not in readme.splitlines() and "](" not in line] == []
    assert "<!--" not in page
    assert "## Fast enough?" in page
    assert "Reading it in JupyterLab" not in page


def test_the_page_on_sweeps_is_the_readme_s_section_with_its_picture():
    readme, page = (ROOT / "README.md").read_text(encoding="utf-8"), gather.sweeps()
    assert page.startswith("# From one laptop to a cluster\n\nOne run is one draw.")
    assert [line for line in page.splitlines()[1:] if line not in readme.splitlines() and "sweeps/" not in line] == []
    assert all((ROOT / own).exists() for own in re.findall(r"!\[.{30,}\]\((figures/[\w.-]+)\)", page))
    assert "## " not in page


def test_each_chapter_s_table_of_symbols_is_there_whole():
    page = gather.symbols()
    for text in gather.sources().values():
        rows = re.search(r"^\| Symbol \| Meaning \|\n\|---\|---\|\n((?:\|.*\n)+)", text, flags=re.MULTILINE)[1]
        assert rows in page
    assert page.count("\n## ") == 3


def test_what_several_chapters_cite_stands_once_in_the_list_of_references():
    entries = re.findall(r"^\* .+$", gather.references(), flags=re.MULTILINE)
    cited = [
        set(re.findall(r"^\* [A-ZÄÖÜ].+\(\d{4}\).+$", text, flags=re.MULTILINE)) for text in gather.sources().values()
    ]
    assert len(entries) == len(set(entries))
    assert set().union(*cited) <= set(entries)
    assert len(entries) < sum(map(len, cited))


def test_the_settings_name_a_branch_and_perhaps_a_repository():
    own = json.loads((ROOT / "site" / "settings.json").read_text(encoding="utf-8"))
    assert own.keys() == {"repository", "branch"}
    assert re.fullmatch(r"(https://\S+[^/])?", own["repository"])
    assert own["branch"]
