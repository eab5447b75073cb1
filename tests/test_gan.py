import copy
import math

import pytest
import torch
import torch.nn.functional as F
from conftest import seeded
from scipy.stats import kstest
from torch.testing import assert_close

from gm_helpers.data import scale
from gm_helpers.gan import GAN, GENERATOR_LOSSES, Discriminator, Generator, discriminator_loss
from gm_helpers.train import DivergenceError, evaluate, train


def randomized(module, seed=0):
    """The module in float64 with weights, biases and running statistics away from 0, 1 and each other."""
    generator, module = seeded(seed), module.double()
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(1e-5, 1e-4, generator=generator)  # so small that the epsilon of batch norm shows
        elif tensor.is_floating_point():
            tensor.normal_(0.0, tensor.shape[-1] ** -0.5 if tensor.ndim == 2 else 0.3, generator=generator)
    return module


def random_gan(seed=0, **changes):
    """A GAN in eval mode whose samples fill [-1, 1] and whose discriminator is neither sure nor undecided."""
    gan = randomized(GAN(**changes), seed)
    for name, tensor in gan.state_dict().items():
        if name.endswith("running_var"):
            tensor.fill_(1.0)
    return gan.eval()


def draws(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=seeded(seed))


REAL = draws(12, 784, seed=9).tanh()


# ---------------------------------------------------------------- losses


@pytest.mark.parametrize("label", [1.0, 0.9])
def test_the_discriminator_s_loss_is_the_cross_entropy_of_its_probabilities(label):
    real, fake = 3 * draws(50, seed=1), 3 * draws(50, seed=2)
    on_real = F.binary_cross_entropy(real.sigmoid(), torch.full_like(real, label), reduction="none")
    on_fake = F.binary_cross_entropy(fake.sigmoid(), torch.zeros_like(fake), reduction="none")
    assert_close(discriminator_loss(real, fake, label), on_real + on_fake)


def test_labels_are_not_smoothed_unless_told():
    real, fake = draws(50, seed=1), draws(50, seed=2)
    assert_close(discriminator_loss(real, fake), discriminator_loss(real, fake, 1.0))


def test_a_discriminator_that_cannot_tell_pays_two_log_two():
    assert discriminator_loss(torch.zeros(1), torch.zeros(1)).item() == pytest.approx(2 * math.log(2))


def test_smoothing_leaves_the_best_verdict_on_data_at_the_label_and_on_samples_at_zero():
    real, fake = torch.tensor([math.log(9)], dtype=torch.float64, requires_grad=True), torch.tensor([-800.0])
    discriminator_loss(real, fake.double().requires_grad_(), 0.9).sum().backward()
    assert abs(real.grad.item()) < 1e-15
    assert discriminator_loss(torch.tensor([800.0]), fake, 1.0).item() == 0


def test_the_generator_s_losses_agree_with_their_formulas_on_probabilities():
    fake = 3 * draws(50)
    assert_close(GENERATOR_LOSSES["saturating"](fake), (1 - fake.sigmoid()).log())
    assert_close(GENERATOR_LOSSES["non_saturating"](fake), -fake.sigmoid().log())


@pytest.mark.parametrize(
    ("name", "slope"), [("saturating", lambda p: -p), ("non_saturating", lambda p: -(1 - p))], ids=lambda own: str(own)
)
def test_the_generator_s_losses_have_the_slopes_of_theory_in_the_logit(name, slope):
    logits = (4 * draws(50)).requires_grad_()
    GENERATOR_LOSSES[name](logits).sum().backward()
    assert_close(logits.grad, slope(1 / (1 + (-logits.detach()).exp())))


@pytest.mark.parametrize(
    ("loss", "values", "slopes"),
    [
        (GENERATOR_LOSSES["saturating"], (0, -100), (0, -1)),
        (GENERATOR_LOSSES["non_saturating"], (100, 0), (-1, 0)),
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


# ---------------------------------------------------------------- the two networks


def generator_by_hand(state, z, training):
    """The forward pass as its docstring states it; in training the running statistics in `state` move."""

    def norm(h, at):
        mean, var = state[f"layers.{at}.running_mean"], state[f"layers.{at}.running_var"]
        return F.batch_norm(h, mean, var, state[f"layers.{at}.weight"], state[f"layers.{at}.bias"], training)

    def linear(h, at):
        return h @ state[f"layers.{at}.weight"].T + state[f"layers.{at}.bias"]

    def leaky(h):
        return torch.where(h > 0, h, 0.2 * h)

    h = leaky(linear(z, 0))
    for at in (2, 5, 8):
        h = leaky(norm(linear(h, at), at + 1))
    return linear(h, 11).tanh()


@pytest.mark.parametrize("training", [True, False])
def test_the_generator_is_the_network_of_its_docstring(training):
    module, z = randomized(Generator()).train(training), draws(9, 100)
    state = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    assert_close(module(z), generator_by_hand(state, z, training))
    for key in (name for name in state if "running" in name):
        assert_close(module.state_dict()[key], state[key])


def test_the_generator_has_the_widths_of_its_docstring_and_three_batch_norms():
    shapes = [tuple(p.shape) for p in Generator(7).parameters() if p.ndim == 2]
    assert shapes == [(128, 7), (256, 128), (512, 256), (1024, 512), (784, 1024)]
    norms = [own.num_features for own in Generator().modules() if isinstance(own, torch.nn.BatchNorm1d)]
    assert norms == [256, 512, 1024]


def test_the_discriminator_is_the_network_of_its_docstring_and_ends_in_logits():
    module, h = randomized(Discriminator()), REAL
    *hidden, weight, bias = module.parameters()
    assert [tuple(own.shape) for own in (*hidden[::2], weight)] == [(512, 784), (256, 512), (1, 256)]
    for w, b in zip(hidden[::2], hidden[1::2], strict=True):
        h = h @ w.T + b
        h = torch.where(h > 0, h, 0.2 * h)
    assert_close(module(REAL), h @ weight[0] + bias)


def test_the_discriminator_takes_images_and_rows():
    module = randomized(Discriminator())
    assert module(REAL).shape == (12,)
    assert torch.equal(module(REAL.view(12, 1, 28, 28)), module(REAL))


def test_dropout_sets_that_share_of_both_hidden_layers_to_zero_in_training_only():
    module, shares = randomized(Discriminator(dropout=0.3)), []
    for layer in module.layers:
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_pre_hook(lambda own, inputs: shares.append((inputs[0] == 0).double().mean().item()))
    torch.manual_seed(0)
    module(draws(100, 784))
    error = math.sqrt(0.3 * 0.7 / (100 * 256))
    assert shares == pytest.approx([0, 0.3, 0.3], abs=5 * error)
    shares.clear()
    module.eval()(draws(100, 784))
    assert shares == [0, 0, 0]


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
def test_the_discriminator_s_loss_and_verdicts_agree_with_probabilities(settings):
    gan, label = random_gan(**settings), settings.get("real_label", 0.9)
    real = gan.discriminator(REAL).sigmoid()
    fake = gan.discriminator(gan.generator(gan.noise(12, seeded(3)))).sigmoid()
    loss = F.binary_cross_entropy(real, torch.full_like(real, label))
    loss = loss + F.binary_cross_entropy(fake, torch.zeros_like(fake))
    values = gan.discriminator_loss(REAL, seeded(3))
    shown = gan.generator(gan.noise(12, seeded(3)))
    assert_close(values, {"loss": loss, "D(x)": real.mean(), "D(G(z))": fake.mean(), "shown": shown})


@pytest.mark.parametrize("name", [None, "saturating", "non_saturating"])
def test_the_generator_s_loss_agrees_with_probabilities(name):
    gan = random_gan(**({"generator_loss": name} if name else {}))
    fake = gan.discriminator(gan.generator(gan.noise(12, seeded(3)))).sigmoid()
    expected = (1 - fake).log().mean() if name == "saturating" else -fake.log().mean()
    assert_close(gan.generator_loss(REAL, seeded(3)), {"loss": expected})


def test_the_generator_answers_for_the_samples_that_the_discriminator_was_shown_by_its_verdict_after_its_move():
    gan = random_gan()
    shown = gan.discriminator_loss(REAL, seeded(3))["shown"]
    with torch.no_grad():
        gan.discriminator.layers[-1].bias += 0.5
    expected = F.softplus(-gan.discriminator(gan.generator(gan.noise(12, seeded(3))))).mean()
    assert_close(gan.generator_loss(REAL, seeded(4), shown), {"loss": expected})


def test_after_the_discriminator_s_turn_every_weight_of_the_generator_learns():
    gan = random_gan()
    shown = gan.discriminator_loss(REAL, seeded(3))["shown"]
    gan.generator_loss(REAL, seeded(4), shown)["loss"].backward()
    assert all(p.grad.abs().sum() > 0 for p in gan.generator.parameters())


def test_a_turn_of_the_generator_by_itself_has_new_samples_as_many_as_its_own_batch():
    gan = random_gan()
    gan.discriminator_loss(REAL, seeded(3))
    with torch.no_grad():
        for weight in gan.generator.parameters():
            weight += 0.01
    values = gan.generator_loss(REAL[:5], seeded(4))
    values["loss"].backward()
    samples = gan.generator(gan.noise(5, seeded(4)))
    assert_close(values["loss"], F.softplus(-gan.discriminator(samples)).mean())


def test_a_game_can_be_copied_after_the_discriminator_s_turn():
    gan = random_gan()
    gan.discriminator_loss(REAL, seeded(3))
    assert_close(copy.deepcopy(gan).generator_loss(REAL, seeded(4)), gan.generator_loss(REAL, seeded(4)))


def test_in_training_both_players_look_at_the_same_samples(monkeypatch):
    gan, pixels = GAN(), torch.randint(0, 256, (20, 1, 28, 28), dtype=torch.uint8, generator=seeded(0))
    drawn, judged, noise, loss = [], [], gan.noise, gan.generator_loss
    monkeypatch.setattr(gan, "noise", lambda n, generator: (drawn.append(n), noise(n, generator))[1])
    monkeypatch.setattr(
        gan, "generator_loss", lambda x, generator, shown: (judged.append(shown), loss(x, None, shown))[1]
    )
    train(gan, pixels, scale, steps=2, batch_size=8, learning_rate=1e-3)
    assert drawn == [8, 8]  # once a step
    assert [own.requires_grad for own in judged] == [True, True]


def test_in_validation_the_generator_s_loss_has_samples_of_its_own():
    gan, pixels = random_gan(), torch.randint(0, 256, (20, 1, 28, 28), dtype=torch.uint8, generator=seeded(0))
    values, generator = evaluate(gan, pixels, lambda own, _: own.double()), seeded(0)
    shown = gan.generator(gan.noise(20, generator))
    assert values["discriminator"]["D(G(z))"] == pytest.approx(gan.discriminator(shown).sigmoid().mean().item())
    own = gan.generator_loss(REAL.new_zeros(20, 784), generator)["loss"].item()
    assert values["generator"] == {"loss": pytest.approx(own)}


def test_the_game_takes_images_and_rows():
    gan = random_gan()
    images = gan.discriminator_loss(REAL.view(12, 1, 28, 28), seeded(3))
    assert_close(images, gan.discriminator_loss(REAL, seeded(3)))


def test_the_discriminator_s_loss_leaves_no_gradient_in_the_generator():
    gan = random_gan().train()
    gan.discriminator_loss(REAL, seeded(3))["loss"].backward()
    assert all(p.grad is None for p in gan.generator.parameters())
    assert all(p.grad.abs().sum() > 0 for p in gan.discriminator.parameters())


def test_the_generator_s_loss_has_a_gradient_in_every_weight_of_the_generator():
    gan = random_gan()
    gan.generator_loss(REAL, seeded(3))["loss"].backward()
    assert all(p.grad.abs().sum() > 0 for p in gan.generator.parameters())


def test_a_step_along_its_gradient_helps_a_player_and_hurts_its_rival():
    gan = random_gan(real_label=1.0, generator_loss="saturating")
    for player, (module, loss) in gan.players().items():
        before = {name: own(REAL, seeded(3))["loss"].item() for name, (_, own) in gan.players().items()}
        gan.zero_grad()
        loss(REAL, seeded(3))["loss"].backward()
        with torch.no_grad():
            for p in module.parameters():
                p -= 1e-4 * p.grad
        after = {name: own(REAL, seeded(3))["loss"].item() for name, (_, own) in gan.players().items()}
        assert after.pop(player) < before.pop(player)
        assert list(after.values()) > list(before.values())


@pytest.mark.parametrize("player", ["discriminator", "generator"])
def test_a_loss_that_is_not_a_number_names_the_player(player, monkeypatch):
    gan, pixels = GAN(), torch.randint(0, 256, (20, 1, 28, 28), dtype=torch.uint8, generator=seeded(0))
    honest = getattr(gan, f"{player}_loss")

    def poisoned(*arguments):
        return {key: value * math.nan for key, value in honest(*arguments).items()}

    monkeypatch.setattr(gan, f"{player}_loss", poisoned)
    with pytest.raises(DivergenceError, match=rf"^{player}\b.*: a loss or weight is not finite at step 1"):
        train(gan, pixels, scale, steps=1, batch_size=8, learning_rate=1e-3)


# ---------------------------------------------------------------- samples


def test_samples_are_the_generator_s_images_brought_from_minus_one_and_one_to_zero_and_one():
    gan = random_gan()
    expected = gan.generator(gan.noise(6, seeded(4))).detach().view(6, 1, 28, 28)
    samples = gan.sample(6, seeded(4))
    assert_close(2 * samples - 1, expected)
    assert samples.min() < 0.1
    assert samples.max() > 0.9
    assert not samples.requires_grad


def test_a_sample_does_not_depend_on_the_others_even_in_training(monkeypatch):
    gan, z = random_gan().train(), draws(6, 100)
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


def test_a_smaller_game_has_noise_of_its_own_size():
    assert random_gan(latent_dim=3).sample(2, seeded(0)).shape == (2, 1, 28, 28)


def test_layers_in_bfloat16_leave_samples_verdicts_and_losses_in_float32():
    gan, x = GAN(dropout=0.1), REAL.float()
    with torch.autocast("cpu", torch.bfloat16):
        samples = gan.generator(gan.noise(4))
        values = [
            samples,
            gan.discriminator(samples),
            *gan.discriminator_loss(x).values(),
            gan.generator_loss(x)["loss"],
        ]
    assert {own.dtype for own in values} == {torch.float32}
