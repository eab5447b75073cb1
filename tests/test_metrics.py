import copy
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import (
    NoFloat64,
    independent_flow,
    independent_log_probabilities,
    log_joint_on_grid,
    random_grey_images,
    random_images,
    random_vae,
    randomized,
    seeded,
)
from scipy.linalg import sqrtm
from scipy.special import softmax
from scipy.stats import entropy
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.neighbors import NearestNeighbors
from torch.distributions import Bernoulli, Normal
from torch.testing import assert_close

from gm_helpers import data, metrics
from gm_helpers.data import binarize, levels
from gm_helpers.flows import flow_2d
from gm_helpers.metrics import (
    DigitClassifier,
    accuracy,
    active_units,
    bounds,
    dequantized_bounds,
    flow_bounds,
    frechet_distance,
    histogram,
    histogram_kl,
    importance_weighted_bounds,
    in_parts,
    linear_probe_accuracy,
    mean_and_standard_error,
    mean_loss,
    nearest,
    precision_and_recall,
    sample_quality,
    verdict,
)
from gm_helpers.train import evaluate
from gm_helpers.vae import GreyVAE

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


@pytest.mark.parametrize(
    ("model", "x"),
    [(random_vae(3), random_images(6)), (random_vae(3, kind=GreyVAE), random_grey_images(6))],
    ids=["binary", "grey"],
)
def test_one_sample_gives_the_elbo_with_its_kl_term_drawn_too(model, x):
    # The same noise gives both terms: log p(x|z), and log q(z|x) − log p(z) in the place of its mean over z, KL.
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
        Bernoulli(logits=model.decode(z[k])).log_prob(x.flatten(1)).sum(1)
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


# ---------------------------------------------------------------- what is measured on a flow over images


def levels_as_float64(pixels, generator):
    return levels(pixels).double()


@pytest.mark.parametrize("samples", [(1, 2, 5), (5,), (2, 3)])
def test_each_dequantized_bound_is_of_the_first_k_draws(samples):
    model, x, generator = independent_flow(), random_grey_images(4), seeded(1)
    weights = torch.stack([model.elbo(x, generator) for _ in range(5)])
    expected = torch.stack([weights[:k].logsumexp(0) - math.log(k) for k in samples])
    assert_close(dequantized_bounds(model, x, samples, seeded(1)), expected.detach())


def exact_log_probability(model, x):
    return independent_log_probabilities(model).gather(0, x.flatten(1).long()).sum(1)


def test_the_weights_of_dequantized_draws_have_the_exact_probability_as_their_mean():
    model, x = independent_flow(), random_grey_images(1)
    (log_weights,) = dequantized_bounds(model, x.expand(4000, 1, 28, 28), [1], seeded(1))
    ratio, error = mean_and_standard_error((log_weights - exact_log_probability(model, x)).exp())
    assert error < 0.02
    assert abs(ratio - 1) < 4 * error


def test_the_dequantized_bound_grows_with_the_number_of_draws_towards_the_exact_log_probability():
    model, x = independent_flow(), random_grey_images(1)
    bounds_of_copies = dequantized_bounds(model, x.expand(1000, 1, 28, 28), (1, 2, 8), seeded(1))
    for fewer, more in pairwise([*bounds_of_copies, exact_log_probability(model, x)]):
        gain, error = mean_and_standard_error(more - fewer)
        assert gain > 4 * error


@pytest.mark.parametrize("samples", [(0,), (5, 5), (5, 1)])
def test_draws_that_do_not_rise_from_1_or_more_are_refused(samples):
    with pytest.raises(ValueError, match="upwards"):
        dequantized_bounds(independent_flow(), random_grey_images(2), samples)


def test_measuring_a_flow_builds_no_graph():
    assert not dequantized_bounds(independent_flow(), random_grey_images(2), [3]).requires_grad


def test_flow_bounds_are_the_means_over_all_images_in_bits_per_dimension_with_their_standard_errors():
    model, generator = independent_flow(), seeded(7)
    parts = [dequantized_bounds(model, part.double(), (1, 3), generator) for part in (PIXELS[:500], PIXELS[500:])]
    one, many = -torch.cat(parts, dim=1).numpy() / 784 / np.log(2)
    assert flow_bounds(model, PIXELS, levels_as_float64, samples=3, seed=7) == pytest.approx(
        {
            "bits_per_dim": one.mean(),
            "bits_per_dim_error": one.std(ddof=1) / np.sqrt(600),
            "importance_weighted_3": many.mean(),
            "importance_weighted_3_error": many.std(ddof=1) / np.sqrt(600),
        },
        rel=1e-9,
    )


def test_flow_bounds_agree_with_the_loss_of_training_and_the_tighter_one_is_smaller():
    model = independent_flow()
    values = flow_bounds(model, PIXELS, levels_as_float64)
    loss = evaluate(model, PIXELS, levels_as_float64, seed=1)["flow"]["loss"]
    assert abs(values["bits_per_dim"] - loss) < 4 * values["bits_per_dim_error"]
    assert 0 < values["importance_weighted_16"] < values["bits_per_dim"]
    assert all(type(value) is float for value in values.values())


def test_with_one_draw_both_bounds_of_a_flow_are_the_elbo():
    values = flow_bounds(independent_flow(), PIXELS[:20], levels_as_float64, samples=1)
    assert values["importance_weighted_1"] == values["bits_per_dim"]
    assert values["importance_weighted_1_error"] == values["bits_per_dim_error"]


def test_the_seed_decides_the_bounds_of_a_flow():
    model = independent_flow()
    one, again, other = (flow_bounds(model, PIXELS[:20], levels_as_float64, samples=3, seed=s) for s in (1, 1, 2))
    assert one == again
    assert not set(one.values()) & set(other.values())


def test_the_images_of_flow_bounds_are_prepared_with_the_same_generator_as_the_noise():
    seen = []

    def spy(pixels, generator):
        seen.append(torch.rand(1, generator=generator).item())
        return pixels.double()

    flow_bounds(independent_flow(), PIXELS, spy, samples=2, seed=7)
    assert len(set(seen)) == 2
    assert seen[0] == torch.rand(1, generator=seeded(7)).item()


def test_the_mean_loss_is_that_of_all_points_prepared_as_in_training():
    model = randomized(flow_2d(couplings=2, hidden=4))
    points = torch.randn(2500, 2, dtype=torch.float64, generator=seeded(1))
    values = mean_loss(model, points, lambda own, generator: 2 * own)
    assert values == {"loss": pytest.approx(-model.log_prob(2 * points).mean().item())}
    assert type(values["loss"]) is float


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


# ---------------------------------------------------------------- the classifier


def random_classifier(seed=0):
    """A classifier in float64 and eval mode whose verdicts differ from image to image."""
    model, generator = DigitClassifier().double().eval(), seeded(seed)
    for parameter in model.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 25
        parameter.data.normal_(0, 2 * fan_in**-0.5, generator=generator)
    return model


def labelled_rows(n, seed=0):
    """Random pixels with random labels behind, (n, 785) uint8."""
    generator = seeded(seed)
    pixels = torch.randint(0, 256, (n, 784), dtype=torch.uint8, generator=generator)
    return torch.cat([pixels, torch.randint(0, 10, (n, 1), dtype=torch.uint8, generator=generator)], dim=1)


def test_the_classifier_is_the_network_of_its_docstring():
    model, x = random_classifier(), torch.rand(5, 1, 28, 28, dtype=torch.float64, generator=seeded(1))
    w1, b1, w2, b2, w3, b3, w4, b4 = model.parameters()
    h = F.max_pool2d(F.conv2d(x, w1, b1, padding=1).clamp(min=0), 2)
    h = F.max_pool2d(F.conv2d(h, w2, b2, padding=1).clamp(min=0), 2)
    h = (h.reshape(5, 1568) @ w3.T + b3).clamp(min=0)
    assert (h.shape, w1.shape, w2.shape) == ((5, 64), (16, 1, 3, 3), (32, 16, 3, 3))
    assert_close(model.features(x), h)
    assert_close(model(x), h @ w4.T + b4)


def test_the_classifier_takes_images_and_rows():
    model, x = random_classifier(), torch.rand(5, 1, 28, 28, dtype=torch.float64, generator=seeded(1))
    assert torch.equal(model(x.flatten(1)), model(x))


def test_the_classifier_drops_three_of_ten_inputs_of_its_hidden_layer_in_training_only():
    model, shares = random_classifier(), []
    hidden = next(layer for layer in model.trunk if isinstance(layer, torch.nn.Linear))
    hidden.register_forward_pre_hook(lambda own, inputs: shares.append((inputs[0] == 0).double().mean().item()))
    x = torch.rand(50, 784, dtype=torch.float64, generator=seeded(1))
    model(x)
    torch.manual_seed(0)
    model.train()(x)
    error = math.sqrt(0.3 * 0.7 / (50 * 1568))
    assert (1 - shares[1]) / (1 - shares[0]) == pytest.approx(0.7, abs=5 * error)  # ReLU's zeros are in both


def test_the_classifier_s_loss_is_scikit_learn_s_cross_entropy_and_its_accuracy_the_share_of_right_names():
    model, rows = random_classifier(), labelled_rows(40)
    x = torch.cat([rows[:, :-1] / 255, rows[:, -1:]], dim=1).double()
    values = model.loss(x)
    probabilities = model(x[:, :-1]).softmax(1).detach().numpy()
    labels = rows[:, -1].numpy()
    assert values["loss"].item() == pytest.approx(log_loss(labels, probabilities, labels=range(10)))
    assert values["accuracy"].item() == pytest.approx(accuracy_score(labels, probabilities.argmax(1)))
    assert 0 < values["accuracy"] < 1


def test_the_classifier_plays_alone():
    model = DigitClassifier()
    assert model.players() == {"classifier": (model, model.loss)}


class OnePixel(torch.nn.Module):
    """Takes the first pixel, if it is strictly between 0 and 1, for the digit 1, else for 0."""

    def forward(self, x):
        return F.one_hot(((x[:, 0] > 0) & (x[:, 0] < 1)).long(), 10).double()


def test_accuracy_is_measured_on_grey_values_and_on_binary_draws():
    rows = torch.full((40, 785), 100, dtype=torch.uint8)
    rows[:, -1] = (torch.arange(40) < 10).byte()  # ten images of a 1, which only grey values show
    assert accuracy(OnePixel(), rows, None) == {"accuracy_grey": 0.25, "accuracy_binary": 0.75}


def test_binary_images_are_drawn_with_the_pixels_as_probabilities():
    seen = []

    def spy(x):
        seen.append(x.double())
        return torch.zeros(len(x), 10)

    rows = (torch.arange(785) % 256).to(torch.uint8).expand(3000, 785)
    accuracy(spy, rows, None)
    binary = torch.cat(seen[3:])
    p = np.arange(784) % 256 / 255
    assert set(binary.unique().tolist()) == {0, 1}
    assert (abs(binary.mean(0).numpy() - p) <= 5 * np.sqrt(p * (1 - p) / 3000)).all()


def test_the_seed_decides_the_binary_draws():
    seen = []

    def spy(x):
        seen.append(x.double())
        return torch.zeros(len(x), 10)

    for seed in (1, 1, 2):
        accuracy(spy, labelled_rows(4), None, seed)
    assert torch.equal(seen[1], seen[3])
    assert not torch.equal(seen[1], seen[5])


def test_parts_of_a_thousand_rows_give_what_the_whole_gives_without_a_graph():
    sizes, weight = [], torch.ones(3, requires_grad=True)

    def function(x):
        sizes.append(len(x))
        return x * weight

    x = torch.randn(2300, 3, generator=seeded(0))
    whole = in_parts(function, x)
    assert sizes == [1000, 1000, 300]
    assert torch.equal(whole, x)
    assert not whole.requires_grad


# ---------------------------------------------------------------- distances of samples and data


def features(n, dim, seed, scale=1.0):
    """Correlated normal features (n, dim) in float64."""
    generator = seeded(seed)
    mixing = torch.randn(dim, dim, dtype=torch.float64, generator=generator)
    return scale * torch.randn(n, dim, dtype=torch.float64, generator=generator) @ mixing + seed


@pytest.mark.parametrize("dim", [1, 2, 3, 20])
def test_the_frechet_distance_agrees_with_scipy_s_root_of_a_matrix(dim):
    first, second = features(50, dim, seed=1), features(80, dim, seed=2, scale=0.6)
    c1, c2 = (np.atleast_2d(np.cov(own.numpy(), rowvar=False)) for own in (first, second))
    gap = first.numpy().mean(0) - second.numpy().mean(0)
    expected = gap @ gap + np.trace(c1 + c2 - 2 * sqrtm(c1 @ c2).real)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-9)


def test_the_frechet_distance_of_two_diagonal_normals_is_that_of_their_means_and_deviations():
    # the standard deviations s and t, coordinate by coordinate: |m - n|² + |s - t|²
    axes = torch.cat([torch.eye(4), -torch.eye(4)]).double() * math.sqrt(7 / 2)  # covariance I
    s, t, m = (torch.rand(4, dtype=torch.float64, generator=seeded(k)) for k in (1, 2, 3))
    expected = m.square().sum() + (s - t).square().sum()
    assert frechet_distance(axes * s, axes * t + m) == pytest.approx(expected.item())


def test_the_frechet_distance_of_a_set_to_itself_is_zero():
    own = features(50, 8, seed=3)
    assert abs(frechet_distance(own, own)) < 1e-9 * own.var(0).sum()


def test_the_frechet_distance_of_a_shifted_set_is_the_squared_shift():
    own, shift = features(50, 8, seed=3), torch.randn(8, dtype=torch.float64, generator=seeded(4))
    assert frechet_distance(own, own + shift) == pytest.approx(shift.square().sum().item())


def test_the_frechet_distance_is_computed_in_float64():
    own = features(300, 8, seed=3).float() + 1000
    shifted = own + 0.125  # exact in float32
    assert frechet_distance(own, shifted) == pytest.approx(8 / 64, rel=1e-6)


def test_features_of_which_one_is_always_zero_have_a_frechet_distance():
    first, second = features(50, 8, seed=1), features(50, 8, seed=2)
    first[:, 3] = second[:, 3] = 0
    rest = [0, 1, 2, 4, 5, 6, 7]
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(first[:, rest], second[:, rest]))


@pytest.mark.parametrize(("first", "second", "few"), [(8, 50, 8), (50, 7, 7), (3, 2, 3)])
def test_too_few_samples_for_a_covariance_are_refused(first, second, few):
    with pytest.raises(ValueError, match=rf"^{few} samples of 8 features .* give more samples than features$"):
        frechet_distance(features(first, 8, seed=1), features(second, 8, seed=2))


def test_one_sample_more_than_features_is_enough():
    assert frechet_distance(features(9, 8, seed=1), features(9, 8, seed=2)) > 0


def test_a_histogram_holds_the_shares_of_all_ten_digits():
    digits = torch.tensor([3, 3, 0, 7])
    assert histogram(digits).tolist() == [0.25, 0, 0, 0.5, 0, 0, 0, 0.25, 0, 0]


def test_the_divergence_of_histograms_agrees_with_scipy():
    p, q = (torch.rand(10, dtype=torch.float64, generator=seeded(k)) for k in (1, 2))
    p[3] = 0
    assert histogram_kl(p / p.sum(), q / q.sum()) == pytest.approx(entropy(p.numpy(), q.numpy()))


def test_the_divergence_is_infinite_only_where_samples_have_a_digit_that_the_reference_lacks():
    half, other = torch.zeros(10).double(), torch.full((10,), 0.1).double()
    half[:5] = 0.2
    assert histogram_kl(other, half) == math.inf
    assert histogram_kl(half, other) == pytest.approx(math.log(2))
    assert histogram_kl(half, half) == 0  # where both lack a digit nothing is lost


def manifold_share(points, centres, k):
    """Share of the points within a ball of scikit-learn's k-th neighbour around a centre."""
    radii = NearestNeighbors(n_neighbors=k + 1).fit(centres).kneighbors(centres)[0][:, -1]
    distances = np.linalg.norm(points[:, None] - centres[None], axis=2)
    return (distances <= radii).any(1).mean()


@pytest.mark.parametrize("k", [1, 2, 3])
def test_precision_and_recall_agree_with_scikit_learn_s_neighbours(k):
    real, fake = features(90, 3, seed=1), features(70, 3, seed=1, scale=0.5) + 0.5
    expected = manifold_share(fake.numpy(), real.numpy(), k), manifold_share(real.numpy(), fake.numpy(), k)
    assert 0.02 < expected[1] < expected[0] < 1
    assert precision_and_recall(real, fake, k) == pytest.approx(expected)


def test_three_neighbours_are_taken_unless_told():
    real, fake = features(90, 3, seed=1), features(70, 3, seed=1, scale=0.5) + 0.5
    assert (
        precision_and_recall(real, fake) == precision_and_recall(real, fake, 3) != precision_and_recall(real, fake, 2)
    )


def test_samples_of_one_mode_are_precise_and_recall_half():
    real = torch.cat([features(500, 2, seed=1), features(500, 2, seed=1) + 1000])
    precision, recall = precision_and_recall(real, real[:500] + 1e-6)
    assert (precision, recall) == (1, 0.5)


def test_precision_and_recall_of_more_than_a_thousand_points_count_each_once():
    real, fake = features(1300, 2, seed=1), features(1100, 2, seed=1, scale=0.5)
    expected = manifold_share(fake.numpy(), real.numpy(), 3), manifold_share(real.numpy(), fake.numpy(), 3)
    assert precision_and_recall(real, fake) == pytest.approx(expected)


def test_the_nearest_training_image_is_scikit_learn_s():
    images, training = (torch.rand(n, 784, dtype=torch.float64, generator=seeded(n)) for n in (520, 60))
    distances, indices = NearestNeighbors(n_neighbors=1).fit(training.numpy()).kneighbors(images.numpy())
    values, found = nearest(images, training)
    assert_close(values, torch.from_numpy(distances[:, 0]))
    assert found.tolist() == indices[:, 0].tolist()


# ---------------------------------------------------------------- the quality of samples


@pytest.fixture(scope="module")
def judged():
    """Samples and real images, 200 and 300, a random classifier, and what `sample_quality` says."""
    generator, classifier = seeded(0), random_classifier()
    real = torch.rand(300, 1, 28, 28, dtype=torch.float64, generator=generator)
    real[150:] *= 0.5  # as in a file that is ordered by writer
    samples = torch.rand(200, 1, 28, 28, dtype=torch.float64, generator=generator) ** 2
    return samples, real, classifier, sample_quality(samples, real, classifier)


def test_the_quality_of_samples_is_measured_in_the_features_of_the_classifier(judged):
    samples, real, classifier, values = judged
    fake_features, real_features = classifier.features(samples).detach(), classifier.features(real).detach()
    assert values["frechet"] == pytest.approx(frechet_distance(fake_features, real_features))
    expected = (
        manifold_share(fake_features.numpy(), real_features.numpy(), 3),
        manifold_share(real_features.numpy(), fake_features.numpy(), 3),
    )
    assert (values["precision"], values["recall"]) == pytest.approx(expected)
    assert expected[0] != expected[1]


def test_the_digits_of_samples_are_counted_as_the_classifier_names_them(judged):
    samples, real, classifier, values = judged
    named, real_named = (np.bincount(classifier(x).argmax(1).numpy(), minlength=10) for x in (samples, real))
    assert values["rarest_digit"] == pytest.approx(named.min() / 200)
    assert values["histogram_kl"] == pytest.approx(entropy(named, real_named))
    probabilities = softmax(classifier(samples).detach().numpy(), axis=1)
    assert values["confident"] == pytest.approx((probabilities.max(1) > 0.9).mean())
    assert 0 < values["confident"] < 1


def test_the_floor_is_the_distance_of_random_halves_not_of_halves_by_position(judged):
    _, real, classifier, values = judged
    own = classifier.features(real).detach()
    by_position = frechet_distance(own[:150], own[150:])
    shuffled = [own[torch.randperm(300, generator=seeded(k))] for k in range(1, 9)]
    random = [frechet_distance(own[:150], own[150:]) for own in shuffled]
    assert min(random) / 2 < values["frechet_floor"] < 2 * max(random) < by_position


def test_real_images_judged_as_samples_are_as_good_as_can_be(judged):
    _, real, classifier, _ = judged
    values = sample_quality(real, real, classifier)
    assert values["frechet"] == pytest.approx(0, abs=1e-6 * values["frechet_floor"])
    assert (values["histogram_kl"], values["precision"], values["recall"]) == (0, 1, 1)


def test_the_quality_is_of_plain_numbers_and_the_same_each_time_for_images_and_rows(judged):
    samples, real, classifier, values = judged
    assert all(type(value) is float for value in values.values())
    assert sample_quality(samples.flatten(1), real.flatten(1), classifier) == values


# ---------------------------------------------------------------- devices without float64


def elsewhere(x):
    return x.as_subclass(NoFloat64)


def test_the_stand_in_for_a_device_without_float64_refuses_it():
    x = elsewhere(torch.ones(3))
    for wide in (lambda: x.double(), lambda: x.to(torch.float64), lambda: (x > 0).double()):
        with pytest.raises(TypeError, match="float64"):
            wide()
    assert type(x.cpu().double()) is torch.Tensor


MEASURES = {
    "histogram": lambda place: histogram(place(torch.arange(40) % 7)).tolist(),
    "frechet_distance": lambda place: frechet_distance(place(FEATURES[:20]), place(FEATURES[20:])),
    "precision_and_recall": lambda place: precision_and_recall(place(FEATURES[:20]), place(FEATURES[20:])),
    "accuracy": lambda place: accuracy(
        DigitClassifier().eval(), place(torch.arange(10 * 785).view(10, 785).to(torch.uint8) % 10), data.grey_and_binary
    ),
}
FEATURES = torch.randn(50, 4, generator=seeded(7))


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_what_is_measured_in_float64_is_brought_to_the_cpu_before(measure):
    torch.manual_seed(0)
    expected = measure(lambda x: x)
    torch.manual_seed(0)
    assert measure(elsewhere) == expected


def test_the_quality_of_samples_is_measured_on_a_device_without_float64_too(judged):
    samples, real, classifier = (copy.deepcopy(own).float() for own in judged[:3])
    assert sample_quality(elsewhere(samples), elsewhere(real), classifier) == sample_quality(samples, real, classifier)
