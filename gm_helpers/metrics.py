"""What is measured on a trained model."""

import math
from collections.abc import Sequence

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
def importance_weighted_bounds(
    model: VAE, x: Tensor, samples: Sequence[int], generator: Generator | None = None
) -> Tensor:
    """log 1/K Σ_k p(x|z_k) p(z_k)/q(z_k|x), z_k ~ q(z|x), for each K in nats: lower bounds on log p(x).

    x: (B, 1, 28, 28) or (B, 784), zeros and ones. samples: every K, at least 1 and rising. Returns (len(samples), B).
    K = 1 estimates the ELBO, its KL drawn too, and the bound's expectation grows with K. The draws are nested, each K
    goes on from the one before it, so that a difference of two rows has little noise. Memory does not grow with K.
    Burda, Grosse & Salakhutdinov 2016, equation 8. Raises ValueError for samples that do not rise from 1 or more.
    """
    if not samples or [0, *samples] != sorted({0, *samples}):
        raise ValueError(f"samples {tuple(samples)}: give whole numbers from 1 upwards, each larger than the last")
    mean, log_var = model.encode(x)
    total = torch.full(mean.shape[:1], -math.inf, device=mean.device, dtype=mean.dtype)
    at_once, done, rows = max(1, ROWS // len(x)), 0, []
    for goal in samples:
        while done < goal:
            count = min(at_once, goal - done)
            total = torch.logaddexp(total, _log_weights(model, x, mean, log_var, count, generator).logsumexp(0))
            done += count
        rows.append(total - math.log(goal))
    return torch.stack(rows)


def _log_weights(
    model: VAE, x: Tensor, mean: Tensor, log_var: Tensor, count: int, generator: Generator | None
) -> Tensor:
    """log p(x|z) p(z)/q(z|x) for `count` draws z ~ q(z|x) of each image, (count, B)."""
    # eps and z are (count, B, D)
    eps = torch.randn(count, *mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
    z = mean + (0.5 * log_var).exp() * eps
    # log p(z) − log q(z|x); the constants of the two normals are the same
    log_ratio = 0.5 * (eps**2 + log_var - z**2).sum(-1)
    logits = model.decode(z.flatten(0, 1))
    return bernoulli_log_prob(x.flatten(1).repeat(count, 1), logits).view(count, -1) + log_ratio


def bounds(model: VAE, pixels: Tensor, prepare: Prepare, samples: int = 500, seed: int = 0) -> dict[str, float]:
    """−ELBO and −log p(x) by importance weighting, means over the images in nats, each with its standard error.

    pixels: (N, 1, 28, 28) uint8. The seed decides the binarized images and all noise.
    """
    generator = Generator(pixels.device).manual_seed(seed)
    parts = [
        importance_weighted_bounds(model, prepare(part, generator), sorted({1, samples}), generator)[[0, -1]]
        for part in pixels.split(512)
    ]
    elbos, tighter = torch.cat(parts, dim=1)
    elbo, elbo_error = mean_and_standard_error(elbos)
    bound, bound_error = mean_and_standard_error(tighter)
    return {
        "negative_elbo": -elbo,
        "negative_elbo_error": elbo_error,
        f"importance_weighted_{samples}": -bound,
        f"importance_weighted_{samples}_error": bound_error,
    }


def active_units(means: Tensor, threshold: float = 0.01) -> Tensor:
    """Which latent units say something: those whose posterior mean varies over the images by more than the threshold.

    means: (N, D), E[z|x] of N images. Returns (D,), True where Var_x E[z_i|x] > threshold.
    Burda, Grosse & Salakhutdinov 2016, section 5.
    """
    return means.var(0) > threshold


def linear_probe_accuracy(codes: Tensor, labels: Tensor, test_codes: Tensor, test_labels: Tensor) -> float:
    """Share of the test labels, 0 to 1, that a linear classifier of the codes gets right (Alain & Bengio 2017).

    Codes: (N, D). Labels: (N,) integers. Multinomial logistic regression on codes that are standardised by the mean
    and standard deviation of the training codes; scikit-learn's, with its default L2 penalty.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    probe.fit(codes.detach().cpu().numpy(), labels.cpu().numpy())
    return float(probe.score(test_codes.detach().cpu().numpy(), test_labels.cpu().numpy()))
