"""Networks as text that a page can hold: batch norm folded into the layers, weights rounded so that little is lost.

Each row of a layer has its step, so coarse that every weight costs the outputs the same. What the rounding of a column
loses, the columns after it make good (Frantar et al. 2023, GPTQ, https://arxiv.org/abs/2210.17323), and what a layer
loses, the next one.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEP = 1.08e-4  # what a weight's step moves the outputs by, which lie between −1 and 1
DRAWS = 16_384  # of the prior, to round for; with half as many the errors are a tenth larger
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "leaky": partial(F.leaky_relu, negative_slope=0.2),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu": F.relu,
    "silu": F.silu,
    "": lambda a: a,
}
NAMES = {"LeakyReLU(negative_slope=0.2)": "leaky", "Tanh()": "tanh", "Sigmoid()": "sigmoid"}
NAMES |= {"ReLU()": "relu", "SiLU()": "silu"}
LETTERS = bytes(own for own in range(33, 127) if chr(own) not in '"\\<')  # 91 that neither JSON nor HTML must escape


class Layer(NamedTuple):
    """activation(x · weightᵀ + bias): (B, I) to (B, O)."""

    weight: Tensor  # (O, I)
    bias: Tensor  # (O,)
    activation: str = ""  # a name in ACTIVATIONS


class Rounded(NamedTuple):
    """A layer's weights as whole · step; steps and biases are numbers that float16 has."""

    whole: Tensor  # (O, I), int64
    step: Tensor  # (O,)
    bias: Tensor  # (O,)


def folded(modules: Iterable[nn.Module]) -> list[Layer]:
    """A fully connected network's layers in eval mode, float64 on the CPU, batch norm within the layer before it.

    While its statistics stand still, γ(a − mean)/√(variance + ε) + β is linear in a.
    """
    layers: list[Layer] = []
    for own in modules:
        if isinstance(own, nn.Linear):
            layers.append(Layer(_exact(own.weight), _exact(own.bias)))
        elif isinstance(own, nn.BatchNorm1d):
            gamma, beta, mean, variance = (_exact(part) for part in own.state_dict().values() if part.ndim)
            scale = gamma / (variance + own.eps).sqrt()
            weight, bias, _ = layers[-1]
            layers[-1] = Layer(scale[:, None] * weight, scale * (bias - mean) + beta)
        else:
            layers[-1] = layers[-1]._replace(activation=NAMES[repr(own)])
    return layers


def _exact(own: Tensor) -> Tensor:
    return own.detach().cpu().double()


def passed(x: Tensor, layer: Layer) -> Tensor:
    """What a layer makes of x, (B, I), in x's precision: (B, O)."""
    return ACTIVATIONS[layer.activation](F.linear(x, layer.weight.to(x), layer.bias.to(x)))


def rounded(layers: list[Layer]) -> list[Rounded]:
    """The layers of a network whose inputs are draws of N(0, I), rounded; the same layers give the same numbers."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(DRAWS, layers[0].weight.shape[1], generator=rng)
    rough = x  # what the inputs of the present layer become by the rounding of the ones before
    done, found = list[tuple[Layer, Layer]](), list[Rounded]()
    for layer, effect in zip(layers, effects(layers, x[: DRAWS // 8]), strict=True):
        if done:
            x, rough = passed(x, done[-1][0]), passed(rough, done[-1][1])
        centre = rough.mean(0)
        centred = rough - centre
        moments = _damped((centred.T @ centred / DRAWS).double())
        cross = (centred.T @ (x - rough) / DRAWS).double()
        # the best linear guess of the true inputs takes their place
        weight = layer.weight + layer.weight @ torch.linalg.solve(moments, cross).T
        feedback, novelty = feedback_and_novelty(moments)
        step = STEP / (effect * novelty.mean()).sqrt()
        step = step.clamp(2**-24, 2**15).half().double()  # what float16 can hold
        whole = round_with_feedback(weight / step[:, None], feedback)
        weight = whole * step[:, None]
        bias = layer.weight @ x.mean(0).double() + layer.bias - weight @ centre.double()  # no mean is shifted
        found.append(Rounded(whole.long(), step, bias.half().double()))
        done.append((layer, Layer(weight, found[-1].bias, layer.activation)))
    return found


def effects(layers: list[Layer], x: Tensor) -> list[Tensor]:
    """For each layer (O,): the squares of what a unit's sum moves the outputs by, added over the outputs.

    x: (B, I), draws over which the means are taken, of high powers: the largest errors are in images that are rare.
    """
    with torch.enable_grad():
        sums = list[Tensor]()
        for layer in layers:
            sums.append(F.linear(x, layer.weight.to(x), layer.bias.to(x)).requires_grad_())
            x = ACTIVATIONS[layer.activation](sums[-1])
    # (v · ∂x/∂a)² is, over random signs v, on average the sum of squares
    signs = 2.0 * torch.randint(2, x.shape, generator=torch.Generator().manual_seed(0)) - 1
    slopes = torch.autograd.grad(x, sums, signs)
    powers = [4] * (len(slopes) - 1) + [8]  # those of a hidden layer are sums already
    found = [own.double().abs().pow(p).mean(0) ** (2 / p) for own, p in zip(slopes, powers, strict=True)]
    return [own.clamp(min=0.05 * own.max()) for own in found]


def _damped(moments: Tensor) -> Tensor:
    """With a ten-thousandth of its mean variance added, so that it has an inverse."""
    return moments + 1e-4 * moments.diagonal().mean() * torch.eye(len(moments), dtype=moments.dtype)


def feedback_and_novelty(moments: Tensor) -> tuple[Tensor, Tensor]:
    """How what is lost in each column is made good by the later ones, (I, I), and the variance of an input that the
    later ones don't explain, (I,); moments: XᵀX/N of the inputs, (I, I), float64."""
    root = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(moments)), upper=True)
    return root / root.diagonal()[:, None], root.diagonal() ** -2


def round_with_feedback(weight: Tensor, feedback: Tensor) -> Tensor:
    """Whole numbers in place of the weights (O, I), which are in units of their steps, column after column."""
    lost, whole = torch.zeros_like(weight).T.contiguous(), torch.empty_like(weight)
    for i, column in enumerate(weight.T):
        wanted = column - feedback[:i, i] @ lost[:i]
        whole[:, i] = wanted.round()
        lost[i] = wanted - whole[:, i]
    return whole


def text(layers: list[Rounded]) -> str:
    """The whole numbers, row after row in Rice's code, in LETTERS: each two of them hold 13 bits, the lowest first."""
    bits = np.concatenate([_coded(row) for layer in layers for row in layer.whole.numpy()])
    groups = np.pad(bits, (0, -len(bits) % 13)).reshape(-1, 13) @ (1 << np.arange(13))
    return np.frombuffer(LETTERS, np.uint8)[np.stack(np.divmod(groups, 91), 1)].tobytes().decode()


def _coded(row: np.ndarray) -> np.ndarray:
    """Bits: k in four, then each number, folded to u = 0, 1, 2, 3 … for 0, −1, 1, −2 …, as ⌊u / 2ᵏ⌋ zeros, a one, and
    the k lowest bits of u; k is that which needs the fewest. Rice & Plaunt 1971."""
    u = np.where(row < 0, -2 * row - 1, 2 * row)
    k = min(range(16), key=lambda own: int((u >> own).sum()) + own * len(u))
    ends = 4 + np.cumsum((u >> k) + 1 + k)
    bits = np.zeros(ends[-1], np.int64)
    bits[:4] = k >> np.arange(4) & 1
    bits[ends - k - 1] = 1
    for own in range(k):
        bits[ends - k + own] = u >> own & 1
    return bits
