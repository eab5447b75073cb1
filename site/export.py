"""Export notebooks as pages that are single files: formulas, folds and alternative texts come along.

.venv/bin/python site/export.py notebooks/1_vae.ipynb    # `make html` does: writes build/html/1_vae.html
"""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

from nbconvert import HTMLExporter

from gm_helpers.files import write_atomically

SITE = Path(__file__).parent


def mathjax() -> Path:
    """MathJax in one file, fonts included, which a page that is itself a file can load."""
    spec = find_spec("mathjax")
    if spec is None or spec.origin is None:
        sys.exit("MathJax's files are missing: run make setup, which installs requirements.txt")
    return Path(spec.origin).parent / "static" / "mathjax" / "es5" / "tex-svg.js"


def export(notebooks: list[Path], folder: Path) -> list[Path]:
    """Write each notebook, as it is, as a page into the folder; returns the pages."""
    folders = {"extra_template_basedirs": [str(SITE)], "extra_template_paths": [str(mathjax().parent)]}
    exporter = HTMLExporter(template_name="export", **folders)
    pages = []
    for notebook in notebooks:
        page = folder / f"{notebook.stem}.html"
        write_atomically(page, exporter.from_filename(str(notebook))[0].encode())
        pages.append(page)
    return pages


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="+", type=Path)
    for made in export(parser.parse_args().notebooks, Path("build/html")):
        print(f"{made} written")
