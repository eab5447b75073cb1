"""Sliders: the one `explore` that all widgets share, and the controls that they take."""

import html
import io
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
import torch
from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from gm_helpers import figures

# ipywidgets leaves the handles of its sliders and its pictures without names for screen readers
NAMES = """<script>
window.gmNames ??= new MutationObserver(() => {
    for (const box of document.querySelectorAll('.gm-explorer')) {
        for (const handle of box.querySelectorAll('.widget-slider [role=slider]'))
            handle.ariaLabel = handle.closest('.widget-slider').querySelector('.widget-label').textContent;
        const reading = box.querySelector('.gm-reading'), picture = box.querySelector('img');
        if (reading && picture) { reading.role = 'status'; picture.alt = reading.textContent; }
    }
});
window.gmNames.observe(document.body, {childList: true, subtree: true});
</script>"""
PIXEL = 6  # of the screen for each pixel of a digit
Drawing = tuple[Figure | bytes, str]  # a figure or the bytes of a PNG, and what it says, in words and numbers


class _Explorer:
    """A picture, the controls that change it, and a line that reads it out or says what went wrong."""

    def __init__(self, draw: Callable[..., Drawing], controls: dict[str, ipywidgets.ValueWidget]):
        self.draw, self.controls = draw, controls
        self.picture, self.reading = ipywidgets.Image(format="png"), ipywidgets.HTML()
        self.drawing = self.outdated = False
        self.box = ipywidgets.VBox([*controls.values(), self.reading, self.picture])
        self.box.add_class("gm-explorer")
        self.reading.add_class("gm-reading")
        for control in controls.values():
            control.observe(self.refresh, "value")
        try:
            self.refresh_or_raise()
        except BaseException:
            self.close()
            raise

    def refresh_or_raise(self) -> None:
        """Draw until no value has changed meanwhile, so that the newest values are what is seen."""
        if self.drawing:
            self.outdated = True
            return
        self.drawing = self.outdated = True
        try:
            while self.outdated:
                self.outdated = False
                try:
                    picture, reading = self.draw(**{name: control.value for name, control in self.controls.items()})
                    self.picture.value, self.reading.value = png(picture), html.escape(reading)
                except Exception:
                    if not self.outdated:  # what outdated values lead to need not be said
                        raise
        finally:
            self.drawing = False

    def refresh(self, _: Any = None) -> None:
        """Answer a change of a control; what goes wrong is said in the widget."""
        try:
            self.refresh_or_raise()
        except Exception as error:  # any: there is no other place where the reader would see it
            self.reading.value = f'<span role="alert"><b>{html.escape(f"{type(error).__name__}: {error}")}</b></span>'

    def close(self) -> None:
        """Take the widget and its models out of the kernel."""
        for own in (*self.controls.values(), self.picture, self.reading, self.box):
            own.unobserve_all()
            for part in ("layout", "style"):
                if own.has_trait(part):
                    getattr(own, part).close()
            own.close()


live: dict[str, _Explorer] = {}  # the widget of each name that was shown last


def explore(
    name: str, alt: str, draw: Callable[..., Drawing], controls: dict[str, ipywidgets.ValueWidget], figure_dir: str = ""
) -> None:
    """Show a picture with controls; where no kernel runs, the same output holds its first state as a static picture.

    draw: called with the values of the controls by name. name, alt, figure_dir: of the static picture, as in
    `figures.show`. A second call with the same name closes the first one's widget. What the first drawing raises is
    raised; what a later one raises is shown.
    """
    if name in live:
        live.pop(name).close()
    explorer = live[name] = _Explorer(draw, controls)
    static = figures.static(bytes(explorer.picture.value), name, alt, figure_dir)
    show_static({**explorer.box._repr_mimebundle_(), **static}, alt)
    display({"text/html": NAMES, "text/plain": ""}, raw=True)


def slider(label: str, value: float, low: float, high: float, step: float) -> ipywidgets.FloatSlider:
    """A slider with its symbol and unit in front."""
    return ipywidgets.FloatSlider(
        value=value,
        min=low,
        max=high,
        step=step,
        description=label,
        tooltip=label,
        readout_format=".2f" if step < 1 else ".0f",
        style={"description_width": "9em"},
        layout={"width": "32em", "max_width": "100%"},
    )


def choice(label: str, options: Sequence[Any]) -> ipywidgets.Dropdown:
    """One of several, in a list."""
    return ipywidgets.Dropdown(
        options=options, description=label, tooltip=label, style={"description_width": "9em"}, layout={"width": "20em"}
    )


def digits(images: Tensor, columns: int) -> bytes:
    """PNG of grey images (N, …, 784 pixels in all) with values in [0, 1], in rows of `columns`."""
    tiles = images.detach().cpu().reshape(-1, columns, 28, 28).permute(0, 2, 1, 3)
    grey = (255 * tiles.reshape(-1, columns * 28)).round().clamp(0, 255).to(torch.uint8)
    picture = Image.fromarray(grey.numpy())
    return _bytes(picture.resize((picture.width * PIXEL, picture.height * PIXEL), Image.Resampling.NEAREST))


def show_static(content: dict[str, Any], alt: str) -> None:
    """An output that holds a picture among other things."""
    display(content, metadata={"image/png": {"alt": alt}}, raw=True)


def png(picture: Figure | bytes) -> bytes:
    """The bytes of a figure, which is closed, or these bytes themselves."""
    if isinstance(picture, bytes):
        return picture
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png", dpi=100)
    plt.close(picture)
    return buffer.getvalue()


def _bytes(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "png", compress_level=1)
    return buffer.getvalue()
