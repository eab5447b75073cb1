"""What the widgets of flow matching show."""

import numpy as np
import pytest
import sliders
import torch
from conftest import randomized
from sliders import axes, only, set_to
from torch.testing import assert_close

from gm_helpers import matching_widgets
from gm_helpers.exact import Mixture
from gm_helpers.flow_matching import FlowMatching, euler, log_prob, midpoint
from gm_helpers.nn import VelocityNetwork

pytestmark = pytest.mark.usefixtures("shown")

MIXTURE = Mixture(
    torch.tensor([0.4, 0.6]).double(),
    torch.tensor([[-1.0, 0.3], [0.8, -0.5]]).double(),
    torch.tensor([0.3, 0.2]).double(),
)


class Exact(FlowMatching):
    """Flow matching with the velocity that is best for a mixture."""

    def __init__(self):
        super().__init__(torch.nn.Linear(1, 1).double(), (2,))

    def velocity(self, x, t):
        return MIXTURE.velocity(x, t)


PLANE, DIGITS = Exact(), FlowMatching(randomized(VelocityNetwork(8, 8)), (1, 28, 28))
DISTANCES = {2: 80.0, 5: 30.0, 20: 12.0}
WIDGETS = {
    "moons_in_time": lambda folder="": matching_widgets.moons_in_time(PLANE, folder),
    "number_of_steps": lambda folder="": matching_widgets.number_of_steps(DIGITS, DISTANCES, 1.5, folder),
}
every_widget = pytest.mark.parametrize("show", WIDGETS.values(), ids=WIDGETS)


def points(time):
    axis = axes(time=time)[0]
    return torch.as_tensor(axis.collections[0].get_offsets().data), torch.as_tensor(
        axis.collections[0].get_array().data
    )


@pytest.mark.parametrize("time", [0.0, 0.5, 1.0])
def test_points_in_time_lie_where_the_velocity_carries_them_and_are_coloured_by_their_density_then(time):
    WIDGETS["moons_in_time"]()
    noise, _ = points(0.0)
    x, density = points(time)
    assert_close(x, midpoint(PLANE.velocity, noise, 0.0, time, round(50 * time)) if time else noise)
    assert_close(density, MIXTURE.log_prob(x, time), rtol=0, atol=0.02)
    assert set_to(time=time) == f"τ = {time:.2f}: mean of log p over the points {density.mean():.3f} nats".replace(
        "-", "−"
    )


def test_the_points_are_draws_of_the_noise_and_at_the_end_have_the_density_of_a_likelihood():
    WIDGETS["moons_in_time"]()
    noise, _ = points(0.0)
    assert_close(noise.mean(0), torch.zeros(2).double(), rtol=0, atol=0.15)
    assert_close(noise.std(0), torch.ones(2).double(), rtol=0, atol=0.1)
    x, density = points(1.0)
    assert_close(density, log_prob(PLANE.velocity, x, 50, exact=True), rtol=0, atol=0.01)


def test_the_arrows_are_the_velocity_at_their_places_and_the_time_of_the_slider():
    WIDGETS["moons_in_time"]()
    for time in (0.0, 0.6):
        arrows = axes(time=time)[0].collections[1]
        places = torch.as_tensor(np.stack([arrows.X, arrows.Y], 1)).double()
        v = MIXTURE.velocity(places, torch.full((len(places),), time).double())
        assert_close(torch.as_tensor(np.stack([arrows.U, arrows.V], 1)).double(), v, rtol=0, atol=1e-5)


def test_the_time_can_be_played_from_noise_to_data():
    WIDGETS["moons_in_time"]()
    [player] = only().player
    player.value = player.max
    assert only().controls["time"].value == 1
    player.value = 0
    assert only().controls["time"].value == 0


@pytest.mark.parametrize("steps", [1, 2, 20])
def test_the_same_noise_is_carried_to_digits_by_as_many_steps_as_are_chosen(steps):
    WIDGETS["number_of_steps"]()
    picture = axes(steps=steps)[0].images[0].get_array().data
    noise = torch.randn(12, 1, 28, 28, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        made = (euler(DIGITS.velocity, noise, 0.0, 1.0, steps).clamp(-1, 1) + 1) / 2
    for i, own in enumerate(made):
        row, column = divmod(i, 4)
        assert_close(torch.as_tensor(picture[28 * row :, 28 * column :][:28, :28]), own[0])


def test_beside_the_digits_stand_the_distances_that_were_measured_and_no_others():
    WIDGETS["number_of_steps"]()
    right = axes(steps=5)[1]
    assert right.lines[0].get_xydata().tolist() == [[2, 80], [5, 30], [20, 12]]
    assert [*right.lines[1].get_ydata()] == [1.5, 1.5]
    assert right.lines[2].get_xydata().tolist() == [[5, 30]]
    assert set_to(steps=20) == "20 steps: Fréchet distance 12.0"
    assert set_to(steps=10) == "10 steps: Fréchet distance not measured"
    assert set_to(steps=1) == "1 step: Fréchet distance not measured"
    assert only().controls["steps"].options == (1, 2, 3, 5, 10, 20)


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
