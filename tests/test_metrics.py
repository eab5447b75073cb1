import math

import numpy as np
import pytest
import torch
from conftest import log_joint_on_grid, random_images, random_vae, seeded
from torch.distributions import Normal
from torch.testing import assert_close

from gm_helpers import metrics
from gm_helpers.data import binarize
from gm_helpers.metrics import bounds, importance_weighted_bound, mean_and_standard_error, verdict
from gm_helpers.train import evaluate

PIXELS = torch.randint(0, 256, (600, 1, 28, 28), dtype=torch.uint8, generator=seeded(0))


def as_float64(pixels, generator):
    return binarize(pixels, generator).double()


def test_mean_and_standard_error_agree_with_numpy():
    values = torch.randn(37, dtype=torch.float64, generator=seeded(0)) * 3 + 1
    mean, error = mean_and_standard_error(values)
    assert type(mean) is type(error) is float
    assert mean == pytest.approx(np.mean(values.numpy()))
    assert error == pytest.approx(np.std(values.numpy(), ddof=1) / np.sqrt(37))


@pytest.mark.parametrize(
    ("difference", "sentence"),
    [
        (0.5, "accepted, within 0.5"),
        (-0.6, "rejected, off by more than 0.5"),
        (torch.tensor([0.0, -0.1, 0.2]), "accepted, within 0.5"),
        (torch.tensor([0.0, -0.7, 0.2]), "rejected, off by more than 0.5"),
        (math.nan, "rejected, off by more than 0.5"),
        (torch.tensor([0.0, math.nan]), "rejected, off by more than 0.5"),
        (math.inf, "rejected, off by more than 0.5"),
    ],
)
def test_verdict_accepts_only_what_lies_within_the_tolerance(difference, sentence):
    assert verdict(difference, 0.5) == sentence


# ---------------------------------------------------------------- the importance-weighted bound


def test_one_sample_gives_the_elbo_with_its_kl_term_drawn_too():
    # The same noise gives both terms: log p(x|z), and log q(z|x) − log p(z) in the place of its mean over z, KL.
    model, x = random_vae(3), random_images(6)
    eps = torch.randn(1, 6, 3, dtype=torch.float64, generator=seeded(1))[0]
    mean, log_var = model.encode(x)
    q, z = Normal(mean, (log_var / 2).exp()), mean + (log_var / 2).exp() * eps
    reconstruction, _ = model.elbo_terms(x, eps)
    sampled_kl = (q.log_prob(z) - Normal(0.0, 1.0).log_prob(z)).sum(1)
    assert_close(importance_weighted_bound(model, x, 1, seeded(1)), (reconstruction - sampled_kl).detach())


def log_likelihood(model, x):
    z, log_joint = log_joint_on_grid(model, x)
    return (torch.trapezoid((log_joint - (top := log_joint.max())).exp(), z.T)).log() + top


def test_many_samples_give_the_log_likelihood():
    # q is made wide, so that the weights p(x, z)/q(z|x) have a finite variance, which is found by quadrature.
    model, x, samples = random_vae(1), random_images(4), 10_000
    model.mean_head.weight.data *= 0.3
    model.log_var_head.bias.data += 1.5
    mean, log_var = (part.detach() for part in model.encode(x))
    z, log_joint = log_joint_on_grid(model, x)
    log_p = log_likelihood(model, x)
    log_weight = log_joint - log_p[:, None] - Normal(mean, (log_var / 2).exp()).log_prob(z.T)
    variance = torch.trapezoid((log_weight + log_joint - log_p[:, None]).exp(), z.T) - 1  # of p(z|x)/q(z|x)
    difference = importance_weighted_bound(model, x, samples, seeded(1)) - log_p
    assert (variance < 20).all()
    assert (difference.abs() < 4 * (variance / samples).sqrt()).all()


def test_the_bound_grows_with_the_number_of_samples_from_the_elbo_to_the_log_likelihood():
    model, x = random_vae(1, seed=1), random_images(1).expand(1000, 1, 28, 28)
    values = [importance_weighted_bound(model, x, samples, seeded(samples)) for samples in (1, 2, 8, 32)]
    for fewer, more in zip(values, [*values[1:], log_likelihood(model, x[:1]).expand(1000)], strict=True):
        gain, error = mean_and_standard_error(more - fewer)
        assert gain > 4 * error


@pytest.mark.parametrize("rows", [1, 8, 24, 10_000])
def test_the_bound_does_not_depend_on_how_many_images_are_decoded_at_a_time(rows, monkeypatch):
    # 8 images × 2 latents: torch draws normals in sixteens, so that parts of a draw are the draws of the parts.
    model, x = random_vae(2), random_images(8)
    mean, log_var = (part.detach() for part in model.encode(x))
    eps = torch.randn(10, 8, 2, dtype=torch.float64, generator=seeded(1))
    q, z = Normal(mean, (log_var / 2).exp()), mean + (log_var / 2).exp() * eps
    weights = [
        metrics.bernoulli_log_prob(x.flatten(1), model.decode(z[k]))
        + (Normal(0.0, 1.0).log_prob(z[k]) - q.log_prob(z[k])).sum(1)
        for k in range(10)
    ]
    monkeypatch.setattr(metrics, "ROWS", rows)
    expected = torch.stack(weights).logsumexp(0) - math.log(10)
    assert_close(importance_weighted_bound(model, x, 10, seeded(1)), expected.detach())


def test_no_more_than_the_stated_rows_are_decoded_at_a_time(monkeypatch):
    model, sizes = random_vae(2), []
    model.decoder.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    monkeypatch.setattr(metrics, "ROWS", 50)
    importance_weighted_bound(model, random_images(8), 13)
    assert sizes == [48, 48, 8]


# ---------------------------------------------------------------- what is measured on a VAE


def test_bounds_are_the_means_over_all_images_with_their_standard_errors():
    model, generator = random_vae(2), seeded(7)
    one, many = [], []
    for part in (PIXELS[:512], PIXELS[512:]):
        x = as_float64(part, generator)
        one.append(importance_weighted_bound(model, x, 1, generator))
        many.append(importance_weighted_bound(model, x, 4, generator))
    one, many = torch.cat(one).numpy(), torch.cat(many).numpy()
    assert bounds(model, PIXELS, as_float64, samples=4, seed=7) == pytest.approx(
        {
            "negative_elbo": -one.mean(),
            "negative_elbo_error": one.std(ddof=1) / np.sqrt(600),
            "importance_weighted_4": -many.mean(),
            "importance_weighted_4_error": many.std(ddof=1) / np.sqrt(600),
        }
    )


def test_bounds_agree_with_the_loss_of_training_and_the_tighter_one_is_smaller():
    model = random_vae(2)
    values = bounds(model, PIXELS, as_float64, samples=50)
    assert abs(values["negative_elbo"] - evaluate(model, PIXELS, as_float64, seed=1)["vae"]["loss"]) < (
        4 * values["negative_elbo_error"]
    )
    assert 0 < values["importance_weighted_50"] < values["negative_elbo"]
    assert all(type(value) is float for value in values.values())


def test_the_seed_decides_the_bounds():
    model = random_vae(2)
    one, again, other = (bounds(model, PIXELS[:20], as_float64, samples=3, seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert not set(one.values()) & set(other.values())


def test_bounds_are_measured_with_500_samples_unless_told():
    assert "importance_weighted_500" in bounds(random_vae(2), PIXELS[:2], as_float64)


def test_measuring_builds_no_graph():
    assert not importance_weighted_bound(random_vae(2), random_images(2), 3).requires_grad
