"""The game on a line: each number against SciPy's integrals, against draws, or against a closed form."""

import math

import numpy as np
import pytest
import scipy
import torch
from conftest import seeded
from torch.distributions import Categorical, MixtureSameFamily, Normal
from torch.testing import assert_close

from gm_helpers import game


def normal(mean, std):
    return Normal(torch.tensor(float(mean)).double(), std)


def humps():
    """A density that is no normal."""
    means, stds = torch.tensor([[-2.0, 1.5], [0.5, 0.8]], dtype=torch.float64)
    return MixtureSameFamily(Categorical(torch.tensor([0.3, 0.7], dtype=torch.float64)), Normal(means, stds))


PAIRS = {
    "of 2.2": (normal(1, 1), normal(-1, 1.5)),
    "narrow samples": (normal(1, 1), normal(0.5, 0.3)),
    "wide samples": (normal(1, 1), normal(-4, 3)),
    "two humps": (humps(), normal(0, 2)),
}
every_pair = pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)


def logs(pair):
    return [own.log_prob for own in pair]


def doubled(x):
    return 2 * x


def integral(integrand):
    """SciPy's, of a function of a number."""
    found = [
        scipy.integrate.quad(integrand, *ends, limit=400, epsabs=1e-11)[0] for ends in ((-25, -1), (-1, 1), (1, 25))
    ]
    return sum(found)


def at(log_density, x):
    return log_density(torch.tensor(x, dtype=torch.float64)).item()


@every_pair
def test_the_value_of_a_discriminator_is_the_integral_that_scipy_finds(pair):
    data, samples = logs(pair)

    def integrand(x):
        log_d, log_not_d = -np.logaddexp(0, -2 * x), -np.logaddexp(0, 2 * x)
        return math.exp(at(data, x)) * log_d + math.exp(at(samples, x)) * log_not_d

    assert game.value(doubled, data, samples) == pytest.approx(integral(integrand), abs=1e-6)


@every_pair
def test_the_value_of_the_best_discriminator_is_scipy_s_integral_of_its_probabilities(pair):
    data, samples = logs(pair)

    def integrand(x):
        p, q = math.exp(at(data, x)), math.exp(at(samples, x))
        return scipy.special.xlogy(p, p / (p + q) if p else 1) + scipy.special.xlogy(q, q / (p + q) if q else 1)

    found = game.value(game.best_logit(data, samples), data, samples)
    assert found == pytest.approx(integral(integrand), abs=1e-6)


@every_pair
def test_the_best_discriminator_s_probability_is_the_share_of_the_data(pair):
    data, samples = logs(pair)
    x = torch.linspace(-3, 3, 50, dtype=torch.float64)
    p, q = data(x).exp(), samples(x).exp()
    assert_close(game.best_logit(data, samples)(x).sigmoid(), p / (p + q))


@every_pair
def test_the_divergence_is_the_mean_over_draws_of_both_within_four_standard_errors(pair):
    torch.manual_seed(0)  # distributions draw from torch's own generator
    draws = torch.stack([own.sample((200_000,)) for own in pair])
    logs_there = torch.stack([own.log_prob(draws) for own in pair])  # density, whose draw, number
    log_m = torch.logsumexp(logs_there, 0) - math.log(2)
    terms = torch.stack([logs_there[i, i] - log_m[i] for i in range(2)])
    error = 0.5 * (terms.var(1).sum() / draws.shape[1]).sqrt()
    off = (game.jsd(*logs(pair)) - 0.5 * terms.mean(1).sum()).abs()
    assert (off < 4 * error, error < 1e-3) == (True, True)


def test_the_divergence_of_a_density_from_itself_is_nothing_and_of_far_ones_log_2():
    assert game.jsd(*2 * [humps().log_prob]) == pytest.approx(0, abs=1e-12)
    assert game.jsd(normal(-15, 0.5).log_prob, normal(15, 0.3).log_prob) == pytest.approx(math.log(2), abs=1e-12)


@every_pair
def test_the_divergence_is_the_same_either_way(pair):
    assert game.jsd(*logs(pair)) == pytest.approx(game.jsd(*reversed(logs(pair))), abs=1e-12)


@every_pair
def test_the_best_discriminator_is_worth_twice_the_divergence_less_log_4(pair):
    data, samples = logs(pair)
    best = game.value(game.best_logit(data, samples), data, samples)
    assert best == pytest.approx(2 * game.jsd(data, samples) - math.log(4), abs=1e-9)


@every_pair
def test_no_discriminator_is_worth_more_than_the_best(pair):
    data, samples = logs(pair)
    logit = game.best_logit(data, samples)
    best = game.value(logit, data, samples)
    coefficients = torch.randn(50, 4, dtype=torch.float64, generator=seeded(0))
    others = [doubled, lambda x: 0 * x, lambda x: 0.9 * logit(x), lambda x: logit(x) + 0.1]
    others += [lambda x, own=own: sum(c * (x / 5) ** k for k, c in enumerate(own)) for own in coefficients]
    others += [lambda x, own=own: logit(x) + own[0] * torch.sin(own[1] * x) for own in coefficients]
    assert max(game.value(own, data, samples) for own in others) < best


@every_pair
def test_a_discriminator_that_says_one_half_is_worth_minus_log_4_whatever_the_samples_are(pair):
    assert game.value(torch.zeros_like, *logs(pair)) == pytest.approx(-math.log(4), abs=1e-9)


def test_the_value_is_of_data_called_real_and_of_samples_called_generated():
    sure = game.value(lambda x: x + 5, normal(5, 0.1).log_prob, normal(-15, 0.1).log_prob)
    fooled = game.value(lambda x: x + 5, normal(-15, 0.1).log_prob, normal(5, 0.1).log_prob)
    assert (sure, fooled) == (pytest.approx(-2 * math.log1p(math.exp(-10)), abs=1e-5), pytest.approx(-20, abs=1e-3))


def test_a_discriminator_that_is_surely_wrong_is_worth_as_little_as_its_logits_say():
    data, samples = normal(-15, 0.1).log_prob, normal(5, 0.1).log_prob
    assert game.value(lambda x: 100 * (x + 5), data, samples) == pytest.approx(-2000, abs=0.01)  # no infinity, no clamp


def test_where_both_densities_are_0_in_float64_the_best_logit_is_still_their_ratio():
    data, samples = normal(1, 1).log_prob, normal(-1, 1).log_prob
    x = torch.tensor([-60.0, 60.0], dtype=torch.float64)
    assert (data(x).exp() == 0).all()
    assert_close(game.best_logit(data, samples)(x), 2 * x)


def test_scipy_s_log_densities_do_as_well():
    theirs = [scipy.stats.norm(1, 1).logpdf, scipy.stats.norm(-1, 1.5).logpdf]
    ours = logs(PAIRS["of 2.2"])
    assert game.jsd(*theirs) == pytest.approx(game.jsd(*ours), abs=1e-12)
    best = [game.value(game.best_logit(*own), *own) for own in (theirs, ours)]
    assert best[0] == pytest.approx(best[1], abs=1e-12)
