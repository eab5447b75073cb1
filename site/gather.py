"""Gather what the site is made of: its own pages, the committed notebooks, and what README and notebooks say once.

    .venv-site/bin/python site/gather.py build/site    # `make site` does, and has Sphinx make _site of it

No notebook is executed; the weights of shipped models become scripts. In the notebooks' copies pictures have
their alternative texts where myst-nb looks for them, folded code is named by its first line, and a link to a file of
the project leads to its repository, or is only text while settings.json names none.
"""

import json
import re
import shutil
import sys
from pathlib import Path

import nbformat
import torch
from export import mathjax
from nbformat import NotebookNode

from gm_helpers import figures, pages, recipes

SITE = Path(__file__).parent
ROOT = SITE.parent
CHAPTERS = sorted((ROOT / "notebooks").glob("[1-9]_*.ipynb"))
STILL = "<p class='gm-still'><em>A still picture; in JupyterLab, once the notebook has run, it has sliders.</em></p>"
# What lives in the page: the call in a notebook -> the function of the scripts that takes its place, and its model.
LIVING = {
    "pages.latent_pad(": ("latentPad", "vae-2d"),
    "pages.latent_sliders(": ("latentSliders", "vae-20d"),
    "pages.walk(": ("latentWalk", "gan"),
    "widgets.warped_plane(": ("flowLayers", "flow-2d"),
    "matching_widgets.moons_in_time(": ("flowInTime", "matching-2d"),
}


def settings() -> dict[str, str]:
    """The repository's address and branch; the address is empty where the course has none."""
    return json.loads((SITE / "settings.json").read_text(encoding="utf-8"))


def linked(text: str) -> str:
    """Markdown whose links to the project's files lead into its repository; without one their text alone stays."""
    base = settings()["repository"]
    target = rf"[\1]({base}/blob/{settings()['branch']}/\2)" if base else r"\1"
    return re.sub(r"\[([^\]]+)\]\((?:\.\./)?((?!https?:|#|figures/)[\w./-]+)\)", target, text)


def chapter(path: Path) -> NotebookNode:
    """A notebook as myst-nb takes it."""
    book = nbformat.read(path, as_version=4)
    for cell in book.cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "markdown":
            cell.source = linked(cell.source)
            continue
        own = cell.metadata.setdefault("mystnb", {})
        if "hide-input" in tags or "hide-output" in tags:
            first = cell.source.split("\n")[0]
            own["code_prompt_show"] = first.lstrip("# ") if first.startswith("#") else "What comes out"
        for output in cell.outputs:
            if alt := output.get("metadata", {}).get("image/png", {}).get("alt"):
                own["image"] = {"alt": alt}
            if "gm-still" in output.get("data", {}).get("text/html", ""):
                output.data["text/html"] = place(cell.source)
    return book


def place(source: str) -> str:
    """What stands below a still picture: a sentence, or the place of the page that lives without a kernel."""
    for call, (build, model) in LIVING.items():
        if call in source:
            return f"<div class='gm-page' data-build='{build}' data-model='{model}'></div>"
    return STILL


def measured() -> str:
    """The README's section of what was measured, a page of its own."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [section] = re.findall(r"^## Measured\n(.*?)(?=^## Reading it)", readme, flags=re.MULTILINE | re.DOTALL)
    section = re.sub(r"<!-- .*? -->\n", "", section)
    return linked(f"# Measured\n{section}")


def sweeps() -> str:
    """The README's section on many runs, a page of its own."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [section] = re.findall(r"^## Many runs\n(.*?)(?=^## )", readme, flags=re.MULTILINE | re.DOTALL)
    return linked(f"# From one laptop to a cluster\n{section}")


def sources() -> dict[str, str]:
    """The chapters' text, name -> source."""
    return {own.stem: (ROOT / "notebooks" / "source" / f"{own.stem}.md").read_text("utf-8") for own in CHAPTERS}


def symbols() -> str:
    """Each chapter's table of symbols, one after the other."""
    parts = [
        "# Symbols\n\nEach chapter says what its letters mean; here are all three. A letter may mean another thing in"
    ]
    parts[0] += " another chapter."
    for text in sources().values():
        title = re.search(r"^# \d (.+)$", text, flags=re.MULTILINE)[1]
        table = re.search(r"^\| Symbol \| Meaning \|\n(?:\|.*\n)+", text, flags=re.MULTILINE)[0]
        parts.append(f"## {title}\n\n{table}")
    return "\n\n".join(parts)


def references() -> str:
    """What the chapters cite, each once, in the order of the alphabet."""
    cited = set()
    for text in sources().values():
        [section] = re.findall(r"^## References\n(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)
        cited |= set(re.findall(r"^\* .+$", section, flags=re.MULTILINE))
    return "# References\n\n" + "\n".join(sorted(cited, key=str.casefold)) + "\n"


@torch.no_grad()
def weights() -> dict[str, str]:
    """What lives in the pages: name of a model -> a script that hands over its weights, and where it begins."""
    figures.use_style()
    vae, sliders, gan, flow, matching, classifier = (
        recipes.pretrained(own, "cpu")
        for own in ("vae-2d", "vae-20d", "gan", "flow-2d", "matching-2d", "digit-classifier")
    )
    starts = json.loads((SITE / "starts.json").read_text(encoding="utf-8"))
    codes, kl, labels = (
        {name: torch.tensor(own[key]) for name, own in starts.items()} for key in ("codes", "kl", "labels")
    )
    noise = torch.randn(200, 100, generator=torch.Generator().manual_seed(3))
    named = classifier((gan.generator(noise).view(-1, 1, 28, 28) + 1) / 2).argmax(1)
    data = {
        "vae-2d": pages.pad_data(vae, codes["vae-2d"], labels["vae-2d"]),
        "vae-20d": pages.sliders_data(sliders, codes["vae-20d"], kl["vae-20d"], labels["vae-20d"]),
        "gan": pages.walk_data(gan, noise, named),
        "flow-2d": pages.couplings(flow),
        "matching-2d": pages.field(matching),
    }
    return {name: f"GM.arrived({json.dumps(name)}, {json.dumps(own)});\n" for name, own in data.items()}


def gather(target: Path) -> None:
    """Write the sources of the site into that folder."""
    target.mkdir(parents=True, exist_ok=True)
    for own in (SITE / "conf.py", SITE / "settings.json", *(SITE / "pages").glob("*.md")):
        shutil.copy(own, target)
    made = {"measured": measured(), "sweeps": sweeps(), "symbols": symbols(), "references": references()}
    for name, text in made.items():
        (target / f"{name}.md").write_text(text, encoding="utf-8")
    for path in CHAPTERS:
        nbformat.write(chapter(path), target / path.name)
    (target / "_static" / "mathjax").mkdir(parents=True, exist_ok=True)
    shutil.copy(mathjax(), target / "_static" / "mathjax")
    for own in (*SITE.glob("*.js"), SITE / "course.css", ROOT / "gm_helpers" / "pad.js"):
        shutil.copy(own, target / "_static")
    (target / "_static" / "weights").mkdir(exist_ok=True)
    for name, script in weights().items():
        (target / "_static" / "weights" / f"{name}.js").write_text(script, encoding="utf-8")
    (target / "figures").mkdir(exist_ok=True)
    for own in (ROOT / "figures").glob("*.png"):
        shutil.copy(own, target / "figures")


if __name__ == "__main__":
    gather(Path(sys.argv[1]))
