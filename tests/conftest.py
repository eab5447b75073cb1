"""What several test files share."""

import multiprocessing

import torch
from torch.distributions import Bernoulli, Normal

from gm_helpers.vae import VAE

# Processes that are to be killed are forked from a server that has imported torch and torchvision once for all.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["pytest", "gm_helpers.checkpoint", "gm_helpers.data", "torchvision.datasets"])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_vae(latent_dim: int, seed: int = 0, hidden: int = 16) -> VAE:
    """A VAE in float64 whose weights and biases are all far from 0, and whose posterior is wider than a grid step."""
    model, generator = VAE(latent_dim, hidden).double(), seeded(seed)
    scales = {"trunk.1": 0.05, "mean_head": 0.25, "log_var_head": 0.2, "decoder.0": 1.0, "decoder.2": 0.1}
    for name, parameter in model.named_parameters():
        parameter.data.normal_(0, scales[name.rpartition(".")[0]], generator=generator)
    return model


def random_images(n: int, seed: int = 0) -> torch.Tensor:
    """Zeros and ones in float64, (n, 1, 28, 28)."""
    return torch.bernoulli(torch.full((n, 1, 28, 28), 0.3, dtype=torch.float64), generator=seeded(seed))


def log_joint_on_grid(model: VAE, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """log p(x, z) of a VAE with one latent dimension at the points z of a fine grid: z (Z, 1), log p (B, Z)."""
    z = torch.linspace(-25, 25, 10_001, dtype=torch.float64)[:, None]
    likelihood = Bernoulli(logits=model.decode(z).detach())
    log_likelihood = torch.stack([likelihood.log_prob(image).sum(1) for image in x.flatten(1)])
    return z, log_likelihood + Normal(0.0, 1.0).log_prob(z.T)
