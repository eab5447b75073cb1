"""Pages in an output that decode by themselves: a network's weights and `pad.js`, which need no kernel."""

import base64
import html
import json
import math
from bisect import bisect_left
from collections.abc import Iterable
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import matplotlib.pyplot as plt
import torch
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor, nn

from gm_helpers import figures, quantize
from gm_helpers.bijections import LOG_SCALE_BOUND, AffineCoupling
from gm_helpers.explore import STYLE, show_still
from gm_helpers.flow_matching import FlowMatching
from gm_helpers.flows import Flow
from gm_helpers.gan import GAN, Generator
from gm_helpers.nn import VelocityMLP, slerp
from gm_helpers.vae import VAE, kl_standard_normal

REACH = 4  # of the pad's plane, in both directions from the origin
EACH = 4  # samples of each class that a walk can begin or end at


def latent_pad(model: VAE, codes: Tensor, labels: Tensor, figure_dir: str = "", name: str = "1.15-pad") -> None:
    """A page in the output: drag over the plane of latents, (2,), and the decoded digit follows; it needs no kernel.

    codes: (N, 2), of images of the classes `labels` (N,), drawn behind the point. name: of the still picture.
    """
    data = pad_data(model, codes, labels)
    ends = labels.unique()[:2].tolist()
    alt = (
        "The codes of test images in the plane, each drawn as its digit. Three crosses lead from the middle of the "
        f"codes of {ends[0]} to that of {ends[-1]}; beside the plane stands what each of them is decoded to."
    )
    still = figures.to_png(_draw_way(model, codes, labels), alt)
    _page(name, alt, still, "latentPad", data, figure_dir, figures.SCALE)


def pad_data(model: VAE, codes: Tensor, labels: Tensor) -> dict[str, Any]:
    """What `pad.js` needs for a pad: the picture of the plane, where its axes stand in it, and the decoder."""
    figure, axis = plt.subplots(figsize=(4.5, 4.5))
    _draw_plane(axis, codes, labels)
    background = figures.to_png(figure, "")
    left, bottom, right, top = axis.get_position().extents  # where they were put in drawing
    frame = [left, 1 - top, right, 1 - bottom]
    return {"still": base64.b64encode(background).decode(), "frame": frame, "reach": REACH} | decoder(model)


def _draw_plane(axis: Axes, codes: Tensor, labels: Tensor) -> None:
    """The codes, each drawn as its digit."""
    figures.draw_classes(axis, codes, labels)
    axis.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal", xlabel="$z_1$", ylabel="$z_2$")


@torch.no_grad()
def _draw_way(model: VAE, codes: Tensor, labels: Tensor) -> Figure:
    """The pad as it looks at three points, from the middle of the first class that is there to that of the next."""
    figure, axes = plt.subplot_mosaic("pppa;pppb;pppc", figsize=(6.3, 4.5))
    _draw_plane(axes["p"], codes, labels)
    axes["p"].set(title="three points of the plane, and what is decoded there")
    classes = labels.unique()[:2].tolist()
    codes, labels = codes.detach().cpu(), labels.cpu()
    start, end = (codes[labels == own].median(0).values for own in (classes[0], classes[-1]))
    for letter, share in zip("abc", (0.0, 0.5, 1.0), strict=True):
        z = torch.lerp(start, end, share)
        at = float(z[0]), float(z[1])
        for colour, size, width in (("white", 19, 5), ("black", 17, 2)):
            axes["p"].plot(*at, "+", color=colour, markersize=size, markeredgewidth=width)
        halo = [withStroke(linewidth=3, foreground="white")]
        axes["p"].annotate(letter.upper(), at, (7, 7), textcoords="offset points", weight="bold", path_effects=halo)
        title = f"{letter.upper()}: z = ({at[0]:.2f}, {at[1]:.2f})".replace("-", "−")
        figures.draw_images(axes[letter], model.decode(z[None].to(model.mean_head.weight)).sigmoid(), 1, title)
    return figure


def latent_sliders(model: VAE, x: Tensor, labels: Tensor, figure_dir: str = "") -> None:
    """A page in the output: one slider for each latent, from the code of an encoded digit; it needs no kernel.

    x: (N, …), images to start from, of the classes `labels` (N,). The latents are sorted by their mean KL over x.
    """
    mean, log_var = model.encode(x)
    kl = kl_standard_normal(mean.reshape(-1, 1), log_var.reshape(-1, 1)).view_as(mean).mean(0)  # of each latent alone
    data = sliders_data(model, mean, kl, labels)
    moved = [*data["order"][:3], data["order"][-1]]
    names = ", ".join(f"z{latent + 1}" for latent in moved)
    alt = (
        f"A {labels[0]}, decoded with one latent moved from −3 to 3 in each row and the others kept: {names}. The "
        "first carry most of the divergence and change the digit most, the last carries least."
    )
    still = figures.to_png(_draw_moved(model, mean[0], moved, kl), alt)
    _page("1.14-sliders", alt, still, "latentSliders", data, figure_dir, figures.SCALE)


def sliders_data(model: VAE, codes: Tensor, kl: Tensor, labels: Tensor) -> dict[str, Any]:
    """What `pad.js` needs for sliders: codes (N, D) of the classes `labels`, each latent's KL (D,), and the decoder."""
    data = {"codes": _rounded(codes, 3), "labels": labels.tolist(), "kl": kl.tolist()}
    return data | {"order": kl.argsort(descending=True).tolist()} | decoder(model)


@torch.no_grad()
def _draw_moved(model: VAE, code: Tensor, latents: list[int], kl: Tensor) -> Figure:
    """A row for each of these latents: what is decoded where it alone has other values than in the code, (D,)."""
    values = torch.arange(-3, 4).to(code)
    figure = plt.figure(figsize=(6.6, 0.83 * len(latents) + 0.3), layout="none")
    figure.subplots_adjust(left=0.16, right=0.99, bottom=0.02, top=1 - 0.3 / figure.get_figheight(), hspace=0.08)
    rows = figure.subplots(len(latents))
    for axis, latent in zip(rows, latents, strict=True):
        codes = code.repeat(len(values), 1)
        codes[:, latent] = values
        figures.draw_images(axis, model.decode(codes).sigmoid(), len(values))
        label = f"$z_{{{latent + 1}}}$\n({kl[latent]:.2f} nats)"
        axis.text(-6, 14, label, ha="right", va="center", linespacing=1.4)
    rows[0].text(-6, -3, "moved to", ha="right", va="bottom")
    for column, value in enumerate(values.tolist()):
        rows[0].text(28 * column + 14, -3, f"{value:g}".replace("-", "−"), ha="center", va="bottom")
    return figure


def walk(model: GAN, codes: Tensor, labels: Tensor, figure_dir: str = "", name: str = "2.7-walk") -> None:
    """A page in the output: the ways between two samples' noises, and a walk on to new draws; it needs no kernel.

    codes: (N, D), draws of N(0, I). labels: (N,), what a classifier names their images: the first few of each class can
    be chosen, and the way begins between the first 2 and the first 7. name: of the still picture.
    """
    data = walk_data(model, codes, labels)
    layers = quantize.folded(cast(Generator, model.generator).layers)
    classes, ends = data["labels"], data["ends"]
    start, end = codes.detach().cpu().float()[data["numbers"]][ends]
    middles = (between(start, end, torch.tensor([[0.5]])).norm() for between in (torch.lerp, slerp))
    alt = (
        "Nine images on the straight way from a {} to a {}, nine on the spherical one; the norm of z, above each, is "
        "{:.1f} and {:.1f} in the middle. Below, a walk through four draws of noise: each image turns into the next."
    ).format(*(classes[own] for own in ends), *middles)
    still = figures.to_png(_draw_walk(layers, start, end), alt)
    _page(name, alt, still, "latentWalk", data, figure_dir, figures.SCALE)


def walk_data(model: GAN, codes: Tensor, labels: Tensor) -> dict[str, Any]:
    """What `pad.js` needs for a walk: the noises that can be chosen, where it begins and ends, and the generator."""
    labels = labels.cpu()
    chosen = torch.cat([(labels == own).nonzero()[:EACH, 0] for own in labels.unique()])
    classes = labels[chosen].tolist()
    ends = [min(bisect_left(classes, own), len(classes) - 1) for own in (2, 7)]
    if ends[0] == ends[1]:  # there is neither a 2 nor what stands before a 7
        ends = [0, len(classes) - 1]
    data = {"codes": _rounded(codes.detach().cpu().float()[chosen], 4), "labels": classes}
    return data | {"numbers": chosen.tolist(), "ends": ends} | generator(model)


def _draw_walk(layers: list[quantize.Layer], start: Tensor, end: Tensor) -> Figure:
    """Both ways between two codes, (D,), and a spherical walk through four draws, the norm above each image."""
    t, draws = torch.linspace(0, 1, 9), torch.randn(4, len(start), generator=torch.Generator().manual_seed(0))
    ways = {"straight": torch.lerp(start, end, t[:, None]), "spherical": slerp(start, end, t)}
    ways["a walk"] = torch.cat([*(slerp(*own, t[:8:2]) for own in pairwise(draws)), draws[3:]])
    figure = plt.figure(figsize=(7.6, 2.9), layout="none")
    figure.subplots_adjust(left=0.11, right=0.99, bottom=0.07, top=0.93, hspace=0.3)
    rows = figure.subplots(3, height_ratios=[1 / len(own) for own in ways.values()])
    for axis, (way, z) in zip(rows, ways.items(), strict=True):
        figures.draw_images(axis, (reduce(quantize.passed, layers, z) + 1) / 2, len(z))
        axis.text(-6, 14, way, ha="right", va="center")
        for column, norm in enumerate(z.norm(dim=1).tolist()):
            axis.text(28 * column + 14, -3, f"{norm:.1f}", ha="center", va="bottom", size=9)
    rows[0].text(-6, -3, "norm of z", ha="right", va="bottom", size=9)
    for number in range(4):
        rows[2].text(28 * 4 * number + 14, 30, f"$z_{number + 1}$", ha="center", va="top")
    return figure


def _rounded(codes: Tensor, decimals: int) -> list[list[float]]:
    """As short as JSON can write them: float32's 0.12 would become 0.11999999731779099."""
    return codes.detach().cpu().double().round(decimals=decimals).tolist()


def decoder(model: VAE) -> dict[str, Any]:
    """What a page needs to decode: the decoder's layers, and their weights and biases."""
    return _exactly([*model.decoder, nn.Sigmoid()])


def generator(model: GAN) -> dict[str, Any]:
    """What a page needs to generate: the generator's layers, their weights rounded."""
    layers = quantize.folded(cast(Generator, model.generator).layers)
    coarse = quantize.rounded(layers)
    data = _network(layers, [own for layer in coarse for own in (layer.step, layer.bias)], black=-1)
    return data | {"text": quantize.text(coarse)}


def couplings(flow: Flow) -> dict[str, Any]:
    """What a page needs of a flow of the plane made of affine couplings: each one's network, and what it moves."""
    layers = [cast(AffineCoupling, own) for own in cast(nn.ModuleList, flow.bijection.layers)]
    parts = [_exactly(cast(nn.Sequential, own.network)) | {"moved": int(own.moved)} for own in layers]
    return {"bound": LOG_SCALE_BOUND, "couplings": parts}


def field(model: FlowMatching) -> dict[str, Any]:
    """What a page needs of flow matching in the plane: the velocity's network, and the frequencies of its times."""
    network = cast(VelocityMLP, model.network)
    frequencies = [math.pi * 2**i for i in range(network.time.count // 2)]
    return _exactly(cast(nn.Sequential, network.layers)) | {"frequencies": frequencies}


def _exactly(modules: Iterable[nn.Module]) -> dict[str, Any]:
    layers = quantize.folded(modules)
    return _network(layers, [own for layer in layers for own in (layer.weight, layer.bias)], black=0)


def _network(layers: list[quantize.Layer], numbers: list[Tensor], black: int) -> dict[str, Any]:
    """The layers' sizes and activations, numbers in float16, and the output that stands for black; 1 is white."""
    halves = torch.cat([own.flatten() for own in numbers]).half().numpy().astype("<f2")
    sizes = [layers[0].weight.shape[1], *(len(own.bias) for own in layers)]
    network = {"sizes": sizes, "activations": [own.activation for own in layers], "black": black}
    return network | {"halves": base64.b64encode(halves.tobytes()).decode()}


def _page(
    name: str, alt: str, still: bytes, kind: str, data: dict[str, Any], figure_dir: str, scale: float = 1.0
) -> None:
    """A still picture, and the page that the script builds below it where it may run."""
    show_still(still, name, alt, figure_dir, scale)
    embed(name, "pad.js", f"start({json.dumps(name)}, {kind}, {json.dumps(data)});")


def embed(name: str, script: str, call: str, style: str = STYLE, kind: str = "gm-page") -> None:
    """An empty place of that name and kind, its CSS classes, and what may fill it: a script from here and a call."""
    lines = (Path(__file__).parent / script).read_text(encoding="utf-8")
    scope = f"{lines}\n{call}".replace("</", "<\\/")  # no text in it may end the script
    place = f'<div class="{kind}" data-page="{html.escape(name)}"></div>'
    page = f"{style}\n{place}\n<script>(() => {{\n{scope}\n}})();</script>"
    display({"text/html": page, "text/plain": ""}, raw=True)
