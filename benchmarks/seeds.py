"""What notebook 3 measures once, with other seeds: two bases in the plane, two kinds of layers at 8 × 8, and `flow-fc`.

The base of one normal against that of two, five seeds each, by the recipes of `flow-2d` in the profile quick: the
divergence from the data to the model, in nats, and the mass that it puts off the moons. Autoregressive
layers against coupling layers, three seeds each, by the study `flow-8x8` in the profile full: bits per dimension of all
test images, with one draw of the noise, the same for both. And `flow-fc` in the profile full, three seeds.

    .venv/bin/python benchmarks/seeds.py        # an hour on one core, beside other work; writes gm_helpers/seeds.csv
"""

import platform
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import torch

from gm_helpers import data, flows, metrics, recipes
from gm_helpers.files import write_atomically
from gm_helpers.flows import Flow
from gm_helpers.train import train

COMMAND = "python benchmarks/seeds.py"
TARGET = Path(recipes.__file__).parent / "seeds.csv"


def bases() -> Iterator[str]:
    """model;seed;measure;value of the flows of the plane."""
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


def main() -> None:
    """Train all, and write the table."""
    rows = [
        f"# {COMMAND}",
        f"# Python {platform.python_version()}, torch {torch.__version__}",
        "model;seed;measure;value",
    ]
    for part in (bases(), layers(), fully_connected()):
        for row in part:
            rows.append(row)
            print(row, flush=True)
    write_atomically(TARGET, ("\n".join(rows) + "\n").encode())


if __name__ == "__main__":
    main()
