"""The checkers of notebook 1's exercises on the loss, its gradient, and what comes of training."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Normal

from gm_helpers.exercises.checking import Mistake, Wrong, call, exercise, numbers, rng, settle, shown, stated
from gm_helpers.exercises.vae_bound import NOTEBOOK, minimiser, near

# ---------------------------------------------------------------- 1.10


def _weight_of_kl(pixels: int, latents: int) -> float:
    """The β of `kl.mean() - recon.mean()`: how much one nat of each counts, by autograd."""
    recon, kl = torch.zeros(4, pixels, requires_grad=True), torch.zeros(4, latents, requires_grad=True)
    by_recon, by_kl = torch.autograd.grad(kl.mean() - recon.mean(), (recon, kl))
    return (by_kl[0, 0] / -by_recon[0, 0]).item()


BETA_MISTAKES = [
    Mistake(
        lambda pixels, latents: pixels, "that is for the *sum* over the latents; this program takes their mean, too"
    ),
    Mistake(lambda pixels, latents: latents, "that is by how much the KL is divided; what of the reconstruction?"),
    Mistake(lambda pixels, latents: 1 / latents, "the KL is divided by that; what of the reconstruction?"),
    Mistake(lambda pixels, latents: 1 / pixels, "the reconstruction is divided by that; what of the KL?"),
    Mistake(lambda pixels, latents: latents / pixels, "upside down: does the KL count too much here, or too little?"),
    Mistake(lambda pixels, latents: 1, "the two means divide by different numbers"),
    Mistake(
        lambda pixels, latents: pixels * latents, "do the two divisions add to each other, or act against each other?"
    ),
    Mistake(lambda pixels, latents: pixels - latents, "factors are compared by their ratio"),
]


@exercise(NOTEBOOK, "1.10")
def hidden_beta(answer: Any) -> str:
    """A number: the β that is trained by means over 784 pixels and over 20 latents.

    Compared with the ratio of the gradients, to half a per cent.
    """
    case = {"pixels": 784, "latents": 20}
    settle([numbers(answer)], [case], _weight_of_kl, BETA_MISTAKES, relative=0.006, tell=False)
    return "against the gradients of the loss in one pixel and in one component"


# ---------------------------------------------------------------- 1.11

Weights = Callable[[Tensor], Tensor]  # of the draws, from the values of f: (K,) to (K,)
Scores = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]  # from mean, log_std, eps and draws


def _without_own(values: Tensor) -> Tensor:
    return torch.stack([own - torch.cat([values[:k], values[k + 1 :]]).mean() for k, own in enumerate(values)])


def _by_autograd(mean: Tensor, log_std: Tensor, eps: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """The slopes of log q at the draws in its own copies of mean and log σ, each (K, D)."""
    copies = mean.expand_as(eps).clone().requires_grad_(), log_std.expand_as(eps).clone().requires_grad_()
    first, second = torch.autograd.grad(Normal(copies[0], copies[1].exp()).log_prob(z.detach()).sum(), copies)
    return first, second


def _estimate(weights: Weights = _without_own, scores: Scores = _by_autograd) -> Callable[..., list[float]]:
    """(f, mean, log_std, eps) -> the mean over the draws of weight times score, (2D,)."""

    def estimate(f: Any, mean: Tensor, log_std: Tensor, eps: Tensor) -> list[float]:
        z = mean + log_std.exp() * eps
        score = torch.cat(scores(mean, log_std, eps, z), 1)
        return (weights(f(z))[:, None] * score).mean(0).tolist()

    return estimate


def _pathwise(f: Any, mean: Tensor, log_std: Tensor, eps: Tensor) -> list[float]:
    own = mean.clone().requires_grad_(), log_std.clone().requires_grad_()
    slopes = torch.autograd.grad(f(own[0] + own[1].exp() * eps).mean(), own)
    return torch.cat(slopes).tolist()


def _scores(change: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]) -> Scores:
    """Those that `change` makes of the two right ones and σ."""
    return lambda mean, log_std, eps, z: change(*_by_autograd(mean, log_std, eps, z), log_std.exp())


# (The −1 of ε² − 1 may be missing: the weights add up to 0, so that it drops out.)
LEAVE_ONE_OUT_MISTAKES = [
    Mistake(
        _estimate(lambda f: f - f.mean()), "the baseline is a mean over all draws: is it independent of the draw's own?"
    ),
    Mistake(
        _estimate(lambda f: 0 * f),
        "all is 0: is each value taken off itself, or has the draw moved along with the parameters in log q?",
    ),
    Mistake(_estimate(lambda f: f), "that is the estimator without a baseline"),
    Mistake(
        _estimate(lambda f: f - (f.sum() - f) / len(f)), "the baseline: how many draws is the sum over the others of?"
    ),
    Mistake(_estimate(lambda f: f - (f.sum() - f)), "the baseline is a sum over the others, where a mean belongs"),
    Mistake(_estimate(lambda f: -_without_own(f)), "the sign: is the baseline taken off f, or f off the baseline?"),
    Mistake(_estimate(lambda f: _without_own(f) * len(f)), "a sum over the draws, where a mean is asked for"),
    Mistake(
        _estimate(lambda f: _without_own(f) * len(f) / (len(f) - 1)),
        "the last mean is one over all K draws; the others alone make the baseline",
    ),
    Mistake(
        _estimate(scores=_scores(lambda a, b, s: (a, b / s))), "those are derivatives by σ; by log σ they are asked for"
    ),
    Mistake(_estimate(scores=_scores(lambda a, b, s: (a, b / 2))), "those are derivatives by log σ²"),
    Mistake(_estimate(scores=_scores(lambda a, b, s: (a, b * s))), "by log σ: the chain rule has been applied twice"),
    Mistake(_estimate(scores=_scores(lambda a, b, s: (a * s, b))), "the score by μ: how does it depend on σ?"),
    Mistake(_estimate(scores=_scores(lambda a, b, s: (a / s, b))), "the score by μ: z − μ, divided by σ or by σ²?"),
    Mistake(_estimate(scores=_scores(lambda a, b, s: (a * s**2, b))), "the score by μ: z − μ, divided by what?"),
    Mistake(_estimate(scores=_scores(lambda a, b, s: (b, a))), "the derivatives by μ come first"),
    Mistake(lambda f, mean, log_std, eps: _estimate()(f, mean, log_std / 2, eps), "log_std is log σ, and not log σ²"),
    Mistake(_pathwise, "that is the pathwise estimator; does it see a jump of f?"),
]


@dataclass
class _Smooth:
    """A function (K, D) to (K,) that has slopes, for draws of whatever kind; it tells what it is."""

    a: Tensor
    b: Tensor

    def __call__(self, z: Any) -> Tensor:
        own = torch.as_tensor(z).double()
        return torch.sin(own @ self.a) + own**2 @ self.b

    def __repr__(self) -> str:
        return f"sin(a·z) + b·z² with a = {shown(self.a)}, b = {shown(self.b)}"


@exercise(NOTEBOOK, "1.11")
def leave_one_out(answer: Any) -> str:
    """(f, mean (D,), log_std (D,), eps (K, D)) -> (2D,), the estimate of the gradient in mean and log_std.

    f: (K, D) to (K,). Compared with scores by autograd, draw by draw, and with the gradient of a mean in closed form.
    """
    random = rng()
    given, cases, off, sizes = [], [], False, [(1, 2), (1, 3)]  # components and draws
    sizes += [(int(random.integers(1, 5)), int(random.integers(2, 30))) for _ in range(18)]
    for size, draws in sizes:
        a, b, mean, log_std = (torch.from_numpy(random.normal(size=size)) for _ in range(4))
        eps = torch.from_numpy(random.normal(size=(draws, size)))
        case = {"f": _Smooth(a, b), "mean": mean, "log_std": log_std / 2, "eps": eps}
        where = f"for {draws} draws of {size} component{'s' * (size > 1)}"
        value = numbers(call(answer, case, where), (2 * size,), f"{where}: ")
        right = torch.tensor(_estimate()(*case.values())).double()
        off |= not near(value, right, 1e-5 + 1e-4 * right.abs().max().item())  # as float32 knows it
        given.append(torch.where(value.abs() < 1e-9, 0, value))
        cases.append(case)
    if off:
        settle(given, cases, _estimate(), LEAVE_ONE_OUT_MISTAKES, relative=1e-4)
    _refuse_wrong_mean(answer, random)
    return "20 random cases, draw by draw, and the mean of a step function, whose gradient is known"


def _refuse_wrong_mean(answer: Any, random: np.random.Generator) -> None:
    """Raise Wrong where the estimate is not near the gradient of ΣΦ(μ/σ), the mean of the number of z > 0."""
    mean, log_std = (torch.from_numpy(random.uniform(-0.5, 0.5, size=2)) for _ in range(2))
    eps, where = torch.from_numpy(random.normal(size=(20_000, 2))), "for a step function and 20,000 draws"

    def step(z: Any) -> Tensor:
        return (torch.as_tensor(z) > 0).double().sum(1)

    case = {"f": step, "mean": mean, "log_std": log_std, "eps": eps}
    value = numbers(call(answer, case, where), (4,), f"{where}: ")
    slope = Normal(0.0, 1.0).log_prob(mean / log_std.exp()).exp() / log_std.exp()
    right = torch.cat([slope, -mean * slope])
    if (value - right).abs().max() > 0.15:  # seven standard errors or more
        raise Wrong(f"{where}: your answer is {shown(value)}, and should be near {shown(right)}.")


# ---------------------------------------------------------------- Beyond (a)


def _paired(a: Tensor, b: Tensor) -> float:
    """The standard error from the variances and the covariance."""
    covariance = torch.cov(torch.stack([a, b]))
    return math.sqrt((covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]) / len(a))


def _gain(a: Tensor, b: Tensor) -> float:
    return (a.mean() - b.mean()).item()


def _log_mean(values: Tensor) -> float:
    return values.logsumexp(0).item() - math.log(len(values))


_LOG_MEANS = "that averages probabilities, and a few easy images decide; each image has a log-likelihood of its own"
DIFFERENCE_MISTAKES = [
    Mistake(lambda a, b: (b.mean() - a.mean()).item(), "the sign: a less b is asked for"),
    Mistake(lambda a, b: _log_mean(a) - _log_mean(b), _LOG_MEANS),
    Mistake(lambda a, b: _log_mean(a - b), _LOG_MEANS),
    Mistake(lambda a, b: (a - b).sum().item(), "a sum over the images, where a mean is asked for"),
    Mistake(lambda a, b: (a - b).abs().mean().item(), "images on which b is better count with their sign"),
    Mistake(lambda a, b: abs((a - b).mean().item()), "the difference has a sign, which tells the better model"),
    Mistake(lambda a, b: (a - b).median().item(), "that is a median, and the mean is asked for"),
]
ERROR_MISTAKES = [
    Mistake(
        lambda a, b: math.sqrt((a.var() + b.var()) / len(a)),
        "that is the error for two *different* sets of images; here images that are hard for a are so for b, too",
    ),
    Mistake(
        lambda a, b: (a.std() + b.std()).item() / math.sqrt(len(a)),
        "errors of two means don't add, and here have pairs",
    ),
    Mistake(
        lambda a, b: abs((a.std() - b.std()).item()) / math.sqrt(len(a)),
        "that is a difference of errors, where the error of a difference is asked for",
    ),
    Mistake(
        lambda a, b: (a - b).std().item(),
        "that is how much the images differ; how well is their *mean* known?",
    ),
    Mistake(lambda a, b: (a - b).var().item() / len(a), "that is the square of the error"),
    Mistake(lambda a, b: (a - b).var().item(), "that is a variance, of one image"),
    Mistake(lambda a, b: (a - b).std().item() / len(a), "the error of a mean falls with √N, not with N"),
    Mistake(lambda a, b: 1.96 * _paired(a, b), "that is about two standard errors, and one is asked for"),
]


def _pairs(random: np.random.Generator, count: int, gain: float) -> dict[str, Any]:
    """Bounds of two models on the same images, most of whose differences both share."""
    b = -100 + random.normal(size=count) * random.uniform(8, 20)
    return {"a": torch.from_numpy(b + gain + random.normal(size=count) * 3), "b": torch.from_numpy(b)}


@exercise(NOTEBOOK, "Beyond (a)", seconds=15)
def compare_bounds(answer: Any) -> str:
    """(a (N,), b (N,)) -> the mean of a less that of b, over the same images, and its standard error.

    Both numbers on 20 random sets, the error to a tenth, and on 100 more how often the true difference is within two.
    """
    random = rng()
    cases = [
        {"a": torch.tensor([-91.0, -106, -75, -120]).double(), "b": torch.tensor([-92.0, -104, -79, -125]).double()}
    ]
    cases += [_pairs(random, int(random.integers(200, 1000)), random.choice([-1, 1]) * 0.7) for _ in range(19)]
    differences, errors, off = [], [], [False, False]
    for case in cases:
        a, b = case.values()
        value = numbers(call(answer, case), (2,), f"{stated(case)}: ")
        right = _paired(a, b)
        off[0] |= not near(value[0], (a - b).mean(), 0.01 * right)  # float32 knows it no better
        # by N or N − 1, or by drawing images again, which is noisy
        off[1] |= not 0.9 * right * math.sqrt(1 - 1 / len(a)) <= value[1] <= 1.1 * right
        differences.append(value[0])
        errors.append(value[1])
    if off[0]:
        settle(differences, cases, _gain, DIFFERENCE_MISTAKES, 1e-4, what="your difference")
    if off[1]:
        settle(errors, cases, _paired, ERROR_MISTAKES, 0.01, what="your error")
    within = 0
    for _ in range(100):
        value = numbers(call(answer, _pairs(random, 100, 0.5)), (2,))
        within += int(abs(value[0] - 0.5) <= 2 * value[1])
    if within < 80:  # 95 are to be expected
        raise Wrong(f"the true difference lies within two of your standard errors in {within} of 100 sets")
    return "both numbers on 20 sets of pairs; in 100 more the true difference lies within two errors often enough"


# ---------------------------------------------------------------- Beyond (b)


def _rates(eigenvalues: Tensor, noise_variance: float, beta: float) -> list[float]:
    """By minimising the loss in each component's decoder weight, encoder slope and log-variance at once."""
    count = len(eigenvalues)

    def terms(at: Tensor) -> tuple[Tensor, Tensor]:
        w, v, log_var = at.split(count)
        error = eigenvalues * (1 - w * v) ** 2 + w**2 * log_var.exp()
        return error / (2 * noise_variance), (v**2 * eigenvalues + log_var.exp() - 1 - log_var) / 2

    def loss(at: Tensor) -> Tensor:
        distortion, rate = terms(at)
        return (distortion + beta * rate).sum() / beta

    width = eigenvalues.sqrt()
    start = torch.cat([width, 0.5 / width, torch.full_like(width, -1)])
    return [own if own > 1e-3 else 0.0 for own in terms(minimiser(loss, start.tolist()))[1].tolist()]


def _half_log(ratio: Tensor) -> Tensor:
    return 0.5 * ratio.log()


def _of_ratios(formula: Callable[[Tensor, float], Tensor]) -> Callable[..., list[float]]:
    """(eigenvalues, noise_variance, beta) -> formula(λ/s², β)."""
    return lambda eigenvalues, noise_variance, beta: formula(eigenvalues / noise_variance, beta).tolist()


def _old_decoder(ratio: Tensor, beta: float) -> Tensor:
    """With the best encoder for the weight β, and the decoder that is best for 1; in units of s."""
    square = (ratio - 1).clamp(min=0)
    variance = beta / (square + beta)
    return 0.5 * (square * ratio / (square + beta) ** 2 + variance - 1 - variance.log())


COLLAPSE_MISTAKES = [
    Mistake(
        _of_ratios(lambda r, beta: _half_log(r).clamp(min=0) / beta),
        "all shrink by the same factor: would any component ever go out?",
    ),
    Mistake(
        _of_ratios(lambda r, beta: torch.where(r > beta, _half_log(r), 0)),
        "what is left has its rate of β = 1: do components go out with a jump?",
    ),
    Mistake(_of_ratios(lambda r, beta: _half_log(r).clamp(min=0)), "that is for β = 1: where is β?"),
    Mistake(
        _of_ratios(lambda r, beta: torch.where(r > 1, _half_log(r / beta), 0)),
        "the threshold ignores β: is each of your rates at least 0?",
    ),
    Mistake(
        _of_ratios(lambda r, beta: _half_log(r / beta)), "a divergence is never negative: what becomes of w there?"
    ),
    Mistake(
        _of_ratios(lambda r, beta: _half_log(r / beta).abs()),
        "a component whose axis hardly varies has no rate at all: what becomes of w there?",
    ),
    Mistake(
        _of_ratios(lambda r, beta: 2 * _half_log(r / beta).clamp(min=0)), "that is twice the rate: where is the ½?"
    ),
    Mistake(_of_ratios(lambda r, beta: _half_log(r / beta).clamp(min=0) / math.log(2)), "those are bits, and not nats"),
    Mistake(
        _of_ratios(lambda r, beta: _half_log(r * beta).clamp(min=0)),
        "a higher price of the rate makes it rise: is β on the right side?",
    ),
    Mistake(
        _of_ratios(lambda r, beta: _half_log(1 + r / beta)),
        "λ is the variance of the data along an axis, noise included, and not that of Wz alone",
    ),
    Mistake(_of_ratios(lambda r, beta: _half_log(1 + r)), "λ is the variance of the data, noise included; where is β?"),
    Mistake(_of_ratios(_old_decoder), "the decoder is that of β = 1; it is to be the best for this β, too"),
    Mistake(
        _of_ratios(lambda r, beta: beta * _half_log(r / beta).clamp(min=0)),
        "that is β times the rate, its share of the loss",
    ),
    Mistake(
        lambda eigenvalues, noise, beta: _half_log(eigenvalues / (beta * noise**2)).clamp(min=0).tolist(),
        "the noise is given by its variance s², which need not be squared",
    ),
]


@exercise(NOTEBOOK, "Beyond (b)")
def collapse(answer: Any) -> str:
    """(eigenvalues (D,), noise_variance, beta) -> rates (D,) in nats, of the linear model at the optimum.

    Compared with a numerical minimisation of the loss in decoder and encoder; some eigenvalues lie between s² and βs².
    """
    random = rng()
    cases = [([4.0], 1.0, 2.0), ([4.0, 1.5, 0.5], 1.0, 2.0), ([0.3, 2.0, 0.7], 0.5, 0.5)]
    for _ in range(9):
        noise, beta = random.uniform(0.2, 3), random.choice([random.uniform(0.2, 0.8), random.uniform(1.3, 8)])
        # at most e^±0.15 away from the threshold no optimiser is sure
        away = random.choice([-1, 1], size=4) * random.uniform(0.15, 2.5, size=4)
        between = beta ** random.uniform(-0.8, -0.2)
        cases.append((noise * beta * np.array([*np.exp(away), between]), noise, beta))
    named: list[dict[str, Any]] = [
        dict(zip(("eigenvalues", "noise_variance", "beta"), (torch.tensor(own).double(), *rest), strict=True))
        for own, *rest in cases
    ]
    given, off = [], False
    for case in named:
        given.append(numbers(call(answer, case), (len(case["eigenvalues"]),), f"{stated(case)}: "))
        off |= not near(given[-1], torch.tensor(_rates(*case.values())).double(), 2e-3)
    if off:
        settle(given, named, _rates, COLLAPSE_MISTAKES, relative=2e-3)
    return "12 sets of eigenvalues, by a numerical minimisation of the loss"
