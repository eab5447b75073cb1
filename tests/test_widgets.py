"""What each widget shows, and what holds for all of them."""

import functools
import io
import re
from itertools import pairwise

import numpy as np
import pytest
import scipy
import sliders
import torch
from conftest import NoFloat64, random_images, random_vae, randomized, seeded
from PIL import Image
from sliders import axes, labelled, numbers, only, set_to, to_three_decimals
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

from gm_helpers import explore, figures, normals, posterior, widgets
from gm_helpers.flows import flow_2d
from gm_helpers.nn import slerp

pytestmark = pytest.mark.usefixtures("shown")


def draws(*shape, seed):
    return torch.randn(*shape, dtype=torch.float64, generator=seeded(seed))


DECODER = draws(3, 784, seed=1)
CODES = draws(20, 3, seed=2)
LABELS = torch.arange(20).flip(0) % 10  # two of each class; in order of their class they are 9, 19, 8, 18, …
SORTED = CODES[[own for digit in range(10) for own in range(20) if LABELS[own] == digit]]
FLOW, POINTS = randomized(flow_2d(couplings=5, hidden=8)), draws(40, 2, seed=3)
PRIOR = {"square": draws(4, 3, seed=8), "flat": draws(4, 3, seed=9)}


VAE, IMAGES, CLASSES = random_vae(2).float(), random_images(4).float(), torch.tensor([3, 1, 2, 1])
IN_ORDER = IMAGES[[1, 3, 2, 0]]  # by class


def decode(z):
    return (z @ DECODER).sigmoid()


def decode_square(z):
    return (1 - decode(z)).view(-1, 1, 28, 28)


WIDGETS = {
    "two_normals": widgets.two_normals,
    "one_dimensional_bound": widgets.one_dimensional_bound,
    "posterior_of_image": lambda folder="": widgets.posterior_of_image(VAE, IMAGES, CLASSES, folder),
    "two_directions": widgets.two_directions,
    "stretched_density": widgets.stretched_density,
    "warped_plane": lambda folder="": widgets.warped_plane(FLOW, POINTS, folder),
    "interpolation": lambda folder="": widgets.interpolation("a-path", CODES, LABELS, decode, folder),
    "temperature": lambda folder="": widgets.temperature({"square": decode_square, "flat": decode}, PRIOR, folder),
}
EXACT = functools.cache(functools.partial(posterior.exact, VAE, IN_ORDER))  # once is enough: it takes a second


@pytest.fixture
def known(monkeypatch):
    """The exact posteriors of the images, which the widget then has not to find again."""
    monkeypatch.setattr(posterior, "exact", lambda model, x: EXACT())
    return EXACT()


every_widget = pytest.mark.parametrize("show", WIDGETS.values(), ids=WIDGETS)


# ---------------------------------------------------------------- what each shows


@pytest.mark.parametrize(("mean", "std"), [(1, 0.5), (0, 1), (-4, 0.05), (4, 4)])
def test_two_normals_read_their_divergence_as_torch_does(mean, std):
    widgets.two_normals()
    divergence = kl_divergence(Normal(float(mean), std), Normal(0.0, 1.0))
    assert numbers(set_to(mean=mean, std=std)) == to_three_decimals(divergence, mean, std)


def test_two_normals_are_drawn_with_the_densities_of_torch():
    widgets.two_normals()
    axis = axes(mean=-1.0, std=0.5)[0]
    assert [own.get_text() for own in axis.get_legend().get_texts()] == ["$p$ = N(0, 1)", "$q$"]
    for line, normal in zip(axis.lines, [Normal(0.0, 1.0), Normal(-1.0, 0.5)], strict=True):
        x, density = (torch.as_tensor(own) for own in line.get_data())
        assert_close(density, normal.log_prob(x).exp())


def test_beside_two_normals_their_point_moves_over_the_divergence_of_torch():
    widgets.two_normals()
    surface = axes(mean=-1.0, std=0.5)[1]
    assert surface.lines[0].get_xydata() == pytest.approx(np.array([[-1, np.log(0.5)]]))
    assert ("mu" in surface.get_xlabel(), "sigma" in surface.get_ylabel()) == (True, True)
    [filled] = surface.collections
    bounds, colours = [*filled.levels, np.inf], filled.to_rgba(filled.cvalues)
    surface.figure.canvas.draw()
    pixels = np.asarray(surface.figure.canvas.buffer_rgba())
    for mean, log_std, level in (
        (0, 0, 0),
        (0.6, 0, 1),
        (0, -0.6, 1),
        (1.2, 0, 2),
        (-1.8, 0, 3),
        (3.2, 0, 5),
        (0, 1.2, 4),
    ):
        divergence = kl_divergence(Normal(mean, np.exp(log_std)), Normal(0.0, 1.0))
        assert bounds[level] <= divergence < bounds[level + 1]
        x, y = surface.transData.transform((mean, log_std)).round().astype(int)
        assert pixels[-y, x] / 255 == pytest.approx(colours[level], abs=0.01)


@pytest.mark.parametrize(("mean", "std"), [(1.0, 0.5), (-4.0, 0.05), (0.0, 4.0)])
def test_neither_of_two_normals_is_cut_off_above(mean, std):
    widgets.two_normals()
    axis = axes(mean=mean, std=std)[0]
    assert axis.get_ylim()[1] > max(line.get_ydata().max() for line in axis.lines)
    assert max(axis.lines[1].get_ydata()) == pytest.approx(1 / (std * np.sqrt(2 * np.pi)), rel=0.03)


def test_the_picture_of_two_normals_tells_the_divergence_and_its_parts_by_mean_and_deviation():
    widgets.two_normals()
    left, right, _ = axes(mean=-2.0, std=0.5)
    total, by_std = (kl_divergence(Normal(own, 0.5), Normal(0.0, 1.0)).item() for own in (-2.0, 0.0))
    assert f"{total:.3f} nats" in left.get_title()
    assert [f"{own:.3f}" in right.get_title() for own in (2, by_std)] == [True, True]


@pytest.mark.parametrize(("curvature", "x"), [(0.7, 1.0), (0.0, 2.0), (1.5, -2.0), (0.3, 4.0)])
def test_the_bound_in_one_dimension_reads_the_likelihood_of_scipy_and_a_gap_that_is_the_rest(curvature, x):
    widgets.one_dimensional_bound()

    def joint(z):
        return scipy.stats.norm.pdf(z) * scipy.stats.norm.pdf(x, z + curvature * z**2, 0.5)

    log_px, elbo, gap, *_ = numbers(set_to(curvature=curvature, x=x).replace(",", ""))
    assert log_px == pytest.approx(np.log(scipy.integrate.quad(joint, -8, 8, limit=200)[0]), abs=6e-4)
    assert gap == pytest.approx(log_px - elbo, abs=1.1e-3)


def test_without_curvature_the_bound_in_one_dimension_reads_no_gap_at_any_x():
    widgets.one_dimensional_bound()
    for x in (-2, 0.5, 4):
        assert "= 0.000 nats" in set_to(curvature=0, x=x)


def test_the_bound_in_one_dimension_starts_with_a_gap_that_is_seen():
    widgets.one_dimensional_bound()
    assert numbers(set_to().replace(",", ""))[2] > 0.1


def test_the_bound_in_one_dimension_is_drawn_with_the_densities_of_its_model():
    widgets.one_dimensional_bound()
    plane, marginal, parts, both = axes(curvature=0.7, x=1.0)
    z, curve = plane.lines[0].get_data()
    assert curve == pytest.approx(z + 0.7 * z**2)
    x, density = marginal.lines[0].get_data()
    draws = torch.randn(200_000, 2, generator=seeded(0)).numpy()
    data = draws[:, 0] + 0.7 * draws[:, 0] ** 2 + 0.5 * draws[:, 1]
    counted, edges = np.histogram(data, bins=8, range=(-2, 4))
    areas = [np.trapezoid(density[(x >= low) & (x < high + 0.01)], dx=0.025) for low, high in pairwise(edges)]
    assert counted / len(data) == pytest.approx(np.array(areas), abs=0.006)
    prior, likelihood = (own.get_ydata() for own in parts.lines)
    at, exact = both.lines[0].get_data()
    expected = prior * likelihood / np.trapezoid(prior * likelihood, z)
    assert np.interp(z, at, exact) == pytest.approx(expected, abs=2e-3)
    assert [np.trapezoid(own.get_ydata(), at) for own in both.lines] == pytest.approx([1, 1])


def test_the_posterior_of_an_image_reads_its_class_and_its_gap_in_the_order_of_the_classes(known):
    WIDGETS["posterior_of_image"]()
    for number, label in enumerate((1, 1, 2, 3)):
        own = posterior.gap(VAE, IN_ORDER[number], known[number])
        reading = set_to(number=number)
        assert reading.startswith(f"a {label}: ")
        expected = own.log_px, own.elbo, own.log_px - own.elbo, own.family, own.encoder
        assert numbers(reading.partition(":")[2].replace(",", "")) == to_three_decimals(*expected)


def test_beside_the_posterior_of_an_image_stand_the_image_and_what_both_means_are_decoded_to(known):
    WIDGETS["posterior_of_image"]()
    pictures = [own.images[0].get_array().data for own in axes(number=2)[:3]]
    own = posterior.gap(VAE, IN_ORDER[2], known[2])
    means = torch.stack([own.q[0], own.best[0]]).float()
    expected = [IN_ORDER[2].view(784), *VAE.decode(means).sigmoid().detach()]
    for picture, image in zip(pictures, expected, strict=True):
        assert picture.ravel() == pytest.approx(image.numpy(), abs=1e-4)


def test_the_first_image_is_the_one_whose_posterior_is_least_normal_among_those_that_the_encoder_finds(known):
    WIDGETS["posterior_of_image"]()
    codes = VAE.encode(IN_ORDER)[0].detach()
    found = [own.density(code) > own.level(0.9) for own, code in zip(known, codes, strict=True)]
    bends = [own.bend() if near else 0 for own, near in zip(known, found, strict=True)]
    assert only().controls["number"].value == bends.index(max(bends))


def test_two_directions_read_each_fit_with_its_divergence_the_best_first():
    widgets.two_directions()
    for separation in (0, 1.2, 2, 3):
        forward, reverse = normals.both_directions(separation)
        reading = set_to(separation=separation)
        parts = [own.rpartition(": ")[2] for own in reading.split(";")]
        assert [numbers(f" {own}".replace(",", "")) for own in parts] == [
            pytest.approx([own.kl, own.mean, own.std], abs=5.01e-3) for own in (forward, *reverse)
        ]
    assert "another minimum" in reading


def test_two_directions_are_drawn_as_densities_and_their_divergences_against_the_distance():
    widgets.two_directions()
    left, right = axes(separation=2.0)
    forward, reverse = normals.both_directions(2.0)
    for line, fit in zip(left.lines, (forward, *reverse), strict=True):
        z, density = line.get_data()
        assert density == pytest.approx(scipy.stats.norm.pdf(z, fit.mean, fit.std))
    for line, fit in zip(right.lines, (forward, reverse[0]), strict=False):
        assert np.interp(2.0, *line.get_data()) == pytest.approx(fit.kl)


@pytest.mark.parametrize(("steepness", "centre"), [(4, 0), (0, 1), (9, 2), (9, -2)])
def test_a_stretched_density_reads_the_flattest_and_the_steepest_slope(steepness, centre):
    widgets.stretched_density()
    steepest = 1 / (1 + steepness * (1 - np.tanh(5 + abs(centre)) ** 2))
    reading = set_to(steepness=steepness, centre=centre)
    assert numbers(reading.partition(";")[0]) == to_three_decimals(1 / (1 + steepness), steepest)


def test_a_stretched_density_is_the_normal_one_times_the_slope_of_its_map():
    widgets.stretched_density()
    left, right, base = axes(steepness=3.0, centre=0.5, start=0.0)
    assert [own.get_xlabel() for own in (left, right, base)] == ["$x$", "$x$", "$z$"]
    assert [own.get_ylabel() for own in (left, right, base)] == ["$z = f(x)$", "$p(x)$", "$p_z(z)$"]
    assert left.get_xlim() == right.get_xlim() == (-12, 12)
    at, density = base.lines[0].get_data()
    assert density == pytest.approx(scipy.stats.norm.pdf(at))
    x, z = left.lines[0].get_data()
    assert_close(x, z + 3 * np.tanh(z - 0.5))
    expected = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * np.gradient(z, x)
    assert right.lines[0].get_xydata()[5:-5] == pytest.approx(np.stack([x, expected], 1)[5:-5], abs=1e-4)


@pytest.mark.parametrize(("steepness", "centre", "start"), [(4, 0, -1), (0, 1, 0.3), (9, 2, 4), (6, -1, -10)])
def test_an_interval_and_its_image_are_shaded_over_the_same_mass(steepness, centre, start):
    widgets.stretched_density()
    reading = set_to(steepness=steepness, centre=centre, start=start)
    ends = [
        scipy.optimize.brentq(lambda z, x=x: z + steepness * np.tanh(z - centre) - x, -30, 30)
        for x in (start, start + 2)
    ]
    mass = np.diff(scipy.stats.norm.cdf(np.clip(ends, -5, 5)))[0]
    assert numbers(reading.partition("shaded")[2]) == pytest.approx([mass, mass], abs=1e-3)
    maps, *densities = only().draw(**{name: own.value for name, own in only().controls.items()})[0].axes
    upright, level = (own.get_extents() for own in maps.patches)
    assert [level.y0, level.y1] == pytest.approx(maps.transData.transform([[0, own] for own in ends])[:, 1], abs=0.5)
    assert [upright.x0, upright.x1] == pytest.approx(maps.transData.transform([[start, 0], [start + 2, 0]])[:, 0])
    for axis, low, high in zip(densities, (start, ends[0]), (start + 2, ends[1]), strict=True):
        [shaded], (curve, density) = axis.collections[0].get_paths(), axis.lines[0].get_data()
        at, height = shaded.vertices[shaded.vertices[:, 1] > 0].T
        assert height == pytest.approx(np.interp(at, curve, density), abs=1e-3)
        assert [*shaded.vertices[:, 0][[0, -1]], shaded.vertices[:, 0].max()] == pytest.approx(
            [low, low, high], abs=0.02
        )


def after(depth, x):
    for layer in FLOW.bijection.layers[:depth]:
        x = layer(x)[0]
    return x


@pytest.mark.parametrize("asked", [-1, 1, 3, 99])
def test_a_warped_plane_reads_the_mean_log_determinant_of_the_layers_so_far(asked):
    WIDGETS["warped_plane"]()
    depth = min(max(asked, 0), 5)
    jacobians = torch.func.vmap(torch.func.jacrev(lambda x: after(depth, x[None])[0]))(POINTS)
    expected = to_three_decimals(depth, depth, jacobians.detach().det().abs().log().mean())
    assert numbers(set_to(depth=asked).replace(":", " ")) == expected


def test_between_two_layers_points_and_grid_go_straight_and_the_reading_says_so():
    WIDGETS["warped_plane"]()
    assert "after layer 4, on the way to layer 5" in set_to(depth=4.25)
    assert "after layer 2, on the way to layer 3" in set_to(depth=2.25)
    [before], [axis] = axes(depth=0), axes(depth=2.25)
    points = torch.as_tensor(axis.collections[0].get_offsets().data)
    grids = ([torch.as_tensor(line) for line in own.collections[1].get_segments()] for own in (before, axis))
    for at, moved in [(POINTS, points), *zip(*grids, strict=True)]:
        assert_close(moved, torch.lerp(after(2, at), after(3, at), 0.25).detach())


@pytest.mark.parametrize(("depth", "title"), [(0, "after 0 layers"), (2.25, "after 2.25 layers")])
def test_over_a_warped_plane_stands_after_how_many_layers_it_is_and_nothing_is_cut_off(depth, title):
    WIDGETS["warped_plane"]()
    [axis] = axes(depth=depth)
    assert axis.get_title() == title
    axis.figure.canvas.draw()
    assert axis.title.get_window_extent().y1 < axis.figure.bbox.y1


def test_the_depth_can_be_played_from_the_first_layer_to_the_last():
    WIDGETS["warped_plane"]()
    [player] = only().player
    for step in (*range(1, player.max + 1), 0):
        player.value = step
        assert only().controls["depth"].value == step / 4
    assert player.max / 4 == 5


def test_points_and_grid_of_the_plane_are_carried_through_the_same_layers():
    WIDGETS["warped_plane"]()
    [before], [axis] = axes(depth=0), axes(depth=3)
    assert_close(torch.as_tensor(axis.collections[0].get_offsets().data), after(3, POINTS).detach())
    assert (axis.collections[0].get_array().data == POINTS[:, 0].numpy()).all()  # the colour of where each began
    straights, bents = ([torch.as_tensor(own) for own in axis.collections[1].get_segments()] for axis in (before, axis))
    for straight, bent in zip(straights, bents, strict=True):
        assert (straight - straight[0]).abs().amin(1).max() < 1e-6
        assert_close(bent, after(3, straight).detach())
    assert len(bents) == 50


def assert_path(images, place):
    """The picture is a row of these eleven images, the large twelfth, and an arrow at that fraction of the way."""
    shown = np.asarray(Image.open(io.BytesIO(only().picture.value)))
    row = np.asarray(explore.tiled(images[:11], columns=11, pixel=2))
    assert (shown[:56] == row).all()
    x = round((0.5 + 10 * place) * 56)
    arrow = np.flatnonzero((shown[56:70] < 128).any(0))
    widths = (shown[57:68] < 128).sum(1)
    assert widths[0] < widths[5] < widths[-1]  # it points upwards
    assert (arrow[0] + arrow[-1]) / 2 == pytest.approx(x, abs=1)
    left = round(min(max(x - 84, 0), 11 * 56 - 168))
    large = np.asarray(explore.tiled(images[11:], columns=1))
    assert (shown[70:, left : left + 168] == large).all()


@pytest.mark.parametrize("path", [decode, decode_square])
@pytest.mark.parametrize("way", ["straight", "spherical"])
@pytest.mark.parametrize("t", [0, 0.3, 1])
def test_an_interpolation_shows_the_way_and_the_place_that_the_model_decodes_and_reads_the_codes_norms(path, way, t):
    widgets.interpolation("a-path", CODES, LABELS, path)
    reading = set_to(start=3, end=16, way=way, fraction=t)
    along = slerp if way == "spherical" else torch.lerp
    at = [*torch.linspace(0, 1, 11, dtype=torch.float64), torch.tensor(t, dtype=torch.float64)]
    codes = torch.stack([along(SORTED[3], SORTED[16], own[None]).view(3) for own in at])
    assert_path(path(codes), t)
    norms = [own.norm().item() for own in (SORTED[3], codes[-1], SORTED[16])]
    assert reading.startswith(f"from a 1 to a 8, t = {t:.2f}; ")
    assert re.fullmatch(r"norm of z: \S+ at the start, \S+ here, \S+ at the end", reading.partition("; ")[2])
    assert numbers(reading.partition(";")[2]) == pytest.approx(norms, abs=0.051)


def test_an_interpolation_starts_half_way_from_a_2_to_a_7():
    WIDGETS["interpolation"]()
    assert_path(decode(torch.stack([torch.lerp(SORTED[4], SORTED[14], t / 10) for t in (*range(11), 5)])), 0.5)
    assert set_to().startswith("from a 2 to a 7")


def test_where_no_2_and_no_7_are_among_the_digits_the_way_goes_between_the_next_and_its_text_says_which(shown):
    widgets.interpolation("a-path", CODES[:4], torch.tensor([3, 5, 3, 5]), decode)
    assert set_to().startswith("from a 3 to a 5")
    assert shown[0].metadata["image/png"]["alt"].startswith("Eleven images on the way from a 3 to a 5")


@pytest.mark.parametrize("way", ["straight", "spherical"])
def test_from_a_digit_to_itself_both_ways_stay_there(way):
    WIDGETS["interpolation"]()
    set_to(start=4, end=4, way=way, fraction=0.3)
    assert_path(decode(SORTED[12 * [4]]), 0.3)


@pytest.mark.parametrize(("asked", "factor"), [(0.7, 0.7), (1, 1), (-1, 0), (9, 1.5)])
def test_a_temperature_multiplies_the_codes_of_every_model_exactly(asked, factor):
    WIDGETS["temperature"]()
    reading = set_to(factor=asked)
    images = torch.cat([decode_square(factor * PRIOR["square"]).view(4, 784), decode(factor * PRIOR["flat"])])
    assert only().picture.value == explore.digits(images, 4, ["square", "flat"], pixel=2)
    assert reading == f"T = {factor:.2f}"


def test_the_rows_of_the_temperature_have_their_labels_in_the_still_picture_as_in_the_live_one(shown):
    WIDGETS["temperature"]()
    still, live = (
        np.asarray(Image.open(io.BytesIO(own)).convert("L"))
        for own in (shown[0].content["image/png"], only().picture.value)
    )
    assert (still == live).all()
    beside = live[:, : -4 * 56]  # on the left of four digits
    assert [(own < 128).any() for own in np.split(beside, 2)] == [True, True]
    assert (np.split(beside, 2)[0] != np.split(beside, 2)[1]).any()


# ---------------------------------------------------------------- what holds for all


@every_widget
@pytest.mark.usefixtures("known")
def test_every_control_changes_the_picture_and_back_gives_the_same_bytes(show):
    sliders.assert_every_control_changes_the_picture_and_back_gives_the_same_bytes(show)


@every_widget
@pytest.mark.parametrize("end", ["min", "max"])
@pytest.mark.usefixtures("known")
def test_at_the_ends_of_its_sliders_a_reading_is_still_finite(show, end):
    sliders.assert_at_the_ends_a_reading_is_finite(show, end)


@every_widget
@pytest.mark.usefixtures("known")
def test_the_static_picture_is_saved_with_an_alternative_text_that_says_something(show, shown, tmp_path):
    sliders.assert_saved_with_alternative_text(show, shown, tmp_path)


# ---------------------------------------------------------------- seen with fresh eyes


def title(axis):
    return axis.get_title().replace("−", "-")


def test_the_parts_of_the_divergence_of_two_normals_are_told_each_for_its_parameter():
    widgets.two_normals()
    by_std = kl_divergence(Normal(0.0, 0.5), Normal(0.0, 1.0)).item()
    assert axes(mean=-2.0, std=0.5)[1].get_title() == rf"2.000 of them for $\mu$, {by_std:.3f} for $\sigma$"


@pytest.mark.parametrize(
    ("show", "first", "words"),
    [
        (widgets.two_normals, {"mean": 1.0, "std": 0.5}, "mean 1 and deviation 0.5"),
        (widgets.one_dimensional_bound, {"curvature": 0.7, "x": 1.0}, "a dot at x = 1;"),
        (widgets.two_directions, {"separation": 2.0}, "two humps at −2 and 2;"),
    ],
)
def test_a_widget_starts_in_the_state_that_its_alternative_text_describes(show, first, words, shown):
    show()
    assert {name: own.value for name, own in only().controls.items()} == first
    assert words in shown[0].metadata["image/png"]["alt"]


def test_in_the_alternative_text_of_two_normals_stands_their_divergence(shown):
    widgets.two_normals()
    assert f"{numbers(set_to())[0]} nats" in shown[0].metadata["image/png"]["alt"]


def test_the_bound_in_one_dimension_tells_in_titles_and_reading_what_belongs_to_each_name():
    widgets.one_dimensional_bound()
    found = normals.one_dimension(2.0, 1.2)
    _, marginal, _, both = axes(curvature=1.2, x=2.0)
    log_px, elbo = f"{found.log_px:.3f}", f"{found.elbo:.3f}"
    assert title(marginal) == rf"$\log p(x)$ = {log_px}, ELBO = {elbo} nats"
    assert title(both) == f"gap = KL($q$ ‖ posterior) = {found.gap:.3f} nats"
    reading = set_to(curvature=1.2, x=2.0).replace("−", "-")
    assert f"log p(x) = {log_px}, ELBO = {elbo}, gap" in reading
    assert reading.endswith(f"q: μ = {found.mean:.2f}, σ = {found.std:.2f}")


def test_the_bound_in_one_dimension_marks_the_observed_x_and_the_noise_around_the_line_of_means():
    widgets.one_dimensional_bound()
    plane, marginal, _, _ = axes(curvature=0.7, x=2.5)
    assert {*plane.lines[1].get_ydata()} == {*marginal.lines[2].get_xdata()} == {2.5}
    [[x, density]] = marginal.lines[1].get_xydata()
    assert (x, density) == (2.5, pytest.approx(np.interp(x, *marginal.lines[0].get_data()), rel=1e-3))
    z, curve = plane.lines[0].get_data()
    [band] = plane.collections[0].get_paths()
    for at in (0, 200, 399):
        heights = band.vertices[np.isclose(band.vertices[:, 0], z[at]), 1]
        assert [heights.min(), heights.max()] == pytest.approx([curve[at] - 0.5, curve[at] + 0.5])


def test_the_curves_of_the_bound_in_one_dimension_are_what_the_legends_call_them_and_the_gap_is_shaded_between_two():
    widgets.one_dimensional_bound()
    found = normals.one_dimension(1.0, 0.7)
    *_, parts, both = axes(curvature=0.7, x=1.0)
    z, prior = labelled(parts)["prior $p(z)$"].get_data()
    assert prior == pytest.approx(scipy.stats.norm.pdf(z))
    assert z[labelled(parts)["$p(x|z)$, scaled"].get_ydata().argmax()] == pytest.approx(
        0.68, abs=0.02
    )  # z + 0.7 z² = 1
    z, q = labelled(both)["best normal $q$"].get_data()
    assert q == pytest.approx(scipy.stats.norm.pdf(z, found.mean, found.std))
    exact = labelled(both)["posterior $p(z|x)$"].get_ydata()
    [shaded] = both.collections[0].get_paths()
    for at in range(1400, 2000, 50):
        heights = shaded.vertices[np.isclose(shaded.vertices[:, 0], z[at]), 1]
        assert sorted([heights.min(), heights.max()]) == pytest.approx(sorted([exact[at], q[at]]))


@pytest.mark.usefixtures("known")
def test_the_picture_of_an_image_s_posterior_is_its_own_and_its_title_tells_the_parts_of_its_gap(monkeypatch):
    drawn, found = (
        [],
        [posterior.Gap(-9.0, -9.75 - own, 0.25, 0.5 + own, *2 * [2 * [torch.zeros(2)]]) for own in range(4)],
    )
    monkeypatch.setattr(posterior, "draw_posterior", lambda *given: drawn.append(given[2:]))
    monkeypatch.setattr(posterior, "gap", lambda model, x, own: found[[one is own for one in EXACT()].index(True)])
    WIDGETS["posterior_of_image"]()
    figure = only().draw(number=3.0)[0]
    x, own, gap = drawn[-1]
    assert (x == IN_ORDER[3].flatten()).all()
    assert (own is EXACT()[3], gap is found[3]) == (True, True)
    assert figure.axes[-1].get_title() == "gap 3.75 nats = family 0.25 + encoder 3.50"
    assert [axis.get_title().partition(":")[0] for axis in figure.axes[:3]] == [
        "the image",
        "encoder's q",
        "best normal",
    ]


@pytest.mark.usefixtures("known")
def test_the_images_of_a_posterior_may_lie_on_a_device_without_float64():
    widgets.posterior_of_image(VAE, IMAGES.as_subclass(NoFloat64), CLASSES)
    assert set_to(number=3).startswith("a 3: ")


def test_the_curves_of_two_directions_are_what_the_legends_call_them():
    widgets.two_directions()
    left, right = axes(separation=1.3)
    forward, (best, *_) = normals.both_directions(1.3)
    for name, fit in (("by KL($p$ ‖ $q$)", forward), ("by KL($q$ ‖ $p$)", best)):
        z, density = labelled(left)[name].get_data()
        assert density == pytest.approx(scipy.stats.norm.pdf(z, fit.mean, fit.std))
        assert np.interp(1.3, *labelled(right)[f"least {name[3:]}"].get_data()) == pytest.approx(fit.kl)
    [humps] = left.collections[0].get_paths()
    assert humps.vertices[:, 1].max() == pytest.approx(0.6 * scipy.stats.norm.pdf(0, 0, 0.6), rel=0.01)
    assert abs(humps.vertices[humps.vertices[:, 1].argmax(), 0] + 1.3) < 0.02


def test_the_divergences_of_two_directions_are_marked_where_the_slider_is_and_only_other_minima_are_dots():
    widgets.two_directions()
    _, right = axes(separation=1.35)
    forward, (best, *_) = normals.both_directions(1.35)
    upright, *marks = right.lines[3:]
    assert {*upright.get_xdata()} == {1.35}
    assert [own.get_xydata()[0].tolist() for own in marks] == [pytest.approx([1.35, own.kl]) for own in (forward, best)]
    assert [own.get_color() for own in marks] == [*figures.COLOURS[:2]]
    lowest = labelled(right)["least KL($q$ ‖ $p$)"]
    for h, kl in labelled(right)["its other minima"].get_xydata():
        assert kl > np.interp(h, *lowest.get_data()) + 1e-3
