"""Sliders: the one `explore` that all widgets share, and the controls that they take."""

import html
import io
import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
import torch
from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from gm_helpers import figures

SENTENCE = (
    "Still picture. Select this cell, Run ▸ Run All Above Selected Cell, then Ctrl + Enter, and it comes to life."
)
# With what lives: a rule that hides the still picture and the sentence beside it, and one that hides the place of a
# widget whose model is gone, where ipywidgets writes an error.
STYLE = """
<style>
.jp-OutputArea:has(.gm-explorer, .gm-page[data-alive]) .jp-OutputArea-child:has(> .jp-RenderedImage, .gm-still) {
    display: none;
}
.jp-OutputArea:has(.gm-still):not(:has(.gm-explorer)) .jp-OutputArea-child:has(> .jupyter-widgets) {
    display: none;
}
.gm-waiting .gm-reading::after {
    content: "No answer from the kernel yet: it is busy, or was started anew (then run the cells above and this one).";
    font-weight: bold;
}
</style>"""
# For the sliders: names for screen readers, which ipywidgets leaves out, and a word while no answer comes. For the
# lists: JupyterLab, which in command mode takes arrow keys and letters for itself, is told to leave them their keys.
SCRIPT = """
<script>
window.gmExplorers ??= (() => {
    const late = box => {  // whether a control shows another value than that for which the picture was drawn
        const drawn = JSON.parse(box.querySelector('[data-drawn]')?.dataset.drawn ?? '[]');
        return [...box.querySelectorAll('.widget-readout, select')].some((control, i) => {
            const option = control.selectedOptions?.[0].text.replace(/\\s/g, ' ');  // its spaces do not break
            const shown = option ?? control.textContent.replace('−', '-');
            return typeof drawn[i] === 'number' ? Math.abs(shown - drawn[i]) > 0.006 : shown !== String(drawn[i]);
        });
    };
    const look = () => {
        for (const box of document.querySelectorAll('.gm-explorer')) {
            for (const handle of box.querySelectorAll('.widget-slider [role=slider]'))
                handle.ariaLabel = handle.closest('.widget-slider').querySelector('.widget-label').textContent;
            for (const list of box.querySelectorAll('select')) list.dataset.lmSuppressShortcuts = 'true';
            const reading = box.querySelector('.gm-reading'), picture = box.querySelector('img');
            if (reading && picture) { reading.role = 'status'; picture.alt = reading.textContent; }
            if (late(box)) setTimeout(() => box.classList.toggle('gm-waiting', late(box)), 1500);
            else box.classList.remove('gm-waiting');
        }
    };
    new MutationObserver(look).observe(document.body, {childList: true, subtree: true});
    document.addEventListener('change', look);
    return true;
})();
</script>"""
PIXEL = 6  # of the screen for each pixel of a digit
FRAME = 0.25  # seconds that a picture of an animation stays
Drawing = tuple[Figure | bytes, str]  # a figure or the bytes of a PNG, and what it says, in words and numbers


class _Explorer:
    """A picture, the controls that change it, and a line that reads it out or says what went wrong."""

    def __init__(
        self,
        draw: Callable[..., Drawing],
        controls: dict[str, ipywidgets.ValueWidget],
        play: str,
        buttons: dict[str, Callable[[], None]],
    ):
        self.draw, self.controls = draw, controls
        # as large as it is: a box would stretch it to the width of the cell
        self.picture = ipywidgets.Image(format="png", layout={"align_self": "flex-start", "max_width": "100%"})
        self.reading = ipywidgets.HTML()
        self.drawing = self.outdated = False
        self.player = [_player(controls[play])] if play else []
        self.buttons = [_button(label, partial(self.refresh, action=action)) for label, action in buttons.items()]
        self.row = [ipywidgets.HBox(self.buttons, layout={"flex_flow": "row wrap"})] if buttons else []
        self.box = ipywidgets.VBox([*controls.values(), *self.player, *self.row, self.reading, self.picture])
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
                values = self.values()
                try:
                    picture, reading = self.draw(**values)
                    self.picture.value = png(picture)
                    # with the minus of the sliders
                    self.say(html.escape(re.sub(r"(?<!\w)-(?=\d)", "−", reading)), values)
                except Exception:
                    if not self.outdated:  # what outdated values lead to need not be said
                        raise
        finally:
            self.drawing = False

    def refresh(self, _: Any = None, action: Callable[[], None] | None = None) -> None:
        """Answer a change of a control, or do what a button does; what goes wrong is said in the widget."""
        try:
            if action:
                action()
            self.refresh_or_raise()
        except Exception as error:  # any: there is no other place where the reader would see it
            self.say(f'<b role="alert">{html.escape(f"{type(error).__name__}: {error}")}</b>', self.values())

    def values(self) -> dict[str, Any]:
        """The controls' values by name; a page's slider sends 40.99999999999999 where it stands at 41."""
        values = {name: control.value for name, control in self.controls.items()}
        return {name: round(own, 6) if isinstance(own, float) else own for name, own in values.items()}

    def say(self, content: str, values: dict[str, Any]) -> None:
        """Put that into the reading, with the values that it answers, so that the page sees when an answer is due."""
        self.reading.value = f'<span data-drawn="{html.escape(json.dumps([*values.values()]))}">{content}</span>'

    def close(self) -> None:
        """Take the widget and its models out of the kernel."""
        parts = *self.controls.values(), *self.player, *self.buttons, *self.row
        for own in (*parts, self.picture, self.reading, self.box):
            own.unobserve_all()
            for part in ("layout", "style"):
                if own.has_trait(part):
                    getattr(own, part).close()
            own.close()


live: dict[str, _Explorer] = {}  # the widget of each name that was shown last


def explore(
    name: str,
    alt: str,
    draw: Callable[..., Drawing],
    controls: dict[str, ipywidgets.ValueWidget],
    figure_dir: str = "",
    play: str = "",
    buttons: dict[str, Callable[[], None]] | None = None,
    still: bytes = b"",
) -> None:
    """Show a picture with controls, after its first state as a still picture, which is hidden while the widget lives.

    draw: called with the values of the controls by name. name, alt, figure_dir: of the still picture, as in
    `figures.show`. play: the name of a slider that buttons can move from its low end to its high end. buttons: what
    each does, by its label, before the picture is drawn again. still: a PNG in place of the first state. A second call
    with the same name closes the first one's widget. What the first drawing raises is raised; what a later one or a
    button raises is shown.
    """
    if name in live:
        live.pop(name).close()
    explorer = live[name] = _Explorer(draw, controls, play, buttons or {})
    still = figures.with_palette(io.BytesIO(still or explorer.picture.value), alt)
    show_still(still, name, alt, figure_dir)
    display({"text/html": STYLE + SCRIPT, "text/plain": ""}, raw=True)
    display(explorer.box._repr_mimebundle_(), raw=True)


def show_still(picture: bytes, name: str, alt: str, figure_dir: str = "", scale: float = 1.0) -> None:
    """A picture in place of what lives, and below it a sentence that says so."""
    figures.show_png(picture, name, alt, figure_dir, scale)
    display({"text/html": f'<p class="gm-still"><em>{SENTENCE}</em></p>', "text/plain": SENTENCE}, raw=True)


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


def _button(label: str, pressed: Callable[[ipywidgets.Button], None]) -> ipywidgets.Button:
    """A button as wide as its label."""
    button = ipywidgets.Button(description=label, tooltip=label, layout={"width": "auto"})
    button.on_click(pressed)
    return button


def _player(control: ipywidgets.FloatSlider) -> ipywidgets.Play:
    """Buttons that move the slider step by step from its low end to its high end."""
    steps = round((control.max - control.min) / control.step)
    player = ipywidgets.Play(max=steps, interval=round(1000 * FRAME), layout={"margin": "2px 2px 2px 9.4em"})

    def move(change: dict[str, int]) -> None:
        control.value = control.min + change["new"] * control.step

    player.observe(move, "value")
    return player


def digits(images: Tensor, columns: int, labels: Sequence[str] = (), pixel: int = PIXEL) -> bytes:
    """PNG of grey images (N, …, 784 pixels in all) with values in [0, 1], in rows of `columns`, each with its label."""
    return pack(tiled(images, columns, labels, pixel))


def tiled(images: Tensor, columns: int, labels: Sequence[str] = (), pixel: int = PIXEL) -> Image.Image:
    """The same as a picture, to be put together with others."""
    tiles = images.detach().cpu().reshape(-1, columns, 28, 28).permute(0, 2, 1, 3)
    grey = (255 * tiles.reshape(-1, columns * 28)).round().clamp(0, 255).to(torch.uint8)
    picture = Image.fromarray(grey.numpy())
    picture = picture.resize((picture.width * pixel, picture.height * pixel), Image.Resampling.NEAREST)
    if labels:
        font = ImageFont.load_default(14)
        left = round(max(font.getlength(own) for own in labels)) + 12
        plain, picture = picture, Image.new("L", (left + picture.width, picture.height), 255)
        picture.paste(plain, (left, 0))
        for row, own in enumerate(labels):
            middle = (row + 0.5) * 28 * pixel
            ImageDraw.Draw(picture).text((left - 8, middle), own, fill=0, font=font, anchor="rm")
    return picture


def png(picture: Figure | bytes) -> bytes:
    """The bytes of a figure, which is closed, or these bytes themselves."""
    if isinstance(picture, bytes):
        return picture
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png", dpi=100)
    plt.close(picture)
    return buffer.getvalue()


def pack(picture: Image.Image) -> bytes:
    """The bytes of a PNG of the picture, made fast."""
    buffer = io.BytesIO()
    picture.save(buffer, "png", compress_level=1)
    return buffer.getvalue()
