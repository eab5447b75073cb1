"""What is particular to the checkers of notebook 1's exercises; their zoo runs in test_exercises.py."""

import math

import numpy as np
import pytest
import torch
import zoo_vae
from torch.distributions import Normal

from gm_helpers import exercises
from gm_helpers.exact import LinearGaussian, kl_normal
from gm_helpers.exercises import checking, vae_bound, vae_model
from gm_helpers.exercises.checking import EXERCISES


@pytest.fixture(autouse=True)
def fixed_cases(monkeypatch):
    for module in (checking, vae_bound, vae_model):
        monkeypatch.setattr(module, "rng", lambda: np.random.default_rng(0))
    yield
    for own in EXERCISES.values():
        own.verdict = checking.UNTOUCHED


def last_line(verdict):
    assert verdict.status == "wrong"
    return verdict.message.splitlines()[-1].strip(".")[1:]


# ---------------------------------------------------------------- every known mistake is told by its own idea


@pytest.mark.parametrize("mistake", vae_model.BETA_MISTAKES)
def test_every_known_weight_that_is_wrong_is_told_by_its_own_idea(mistake):
    assert last_line(exercises.hidden_beta(mistake.gives(784, 20))) == mistake.idea[1:]


@pytest.mark.parametrize("mistake", vae_model.DIFFERENCE_MISTAKES)
def test_every_known_difference_that_is_wrong_is_told_by_its_own_idea(mistake):
    answer = zoo_vae.compared(zoo_vae.paired, mistake.gives)
    assert last_line(exercises.compare_bounds(answer)) == mistake.idea[1:]


@pytest.mark.parametrize("mistake", vae_model.ERROR_MISTAKES)
def test_every_known_error_that_is_wrong_is_told_by_its_own_idea(mistake):
    assert last_line(exercises.compare_bounds(zoo_vae.compared(mistake.gives))) == mistake.idea[1:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("which", "mistake"),
    [*((0, own) for own in vae_bound.GRID_MISTAKES), *((1, own) for own in vae_bound.GAP_MISTAKES)],
)
def test_every_known_mistake_on_a_grid_is_told_by_its_own_idea(which, mistake):
    def answer(model, x, spacing, extent):
        log_px, elbo = vae_bound._by_nodes(model, x)
        given = [log_px, log_px - elbo]
        given[which] = mistake.gives(vae_bound._sums(model, x, tuple(given), spacing, extent))
        model.decode(torch.tensor([[extent, extent]]).double())  # it has looked as far out as it should
        return given

    assert last_line(exercises.posterior_on_grid(answer)) == mistake.idea[1:]


# ---------------------------------------------------------------- the oracles, by yet another computation


def test_the_variance_by_quadrature_is_that_of_two_million_draws():
    noise = torch.Generator().manual_seed(0)
    z = torch.randn(2_000_000, generator=noise, dtype=torch.float64)
    ratio = (
        Normal(z, 0.7).log_prob(torch.tensor(0.8)) - Normal(0.0, math.hypot(1, 0.7)).log_prob(torch.tensor(0.8))
    ).exp()
    assert vae_bound._ratio_variance(0.8, 0.7) == pytest.approx(ratio.var().item(), rel=0.01)


def test_the_bias_with_50_v_draws_is_a_hundredth_of_a_nat():
    """x and s with a small v, so that the leading order is nearly all; 400,000 estimates."""
    x, s, noise = 0.5, 1.5, torch.Generator().manual_seed(0)
    v, n = vae_bound._with_n(vae_bound._ratio_variance)(x, s)
    count = math.ceil(n)
    z = torch.randn(400_000, count, generator=noise)
    ratio = (Normal(z, s).log_prob(torch.tensor(x)) - Normal(0.0, math.hypot(1, s)).log_prob(torch.tensor(x))).exp()
    delta = ratio.mean(1) - 1
    bias = (delta.log1p() - delta).mean().item()  # delta has the mean 0
    assert bias == pytest.approx(-0.01 * n / count, rel=0.1)
    assert v / (2 * n) == pytest.approx(0.01)


@pytest.mark.parametrize("variance", [0.7, 1.5, 5.5])
def test_the_optimum_of_the_bound_is_where_the_linear_model_has_it(variance):
    """The ELBO of gm_helpers.exact, with the posterior's mean and the best variances, on a fine grid of weights."""
    x, zero = torch.tensor([[math.sqrt(variance)]]).double(), torch.zeros(1).double()

    def elbo(w):
        model = LinearGaussian(torch.full((1, 2), w).double(), zero, zero[0])
        mean, covariance = model.posterior(x)
        return model.elbo(x, mean, (1 / torch.linalg.inv(covariance).diagonal()).diag()).item()

    weights = np.arange(0, 3, 0.002)
    assert vae_bound._best_weight(variance) == pytest.approx(weights[np.argmax([elbo(w) for w in weights])], abs=0.003)


def test_the_rates_are_those_of_the_linear_model_with_the_noise_that_beta_makes():
    """Where β multiplies the noise, the best decoder is one of maximum likelihood: its KL, by exact posteriors."""
    eigenvalues, noise, beta = torch.tensor([6.0, 2.5, 1.2]).double(), 0.7, 2.0
    model = LinearGaussian(
        (eigenvalues - beta * noise).clamp(min=0).sqrt().diag(),
        torch.zeros(3).double(),
        torch.tensor(beta * noise).log(),
    )
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0]).double()] * 3) * eigenvalues.sqrt()  # of this covariance
    mean, covariance = model.posterior(corners)
    total = kl_normal(mean, covariance, torch.zeros(3).double(), torch.eye(3).double()).mean().item()
    assert sum(vae_model._rates(eigenvalues, noise, beta)) == pytest.approx(total, abs=1e-5)


def test_the_estimator_has_the_mean_of_the_gradient_for_two_draws():
    """Of f = Σ z², whose mean μ² + σ² has the gradient (2μ, 2σ²) in μ and log σ; 4,000 estimates."""
    mean, log_std = torch.tensor([0.6]).double(), torch.tensor([-0.4]).double()
    noise = torch.Generator().manual_seed(0)
    draws = torch.randn(4_000, 2, 1, generator=noise, dtype=torch.float64)
    own = torch.tensor([vae_model._estimate()(lambda z: (z**2).sum(1), mean, log_std, eps) for eps in draws])
    error = own.std(0) / len(own) ** 0.5
    right = torch.tensor([2 * 0.6, 2 * math.exp(-0.8)])
    assert ((own.mean(0) - right).abs() < 4 * error).all()


@pytest.mark.parametrize("seed", range(1, 6))
def test_a_right_estimator_has_the_mean_that_is_known_for_a_step_whatever_the_parameters(seed):
    vae_model._refuse_wrong_mean(zoo_vae.leave_one_out_in_float32, np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(5))
def test_posterior_and_bound_of_the_small_models_are_those_of_a_fine_grid(seed):
    random = np.random.default_rng(seed)
    model, x = vae_bound._small_vae(random)
    log_px, elbo = vae_bound._by_nodes(model, x)
    found = zoo_vae.on_grid()(model, x, 0.07, 7)
    assert [own.item() for own in found] == pytest.approx([log_px, log_px - elbo], abs=1e-4)
    assert log_px - elbo > 0.1  # there is a gap to be found


# ---------------------------------------------------------------- what is particular


def test_an_answer_that_would_fill_the_memory_never_gets_to_see_the_large_case():
    seen = []

    def answer(mean, factor, diag):
        seen.append(len(mean))
        return zoo_vae.kl_in_numpy(mean, factor, diag)

    assert exercises.kl_low_rank(answer).status == "wrong"
    assert max(seen) == vae_bound.PROBE


def test_a_model_that_an_answer_changes_is_another_one_at_the_next_call():
    def answer(model, x, spacing, extent):
        given = [own.item() for own in zoo_vae.on_grid()(model, x, spacing, extent)]
        model.decoder[0].weight.data.zero_()
        return given

    assert exercises.posterior_on_grid(answer).status == "right"


def test_what_is_right_is_not_told_where_one_number_is_asked_for():
    assert "39" not in exercises.hidden_beta(40).message


def test_that_no_weight_pays_is_said_where_the_variance_is_small_alone():
    assert "no weight is worth its price" not in exercises.optimal_weight(lambda variance: math.nan).message


def test_a_minimum_is_found_by_slopes():
    found = vae_bound.minimiser(lambda at: ((at - torch.tensor([1.0, -2.0])) ** 4).sum() + (at[0] - 1) ** 2, (0.0, 0.0))
    assert found.tolist() == pytest.approx([1, -2], abs=0.01)


def test_numbers_are_near_if_none_is_off():
    given = torch.tensor([1.0, 0.001])
    assert vae_bound.near(given, torch.tensor([1.0, 0.0]), 0.002)
    assert not vae_bound.near(given, torch.tensor([1.0, 0.0]), 0.0005)
