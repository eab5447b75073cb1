"""What the widgets of notebook 2 show."""

import io
import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import scipy
import sliders
import torch
from conftest import normal
from matplotlib.patches import Circle
from PIL import Image
from sliders import axes, labelled, numbers, only, set_to, to_three_decimals
from torch.testing import assert_close

from gm_helpers import explore, gan, gan_widgets

pytestmark = pytest.mark.usefixtures("shown")


def stage(seed):
    samples = normal(30, 2, seed=seed).clamp(-1.9, 1.9)
    return gan_widgets.Stage(samples, (gan_widgets.square(11).double() @ normal(2, seed=seed)).sigmoid())


STAGES = {1.0: stage(4), 0.0: stage(5), 0.25: stage(6)}
POINTS, CENTRES, RADIUS = normal(20, 2, seed=8).clamp(-1.9, 1.9), normal(8, 2, seed=7).clamp(-1.5, 1.5), 0.3


def conditional():
    """An untrained game, generator alone, whose batch norm has seen something."""
    torch.manual_seed(0)
    model = gan.ConditionalGAN(latent_dim=16, width=4)
    del model.discriminator
    model.generator(torch.randn(50, 16), torch.arange(50) % 10)
    return model.eval()


MODEL = conditional()
WIDGETS = {
    "best_discriminator": gan_widgets.best_discriminator,
    "generator_losses": gan_widgets.generator_losses,
    "samples_over_training": lambda folder="": gan_widgets.samples_over_training(
        STAGES, POINTS, CENTRES, RADIUS, folder
    ),
    "draw_digit": lambda folder="": gan_widgets.draw_digit(MODEL, folder),
}
every_widget = pytest.mark.parametrize("show", WIDGETS.values(), ids=WIDGETS)

# ---------------------------------------------------------------- the best discriminator


def integral(integrand):
    x = np.linspace(-60, 60, 240_001)
    return np.trapezoid(integrand(x), x)


def worth(mean, std, logit=None):
    """V, by probabilities' logarithms from SciPy's densities; of the best discriminator where there is no logit."""
    data, samples = scipy.stats.norm(1, 1), scipy.stats.norm(mean, std)

    def integrand(x):
        a = data.logpdf(x) - samples.logpdf(x) if logit is None else logit(x)
        return -data.pdf(x) * np.logaddexp(0, -a) - samples.pdf(x) * np.logaddexp(0, a)

    return integral(integrand)


@pytest.mark.parametrize(("mean", "std"), [(-1, 1.5), (-4, 0.3), (4, 3), (0.5, 0.3), (-3, 1)])
def test_the_best_discriminator_reads_its_value_the_divergence_and_what_another_s_value_proves_of_it(mean, std):
    gan_widgets.best_discriminator()
    reading = set_to(mean=mean, std=std)
    best, other = worth(mean, std), worth(mean, std, lambda x: 2 * x)
    data, samples = scipy.stats.norm(1, 1), scipy.stats.norm(mean, std)
    log_m = lambda x: np.logaddexp(data.logpdf(x), samples.logpdf(x)) - np.log(2)  # noqa: E731
    kls = [integral(lambda x, own=own: own.pdf(x) * (own.logpdf(x) - log_m(x))) for own in (data, samples)]
    bound = (other + np.log(4)) / 2
    found = numbers(reading.replace("(JSD ≥", "JSD ≥").replace(")", " ").replace(" 4", ""))
    assert found == to_three_decimals(best, sum(kls) / 2, other, bound)
    assert ("proves nothing" in reading) == (bound <= 0)


def test_against_samples_that_are_like_the_data_the_value_reads_minus_log_4_and_the_divergence_0():
    gan_widgets.best_discriminator()
    reading = set_to(mean=1, std=1)
    assert reading.startswith("V(D*, G) = −1.386 nats, JSD = (V + log 4)/2 = 0.000 nats; ")
    assert "proves nothing" in reading


@pytest.mark.parametrize(("mean", "std"), [(-1.0, 1.5), (-4.0, 0.3), (2.0, 2.5)])
def test_the_densities_and_both_discriminators_are_drawn_as_their_legends_call_them(mean, std):
    gan_widgets.best_discriminator()
    upper, lower = axes(mean=mean, std=std)
    x, p = labelled(upper)["$p_{data}$ = N(1, 1)"].get_data()
    q = labelled(upper)["$p_g$"].get_ydata()
    assert p == pytest.approx(scipy.stats.norm.pdf(x, 1, 1))
    assert q == pytest.approx(scipy.stats.norm.pdf(x, mean, std))
    likely = p + q > 1e-200
    assert labelled(lower)["$D^*$, the best"].get_ydata()[likely] == pytest.approx((p / (p + q))[likely])
    assert labelled(lower)["$\\sigma(2x)$"].get_ydata() == pytest.approx(1 / (1 + np.exp(-2 * x)))
    assert max(p.max(), q.max()) < upper.get_ylim()[1]
    assert upper.get_xlim() == lower.get_xlim()


@pytest.mark.parametrize(("mean", "std", "count"), [(-1.0, 1.5, 2), (-1.0, 1.0, 1), (1.0, 1.0, 0), (0.5, 0.3, 2)])
def test_where_the_densities_cross_a_line_goes_through_both_panels_and_the_best_discriminator_says_one_half(
    mean, std, count
):
    gan_widgets.best_discriminator()
    panels = axes(mean=mean, std=std)
    upright = [[own.get_xdata()[0] for own in axis.lines if own.get_linewidth() == 0.5] for axis in panels]
    assert upright[0] == upright[1]
    assert len(upright[0]) == count
    for x in upright[0]:
        p, q = scipy.stats.norm.pdf(x, 1, 1), scipy.stats.norm.pdf(x, mean, std)
        assert p / (p + q) == pytest.approx(0.5, abs=0.03)
    [half] = [own for own in panels[1].lines if own.get_linestyle() == ":"]
    assert {*half.get_ydata()} == {0.5}


def test_the_best_discriminator_starts_with_the_samples_of_section_2_2(shown):
    gan_widgets.best_discriminator()
    assert {name: own.value for name, own in only().controls.items()} == {"mean": -1, "std": 1.5}
    assert "N(−1, 1.5²)" in shown[0].metadata["image/png"]["alt"]


# ---------------------------------------------------------------- the generator's losses


@pytest.mark.parametrize("logit", [-8, -4, 0, 2.5, 8])
def test_the_generator_s_losses_read_their_values_and_slopes_from_probabilities(logit):
    gan_widgets.generator_losses()
    p = 1 / (1 + np.exp(-logit))
    assert numbers(set_to(logit=logit)) == to_three_decimals(p, np.log(1 - p), -p, -np.log(p), -(1 - p))


def test_each_of_the_generator_s_losses_is_drawn_with_its_point_and_tangent():
    gan_widgets.generator_losses()
    lines, p = axes(logit=1.0)[0].lines, 1 / (1 + np.exp(-1))
    cases = [(lines[:3], lambda q: np.log(1 - q), -p), (lines[3:], lambda q: -np.log(q), -(1 - p))]
    for (curve, tangent, point), loss, slope in cases:
        a, value = curve.get_data()
        assert value == pytest.approx(loss(1 / (1 + np.exp(-a.astype(float)))), abs=1e-5)
        assert point.get_xydata() == pytest.approx(np.array([[1, loss(p)]]))
        expected = [[-0.5, loss(p) - 1.5 * slope], [2.5, loss(p) + 1.5 * slope]]
        assert tangent.get_xydata() == pytest.approx(np.array(expected), abs=1e-5)


# ---------------------------------------------------------------- a training in the plane


def test_stages_come_in_the_order_of_the_training_and_start_at_its_end():
    WIDGETS["samples_over_training"]()
    assert set_to().startswith("after 100 % of the steps: ")
    for number, fraction in enumerate((0.0, 0.25, 1.0)):
        assert set_to(stage=number).startswith(f"after {100 * fraction:.0f} % of the steps: ")
        data, samples = (own.get_offsets().data for own in axes(stage=number)[0].collections[1:])
        assert (data == POINTS.numpy()).all()
        assert (samples == STAGES[fraction].samples.numpy()).all()
    [player] = only().player
    assert player.max == 2


def test_the_alternative_text_of_a_training_says_how_many_modes_its_end_covers(shown):
    centres = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    begin, end = (gan_widgets.Stage(torch.full((50, 2), own), torch.zeros(9)) for own in (1.9, 0.0))
    gan_widgets.samples_over_training({1.0: end, 0.0: begin}, POINTS, centres, 0.1)
    assert shown[0].metadata["image/png"]["alt"].endswith("circles around their modes: 1 of 2 modes covered.")


def test_below_the_samples_is_the_map_of_d_with_the_first_coordinate_to_the_right():
    WIDGETS["samples_over_training"]()
    axis, bar = axes(stage=1)
    mesh, direction = axis.collections[0], normal(2, seed=6)
    places = torch.as_tensor(mesh.get_coordinates()).double()
    expected = (places @ direction).sigmoid()
    assert_close(torch.as_tensor(np.asarray(mesh.get_array())).view(11, 11), expected, atol=1e-6, rtol=0)
    assert mesh.get_clim() == (0.3, 0.7)
    sample, half, data = (mesh.to_rgba(own) for own in (0.0, 0.5, 1.0))
    assert (sample[0] > sample[2], data[0] < data[2], half[:3]) == (True, True, pytest.approx((1, 1, 1), abs=0.01))
    assert bar.get_ylabel() == "$D(x)$"
    corners = places[0, 0].tolist(), places[0, -1].tolist(), places[-1, 0].tolist()
    assert corners == ([-2, -2], [2, -2], [-2, 2])


def test_the_square_is_an_even_grid_whose_first_coordinate_runs_fastest():
    points = gan_widgets.square(5)
    assert points[:5, 0].tolist() == [-2, -1, 0, 1, 2]
    assert points[::5, 1].tolist() == [-2, -1, 0, 1, 2]
    assert (points.view(5, 5, 2)[..., 0] == points[:5, 0]).all()
    assert len(gan_widgets.square()) == 81**2


def test_nothing_in_the_square_is_cut_off_and_its_circles_are_the_modes_true_to_scale():
    _, axis = plt.subplots()
    gan_widgets.draw_stage(axis, STAGES[0.25], POINTS, CENTRES, RADIUS)
    assert axis.get_xlim() == axis.get_ylim() == (-gan_widgets.REACH, gan_widgets.REACH)
    circles = [own for own in axis.patches if isinstance(own, Circle)]
    assert np.array([own.center for own in circles]) == pytest.approx(CENTRES.numpy())
    assert {own.radius for own in circles} == {RADIUS}
    assert axis.get_aspect() == 1


def test_a_reading_counts_the_samples_outside_the_picture_where_there_are_any():
    lost = torch.tensor([[2.01, 0], [0, -3], [5, 5], [1.99, 1.99], [0, 0]])
    probabilities = torch.zeros(9)
    text = gan_widgets.told(gan_widgets.Stage(lost, probabilities), torch.zeros(1, 2), 0.1)
    assert text == "1 of 1 modes covered; 3 of 5 samples lie outside the picture"
    inside = gan_widgets.Stage(lost[3:], probabilities)
    assert gan_widgets.told(inside, torch.zeros(1, 2), 0.1) == "1 of 1 modes covered"
    gan_widgets.samples_over_training({0.5: gan_widgets.Stage(lost, probabilities)}, POINTS, torch.zeros(1, 2), 0.1)
    assert set_to() == f"after 50 % of the steps: {text}"


@pytest.mark.parametrize(("near", "expected"), [(1, 1), (2, 2), (3, 2)])
def test_a_mode_is_covered_by_two_per_cent_of_the_samples_within_the_radius(near, expected):
    centres = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    samples = torch.cat([torch.zeros(50, 2), torch.full((50 - near, 2), 9.0), torch.tensor([[1.0, 0.09]] * near)])
    assert gan_widgets.covered(samples, centres, 0.1) == expected
    assert gan_widgets.covered(samples, centres, 0.08) == 1


# ---------------------------------------------------------------- a digit that is asked for


def walk(t):
    """The noise that the widget takes there."""
    first, second = (walked(MODEL, own) for own in (0.0, 0.25))
    return math.cos(2 * math.pi * t) * first + math.sin(2 * math.pi * t) * second


def walked(model, t):
    """The noise that the widget gives the model for this t, by a hook."""
    seen = []
    handle = model.generator.register_forward_pre_hook(lambda _, given: seen.append(given))
    try:
        only().draw(digit=0.0, t=t)
    finally:
        handle.remove()
    [(z, digits)] = seen
    assert digits.tolist() == [*range(10)]
    assert (z == z[0]).all()
    return z[0]


@pytest.mark.parametrize(("digit", "t"), [(4, 0), (0, 0.3), (9, 0.74), (7, 1)])
def test_the_ten_digits_of_one_noise_and_the_chosen_one_large_are_what_the_generator_draws(digit, t):
    WIDGETS["draw_digit"]()
    reading = set_to(digit=digit, t=t)
    z = walked(MODEL, t)
    with torch.no_grad():
        images = (MODEL.generator(z.repeat(10, 1), torch.arange(10)) + 1) / 2
    shown = np.asarray(Image.open(io.BytesIO(only().picture.value)))
    assert (shown[:56] == np.asarray(explore.tiled(images, columns=10, pixel=2))).all()
    middle = (digit + 0.5) * 56
    left = round(min(max(middle - 84, 0), 560 - 168))
    assert (shown[70:, left : left + 168] == np.asarray(explore.tiled(images[digit : digit + 1], columns=1))).all()
    arrow = np.flatnonzero((shown[56:70] < 128).any(0))
    assert (arrow[0] + arrow[-1]) / 2 == pytest.approx(middle, abs=1)
    assert reading == f"digit {digit}, t = {t:.2f}, norm of z {z.norm():.1f}"


def test_the_noise_walks_once_round_a_circle_of_the_norm_of_a_draw():
    WIDGETS["draw_digit"]()
    for t in (0, 0.1, 0.38, 0.5, 0.9):
        z = walked(MODEL, t)
        assert z.norm() == pytest.approx(4, abs=1e-5)  # √16
        assert_close(z, walk(t), atol=1e-5, rtol=0)
    start, quarter = walked(MODEL, 0), walked(MODEL, 0.25)
    assert torch.dot(start, quarter) == pytest.approx(0, abs=1e-5)
    assert_close(walked(MODEL, 1), start, atol=1e-5, rtol=0)
    assert start.abs().min() > 1e-4  # no axis: any direction is as likely


def test_a_digit_starts_with_the_4_and_the_noise_can_be_played():
    WIDGETS["draw_digit"]()
    assert set_to() == "digit 4, t = 0.30, norm of z 4.0"
    [player] = only().player
    player.value = 10
    assert only().controls["t"].value == pytest.approx(0.2)


@pytest.mark.parametrize("training", [False, True])
def test_drawing_a_digit_learns_nothing_and_leaves_the_model_in_its_mode(training):
    model = conditional().train(training)
    before = {name: own.clone() for name, own in model.state_dict().items()}
    gan_widgets.draw_digit(model)
    picture = only().picture.value
    assert model.training == training
    assert all(torch.equal(own, before[name]) for name, own in model.state_dict().items())
    gan_widgets.draw_digit(model.eval())
    assert only().picture.value == picture


def test_the_noise_is_the_same_in_every_session_and_no_other_draw_is_disturbed():
    torch.manual_seed(3)
    expected = torch.randn(3)
    torch.manual_seed(3)
    WIDGETS["draw_digit"]()
    first = walked(MODEL, 0.3)
    assert_close(torch.randn(3), expected)
    WIDGETS["draw_digit"]()
    assert torch.equal(walked(MODEL, 0.3), first)


# ---------------------------------------------------------------- what holds for all


@every_widget
def test_every_control_changes_the_picture_and_back_gives_the_same_bytes(show):
    sliders.assert_every_control_changes_the_picture_and_back_gives_the_same_bytes(show)


@every_widget
@pytest.mark.parametrize("end", ["min", "max"])
def test_at_the_ends_of_its_sliders_a_reading_is_still_finite(show, end):
    sliders.assert_at_the_ends_a_reading_is_finite(show, end)


@every_widget
def test_the_static_picture_is_saved_with_an_alternative_text_that_says_something(show, shown, tmp_path):
    sliders.assert_saved_with_alternative_text(show, shown, tmp_path)
