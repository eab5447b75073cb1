"""Pages in an output that decode by themselves: the decoder's weights and `pad.js`, which need no kernel."""

import base64
import html
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from IPython.display import display
from torch import Tensor, nn

from gm_helpers import figures
from gm_helpers.explore import STYLE, digits, show_still
from gm_helpers.vae import VAE, kl_standard_normal


def latent_pad(model: VAE, codes: Tensor, labels: Tensor, figure_dir: str = "", name: str = "1.15-pad") -> None:
    """A page in the output: drag over the plane of latents, (2,), and the decoded digit follows; it needs no kernel.

    codes: (N, 2), of images of the classes `labels` (N,), drawn behind the point. name: of the still picture.
    """
    figure, axis = plt.subplots(figsize=(4.5, 4.5))
    figures.draw_classes(axis, codes, labels)
    axis.set(xlim=(-4, 4), ylim=(-4, 4), aspect="equal", xlabel="$z_1$", ylabel="$z_2$")
    alt = "The codes of test images in the plane, each drawn as its digit: the background of the latent pad."
    still = figures.to_png(figure, alt)
    left, bottom, right, top = axis.get_position().extents  # where they were put in drawing
    plane = {"still": base64.b64encode(still).decode(), "frame": [left, 1 - top, right, 1 - bottom], "reach": 4}
    _page(name, alt, still, "latentPad", plane | _decoder(model), figure_dir, figures.SCALE)


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


def _page(
    name: str, alt: str, still: bytes, kind: str, data: dict[str, Any], figure_dir: str, scale: float = 1.0
) -> None:
    """A still picture, and the page that the script builds below it where it may run."""
    show_still(still, name, alt, figure_dir, scale)
    script = (Path(__file__).parent / "pad.js").read_text(encoding="utf-8").replace("</", "<\\/")
    page = f'{STYLE}\n<div class="gm-page" data-page="{html.escape(name)}"></div>\n<script>(() => {{\n{script}\n'
    page += f"start({json.dumps(name)}, {kind}, {json.dumps(data)});".replace("</", "<\\/") + "\n})();</script>"
    display({"text/html": page, "text/plain": ""}, raw=True)
