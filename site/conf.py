"""Sphinx's configuration of the course's site; gather.py makes the sources that it reads."""

import json
from pathlib import Path

HERE = Path(__file__).parent
SETTINGS = json.loads((HERE / "settings.json").read_text(encoding="utf-8"))

project = "Deep generative models, derived and checked"
author = "The course's authors"
project_copyright = "the course's authors; prose and figures CC BY 4.0, code MIT"
language = "en"
extensions = ["myst_nb", "sphinx.ext.mathjax"]
nb_execution_mode = "off"
nb_merge_streams = True
nb_mime_priority_overrides = [("html", "text/plain", 90)]
myst_enable_extensions = ["dollarmath", "amsmath", "deflist", "attrs_inline"]
myst_heading_anchors = 3
# A notebook says "3.2" of its own sections and "notebook 1, section 1.5" of others: no links that could break.
suppress_warnings = ["mystnb.unknown_mime_type", "misc.highlighting_failure"]

mathjax_path = "mathjax/tex-svg.js"  # self-contained: browsers load no fonts beside a page that is a file
mathjax3_config = {"options": {"enableMenu": True}}

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["course.css"]
html_js_files = [(name, {"defer": "defer"}) for name in ("pad.js", "flow.js", "matching.js", "living.js")]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "home_page_in_toc": True,
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
if SETTINGS["repository"]:
    html_theme_options |= {
        "repository_url": SETTINGS["repository"],
        "repository_branch": SETTINGS["branch"],
        "path_to_docs": "notebooks",
        "use_repository_button": True,
        "launch_buttons": {"colab_url": "https://colab.research.google.com", "binderhub_url": "https://mybinder.org"},
    }
