"""What is particular to the checkers of notebook 3's exercises on flows; their zoo runs in test_exercises.py."""

import math

import numpy as np
import pytest
import scipy
import torch
import torch.nn.functional as F
import zoo_flows
from torch import nn
from torch.distributions import Normal

from gm_helpers import exercises, flows
from gm_helpers.exercises import checking, flow_base, flow_density, flow_layers, flow_noise, flow_time
from gm_helpers.exercises.checking import EXERCISES, UNTOUCHED, Mistake, Verdict


@pytest.fixture(autouse=True)
def fixed_cases(monkeypatch):
    for module in (checking, flow_base, flow_density, flow_layers, flow_noise, flow_time):
        monkeypatch.setattr(module, "rng", lambda: np.random.default_rng(0))
    yield
    for own in EXERCISES.values():
        own.verdict = checking.UNTOUCHED


def names(verdict, idea):
    """Whether the verdict is "wrong", and this idea is all that is said after the case that fails."""
    told = checking._verdict("wrong", idea).message
    return verdict.status == "wrong" and verdict.message.partition("\n")[2] == told


# ---------------------------------------------------------------- every known mistake is told by its own idea


@pytest.mark.parametrize(
    ("which", "mistake"),
    [*((0, own) for own in flow_density.SQUARE_MISTAKES), *((2, own) for own in flow_density.ABS_MISTAKES)],
)
def test_every_known_integral_that_is_wrong_is_told_by_its_own_idea(which, mistake):
    answer = [1, False, 1.683, False]
    answer[which] = mistake.gives()
    assert names(exercises.preimages(tuple(answer)), mistake.idea)


@pytest.mark.parametrize("mistake", flow_noise.NOISE_MISTAKES)
def test_every_known_log_density_of_noise_that_is_wrong_is_told_by_its_own_idea(mistake):
    answer = zoo_flows.noise(lambda u, log_q: (u, mistake.gives(u)))
    assert names(exercises.black_noise(answer), mistake.idea)


MOVES = [
    *((True, own) for own in flow_layers.CONVOLVED_MISTAKES),
    *((False, own) for own in flow_layers.UNDONE_MISTAKES),
]
VOLUMES = [
    *((True, own) for own in flow_layers.STRETCH_MISTAKES),
    *((False, own) for own in flow_layers.SHRINK_MISTAKES),
]


def convolution(forward, part, gives):
    """A right one but for one part, 0 or 1, of what it gives in one direction."""
    name = "forward" if forward else "inverse"

    def method(self, x):
        given = [*getattr(zoo_flows.ByConvolution, name)(self, x)]
        given[part] = gives(self.weight.detach(), x)
        return given

    return zoo_flows.convolution(**{name: method})


@pytest.mark.parametrize(
    ("part", "forward", "mistake"), [*((0, *own) for own in MOVES), *((1, *own) for own in VOLUMES)]
)
def test_every_known_mistake_of_a_convolution_is_told_by_its_own_idea(part, forward, mistake):
    assert names(exercises.invertible_1x1(convolution(forward, part, mistake.gives)), mistake.idea)


def test_a_wrong_determinant_of_a_convolution_is_told_by_the_same_idea_in_either_direction():
    assert [own.idea for own in flow_layers.STRETCH_MISTAKES[1:]] == [
        own.idea for own in flow_layers.SHRINK_MISTAKES[1:]
    ]


@pytest.mark.parametrize(
    ("part", "mistake"),
    [*((0, own) for own in flow_layers.PIECES_MISTAKES), *((1, own) for own in flow_layers.SLOPES_MISTAKES)],
)
def test_every_known_mistake_of_straight_pieces_is_told_by_its_own_idea(part, mistake):
    def answer(*case):
        given = [*zoo_flows.pieces()(*case)]
        given[part] = mistake.gives(*case)
        return given

    assert names(exercises.piecewise_linear(answer), mistake.idea)


# ---------------------------------------------------------------- the oracles, by yet another computation


def test_the_integrals_are_the_mean_numbers_of_preimages_of_a_million_draws():
    z = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    means = 2 * (z > 0).double().mean(), 2 * (z > -1).double().mean()
    assert [own.integral() for own in flow_density.MAPS] == pytest.approx([own.item() for own in means], abs=0.004)


def test_the_cost_of_the_best_noise_is_minus_the_log_of_the_mass_on_the_cell():
    normal = scipy.stats.norm(-6.525, 0.954)
    low, high = (zoo_flows.logit_of(torch.tensor(own).double()).item() for own in (0.0, 1.0))
    assert flow_noise._log_mass() == pytest.approx(math.log(normal.cdf(high) - normal.cdf(low)), abs=1e-6)


def test_uniform_noise_has_the_moments_for_which_the_normal_stands():
    """The mean and the deviation of the logits, and the costs that the exercise names."""
    u = (torch.arange(1_000_000, dtype=torch.float64) + 0.5) / 1_000_000
    logits = flow_noise._logit(u)
    assert [logits.mean().item(), logits.std().item()] == pytest.approx(
        [flow_noise.MEAN, flow_noise.DEVIATION], abs=6e-4
    )
    assert -flow_noise._log_p(u).mean().item() / math.log(2) == pytest.approx(0.560, abs=1e-3)
    assert -flow_noise._log_mass() / math.log(2) == pytest.approx(0.235, abs=1e-3)


def test_the_slope_of_the_way_to_the_logits_is_that_of_the_layers():
    y, alpha = torch.linspace(0.5, 255.5, 100, dtype=torch.float64), 0.03
    logits, total = y[:, None], 0.0
    for layer in flows.pixels_to_logits(alpha):
        logits, log_det = layer(logits)
        total = total + log_det
    torch.testing.assert_close(flow_density._by_autograd(logits.flatten(), 256, alpha), total)


@pytest.mark.parametrize(("dims", "levels"), [(1, 2), (3, 16), (20, 256)])
def test_a_uniform_density_scores_the_logarithm_of_the_levels(dims, levels):
    case = flow_density._bits_case(np.random.default_rng(0), dims, levels, 0.05, 0.0)
    assert flow_density._bits()(*case.values()) == pytest.approx(math.log2(levels), abs=1e-9)


def test_the_mass_of_boxes_is_that_of_normals_and_of_densities_with_an_edge():
    samples = torch.randn(10_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    boxes = flow_base._boxes(samples)
    masses = flow_base._masses(lambda z: Normal(0.0, 1.0).log_prob(z).sum(1).exp(), boxes)
    sides = Normal(0.0, 1.0).cdf(boxes).diff(dim=1)[:, 0]
    torch.testing.assert_close(masses, sides.prod(1), atol=1e-5, rtol=0)
    inside = flow_base._masses(lambda z: (z.norm(dim=1) < 1).double(), boxes).sum()
    assert inside.item() == pytest.approx(math.pi, abs=0.01)


def test_a_box_is_divided_until_a_hump_that_is_narrower_is_measured():
    hump = Normal(torch.tensor([0.3, 0.2]).double(), 0.1)
    box = torch.tensor([[[-4.0, -4.0], [4.0, 4.0]]]).double()
    assert flow_base._masses(lambda z: hump.log_prob(z).sum(1).exp(), box).item() == pytest.approx(1, abs=1e-3)


def test_boxes_lie_beside_each_other_and_hold_each_sample_once():
    samples = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    boxes = flow_base._boxes(samples)
    assert flow_base._counts(samples, boxes).sum() == 2000
    whole = (boxes[-1, 1] - boxes[0, 0]).prod()
    torch.testing.assert_close((boxes[:, 1] - boxes[:, 0]).prod(1).sum(), whole)


def test_boxes_reach_far_beyond_the_samples_on_every_side():
    samples = torch.rand(2000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    least, most = samples.amin(0), samples.amax(0)
    boxes = flow_base._boxes(samples)
    torch.testing.assert_close(boxes[0, 0], least - 2 * (most - least))
    torch.testing.assert_close(boxes[-1, 1], most + 2 * (most - least))


@pytest.mark.parametrize("negative", [True, False])
def test_random_matrices_can_be_inverted_in_float32_and_their_determinant_has_the_sign_that_is_asked_for(negative):
    random = np.random.default_rng(0)
    own = torch.stack([flow_layers._matrix(random, 4, negative) for _ in range(50)])
    assert torch.linalg.cond(own).max() < 20
    assert ((own.det() < 0) == negative).all()
    assert (own.det().abs().log().abs() > 0.2).all()


def test_a_convolution_is_tried_with_determinants_of_either_sign_most_of_them_negative():
    seen = {}

    class Watched(zoo_flows.ByConvolution):
        def __init__(self, matrix):
            super().__init__(matrix)
            seen[tuple(matrix.flatten().tolist())] = matrix.det().item() < 0

    assert exercises.invertible_1x1(Watched).status == "right"
    assert len(seen) / 2 < sum(seen.values()) < len(seen)


@pytest.mark.parametrize(("distance", "count"), [(0, 1), (3.2, 1), (3.6, 2), (8, 2)])
def test_two_normals_have_two_humps_once_the_valley_is_half_as_deep(distance, count):
    """With deviation 1 the valley has half the height of the humps at the distance 3.37."""
    base = zoo_flows.Humps(((-distance / 2, 0), (distance / 2, 0)))
    samples = base.sample(20_000, torch.Generator().manual_seed(0))
    assert flow_base._humps(lambda z: base.log_prob(z).exp(), samples) == count


# ---------------------------------------------------------------- open


class Stub:
    """Says what is asked."""


class StubOfAModule(nn.Module): ...  # your turn


class StubWithMethods:
    def __init__(self, matrix): ...

    def forward(self, x):
        """Of data."""

    def inverse(self, z):
        pass


@pytest.mark.parametrize("kind", [Stub, StubOfAModule, StubWithMethods])
def test_a_class_without_a_body_is_open(kind):
    assert exercises.invertible_1x1(kind) == UNTOUCHED


@pytest.mark.parametrize("answer", [Stub, Stub(), StubOfAModule, StubOfAModule()])
def test_a_base_without_a_body_is_open(answer):
    assert exercises.two_humped_base(answer) == UNTOUCHED


@pytest.mark.parametrize("kind", [zoo_flows.Humps, zoo_flows.Module, zoo_flows.Caches, int, nn.Linear])
def test_a_class_that_has_a_body_or_inherits_one_is_not_open(kind):
    flow_noise.refuse_hollow(kind)


def test_a_method_without_a_body_is_open_and_named():
    half = zoo_flows.convolution(inverse=StubWithMethods.inverse)
    assert exercises.invertible_1x1(half) == Verdict("open", "`inverse` is not filled in yet.")
    base = type("Half", (zoo_flows.Humps,), {"sample": StubWithMethods.inverse})()
    assert exercises.two_humped_base(base) == Verdict("open", "`sample` is not filled in yet.")


def test_four_parts_are_open_as_long_as_one_is_missing():
    assert exercises.preimages((1.0, ..., None, False)) == Verdict("open", "2 of 4 have no answer yet.")


# ---------------------------------------------------------------- what is particular


@pytest.mark.parametrize("answer", [(1, False, 2, False), (2, False, 1.683, False), (1, True, 1.683, False)])
def test_no_integral_is_given_away(answer):
    given = [f"{own:.4g}" for own in answer if not isinstance(own, bool)]
    said = exercises.preimages(answer).message
    assert [own for own in ("1.68", "1.0", " 1 ", " 1.") if own in said and own.strip(" .") not in given] == []


def test_another_generator_gives_other_draws_and_the_same_one_the_same():
    seen = []

    def watched(n, generator):
        seen.append(zoo_flows.noise_by_inverse(n, generator)[0])
        return zoo_flows.noise_by_inverse(n, torch.Generator().manual_seed(len(seen)))

    assert "other numbers" in exercises.black_noise(watched).message
    large = [own for own in seen if len(own) > 3]
    assert torch.equal(large[0], large[2])


def test_a_class_that_makes_a_base_without_arguments_is_taken_for_what_it_makes():
    assert exercises.two_humped_base(zoo_flows.Humps).status == "right"


def test_log_determinants_at_the_edges_of_bins_are_anybody_s_choice():
    def answer(x, widths, heights):
        z, log_det = zoo_flows.pieces()(x, widths, heights)
        at_edge = (x[:, :, None] == F.pad(widths.cumsum(1), (1, 0))).any(2).any(1)
        return z, torch.where(at_edge, -math.inf, log_det)

    assert exercises.piecewise_linear(answer).status == "right"


def test_the_first_case_that_fails_is_told_and_the_idea_of_the_mistake_that_gives_the_same_in_every_case():
    cases = [{"x": torch.tensor([0.0, 1.0]).double()}, {"x": torch.tensor([2.0, 3.0]).double()}]
    mistakes = [Mistake(lambda x: 2 * x, "twice"), Mistake(lambda x: x**2, "squared")]

    def told(answer):
        flow_layers.settle_largest([answer(own["x"]) for own in cases], cases, lambda x: x, mistakes, "yours")

    told(lambda x: x * (1 + 1e-5))
    for answer, words in (
        (lambda x: x**2, "^for x = .2, 3.: yours is .4, 9., and should be .2, 3.\\.\nsquared$"),
        (lambda x: 2 * x, "^for x = .0, 1.: .*\ntwice$"),
        (lambda x: x + 0.01, "^for x = .0, 1.: [^\n]*$"),
    ):
        with pytest.raises(checking.Wrong, match=words):
            told(answer)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["log_density", "bits_of", "black_noise", "invertible_1x1", "piecewise_linear"])
def test_right_answers_are_right_whatever_the_cases(name, seed, monkeypatch):
    for module in (flow_density, flow_layers, flow_noise):
        monkeypatch.setattr(module, "rng", lambda: np.random.default_rng(100 + seed))
    for answer in zoo_flows.RIGHT[name]:
        assert getattr(exercises, name)(answer).status == "right"
