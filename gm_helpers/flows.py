"""The normalizing flows of notebook 3: densities made of bijections, and the way from pixels to densities."""

import math
from collections.abc import Iterable

import torch
from torch import Generator, Tensor, nn

from gm_helpers.bijections import (
    ActNorm,
    Affine,
    AffineCoupling,
    AutoregressiveLayer,
    Flatten,
    Logit,
    Reverse,
    Split,
    Squeeze,
    Stack,
)
from gm_helpers.nn import convolutions, mlp
from gm_helpers.train import Players

IMAGE = (1, 28, 28)
PIXELS = math.prod(IMAGE)
LEVELS = 256  # grey values of a pixel


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """log N(z; 0, I) of each row, in nats: (B, …) to (B,)."""
    return -0.5 * (z**2 + math.log(2 * math.pi)).flatten(1).sum(1)


def bits_per_dim(log_prob: Tensor, dims: int = PIXELS) -> Tensor:
    """−log₂ P per dimension, from log-likelihoods in nats per example."""
    return -log_prob / (dims * math.log(2))


class StandardNormal(nn.Module):
    """N(0, I) of `dims` dimensions."""

    centre: Tensor

    def __init__(self, dims: int):
        super().__init__()
        self.register_buffer("centre", torch.zeros(dims), persistent=False)

    def log_prob(self, z: Tensor) -> Tensor:
        """The density's logarithm at z (B, D), (B,), in nats."""
        return standard_normal_log_prob(z)

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """n draws, (n, D)."""
        return torch.randn(n, len(self.centre), generator=generator, device=self.centre.device, dtype=self.centre.dtype)


class TwoNormals(StandardNormal):
    """½ N(−c, I) + ½ N(c, I), with c = (distance/2, 0, …, 0): a base of two humps, for data of two parts."""

    def __init__(self, dims: int, distance: float = 10.0):
        super().__init__(dims)
        self.centre[0] = distance / 2

    def log_prob(self, z: Tensor) -> Tensor:
        """The density's logarithm at z (B, D), (B,), in nats."""
        humps = standard_normal_log_prob(z - self.centre), standard_normal_log_prob(z + self.centre)
        return torch.logaddexp(*humps) - math.log(2)

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """n draws, (n, D): of each the hump first, by a fair coin."""
        side = torch.randint(0, 2, (n, 1), generator=generator, device=self.centre.device)
        return super().sample(n, generator) + (2 * side - 1) * self.centre


class Flow(nn.Module):
    """A bijection onto latents of a known density, and so a density itself: log p(x) = log p_z(f(x)) + log |det ∂f/∂x|.

    layers: from data to latents; the last one gives vectors (B, D). dims: D. base: p_z, standard normal if left out.
    """

    def __init__(self, layers: Iterable[nn.Module], dims: int, base: StandardNormal | None = None):
        super().__init__()
        self.bijection, self.dims, self.base = Stack(layers), dims, base or StandardNormal(dims)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latents z (B, D) of data x, and log |det ∂z/∂x| (B,)."""
        return self.bijection(x)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Data x for latents z (B, D), and log |det ∂x/∂z| (B,)."""
        return self.bijection.inverse(z)

    def log_prob(self, x: Tensor) -> Tensor:
        """The density's logarithm at x, (B,), in nats."""
        z, log_det = self(x)
        return self.base.log_prob(z) + log_det

    def loss(self, x: Tensor, generator: Generator | None = None) -> dict[str, Tensor]:
        """−log p(x), mean over the batch, in nats; there is no noise to draw."""
        return {"loss": -self.log_prob(x).mean()}

    def players(self) -> Players:
        """The flow plays alone: name -> (module, loss)."""
        return {"flow": (self, self.loss)}

    @torch.no_grad()
    def sample(self, n: int, generator: Generator | None = None, temperature: float = 1.0) -> Tensor:
        """n examples f⁻¹(temperature · z), z from the base."""
        return self.inverse(temperature * self.base.sample(n, generator))[0]


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

    layers: from the logits of the pixels, (B, *shape), to latents (B, D). alpha: margin that keeps the logit away from
    0 and 1. Images x are (B, *shape), whole numbers from 0 to 255, as floats.
    """

    def __init__(
        self,
        layers: Iterable[nn.Module],
        alpha: float,
        dequantizer: nn.Module | None = None,
        shape: tuple[int, ...] = IMAGE,
    ):
        super().__init__([*pixels_to_logits(alpha), ActNorm(shape), *layers], math.prod(shape))
        self.dequantizer = dequantizer or UniformDequantizer()

    def elbo(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """log p(x + u) − log q(u|x) at one draw of u, (B,), in nats: its mean is a lower bound on log P(x).

        Theis, van den Oord & Bethge 2016, section 3.1; Ho et al. 2019, equation 6.
        """
        u, log_q = self.dequantizer(x, generator)
        return self.log_prob(x + u) - log_q

    def loss(self, x: Tensor, generator: Generator | None = None) -> dict[str, Tensor]:
        """−ELBO, mean over the batch, in bits per dimension."""
        return {"loss": bits_per_dim(self.elbo(x, generator), self.dims).mean()}

    def images(self, z: Tensor) -> Tensor:
        """What is seen of latents z (B, 784): the grey values below f⁻¹(z), divided by 255, (B, 1, 28, 28)."""
        return self.grey_values(z) / (LEVELS - 1)

    def grey_values(self, z: Tensor) -> Tensor:
        """The images of latents z (B, 784): the whole grey values below f⁻¹(z), (B, 1, 28, 28)."""
        return self.inverse(z)[0].floor().clamp(0, LEVELS - 1)

    @torch.no_grad()
    def sample(self, n: int, generator: Generator | None = None, temperature: float = 1.0) -> Tensor:
        """n images (n, 1, 28, 28) of whole grey values 0…255 from z ~ N(0, temperature² I)."""
        return self.grey_values(temperature * self.base.sample(n, generator))


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


def flow_2d(couplings: int = 8, hidden: int = 64, two_humps: bool = False) -> Flow:
    """RealNVP for points in the plane. two_humps: onto a base of two normals."""
    base = TwoNormals(2) if two_humps else None
    return Flow(vector_couplings(torch.tensor([1, 0]), couplings, hidden), dims=2, base=base)


def flow_autoregressive(dims: int, layers: int = 4, hidden: int = 256) -> Flow:
    """Masked autoregressive flow for vectors, the order reversed between its layers."""
    return Flow([layer for _ in range(layers) for layer in (AutoregressiveLayer(dims, hidden), Reverse())], dims)


def flow_fully_connected(couplings: int = 8, hidden: int = 512, alpha: float = 1e-5) -> ImageFlow:
    """RealNVP with fully connected networks and a checkerboard mask."""
    return ImageFlow([Flatten(IMAGE), *vector_couplings(checkerboard(28, 28), couplings, hidden)], alpha)


def flow_8x8(autoregressive: bool, alpha: float = 1e-5) -> ImageFlow:
    """A flow over images of 8 × 8 pixels: four autoregressive layers or eight coupling layers.

    They have about as many weights, those not counted that a mask sets to zero.
    """
    if autoregressive:
        layers = flow_autoregressive(64, layers=4, hidden=256).bijection.layers
    else:
        layers = nn.ModuleList(vector_couplings(checkerboard(8, 8), 8, hidden=120))
    return ImageFlow([Flatten((1, 8, 8)), *layers], alpha, shape=(1, 8, 8))


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
