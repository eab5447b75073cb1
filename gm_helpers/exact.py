"""Normal distributions in closed form: their divergence; the linear-Gaussian model, where all that a VAE approximates
is exact (probabilistic PCA; Tipping & Bishop 1999); and a mixture, where all that flow matching approximates is."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.distributions import MultivariateNormal


def kl_normal(mean: Tensor, covariance: Tensor, other_mean: Tensor, other_covariance: Tensor) -> Tensor:
    """KL(N(mean, covariance) ‖ N(other_mean, other_covariance)), in nats per example.

    Means: (..., D). Covariances: (..., D, D), symmetric and positive definite. Leading dimensions broadcast.
    ½ [log det Σ₂/det Σ₁ − D + tr Σ₂⁻¹Σ₁ + (μ₂ − μ₁)ᵀ Σ₂⁻¹ (μ₂ − μ₁)]; derived in notebook 1, section 1.5b.
    """
    log_ratio = torch.logdet(other_covariance) - torch.logdet(covariance)
    precision = torch.linalg.inv(other_covariance)
    trace = (precision @ covariance).diagonal(dim1=-2, dim2=-1).sum(-1)
    shift = (other_mean - mean).unsqueeze(-1)  # (..., D, 1)
    distance = (shift.mT @ precision @ shift)[..., 0, 0]
    return 0.5 * (log_ratio - mean.shape[-1] + trace + distance)


@dataclass
class LinearGaussian:
    """z ~ N(0, I), x | z ~ N(W z + b, s² I): a VAE whose decoder is linear, with likelihood and posterior exact.

    weight: W, (P, D). bias: b, (P,). log_var: log s², a scalar tensor. Float64, for use as an oracle.
    Tipping & Bishop 1999, section 3.
    """

    weight: Tensor
    bias: Tensor
    log_var: Tensor

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """n draws of x by ancestral sampling, (n, P)."""
        z = torch.randn(n, self.weight.shape[1], generator=generator, dtype=self.weight.dtype)
        noise = torch.randn(n, len(self.bias), generator=generator, dtype=self.weight.dtype)
        return z @ self.weight.T + self.bias + (0.5 * self.log_var).exp() * noise

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) = log N(x; b, W Wᵀ + s² I), in nats: (..., P) to (...)."""
        noise = self.log_var.exp() * torch.eye(len(self.bias), dtype=x.dtype)
        return MultivariateNormal(self.bias, self.weight @ self.weight.T + noise).log_prob(x)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z), in nats: x (..., P) and z (..., D) to (...); leading dimensions broadcast."""
        return torch.distributions.Normal(z @ self.weight.T + self.bias, (0.5 * self.log_var).exp()).log_prob(x).sum(-1)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (..., D) and covariance (D, D) of p(z|x), a normal: M⁻¹ Wᵀ (x − b) and s² M⁻¹, M = Wᵀ W + s² I."""
        noise = self.log_var.exp()
        matrix = self.weight.T @ self.weight + noise * torch.eye(self.weight.shape[1], dtype=x.dtype)
        inverse = torch.linalg.inv(matrix)
        return (x - self.bias) @ self.weight @ inverse, noise * inverse

    def elbo(self, x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
        """The evidence lower bound for q(z|x) = N(mean, covariance), no noise in it, in nats: (...).

        x: (..., P). mean: (..., D). covariance: (..., D, D). E_q[log p(x|z)] is log p(x|mean) − tr(W Σ Wᵀ)/2s².
        """
        spread = (self.weight @ covariance @ self.weight.T).diagonal(dim1=-2, dim2=-1).sum(-1)
        reconstruction = self.log_likelihood(x, mean) - 0.5 * spread / self.log_var.exp()
        prior = torch.zeros_like(mean), torch.eye(mean.shape[-1], dtype=x.dtype)
        return reconstruction - kl_normal(mean, covariance, *prior)


@dataclass
class Mixture:
    """Σₖ wₖ N(μₖ, σₖ² I), and all that flow matching approximates where these are the data and the noise is N(0, I).

    weights: (K,), adding up to 1. means: (K, D). stds: (K,). Float64, for use as an oracle.
    """

    weights: Tensor
    means: Tensor
    stds: Tensor

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """n draws, (n, D)."""
        which = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, self.means.shape[1], generator=generator, dtype=self.means.dtype)
        return self.means[which] + self.stds[which, None] * noise

    def log_prob(self, x: Tensor, t: float = 1.0) -> Tensor:
        """log p_t(x) of x_t = (1 − t)·ε + t·x, (B,), in nats: the noise's density at 0, the data's at 1."""
        return self._log_parts(x, x.new_full((len(x),), t)).logsumexp(1)

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        """E[x − ε | x_t] at points (B, D) and times (B,): in each part x and ε are jointly normal with x_t."""
        away = x[:, None] - t[:, None, None] * self.means  # (B, K, D)
        slope = (t[:, None] * self.stds**2 - (1 - t[:, None])) / self._variances(t)
        share = self._log_parts(x, t).softmax(1)
        return (share[:, :, None] * (self.means + slope[:, :, None] * away)).sum(1)

    def _variances(self, t: Tensor) -> Tensor:
        """Of x_t within each part, (B, K)."""
        return (1 - t[:, None]) ** 2 + (t[:, None] * self.stds) ** 2

    def _log_parts(self, x: Tensor, t: Tensor) -> Tensor:
        """log wₖ N(x; t·μₖ, its variance) for each part, (B, K)."""
        variances = self._variances(t)
        squares = (x[:, None] - t[:, None, None] * self.means).square().sum(2) / variances
        return self.weights.log() - 0.5 * (squares + x.shape[1] * (2 * torch.pi * variances).log())
