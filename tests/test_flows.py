import math

import numpy as np
import pytest
import torch
from conftest import independent_flow, independent_log_probabilities, randomized, seeded
from conftest import random_grey_images as grey
from scipy.stats import kstest
from torch import nn
from torch.distributions import AffineTransform, MultivariateNormal, Normal, SigmoidTransform, TransformedDistribution
from torch.func import jacrev
from torch.testing import assert_close

from gm_helpers.flows import (
    CHECKERBOARD,
    ActNorm,
    Affine,
    AffineCoupling,
    AutoregressiveLayer,
    Flatten,
    Flow,
    ImageFlow,
    Logit,
    MaskedLinear,
    Reverse,
    Split,
    Squeeze,
    Stack,
    UniformDequantizer,
    VariationalDequantizer,
    alternate,
    bits_per_dim,
    checkerboard,
    flow_2d,
    flow_autoregressive,
    flow_convolutional,
    flow_fully_connected,
    halves,
    image_couplings,
    pixels_to_logits,
    standard_normal_log_prob,
    vector_couplings,
)
from gm_helpers.metrics import mean_and_standard_error
from gm_helpers.nn import convolutions, mlp


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=seeded(seed))


def uniform(*shape, seed=0):
    return torch.rand(*shape, dtype=torch.float64, generator=seeded(seed))


def coupling_of_vectors():
    return AffineCoupling(torch.tensor([0, 1, 1, 0, 1]), mlp([3, 8, 4], nn.Tanh))


def coupling_of_images():
    return AffineCoupling(torch.tensor([0, 1, 1]), convolutions(2, 2, 8, blocks=1))


def multi_scale():
    """As `flow_convolutional`, for images of 4×4 pixels."""
    coarse = [Squeeze(), *image_couplings(halves(8), 2, 4, 1), Flatten((8, 1, 1))]
    return Stack([ActNorm((1, 4, 4)), Squeeze(), *image_couplings(CHECKERBOARD, 2, 4, 1), Split(Stack(coarse))])


# Every layer and bijection, with the shape of one example; parameters are drawn by `randomized`.
BIJECTIONS = {
    "affine": (lambda: Affine(-0.3, 2.0), (5,)),
    "affine-of-images": (lambda: Affine(1 / 256), (2, 3, 2)),
    "logit": (Logit, (2, 3, 2)),
    "flatten": (lambda: Flatten((2, 3, 2)), (2, 3, 2)),
    "squeeze": (Squeeze, (2, 4, 6)),
    "reverse": (Reverse, (5,)),
    "actnorm": (lambda: ActNorm((2, 3, 2)), (2, 3, 2)),
    "coupling-of-vectors": (coupling_of_vectors, (5,)),
    "coupling-of-images": (coupling_of_images, (3, 4, 2)),
    "autoregressive": (lambda: AutoregressiveLayer(5, 12), (5,)),
    "stack": (lambda: Stack([Logit(), Affine(2.0, 1.0), ActNorm((5,)), coupling_of_vectors(), Reverse()]), (5,)),
    "split": (lambda: Split(Stack([coupling_of_images(), Flatten((3, 2, 2))])), (6, 2, 2)),
    "multi-scale": (multi_scale, (1, 4, 4)),
    "flow-2d": (lambda: flow_2d(couplings=3, hidden=8), (2,)),
    "flow-autoregressive": (lambda: flow_autoregressive(4, layers=3, hidden=9), (4,)),
}


@pytest.fixture(params=BIJECTIONS)
def bijection(request):
    """A bijection with random parameters, and three examples with values in (0, 1)."""
    make, shape = BIJECTIONS[request.param]
    return randomized(make()), uniform(3, *shape, seed=1)


def jacobian(function, x):
    """∂function(x)/∂x of one example x, as a square matrix."""
    matrix = jacrev(lambda own: function(own[None])[0][0], chunk_size=98)(x)
    return matrix.reshape(x.numel(), x.numel()).detach()


# ---------------------------------------------------------------- what every bijection promises


def test_the_inverse_undoes_the_map_and_the_two_log_dets_cancel(bijection):
    layer, x = bijection
    z, log_det = layer(x)
    back, inverse_log_det = layer.inverse(z)
    assert_close(back, x)
    assert_close(inverse_log_det, -log_det)


def test_log_det_is_that_of_the_jacobian(bijection):
    layer, x = bijection
    _, log_det = layer(x)
    assert_close(log_det, torch.stack([torch.linalg.slogdet(jacobian(layer, own)).logabsdet for own in x]))


# ---------------------------------------------------------------- layers that learn nothing


def test_affine_scales_and_then_shifts():
    z, _ = Affine(-0.3, 2.0)(x := normal(4, 3))
    assert_close(z, 2.0 - 0.3 * x)


def test_logit_agrees_with_torch_s():
    z, _ = Logit()(x := uniform(4, 1, 3, 3))
    assert_close(z, torch.logit(x))


def test_logit_stays_finite_in_float32_as_near_to_0_and_1_as_float32_goes():
    x = torch.tensor([[1e-38, 1 - 2**-24]], requires_grad=True)
    z, log_det = Logit()(x)
    (z.sum() + log_det.sum()).backward()
    assert_close(z.double(), torch.logit(x.detach().double()), atol=1e-5, rtol=0)
    assert log_det.isfinite().all()
    assert x.grad.isfinite().all()


def test_the_inverse_logit_s_log_det_is_right_where_the_sigmoid_rounds_to_0_or_1():
    z = torch.tensor([[-200.0], [200.0]])
    assert Logit().inverse(z)[1].tolist() == [-200, -200]  # log σ(z)σ(−z) = −|z| there


def test_squeeze_makes_four_channels_of_each_block_of_two_by_two_pixels():
    x = normal(3, 2, 4, 6)
    z, _ = Squeeze()(x)
    rows, columns = np.indices((4, 6))
    for channel in range(8):
        parity = (rows % 2 == channel % 4 // 2) & (columns % 2 == channel % 2)
        assert torch.equal(z[:, channel].flatten(1), x[:, channel // 4][:, parity])


def test_flatten_keeps_the_order_of_memory():
    z, _ = Flatten((2, 3, 2))(x := normal(4, 2, 3, 2))
    assert z.tolist() == x.numpy().reshape(4, 12).tolist()


def test_reverse_puts_the_last_number_first():
    assert Reverse()(torch.tensor([[1.0, 2, 3]]))[0].tolist() == [[3, 2, 1]]


# ---------------------------------------------------------------- coupling layers


def test_a_coupling_passes_the_masked_values_and_scales_and_shifts_the_others_by_what_it_computes_from_them():
    layer, x = randomized(coupling_of_vectors()), normal(6, 5)
    raw, shift = layer.network(x[:, [1, 2, 4]]).chunk(2, dim=1)
    z, _ = layer(x)
    assert torch.equal(z[:, [1, 2, 4]], x[:, [1, 2, 4]])
    assert_close(z[:, [0, 3]], x[:, [0, 3]] * torch.exp(2 * torch.tanh(raw / 2)) + shift)


def test_a_coupling_s_jacobian_is_triangular_with_the_scales_on_its_diagonal():
    layer, x = randomized(coupling_of_vectors()), normal(1, 5)
    order = [1, 2, 4, 0, 3]  # kept, moved
    matrix = jacobian(layer, x[0])[order][:, order]
    log_scale, _ = layer.scale_and_shift(x[:, [1, 2, 4]])
    assert torch.equal(matrix.triu(1), torch.zeros(5, 5, dtype=torch.float64))
    assert_close(matrix.diag(), torch.cat([torch.ones(3), log_scale[0].exp()]).detach())
    assert (matrix[3:, :3].abs() > 1e-3).all()


def coupling_with_context():
    return randomized(AffineCoupling(torch.tensor([1, 0, 1, 0]), convolutions(2 + 3, 4, 8, blocks=1)))


def test_a_coupling_s_context_goes_behind_what_it_keeps_into_the_network():
    layer, x, context = coupling_with_context(), normal(2, 4, 3, 3), normal(2, 3, 3, 3, seed=1)
    raw, shift = layer.network(torch.cat([x[:, [0, 2]], context], dim=1)).chunk(2, dim=1)
    z, _ = layer(x, context)
    assert_close(z[:, [1, 3]], x[:, [1, 3]] * torch.exp(2 * torch.tanh(raw / 2)) + shift)


def test_the_inverse_with_the_same_context_undoes_a_coupling():
    layer, x, context = coupling_with_context(), normal(2, 4, 3, 3), normal(2, 3, 3, 3, seed=1)
    z, log_det = layer(x, context)
    assert_close(layer.inverse(z, context), (x, -log_det))


class Constant(nn.Module):
    """A network that gives the same output for every input."""

    def __init__(self, *output):
        super().__init__()
        self.output = nn.Parameter(torch.tensor(output))

    def forward(self, x):
        return self.output.expand(len(x), -1)


@pytest.mark.parametrize("raw", [-1e30, -1e4, 1e4, 1e30])
def test_a_coupling_scales_by_e_to_the_2_at_most_whatever_its_network_says_and_its_gradients_stay_finite(raw):
    layer, x = AffineCoupling(torch.tensor([1, 0]), Constant(raw, 5.0)), torch.ones(1, 2, requires_grad=True)
    z, log_det = layer(x)
    (z.sum() + log_det.sum()).backward()
    assert_close(z[0, 1].item(), math.exp(math.copysign(2, raw)) + 5, rtol=1e-6, atol=0)  # float32
    assert log_det.item() == math.copysign(2, raw)
    assert x.grad.isfinite().all()
    assert layer.network.output.grad.isfinite().all()


def test_small_log_scales_pass_a_coupling_nearly_unchanged():
    layer = AffineCoupling(torch.tensor([1, 0]), Constant(0.1, 0.0)).double()
    _, log_det = layer(normal(1, 2))
    assert log_det.item() == pytest.approx(0.1, rel=1e-3)  # tanh u = u − u³/3 + …, here u = 0.05


@pytest.mark.parametrize(
    "make", [coupling_of_vectors, lambda: AutoregressiveLayer(5, 12)], ids=["coupling", "autoregressive"]
)
def test_a_network_in_bfloat16_leaves_the_bijection_in_float32(make):
    layer, x = randomized(make()).float(), normal(7, 5).float()
    with torch.autocast("cpu", torch.bfloat16):
        z, log_det = layer(x)
        back, inverse_log_det = layer.inverse(z)
    assert {own.dtype for own in (z, log_det, back, inverse_log_det)} == {torch.float32}
    assert_close(back, x, atol=1e-5, rtol=0)  # with scales rounded to bfloat16's 8 bits it would be 1e-2
    assert_close(inverse_log_det, -log_det, atol=1e-5, rtol=0)


def test_masks_alternate_so_that_no_value_passes_two_layers():
    masks = alternate(torch.tensor([1, 0, 0]), 3)
    assert [own.tolist() for own in masks] == [[1, 0, 0], [0, 1, 1], [1, 0, 0]]


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        (lambda: vector_couplings(torch.tensor([1, 0, 0]), 2, 8), (3,)),
        (lambda: image_couplings(torch.tensor([1, 0, 0]), 2, 8, 1), (3, 2, 2)),
    ],
)
def test_two_couplings_change_every_value(layers, shape):
    x = normal(4, *shape)
    assert ((randomized(Stack(layers()))(x)[0] - x).abs() > 1e-6).all()


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        (lambda: vector_couplings(torch.tensor([1, 0, 0]), 4, 8), (3,)),
        (lambda: image_couplings(torch.tensor([1, 0, 0]), 4, 8, 1), (3, 2, 2)),
    ],
)
def test_couplings_begin_as_the_identity(layers, shape):
    x = normal(4, *shape)
    assert_close(Stack(layers()).double()(x), (x, torch.zeros(4, dtype=torch.float64)), rtol=0, atol=0)


def test_couplings_that_begin_as_the_identity_learn_all_the_same():
    flow = Flow(vector_couplings(torch.tensor([1, 0]), 2, 8), dims=2).double()
    flow.loss(3 + normal(50, 2))["loss"].backward()
    for layer in flow.bijection.layers:
        assert (layer.network[-1].bias.grad.abs() > 0.1).all()


# ---------------------------------------------------------------- masks


def board():
    """The colours of a chess board of 28×28 fields, True in the corner."""
    return torch.from_numpy(np.indices((28, 28)).sum(0) % 2 == 0)


def test_the_checkerboard_is_numpy_s():
    assert torch.equal(checkerboard(28, 28).view(28, 28).bool(), board())
    assert checkerboard(2, 3).tolist() == [1, 0, 1, 0, 1, 0]


def test_the_mask_of_squeezed_channels_is_the_checkerboard_of_the_image():
    channels = CHECKERBOARD.double().view(1, 4, 1, 1).expand(1, 4, 14, 14)
    assert torch.equal(Squeeze().inverse(channels)[0][0, 0].bool(), board())


def test_halves_mark_the_first_half_of_the_channels():
    assert halves(6).tolist() == [1, 1, 1, 0, 0, 0]


# ---------------------------------------------------------------- ActNorm


def wide(n, seed):
    """A batch (n, 2, 3, 2) whose positions have means from −50 to 50 and deviations from 1 to 20."""
    means, deviations = torch.linspace(-50, 50, 12).double(), torch.linspace(20, 1, 12).double()
    return (means + deviations * normal(n, 12, seed=seed)).view(n, 2, 3, 2)


def test_the_first_training_batch_standardises_each_position():
    x = wide(40, seed=1)
    z, _ = ActNorm((2, 3, 2)).double()(x)
    deviation = torch.from_numpy(x.numpy().std(0))
    assert_close(z.mean(0), torch.zeros(2, 3, 2, dtype=torch.float64))
    assert_close(z.std(0, correction=0), deviation / (deviation + 0.01))


def test_a_first_batch_of_one_example_leaves_actnorm_finite():
    z, log_det = ActNorm((2,))(torch.tensor([[3.0, 1.0]]))
    assert z.tolist() == [[0, 0]]
    assert log_det.isfinite().all()


def test_a_position_that_is_always_the_same_comes_out_as_zero():
    layer = ActNorm((2,))
    z, log_det = layer(torch.tensor([[3.0, 1.0], [3.0, 2.0]]))
    assert z[:, 0].tolist() == [0, 0]
    assert log_det.isfinite().all()


def test_later_training_batches_leave_actnorm_as_it_is():
    layer = ActNorm((2, 3, 2)).double()
    layer(wide(40, seed=1))
    before = {key: tensor.clone() for key, tensor in layer.state_dict().items()}
    z, _ = layer(x := 5 + 3 * wide(40, seed=2))
    assert_close(z, (x + before["shift"]) * before["log_scale"].exp())
    assert all(torch.equal(tensor, before[key]) for key, tensor in layer.state_dict().items())


def test_a_frozen_actnorm_stays_as_it_is_and_sets_itself_once_it_is_free():
    layer = ActNorm((2,)).double().requires_grad_(False)
    x = 4 + normal(20, 2)
    assert torch.equal(layer(x)[0], x)
    z, _ = layer.requires_grad_(True)(x)
    assert_close(z.mean(0), torch.zeros(2).double())


def test_setting_itself_actnorm_keeps_the_tensors_that_others_hold():
    layer = ActNorm((2,)).double()
    held = [layer.shift.data, layer.log_scale.data]
    layer(4 + 3 * normal(20, 2))
    assert all(own.abs().min() > 0.1 for own in held)


def test_in_eval_mode_actnorm_begins_as_the_identity_and_stays_it():
    layer, x = ActNorm((2, 3, 2)).double().eval(), wide(40, seed=1)
    for _ in range(2):
        assert torch.equal(layer(x)[0], x)


def test_a_batch_seen_in_eval_mode_does_not_stand_in_for_the_first_training_batch():
    layer = ActNorm((2, 3, 2)).double()
    layer.eval()(wide(40, seed=1))
    z, _ = layer.train()(wide(40, seed=2))
    assert z.mean(0).abs().max() < 1e-9


def test_the_inverse_alone_does_not_initialise_actnorm():
    layer = ActNorm((2, 3, 2)).double()
    assert torch.equal(layer.inverse(wide(40, seed=1))[0], wide(40, seed=1))


def test_loaded_weights_are_not_replaced_by_the_first_training_batch():
    trained, fresh = randomized(ActNorm((2, 3, 2))), ActNorm((2, 3, 2)).double()
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh.train()(wide(40, seed=1))[0], trained(wide(40, seed=1))[0])


def test_the_optimizer_that_was_built_before_the_first_batch_trains_actnorm_after_it():
    layer = ActNorm((2,)).double()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    z, _ = layer(x := 4 + normal(20, 2))
    before = {key: tensor.clone() for key, tensor in layer.state_dict().items()}
    (z * x).sum().backward()
    optimizer.step()
    for name, parameter in layer.named_parameters():
        assert_close(parameter.detach(), before[name] - 0.5 * parameter.grad)
        assert (parameter.grad.abs() > 1e-3).all()


# ---------------------------------------------------------------- autoregressive layers


def test_a_masked_layer_has_no_weight_from_a_higher_to_a_lower_degree_and_all_others():
    layer = MaskedLinear(torch.tensor([1, 2, 3]), torch.tensor([0, 1, 2, 3])).double()
    connected = jacrev(layer)(normal(3)) != 0
    assert connected.tolist() == [[False] * 3, [True, False, False], [True, True, False], [True] * 3]


def test_each_value_depends_on_all_before_it_and_none_behind_it():
    layer = randomized(AutoregressiveLayer(6, 25))
    matrix = torch.stack([jacobian(layer, x).abs() for x in normal(20, 6)]).amax(0)
    assert torch.equal(matrix.triu(1), torch.zeros(6, 6, dtype=torch.float64))
    assert (matrix.tril()[torch.tril_indices(6, 6).unbind()] > 1e-6).all()


def test_the_scale_and_shift_of_a_value_do_not_depend_on_itself():
    layer = randomized(AutoregressiveLayer(6, 25))
    for part in (0, 1):
        matrix = jacrev(lambda x, part=part: layer.scale_and_shift(x[None])[part][0])(normal(6))
        assert torch.equal(matrix.triu(), torch.zeros(6, 6, dtype=torch.float64))


def test_the_autoregressive_inverse_is_the_solution_of_one_equation_after_the_other():
    layer, z = randomized(AutoregressiveLayer(4, 12)), normal(3, 4)
    x = torch.full_like(z, 7.0)  # what lies behind may be anything
    for i in range(4):
        log_scale, shift = layer.scale_and_shift(x)
        x[:, i] = ((z - shift) / log_scale.exp())[:, i].detach()
    assert_close(layer.inverse(z)[0], x)


def test_an_autoregressive_layer_scales_by_e_to_the_2_at_most():
    layer = randomized(AutoregressiveLayer(3, 12)).float()
    layer.network[-1].bias.data[:3] = torch.tensor([1e30, -1e30, 1e4])
    _, log_det = layer(torch.zeros(1, 3))
    assert log_det.item() == 2 - 2 + 2


def test_the_order_is_reversed_between_autoregressive_layers_so_that_each_latent_depends_on_everything():
    flow = randomized(flow_autoregressive(4, layers=2, hidden=30))
    matrix = torch.stack([jacobian(flow, x).abs() for x in normal(20, 4)]).amax(0)
    assert (matrix > 1e-6).all()


# ---------------------------------------------------------------- Split and Stack


def test_split_gives_the_first_half_of_the_channels_as_they_are_and_then_the_rest_s_latents():
    rest = randomized(Stack([coupling_of_images(), Flatten((3, 2, 2))]))
    x = normal(4, 6, 2, 2)
    z, log_det = Split(rest)(x)
    latents, rest_log_det = rest(x[:, 3:])
    assert_close(z, torch.cat([x[:, :3].reshape(4, 12), latents], dim=1))
    assert_close(log_det, rest_log_det)


def test_a_stack_takes_its_layers_in_order():
    x = uniform(4, 3)
    z, _ = Stack([Affine(0.5, 0.25), Logit(), Affine(3.0, -1.0)])(x)
    assert_close(z, 3 * torch.logit(x / 2 + 0.25) - 1)


# ---------------------------------------------------------------- densities


def test_the_standard_normal_s_density_agrees_with_torch_distributions():
    z = normal(5, 2, 3)
    assert_close(standard_normal_log_prob(z), Normal(0.0, 1.0).log_prob(z).sum((1, 2)))


def test_bits_per_dim_are_those_of_information_theory():
    eighth = torch.tensor([3 * math.log(1 / 8)], dtype=torch.float64)  # three values, each of 8 as likely
    assert bits_per_dim(eighth, 3).item() == pytest.approx(3)
    assert bits_per_dim(784 * eighth).item() == pytest.approx(9)  # 784 pixels unless told


def test_a_flow_of_linear_layers_has_the_density_of_torch_s_normal():
    flow, x = randomized(Flow([ActNorm((3,)), Affine(-0.5, 1.0), Reverse()], dims=3)), normal(20, 3)
    shift, log_scale = (own.detach() for own in flow.parameters())
    # z = −½ (x + shift) e^log_scale + 1 is standard normal: solved for x
    mean, deviation = 2 * (-log_scale).exp() - shift, 2 * (-log_scale).exp()
    assert_close(flow.log_prob(x).detach(), MultivariateNormal(mean, scale_tril=deviation.diag()).log_prob(x))


@pytest.mark.parametrize(
    "make", [lambda: flow_2d(couplings=4, hidden=16), lambda: flow_autoregressive(2, layers=3, hidden=16)]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_density_of_a_flow_in_the_plane_integrates_to_one(make, seed):
    axis = torch.linspace(-14, 14, 561, dtype=torch.float64)
    density = randomized(make(), seed).log_prob(torch.cartesian_prod(axis, axis)).exp().detach()
    assert torch.trapezoid(torch.trapezoid(density.view(561, 561), axis), axis).item() == pytest.approx(1, abs=3e-3)


def logistic_normal(alpha):
    """The distribution of a pixel y whose logit of α + (1 − 2α) y/256 is standard normal."""
    to_pixel = AffineTransform(-256 * alpha / (1 - 2 * alpha), 256 / (1 - 2 * alpha))
    return TransformedDistribution(Normal(torch.tensor(0.0).double(), 1.0), [SigmoidTransform(), to_pixel])


@pytest.mark.parametrize("alpha", [1e-5, 0.05])
def test_the_steps_from_pixels_to_logits_agree_with_torch_s_transformed_distributions(alpha):
    y = 256 * uniform(20, 1)
    expected = logistic_normal(alpha).log_prob(y)[:, 0]
    assert_close(Flow(pixels_to_logits(alpha), dims=1).log_prob(y), expected)


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


def test_a_flow_s_samples_depend_on_the_generator_alone_and_have_its_precision():
    flow = flow_2d(couplings=2, hidden=4)
    assert torch.equal(flow.sample(5, seeded(1)), flow.sample(5, seeded(1)))
    assert not torch.equal(flow.sample(5, seeded(1)), flow.sample(5, seeded(2)))
    assert (flow.sample(5).dtype, flow.double().sample(5).dtype) == (torch.float32, torch.float64)
    assert not flow.sample(5).requires_grad


def test_a_flow_s_loss_is_minus_the_mean_log_density_and_draws_nothing():
    flow, x, generator = randomized(flow_2d(couplings=2, hidden=4)), normal(9, 2), seeded(1)
    assert_close(flow.loss(x, generator), {"loss": -flow.log_prob(x).mean()})
    assert torch.equal(generator.get_state(), seeded(1).get_state())


@pytest.mark.parametrize("make", [flow_2d, lambda: flow_fully_connected(couplings=1, hidden=2)])
def test_a_flow_plays_alone(make):
    flow = make()
    assert flow.players() == {"flow": (flow, flow.loss)}


# ---------------------------------------------------------------- dequantization


def test_uniform_noise_is_uniform_over_0_to_1_whatever_the_image():
    u, log_q = UniformDequantizer()(grey(9), seeded(1))
    assert (u.shape, u.dtype) == ((9, 1, 28, 28), torch.float64)
    assert kstest(u.flatten().numpy(), "uniform").pvalue > 0.01
    assert log_q.tolist() == [0] * 9


def dequantizer():
    """A variational dequantizer with random weights, small enough that no u rounds to 0 or 1."""
    module = randomized(VariationalDequantizer(couplings=3, width=4), seed=3)
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


def test_log_q_is_the_normal_s_density_of_the_noise_and_the_jacobian_of_the_way_from_it_to_u(monkeypatch):
    module, x, eps = dequantizer(), grey(3)[..., 12:16, 12:16], normal(3, 1, 4, 4)

    def from_noise(x, eps):
        monkeypatch.setattr(torch, "randn", lambda *_, **__: eps)
        return module(x)

    _, log_q = from_noise(x, eps)
    log_dets = [
        torch.linalg.slogdet(jacobian(lambda own, image=image: from_noise(image[None], own), noise)).logabsdet
        for image, noise in zip(x, eps, strict=True)
    ]
    expected = Normal(0.0, 1.0).log_prob(eps).sum((1, 2, 3)) - torch.stack(log_dets)
    assert_close(log_q.detach(), expected)


def test_log_q_is_a_density_of_the_noise():
    # E of 1/q(u) where all four u lie between 0.2 and 0.8, and of 0 elsewhere, is that cube's volume.
    x = torch.tensor([[[[3.0, 200.0], [90.0, 0.0]]]], dtype=torch.float64).expand(40_000, 1, 2, 2)
    u, log_q = dequantizer()(x, seeded(1))
    inside = ((u > 0.2) & (u < 0.8)).flatten(1).all(1)
    estimate, error = mean_and_standard_error(torch.where(inside, (-log_q).exp(), 0.0).detach())
    assert error < 0.05 * 0.6**4
    assert abs(estimate - 0.6**4) < 4 * error


def test_the_dequantizer_s_networks_see_the_image_s_blocks_scaled_to_minus_one_and_one():
    module, x, seen = dequantizer(), grey(2), []
    for coupling in module.couplings:
        coupling.network.register_forward_pre_hook(lambda own, inputs: seen.append(inputs[0][:, 2:]))
    module(x, seeded(1))
    blocks = torch.stack([x[:, 0, i::2, j::2] for i in (0, 1) for j in (0, 1)], dim=1)
    assert len(seen) == 3
    for context in seen:
        assert_close(context, blocks / 128 - 1)


def test_the_noise_of_a_pixel_is_decided_by_the_image_around_it():
    module, x = randomized(VariationalDequantizer(couplings=1, width=4)), grey(1)
    other = x.clone()
    other[0, 0, 0, 0] = 255 - x[0, 0, 0, 0]
    changed = module(x, seeded(1))[0] != module(other, seeded(1))[0]
    assert changed[..., :8, :8].any()  # three convolutions reach three blocks of 2×2 beyond the corner's own
    assert not changed[..., 8:, :].any()
    assert not changed[..., 8:].any()


# ---------------------------------------------------------------- flows over images

ALPHA = 0.05

# Small flows over images, as functions; their sizes are those of a test, not of a recipe.
IMAGE_FLOWS = {
    "fully-connected": lambda **settings: flow_fully_connected(hidden=16, couplings=4, **settings),
    "convolutional": lambda **settings: flow_convolutional(width=4, blocks=1, couplings=2, **settings),
}


@pytest.fixture(params=IMAGE_FLOWS)
def make(request):
    return IMAGE_FLOWS[request.param]


def test_the_log_det_of_a_flow_over_images_is_that_of_its_jacobian(make):
    flow, y = randomized(make()), grey(1) + uniform(1, 1, 28, 28)
    _, log_det = flow(y)
    assert_close(log_det[0], torch.linalg.slogdet(jacobian(flow, y[0])).logabsdet)


def test_a_flow_over_images_has_an_inverse(make):
    flow, y = randomized(make()), grey(3) + uniform(3, 1, 28, 28)
    z, log_det = flow(y)
    back, inverse_log_det = flow.inverse(z)
    assert z.shape == (3, 784)
    assert_close(back, y)
    assert_close(inverse_log_det, -log_det)


def test_float32_brings_a_flow_over_images_back_to_a_tenth_of_a_grey_value(make):
    # Random layers lose more than trained ones: their latents have a deviation of 15, and 2^-24 of the largest passes
    # back through scales up to e^2 in each layer.
    flow, y = randomized(make()).float(), (grey(8) + uniform(8, 1, 28, 28)).float()
    z, log_det = flow(y)
    back, inverse_log_det = flow.inverse(z)
    assert_close(back, y, atol=0.1, rtol=0)
    assert_close(inverse_log_det, -log_det, atol=0.01, rtol=0)  # of some 3,000 nats


@pytest.mark.parametrize("alpha", [1e-5, 0.05])
def test_a_flow_over_images_begins_as_independent_logistic_normal_pixels(make, alpha):
    flow, y = make(alpha=alpha).double().eval(), grey(3) + uniform(3, 1, 28, 28)
    assert_close(flow.log_prob(y), logistic_normal(alpha).log_prob(y).sum((1, 2, 3)))


def test_the_first_training_batch_standardises_the_logits_of_each_pixel(make):
    flow = make().double()
    z, _ = flow(grey(50) + uniform(50, 1, 28, 28))
    assert_close(z.mean(0), torch.zeros(784, dtype=torch.float64), atol=1e-9, rtol=0)
    assert_close(z.std(0), torch.ones(784, dtype=torch.float64), atol=0.03, rtol=0)  # 0.01 of a deviation of some 1.5


def test_the_elbo_is_what_one_adds_up_by_hand():
    flow, x = randomized(IMAGE_FLOWS["convolutional"](alpha=ALPHA)), grey(3)
    u = torch.rand(3, 1, 28, 28, dtype=torch.float64, generator=seeded(1))
    share = ALPHA + (1 - 2 * ALPHA) * (x + u) / 256
    slope = (1 - 2 * ALPHA) / 256 / (share * (1 - share))
    actnorm = next(own for own in flow.modules() if isinstance(own, ActNorm))
    h = (torch.log(share / (1 - share)) + actnorm.shift) * actnorm.log_scale.exp()
    z, log_det = Stack(flow.bijection.layers[4:])(h)
    expected = Normal(0.0, 1.0).log_prob(z).sum(1) + log_det + slope.log().sum((1, 2, 3)) + actnorm.log_scale.sum()
    assert_close(flow.elbo(x, seeded(1)), expected)


def test_the_elbo_with_variational_noise_is_the_density_s_logarithm_minus_that_of_the_noise():
    flow, x = randomized(IMAGE_FLOWS["convolutional"](variational=True)), grey(3)
    u, log_q = flow.dequantizer(x, seeded(1))
    assert isinstance(flow.dequantizer, VariationalDequantizer)
    assert_close(flow.elbo(x, seeded(1)), flow.log_prob(x + u) - log_q)


def test_the_convolutional_flow_has_the_three_groups_of_couplings_of_its_docstring():
    flow, seen = flow_convolutional(width=4, blocks=1, couplings=3), []
    for own in flow.modules():
        if isinstance(own, AffineCoupling):
            own.register_forward_hook(lambda own, inputs, _: seen.append((inputs[0].shape[1:], own.kept.tolist())))
    flow(grey(2).float())
    groups = [((4, 14, 14), [0, 3], [1, 2]), ((4, 14, 14), [0, 1], [2, 3]), ((8, 7, 7), [0, 1, 2, 3], [4, 5, 6, 7])]
    assert seen == [(shape, kept) for shape, *masks in groups for kept in (masks[0], masks[1], masks[0])]


def test_half_of_the_convolutional_flow_s_latents_leave_before_the_coarse_layers():
    flow, y = randomized(IMAGE_FLOWS["convolutional"]()), grey(2) + 0.5
    before, _ = flow(y)
    coarse = next(own for own in flow.modules() if isinstance(own, Split)).rest
    randomized(coarse, seed=1)
    after, _ = flow(y)
    assert torch.equal(after[:, :392], before[:, :392])
    assert (after[:, 392:] != before[:, 392:]).double().mean() > 0.9


def test_noise_is_uniform_unless_told(make):
    assert isinstance(make().dequantizer, UniformDequantizer)


class NormalScores(nn.Module):
    """Logits l to z = Φ⁻¹(σ(l)), which makes uniform values normal: (B, 1, 28, 28) to (B, 784)."""

    def forward(self, logits):
        z = Normal(0.0, 1.0).icdf(logits.sigmoid())
        log_slope = nn.functional.logsigmoid(logits) + nn.functional.logsigmoid(-logits)
        return z.flatten(1), (log_slope - Normal(0.0, 1.0).log_prob(z)).flatten(1).sum(1)


@pytest.mark.parametrize("alpha", [0.0, 0.05])
def test_the_uniform_model_needs_eight_bits_for_each_dimension_and_more_for_what_it_gives_to_the_margin(alpha):
    flow = ImageFlow([NormalScores()], alpha).double().eval()
    bits = 8 - math.log2(1 - 2 * alpha)  # a share 1 − 2α of the probability lies in [0, 256]
    assert_close(bits_per_dim(flow.elbo(grey(4), seeded(1))), torch.full((4,), bits).double())
    assert flow.loss(grey(4), seeded(1))["loss"].item() == pytest.approx(bits)


def test_the_loss_is_minus_the_elbo_in_bits_per_dimension_mean_over_the_batch(make):
    flow, x = randomized(make()), grey(3)
    expected = -flow.elbo(x, seeded(1)).mean() / 784 / math.log(2)
    assert_close(flow.loss(x, seeded(1)), {"loss": expected})


def test_the_mean_elbo_lies_below_the_exact_log_probability_and_near_it_where_the_density_is_smooth():
    flow, x = independent_flow(ALPHA), grey(1)
    exact = independent_log_probabilities(flow, ALPHA).gather(0, x.view(1, 784).long()).sum()
    values = flow.elbo(x.expand(4000, 1, 28, 28), seeded(1)).detach()
    mean, error = mean_and_standard_error(values)
    # log E w − E log w is half the variance of log w, where w varies as little as here
    assert exact - mean > 4 * error
    assert exact - mean == pytest.approx(values.var().item() / 2, abs=4 * error)


def test_the_training_loss_reaches_every_parameter(make):
    flow = randomized(make())
    flow.loss(grey(3), seeded(1))["loss"].backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in flow.parameters())


def test_the_training_loss_reaches_the_dequantizer():
    flow = randomized(IMAGE_FLOWS["convolutional"](variational=True))
    flow.loss(grey(3), seeded(1))["loss"].backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in flow.dequantizer.parameters())


@pytest.mark.parametrize("variational", [False, True])
@pytest.mark.parametrize("training", [True, False])
def test_black_white_and_random_images_have_finite_losses_and_gradients_in_float32(variational, training):
    flow = IMAGE_FLOWS["convolutional"](alpha=1e-5, variational=variational).train(training)
    for x in (torch.zeros(4, 1, 28, 28), torch.full((4, 1, 28, 28), 255.0), grey(4).float()):
        flow.zero_grad()
        loss = flow.loss(x, seeded(1))["loss"]
        loss.backward()
        assert loss.isfinite()
        assert all(parameter.grad.isfinite().all() for parameter in flow.parameters())


def test_noise_that_rounds_up_to_the_next_grey_value_keeps_the_density_finite(make):
    top = torch.full((2, 1, 28, 28), 256.0)  # 255 + u in float32, for u a little below 1
    assert make(alpha=1e-5).eval().log_prob(top).isfinite().all()


def test_a_state_dict_holds_the_parameters_alone_and_brings_the_flow_back(make):
    flow, other = randomized(make()), make().double()
    assert flow.state_dict().keys() == dict(flow.named_parameters()).keys()
    other.load_state_dict(flow.state_dict())
    assert torch.equal(other.train().elbo(grey(3), seeded(1)), flow.elbo(grey(3), seeded(1)))


# ---------------------------------------------------------------- samples of images


def test_the_image_of_an_image_s_own_latents_is_the_image(make):
    flow, x = randomized(make()), grey(4)
    z, _ = flow(x + uniform(4, 1, 28, 28))
    assert torch.equal(flow.images(z), x / 255)


def test_latents_far_out_give_images_within_0_and_1(make):
    images = randomized(make()).images(30 * normal(4, 784)).detach()
    assert (images.min(), images.max()) == (0, 1)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_are_the_images_of_normal_latents_with_the_temperature_as_their_deviation(make, temperature):
    flow = randomized(make()).float()
    z = torch.randn(3, 784, generator=seeded(1))
    assert torch.equal(flow.sample(3, seeded(1), temperature), flow.images(temperature * z).detach())


def test_samples_of_images_have_temperature_1_unless_told_and_no_graph(make):
    flow = make()
    assert torch.equal(flow.sample(3, seeded(1)), flow.sample(3, seeded(1), 1.0))
    assert not flow.sample(3).requires_grad


def test_samples_of_images_have_the_flow_s_precision(make):
    assert make().double().sample(2).dtype == torch.float64


def test_samples_have_each_grey_value_as_often_as_the_model_says():
    flow = independent_flow(ALPHA).float()
    p = independent_log_probabilities(flow.double(), ALPHA).exp()
    x = (255 * flow.float().sample(3000, seeded(1)).flatten(1)).round().long()
    # of the margins, what lies below 0 is black and what lies above 256 is white
    inside = torch.stack([(x == level).double().mean() for level in range(1, 255)])
    expected = p.mean(1)[1:255]
    error = (expected / x.numel()).sqrt()
    assert ((inside - expected) / error).abs().max() < 5
