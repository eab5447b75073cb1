import copy
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import (
    NoFloat64,
    independent_flow,
    independent_log_probabilities,
    log_joint_on_grid,
    normal,
    random_grey_images,
    random_images,
    random_vae,
    randomized,
    seeded,
    uniform,
)
from scipy.linalg import sqrtm
from scipy.special import softmax
from scipy.stats import entropy
from scipy.stats import multivariate_normal as scipy_normal
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from torch.distributions import MultivariateNormal, Normal
from torch.testing import assert_close

from gm_helpers import metrics
from gm_helpers.classifier import DigitClassifier
from gm_helpers.data import binarize, levels
from gm_helpers.flows import flow_2d
from gm_helpers.train import evaluate
from gm_helpers.vae import GreyVAE

PIXELS = torch.randint(0, 256, (600, 1, 28, 28), dtype=torch.uint8, generator=seeded(0))


def test_mean_and_standard_error_agree_with_numpy():
    values = normal(37) * 3 + 1
    mean, error = metrics.mean_and_standard_error(values)
    assert type(mean) is type(error) is float
    assert mean == pytest.approx(np.mean(values.numpy()))
    assert error == pytest.approx(np.std(values.numpy(), ddof=1) / np.sqrt(37))


@pytest.mark.parametrize(
    ("difference", "sentence"),
    [
        (0.666, "accepted, within 0.667"),
        (-0.667, "rejected, off by more than 0.667"),
        (torch.tensor([0.0, -0.1, 0.2]), "accepted, within 0.667"),
        (torch.tensor([0.0, -0.7, 0.2]), "rejected, off by more than 0.667"),
        (math.nan, "rejected, off by more than 0.667"),
        (torch.tensor([0.0, math.nan]), "rejected, off by more than 0.667"),
        (math.inf, "rejected, off by more than 0.667"),
    ],
)
def test_verdict_accepts_only_what_lies_within_the_tolerance(difference, sentence):
    assert metrics.verdict(difference, 2 / 3) == sentence


def test_the_mass_on_a_rectangle_agrees_with_scipy_s_and_of_all_the_plane_is_1():
    law = MultivariateNormal(torch.tensor([0.3, -0.2]).double(), torch.tensor([[1.0, 0.5], [0.5, 2.0]]).double())
    theirs = scipy_normal(law.mean.numpy(), law.covariance_matrix.numpy())
    assert metrics.mass(law.log_prob, (-12, -14), (12, 14)) == pytest.approx(1, abs=1e-6)
    inside = theirs.cdf([1.0, 2.0], lower_limit=[-0.5, 0.5])
    assert metrics.mass(law.log_prob, (-0.5, 0.5), (1.0, 2.0)) == pytest.approx(inside, abs=1e-5)


def test_the_mass_counts_only_where_it_is_told_and_is_the_finer_the_more_nodes():
    law = MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    right = metrics.mass(law.log_prob, (-8, -8), (8, 8), 801, lambda x: x.norm(dim=1) > 1)
    assert right == pytest.approx(math.exp(-0.5), abs=1e-3)  # of a radius beyond 1
    seen = []
    metrics.mass(lambda x: seen.append(len(x)) or law.log_prob(x), (0, 0), (1, 1), 7)
    assert sum(seen) == 49


def test_the_mass_is_a_float_and_asks_for_no_gradients():
    law, kept = MultivariateNormal(torch.zeros(2).double().requires_grad_(), torch.eye(2).double()), []
    assert type(metrics.mass(lambda x: kept.append(law.log_prob(x)) or kept[-1], (0, 0), (1, 1), 7)) is float
    assert [own.requires_grad for own in kept] == [False]


# ---------------------------------------------------------------- the two bounds by importance weighting


@pytest.mark.parametrize(
    ("model", "x"),
    [(random_vae(2), random_images(8)), (random_vae(2, kind=GreyVAE), random_grey_images(8))],
    ids=["binary", "grey"],
)
@pytest.mark.parametrize("rows", [1, 24, 10_000])
@pytest.mark.parametrize("samples", [(1, 5, 50), (5,)])
def test_each_bound_is_of_the_first_k_draws_however_many_more_follow_or_are_decoded_at_a_time(
    samples, rows, model, x, monkeypatch
):
    # 8 images × 2 latents: torch draws normals in sixteens, so that parts of a draw are the draws of the parts.
    mean, log_var = model.encode(x)
    q, eps = Normal(mean, (log_var / 2).exp()), normal(50, 8, 2, seed=1)
    z = mean + (log_var / 2).exp() * eps
    log_ratio = (Normal(0.0, 1.0).log_prob(z) - q.log_prob(z)).sum(2)
    weights = torch.stack([model.log_likelihood(x, own) for own in z]) + log_ratio
    monkeypatch.setattr(metrics, "ROWS", rows)
    expected = torch.stack([weights[:k].logsumexp(0) - math.log(k) for k in samples])
    assert_close(metrics.importance_weighted_bounds(model, x, samples, seeded(1)), expected.detach())


@pytest.mark.parametrize("samples", [(1, 2, 5), (5,), (2, 3)])
def test_each_dequantized_bound_is_of_the_first_k_draws(samples):
    model, x, generator = independent_flow(), random_grey_images(4), seeded(1)
    weights = torch.stack([model.elbo(x, generator) for _ in range(5)])
    expected = torch.stack([weights[:k].logsumexp(0) - math.log(k) for k in samples])
    assert_close(metrics.dequantized_bounds(model, x, samples, seeded(1)), expected.detach())


def log_likelihood(model, x):
    z, log_joint = log_joint_on_grid(model, x)
    return (torch.trapezoid((log_joint - (top := log_joint.max())).exp(), z.T)).log() + top


def exact_log_probability(model, x):
    return independent_log_probabilities(model).gather(0, x.flatten(1).long()).sum(1)


def wide_vae():
    """A VAE whose q(z|x) is so wide that the weights p(x, z)/q(z|x) have a finite variance."""
    model = random_vae(1)
    model.mean_head.weight.data *= 0.3
    model.log_var_head.bias.data += 1.5
    return model


@pytest.mark.parametrize(
    ("bound", "model", "x", "exact"),
    [
        (metrics.importance_weighted_bounds, wide_vae(), random_images(1), log_likelihood),
        (metrics.dequantized_bounds, independent_flow(), random_grey_images(1), exact_log_probability),
    ],
    ids=["vae", "flow"],
)
def test_the_weights_of_draws_have_the_exact_probability_as_their_mean(bound, model, x, exact):
    (log_weights,) = bound(model, x.expand(5000, 1, 28, 28), [1], seeded(1))
    ratio, error = metrics.mean_and_standard_error((log_weights - exact(model, x)).exp())
    assert error < 0.04
    assert abs(ratio - 1) < 4 * error


VAE_CASE = metrics.importance_weighted_bounds, random_vae(1, seed=1), random_images(1)
FLOW_CASE = metrics.dequantized_bounds, independent_flow(), random_grey_images(1)


@pytest.mark.parametrize(("case", "exact"), [(VAE_CASE, log_likelihood), (FLOW_CASE, exact_log_probability)])
def test_the_bound_grows_with_the_number_of_draws_towards_the_exact_log_probability(case, exact):
    bound, model, x = case
    copies = bound(model, x.expand(1000, 1, 28, 28), (1, 2, 8), seeded(1))
    for fewer, more in pairwise([*copies, exact(model, x)]):
        gain, error = metrics.mean_and_standard_error(more - fewer)
        assert gain > 4 * error


@pytest.mark.parametrize("samples", [(0,), (0, 1), (-1, 2), (5, 5), (5, 1), (1, 3, 2)])
@pytest.mark.parametrize(("bound", "model", "x"), [VAE_CASE, FLOW_CASE])
def test_samples_that_do_not_rise_from_1_or_more_are_refused(bound, model, x, samples):
    with pytest.raises(ValueError, match="upwards"):
        bound(model, x, samples)


@pytest.mark.parametrize(("bound", "model", "x"), [VAE_CASE, FLOW_CASE])
def test_measuring_builds_no_graph(bound, model, x):
    assert not bound(model, x, [3]).requires_grad


@pytest.mark.parametrize(("rows", "expected"), [(50, [8, 48, 48, 8]), (3, [8] * 14)])
def test_no_more_than_the_stated_rows_are_decoded_at_a_time_or_each_image_once(rows, expected, monkeypatch):
    model, sizes = random_vae(2), []
    model.decoder.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    monkeypatch.setattr(metrics, "ROWS", rows)
    metrics.importance_weighted_bounds(model, random_images(8), (1, 14))
    assert sizes == expected


# ---------------------------------------------------------------- what is measured on a VAE and on a flow over images


def binary(pixels, generator):
    return binarize(pixels, generator).double()


def grey(pixels, generator):
    return levels(pixels).double()


# what measures, of which model, how prepared and how many images at a time; the bound, and its name and unit
in_nats, in_bits = 1.0, 784 * math.log(2)
BOTH = [
    (metrics.bounds, random_vae(2), binary, 512, metrics.importance_weighted_bounds, "negative_elbo", in_nats),
    (metrics.flow_bounds, independent_flow(), grey, 500, metrics.dequantized_bounds, "bits_per_dim", in_bits),
]


@pytest.mark.parametrize("case", BOTH, ids=["vae", "flow"])
def test_bounds_are_the_means_over_all_images_with_their_standard_errors(case):
    measure, model, prepare, part, bound, name, unit = case
    generator, expected = seeded(7), {}
    parts = [bound(model, prepare(own, generator), (1, 4), generator) for own in PIXELS.split(part)]
    for key, own in zip((name, "importance_weighted_4"), (-torch.cat(parts, dim=1) / unit).numpy(), strict=True):
        expected |= {key: own.mean(), f"{key}_error": own.std(ddof=1) / np.sqrt(600)}
    assert measure(model, PIXELS, prepare, samples=4, seed=7) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("case", "unless_told"), [(BOTH[0], 500), (BOTH[1], 16)], ids=["vae", "flow"])
def test_bounds_agree_with_the_loss_of_training_and_the_tighter_one_is_smaller(case, unless_told):
    measure, model, prepare, *_, name, _ = case
    values = measure(model, PIXELS[:100], prepare)
    (of_training,) = evaluate(model, PIXELS[:100], prepare, seed=1).values()
    assert abs(values[name] - of_training["loss"]) < 4 * values[f"{name}_error"]
    assert 0 < values[f"importance_weighted_{unless_told}"] < values[name]
    assert all(type(value) is float for value in values.values())


@pytest.mark.parametrize("case", BOTH, ids=["vae", "flow"])
def test_with_one_sample_both_bounds_are_the_elbo_and_the_seed_decides_them(case):
    measure, model, prepare, *_, name, _ = case
    one, again, other = (measure(model, PIXELS[:20], prepare, samples=1, seed=seed) for seed in (1, 1, 2))
    assert one["importance_weighted_1"] == one[name]
    assert one["importance_weighted_1_error"] == one[f"{name}_error"]
    assert one == again
    assert not set(one.values()) & set(other.values())


def test_the_mean_loss_is_that_of_all_points_prepared_as_in_training():
    model, points = randomized(flow_2d(couplings=2, hidden=4)), normal(2500, 2)
    values = metrics.mean_loss(model, points, lambda own, generator: 2 * own)
    assert values == {"loss": pytest.approx(-model.log_prob(2 * points).mean().item())}
    assert type(values["loss"]) is float


# ---------------------------------------------------------------- what is measured on codes


def test_active_units_are_those_whose_variance_over_the_images_agrees_with_numpy_s():
    scales = torch.linspace(0.02, 0.3, 40, dtype=torch.float64)  # the threshold is at 0.1
    means = scales * normal(500, 40) + scales.flip(0)
    expected = np.var(means.numpy(), axis=0) > 0.01
    assert 5 < expected.sum() < 35
    assert metrics.active_units(means).tolist() == expected.tolist()
    assert metrics.active_units(means, 0.04).tolist() == (np.var(means.numpy(), axis=0) > 0.04).tolist()


def clusters(n, seed):
    """Codes of three classes, (n, 4), each shifted by a standard deviation on one of three axes; and labels."""
    labels = torch.randint(0, 3, (n,), generator=seeded(seed))
    centres = torch.tensor([[0.0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0]])
    return (centres[labels] + normal(n, 4, seed=seed)) * torch.tensor([0.01, 1, 30, 1]) + 5, labels


def test_the_probe_is_a_logistic_regression_on_codes_standardised_as_the_training_codes():
    (codes, labels), (test_codes, test_labels) = clusters(300, seed=1), clusters(900, seed=2)
    test_codes = test_codes[test_labels > 0]  # other means and deviations than the training codes'
    test_labels = test_labels[test_labels > 0]
    mean, deviation = codes.numpy().mean(0), codes.numpy().std(0)
    classifier = LogisticRegression(max_iter=1000).fit((codes.numpy() - mean) / deviation, labels.numpy())
    expected = np.mean(classifier.predict((test_codes.numpy() - mean) / deviation) == test_labels.numpy())
    assert 0.4 < expected < 0.8
    codes.requires_grad_()  # codes may come with a graph
    assert metrics.linear_probe_accuracy(codes, labels, test_codes, test_labels) == pytest.approx(expected)


# ---------------------------------------------------------------- what is measured on a classifier


def test_binary_images_are_drawn_with_the_pixels_as_probabilities_as_the_seed_decides():
    seen, p = [], np.arange(784) % 256 / 255

    def spy(x):
        seen.append(x.double())
        return torch.zeros(len(x), 10)

    for seed in (1, 1, 2):
        metrics.accuracy(spy, (torch.arange(785) % 256).to(torch.uint8).expand(1000, 785), None, seed)
    one, again, other = torch.cat(seen).view(3, 2, 1000, 784)[:, 1]  # after the grey ones
    assert set(one.unique().tolist()) == {0, 1}
    assert (abs(one.mean(0).numpy() - p) <= 5 * np.sqrt(p * (1 - p) / 1000)).all()
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_parts_of_some_rows_give_what_the_whole_gives_without_a_graph():
    sizes, weight, x = [], torch.ones(3, requires_grad=True), normal(600, 3)

    def function(x):
        sizes.append(len(x))
        return x * weight

    whole = metrics.in_parts(function, x)
    assert sizes == [250, 250, 100]
    assert torch.equal(whole, x)
    assert not whole.requires_grad


# ---------------------------------------------------------------- distances of samples and data


def features(n, dim, seed, scale=1.0):
    """Correlated normal features (n, dim) in float64."""
    return scale * normal(n, dim, seed=seed) @ normal(dim, dim, seed=seed + 50) + seed


@pytest.mark.parametrize(("n", "m", "dim"), [(50, 80, 1), (50, 80, 2), (50, 80, 20), (9, 9, 8)])
def test_the_frechet_distance_agrees_with_scipy_s_root_of_a_matrix(n, m, dim):
    first, second = features(n, dim, seed=1), features(m, dim, seed=2, scale=0.6)
    c1, c2 = (np.atleast_2d(np.cov(own.numpy(), rowvar=False)) for own in (first, second))
    gap = first.numpy().mean(0) - second.numpy().mean(0)
    expected = gap @ gap + np.trace(c1 + c2 - 2 * sqrtm(c1 @ c2).real)
    assert metrics.frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)
    assert metrics.frechet_distance(second, first) == pytest.approx(expected, rel=1e-9)


def test_the_frechet_distance_of_a_shifted_set_is_the_squared_shift_computed_in_float64():
    own = features(300, 8, seed=3).float() + 1000
    shifted = own + 0.125  # exact in float32
    assert metrics.frechet_distance(own, shifted) == pytest.approx(8 / 64, rel=1e-6)


def test_features_of_which_one_is_always_zero_have_a_frechet_distance():
    first, second = features(50, 8, seed=1), features(50, 8, seed=2)
    first[:, 3] = second[:, 3] = 0
    expected = metrics.frechet_distance(*(own[:, [0, 1, 2, 4, 5, 6, 7]] for own in (first, second)))
    assert metrics.frechet_distance(first, second) == pytest.approx(expected)


@pytest.mark.parametrize(("first", "second", "few"), [(8, 50, 8), (50, 7, 7), (3, 2, 3)])
def test_too_few_samples_for_a_covariance_are_refused(first, second, few):
    with pytest.raises(ValueError, match=rf"^{few} samples of 8 features .* give more samples than features$"):
        metrics.frechet_distance(features(first, 8, seed=1), features(second, 8, seed=2))


def test_a_histogram_holds_the_shares_of_all_ten_digits():
    digits = torch.tensor([3, 3, 0, 7])
    assert metrics.histogram(digits).tolist() == [0.25, 0, 0, 0.5, 0, 0, 0, 0.25, 0, 0]


def test_the_divergence_of_histograms_agrees_with_scipy_and_is_infinite_only_where_samples_alone_have_a_digit():
    p, q = (own / own.sum() for own in uniform(2, 10))
    r = torch.where(torch.arange(10) < 5, p, 0) / p[:5].sum()
    for first, second in [(p, q), (r, q), (r, r), (q, r)]:
        assert metrics.histogram_kl(first, second) == pytest.approx(entropy(first.numpy(), second.numpy()))
    assert metrics.histogram_kl(q, r) == math.inf


def manifold_share(points, centres, k):
    """Share of the points within a ball of scikit-learn's k-th neighbour around a centre."""
    points, centres = points.detach().numpy(), centres.detach().numpy()
    radii = NearestNeighbors(n_neighbors=k + 1).fit(centres).kneighbors(centres)[0][:, -1]
    distances = np.linalg.norm(points[:, None] - centres[None], axis=2)
    return (distances <= radii).any(1).mean()


@pytest.mark.parametrize(("n", "m"), [(90, 70), (1300, 1100)])
@pytest.mark.parametrize("told", [(1,), (2,), ()])
def test_precision_and_recall_agree_with_scikit_learn_s_neighbours_of_which_three_are_taken_unless_told(n, m, told):
    real, fake, (k,) = features(n, 3, seed=1), features(m, 3, seed=1, scale=0.5) + 0.5, told or (3,)
    expected = manifold_share(fake, real, k), manifold_share(real, fake, k)
    assert 0.02 < expected[1] < expected[0] < 1
    assert metrics.precision_and_recall(real, fake, *told) == pytest.approx(expected)


def test_the_nearest_training_image_is_scikit_learn_s():
    images, training = uniform(520, 784), uniform(60, 784, seed=1)
    distances, indices = NearestNeighbors(n_neighbors=1).fit(training.numpy()).kneighbors(images.numpy())
    values, found = metrics.nearest(images, training)
    assert_close(values, torch.from_numpy(distances[:, 0]))
    assert found.tolist() == indices[:, 0].tolist()


# ---------------------------------------------------------------- the quality of samples


@pytest.fixture(scope="module")
def judged():
    """Samples and real images, 200 and 300, a random classifier, and what `sample_quality` says."""
    classifier, real, samples = DigitClassifier(), uniform(300, 1, 28, 28), uniform(200, 1, 28, 28, seed=1) ** 2
    for own in randomized(classifier, seed=1).parameters():
        own.data *= 3 if own.ndim > 1 else 1  # so that its verdicts differ from image to image
    real[150:] *= 0.5  # as in a file that is ordered by writer
    return samples, real, classifier, metrics.sample_quality(samples, real, classifier)


def test_the_quality_of_samples_is_measured_in_the_features_of_the_classifier(judged):
    samples, real, classifier, values = judged
    fakes, reals = classifier.features(samples).detach(), classifier.features(real).detach()
    expected = manifold_share(fakes, reals, 3), manifold_share(reals, fakes, 3)
    assert values["frechet"] == pytest.approx(metrics.frechet_distance(fakes, reals))
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
    assert 0 < values["histogram_kl"] < 1


def test_the_floor_is_the_distance_of_random_halves_not_of_halves_by_position(judged):
    _, real, classifier, values = judged
    own = classifier.features(real).detach()
    by_position = metrics.frechet_distance(own[:150], own[150:])
    shuffled = [own[torch.randperm(300, generator=seeded(k))] for k in range(1, 9)]
    random = [metrics.frechet_distance(own[:150], own[150:]) for own in shuffled]
    assert min(random) / 2 < values["frechet_floor"] < 2 * max(random) < by_position


def test_real_images_judged_as_samples_are_as_good_as_can_be(judged):
    _, real, classifier, _ = judged
    values = metrics.sample_quality(real, real, classifier)
    assert values["frechet"] == pytest.approx(0, abs=1e-6 * values["frechet_floor"])
    assert (values["histogram_kl"], values["precision"], values["recall"]) == (0, 1, 1)


def test_the_quality_is_of_plain_numbers_and_the_same_each_time_for_images_and_rows(judged):
    samples, real, classifier, values = judged
    assert all(type(value) is float for value in values.values())
    assert metrics.sample_quality(samples.flatten(1), real.flatten(1), classifier) == values


# ---------------------------------------------------------------- devices without float64


def elsewhere(x):
    return x.as_subclass(NoFloat64)


@pytest.mark.parametrize("wide", [lambda x: x.double(), lambda x: x.to(torch.float64), lambda x: (x > 0).double()])
def test_the_stand_in_for_a_device_without_float64_refuses_it(wide):
    with pytest.raises(TypeError, match="float64"):
        wide(elsewhere(torch.ones(3)))


def test_the_quality_of_samples_is_measured_on_a_device_without_float64_too(judged):
    samples, real, classifier = (copy.deepcopy(own).float() for own in judged[:3])
    expected = metrics.sample_quality(samples, real, classifier)
    assert metrics.sample_quality(elsewhere(samples), elsewhere(real), classifier) == expected
