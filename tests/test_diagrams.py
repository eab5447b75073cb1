"""Drawings: what stands in them can be read, and is true."""

import functools
import itertools

import matplotlib
import numpy as np
import pytest
from drawings import connections, extent, hits, parts, texts, ways
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle

from gm_helpers import diagrams
from gm_helpers.vae import VAE

pytestmark = pytest.mark.usefixtures("style")


DRAWINGS = {
    "vae": diagrams.vae,
    "vae with sizes": functools.partial(diagrams.vae, sizes=True),
    "gan": diagrams.gan,
}
every_drawing = pytest.mark.parametrize("drawing", DRAWINGS.values(), ids=DRAWINGS)


@every_drawing
def test_no_text_of_a_drawing_is_cut_off_or_lies_over_another(drawing):
    figure = drawing()
    figure.canvas.draw()
    boxes = {own.get_text(): own.get_window_extent() for own in texts(figure)}
    width, height = figure.canvas.get_width_height()
    assert [text for text, own in boxes.items() if min(own.x0, own.y0) < 0 or own.x1 > width or own.y1 > height] == []
    assert [pair for pair in itertools.combinations(boxes, 2) if boxes[pair[0]].overlaps(boxes[pair[1]])] == []


@every_drawing
def test_every_text_of_a_drawing_is_large_enough_to_read(drawing):
    figure = drawing()
    assert min(own.get_fontsize() for own in texts(figure)) >= 9
    assert figure.get_figwidth() <= 8


@every_drawing
def test_every_text_in_a_box_of_a_drawing_is_narrower_than_its_box(drawing):
    figure = drawing()
    figure.canvas.draw()
    boxes = [own.get_window_extent() for own in figure.axes[0].patches if isinstance(own, FancyBboxPatch)]
    for text in texts(figure):
        own = text.get_window_extent()
        middle = (own.x0 + own.x1) / 2, (own.y0 + own.y1) / 2
        assert all(box.x0 < own.x0 and own.x1 < box.x1 for box in boxes if box.contains(*middle)), text.get_text()


@every_drawing
def test_no_arrow_of_a_drawing_runs_through_a_text(drawing):
    figure = drawing()
    figure.canvas.draw()
    boxes = {own.get_text(): own.get_window_extent() for own in texts(figure)}
    assert [text for way in ways(figure) for text, box in boxes.items() if hits(way, box)] == []


def test_the_sizes_in_the_drawing_are_those_of_the_model_with_twenty_latents():
    model = VAE(20)
    parts = [model.trunk, model.mean_head, model.log_var_head], [model.decoder]
    counts = [f"{sum(p.numel() for own in part for p in own.parameters()):,} parameters" for part in parts]
    layers = [["784 → 500, ReLU", "→ 20 + 20: $\\mu$, $\\log\\,\\sigma^2$"], ["20 → 500, tanh", "→ 784 logits"]]
    shown = [own.get_text().split("\n") for own in texts(diagrams.vae(sizes=True))]
    for own, count in zip(layers, counts, strict=True):
        assert [*own, count] in shown


def test_an_arrow_goes_through_its_points_and_its_head_ends_at_the_last():
    _, axes = diagrams.canvas(4, 3)
    diagrams.arrow(axes, (1, 1), (1, 2), (3, 2), style=":")
    [line], [head] = axes.lines, axes.patches
    assert line.get_xydata() == pytest.approx(np.array([[1, 1], [1, 2], [2.9, 2]]))
    assert isinstance(head, FancyArrowPatch)
    tips = head.get_path().vertices
    assert tips[:, 0].max() == pytest.approx(3, abs=0.03)


def test_a_box_has_its_size_about_its_centre_and_its_text_in_the_middle():
    _, axes = diagrams.canvas(4, 3)
    diagrams.box(axes, (2, 1), (1.5, 0.5), "text")
    assert extent(axes, axes.patches[-1]) == pytest.approx([1.25, 0.75, 2.75, 1.25])
    assert axes.texts[0].get_position() == (2, 1)


@pytest.mark.parametrize(("narrow", "heights"), [("right", (1.0, 0.5)), ("left", (0.5, 1.0))])
def test_a_network_is_half_as_high_on_its_narrow_side(narrow, heights):
    _, axes = diagrams.canvas(4, 3)
    diagrams.network(axes, (2, 1), (1, 1), "", diagrams.BLUE, narrow)
    [shape] = axes.patches
    assert isinstance(shape, Polygon)
    corners = shape.get_xy()[:4]
    for side, height in zip((1.5, 2.5), heights, strict=True):
        assert np.ptp(corners[corners[:, 0] == side][:, 1]) == height


def test_a_picture_lies_upright_in_its_square():
    _, axes = diagrams.canvas(4, 3)
    image = np.array([[1.0, 0.0], [0.0, 0.5]])
    diagrams.picture(axes, (2, 1), 1, image)
    [shown] = axes.images
    assert (shown.get_extent(), shown.origin) == ([1.5, 2.5, 0.5, 1.5], "upper")
    assert (shown.get_array().data == image).all()


def test_a_panel_lies_under_the_canvas_and_has_its_inches_to_a_unit():
    _, axes = diagrams.canvas(4, 3)
    panel = diagrams.panel(axes, (1, 0.5), (-1, 0), (1, 4), (0.7, 0.5))
    corners = panel.transData.transform([(-1, 0), (1, 4), (0, 1)])
    assert axes.transData.inverted().transform(corners) == pytest.approx(np.array([(1, 0.5), (2.4, 2.5), (1.7, 1)]))
    assert panel.get_zorder() < axes.get_zorder()
    assert not any(own.get_visible() for own in (*panel.get_xgridlines(), *panel.get_ygridlines()))


def test_a_table_has_its_upper_left_corner_there_and_in_each_square_its_shade_and_its_text():
    _, axes = diagrams.canvas(4, 3)
    shades = [[(diagrams.BLUE, 0.5), ("white", 1.0), ("white", 1.0)], 3 * [(diagrams.GREEN, 0.1 * 2)]]
    diagrams.table(axes, (1, 2), 0.5, shades, np.arange(6).reshape(2, 3))
    for (i, j), square, text in zip(np.ndindex(2, 3), axes.patches, axes.texts, strict=True):
        assert extent(axes, square) == pytest.approx([1 + j / 2, 1.5 - i / 2, 1.5 + j / 2, 2 - i / 2])
        assert square.get_facecolor() == matplotlib.colors.to_rgba(*shades[i][j])
        assert (text.get_text(), text.get_position()) == (f"{3 * i + j}", (1.25 + j / 2, 1.75 - i / 2))


def test_the_first_of_an_image_s_channels_is_at_the_back_on_the_right_and_all_lie_about_their_centre():
    _, axes = diagrams.canvas(4, 3)
    diagrams.planes(axes, (2, 1), 0.5, [(diagrams.BLUE, 0.5), (diagrams.GREEN, 0.5), (diagrams.BLACK, 0.5)])
    extents = np.array([extent(axes, own) for own in axes.patches[1::2]])  # each lies on a white one
    assert (extents[:2, 0] > extents[1:, 0]).all()
    assert (extents[:, :2] + extents[:, 2:]).mean(0) / 2 == pytest.approx([2, 1])
    assert [own.get_facecolor()[3] for own in axes.patches] == [1, 0.5, 1, 0.5, 1, 0.5]


def test_a_line_of_a_legend_has_its_square_on_the_left_of_its_text_and_at_its_height():
    _, axes = diagrams.canvas(4, 3)
    diagrams.key(axes, (1, 2), (diagrams.BLUE, 0.5), "what it is", "--")
    [square], [text] = axes.patches, axes.texts
    assert isinstance(square, Rectangle)
    left, low, right, high = extent(axes, square)
    assert (left, (low + high) / 2, square.get_linestyle()) == (1, pytest.approx(2), "--")
    assert right < text.get_position()[0]


def test_a_square_has_its_lower_left_corner_there():
    _, axes = diagrams.canvas(4, 3)
    diagrams.square(axes, (1, 2), 0.5, (diagrams.BLUE, 0.5))
    assert extent(axes, axes.patches[0]) == pytest.approx([1, 2, 1.5, 2.5])


def test_a_note_is_smaller_than_what_stands_in_a_box():
    _, axes = diagrams.canvas(4, 3)
    diagrams.note(axes, (1, 1), "note")
    diagrams.box(axes, (2, 2), (1, 1), "text")
    assert axes.texts[0].get_fontsize() < axes.texts[1].get_fontsize()


def test_the_arrows_of_the_vae_s_drawing_lead_from_each_part_to_those_that_use_it():
    sampled, noise = r"$\mu + \sigma \odot \varepsilon$", r"$\varepsilon \sim \mathcal{N}(0, I)$"
    way = ["image 0", "encoder", r"$\mu$", sampled, "$z$", "decoder", "image 1"]
    beside = [("encoder", r"$\sigma$"), (r"$\sigma$", sampled), (noise, sampled), ("prior", "$z$")]
    loss = [(r"$\mu$", "KL term"), ("prior", "KL term"), *((f"image {i}", "reconstruction error") for i in (0, 1))]
    expected = [*itertools.pairwise(way), *beside, *loss]
    assert sorted(connections(diagrams.vae().axes[0])) == sorted(expected)


def test_the_vae_s_drawing_begins_with_a_binary_image_and_ends_with_its_probabilities():
    image, probabilities = (own.get_array().data for own in diagrams.vae().axes[0].images)
    assert {*image.flat} == {0, 1}
    assert len({*probabilities.flat}) > 2
    assert probabilities[image == 1].min() >= 0.5 >= probabilities[image == 0].max()


def test_both_networks_of_the_vae_s_drawing_are_narrow_where_the_code_is():
    axes = diagrams.vae().axes[0]
    heights = {}
    for shape in axes.patches:
        if isinstance(shape, Polygon) and shape.get_facecolor()[3]:
            x, y = shape.get_xy()[:4].T
            heights[x.mean() < 4] = [np.ptp(y[x == side]) for side in (x.min(), x.max())]
    assert heights == {True: pytest.approx([1.3, 0.65]), False: pytest.approx([0.65, 1.3])}  # left, right


def test_the_words_of_the_vae_s_drawing_are_true_of_the_parts_that_they_stand_at():
    axes = diagrams.vae().axes[0]
    told = {own.get_text().split("\n")[0]: own for own in texts(axes.figure)}
    for part, formula in (("encoder", r"q_\phi(z\,|\,x)"), ("decoder", r"p_\theta(x\,|\,z)")):
        assert formula in told[part].get_text()
    assert r"KL}(q_\phi(z\,|\,x)\,\|\,p(z))" in told["KL term"].get_text()
    assert told["loss = $-$ELBO ="].get_text().endswith("KL + reconstruction error")
    assert told["guesses the code"].get_position()[0] == told["encoder"].get_position()[0]
    assert told["draws what"].get_position()[0] == told["decoder"].get_position()[0]


SAMPLE, REAL = "image 0", "image 1"
D_LOSS, G_LOSS = "discriminator's loss: low where", "generator's loss: low where"


def by_style(axes):
    """What `connections` says of solid lines, and of dotted ones, with their colours."""
    found = {"-": [], ":": []}
    for ends, line in zip(connections(axes), axes.lines, strict=True):
        found[line.get_linestyle()].append((*ends, line.get_color()))
    return found


def test_the_solid_arrows_of_the_gan_s_drawing_lead_from_each_part_to_those_that_use_it():
    way = ["noise", "generator", SAMPLE, "discriminator", "$a$", "probability"]
    expected = [(*own, diagrams.BLACK) for own in [*itertools.pairwise(way), (REAL, "discriminator")]]
    expected += [("probability", D_LOSS, diagrams.BLUE), ("probability", G_LOSS, diagrams.ORANGE)]
    assert sorted(by_style(diagrams.gan().axes[0])["-"]) == sorted(expected)


def test_the_gradient_of_each_loss_of_the_gan_s_drawing_leads_to_its_player_alone_and_the_generator_s_through_d():
    axes = diagrams.gan().axes[0]
    expected = [(D_LOSS, "discriminator", diagrams.BLUE), (G_LOSS, SAMPLE, diagrams.ORANGE)]
    expected.append((SAMPLE, "generator", diagrams.ORANGE))
    assert sorted(by_style(axes)[":"]) == sorted(expected)
    [discriminator] = [own for own in axes.patches if isinstance(own, Polygon) and own.get_edgecolor() == rgba("BLUE")]
    inside = [own for own in axes.lines if enters(discriminator, own)]
    assert [(own.get_linestyle(), own.get_color()) for own in inside] == [(":", diagrams.ORANGE)]


def rgba(name):
    return matplotlib.colors.to_rgba(getattr(diagrams, name))


def enters(shape, line):
    """Whether a corner of the line lies well inside the shape."""
    corners = shape.get_xy()[:4]
    smaller = matplotlib.path.Path(corners.mean(0) + 0.9 * (corners - corners.mean(0)))
    return smaller.contains_points(line.get_xydata()).any()


def test_each_loss_of_the_gan_s_drawing_has_the_colour_of_the_player_that_it_moves():
    axes = diagrams.gan().axes[0]
    colours = {}
    for name, own in parts(axes).items():
        for shape in axes.patches:
            if isinstance(shape, FancyBboxPatch | Polygon) and np.allclose(extent(axes, shape), own):
                colours[name] = shape.get_edgecolor()
    assert colours["discriminator"] == colours[D_LOSS] == rgba("BLUE")
    assert colours["generator"] == colours[G_LOSS] == rgba("ORANGE")


def test_the_words_of_the_gan_s_drawing_are_true_of_the_parts_that_they_stand_at():
    axes = diagrams.gan().axes[0]
    told, places = {own.get_text(): own.get_position() for own in texts(axes.figure)}, parts(axes)
    assert f"{D_LOSS}\n$D(x)$ is near 1, $D(G(z))$ near 0" in told
    assert f"{G_LOSS}\n$D(G(z))$ is near 1" in told
    assert "probability\n$D = \\sigma(a)$" in told
    middles = {name: (own[:2] + own[2:]) / 2 for name, own in places.items()}
    assert told["generated image $G(z)$"][0] == pytest.approx(middles[SAMPLE][0])
    assert told["real image $x$\nfrom the data"][1] == pytest.approx(middles[REAL][1])
    assert told["logit"][0] == pytest.approx(middles["$a$"][0])


def test_the_generated_image_of_the_gan_s_drawing_is_grey_and_not_quite_the_real_one():
    sample, real = (own.get_array().data for own in diagrams.gan().axes[0].images)
    for image in (sample, real):
        assert len({*image.flat}) > 2
        assert (image.min(), image.max() <= 1) == (0, True)
    assert 0.05 < np.abs(sample - real).mean() < 0.3


def test_the_generator_of_the_gan_s_drawing_widens_and_the_discriminator_narrows():
    axes = diagrams.gan().axes[0]
    heights = {}
    for shape in axes.patches:
        if isinstance(shape, Polygon) and shape.get_facecolor()[3]:
            x, y = shape.get_xy()[:4].T
            heights[x.mean() < 4] = [np.ptp(y[x == side]) for side in (x.min(), x.max())]
    assert heights == {True: pytest.approx([0.65, 1.3]), False: pytest.approx([2.1, 1.05])}  # generator, discriminator
