"""The checkers of notebook 2's exercises."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import wasserstein_distance
from torch import Tensor, nn

from gm_helpers.exercises.checking import Mistake, Wrong, call, compare, exercise, numbers, rng, settle, shown, stated

NOTEBOOK = "2_gan"

# ---------------------------------------------------------------- 2.2


def _simulated(eta: float, n: int, in_turn: bool = False, start: complex = 1) -> float:
    """The radius after n steps on V = xy, x down and y up its slope, from x + iy on the unit circle."""
    x, y = start.real, start.imag
    for _ in range(n):
        step = x - eta * y
        y = y + eta * (step if in_turn else x)
        x = step
    return math.hypot(x, y)


_ANGLE = "the step is at a right angle to the radius, so the two lengths don't just add"
_ALTERNATING = "those are steps taken in turn, y's after x has moved; here both players look at the same point (x, y)"
SPIRAL_MISTAKES = [
    Mistake(lambda eta, n: 1.0, "a step of finite length along the tangent of a circle does not end on the circle"),
    Mistake(
        lambda eta, n: (1 - eta**2) ** (n / 2),
        "in which direction does a step along the tangent leave the circle, inwards or outwards?",
    ),
    Mistake(lambda eta, n: (1 + eta) ** n, _ANGLE),
    Mistake(lambda eta, n: 1 + n * eta, _ANGLE),
    Mistake(lambda eta, n: (1 + eta**2) ** n, "that is the square of the radius"),
    Mistake(
        lambda eta, n: math.sqrt(1 + n * eta**2), "the step's length is η times the radius, and the radius has changed"
    ),
    Mistake(lambda eta, n: 1 + n * eta**2 / 2, "that is the first term of an expansion in η, and not the whole"),
    Mistake(lambda eta, n: math.exp(n * eta**2 / 2), "that holds for small η alone; here η is not small"),
    *(
        Mistake(lambda eta, n, own=own: _simulated(eta, n, in_turn=True, start=own), _ALTERNATING)
        for own in (1, 1j, (1 + 1j) / math.sqrt(2))
    ),
]


@exercise(NOTEBOOK, "2.2")
def spiral_radius(answer: Any) -> str:
    """(eta, n) -> the radius after n simultaneous gradient steps of size eta on V = xy, from radius 1.

    Compared with a simulation from a random point of the unit circle.
    """
    random = rng()
    cases = [{"eta": 0.5, "n": 1}, {"eta": 0.5, "n": 2}, {"eta": 0.95, "n": 3}, {"eta": 0.05, "n": 100}]
    cases += [{"eta": random.uniform(0.05, 0.9), "n": int(random.integers(3, 100))} for _ in range(16)]
    start = complex(np.exp(1j * random.uniform(0, 2 * np.pi)))
    compare(answer, cases, lambda eta, n: _simulated(eta, n, start=start), SPIRAL_MISTAKES, relative=1e-4)
    return "20 pairs of η and n, simulated from a random point of the circle"


# ---------------------------------------------------------------- 2.3

SETS = ("old_data", "old_samples", "new_data", "new_samples")
LOG_2, LOG_4 = math.log(2), math.log(4)
# what each gives where the bound is b; c, data and samples exchanged; and j, the logarithms taken of means
JSD_MISTAKES = [
    Mistake(lambda b, c, j: 2 * b, "V + log 4 is *twice* the divergence"),
    Mistake(lambda b, c, j: 2 * b - LOG_4, "that is V itself; 2.3 says how V and the JSD are related"),
    Mistake(lambda b, c, j: b - LOG_2, "that is V/2; where has log 4 gone?"),
    Mistake(lambda b, c, j: b - LOG_2 / 2, "that is ½ (V + log 2); log 4 is meant"),
    Mistake(lambda b, c, j: b + LOG_2, "that is V/2 + log 4; half of both is meant"),
    Mistake(lambda b, c, j: b / 2 + LOG_2 / 2, "V is the sum of two means, one over data and one over samples"),
    Mistake(lambda b, c, j: LOG_4 - 2 * b, "that is −V, the sum of two cross-entropies; 2.3 says what follows from V"),
    Mistake(lambda b, c, j: LOG_2 - b, "that is −V/2, the mean cross-entropy; 2.3 says what follows from V"),
    Mistake(lambda b, c, j: -b, "the sign: a cross-entropy is the *negative* of a mean log-probability"),
    Mistake(lambda b, c, j: c, "data and samples are exchanged, in the fit or in the score"),
    Mistake(lambda b, c, j: j, "V has means of logarithms, and that has logarithms of means"),
]
# what each gives with both new sets exchanged, where the best discriminator's bound is c
EXCHANGED_MISTAKES = [
    Mistake(lambda c: 0.0, "it is cut off at 0; give it as it comes, also where it is negative"),
    Mistake(lambda c: -c, "its sign is taken off; give it as it comes, also where it is negative"),
]
LOOSE = "if it is a bound, it is a loose one: is the discriminator fitted to the end?"
OLD = "no discriminator scores that on draws that it has not seen: is it scored on the old sets?"
ON_OLD = "the score has to get worse then: it is to be taken on the new sets, on both of them, and on them alone"
ON_NEW = "V is a sum of two means, so both changes should be the same: have the new sets had a part in the fit?"


def _normals(random: np.random.Generator, n: int, first: Tensor, second: Tensor) -> tuple[Tensor, ...]:
    """Old data and samples, new ones: n draws each of two normals, (mean, deviation)."""
    return tuple(own[0] + own[1] * torch.from_numpy(random.normal(size=n)) for own in (first, second, first, second))


def _score(logit: Callable[[Tensor], Tensor], new_data: Tensor, new_samples: Tensor) -> float:
    """The bound that a discriminator with this logit gives, ½ (V + log 4), on these draws."""
    value = F.logsigmoid(logit(new_data)).mean() + F.logsigmoid(-logit(new_samples)).mean()
    return ((value + LOG_4) / 2).item()


@exercise(NOTEBOOK, "2.3", seconds=30)
def jsd_bound(answer: Any) -> str:
    """(old_data, old_samples, new_data, new_samples), each (N,) -> a lower bound on the JSD in nats.

    It fits a discriminator to the first two and scores it on the others. Tried on two normals, whose best
    discriminator is known, on the same with the new sets exchanged, one and both, and on two equal normals.
    """
    random = rng()
    centre, scale = random.uniform(1.5, 2.5), random.uniform(0.6, 0.8)  # where an unfitted σ(2x) is no good
    first, second = torch.tensor([centre + 0.95 * scale, scale]), torch.tensor([centre - 0.95 * scale, scale])
    old_data, old_samples, new_data, new_samples = _normals(random, 2000, first, second)

    def logit(x: Tensor) -> Tensor:
        return 1.9 * (x - centre) / scale

    def bounds(where: str, data: Tensor, samples: Tensor) -> tuple[float, float]:
        """The answer's, and that of the best discriminator."""
        sets = {"old_data": old_data, "old_samples": old_samples, "new_data": data, "new_samples": samples}
        return numbers(call(answer, sets, where), where=f"{where}: ").item(), _score(logit, data, samples)

    where = "with two normals 1.9 deviations apart, 2,000 draws in each set"
    plain, again = bounds(where, new_data, new_samples), bounds(where, new_data, new_samples)
    both = bounds("with both new sets exchanged", new_samples, new_data)
    of_means = (
        logit(new_data).sigmoid().mean().log() + (-logit(new_samples)).sigmoid().mean().log() + LOG_4
    ).item() / 2
    _refuse_no_bound(where, *plain, both[1], of_means)
    one = bounds("with samples for new_data", new_samples, new_samples)
    other = bounds("with data for new_samples", new_data, new_data)
    is_random = abs(again[0] - plain[0]) > 1e-9  # the fit is, by a source that is not the notebook's
    _refuse_no_score(plain, both, one[0], other[0], 0.25 if is_random else 1e-4)
    sets = dict(zip(SETS, _normals(random, 2000, first, first), strict=True))
    equal = numbers(call(answer, sets, "with two equal normals"), where="with two equal normals: ").item()
    if equal > 0.02:
        raise Wrong(f"with two equal normals, whose divergence is 0, your lower bound is {equal:.3f} nats.")
    return "two normals 1.9 deviations apart, the same with the new sets exchanged, and two equal normals"


def _refuse_no_bound(where: str, given: float, best: float, exchanged: float, of_means: float) -> None:
    """Raise Wrong for what is not near the best discriminator's bound, with the mistake that is nearest."""
    if not 0.62 * best <= given <= best + 0.02:
        values = {own.idea: own.gives(best, exchanged, of_means) for own in JSD_MISTAKES}
        nearest = min(values, key=lambda own: abs(given - values[own]))
        close = abs(given - values[nearest]) <= max(0.015, 0.07 * abs(values[nearest]) - 0.03)
        idea = nearest if close else OLD if best < given < LOG_2 else LOOSE if -0.2 < given < best else ""
        sentence = f"{where}: your bound is {given:.3f} nats, and that of the best discriminator is {best:.3f}."
        raise Wrong(f"{sentence}\n{idea}".strip())


def _refuse_no_score(
    plain: tuple[float, float], both: tuple[float, float], one: float, other: float, tolerance: float
) -> None:
    """Raise Wrong for what is not taken on new halves alone.

    plain, both: the answer's bound and the best one, as they are and with both new sets exchanged; one, other: the
    answer's with new_data alone exchanged, and with new_samples. tolerance: as a share of the first change.
    """
    was = f"nats, where it was {plain[0]:.3f}."
    sentence = f"with both new sets exchanged: your bound is {both[0]:.3f} {was}"
    for own in EXCHANGED_MISTAKES:
        if abs(both[0] - own.gives(both[1])) <= 1e-9 + 0.1 * abs(own.gives(both[1])):
            raise Wrong(f"{sentence}\n{own.idea}")
    for what, value in (("samples for new_data", one), ("data for new_samples", other)):
        if value > plain[0] - 0.1:
            raise Wrong(f"with {what}: your bound is {value:.3f} {was}\n{ON_OLD}")
    # V adds a mean over one set and a mean over the other, of functions that the old halves alone decide
    changes = one - plain[0], both[0] - other
    if abs(changes[1] - changes[0]) > tolerance * abs(changes[0]):
        what = f"by {changes[0]:.3f} nats, or, where new_samples are exchanged for data already, by {changes[1]:.3f}"
        raise Wrong(f"exchanging new_data for samples changes your bound {what}.\n{ON_NEW}")
    # a straight logit of any slope that gives this bound falls by a larger share of the best one's fall
    if (plain[0] - both[0]) / (plain[1] - both[1]) < 0.17 + 0.9 * (plain[0] / plain[1] - 0.55):
        raise Wrong(f"{sentence}\n{ON_OLD}")


# ---------------------------------------------------------------- 2.5


def _players(random: np.random.Generator) -> tuple[nn.Module, nn.Module]:
    """A small D, (B, 3) to logits (B,), and a small G, (B, 2) to (B, 3), smooth, so that no gradient is 0."""
    torch.manual_seed(int(random.integers(2**31)))
    d = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(0))
    return d.double(), nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def _reference(
    turns: str = "DG",
    zero: str = "DG",
    real: Callable[[Tensor], Tensor] = lambda a: F.softplus(-a),
    fake: Callable[[Tensor], Tensor] = F.softplus,
    loss: Callable[[Tensor], Tensor] = lambda a: F.softplus(-a),
    share: float = 1.0,
    detach: bool = True,
    when: str = "before",
) -> Callable[..., None]:
    """A step of the game. turns: who moves, in that order: D, or D by data alone (x) or by samples alone (z), or G.

    zero: whose gradients are set to 0; when: before their turn, after it, or all at the top. real, fake, loss: of D for
    data and for samples, and of G. share: a factor of D's loss. detach: whether no gradient reaches G in D's turn.
    """

    def step(D: Any, G: Any, d_optimizer: Any, g_optimizer: Any, x: Tensor, noise: Tensor) -> None:  # noqa: N803
        losses: dict[str, Callable[[], Tensor]] = {
            "D": lambda: share * (real(D(x)) + fake(D(G(noise).detach() if detach else G(noise)))).mean(),
            "x": lambda: real(D(x)).mean(),
            "z": lambda: fake(D(G(noise).detach())).mean(),
            "G": lambda: loss(D(G(noise))).mean(),
        }
        if when == "at the top":
            d_optimizer.zero_grad()
            g_optimizer.zero_grad()
        for turn in turns:
            player, optimizer = ("G", g_optimizer) if turn == "G" else ("D", d_optimizer)
            if player in zero and when == "before":
                optimizer.zero_grad()
            losses[turn]().backward()
            optimizer.step()
            if when == "after":
                optimizer.zero_grad()

    return step


def _judged_by_the_old(D: Any, G: Any, d_optimizer: Any, g_optimizer: Any, x: Tensor, noise: Tensor) -> None:  # noqa: N803
    """Both losses before either step."""
    players = [*D.parameters()], [*G.parameters()]
    losses = (F.softplus(-D(x)) + F.softplus(D(G(noise)))).mean(), F.softplus(-D(G(noise))).mean()
    gradients = [torch.autograd.grad(own, player) for own, player in zip(losses, players, strict=True)]
    for player, own, optimizer in zip(players, gradients, (d_optimizer, g_optimizer), strict=True):
        for parameter, gradient in zip(player, own, strict=True):
            parameter.grad = gradient
        optimizer.step()


_WORSE = "G makes D's verdict on its samples worse for itself: which label does G wish for?"
_ZERO = "gradients add up: those of the turn before, and those that the other player's turn left, are still there"
STEP_MISTAKES = [
    Mistake(_reference(turns=""), "no parameter has moved: does each player's optimiser take its step?"),
    Mistake(_reference(turns="D"), "G has not moved"),
    Mistake(_reference(turns="G"), "D has not moved"),
    *(
        Mistake(_reference(zero=zero, share=share, detach=detach), _ZERO)
        for zero in ("", "D", "G")
        for share in (1.0, 0.5)  # D's loss as a sum and as a mean of two: what adds up is not the same
        for detach in (True, False)
    ),
    *(Mistake(_reference(when="at the top", share=share, detach=False), _ZERO) for share in (1.0, 0.5)),
    *(Mistake(_reference(when="after", share=share), _ZERO) for share in (1.0, 0.5)),
    Mistake(_reference(turns="GD"), "D moves first; here G's step came before it"),
    Mistake(_judged_by_the_old, "G is to be judged by the D that has just moved; here it was judged by the old one"),
    Mistake(_reference(turns="xzG"), "D takes two steps, one by data and one by samples; it is to take one, by both"),
    Mistake(_reference(loss=lambda a: -F.softplus(a)), "G minimises log(1 − D), the saturating loss"),
    Mistake(_reference(loss=lambda a: -F.softplus(-a)), _WORSE),
    Mistake(_reference(loss=F.softplus), _WORSE),
    Mistake(_reference(real=F.softplus, fake=lambda a: F.softplus(-a)), "D's labels are exchanged: 1 is for data"),
    Mistake(_reference(real=lambda a: 0.9 * F.softplus(-a) + 0.1 * F.softplus(a)), "the label of data is 1 here"),
    Mistake(_reference(real=lambda a: 0 * a), "D sees no data in its loss"),
    Mistake(_reference(fake=lambda a: 0 * a), "D sees no samples in its loss"),
]
OTHER_NOISE = "G was given other noise than the one that was handed in, or not all of it"
BY_ADAM = "(Adam notices no constant factor in a loss, so sums and halves of it pass, too.)"
WASTEFUL = (
    "(In D's turn a gradient went through G as well; that is cleared later, so it is right, but a waste of time.)"
)


def _play(step: Callable[..., Any], seed: int, steps: int) -> tuple[Tensor, bool, bool]:
    """All parameters after so many steps; whether a gradient reached G in D's turn; whether G had other noise."""
    random, passes, wasteful, other = np.random.default_rng(seed), 0, False, False
    noise = torch.empty(0)

    def count(_: Tensor) -> None:
        nonlocal passes
        passes += 1

    def watch(module: nn.Module, inputs: Any, output: Tensor) -> None:
        nonlocal other
        other |= not torch.equal(inputs[0], noise)
        if output.requires_grad:
            output.register_hook(count)

    def before_d_moves(*_: Any) -> None:
        nonlocal wasteful
        wasteful |= passes > 0

    players = _players(random)
    players[1].register_forward_hook(watch)
    # Adam doesn't notice a constant factor in a loss, so that sums, means and halves are all right
    optimizers = [torch.optim.Adam(own.parameters(), lr=0.01, betas=(0.5, 0.9), eps=1e-12) for own in players]
    optimizers[0].register_step_pre_hook(before_d_moves)
    for _ in range(steps):
        real, noise = (torch.from_numpy(random.normal(size=(16, own))) for own in (3, 2))
        arguments, passes = (*players, *optimizers, real + 1, noise), 0
        names = ("D", "G", "d_optimizer", "g_optimizer", "real", "noise")
        call(step, dict(zip(names, arguments, strict=True)), "with two small networks and batches of 16")
    parameters = [own.detach().flatten() for player in players for own in player.parameters()]
    return torch.cat(parameters).double(), wasteful, other


@exercise(NOTEBOOK, "2.5", seconds=15)  # a process's first optimiser takes seconds of imports
def game_step(answer: Any) -> str:
    """(D, G, d_optimizer, g_optimizer, real, noise) -> None: one turn of each player, D first.

    Two steps of it are compared with two of a reference, on small networks with random weights.
    """
    seed = int(rng().integers(2**31))
    for steps in (1, 2):
        given, wasteful, other = _play(answer, seed, steps)
        right = _play(_reference(), seed, steps)[0]
        if given.shape != right.shape:
            raise Wrong("D or G has other parameters than before; a step is to move those that are there")
        off = ~((given - right).abs() <= 1e-5)  # a step moves each parameter by about 0.01
        if bool(off.any()):
            both = _play(answer, seed, 2)[0]
            known = [own.idea for own in STEP_MISTAKES if torch.allclose(_play(own.gives, seed, 2)[0], both, 0, 1e-5)]
            at = int((given - right).abs().argmax())
            raise Wrong(
                f"after {steps} of 2 steps {int(off.sum())} of {len(right)} parameters are not as they should be; "
                f"one is {shown(given[at])}, and should be {shown(right[at])}."
                f"\n{OTHER_NOISE if other else (known or [''])[0]}".strip()
            )
    tested = f"two steps, every parameter of both players\n{BY_ADAM}"
    return f"{tested}\n{WASTEFUL}" if wasteful else tested


GRID = torch.linspace(-12, 12, 4801, dtype=torch.float64)  # θ lies in [−3, 3], and all deviations are 1


def _mean(theta: float, values: Tensor) -> float:
    """The mean over N(θ, 1) of a function given on the grid."""
    density = torch.exp(-((GRID - theta) ** 2) / 2) / math.sqrt(2 * math.pi)
    return torch.trapezoid(density * values, GRID).item()


def _log_ratio(x: Tensor, theta: float) -> Tensor:
    """log p_data/p_g, the best logit for the labels 1 and 0."""
    return ((x - theta) ** 2 - (x - 1) ** 2) / 2


def _slope(theta: float, loss: Callable[[Tensor], Tensor]) -> float:
    """d/dθ E[loss(D(x))] over x ~ N(θ, 1), by autograd in x; D is the best one for that θ, held fixed."""
    x = GRID.clone().requires_grad_()
    return _mean(theta, torch.autograd.grad(loss(0.9 * _log_ratio(x, theta).sigmoid()).sum(), x)[0])


def _moving(theta: float) -> float:
    """The slope if D were the best one for every θ, by a difference."""

    def value(own: float) -> float:
        return _mean(own, -(0.9 * _log_ratio(GRID, own).sigmoid()).log())

    return (value(theta + 1e-4) - value(theta - 1e-4)) / 2e-4


def _right_slope(theta: float) -> float:
    return _slope(theta, lambda d: -d.log())


def _wrong_logit(theta: float) -> float:
    """The slope in the logit with 0.9 in D, times the slope in x of the logit without it."""
    return _mean(theta, (1 - 0.9 * _log_ratio(GRID, theta).sigmoid()) * (theta - 1))


_SATURATING = "that is the slope of log(1 − D), the saturating loss (or of the right one, with a mean over data)"
SLOPE_MISTAKES = [
    Mistake(lambda theta: 0.9 * _right_slope(theta), "what does a constant factor in D do to log D, and to its slope?"),
    Mistake(lambda theta: -_right_slope(theta), "the sign: G minimises this loss; which way should θ go?"),
    Mistake(
        lambda theta: theta - 1,
        "that is the slope of KL(p_g ‖ p_data) alone; D holds the density of the samples in its denominator, too",
    ),
    Mistake(lambda theta: _slope(theta, lambda d: (1 - d).log()), _SATURATING),
    Mistake(lambda theta: _mean(theta, (theta - 1) * _log_ratio(GRID, theta).sigmoid()), _SATURATING),
    Mistake(
        lambda theta: _right_slope(theta) / (1 - theta),
        "the loss depends on x through the logit; by which factor does the logit's slope in x enter?",
    ),
    Mistake(_moving, "D is held fixed while θ moves; here it has moved along"),
    Mistake(_wrong_logit, "with the factor 0.9 the logit is another function of x than log(p_data/p_g)"),
]


@exercise(NOTEBOOK, "2.5")
def smoothed_gradient(answer: Any) -> str:
    """(theta) -> the slope in theta of the non-saturating loss, for data N(1, 1) and samples N(theta, 1).

    D is the best one for the labels 0.9 and 0, held fixed. Compared with quadrature, to one per cent.
    """
    random = rng()
    sides = random.uniform(-3, 0.7, size=5).tolist() + random.uniform(1.3, 3, size=5).tolist()
    cases = [{"theta": theta} for theta in (0.0, 2.0, *sides)]
    compare(answer, cases, _right_slope, SLOPE_MISTAKES, relative=0.01)
    return "12 values of θ on both sides of 1, by quadrature, to 1 %\nthe label 0.9 has dropped out of it"


# ---------------------------------------------------------------- Beyond (b)

STRAIGHT = "a straight line sees the means alone: where should it go up, and where down?"
LINE_MISTAKES = [
    Mistake(
        lambda a, b: (a.mean() - b.mean()).abs().item(),
        "that is the distance of the means; mass that has to go left and mass that has to go right don't cancel",
    ),
    Mistake(
        lambda a, b: (a[:, None] - b).abs().mean().item(),
        "that is a mean over all pairs; each point of a goes to one place, not to all of them",
    ),
    Mistake(
        lambda a, b: (a - b).abs().mean().item(),
        "that pairs the points as they happen to stand; which pairing moves them least?",
    ),
    Mistake(
        lambda a, b: (a.sort().values - b.sort().values).square().mean().sqrt().item(),
        "that is the root of a mean square, the 2-Wasserstein distance; here distances count, not their squares",
    ),
    Mistake(
        lambda a, b: (a.sort().values - b.sort().values).square().mean().item(), "distances count, not their squares"
    ),
    Mistake(
        lambda a, b: (a.sort().values - b.sort().values).abs().sum().item(), "a mean over the points, not their sum"
    ),
]
# what each reaches, mean over a less mean over b
WITNESS_MISTAKES = [
    Mistake(lambda a, b: -_transport(a, b), "its sign is reversed: it has to be large on a and small on b"),
    Mistake(lambda a, b: 0.0, "a constant sees no difference at all"),
    Mistake(lambda a, b: (a.mean() - b.mean()).item(), STRAIGHT),
    Mistake(lambda a, b: (b.mean() - a.mean()).item(), STRAIGHT),
    Mistake(lambda a, b: (a.mean() - b.mean()).abs().item(), STRAIGHT),
]


def _on(witness: Any, x: Tensor, where: str) -> Tensor:
    """The witness at these points, asked for all at once or, where that fails, one by one."""
    try:
        given = call(witness, {"x": x}, where)
    except Wrong as wrong:
        try:
            given = [call(witness, {"x": own}, where) for own in x.tolist()]
        except Wrong:
            raise wrong from None
    return numbers(given, tuple(x.shape), f"{where}: at {len(x):,} points of your witness ")


@exercise(NOTEBOOK, "Beyond (b)")
def wasserstein_line(answer: Any) -> str:
    """(a (N,), b (N,)) -> (distance, witness), the latter a callable of slope at most 1.

    The witness has to reach the distance, mean over a less mean over b, and to be 1-Lipschitz on a dense grid: any
    number that a plan and a witness both give is the distance, by duality.
    """
    random = rng()
    pairs: list[tuple[Any, Any]] = [([-1.0, 1.0], [0.0, 0.0]), ([0.0, 3.0], [2.0, 1.0])]
    pairs += [(random.normal(size=n), random.normal(1, 2, size=n)) for n in (1, 2, 5, 40)]
    cases = [{"a": torch.tensor(a).double(), "b": torch.tensor(b).double()} for a, b in pairs]
    given = [_distance_and_witness(answer, case) for case in cases]
    distances = [numbers(own, where=f"{stated(case)}: ") for (own, _), case in zip(given, cases, strict=True)]
    settle(distances, cases, _transport, LINE_MISTAKES, relative=1e-4, what="your distance")
    reached = [_reached(own, case, random) for (_, own), case in zip(given, cases, strict=True)]
    settle(reached, cases, _transport, WITNESS_MISTAKES, relative=1e-4, what="what your witness reaches")
    return "6 pairs of samples of 1 to 40 points; the witness reaches the distance, and its slope is at most 1"


def _reached(witness: Any, case: dict[str, Tensor], random: np.random.Generator) -> Tensor:
    """The witness's mean over a less that over b; raises Wrong where it is steeper than 1, from nearby to far away."""
    n, near = len(case["a"]), torch.from_numpy(random.uniform(-12, 12, size=300))
    outside = torch.from_numpy(random.uniform(12, 60, size=200) * random.choice([-1, 1], size=200))
    far = torch.tensor([-1000.0, -100, 100, 1000], dtype=torch.float64)
    x = torch.cat([case["a"], case["b"], near, near + 0.002, outside, far])
    order = torch.from_numpy(random.permutation(len(x)))
    values, where = torch.empty_like(x), stated(case)
    values[order] = _on(witness, x[order], where)
    by_place = x.argsort()
    steps, rises = x[by_place].diff(), values[by_place].diff().abs()
    steep = torch.where(steps > 1e-3, rises / steps, 0)  # between nearer points rounding counts
    if steep.max() > 1.01:
        at = int(steep.argmax())
        ends = " and ".join(f"{own:.6g}" for own in x[by_place][at : at + 2].tolist())
        raise Wrong(f"{where}: between {ends} your witness has the slope {shown(steep[at])}, and 1 is allowed.")
    return values[:n].mean() - values[n : 2 * n].mean()


def _transport(a: Tensor, b: Tensor) -> float:
    return float(wasserstein_distance(a, b))  # SciPy's, from the two distribution functions


def _distance_and_witness(answer: Any, case: dict[str, Any]) -> tuple[Any, Any]:
    given = call(answer, case)
    if isinstance(given, tuple | list) and len(given) == 2 and callable(given[1]):
        return given[0], given[1]
    raise Wrong(f"{stated(case)}: your answer is {shown(given)}, and should be a pair: first a number, then a function")


# ---------------------------------------------------------------- Beyond (c)

FLOOR_MISTAKES = [
    Mistake(lambda a: (a, a), "the sets are finite: their means and covariances differ by chance, and by how much?"),
    Mistake(
        lambda a: (a * math.sqrt(2), a / math.sqrt(2)),
        "a mean of n draws is off by about 1/√n; but the distance adds up *squares* of what is off",
    ),
    Mistake(lambda a: (a / 2, a * 2), "the wrong direction: are larger sets of the same distribution further apart?"),
    Mistake(lambda a: (a / math.sqrt(2), a * math.sqrt(2)), "the wrong direction, and the wrong power of n"),
    Mistake(lambda a: (a * 4, a / 4), "that goes with 1/n²; a mean of n draws is off by about 1/√n, and squared?"),
    Mistake(lambda a: (a / 2, a / 2), "halves for both? One set is smaller than 5,000, and the other larger"),
    Mistake(lambda a: (a / 2, a), "the second is for 10,000, and the first for 2,500"),
]


@exercise(NOTEBOOK, "Beyond (c)")
def frechet_floor(answer: Any) -> str:
    """(at_5000) -> (at_2500, at_10000): the Fréchet distance of two sets of the same distribution, by their size.

    To ten per cent. That it goes with 1/n is seen in a test, by simulation.
    """
    cases = [{"at_5000": value} for value in (1.0, *rng().uniform(0.2, 20, size=9).tolist())]
    compare(answer, cases, lambda own: (2 * own, own / 2), FLOOR_MISTAKES, relative=0.1, parts=2, tell=False)
    return "10 distances at 5,000, to 10 %"
