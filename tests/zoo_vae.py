"""The zoo of notebook 1's exercises: right answers written in other ways, and wrong ones with the words that name them.

test_exercises.py runs all of them, with those of the other notebooks.
"""

import math
from fractions import Fraction

import numpy as np
import scipy
import sympy
import torch
from torch.distributions import LowRankMultivariateNormal, MultivariateNormal, Normal, kl_divergence

from gm_helpers.exercises import vae_bound, vae_model
from gm_helpers.vae import bernoulli_log_prob, kl_standard_normal

# ---------------------------------------------------------------- 1.4a


def bias_by_quad(x, s, power=2):
    prior, likelihood = scipy.stats.norm(0, 1).pdf, scipy.stats.norm(x, s).pdf
    points = [x - 5 * s, x - s, x, x + s, x + 5 * s]
    p, square = (
        scipy.integrate.quad(lambda z, own=own: prior(z) * likelihood(z) ** own, -9, 9, points=points)[0]
        for own in (1, power)
    )
    v = square / p**2 - 1
    return np.array([v, v / 0.02])


def bias_in_float32(x, s):
    x, s = torch.tensor(x), torch.tensor(s)
    v = (1 + s**2) / (s * (2 + s**2).sqrt()) * torch.exp(x**2 / ((1 + s**2) * (2 + s**2))) - 1
    return torch.stack([v, 50 * v]).requires_grad_()


def variance_of_ratio(x, s):
    return bias_by_quad(x, s)[0].item()


def posterior_kl(x, s):
    variance = s**2 / (1 + s**2)
    return (variance + (x / (1 + s**2)) ** 2 - 1 - math.log(variance)) / 2


def variance_over_posterior(x, s):
    square, cube = (bias_by_quad(x, s, power)[0] + 1 for power in (2, 3))  # the latter times p(x)
    return cube / scipy.stats.norm(0, math.hypot(1, s)).pdf(x) - square**2


def bias(v, n=lambda v: 50 * v):
    return lambda x, s: (v(x, s), n(v(x, s)))


# ---------------------------------------------------------------- 1.5b


def kl_by_torch(mean, factor, diag):
    zero = torch.zeros_like(factor)
    prior = LowRankMultivariateNormal(torch.zeros_like(mean), zero, torch.ones_like(diag))
    return kl_divergence(LowRankMultivariateNormal(mean, factor, diag), prior)


def kl_by_singular_values(mean, factor, diag):
    mean, factor, diag = (own.numpy().astype(np.float32) for own in (mean, factor, diag))
    singular = np.linalg.svd(factor / np.sqrt(diag)[:, None], compute_uv=False)
    log_det = np.log(diag).sum() + np.log1p(singular**2).sum()
    return 0.5 * (np.einsum("ij,ij", factor, factor) + (diag + mean**2 - 1).sum() - log_det)


def kl_by_lists(mean, factor, diag):
    """Column by column: det(A + ffᵀ) = det A (1 + fᵀ A⁻¹ f), and A⁻¹ changes by one column more."""
    total, columns = 0.5 * float((mean**2 + diag - 1 - diag.log()).sum() + (factor**2).sum()), []
    for column in factor.T.clone():
        solved = column / diag
        for own, scale in columns:
            solved = solved - own * (own @ column) / scale
        columns.append((solved, 1 + (column @ solved).item()))
        total -= 0.5 * math.log(columns[-1][1])
    return total


def kl_by_matrix(trace=lambda f, d: (f**2).sum() + d.sum(), log_det=lambda f, d: (f @ f.T + d.diag()).logdet()):
    return lambda mean, f, d: 0.5 * (trace(f, d) + mean @ mean - len(mean) - log_det(f, d))


def kl_by_small(trace=lambda f, d: (f**2).sum() + d.sum(), sign=1, alone=False, unit=1, inside=lambda f, d: f / d):
    """What goes wrong with no matrix D × D in sight."""

    def answer(mean, f, d):
        small = unit * torch.eye(f.shape[1], dtype=torch.float64) + f.T @ inside(f, d[:, None])
        log_det = d.log().sum() + (0 if alone else torch.logdet(small))
        return 0.5 * (trace(f, d) + mean @ mean - len(mean) - sign * log_det)

    return answer


def kl_in_numpy(mean, factor, diag):
    covariance = np.zeros((len(diag), len(diag)))
    covariance[:] = factor.numpy() @ factor.numpy().T + np.diag(diag)
    return 0.5 * (np.trace(covariance) + (mean**2).sum() - len(mean) - np.linalg.slogdet(covariance)[1])


def kl_in_lists(mean, factor, diag):
    rows = [[0.0] * len(diag) for _ in diag]
    return kl_by_torch(mean, factor, diag) + rows[0][0]


def small_until_large(mean, factor, diag):
    return kl_by_torch(mean, factor, diag) * (1.01 if len(mean) > 10_000 else 1)


# ---------------------------------------------------------------- 1.6


def on_grid(
    area=lambda h: 2 * math.log(h),
    prior=lambda z: Normal(0.0, 1.0).log_prob(z).sum(1),
    gap=None,
    reach=lambda extent: extent,
    log_px=lambda value: value,
    total=torch.logsumexp,
):
    """The answer, whole or with one part exchanged; gap(log p(x), log joint, log q, area of a cell, model, x)."""

    def answer(model, x, spacing, extent):
        steps = round(reach(extent) / spacing)
        axis = np.arange(-steps, steps + 1) * spacing
        z = torch.from_numpy(np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2))
        joint = bernoulli_log_prob(x.expand(len(z), -1), model.decode(z)) + prior(z)
        right = joint.logsumexp(0) + 2 * math.log(spacing)
        mean, log_var = model.encode(x[None])
        log_q = Normal(mean, torch.exp(log_var / 2)).log_prob(z).sum(1)
        own = (gap or of_posterior)(right, joint, log_q, spacing**2, model, x)
        return log_px(total(joint, 0) + area(spacing)), own

    return answer


def of_posterior(log_px, joint, log_q, cell, *_):
    return (log_q.exp() * (log_q - joint + log_px)).sum() * cell


def by_identity(sign=1, kl=1, reconstruction=None):
    def gap(log_px, joint, log_q, cell, model, x):
        mean, log_var = model.encode(x[None])
        if reconstruction:
            value = reconstruction(model, x, mean, log_var)
        else:
            axis = torch.linspace(-6, 6, 121, dtype=torch.float64)
            eps = torch.cartesian_prod(axis, axis)
            values = bernoulli_log_prob(x.expand(len(eps), -1), model.decode(mean + (log_var / 2).exp() * eps))
            value = (values * torch.softmax(-(eps**2).sum(1) / 2, 0)).sum()
        return sign * (log_px - value + kl * kl_standard_normal(mean, log_var))[0]

    return gap


def row_by_row_in_float32(model, x, spacing, extent):
    model, x = model.float(), x.float()
    axis, parts = torch.arange(-extent, extent + spacing / 2, spacing), []
    with torch.no_grad():
        mean, log_var = model.encode(x[None])
        for first in axis:
            z = torch.stack([first.expand(len(axis)), axis], 1)
            joint = model.log_likelihood(x.expand(len(z), -1), z) + Normal(0.0, 1.0).log_prob(z).sum(1)
            parts.append(torch.stack([joint, Normal(mean, (log_var / 2).exp()).log_prob(z).sum(1)]))
    joint, log_q = torch.cat(parts, 1).double().numpy()
    log_px = scipy.special.logsumexp(joint) + 2 * np.log(spacing)
    return [log_px, np.sum(np.exp(log_q) * (log_q - joint + log_px)) * spacing**2]


def one_draw(model, x, mean, log_var):
    z = mean + (log_var / 2).exp() * torch.randn_like(mean)
    return model.log_likelihood(x[None], z)


def one_draw_by_numpy(model, x, mean, log_var):
    return model.log_likelihood(x[None], mean + (log_var / 2).exp() * torch.from_numpy(np.random.normal(size=2)))


def at_the_mean(model, x, mean, log_var):
    return model.log_likelihood(x[None], mean)


def of_the_posterior(log_px, joint, log_q, cell, *_):
    return ((joint - log_px).exp() * (joint - log_px - log_q)).sum() * cell


def changed(change):
    """The right answer's two numbers, and what a slip makes of them."""
    return lambda *own: change(*on_grid()(*own))


def mean_of_logs(model, x, spacing, extent):
    steps = round(extent / spacing)
    axis = torch.arange(-steps, steps + 1, dtype=torch.float64) * spacing
    z = torch.cartesian_prod(axis, axis)
    shares = torch.softmax(-(z**2).sum(1) / 2, 0)
    return shares @ model.log_likelihood(x.expand(len(z), -1), z), on_grid()(model, x, spacing, extent)[1]


def variance_for_deviation(log_px, joint, log_q, cell, model, x):
    mean, log_var = model.encode(x[None])
    steps = math.isqrt(len(joint)) // 2
    axis = torch.arange(-steps, steps + 1, dtype=torch.float64) * math.sqrt(cell)
    wrong = Normal(mean, log_var.exp()).log_prob(torch.cartesian_prod(axis, axis).flip(1)).sum(1)
    return of_posterior(log_px, joint, wrong, cell)


# ---------------------------------------------------------------- 1.8


def weight_by_search(variance):
    def loss(w):
        return variance / (2 * (1 + 2 * w * w)) + math.log(1 + w * w)

    return scipy.optimize.minimize_scalar(loss, bounds=(0, 20), method="bounded", options={"xatol": 1e-9}).x


def weight_by_gradient(variance):
    """Of everything at once, in float32."""
    w, v, log_var = (torch.tensor(own, requires_grad=True) for own in (0.5, 0.3, 0.0))
    optimiser = torch.optim.LBFGS([w, v, log_var], max_iter=200, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        error = variance * (1 - 2 * w * v) ** 2 + 2 * w**2 * log_var.exp()
        loss = error / 2 + variance * v**2 + log_var.exp() - log_var
        loss.backward()
        return loss

    optimiser.step(closure)
    return w.abs()


def weight_by_sympy(variance):
    u = sympy.Symbol("u")
    roots = sympy.Poly((1 + 2 * u) ** 2 - sympy.Rational(variance) * (1 + u), u).nroots()
    return sympy.sqrt(max([0, *(own for own in roots if own.is_real and own > 0)]))


def weight_with_marginals(variance):
    """With the variances of the posterior's components for q's, and the best slope of its mean."""

    def loss(at):
        w, v = at
        square = (1 + w * w) / (1 + 2 * w * w)
        error = variance * (1 - 2 * w * v) ** 2 + 2 * w**2 * square
        return error / 2 + variance * v**2 + square - math.log(square)

    found = scipy.optimize.minimize(loss, (1.0, 0.3), method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-13})
    return abs(found.x[0])


def weight(square):
    return lambda variance: math.sqrt(max(square(variance), 0))


# ---------------------------------------------------------------- 1.11


def leave_one_out_by_loops(f, mean, log_std, eps, baseline=lambda f, k: np.mean(np.delete(f, k))):
    std = np.exp(log_std.numpy())
    values = f(torch.from_numpy(mean.numpy() + std * eps.numpy())).numpy()
    total = np.zeros(2 * len(std))
    for k, own in enumerate(eps.numpy()):
        total += (values[k] - baseline(values, k)) * np.concatenate([own / std, own**2 - 1])
    return total / len(values)


def leave_one_out_by_backward(f, mean, log_std, eps, detach=True, baseline=None):
    """A surrogate loss, as it is written with autograd."""
    mean, log_std = mean.requires_grad_(), log_std.requires_grad_()
    z = mean + log_std.exp() * eps
    z = z.detach() if detach else z
    with torch.no_grad():
        values = f(z)
        weights = baseline(values) if baseline else values - (values.sum() - values) / (len(eps) - 1)
    log_q = Normal(mean, log_std.exp()).log_prob(z).sum(1)
    (weights * log_q).mean().backward()
    return torch.cat([mean.grad, log_std.grad])


def leave_one_out_in_float32(f, mean, log_std, eps):
    mean, log_std, eps = mean.float(), log_std.float(), eps.float()
    values = f(mean + log_std.exp() * eps).float()
    weights = (values - values.mean()) * len(eps) / (len(eps) - 1)
    return torch.cat([weights @ (eps / log_std.exp()), weights @ (eps**2 - 1)]) / len(eps)


def scored(change):
    """change(score by μ, score by log σ, σ) in place of the two right ones."""

    def answer(f, mean, log_std, eps):
        std = log_std.exp()
        values = f(mean + std * eps)
        weights = (values - values.mean()) / (1 - 1 / len(eps))
        return torch.cat([weights @ own for own in change(eps / std, eps**2 - 1, std)]) / len(eps)

    return answer


def pathwise(f, mean, log_std, eps):
    z = (mean + log_std.exp() * eps).requires_grad_()
    slopes = torch.autograd.grad(f(z).sum(), z, allow_unused=True)[0]
    return torch.cat([slopes.mean(0), (slopes * eps * log_std.exp()).mean(0)])


# ---------------------------------------------------------------- beyond


def by_resampling(a, b):
    gains = (a - b).numpy()
    drawn = np.random.default_rng(1).choice(gains, size=(4000, len(gains)))
    return gains.mean(), drawn.mean(1).std()


def compared(error, difference=lambda a, b: (a - b).mean()):
    return lambda a, b: (difference(a, b), error(a, b))


def paired(a, b):
    return scipy.stats.sem((a - b).numpy())


def rates_by_loops(eigenvalues, noise_variance, beta):
    return [math.log(own / (beta * noise_variance)) / 2 if own > beta * noise_variance else 0 for own in eigenvalues]


def rates_by_gradient(eigenvalues, noise_variance, beta):
    """Of the loss with the best encoder for each decoder weight, and the KL that comes of it."""
    found = []
    for own in eigenvalues.tolist():

        def parts(square, own=own):
            variance = beta * noise_variance / (square + beta * noise_variance)
            slope = (1 - variance) ** 2 / square if square else 0.0  # v²
            error = own * variance**2 + square * variance
            return error / (2 * noise_variance), (slope * own + variance - 1 - math.log(variance)) / 2

        def loss(square, parts=parts):
            return parts(square)[0] + beta * parts(square)[1]

        best = scipy.optimize.minimize_scalar(loss, bounds=(0, 3 * own), method="bounded", options={"xatol": 1e-9})
        found.append(parts(best.x)[1])
    return np.array(found, dtype=np.float32)


def rates(formula):
    """formula(λ, s², β) in place of ½ log(λ/βs²), component by component, in NumPy."""
    return lambda eigenvalues, noise, beta: formula(eigenvalues.numpy(), noise, beta)


def old_decoder(own, noise, beta):
    square = np.maximum(own - noise, 0)
    total = square + beta * noise
    return (square * own / total**2 + beta * noise / total - 1 - np.log(beta * noise / total)) / 2


def half_log(ratio):
    return np.log(ratio) / 2


RIGHT = {
    "bias_of_estimate": [bias_by_quad, bias_in_float32],
    "kl_low_rank": [kl_by_torch, kl_by_singular_values, kl_by_lists],
    "posterior_on_grid": [on_grid(), on_grid(gap=by_identity()), row_by_row_in_float32],
    "optimal_weight": [weight_by_search, weight_by_gradient, weight_by_sympy],
    "hidden_beta": [39.2, 39, Fraction(784, 20), torch.tensor(39.2), sympy.Rational(196, 5)],
    "leave_one_out": [
        leave_one_out_by_loops,
        leave_one_out_by_backward,
        leave_one_out_in_float32,
        scored(lambda mean, std, sigma: (mean, std + 1)),  # ε² alone: the weights add up to 0
    ],
    "compare_bounds": [
        by_resampling,
        compared(paired, lambda a, b: a.mean() - b.mean()),
        lambda a, b: np.array([(a - b).float().mean(), np.std((a - b).numpy()) / len(a) ** 0.5]),
        lambda a, b: [(a.float().mean() - b.float().mean()).item(), (a - b).std(correction=0) / len(a) ** 0.5],
    ],
    "collapse": [
        rates_by_loops,
        rates_by_gradient,
        lambda eigenvalues, noise, beta: torch.relu(0.5 * torch.log(eigenvalues.float() / beta / noise)),
    ],
}
WRONG = {
    "bias_of_estimate": [
        (bias(variance_of_ratio, lambda v: v / 200), "the bias falls with n"),
        (bias(variance_of_ratio, math.ceil), "rounded up"),
        (bias(variance_of_ratio, lambda v: math.ceil(50 * v)), "not to be rounded"),
        (
            bias(lambda x, s: variance_of_ratio(x, s) * scipy.stats.norm(0, math.hypot(1, s)).pdf(x)),
            r"divided by p.x. \*squared",
        ),
        (bias(variance_over_posterior), "over the posterior"),
        (bias(variance_of_ratio, lambda v: 100 * v), "which factor has δ²"),
        (bias(variance_of_ratio, lambda v: 1e4 * v), "the standard .deviation. of the estimate"),
        (bias(lambda x, s: (1 + 2 * x**2) / (2 * s**4)), "variance of the logarithms"),
        (bias(lambda x, s: math.exp(posterior_kl(x, s))), r"e\^KL is about"),
        (lambda x, s: (variance_of_ratio(x, s), math.exp(posterior_kl(x, s))), r"n: e\^KL is about"),
        (bias(lambda x, s: variance_of_ratio(x, s) + 1), "mean square"),
        (
            bias(
                lambda x, s: variance_of_ratio(x, s) * Normal(0, math.hypot(1, s)).log_prob(torch.tensor(x)).exp() ** 2
            ),
            "divided by p.x. first",
        ),
        (bias(lambda x, s: math.sqrt(variance_of_ratio(x, s))), "standard deviation, and no variance"),
        (bias(lambda x, s: variance_of_ratio(x, math.sqrt(s))), "not its variance"),
        (bias(lambda x, s: 1.003 * variance_of_ratio(x, s)), "and should be"),
        (bias(lambda x, s: variance_of_ratio(0, s)), "x = 0 alone"),
        (lambda x, s: variance_of_ratio(x, s), "should be numbers of the shape"),
    ],
    "kl_low_rank": [
        (lambda mean, f, d: kl_by_torch(mean, f, d) + (mean.norm() - mean @ mean) / 2, "enters as its square"),
        (
            lambda mean, f, d: kl_divergence(
                LowRankMultivariateNormal(0 * mean, 0 * f, 0 * d + 1), LowRankMultivariateNormal(mean, f, d)
            ),
            "of the prior from q",
        ),
        (kl_by_small(trace=lambda f, d: (f**2).sum()), "the trace: is d in it"),
        (kl_by_small(trace=lambda f, d: d.sum()), "the trace: is F in it"),
        (kl_by_small(alone=True), "of d alone"),
        (kl_by_small(sign=-1), "the sign of the log-determinant"),
        (kl_by_small(unit=0), "for F = 0|finite"),
        (kl_by_small(inside=lambda f, d: f), "where d is not 1"),
        (kl_by_small(inside=lambda f, d: f * d), "or divided by it"),
        (kl_by_small(trace=lambda f, d: (f**2).sum() + d.sum() + len(d)), "if q were the prior itself"),
        (lambda mean, f, d: 2 * kl_by_torch(mean, f, d), "where is the ½"),
        (lambda mean, f, d: kl_by_torch(0 * mean, f, d), "where is the mean"),
        (lambda mean, f, d: kl_by_torch(mean, f, d**2), "not deviations"),
        (lambda mean, f, d: kl_by_torch(mean, 0 * f, d), "without F"),
        (kl_by_matrix(), "D × D numbers(.|\n)*a small one"),
        (lambda *own: kl_by_matrix()(*(part.float() for part in own)), "D × D numbers"),
        (kl_in_numpy, "D × D numbers"),
        (kl_in_lists, "D × D numbers"),
        (
            lambda mean, f, d: kl_divergence(
                MultivariateNormal(mean, f @ f.T + d.diag()),
                MultivariateNormal(0 * mean, torch.eye(len(d), dtype=torch.float64)),
            ),
            "D × D numbers",
        ),
        (lambda mean, f, d: kl_by_torch(mean, f, d) + (len(mean) - f.shape[1]) / 2, "of which matrix is it the trace"),
        (small_until_large, "in 200,000 dimensions: your answer is"),
        (lambda mean, f, d: 1.0002 * kl_by_torch(mean, f, d), "should be"),
    ],
    "posterior_on_grid": [
        (mean_of_logs, "after the mean"),
        (changed(lambda log_px, gap: (log_px - gap, gap)), "not yet log p"),
        (changed(lambda log_px, gap: (log_px.exp(), gap)), "its logarithm is asked for"),
        (changed(lambda log_px, gap: (log_px, log_px - gap)), "the ELBO itself"),
        (on_grid(area=lambda h: 0), "for which area does a point of the grid stand"),
        (on_grid(area=math.log), "not for a stretch"),
        (on_grid(prior=lambda z: 0), "where is the prior"),
        (on_grid(prior=lambda z: -(z**2).sum(1) / 2), "is its constant there"),
        (on_grid(prior=lambda z: -(z**2).sum(1) / 2 - math.log(2 * math.pi) / 2), "single component"),
        (on_grid(reach=lambda extent: 1), "your grid ends at 1"),
        (on_grid(reach=lambda extent: 2), "your grid ends at"),
        (
            on_grid(area=lambda h: 0, total=lambda own, _: own.logsumexp(0) - math.log(len(own))),
            "how large is the grid",
        ),
        (on_grid(total=lambda own, _: own.exp().sum().log()), "how are such numbers added"),
        (on_grid(log_px=lambda value: -value), "the sign of log p"),
        (on_grid(log_px=lambda value: value + 0.01), "your log p.x. is"),
        (on_grid(gap=of_the_posterior), "a mean over the posterior"),
        (
            on_grid(gap=lambda a, b, c, d, model, x: kl_standard_normal(*model.encode(x[None]))[0]),
            "of q from the prior",
        ),
        (on_grid(gap=by_identity(sign=-1)), "above log p.x. or below"),
        (on_grid(gap=by_identity(kl=0)), "two terms"),
        (on_grid(gap=by_identity(kl=-1)), "the sign of the divergence from the prior"),
        (on_grid(gap=by_identity(reconstruction=at_the_mean)), "its value at q's mean"),
        (on_grid(gap=by_identity(reconstruction=one_draw)), "draws are noisy"),
        (on_grid(gap=by_identity(reconstruction=one_draw_by_numpy)), "draws are noisy"),
        (on_grid(gap=variance_for_deviation), "what is σ"),
        (on_grid(gap=lambda *own: of_posterior(*own) / own[3]), "the sum for the gap"),
        (on_grid(gap=lambda *own: of_posterior(0, *own[1:])), "normalised by p.x."),
        (on_grid(gap=lambda *own: of_posterior(*own) + 0.005), "your gap is"),
    ],
    "optimal_weight": [
        (weight_with_marginals, "best variances"),
        (weight(lambda v: (v - 1) / 2), "optimum of the likelihood"),
        (weight(lambda v: v - 1), "the fourth run"),
        (lambda v: 0, "does it never pay"),
        (lambda v: weight_by_search(v) ** 2, "that is w²"),
        (lambda v: -weight_by_search(v), "to be at least 0"),
        (lambda v: weight_by_search(v * v), "the mean square already"),
        (lambda v: weight_by_search(math.sqrt(v)), "no deviation"),
        (lambda v: 2 * weight_by_search(v), "both weights"),
        (lambda v: math.sqrt((v - 4 + math.sqrt(v * v + 8 * v)) / 8), "for variance = 0.5: .*\nbelow some V"),
        (lambda v: torch.tensor((v - 4 + math.sqrt(v * v + 8 * v)) / 8).sqrt(), "is nan.*\nbelow some V"),
        (lambda v: ((v - 4 + math.sqrt(v * v + 8 * v)) / 8) ** 0.5, "real numbers.\nbelow some V"),
        (lambda v: 1.006 * weight_by_search(v), "should be"),
    ],
    "hidden_beta": [
        (784 - 20, "by their ratio"),
        (784, "the .sum. over the latents"),
        (20 / 784, "upside down"),
        (1, "different numbers"),
        (20, "what of the reconstruction"),
        (1 / 784, "what of the KL"),
        (1 / 20, "what of the reconstruction"),
        (784 * 20, "act against each other"),
        (40, "^For pixels = 784, latents = 20: your answer is 40.$"),
    ],
    "leave_one_out": [
        (lambda *own: len(own[3]) / (len(own[3]) - 1) * leave_one_out_by_loops(*own), "over all K draws"),
        (scored(lambda mean, std, sigma: (mean, std / 2)), "by log σ²"),
        (scored(lambda mean, std, sigma: (mean, std * sigma)), "the chain rule"),
        (scored(lambda mean, std, sigma: (mean / sigma, std)), "divided by σ or by σ²"),
        (scored(lambda mean, std, sigma: (mean * sigma**2, std)), "divided by what"),
        (
            lambda *own: leave_one_out_by_backward(*own, baseline=lambda f: f - f.mean()),
            "independent of the draw's own",
        ),
        (lambda *own: leave_one_out_by_loops(*own, baseline=lambda f, k: f[k]), "taken off itself"),
        (lambda *own: leave_one_out_by_backward(*own, detach=False), "moved along with the parameters"),
        (lambda *own: leave_one_out_by_backward(*own, baseline=lambda f: f), "without a baseline"),
        (
            lambda *own: leave_one_out_by_loops(*own, baseline=lambda f, k: np.delete(f, k).sum()),
            "where a mean belongs",
        ),
        (
            lambda *own: leave_one_out_by_loops(*own, baseline=lambda f, k: np.delete(f, k).sum() / len(f)),
            "how many draws",
        ),
        (lambda *own: len(own[3]) * leave_one_out_by_loops(*own), "a sum over the draws"),
        (lambda *own: -leave_one_out_by_loops(*own), "the sign"),
        (scored(lambda mean, std, sigma: (mean, std / sigma)), "derivatives by σ"),
        (scored(lambda mean, std, sigma: (mean * sigma, std)), "how does it depend on σ"),
        (scored(lambda mean, std, sigma: (std, mean)), "by μ come first"),
        (lambda f, mean, log_std, eps: leave_one_out_by_loops(f, mean, log_std / 2, eps), "not log σ²"),
        (pathwise, "the pathwise estimator"),
        (lambda *own: 1.001 * leave_one_out_by_loops(*own), "and should be"),
        (lambda *own: leave_one_out_by_loops(*own)[:1], "the shape"),
        (lambda *own: leave_one_out_by_loops(*own[:3], own[3][:29]), "for a step function"),  # of the first draws alone
    ],
    "compare_bounds": [
        (compared(lambda a, b: (a.std() - b.std()).abs() / len(a) ** 0.5), "a difference of errors"),
        (compared(lambda a, b: (a - b).var()), "of one image"),
        (compared(lambda a, b: ((a.var() + b.var()) / len(a)).sqrt()), "two .different. sets"),
        (compared(lambda a, b: (a - b).std()), "is their .mean. known"),
        (compared(paired, lambda a, b: a.logsumexp(0) - b.logsumexp(0)), "averages probabilities"),
        (compared(paired, lambda a, b: (b - a).mean()), "the sign"),
        (compared(paired, lambda a, b: (a - b).sum()), "a sum over the images"),
        (compared(paired, lambda a, b: (a - b).abs().mean()), "count with their sign"),
        (compared(paired, lambda a, b: (a.mean() - b.mean()).abs()), "which tells the better"),
        (compared(paired, lambda a, b: (a - b).median()), "a median"),
        (compared(lambda a, b: paired(a, b) ** 2), "the square of the error"),
        (compared(lambda a, b: (a - b).std() / len(a)), "not with N"),
        (compared(lambda a, b: 1.96 * paired(a, b)), "two standard errors"),
        (compared(lambda a, b: paired(a, 0 * a) + paired(b, 0 * b)), "don't add"),
        (compared(lambda a, b: 1.2 * paired(a, b)), "your error is"),
        (compared(lambda a, b: paired(a, b) * (0.3 if len(a) == 100 else 1)), "in .* of 100 sets"),
        (compared(paired, lambda a, b: (a - b).mean() + 0.05 * paired(a, b)), "your difference is"),
        (lambda a, b: (a - b).mean(), "the shape"),
    ],
    "collapse": [
        (rates(lambda own, noise, beta: abs(half_log(own / beta / noise))), "hardly varies"),
        (rates(lambda own, noise, beta: beta * np.maximum(half_log(own / beta / noise), 0)), "share of the loss"),
        (rates(lambda own, noise, beta: np.maximum(half_log(own / noise), 0) / beta), "by the same factor"),
        (rates(lambda own, noise, beta: half_log(own / noise) * (own > beta * noise)), "with a jump"),
        (rates(lambda own, noise, beta: half_log(own / beta / noise) * (own > noise)), "the threshold ignores β"),
        (rates(lambda own, noise, beta: np.maximum(half_log(own / noise), 0)), "where is β"),
        (rates(lambda own, noise, beta: half_log(own / beta / noise)), "never negative"),
        (rates(lambda own, noise, beta: 2 * np.maximum(half_log(own / beta / noise), 0)), "where is the ½"),
        (rates(lambda own, noise, beta: np.maximum(np.log2(own / beta / noise) / 2, 0)), "bits"),
        (rates(lambda own, noise, beta: np.maximum(half_log(own * beta / noise), 0)), "on the right side"),
        (rates(lambda own, noise, beta: half_log(1 + own / beta / noise)), "noise included, and not"),
        (rates(old_decoder), "the decoder is that of β = 1"),
        (rates(lambda own, noise, beta: np.maximum(half_log(own / beta / noise**2), 0)), "need not be squared"),
        (rates(lambda own, noise, beta: np.maximum(half_log(own / beta / noise), 0) + 0.004), "should be"),
        (rates(lambda own, noise, beta: np.maximum(half_log(own / beta / noise), 0).sum()), "the shape"),
    ],
}
KNOWN = {
    "bias_of_estimate": vae_bound.BIAS_MISTAKES,
    "kl_low_rank": vae_bound.LOW_RANK_MISTAKES,
    "optimal_weight": vae_bound.WEIGHT_MISTAKES,
    "leave_one_out": vae_model.LEAVE_ONE_OUT_MISTAKES,
    "collapse": vae_model.COLLAPSE_MISTAKES,
}
