"""Sliders: the one `explore` that all widgets share, what each of them shows, and pages that need no kernel."""

import base64
import html
import io
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
import torch
from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from gm_helpers import figures, gan
from gm_helpers.flows import Flow
from gm_helpers.nn import slerp
from gm_helpers.vae import VAE, kl_standard_normal

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


class Explorer:
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
                    self.picture.value, self.reading.value = _png(picture), html.escape(reading)
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


live: dict[str, Explorer] = {}  # the widget of each name that was shown last


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
    explorer = live[name] = Explorer(draw, controls)
    static = figures.static(bytes(explorer.picture.value), name, alt, figure_dir)
    _display({**explorer.box._repr_mimebundle_(), **static}, alt)
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


def _display(content: dict[str, Any], alt: str) -> None:
    display(content, metadata={"image/png": {"alt": alt}}, raw=True)


def _png(picture: Figure | bytes) -> bytes:
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


# ---------------------------------------------------------------- what each shows


def two_normals(figure_dir: str = "") -> None:
    """KL(N(μ, σ²) ‖ N(0, 1)) and the two densities, for any μ and σ."""
    x = torch.linspace(-6, 6, 400, dtype=torch.float64)
    standard = torch.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)

    def draw(mean: float, std: float) -> Drawing:
        kl = kl_standard_normal(torch.tensor([[mean]]), torch.tensor([[2 * math.log(std)]])).item()
        figure, axis = plt.subplots(figsize=(6, 3))
        axis.plot(x, standard, label="$p$ = N(0, 1)")
        axis.plot(x, torch.exp(-((x - mean) ** 2) / (2 * std**2)) / (std * math.sqrt(2 * math.pi)), label="$q$")
        axis.set(xlabel="$z$", ylabel="density", ylim=(0, 1.5))
        axis.legend(loc="upper right")
        return figure, f"KL(q ‖ p) = {kl:.3f} nats at μ = {mean:.2f}, σ = {std:.2f}"

    controls = {"mean": slider("mean μ", 1.0, -4, 4, 0.05), "std": slider("deviation σ", 0.5, 0.05, 4, 0.05)}
    alt = "The density of q, a normal with mean 1 and deviation 0.5, beside that of the standard normal p."
    explore("1.5a-widget", alt, draw, controls, figure_dir)


def generator_losses(figure_dir: str = "") -> None:
    """Both losses of a GAN's generator against the logit, with value and slope at one point."""
    logits = torch.linspace(-8, 8, 300)
    names = {"saturating": "log(1 − D)", "non_saturating": "−log D"}

    def draw(logit: float) -> Drawing:
        figure, axis = plt.subplots(figsize=(6, 3.2))
        at, readings = torch.tensor(logit, requires_grad=True), []
        for name, loss in gan.GENERATOR_LOSSES.items():
            value = loss(at)
            slope = torch.autograd.grad(value, at)[0].item()
            [line] = axis.plot(logits, loss(logits), label=names[name])
            reach = torch.tensor([logit - 1.5, logit + 1.5])
            axis.plot(
                reach, value.item() + slope * (reach - logit), "-", color=line.get_color(), linewidth=3, alpha=0.5
            )
            axis.plot(logit, value.item(), "o", color=line.get_color())
            readings.append(f"{names[name]} = {value.item():.3f} nats, slope {slope:.4f}")
        axis.set(xlabel="logit $a$", ylabel="loss (nats)", ylim=(-9, 9))
        axis.legend()
        return figure, f"D(G(z)) = {torch.sigmoid(at).item():.4f}: " + "; ".join(readings)

    alt = "Both losses of the generator against the logit, each with its tangent at a = −4, flat for log(1 − D)."
    explore("2.4-widget", alt, draw, {"logit": slider("logit a", -4.0, -8, 8, 0.1)}, figure_dir)


def stretched_density(figure_dir: str = "") -> None:
    """A monotone map x = z + steepness · tanh(z − centre), and the density that it makes of a normal one."""
    z = torch.linspace(-5, 5, 1001, dtype=torch.float64)
    normal = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)

    def draw(steepness: float, centre: float) -> Drawing:
        x, stretch = z + steepness * torch.tanh(z - centre), 1 + steepness / torch.cosh(z - centre) ** 2
        figure, axes = plt.subplots(1, 2, figsize=(8, 3))
        axes[0].plot(x, z)
        axes[0].set(xlabel="$x$", ylabel="$z = f(x)$", xlim=(-12, 12))
        axes[1].plot(x, normal / stretch)
        axes[1].set(xlabel="$x$", ylabel="$p(x)$", xlim=(-12, 12), ylim=(0, 0.45))
        total = torch.trapezoid(normal / stretch, x).item()
        return (
            figure,
            f"slope f′ from {1 / stretch.max().item():.3f} to {1 / stretch.min().item():.3f}; area {total:.3f}",
        )

    controls = {"steepness": slider("steepness s", 4.0, 0, 9, 0.1), "centre": slider("centre", 0.0, -2, 2, 0.05)}
    alt = (
        "A monotone map, flat in the middle, and the density that it makes of a normal one: low where the map is flat."
    )
    explore("3.1-widget", alt, draw, controls, figure_dir)


def warped_plane(flow: Flow, points: Tensor, figure_dir: str = "") -> None:
    """Points (N, 2) and a grid, carried through the first layers of a flow of the plane."""
    side, fine = (torch.linspace(-2, 2, n, device=points.device, dtype=points.dtype) for n in (25, 400))
    upright = torch.stack(torch.meshgrid(side, 0.75 * fine, indexing="ij"), dim=2)
    level = torch.stack(torch.meshgrid(fine, 0.75 * side, indexing="xy"), dim=2)
    lines = torch.cat([upright, level])  # (50, 400, 2): fine enough that no two chords cross

    @torch.no_grad()
    def draw(depth: float) -> Drawing:
        own, grid, log_det = points, lines.flatten(0, 1), points.new_zeros(len(points))
        for layer in flow.bijection.layers[: int(depth)]:
            own, change = layer(own)
            grid, log_det = layer(grid)[0], log_det + change
        figure, axis = plt.subplots(figsize=(4.5, 4.5))
        axis.scatter(own[:, 0].cpu(), own[:, 1].cpu(), s=2, color=figures.COLOURS[0])
        for line in grid.view(lines.shape).cpu():
            axis.plot(*line.T, "-", color="#777777", linewidth=0.5)
        axis.set(xlim=(-4, 4), ylim=(-4, 4), aspect="equal", xlabel="$h_1$", ylabel="$h_2$")
        return figure, f"after {int(depth)} layers: mean log-determinant {log_det.mean().item():.3f} nats"

    controls = {"depth": slider("depth (layers)", 4, 0, len(flow.bijection.layers), 1)}
    alt = "Two moons and a grid of lines after four of the flow's eight layers: bent, but nowhere torn."
    explore("3.beyond-a-widget", alt, draw, controls, figure_dir)


def samples_over_training(stages: dict[float, Tensor], centres: Tensor, figure_dir: str = "") -> None:
    """Samples of the plane at several fractions of a training, fraction -> (N, 2), and the modes they should cover."""
    fractions = sorted(stages)

    def draw(stage: float) -> Drawing:
        fraction = fractions[int(stage)]
        figure, axis = plt.subplots(figsize=(4.2, 4.2))
        axis.scatter(
            centres[:, 0].cpu(), centres[:, 1].cpu(), s=120, facecolors="none", edgecolors="black", linewidths=0.8
        )
        axis.scatter(stages[fraction][:, 0].cpu(), stages[fraction][:, 1].cpu(), s=2, color=figures.COLOURS[0])
        axis.set(xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
        return figure, f"after {100 * fraction:.0f} % of the steps"

    controls = {"stage": slider("training (stages)", len(fractions) - 1, 0, len(fractions) - 1, 1)}
    alt = "Samples of the GAN at the end of its training, on the ring of eight modes."
    explore("2.beyond-a-training-widget", alt, draw, controls, figure_dir)


def interpolation(name: str, codes: Tensor, decode: Callable[[Tensor], Tensor], figure_dir: str = "") -> None:
    """From the code of one digit to that of another, straight or spherical: both ends and the image between.

    codes: (10, D), one for each digit. decode: codes (N, D) to images (N, 784) or (N, 1, 28, 28) in [0, 1].
    """

    @torch.no_grad()
    def draw(start: int, end: int, way: str, fraction: float) -> Drawing:
        ends, t = (codes[start], codes[end]), torch.tensor([fraction], device=codes.device, dtype=codes.dtype)
        straight = way == "straight" or start == end  # there is no angle between a code and itself
        between = torch.lerp(*ends, t)[None] if straight else slerp(*ends, t)
        images = decode(torch.cat([codes[start][None], between.view(1, -1), codes[end][None]]))
        norms = [own.norm().item() for own in (ends[0], between, ends[1])]
        return digits(images, 3), f"norms of the codes: {norms[0]:.1f}, {norms[1]:.1f}, {norms[2]:.1f}"

    controls: dict[str, Any] = {
        "start": choice("from the digit", range(10)),
        "end": choice("to the digit", range(10)),
        "way": choice("way", ("straight", "spherical")),
        "fraction": slider("fraction t", 0.5, 0, 1, 0.02),
    }
    controls["start"].value, controls["end"].value = 2, 7
    alt = "Three images: the start, a 2, the one half way, and the end, a 7."
    explore(name, alt, draw, controls, figure_dir)


def temperature(models: dict[str, Callable[[Tensor], Tensor]], codes: dict[str, Tensor], figure_dir: str = "") -> None:
    """The same draws of the prior, multiplied by a temperature, decoded: a row of digits for each model.

    models: name -> decoder of codes to images in [0, 1]. codes: name -> draws (N, D), N the same for all.
    """

    @torch.no_grad()
    def draw(factor: float) -> Drawing:
        images = torch.cat([decode(factor * codes[name]).reshape(-1, 784) for name, decode in models.items()])
        return digits(images, len(images) // len(models)), f"T = {factor:.2f}; rows: {', '.join(models)}"

    controls = {"factor": slider("temperature T", 0.7, 0, 1.5, 0.05)}
    alt = f"Rows of digits drawn at the temperature 0.7: {', '.join(models)}."
    explore("3.beyond-b-widget", alt, draw, controls, figure_dir)


# ---------------------------------------------------------------- pages that decode by themselves


def latent_pad(model: VAE, codes: Tensor, labels: Tensor, figure_dir: str = "") -> None:
    """A page in the output: drag over the plane of latents, (2,), and the decoded digit follows; it needs no kernel.

    codes: (N, 2), of images of the classes `labels` (N,), drawn behind the point.
    """
    figure, axis = plt.subplots(figsize=(4.5, 4.5))
    figures.draw_classes(axis, codes, labels)
    axis.set(xlim=(-4, 4), ylim=(-4, 4), aspect="equal", xlabel="$z_1$", ylabel="$z_2$")
    alt = "The codes of test images in the plane, each drawn as its digit: the background of the latent pad."
    scatter = {"codes": _rounded(codes, 2), "labels": labels.tolist(), "colours": figures.CLASS_COLOURS}
    _page("1.15-pad", alt, _png(figure), "latentPad", scatter | _decoder(model), figure_dir)


def latent_sliders(model: VAE, x: Tensor, labels: Tensor, figure_dir: str = "") -> None:
    """A page in the output: one slider for each latent, from the code of an encoded digit; it needs no kernel.

    x: (N, …), images to start from, of the classes `labels` (N,). The latents are sorted by their mean KL over x.
    """
    mean, log_var = model.encode(x)
    kl = kl_standard_normal(mean.reshape(-1, 1), log_var.reshape(-1, 1)).view_as(mean).mean(0)  # of each latent alone
    order = kl.argsort(descending=True)
    data = {
        "codes": _rounded(mean, 3),
        "labels": labels.tolist(),
        "order": order.tolist(),
        "kl": kl.tolist(),
    }
    alt = "A decoded digit: what the sliders of the twenty latents start from."
    still = digits(model.decode(mean[:1]).sigmoid(), 1)
    _page("1.14-sliders", alt, still, "latentSliders", data | _decoder(model), figure_dir)


def _rounded(codes: Tensor, decimals: int) -> list[list[float]]:
    """As short as JSON can write them: float32's 0.12 would become 0.11999999731779099."""
    return codes.detach().cpu().double().round(decimals=decimals).tolist()


def _decoder(model: VAE) -> dict[str, Any]:
    """The decoder's sizes and its weights, float16, as a page takes them."""
    layers = [own for own in model.decoder if isinstance(own, nn.Linear)]
    numbers = torch.cat([own.detach().half().cpu().flatten() for layer in layers for own in (layer.weight, layer.bias)])
    sizes = [layers[0].in_features, *(layer.out_features for layer in layers)]
    return {"sizes": sizes, "weights": base64.b64encode(numbers.numpy().astype("<f2").tobytes()).decode()}


def _page(name: str, alt: str, still: bytes, kind: str, data: dict[str, Any], figure_dir: str) -> None:
    """HTML with a static picture, which the script replaces where it may run."""
    static = figures.static(still, name, alt, figure_dir)
    image = f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{base64.b64encode(still).decode()}">'
    script = (Path(__file__).parent / "pad.js").read_text(encoding="utf-8").replace("</", "<\\/")
    page = f'<div class="gm-page" data-page="{html.escape(name)}">{image}</div>\n<script>(() => {{\n{script}\n'
    page += f"start({json.dumps(name)}, {kind}, {json.dumps(data)});".replace("</", "<\\/") + "\n})();</script>"
    _display({"text/html": page, **static}, alt)
