"""Networks as text: batch norm folded in, weights rounded with feedback, and read again by another reader."""

from functools import reduce

import numpy as np
import pytest
import torch
from conftest import normal, same, seeded
from torch import nn
from torch.testing import assert_close

from gm_helpers import quantize, recipes
from gm_helpers.gan import Generator
from gm_helpers.quantize import Layer, Rounded


def with_random_statistics(layers: nn.Sequential, seed: int = 0) -> nn.Sequential:
    """In eval mode, all that batch norm has drawn anew: weights of both signs, variances from 1e-4 to 10."""
    rng = seeded(seed)
    for own in layers.eval():
        if isinstance(own, nn.BatchNorm1d):
            for tensor in (own.weight.data, own.bias.data, own.running_mean):
                tensor.normal_(generator=rng)
            own.running_var.uniform_(-4, 1, generator=rng)
            own.running_var.copy_(10**own.running_var)
    return layers


def small_generator(seed: int = 0) -> nn.Sequential:
    """Layers of the generator's kinds, from 20 numbers to 784 pixels, of which many are grey."""
    torch.manual_seed(seed)
    middle = [nn.Linear(16, 24), nn.BatchNorm1d(24), nn.LeakyReLU(0.2)]
    layers = nn.Sequential(nn.Linear(20, 16), nn.LeakyReLU(0.2), *middle, nn.Linear(24, 784), nn.Tanh())
    with_random_statistics(layers, seed)[3].running_var.fill_(0.3)
    for at in (0, 2, 5):
        layers[at].weight.data *= 2
    return layers


def read(text: str, shapes: list[tuple[int, int]]) -> list[torch.Tensor]:
    """The whole numbers of that text, read letter by letter."""
    letters = [chr(own) for own in range(ord("!"), ord("~") + 1) if chr(own) not in '"\\<']
    pairs = [91 * letters.index(text[i]) + letters.index(text[i + 1]) for i in range(0, len(text), 2)]
    bits = iter("".join(f"{own:013b}"[::-1] for own in pairs))

    def number(length: int) -> int:
        return int("".join(next(bits) for _ in range(length))[::-1] or "0", 2)

    def row(length: int) -> list[int]:
        k, found = number(4), []
        for _ in range(length):
            zeros = next(i for i, bit in enumerate(bits) if bit == "1")
            folded = zeros * 2**k + number(k)
            found.append(-(folded + 1) // 2 if folded % 2 else folded // 2)
        return found

    layers = [torch.tensor([row(inputs) for _ in range(outputs)]) for outputs, inputs in shapes]
    rest = "".join(bits)
    assert set(rest) <= {"0"}
    assert len(rest) < 13
    return layers


def coarse(layers: list[Layer]) -> list[Layer]:
    """The network of the rounded weights."""
    found = quantize.rounded(layers)
    return [
        Layer(own.whole * own.step[:, None], own.bias, layer.activation)
        for own, layer in zip(found, layers, strict=True)
    ]


def grey(layers: list[Layer], z: torch.Tensor) -> torch.Tensor:
    """What they decode codes to, in float64, from 0 to 255."""
    return 255 * (reduce(quantize.passed, layers, z.double()) + 1) / 2


@pytest.mark.parametrize("seed", range(3))
def test_a_folded_generator_equals_the_generator_in_eval_mode(seed):
    torch.manual_seed(seed)
    model = Generator().double()
    with_random_statistics(model.layers, seed)
    layers, z = quantize.folded(model.layers), normal(20, 100, seed=seed)
    assert [own.activation for own in layers] == ["leaky"] * 4 + ["tanh"]
    assert_close(reduce(quantize.passed, layers, z), model(z), atol=1e-10, rtol=0)


def test_a_folded_layer_knows_what_follows_it_and_refuses_what_a_page_has_not():
    last = nn.Linear(3, 2)
    assert quantize.folded([nn.Linear(2, 3), nn.Tanh(), last, nn.Sigmoid()])[1].activation == "sigmoid"
    assert [own.activation for own in quantize.folded([nn.Linear(2, 3), nn.ReLU(), last])] == ["relu", ""]
    for stranger in (nn.LeakyReLU(0.1), nn.ELU()):
        with pytest.raises(KeyError):
            quantize.folded([last, stranger])


def correlated(seed: int, inputs: int = 40) -> torch.Tensor:
    """Inputs (2000, 40) that have few things to say."""
    return normal(2000, 8, seed=seed) @ normal(8, inputs, seed=seed + 1) + 0.1 * normal(2000, inputs, seed=seed + 2)


@pytest.mark.parametrize("seed", range(5))
def test_with_feedback_every_output_loses_less_than_by_plain_rounding_where_inputs_are_correlated(seed):
    x, weight = correlated(seed), 5 * normal(30, 40, seed=seed + 3)
    feedback, _ = quantize.feedback_and_novelty(x.T @ x / len(x))
    whole = quantize.round_with_feedback(weight, feedback)
    lost, plain = (((own - weight) @ x.T).square().mean(1) for own in (whole, weight.round()))
    assert (whole == whole.round()).all()
    assert (lost < plain).all()
    assert lost.mean() < plain.mean() / 5


def test_inputs_that_know_nothing_of_each_other_are_rounded_plainly():
    weight = 5 * normal(30, 40)
    feedback, novelty = quantize.feedback_and_novelty(torch.diag(torch.arange(1.0, 41.0).double()))
    assert torch.equal(quantize.round_with_feedback(weight, feedback), weight.round())
    assert_close(novelty, torch.arange(1.0, 41.0).double())


def test_an_input_s_novelty_is_what_the_later_ones_don_t_explain():
    x = correlated(0)
    _, novelty = quantize.feedback_and_novelty(x.T @ x / len(x))
    for i in (0, 17, 38):
        explained = x[:, i + 1 :] @ torch.linalg.lstsq(x[:, i + 1 :], x[:, i]).solution
        assert novelty[i] == pytest.approx(float((x[:, i] - explained).square().mean()))


def test_a_unit_s_effect_is_the_power_mean_of_the_outputs_slopes():
    layers = quantize.folded(small_generator())
    x = torch.randn(500, 20, generator=seeded(1))
    sums = torch.nn.functional.linear(reduce(quantize.passed, layers[:2], x.double()), *layers[2][:2])
    slope = (1 - torch.tanh(sums) ** 2).pow(8).mean(0) ** 0.25
    assert_close(quantize.effects(layers, x)[2], slope.clamp(min=slope.max() / 20), atol=1e-5, rtol=1e-4)


def test_a_hidden_unit_s_effect_adds_up_over_the_outputs():
    one, many = (
        [Layer(torch.ones(2, 3).double(), torch.zeros(2).double(), "tanh"), Layer(*own, "tanh")]
        for own in (
            (torch.ones(1, 2).double(), torch.zeros(1).double()),
            (torch.ones(300, 2).double(), torch.zeros(300).double()),
        )
    )
    x = torch.randn(4000, 3, generator=seeded(1)) / 100  # where tanh is straight
    assert_close(quantize.effects(one, x)[0], torch.ones(2).double(), atol=0.02, rtol=0)
    # of a sum of 300 random signs the fourth moment is 3 · 300²
    assert_close(quantize.effects(many, x)[0], torch.full((2,), 3**0.5 * 300).double(), atol=0, rtol=0.1)


def test_rounding_gives_numbers_that_float16_has_and_the_same_ones_again():
    layers = quantize.folded(small_generator())
    first = quantize.rounded(layers)
    torch.randn(3)
    assert same(first, quantize.rounded(layers))
    for own in first:
        assert own.whole.dtype == torch.int64
        assert (own.step > 0).all()
        for numbers in (own.step, own.bias):
            assert torch.equal(numbers, numbers.half().double())


@pytest.mark.parametrize("seed", range(3))
def test_a_rounded_network_decodes_nearly_as_before(seed, monkeypatch):
    layers, z = quantize.folded(small_generator(seed)), torch.randn(500, 20, generator=seeded(9))
    true = grey(layers, z)
    assert true.std(0).median() > 20  # else nothing could be lost
    fine = (grey(coarse(layers), z) - true).abs().max()
    assert fine < 1
    monkeypatch.setattr(quantize, "STEP", 100 * quantize.STEP)
    rough = (grey(coarse(layers), z) - true).abs().max()
    assert 10 * fine < rough


def test_no_mean_is_shifted_even_by_steps_that_are_coarse(monkeypatch):
    monkeypatch.setattr(quantize, "STEP", 100 * quantize.STEP)
    layers = quantize.folded(small_generator())
    z = torch.randn(20_000, 20, generator=seeded(9)).double()
    rough, true = (
        torch.nn.functional.linear(reduce(quantize.passed, own[:2], z), *own[2][:2]) for own in (coarse(layers), layers)
    )
    lost = rough - true
    assert (lost.mean(0).abs() < 0.1 * lost.std(0)).all()


def test_what_is_read_from_the_text_are_the_rounded_weights():
    layers = quantize.rounded(quantize.folded(small_generator()))
    text = quantize.text(layers)
    assert not set(text) & set('"\\<')
    for own, layer in zip(read(text, [layer.whole.shape for layer in layers]), layers, strict=True):
        assert torch.equal(own, layer.whole)


def test_the_text_holds_zeros_alone_and_numbers_that_are_far_apart():
    rows = [[0, 0, 0], [-1, 0, 1], [40_000, -1, 0], [-65_536, 65_535, 7], [3, -2, -70_000]]
    [found] = read(quantize.text([Rounded(torch.tensor(rows), *torch.zeros(2, 5))]), [(5, 3)])
    assert found.tolist() == rows


def test_rice_s_code_is_near_the_entropy_of_normal_numbers():
    whole = (30 * normal(50, 400)).round().long()
    entropy = 0.5 * np.log2(2 * np.pi * np.e * 30**2)
    bits = 6.5 * len(quantize.text([Rounded(whole, *torch.zeros(2, 50))])) / whole.numel()
    assert entropy < bits < entropy + 0.35


@pytest.mark.slow
def test_the_shipped_generator_fits_a_page_and_loses_less_than_two_grey_values():
    layers = quantize.folded(recipes.pretrained("gan", "cpu").generator.layers)
    found = quantize.rounded(layers)
    numbers = sum(len(own.step) + len(own.bias) for own in found)
    assert len(quantize.text(found)) + numbers * 2 * 4 / 3 <= 2_000_000
    z = torch.randn(200, 100, generator=seeded(0))
    weights = [Layer(own.whole * own.step[:, None], own.bias, "leaky") for own in found]
    weights[-1] = weights[-1]._replace(activation="tanh")
    with torch.no_grad():
        true = 255 * (recipes.pretrained("gan", "cpu").generator(z) + 1) / 2
    lost = (grey(weights, z) - true).abs().amax(1)
    assert lost[:10].max() < 1.5  # a page rounds them besides
    assert lost.max() < 2
    assert lost.median() < 0.75
