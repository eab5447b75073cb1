"""The game of a GAN in the plane, to be played step by step: its players are small, and its data known."""

import math
from collections.abc import Callable

import torch
from torch import Generator as RandomGenerator
from torch import Tensor, nn

from gm_helpers import data, gan
from gm_helpers.nn import mlp

BATCH, SHOWN = 128, 300  # points of each kind for a step, and of those that stay the same in the whole game
TURNS = 50  # of one run
CRITIC_STEPS = 5  # for each step of G, so that the critic's slope tells where the data are; Gulrajani et al. 2017
PENALTY = 1.0  # theirs is 10, for images; with 3 the critic gives way so slowly that the samples overshoot for 50 turns
RATES = {"D": 8e-3, "G": 4e-3}  # tried on three seeds: with half of G's rate the ring takes 500 turns, not 350
BETAS = 0.0, 0.9


def one_normal(n: int, generator: RandomGenerator | None = None) -> Tensor:
    """n points (n, 2), float32, of a normal with the mean (0.8, 0.5) and the deviation 0.3."""
    return torch.tensor([0.8, 0.5]) + 0.3 * torch.randn(n, 2, generator=generator)


POINTS: dict[str, Callable[[int, RandomGenerator], Tensor]] = {
    "ring of eight": data.ring_of_gaussians,
    "two moons": data.two_moons,
    "one normal": one_normal,
}
LOSSES: dict[str, Callable[[Tensor], Tensor]] = {  # what G minimises, by the logits or, the last, the critic's values
    "non-saturating": gan.non_saturating,
    "saturating": gan.saturating,
    "Wasserstein": torch.neg,
}


class Game2D:
    """G carries normal noise (B, 2) to points (B, 2); D gives logits (B,) that points are data, or is a critic.

    points, loss: names in POINTS and LOSSES. The same seed and the same moves give the same game.
    """

    def __init__(self, points: str = "ring of eight", loss: str = "non-saturating", seed: int = 0):
        self.points, self.loss, self.seed = points, loss, seed
        self.start()

    def start(self) -> None:
        """Begin anew, always with the same players."""
        self.rng = RandomGenerator().manual_seed(self.seed)
        with torch.random.fork_rng(devices=[]):  # layers draw their weights from torch's own generator
            torch.default_generator.manual_seed(self.seed)
            self.generator = mlp((2, 32, 32, 2), nn.Tanh)
            self.discriminator = nn.Sequential(mlp((2, 32, 32, 1), nn.LeakyReLU), nn.Flatten(0))
        self.weights = {"D": [*self.discriminator.parameters()], "G": [*self.generator.parameters()]}
        self.optimizers = {own: torch.optim.Adam(self.weights[own], RATES[own], BETAS) for own in self.weights}
        self.steps = dict.fromkeys(self.weights, 0)
        # of each player's steps: how many both had made then, and its loss just before
        self.history: dict[str, list[tuple[int, float]]] = {own: [] for own in self.weights}
        self.real, self.noise = POINTS[self.points](SHOWN, self.rng), self.draw_noise(SHOWN)

    @property
    def is_wasserstein(self) -> bool:
        """Whether D is a critic."""
        return self.loss == "Wasserstein"

    def choose(self, points: str, loss: str) -> None:
        """Play with that. Other data, or another meaning of D, start a new game; else G's loss alone is another."""
        before = self.points, self.loss, self.is_wasserstein
        self.points, self.loss = points, loss
        if (points, self.is_wasserstein) != before[::2]:
            self.start()
        elif loss != before[1]:
            self.history["G"].append((sum(self.steps.values()), math.nan))  # two losses are not one curve

    def draw_noise(self, n: int) -> Tensor:
        """n draws of N(0, I), (n, 2)."""
        return torch.randn(n, 2, generator=self.rng)

    def step_discriminator(self) -> None:
        """One step of Adam for D alone, by new data and new samples."""
        real = POINTS[self.points](BATCH, self.rng)
        fake = self.samples(self.draw_noise(BATCH))
        on_real, on_fake = self.discriminator(torch.cat([real, fake])).chunk(2)
        if self.is_wasserstein:
            loss = on_fake - on_real + PENALTY * gan.gradient_penalty(self.discriminator, real, fake, self.rng)
        else:
            loss = gan.discriminator_loss(on_real, on_fake)
        self._step("D", loss.mean())

    def step_generator(self) -> None:
        """One step of Adam for G alone, by new samples."""
        self._step("G", self.generator_loss(self.draw_noise(BATCH)))

    def run(self, turns: int = TURNS) -> None:
        """So many turns: a step of D, or CRITIC_STEPS of a critic, and one of G."""
        for _ in range(turns):
            for _ in range(CRITIC_STEPS if self.is_wasserstein else 1):
                self.step_discriminator()
            self.step_generator()

    def alone(self, player: str) -> None:
        """TURNS steps of one player, "D" or "G", while the other stands still."""
        for _ in range(TURNS):
            (self.step_discriminator if player == "D" else self.step_generator)()

    def _step(self, player: str, loss: Tensor) -> None:
        self.optimizers[player].zero_grad()
        loss.backward(inputs=self.weights[player])
        self.optimizers[player].step()
        self.steps[player] += 1
        self.history[player].append((sum(self.steps.values()), loss.item()))

    def generator_loss(self, noise: Tensor) -> Tensor:
        """The mean of what G minimises over its samples for this noise (B, 2): a number."""
        loss = LOSSES[self.loss](self.discriminator(self.generator(noise))).mean()
        # a critic's values have no zero of their own, so beside those of data; for G that is a constant
        return loss + self.verdicts(self.real).mean() if self.is_wasserstein else loss

    def gradient_norm(self) -> float:
        """The norm of G's gradient for the noise that is shown."""
        slopes = torch.autograd.grad(self.generator_loss(self.noise), self.weights["G"])
        return torch.cat([own.flatten() for own in slopes]).norm().item()

    def pull(self, x: Tensor) -> Tensor:
        """Where samples x (B, 2) would go to lower G's loss: minus the gradient of the loss on each, (B, 2)."""
        x = x.detach().requires_grad_()
        return -torch.autograd.grad(LOSSES[self.loss](self.discriminator(x)).sum(), x)[0]

    @torch.no_grad()
    def samples(self, noise: Tensor | None = None) -> Tensor:
        """G's points (B, 2) for noise (B, 2); without any, those of the picture, (SHOWN, 2)."""
        return self.generator(self.noise if noise is None else noise)

    @torch.no_grad()
    def verdicts(self, x: Tensor) -> Tensor:
        """What D says of points x (B, 2): the probability that they are data, or the critic's value, (B,)."""
        return self.discriminator(x) if self.is_wasserstein else self.discriminator(x).sigmoid()

    def distance(self) -> float:
        """The critic's estimate of the Wasserstein distance from the samples that are shown to the data.

        A value that rises by at most 1 for each unit of length can't differ more between the two; so the difference is
        divided by the steepest slope that is found at them and half way from one to the other.
        """
        samples = self.samples()
        slopes = self.pull(torch.cat([samples, self.real, (samples + self.real) / 2])).norm(dim=1)
        return ((self.verdicts(self.real).mean() - self.verdicts(samples).mean()) / slopes.max()).item()
