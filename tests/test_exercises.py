"""The zoo: for each exercise the solution, other right answers, and wrong ones with the message that names them."""

import asyncio
import itertools
import math
import random
import re
import signal
import sys
import threading
import time
import warnings
from fractions import Fraction

import numpy as np
import pytest
import scipy
import sympy
import torch
import torch.nn.functional as F
import zoo_flows
import zoo_vae
from sklearn.linear_model import LogisticRegression
from torch import nn

from gm_helpers import batch, exercises, figures, metrics, sources
from gm_helpers.exercises import (
    checking,
    conclusion,
    flow_base,
    flow_density,
    flow_layers,
    flow_noise,
    flow_time,
    vae_bound,
    vae_model,
)
from gm_helpers.exercises import gan as game
from gm_helpers.exercises.checking import EXERCISES, Mistake, Verdict, Wrong
from gm_helpers.exercises.isolation import TimeUp, foreign, stopped_after, unnoticed
from gm_helpers.exercises.table import Progress
from gm_helpers.files import UsageError


@pytest.fixture(autouse=True)
def fixed_cases(monkeypatch):
    monkeypatch.setattr(checking, "rng", lambda: np.random.default_rng(0))
    modules = conclusion, flow_base, flow_density, flow_layers, flow_noise, flow_time, vae_bound, vae_model
    for module in (game, *modules):
        monkeypatch.setattr(module, "rng", lambda: np.random.default_rng(0))
    yield
    for own in EXERCISES.values():
        own.verdict = checking.UNTOUCHED


def solutions():
    """The answers of the sources, by the exercise's name: their code, run in the names of the first cells."""
    for name in batch.course():
        book = sources.solutions(sources.read(batch.NOTEBOOKS / "source" / f"{name}.md"))
        if book is None:
            continue
        code = [cell.source for cell in book.cells if cell.cell_type == "code"]
        names = {}
        exec(code[0].replace("%matplotlib inline", ""), names)
        for cell in code[3:]:
            for exercise, answer in sources.CHECKED.findall(cell):
                exec(sources.CHECKED.sub("", cell), names)
                yield exercise, names[answer]


SOLUTIONS = dict(solutions())


def loop(eta, n):
    radius = 1.0
    for _ in range(n):
        radius = math.hypot(radius, eta * radius)
    return radius


def in_turn(eta, n):
    z = np.array([1.0, 0.0])
    for _ in range(n):
        z = np.array([[1, 0], [eta, 1]]) @ np.array([[1, -eta], [0, 1]]) @ z
    return np.linalg.norm(z)


def turned_in_float32(eta, n):
    z = torch.tensor([0.6, 0.8])
    turn = torch.tensor([[1, -eta], [eta, 1]])
    for _ in range(n):
        z = turn @ z
    return z.norm().requires_grad_()


def fitted(old_data, old_samples):
    x = torch.cat([old_data, old_samples])[:, None].numpy()
    return LogisticRegression(C=1e6).fit(x, np.repeat([1, 0], [len(old_data), len(old_samples)]))


def value(model, data, samples):
    """V of a model of scikit-learn's."""
    scored = [model.predict_log_proba(np.asarray(own)[:, None]) for own in (data, samples)]
    return scored[0][:, 1].mean() + scored[1][:, 0].mean()


def by_scikit_learn(old_data, old_samples, new_data, new_samples):
    return np.array([(value(fitted(old_data, old_samples), new_data, new_samples) + math.log(4)) / 2])


def by_histogram(old_data, old_samples, new_data, new_samples):
    edges = torch.linspace(-6, 6, 31, dtype=torch.float64)
    p, q = (torch.histogram(own.clamp(-6, 6), edges).hist + 0.5 for own in (old_data, old_samples))
    d = p / (p + q)
    at = [torch.bucketize(own.clamp(-5.99, 5.99), edges) - 1 for own in (new_data, new_samples)]
    return (d[at[0]].log().mean() + (1 - d[at[1]]).log().mean() + math.log(4)).item() / 2


def by_means(old_data, old_samples, *new):
    model = fitted(old_data, old_samples)
    chances = [model.predict_proba(own[:, None].numpy())[:, 1 - i].mean() for i, own in enumerate(new)]
    return (math.log(chances[0]) + math.log(chances[1]) + math.log(4)) / 2


def value_of_an_unfitted(new_data, new_samples):
    """The bound that the discriminator σ(2x) gives, wherever the data lie."""
    return ((F.logsigmoid(2 * new_data).mean() + F.logsigmoid(-2 * new_samples).mean() + math.log(4)) / 2).item()


def jsd_by(change):
    def answer(*sets):
        return change(by_scikit_learn(*sets).item())

    return answer


def half_wasserstein(witness):
    """The right distance, and this for a witness."""
    return lambda a, b: (one_by_one(a, b)[0], witness(a, b))


def not_a_number(D, G, d_optimizer, g_optimizer, real, noise):  # noqa: N803
    for own in [*D.parameters(), *G.parameters()]:
        own.data.fill_(math.nan)


def smaller(D, G, d_optimizer, g_optimizer, real, noise):  # noqa: N803
    del D[0]


def cleared_after(D, G, d_optimizer, g_optimizer, real, noise):  # noqa: N803
    (F.softplus(-D(real)) + F.softplus(D(G(noise).detach()))).mean().backward()
    d_optimizer.step()
    d_optimizer.zero_grad()
    F.softplus(-D(G(noise))).mean().backward()
    g_optimizer.step()
    g_optimizer.zero_grad()


def polluted(D, G, d_optimizer, g_optimizer, real, noise):  # noqa: N803
    d_optimizer.zero_grad()
    g_optimizer.zero_grad()
    (F.softplus(-D(real)) + F.softplus(D(G(noise)))).mean().backward()
    d_optimizer.step()
    F.softplus(-D(G(noise))).mean().backward()
    g_optimizer.step()


def in_float32(D, G, d_optimizer, g_optimizer, real, noise):  # noqa: N803
    step()(D.float(), G.float(), d_optimizer, g_optimizer, real.float(), noise.float())


def by_an_unseeded_fit(old_data, old_samples, *new):
    some = torch.from_numpy(np.random.default_rng().permutation(len(old_data))[:1000])
    return by_scikit_learn(old_data[some], old_samples[some], *new)


def step(zero=True, detach=True, order="DG", halves=0.5, fresh=False):
    """A step with torch's cross-entropy; D and G by name, as students write it."""

    def game_step(D, G, d_optimizer, g_optimizer, real, noise):  # noqa: N803
        bce = nn.BCEWithLogitsLoss()
        if fresh:
            noise = torch.randn_like(noise)
        for player in order:
            optimizer = d_optimizer if player == "D" else g_optimizer
            if zero:
                optimizer.zero_grad(set_to_none=False)
            fake = G(noise)
            if player == "D":
                a, b = D(real), D(fake.detach() if detach else fake)
                loss = halves * (bce(a, torch.ones_like(a)) + bce(b, torch.zeros_like(b)))
            else:
                a = D(fake)
                loss = bce(a, torch.ones_like(a))
            loss.backward()
            optimizer.step()

    return game_step


def by_autograd_grad(D, G, d_optimizer, g_optimizer, real, noise):  # noqa: N803
    with torch.no_grad():
        fake = G(noise)
    losses = (
        lambda: -(D(real).sigmoid().log() + (1 - D(fake).sigmoid()).log()).sum(),
        lambda: -D(G(noise)).sigmoid().log().sum(),
    )
    for player, optimizer, loss in zip((D, G), (d_optimizer, g_optimizer), losses, strict=True):
        parameters = list(player.parameters())
        for own, gradient in zip(parameters, torch.autograd.grad(loss(), parameters), strict=True):
            own.grad = gradient
        optimizer.step()


def old_judge(D, G, d_optimizer, g_optimizer, real, noise):  # noqa: N803
    d_loss = (F.softplus(-D(real)) + F.softplus(D(G(noise).detach()))).mean()
    g_loss = F.softplus(-D(G(noise))).mean()
    g_optimizer.zero_grad()
    g_loss.backward()
    d_optimizer.zero_grad()
    d_loss.backward()
    d_optimizer.step()
    g_optimizer.step()


def reversed_gradient(D, G, d_optimizer, g_optimizer, real, noise):  # noqa: N803
    step(order="D")(D, G, d_optimizer, g_optimizer, real, noise)
    g_optimizer.zero_grad()
    F.softplus(D(G(noise))).mean().backward()
    g_optimizer.step()


def by_draws(theta):
    x = theta + torch.randn(400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.cat([x, 2 * theta - x]).requires_grad_()
    d = 0.9 / (1 + torch.exp((x - 1) ** 2 / 2 - (x - theta) ** 2 / 2))
    (-d.log()).mean().backward()
    return x.grad.sum()


def by_quad(theta):
    normal = scipy.stats.norm(theta, 1)
    return scipy.integrate.quad(
        lambda x: normal.pdf(x) * (theta - 1) / (1 + math.exp((1 - theta) * (x - (1 + theta) / 2))), -20, 20
    )[0]


def by_linear_programme(a, b):
    points = np.sort(np.concatenate([a, b]))
    cost = np.searchsorted(points, b), np.searchsorted(points, a)
    weights = np.bincount(cost[0], minlength=len(points)) - np.bincount(cost[1], minlength=len(points))
    rise = np.diff(np.eye(len(points)), axis=0)
    limits = np.concatenate([np.diff(points)] * 2)
    found = scipy.optimize.linprog(weights / len(a), np.concatenate([rise, -rise]), limits, bounds=(None, None))
    return -found.fun, lambda x: np.interp(x, points, found.x)


def one_by_one(a, b):
    a, b = sorted(a.tolist()), sorted(b.tolist())
    points = sorted(a + b)

    def witness(x):
        ends = [min(max(own, points[0]), x) for own in [*points, x]]
        pieces = itertools.pairwise(ends)
        return -sum(
            (v - u) * np.sign(sum(own <= u for own in a) - sum(own <= u for own in b)) for u, v in pieces if v > u
        )

    return sum(abs(u - v) for u, v in zip(a, b, strict=True)) / len(a), lambda x: float(witness(float(x)))


def witness_of(a, b):
    return by_linear_programme(a, b)[1]


def bits_by_loops(vae_nats, flow_nats, dims):
    draws, result = min(vae_nats.shape[0], flow_nats.shape[0]), []
    for nats in (vae_nats.numpy(), flow_nats.numpy()):
        images = [np.log2(np.mean(np.exp(own[:draws] - own.max()))) + own.max() / np.log(2) for own in nats.T]
        result.append(-np.mean(images) / dims)
    return np.array(result, dtype=np.float32)


def bits_by_scipy(vae_nats, flow_nats, dims, change=lambda own: own, draws=None):
    draws = draws or min(len(vae_nats), len(flow_nats))
    own = [scipy.special.logsumexp(change(nats.numpy()[:draws]), axis=0, b=1 / draws) for nats in (vae_nats, flow_nats)]
    return [float(-nats.mean() / dims / math.log(2)) for nats in own]


RIGHT = zoo_vae.RIGHT | {
    "spiral_radius": [
        loop,
        turned_in_float32,
        lambda eta, n: abs(complex(1, eta) ** n),
        lambda eta, n: sympy.sqrt(1 + sympy.Float(eta) ** 2) ** n,
        lambda eta, n: np.linalg.norm(np.linalg.matrix_power([[1, -eta], [eta, 1]], n) @ [0, 1], keepdims=True),
    ],
    "jsd_bound": [by_scikit_learn, by_histogram, by_an_unseeded_fit],
    "game_step": [step(), step(halves=1), step(detach=False), by_autograd_grad, in_float32],
    "smoothed_gradient": [by_draws, by_quad],
    "wasserstein_line": [by_linear_programme, one_by_one],
    "frechet_floor": [lambda at: [at * 2, at * 0.5], lambda at: torch.tensor([2.05, 0.48]) * at],
    **zoo_flows.RIGHT,
    "fair_claims": [[False, True, False], (np.False_, np.True_, np.False_)],
    "one_scale": [bits_by_loops, bits_by_scipy],
    "beats_histogram": [
        {"flow": 0.5, "histogram": 0.5},
        {"flow": torch.tensor(1e-9, dtype=torch.float64), "noise": 1 - 1e-9},
        dict.fromkeys(("flow", "histogram", "noise"), Fraction(1, 3)),
        {"flow": 0.9, "histogram": 0.1, "noise": 1 - 0.9 - 0.1},
        {"flow": np.float32(0.6), "histogram": np.float32(0.4)},
    ],
}
WRONG = zoo_vae.WRONG | {
    "spiral_radius": [
        (lambda eta, n: 1, "tangent of a circle"),
        (lambda eta, n: math.sqrt(1 - eta**2) ** n, "inwards or outwards"),
        (lambda eta, n: (1 + eta) ** n, "right angle"),
        (lambda eta, n: np.prod(np.full(n, 1 + eta**2)), "the square of the radius"),
        (lambda eta, n: math.sqrt(1 + n * eta**2), "the radius has changed"),
        (lambda eta, n: 1 + n * eta**2 / 2, "the first term of an expansion"),
        (lambda eta, n: np.exp(eta**2 / 2) ** n, "for small η alone"),
        (lambda eta, n: 1 + n * eta, "right angle"),
        (in_turn, "steps taken in turn"),
        (lambda eta, n: 1.0005 * loop(eta, n), "should be 1.118"),
    ],
    "jsd_bound": [
        (lambda p, q, *new: by_scikit_learn(p, q, p, q), "has to get worse then"),
        (lambda p, q, r, s: by_scikit_learn(p, q, p, s), "samples for new_data(.|\n)*on both of them"),
        (lambda p, q, r, s: by_scikit_learn(p, q, r, q), "data for new_samples(.|\n)*on both of them"),
        (
            lambda p, q, r, s: (by_scikit_learn(p, q, r, s) + by_scikit_learn(p, q, p, q)) / 2,
            "both new sets(.|\n)*on them alone",
        ),
        (
            lambda p, q, r, s: by_scikit_learn(torch.cat([p, r]), torch.cat([q, s]), r, s),
            "have the new sets had a part in the fit",
        ),
        (jsd_by(lambda b: b - math.log(4) / 2), "where has log 4 gone"),
        (jsd_by(lambda b: 2 * b), "twice"),
        (jsd_by(lambda b: 2 * b - math.log(4)), "that is V itself"),
        (jsd_by(lambda b: b / 2 + math.log(2) / 2), "the sum of two means"),
        (lambda p, q, r, s: by_scikit_learn(q, p, r, s), "data and samples are exchanged"),
        (jsd_by(lambda b: 0.3 * b), "a loose one"),
        (jsd_by(lambda b: b - math.log(2) / 2), "½ .V . log 2.; log 4 is meant"),
        (jsd_by(lambda b: b + math.log(2)), "half of both is meant"),
        (jsd_by(lambda b: math.log(4) - 2 * b), "that is −V, the sum"),
        (jsd_by(lambda b: math.log(2) - b), "that is −V/2"),
        (jsd_by(lambda b: -b), "the sign: a cross-entropy"),
        (by_means, "logarithms of means"),
        (lambda p, q, r, s: value_of_an_unfitted(r, s), "that of the best"),
        (jsd_by(lambda b: max(b, 0.0)), "cut off at 0"),
        (jsd_by(abs), "its sign is taken off"),
        (
            lambda p, q, r, s: by_scikit_learn(torch.cat([p, r[::10]]), torch.cat([q, s[::10]]), r, s),
            "have the new sets had a part in the fit",
        ),
        (lambda p, q, r, s: by_scikit_learn(r, s, r, s), "have the new sets had a part in the fit"),
    ],
    "game_step": [
        (step(zero=False), "gradients add up"),
        (step(order="GD"), "G's step came before"),
        (step(order="DGG"), "after 1 of 2 steps"),
        (step(fresh=True), "other noise"),
        (old_judge, "judged by the old one"),
        (reversed_gradient, "which label does G wish for"),
        (cleared_after, "gradients add up"),
        (lambda *_: 0, "no parameter has moved"),
        (not_a_number, "one is nan"),
        (polluted, "gradients add up"),
        (smaller, "other parameters than before"),
    ],
    "smoothed_gradient": [
        (lambda theta: 0.9 * by_quad(theta), "constant factor in D"),
        (lambda theta: theta - 1, "alone"),
        (lambda theta: theta - 1 - by_quad(theta), "the saturating loss"),
        (lambda theta: -by_quad(theta), "which way should θ go"),
        (lambda theta: by_quad(theta) / (1 - theta), "the logit's slope in x"),
        (lambda theta: 1.015 * by_quad(theta), "should be"),
    ],
    "wasserstein_line": [
        (lambda a, b: (abs(a.mean() - b.mean()), witness_of(a, b)), "distance of the means"),
        (lambda a, b: (np.abs(a - b).mean(), witness_of(a, b)), "as they happen to stand"),
        (lambda a, b: ((a.sort()[0] - b.sort()[0]).pow(2).mean().sqrt(), witness_of(a, b)), "root of a mean square"),
        (lambda a, b: (one_by_one(a, b)[0], lambda x: -one_by_one(a, b)[1](x)), "sign is reversed"),
        (lambda a, b: (one_by_one(a, b)[0], lambda x: x), "a straight line"),
        (lambda a, b: (one_by_one(a, b)[0], lambda x: 2 * by_linear_programme(a, b)[1](x)), "has the slope 2, and 1"),
        (lambda a, b: one_by_one(a, b)[0], "first a number, then a function"),
        (half_wasserstein(lambda a, b: lambda x: 0 * x), "a constant sees"),
        (half_wasserstein(lambda a, b: lambda x: -x), "a straight line"),
        (half_wasserstein(lambda a, b: lambda x: x * torch.sign(a.mean() - b.mean())), "a straight line|a constant"),
        (half_wasserstein(lambda a, b: lambda x: witness_of(a, b)(x) + (np.asarray(x) > 20)), "slope"),
        (half_wasserstein(lambda a, b: lambda x: 1.05 * witness_of(a, b)(x)), "slope"),
        (half_wasserstein(lambda a, b: lambda x: witness_of(a, b)(x) + 1e-3 * np.sign(np.sin(x * 1500))), "slope"),
        (lambda a, b: (1.001 * one_by_one(a, b)[0], witness_of(a, b)), "your distance is"),
        (lambda a, b: (torch.cdist(a[:, None], b[:, None]).mean(), witness_of(a, b)), "a mean over all pairs"),
        (lambda a, b: ((a.sort()[0] - b.sort()[0]).abs().sum(), witness_of(a, b)), "not their sum"),
        (lambda a, b: (1.0, abs, 3), "should be a pair"),
        (lambda a, b: (one_by_one(a, b)[0], 3.0), "should be a pair"),
        (half_wasserstein(lambda a, b: lambda x: witness_of(a, b)(x).mean() + 0 * x), "a constant sees"),
        (half_wasserstein(lambda a, b: lambda x: np.sort(witness_of(a, b)(x))), "slope|reaches"),
        (half_wasserstein(lambda a, b: lambda x: witness_of(a, b)(x) + np.maximum(2 * x - 40, 0)), "slope"),
        (half_wasserstein(lambda a, b: lambda x: witness_of(a, b)(x) + 0.01 * np.sin(x * 1000)), "slope"),
        (half_wasserstein(lambda a, b: lambda x: witness_of(a, b)(x)[:, None]), r"shape \(\d+, 1\)"),
    ],
    "frechet_floor": [
        (lambda at: (at, at), "by how much"),
        (lambda at: (at * math.sqrt(2), at / math.sqrt(2)), "adds up .squares."),
        (lambda at: (at / 2, at * 2), "the wrong direction"),
        (lambda at: (at / math.sqrt(2), at * math.sqrt(2)), "the wrong power"),
        (lambda at: (4 * at, at / 4), "1/n²"),
        (lambda at: (2.3 * at, at / 2), "your answer is"),
    ],
    **zoo_flows.WRONG,
    "fair_claims": [
        ((True, True, False), "claim 1: .*slack"),
        ((False, False, False), "claim 2: .*exact"),
        ((False, True, True), "claim 3: .*recipes"),
        ((False, True), "should be 3 of True and False"),
    ],
    "one_scale": [
        (lambda v, f, dims: [own * math.log(2) for own in bits_by_scipy(v, f, dims)], "where bits are asked for"),
        (lambda v, f, dims: [bits_by_scipy(own, own, dims)[0] for own in (v, f)], "is that fair"),
        (
            lambda v, f, dims: bits_by_scipy(v, f, dims, lambda own: own.mean(0, keepdims=True).repeat(len(own), 0)),
            "a mean of logarithms",
        ),
        (lambda v, f, dims: [-own for own in bits_by_scipy(v, f, dims)], "the sign"),
        (lambda v, f, dims: bits_by_scipy(v, f, 1), "per dimension"),
        (
            lambda v, f, dims: [own - math.log2(min(len(v), len(f))) / dims for own in bits_by_scipy(v, f, dims)],
            "log K",
        ),
        (lambda v, f, dims: [bits_by_scipy(v, f, dims)[0], bits_by_scipy(f, f, dims)[0]], "is that fair"),
        (lambda v, f, dims: [own * v.shape[1] for own in bits_by_scipy(v, f, dims)], "a sum over the images"),
        (lambda v, f, dims: [1.00002 * own for own in bits_by_scipy(v, f, dims)], "should be"),
    ],
    "beats_histogram": [
        ({"flow": 0.5, "noise": 0.4}, "add up to 0.9"),
        ({"flow": 1.5, "noise": -0.5}, "none is negative; yours are .1.5, 0, -0.5."),
        ({"flow": 1}, "are not the flow's"),
        ({"flow": 0.999, "noise": 0.001}, "are not the flow's"),
        ({"histogram": 1.0}, "which component"),
        ({"gan": 1.0}, "weights of flow, histogram, noise"),
        ([1, 0, 0], "weights of flow, histogram, noise"),
    ],
}


def check(name, answer):
    return getattr(exercises, name)(answer)


def zoo(answers):
    return [pytest.param(name, own, id=f"{name}-{i}") for name, rows in answers.items() for i, own in enumerate(rows)]


@pytest.fixture
def patient(monkeypatch):
    """Ten times the time for an answer: a busy machine's seconds are no student's."""
    monkeypatch.setattr(checking, "stopped_after", lambda seconds: stopped_after(10 * seconds))


@pytest.mark.slow
@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("name", EXERCISES)
def test_the_solution_is_right(name):
    assert check(name, SOLUTIONS[name]).status == "right"


@pytest.mark.slow
@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(("name", "answer"), zoo(RIGHT))
def test_a_right_answer_is_right_however_it_is_written(name, answer):
    verdict = check(name, answer)
    assert verdict.status == "right", verdict


@pytest.mark.slow
@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(("name", "wrong"), zoo(WRONG))
def test_a_wrong_answer_is_wrong_and_its_mistake_is_named(name, wrong):
    answer, words = wrong
    verdict = check(name, answer)
    assert verdict.status == "wrong"
    assert re.search(words, verdict.message, flags=re.IGNORECASE), verdict


def test_every_exercise_has_its_zoo():
    assert [*SOLUTIONS] == [*RIGHT] == [*WRONG]
    assert {*SOLUTIONS} == {*EXERCISES}
    assert min(len(own) for own in RIGHT.values()) >= 2
    assert min(len(own) for own in WRONG.values()) >= 3


KNOWN = (
    zoo_vae.KNOWN
    | zoo_flows.KNOWN
    | {
        "spiral_radius": game.SPIRAL_MISTAKES,
        "game_step": game.STEP_MISTAKES,
        "smoothed_gradient": game.SLOPE_MISTAKES,
        "frechet_floor": game.FLOOR_MISTAKES,
        "one_scale": conclusion.ONE_SCALE_MISTAKES,
    }
)


@pytest.mark.parametrize(("name", "mistake"), zoo(KNOWN))
def test_every_known_mistake_is_told_from_the_others_by_its_own_idea(name, mistake):
    assert check(name, mistake.gives).message.splitlines()[-1].strip(".")[1:] == mistake.idea[1:]


@pytest.mark.parametrize("mistake", game.LINE_MISTAKES)
def test_every_known_distance_that_is_wrong_is_told_by_its_own_idea(mistake):
    def answer(a, b):
        return mistake.gives(a, b), lambda x: x

    assert exercises.wasserstein_line(answer).message.splitlines()[-1].strip(".")[1:] == mistake.idea[1:]


def test_samples_with_a_needless_gradient_are_right_with_a_remark():
    assert "a waste of time" in exercises.game_step(step(detach=False)).message
    assert "a waste of time" not in exercises.game_step(step()).message


def test_the_floor_of_two_sets_of_one_normal_goes_with_the_inverse_of_their_size():
    """n times the distance of 40 pairs of random sets in 16 dimensions, for two n: the same, within its error."""
    noise = torch.Generator().manual_seed(0)
    mix = torch.randn(16, 16, generator=noise, dtype=torch.float64)

    def scaled(n):
        sets = (torch.randn(2, n, 16, generator=noise, dtype=torch.float64) @ mix for _ in range(40))
        return metrics.mean_and_standard_error(n * torch.tensor([metrics.frechet_distance(*own) for own in sets]))

    (small, first), (large, second) = scaled(500), scaled(2000)
    assert abs(small - large) < 4 * math.hypot(first, second) < 0.2 * large


# ---------------------------------------------------------------- whatever it is given


def catches_everything(*_):
    while True:
        try:  # noqa: SIM105
            time.sleep(0.01)
        except:  # noqa: E722
            pass


def catches_within(*_):
    def inner():
        try:  # noqa: SIM105
            time.sleep(0.01)
        except:  # noqa: E722
            pass

    while True:
        try:  # noqa: SIM105
            inner()
        except:  # noqa: E722
            pass


def sleeps_and_catches(*_):
    while True:
        try:  # noqa: SIM105
            time.sleep(100)
        except BaseException:
            pass


@pytest.mark.slow
@pytest.mark.parametrize("answer", [catches_everything, sleeps_and_catches, catches_within, lambda *_: signal.pause()])
def test_an_answer_that_hangs_is_stopped(answer, monkeypatch):
    start, tracer = time.monotonic(), sys.gettrace()
    hanging = checking.exercise("7_toy", "7", seconds=1)(lambda own: str(checking.call(own, {"x": 1})))
    verdict = hanging(answer)
    EXERCISES.popitem()
    assert verdict == Verdict("wrong", "Your answer was stopped after 1 s: does it come to an end, or is it only slow?")
    assert time.monotonic() - start < 30
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert sys.gettrace() is tracer


def endless():
    while True:
        torch.randn(9)


class Evil:
    """Whatever is done to it fails."""

    def __getattr__(self, name):
        raise RuntimeError("evil")

    def __repr__(self):
        raise RuntimeError("evil")

    __float__ = __len__ = __array__ = __iter__ = __bool__ = __eq__ = __repr__


def raises(error):
    def answer(*_):
        raise error

    return answer


async def later(*_):
    await asyncio.sleep(0)


nested = []
nested.append(nested)
VALUES = {
    "nothing": None,
    "a string": "1.1",
    "nan": math.nan,
    "infinity": torch.tensor([1.0, math.inf]),
    "a complex number": 1 + 1j,
    "complex numbers": torch.ones(2, dtype=torch.complex64),
    "an integer": 3,
    "a large integer": 10**400,
    "a boolean": True,
    "a dictionary": {"a": 1},
    "a set": {1, 2},
    "an empty list": [],
    "lists of unequal length": [[1], [1, 2]],
    "a list in itself": nested,
    "strings": ["a", "b"],
    "a wrong shape": torch.zeros(3, 3),
    "a huge array": np.broadcast_to(0.0, (10**6, 10**6)),
    "a huge tensor": torch.zeros(1).expand(10**12),
    "a long list": [0.0] * 10**6,
    "bytes": b"1",
    "a class": int,
    "a module": math,
    "evil": Evil(),
    "a pair of evils": (Evil(), Evil()),
    "a pair of a number and an evil function": (1.0, raises(KeyError("x"))),
}
FUNCTIONS = {name: lambda *_, own=own: own for name, own in VALUES.items()} | {
    "raises": raises(ValueError("no")),
    "leaves": raises(SystemExit(3)),
    "is interrupted": raises(KeyboardInterrupt()),
    "recurses": lambda *_: (own := lambda: own())(),
    "has other arguments": lambda: 1,
    "is for later": later,
    "prints": lambda *_: print("flood" * 1000),
    "warns": lambda *_: warnings.warn("careful", stacklevel=1),
    "asks": lambda *_: input("?"),
}


@pytest.mark.filterwarnings("ignore:coroutine")
@pytest.mark.parametrize("answer", [*VALUES, *(f"a function: {own}" for own in FUNCTIONS)])
@pytest.mark.parametrize("name", EXERCISES)
def test_no_answer_makes_a_checker_fail(name, answer, capsys):
    own = FUNCTIONS[answer.removeprefix("a function: ")] if answer.startswith("a function") else VALUES[answer]
    verdict = check(name, own)
    assert verdict.status == ("open" if own is None else "wrong")
    assert "checker failed" not in verdict.message
    assert max(map(len, verdict.message.splitlines())) < 400
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "answer", [catches_everything, sleeps_and_catches, lambda _: torch.randn(9).sum() and endless()]
)
def test_a_hang_that_is_stopped_leaves_everything_as_it_was_however_often(answer, capsys):
    """40 times: the ticks that stop it must not fall into our own code."""
    hanging = checking.exercise("7_toy", "7", seconds=0.02)(lambda own: str(checking.call(own, {"x": 1})))
    before = sys.stdout, list(warnings.filters), torch.get_rng_state().tolist(), torch._C._len_torch_function_stack()
    for _ in range(40):
        assert "was stopped after" in hanging(answer).message
        time.sleep(0.005)
        now = sys.stdout, list(warnings.filters), torch.get_rng_state().tolist(), torch._C._len_torch_function_stack()
        assert now == before
    EXERCISES.popitem()
    assert capsys.readouterr() == ("", "")


def test_a_check_that_is_interrupted_is_open():
    def interrupted(_):
        raise KeyboardInterrupt

    verdict = checking.exercise("7_toy", "7")(interrupted)(1)
    EXERCISES.popitem()
    assert verdict == Verdict("open", "Interrupted before it was checked.")


@pytest.mark.slow
def test_time_is_up_in_foreign_code_and_nowhere_else():
    with pytest.raises(TimeUp), stopped_after(0.05):
        foreign(time.sleep, 60)
    start = time.monotonic()
    with stopped_after(0.02):
        time.sleep(0.2)
    assert time.monotonic() - start >= 0.2


def test_what_is_to_be_unnoticed_is_not_printed_and_draws_from_a_state_of_its_own(capsys):
    before = torch.get_rng_state()
    with unnoticed():
        print("noise")
        torch.randn(3)
    assert torch.equal(torch.get_rng_state(), before)
    assert capsys.readouterr() == ("", "")


def test_a_defect_of_a_checker_is_called_one():
    broken = checking.exercise("7_toy", "7")(lambda answer: str(1 / answer))
    verdict = broken(0)
    EXERCISES.popitem()
    assert verdict.message == (
        "The checker failed with your answer, a defect of ours: ZeroDivisionError: division by zero."
    )


def stub(eta, n):
    """Says what is asked."""
    # a comment


def passing(eta, n):
    pass


class Hollow:
    pass


@pytest.mark.parametrize("answer", [..., None, stub, passing, lambda eta, n: ..., lambda eta, n: None])
def test_what_is_not_filled_in_is_open(answer):
    assert checking.is_open(answer)
    assert exercises.spiral_radius(answer) == Verdict("open", "Nothing is filled in yet.")


@pytest.mark.parametrize("answer", [lambda eta, n: 0, lambda eta, n: (..., eta)[0], Hollow, 0, ()])
def test_what_is_filled_in_is_not_open(answer):
    assert exercises.spiral_radius(answer).status == "wrong"


def test_an_answer_that_is_half_filled_in_is_open_and_says_how_far():
    assert exercises.fair_claims((..., True, None)) == Verdict("open", "2 of 3 claims have no answer yet.")
    assert exercises.beats_histogram({"flow": ..., "noise": 1.0}).status == "open"


def test_without_mnist_a_mixture_is_left_open_with_the_reason(monkeypatch):
    monkeypatch.setattr("gm_helpers.data.choose", lambda _: "digits")
    verdict = exercises.beats_histogram({"flow": 0.01, "noise": 0.99})
    assert verdict == Verdict("open", "This one can't be checked without MNIST, which isn't here.")


def meddle(eta, n):
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_grad_enabled(False)
    np.seterr(all="raise")
    warnings.simplefilter("error")
    return math.sqrt(1 + eta**2) ** n


def test_what_an_answer_does_to_states_and_modes_is_undone():
    def states():
        return (
            random.getstate(),
            np.random.get_state()[1].tolist(),
            torch.get_rng_state().tolist(),
            torch.get_default_dtype(),
            torch.get_default_device(),
            torch.is_grad_enabled(),
            np.geterr(),
            list(warnings.filters),
            signal.getsignal(signal.SIGALRM),
            torch._C._len_torch_function_stack(),
        )

    before = states()
    assert exercises.spiral_radius(meddle).status == "right"
    assert exercises.jsd_bound(by_scikit_learn).status == "right"
    assert exercises.game_step(step()).status == "right"
    assert states() == before


def test_gradients_are_there_even_where_the_notebook_has_switched_them_off():
    with torch.no_grad():
        assert exercises.game_step(step()).status == "right"


def test_an_answer_cannot_change_what_it_is_compared_with():
    def in_place(a, b):
        answer = by_linear_programme(a.clone(), b.clone())
        a.zero_(), b.zero_()
        return answer

    assert exercises.wasserstein_line(in_place).status == "right"


def test_a_checker_works_in_a_thread_where_no_signal_can_stop_it():
    found = []
    thread = threading.Thread(target=lambda: found.append(exercises.spiral_radius(loop)))
    thread.start()
    thread.join()
    assert found[0].status == "right"


def test_cases_are_drawn_anew_at_each_check(monkeypatch):
    monkeypatch.undo()
    seen = []
    for _ in range(2):
        exercises.spiral_radius(lambda eta, n: seen.append(eta) or loop(eta, n))
    assert len({*seen}) > len(seen) / 2


# ---------------------------------------------------------------- the parts


def test_the_smallest_case_that_fails_is_shown_with_what_is_right_there():
    cases = [{"x": 0.0}, {"x": 1.0}, {"x": 2.0}]
    with pytest.raises(Wrong, match=r"^for x = 1: your answer is 1, and should be 3\.$"):
        checking.compare(lambda x: x, cases, lambda x: 3 * x, [Mistake(lambda x: 2 * x, "not that")], relative=0.1)


def test_a_mistake_is_named_only_if_it_gives_the_answer_in_every_case():
    cases, mistakes = [{"x": 1.0}, {"x": 2.0}], [Mistake(lambda x: x**2, "squared"), Mistake(lambda x: x, "once")]
    with pytest.raises(Wrong, match=r"should be 3\.\nonce$"):
        checking.compare(lambda x: x, cases, lambda x: 3 * x, mistakes, relative=0.1)


def test_given_values_are_settled_under_the_name_that_they_have():
    given, cases = [torch.tensor(2.0)], [{"x": 1.0}]
    checking.settle(given, cases, lambda x: 2 * x, [], relative=0.1)
    with pytest.raises(Wrong, match=r"^for x = 1: your distance is 2\.$"):
        checking.settle(given, cases, lambda x: x, [], relative=0.1, what="your distance", tell=False)


def test_a_tolerance_is_a_share_of_the_right_number():
    for answer, right in ((1.009, True), (1.011, False), (0.989, False)):
        try:
            checking.compare(lambda x, own=answer: own, [{"x": 1.0}], lambda x: x, [], relative=0.01)
        except Wrong:
            assert not right
        else:
            assert right


@pytest.mark.parametrize(
    "value", [2, 2.0, [2.0], np.float32(2), np.array([[2]]), torch.tensor(2.0, requires_grad=True), sympy.Integer(2)]
)
def test_a_number_may_come_in_many_kinds(value):
    assert checking.numbers(value).item() == 2


def test_numbers_keep_their_shape_and_become_float64():
    given = checking.numbers([torch.tensor(1.0, dtype=torch.bfloat16), Fraction(1, 2)], (2,))
    assert (given.dtype, given.tolist()) == (torch.float64, [1.0, 0.5])
    with pytest.raises(Wrong, match=r"your answer has the shape \(2,\), and should be numbers of the shape \(3,\)"):
        checking.numbers([1.0, 2.0], (3,))
    with pytest.raises(Wrong, match=r"^at x: your answer has the shape \(2,\), and should be one number"):
        checking.numbers([1.0, 2.0], where="at x: ")


def test_a_missing_return_is_guessed():
    assert exercises.spiral_radius(lambda eta, n: [].append(eta)).message == (
        "For eta = 0.5, n = 1: your function returns nothing: is a `return` missing?"
    )


def test_what_is_right_is_not_told_where_it_is_all_that_is_asked():
    assert exercises.frechet_floor(lambda at: (at, at)).message.startswith("For at_5000 = 1: your answer is (1, 1).\n")


def test_a_value_in_a_message_takes_one_line():
    assert checking.shown(torch.zeros(1000)) == "1,000 numbers"
    assert checking.shown([1.23456, "a\nb", {1}]) == r"(1.235, 'a\nb', {1})"
    assert checking.shown("\ud800") == r"'\ud800'"
    assert len(checking.shown("x" * 1000)) == checking.WIDTH
    assert checking.shown(Evil()) == "a Evil"
    assert checking.stated({"η": 0.5, "n": 2}) == "for η = 0.5, n = 2"
    assert checking.described(KeyError("x")) == "KeyError: 'x'"
    assert checking.described(KeyboardInterrupt()) == "KeyboardInterrupt"
    assert checking.described(ValueError("\ud800 x")) == "ValueError: ? x"


def test_each_line_of_a_verdict_is_a_sentence_and_a_symbol_at_its_start_stays_small():
    lines = (
        "for n = 2: your answer is 3",
        "a mean, where a sum is asked for",
        "s is a deviation",
        "w² is asked for?",
        "β (1.8)",
    )
    said = checking._verdict("wrong", "\n".join(lines))
    assert said.message.split("\n") == [
        "For n = 2: your answer is 3.",
        "A mean, where a sum is asked for.",
        "s is a deviation.",
        "w² is asked for?",
        "β (1.8)",
    ]


def test_a_verdict_shows_itself_as_text_and_as_html_that_is_safe():
    verdict = Verdict("wrong", "a < b\nthat is so")
    assert repr(verdict) == "wrong: a < b\nthat is so"
    assert "a &lt; b<br>that is so" in verdict._repr_html_()


def test_the_table_says_what_was_said_last_and_stays_as_it_was():
    exercises.spiral_radius(lambda eta, n: 1)
    before = exercises.progress("2_gan")
    exercises.spiral_radius(loop)
    after = exercises.progress("2_gan")
    assert [repr(own).splitlines()[0].split() for own in (before, after)] == [
        ["2.2", "spiral_radius", "wrong"],
        ["2.2", "spiral_radius", "right"],
    ]
    assert [repr(own).splitlines()[-1] for own in (before, after)] == ["0 of 6 right", "1 of 6 right"]
    assert isinstance(after, Progress)
    assert after._repr_html_().count("<tr>") == 6


def test_a_notebook_without_exercises_has_no_table():
    with pytest.raises(UsageError, match="no exercises are known of '9_none': choose one of 1_vae, 2_gan, 3_flows"):
        exercises.progress("9_none")


@pytest.mark.parametrize("name", EXERCISES)
def test_the_source_of_a_checker_is_not_shown(name):
    with pytest.raises(ValueError, match="a checker: its source would give the exercise away"):
        figures.show_source(getattr(exercises, name))


@pytest.mark.parametrize("name", EXERCISES)
def test_a_checker_tells_what_its_answer_is_made_of(name):
    assert re.match(r"(\(.+\)|Name|Three booleans|A number)\W", getattr(exercises, name).__doc__)
    assert name in exercises.__all__
