import math

import mpmath
import pytest
import scipy.stats
import torch
from conftest import log_joint_on_grid, normal, random_grey_images, random_images, random_vae, seeded
from torch.distributions import Bernoulli, Normal, kl_divergence
from torch.testing import assert_close

from gm_helpers.metrics import mean_and_standard_error
from gm_helpers.vae import (
    VAE,
    Autoencoder,
    GreyVAE,
    bernoulli_log_prob,
    discretized_logistic_log_prob,
    kl_standard_normal,
)


def random_grey_vae(latent_dim):
    return random_vae(latent_dim, kind=GreyVAE)


def random_autoencoder(latent_dim):
    """An autoencoder in float64 whose weights and biases are all far from 0."""
    model, generator = Autoencoder(latent_dim, hidden=16).double(), seeded(0)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.2, generator=generator)
    return model


BOTH = pytest.mark.parametrize(
    ("make", "images"), [(random_vae, random_images), (random_grey_vae, random_grey_images)], ids=["binary", "grey"]
)

# ---------------------------------------------------------------- the two terms


@pytest.mark.parametrize("dim", [1, 2, 20])
def test_kl_agrees_with_torch_distributions(dim):
    mean, log_var = normal(2, 64, dim, seed=dim)
    expected = kl_divergence(Normal(mean, (log_var / 2).exp()), Normal(0.0, 1.0)).sum(1)
    assert_close(kl_standard_normal(mean, log_var), expected)


def test_bernoulli_log_prob_agrees_with_scipy():
    logits, x = 3 * normal(8, 50), random_images(8).flatten(1)[:, :50]
    expected = scipy.stats.bernoulli.logpmf(x.numpy(), logits.sigmoid().numpy()).sum(1)
    assert_close(bernoulli_log_prob(x, logits), torch.from_numpy(expected))


def test_bernoulli_log_prob_stays_finite_for_sure_logits_and_so_does_its_gradient():
    logits = torch.tensor([[1e4, -1e4], [1e4, -1e4]], requires_grad=True)  # float32, as in training
    values = bernoulli_log_prob(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), logits)
    values.sum().backward()
    assert values.tolist() == [0, -2e4]
    assert logits.grad.tolist() == [[0, 0], [-1, 1]]


# ---------------------------------------------------------------- the bound


def encoded_by_hand(w, x):
    """Mean and log-variance of q(z|x) for rows x, from the raw weights."""
    hidden = (x @ w["trunk.1.weight"].T + w["trunk.1.bias"]).clamp(min=0)
    mean = hidden @ w["mean_head.weight"].T + w["mean_head.bias"]
    return mean, 15 * torch.tanh((hidden @ w["log_var_head.weight"].T + w["log_var_head.bias"]) / 15)


def decoded_by_hand(w, z):
    """The decoder's output, from the raw weights."""
    return torch.tanh(z @ w["decoder.0.weight"].T + w["decoder.0.bias"]) @ w["decoder.2.weight"].T + w["decoder.2.bias"]


@BOTH
def test_elbo_terms_are_what_one_computes_from_the_raw_weights_for_images_and_rows(make, images):
    model, x, eps = make(3), images(6), normal(6, 3, seed=1)
    w, rows = model.state_dict(), x.reshape(6, 784)
    mean, log_var = encoded_by_hand(w, rows / 255 if make is random_grey_vae else rows)
    z = mean + torch.sqrt(torch.exp(log_var)) * eps
    raw = decoded_by_hand(w, z)
    if make is random_grey_vae:
        grey_mean, log_scale = 127.5 + 127.5 * raw[:, :784], 6 * torch.tanh(raw[:, 784:] / 6 + 0.5)
        parameters, likelihood = torch.stack([grey_mean, log_scale], 1), mass_of_levels(rows, grey_mean, log_scale)
    else:
        parameters, likelihood = raw, torch.where(rows == 1, torch.sigmoid(raw), torch.sigmoid(-raw))
    reconstruction = likelihood.log().sum(1)
    kl = kl_divergence(Normal(mean, (log_var / 2).exp()), Normal(0.0, 1.0)).sum(1)

    assert_close(model.decode(z), parameters)
    for own in (x, rows):
        assert_close(model.encode(own), (mean, log_var))
        assert_close(model.log_likelihood(own, z), reconstruction)
        assert_close(model.elbo_terms(own, eps), (reconstruction, kl))
        assert_close(model.elbo(own, eps), reconstruction - kl)


def expected_elbo(model, x):
    """E over eps ~ N(0, 1) of the ELBO of each image, by quadrature."""
    eps = torch.linspace(-9, 9, 1001, dtype=torch.float64)[:, None]
    values = torch.stack([model.elbo(image.expand(len(eps), 784), eps) for image in x.flatten(1)]).detach()
    return torch.trapezoid(values * Normal(0.0, 1.0).log_prob(eps.T).exp(), eps.T)


def test_elbo_draws_standard_normal_noise_where_none_is_given():
    model, x = random_vae(1), random_images(1).expand(20_000, 1, 28, 28)
    torch.manual_seed(0)
    estimate, error = mean_and_standard_error(model.elbo(x).detach())
    assert abs(estimate - expected_elbo(model, x[:1]).item()) < 4 * error


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_elbo_lies_below_the_log_likelihood_by_the_kl_to_the_true_posterior(seed):
    model, x = random_vae(1, seed), random_images(4, seed)
    z, log_joint = log_joint_on_grid(model, x)
    log_p = torch.trapezoid((log_joint - (top := log_joint.max())).exp(), z.T).log() + top
    mean, log_var = (part.detach() for part in model.encode(x))
    log_q = Normal(mean, (log_var / 2).exp()).log_prob(z.T)
    gap = torch.trapezoid(log_q.exp() * (log_q - (log_joint - log_p[:, None])), z.T)
    assert (gap > 0.1).all()
    assert_close(log_p - expected_elbo(model, x), gap, atol=1e-6, rtol=0)


# ---------------------------------------------------------------- the loss


@BOTH
def test_loss_is_minus_the_mean_elbo_and_its_parts_add_up(make, images):
    model, x = make(3), images(6)
    reconstruction, kl = model.elbo_terms(x, normal(6, 3, seed=1))
    expected = {"loss": (kl - reconstruction).mean(), "reconstruction_error": -reconstruction.mean(), "kl": kl.mean()}
    assert_close(model.loss(x, seeded(1)), expected)


@pytest.mark.parametrize(
    ("make", "images"),
    [(random_vae, random_images), (random_autoencoder, random_images), (random_grey_vae, random_grey_images)],
    ids=["vae", "autoencoder", "grey"],
)
def test_gradients_of_the_loss_agree_with_finite_differences_in_every_parameter(make, images):
    model, x = make(3), images(6)
    model.loss(x, seeded(1))["loss"].backward()
    for parameter in model.parameters():
        direction, sides = normal(*parameter.shape, seed=2), []
        slope = (parameter.grad * direction).sum()
        for move in (1e-6, -2e-6):
            parameter.data += move * direction
            sides.append(model.loss(x, seeded(1))["loss"].item())
        parameter.data += 1e-6 * direction
        assert slope.abs() > 1e-3
        assert slope.item() == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-3)


@pytest.mark.parametrize("make", [VAE, GreyVAE])
def test_layers_in_bfloat16_leave_the_sums_of_the_bound_in_float32(make):
    model, x = make(3, hidden=16), random_images(5).float()
    with torch.autocast("cpu", torch.bfloat16):
        values = [*model.encode(x), model.decode(torch.zeros(5, 3)), *model.elbo_terms(x), *model.loss(x).values()]
    assert {own.dtype for own in values} == {torch.float32}
    assert not torch.equal(values[1], values[1].bfloat16().float())  # the bound on log σ² is computed in float32 too


def test_log_variance_is_bounded_for_huge_inputs_and_keeps_the_bound_finite():
    model, x = random_vae(3).float(), 1e6 * random_images(6).float()
    _, log_var = model.encode(x)
    assert log_var.abs().max() == 15
    assert model.elbo_terms(x.clamp(max=1), torch.ones(6, 3))[1].isfinite().all()


# ---------------------------------------------------------------- grey values

LEVELS = torch.arange(256, dtype=torch.float64)[:, None]


def log_probs_of_levels(mean, log_scale, x=LEVELS):
    """log P of all grey values, (256,), for one pixel's mean and log-scale."""
    return discretized_logistic_log_prob(x, torch.full_like(x, mean), torch.full_like(x, log_scale))


def mass_of_levels(x, mean, log_scale):
    """P(x) as differences of scipy's distribution functions, in each tail of those that keep their digits there."""
    pixels = scipy.stats.logistic(mean.numpy(), log_scale.exp().numpy())
    low, high = x.numpy() - 0.5, x.numpy() + 0.5
    low[low < 0], high[high > 255] = -math.inf, math.inf
    left, right = pixels.cdf(high) - pixels.cdf(low), pixels.sf(low) - pixels.sf(high)
    return torch.from_numpy(left).where(torch.from_numpy(low) < mean, torch.from_numpy(right))


@pytest.mark.parametrize("log_scale", [0.0, 2.5, 6.0])
@pytest.mark.parametrize("mean", [-80.0, 0.3, 127.5, 254.6, 400.0])
def test_the_discretised_logistic_agrees_with_differences_of_scipy_s_distribution_function(mean, log_scale):
    expected = mass_of_levels(LEVELS[:, 0], *torch.tensor([mean, log_scale], dtype=torch.float64)).log()
    assert_close(log_probs_of_levels(mean, log_scale), expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(("x", "mean"), [(10, 200.3), (200, 10.3), (0, 90.2), (255, 60.8), (77, 77.4)])
def test_the_discretised_logistic_agrees_with_50_digits_where_float64_s_distribution_function_is_0_or_1(x, mean):
    with mpmath.workdps(50):
        mean, scale = mpmath.mpf(mean), mpmath.exp(-6)
        low, high = (x - mpmath.mpf(0.5) - mean) / scale, (x + mpmath.mpf(0.5) - mean) / scale
        low, high = -mpmath.inf if x == 0 else low, mpmath.inf if x == 255 else high
        if low > 0:
            low, high = -high, -low
        expected = mpmath.log(1 / (1 + mpmath.exp(-high)) - 1 / (1 + mpmath.exp(-low)))
    assert log_probs_of_levels(float(mean), -6.0)[x].item() == pytest.approx(float(expected), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("log_scale", [-6.0, 6.0])
@pytest.mark.parametrize("mean", [-1000.0, 0.0, 100.0, 1000.0])
def test_the_discretised_logistic_is_exact_in_float32_and_its_gradients_are_finite(mean, log_scale):
    x = LEVELS.float()
    parameters = torch.full_like(x, mean, requires_grad=True), torch.full_like(x, log_scale, requires_grad=True)
    values = discretized_logistic_log_prob(x, *parameters)
    values.sum().backward()
    assert_close(values.detach().double(), log_probs_of_levels(mean, log_scale), atol=1e-6, rtol=1e-5)
    assert all(own.grad.isfinite().all() for own in parameters)


# ---------------------------------------------------------------- samples


@pytest.mark.parametrize(("make", "levels"), [(random_vae, 2), (random_grey_vae, 256)], ids=["binary", "grey"])
def test_samples_are_images_in_the_values_of_the_density_that_the_generator_decides(make, levels):
    model = make(2).float()
    one, again, other = (model.sample(50, seeded(seed)) for seed in (1, 1, 2))
    assert one.shape == (50, 1, 28, 28)
    assert one.unique().tolist() == list(range(levels))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not one.requires_grad


def test_samples_have_the_moments_of_the_model():
    # E x = E p(z), and the pixels of an image share their z: along a direction v of the decoder's own, Var v·x is
    # E Σ v² p(1 − p) + Var v·p(z), where independent pixels would have less.
    model, z = random_vae(1).float(), torch.linspace(-8, 8, 4001)[:, None]
    p, density = model.decode(z).detach().sigmoid(), Normal(0.0, 1.0).log_prob(z).exp()
    mean = torch.trapezoid(p * density, z, dim=0)
    x = model.sample(20_000, seeded(1)).flatten(1)
    error = (mean * (1 - mean) / len(x)).sqrt()
    assert ((x.mean(0) - mean) / error).abs().max() < 5

    v = p[2500] - p[1500]  # z = 2 and z = −2
    of_pixels = torch.trapezoid((v**2 * p * (1 - p)).sum(1) * density[:, 0], z[:, 0])
    of_z = torch.trapezoid(((p - mean) @ v) ** 2 * density[:, 0], z[:, 0])
    estimate, error = mean_and_standard_error(((x - mean) @ v) ** 2)
    assert abs(estimate - (of_pixels + of_z)) < 4 * error
    assert of_z > 20 * error


def test_grey_samples_have_each_value_as_often_as_the_likelihood_says():
    model = random_grey_vae(1)
    model.decoder[2].weight.data.zero_()  # pixels that do not depend on z, each with its own distribution
    parameters = model.decode(normal(1, 1))[0].T.tolist()
    p = torch.stack([log_probs_of_levels(*own).exp() for own in parameters]).mean(0)
    x = model.sample(400, seeded(1)).long().flatten()
    shares = torch.bincount(x, minlength=256).double() / len(x)
    assert ((shares - p) / (p * (1 - p) / len(x)).sqrt()).abs().max() < 5


def test_a_grey_sample_s_pixels_share_one_latent_that_is_standard_normal():
    model = random_grey_vae(2)
    model.decoder[2].bias.data[784:] = -1e3  # so narrow that a pixel is its mean
    mean, _ = model.decode(normal(40, 2, seed=1)).unbind(1)
    x = model.sample(40, seeded(1)).flatten(1)
    assert (x - mean.clamp(0, 255)).abs().max() < 0.5 + 14 * math.exp(-6)  # rounding, and |logit u| < 14


# ---------------------------------------------------------------- the autoencoder and the architectures


def test_codes_and_logits_are_what_one_computes_from_the_raw_weights():
    model, x = random_autoencoder(3), random_images(6)
    w = model.state_dict()
    hidden = (x.reshape(6, 784) @ w["encoder.1.0.weight"].T + w["encoder.1.0.bias"]).clamp(min=0)
    codes = hidden @ w["encoder.1.2.weight"].T + w["encoder.1.2.bias"]
    assert_close(model.encode(x), codes)
    assert_close(model.decode(codes), decoded_by_hand(w, codes))


def test_the_autoencoder_s_loss_is_the_mean_cross_entropy_of_its_reconstructions_and_draws_nothing():
    model, x, generator = random_autoencoder(3), random_images(6), seeded(1)
    expected = -Bernoulli(logits=model.decode(model.encode(x))).log_prob(x.flatten(1)).sum(1).mean()
    for own in (x, x.flatten(1)):
        assert_close(model.loss(own, generator), {"loss": expected})
    assert torch.equal(generator.get_state(), seeded(1).get_state())


@pytest.mark.parametrize(("kind", "heads", "outputs"), [(VAE, 2, 784), (GreyVAE, 2, 2 * 784), (Autoencoder, 1, 784)])
def test_architecture_is_as_documented(kind, heads, outputs):
    shapes = [tuple(own.shape) for own in kind(20).parameters() if own.ndim == 2]
    assert shapes == [(500, 784), *[(20, 500)] * heads, (500, 20), (outputs, 500)]


@pytest.mark.parametrize(("make", "name"), [(VAE, "vae"), (GreyVAE, "vae"), (Autoencoder, "autoencoder")])
def test_the_model_plays_alone(make, name):
    model = make(2, hidden=4)
    assert model.players() == {name: (model, model.loss)}


def test_without_a_generator_torch_decides_the_noise():
    model, x, values = random_vae(2), random_images(3), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        values.append((model.loss(x)["loss"].item(), model.sample(2).sum().item()))
    assert values[0] == values[1] != values[2]
