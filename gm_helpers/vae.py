"""The variational autoencoder of notebook 1 (Kingma & Welling 2014), the autoencoder beside it, and their losses."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from gm_helpers.nn import mlp
from gm_helpers.train import Players

PIXELS = 28 * 28
LOG_VAR_BOUND = 15.0  # σ stays between e^-7.5 and e^7.5, so that exp(log σ²) can't overflow in float32


def kl_standard_normal(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, diag exp(log_var)) ‖ N(0, I)), in nats per example.

    mean, log_var: (B, D), log_var the natural logarithm of the variances. Returns (B,).
    ½ Σ (μ² + σ² − 1 − log σ²); Kingma & Welling 2014, appendix B.
    """
    return 0.5 * (mean**2 + log_var.exp() - 1 - log_var).sum(1)


def bernoulli_log_prob(x: Tensor, logits: Tensor) -> Tensor:
    """log p(x) of independent Bernoulli pixels, in nats per example.

    x: (B, D) of zeros and ones. logits: (B, D), log p/(1 − p). Returns (B,).
    """
    return -F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1)


def discretized_logistic_log_prob(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """log P(x) of independent pixels whose grey value is a rounded logistic variable, in nats per example.

    x: (B, D), whole numbers 0…255. mean, log_scale: (B, D), of the logistic distribution, in grey values. Returns (B,).
    P(x) = σ((x + ½ − μ)/s) − σ((x − ½ − μ)/s); all mass below ½ goes to 0 and all above 254½ to 255.
    Kingma et al. 2016, appendix; Salimans et al. 2017, section 2.1.
    """
    inverse_scale = (-log_scale).exp()
    above, below = (x + 0.5 - mean) * inverse_scale, (x - 0.5 - mean) * inverse_scale
    # σ(a) − σ(b) = σ(a) σ(−b) (1 − e^(b − a)) doesn't cancel where both are near 0 or near 1
    log_gap = torch.log(-torch.expm1(-inverse_scale))
    log_left, log_right = F.logsigmoid(above), F.logsigmoid(-below)
    inside = log_left + log_right + log_gap
    return torch.where(x == 0, log_left, torch.where(x == 255, log_right, inside)).sum(1)


class Autoencoder(nn.Module):
    """The VAE's layers with a code that is one point: 784–hidden (ReLU)–latent_dim–hidden (tanh)–784 logits.

    Images x are (B, 1, 28, 28) or (B, 784), zeros and ones.
    """

    def __init__(self, latent_dim: int, hidden: int = 500):
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), mlp([PIXELS, hidden, latent_dim], nn.ReLU))
        self.decoder = mlp([latent_dim, hidden, PIXELS], nn.Tanh)

    def encode(self, x: Tensor) -> Tensor:
        """Codes, (B, latent_dim)."""
        return self.encoder(x)

    def decode(self, z: Tensor) -> Tensor:
        """Logits of the pixels, (B, 784), for codes z (B, latent_dim)."""
        return self.decoder(z)

    def loss(self, x: Tensor, generator: Generator | None = None) -> dict[str, Tensor]:
        """The reconstruction's cross-entropy, mean over the batch, in nats per image; there is no noise to draw."""
        return {"loss": -bernoulli_log_prob(x.flatten(1), self.decode(self.encode(x))).mean()}

    def players(self) -> Players:
        """The autoencoder plays alone: name -> (module, loss)."""
        return {"autoencoder": (self, self.loss)}


class VAE(nn.Module):
    """Encoder 784–hidden (ReLU) with two heads, decoder latent_dim–hidden (tanh)–784 logits.

    Prior N(0, I), posterior q(z|x) a diagonal normal, likelihood p(x|z) of independent Bernoulli pixels.
    Images x are (B, 1, 28, 28) or (B, 784), zeros and ones.
    """

    def __init__(self, latent_dim: int, hidden: int = 500):
        super().__init__()
        self.latent_dim = latent_dim
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, hidden), nn.ReLU())
        self.mean_head = nn.Linear(hidden, latent_dim)
        self.log_var_head = nn.Linear(hidden, latent_dim)
        self.decoder = mlp([latent_dim, hidden, PIXELS], nn.Tanh)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x), each (B, latent_dim), the latter within ±LOG_VAR_BOUND."""
        hidden = self.trunk(x)
        # the layers may run in bfloat16, the sums of the bound may not
        mean, log_var = self.mean_head(hidden).to(x.dtype), self.log_var_head(hidden).to(x.dtype)
        return mean, LOG_VAR_BOUND * torch.tanh(log_var / LOG_VAR_BOUND)

    def decode(self, z: Tensor) -> Tensor:
        """The parameters of p(x|z) for latents z (B, latent_dim): here the pixels' logits, (B, 784)."""
        return self.decoder(z).to(z.dtype)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z), (B,), in nats."""
        return bernoulli_log_prob(x.flatten(1), self.decode(z))

    def elbo_terms(self, x: Tensor, eps: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Reconstruction log p(x|z) at z = μ + σ ⊙ eps, and KL(q(z|x) ‖ p(z)); each (B,), in nats.

        eps: (B, latent_dim), a draw of N(0, I); drawn here when None.
        """
        mean, log_var = self.encode(x)
        if eps is None:
            eps = torch.randn_like(mean)
        z = mean + (0.5 * log_var).exp() * eps
        return self.log_likelihood(x, z), kl_standard_normal(mean, log_var)

    def elbo(self, x: Tensor, eps: Tensor | None = None) -> Tensor:
        """One-sample estimate of the evidence lower bound on log p(x), (B,), in nats."""
        reconstruction, kl = self.elbo_terms(x, eps)
        return reconstruction - kl

    def loss(self, x: Tensor, generator: Generator | None = None) -> dict[str, Tensor]:
        """What is minimised, −ELBO, and its two parts: means over the batch, in nats per image."""
        shape = len(x), self.latent_dim
        eps = torch.randn(shape, generator=generator, device=x.device, dtype=x.dtype)
        reconstruction, kl = self.elbo_terms(x, eps)
        parts = {"reconstruction_error": -reconstruction.mean(), "kl": kl.mean()}
        return {"loss": parts["reconstruction_error"] + parts["kl"], **parts}

    def players(self) -> Players:
        """The VAE plays alone: name -> (module, loss)."""
        return {"vae": (self, self.loss)}

    @torch.no_grad()
    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """n images by ancestral sampling, z ~ N(0, I), then x ~ p(x|z): (n, 1, 28, 28), zeros and ones."""
        weight = self.mean_head.weight
        z = torch.randn(n, self.latent_dim, generator=generator, device=weight.device, dtype=weight.dtype)
        return torch.bernoulli(self.decode(z).sigmoid(), generator=generator).view(n, 1, 28, 28)


class GreyVAE(VAE):
    """A VAE of the 256 grey values: independent discretised logistic pixels. Images are whole numbers 0…255, as floats.

    hidden: width of the encoder and of the decoder, whose output is each pixel's mean and log-scale.
    """

    def __init__(self, latent_dim: int, hidden: int = 500):
        super().__init__(latent_dim, hidden)
        self.decoder = mlp([latent_dim, hidden, 2 * PIXELS], nn.Tanh)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return super().encode(x / 255)

    def decode(self, z: Tensor) -> Tensor:
        """The parameters of p(x|z): the pixels' means and log-scales, (B, 2, 784), in grey values.

        The log-scale is within ±6.
        """
        mean, log_scale = self.decoder(z).to(z.dtype).chunk(2, dim=1)
        return torch.stack([127.5 * (1 + mean), 6 * torch.tanh(log_scale / 6 + 0.5)], dim=1)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        return discretized_logistic_log_prob(x.flatten(1), *self.decode(z).unbind(1))

    @torch.no_grad()
    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """n images by ancestral sampling: (n, 1, 28, 28) of whole grey values 0…255."""
        weight = self.mean_head.weight
        z = torch.randn(n, self.latent_dim, generator=generator, device=weight.device, dtype=weight.dtype)
        mean, log_scale = self.decode(z).unbind(1)
        u = torch.rand(mean.shape, generator=generator, device=weight.device, dtype=weight.dtype)
        return (mean + log_scale.exp() * torch.logit(u, eps=1e-6)).round().clamp(0, 255).view(n, 1, 28, 28)
