"""What is measured on a trained model."""

import math

import torch
from torch import Generator, Tensor

from gm_helpers.train import Prepare
from gm_helpers.vae import VAE, bernoulli_log_prob

ROWS = 8192  # decoded images at a time, 26 MB of logits


def mean_and_standard_error(values: Tensor) -> tuple[float, float]:
    """Mean of independent draws (N,), N ≥ 2, and the standard error of that mean."""
    return values.mean().item(), (values.std() / math.sqrt(len(values))).item()


def verdict(difference: Tensor | float, tolerance: float) -> str:
    """The words that close a notebook's check: accepted if no difference exceeds the tolerance, else rejected.

    NaN is rejected.
    """
    if bool((torch.as_tensor(difference).abs() <= tolerance).all()):
        return f"accepted, within {tolerance:.3g}"
    return f"rejected, off by more than {tolerance:.3g}"


@torch.no_grad()
def importance_weighted_bound(model: VAE, x: Tensor, samples: int, generator: Generator | None = None) -> Tensor:
    """log 1/K Σ_k p(x|z_k) p(z_k)/q(z_k|x), z_k ~ q(z|x), per image, in nats: a lower bound on log p(x), (B,).

    x: (B, 1, 28, 28) or (B, 784), zeros and ones. samples: K ≥ 1; K = 1 estimates the ELBO, its KL drawn too, and the
    bound's expectation grows with K. Memory does not grow with K. Burda, Grosse & Salakhutdinov 2016, equation 8.
    """
    mean, log_var = model.encode(x)
    total = torch.full(mean.shape[:1], -math.inf, device=mean.device, dtype=mean.dtype)
    at_once = max(1, ROWS // len(x))
    for done in range(0, samples, at_once):
        count = min(at_once, samples - done)
        # eps and z are (count, B, D)
        eps = torch.randn(count, *mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        z = mean + (0.5 * log_var).exp() * eps
        # log p(z) − log q(z|x); the constants of the two normals are the same
        log_ratio = 0.5 * (eps**2 + log_var - z**2).sum(-1)
        logits = model.decode(z.flatten(0, 1))
        log_likelihood = bernoulli_log_prob(x.flatten(1).repeat(count, 1), logits).view(count, -1)
        total = torch.logaddexp(total, (log_likelihood + log_ratio).logsumexp(0))
    return total - math.log(samples)


def bounds(model: VAE, pixels: Tensor, prepare: Prepare, samples: int = 500, seed: int = 0) -> dict[str, float]:
    """−ELBO and −log p(x) by importance weighting, means over the images in nats, each with its standard error.

    pixels: (N, 1, 28, 28) uint8. The seed decides the binarized images and all noise.
    """
    generator = Generator(pixels.device).manual_seed(seed)
    elbos, tighter = [], []
    for part in pixels.split(512):
        x = prepare(part, generator)
        elbos.append(importance_weighted_bound(model, x, 1, generator))
        tighter.append(importance_weighted_bound(model, x, samples, generator))
    elbo, elbo_error = mean_and_standard_error(torch.cat(elbos))
    bound, bound_error = mean_and_standard_error(torch.cat(tighter))
    return {
        "negative_elbo": -elbo,
        "negative_elbo_error": elbo_error,
        f"importance_weighted_{samples}": -bound,
        f"importance_weighted_{samples}_error": bound_error,
    }
