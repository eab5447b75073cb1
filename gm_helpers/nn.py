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
