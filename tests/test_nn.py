import pytest
import torch
from conftest import randomized, seeded
from scipy.spatial import geometric_slerp
from torch import nn
from torch.testing import assert_close

from gm_helpers.nn import ResidualBlock, convolutions, mlp, slerp


def test_mlp_is_matrix_products_with_the_activation_between_them_and_none_after_the_last():
    model, generator = mlp([5, 7, 3, 2], nn.Tanh).double(), seeded(0)
    for parameter in model.parameters():
        parameter.data.normal_(generator=generator)
    (w1, b1), (w2, b2), (w3, b3) = ((layer.weight, layer.bias) for layer in model if isinstance(layer, nn.Linear))
    assert [tuple(w.shape) for w in (w1, w2, w3)] == [(7, 5), (3, 7), (2, 3)]
    x = torch.randn(11, 5, dtype=torch.float64, generator=generator)
    assert_close(model(x), torch.tanh(torch.tanh(x @ w1.T + b1) @ w2.T + b2) @ w3.T + b3)


def test_mlp_uses_the_activation_it_is_given():
    assert [type(layer) for layer in mlp([2, 3, 4], nn.SiLU)] == [nn.Linear, nn.SiLU, nn.Linear]


def test_each_activation_is_a_module_of_its_own():
    model = mlp([2, 3, 4, 5], nn.PReLU)
    assert model[1] is not model[3]


def test_mlp_of_two_widths_is_one_linear_layer():
    assert [type(layer) for layer in mlp([4, 6], nn.ReLU)] == [nn.Linear]


# ---------------------------------------------------------------- networks for images


def block_by_hand(x, w1, b1, w2, b2):
    h = nn.functional.conv2d(x.clamp(min=0), w1, b1, padding=1)
    return x + nn.functional.conv2d(h.clamp(min=0), w2, b2)


def test_a_residual_block_adds_what_two_convolutions_of_3x3_and_1x1_make_of_its_input():
    block, x = randomized(ResidualBlock(5)), torch.randn(2, 5, 4, 6, dtype=torch.float64, generator=seeded(1))
    assert [tuple(own.shape) for own in block.parameters() if own.ndim == 4] == [(5, 5, 3, 3), (5, 5, 1, 1)]
    assert_close(block(x), block_by_hand(x, *block.parameters()))


@pytest.mark.parametrize("blocks", [0, 1, 3])
def test_convolutions_are_residual_blocks_between_two_convolutions_of_3x3(blocks):
    model, x = (
        randomized(convolutions(2, 7, 5, blocks)),
        torch.randn(3, 2, 4, 6, dtype=torch.float64, generator=seeded(1)),
    )
    w1, b1, *body, w2, b2 = model.parameters()
    assert (tuple(w1.shape), len(body), tuple(w2.shape)) == ((5, 2, 3, 3), 4 * blocks, (7, 5, 3, 3))
    h = nn.functional.conv2d(x, w1, b1, padding=1)
    for k in range(blocks):
        h = block_by_hand(h, *body[4 * k : 4 * k + 4])
    assert_close(model(x), nn.functional.conv2d(h.clamp(min=0), w2, b2, padding=1))


# ---------------------------------------------------------------- paths between codes


def two_codes(dim):
    return torch.randn(2, dim, dtype=torch.float64, generator=seeded(dim))


@pytest.mark.parametrize("dim", [2, 3, 20])
def test_slerp_between_codes_of_equal_norm_agrees_with_scipy(dim):
    start, end = nn.functional.normalize(two_codes(dim))
    fractions = torch.linspace(0, 1, 7, dtype=torch.float64)
    expected = torch.from_numpy(geometric_slerp(start.numpy(), end.numpy(), fractions.numpy()))
    assert_close(slerp(5 * start, 5 * end, fractions), 5 * expected)


def test_slerp_leads_from_the_first_code_to_the_second_whatever_their_norms():
    start, end = two_codes(4) * torch.tensor([[1.0], [3.0]])
    assert_close(slerp(start, end, torch.tensor([0.0, 1.0], dtype=torch.float64)), torch.stack([start, end]))
