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


def slerp(start: Tensor, end: Tensor, fractions: Tensor) -> Tensor:
    """Spherical interpolation: points between two codes, by equal steps of the angle between them, (N, D).

    start, end: (D,), neither parallel nor opposite. fractions: (N,), 0 at the start and 1 at the end. Between codes of
    equal norm the norm is kept; between others the path leads from the one to the other. Shoemake 1985.
    """
    cosine = torch.dot(start, end) / (start.norm() * end.norm())
    angle, t = torch.acos(cosine), fractions[:, None]
    return (torch.sin((1 - t) * angle) * start + torch.sin(t * angle) * end) / torch.sin(angle)
