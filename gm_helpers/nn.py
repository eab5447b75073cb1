"""Network blocks and paths between codes, which know nothing of probability."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


def mlp(sizes: Sequence[int], activation: Callable[[], nn.Module]) -> nn.Sequential:
    """Fully connected layers with `activation` between them and none after the last.

    sizes: widths from input to output, at least two. Maps (B, sizes[0]) to (B, sizes[-1]).
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


class ResidualBlock(nn.Module):
    """x + what two convolutions, 3×3 and 1×1, make of it: (B, width, H, W) to the same shape."""

    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)), *(nn.ReLU(), nn.Conv2d(width, width, 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def convolutions(inputs: int, outputs: int, width: int, blocks: int) -> nn.Sequential:
    """Residual network for images, (B, inputs, H, W) to (B, outputs, H, W), with `width` channels between."""
    body = [ResidualBlock(width) for _ in range(blocks)]
    ends = nn.Conv2d(inputs, width, 3, padding=1), nn.Conv2d(width, outputs, 3, padding=1)
    return nn.Sequential(ends[0], *body, nn.ReLU(), ends[1])


def slerp(start: Tensor, end: Tensor, fractions: Tensor) -> Tensor:
    """Spherical interpolation: points between two codes, by equal steps of the angle between them, (N, D).

    start, end: (D,), neither parallel nor opposite. fractions: (N,), 0 at the start and 1 at the end. Between codes of
    equal norm the norm is kept; between others the path leads from the one to the other. Shoemake 1985.
    """
    cosine = torch.dot(start, end) / (start.norm() * end.norm())
    angle, t = torch.acos(cosine), fractions[:, None]
    return (torch.sin((1 - t) * angle) * start + torch.sin(t * angle) * end) / torch.sin(angle)


class TimeFeatures(nn.Module):
    """Times in [0, 1], (B,), as `count` numbers each, (B, count): sines and cosines of π·t, 2π·t, 4π·t, …"""

    def __init__(self, count: int):
        super().__init__()
        self.count = count

    def forward(self, t: Tensor) -> Tensor:
        angles = t[:, None] * torch.pi * 2 ** torch.arange(self.count // 2, device=t.device)
        return torch.cat([angles.sin(), angles.cos()], 1).to(t)


class VelocityMLP(nn.Module):
    """A velocity for vectors at a time, (B, dims) and (B,) to (B, dims)."""

    def __init__(self, dims: int, hidden: int, features: int = 8):
        super().__init__()
        self.time = TimeFeatures(features)
        self.layers = mlp([dims + features, hidden, hidden, hidden, dims], nn.SiLU)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.layers(torch.cat([x, self.time(t)], 1))


class TimedBlock(nn.Module):
    """x + what two 3×3 convolutions make of it, with a shift of each channel that depends on the time between them."""

    def __init__(self, width: int, features: int):
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1))
        self.shift = nn.Linear(features, width)
        self.second = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return x + self.second(self.first(x) + self.shift(time)[:, :, None, None])


class VelocityNetwork(nn.Module):
    """A velocity for images at a time, (B, 1, 28, 28) and (B,) to (B, 1, 28, 28).

    A small U-Net (Ronneberger, Fischer & Brox 2015) over blocks of 2×2 pixels: `width` channels at 14×14, twice as many
    at 7×7, and what the first half made at 14×14 is added before the last blocks.
    """

    def __init__(self, width: int, features: int = 64):
        super().__init__()
        self.time = nn.Sequential(
            TimeFeatures(16), nn.Linear(16, features), nn.SiLU(), nn.Linear(features, features), nn.SiLU()
        )
        self.enter = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4, width, 3, padding=1))
        self.fine = nn.ModuleList(TimedBlock(width, features) for _ in range(2))
        self.down = nn.Conv2d(width, 2 * width, 2, stride=2)
        self.coarse = nn.ModuleList(TimedBlock(2 * width, features) for _ in range(2))
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.last = nn.ModuleList(TimedBlock(width, features) for _ in range(2))
        self.leave = nn.Sequential(
            nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, 4, 3, padding=1), nn.PixelShuffle(2)
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time, h = self.time(t), self.enter(x)
        for block in self.fine:
            h = block(h, time)
        fine, h = h, self.down(h)
        for block in self.coarse:
            h = block(h, time)
        h = self.up(h) + fine
        for block in self.last:
            h = block(h, time)
        return self.leave(h)
