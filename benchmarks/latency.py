"""From a key press to the painted picture, in JupyterLab in Chromium: widgets that a kernel answers, and the page.

Each press is timed inside the browser, from the time stamp of its event to the first task after the frame with the new
picture. A page that decodes by itself can paint in the next frame, 17 ms later at most with 60 frames a second.

    .venv/bin/python benchmarks/latency.py
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Locator, Page

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from browser import chromium, installed, jupyterlab, run_all

CELLS = [
    """import torch
from gm_helpers import figures, pages, recipes, widgets
figures.use_style()
deep, flat = (recipes.pretrained(name, "cpu") for name in ("vae-20d", "vae-2d"))
widgets.interpolation("digits", torch.randn(10, 20), torch.arange(10), lambda z: deep.decode(z).sigmoid())""",
    "widgets.two_normals()",
    "pages.latent_pad(flat, torch.randn(1000, 2), torch.zeros(1000).long())",
]

# The next press's milliseconds: until a frame is painted in which the picture is another, or, without a picture, the
# first frame after it.
WATCH = """picture => {
    const painted = done => requestAnimationFrame(() => {
        const channel = new MessageChannel();
        channel.port1.onmessage = done;
        channel.port2.postMessage(0);
    });
    window.pressed = new Promise(resolve => document.addEventListener('keydown', event => {
        const stop = () => painted(() => resolve(performance.now() - event.timeStamp));
        if (!picture) return stop();
        const observer = new MutationObserver(() => { observer.disconnect(); picture.decode().then(stop); });
        observer.observe(picture, {attributeFilter: ['src']});
    }, {capture: true, once: true}));
}"""


def milliseconds(page: Page, focused: Locator, picture: Locator | None, presses: int) -> list[float]:
    """Latencies of so many presses of the arrow keys, to and fro; two more warm up."""
    focused.focus()
    found = []
    for i in range(presses + 2):
        page.evaluate(WATCH, picture.element_handle() if picture else None)
        page.keyboard.press("ArrowRight" if i % 2 else "ArrowLeft")
        found.append(page.evaluate("() => window.pressed"))
        page.wait_for_timeout(100 + 7 * (i % 5))  # not in step with the frames
    return found[2:]


def main() -> None:
    """Measure, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presses", type=int, default=60)
    presses = parser.parse_args().presses
    if not (path := installed()):
        raise SystemExit("no Chromium here: install the package chromium")
    with tempfile.TemporaryDirectory() as folder, jupyterlab(Path(folder), CELLS) as address, chromium(path) as browser:
        page = browser.new_page(viewport={"width": 1200, "height": 1600})
        if errors := run_all(page, address.format("cells")):
            raise SystemExit(f"the notebook failed: {errors}")
        boxes, pad = page.locator(".gm-explorer"), page.locator("canvas.gm-pad")
        images = boxes.locator("img.widget-image")
        ways: dict[str, tuple[Locator, Locator | None]] = {
            "kernel, PNG of digits": (page.get_by_role("slider", name="fraction t"), images.nth(0)),
            "kernel, matplotlib": (page.get_by_role("slider", name="mean μ"), images.nth(1)),
            "page, decoded in it": (pad, None),
        }
        print(f"| {presses} key presses each | median | 95th percentile |\n|---|---|---|")
        for name, (focused, picture) in ways.items():
            own = milliseconds(page, focused, picture, presses)
            print(f"| {name} | {statistics.median(own):.0f} ms | {statistics.quantiles(own, n=20)[-1]:.0f} ms |")


if __name__ == "__main__":
    main()
