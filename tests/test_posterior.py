"""Normals in place of densities: each number has an oracle from elsewhere, a brute sum, draws, or a closed form."""

import dataclasses
import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import NoFloat64, random_images, random_vae, seeded
from matplotlib.colors import to_rgba
from matplotlib.patches import Ellipse
from torch.distributions import Bernoulli, Independent, MultivariateNormal, Normal, kl_divergence
from torch.testing import assert_close

from gm_helpers import posterior, recipes
from gm_helpers.vae import VAE

MODEL, IMAGES = random_vae(2), random_images(3)


@pytest.fixture(scope="module")
def exact() -> list[posterior.Posterior]:
    return posterior.exact(MODEL, IMAGES)


@pytest.fixture(scope="module")
def gaps(exact) -> list[posterior.Gap]:
    return [posterior.gap(MODEL, image, own) for image, own in zip(IMAGES, exact, strict=True)]


def blind_vae():
    """A VAE whose decoder doesn't look at the code, so that the posterior of every image is the prior."""
    model = random_vae(2)
    model.decoder[0].weight.data.zero_()
    return model


def brute_log_joint(image, codes):
    """log p(x|z) p(z) by torch's own distributions."""
    pixels = Bernoulli(logits=MODEL.decode(codes).detach())
    return pixels.log_prob(image.flatten()).sum(1) + Normal(0.0, 1.0).log_prob(codes).sum(1)


def normals(n=5, seed=0):
    """Means and log-deviations of n normals, (n, 2) each."""
    noise = seeded(seed)
    means = torch.randn(n, 2, dtype=torch.float64, generator=noise)
    return means, -1.7 + 0.3 * torch.randn(n, 2, dtype=torch.float64, generator=noise)


# ---------------------------------------------------------------- exact posteriors


def test_the_joint_density_on_a_grid_is_that_of_torch_s_distributions():
    codes = normals(20)[0]
    joint = posterior.log_joint(MODEL, IMAGES, codes, at_once=7).detach()
    assert_close(joint, torch.stack([brute_log_joint(image, codes) for image in IMAGES]))


def test_the_likelihood_of_each_image_is_that_of_a_brute_sum(exact):
    side = torch.linspace(-7, 7, 141, dtype=torch.float64)
    codes = torch.cartesian_prod(side, side)
    for image, own in zip(IMAGES, exact, strict=True):
        brute = torch.logsumexp(brute_log_joint(image, codes), 0) + 2 * math.log(side[1] - side[0])
        assert own.log_px == pytest.approx(brute.item(), abs=1e-4)


def test_the_likelihood_stays_when_the_spacing_halves(exact):
    halved = posterior.exact(MODEL, IMAGES, spacing=posterior.SPACING / 2)
    assert [own.log_px for own in halved] == pytest.approx([own.log_px for own in exact], abs=1e-4)


def test_a_posterior_holds_the_mass_one(exact):
    assert [own.log_density.exp().sum() * own.spacing**2 for own in exact] == pytest.approx([1, 1, 1])


def narrow_normal(correlation):
    """The posterior of an image, on a grid, if it were this normal with deviations 0.2 and 0.1, and the normal."""
    scale = torch.tensor([0.2, 0.1], dtype=torch.float64)
    matrix = torch.tensor([[1.0, correlation], [correlation, 1.0]], dtype=torch.float64) * scale * scale[:, None]
    normal = MultivariateNormal(torch.tensor([1.0, -2.0], dtype=torch.float64), matrix)
    side = torch.arange(-150, 151, dtype=torch.float64) * 0.01
    codes = torch.cartesian_prod(side, side) + normal.mean
    return posterior.Posterior(codes, normal.log_prob(codes), 0.01, -100.0), normal


def test_the_moments_of_a_normal_posterior_are_its_own():
    own, normal = narrow_normal(0.6)
    mean, log_std = own.moments()
    assert_close(mean, normal.mean)
    assert_close(log_std.exp(), normal.covariance_matrix.diagonal().sqrt())


@pytest.mark.parametrize("correlation", [0.0, 0.6, -0.9])
def test_of_an_oblique_normal_posterior_the_bend_is_what_the_correlation_tells(correlation):
    own, _ = narrow_normal(correlation)
    assert own.bend() == pytest.approx(-0.5 * math.log(1 - correlation**2), abs=1e-6)


@pytest.mark.parametrize("mass", [0.5, 0.9, 0.99])
def test_the_level_of_a_normal_posterior_is_that_of_the_ellipse_with_this_mass(mass):
    own, normal = narrow_normal(0.6)
    expected = (1 - mass) / (2 * math.pi * normal.covariance_matrix.det().sqrt())
    assert own.level(mass) == pytest.approx(expected.item(), rel=0.02)


def test_the_density_of_a_code_is_that_of_the_nearest_point_and_nothing_far_away():
    own, normal = narrow_normal(0.6)
    code = normal.mean + torch.tensor([0.061, -0.019])
    near = normal.mean + torch.tensor([0.06, -0.02])
    assert own.density(code) == pytest.approx(normal.log_prob(near).exp().item())
    assert own.density(normal.mean + 5) == 0


# ---------------------------------------------------------------- bounds and gaps


def test_the_bound_by_quadrature_is_within_four_standard_errors_of_draws():
    means, log_stds = normals()
    bounds = posterior.elbo(MODEL, IMAGES[0], means, log_stds).detach()
    for bound, mean, log_std in zip(bounds, means, log_stds, strict=True):
        q = Independent(Normal(mean, log_std.exp()), 1)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            codes = q.sample((5_000,))
        terms = brute_log_joint(IMAGES[0], codes) - q.log_prob(codes)
        assert abs(terms.mean() - bound) < 4 * terms.std() / math.sqrt(len(terms))


def test_more_nodes_of_the_quadrature_change_nothing():
    q = normals()
    assert_close(
        posterior.elbo(MODEL, IMAGES[0], *q), posterior.elbo(MODEL, IMAGES[0], *q, nodes=40), atol=1e-4, rtol=0
    )


def test_gradients_pass_through_the_bound():
    mean, log_std = (own.requires_grad_() for own in normals(2))
    assert torch.autograd.gradcheck(lambda *q: posterior.elbo(MODEL, IMAGES[1], *q, nodes=8), (mean, log_std))


def test_what_the_bound_lacks_is_the_divergence_from_the_posterior_summed_on_the_grid(exact):
    means, log_stds = normals()
    for image, own in zip(IMAGES, exact, strict=True):
        bounds = posterior.elbo(MODEL, image, means, log_stds)
        for bound, mean, log_std in zip(bounds, means, log_stds, strict=True):
            side = torch.linspace(-7, 7, 57, dtype=torch.float64)
            codes = torch.cartesian_prod(
                *(centre + side * width for centre, width in zip(mean, log_std.exp(), strict=True))
            )
            log_q = Normal(mean, log_std.exp()).log_prob(codes).sum(1)
            ratio = log_q - (brute_log_joint(image, codes) - own.log_px)
            divergence = (log_q.exp() * ratio).sum() * 0.25**2 * log_std.exp().prod()
            assert own.log_px - bound.item() == pytest.approx(divergence.item(), abs=1e-3)


def test_the_parts_of_a_gap_are_not_negative_and_add_up_to_it(gaps):
    for own in gaps:
        assert min(own.family, own.encoder) >= -1e-6
        assert own.family + own.encoder == pytest.approx(own.log_px - own.elbo)


def test_the_bound_in_a_gap_is_that_of_the_encoder_s_normal(gaps):
    means, log_vars = MODEL.encode(IMAGES)
    bounds = [
        posterior.elbo(MODEL, *own).item() for own in zip(IMAGES, means[:, None], log_vars[:, None] / 2, strict=True)
    ]
    assert [own.elbo for own in gaps] == pytest.approx(bounds)
    for own, mean, log_var in zip(gaps, means, log_vars, strict=True):
        assert_close(own.q, (mean.detach(), log_var.detach() / 2))


def test_no_normal_near_the_best_one_and_none_of_many_others_has_a_higher_bound(gaps):
    noise = 0.05 * torch.randn(40, 2, 2, dtype=torch.float64, generator=seeded(3))
    for image, own in zip(IMAGES, gaps, strict=True):
        near = [part + noise[:, i] for i, part in enumerate(own.best)]
        for q in (near, normals(40, seed=4)):
            assert (
                posterior.elbo(MODEL, image, *q).max() <= own.log_px - own.family + 5e-3
            )  # the search sums at fewer nodes


def test_the_best_normal_is_none_worse_than_any_of_its_starts():
    starts = normals(3)
    best = posterior.best_normal(MODEL, IMAGES[0], *starts)
    bound = posterior.elbo(MODEL, IMAGES[0], *(own[None] for own in best))
    assert bound >= posterior.elbo(MODEL, IMAGES[0], *starts).max()


def test_where_the_posterior_is_the_prior_the_family_costs_nothing_and_the_encoder_its_divergence_from_the_prior():
    model = blind_vae()
    [own] = posterior.exact(model, IMAGES[:1])
    found = posterior.gap(model, IMAGES[0], own)
    mean, log_var = model.encode(IMAGES[:1])
    divergence = kl_divergence(Normal(mean, (log_var / 2).exp()), Normal(0.0, 1.0)).sum().item()
    assert found.family == pytest.approx(0, abs=1e-4)
    assert found.encoder == pytest.approx(divergence, abs=1e-4)
    assert own.log_px == pytest.approx(model.log_likelihood(IMAGES[:1], torch.zeros(1, 2).double()).item(), abs=1e-4)


def test_images_may_lie_on_a_device_without_float64(exact, gaps):
    images, model = IMAGES[:1].float().as_subclass(NoFloat64), random_vae(2).float()
    [own] = posterior.exact(model, images)
    assert own.log_px == pytest.approx(exact[0].log_px, abs=1e-2)
    assert posterior.gap(model, images[0], own).family == pytest.approx(gaps[0].family, abs=1e-2)


@pytest.mark.slow
def test_in_float32_the_shipped_model_s_posteriors_are_as_exact_and_their_gaps_as_clean():
    model = recipes.pretrained("vae-2d", "cpu")
    images = model.sample(6, seeded(1))
    fine, own = (posterior.exact(model, images, spacing=spacing) for spacing in (0.05, 0.1))
    assert [one.log_px for one in own] == pytest.approx([one.log_px for one in fine], abs=1e-3)
    for found in (posterior.gap(model, *both) for both in zip(images, own, strict=True)):
        assert min(found.family, found.encoder) >= -1e-6


# ---------------------------------------------------------------- the picture


@pytest.fixture
def axis():
    figure, own = plt.subplots()
    yield own
    plt.close(figure)


def test_the_ellipses_are_both_normals_at_one_and_two_deviations(axis, exact, gaps):
    posterior.draw_posterior(axis, MODEL, IMAGES[0], exact[0], gaps[0])
    ellipses = [own for own in axis.patches if isinstance(own, Ellipse)]
    drawn = [(own.get_linestyle(), *own.center, own.width, own.height) for own in ellipses]
    expected = [
        (style, *mean.tolist(), *(2 * deviations * log_std.exp()).tolist())
        for (mean, log_std), style in ((gaps[0].q, "-"), (gaps[0].best, "--"))
        for deviations in (1, 2)
    ]
    assert [own[0] for own in drawn] == [own[0] for own in expected]
    assert np.array([own[1:] for own in drawn]) == pytest.approx(np.array([own[1:] for own in expected]))


def test_the_areas_of_a_posterior_hold_half_of_it_nine_tenths_and_nearly_all(axis):
    model = blind_vae()
    [own] = posterior.exact(model, IMAGES[:1])
    posterior.draw_posterior(axis, model, IMAGES[0], own, posterior.gap(model, IMAGES[0], own))
    [areas] = axis.collections
    radii = [math.sqrt(-2 * math.log(1 - share)) for share in (0.99, 0.9, 0.5)]  # of the standard normal
    for radius, path in zip(radii, areas.get_paths(), strict=True):
        assert np.linalg.norm(path.vertices, axis=1).max() == pytest.approx(radius, rel=0.03)


@pytest.mark.slow
def test_each_of_six_panels_tells_its_numbers(gaps):
    figure = posterior.draw_posteriors(MODEL, IMAGES.repeat(2, 1, 1, 1), torch.arange(6))
    panels = [own for own in figure.axes if own.get_xlabel()]
    for number, (panel, own) in enumerate(zip(panels, 2 * gaps, strict=True)):
        text = "".join(one.get_text() for one in panel.texts).replace("−", "-")
        assert text.startswith(f"a {number}: ")
        for value in (own.log_px, own.elbo, own.log_px - own.elbo, own.family, own.encoder):
            assert f"{value:.2f}" in text
    plt.close(figure)


def test_the_legend_names_the_areas_and_both_normals():
    names = [own.get_label() for own in posterior.legend()]
    assert names == ["posterior: 50 %", "90 %", "99 %", "encoder's q, 1σ and 2σ", "best normal, 1σ and 2σ"]


# ---------------------------------------------------------------- seen with fresh eyes


def vae_of_two_humps():
    """A VAE whose one pixel is white where z₁ is near −2 or 2, the rarer of which is where the encoder looks."""
    model = VAE(2, hidden=4).double().requires_grad_(False)
    for own in model.parameters():
        own.zero_()
    first, _, last = model.decoder
    first.weight[:, 0] = 3.0
    first.bias[:] = torch.tensor([7.5, 4.5, -4.5, -7.5])  # steps at −2.5, −1.5, 1.5 and 2.5
    last.weight[0], last.bias[0] = torch.tensor([6.0, -6.0, 5.0, -5.0]), -8.0
    model.mean_head.bias[0] = 2.0
    model.log_var_head.bias.fill_(-2.0)
    return model


def test_of_two_humps_the_best_normal_is_on_the_larger_one_where_neither_encoder_nor_moments_lead():
    model, image = vae_of_two_humps(), torch.ones(784, dtype=torch.float64)
    side = torch.arange(-20, 21, dtype=torch.float64) * 0.2
    codes = torch.cartesian_prod(side, side)
    joint = posterior.log_joint(model, image[None], codes)[0]
    log_px = joint.logsumexp(0).item() + 2 * math.log(0.2)
    found = posterior.gap(model, image, posterior.Posterior(codes, joint - log_px, 0.2, log_px))
    share = (joint - log_px)[codes[:, 0] < 0].exp().sum() * 0.2**2
    assert found.best[0][0] == pytest.approx(-1.9, abs=0.1)
    assert found.family == pytest.approx(-math.log(share), abs=0.05)


def test_a_search_that_goes_astray_is_not_taken_for_the_best(monkeypatch):
    ways = iter((9.0, 0.0))
    monkeypatch.setattr(posterior, "maximised", lambda bound, mean, log_std, tolerance: (mean + next(ways), log_std))
    start = normals(1)
    assert_close(posterior.best_normal(MODEL, IMAGES[0], *start), (start[0][0], start[1][0]))


def test_the_weights_of_a_model_stay_as_they_can_be_trained():
    model = random_vae(2)
    posterior.exact(model, IMAGES[:1], reach=1.0, spacing=0.5)
    assert all(own.requires_grad for own in model.parameters())


def test_a_posterior_as_wide_as_the_prior_needs_no_finer_grid():
    [own] = posterior.exact(blind_vae(), IMAGES[:1], reach=6.0, spacing=0.25)
    assert own.spacing == 0.25


def test_a_code_beyond_the_last_point_of_the_grid_has_no_density():
    own, _ = narrow_normal(0.6)
    assert own.density(own.codes.amax(0) + 0.03) == 0


def test_the_window_of_a_posterior_holds_it_and_the_ellipses_whole(axis, exact, gaps):
    wide = torch.tensor([2.0, -1.0]).double(), torch.tensor([0.2, -1.0]).double()
    found = dataclasses.replace(gaps[0], q=wide)
    posterior.draw_posterior(axis, MODEL, IMAGES[0], exact[0], found, points=20)
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    for own in (own for own in axis.patches if isinstance(own, Ellipse)):
        assert left < own.center[0] - own.width / 2 < own.center[0] + own.width / 2 < right
        assert bottom < own.center[1] - own.height / 2 < own.center[1] + own.height / 2 < top
    posterior.draw_posterior(axis, MODEL, IMAGES[0], exact[0], gaps[0], points=20)
    (low, high), (x, y) = zip(axis.get_xlim(), axis.get_ylim(), strict=True), exact[0].codes.T
    inside = (low[0] < x) & (x < high[0]) & (low[1] < y) & (y < high[1])
    assert exact[0].log_density[inside].exp().sum() * exact[0].spacing ** 2 > 0.99


def test_what_is_drawn_has_the_shades_and_the_lines_of_the_legend_and_a_mark_at_each_mean(axis, exact, gaps):
    posterior.draw_posterior(axis, MODEL, IMAGES[0], exact[0], gaps[0], points=20)
    *areas, encoder, best = posterior.legend()
    assert [own.get_facecolor() for own in areas] == [*map(tuple, axis.collections[0].get_facecolor())][::-1]
    drawn = [own for own in axis.patches if isinstance(own, Ellipse)]
    for line, ellipse, mark, (mean, _) in zip(
        (encoder, best), drawn[::2], axis.lines, (gaps[0].q, gaps[0].best), strict=True
    ):
        assert to_rgba(line.get_color()) == ellipse.get_edgecolor() == to_rgba(mark.get_color())
        assert line.get_linestyle() == ellipse.get_linestyle()
        assert line.get_marker() == mark.get_marker()
        assert mark.get_xydata()[0] == pytest.approx(mean.numpy())
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("$z_1$", "$z_2$")


def test_each_of_six_panels_shows_its_own_image_and_its_own_posterior(monkeypatch):
    images, drawn = random_images(6, seed=1), []
    monkeypatch.setattr(posterior, "exact", lambda model, x: [*range(6)])
    monkeypatch.setattr(posterior, "gap", lambda model, x, own: posterior.Gap(-own, -own - 1, 0.5, 0.5, (), ()))
    monkeypatch.setattr(posterior, "draw_posterior", lambda axes, model, x, own, gap: drawn.append((x, own, gap)))
    figure = posterior.draw_posteriors(MODEL, images, torch.arange(6))
    thumbnails = [panel.child_axes[0].images[0].get_array().data for panel in figure.axes if panel.child_axes]
    plt.close(figure)
    assert [(own, gap.log_px) for _, own, gap in drawn] == [(own, -own) for own in range(6)]
    for image, (x, *_), thumbnail in zip(images, drawn, thumbnails, strict=True):
        assert (x.flatten() == image.flatten()).all()
        assert (thumbnail == image[0].numpy()).all()
