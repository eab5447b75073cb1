"""The normalizing flows of notebook 3: coupling layers (Dinh et al. 2017), and the way from pixels to densities.

Every layer maps data to latents by `forward(x) -> (z, log_det)` and back by `inverse(z) -> (x, log_det)`. log_det,
(B,), is log |det| of the Jacobian of the map just taken, so that the two cancel.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from gm_helpers.nn import convolutions, mlp

IMAGE = (1, 28, 28)
PIXELS = math.prod(IMAGE)
LEVELS = 256  # grey values of a pixel
LOG_SCALE_BOUND = 2.0  # one coupling layer scales by e^-2 to e^2, so that a stack of them can't overflow


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """log N(z; 0, I) of each row, in nats: (B, …) to (B,)."""
    return -0.5 * (z**2 + math.log(2 * math.pi)).flatten(1).sum(1)


def bits_per_dim(log_prob: Tensor, dims: int = PIXELS) -> Tensor:
    """−log₂ P per dimension, from log-likelihoods in nats per example."""
    return -log_prob / (dims * math.log(2))


# ---------------------------------------------------------------- layers that learn nothing


class Affine(nn.Module):
    """z = scale · x + shift with two fixed numbers, on tensors of any shape."""

    def __init__(self, scale: float, shift: float = 0.0):
        super().__init__()
        self.scale, self.shift = scale, shift

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.scale * x + self.shift, self._log_det(x)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return (z - self.shift) / self.scale, -self._log_det(z)

    def _log_det(self, x: Tensor) -> Tensor:
        return x.new_full((len(x),), x[0].numel() * math.log(abs(self.scale)))


class Logit(nn.Module):
    """z = log x/(1 − x), from (0, 1) to the real line, on tensors of any shape; its slope is 1/x(1 − x)."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = x.log() - (-x).log1p()
        return z, self._log_det(z)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z.sigmoid(), -self._log_det(z)

    def _log_det(self, z: Tensor) -> Tensor:
        # −log x − log(1 − x), from z = logit(x) because that never overflows
        return (F.softplus(z) + F.softplus(-z)).flatten(1).sum(1)


class Flatten(nn.Module):
    """Images (B, *shape) to vectors (B, D)."""

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.flatten(1), x.new_zeros(len(x))

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z.view(-1, *self.shape), z.new_zeros(len(z))


class Squeeze(nn.Module):
    """Each 2×2 block of pixels becomes four channels: (B, C, H, W) to (B, 4C, H/2, W/2)."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return F.pixel_unshuffle(x, 2), x.new_zeros(len(x))

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return F.pixel_shuffle(z, 2), z.new_zeros(len(z))


# ---------------------------------------------------------------- layers that learn


class AffineCoupling(nn.Module):
    """One part of x passes unchanged and decides how the other part is scaled and shifted (Dinh et al. 2017).

    z = x where the mask is 1, and z = x · exp(s) + t where it is 0, with (s, t) computed from the former alone.
    mask: (C,) of zeros and ones, over dimension 1: the numbers of a vector (B, C), or the channels of (B, C, H, W).
    network: maps the parts of x that pass to twice as many values as there are others, first s, then t. s is kept
    within ±LOG_SCALE_BOUND by a tanh. context: (B, …), what else the network may see, joined to its input.
    """

    kept: Tensor
    moved: Tensor
    order: Tensor

    def __init__(self, mask: Tensor, network: nn.Module):
        super().__init__()
        self.register_buffer("kept", mask.bool().nonzero().flatten(), persistent=False)
        self.register_buffer("moved", (~mask.bool()).nonzero().flatten(), persistent=False)
        # where each value of x lies once the kept ones stand in front
        self.register_buffer("order", torch.cat([self.kept, self.moved]).argsort(), persistent=False)
        self.network = network

    def scale_and_shift(self, kept: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """s and t, each of the moved part's shape."""
        inputs = kept if context is None else torch.cat([kept, context], dim=1)
        # the network may run in bfloat16, the bijection itself may not
        raw, shift = self.network(inputs).to(kept.dtype).chunk(2, dim=1)
        return LOG_SCALE_BOUND * torch.tanh(raw / LOG_SCALE_BOUND), shift

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        # x[:, self.kept] is the same, and takes five to ten times as long, forward and backward
        kept, moved = x.index_select(1, self.kept), x.index_select(1, self.moved)
        log_scale, shift = self.scale_and_shift(kept, context)
        moved = moved * log_scale.exp() + shift
        return torch.cat([kept, moved], dim=1).index_select(1, self.order), log_scale.flatten(1).sum(1)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        kept, moved = z.index_select(1, self.kept), z.index_select(1, self.moved)
        log_scale, shift = self.scale_and_shift(kept, context)
        moved = (moved - shift) * (-log_scale).exp()
        return torch.cat([kept, moved], dim=1).index_select(1, self.order), -log_scale.flatten(1).sum(1)


class ActNorm(nn.Module):
    """z = (x + shift) · exp(log_scale) with two learned numbers for each position of x, (B, *shape).

    The first batch in training sets them so that each position of z has mean 0 and deviation about 1 (Kingma &
    Dhariwal 2018, section 3.1, with one pair for each channel): what follows then begins with data of the right size.
    Frozen, it stays as it is.
    """

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.shift, self.log_scale = nn.Parameter(torch.zeros(shape)), nn.Parameter(torch.zeros(shape))
        self.untouched = True  # a plain flag, because looking at a tensor would make the GPU wait in every step

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.training and self.untouched and self.shift.requires_grad:
            with torch.no_grad():  # in place, because others may hold these tensors already
                self.shift.copy_(-x.mean(0))
                self.log_scale.copy_(-(x.std(0, correction=0) + 0.01).log())
            self.untouched = False
        return (x + self.shift) * self.log_scale.exp(), self.log_scale.sum().expand(len(x))

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z * (-self.log_scale).exp() - self.shift, -self.log_scale.sum().expand(len(z))

    def _load_from_state_dict(self, *args: Any, **keywords: Any) -> None:
        super()._load_from_state_dict(*args, **keywords)
        self.untouched = False


class MaskedLinear(nn.Linear):
    """A linear layer without the weights that would break an order: output j sees inputs i with degree i ≤ degree j.

    inputs, outputs: degrees, (in,) and (out,), whole numbers. Germain et al. 2015, section 4.
    """

    mask: Tensor

    def __init__(self, inputs: Tensor, outputs: Tensor):
        super().__init__(len(inputs), len(outputs))
        self.register_buffer("mask", (inputs <= outputs[:, None]).float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)


class AutoregressiveLayer(nn.Module):
    """z_i = x_i · exp(s_i) + t_i, with (s_i, t_i) computed from x_1 … x_(i−1): (B, D) to (B, D), D ≥ 2.

    The density needs one pass through the network, the inverse D passes, because each x_i waits for those before it.
    Papamakarios, Pavlakou & Murray 2017; the network is Germain et al.'s MADE.
    """

    def __init__(self, dims: int, hidden: int):
        super().__init__()
        own, units = torch.arange(1, dims + 1), torch.arange(hidden) % (dims - 1) + 1
        before = torch.cat([own - 1, own - 1])  # what s and t may see
        self.network = nn.Sequential(
            *(MaskedLinear(own, units), nn.ReLU(), MaskedLinear(units, units), nn.ReLU(), MaskedLinear(units, before))
        )

    def scale_and_shift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """s and t, each (B, D)."""
        raw, shift = self.network(x).to(x.dtype).chunk(2, dim=1)
        return LOG_SCALE_BOUND * torch.tanh(raw / LOG_SCALE_BOUND), shift

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift = self.scale_and_shift(x)
        return x * log_scale.exp() + shift, log_scale.sum(1)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        x, index = torch.zeros_like(z), torch.arange(z.shape[1], device=z.device)
        for i in range(z.shape[1]):
            log_scale, shift = self.scale_and_shift(x)
            x = torch.where(index == i, (z - shift) * (-log_scale).exp(), x)
        return x, -self.scale_and_shift(x)[0].sum(1)


class Reverse(nn.Module):
    """The last number first: (B, D) to (B, D)."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.flip(1), x.new_zeros(len(x))

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.forward(z)


class Stack(nn.Module):
    """Layers one after the other: their log-determinants add up."""

    def __init__(self, layers: Iterable[nn.Module]):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(len(x))
        for layer in self.layers:
            x, log_det = layer(x)
            total = total + log_det
        return x, total

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        total = z.new_zeros(len(z))
        for layer in reversed(self.layers):
            z, log_det = layer.inverse(z)  # type: ignore[operator]
            total = total + log_det
        return z, total


class Split(nn.Module):
    """Half of the channels are latents already; `rest` turns the other half into a vector: (B, C, H, W) to (B, C·H·W).

    This is what makes a flow multi-scale: later layers have fewer values to work on. Dinh et al. 2017, section 3.6.
    """

    def __init__(self, rest: nn.Module):
        super().__init__()
        self.rest = rest

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        done, further = x.chunk(2, dim=1)
        z, log_det = self.rest(further)
        return torch.cat([done.flatten(1), z], dim=1), log_det

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        done, further = z.chunk(2, dim=1)
        x, log_det = self.rest.inverse(further)  # type: ignore[operator]
        return torch.cat([done.view_as(x), x], dim=1), log_det


# ---------------------------------------------------------------- models


class Flow(nn.Module):
    """A bijection whose latents are standard normal, and so a density: log p(x) = log N(f(x); 0, I) + log |det ∂f/∂x|.

    layers: from data to latents; the last one gives vectors (B, D). dims: D.
    """

    def __init__(self, layers: Iterable[nn.Module], dims: int):
        super().__init__()
        self.bijection, self.dims = Stack(layers), dims

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latents z (B, D) of data x, and log |det ∂z/∂x| (B,)."""
        return self.bijection(x)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Data x for latents z (B, D), and log |det ∂x/∂z| (B,)."""
        return self.bijection.inverse(z)

    def log_prob(self, x: Tensor) -> Tensor:
        """The density's logarithm at x, (B,), in nats."""
        z, log_det = self(x)
        return standard_normal_log_prob(z) + log_det

    def loss(self, x: Tensor, generator: Generator | None = None) -> dict[str, Tensor]:
        """−log p(x), mean over the batch, in nats; there is no noise to draw."""
        return {"loss": -self.log_prob(x).mean()}

    def players(self) -> dict:
        """The flow plays alone: name -> (module, loss)."""
        return {"flow": (self, self.loss)}

    @torch.no_grad()
    def sample(self, n: int, generator: Generator | None = None, temperature: float = 1.0) -> Tensor:
        """n examples f⁻¹(z), z ~ N(0, temperature² I)."""
        return self.inverse(temperature * self.noise(n, generator))[0]

    def noise(self, n: int, generator: Generator | None = None) -> Tensor:
        """n draws of N(0, I), (n, D), where the weights are."""
        weight = next(self.parameters())
        return torch.randn(n, self.dims, generator=generator, device=weight.device, dtype=weight.dtype)


class UniformDequantizer(nn.Module):
    """u ~ U[0, 1) for each pixel, whatever the image; log q(u) = 0."""

    def forward(self, x: Tensor, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """u of x's shape, and log q(u|x), (B,), for images x (B, 1, 28, 28) of whole numbers."""
        return torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype), x.new_zeros(len(x))


class VariationalDequantizer(nn.Module):
    """u = σ(g(ε; x)) with ε normal and g a flow that sees the image: noise that the density model finds easy.

    log q(u|x) = log N(ε; 0, I) − log |det ∂u/∂ε|. Ho et al. 2019, section 3.1. width: channels of g's networks.
    """

    def __init__(self, couplings: int = 4, width: int = 32):
        super().__init__()
        self.squeeze, self.logit = Squeeze(), Logit()
        self.couplings = nn.ModuleList(
            AffineCoupling(mask, convolutions(2 + 4, 4, width, blocks=1)) for mask in alternate(CHECKERBOARD, couplings)
        )

    def forward(self, x: Tensor, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """u of x's shape, and log q(u|x), (B,), for images x (B, 1, 28, 28) of whole numbers."""
        eps = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        context, _ = self.squeeze(x / (LEVELS / 2) - 1)
        u, _ = self.squeeze(eps)
        log_q = standard_normal_log_prob(eps)
        for coupling in self.couplings:
            u, log_det = coupling(u, context)
            log_q = log_q - log_det
        u, log_det = self.logit.inverse(u)
        return self.squeeze.inverse(u)[0], log_q - log_det


class ImageFlow(Flow):
    """A flow over dequantized images y = x + u in [0, 256], and by it a bound on the probability of whole grey values.

    layers: from the logits of the pixels, (B, 1, 28, 28), to latents (B, 784). alpha: margin that keeps the logit away
    from 0 and 1. Images x are (B, 1, 28, 28), whole numbers from 0 to 255, as floats.
    """

    def __init__(self, layers: Iterable[nn.Module], alpha: float, dequantizer: nn.Module | None = None):
        super().__init__([*pixels_to_logits(alpha), ActNorm(IMAGE), *layers], PIXELS)
        self.dequantizer = dequantizer or UniformDequantizer()

    def elbo(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """log p(x + u) − log q(u|x) at one draw of u, (B,), in nats: its mean is a lower bound on log P(x).

        Theis, van den Oord & Bethge 2016, section 3.1; Ho et al. 2019, equation 6.
        """
        u, log_q = self.dequantizer(x, generator)
        return self.log_prob(x + u) - log_q

    def loss(self, x: Tensor, generator: Generator | None = None) -> dict[str, Tensor]:
        """−ELBO, mean over the batch, in bits per dimension."""
        return {"loss": bits_per_dim(self.elbo(x, generator)).mean()}

    def images(self, z: Tensor) -> Tensor:
        """The images of latents z (B, 784): the grey values below f⁻¹(z), divided by 255, (B, 1, 28, 28)."""
        return self.inverse(z)[0].floor().clamp(0, LEVELS - 1) / (LEVELS - 1)

    @torch.no_grad()
    def sample(self, n: int, generator: Generator | None = None, temperature: float = 1.0) -> Tensor:
        """n images (n, 1, 28, 28) in [0, 1] from z ~ N(0, temperature² I)."""
        return self.images(temperature * self.noise(n, generator))


def pixels_to_logits(alpha: float) -> list[nn.Module]:
    """The steps from y in [0, 256] to the real line: y/256, then α + (1 − 2α)·y, then the logit."""
    return [Affine(1 / LEVELS), Affine(1 - 2 * alpha, alpha), Logit()]


# ---------------------------------------------------------------- masks and architectures

CHECKERBOARD = torch.tensor([1, 0, 0, 1])  # of an image, once `Squeeze` has made four channels of each 2×2 block


def checkerboard(height: int, width: int) -> Tensor:
    """The board as a vector, (height·width,): 1 where row + column is even."""
    return ((torch.arange(height)[:, None] + torch.arange(width)) % 2 == 0).long().flatten()


def halves(channels: int) -> Tensor:
    """1 for the first half of the channels, (channels,)."""
    return (torch.arange(channels) < channels // 2).long()


def alternate(mask: Tensor, count: int) -> list[Tensor]:
    """The mask and its complement in turn, so that no value passes two layers unchanged."""
    return [mask if layer % 2 == 0 else 1 - mask for layer in range(count)]


def silent(network: nn.Sequential) -> nn.Sequential:
    """The network with its last layer zero: a coupling layer begins as the identity."""
    for parameter in network[-1].parameters():
        nn.init.zeros_(parameter)
    return network


def vector_couplings(mask: Tensor, count: int, hidden: int) -> list[nn.Module]:
    """Coupling layers for vectors, with masks in turn and networks of two hidden layers."""
    return [
        AffineCoupling(own, silent(mlp([int(own.sum()), hidden, hidden, 2 * int((1 - own).sum())], nn.ReLU)))
        for own in alternate(mask, count)
    ]


def image_couplings(mask: Tensor, count: int, width: int, blocks: int) -> list[nn.Module]:
    """Coupling layers for (B, C, H, W), with masks over the channels in turn and residual networks."""
    return [
        AffineCoupling(own, silent(convolutions(int(own.sum()), 2 * int((1 - own).sum()), width, blocks)))
        for own in alternate(mask, count)
    ]


def flow_2d(couplings: int = 8, hidden: int = 64) -> Flow:
    """RealNVP for points in the plane."""
    return Flow(vector_couplings(torch.tensor([1, 0]), couplings, hidden), dims=2)


def flow_autoregressive(dims: int, layers: int = 4, hidden: int = 256) -> Flow:
    """Masked autoregressive flow for vectors, the order reversed between its layers."""
    return Flow([layer for _ in range(layers) for layer in (AutoregressiveLayer(dims, hidden), Reverse())], dims)


def flow_fully_connected(couplings: int = 8, hidden: int = 512, alpha: float = 1e-5) -> ImageFlow:
    """RealNVP with fully connected networks and a checkerboard mask."""
    return ImageFlow([Flatten(IMAGE), *vector_couplings(checkerboard(28, 28), couplings, hidden)], alpha)


def flow_convolutional(
    width: int = 32, blocks: int = 2, couplings: int = 4, alpha: float = 1e-5, variational: bool = False
) -> ImageFlow:
    """Multi-scale RealNVP: at 14×14 a checkerboard of the image, then channels; half is split off; at 7×7 channels.

    width, blocks: of each coupling's residual network. couplings: in each of the three groups.
    """
    coarse = [Squeeze(), *image_couplings(halves(8), couplings, width, blocks), Flatten((8, 7, 7))]
    layers = [
        Squeeze(),
        *image_couplings(CHECKERBOARD, couplings, width, blocks),
        *image_couplings(halves(4), couplings, width, blocks),
        Split(Stack(coarse)),
    ]
    return ImageFlow(layers, alpha, VariationalDequantizer() if variational else None)
