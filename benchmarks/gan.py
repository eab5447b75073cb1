"""The course's GAN against the fully connected loop that is copied most often, for the same CPU time.

Both have the layers of notebook 2, section 2.5. The copied loop: torchvision's data set through a DataLoader, batches
of 64, Adam at 2e-4 with betas (0.5, 0.999), 0.8 given to batch norm as if it were the momentum (it is eps), binary
cross-entropy of sigmoids, no smoothing. Ours: the recipe `gan` in the profile `quick`, for as many steps as the time
allows. Printed is the Fréchet distance of 10,000 samples to the test images, in the course's classifier's features.

    .venv/bin/python benchmarks/gan.py --seconds 280 --seeds 0 1 2
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import cast

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import MNIST

from gm_helpers import data, metrics, recipes
from gm_helpers.train import train


def copied(seconds: float, seed: int) -> tuple[nn.Module, int]:
    """The usual loop, until the process has used that much CPU time; returns its generator and the steps it took."""
    torch.manual_seed(seed)

    def block(inputs: int, outputs: int, normalize: bool = True) -> list[nn.Module]:
        layers: list[nn.Module] = [nn.Linear(inputs, outputs)]
        if normalize:
            layers.append(nn.BatchNorm1d(outputs, 0.8))
        return [*layers, nn.LeakyReLU(0.2)]

    generator = nn.Sequential(
        *block(100, 128, normalize=False),
        *block(128, 256),
        *block(256, 512),
        *block(512, 1024),
        *(nn.Linear(1024, 784), nn.Tanh()),
    )
    discriminator = nn.Sequential(
        *(nn.Flatten(), nn.Linear(784, 512), nn.LeakyReLU(0.2)),
        *(nn.Linear(512, 256), nn.LeakyReLU(0.2), nn.Linear(256, 1), nn.Sigmoid()),
    )
    to_pixels = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.5], [0.5])])
    loader = DataLoader(MNIST(data.folder(), transform=to_pixels), batch_size=64, shuffle=True)
    optimizers = [
        torch.optim.Adam(player.parameters(), lr=2e-4, betas=(0.5, 0.999)) for player in (generator, discriminator)
    ]
    loss = nn.BCELoss()
    start = time.process_time()
    for steps, real in enumerate(_endless(loader), 1):
        valid, fake = torch.ones(len(real), 1), torch.zeros(len(real), 1)
        optimizers[0].zero_grad()
        samples = generator(torch.randn(len(real), 100))
        own = loss(discriminator(samples), valid)
        own.backward()
        optimizers[0].step()
        optimizers[1].zero_grad()
        other = (loss(discriminator(real), valid) + loss(discriminator(samples.detach()), fake)) / 2
        other.backward()
        optimizers[1].step()
        own.item(), other.item()  # as printed in each step
        if time.process_time() - start > seconds:
            return generator, steps
    raise AssertionError("the loader is endless")


def _endless(loader: DataLoader) -> Iterator[torch.Tensor]:
    while True:
        for images, _ in loader:
            yield images


def ours(seconds: float, seed: int) -> tuple[nn.Module, int]:
    """The course's recipe for as many steps as fit, which the first 50 steps tell; that trial counts too."""
    recipe = recipes.RECIPES["gan"]
    schedule = recipe.schedules["quick"]
    images = data.load("mnist", "train").pixels
    start = time.process_time()

    def run(steps: int) -> recipes.GAN:
        torch.manual_seed(seed)
        model = recipes.GAN(**recipe.arguments)
        train(model, images, recipe.prepare, **asdict(replace(schedule, steps=steps)), seed=seed)
        return model

    run(50)
    used = time.process_time() - start
    steps = round(50 * (seconds - used) / used)
    return run(steps).generator, steps


def main() -> None:
    """Print one line for each run, in turns."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=280, help="CPU seconds for each training")
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    told = options.parse_args()
    classifier = cast(metrics.DigitClassifier, recipes.pretrained("digit-classifier", "cpu"))
    real = metrics.in_parts(classifier.features, data.load("mnist", "test").pixels / 255)
    for seed in told.seeds:
        for name, fit in {"copied": copied, "ours": ours}.items():
            generator, steps = fit(told.seconds, seed)
            noise = torch.randn(10_000, 100, generator=torch.Generator().manual_seed(seed))
            with torch.no_grad():
                samples = (generator.eval()(noise) + 1) / 2
            distance = metrics.frechet_distance(metrics.in_parts(classifier.features, samples), real)
            print(f"seed {seed}, {name:6s}: {steps:,} steps, Fréchet distance {distance:.1f}", flush=True)


if __name__ == "__main__":
    main()
