"""What the notebooks measure once, with other seeds: VAEs that differ in β alone, two bases in the plane, two kinds of
layers at 8 × 8, and `flow-fc`.

Notebook 1: six β, five seeds each, by the study `vae-short` in the profile quick: active units, KL and −ELBO in nats on
the first 5,000 test images. Notebook 3: the base of one normal against that of two, five seeds each, by the recipes of
`flow-2d` in the profile quick: the divergence from the data to the model, in nats, and the mass that it puts off the
moons. Autoregressive layers against coupling layers, three seeds each, by the study `flow-8x8` in the profile full:
bits per dimension of all test images, with one draw of the noise, the same for both. And `flow-fc`, three seeds each:
in the profile full, and in quick with its ActNorm and without.

    .venv/bin/python benchmarks/seeds.py        # an hour on one core, beside other work; writes gm_helpers/seeds.csv
    .venv/bin/python benchmarks/seeds.py betas  # five minutes: the rows of that part anew, and the others kept
"""

import argparse
import platform
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import cast

import torch
from torch import nn

from gm_helpers import data, flows, metrics, recipes
from gm_helpers.bijections import ActNorm
from gm_helpers.files import write_atomically
from gm_helpers.flows import Flow
from gm_helpers.train import train
from gm_helpers.vae import VAE

COMMAND = "python benchmarks/seeds.py"
TARGET = Path(recipes.__file__).parent / "seeds.csv"


class BetaVAE(VAE):
    """A VAE whose loss weighs the KL by β (Higgins et al. 2017), as in notebook 1."""

    def __init__(self, beta: float):
        super().__init__(latent_dim=20)
        self.beta = beta

    def loss(self, x, generator=None):
        """The reconstruction error and β times the KL, means over the batch, in nats."""
        terms = super().loss(x, generator)
        return {**terms, "loss": terms["reconstruction_error"] + self.beta * terms["kl"]}


def betas() -> Iterator[str]:
    """model;seed;measure;value of the VAEs that differ in β."""
    training, test = (data.load("mnist", own).pixels for own in ("train", "test"))
    x = data.binarize(test[:5000], torch.Generator().manual_seed(100))
    for seed in range(5):
        for beta in (0.1, 0.3, 1.0, 3.0, 10.0, 100.0):
            torch.manual_seed(seed)
            model = BetaVAE(beta)
            train(model, training, data.binarize, **recipes.study("vae-short", "quick"), seed=seed)
            torch.manual_seed(100)
            with torch.no_grad():
                reconstruction, kl = (own.mean().item() for own in model.eval().elbo_terms(x))
                active = metrics.active_units(model.encode(x)[0]).sum().item()
            for measure, value in (("active", active), ("kl", kl), ("negative_elbo", kl - reconstruction)):
                yield f"vae-beta-{beta:g};{seed};{measure};{value:.4g}"


def bases() -> Iterator[str]:
    """The same of the flows of the plane."""
    points = data.two_moons(100_000, torch.Generator().manual_seed(100))
    entropy = -data.two_moons_log_prob(points).mean().item()
    for seed in range(5):
        for name in ("flow-2d", "flow-2d-two-humps"):
            flow = cast(Flow, recipes.fit(name, "quick", seed=seed, device="cpu")[0]).double()
            cross_entropy = -metrics.in_parts(flow.log_prob, points.double()).mean().item()
            yield f"{name};{seed};divergence;{cross_entropy - entropy:.4f}"
            mass = metrics.mass(flow.log_prob, (-2.5, -2.5), (2.5, 2.5), 501, data.off_the_moons)
            yield f"{name};{seed};mass;{mass:.7f}"


def layers() -> Iterator[str]:
    """The same of the flows over small images."""
    training, test = (data.averaged(data.load("mnist", own).pixels, 8) for own in ("train", "test"))
    for seed in range(3):
        for name in ("coupling", "autoregressive"):
            torch.manual_seed(seed)
            flow = flows.flow_8x8(autoregressive=name == "autoregressive")
            train(flow, training, data.levels, **recipes.study("flow-8x8", "full"), seed=seed)
            with torch.no_grad():
                log_prob = flow.eval().elbo(test.float(), torch.Generator().manual_seed(100))
            yield f"{name};{seed};bits;{flows.bits_per_dim(log_prob, 64).mean().item():.4f}"


def fully_connected() -> Iterator[str]:
    """The same of `flow-fc`."""
    test = data.load("mnist", "test").pixels.float()
    for seed in range(3):
        flow = cast(flows.ImageFlow, recipes.fit("flow-fc", "full", "mnist", seed, "cpu")[0])
        rng = torch.Generator().manual_seed(100)
        log_prob = metrics.in_parts(lambda x, own=flow, rng=rng: own.elbo(x, rng), test)
        yield f"flow-fc;{seed};bits;{flows.bits_per_dim(log_prob).mean().item():.4f}"


def act_norm() -> Iterator[str]:
    """The same of `flow-fc` in the profile quick, with its ActNorm and without."""
    recipe, training = recipes.RECIPES["flow-fc"], data.load("mnist", "train").pixels
    test = data.load("mnist", "test").pixels.float()
    for seed in range(3):
        for name in ("act-norm", "no-act-norm"):
            torch.manual_seed(seed)
            flow = cast(flows.ImageFlow, recipe.model(**recipe.arguments_in("quick")))
            if name == "no-act-norm":
                layers = (own for own in flow.bijection.layers if not isinstance(own, ActNorm))
                flow.bijection.layers = nn.ModuleList(layers)
            train(flow, training, recipe.prepare, **asdict(recipe.schedules["quick"]), seed=seed)
            flow.eval()
            rng = torch.Generator().manual_seed(100)
            log_prob = metrics.in_parts(lambda x, own=flow, rng=rng: own.elbo(x, rng), test)
            yield f"{name};{seed};bits;{flows.bits_per_dim(log_prob).mean().item():.4f}"


PARTS = {
    "betas": betas,
    "bases": bases,
    "layers": layers,
    "fully_connected": fully_connected,
    "act_norm": act_norm,
}
BELONGS = {  # how a row begins -> its part; the rest are layers
    "vae-beta": "betas",
    "flow-2d": "bases",
    "flow-fc": "fully_connected",
    "act-norm": "act_norm",
    "no-act-norm": "act_norm",
}


def main() -> None:
    """Train what is named, or all, and write the table; rows of the other parts stay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parts = parser.parse_args().parts or [*PARTS]
    old = TARGET.read_text(encoding="utf-8").splitlines()[3:] if TARGET.is_file() else []
    rows = [
        f"# {COMMAND}",
        f"# Python {platform.python_version()}, torch {torch.__version__}",
        "model;seed;measure;value",
    ]
    for name, part in PARTS.items():
        for row in part() if name in parts else (own for own in old if part_of(own) == name):
            rows.append(row)
            print(row, flush=True)
    write_atomically(TARGET, ("\n".join(rows) + "\n").encode())


def part_of(row: str) -> str:
    """Which part made that row."""
    return next((part for start, part in BELONGS.items() if row.startswith(start)), "layers")


if __name__ == "__main__":
    main()
