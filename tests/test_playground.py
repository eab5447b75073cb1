"""The game in the plane without a browser: what each move does to the players, and what is drawn and said of it."""

import base64
import copy
import html
import io
import json
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
import scipy
import torch
import torch.nn.functional as F
from conftest import seeded
from matplotlib.contour import QuadContourSet
from matplotlib.quiver import Quiver
from PIL import Image
from torch import nn
from torch.distributions import Bernoulli
from torch.testing import assert_close

from gm_helpers import batch, explore, figures, game2d, playground
from gm_helpers.game2d import Game2D

pytestmark = pytest.mark.usefixtures("shown")

every_loss = pytest.mark.parametrize("loss", game2d.LOSSES)


def under_way(loss="non-saturating", turns=3, **how):
    """A game after some turns, so that neither player nor optimizer is as it began."""
    game = Game2D(loss=loss, **how)
    game.run(turns)
    return game


def weights(game):
    return {own: [part.detach().clone() for part in parts] for own, parts in game.weights.items()}


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.fixture
def in_float64():
    """All numbers meanwhile: Adam divides by a gradient's size, and one that is 0 but for rounding has none."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# ---------------------------------------------------------------- moves


def by_adam(game, player, gradients):
    """The player's weights after one step of Adam (Kingma & Ba 2015, algorithm 1) from its optimizer's state."""
    after, first, second = [], *game2d.BETAS
    for weight, gradient in zip(game.weights[player], gradients, strict=True):
        state = game.optimizers[player].state[weight]
        step = state["step"] + 1
        mean = first * state["exp_avg"] + (1 - first) * gradient
        square = second * state["exp_avg_sq"] + (1 - second) * gradient**2
        scale = (square / (1 - second**step)).sqrt() + 1e-8
        after.append((weight - game2d.RATES[player] * mean / (1 - first**step) / scale).detach())
    return after


def next_draws(game):
    """What the game draws next, of a generator of the same state: data and noise."""
    rng = torch.Generator()
    rng.set_state(game.rng.get_state())
    return rng, game2d.POINTS[game.points](game2d.BATCH, rng), torch.randn(game2d.BATCH, 2, generator=rng)


@pytest.mark.usefixtures("in_float64")
@every_loss
def test_a_step_of_d_is_one_of_adam_on_d_s_weights_and_moves_no_other(loss):
    game = under_way(loss)
    rng, real, noise = next_draws(game)
    fake = game.generator(noise).detach()
    if loss == "Wasserstein":
        between = (real + torch.rand(game2d.BATCH, 1, generator=rng) * (fake - real)).requires_grad_()
        [slope] = torch.autograd.grad(game.discriminator(between).sum(), between, create_graph=True)
        penalty = game2d.PENALTY * (slope.square().sum(1).sqrt() - 1).square().mean()
        value = game.discriminator(fake).mean() - game.discriminator(real).mean() + penalty
    else:
        logits, labels = game.discriminator(torch.cat([real, fake])), torch.arange(2 * game2d.BATCH) < game2d.BATCH
        value = 2 * F.binary_cross_entropy_with_logits(logits, labels.double())
    expected = by_adam(game, "D", torch.autograd.grad(value, game.weights["D"]))
    before = weights(game)
    game.step_discriminator()
    assert_close(weights(game)["D"], expected)
    assert not equal(weights(game)["D"], before["D"])
    assert equal(weights(game)["G"], before["G"])
    assert game.history["D"][-1][1] == pytest.approx(value.item())


@pytest.mark.usefixtures("in_float64")
@every_loss
def test_a_step_of_g_is_one_of_adam_on_g_s_weights_and_moves_no_other(loss):
    game = under_way(loss)
    rng = torch.Generator()
    rng.set_state(game.rng.get_state())
    value = game.generator_loss(torch.randn(game2d.BATCH, 2, generator=rng))
    expected = by_adam(game, "G", torch.autograd.grad(value, game.weights["G"]))
    before = weights(game)
    game.step_generator()
    assert_close(weights(game)["G"], expected)
    assert not equal(weights(game)["G"], before["G"])
    assert equal(weights(game)["D"], before["D"])
    assert game.history["G"][-1][1] == pytest.approx(value.item())


@pytest.mark.parametrize(
    ("loss", "formula"),
    [("saturating", lambda d: torch.log(1 - d)), ("non-saturating", lambda d: -torch.log(d))],
)
def test_g_s_loss_is_that_of_the_paper(loss, formula):
    game, noise = under_way(loss), torch.randn(50, 2, generator=seeded(1))
    d = Bernoulli(logits=game.discriminator(game.generator(noise)).double()).probs
    assert game.generator_loss(noise).item() == pytest.approx(formula(d).mean().item(), abs=1e-6)


def test_against_a_critic_g_s_loss_is_how_far_its_values_on_data_lie_above_those_on_samples():
    game, noise = under_way("Wasserstein"), torch.randn(50, 2, generator=seeded(1))
    expected = game.discriminator(game.real).mean() - game.discriminator(game.generator(noise)).mean()
    assert_close(game.generator_loss(noise), expected)


@every_loss
def test_moves_are_counted_and_their_losses_kept_in_their_order(loss):
    game = Game2D(loss=loss)
    game.step_discriminator()
    assert game.steps == {"D": 1, "G": 0}
    game.step_generator()
    game.step_generator()
    assert game.steps == {"D": 1, "G": 2}
    game.run()
    critic = 5 if loss == "Wasserstein" else 1
    assert game.steps == {"D": 1 + 50 * critic, "G": 52}
    game.alone("D")
    game.alone("G")
    assert game.steps == {"D": 51 + 50 * critic, "G": 102}
    moments = {own: [moment for moment, _ in game.history[own]] for own in "DG"}
    assert sorted(moments["D"] + moments["G"]) == list(range(1, sum(game.steps.values()) + 1))
    assert moments["D"][: 1 + critic] == [1, *range(4, 4 + critic)]
    assert moments["G"][:3] == [2, 3, 4 + critic]
    assert moments["G"][-50:] == list(range(moments["G"][-1] - 49, moments["G"][-1] + 1))


@every_loss
def test_the_same_seed_gives_the_same_game_again_and_another_seed_another(loss):
    games = []
    for number, seed in enumerate((0, 0, 1)):
        torch.manual_seed(number)  # whatever else has been drawn
        games.append(under_way(loss, seed=seed))
    first = [weights(own) for own in games]
    assert all(equal(first[0][own], first[1][own]) for own in "DG")
    assert not any(equal(first[0][own], first[2][own]) for own in "DG")
    games[0].start()
    assert games[0].steps == {"D": 0, "G": 0}
    assert games[0].history == {"D": [], "G": []}
    games[0].run(3)
    assert all(equal(first[0][own], weights(games[0])[own]) for own in "DG")
    assert games[0].history == games[1].history


def test_a_game_leaves_torch_s_own_random_numbers_alone():
    before = torch.get_rng_state()
    under_way("Wasserstein")
    assert torch.equal(torch.get_rng_state(), before)


def test_between_the_two_losses_of_a_probability_the_game_goes_on_and_g_s_curve_is_broken():
    game = under_way("non-saturating")
    before, steps, history = weights(game), dict(game.steps), copy.deepcopy(game.history)
    game.choose("ring of eight", "saturating")
    assert all(equal(weights(game)[own], before[own]) for own in "DG")
    assert game.steps == steps
    assert game.history["D"] == history["D"]
    assert game.history["G"][:-1] == history["G"]
    assert game.history["G"][-1] == (6, pytest.approx(np.nan, nan_ok=True))
    noise = torch.randn(9, 2, generator=seeded(0))
    assert game.generator_loss(noise) < 0  # log(1 − D) is, −log D never


@pytest.mark.parametrize(
    ("points", "loss"), [("two moons", "saturating"), ("one normal", "saturating"), ("ring of eight", "Wasserstein")]
)
def test_other_data_or_another_meaning_of_d_start_a_new_game(points, loss):
    for game, chosen in (
        (under_way("saturating"), (points, loss)),
        (under_way(loss, points=points), ("ring of eight", "saturating")),
    ):
        game.choose(*chosen)
        anew = Game2D(*chosen)
        assert (game.points, game.loss, game.steps) == (*chosen, {"D": 0, "G": 0})
        assert game.is_wasserstein == ("Wasserstein" in chosen)
        assert all(equal(weights(game)[own], weights(anew)[own]) for own in "DG")
        assert torch.equal(game.real, anew.real)


def test_choosing_what_is_played_changes_nothing():
    game = under_way("Wasserstein")
    before, history = weights(game), copy.deepcopy(game.history)
    game.choose("ring of eight", "Wasserstein")
    assert all(equal(weights(game)[own], before[own]) for own in "DG")
    assert game.history == history


def test_noise_is_standard_normal_and_drawn_anew_each_time():
    game = Game2D()
    noise = torch.cat([game.draw_noise(50_000), game.draw_noise(50_000)])
    assert noise.mean(0).tolist() == pytest.approx([0, 0], abs=0.016)  # five standard errors
    assert torch.cov(noise.T).numpy() == pytest.approx(np.eye(2), abs=0.023)
    assert len(noise.unique(dim=0)) > 99_900


def test_one_normal_has_the_mean_and_deviation_that_it_says():
    x = game2d.one_normal(100_000, seeded(0))
    assert x.dtype == torch.float32
    assert x.mean(0).tolist() == pytest.approx([0.8, 0.5], abs=0.005)  # five standard errors
    assert torch.cov(x.T).numpy() == pytest.approx(0.09 * np.eye(2), abs=0.002)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["non-saturating", "saturating"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ten_runs_bring_samples_to_all_eight_places_of_the_ring(loss, seed):
    game = under_way(loss, turns=500, seed=seed)
    angle = torch.arange(8) * (torch.pi / 4)
    samples = game.generator(torch.randn(1000, 2, generator=seeded(1)))
    distance, nearest = torch.cdist(samples, torch.stack([angle.cos(), angle.sin()], 1)).min(1)
    assert (distance < 0.2).float().mean() > 0.6
    assert (nearest[distance < 0.2].bincount(minlength=8) > 20).all()


# ---------------------------------------------------------------- slopes


class Linear(nn.Module):
    """A discriminator whose logit rises by `slope` (2,) for each unit of length."""

    def __init__(self, *slope):
        super().__init__()
        self.slope = torch.tensor(slope, dtype=torch.float64)

    def forward(self, x):
        return x.double() @ self.slope - 0.3


@every_loss
def test_an_arrow_is_minus_the_slope_of_g_s_loss_in_closed_form_for_a_linear_d(loss):
    game, x = Game2D(loss=loss), torch.randn(20, 2, dtype=torch.float64, generator=seeded(0))
    game.discriminator = Linear(3.0, -2.0)
    d = game.discriminator(x).sigmoid()[:, None]
    size = {"saturating": d, "non-saturating": 1 - d, "Wasserstein": torch.ones_like(d)}[loss]
    assert_close(game.pull(x), size * game.discriminator.slope)


@every_loss
def test_an_arrow_is_minus_the_slope_of_g_s_loss_by_finite_differences(loss):
    game, x = under_way(loss, turns=20), torch.randn(10, 2, dtype=torch.float64, generator=seeded(0))
    game.discriminator.double()
    step = 1e-6 * torch.eye(2, dtype=torch.float64)
    with torch.no_grad():
        value = [
            game2d.LOSSES[loss](game.discriminator((x[:, None] + sign * step).flatten(0, 1))).view(10, 2)
            for sign in (1, -1)
        ]
    assert_close(game.pull(x), -(value[0] - value[1]) / 2e-6, atol=1e-6, rtol=1e-5)


def test_an_arrow_of_the_saturating_loss_is_that_of_the_other_one_times_d_over_1_minus_d():
    game = Game2D()
    game.alone("D")
    x = game.samples()
    arrows = game.pull(x)
    game.choose("ring of eight", "saturating")
    d = game.verdicts(x).double()[:, None]
    assert_close(game.pull(x).double(), d / (1 - d) * arrows.double(), atol=1e-6, rtol=1e-4)
    assert game.pull(x).norm(dim=1).median() < 0.01 * arrows.norm(dim=1).median()  # D is ahead


@every_loss
def test_the_norm_of_g_s_gradient_is_that_of_its_loss_for_the_noise_that_is_shown(loss):
    game = under_way(loss)
    generator = copy.deepcopy(game.generator)
    game2d.LOSSES[loss](game.discriminator(generator(game.noise))).mean().backward()
    expected = sum(own.grad.double().square().sum() for own in generator.parameters()).sqrt().item()
    assert game.gradient_norm() == pytest.approx(expected, rel=1e-5)


def test_a_verdict_is_a_probability_or_a_critic_s_value():
    x = torch.randn(9, 2, generator=seeded(0))
    for loss, expected in (("saturating", torch.sigmoid), ("Wasserstein", lambda value: value)):
        game = under_way(loss)
        assert_close(game.verdicts(x), expected(game.discriminator(x)).detach())


def test_the_samples_are_g_s_points_for_the_noise_that_is_shown_or_for_any():
    game, noise = under_way(), torch.randn(7, 2, generator=seeded(0))
    assert torch.equal(game.samples(), game.generator(game.noise))
    assert torch.equal(game.samples(noise), game.generator(noise))
    assert not game.samples().requires_grad


def test_a_critic_of_any_constant_slope_finds_how_far_the_means_lie_apart_in_its_direction():
    game = Game2D("one normal", "Wasserstein")
    for slope in ((1.0, 0.0), (0.0, 7.0), (-30.0, 40.0)):
        game.discriminator = Linear(*slope)
        direction = torch.tensor(slope, dtype=torch.float64) / np.hypot(*slope)
        expected = (game.real.mean(0) - game.samples().mean(0)).double() @ direction
        assert game.distance() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("points", game2d.POINTS)
def test_a_trained_critic_finds_most_of_the_distance_of_the_best_transport_and_no_more(points):
    game = Game2D(points, "Wasserstein")
    for _ in range(4):
        game.alone("D")
    costs = torch.cdist(game.samples(), game.real).numpy()
    distance = costs[scipy.optimize.linear_sum_assignment(costs)].mean()  # between as many points on both sides
    assert 0.75 * distance < game.distance() < 1.01 * distance


# ---------------------------------------------------------------- pictures and words


def drawn(game, **how):
    """The figure's axes: the map, the colour bar, the losses."""
    figure = playground.draw(game, **how)
    figure.canvas.draw()
    return figure.axes


def part(axis, kind):
    [own] = [own for own in axis.get_children() if isinstance(own, kind)]
    return own


def colour_at(axis, x, y):
    """What is painted at a point of the plane, three parts from 0 to 1."""
    pixels = np.asarray(axis.figure.canvas.buffer_rgba())
    column, row = axis.transData.transform((x, y)).round().astype(int)
    return pixels[pixels.shape[0] - 1 - row, column, :3] / 255


@pytest.mark.parametrize("layout", [playground.WIDE, playground.TALL], ids=["wide", "tall"])
def test_the_map_has_d_s_probability_everywhere_blue_for_data_and_orange_for_samples(layout):
    game = Game2D()
    game.discriminator = Linear(3.0, 1.0)
    axis = drawn(game, layout=layout)[0]
    for x, y in ((-1.7, 0.3), (-1.3, -1.3), (1.5, 0.2), (1.7, -1.7), (0.4, -0.6), (-0.4, 0.6)):
        probability = 1 / (1 + np.exp(-(3 * x + y - 0.3)))
        band = (np.floor(20 * probability) + 0.5) / 20
        assert colour_at(axis, x, y) == pytest.approx(playground.PALE(band)[:3], abs=0.02)
    left, right = colour_at(axis, -1.7, 0.3), colour_at(axis, 1.7, -0.3)
    assert left[0] > left[2]
    assert right[2] > right[0]


def test_the_map_of_a_critic_has_its_0_half_way_between_its_means_on_samples_and_on_data():
    game = Game2D("one normal", "Wasserstein")
    game.discriminator = Linear(0.8, 0.0)
    axis, bar, _ = drawn(game)
    middle = (game.real[:, 0].mean() + game.samples()[:, 0].mean()).item() / 2
    for x, y in ((-1.7, 0.3), (-0.8, -1.3), (1.3, -0.9), (1.7, -1.7)):
        band = (np.floor((0.8 * (x - middle) + 2) * 5) + 0.5) / 20
        assert colour_at(axis, x, y) == pytest.approx(playground.PALE(band)[:3], abs=0.02)
    assert [own.get_text().replace("−", "-") for own in bar.get_yticklabels()] == ["-2", "-1", "0", "1", "2"]
    assert "critic" in bar.get_ylabel()


@every_loss
def test_data_samples_and_arrows_stand_where_the_game_has_them(loss):
    game = under_way(loss, turns=20)
    axis = drawn(game)[0]
    data, samples, _ = axis.lines
    assert data.get_xydata() == pytest.approx(game.real.numpy())
    assert samples.get_xydata() == pytest.approx(game.samples().numpy())
    assert data.get_marker() != samples.get_marker()
    quiver, pull = part(axis, Quiver), game.pull(game.samples()[:40]).numpy()
    assert quiver.get_offsets() == pytest.approx(game.samples()[:40].numpy())
    length = (0.2 if loss == "Wasserstein" else 0.1) * np.linalg.norm(pull, axis=1, keepdims=True)
    expected = pull / np.linalg.norm(pull, axis=1, keepdims=True) * np.minimum(length, 0.6)
    assert np.stack([quiver.U, quiver.V], 1) == pytest.approx(expected, abs=1e-6)
    assert (quiver.angles, quiver.scale_units, quiver.scale) == ("xy", "xy", 1)  # in units of the plane


def test_arrows_are_short_where_d_is_sure_with_the_saturating_loss_and_as_long_as_any_with_the_other():
    lengths = {}
    for loss in ("saturating", "non-saturating"):
        game = Game2D(loss=loss)
        game.alone("D")
        quiver = part(drawn(game)[0], Quiver)
        lengths[loss] = np.median(np.hypot(quiver.U, quiver.V))
    assert lengths["saturating"] < 0.02
    assert lengths["non-saturating"] == pytest.approx(0.6)


@every_loss
def test_nothing_of_the_picture_s_frame_moves_from_one_step_to_the_next(loss):
    frames = []
    for turns in (0, 1, 8):
        game = Game2D(loss=loss)
        game.run(turns)
        axes = drawn(game)
        frames.append([(own.get_position().bounds, own.get_xlim(), own.get_ylim(), own.get_xlabel()) for own in axes])
        assert part(axes[0], QuadContourSet).get_clim() == ((-2, 2) if loss == "Wasserstein" else (0, 1))
    assert frames[0] == frames[1] == frames[2]


def test_the_losses_are_those_of_all_steps_on_an_axis_that_doubles_when_it_is_full():
    game, ends = Game2D(), []
    for turns in (0, 50, 1, 49, 1):
        game.run(turns)
        axis = drawn(game)[2]
        ends.append(axis.get_xlim()[1])
    assert ends == [100, 100, 200, 200, 400]
    for line, player in zip(axis.lines, "DG", strict=False):
        assert [*map(tuple, line.get_xydata())] == game.history[player]
    assert axis.lines[2].get_ydata() == pytest.approx([2 * np.log(2)] * 2)  # of D = ½ everywhere
    assert len({line.get_linestyle() for line in axis.lines}) == 3


@pytest.mark.parametrize("layout", [playground.WIDE, playground.TALL], ids=["wide", "tall"])
@every_loss
def test_no_name_in_the_picture_is_cut_off_or_written_over_another(loss, layout):
    figure = drawn(under_way(loss, turns=20), layout=layout)[0].figure
    names = [own.get_window_extent() for own in figure.findobj(plt.Text) if own.get_text() and own.get_visible()]
    assert len(names) > 15
    inside = figure.bbox.padded(1)
    assert [own for own in names if not (inside.x0 <= own.x0 < own.x1 <= inside.x1)] == []
    assert [own for own in names if not (inside.y0 <= own.y0 < own.y1 <= inside.y1)] == []
    marks = [own for i, own in enumerate(names) if any(own.overlaps(other) for other in names[:i])]
    assert marks == []


def numbers(reading):
    return [float(own.replace("−", "-")) for own in re.findall(r"−?\d+(?:\.\d+)?(?:e-\d+)?", reading)]


@pytest.mark.parametrize("loss", ["non-saturating", "saturating"])
def test_the_reading_tells_steps_verdicts_and_slopes(loss):
    game = under_way(loss, turns=20)
    game.step_discriminator()
    with torch.no_grad():
        verdicts = [game.discriminator(own).sigmoid().mean().item() for own in (game.real, game.samples())]
    longest = game.pull(game.samples()[:40]).norm(dim=1).max().item()
    expected = [21, 20, *verdicts, game.gradient_norm(), longest, 1, 0.1, 0.6]
    assert numbers(playground.read(game)) == pytest.approx(expected, rel=0.05, abs=6e-4)
    assert playground.read(game).startswith("Steps: D 21, G 20; ")


def test_the_reading_says_how_many_samples_are_out_of_sight():
    game = Game2D()
    assert "outside" not in playground.read(game)
    for _ in range(16):  # without a move of D they run where its map rises, all together
        game.step_generator()
    x, y = game.samples().T
    count = sum(not (-2 <= a <= 2 and -2 <= b <= 2) for a, b in zip(x.tolist(), y.tolist(), strict=True))
    assert 0 < count < 300
    assert playground.read(game).endswith(f" {count} of 300 samples lie outside the picture.")


def test_the_reading_of_a_critic_tells_its_distance():
    game = under_way("Wasserstein", turns=5)
    expected = [25, 5, game.distance(), game.gradient_norm()]
    assert numbers(playground.read(game))[:4] == pytest.approx(expected, rel=0.05, abs=6e-3)
    game.discriminator = Linear(-1.0, 0.0)
    game.real = game.real + torch.tensor([5.0, 0.0])
    assert "−5." in playground.read(game) or "−4." in playground.read(game)  # the minus of the sliders


def test_a_note_says_what_a_choice_did():
    game = Game2D()
    assert "A new game" in playground.note(game)
    assert "a step of D" in playground.note(game)
    game.step_generator()
    assert playground.note(game) == ""
    game.choose("ring of eight", "saturating")
    assert playground.note(game) == " The game goes on; from here on G's loss is saturating."
    game.step_generator()
    assert playground.note(game) == ""
    game.choose("ring of eight", "Wasserstein")
    assert "A new game" in playground.note(game)
    assert "5 steps of D" in playground.note(game)


# ---------------------------------------------------------------- the widget, and the stages


@pytest.fixture
def show(shown, monkeypatch):
    """Shows the widget and returns it, with one stage of each loss and a still of one map, so that it takes no time."""
    monkeypatch.setattr(playground, "stages", lambda loss, seed: [Game2D(loss=loss, seed=seed)])
    monkeypatch.setattr(playground, "draw_still", playground.draw)

    def call(*arguments):
        playground.playground(*arguments)
        return explore.live[playground.NAME]

    return call


def said(explorer):
    return html.unescape(re.sub(r"<[^>]*>", "", explorer.reading.value))


def press(explorer, label):
    """Press a button as a frontend does; returns what the line then reads."""
    [button] = [own for own in explorer.buttons if own.description == label]
    before = explorer.picture.value
    button.click()
    assert explorer.picture.value != before
    return said(explorer)


@pytest.mark.slow
def test_each_button_makes_its_move_and_shows_it(show):
    explorer = show()
    assert said(explorer).startswith("Steps: D 0, G 0; ")
    assert "A new game" in said(explorer)
    labels = "step D", "step G", "step D", "50 × D", "50 × G", "run 50 turns", "start again"
    steps = [numbers(press(explorer, own))[:2] for own in labels]
    assert steps == [[1, 0], [1, 1], [2, 1], [52, 1], [52, 51], [102, 101], [0, 0]]
    assert [own.description for own in explorer.buttons] == [*labels[:2], *labels[3:]]


def test_the_picture_and_the_reading_are_those_of_the_game_with_these_moves(show):
    explorer, game = show("", 3), Game2D(seed=3)
    press(explorer, "step D")
    press(explorer, "run 50 turns")
    game.step_discriminator()
    game.run()
    assert said(explorer) == playground.read(game)
    assert explorer.picture.value == explore.png(playground.draw(game))


@pytest.mark.slow
def test_the_lists_choose_data_and_loss(show):
    explorer = show()
    press(explorer, "step D")
    explorer.controls["loss"].value = "saturating"
    assert said(explorer).startswith("Steps: D 1, G 0; ")
    assert "The game goes on" in said(explorer)
    explorer.controls["points"].value = "two moons"
    assert said(explorer) == playground.read(Game2D("two moons", "saturating")) + playground.note(Game2D())
    press(explorer, "step D")
    explorer.controls["loss"].value = "Wasserstein"
    assert said(explorer).startswith("Steps: D 0, G 0; the critic")


def stored(shown):
    """What the page of the last output is given, by the loss."""
    call = re.search(r"^start\((\"[^\"]+\"), (\{.*\})\);$", shown[-1].content["text/html"], flags=re.MULTILINE)
    assert json.loads(call[1]) == playground.NAME
    return json.loads(call[2])


def decoded(picture):
    return Image.open(io.BytesIO(base64.b64decode(picture)))


def test_after_the_still_picture_come_the_widget_and_a_page_which_are_not_committed(show, shown, tmp_path):
    show(str(tmp_path))
    still, *_, widget, page = shown
    assert [batch._lives(own.content) for own in shown] == [False, False, True, True, True]
    assert batch.WIDGET in widget.content
    assert still.content["image/png"] == (tmp_path / "2.5-playground.png").read_bytes()
    late = Game2D()  # the last stage of the non-saturating game, here the only one
    assert still.content["image/png"] == figures.with_palette(
        io.BytesIO(explore.png(playground.draw(late))), still.metadata["image/png"]["alt"]
    )
    assert (tmp_path / "2.5-playground.txt").read_text() == still.metadata["image/png"]["alt"] + "\n"
    text = page.content["text/html"]
    assert re.findall(r"</?(?:div|script|style)\b", text)[-4:] == ["<div", "</div", "<script", "</script"]
    assert '<div class="gm-page gm-stages" data-page="2.5-playground"></div>' in text


@every_loss
def test_stages_begin_with_the_start_and_d_ahead_and_go_on_as_the_game_does(loss, monkeypatch):
    monkeypatch.setattr(playground, "STORED", {False: (0, 2, 5), True: (0, 1, 3)})
    game, found = Game2D(loss=loss, seed=1), [playground.read(own) for own in playground.stages(loss, 1)]
    expected = [playground.read(game)]
    game.alone("D")
    expected.append(playground.read(game))
    for turns in (1, 2) if loss == "Wasserstein" else (2, 3):
        game.run(turns)
        expected.append(playground.read(game))
    assert found == expected


def test_the_page_has_the_stages_of_each_loss(show, shown):
    show("", 1)
    data = stored(shown)
    assert [*data] == [*game2d.LOSSES]
    for loss, own in data.items():
        assert own == [playground.store(Game2D(loss=loss, seed=1))]
        assert own[0]["reading"] == playground.read(Game2D(loss=loss, seed=1))


def test_a_stored_picture_is_the_drawing_in_colours_that_are_all_near():
    game = under_way(turns=30)
    figure, buffer = playground.draw(game, playground.TALL), io.BytesIO()
    figure.savefig(buffer, dpi=80)
    exact, picture = Image.open(buffer).convert("RGB"), decoded(playground.store(game)["picture"])
    assert (picture.format, picture.mode, picture.size) == ("PNG", "P", (368, 472))
    error = np.abs(np.asarray(exact, float) - np.asarray(picture.convert("RGB"), float)).max(2)
    assert np.quantile(error, 0.9) <= 3
    assert error.max() < 90
    assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_the_still_picture_has_the_same_players_with_either_loss_and_a_late_game():
    late = under_way(turns=20, seed=2)
    figure = playground.draw_still(late)
    figure.canvas.draw()
    *maps, bar = figure.axes
    saturating, other, _ = ([own.U, own.V] for own in (part(axis, Quiver) for axis in maps))
    assert np.median(np.hypot(*saturating)) < 0.05 * np.median(np.hypot(*other))
    same = [axis.lines[1].get_xydata() for axis in maps]
    assert np.array_equal(same[0], same[1])
    assert same[2] == pytest.approx(late.samples().numpy())
    assert "20 turns later" in maps[2].get_title()
    assert bar.get_ylabel() == "D: probability of data"
    assert (figure.get_size_inches() == playground.draw(late).get_size_inches()).all()  # which takes its place
    names = [own.get_window_extent() for own in figure.findobj(plt.Text) if own.get_text() and own.get_visible()]
    assert all(figure.bbox.padded(1).contains(*corner) for own in names for corner in own.corners())
    norms = [float(axis.get_title().rpartition(" ")[2]) for axis in maps]
    assert norms[2] == pytest.approx(late.gradient_norm(), rel=0.05)
    assert norms[0] < 0.1 * norms[1]


@pytest.mark.slow
def test_what_a_notebook_stores_is_light_and_teaches(shown):
    with plt.rc_context():
        figures.use_style()
        playground.playground()
    data = stored(shown)
    assert sum(len(stage["picture"]) for own in data.values() for stage in own) < 450_000
    assert [len(own) for own in data.values()] == [9, 9, 9]
    for loss in ("saturating", "non-saturating"):
        ahead = numbers(data[loss][1]["reading"])
        assert ahead[2] > 0.9 > 0.1 > ahead[3]  # D is sure of both
        assert (ahead[4] < 0.2) == (loss == "saturating")  # the norm of G's gradient
