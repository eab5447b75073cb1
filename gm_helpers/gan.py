"""The GANs of notebook 2 (Goodfellow et al. 2014): two players, and the losses of their game."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator as RandomGenerator
from torch import Tensor, nn

from gm_helpers import data
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


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor, rng: RandomGenerator | None = None) -> Tensor:
    """(|∇ critic| − 1)² at one random point between each real example and a fake one, (B,).

    real, fake: (B, D). critic: (B, D) to (B,). Keeps the critic's slope near 1, as a Wasserstein distance asks;
    Gulrajani et al. 2017, equation 3.
    """
    t = torch.rand(len(real), 1, generator=rng, device=real.device, dtype=real.dtype)
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
        self.generator: nn.Module = Generator(latent_dim)
        self.discriminator: nn.Module = Discriminator(dropout)

    def players(self) -> Players:
        """D moves first, then G: name -> (module, loss)."""
        return {
            "discriminator": (self.discriminator, self.discriminator_loss),
            "generator": (self.generator, self.generator_loss),
        }

    def noise(self, n: int, rng: RandomGenerator | None = None) -> Tensor:
        """n draws of N(0, I), (n, latent_dim), where the weights are."""
        weight = next(self.parameters())
        return torch.randn(n, self.latent_dim, generator=rng, device=weight.device, dtype=weight.dtype)

    def discriminator_loss(self, x: Tensor, rng: RandomGenerator | None = None) -> dict[str, Tensor]:
        """What D minimises for a batch x of data, means in nats; its mean verdicts, D(x) and D(G(z)); and the samples
        that it was "shown", for G's turn."""
        samples = self.generator(self.noise(len(x), rng))
        # one batch, because no layer of D mixes its images
        real, fake = self.discriminator(torch.cat([x.flatten(1), samples.detach()])).chunk(2)
        loss = discriminator_loss(real, fake, self.real_label).mean()
        return {"loss": loss, "D(x)": real.sigmoid().mean(), "D(G(z))": fake.sigmoid().mean(), "shown": samples}

    def generator_loss(
        self, x: Tensor, rng: RandomGenerator | None = None, samples: Tensor | None = None
    ) -> dict[str, Tensor]:
        """What G minimises, mean in nats over its samples (B, 784), or over len(x) new ones where None are given."""
        if samples is None:
            samples = self.generator(self.noise(len(x), rng))
        return {"loss": self.fooling(self.discriminator(samples)).mean()}

    @torch.no_grad()
    def sample(self, n: int, rng: RandomGenerator | None = None) -> Tensor:
        """n images (n, 1, 28, 28) in [0, 1], by batch norm's running statistics, so that none depends on the others."""
        was_training = self.training
        self.eval()
        images = (self.generator(self.noise(n, rng)) + 1) / 2
        self.train(was_training)
        return images.view(n, 1, 28, 28)


def rows(pixels: Tensor, rng: RandomGenerator | None = None) -> Tensor:
    """Rows of `data.labelled` as a conditional game takes them: grey values in [−1, 1], the label behind them as it is.

    uint8 (B, 785) -> float32 (B, 785). Draws nothing from rng.
    """
    return torch.cat([data.scale(pixels[:, :-1]), pixels[:, -1:].float()], dim=1)


class ConvolutionalGenerator(nn.Module):
    """Noise (B, latent_dim) and digits (B,) to images (B, 784) in [−1, 1]: 7×7, 14×14 and 28×28 places.

    The digit enters as ten numbers beside the noise, a 1 at its place and 0 elsewhere (Mirza & Osindero 2014). Each
    transposed convolution, 4×4 with stride 2, doubles the side; batch norm and ReLU before it (Radford et al. 2016).
    """

    def __init__(self, latent_dim: int = 64, width: int = 64):
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Linear(latent_dim + 10, 2 * width * 49), nn.Unflatten(1, (2 * width, 7, 7))),
            *(nn.BatchNorm2d(2 * width), nn.ReLU(), nn.ConvTranspose2d(2 * width, width, 4, 2, 1)),
            *(nn.BatchNorm2d(width), nn.ReLU(), nn.ConvTranspose2d(width, 1, 4, 2, 1), nn.Tanh(), nn.Flatten()),
        )

    def forward(self, z: Tensor, digits: Tensor) -> Tensor:
        """Images (B, 784) of these digits, int64 (B,), for noise z (B, latent_dim)."""
        return self.layers(torch.cat([z, F.one_hot(digits, 10).to(z)], dim=1)).to(z.dtype)


class ConvolutionalDiscriminator(nn.Module):
    """Images (B, 784) in [−1, 1] and digits (B,) to logits (B,) that the images are data, and of these digits.

    Each digit has a picture of its own, learnt, which is the second channel (Mirza & Osindero 2014); two convolutions,
    4×4 with stride 2, and LeakyReLU 0.2 (Radford et al. 2016). No batch norm, so that no image's verdict depends on
    the others. dropout: probability of setting a hidden number to 0 in training.
    """

    def __init__(self, width: int = 64, dropout: float = 0.0):
        super().__init__()
        self.pictures = nn.Embedding(10, PIXELS)
        self.layers = nn.Sequential(nn.Unflatten(1, (2, 28, 28)))
        for inputs, outputs in ((2, width), (width, 2 * width)):
            self.layers += nn.Sequential(nn.Conv2d(inputs, outputs, 4, 2, 1), nn.LeakyReLU(0.2), nn.Dropout(dropout))
        self.layers += nn.Sequential(nn.Flatten(), nn.Linear(2 * width * 49, 1))

    def forward(self, x: Tensor, digits: Tensor) -> Tensor:
        """Logits (B,)."""
        both = torch.cat([x.flatten(1), self.pictures(digits)], dim=1)
        return self.layers(both).squeeze(1).to(x.dtype)


class ConditionalGAN(GAN):
    """The game with the digit as input of both players: G draws the digit that it is told, D sees the same digit.

    A batch is rows (B, 785), images with their digits behind. D can tell a sample by its look, or because it is not the
    digit that was asked for.
    """

    def __init__(self, latent_dim: int = 64, width: int = 64, real_label: float = 0.9, dropout: float = 0.0):
        super().__init__(latent_dim, real_label=real_label)
        self.generator = ConvolutionalGenerator(latent_dim, width)
        self.discriminator = ConvolutionalDiscriminator(width, dropout)

    def discriminator_loss(self, x: Tensor, rng: RandomGenerator | None = None) -> dict[str, Tensor]:
        """As in a GAN, for rows (B, 785)."""
        images, digits = x[:, :-1], x[:, -1].long()
        samples = self.generator(self.noise(len(x), rng), digits)
        both = torch.cat([images, samples.detach()])
        real, fake = self.discriminator(both, digits.repeat(2)).chunk(2)
        loss = discriminator_loss(real, fake, self.real_label).mean()
        return {"loss": loss, "D(x)": real.sigmoid().mean(), "D(G(z))": fake.sigmoid().mean(), "shown": samples}

    def generator_loss(
        self, x: Tensor, rng: RandomGenerator | None = None, samples: Tensor | None = None
    ) -> dict[str, Tensor]:
        """As in a GAN; of the rows only the digits count, which `samples` were asked for."""
        digits = x[:, -1].long()
        if samples is None:
            samples = self.generator(self.noise(len(x), rng), digits)
        return {"loss": self.fooling(self.discriminator(samples, digits)).mean()}

    @torch.no_grad()
    def sample(self, n: int, rng: RandomGenerator | None = None, digits: Tensor | None = None) -> Tensor:
        """n images (n, 1, 28, 28) in [0, 1], of these digits (n,), or of digits drawn evenly."""
        z = self.noise(n, rng)
        if digits is None:
            digits = torch.randint(10, (n,), generator=rng, device=z.device)
        was_training = self.training
        self.eval()
        images = (self.generator(z, digits) + 1) / 2
        self.train(was_training)
        return images.view(n, 1, 28, 28)
