import pytest
import torch
from conftest import normal, randomized
from scipy.spatial import geometric_slerp
from torch import nn
from torch.testing import assert_close

from gm_helpers.nn import ResidualBlock, TimedBlock, convolutions, mlp, slerp


def test_mlp_is_matrix_products_with_an_activation_of_its_own_between_two_and_none_after_the_last():
    model, x = randomized(mlp([5, 7, 3, 2], nn.PReLU)), normal(11, 5)
    w1, b1, a1, w2, b2, a2, w3, b3 = model.parameters()
    assert [tuple(w.shape) for w in (w1, w2, w3)] == [(7, 5), (3, 7), (2, 3)]
    h = nn.functional.prelu(x @ w1.T + b1, a1)
    assert_close(model(x), nn.functional.prelu(h @ w2.T + b2, a2) @ w3.T + b3)


def test_mlp_of_two_widths_is_one_linear_layer():
    assert [type(layer) for layer in mlp([4, 6], nn.ReLU)] == [nn.Linear]


# ---------------------------------------------------------------- networks for images


def block_by_hand(x, w1, b1, w2, b2):
    h = nn.functional.conv2d(x.clamp(min=0), w1, b1, padding=1)
    return x + nn.functional.conv2d(h.clamp(min=0), w2, b2)


def test_a_residual_block_adds_what_two_convolutions_of_3x3_and_1x1_make_of_its_input():
    block, x = randomized(ResidualBlock(5)), normal(2, 5, 4, 6)
    assert [tuple(own.shape) for own in block.parameters() if own.ndim == 4] == [(5, 5, 3, 3), (5, 5, 1, 1)]
    assert_close(block(x), block_by_hand(x, *block.parameters()))


@pytest.mark.parametrize("blocks", [0, 1, 3])
def test_convolutions_are_residual_blocks_between_two_convolutions_of_3x3(blocks):
    model, x = randomized(convolutions(2, 7, 5, blocks)), normal(3, 2, 4, 6)
    w1, b1, *body, w2, b2 = model.parameters()
    assert (tuple(w1.shape), len(body), tuple(w2.shape)) == ((5, 2, 3, 3), 4 * blocks, (7, 5, 3, 3))
    h = nn.functional.conv2d(x, w1, b1, padding=1)
    for k in range(blocks):
        h = block_by_hand(h, *body[4 * k : 4 * k + 4])
    assert_close(model(x), nn.functional.conv2d(h.clamp(min=0), w2, b2, padding=1))


def test_a_timed_block_adds_two_convolutions_of_its_input_with_a_shift_by_the_time_between_them():
    block, x, time = randomized(TimedBlock(16, 3)), normal(2, 16, 4, 6), normal(2, 3, seed=1)
    own = dict(block.named_parameters())

    def half(h, part):
        h = nn.functional.group_norm(h, 8, own[f"{part}.0.weight"], own[f"{part}.0.bias"])
        return nn.functional.conv2d(h * h.sigmoid(), own[f"{part}.2.weight"], own[f"{part}.2.bias"], padding=1)

    shift = time @ own["shift.weight"].T + own["shift.bias"]
    assert_close(block(x, time), x + half(half(x, "first") + shift[:, :, None, None], "second"))


# ---------------------------------------------------------------- paths between codes


@pytest.mark.parametrize("dim", [2, 3, 20])
def test_slerp_between_codes_of_equal_norm_agrees_with_scipy(dim):
    start, end = nn.functional.normalize(normal(2, dim, seed=dim))
    fractions = torch.linspace(0, 1, 7, dtype=torch.float64)
    expected = torch.from_numpy(geometric_slerp(start.numpy(), end.numpy(), fractions.numpy()))
    assert_close(slerp(5 * start, 5 * end, fractions), 5 * expected)


def test_slerp_between_codes_of_other_norms_leads_from_the_one_to_the_other_and_halfway_halves_their_angle():
    start, end = normal(2, 4) * torch.tensor([[1.0], [3.0]])
    middle = (start + end) / nn.functional.normalize(torch.stack([start, end])).sum(0).norm()  # 2 cos of half the angle
    fractions = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    assert_close(slerp(start, end, fractions), torch.stack([start, middle, end]))
