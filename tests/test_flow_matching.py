import math

import pytest
import torch
from conftest import normal, randomized, seeded, uniform
from conftest import random_grey_images as grey
from scipy.stats import kstest
from torch.func import jacrev
from torch.testing import assert_close

from gm_helpers import flow_matching
from gm_helpers.exact import Mixture
from gm_helpers.flow_matching import (
    FlowMatching,
    ImageFlowMatching,
    adaptive,
    euler,
    log_prob,
    matching_loss,
    midpoint,
    path,
)
from gm_helpers.flows import standard_normal_log_prob
from gm_helpers.metrics import mean_and_standard_error
from gm_helpers.nn import TimeFeatures, VelocityMLP, VelocityNetwork

MIXTURE = Mixture(
    torch.tensor([0.3, 0.7]).double(),
    torch.tensor([[-2.0, 1.0], [1.5, 0.5]]).double(),
    torch.tensor([0.4, 0.8]).double(),
)
TURN = torch.tensor([[0.3, -0.8], [0.5, -0.6]], dtype=torch.float64)


def linear(x, t):
    return x @ TURN.T


def times(n, t):
    return torch.full((n,), t, dtype=torch.float64)


# ---------------------------------------------------------------- path and regression


def test_a_path_leads_from_the_noise_to_the_datum_with_the_velocity_that_is_the_target():
    x, eps, step = normal(5, 3, 4, seed=1), normal(5, 3, 4, seed=2), 1e-6
    assert_close(path(x, eps, times(5, 0.0))[0], eps)
    assert_close(path(x, eps, times(5, 1.0))[0], x)
    t = uniform(5)
    moved = (path(x, eps, t + step)[0] - path(x, eps, t - step)[0]) / (2 * step)
    assert_close(moved, path(x, eps, t)[1], rtol=0, atol=1e-8)


def test_the_loss_pairs_each_datum_with_a_noise_and_a_time_of_its_own():
    x, seen = normal(400, 2), []

    def velocity(x_t, t):
        seen.append((x_t, t))
        return torch.sin(3 * x_t)

    loss = matching_loss(velocity, x, seeded(0))
    [(x_t, t)] = seen
    eps = (x_t - t[:, None] * x) / (1 - t[:, None])
    assert_close(loss, (torch.sin(3 * x_t) - (x - eps)).square().mean())
    assert kstest(t.numpy(), "uniform").pvalue > 0.01
    assert kstest(eps.flatten().numpy(), "norm").pvalue > 0.01


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_the_mixture_s_velocity_is_the_mean_of_the_target_given_the_point(t):
    x, eps = MIXTURE.sample(200_000, seeded(0)), normal(200_000, 2, seed=1)
    x_t, target = path(x, eps, times(len(x), t))
    away = target - MIXTURE.velocity(x_t, times(len(x), t))
    for weight in (torch.ones(len(x)), x_t[:, 0], torch.sin(2 * x_t[:, 1]), (x_t[:, 0] > 0).double()):
        for own in (away * weight[:, None]).unbind(1):
            mean, error = mean_and_standard_error(own)
            assert abs(mean) < 4 * error


def test_the_mixture_has_the_density_of_its_normals_at_all_times():
    x = 2 * normal(50, 2)
    for t in (0.0, 0.3, 1.0):
        parts = [
            weight.log()
            + torch.distributions.MultivariateNormal(
                t * mean, ((1 - t) ** 2 + (t * std) ** 2) * torch.eye(2, dtype=torch.float64)
            ).log_prob(x)
            for weight, mean, std in zip(MIXTURE.weights, MIXTURE.means, MIXTURE.stds, strict=True)
        ]
        assert_close(MIXTURE.log_prob(x, t), torch.stack(parts).logsumexp(0))


def test_the_loss_is_least_at_the_exact_velocity_and_not_zero_there():
    x, best = (
        MIXTURE.sample(100_000, seeded(0)),
        matching_loss(MIXTURE.velocity, MIXTURE.sample(100_000, seeded(0)), seeded(1)),
    )
    assert best > 0.5
    for change in (lambda x, t: 0.1 * torch.sin(x), lambda x, t: 0.1 * t[:, None] * torch.ones_like(x)):
        other = matching_loss(lambda x, t, change=change: MIXTURE.velocity(x, t) + change(x, t), x, seeded(1))
        assert other > best + 0.0005


# ---------------------------------------------------------------- solvers


@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (1.0, 0.0), (0.2, 0.7)])
def test_both_solvers_take_the_steps_of_their_matrices_in_a_linear_field(start, end):
    x, steps = normal(5, 2), 7
    h, one = (end - start) / steps, torch.eye(2, dtype=torch.float64)
    first = torch.linalg.matrix_power(one + h * TURN, steps)
    second = torch.linalg.matrix_power(one + h * TURN + h**2 / 2 * TURN @ TURN, steps)
    assert_close(euler(linear, x, start, end, steps), x @ first.T)
    assert_close(midpoint(linear, x, start, end, steps), x @ second.T)


def test_half_the_step_halves_euler_s_error_and_quarters_the_midpoint_s_also_where_the_field_changes_in_time():
    def field(x, t):
        return x * (1 + t)[:, None]

    x = normal(4, 2)
    exact = x * math.exp(1.5)
    for solver, factor in ((euler, 2), (midpoint, 4)):
        coarse, fine = (solver(field, x, 0.0, 1.0, steps) - exact for steps in (100, 200))
        assert coarse.norm() / fine.norm() == pytest.approx(factor, rel=0.05)


def test_the_adaptive_solver_reaches_its_tolerance_and_counts_what_it_asked():
    asked = []

    def field(x, t):
        asked.append(t)
        return linear(x, t)

    x = normal(5, 2)
    found, count = adaptive(field, x, 0.0, 1.0, 1e-9)
    assert_close(found, x @ torch.linalg.matrix_exp(TURN).T, rtol=0, atol=1e-7)
    assert count == len(asked)
    assert adaptive(field, x, 0.0, 1.0, 1e-3)[1] < count


# ---------------------------------------------------------------- likelihood


def test_the_exact_divergence_is_the_trace_of_the_jacobian():
    network, x, t = randomized(VelocityMLP(3, 8)), normal(4, 3), uniform(4)
    traces = [jacrev(lambda own, i=i: network(own[None], t[i : i + 1])[0])(x[i]).trace() for i in range(4)]
    assert_close(flow_matching.exact_divergence(network, x, t), torch.stack(traces))


def test_the_estimated_divergence_is_the_exact_one_on_average_over_all_signs():
    network, x, t = randomized(VelocityMLP(3, 8)), normal(4, 3), uniform(4)
    probes = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)
    estimates = [flow_matching.estimated_divergence(network, x, t, own.expand_as(x)) for own in probes]
    assert_close(torch.stack(estimates).mean(0), flow_matching.exact_divergence(network, x, t))


@pytest.mark.parametrize("exact", [True, False])
def test_in_a_linear_field_the_log_density_is_the_normal_s_at_the_start_less_the_trace(exact):
    x = normal(2_000, 2)
    expected = standard_normal_log_prob(x @ torch.linalg.matrix_exp(-TURN).T) - TURN.trace()
    found = log_prob(linear, x, 200, seeded(0), exact)
    if exact:
        assert_close(found, expected, rtol=0, atol=1e-4)
    else:
        mean, error = mean_and_standard_error(found - expected)
        assert 0 < error < 0.02
        assert abs(mean) < 4 * error


def test_the_mixture_s_velocity_gives_back_the_mixture_s_density_and_samples():
    x = MIXTURE.sample(500, seeded(0))
    found = log_prob(MIXTURE.velocity, x, 200, exact=True)
    assert_close(found, MIXTURE.log_prob(x), rtol=0, atol=5e-3)
    samples = midpoint(MIXTURE.velocity, normal(4_000, 2, seed=3), 0.0, 1.0, 100)
    real = MIXTURE.sample(100_000, seeded(4))
    for direction in ((1.0, 0.0), (0.0, 1.0), (0.6, 0.8)):
        along = torch.tensor(direction, dtype=torch.float64)
        assert kstest((samples @ along).numpy(), (real @ along).numpy()).pvalue > 0.01


# ---------------------------------------------------------------- models


class Still(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.zero = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x, t):
        return self.zero * x


def test_a_model_s_loss_is_that_of_its_velocity_and_its_samples_are_carried_by_euler_s_steps():
    model = FlowMatching(randomized(VelocityMLP(2, 8)), (2,))
    x = normal(6, 2)
    assert_close(model.loss(x, seeded(0))["loss"], matching_loss(model.velocity, x, seeded(0)))
    noise = torch.randn(5, 2, generator=seeded(1), dtype=torch.float64)
    assert_close(model.sample(5, seeded(1), 3), euler(model.velocity, noise, 0.0, 1.0, 3))
    [(module, loss)] = model.players().values()
    assert module is model
    assert loss == model.loss


def test_dequantized_images_lie_in_their_levels_and_what_is_below_them_are_the_images():
    model, x = ImageFlowMatching(Still(), (1, 28, 28)), grey(4)
    y = model.dequantized(x, seeded(0))
    assert y.min() >= -1
    assert y.max() < 1
    assert_close(((y + 1) * 128).floor(), x)
    u = (y + 1) * 128 - x
    assert kstest(u.flatten().numpy(), "uniform").pvalue > 0.01


def test_bits_per_dimension_have_the_constants_of_dequantization_and_scaling():
    model, x = ImageFlowMatching(Still(), (1, 28, 28)), grey(4)
    y = model.dequantized(x, seeded(0))
    expected = -(standard_normal_log_prob(y) / 784 + math.log(2 / 256)) / math.log(2)
    assert_close(model.bits_per_dim(x, 3, seeded(0)), expected)


def test_samples_of_images_are_whole_grey_values():
    samples = ImageFlowMatching(Still(), (1, 28, 28)).sample(20, seeded(0), 2)
    noise = torch.randn(20, 1, 28, 28, generator=seeded(0), dtype=torch.float64)
    assert_close(samples, ((noise + 1) * 128).floor().clamp(0, 255))
    assert samples.min() == 0
    assert samples.max() == 255


def test_the_models_of_plane_and_images_have_networks_for_their_shapes():
    assert flow_matching.matching_2d(8).sample(3, torch.Generator().manual_seed(0), 1).shape == (3, 2)
    images = flow_matching.matching_images(8)
    assert images.sample(3, torch.Generator().manual_seed(0), 1).shape == (3, 1, 28, 28)
    assert isinstance(images, ImageFlowMatching)


class Recording(Still):
    def __init__(self):
        super().__init__()
        self.times = []

    def forward(self, x, t):
        self.times.append(t[0].item())
        return self.zero * x


def test_images_are_drawn_and_measured_in_as_many_steps_as_are_asked_for():
    network = Recording()
    model = ImageFlowMatching(network, (1, 28, 28))
    model.sample(2, seeded(0), 4)
    assert network.times == pytest.approx([0, 0.25, 0.5, 0.75])
    network.times.clear()
    model.bits_per_dim(grey(1), 4, seeded(0))
    assert sorted({round(own, 4) for own in network.times}) == [0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1]


def test_what_a_network_of_velocities_saw_at_14_by_14_goes_round_the_coarse_part_too():
    network = randomized(VelocityNetwork(8, 8))
    for own in network.up.parameters():
        torch.nn.init.zeros_(own)
    x, t = normal(2, 1, 28, 28), uniform(2)
    with_fine = network(x, t)
    assert not torch.allclose(with_fine, network(x + 0.1, t))
    for own in network.down.parameters():
        torch.nn.init.zeros_(own)
    assert_close(network(x, t), with_fine)


# ---------------------------------------------------------------- networks


def test_a_time_becomes_sines_and_cosines_of_half_turns_that_double():
    t = torch.tensor([0.0, 0.3], dtype=torch.float64)
    angles = [math.pi * 0.3, 2 * math.pi * 0.3, 4 * math.pi * 0.3]
    expected = [[0.0] * 3 + [1.0] * 3, [math.sin(own) for own in angles] + [math.cos(own) for own in angles]]
    assert_close(TimeFeatures(6)(t), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(("network", "shape"), [(VelocityMLP(2, 8), (2,)), (VelocityNetwork(8, 8), (1, 28, 28))])
def test_a_velocity_network_uses_point_and_time_and_all_its_weights(network, shape):
    network = randomized(network)
    x, t = normal(3, *shape), uniform(3)
    v = network(x, t)
    assert v.shape == x.shape
    assert not torch.allclose(v, network(x, 1 - t))
    assert not torch.allclose(v, network(x + 0.1, t))
    assert_close(network(x[1:], t[1:]), v[1:])
    v.square().sum().backward()
    assert [name for name, own in network.named_parameters() if own.grad is None or not own.grad.any()] == []
