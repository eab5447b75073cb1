"""Invertible layers with known Jacobians: what the flows of notebook 3 are stacked from.

Every layer maps data to latents by `forward(x) -> (z, log_det)` and back by `inverse(z) -> (x, log_det)`. log_det,
(B,), is log |det| of the Jacobian of the map just taken, so that the two cancel.
"""

import math
from collections.abc import Iterable
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LOG_SCALE_BOUND = 2.0  # one coupling layer scales by e^-2 to e^2, so that a stack of them can't overflow


class Bijection(Protocol):
    """The contract of every layer here: two maps that undo each other, each with its own log-determinant."""

    def __call__(self, x: Tensor, /) -> tuple[Tensor, Tensor]:
        """z and log |det ∂z/∂x|, (B,): what `forward` gives."""

    def inverse(self, z: Tensor, /) -> tuple[Tensor, Tensor]:
        """x and log |det ∂x/∂z|, (B,)."""


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
        for layer in cast(Iterable[Bijection], reversed(self.layers)):
            z, log_det = layer.inverse(z)
            total = total + log_det
        return z, total


class Split(nn.Module):
    """Half of the channels are latents already; `rest` turns the other half into a vector: (B, C, H, W) to (B, C·H·W).

    This is what makes a flow multi-scale: later layers have fewer values to work on. Dinh et al. 2017, section 3.6.
    """

    def __init__(self, rest: Bijection):
        super().__init__()
        self.rest = rest

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        done, further = x.chunk(2, dim=1)
        z, log_det = self.rest(further)
        return torch.cat([done.flatten(1), z], dim=1), log_det

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        done, further = z.chunk(2, dim=1)
        x, log_det = self.rest.inverse(further)
        return torch.cat([done.view_as(x), x], dim=1), log_det
