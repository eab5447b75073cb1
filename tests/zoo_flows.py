"""The zoo of notebook 3's exercises on flows: right answers written in other ways, and wrong ones with their words.

test_exercises.py runs all of them, with those of the other notebooks.
"""

import bisect
import math
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import scipy
import sympy
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import (
    Categorical,
    ExpTransform,
    LogNormal,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    StudentT,
    TransformedDistribution,
)
from torch.distributions.transforms import AffineTransform

from gm_helpers import bijections, flows
from gm_helpers.exercises import flow_density, flow_time

HALF_LOG_2PI = math.log(2 * math.pi) / 2

# ---------------------------------------------------------------- 3.1


def by_transforms(x):
    return TransformedDistribution(Normal(0.0, 1.0), [AffineTransform(0, -1), ExpTransform()]).log_prob(x)


def by_autograd(x):
    x.requires_grad_()
    z = -x.log()
    (slope,) = torch.autograd.grad(z.sum(), x)
    return Normal(0.0, 1.0).log_prob(z) + slope.abs().log()


def by_sympy(x):
    t = sympy.Symbol("t", positive=True)
    log_p = sympy.log(sympy.exp(-(sympy.log(t) ** 2) / 2) / sympy.sqrt(2 * sympy.pi) / t)
    return sympy.lambdify(t, log_p, "numpy")(x.numpy())


def by_two_terms(x, at=lambda x: -np.log(x), slope=lambda x: np.log(1 / x)):
    return scipy.stats.norm.logpdf(at(x.numpy())) + slope(x.numpy())


def by_signed_slope(x):
    return [-(math.log(own) ** 2) / 2 - HALF_LOG_2PI + math.log(-1 / own) for own in x.tolist()]


# ---------------------------------------------------------------- 3.4


def bits_by_numpy(log_prob, logits, levels, margin):
    a = logits.numpy()
    w = 1 / (1 + np.exp(-a))
    log_det = sum(-np.log(levels) + np.log1p(-2 * margin) - np.log(own) - np.log1p(-own) for own in w)
    return np.array([-(log_prob + log_det) / len(a) / np.log(2)])


def bits_in_float32(log_prob, logits, levels, margin):
    a = logits.float()
    log_det = math.log((1 - 2 * margin) / levels) - F.logsigmoid(a) - F.logsigmoid(-a)
    return flows.bits_per_dim(log_prob + log_det.sum(), len(a))


def bits_by_layers(log_prob, logits, levels, margin):
    h, total = logits[None], 0.0
    layers = bijections.Affine(1 / levels), bijections.Affine(1 - 2 * margin, margin), bijections.Logit()
    for layer in reversed(layers):
        h, log_det = layer.inverse(h)
        total = total + log_det
    return (total - log_prob) / (len(logits) * math.log(2))


def bits_by_jacobian(log_prob, logits, levels, margin):
    y = levels * (logits.sigmoid() - margin) / (1 - 2 * margin)
    jacobian = torch.autograd.functional.jacobian(lambda own: torch.logit(margin + (1 - 2 * margin) * own / levels), y)
    return -(log_prob + jacobian.slogdet()[1]).item() / len(y) / math.log(2)


def bits(scale=lambda d, levels: -d * math.log(levels), inside=lambda d, margin: d * math.log(1 - 2 * margin), **rest):
    """Right but for what is given in place of a term, or of what is done with their sum."""
    logit = rest.get("logit", lambda w, margin: -(w.log() + (1 - w).log()).sum())
    last = rest.get("last", lambda total, d: -total / d / math.log(2))

    def answer(log_prob, logits, levels, margin):
        d = len(logits)
        total = log_prob + scale(d, levels) + inside(d, margin) + logit(logits.sigmoid(), margin)
        return last(total, d)

    return answer


def bits_without_sigmoid(log_prob, logits, levels, margin):
    return -(log_prob - (logits.log() + (1 - logits).log()).sum()) / len(logits)


# ---------------------------------------------------------------- 3.4, noise

ALPHA = 1e-5
SCALE = (1 - 2 * ALPHA) / 256


def logit_of(u):
    return torch.logit(ALPHA + SCALE * u)


def log_slope(u):
    w = ALPHA + SCALE * u
    return math.log(SCALE) - w.log() - (1 - w).log()


def noise_by_inverse(n, generator, mean=-6.525, deviation=0.954, dtype=torch.float64):
    """u and log q, of a normal of the logits, cut off to the cell."""
    normal = Normal(torch.tensor(mean, dtype=dtype), torch.tensor(deviation, dtype=dtype))
    low, high = normal.cdf(logit_of(torch.tensor([0, 1], dtype=dtype)))
    a = normal.icdf(low + (high - low) * torch.rand(n, generator=generator, dtype=dtype))
    u = ((a.sigmoid() - ALPHA) / SCALE).clamp(0, 1 - 1e-7)
    return u, normal.log_prob(a) + log_slope(u) - (high - low).log()


def noise_by_rejection(n, generator, constant=0.235493, slope=log_slope, keep=lambda u: (u >= 0) & (u < 1)):
    """Draws of the normal, those outside drawn anew; constant: what is left of the normal, in bits."""
    found = torch.empty(0, dtype=torch.float64)
    while len(found) < n:
        a = -6.525 + 0.954 * torch.randn(2 * n, generator=generator, dtype=torch.float64)
        u = (a.sigmoid() - ALPHA) / SCALE
        found = torch.cat([found, u[keep(u)]])
    u = found[:n]
    return u, Normal(-6.525, 0.954).log_prob(logit_of(u)) + slope(u) + constant * math.log(2)


def noise_by_scipy(n, generator):
    low, high = ((logit_of(torch.tensor(own).double()).item() + 6.525) / 0.954 for own in (0.0, 1.0))
    normal = scipy.stats.truncnorm(low, high, -6.525, 0.954)
    seed = torch.randint(2**31, (1,), generator=generator).item()
    a = normal.rvs(n, random_state=seed)
    u = (scipy.special.expit(a) - ALPHA) / SCALE
    return np.clip(u, 0, 1 - 1e-12), normal.logpdf(a) + log_slope(torch.from_numpy(u)).numpy()


def noise_by_steps(n, generator, steps=60):
    """Constant on equal parts of the cell, with the masses that the normal gives them."""
    ends = Normal(-6.525, 0.954).cdf(logit_of(torch.linspace(0, 1, steps + 1, dtype=torch.float64)))
    masses = ends.diff() / (ends[-1] - ends[0])
    part = torch.multinomial(masses, n, replacement=True, generator=generator)
    return (part + torch.rand(n, generator=generator)) / steps, (masses[part] * steps).log()


def noise_log_normal(n, generator):
    """As flows that squash do it: a log-normal one, cut off at 1, from what is drawn for the logarithm of u."""
    mean, deviation = -6.525 + math.log(256), 0.954
    top = Normal(0.0, 1.0).cdf(torch.tensor(-mean / deviation).double())
    t = Normal(0.0, 1.0).icdf(top * torch.rand(n, generator=generator, dtype=torch.float64))
    u = (mean + deviation * t).exp()
    return [u, -(t**2) / 2 - HALF_LOG_2PI - math.log(deviation) - u.log() - top.log()]


def noise(change=lambda u, log_q: (u, log_q)):
    return lambda n, generator: change(*noise_by_inverse(n, generator))


def uniform_noise(n, generator):
    return torch.rand(n, generator=generator), torch.zeros(n)


def noise_at_the_edge(n, generator):
    """Draws outside are moved to the edge."""
    u, log_q = noise_by_rejection(n, generator, keep=lambda u: u == u)
    return u.clamp(0, 1), log_q


def noise_elsewhere(n, generator, mean):
    """Draws of another normal, with the log-density of the best one: a density, but not theirs."""
    u, _ = noise_by_inverse(n, generator, mean=mean)
    return u, Normal(-6.525, 0.954).log_prob(logit_of(u)) + log_slope(u) + 0.235493 * math.log(2)


def noise_on_a_grid(n, generator):
    low, high = Normal(-6.525, 0.954).cdf(logit_of(torch.tensor([0, 1]).double()))
    a = Normal(-6.525, 0.954).icdf(low + (high - low) * (torch.arange(n).double() + 0.5) / n)
    u = (a.sigmoid() - ALPHA) / SCALE
    return u, Normal(-6.525, 0.954).log_prob(a) + log_slope(u) - (high - low).log()


# ---------------------------------------------------------------- 3.7, a 1×1 convolution


class ByConvolution(nn.Module):
    """With learned weights, and gradients on."""

    def __init__(self, matrix):
        super().__init__()
        self.weight = nn.Parameter(matrix)

    def log_det(self, x):
        return torch.linalg.slogdet(self.weight)[1] * x.shape[2] * x.shape[3] * torch.ones(len(x))

    def forward(self, x):
        return F.conv2d(x, self.weight[:, :, None, None]), self.log_det(x)

    def inverse(self, z):
        return F.conv2d(z, torch.inverse(self.weight)[:, :, None, None]), -self.log_det(z)


class InNumPy:
    """Pixel by pixel."""

    def __init__(self, matrix):
        self.matrix = matrix.numpy()

    def move(self, matrix, x):
        z, x = np.empty(x.shape), x.numpy()
        for b, h, w in np.ndindex(x.shape[0], *x.shape[2:]):
            z[b, :, h, w] = matrix @ x[b, :, h, w]
        pixels = x.shape[2] * x.shape[3]
        return [z, np.full(len(x), pixels * math.log(abs(np.linalg.det(matrix))))]

    def forward(self, x):
        return self.move(self.matrix, x)

    def inverse(self, z):
        return self.move(np.linalg.inv(self.matrix), z)


class InFloat32:
    """By a decomposition, as Kingma and Dhariwal have it."""

    def __init__(self, matrix):
        self.p, self.low, self.up = torch.linalg.lu(matrix.float())

    def forward(self, x):
        z = torch.tensordot(self.p @ self.low @ self.up, x.float(), dims=([1], [1])).transpose(0, 1)
        return z, self.up.diagonal().abs().log().sum().repeat(len(x)) * x[0, 0].numel()

    def inverse(self, z):
        flat = z.float().movedim(1, 0).flatten(1)
        half = torch.linalg.solve_triangular(self.low, self.p.T @ flat, upper=False, unitriangular=True)
        x = torch.linalg.solve_triangular(self.up, half, upper=True).unflatten(1, (len(z), *z.shape[2:]))
        return x.movedim(0, 1), -self.forward(z)[1]


def convolution(**changes):
    """A class like the first but for the methods that are given."""
    return type("Convolution", (ByConvolution,), changes)


def to_and_fro(forward, inverse=lambda w: w.inverse()):
    def move(matrix):
        return lambda self, x: (torch.einsum("ij,bjhw->bihw", matrix(self.weight), x), self.log_det(x))

    return convolution(forward=move(forward), inverse=move(inverse))


def with_log_det(log_det):
    return convolution(log_det=lambda self, x: log_det(self.weight, x))


def slogdet(w):
    return torch.linalg.slogdet(w)[1]


class Remembers(ByConvolution):
    """Its inverse needs what the last forward has left."""

    def forward(self, x):
        self.last = self.log_det(x)
        return super().forward(x)[0], self.last

    def inverse(self, z):
        return super().inverse(z)[0], -self.last


class Caches(ByConvolution):
    """Its log-determinant is that of the first batch for good."""

    def log_det(self, x):
        if not hasattr(self, "own"):
            self.own = super().log_det(x)
        return self.own


# ---------------------------------------------------------------- 3.7, straight pieces


def pieces_by_loops(x, widths, heights):
    z, log_det = [], []
    for row in x.tolist():
        own, total = [], 0.0
        for value, w, h in zip(row, widths.tolist(), heights.tolist(), strict=True):
            edges = [sum(w[:k]) for k in range(len(w))]
            k = bisect.bisect_right(edges, value) - 1
            own.append(sum(h[:k]) + h[k] / w[k] * (value - edges[k]))
            total += math.log(h[k] / w[k])
        z.append(own)
        log_det.append(total)
    return z, log_det


def pieces_by_clamping(x, widths, heights):
    """Each bin adds the share of its height that x has passed."""
    x = x.requires_grad_()
    left = widths.cumsum(1) - widths
    z = (heights * ((x[:, :, None] - left) / widths).clamp(0, 1)).sum(2)
    (slope,) = torch.autograd.grad(z.sum(), x, create_graph=True)
    return z, slope.log().sum(1)


def pieces_by_searchsorted(x, widths, heights):
    x, w, h = x.float().T.contiguous(), widths.float(), heights.float()
    k = torch.searchsorted(w.cumsum(1), x).clamp(max=w.shape[1] - 1)
    w_k, h_k = w.gather(1, k), h.gather(1, k)
    z = (h.cumsum(1).gather(1, k) - h_k) + (x - (w.cumsum(1).gather(1, k) - w_k)) * h_k / w_k
    return z.T, (h_k.log() - w_k.log()).sum(0)


def pieces_by_numpy(x, widths, heights):
    x, w, h = (own.numpy() for own in (x, widths, heights))
    z, slopes = np.empty(x.shape), np.empty(x.shape)
    for d in range(x.shape[1]):
        a, b = np.append(0, np.cumsum(w[d])), np.append(0, np.cumsum(h[d]))
        z[:, d] = np.interp(x[:, d], a, b)
        slopes[:, d] = (h[d] / w[d])[np.clip(np.digitize(x[:, d], a) - 1, 0, len(w[d]) - 1)]
    return z, np.log(slopes).sum(1)


def pieces(z=None, log_det=None, bins=0, left=0, below=0, steep=0, start=1, end=1):
    """Right but for a part that is another, from the bin's w and h, and for what is off by so many bins.

    steep: as bins, but of log_det alone. start, end: what the heights below and the bin's left end are multiplied by.
    """

    def answer(x, widths, heights):
        a, b = (F.pad(own.cumsum(1), (1, 0)) for own in (widths, heights))
        k = (x[:, :, None] >= a[:, 1:-1]).sum(2)
        d = torch.arange(x.shape[1])
        own, other = ((k + off).clamp(0, widths.shape[1] - 1) for off in (bins, bins + steep))
        low, begin = (table[d, (k + off).clamp(min=0)] for table, off in ((b, below), (a, left)))
        value = start * low + (z or (lambda w, h, t: h / w * t))(widths[d, own], heights[d, own], x - end * begin)
        return value, (log_det or (lambda w, h: (h / w).log().sum(1)))(widths[d, other], heights[d, other])

    return answer


def even_pieces(x, widths, heights):
    return pieces_by_numpy(x, torch.full_like(widths, 1 / widths.shape[1]), heights)


def pieces_that_end_before_1(x, widths, heights):
    if (x == 1).any():
        raise IndexError("index 2 is out of bounds")
    return pieces()(x, widths, heights)


# ---------------------------------------------------------------- Beyond (a)


class Humps:
    """Normals of one width. together: what is made of their log-densities (B, K) and of the weights."""

    def __init__(self, means=((-3, 0), (3, 0)), deviation=1.0, weights=(0.5, 0.5), together=None):
        self.means, self.weights = torch.tensor(means).double(), torch.tensor(weights).double()
        self.deviation, self.together = deviation, together

    def log_prob(self, z):
        each = Normal(self.means, self.deviation).log_prob(z[:, None]).sum(2)
        if self.together:
            return self.together(each, self.weights)
        return (each + self.weights.log()).logsumexp(1)

    def sample(self, n, generator):
        hump = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        eps = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        return self.means[hump] + self.deviation * eps


class Module(nn.Module):
    """In float32, with correlated humps, by torch.distributions: it takes no float64."""

    def __init__(self):
        super().__init__()
        self.means = nn.Parameter(torch.tensor([[-2.0, 2.0], [2.0, -2.0]]))
        self.register_buffer("root", torch.linalg.cholesky(torch.tensor([[1.0, 0.9], [0.9, 1.0]])))

    def log_prob(self, z):
        humps = MultivariateNormal(self.means, scale_tril=self.root)
        return MixtureSameFamily(Categorical(torch.tensor([0.3, 0.7])), humps).log_prob(z)

    def sample(self, n, generator=None):
        side = (torch.rand(n, generator=generator) > 0.3).long()
        return self.means[side] + torch.randn(n, 2, generator=generator) @ self.root.T


class Narrow(Humps):
    """In NumPy, and far apart."""

    def __init__(self):
        super().__init__(((-9, 1), (7, 2)), 0.02, (0.8, 0.2))

    def log_prob(self, z):
        z = z.numpy()
        each = [scipy.stats.multivariate_normal(own, 0.02**2).pdf(z) for own in self.means.numpy()]
        with np.errstate(divide="ignore"):
            return np.log(np.array(self.weights) @ each)

    def sample(self, n, generator):
        seed = torch.randint(2**31, (1,), generator=generator).item()
        chance = np.random.default_rng(seed)
        return self.means.numpy()[chance.choice(2, n, p=[0.8, 0.2])] + 0.02 * chance.normal(size=(n, 2))


class Strip:
    """A standard normal without its middle; left: what the density is divided by, the share that is left."""

    def __init__(self, left=2 * scipy.stats.norm.cdf(-0.7)):  # noqa: B008
        self.left = left

    def log_prob(self, z):
        inside = z[:, 0].abs() < 0.7
        return torch.where(inside, -math.inf, Normal(0.0, 1.0).log_prob(z).sum(1) - math.log(self.left))

    def sample(self, n, generator):
        drawn = torch.randn(100 + 3 * n, 2, generator=generator, dtype=torch.float64)
        return drawn[drawn[:, 0].abs() > 0.7][:n]


class Heavy(Humps):
    """Student's t in each coordinate."""

    def log_prob(self, z):
        each = StudentT(4.0, self.means, 0.6).log_prob(z[:, None]).sum(2)
        return (each + self.weights.log()).logsumexp(1)

    def sample(self, n, generator):
        hump = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        eps = torch.randn(n, 2, 5, generator=generator, dtype=torch.float64)
        return self.means[hump] + 0.6 * eps[..., 0] / (eps[..., 1:] ** 2).mean(2).sqrt()


class Ring:
    """One hump that is bent: no valley parts it."""

    def log_prob(self, z):
        radius = z.norm(dim=1)
        return Normal(3.0, 0.3).log_prob(radius) - (2 * math.pi * radius).log()

    def sample(self, n, generator):
        radius = 3 + 0.3 * torch.randn(n, generator=generator, dtype=torch.float64)
        angle = 2 * math.pi * torch.rand(n, generator=generator, dtype=torch.float64)
        return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)


class Halfway(Humps):
    """A sample is the mean of one of each hump."""

    def sample(self, n, generator):
        return torch.randn(n, 2, generator=generator, dtype=torch.float64) / math.sqrt(2)


class OwnCoin(Humps):
    """The hump is chosen by a source of chance that is not the generator."""

    def sample(self, n, generator):
        side = torch.randint(0, 2, (n,))
        return self.means[side] + torch.randn(n, 2, generator=generator, dtype=torch.float64)


class Unseeded(Humps):
    def sample(self, n, generator):
        return super().sample(n, torch.Generator().manual_seed(np.random.default_rng().integers(2**31).item()))


class Deaf(Humps):
    def sample(self, n, generator):
        return super().sample(n, None)


def humps(**parts):
    own = Humps()
    return SimpleNamespace(**{"log_prob": own.log_prob, "sample": own.sample} | parts)


class NeedsMeans(Humps):
    def __init__(self, means):
        super().__init__(means)


# ---------------------------------------------------------------- Beyond (h)


def velocity_by_regression(y, tau, m, s):
    variance = (1 - tau) ** 2 + tau**2 * s**2
    return m + (tau * s**2 - (1 - tau)) / variance * (y - tau * m)


def velocity_by_two_means(y, tau, m, s):
    """E[x | y] − E[ε | y], each by the formula for two normals."""
    away = (np.asarray(y) - tau * m) / ((1 - tau) ** 2 + (tau * s) ** 2)
    return (m + tau * s**2 * away) - (1 - tau) * away


def velocity_by_deviation(y, tau, m, s):
    """From x_τ = τm + d·z with the deviation d: m + d′·z."""
    d = math.hypot(1 - tau, tau * s)
    return [m + (tau * s**2 - (1 - tau)) / d * (own - tau * m) / d for own in y.tolist()]


def velocity_by_sums(y, tau, m, s):
    """The conditional mean by weights on a grid of normal pairs, at inner times."""
    if tau in (0, 1):
        return m - y if tau == 0 else y
    x = m + s * torch.linspace(-9, 9, 20_001).double()
    eps = (y[:, None] - tau * x) / (1 - tau)
    weights = (Normal(m, s).log_prob(x) + Normal(0.0, 1.0).log_prob(eps)).softmax(1)
    return (weights * (x - eps)).sum(1)


def by_trace(velocity, x, log_p, delta):
    jacobian = torch.func.vmap(torch.func.jacrev(velocity))(x)
    return x + delta * velocity(x), log_p - delta * jacobian.diagonal(dim1=1, dim2=2).sum(1)


def by_gradients(velocity, x, log_p, delta):
    x = x.clone().requires_grad_()
    v = velocity(x)
    parts = [torch.autograd.grad(v[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(x.shape[1])]
    return (x + delta * v).detach(), log_p - delta * sum(parts)


def by_determinant(velocity, x, log_p, delta):
    jacobian = torch.stack([torch.func.jacrev(lambda own: own + delta * velocity(own))(row) for row in x])
    return x + delta * velocity(x), log_p - jacobian.slogdet()[1]


def by_central_differences(velocity, x, log_p, delta):
    total, shifts = 0, 1e-5 * torch.eye(x.shape[1]).double()
    for i, shift in enumerate(shifts):
        total = total + (velocity(x + shift) - velocity(x - shift))[:, i] / 2e-5
    return (x + delta * velocity(x)).numpy(), (log_p - delta * total).numpy()


def at_the_moved_point(velocity, x, log_p, delta):
    moved, _ = by_trace(velocity, x, log_p, delta)
    return moved, by_trace(velocity, moved, log_p, delta)[1]


def step(of):
    """A right step but for log p′, which is of(log_p, jacobians, delta)."""

    def answer(velocity, x, log_p, delta):
        return x + delta * velocity(x), of(log_p, torch.stack([torch.func.jacrev(velocity)(row) for row in x]), delta)

    return answer


def moved(to):
    """A right log p′, and x′ = to(velocity, x, delta)."""
    return lambda velocity, x, log_p, delta: (to(velocity, x, delta), by_trace(velocity, x, log_p, delta)[1])


def trace(jacobians):
    return jacobians.diagonal(dim1=1, dim2=2).sum(1)


# ---------------------------------------------------------------- the zoo

RIGHT = {
    "log_density": [
        by_transforms,
        by_autograd,
        by_sympy,
        by_two_terms,
        lambda x: LogNormal(0.0, 1.0).log_prob(x.float()),
        lambda x: [-((math.log(own) + 1) ** 2) / 2 + 0.5 - HALF_LOG_2PI for own in x.tolist()],
        lambda x: scipy.stats.lognorm.logpdf(x, 1),
    ],
    "preimages": [
        [1, np.False_, 1.68, np.False_],
        (torch.tensor(1.0), torch.tensor(False), 2 * scipy.stats.norm.cdf(1), np.array(False)),
        np.array([1.0, False, 1.683, False], dtype=object),
        (Fraction(1), False, 1 + sympy.erf(1 / sympy.sqrt(2)), False),
        (0.999, False, np.float32(1.6827), False),
    ],
    "bits_of": [bits_by_numpy, bits_in_float32, bits_by_layers, bits_by_jacobian, bits()],
    "black_noise": [
        noise_by_inverse,
        noise_by_rejection,
        noise_by_scipy,
        noise_by_steps,
        noise_log_normal,
        lambda n, generator: noise_by_inverse(n, generator, dtype=torch.float32),
        lambda n, generator: torch.stack(noise_by_inverse(n, generator)),
        lambda n, generator: noise_by_inverse(n, generator, mean=-6.5, deviation=0.9),
    ],
    "invertible_1x1": [ByConvolution, InNumPy, InFloat32, lambda matrix: InNumPy(matrix)],
    "piecewise_linear": [
        pieces_by_loops,
        pieces_by_clamping,
        pieces_by_searchsorted,
        pieces_by_numpy,
        pieces(),
    ],
    "two_humped_base": [
        Humps(),
        Humps,
        Humps(((0, -2), (1, 2)), 0.5, (0.8, 0.2)),
        Module(),
        Narrow(),
        Strip(),
        Heavy(),
        Humps(weights=(0.97, 0.03)),
        humps(),
        humps(log_prob=lambda z: Humps().log_prob(z).tolist()),
        flows.TwoNormals(2),
    ],
    "gaussian_velocity": [
        velocity_by_two_means,
        velocity_by_deviation,
        velocity_by_sums,
        lambda y, tau, m, s: velocity_by_regression(y.float(), tau, m, s),
    ],
    "euler_step": [
        by_gradients,
        by_determinant,
        by_central_differences,
        at_the_moved_point,
        lambda velocity, x, log_p, h: [own.float() for own in by_trace(velocity, x, log_p, h)],
    ],
}
WRONG = {
    "log_density": [
        (lambda x: by_two_terms(x, slope=np.log), "upside down"),
        (lambda x: by_two_terms(x, slope=lambda x: np.log(-1 / x)), "a logarithm of a negative"),
        (by_signed_slope, "a logarithm of a negative"),
        (lambda x: torch.log(-1 / x), "is .nan.*\na logarithm of a negative"),
        (lambda x: by_two_terms(x, at=lambda x: x), "at the latent of x, and not at x.$"),
        (lambda x: by_two_terms(x, at=lambda x: x, slope=lambda x: 0 * x), "at x; and where is the determinant"),
        (lambda x: by_two_terms(x, at=lambda x: x, slope=np.log), "at x; and the determinant is upside down"),
        (lambda x: by_two_terms(x, slope=lambda x: 0 * x), "where is the determinant"),
        (lambda x: by_two_terms(x, slope=lambda x: -1 / x), "enters as a length"),
        (lambda x: by_two_terms(x, slope=lambda x: 1 / x), "by its logarithm"),
        (lambda x: by_two_terms(x, at=lambda x: np.exp(-x), slope=lambda x: -x), "f leads from x to z"),
        (lambda x: by_two_terms(x, at=lambda x: np.exp(-x)), "f leads from x to z"),
        (lambda x: by_two_terms(x, slope=lambda x: -x), "a function of, x or z"),
        (lambda x: by_two_terms(x, slope=lambda x: -2 * np.log(x)), "there twice"),
        (lambda x: -np.exp(by_two_terms(x)), "enters as a length"),
        (lambda x: np.exp(by_two_terms(x)), "that is the density"),
        (lambda x: by_two_terms(x) / np.log(2), "those are bits"),
        (lambda x: by_two_terms(x) / np.log(10), "the natural logarithm"),
        (lambda x: -by_two_terms(x), "the sign"),
        (lambda x: by_two_terms(x) + HALF_LOG_2PI, "has a constant"),
        (lambda x: by_two_terms(x) - HALF_LOG_2PI, "2π, or its root"),
        (lambda x: by_two_terms(x) - np.log(x.numpy()) ** 2 / 2, "where is its ½"),
        (lambda x: by_transforms(x).sum(), "of the shape .2,.$"),
        (lambda x: by_transforms(x)[:, None], "the shape"),
        (lambda x: 1.0005 * by_transforms(x), "should be"),
        (lambda x: by_transforms(x.clamp(min=0.01)), "should be"),
        (lambda x: by_transforms(x) + 5 * ((x > 60) & (x < 900)), "integrates to"),
    ],
    "preimages": [
        ((2, False, 1.683, False), "for x²: .*\nhow many x have the latent z"),
        ((0.5, False, 1.683, False), "by how many"),
        ((0, False, 1.683, False), "keeps its sign"),
        ((2.909, False, 1.683, False), "the example"),
        ((1.5, False, 1.683, False), "counts 0"),
        ((1, True, 1.683, False), "whether x² is a flow.*\n.*mean.* number of preimages"),
        ((1, False, 2, False), "no x at all"),
        ((1, False, 1, False), "another place"),
        ((1, False, 0.84, False), "by how many x is each"),
        ((1, False, 0.32, False), "the other side of the fold"),
        ((1, False, 0.16, False), "are .not. reached"),
        ((1, False, 0.68, False), "an end on the other side"),
        ((1, False, 1.37, False), "an end on the other side"),
        ((1, False, 0.5, False), "the least z"),
        ((1, False, 1.84, False), "counts 0"),
        ((1, False, 0, False), "keeps its sign"),
        ((1, False, 2.91, False), "the example"),
        ((1, False, 1.683, True), "the latent −2"),
        ((1, False, 1.7, False), "^For .x. − 1: your integral is 1.7.$"),
        ((1, False, 1.65, False), "your integral"),
        ((1, 0, 1.683, 0), "should be True or False"),
        ((1, torch.tensor([False, False]), 1.683, False), "should be True or False"),
        ((True, False, 1.683, False), "^For x²: .*real numbers"),
        ((1, False, 1.683), "should be four things"),
        ("1 no 1.68 no", "should be four things"),
        (dict.fromkeys("abcd", 1), "should be four things"),
    ],
    "bits_of": [
        (lambda log_prob, logits, levels, margin: bits()(log_prob, logits, 256, margin), "not 256"),
        (
            bits(scale=lambda d, levels: -math.log(levels), inside=lambda d, m: math.log(1 - 2 * m)),
            "constants are there",
        ),
        (bits(scale=lambda d, levels: -math.log(levels)), "scaling's constant"),
        (bits(inside=lambda d, margin: math.log(1 - 2 * margin)), "margin's constant"),
        (bits(inside=lambda d, margin: -d * math.log(1 - 2 * margin)), "the sign of the margin's"),
        (bits(inside=lambda d, margin: 0), "the margin's own slope"),
        (bits(inside=lambda d, margin: d * math.log(1 - margin)), "on both sides"),
        (lambda log_prob, logits, levels, margin: bits()(log_prob, logits, levels, 0.05), "should be"),
        (bits(scale=lambda d, levels: 0), "an interval of which length"),
        (bits(scale=lambda d, levels: d * math.log(levels)), "an interval of which length"),
        (bits(logit=lambda w, margin: 0), "has no term"),
        (bits(logit=lambda w, margin: (w * (1 - w)).log().sum()), "the sign of the logit's"),
        (bits(logit=lambda w, margin: -w.log().sum()), "two factors"),
        (bits(logit=lambda w, margin: -(1 - w).log().sum()), "two factors"),
        (bits(logit=lambda w, m: -((w - m) / (1 - 2 * m) * (1 - (w - m) / (1 - 2 * m))).log().sum()), "v or w"),
        (bits(logit=lambda w, margin: -(w * (1 - w)).log().mean()), "and should be"),
        (bits(last=lambda total, d: -total / d), "those are nats.$"),
        (bits(last=lambda total, d: -total), "of the whole image"),
        (bits(last=lambda total, d: -total / math.log(2)), "of how many"),
        (bits(last=lambda total, d: total / d / math.log(2)), "fewer bits"),
        (lambda log_prob, logits, *rest: bits()(log_prob * len(logits), logits, *rest), "of the whole vector already"),
        (lambda log_prob, logits, *rest: bits()(log_prob / len(logits), logits, *rest), "divided by D twice"),
        (
            bits(
                scale=lambda d, levels: d * math.log(levels),
                inside=lambda d, margin: -d * math.log(1 - 2 * margin),
                logit=lambda w, margin: (w * (1 - w)).log().sum(),
            ),
            "the signs",
        ),
        (
            bits(
                scale=lambda d, levels: -math.log(levels),
                inside=lambda d, margin: math.log(1 - 2 * margin),
                logit=lambda w, margin: -(w * (1 - w)).log().mean(),
            ),
            "averaged, and then",
        ),
        (
            lambda log_prob, logits, *rest: logits * bits()(log_prob, logits, *rest),
            "^For log_prob.*should be one number",
        ),
        (bits_without_sigmoid, "lie on the whole line"),
        (lambda *own: -own[0] / len(own[1]) / math.log(2), "where are the three maps"),
        (lambda *own: 1.0005 * bits()(*own), "should be"),
    ],
    "black_noise": [
        (uniform_noise, "cost is 0.5.*\nthat is uniform noise"),
        (noise(lambda u, log_q: (u, 0 * log_q)), "log q = 0 is that of uniform"),
        (lambda n, generator: noise_by_rejection(n, generator, constant=0), "cut off to the logits"),
        (lambda n, generator: noise_by_rejection(n, generator, slope=lambda u: 0), "one of u.$"),
        (lambda n, generator: noise_by_rejection(n, generator, 0, lambda u: 0), "different densities(.|\n)*cut off"),
        (lambda n, generator: noise_by_rejection(n, generator, slope=lambda u: -log_slope(u)), "the slope's sign"),
        (lambda n, generator: noise_by_rejection(n, generator, constant=-0.235493), "larger for it, or smaller"),
        (lambda n, generator: noise_by_rejection(n, generator, constant=8.235493), "the scaling is one"),
        (noise(lambda u, log_q: (u, -log_q)), "the sign"),
        (noise(lambda u, log_q: (u, log_q.exp())), "that is q"),
        (noise(lambda u, log_q: (u, log_q / math.log(2))), "in nats"),
        (noise(lambda u, log_q: (u, log_q - 0.02)), "q integrates to 0.98"),
        (noise(lambda u, log_q: (u, log_q - 0.008)), "less than is possible"),
        (noise(lambda u, log_q: (u, log_q - 0.003)), "less than is possible"),
        (noise(lambda u, log_q: (torch.rand_like(u), log_q)), "the generator"),
        (noise(lambda u, log_q: (u**2, log_q)), "of the mass of q|q integrates"),
        (lambda n, generator: noise_elsewhere(n, generator, mean=-6.47), "^[^.]*below u = .* of the mass of q"),
        (noise(lambda u, log_q: (256 * u, log_q)), "must not"),
        (lambda n, generator: noise_by_rejection(n, generator, keep=lambda u: u == u), "must not"),
        (noise_at_the_edge, "one and the same number"),
        (noise_on_a_grid, "are they draws"),
        (lambda n, generator: noise_on_a_grid(n, generator)[0][torch.randperm(n, generator=generator)], "a pair"),
        (lambda n, generator: noise_by_inverse(n, None), "come from the generator"),
        (lambda n, generator: noise_by_inverse(n, torch.Generator().manual_seed(0)), "come from the generator"),
        (noise(lambda u, log_q: (u, log_q.mean())), "^For n = 3, log_q: your answer has the shape"),
        (noise(lambda u, log_q: u), "a pair, u and log_q"),
        (noise(lambda u, log_q: (u, log_q, len(u))), "a pair, u and log_q"),
        (noise(lambda u, log_q: torch.stack([u, log_q], dim=1)), "a pair, u and log_q"),
        (noise(lambda u, log_q: None), "is a .return. missing"),
        (lambda n, generator: noise_by_inverse(n, generator, mean=-5.5), "an equality"),
    ],
    "invertible_1x1": [
        (with_log_det(lambda w, x: slogdet(w).expand(len(x))), "moves every pixel"),
        (with_log_det(lambda w, x: (slogdet(w) * x[:, 0].numel()).expand(len(x))), "^[^\n]*\n.log_det. .* others"),
        (with_log_det(lambda w, x: (slogdet(w) * len(x)).expand(len(x))), "every pixel.*\n.*how many others"),
        (with_log_det(lambda w, x: (-slogdet(w) * x[0, 0].numel()).expand(len(x))), "that of .forward., or of its"),
        (with_log_det(lambda w, x: (w.det().log() * x[0, 0].numel()).expand(len(x))), "the sign of a determinant"),
        (with_log_det(lambda w, x: math.log(w.det()) * x[0, 0].numel() * torch.ones(len(x))), "sign of a determinant"),
        (with_log_det(lambda w, x: (w.det().abs() * x[0, 0].numel()).expand(len(x))), "the logarithm"),
        (with_log_det(lambda w, x: (w.det() * x[0, 0].numel()).expand(len(x))), "the logarithm"),
        (with_log_det(lambda w, x: (slogdet(w) / math.log(2) * x[0, 0].numel()).expand(len(x))), "those are bits"),
        (with_log_det(lambda w, x: slogdet(w.diagonal().diag()).expand(len(x)) * x[0, 0].numel()), "triangular"),
        (with_log_det(lambda w, x: slogdet(w) * x[0, 0].numel()), "shape ..,(.|\n)*for each example"),
        (with_log_det(lambda w, x: (slogdet(w) * x[0, 0].numel())[None]), "shape .1,.(.|\n)*for each example"),
        (with_log_det(lambda w, x: slogdet(w).expand(len(x), 1)), "for each example"),
        (with_log_det(lambda w, x: (slogdet(w) * x[0].numel()).expand(len(x))), "all channels together"),
        (with_log_det(lambda w, x: (slogdet(w) * len(w)).expand(len(x))), "all channels together"),
        (with_log_det(lambda w, x: (slogdet(w) * x.shape[2]).expand(len(x))), "how many pixels"),
        (with_log_det(lambda w, x: (slogdet(w) * x.shape[3]).expand(len(x))), "how many pixels"),
        (with_log_det(lambda w, x: (slogdet(w) * x.shape[2] ** 2).expand(len(x))), "how many pixels"),
        (with_log_det(lambda w, x: (slogdet(w) * x.shape[3] ** 2).expand(len(x))), "how many pixels"),
        (with_log_det(lambda w, x: (slogdet(w) * (x.shape[2] + x.shape[3])).expand(len(x))), "how many pixels"),
        (with_log_det(lambda w, x: 0 * x.flatten(1).sum(1)), "keep all volumes"),
        (to_and_fro(lambda w: w, lambda w: w.inverse().T), "in one of the two directions"),
        (to_and_fro(lambda w: w.T, lambda w: w.T.inverse()), "over which index"),
        (to_and_fro(lambda w: w.inverse(), lambda w: w), "the two directions are exchanged"),
        (to_and_fro(lambda w: torch.eye(len(w)).double()), "nothing has been moved.$"),
        (to_and_fro(lambda w: w.diagonal().diag()), "only scaled"),
        (to_and_fro(lambda w: w, lambda w: torch.eye(len(w)).double()), "moved back"),
        (to_and_fro(lambda w: w, lambda w: 1 / w), "entry by entry"),
        (to_and_fro(lambda w: w, lambda w: w.T), "orthogonal"),
        (to_and_fro(lambda w: w, lambda w: w), "once more"),
        (to_and_fro(lambda w: w), "the sign: the inverse undoes"),
        (convolution(inverse=lambda self, z: (ByConvolution.inverse(self, z)[0], 0 * z[:, 0, 0, 0])), "all volumes"),
        (convolution(forward=lambda self, x: ByConvolution.forward(self, x)[0]), "a pair, z and log_det"),
        (convolution(inverse=None), "has no method .inverse"),
        (Remembers, "`inverse`.*AttributeError"),
        (Caches, "the log_det of your `forward`"),
        (ByConvolution(torch.eye(2)), "the class is asked for"),
        (torch.eye(2), "should be a class"),
        (lambda matrix: matrix, "has no method .forward"),
    ],
    "piecewise_linear": [
        (pieces(z=lambda w, h, t: h * t), "as steep as its bin is high"),
        (pieces(log_det=lambda w, h: h.log().sum(1)), "as steep as its bin is high"),
        (pieces(z=lambda w, h, t: t), "z is .*\nhow steep is the piece"),
        (pieces(z=lambda w, h, t: t / w), "how high is the piece"),
        (pieces(z=lambda w, h, t: w / h * t), "upside down"),
        (pieces(start=0), "begins where the one before it ends"),
        (pieces(start=0, end=0), "begins where the one before it ends"),
        (pieces(end=0), "how far is x from the left end"),
        *((pieces(**{part: 1}), "off by one") for part in ("bins", "left", "below", "steep")),
        *((pieces(**dict.fromkeys(("bins", "left", "below"), off)), "off by one") for off in (1, -1)),
        (pieces(bins=-1), "off by one"),
        (pieces(steep=-1), "off by one"),
        (even_pieces, "not of equal width"),
        (lambda x, w, h: (pieces()(x, w, h)[0], even_pieces(x, w, h)[1]), "not of equal width"),
        (lambda x, w, h: pieces_by_numpy(x, w, torch.full_like(h, 1 / h.shape[1])), "not of equal height"),
        (pieces(log_det=lambda w, h: (h / w).log().mean(1)), "a mean over the dimensions"),
        (pieces(log_det=lambda w, h: (w / h).log().sum(1)), "the sign"),
        (pieces(log_det=lambda w, h: w.log().sum(1)), "how steep is the piece"),
        (pieces(log_det=lambda w, h: -w.log().sum(1)), "how steep is the piece"),
        (pieces(log_det=lambda w, h: (h / w).sum(1).log()), "not their sum"),
        (pieces(log_det=lambda w, h: (h / w).mean(1).log()), "not their mean"),
        (pieces(log_det=lambda w, h: (h / w).sum(1)), "where is the logarithm"),
        (pieces(log_det=lambda w, h: (h / w).prod(1)), "where is the logarithm"),
        (pieces(log_det=lambda w, h: (h / w).log2().sum(1)), "those are bits"),
        (pieces(log_det=lambda w, h: (h / w).log()[:, 0]), "in all dimensions"),
        (pieces(log_det=lambda w, h: 0 * w.sum(1)), "keep all volumes"),
        (pieces(log_det=lambda w, h: (h / w).log().sum().expand(len(w))), "over the batch"),
        (pieces(log_det=lambda w, h: (h / w).log()), "for each example"),
        (pieces(log_det=lambda w, h: (h / w).log().sum()), "for each example"),
        (lambda x, w, h: (pieces()(x, w, h)[0], (h / w).log().sum().expand(len(x))), "only the bins in which"),
        (lambda x, w, h: pieces_by_numpy(x, h, w), "that is the inverse"),
        (lambda x, w, h: pieces_by_numpy(x, w[:1].expand_as(w), h[:1].expand_as(h)), "bins of its own"),
        (pieces_that_end_before_1, "0 and 1 too.*IndexError"),
        (lambda x, w, h: (pieces()(x, w, h)[0] * (x < 1), pieces()(x, w, h)[1]), "0 and 1 too, your z"),
        (pieces(z=lambda w, h, t: h / w * t + 0.001), "should be"),
        (lambda x, w, h: (pieces()(x, w, h)[0].clamp(max=0.95), pieces()(x, w, h)[1]), "has 0.95 at .\\d+, \\d., and"),
        (lambda x, w, h: pieces()(x, w, h)[0], "a pair, z and log_det|the shape"),
    ],
    "two_humped_base": [
        (Humps(together=lambda each, weights: each.logsumexp(1)), "integrates to 2.\n(.|\n)*weights add up to"),
        (Humps(deviation=0.005, together=lambda each, weights: each.logsumexp(1)), "integrates to 2.\n.*weights"),
        (Humps(together=lambda each, weights: (each + weights).logsumexp(1)), "weights add up to"),
        (Humps(weights=(0.3, 0.3)), "too small"),
        (Strip(left=1), "too small: if some of it is cut off"),
        (Humps(together=lambda each, weights: (each + weights.log()).sum(1)), "a sum of logs"),
        (Humps(together=lambda each, weights: each @ weights), "a sum of logs"),
        (Humps(together=lambda each, weights: (each + weights.log()).logsumexp(1).exp()), "the density itself"),
        (Humps(together=lambda each, weights: -(each + weights.log()).logsumexp(1)), "the sign of a log-density"),
        (humps(log_prob=lambda z: Humps().log_prob(z) + 0.03), "integrates to 1.03.*\n.*too large"),
        (humps(log_prob=lambda z: Humps().log_prob(z) / math.log(2)), "integrates to 0.2[^\n]*$"),
        (Humps(together=lambda each, weights: each), "^At 3 points, .*\n.*both coordinates together"),
        (Humps(weights=(1.0, 0.0)), "1 hump"),
        (Humps(weights=(0.996, 0.004)), "1 hump"),
        (Halfway(), "one hump's alone|a sum of logs"),
        (OwnCoin(), "all chance taken from the generator"),
        (Unseeded(), "all chance taken from the generator"),
        (Deaf(), "come from the generator"),
        (Ring(), "1 hump"),
        (flows.StandardNormal(2), "1 hump, and two"),
        (Humps(((-1, 0), (1, 0))), "less than half of the lower"),
        (Humps(((-4, 0), (4, 0), (0, 5)), 1.0, (0.3, 0.3, 0.4)), "3 humps"),
        (humps(sample=Humps(((-3, 0), (3, 0)), 1.04).sample), "by your density"),
        (humps(sample=Humps(weights=(0.6, 0.4)).sample), "by your density"),
        (humps(sample=Humps(((-3, 0.1), (3, 0))).sample), "by your density"),
        (humps(log_prob=lambda z: np.full(len(z), "far")), "real numbers"),
        (humps(sample=lambda n: Humps().sample(n, None)), "TypeError"),
        (NeedsMeans, "hand in an object"),
        (SimpleNamespace(log_prob=Humps().log_prob), "has no method .sample"),
        (SimpleNamespace(sample=Humps().sample), "has no method .log_prob"),
    ],
    "gaussian_velocity": [
        (lambda y, tau, m, s: 0 * y + m, "the mean of all velocities"),
        (lambda y, tau, m, s: (1 - tau) * velocity_by_regression(y, tau, m, s) + y, r"that is E\[x . x_τ\]"),
        (lambda y, tau, m, s: y - tau * velocity_by_regression(y, tau, m, s), r"that is E\[ε . x_τ\]"),
        (lambda y, tau, m, s: (1 - tau) * velocity_by_regression(y, tau, m, s), "the way that is left"),
        (lambda y, tau, m, s: m + (y - tau * m) * (tau * s**2 + 1 - tau) / ((1 - tau) ** 2 + (tau * s) ** 2), "signs"),
        (lambda y, tau, m, s: velocity_by_regression(y, tau, m, math.sqrt(s)), "should be"),
        (lambda y, tau, m, s: (m - y) / (1 - tau), "straight to the mean"),
        (lambda y, tau, m, s: m - y, "at τ = 0 alone"),
        (lambda y, tau, m, s: -velocity_by_regression(y, tau, m, s), "the sign"),
        (lambda y, tau, m, s: velocity_by_regression(y, max(tau, 0.01), m, s), "tau = 0, .*should be"),
        (
            lambda y, tau, m, s: velocity_by_regression(y, tau, m, s) / tau * tau,
            "tau = 0.*and should be finite.\\nAt the ends",
        ),
        (lambda y, tau, m, s: velocity_by_regression(y, tau, m, s).sum(), "the shape"),
        (lambda y, tau, m: y, "TypeError"),
    ],
    "euler_step": [
        (step(lambda log_p, j, delta: log_p + delta * trace(j)), "the sign: where points move apart"),
        (step(lambda log_p, j, delta: log_p - trace(j)), "how long is the step.$"),
        (step(lambda log_p, j, delta: log_p), "what does that do to their density"),
        (step(lambda log_p, j, delta: log_p - delta * j.sum((1, 2))), "adds up all entries"),
        (step(lambda log_p, j, delta: log_p - delta * trace(j).sum()), "a divergence of its own"),
        (step(lambda log_p, j, delta: log_p - delta * trace(j).mean()), "a divergence of its own"),
        (step(lambda log_p, j, delta: log_p - delta * trace(j) / j.shape[1]), "a divergence is a sum"),
        (step(lambda log_p, j, delta: log_p - delta * j[:, 0, 0]), "a slope of its own"),
        (step(lambda log_p, j, delta: log_p - j.slogdet()[1]), "what does x itself add"),
        (step(lambda log_p, j, delta: log_p - delta * j.det()), "not its determinant"),
        (step(lambda log_p, j, delta: log_p - delta * trace(j) / math.log(2)), "those are bits"),
        (step(lambda log_p, j, delta: log_p - 1.2 * delta * trace(j)), "should be about [^\n]*$"),
        (step(lambda log_p, j, delta: (log_p - delta * trace(j))[:, None]), "log_p′: your answer has the shape"),
        (moved(lambda velocity, x, delta: x), "nothing has been moved"),
        (moved(lambda velocity, x, delta: x + velocity(x)), "how long is the step"),
        (moved(lambda velocity, x, delta: x - delta * velocity(x)), "the sign: the velocity says"),
        (moved(lambda velocity, x, delta: delta * velocity(x)), "that is the step; from where"),
        (moved(lambda velocity, x, delta: x + delta * velocity(x + delta / 2 * velocity(x))), "a midpoint step"),
        (lambda velocity, x, log_p, delta: x + delta * velocity(x), "a pair, x′ and log_p′|a pair"),
    ],
}
KNOWN = {
    "log_density": flow_density.DENSITY_MISTAKES,
    "bits_of": flow_density.BITS_MISTAKES,
    "gaussian_velocity": flow_time.VELOCITY_MISTAKES,
}
