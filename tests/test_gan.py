import math

import pytest
import torch
import torch.nn.functional as F
from conftest import normal, seeded
from scipy.stats import kstest
from torch.testing import assert_close

from gm_helpers.data import scale
from gm_helpers.gan import (
    GAN,
    ConditionalGAN,
    ConvolutionalDiscriminator,
    ConvolutionalGenerator,
    Discriminator,
    Generator,
    discriminator_loss,
    gradient_penalty,
    non_saturating,
    rows,
    saturating,
)
from gm_helpers.train import train


def randomized(module, seed=0):
    """The module in float64 with weights, biases and running statistics away from 0, 1 and each other."""
    generator, module = seeded(seed), module.double()
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(1e-5, 1e-4, generator=generator)  # so small that the epsilon of batch norm shows
        elif tensor.is_floating_point():
            tensor.normal_(0.0, tensor.shape[-1] ** -0.5 if tensor.ndim == 2 else 0.3, generator=generator)
    return module


def random_gan(**changes):
    """A GAN in eval mode whose samples fill [-1, 1] and whose discriminator is neither sure nor undecided."""
    gan = randomized(GAN(**changes))
    for name, tensor in gan.state_dict().items():
        if name.endswith("running_var"):
            tensor.fill_(1.0)
    return gan.eval()


REAL = normal(12, 784, seed=9).tanh()


# ---------------------------------------------------------------- losses


@pytest.mark.parametrize("smoothed", [(), (1.0,), (0.9,)])
def test_the_discriminator_s_loss_is_the_cross_entropy_of_its_probabilities_and_not_smoothed_unless_told(smoothed):
    real, fake, (label,) = 3 * normal(50, seed=1), 3 * normal(50, seed=2), smoothed or (1.0,)
    on_real = F.binary_cross_entropy(real.sigmoid(), torch.full_like(real, label), reduction="none")
    on_fake = F.binary_cross_entropy(fake.sigmoid(), torch.zeros_like(fake), reduction="none")
    assert_close(discriminator_loss(real, fake, *smoothed), on_real + on_fake)


def test_the_generator_s_losses_agree_with_their_formulas_on_probabilities():
    fake = 3 * normal(50)
    assert_close(saturating(fake), (1 - fake.sigmoid()).log())
    assert_close(non_saturating(fake), -fake.sigmoid().log())


@pytest.mark.parametrize(
    ("loss", "values", "slopes"),
    [
        (saturating, (0, -100), (0, -1)),
        (non_saturating, (100, 0), (-1, 0)),
        (lambda a: discriminator_loss(a, torch.zeros(2)) - math.log(2), (100, 0), (-1, 0)),
        (lambda a: discriminator_loss(torch.zeros(2), a) - math.log(2), (0, 100), (0, 1)),
    ],
    ids=["saturating", "non-saturating", "real", "fake"],
)
def test_losses_and_their_slopes_are_right_in_float32_where_probabilities_round_to_zero_and_one(loss, values, slopes):
    logits = torch.tensor([-100.0, 100.0], requires_grad=True)
    own = loss(logits)
    own.sum().backward()
    assert_close(own.detach(), torch.tensor(values).float(), atol=1e-6, rtol=1e-6)
    assert_close(logits.grad, torch.tensor(slopes).float(), atol=1e-30, rtol=1e-6)


def test_an_unknown_loss_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"^unknown generator loss 'hinge': choose one of saturating, non_saturating$"):
        GAN(generator_loss="hinge")


# ---------------------------------------------------------------- the gradient penalty


class Bowl(torch.nn.Module):
    """A critic ½ |x|², whose gradient is x, so that its slope tells where it was asked."""

    def forward(self, x):
        self.asked = x.detach()
        return x.square().sum(1) / 2


def asked_by(generator, real, fake):
    critic = Bowl()
    gradient_penalty(critic, real, fake, generator)
    return critic.asked


def test_the_penalty_of_a_linear_critic_is_the_square_of_its_slope_s_distance_from_one_for_each_example():
    critic = torch.nn.Linear(5, 1).double()
    slope = critic.weight.detach().norm()
    penalty = gradient_penalty(torch.nn.Sequential(critic, torch.nn.Flatten(0)), normal(7, 5), normal(7, 5, seed=1))
    assert_close(penalty, ((slope - 1) ** 2).expand(7))


def test_the_penalty_of_each_example_is_that_of_the_slope_at_its_own_point():
    critic = Bowl()
    penalty = gradient_penalty(critic, normal(7, 5), normal(7, 5, seed=1), seeded(2))
    assert_close(penalty, (critic.asked.norm(dim=1) - 1) ** 2)


def test_the_critic_is_asked_between_each_pair_at_a_share_of_its_own_that_is_uniform():
    real, fake = normal(800, 3), normal(800, 3, seed=1)
    shares = (asked_by(seeded(2), real, fake) - real) / (fake - real)
    assert_close(shares, shares[:, :1].expand(-1, 3), atol=1e-6, rtol=0)  # a gap of 1e-4 costs four digits
    assert kstest(shares[:, 0].numpy(), "uniform").pvalue > 0.01


def test_the_generator_decides_where_the_critic_is_asked():
    real, fake = normal(7, 5), normal(7, 5, seed=1)
    one, again, other = (asked_by(seeded(seed), real, fake) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_the_penalty_s_gradient_reaches_the_critic_s_weights_and_not_the_maker_of_the_fakes():
    critic, maker = torch.nn.Linear(5, 1).double(), torch.nn.Linear(2, 5).double()
    gradient_penalty(critic, normal(7, 5), maker(normal(7, 2))).mean().backward()
    weight = critic.weight.detach()
    assert_close(critic.weight.grad, 2 * (weight.norm() - 1) * weight / weight.norm())
    assert maker.weight.grad is None


# ---------------------------------------------------------------- the two networks


def generator_by_hand(state, z, training):
    """The forward pass as its docstring states it; in training the running statistics in `state` move."""

    def norm(h, at):
        mean, var = state[f"layers.{at}.running_mean"], state[f"layers.{at}.running_var"]
        return F.batch_norm(h, mean, var, state[f"layers.{at}.weight"], state[f"layers.{at}.bias"], training)

    def linear(h, at):
        return h @ state[f"layers.{at}.weight"].T + state[f"layers.{at}.bias"]

    h = F.leaky_relu(linear(z, 0), 0.2)
    for at in (2, 5, 8):
        h = F.leaky_relu(norm(linear(h, at), at + 1), 0.2)
    return linear(h, 11).tanh()


@pytest.mark.parametrize("training", [True, False])
def test_the_generator_is_the_network_of_its_docstring(training):
    module, z = randomized(Generator()).train(training), normal(9, 100)
    state = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    widths = [100, 128, 256, 512, 1024, 784]
    assert [tuple(own.shape) for own in state.values() if own.ndim == 2] == list(zip(widths[1:], widths, strict=False))
    assert_close(module(z), generator_by_hand(state, z, training))
    for key in (name for name in state if "running" in name):
        assert_close(module.state_dict()[key], state[key])


def test_the_discriminator_is_the_network_of_its_docstring_and_ends_in_logits_for_images_and_rows():
    module, h = randomized(Discriminator()), REAL
    *hidden, weight, bias = module.parameters()
    assert [tuple(own.shape) for own in (*hidden[::2], weight)] == [(512, 784), (256, 512), (1, 256)]
    for w, b in zip(hidden[::2], hidden[1::2], strict=True):
        h = F.leaky_relu(h @ w.T + b, 0.2)
    assert_close(module(REAL), h @ weight[0] + bias)
    assert torch.equal(module(REAL.view(12, 1, 28, 28)), module(REAL))


def test_dropout_sets_that_share_of_both_hidden_layers_to_zero_in_training_only():
    module, shares = randomized(Discriminator(dropout=0.3)), []
    for layer in module.layers:
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_pre_hook(lambda own, inputs: shares.append((inputs[0] == 0).double().mean().item()))
    torch.manual_seed(0)
    module(normal(100, 784))
    module.eval()(normal(100, 784))
    share = pytest.approx(0.3, abs=5 * math.sqrt(0.3 * 0.7 / (100 * 256)))
    assert shares == [0, share, share, 0, 0, 0]


# ---------------------------------------------------------------- the game


def test_the_discriminator_moves_first_and_each_player_has_its_own_loss():
    gan = GAN()
    assert list(gan.players().items()) == [
        ("discriminator", (gan.discriminator, gan.discriminator_loss)),
        ("generator", (gan.generator, gan.generator_loss)),
    ]


def test_the_noise_is_standard_normal():
    noise = GAN(latent_dim=20).double().noise(1000, seeded(0))
    assert (noise.shape, noise.dtype) == ((1000, 20), torch.float64)
    assert kstest(noise.flatten().numpy(), "norm").pvalue > 0.01


@pytest.mark.parametrize("settings", [{}, {"real_label": 1.0}, {"real_label": 0.7}])
def test_the_discriminator_s_loss_and_verdicts_agree_with_probabilities_for_images_and_rows(settings):
    gan, label = random_gan(**settings), settings.get("real_label", 0.9)
    shown = gan.generator(gan.noise(12, seeded(3)))
    real, fake = gan.discriminator(REAL).sigmoid(), gan.discriminator(shown).sigmoid()
    loss = F.binary_cross_entropy(real, torch.full_like(real, label))
    loss = loss + F.binary_cross_entropy(fake, torch.zeros_like(fake))
    for x in (REAL, REAL.view(12, 1, 28, 28)):
        values = gan.discriminator_loss(x, seeded(3))
        assert_close(values, {"loss": loss, "D(x)": real.mean(), "D(G(z))": fake.mean(), "shown": shown})


@pytest.mark.parametrize("name", [None, "saturating", "non_saturating"])
def test_the_generator_s_loss_of_new_samples_agrees_with_probabilities(name):
    gan = random_gan(**({"generator_loss": name} if name else {}))
    fake = gan.discriminator(gan.generator(gan.noise(5, seeded(3)))).sigmoid()
    expected = (1 - fake).log().mean() if name == "saturating" else -fake.log().mean()
    assert_close(gan.generator_loss(REAL[:5], seeded(3)), {"loss": expected})


def test_the_generator_answers_for_the_samples_that_the_discriminator_was_shown_by_its_verdict_after_its_move():
    gan = random_gan()
    shown = gan.discriminator_loss(REAL, seeded(3))["shown"]
    with torch.no_grad():
        gan.discriminator.layers[-1].bias += 0.5
    expected = F.softplus(-gan.discriminator(gan.generator(gan.noise(12, seeded(3))))).mean()
    assert_close(gan.generator_loss(REAL, seeded(4), shown), {"loss": expected})


def test_in_training_both_players_look_at_the_same_samples():
    gan, pixels = GAN(), torch.randint(0, 256, (20, 1, 28, 28), dtype=torch.uint8, generator=seeded(0))
    train(gan, pixels, scale, steps=2, batch_size=8, learning_rate=1e-3)
    assert gan.generator.layers[3].num_batches_tracked == 2  # once a step


def test_the_discriminator_s_loss_leaves_no_gradient_in_the_generator():
    gan = random_gan()
    gan.discriminator_loss(REAL, seeded(3))["loss"].backward()
    assert all(p.grad is None for p in gan.generator.parameters())
    assert all(p.grad.abs().sum() > 0 for p in gan.discriminator.parameters())


@pytest.mark.parametrize("shared", [True, False])
def test_the_generator_s_loss_has_a_gradient_in_every_weight_of_the_generator(shared):
    gan = random_gan()
    samples = (gan.discriminator_loss(REAL, seeded(3))["shown"],) if shared else ()
    gan.generator_loss(REAL, seeded(4), *samples)["loss"].backward()
    assert all(p.grad.abs().sum() > 0 for p in gan.generator.parameters())


def test_layers_in_bfloat16_leave_samples_verdicts_and_losses_in_float32():
    gan, x = GAN(dropout=0.1), REAL.float()
    with torch.autocast("cpu", torch.bfloat16):
        values = [*gan.discriminator_loss(x).values(), *gan.generator_loss(x).values(), gan.discriminator(x)]
    assert {own.dtype for own in values} == {torch.float32}


# ---------------------------------------------------------------- samples


def test_samples_are_the_generator_s_images_brought_from_minus_one_and_one_to_zero_and_one():
    gan = random_gan(latent_dim=30)
    expected = gan.generator(gan.noise(6, seeded(4))).detach().view(6, 1, 28, 28)
    samples = gan.sample(6, seeded(4))
    assert_close(2 * samples - 1, expected)
    assert samples.min() < 0.1
    assert samples.max() > 0.9
    assert not samples.requires_grad


def test_a_sample_does_not_depend_on_the_others_even_in_training(monkeypatch):
    gan, z = random_gan().train(), normal(6, 100)
    monkeypatch.setattr(gan, "noise", lambda n, generator: z[:n])
    assert_close(gan.sample(1), gan.sample(6)[:1])


@pytest.mark.parametrize("training", [True, False])
def test_sampling_leaves_the_mode_and_the_running_statistics_as_they_were(training):
    gan = random_gan().train(training)
    before = {key: tensor.clone() for key, tensor in gan.state_dict().items()}
    gan.sample(5, seeded(0))
    assert {module.training for module in gan.modules()} == {training}
    assert all(torch.equal(tensor, before[key]) for key, tensor in gan.state_dict().items())


def test_samples_depend_on_the_generator_alone():
    gan = random_gan()
    assert torch.equal(gan.sample(3, seeded(1)), gan.sample(3, seeded(1)))
    assert not torch.equal(gan.sample(3, seeded(1)), gan.sample(3, seeded(2)))


# ---------------------------------------------------------------- the digit as input of both


DIGITS = torch.arange(12) % 10
ROWS = torch.cat([REAL, DIGITS[:, None].double()], dim=1)


def random_conditional(**changes):
    game = randomized(ConditionalGAN(**{"latent_dim": 8, "width": 4} | changes))
    for name, tensor in game.state_dict().items():
        if name.endswith("running_var"):
            tensor.fill_(1.0)
    return game.eval()


def test_rows_are_brought_to_minus_one_to_one_and_keep_their_digits():
    images = torch.randint(0, 256, (10, 784), dtype=torch.uint8, generator=seeded(0))
    got = rows(torch.cat([images, torch.arange(10, dtype=torch.uint8)[:, None]], dim=1))
    assert_close(got[:, :-1], scale(images))
    assert got[:, -1].tolist() == list(range(10))


def test_the_convolutional_generator_is_its_formula_with_the_digit_beside_the_noise():
    generator = random_conditional().generator
    linear, _, first, _, up, second, _, last, *_ = generator.layers
    z = normal(12, 8, seed=3)
    hidden = z @ linear.weight[:, :8].T + linear.weight[:, 8:].T[DIGITS] + linear.bias
    for norm, convolution, side in ((first, up, 7), (second, last, 14)):
        image = hidden.view(12, -1, side, side)
        mean, var = norm.running_mean[:, None, None], norm.running_var[:, None, None]
        image = (image - mean) / (var + norm.eps).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]
        hidden = F.conv_transpose2d(image.clamp(min=0), convolution.weight, convolution.bias, stride=2, padding=1)
    assert_close(generator(z, DIGITS), hidden.flatten(1).tanh())


def test_the_convolutional_discriminator_is_its_formula_with_a_picture_of_the_digit_as_second_channel():
    discriminator = random_conditional().discriminator
    _, first, _, _, second, _, _, _, head = discriminator.layers
    channels = torch.stack([REAL, discriminator.pictures.weight[DIGITS]], dim=1).view(12, 2, 28, 28)
    for convolution in (first, second):
        channels = F.conv2d(channels, convolution.weight, convolution.bias, stride=2, padding=1)
        channels = torch.where(channels > 0, channels, 0.2 * channels)
    assert_close(discriminator(REAL, DIGITS), (channels.flatten(1) @ head.weight.T + head.bias).squeeze(1))


def test_both_turns_of_the_conditional_game_ask_for_the_digits_of_the_batch_and_share_the_samples():
    game = random_conditional(real_label=0.8)
    values = game.discriminator_loss(ROWS, seeded(3))
    samples = game.generator(game.noise(12, seeded(3)), DIGITS)
    real, fake = game.discriminator(REAL, DIGITS), game.discriminator(samples, DIGITS)
    expected = {"loss": discriminator_loss(real, fake, 0.8).mean(), "D(x)": real.sigmoid().mean()}
    assert_close(values, expected | {"D(G(z))": fake.sigmoid().mean(), "shown": samples})
    for own in (game.generator_loss(ROWS, seeded(3)), game.generator_loss(ROWS, seeded(4), samples)):
        assert_close(own, {"loss": non_saturating(fake).mean()})


def test_the_conditional_discriminator_s_turn_moves_no_weight_of_the_generator():
    game = random_conditional()
    game.discriminator_loss(ROWS, seeded(3))["loss"].backward()
    assert all(own.grad is None for own in game.generator.parameters())


def test_a_conditional_sample_is_of_the_digit_that_was_asked_for_by_running_statistics_or_else_of_all_ten():
    game = random_conditional()
    expected = (game.generator(game.noise(12, seeded(5)), DIGITS) + 1) / 2
    game.train()
    assert_close(game.sample(12, seeded(5), DIGITS), expected.view(12, 1, 28, 28))
    assert game.training
    drawn, rng = [], seeded(6)
    game.generator.register_forward_pre_hook(lambda _, inputs: drawn.append(inputs[1]))
    game.sample(1000, rng)
    assert torch.bincount(drawn[0], minlength=10).min() > 60  # of 100 ± 9.5


def test_the_conditional_players_have_as_many_parameters_as_they_are_said_to():
    game = ConditionalGAN()
    assert isinstance(game.generator, ConvolutionalGenerator)
    assert isinstance(game.discriminator, ConvolutionalDiscriminator)
    assert sum(own.numel() for own in game.generator.parameters()) == 602_945
    assert 2 * 602_945 <= 2_000_000  # bytes in float16
