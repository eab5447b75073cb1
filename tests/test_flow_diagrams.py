"""Drawings of flows: what stands in them can be read, and is true."""

import functools
import itertools
import re

import numpy as np
import pytest
import torch
from conftest import randomized
from drawings import extent, hits, texts, ways
from matplotlib.colors import to_rgba
from matplotlib.patches import FancyBboxPatch, Polygon, Rectangle
from scipy.stats import norm
from torch.testing import assert_close

from gm_helpers import figures, flow_diagrams, flows
from gm_helpers.bijections import AffineCoupling, AutoregressiveLayer, Flatten, MaskedLinear, Split, Squeeze

pytestmark = pytest.mark.usefixtures("style")


DRAWINGS = {
    "strips": flow_diagrams.strips,
    "strips, less wide": functools.partial(flow_diagrams.strips, 1.5),
    "ten strips": functools.partial(flow_diagrams.strips, 3.0, 10),
    "parallelogram": flow_diagrams.parallelogram,
    "coupling": flow_diagrams.coupling,
    "squeeze": flow_diagrams.squeeze,
    "scales": flow_diagrams.scales,
    "masks": flow_diagrams.masks,
    "masks of three": functools.partial(flow_diagrams.masks, 3, 2),
}
every_drawing = pytest.mark.parametrize("drawing", DRAWINGS.values(), ids=DRAWINGS)


@functools.cache
def drawn(drawing):
    """The figure, laid out: once for all tests that only look at it."""
    figure = drawing()
    figure.canvas.draw()
    return figure


def told(figure):
    """All that can be read, with a plain minus."""
    return "\n".join(own.get_text() for own in texts(figure)).replace("−", "-")


def numbers(text):
    return [float(own) for own in re.findall(r"-?\d+(?:\.\d+)?", text)]


# ---------------------------------------------------------------- what holds for all


@every_drawing
def test_no_text_is_cut_off_or_lies_over_another(drawing):
    figure = drawn(drawing)
    boxes = [(own.get_text(), own.get_window_extent()) for own in texts(figure)]
    width, height = figure.canvas.get_width_height()
    assert [text for text, own in boxes if min(own.x0, own.y0) < 0 or own.x1 > width or own.y1 > height] == []
    assert [(a[0], b[0]) for a, b in itertools.combinations(boxes, 2) if a[1].overlaps(b[1])] == []


@every_drawing
def test_every_text_is_large_enough_to_read_and_the_figure_fits_the_page(drawing):
    figure = drawn(drawing)
    assert min(own.get_fontsize() for own in texts(figure)) >= 9
    assert figure.get_figwidth() <= 8


@every_drawing
def test_every_text_in_a_box_is_narrower_and_lower_than_its_box(drawing):
    figure = drawn(drawing)
    page = figure.axes[0]
    boxes = [own.get_window_extent() for own in page.patches if isinstance(own, FancyBboxPatch | Rectangle)]
    for text in texts(figure):
        own = text.get_window_extent()
        middle = (own.x0 + own.x1) / 2, (own.y0 + own.y1) / 2
        for box in boxes:
            if box.contains(*middle):
                assert box.x0 < own.x0 < own.x1 < box.x1, text.get_text()
                assert box.y0 < own.y0 < own.y1 < box.y1, text.get_text()


@every_drawing
def test_no_line_runs_through_a_text(drawing):
    figure = drawn(drawing)
    frames = [own.get_window_extent() for own in figure.axes[0].patches if isinstance(own, FancyBboxPatch)]
    boxes = [(own.get_text(), own.get_window_extent()) for own in texts(figure)]
    for way in ways(figure):
        hidden = [((way > own.min) & (way < own.max)).all(1) for own in frames]  # a frame is white below
        seen = way[~np.any(hidden, axis=0)] if frames else way
        assert [text for text, box in boxes if hits(seen, box)] == []


@every_drawing
def test_a_drawing_leaves_the_random_numbers_alone(drawing):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    drawing()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("drawing", "words"),
    [
        ("coupling", ["forward:", "inverse:", "network", "the same network"]),
        ("squeeze", ["squeeze", "4 × 4 pixels; strong:\nthe checkerboard's 1"]),
        ("scales", ["squeeze", "split: 2 × 14 × 14 go on", "to logits,\nActNorm"]),
        ("masks", ["rows: who sees; columns: who is seen; filled: the mask is 1"]),
        ("parallelogram", ["$f$"]),
    ],
)
def test_what_no_number_tells_stands_in_a_drawing_in_words(drawing, words):
    seen = [own.get_text() for own in texts(drawn(DRAWINGS[drawing]))]
    assert [own for own in words if own not in seen] == []


# ---------------------------------------------------------------- strips


def outlines(axes):
    """The outlines of what is filled under curves."""
    return [own.get_paths()[0].vertices for own in axes.collections]


def area(corners):
    x, y = np.asarray(corners).T
    return abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2


@pytest.mark.parametrize(("s", "count"), [(2.0, 12), (0.5, 12), (3.0, 10)])
def test_every_strip_has_the_same_mass_under_either_density_and_the_same_area_on_the_page(s, count):
    figure = flow_diagrams.strips(s, count)
    _, _, beside, above = figure.axes
    cut = norm.cdf(-3.2)  # the first and the last strip end where the picture does
    for axes in (beside, above):
        masses = [area(own) for own in outlines(axes)]
        expected = np.full(count, 1 / count) - cut * np.isin(np.arange(count), [0, count - 1])
        assert masses == pytest.approx(expected, rel=2e-3)
    inches = [[area(axes.transData.transform(own)) for own in outlines(axes)] for axes in (beside, above)]
    assert inches[0] == pytest.approx(inches[1], rel=2e-3)


@pytest.mark.parametrize("s", [0.0, 2.0])
def test_the_strips_are_quantiles_of_z_and_the_map_carries_them_to_x_where_their_height_is_the_density_of_draws(s):
    _, _, beside, above = flow_diagrams.strips(s, 8).axes
    draws = norm.ppf(np.linspace(0, 1, 400_001)[1:-1])  # as even as draws can be
    for axes, own, column in ((beside, draws, 1), (above, draws + s * np.tanh(draws), 0)):
        edges = [own[:, column].min() for own in outlines(axes)]
        assert edges[1:] == pytest.approx(np.quantile(own, np.arange(1, 8) / 8), abs=1e-4)
        for outline in outlines(axes):
            for at, height in outline[10:90:20, [column, 1 - column]]:
                if height:
                    assert height == pytest.approx(np.mean(np.abs(own - at) < 0.02) / 0.04, rel=0.01, abs=1e-4)


def test_the_lines_of_the_strips_lead_from_each_edge_in_z_by_the_curve_to_its_edge_in_x():
    _, plane, beside, above = flow_diagrams.strips().axes
    guides = [own.get_xydata() for own in plane.lines if len(own.get_xydata()) == 3]
    edges = [[own[:, column].min() for own in outlines(axes)] for axes, column in ((beside, 1), (above, 0))]
    for (start, corner, end), z, x in zip(guides, *edges, strict=True):
        assert (*start, *corner, *end) == pytest.approx((plane.get_xlim()[0], z, x, z, x, plane.get_ylim()[1]))
    curve = np.concatenate([own.get_xydata() for own in plane.lines if len(own.get_xydata()) > 3])
    assert curve[:, 0] == pytest.approx(curve[:, 1] + 2 * np.tanh(curve[:, 1]))


def test_the_widths_that_the_strips_tell_are_those_of_the_strips_in_the_same_colour():
    page, plane, beside, above = flow_diagrams.strips().axes
    for square, text in zip([own for own in page.patches if isinstance(own, Rectangle)], page.texts[:2], strict=True):
        colour = square.get_facecolor()
        [z], [x] = (
            [o for o, c in zip(outlines(a), a.collections, strict=True) if tuple(c.get_facecolor()[0]) == colour]
            for a in (beside, above)
        )
        before, after = np.ptp(z[:, 1]), np.ptp(x[:, 0])
        assert numbers(text.get_text()) == pytest.approx([before, after, after / before, after / before], abs=0.0501)
        assert numbers(text.get_text())[:2] == pytest.approx([before, after], abs=0.00501)
        assert re.search("of [$]z[$] to .* of [$]x[$]:\nwidth × .*, height ÷", text.get_text())
        [band] = [own for own in plane.patches if own.get_facecolor()[:3] == colour[:3]]
        assert np.ptp(band.get_xy()[np.isin(band.get_xy()[:, 1], plane.get_ylim()[1]), 0]) == pytest.approx(after)
        assert np.ptp(band.get_xy()[band.get_xy()[:, 0] == plane.get_xlim()[0], 1]) == pytest.approx(before)


def test_each_density_of_the_strips_is_named_beside_it_and_the_axes_of_the_map_by_their_variables():
    figure = drawn(flow_diagrams.strips)
    page, plane, beside, above = figure.axes
    middles = {own.get_text(): own.get_window_extent() for own in page.texts}
    of_z, of_x, z = (middles[own] for own in ("density of $z$", "density of $x$", "$z$"))
    assert beside.bbox.x0 <= of_z.x0 < of_z.x1 <= beside.bbox.x1
    assert above.bbox.y0 < of_x.y0 < of_x.y1 < above.bbox.y1
    nothing, dense = beside.transData.transform([(0, 0), (0.4, 0)])
    assert dense[0] < nothing[0] == pytest.approx(beside.bbox.x1)  # it stands on the frame of the map
    assert plane.get_xlabel() == "$x$"
    assert plane.bbox.x1 < z.x0
    assert plane.bbox.y0 < z.y0 < z.y1 < plane.bbox.y1


def test_more_strips_are_counted_in_their_legend():
    assert "all 12 strips have the mass 1/12" in told(flow_diagrams.strips())
    assert "all 10 strips have the mass 1/10" in told(flow_diagrams.strips(1.5, 10))


# ---------------------------------------------------------------- parallelogram

CORNER, SIDE = (0.7, 0.3), 0.4
JACOBIAN = np.array([[1.2, -0.8 * 0.3], [0.8 * 0.7, 1.1]])


def grown(side):
    """The integral of det J = 1.32 + 0.64 x₁ x₂ over the square, over its area."""
    return 1.32 + 0.64 * (CORNER[0] + side / 2) * (CORNER[1] + side / 2)


def shapes(axes):
    return [own for own in axes.patches if isinstance(own, Polygon)]


def test_the_map_of_the_parallelogram_has_the_jacobian_that_the_tests_below_take():
    steps = 1e-4 * torch.eye(2, dtype=torch.float64)
    ahead, behind = (flow_diagrams.bend(torch.tensor(CORNER) + sign * steps) for sign in (1, -1))
    assert_close((ahead - behind).T / 2e-4, torch.tensor(JACOBIAN), atol=1e-6, rtol=0)


def test_the_square_is_carried_to_its_image_and_the_columns_of_the_jacobian_span_the_parallelogram_at_its_corner():
    _, before, after = flow_diagrams.parallelogram(CORNER, SIDE).axes
    [square], [image, spanned] = shapes(before), shapes(after)
    assert area(square.get_xy()) == pytest.approx(SIDE**2)
    assert square.get_xy().min(0) == pytest.approx(CORNER)
    assert_close(flow_diagrams.bend(torch.tensor(square.get_xy())), torch.tensor(image.get_xy()))
    origin = flow_diagrams.bend(torch.tensor([CORNER]))[0].numpy()
    corners = origin + SIDE * np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) @ JACOBIAN.T
    assert area(spanned.get_xy()) == pytest.approx(area(corners)) == pytest.approx(SIDE**2 * np.linalg.det(JACOBIAN))
    for own in corners:
        assert np.linalg.norm(spanned.get_xy() - own, axis=1).min() < 1e-5


def test_the_arrows_of_the_parallelogram_are_the_sides_of_the_square_and_what_the_jacobian_makes_of_them():
    _, before, after = flow_diagrams.parallelogram(CORNER, SIDE).axes
    for axes, vectors in ((before, np.eye(2)), (after, JACOBIAN.T)):
        arrows = [own.get_xydata() for own in axes.lines if len(own.get_xydata()) == 2]
        for (start, neck), vector in zip(arrows, SIDE * vectors, strict=True):
            tip = neck + 0.1 * vector / np.linalg.norm(vector)
            assert tip - start == pytest.approx(vector, abs=1e-6)


def test_the_numbers_beside_the_parallelogram_are_its_columns_its_determinant_and_the_ratios_of_areas():
    figure = flow_diagrams.parallelogram(CORNER, SIDE)
    first, second, spanned, image = (own.get_text().replace("−", "-") for own in figure.axes[0].texts[1:])
    assert numbers(first)[2:] == pytest.approx(JACOBIAN[:, 0], abs=0.00501)
    assert numbers(second)[2:] == pytest.approx(JACOBIAN[:, 1], abs=0.00501)
    assert f"= {np.linalg.det(JACOBIAN):.2f}" in spanned
    ratios = [grown(SIDE), grown(SIDE / 10), SIDE / 10, grown(SIDE / 100), SIDE / 100]
    assert numbers(image) == pytest.approx(ratios, abs=0.00501)
    assert area(shapes(figure.axes[2])[0].get_xy()) / SIDE**2 == pytest.approx(grown(SIDE), rel=1e-3)


def test_in_the_legend_of_the_parallelogram_each_square_looks_like_what_it_stands_for():
    page, before, after = flow_diagrams.parallelogram().axes
    first, second, spanned, image = (own for own in page.patches if isinstance(own, Rectangle))
    for axes in (before, after):
        arrows = [to_rgba(own.get_color()) for own in axes.lines if len(own.get_xydata()) == 2]
        assert [first.get_facecolor(), second.get_facecolor()] == arrows
    of_image, of_spanned = shapes(after)
    assert image.get_facecolor() == of_image.get_facecolor() == shapes(before)[0].get_facecolor()
    assert spanned.get_linestyle() == of_spanned.get_linestyle() == "--"


def test_the_axes_of_the_parallelogram_are_named_x_before_the_map_and_z_after_it():
    _, before, after = flow_diagrams.parallelogram().axes
    assert [(own.get_xlabel(), own.get_ylabel()) for own in (before, after)] == [("$x_1$", "$x_2$"), ("$z_1$", "$z_2$")]


def test_both_panels_of_the_parallelogram_have_one_scale_so_that_areas_can_be_compared():
    _, before, after = flow_diagrams.parallelogram().axes
    unit = [np.subtract(*own.transData.transform([(1, 1), (0, 0)])) for own in (before, after)]
    assert unit[0] == pytest.approx(unit[1])
    assert unit[0][0] == pytest.approx(unit[0][1])
    for own in shapes(after):
        assert (own.get_xy().min(0) > (after.get_xlim()[0], after.get_ylim()[0])).all()
        assert (own.get_xy().max(0) < (after.get_xlim()[1], after.get_ylim()[1])).all()


# ---------------------------------------------------------------- coupling


def boxed(axes):
    """Text and place of each box, (x0, y0, x1, y1) in inches."""
    extents = np.array([extent(axes, own) for own in axes.patches if isinstance(own, FancyBboxPatch)])
    for own in axes.texts:
        off = np.abs((extents[:, :2] + extents[:, 2:]) / 2 - own.get_position()).max(1)
        if off.min() < 1e-6:
            yield own.get_text(), extents[off.argmin()]


def touched(boxes, point):
    """The texts of the boxes on whose edge a point lies, one after the other."""
    near = [text for text, own in boxes if np.abs(np.clip(point, own[:2], own[2:]) - point).max() < 0.02]
    deep = [text for text, own in boxes if (own[:2] + 0.02 < point).all() and (point < own[2:] - 0.02).all()]
    return "".join(text for text in near if text not in deep)


def arrows(axes):
    """Where each arrow begins, where its head ends, and its colour."""
    for line in axes.lines:
        way = line.get_xydata()
        if len(way) > 1:
            yield way[0], way[-1] + 0.1 * (way[-1] - way[-2]) / np.linalg.norm(way[-1] - way[-2]), line.get_color()


def links(axes, inverse):
    """From which box to which the arrows of one half of the drawing lead; "" where an arrow begins on another."""
    boxes = [own for own in boxed(axes) if (own[1][3] < 2.9) == inverse]
    half = [own for own in arrows(axes) if (own[0][1] < 2.9) == inverse]
    return [(touched(boxes, start), touched(boxes, end)) for start, end, _ in half]


SCALED, SHIFTED = r"$\odot\ \exp(s)$", "$+\\ t$"
BACK, UNSHIFTED = r"$\odot\ \exp(-s)$", "$-\\ t$"


def test_forward_x_a_passes_and_feeds_the_network_and_x_b_is_scaled_and_then_shifted():
    found = links(flow_diagrams.coupling().axes[0], inverse=False)
    passing = [("$x_a$", "$z_a$"), ("$x_b$", SCALED), (SCALED, SHIFTED), (SHIFTED, "$z_b$")]
    assert sorted(found) == sorted([*passing, ("", "network"), ("network", SCALED), ("network", SHIFTED)])


def test_in_the_inverse_z_b_is_shifted_back_and_then_scaled_back_and_the_network_runs_in_the_same_direction():
    found = links(flow_diagrams.coupling().axes[0], inverse=True)
    network = "the same network"
    passing = [("$z_a$", "$x_a$"), ("$z_b$", UNSHIFTED), (UNSHIFTED, BACK), (BACK, "$x_b$")]
    assert sorted(found) == sorted([*passing, ("", network), (network, BACK), (network, UNSHIFTED)])


def test_the_network_of_the_coupling_is_fed_from_the_line_that_passes():
    axes = flow_diagrams.coupling().axes[0]
    boxes = [*boxed(axes)]
    feeding = [own for own in arrows(axes) if not touched(boxes, own[0])]
    passing = [own for own in arrows(axes) if touched(boxes, own[0]) in ("$x_a$", "$z_a$")]
    for (start, _, _), (left, right, _) in zip(feeding, passing, strict=True):
        assert start[1] == left[1] == right[1]
        assert min(left[0], right[0]) < start[0] < max(left[0], right[0])


@pytest.mark.parametrize(
    ("inverse", "reads", "scaling", "shifting"),
    [(False, "reads $x_a$", SCALED, SHIFTED), (True, "reads $z_a$, which is $x_a$", BACK, UNSHIFTED)],
)
def test_the_arrows_of_the_network_say_what_it_reads_and_where_s_and_t_go(inverse, reads, scaling, shifting):
    axes = flow_diagrams.coupling().axes[0]
    notes = {own.get_text(): own.get_position() for own in axes.texts if (own.get_position()[1] < 2.9) == inverse}
    places = dict(own for own in boxed(axes) if (own[1][3] < 2.9) == inverse)
    for name, below in (("$s$", scaling), ("$t$", shifting)):
        assert places[below][0] < notes[name][0] < places[below][2]
    assert places["the same network" if inverse else "network"][3] < notes[reads][1]


def test_what_stands_in_the_boxes_of_the_coupling_is_what_the_layer_computes():
    torch.manual_seed(0)
    layer = AffineCoupling(torch.tensor([1, 1, 0, 0]), torch.nn.Linear(2, 4)).double()
    x = torch.randn(5, 4, dtype=torch.float64)
    s, t = layer.scale_and_shift(x[:, :2])
    steps = {
        SCALED: lambda own: own * s.exp(),
        SHIFTED: lambda own: own + t,
        BACK: lambda own: own * (-s).exp(),
        UNSHIFTED: lambda own: own - t,
    }
    z, log_det = layer(x)
    for inverse, before, after, name in ((False, x, z, "$x_b$"), (True, z, x, "$z_b$")):
        next_of = {
            start: end for start, end in links(flow_diagrams.coupling().axes[0], inverse) if "network" not in start
        }
        value, at = before[:, 2:], next_of[name]
        while at in steps:
            value, at = steps[at](value), next_of[at]
        assert_close(value, after[:, 2:])
    assert_close(log_det, s.sum(1))
    assert_close(layer.inverse(z)[1], -s.sum(1))


def test_over_each_half_of_the_coupling_stand_its_formulas_as_in_the_notebook():
    axes = flow_diagrams.coupling().axes[0]
    forward, inverse = (
        {own.get_text() for own in axes.texts if (own.get_position()[1] > 2.9) == above} for above in (True, False)
    )
    assert {"forward:", "$z_a = x_a$", r"$z_b = x_b \odot \exp(s) + t$", r"$\log|\det J| = \sum_i s_i$"} <= forward
    assert {"inverse:", "$x_a = z_a$", r"$x_b = (z_b - t) \odot \exp(-s)$"} <= inverse
    assert r"log-determinant $-\sum_i s_i$" in inverse


# ---------------------------------------------------------------- squeeze


def tables(axes):
    """The numbers in the squares, with place and colour: (x, y, number, colour)."""
    squares = {}
    for own in axes.patches:
        if isinstance(own, Rectangle):
            squares[tuple(np.round(own.get_center(), 3))] = own.get_facecolor()
    for own in axes.texts:
        at = tuple(np.round(own.get_position(), 3))
        if at in squares:
            yield *at, int(own.get_text()), squares[at]


def read(cells):
    """Numbers row by row, from above and from the left."""
    cells = sorted(cells, key=lambda own: (-own[1], own[0]))
    return torch.tensor([[own[2] for own in row] for _, row in itertools.groupby(cells, lambda own: own[1])])


def test_the_channels_of_the_squeeze_hold_the_numbers_that_the_squeeze_gives():
    found = [*tables(flow_diagrams.squeeze().axes[0])]
    block, others = (read(own for own in found if (own[0] < 2.5) == left) for left in (True, False))
    assert torch.equal(block, torch.arange(1, 17).view(4, 4))
    first, second, third, fourth = Squeeze()(block[None, None].float())[0][0].long()
    assert torch.equal(others, torch.cat([torch.cat([first, second], dim=1), torch.cat([third, fourth], dim=1)]))


def test_a_pixel_keeps_its_colour_in_the_squeeze_and_it_is_strong_where_the_checkerboard_is_one():
    found = [*tables(flow_diagrams.squeeze().axes[0])]
    colours = {number: {own[3] for own in found if own[2] == number} for number in range(1, 17)}
    assert {len(own) for own in colours.values()} == {1}
    strong = torch.tensor([next(iter(colours[number]))[3] > 0.5 for number in range(1, 17)])
    assert torch.equal(strong, flows.checkerboard(4, 4).bool())
    assert len({next(iter(own)) for own in colours.values()}) == 4


def test_the_squeeze_tells_of_each_channel_its_mask():
    axes = flow_diagrams.squeeze().axes[0]
    notes = {own.get_text(): own.get_position() for own in axes.texts if "channel" in own.get_text()}
    assert [*notes] == [f"channel {i + 1}: mask {own}" for i, own in enumerate(flows.CHECKERBOARD.tolist())]
    for (text, at), channel in zip(notes.items(), range(4), strict=True):
        above = min(tables(axes), key=lambda own: np.hypot(own[0] - at[0], own[1] - at[1]))
        assert above[2] in Squeeze()(torch.arange(1.0, 17).view(1, 1, 4, 4))[0][0, channel], text


# ---------------------------------------------------------------- scales


def test_the_shapes_in_the_drawing_of_the_scales_are_those_that_pass_the_real_model():
    torch.manual_seed(0)
    model = flows.flow_convolutional(width=4, blocks=1)
    seen = []

    def note(module, inputs, outputs):
        seen.append((type(module).__name__, tuple(inputs[0].shape[1:]), tuple(outputs[0].shape[1:])))

    for module in model.modules():
        if isinstance(module, Squeeze | Split | AffineCoupling):
            module.register_forward_hook(note)
    with torch.no_grad():
        model(torch.rand(1, 1, 28, 28) * 255)
    kinds = [name for name, _, _ in seen]
    first, second = (own for own in seen if own[0] == "Squeeze")
    words = told(flow_diagrams.scales())
    # those that are split go on, leave, and are squeezed; the last ones are told again on their way to the latents
    expected = [first[1], first[2], *3 * [second[1]], *2 * [second[2]]]
    assert sorted(re.findall(r"\d+ × \d+ × \d+", words)) == sorted(" × ".join(map(str, own)) for own in expected)
    assert kinds == ["Squeeze", *8 * ["AffineCoupling"], "Squeeze", *4 * ["AffineCoupling"], "Split"]
    assert "8 couplings:\n4 checkerboard,\n4 channels" in words
    assert "4 couplings:\nchannels" in words
    masks = [own.kept.tolist() for own in model.modules() if isinstance(own, AffineCoupling)]
    assert masks == 2 * [[0, 3], [1, 2]] + 2 * [[0, 1], [2, 3]] + 2 * [[0, 1, 2, 3], [4, 5, 6, 7]]
    leaving = (4 - second[1][0]) * 14 * 14
    assert words.count(f"\n{leaving}") == words.count(f"\n{np.prod(second[2])}") == 2
    assert f"$z$: {model.dims}" in words
    assert leaving + np.prod(second[2]) == model.dims == 784


def test_the_channels_in_the_drawing_of_the_scales_are_as_many_and_as_wide_as_told():
    axes = flow_diagrams.scales().axes[0]
    squares = [own for own in axes.patches if isinstance(own, Rectangle)][1::2]  # each lies on a white one
    stacks = [
        (round(width / (0.9 / 28)), len([*own]))  # the image is 0.9 inches wide
        for (width, _), own in itertools.groupby(squares, lambda own: (own.get_width(), own.get_x() // 1.2))
    ]
    assert stacks == [(14, 4), (14, 4), (14, 2), (7, 8)]
    [image] = axes.images
    assert np.ptp(image.get_extent()[:2]) == pytest.approx(0.9)
    assert image.get_array().shape == (28, 28)


def test_as_many_channels_leave_at_the_split_as_go_on_and_each_half_keeps_its_colour_to_the_latents():
    axes = flow_diagrams.scales().axes[0]
    colours = [own.get_facecolor()[:3] for own in axes.patches if isinstance(own, Rectangle)][1::2]
    orange, blue = (to_rgba(own)[:3] for own in figures.COLOURS[1::-1])
    assert colours[4:] == [orange, orange, *12 * [blue]]
    assert not {orange, blue} & {*colours[:4]}
    boxes = [*boxed(axes)]
    halves = [own for own in arrows(axes) if touched(boxes, own[1]) == "392"]
    frames = {own.get_edgecolor()[:3] for own in axes.patches if isinstance(own, FancyBboxPatch)}
    assert {to_rgba(colour)[:3] for _, _, colour in halves} == {orange, blue} <= frames


def test_the_green_boxes_of_the_scales_have_a_log_determinant_each_and_the_rest_has_none():
    axes = flow_diagrams.scales().axes[0]
    green = [
        own for own in axes.patches if isinstance(own, FancyBboxPatch) and own.get_edgecolor() == to_rgba("#009E73")
    ]
    terms = {own.get_text(): own.get_position() for own in axes.texts if own.get_text().startswith(r"$\ell")}
    assert [*terms] == [rf"$\ell_{number}$" for number in (1, 2, 3)]
    for x, y in terms.values():
        below = [own[1] - y for own in (extent(axes, box) for box in green) if own[0] < x < own[2] and own[1] > y]
        assert min(below) < 0.25
    assert r"\ell_1 + \ell_2 + \ell_3$; squeeze and split add 0" in told(axes.figure)
    pixels = torch.rand(1, 4, 14, 14)
    assert not any(layer(pixels)[1].any() for layer in (Squeeze(), Split(Flatten((2, 14, 14)))))


def test_the_arrows_of_the_scales_touch_what_they_lead_to():
    axes = flow_diagrams.scales().axes[0]
    extents = [extent(axes, own) for own in axes.patches if isinstance(own, FancyBboxPatch | Rectangle)]
    extents += [np.array(own.get_extent())[[0, 2, 1, 3]] for own in axes.images]
    for start, end, _ in arrows(axes):
        for point in (start, end):
            assert min(np.abs(np.clip(point, own[:2], own[2:]) - point).max() for own in extents) < 0.03, point


# ---------------------------------------------------------------- masks


def units(axes):
    """The columns of boxes: (text, middle, whether it stands out), from above."""
    frames = {tuple(extent(axes, own)): own.get_edgecolor() for own in axes.patches if isinstance(own, FancyBboxPatch)}
    columns = {}
    for text, box in boxed(axes):
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        columns.setdefault(round(x, 2), []).append((text, (x, y), frames[tuple(box)] == to_rgba(flow_diagrams.ORANGE)))
    return [sorted(columns[x], key=lambda own: -own[1][1]) for x in sorted(columns)]


def edges(axes, k):
    """The mask that the lines between the columns k and k + 1 draw, and that of the strong ones: (to, from)."""
    low, high = units(axes)[k : k + 2]
    found, strong = np.zeros((2, len(high), len(low)), dtype=bool)
    for line in axes.lines:
        start, end = line.get_xydata()
        if start[0] == pytest.approx(low[0][1][0]):
            j = [own[1][1] for own in low].index(pytest.approx(start[1]))
            i = [own[1][1] for own in high].index(pytest.approx(end[1]))
            found[i, j], strong[i, j] = True, line.get_color() == flow_diagrams.ORANGE
    return found, strong


def real(dims):
    """The masks of a real layer, its hidden units sorted by the inputs that they see, which are found by gradients."""
    torch.manual_seed(1)
    layer = randomized(AutoregressiveLayer(dims, 2 * (dims - 1)))
    masks = [own.mask.bool() for own in layer.network if isinstance(own, MaskedLinear)]
    degrees = torch.arange(2 * (dims - 1)) % (dims - 1) + 1  # as Germain et al. number them
    order = degrees.argsort(stable=True)
    return layer, degrees[order], [masks[0][order], masks[1][order][:, order], masks[2][:, order]]


@pytest.mark.parametrize("dims", [3, 4])
def test_the_lines_of_the_masked_network_are_the_masks_of_a_real_layer_and_its_units_have_their_numbers(dims):
    axes = flow_diagrams.masks(dims, 2).axes[0]
    _, numbers, (first, middle, last) = real(dims)
    for k, mask in enumerate((first, middle, last[:dims])):
        assert (edges(axes, k)[0] == mask.numpy()).all()
    assert torch.equal(last[:dims], last[dims:])  # so s_i and t_i can be drawn as one
    names = [[own[0] for own in column] for column in units(axes)]
    assert names[0] == [f"$x_{i}$" for i in range(1, dims + 1)]
    assert names[1] == names[2] == [str(own) for own in numbers.tolist()]
    assert names[3] == [f"$s_{i},\\ t_{i}$" for i in range(1, dims + 1)]


@pytest.mark.parametrize(("dims", "output"), [(4, 3), (4, 1), (4, 4), (3, 2)])
def test_what_stands_out_of_the_masked_network_is_all_that_leads_to_one_output(dims, output):
    axes = flow_diagrams.masks(dims, output).axes[0]
    layer, _, _ = real(dims)
    x = torch.randn(64, dims, dtype=torch.float64, requires_grad=True)
    scale, shift = layer.scale_and_shift(x)
    [gradient] = torch.autograd.grad((scale + shift)[:, output - 1].sum(), x)
    columns = units(axes)
    assert [own[2] for own in columns[0]] == (gradient != 0).any(0).tolist() == [i < output - 1 for i in range(dims)]
    assert [own[2] for own in columns[3]] == [i == output - 1 for i in range(dims)]
    for column in columns[1:3]:
        assert [own[2] for own in column] == [int(own[0]) < output for own in column]
    for k in range(3):
        found, strong = edges(axes, k)
        assert (strong == found & np.array([own[2] for own in columns[k + 1]])[:, None]).all()


@pytest.mark.parametrize("dims", [3, 4])
def test_the_tables_under_the_masked_network_are_its_masks_and_what_they_make_together(dims):
    axes = flow_diagrams.masks(dims).axes[0]
    squares = [own for own in axes.patches if isinstance(own, Rectangle)]
    white = to_rgba("white")
    _, numbers, (first, middle, last) = real(dims)
    sees = torch.ones(dims, dims).tril(-1).bool()
    values = torch.arange(1, dims + 1)
    names = [own.get_text() for own in axes.texts if own.get_position()[1] < 1.7 and own.get_text().isdigit()]
    titles = {own.get_text(): own.get_position()[0] for own in axes.texts}
    found = [titles[own] for own in ("first mask", "second mask", "third mask", "together: inputs seen")]
    assert found == sorted(found)
    assert [own.get_text() for own in axes.texts if own.get_position()[1] == 4.68] == [
        "inputs",
        "hidden units",
        "hidden units",
        "outputs",
    ]
    for mask, rows, columns in (
        (first, numbers, values),
        (middle, numbers, numbers),
        (last[:dims], values, numbers),
        (sees, values, values),
    ):
        own, squares = squares[: mask.numel()], squares[mask.numel() :]
        filled = torch.tensor([square.get_facecolor() != white for square in own]).view(mask.shape)
        assert torch.equal(filled, mask)
        expected, names = names[: sum(mask.shape)], names[sum(mask.shape) :]
        assert expected == [str(number) for number in [*rows.tolist(), *columns.tolist()]]
    assert (squares, names) == ([], [])
