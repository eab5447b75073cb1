import torch
from conftest import seeded
from torch import nn
from torch.testing import assert_close

from gm_helpers.nn import mlp


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
