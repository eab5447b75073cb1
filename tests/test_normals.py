"""Normals in place of densities on a line: each number has an oracle from elsewhere, a brute sum or a closed form."""

import math

import pytest
import scipy
import torch
from conftest import seeded
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

from gm_helpers import normals
from gm_helpers.exact import LinearGaussian


def test_the_log_density_of_a_normal_is_torch_s():
    z = torch.randn(50, dtype=torch.float64, generator=seeded(0))
    expected = Normal(torch.tensor(0.7).double(), 0.3).log_prob(z)
    assert_close(normals.log_normal(z, 0.7, 0.3), expected)
    assert_close(normals.density(z, 0.7, 0.3), expected.exp())


def test_on_a_line_the_bound_for_a_normal_is_minus_its_divergence_from_the_density():
    mean, log_std = torch.tensor([0.3, -2.0], dtype=torch.float64), torch.tensor([0.5, -1.0], dtype=torch.float64)
    bound = normals.bound_on_a_line(Normal(torch.tensor(1.0).double(), 2.0).log_prob, mean, log_std)
    assert_close(bound, -kl_divergence(Normal(mean, log_std.exp()), Normal(1.0, 2.0)))


def test_the_maximum_of_a_bound_is_found_from_every_start_where_the_density_is_a_normal():
    target = Normal(torch.tensor(1.0).double(), 2.0)
    starts = torch.tensor([-5.0, 0.0, 7.0], dtype=torch.float64)
    found = normals.maximised(lambda *q: normals.bound_on_a_line(target.log_prob, *q), starts, torch.zeros_like(starts))
    assert_close(found[0], torch.full_like(starts, 1.0), atol=1e-5, rtol=0)
    assert_close(found[1].exp(), torch.full_like(starts, 2.0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("x", [-2.0, 0.0, 1.3])
def test_without_curvature_the_gap_is_nothing_and_all_is_as_in_the_linear_gaussian_model(x):
    found = normals.one_dimension(x, curvature=0.0)
    one = torch.ones(1, 1, dtype=torch.float64)
    model = LinearGaussian(one, torch.zeros(1, dtype=torch.float64), torch.tensor(2 * math.log(0.5)).double())
    mean, variance = model.posterior(x * one[0])
    assert found.gap == pytest.approx(0, abs=1e-9)
    assert (found.log_px, found.mean) == pytest.approx((model.log_prob(x * one[0]).item(), mean.item()), abs=1e-6)
    assert found.std == pytest.approx(variance.sqrt().item(), abs=1e-6)


@pytest.mark.parametrize(("x", "curvature"), [(1.0, 0.7), (0.5, 1.5), (-1.0, 0.3)])
def test_the_likelihood_in_one_dimension_is_the_integral_that_scipy_finds(x, curvature):
    def joint(z):
        return scipy.stats.norm.pdf(z) * scipy.stats.norm.pdf(x, z + curvature * z**2, 0.5)

    integral, _ = scipy.integrate.quad(joint, -8, 8, limit=200, epsabs=1e-12)
    found = normals.one_dimension(x, curvature)
    assert found.log_px == pytest.approx(math.log(integral), abs=1e-8)
    at = found.z.numpy()[600:2600:200]
    assert found.log_joint.exp().numpy()[600:2600:200] == pytest.approx(joint(at))


def test_the_gap_in_one_dimension_is_what_the_bound_lacks():
    z = torch.zeros(1)
    assert normals.OneDimension(z, z, log_px=-1.0, mean=0.0, std=1.0, elbo=-3.0).gap == 2


@pytest.mark.parametrize(("x", "curvature"), [(1.0, 0.7), (0.5, 1.5), (-1.0, 0.3), (4.0, 1.0)])
def test_the_gap_in_one_dimension_is_the_divergence_of_the_best_normal_from_the_posterior(x, curvature):
    found = normals.one_dimension(x, curvature)
    log_q = Normal(found.mean, found.std).log_prob(found.z)
    ratio = log_q - (found.log_joint - found.log_px)
    assert found.gap == pytest.approx(torch.trapezoid(log_q.exp() * ratio, found.z).item(), abs=1e-6)


@pytest.mark.parametrize(("x", "curvature"), [(1.0, 0.7), (0.5, 1.5), (-1.0, 0.3), (0.5, 1.0)])
def test_no_normal_of_a_fine_search_has_a_smaller_gap_than_the_one_that_is_called_best(x, curvature):
    found = normals.one_dimension(x, curvature)
    pairs = torch.cartesian_prod(*(torch.linspace(*own, 101, dtype=torch.float64) for own in ((-4, 4), (-3, 1))))

    def log_joint(z):
        return Normal(0.0, 1.0).log_prob(z) + Normal(z + curvature * z**2, 0.5).log_prob(torch.tensor(x))

    others = normals.bound_on_a_line(log_joint, *pairs.T)
    assert found.elbo - 5e-3 < others.max() <= found.elbo


@pytest.mark.parametrize("separation", [0.0, 0.7, 1.2, 2.0, 3.0])
def test_the_forward_fit_has_the_moments_of_the_two_humps(separation):
    forward, _ = normals.both_directions(separation)
    z = torch.linspace(-10, 10, 20_001, dtype=torch.float64)
    p = normals.log_two_humps(z, separation).exp()
    mean = torch.trapezoid(p * z, z)
    std = torch.trapezoid(p * (z - mean) ** 2, z).sqrt()
    assert (forward.mean, forward.std) == pytest.approx((mean.item(), std.item()))


def test_where_both_humps_are_one_the_fits_in_both_directions_are_that_hump():
    hump = normals.Fit(*(pytest.approx(own, abs=1e-6) for own in (0, 0.6, 0)))
    assert normals.both_directions(0.0) == (hump, [hump])


def kl(one, other, points):
    return torch.trapezoid(one.exp() * (one - other), points).item()


@pytest.mark.parametrize("separation", [0.7, 1.2, 2.0, 3.0])
def test_the_divergences_of_the_fits_are_those_of_a_sum_each_in_its_direction(separation):
    forward, reverse = normals.both_directions(separation)
    z = torch.linspace(-25, 25, 20_001, dtype=torch.float64)
    p, q = normals.log_two_humps(z, separation), Normal(forward.mean, forward.std).log_prob(z)
    assert forward.kl == pytest.approx(kl(p, q, z), abs=1e-6)
    for fit in reverse:
        q = Normal(fit.mean, fit.std).log_prob(z)
        assert fit.kl == pytest.approx(kl(q, p, z), abs=1e-6)


@pytest.mark.parametrize("separation", [0.5, 1.2, 1.5, 2.0, 3.0])
def test_the_first_reverse_fit_is_the_best_of_a_fine_search_and_the_others_are_worse(separation):
    _, reverse = normals.both_directions(separation)
    pairs = torch.cartesian_prod(*(torch.linspace(*own, 61, dtype=torch.float64) for own in ((-3, 3), (-1, 1.4))))
    others = -normals.bound_on_a_line(lambda z: normals.log_two_humps(z, separation), *pairs.T)
    assert reverse[0].kl <= others.min() < reverse[0].kl + 1e-2
    assert [own.kl for own in reverse] == sorted(own.kl for own in reverse)


@pytest.mark.parametrize("separation", [1.2, 1.5, 2.0, 3.0])
def test_every_reverse_fit_is_better_than_all_normals_around_it(separation):
    steps = torch.cartesian_prod(*2 * [torch.tensor([-0.05, 0, 0.05], dtype=torch.float64)])
    for fit in normals.both_directions(separation)[1]:
        around = torch.tensor([fit.mean, math.log(fit.std)], dtype=torch.float64) + steps
        values = -normals.bound_on_a_line(lambda z: normals.log_two_humps(z, separation), *around.T)
        assert values.min() >= fit.kl - 1e-6


def test_near_humps_the_best_reverse_fit_spans_both_and_one_hump_costs_half_a_nat():
    _, [best] = normals.both_directions(1.2)
    one = normals.bound_on_a_line(
        lambda z: normals.log_two_humps(z, 1.2), *torch.tensor([[-1.2], [math.log(0.6)]], dtype=torch.float64)
    )
    assert (best.kl, best.std > 1.2) == (pytest.approx(0.230, abs=5e-4), True)
    assert -one == pytest.approx(0.47, abs=0.05)


def test_far_humps_leave_the_best_reverse_fit_on_the_larger_one_at_the_price_of_its_share():
    _, [best, second, spanning] = normals.both_directions(2.0)
    assert (best.mean, best.std) == pytest.approx((-2, 0.6), abs=0.01)
    assert (best.kl, second.kl) == pytest.approx((-math.log(0.6), -math.log(0.4)), abs=2e-3)
    assert spanning.std > 1.5
