import dataclasses

import pytest
import scipy.stats
import torch
from conftest import normal, seeded
from torch.distributions import MultivariateNormal, Normal, kl_divergence
from torch.testing import assert_close

from gm_helpers.exact import LinearGaussian, kl_normal
from gm_helpers.metrics import mean_and_standard_error

SIZES = [(1, 1), (3, 2), (2, 5), (20, 6)]  # of x and of z
EXACT = {"atol": 1e-10, "rtol": 1e-10}  # a few hundred roundings of 1e-16 each, condition numbers below a hundred


def covariances(*shape, seed=0):
    """Full covariance matrices, (..., D, D), none of them near singular."""
    factor = normal(*shape, shape[-1], seed=seed)
    return factor @ factor.mT / shape[-1] + 0.2 * torch.eye(shape[-1], dtype=torch.float64)


def random_model(pixels, dim):
    return LinearGaussian(normal(pixels, dim, seed=0), normal(pixels, seed=1), normal(1, seed=2)[0])


def grid(dim):
    """Points of a lattice that reaches 12 in each of dim directions, (Z, dim), and the volume of a cell.

    Its sums are integrals to rounding where a density is smooth over a step and has vanished at the border.
    """
    axis = torch.linspace(-12, 12, 161, dtype=torch.float64)
    return torch.cartesian_prod(*[axis] * dim).view(-1, dim), 0.15**dim


def log_joint_on_grid(model, x):
    """log p(x, z) at the points of the grid, (Z, N), from its two factors' definitions."""
    z, _ = grid(model.weight.shape[1])
    likelihood = Normal((z @ model.weight.T + model.bias)[:, None], torch.exp(model.log_var / 2))
    return likelihood.log_prob(x).sum(-1) + Normal(0.0, 1.0).log_prob(z).sum(-1, keepdim=True)


# ---------------------------------------------------------------- the divergence


@pytest.mark.parametrize("dim", [1, 3, 20])
@pytest.mark.parametrize(
    "leading",
    [
        [(30,), (30,), (30,), (30,)],
        [(), (), (), (7,)],
        [(), (), (), (3,)],  # as many matrices as a matrix has rows
        [(), (3,), (), ()],
        [(3,), (), (), ()],
        [(), (), (3,), ()],
        [(4, 1), (3,), (), (4, 3)],
        [(2, 4, 1), (1, 3), (4, 3), ()],
    ],
)
def test_kl_agrees_with_torch_distributions_and_its_leading_dimensions_broadcast(leading, dim):
    mean, covariance, other_mean, other_covariance = (
        draw(*shape, dim, seed=seed)
        for seed, (draw, shape) in enumerate(zip([normal, covariances] * 2, leading, strict=True))
    )
    p, q = MultivariateNormal(mean, covariance), MultivariateNormal(other_mean, other_covariance)
    assert_close(kl_normal(mean, covariance, other_mean, other_covariance), kl_divergence(p, q))


# ---------------------------------------------------------------- the densities


@pytest.mark.parametrize("dim", [1, 2])
def test_log_prob_is_the_logarithm_of_the_joint_density_s_integral(dim):
    model, x = random_model(3, dim), normal(4, 3, seed=5)
    integral = (log_joint_on_grid(model, x).exp() * grid(dim)[1]).sum(0)
    assert_close(model.log_prob(x), integral.log())


def test_log_likelihood_agrees_with_scipy_for_each_pair_of_x_and_z():
    model, x, z = random_model(4, 2), normal(5, 4, seed=5), normal(6, 1, 2, seed=6)
    mean = z @ model.weight.T + model.bias
    expected = scipy.stats.norm(mean, torch.exp(model.log_var / 2)).logpdf(x).sum(-1)
    assert_close(model.log_likelihood(x, z), torch.from_numpy(expected))


@pytest.mark.parametrize("dim", [1, 2])
def test_posterior_has_the_moments_of_the_joint_density(dim):
    model, x = random_model(3, dim), normal(4, 3, seed=5)
    z, density = grid(dim)[0], log_joint_on_grid(model, x).softmax(0)  # (Z, N)
    mean, covariance = model.posterior(x)
    assert_close(mean, density.T @ z)
    centred = z[:, None] - mean
    assert_close(covariance.expand(4, dim, dim), torch.einsum("zn,zni,znj->nij", density, centred, centred))


@pytest.mark.parametrize(("pixels", "dim"), SIZES)
def test_posterior_density_is_joint_over_evidence(pixels, dim):
    model, x, z = random_model(pixels, dim), normal(9, pixels, seed=5), normal(9, dim, seed=6)
    log_joint = model.log_likelihood(x, z) + Normal(0.0, 1.0).log_prob(z).sum(-1)
    log_posterior = MultivariateNormal(*model.posterior(x)).log_prob(z)
    assert_close(log_posterior, log_joint - model.log_prob(x), **EXACT)


# ---------------------------------------------------------------- the bound


@pytest.mark.parametrize("dim", [1, 2])
def test_elbo_agrees_with_the_integral_of_its_definition(dim):
    model, x = random_model(3, dim), normal(4, 3, seed=5)
    mean, covariance = normal(4, dim, seed=6), covariances(4, dim, seed=7)
    z, cell = grid(dim)
    log_q = MultivariateNormal(mean, covariance).log_prob(z[:, None])
    integral = (log_q.exp() * (log_joint_on_grid(model, x) - log_q)).sum(0) * cell
    assert_close(model.elbo(x, mean, covariance), integral)


@pytest.mark.parametrize(("pixels", "dim"), SIZES)
def test_log_likelihood_is_the_elbo_plus_the_kl_to_the_posterior(pixels, dim):
    model, x = random_model(pixels, dim), normal(9, pixels, seed=5)
    q = normal(9, dim, seed=6), covariances(9, dim, seed=7)
    gap = kl_divergence(MultivariateNormal(*q), MultivariateNormal(*model.posterior(x)))
    assert (gap > 0.01).all()
    assert_close(model.elbo(x, *q) + gap, model.log_prob(x), **EXACT)


@pytest.mark.parametrize("leading", [[(), (), ()], [(4,), (4,), ()], [(4,), (6, 1), (4,)], [(), (), (3,)]])
def test_leading_dimensions_of_the_elbo_broadcast(leading):
    model, (of_x, of_mean, of_covariance) = random_model(5, 3), leading
    arguments = normal(*of_x, 5, seed=5), normal(*of_mean, 3, seed=6), covariances(*of_covariance, 3, seed=7)
    whole = torch.broadcast_shapes(*leading)
    flat = [
        own.expand(*whole, *last).reshape(-1, *last) for own, last in zip(arguments, [(5,), (3,), (3, 3)], strict=True)
    ]
    one_by_one = torch.stack([model.elbo(*row) for row in zip(*flat, strict=True)])
    assert_close(model.elbo(*arguments), one_by_one.view(whole))


def test_with_the_posterior_held_fixed_the_elbo_has_the_log_likelihood_s_gradient():
    # ∇ log p(x) = E over p(z|x) of ∇ log p(x, z), Fisher's identity: what one M step of EM starts from.
    parts, x = [part.requires_grad_() for part in dataclasses.astuple(random_model(4, 2))], normal(9, 4, seed=5)
    model = LinearGaussian(*parts)
    posterior = [part.detach() for part in model.posterior(x)]
    bound = torch.autograd.grad(model.elbo(x, *posterior).sum(), parts)
    assert_close(bound, torch.autograd.grad(model.log_prob(x).sum(), parts))


# ---------------------------------------------------------------- samples


def test_samples_have_the_moments_of_the_model():
    model = random_model(4, 2)
    x = model.sample(200_000, seeded(3))
    centred = x - model.bias
    covariance = model.weight @ model.weight.T + model.log_var.exp() * torch.eye(4)
    for i in range(4):
        estimate, error = mean_and_standard_error(x[:, i])
        assert abs(estimate - model.bias[i]) < 4 * error
        for j in range(i + 1):
            estimate, error = mean_and_standard_error(centred[:, i] * centred[:, j])
            assert abs(estimate - covariance[i, j]) < 4 * error


def test_the_generator_decides_the_samples():
    model = random_model(4, 2)
    one, again, other = (model.sample(5, seeded(seed)) for seed in (1, 1, 2))
    assert one.shape == (5, 4)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
