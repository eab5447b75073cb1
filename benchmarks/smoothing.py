"""Does label smoothing decide whether the GAN learns? Label 1 or 0.9, with three recipes and three seeds.

All have the layers of notebook 2, section 2.5, batches of 64 and 4,000 steps. The recipes: the loop that is copied most
often, in which the generator moves first, Adam at 2e-4 with betas (0.5, 0.999), the last weights, and 0.8 given to
batch norm as if it were the momentum (it is eps); the same with batch norm's usual eps; and the course's, Adam at 5e-4
with betas (0, 0.999), and averaged weights. Written is the Fréchet distance of 10,000 samples to the 10,000 test images
in the course's classifier's features, which section 2.5 draws.

    .venv/bin/python benchmarks/smoothing.py        # 20 minutes on one core; writes gm_helpers/smoothing.csv
"""

import platform
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from gm_helpers import data, gan, metrics, recipes
from gm_helpers.files import write_atomically
from gm_helpers.gan import GAN
from gm_helpers.train import Players, train

COMMAND = "python benchmarks/smoothing.py"
TARGET = Path(recipes.__file__).parent / "smoothing.csv"
STEPS, BATCH, SEEDS = 4_000, 64, (0, 1, 2)
USUAL: dict[str, Any] = {"learning_rate": 2e-4, "betas": (0.5, 0.999)}
OURS: dict[str, Any] = {"learning_rate": 5e-4, "betas": (0.0, 0.999), "average": 0.99}


class Copied(GAN):
    """The game in the order of the copied loop: G moves against the old D, and D then learns from the same samples."""

    def __init__(self, real_label: float, eps: float):
        super().__init__(real_label=real_label)
        for layer in self.generator.modules():
            if isinstance(layer, nn.BatchNorm1d):
                layer.eps = eps

    def players(self) -> Players:
        return dict(reversed(super().players().items()))

    def generator_loss(self, x: Tensor, rng: torch.Generator | None = None, samples: Tensor | None = None) -> dict:
        samples = self.generator(self.noise(len(x), rng))
        return super().generator_loss(x, rng, samples) | {"shown": samples}

    def discriminator_loss(self, x: Tensor, rng: torch.Generator | None = None, samples: Tensor | None = None) -> dict:
        assert samples is not None
        real, fake = self.discriminator(torch.cat([x.flatten(1), samples.detach()])).chunk(2)
        return {"loss": gan.discriminator_loss(real, fake, self.real_label).mean()}


RECIPES = {
    "copied": (lambda label: Copied(label, 0.8), USUAL),
    "copied, batch norm mended": (lambda label: Copied(label, 1e-5), USUAL),
    "the course's": (lambda label: GAN(real_label=label), OURS),
}


def main() -> None:
    """Train all in turns, and write the table."""
    images = data.load("mnist", "train").pixels
    classifier = cast(metrics.DigitClassifier, recipes.pretrained("digit-classifier", "cpu"))
    real = metrics.in_parts(classifier.features, data.load("mnist", "test").pixels / 255)
    rows = [
        f"# {COMMAND}",
        f"# Python {platform.python_version()}, torch {torch.__version__}",
        "recipe;label;seed;frechet",
    ]
    for seed in SEEDS:
        for name, (make, plan) in RECIPES.items():
            for label in (1.0, 0.9):
                torch.manual_seed(seed)
                model = make(label)
                train(model, images, data.scale, steps=STEPS, batch_size=BATCH, bfloat16=True, seed=seed, **plan)
                samples = model.sample(10_000, torch.Generator().manual_seed(seed))
                distance = metrics.frechet_distance(metrics.in_parts(classifier.features, samples), real)
                rows.append(f"{name};{label:g};{seed};{distance:.1f}")
                print(rows[-1], flush=True)
    write_atomically(TARGET, ("\n".join(rows) + "\n").encode())


if __name__ == "__main__":
    main()
