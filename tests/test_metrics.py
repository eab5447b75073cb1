import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import log_joint_on_grid, random_images, random_vae, seeded
from sklearn.linear_model import LogisticRegression
from torch.distributions import Normal
from torch.testing import assert_close

from gm_helpers import metrics
from gm_helpers.data import binarize
from gm_helpers.metrics import (
    active_units,
    bounds,
    importance_weighted_bounds,
    linear_probe_accuracy,
    mean_and_standard_error,
    verdict,
)
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


def test_verdict_gives_three_digits_of_the_tolerance():
    assert [verdict(x, 2 / 3) for x in (0, 1)] == ["accepted, within 0.667", "rejected, off by more than 0.667"]


# ---------------------------------------------------------------- the importance-weighted bounds


def test_one_sample_gives_the_elbo_with_its_kl_term_drawn_too():
    # The same noise gives both terms: log p(x|z), and log q(z|x) − log p(z) in the place of its mean over z, KL.
    model, x = random_vae(3), random_images(6)
    eps = torch.randn(1, 6, 3, dtype=torch.float64, generator=seeded(1))[0]
    mean, log_var = model.encode(x)
    q, z = Normal(mean, (log_var / 2).exp()), mean + (log_var / 2).exp() * eps
    reconstruction, _ = model.elbo_terms(x, eps)
    sampled_kl = (q.log_prob(z) - Normal(0.0, 1.0).log_prob(z)).sum(1)
    (bound,) = importance_weighted_bounds(model, x, [1], seeded(1))
    assert_close(bound, (reconstruction - sampled_kl).detach())


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
    difference = importance_weighted_bounds(model, x, [samples], seeded(1))[0] - log_p
    assert (variance < 20).all()
    assert (difference.abs() < 4 * (variance / samples).sqrt()).all()


def test_the_bound_grows_with_the_number_of_samples_from_the_elbo_to_the_log_likelihood():
    model, x = random_vae(1, seed=1), random_images(1).expand(1000, 1, 28, 28)
    values = [*importance_weighted_bounds(model, x, (1, 2, 8, 32), seeded(1)), log_likelihood(model, x[:1])]
    for fewer, more in pairwise(values):
        gain, error = mean_and_standard_error(more - fewer)
        assert gain > 4 * error


@pytest.mark.parametrize("rows", [1, 8, 24, 10_000])
@pytest.mark.parametrize("samples", [(1, 5, 50), (5,), (50,)])
def test_each_bound_is_of_the_first_k_draws_however_many_more_follow_or_are_decoded_at_a_time(
    samples, rows, monkeypatch
):
    # 8 images × 2 latents: torch draws normals in sixteens, so that parts of a draw are the draws of the parts.
    model, x = random_vae(2), random_images(8)
    mean, log_var = (part.detach() for part in model.encode(x))
    eps = torch.randn(50, 8, 2, dtype=torch.float64, generator=seeded(1))
    q, z = Normal(mean, (log_var / 2).exp()), mean + (log_var / 2).exp() * eps
    weights = [
        metrics.bernoulli_log_prob(x.flatten(1), model.decode(z[k]))
        + (Normal(0.0, 1.0).log_prob(z[k]) - q.log_prob(z[k])).sum(1)
        for k in range(50)
    ]
    monkeypatch.setattr(metrics, "ROWS", rows)
    expected = torch.stack([torch.stack(weights[:k]).logsumexp(0) - math.log(k) for k in samples])
    assert_close(importance_weighted_bounds(model, x, samples, seeded(1)), expected.detach())


def test_a_difference_of_two_rows_has_less_noise_than_one_of_independent_bounds():
    model, x = random_vae(1, seed=1), random_images(1).expand(2000, 1, 28, 28)
    fewer, more = importance_weighted_bounds(model, x, (8, 16), seeded(1))
    (apart,) = importance_weighted_bounds(model, x, [16], seeded(2))
    # 0.36 to 0.41 over eight seeds; rows that share no draws would have 1.
    assert (more - fewer).var() < 0.6 * (apart - fewer).var()


@pytest.mark.parametrize("samples", [(0,), (0, 1), (-1, 2), (5, 5), (5, 1), (1, 3, 2)])
def test_samples_that_do_not_rise_from_1_or_more_are_refused(samples):
    with pytest.raises(ValueError, match="upwards"):
        importance_weighted_bounds(random_vae(2), random_images(2), samples)


@pytest.mark.parametrize(("rows", "expected"), [(50, [8, 48, 48, 8]), (3, [8] * 14)])
def test_no_more_than_the_stated_rows_are_decoded_at_a_time_or_each_image_once(rows, expected, monkeypatch):
    model, sizes = random_vae(2), []
    model.decoder.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    monkeypatch.setattr(metrics, "ROWS", rows)
    importance_weighted_bounds(model, random_images(8), (1, 14))
    assert sizes == expected


# ---------------------------------------------------------------- what is measured on a VAE


def test_bounds_are_the_means_over_all_images_with_their_standard_errors():
    model, generator = random_vae(2), seeded(7)
    parts = [
        importance_weighted_bounds(model, as_float64(part, generator), (1, 4), generator)
        for part in (PIXELS[:512], PIXELS[512:])
    ]
    one, many = torch.cat(parts, dim=1).numpy()
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


def test_with_one_sample_both_bounds_are_the_elbo():
    values = bounds(random_vae(2), PIXELS[:20], as_float64, samples=1)
    assert values["importance_weighted_1"] == values["negative_elbo"]
    assert values["importance_weighted_1_error"] == values["negative_elbo_error"]


def test_the_seed_decides_the_bounds():
    model = random_vae(2)
    one, again, other = (bounds(model, PIXELS[:20], as_float64, samples=3, seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert not set(one.values()) & set(other.values())


def test_bounds_are_measured_with_500_samples_unless_told():
    assert "importance_weighted_500" in bounds(random_vae(2), PIXELS[:2], as_float64)


def test_measuring_builds_no_graph():
    assert not importance_weighted_bounds(random_vae(2), random_images(2), [3]).requires_grad


# ---------------------------------------------------------------- what is measured on codes


def test_active_units_are_those_whose_variance_over_the_images_agrees_with_numpy_s():
    scales = torch.linspace(0.02, 0.3, 40, dtype=torch.float64)  # the threshold is at 0.1
    means = scales * torch.randn(500, 40, dtype=torch.float64, generator=seeded(0)) + scales.flip(0)
    expected = np.var(means.numpy(), axis=0) > 0.01
    assert 5 < expected.sum() < 35
    assert active_units(means).tolist() == expected.tolist()
    assert active_units(means, 0.04).tolist() == (np.var(means.numpy(), axis=0) > 0.04).tolist()


def clusters(n, seed, shift=1.0):
    """Codes of three classes, (n, 4), each shifted by so many standard deviations on one of three axes; and labels."""
    generator = seeded(seed)
    labels = torch.randint(0, 3, (n,), generator=generator)
    centres = shift * torch.tensor([[0.0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0]])
    noise = torch.randn(n, 4, dtype=torch.float64, generator=generator)
    return (centres[labels] + noise) * torch.tensor([0.01, 1, 30, 1]) + 5, labels


def test_the_probe_is_a_logistic_regression_on_codes_standardised_as_the_training_codes():
    (codes, labels), (test_codes, test_labels) = clusters(300, seed=1), clusters(900, seed=2)
    test_codes = test_codes[test_labels > 0]  # other means and deviations than the training codes'
    test_labels = test_labels[test_labels > 0]
    mean, deviation = codes.numpy().mean(0), codes.numpy().std(0)
    classifier = LogisticRegression(max_iter=1000).fit((codes.numpy() - mean) / deviation, labels.numpy())
    expected = np.mean(classifier.predict((test_codes.numpy() - mean) / deviation) == test_labels.numpy())
    assert 0.4 < expected < 0.8
    assert linear_probe_accuracy(codes, labels, test_codes, test_labels) == pytest.approx(expected)


def test_the_probe_gets_linearly_separable_classes_all_right():
    (codes, labels), test = clusters(300, seed=1, shift=20), clusters(300, seed=2, shift=20)
    assert linear_probe_accuracy(codes.requires_grad_(), labels, *test) == 1  # codes may come with a graph


def test_the_probe_of_shuffled_labels_is_right_by_chance():
    (codes, labels), test = clusters(300, seed=1, shift=20), clusters(3000, seed=2, shift=20)
    test_labels = test[1][torch.randperm(3000, generator=seeded(3))]
    error = math.sqrt(1 / 3 * 2 / 3 / 3000)
    assert abs(linear_probe_accuracy(codes, labels, test[0], test_labels) - 1 / 3) < 4 * error
