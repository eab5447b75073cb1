"""The checkers of notebook 1's exercises on the likelihood and its bound; the others are in vae_model.py."""

import copy
import math
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import Tensor
from torch.distributions import LowRankMultivariateNormal, MultivariateNormal, kl_divergence
from torch.overrides import TorchFunctionMode

from gm_helpers.exercises.checking import Mistake, Wrong, call, compare, exercise, numbers, rng, settle, stated
from gm_helpers.vae import VAE, kl_standard_normal

NOTEBOOK = "1_vae"


def near(given: Tensor, right: Tensor, tolerance: float) -> bool:
    """Whether no number is off by more than the tolerance; that of `settle` is a share of the right one, maybe of 0."""
    return bool(((given - right).abs() <= tolerance).all())


def minimiser(loss: Callable[[Tensor], Tensor], start: Sequence[float]) -> Tensor:
    """Where a smooth function has its minimum, as SciPy finds it from there by autograd's slopes."""

    def value_and_slope(at: np.ndarray) -> tuple[float, np.ndarray]:
        point = torch.tensor(at, requires_grad=True)
        value = loss(point)
        return value.item(), torch.autograd.grad(value, point)[0].numpy()

    found = minimize(value_and_slope, np.array(start, dtype=float), jac=True, method="BFGS", options={"gtol": 1e-8})
    return torch.from_numpy(found.x)


# ---------------------------------------------------------------- 1.4a

Z = np.linspace(-10, 10, 20_001)
PRIOR = np.exp(-(Z**2) / 2) / np.exp(-(Z**2) / 2).sum()  # s is at least 0.2, so that the grid is fine enough


def _log_likelihood(x: float, s: float) -> np.ndarray:
    return -((x - Z) ** 2) / (2 * s**2) - math.log(s * math.sqrt(2 * math.pi))


def _variance(values: np.ndarray, weights: np.ndarray = PRIOR) -> float:
    return float(weights @ values**2 - (weights @ values) ** 2)


def _ratio(x: float, s: float) -> np.ndarray:
    """p(x|z)/p(x) on the grid."""
    likelihood = np.exp(_log_likelihood(x, s))
    return likelihood / (PRIOR @ likelihood)


def _ratio_variance(x: float, s: float) -> float:
    return _variance(_ratio(x, s))


def _draws_to_hit(x: float, s: float) -> float:
    """e^KL(posterior ‖ prior): the ratio is that of the two densities."""
    ratio = _ratio(x, s)
    return math.exp(PRIOR @ (ratio * np.log(np.maximum(ratio, 1e-300))))


def _with_n(v: Callable[[float, float], float], n: Callable[[float], float] = lambda v: 50 * v) -> Callable[..., Any]:
    """(x, s) -> (v, n) with this v, and n by this rule."""
    return lambda x, s: (v(x, s), n(v(x, s)))


_HITS = "e^KL is about how many draws it takes for any to hit (1.4b); the bias is another question"
BIAS_MISTAKES = [
    Mistake(_with_n(_ratio_variance, lambda v: 100 * v), "n: which factor has δ² in the expansion of log(1 + δ)?"),
    Mistake(
        _with_n(_ratio_variance, lambda v: 1e4 * v),
        "n: with so many draws the standard *deviation* of the estimate is 0.01; its bias is asked for",
    ),
    Mistake(_with_n(_ratio_variance, lambda v: v / 200), "n: the bias falls with n, so v/2 times 0.01 can't be it"),
    Mistake(_with_n(_ratio_variance, math.ceil), "n: that is v, rounded up; where is the 0.01?"),
    Mistake(_with_n(_ratio_variance, lambda v: math.ceil(50 * v)), "n is not to be rounded"),
    Mistake(
        _with_n(lambda x, s: _variance(_log_likelihood(x, s))),
        "that is the variance of the logarithms; the estimate is a mean of the p(x|z) themselves",
    ),
    Mistake(_with_n(_draws_to_hit), _HITS),
    Mistake(lambda x, s: (_ratio_variance(x, s), _draws_to_hit(x, s)), f"n: {_HITS}"),
    Mistake(
        _with_n(lambda x, s: _ratio_variance(x, s) + 1),
        "that is the mean square of the ratio; a variance has something taken off",
    ),
    Mistake(
        _with_n(lambda x, s: _variance(np.exp(_log_likelihood(x, s)))),
        "that is the variance of p(x|z) itself; it is to be divided by p(x) first",
    ),
    Mistake(
        _with_n(lambda x, s: _ratio_variance(x, s) * (PRIOR @ np.exp(_log_likelihood(x, s)))),
        "a variance is divided by p(x) *squared* when the variable is divided by p(x)",
    ),
    Mistake(_with_n(lambda x, s: math.sqrt(_ratio_variance(x, s))), "that is a standard deviation, and no variance"),
    Mistake(
        _with_n(lambda x, s: _variance(_ratio(x, s), PRIOR * _ratio(x, s))),
        "that is the variance over the posterior; the draws come from the prior",
    ),
    Mistake(
        _with_n(lambda x, s: _ratio_variance(x, math.sqrt(s))), "s is the noise's standard deviation, not its variance"
    ),
    Mistake(_with_n(lambda x, s: _ratio_variance(0.0, s)), "that holds for x = 0 alone"),
]


@exercise(NOTEBOOK, "1.4a")
def bias_of_estimate(answer: Any) -> str:
    """(x, s) -> (v, n): the variance of p(x|z)/p(x) over the prior, and the draws for a bias of 0.01 nats.

    z ~ N(0, 1), x = z + s·noise. Compared with quadrature, to a thousandth.
    """
    random = rng()
    cases = [{"x": 0.0, "s": 1.0}, {"x": 1.0, "s": 1.0}, {"x": 1.0, "s": 0.5}]
    cases += [{"x": random.uniform(-2.5, 2.5), "s": random.uniform(0.2, 2)} for _ in range(17)]
    compare(answer, cases, _with_n(_ratio_variance), BIAS_MISTAKES, relative=1e-3, parts=2)
    return "20 pairs of x and s, by quadrature"


# ---------------------------------------------------------------- 1.5b

LARGE, PROBE = 200_000, 1500  # dimensions: of the large case, and of that in which memory is watched


def _low_rank(random: np.random.Generator, dims: int, rank: int) -> dict[str, Any]:
    """Mean, factor and diagonal of a random normal, none of which is near the prior's."""
    mean, factor = random.normal(size=dims), random.normal(size=(dims, rank)) * random.uniform(0.4, 1.2)
    own = mean, factor, random.uniform(0.2, 3, size=dims)
    return dict(zip(("mean", "factor", "diag"), map(torch.from_numpy, own), strict=True))


def _by_torch(mean: Tensor, factor: Tensor, diag: Tensor) -> float:
    """The divergence from N(0, I), by the full covariance."""
    own = MultivariateNormal(mean, factor @ factor.T + diag.diag())
    return kl_divergence(own, MultivariateNormal(torch.zeros_like(mean), torch.eye(len(mean)).double())).item()


def _exchanged(mean: Tensor, factor: Tensor, diag: Tensor) -> float:
    own = MultivariateNormal(mean, factor @ factor.T + diag.diag())
    return kl_divergence(MultivariateNormal(torch.zeros_like(mean), torch.eye(len(mean)).double()), own).item()


def _of_parts(formula: Callable[..., Tensor]) -> Callable[..., float]:
    """(mean, factor, diag) -> formula(‖μ‖², ΣF², Σd, log det Σ, Σ log d, D)."""

    def divergence(mean: Tensor, factor: Tensor, diag: Tensor) -> float:
        log_det = torch.logdet(factor @ factor.T + diag.diag())
        return formula((mean**2).sum(), (factor**2).sum(), diag.sum(), log_det, diag.log().sum(), len(mean)).item()

    return divergence


def _with_small(small: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., float]:
    """(mean, factor, diag) -> the divergence with Σ log d + log det small(F, d) for the log-determinant."""

    def divergence(mean: Tensor, factor: Tensor, diag: Tensor) -> float:
        log_det = diag.log().sum() + small(factor, diag).logdet()
        return 0.5 * ((mean**2).sum() + (factor**2).sum() + diag.sum() - len(mean) - log_det).item()

    return divergence


LOW_RANK_MISTAKES = [
    Mistake(_of_parts(lambda m, f, d, det, log_d, dims: (m + f - dims - det) / 2), "the trace: is d in it?"),
    Mistake(_of_parts(lambda m, f, d, det, log_d, dims: (m + d - dims - det) / 2), "the trace: is F in it?"),
    Mistake(
        _of_parts(lambda m, f, d, det, log_d, dims: (m + f + d - dims - log_d) / 2),
        "the log-determinant is that of d alone: what does F do to the volume?",
    ),
    Mistake(
        _of_parts(lambda m, f, d, det, log_d, dims: (m + f + d - dims + det) / 2),
        "the sign of the log-determinant: is a narrow q near the prior or far from it?",
    ),
    Mistake(
        _of_parts(lambda m, f, d, det, log_d, dims: (m + d - dims - log_d) / 2), "that is the divergence without F"
    ),
    Mistake(
        _of_parts(lambda m, f, d, det, log_d, dims: (m + f + d - det) / 2),
        "what would that be if q were the prior itself?",
    ),
    Mistake(
        _of_parts(lambda m, f, d, det, log_d, dims: m + f + d - dims - det), "twice the divergence: where is the ½?"
    ),
    Mistake(_of_parts(lambda m, f, d, det, log_d, dims: (f + d - dims - det) / 2), "where is the mean?"),
    Mistake(
        _of_parts(lambda m, f, d, det, log_d, dims: (m.sqrt() + f + d - dims - det) / 2),
        "the length of the mean enters as its square",
    ),
    Mistake(
        _with_small(lambda f, d: torch.eye(f.shape[1]).double() + f.T @ f),
        "the small determinant: is FᵀF right where d is not 1?",
    ),
    Mistake(
        _with_small(lambda f, d: torch.eye(f.shape[1]).double() + f.T @ (d[:, None] * f)),
        "the small determinant: times d, or divided by it?",
    ),
    Mistake(
        lambda mean, factor, diag: _by_torch(mean, factor, diag) + (len(mean) - factor.shape[1]) / 2,
        "the constant: of which matrix is it the trace?",
    ),
    Mistake(
        _with_small(lambda f, d: f.T @ (f / d[:, None])),
        "the small determinant: what would it be for F = 0?",
    ),
    Mistake(lambda mean, factor, diag: _by_torch(mean, factor, diag**2), "diag holds variances, not deviations"),
    Mistake(_exchanged, "that is the divergence of the prior from q"),
]


class _Largest(TorchFunctionMode):
    """Remembers the bytes of the largest tensor that is made while it is on."""

    size = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for own in made if isinstance(made, tuple | list) else (made,):
            if isinstance(own, Tensor) and own.layout == torch.strided:
                self.size = max(self.size, own.untyped_storage().nbytes())
        return made


def _refuse_square(answer: Any, case: dict[str, Any], where: str) -> None:
    """Raise Wrong for an answer that makes a D × D array, tried where that is small enough to do no harm."""
    dims, tracing = len(case["mean"]), tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        with _Largest() as largest:
            call(answer, case, where)
        in_numpy = tracemalloc.get_traced_memory()[1] - before  # NumPy's arrays, lists
    finally:
        if not tracing:
            tracemalloc.stop()
    if max(largest.size, in_numpy) >= 4 * dims**2:  # bytes, of float32
        what = f"your function makes an array of D × D numbers; for D = {LARGE:,} that would fill 320 GB."
        raise Wrong(f"{where}: {what}\nwhich entries of FFᵀ does the trace need, and which determinant is a small one?")


@exercise(NOTEBOOK, "1.5b", seconds=20)  # a loop over the dimensions is slow, and right
def kl_low_rank(answer: Any) -> str:
    """(mean (D,), factor (D, k), diag (D,)) -> KL(N(mean, F Fᵀ + diag(d)) ‖ N(0, I)) in nats.

    Compared with torch.distributions by full covariances, and in 200,000 dimensions, where there is no room for one.
    """
    random = rng()
    first = {"mean": [1.0, 0.0], "factor": [[1.0], [1.0]], "diag": [1.0, 0.5]}
    cases = [{name: torch.tensor(own, dtype=torch.float64) for name, own in first.items()}]
    cases += [_low_rank(random, int(random.integers(1, 30)), int(random.integers(1, 5))) for _ in range(19)]
    compare(answer, cases, _by_torch, LOW_RANK_MISTAKES, relative=1e-4)
    _refuse_square(answer, _low_rank(random, PROBE, 3), f"in {PROBE:,} dimensions")
    case, where = _low_rank(random, LARGE, 3), f"in {LARGE:,} dimensions"
    given = numbers(call(answer, case, where), where=f"{where}: ").item()
    prior = LowRankMultivariateNormal(
        torch.zeros(LARGE).double(), torch.zeros(LARGE, 1).double(), torch.ones(LARGE).double()
    )
    right = kl_divergence(LowRankMultivariateNormal(case["mean"], case["factor"], case["diag"]), prior).item()
    if abs(given - right) > 1e-3 * right:
        raise Wrong(f"{where}: your answer is {given:.6g}, and should be {right:.6g}.")
    return f"20 random cases against torch.distributions, and one in {LARGE:,} dimensions"


# ---------------------------------------------------------------- 1.6


@dataclass
class _Sums:
    """What a mistake is made of: an image's log-densities on a square grid, and the right numbers, in nats."""

    spacing: float
    log_likelihood: Tensor  # (N,), as are the next three
    log_prior: Tensor
    log_q: Tensor
    log_q_by_variance: Tensor  # with σ² where σ belongs
    log_px: float
    gap: float
    kl: float  # of q from the prior
    at_the_mean: float  # log p(x|μ)

    def integral(self, logs: Tensor) -> float:
        """The logarithm of the integral."""
        return logs.logsumexp(0).item() + 2 * math.log(self.spacing)

    def mean(self, log_density: Tensor, values: Tensor) -> float:
        return (log_density.exp() * values).sum().item() * self.spacing**2

    @property
    def log_posterior(self) -> Tensor:
        return self.log_likelihood + self.log_prior - self.log_px


GRID_MISTAKES = [
    Mistake(
        lambda own: own.integral(own.log_likelihood + own.log_prior) - 2 * math.log(own.spacing),
        "a sum is no integral yet: for which area does a point of the grid stand?",
    ),
    Mistake(
        lambda own: own.integral(own.log_likelihood + own.log_prior) - math.log(own.spacing),
        "a point of the grid stands for a square, not for a stretch",
    ),
    Mistake(
        lambda own: (own.log_likelihood + own.log_prior).logsumexp(0).item() - math.log(len(own.log_prior)),
        "that is a mean over the points of the grid; how large is the grid?",
    ),
    Mistake(lambda own: own.integral(own.log_likelihood), "every code counts alike: where is the prior?"),
    Mistake(lambda own: own.log_px + math.log(2 * math.pi), "the prior's density: is its constant there?"),
    Mistake(
        lambda own: own.log_px + math.log(2 * math.pi) / 2,
        "the prior's density: that is the constant of a single component, and there are two",
    ),
    Mistake(lambda own: own.mean(own.log_prior, own.log_likelihood), "the logarithm comes after the mean (1.4a)"),
    Mistake(lambda own: own.log_px - own.gap, "that is the ELBO, and not yet log p(x)"),
    Mistake(lambda own: -own.log_px, "the sign of log p(x)"),
    Mistake(lambda own: math.exp(own.log_px), "that is p(x), and its logarithm is asked for"),
]


GAP_MISTAKES = [
    Mistake(
        lambda own: own.mean(own.log_posterior, own.log_posterior - own.log_q),
        "that is a mean over the posterior, KL(p ‖ q); which of the two does the ELBO take its means over?",
    ),
    Mistake(lambda own: own.kl, "that is the divergence of q from the prior; the gap is one from the posterior"),
    Mistake(lambda own: own.gap - own.kl, "the ELBO has two terms: is the divergence from the prior taken off?"),
    Mistake(lambda own: own.gap - 2 * own.kl, "the sign of the divergence from the prior in the ELBO"),
    Mistake(lambda own: -own.gap, "the sign: is the ELBO above log p(x) or below it?"),
    Mistake(lambda own: own.log_px - own.gap, "that is the ELBO itself"),
    Mistake(
        lambda own: own.log_px - own.at_the_mean + own.kl,
        "the reconstruction is a mean over q; that is its value at q's mean",
    ),
    Mistake(lambda own: own.gap / own.spacing**2, "the sum for the gap: for which area does a point stand?"),
    Mistake(
        lambda own: own.mean(own.log_q, own.log_q - own.log_posterior - own.log_px),
        "the posterior is normalised by p(x): is that in it?",
    ),
    Mistake(
        lambda own: own.mean(own.log_q_by_variance, own.log_q_by_variance - own.log_posterior),
        "the encoder gives log σ²: what is σ?",
    ),
]
NATS = 1.5e-3  # a thousandth, and what float32 needs
UNLIKELY = 60  # pixels


def _small_vae(random: np.random.Generator) -> tuple[VAE, Tensor]:
    """A model with random weights whose posteriors are smooth and not normal, and an image that it has drawn."""
    torch.manual_seed(int(random.integers(2**31)))
    model = VAE(2, hidden=16).double().requires_grad_(False)
    layers = {"decoder.0": (1.7, 0.9), "decoder.2": (0.14, 1.7), "mean_head": (0.2, 0.9), "log_var_head": (0.2, 0.3)}
    for name, (weight, bias) in layers.items():  # uniform, so that no weight is large and all is smooth for sure
        torch.nn.init.uniform_(model.get_parameter(f"{name}.weight"), -weight, weight)
        torch.nn.init.uniform_(model.get_parameter(f"{name}.bias"), -bias, bias)
    model.log_var_head.bias.sub_(1.2)  # σ around ½
    x = model.decode(torch.randn(1, 2).double()).sigmoid().bernoulli()[0]
    # pixels that no code makes likely take p(x|z) below what float64 holds, and leave the posterior as it is
    model.get_parameter("decoder.2.weight")[:UNLIKELY].zero_()
    model.get_parameter("decoder.2.bias")[:UNLIKELY].fill_(-10.0)
    x[:UNLIKELY] = 1.0
    return model, x


def _log_px_given(model: VAE, x: Tensor, z: Tensor) -> Tensor:
    """log p(x|z), (N,), some points at a time."""
    logits = (model.decode(own) for own in z.split(4096))
    return torch.cat([own @ x - F.softplus(own).sum(1) for own in logits])


def _log_normal(z: Tensor, mean: Tensor | float, deviation: Tensor | float) -> Tensor:
    return torch.distributions.Normal(mean, deviation).log_prob(z).sum(1)


def _square(axis: Tensor) -> Tensor:
    return torch.cartesian_prod(axis, axis)


def _nodes(count: int, width: float) -> tuple[Tensor, Tensor]:
    """Gauss and Legendre's nodes on a square with sides of twice the width, and the areas that they stand for."""
    nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(count))
    return _square(width * nodes), _square(width * weights).prod(1)


def _by_nodes(model: VAE, x: Tensor) -> tuple[float, float]:
    """log p(x), and the ELBO as a mean over q, by nodes that no grid has."""
    z, areas = _nodes(100, 6)
    log_px = (_log_px_given(model, x, z) + _log_normal(z, 0.0, 1.0) + areas.log()).logsumexp(0).item()
    mean, log_var = model.encode(x[None])
    eps, areas = _nodes(50, 6)
    reconstruction = _log_px_given(model, x, mean + (log_var / 2).exp() * eps)
    shares = _log_normal(eps, 0.0, 1.0).exp() * areas
    return log_px, (shares @ reconstruction).item() - kl_standard_normal(mean, log_var).item()


def _sums(model: VAE, x: Tensor, right: tuple[float, float], spacing: float, extent: float) -> _Sums:
    z = _square(spacing * torch.arange(-round(extent / spacing), round(extent / spacing) + 1).double())
    mean, log_var = model.encode(x[None])
    log_q, by_variance = (_log_normal(z, mean, own.exp()) for own in (log_var / 2, log_var))
    kl = kl_standard_normal(mean, log_var).item()
    at_the_mean = _log_px_given(model, x, mean).item()
    densities = _log_px_given(model, x, z), _log_normal(z, 0.0, 1.0), log_q, by_variance
    return _Sums(spacing, *densities, *right, kl, at_the_mean)


def _on_grid(answer: Any, model: VAE, x: Tensor, case: dict[str, float]) -> tuple[Tensor, float]:
    """The answer's two numbers, and how far out it has asked the decoder."""
    reach, own = 0.0, copy.deepcopy(model)

    def watch(_: Any, inputs: Any) -> None:
        nonlocal reach
        reach = max(reach, inputs[0].abs().max().item())

    own.decoder.register_forward_pre_hook(watch)
    given = call(answer, {"model": own, "x": x, **case}, stated(case))
    try:
        return numbers(given, (2,), f"{stated(case)}: "), reach
    except Wrong as wrong:
        underflow = "the exponential of a number below −745 is 0: how are such numbers added (1.4a)?"
        raise Wrong(f"{wrong}\n{underflow}" if "finite" in str(wrong) else str(wrong)) from wrong


@exercise(NOTEBOOK, "1.6", seconds=15)
def posterior_on_grid(answer: Any) -> str:
    """(model, x (784,), spacing, extent) -> log p(x) and the gap KL(q(z|x) ‖ p(z|x)), in nats, by sums on a grid.

    model: a VAE with two latents and random weights. Compared with other quadratures, to a thousandth of a nat.
    """
    random = rng()
    for grids in (((0.15, 6.0), (0.12, 5.4)), ((0.16, 6.4),)):
        model, x = _small_vae(random)
        log_px, elbo = _by_nodes(model, x)
        cases = [dict(zip(("spacing", "extent"), own, strict=True)) for own in grids]
        given, reach = zip(*(_on_grid(answer, model, x, own) for own in cases), strict=True)
        right = torch.tensor([log_px, log_px - elbo], dtype=torch.float64)
        off = [at for at, own in enumerate(given) if (own - right).abs().max() > NATS]
        if not off:
            continue
        which = 0 if any((own - right)[0].abs() > NATS for own in given) else 1
        at = next(at for at in off if (given[at] - right)[which].abs() > NATS)
        what = f"your {('log p(x)', 'gap')[which]} is {given[at][which]:.3f} nats, and should be {right[which]:.3f}."
        own_sums = [_sums(model, x, (log_px, log_px - elbo), **own) for own in cases]
        known = [
            own.idea
            for own in (GRID_MISTAKES, GAP_MISTAKES)[which]
            if all(abs(own.gives(s) - g[which]) <= NATS * 2 for s, g in zip(own_sums, given, strict=True))
        ]
        torch.manual_seed(1)
        np.random.seed(1)
        again = _on_grid(answer, model, x, cases[at])[0]
        if (again - given[at]).abs().max() > NATS / 10:
            known = ["another call gives another number: draws are noisy, and a sum over the grid is not"]
        elif reach[at] < 0.9 * cases[at]["extent"]:
            known = [f"your grid ends at {reach[at]:.3g}: is all of the posterior on it?"]
        raise Wrong(f"{stated(cases[at])}: {what}\n{(known or [''])[0]}".strip())
    return "two small models with random weights, grids of different spacing and extent, by other quadratures"


# ---------------------------------------------------------------- 1.8


WEIGHT = 5e-3  # what is 0, and the share by which w may be off: an optimiser in float32 knows it no better


def _best_weight(variance: float) -> float:
    """By maximising the bound in w, v and log σ² at once."""

    def loss(at: Tensor) -> Tensor:
        w, v, log_var = at
        error = variance * (1 - 2 * w * v) ** 2 + 2 * w**2 * log_var.exp()
        return error / 2 + variance * v**2 + log_var.exp() - log_var

    return _or_zero(minimiser(loss, (1.0, 0.3, 0.0))[0].abs().item())


def _or_zero(w: float) -> float:
    return w if abs(w) > WEIGHT else 0.0


def _cut(square: Callable[[float], float]) -> Callable[[float], float]:
    return lambda variance: math.sqrt(max(square(variance), 0.0))


def _by_marginals(variance: float) -> float:
    """Of the bound of a q with the variances of the posterior's components."""

    def loss(at: Tensor) -> Tensor:
        square = at[0] ** 2
        # of each component the variance over the best one, 1/(1 + w²)
        ratio = (1 + square) ** 2 / (1 + 2 * square)
        return variance / (2 * (1 + 2 * square)) + (1 + square).log() + ratio - 1 - ratio.log()

    return _or_zero(minimiser(loss, (1.0,))[0].abs().item())


WEIGHT_MISTAKES = [
    Mistake(
        _cut(lambda v: (v - 1) / 2),
        "that is the optimum of the likelihood, where the run starts: what does the gap do as w falls?",
    ),
    Mistake(_cut(lambda v: v - 1), "that is where the fourth run ends, with its other weight at 0"),
    Mistake(lambda v: 0.0, "a code that says nothing: does it never pay?"),
    Mistake(lambda v: _best_weight(v) ** 2, "that is w², and w is asked for"),
    Mistake(lambda v: -_best_weight(v), "that has the same bound, but w is to be at least 0"),
    Mistake(lambda v: _best_weight(v**2), "V is the mean square already"),
    Mistake(lambda v: _best_weight(math.sqrt(v)), "V is the mean square, and no deviation"),
    Mistake(_by_marginals, "q's best variances are not those of the posterior's components: 1.8 says what they are"),
    Mistake(lambda v: 2 * _best_weight(v), "that is the sum of both weights"),
]
TOO_SMALL = "below some V no weight is worth its price: what is the slope of the bound in w² at 0?"


@exercise(NOTEBOOK, "1.8")
def optimal_weight(answer: Any) -> str:
    """(variance) -> the w >= 0 at the optimum of the bound, for x = w z₁ + w z₂ + noise and a q of two components.

    variance: the mean of x² over the data. Compared with a numerical maximisation in all of w, v and σ.
    """
    random = rng()
    cases = [{"variance": own} for own in (2.0, 0.5, *random.uniform(1.1, 20, 12), *random.uniform(0.05, 0.9, 6))]
    given = []
    for own in cases:
        try:
            value = numbers(call(answer, own), where=f"{stated(own)}: ")
        except Wrong as wrong:
            raise Wrong(f"{wrong}\n{TOO_SMALL}" if own["variance"] < 1 else str(wrong)) from wrong
        given.append(torch.zeros_like(value) if near(value, torch.zeros_like(value), WEIGHT) else value)
    settle(given, cases, _best_weight, WEIGHT_MISTAKES, relative=WEIGHT)
    return "20 values of V on both sides of 1, by a numerical maximisation of the bound"
