import math

import numpy as np
import pytest
import torch
from conftest import jacobian, normal, randomized, uniform
from torch import nn
from torch.func import jacrev
from torch.testing import assert_close

from gm_helpers.bijections import (
    LOG_SCALE_BOUND,
    ActNorm,
    Affine,
    AffineCoupling,
    AutoregressiveLayer,
    Bijection,
    Flatten,
    Logit,
    MaskedLinear,
    Reverse,
    Split,
    Squeeze,
    Stack,
)
from gm_helpers.nn import convolutions, mlp


def coupling_of_vectors():
    return AffineCoupling(torch.tensor([0, 1, 1, 0, 1]), mlp([3, 8, 4], nn.Tanh))


def coupling_of_images():
    return AffineCoupling(torch.tensor([0, 1, 1]), convolutions(2, 2, 8, blocks=1))


# Every layer, with the shape of one example; parameters are drawn by `randomized`.
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
}


@pytest.fixture(params=BIJECTIONS)
def bijection(request) -> tuple[Bijection, torch.Tensor]:
    """A bijection with random parameters, and three examples with values in (0, 1)."""
    make, shape = BIJECTIONS[request.param]
    return randomized(make()), uniform(3, *shape, seed=1)


# ---------------------------------------------------------------- what every bijection promises


def test_the_inverse_undoes_the_map_and_the_two_log_dets_cancel(bijection):
    layer, x = bijection
    z, log_det = layer(x)
    assert_close(layer.inverse(z), (x, -log_det))


def test_log_det_is_that_of_the_jacobian(bijection):
    layer, x = bijection
    _, log_det = layer(x)
    assert_close(log_det, torch.stack([torch.linalg.slogdet(jacobian(layer, own)).logabsdet for own in x]))


# ---------------------------------------------------------------- layers that learn nothing


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (Affine(-0.3, 2.0), lambda x: 2 - 0.3 * x),
        (Logit(), torch.logit),
        (Flatten((2, 3, 4)), lambda x: torch.from_numpy(x.numpy().reshape(4, 24))),
        (Reverse(), lambda x: x[:, [1, 0]]),
        (Stack([Affine(0.5, 0.25), Logit(), Affine(3.0, -1.0)]), lambda x: 3 * torch.logit(x / 2 + 0.25) - 1),
    ],
    ids=["affine", "logit", "flatten", "reverse", "stack"],
)
def test_a_layer_without_weights_is_the_function_of_its_name(layer, expected):
    x = uniform(4, 2, 3, 4)
    assert_close(layer(x)[0], expected(x))


def test_squeeze_makes_four_channels_of_each_block_of_two_by_two_pixels():
    x = normal(3, 2, 4, 6)
    z, _ = Squeeze()(x)
    rows, columns = np.indices((4, 6))
    for channel in range(8):
        parity = (rows % 2 == channel % 4 // 2) & (columns % 2 == channel % 2)
        assert torch.equal(z[:, channel].flatten(1), x[:, channel // 4][:, parity])


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


# ---------------------------------------------------------------- coupling layers


def test_a_coupling_passes_the_masked_values_and_scales_and_shifts_the_others_by_what_it_computes_from_them():
    layer, x = randomized(coupling_of_vectors()), normal(6, 5)
    raw, shift = layer.network(x[:, [1, 2, 4]]).chunk(2, dim=1)
    log_scale = 2 * torch.tanh(raw / 2)
    z, _ = layer(x)
    assert_close(layer.scale_and_shift(x[:, [1, 2, 4]]), (log_scale, shift))
    assert torch.equal(z[:, [1, 2, 4]], x[:, [1, 2, 4]])
    assert_close(z[:, [0, 3]], x[:, [0, 3]] * log_scale.exp() + shift)


def test_a_coupling_s_context_goes_behind_what_it_keeps_into_the_network_and_the_inverse_takes_the_same():
    layer = randomized(AffineCoupling(torch.tensor([1, 0, 1, 0]), convolutions(2 + 3, 4, 8, blocks=1)))
    x, context = normal(2, 4, 3, 3), normal(2, 3, 3, 3, seed=1)
    raw, shift = layer.network(torch.cat([x[:, [0, 2]], context], dim=1)).chunk(2, dim=1)
    z, log_det = layer(x, context)
    assert_close(z[:, [1, 3]], x[:, [1, 3]] * torch.exp(2 * torch.tanh(raw / 2)) + shift)
    assert_close(layer.inverse(z, context), (x, -log_det))


@pytest.mark.parametrize("raw", [-1e30, -1e4, 1e4, 1e30])
def test_a_coupling_scales_by_e_to_the_2_at_most_whatever_its_network_says_and_its_gradients_stay_finite(raw):
    layer, x = AffineCoupling(torch.tensor([1, 0]), nn.Linear(1, 2)), torch.ones(1, 2, requires_grad=True)
    layer.network.weight.data.zero_()
    layer.network.bias.data = torch.tensor([raw, 5.0])
    z, log_det = layer(x)
    (z.sum() + log_det.sum()).backward()
    assert_close(z[0, 1].item(), math.exp(math.copysign(2, raw)) + 5, rtol=1e-6, atol=0)  # float32
    assert log_det.item() == math.copysign(LOG_SCALE_BOUND, raw)
    assert x.grad.isfinite().all()
    assert layer.network.bias.grad.isfinite().all()


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


# ---------------------------------------------------------------- ActNorm


def wide(seed):
    """A batch (40, 2, 3, 2) whose positions have means from −50 to 50 and deviations from 1 to 20."""
    means, deviations = torch.linspace(-50, 50, 12).double(), torch.linspace(20, 1, 12).double()
    return (means + deviations * normal(40, 12, seed=seed)).view(40, 2, 3, 2)


def test_the_first_training_batch_standardises_each_position():
    x = wide(seed=1)
    z, _ = ActNorm((2, 3, 2)).double()(x)
    deviation = torch.from_numpy(x.numpy().std(0))
    assert_close(z.mean(0), torch.zeros(2, 3, 2, dtype=torch.float64))
    assert_close(z.std(0, correction=0), deviation / (deviation + 0.01))


@pytest.mark.parametrize("batch", [[[3.0, 1.0]], [[3.0, 1.0], [3.0, 2.0]]], ids=["one example", "two"])
def test_a_position_that_is_always_the_same_comes_out_as_zero(batch):
    z, log_det = ActNorm((2,))(torch.tensor(batch))
    assert (z[:, 0] == 0).all()
    assert log_det.isfinite().all()


def test_later_training_batches_leave_actnorm_as_it_is():
    layer, x = ActNorm((2, 3, 2)).double(), 5 + 3 * wide(seed=2)
    layer(wide(seed=1))
    shift, log_scale = (own.detach().clone() for own in layer.parameters())
    for _ in range(2):
        assert_close(layer(x)[0], (x + shift) * log_scale.exp())


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


def test_in_eval_mode_and_backwards_actnorm_begins_as_the_identity_and_the_first_training_batch_still_sets_it():
    layer, x = ActNorm((2, 3, 2)).double(), wide(seed=1)
    assert torch.equal(layer.inverse(x)[0], x)
    assert torch.equal(layer.eval()(x)[0], x)
    assert torch.equal(layer(x)[0], x)
    assert layer.train()(wide(seed=2))[0].mean(0).abs().max() < 1e-9


def test_loaded_weights_are_not_replaced_by_the_first_training_batch():
    trained, fresh = randomized(ActNorm((2, 3, 2))), ActNorm((2, 3, 2)).double()
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh.train()(wide(seed=1))[0], trained(wide(seed=1))[0])


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


def test_an_autoregressive_layer_scales_by_e_to_the_2_at_most():
    layer = randomized(AutoregressiveLayer(3, 12)).float()
    layer.network[-1].bias.data[:3] = torch.tensor([1e30, -1e30, 1e4])
    _, log_det = layer(torch.zeros(1, 3))
    assert log_det.item() == 2 - 2 + 2


def test_split_gives_the_first_half_of_the_channels_as_they_are_and_then_the_rest_s_latents():
    rest = randomized(Stack([coupling_of_images(), Flatten((3, 2, 2))]))
    x = normal(4, 6, 2, 2)
    latents, log_det = rest(x[:, 3:])
    assert_close(Split(rest)(x), (torch.cat([x[:, :3].reshape(4, 12), latents], dim=1), log_det))
