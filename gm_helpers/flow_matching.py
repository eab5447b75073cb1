"""Flow matching: a velocity field that carries noise to data, its regression, and what an ODE makes of it.

Lipman et al. 2023; Liu et al. 2023; Albergo & Vanden-Eijnden 2023. Time runs from 0, noise, to 1, data.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor, nn

from gm_helpers.flows import IMAGE, LEVELS, bits_per_dim, standard_normal_log_prob
from gm_helpers.nn import VelocityMLP, VelocityNetwork
from gm_helpers.train import Players

Velocity = Callable[[Tensor, Tensor], Tensor]  # of points (B, …) at times (B,), of the points' shape


# ---------------------------------------------------------------- the path, and the regression


def path(x: Tensor, eps: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The point x_t = (1 − t)·ε + t·x on the straight way from noise to datum, and its velocity x − ε.

    x, eps: (B, …). t: (B,) in [0, 1].
    """
    share = t.view(-1, *[1] * (x.ndim - 1))
    return (1 - share) * eps + share * x, x - eps


def matching_loss(velocity: Velocity, x: Tensor, generator: Generator | None = None) -> Tensor:
    """The mean over batch and dimensions of (v(x_t, t) − (x − ε))², with a noise and a time for each datum.

    Its minimiser is v(x_t, t) = E[x − ε | x_t], where it is the mean variance of x − ε given x_t, and not 0.
    Lipman et al. 2023, equation 9 and theorem 2, with σ_min = 0.
    """
    eps = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    t = torch.rand(len(x), generator=generator, device=x.device, dtype=x.dtype)
    x_t, target = path(x, eps, t)
    return (velocity(x_t, t) - target).square().mean()


# ---------------------------------------------------------------- solvers of dx/dt = v(x, t)


def euler(velocity: Velocity, x: Tensor, start: float, end: float, steps: int) -> Tensor:
    """x carried from one time to the other by equal steps along the velocity at their beginnings."""
    h = (end - start) / steps
    for step in range(steps):
        x = x + h * velocity(x, x.new_full((len(x),), start + step * h))
    return x


def midpoint(velocity: Velocity, x: Tensor, start: float, end: float, steps: int) -> Tensor:
    """The same with the velocity half way through each step, and so two evaluations of it."""
    h = (end - start) / steps
    for step in range(steps):
        t = x.new_full((len(x),), start + step * h)
        x = x + h * velocity(x + h / 2 * velocity(x, t), t + h / 2)
    return x


def adaptive(velocity: Velocity, x: Tensor, start: float, end: float, tolerance: float = 1e-6) -> tuple[Tensor, int]:
    """The same by Dormand and Prince's steps of order 5, as long as the tolerance lets them; and its evaluations.

    All points share their steps (SciPy's solve_ivp, RK45).
    """
    from scipy.integrate import solve_ivp  # training needs no SciPy

    def slope(t: float, flat: object) -> object:
        at = torch.as_tensor(flat, dtype=x.dtype, device=x.device).view(x.shape)
        return velocity(at, x.new_full((len(x),), float(t))).double().cpu().flatten().numpy()

    found = solve_ivp(slope, (start, end), x.double().cpu().flatten().numpy(), rtol=tolerance, atol=tolerance)
    return torch.as_tensor(found.y[:, -1]).to(x).view(x.shape), int(found.nfev)


# ---------------------------------------------------------------- the likelihood


def exact_divergence(velocity: Velocity, x: Tensor, t: Tensor) -> Tensor:
    """Σᵢ ∂vᵢ/∂xᵢ at each point, (B,): a backward pass for each of the dimensions."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        parts = velocity(x, t).flatten(1).unbind(1)
        rows = [torch.autograd.grad(own.sum(), x, retain_graph=True)[0].flatten(1) for own in parts]  # of the Jacobian
    return torch.stack([row[:, i] for i, row in enumerate(rows)]).sum(0)


def estimated_divergence(velocity: Velocity, x: Tensor, t: Tensor, probe: Tensor) -> Tensor:
    """probeᵀ (∂v/∂x) probe, (B,): one backward pass, and the divergence on average over probes of mean 0 and
    covariance I, such as random signs (Hutchinson 1990; Grathwohl et al. 2019)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        [product] = torch.autograd.grad((velocity(x, t) * probe).sum(), x)
    return (product * probe).flatten(1).sum(1)


@torch.no_grad()
def carried(
    velocity: Velocity, x: Tensor, start: float, end: float, steps: int, divergence: Callable[..., Tensor]
) -> tuple[Tensor, Tensor]:
    """What `midpoint` makes of x, and the integral of the divergence along the way, (B,), taken where it is half way.

    divergence: of (velocity, x, t), as `exact_divergence` is. d log p(x_t)/dt = −div v(x_t, t) (Chen et al. 2018,
    theorem 1), so that log-densities at the end are those at the start less this integral.
    """
    h, integral = (end - start) / steps, x.new_zeros(len(x))
    for step in range(steps):
        t = x.new_full((len(x),), start + step * h)
        middle, when = x + h / 2 * velocity(x, t), t + h / 2
        integral += h * divergence(velocity, middle, when)
        x = x + h * velocity(middle, when)
    return x, integral


def log_prob(
    velocity: Velocity, x: Tensor, steps: int, generator: Generator | None = None, exact: bool = False
) -> Tensor:
    """log p(x), (B,), in nats: that of the noise to which x is carried back, and the divergence on the way.

    exact: the divergence itself, else for each datum one probe of random signs, the same at all times, so that the
    result is right on average.
    """
    signs = torch.randint(0, 2, x.shape, generator=generator, device=x.device).to(x) * 2 - 1
    divergence = exact_divergence if exact else partial(estimated_divergence, probe=signs)
    noise, integral = carried(velocity, x, 1.0, 0.0, steps, divergence)
    return standard_normal_log_prob(noise) + integral


# ---------------------------------------------------------------- models


class FlowMatching(nn.Module):
    """A network that gives the velocity of points (B, *shape) at times (B,), trained by `matching_loss`."""

    def __init__(self, network: nn.Module, shape: tuple[int, ...]):
        super().__init__()
        self.network, self.shape = network, shape

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        """v(x, t), of x's shape."""
        return self.network(x, t)

    def loss(self, x: Tensor, generator: Generator | None = None) -> dict[str, Tensor]:
        """`matching_loss` of a batch."""
        return {"loss": matching_loss(self.velocity, x, generator)}

    def players(self) -> Players:
        """The network plays alone: name -> (module, loss)."""
        return {"velocity": (self, self.loss)}

    @torch.no_grad()
    def sample(self, n: int, generator: Generator | None = None, steps: int = 100) -> Tensor:
        """n samples: noise carried from time 0 to 1 by Euler's steps."""
        like = next(self.parameters())
        noise = torch.randn(n, *self.shape, generator=generator, device=like.device, dtype=like.dtype)
        return torch.cat([euler(self.velocity, part, 0.0, 1.0, steps) for part in noise.split(500)])


class ImageFlowMatching(FlowMatching):
    """Flow matching of dequantized images, 2·(x + u)/256 − 1 with u uniform; images x are whole numbers 0…255."""

    def loss(self, x: Tensor, generator: Generator | None = None) -> dict[str, Tensor]:
        """`matching_loss` of a batch of images (B, 1, 28, 28)."""
        return super().loss(self.dequantized(x, generator), generator)

    def dequantized(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """Points of [−1, 1)^784 of images, (B, 1, 28, 28)."""
        u = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        return 2 * (x + u) / LEVELS - 1

    def bits_per_dim(self, x: Tensor, steps: int, generator: Generator | None = None) -> Tensor:
        """Bits per dimension of images (B, 1, 28, 28), (B,): a bound by one dequantization, on average."""
        y = self.dequantized(x, generator)
        return bits_per_dim(log_prob(self.velocity, y, steps, generator) + y[0].numel() * math.log(2 / LEVELS))

    @torch.no_grad()
    def sample(self, n: int, generator: Generator | None = None, steps: int = 100) -> Tensor:
        """n images (n, 1, 28, 28) of whole grey values 0…255."""
        return ((super().sample(n, generator, steps) + 1) * (LEVELS / 2)).floor().clamp(0, LEVELS - 1)


def matching_2d(hidden: int = 64) -> FlowMatching:
    """Flow matching in the plane."""
    return FlowMatching(VelocityMLP(2, hidden), (2,))


def matching_images(width: int = 48) -> ImageFlowMatching:
    """Flow matching of images of 28 × 28 pixels."""
    return ImageFlowMatching(VelocityNetwork(width), IMAGE)
