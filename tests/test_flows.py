import math

import numpy as np
import pytest
import torch
from conftest import independent_flow, independent_log_probabilities, jacobian, normal, randomized, seeded, uniform
from conftest import random_grey_images as grey
from scipy.stats import kstest
from torch.distributions import (
    AffineTransform,
    Categorical,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    SigmoidTransform,
    TransformedDistribution,
)
from torch.testing import assert_close

from gm_helpers import flows
from gm_helpers.bijections import (
    ActNorm,
    Affine,
    AffineCoupling,
    AutoregressiveLayer,
    MaskedLinear,
    Reverse,
    Split,
    Squeeze,
    Stack,
)
from gm_helpers.flows import Flow, UniformDequantizer, VariationalDequantizer, flow_2d, flow_autoregressive
from gm_helpers.metrics import mean_and_standard_error


def small_2d():
    return flow_2d(couplings=3, hidden=8)


def small_autoregressive():
    return flow_autoregressive(4, layers=3, hidden=9)


def small_fully_connected(**settings):
    return flows.flow_fully_connected(hidden=16, couplings=4, **settings)


def small_convolutional(**settings):
    return flows.flow_convolutional(width=4, blocks=1, couplings=2, **settings)


def small_variational(**settings):
    return small_convolutional(variational=True, **settings)


# What each flow takes, in float64.
EXAMPLES = {
    small_2d: uniform(3, 2),
    small_autoregressive: uniform(3, 4),
    small_fully_connected: grey(3) + uniform(3, 1, 28, 28),
    small_convolutional: grey(3) + uniform(3, 1, 28, 28),
}
every_flow = pytest.mark.parametrize("make", EXAMPLES)
every_image_flow = pytest.mark.parametrize("make", [small_fully_connected, small_convolutional, small_variational])

# ---------------------------------------------------------------- the architectures as bijections


@every_flow
def test_a_flow_has_an_inverse(make):
    flow, x = randomized(make()), EXAMPLES[make]
    z, log_det = flow(x)
    assert z.shape == (3, flow.dims)
    assert_close(flow.inverse(z), (x, -log_det))


@every_flow
def test_the_log_det_of_a_flow_is_that_of_its_jacobian(make):
    flow, x = randomized(make()), EXAMPLES[make][:1]
    _, log_det = flow(x)
    assert_close(log_det[0], torch.linalg.slogdet(jacobian(flow, x[0])).logabsdet)


@every_image_flow
def test_float32_brings_a_flow_over_images_back_to_a_tenth_of_a_grey_value(make):
    # Random layers lose more than trained ones: their latents have a deviation of 15, and 2^-24 of the largest passes
    # back through scales up to e^2 in each layer.
    flow, y = randomized(make()).float(), (grey(8) + uniform(8, 1, 28, 28)).float()
    z, log_det = flow(y)
    back, inverse_log_det = flow.inverse(z)
    assert_close(back, y, atol=0.1, rtol=0)
    assert_close(inverse_log_det, -log_det, atol=0.01, rtol=0)  # of some 3,000 nats


def test_the_order_is_reversed_between_autoregressive_layers_so_that_each_latent_depends_on_everything():
    flow = randomized(flow_autoregressive(4, layers=2, hidden=30))
    matrix = torch.stack([jacobian(flow, x).abs() for x in normal(20, 4)]).amax(0)
    assert (matrix > 1e-6).all()


def test_the_convolutional_flow_has_the_three_groups_of_couplings_of_its_docstring():
    flow, seen = flows.flow_convolutional(width=4, blocks=1, couplings=3), []
    for own in flow.modules():
        if isinstance(own, AffineCoupling):
            own.register_forward_hook(lambda own, inputs, _: seen.append((inputs[0].shape[1:], own.kept.tolist())))
    flow(grey(2).float())
    groups = [((4, 14, 14), [0, 3], [1, 2]), ((4, 14, 14), [0, 1], [2, 3]), ((8, 7, 7), [0, 1, 2, 3], [4, 5, 6, 7])]
    assert seen == [(shape, kept) for shape, *masks in groups for kept in (masks[0], masks[1], masks[0])]


def test_half_of_the_convolutional_flow_s_latents_leave_before_the_coarse_layers():
    flow, y = randomized(small_convolutional()), grey(2) + 0.5
    before, _ = flow(y)
    coarse = next(own for own in flow.modules() if isinstance(own, Split)).rest
    randomized(coarse, seed=1)
    after, _ = flow(y)
    assert torch.equal(after[:, :392], before[:, :392])
    assert (after[:, 392:] != before[:, 392:]).double().mean() > 0.9


# ---------------------------------------------------------------- masks and couplings


def test_the_checkerboard_is_numpy_s_and_so_is_the_mask_of_squeezed_channels():
    board = torch.from_numpy(np.indices((28, 28)).sum(0) % 2 == 0)
    channels = flows.CHECKERBOARD.double().view(1, 4, 1, 1).expand(1, 4, 14, 14)
    assert torch.equal(flows.checkerboard(28, 28).view(28, 28).bool(), board)
    assert torch.equal(Squeeze().inverse(channels)[0][0, 0].bool(), board)
    assert flows.checkerboard(2, 3).tolist() == [1, 0, 1, 0, 1, 0]


def test_halves_mark_the_first_half_and_masks_alternate_so_that_no_value_passes_two_layers():
    masks = flows.alternate(flows.halves(5), 3)
    assert [own.tolist() for own in masks] == [[1, 1, 0, 0, 0], [0, 0, 1, 1, 1], [1, 1, 0, 0, 0]]


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        (flows.vector_couplings(torch.tensor([1, 0, 0]), 2, 8), (3,)),
        (flows.image_couplings(torch.tensor([1, 0, 0]), 2, 8, 1), (3, 2, 2)),
    ],
    ids=["vectors", "images"],
)
def test_two_couplings_begin_as_the_identity_and_change_every_value_once_they_have_learnt(layers, shape):
    stack, x = Stack(layers).double(), normal(4, *shape)
    assert_close(stack(x), (x, torch.zeros(4, dtype=torch.float64)), rtol=0, atol=0)
    assert ((randomized(stack)(x)[0] - x).abs() > 1e-6).all()


# ---------------------------------------------------------------- densities


def test_the_standard_normal_s_density_agrees_with_torch_distributions():
    z = normal(5, 2, 3)
    assert_close(flows.standard_normal_log_prob(z), Normal(0.0, 1.0).log_prob(z).sum((1, 2)))


@pytest.mark.parametrize("base", [flows.StandardNormal(3), flows.TwoNormals(3, distance=5.0)], ids=["one", "two"])
def test_a_base_has_the_density_of_torch_s_and_draws_from_it(base):
    base, z = base.double(), 2 * normal(2000, 3)
    centre = torch.zeros(3).double()
    centre[0] = 2.5 if isinstance(base, flows.TwoNormals) else 0
    parts = MultivariateNormal(torch.stack([-centre, centre]), torch.eye(3).double())
    law = MixtureSameFamily(Categorical(torch.ones(2).double()), parts)
    assert_close(base.log_prob(z), law.log_prob(z))
    draws = base.sample(4000, seeded(0))
    assert (draws.shape, draws.dtype) == ((4000, 3), torch.float64)
    first = parts.mean[:, :1]
    assert (
        kstest(draws[:, 0].numpy(), lambda x: Normal(first, 1.0).cdf(torch.from_numpy(x)).mean(0).numpy()).pvalue > 0.01
    )
    assert kstest(draws[:, 1:].flatten().numpy(), "norm").pvalue > 0.01
    assert torch.equal(base.sample(9, seeded(1)), base.sample(9, seeded(1)))


def test_two_normals_stand_ten_deviations_apart_along_the_first_coordinate_and_are_drawn_as_often():
    side = flows.TwoNormals(2).sample(4000, seeded(0))
    assert ((side[:, 0].abs() - 5).abs() < 5).all()
    assert abs((side[:, 0] > 0).double().mean() - 0.5) < 4 * 0.5 / math.sqrt(4000)


def test_a_flow_onto_another_base_has_its_density_and_its_samples_and_keeps_no_more_weights():
    base = flows.TwoNormals(2)
    flow = Flow([Affine(0.5, 1.0)], 2, base)
    x = normal(5, 2).float()
    assert_close(flow.log_prob(x), base.log_prob(0.5 * x + 1) + 2 * math.log(0.5))
    assert_close(flow.sample(7, seeded(0)), (base.sample(7, seeded(0)) - 1) / 0.5)
    assert flow_2d(two_humps=True).state_dict().keys() == flow_2d().state_dict().keys()
    assert type(flow_2d(two_humps=True).base) is flows.TwoNormals
    assert type(flow_2d().base) is flows.StandardNormal


def test_a_base_goes_where_its_flow_goes():
    flow = flow_2d(two_humps=True).double()
    assert flow.sample(3, seeded(0)).dtype == torch.float64


@pytest.mark.parametrize("autoregressive", [True, False])
def test_a_flow_over_small_images_scores_bits_for_each_of_its_64_pixels(autoregressive):
    flow = randomized(flows.flow_8x8(autoregressive))
    x = torch.randint(0, 256, (5, 1, 8, 8), generator=seeded(0)).double()
    u = torch.rand(x.shape, generator=seeded(1), dtype=torch.float64)
    z, log_det = flow(x + u)
    assert z.shape == (5, 64)
    assert_close(log_det[0], torch.linalg.slogdet(jacobian(flow, (x + u)[0])).logabsdet)
    bits = -(Normal(0.0, 1.0).log_prob(z).sum(1) + log_det) / (64 * math.log(2))
    assert_close(flow.loss(x, seeded(1))["loss"], bits.mean())
    kinds = {type(own) for own in flow.modules()} & {AffineCoupling, AutoregressiveLayer}
    assert kinds == ({AutoregressiveLayer} if autoregressive else {AffineCoupling})


@pytest.mark.parametrize("autoregressive", [True, False])
def test_the_margin_of_a_flow_over_small_images_is_1e_5_unless_told(autoregressive):
    ends = torch.tensor([0.0, 256.0], dtype=torch.float64)[:, None]
    for alpha, flow in ((1e-5, flows.flow_8x8(autoregressive)), (0.05, flows.flow_8x8(autoregressive, alpha=0.05))):
        inside, _ = Stack(flow.bijection.layers[:2])(ends)
        assert_close(inside.flatten(), torch.tensor([alpha, 1 - alpha], dtype=torch.float64))


def test_both_flows_over_small_images_have_about_as_many_weights_in_four_and_in_eight_layers():
    counts = []
    for autoregressive, kind, layers in ((True, AutoregressiveLayer, 4), (False, AffineCoupling, 8)):
        modules = [*flows.flow_8x8(autoregressive).modules()]
        assert sum(isinstance(own, kind) for own in modules) == layers
        linear = [own for own in modules if isinstance(own, torch.nn.Linear)]
        masks = [own.mask if isinstance(own, MaskedLinear) else torch.ones_like(own.weight) for own in linear]
        counts.append(sum(int(own.sum()) for own in masks))
    assert 0.85 < counts[0] / counts[1] < 1.15


def test_bits_per_dim_are_those_of_information_theory():
    eighth = torch.tensor([3 * math.log(1 / 8)], dtype=torch.float64)  # three values, each of 8 as likely
    assert flows.bits_per_dim(eighth, 3).item() == pytest.approx(3)
    assert flows.bits_per_dim(784 * eighth).item() == pytest.approx(9)  # 784 pixels unless told


def test_a_flow_of_linear_layers_has_the_density_of_torch_s_normal():
    flow, x = randomized(Flow([ActNorm((3,)), Affine(-0.5, 1.0), Reverse()], dims=3)), normal(20, 3)
    shift, log_scale = (own.detach() for own in flow.parameters())
    # z = −½ (x + shift) e^log_scale + 1 is standard normal: solved for x
    mean, deviation = 2 * (-log_scale).exp() - shift, 2 * (-log_scale).exp()
    assert_close(flow.log_prob(x).detach(), MultivariateNormal(mean, scale_tril=deviation.diag()).log_prob(x))


@pytest.mark.parametrize(
    "make", [lambda: flow_2d(couplings=4, hidden=16), lambda: flow_autoregressive(2, layers=3, hidden=16)]
)
def test_the_density_of_a_flow_in_the_plane_integrates_to_one(make):
    axis = torch.linspace(-14, 14, 561, dtype=torch.float64)
    density = randomized(make()).log_prob(torch.cartesian_prod(axis, axis)).exp().detach()
    assert torch.trapezoid(torch.trapezoid(density.view(561, 561), axis), axis).item() == pytest.approx(1, abs=3e-3)


def logistic_normal(alpha):
    """The distribution of a pixel y whose logit of α + (1 − 2α) y/256 is standard normal."""
    to_pixel = AffineTransform(-256 * alpha / (1 - 2 * alpha), 256 / (1 - 2 * alpha))
    return TransformedDistribution(Normal(torch.tensor(0.0).double(), 1.0), [SigmoidTransform(), to_pixel])


@pytest.mark.parametrize("alpha", [1e-5, 0.05])
def test_the_steps_from_pixels_to_logits_agree_with_torch_s_transformed_distributions(alpha):
    y = 256 * uniform(20, 1)
    expected = logistic_normal(alpha).log_prob(y)[:, 0]
    assert_close(Flow(flows.pixels_to_logits(alpha), dims=1).log_prob(y), expected)


@pytest.mark.parametrize("alpha", [1e-5, 0.05])
@every_image_flow
def test_a_flow_over_images_begins_as_independent_logistic_normal_pixels(make, alpha):
    flow, y = make(alpha=alpha).double().eval(), grey(3) + uniform(3, 1, 28, 28)
    assert_close(flow.log_prob(y), logistic_normal(alpha).log_prob(y).sum((1, 2, 3)))


def test_samples_are_spread_as_the_density_says():
    # E over samples of 1/p(x) where x lies in a box, and of 0 elsewhere, is the box's area.
    flow = randomized(flow_2d(couplings=4, hidden=16))
    x = flow.sample(40_000, seeded(1))
    low, high = torch.quantile(x, 0.25, dim=0), torch.quantile(x, 0.75, dim=0)
    inside = ((x > low) & (x < high)).all(1)
    estimate, error = mean_and_standard_error(torch.where(inside, (-flow.log_prob(x)).exp(), 0.0).detach())
    area = (high - low).prod().item()
    assert error < 0.02 * area
    assert abs(estimate - area) < 4 * error


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_latents_of_samples_are_normal_with_the_temperature_as_their_deviation(temperature):
    flow = randomized(flow_autoregressive(3, layers=2, hidden=8))
    z, _ = flow(flow.sample(700, seeded(2), temperature))
    assert kstest((z / temperature).detach().flatten().numpy(), "norm").pvalue > 0.01


@pytest.mark.parametrize("make", [small_2d, small_fully_connected])
def test_a_flow_s_samples_depend_on_the_generator_alone_and_have_its_precision(make):
    flow = randomized(make())
    one, again, other = (flow.sample(5, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert (one.dtype, flow.float().sample(5).dtype) == (torch.float64, torch.float32)
    assert not one.requires_grad


def test_a_flow_s_loss_is_minus_the_mean_log_density_and_draws_nothing():
    flow, x, generator = randomized(small_2d()), normal(9, 2), seeded(1)
    assert_close(flow.loss(x, generator), {"loss": -flow.log_prob(x).mean()})
    assert torch.equal(generator.get_state(), seeded(1).get_state())


@every_flow
def test_a_flow_plays_alone(make):
    flow = make()
    assert flow.players() == {"flow": (flow, flow.loss)}


# ---------------------------------------------------------------- dequantization


def test_uniform_noise_is_uniform_over_0_to_1_whatever_the_image():
    u, log_q = UniformDequantizer()(grey(9), seeded(1))
    assert (u.shape, u.dtype) == ((9, 1, 28, 28), torch.float64)
    assert kstest(u.flatten().numpy(), "uniform").pvalue > 0.01
    assert log_q.tolist() == [0] * 9


def dequantizer(couplings=3):
    """A variational dequantizer with random weights, small enough that no u rounds to 0 or 1."""
    module = randomized(VariationalDequantizer(couplings, width=4), seed=3)
    for coupling in module.couplings:
        coupling.network[-1].weight.data *= 0.5
    return module


def test_variational_noise_lies_between_0_and_1_and_depends_on_image_and_generator():
    module, x = dequantizer(), grey(2)
    u, _ = module(x, seeded(1))
    assert u.shape == x.shape
    assert ((u > 0) & (u < 1)).all()
    assert torch.equal(module(x, seeded(1))[0], u)
    assert not torch.equal(module(x, seeded(2))[0], u)
    assert (module(255 - x, seeded(1))[0] != u).all()


def test_log_q_is_a_density_of_the_noise():
    # E of 1/q(u) where all four u lie between 0.2 and 0.8, and of 0 elsewhere, is that cube's volume.
    x = torch.tensor([[[[3.0, 200.0], [90.0, 0.0]]]], dtype=torch.float64).expand(40_000, 1, 2, 2)
    u, log_q = dequantizer()(x, seeded(1))
    inside = ((u > 0.2) & (u < 0.8)).flatten(1).all(1)
    estimate, error = mean_and_standard_error(torch.where(inside, (-log_q).exp(), 0.0).detach())
    assert error < 0.05 * 0.6**4
    assert abs(estimate - 0.6**4) < 4 * error


def test_the_noise_of_a_pixel_is_decided_by_the_image_around_it():
    module, x = dequantizer(couplings=1), grey(1)
    other = x.clone()
    other[0, 0, 0, 0] = 255 - x[0, 0, 0, 0]
    changed = module(x, seeded(1))[0] != module(other, seeded(1))[0]
    assert changed[..., :8, :8].any()  # three convolutions reach three blocks of 2×2 beyond the corner's own
    assert not changed[..., 8:, :].any()
    assert not changed[..., 8:].any()


@pytest.mark.parametrize(
    ("make", "kind"), [(small_convolutional, UniformDequantizer), (small_variational, VariationalDequantizer)]
)
def test_the_elbo_is_the_density_s_logarithm_minus_that_of_the_noise_which_is_uniform_unless_told(make, kind):
    flow, x = randomized(make()), grey(3)
    u, log_q = flow.dequantizer(x, seeded(1))
    assert type(flow.dequantizer) is kind
    assert_close(flow.elbo(x, seeded(1)), flow.log_prob(x + u) - log_q)


# ---------------------------------------------------------------- the loss of flows over images


@every_image_flow
def test_the_loss_is_minus_the_elbo_in_bits_per_dimension_mean_over_the_batch(make):
    flow, x = randomized(make()), grey(3)
    expected = -flow.elbo(x, seeded(1)).mean() / 784 / math.log(2)
    assert_close(flow.loss(x, seeded(1)), {"loss": expected})


@every_image_flow
def test_the_training_loss_reaches_every_parameter(make):
    flow = randomized(make())
    flow.loss(grey(3), seeded(1))["loss"].backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in flow.parameters())


@pytest.mark.parametrize("make", [small_convolutional, small_variational])
@pytest.mark.parametrize("training", [True, False])
def test_black_white_and_random_images_have_finite_losses_and_gradients_in_float32(make, training):
    flow = make(alpha=1e-5).train(training)
    for x in (torch.zeros(4, 1, 28, 28), torch.full((4, 1, 28, 28), 255.0), grey(4).float()):
        flow.zero_grad()
        loss = flow.loss(x, seeded(1))["loss"]
        loss.backward()
        assert loss.isfinite()
        assert all(parameter.grad.isfinite().all() for parameter in flow.parameters())


@every_image_flow
def test_noise_that_rounds_up_to_the_next_grey_value_keeps_the_density_finite(make):
    top = torch.full((2, 1, 28, 28), 256.0)  # 255 + u in float32, for u a little below 1
    assert make(alpha=1e-5).eval().log_prob(top).isfinite().all()


@every_image_flow
def test_a_state_dict_holds_the_parameters_alone_and_brings_the_flow_back(make):
    flow, other = randomized(make()), make().double()
    assert flow.state_dict().keys() == dict(flow.named_parameters()).keys()
    other.load_state_dict(flow.state_dict())
    assert torch.equal(other.train().elbo(grey(3), seeded(1)), flow.elbo(grey(3), seeded(1)))


# ---------------------------------------------------------------- samples of images


@every_image_flow
def test_the_grey_values_of_an_image_s_own_latents_are_the_image_and_are_seen_divided_by_255(make):
    flow, x = randomized(make()), grey(4)
    z, _ = flow(x + uniform(4, 1, 28, 28))
    assert torch.equal(flow.grey_values(z), x)
    assert torch.equal(flow.images(z), x / 255)


@every_image_flow
def test_latents_far_out_give_grey_values_from_0_to_255(make):
    x = randomized(make()).grey_values(30 * normal(4, 784)).detach()
    assert (x.min(), x.max()) == (0, 255)


@pytest.mark.parametrize("temperature", [(), (1.0,), (0.5,)])
@every_image_flow
def test_samples_are_the_grey_values_of_normal_latents_with_the_temperature_as_their_deviation(make, temperature):
    flow, z = randomized(make()), normal(3, 784, seed=1)
    expected = flow.grey_values(z * temperature[0] if temperature else z).detach()
    assert torch.equal(flow.sample(3, seeded(1), *temperature), expected)


@pytest.mark.slow
def test_samples_have_each_grey_value_as_often_as_the_model_says():
    flow = independent_flow()
    p = independent_log_probabilities(flow).exp()
    x = flow.float().sample(3000, seeded(1))
    # of the margins, what lies below 0 is black and what lies above 256 is white
    inside = torch.stack([(x == level).double().mean() for level in range(1, 255)])
    expected = p.mean(1)[1:255]
    error = (expected / x.numel()).sqrt()
    assert ((inside - expected) / error).abs().max() < 5
