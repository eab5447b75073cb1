"""The GAN of notebook 2 (Goodfellow et al. 2014): two players, and the losses of their game."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator as RandomGenerator
from torch import Tensor, nn

from gm_helpers.train import Players

PIXELS = 28 * 28


def discriminator_loss(real: Tensor, fake: Tensor, real_label: float = 1.0) -> Tensor:
    """−[r log D(x) + (1 − r) log(1 − D(x))] − log(1 − D(G(z))), from logits, in nats per pair of images.

    real, fake: (B,), logits of D for data and for samples. real_label: r, 1, or 0.9 for one-sided label smoothing.
    Its mean is −V(D, G) for r = 1; Goodfellow et al. 2014, equation 1; smoothing: Salimans et al. 2016, section 3.4.
    """
    # −log σ(a) = softplus(−a) and −log(1 − σ(a)) = softplus(a) neither overflow nor lose their gradient.
    return real_label * F.softplus(-real) + (1 - real_label) * F.softplus(real) + F.softplus(fake)


def saturating(fake: Tensor) -> Tensor:
    """log(1 − D(G(z))), what the generator minimises in the minimax game; from logits (B,), in nats, (B,)."""
    return -F.softplus(fake)


def non_saturating(fake: Tensor) -> Tensor:
    """−log D(G(z)), the generator's other loss, steep where samples are recognised; from logits (B,), in nats, (B,)."""
    return F.softplus(-fake)


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor, generator: RandomGenerator | None = None) -> Tensor:
    """(|∇ critic| − 1)² at one random point between each real example and a fake one, (B,).

    real, fake: (B, D). critic: (B, D) to (B,). Keeps the critic's slope near 1, as a Wasserstein distance asks;
    Gulrajani et al. 2017, equation 3.
    """
    t = torch.rand(len(real), 1, generator=generator, device=real.device, dtype=real.dtype)
    between = torch.lerp(real, fake.detach(), t).requires_grad_()
    slope = torch.autograd.grad(critic(between).sum(), between, create_graph=True)[0]
    return (slope.norm(dim=1) - 1) ** 2


GENERATOR_LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "saturating": saturating,
    "non_saturating": non_saturating,
}


class Generator(nn.Module):
    """Noise (B, latent_dim) to images (B, 784) in [−1, 1]: 100–128–256–512–1024–784.

    LeakyReLU 0.2 after each hidden layer, batch norm on 256, 512 and 1024, tanh at the end.
    """

    def __init__(self, latent_dim: int = 100):
        super().__init__()
        self.latent_dim = latent_dim
        layers: list[nn.Module] = [nn.Linear(latent_dim, 128), nn.LeakyReLU(0.2)]
        for inputs, outputs in ((128, 256), (256, 512), (512, 1024)):
            layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Linear(1024, PIXELS), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        """Images (B, 784) for noise z (B, latent_dim)."""
        return self.layers(z).to(z.dtype)  # the layers may run in bfloat16


class Discriminator(nn.Module):
    """Images (B, 1, 28, 28) or (B, 784) in [−1, 1] to logits (B,), log D/(1 − D): 784–512–256–1, LeakyReLU 0.2.

    dropout: probability of setting a hidden unit to 0 in training.
    """

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten())
        for inputs, outputs in ((PIXELS, 512), (512, 256)):
            self.layers += nn.Sequential(nn.Linear(inputs, outputs), nn.LeakyReLU(0.2), nn.Dropout(dropout))
        self.layers.append(nn.Linear(256, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B,) that the images are data."""
        return self.layers(x).squeeze(1).to(x.dtype)  # the layers may run in bfloat16, the loss may not


class GAN(nn.Module):
    """The game: D learns to tell data from samples, G to make samples that D takes for data.

    generator_loss: "non_saturating" or "saturating". real_label: target of D for data, 0.9 smooths one side.
    dropout: in D. Raises ValueError for an unknown loss.
    """

    def __init__(
        self,
        latent_dim: int = 100,
        generator_loss: str = "non_saturating",
        real_label: float = 0.9,
        dropout: float = 0.0,
    ):
        super().__init__()
        if generator_loss not in GENERATOR_LOSSES:
            choices = ", ".join(GENERATOR_LOSSES)
            raise ValueError(f"unknown generator loss {generator_loss!r}: choose one of {choices}")
        self.latent_dim, self.real_label = latent_dim, real_label
        self.fooling = GENERATOR_LOSSES[generator_loss]
        self.generator = Generator(latent_dim)
        self.discriminator = Discriminator(dropout)

    def players(self) -> Players:
        """D moves first, then G: name -> (module, loss)."""
        return {
            "discriminator": (self.discriminator, self.discriminator_loss),
            "generator": (self.generator, self.generator_loss),
        }

    def noise(self, n: int, generator: RandomGenerator | None = None) -> Tensor:
        """n draws of N(0, I), (n, latent_dim), where the weights are."""
        weight = next(self.parameters())
        return torch.randn(n, self.latent_dim, generator=generator, device=weight.device, dtype=weight.dtype)

    def discriminator_loss(self, x: Tensor, generator: RandomGenerator | None = None) -> dict[str, Tensor]:
        """What D minimises for a batch x of data, means in nats; its mean verdicts, D(x) and D(G(z)); and the samples
        that it was "shown", for G's turn."""
        samples = self.generator(self.noise(len(x), generator))
        # one batch, because no layer of D mixes its images
        real, fake = self.discriminator(torch.cat([x.flatten(1), samples.detach()])).chunk(2)
        loss = discriminator_loss(real, fake, self.real_label).mean()
        return {"loss": loss, "D(x)": real.sigmoid().mean(), "D(G(z))": fake.sigmoid().mean(), "shown": samples}

    def generator_loss(
        self, x: Tensor, generator: RandomGenerator | None = None, samples: Tensor | None = None
    ) -> dict[str, Tensor]:
        """What G minimises, mean in nats over its samples (B, 784), or over len(x) new ones where None are given."""
        if samples is None:
            samples = self.generator(self.noise(len(x), generator))
        return {"loss": self.fooling(self.discriminator(samples)).mean()}

    @torch.no_grad()
    def sample(self, n: int, generator: RandomGenerator | None = None) -> Tensor:
        """n images (n, 1, 28, 28) in [0, 1], by batch norm's running statistics, so that none depends on the others."""
        was_training = self.training
        self.eval()
        images = (self.generator(self.noise(n, generator)) + 1) / 2
        self.train(was_training)
        return images.view(n, 1, 28, 28)
