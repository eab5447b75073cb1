import math

import pytest
import torch
import torch.nn.functional as F
from conftest import randomized, seeded, uniform
from sklearn.metrics import accuracy_score, log_loss
from torch.testing import assert_close

from gm_helpers.classifier import DigitClassifier


def test_the_classifier_is_the_network_of_its_docstring_for_images_and_rows():
    model, x = randomized(DigitClassifier()), uniform(5, 1, 28, 28)
    w1, b1, w2, b2, w3, b3, w4, b4 = model.parameters()
    h = F.max_pool2d(F.conv2d(x, w1, b1, padding=1).clamp(min=0), 2)
    h = F.max_pool2d(F.conv2d(h, w2, b2, padding=1).clamp(min=0), 2)
    h = (h.reshape(5, 1568) @ w3.T + b3).clamp(min=0)
    assert (h.shape, w1.shape, w2.shape) == ((5, 64), (16, 1, 3, 3), (32, 16, 3, 3))
    for own in (x, x.flatten(1)):
        assert_close(model.features(own), h)
        assert_close(model(own), h @ w4.T + b4)


def test_the_classifier_drops_three_of_ten_inputs_of_its_hidden_layer_in_training_only():
    model, shares = randomized(DigitClassifier()), []
    hidden = next(layer for layer in model.trunk if isinstance(layer, torch.nn.Linear))
    hidden.register_forward_pre_hook(lambda own, inputs: shares.append((inputs[0] == 0).double().mean().item()))
    model(uniform(50, 784))
    torch.manual_seed(0)
    model.train()(uniform(50, 784))
    error = math.sqrt(0.3 * 0.7 / (50 * 1568))
    assert (1 - shares[1]) / (1 - shares[0]) == pytest.approx(0.7, abs=5 * error)  # ReLU's zeros are in both


def test_the_classifier_s_loss_is_scikit_learn_s_cross_entropy_and_its_accuracy_the_share_of_right_names():
    model, x = randomized(DigitClassifier()), uniform(40, 784)
    labels = torch.randint(0, 10, (40,), generator=seeded(1))
    values = model.loss(torch.cat([x, labels[:, None]], dim=1))
    probabilities = model(x).softmax(1).detach().numpy()
    assert values["loss"].item() == pytest.approx(log_loss(labels, probabilities, labels=range(10)))
    assert values["accuracy"].item() == pytest.approx(accuracy_score(labels, probabilities.argmax(1)))
    assert 0 < values["accuracy"] < 1


def test_the_classifier_plays_alone():
    model = DigitClassifier()
    assert model.players() == {"classifier": (model, model.loss)}
