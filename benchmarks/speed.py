"""Images per second in training: this course beside the loop that is usually copied, and beside other libraries.

All contenders of a family train the same architecture with the same batch size, in rounds in turn (A B C A B C …), each
going on where its last round ended; the first round warms up and isn't counted. Printed is the median over the rounds
with the smallest and largest, its ratio to the usual loop's (for flows to zuko's), and the loss of each one's last
round, so that nobody is fast by doing less. On a CPU all train on the same number of images; on a GPU this course's
rounds are longer, because a second wouldn't do for the capture of its step, and its losses are those of longer runs.
Then come the floating-point operations that this course's float32 training reaches, as a share of the fastest matrix
product of this machine, and what happens before a training. A contender that can't run here is left out with a line.

    make bench                                      # installs the other libraries into .venv-bench first
    python benchmarks/speed.py --device cuda        # wherever torch is, with what else is there
"""

import argparse
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from gm_helpers import data, flows, gan, recipes, vae
from gm_helpers.train import train

BATCH = 128
STEPS = {"vae": 300, "gan": 100, "flow": 30}  # of each round: one to four seconds of this course
LONGER = {"vae": 40, "gan": 40, "flow": 60}  # times as many for this course on a GPU
HIDDEN = recipes.RECIPES["flow-fc"].arguments["hidden"]  # units of each layer in a coupling's network
REFERENCES = {"vae": "usual loop", "gan": "usual loop", "flow": "zuko"}
Trainer = Callable[[int], float]  # trains for so many steps, returns their mean loss


# ---------------------------------------------------------------- this course


def ours(name: str) -> dict[str, Callable[[str], Trainer]]:
    """The course's own loop, its model and its learning rate, in each way that a recipe can choose."""

    def make(device: str, **way: Any) -> Trainer:
        recipe = recipes.RECIPES[name]
        plan = recipe.schedules["quick"]
        images = recipe.inputs("mnist", "train", device)
        torch.manual_seed(0)
        model = recipe.model(**recipe.arguments).to(device)

        def run(steps: int) -> float:
            own = {"learning_rate": plan.learning_rate, "betas": plan.betas, "average": plan.average}
            history = train(
                model, images, recipe.prepare, steps=steps, batch_size=BATCH, title=name, **own, **way
            ).history
            return statistics.mean(sum(player["loss"] for player in row["train"].values()) for row in history)

        return run

    return {
        "this course, float32": make,
        "this course, bfloat16 where faster": lambda device: make(device, bfloat16=True),
    }


# ---------------------------------------------------------------- the loops that are usually copied


def batches(device: str, *further: Callable) -> Iterator[Tensor]:
    """MNIST as most scripts read it."""
    from torchvision import transforms
    from torchvision.datasets import MNIST

    dataset = MNIST(data.folder(), transform=transforms.Compose([transforms.ToTensor(), *further]))
    while True:
        for images, _ in DataLoader(dataset, batch_size=BATCH, shuffle=True, drop_last=True):
            yield images.to(device)


def plain(
    model: nn.Module, loss: Callable[[Tensor], Tensor], loader: Iterator[Tensor], learning_rate: float
) -> Trainer:
    """Adam, a loader, and the loss asked for in each step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)

    def run(steps: int) -> float:
        total = 0.0
        for _ in range(steps):
            value = loss(next(loader))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            total += value.item()
        return total / steps

    return run


def plain_vae(device: str) -> Trainer:
    """Binary cross-entropy of sigmoids, summed."""
    model = vae.VAE(20).to(device)

    def loss(x: Tensor) -> Tensor:
        x = torch.bernoulli(x).view(-1, 784)
        mean, log_var = model.encode(x)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_var)
        reconstruction = F.binary_cross_entropy(torch.sigmoid(model.decode(z)), x, reduction="sum")
        return (reconstruction - 0.5 * torch.sum(1 + log_var - mean.pow(2) - log_var.exp())) / len(x)

    return plain(model, loss, batches(device), 2e-3)


def plain_gan(device: str) -> Trainer:
    """G moves first, D sees the same samples; binary cross-entropy of sigmoids; one Adam for each."""
    from torchvision import transforms

    generator, discriminator = gan.Generator(100).to(device), gan.Discriminator().to(device)
    optimizers = [torch.optim.Adam(own.parameters(), lr=2e-4, betas=(0.5, 0.999)) for own in (generator, discriminator)]
    criterion, loader = nn.BCELoss(), batches(device, transforms.Normalize([0.5], [0.5]))

    def run(steps: int) -> float:
        total = 0.0
        for _ in range(steps):
            real = next(loader)
            valid, fake = torch.ones(len(real), device=device), torch.zeros(len(real), device=device)
            optimizers[0].zero_grad()
            samples = generator(torch.randn(len(real), 100, device=device))
            generator_loss = criterion(torch.sigmoid(discriminator(samples)), valid)
            generator_loss.backward()
            optimizers[0].step()
            optimizers[1].zero_grad()
            on_real = criterion(torch.sigmoid(discriminator(real)), valid)
            discriminator_loss = on_real + criterion(torch.sigmoid(discriminator(samples.detach())), fake)
            discriminator_loss.backward()
            optimizers[1].step()
            total += generator_loss.item() + discriminator_loss.item()
        return total / steps

    return run


def plain_flow(device: str) -> Trainer:
    """The course's model in the usual loop."""
    model = flows.flow_fully_connected(hidden=HIDDEN).to(device)
    return plain(model, lambda x: model.loss(255 * x)["loss"], batches(device), 1e-3)


# ---------------------------------------------------------------- other libraries


def pythae_vae(device: str) -> Trainer:
    """pythae's trainer, with networks of the same sizes."""
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.net = vae.VAE(20)

        def forward(self, x: Tensor) -> ModelOutput:
            mean, log_var = self.net.encode(x)
            return ModelOutput(embedding=mean, log_covariance=log_var)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.net = vae.VAE(20).decoder

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=torch.sigmoid(self.net(z)).view(-1, 1, 28, 28))

    model = VAE(VAEConfig(input_dim=(1, 28, 28), latent_dim=20, reconstruction_loss="bce"), Encoder(), Decoder())
    folder = tempfile.TemporaryDirectory()  # for files that the trainer would write at the end

    @functools.cache
    def trainer(steps: int) -> BaseTrainer:
        """Whose epoch has so many steps, by a DataLoader over as many images."""
        images = data.binarize(data.load("mnist", "train").pixels[: steps * BATCH], torch.Generator().manual_seed(0))
        told = BaseTrainerConfig(
            output_dir=folder.name,
            per_device_train_batch_size=BATCH,
            learning_rate=2e-3,
            no_cuda=device == "cpu",
        )
        own = BaseTrainer(model, BaseDataset(images, torch.zeros(len(images))), training_config=told)
        own.prepare_training()
        return own

    return lambda steps: float(trainer(steps).train_step(epoch=1))


def library_flow(log_prob: Callable[[Tensor], Tensor], model: nn.Module, device: str) -> Trainer:
    """A library's density of the logits, standardised by the first batch, with images that lie in memory, as here."""
    logits = flows.Stack([*flows.pixels_to_logits(1e-5), flows.ActNorm((1, 28, 28)), flows.Flatten((1, 28, 28))]).to(
        device
    )
    images = data.load("mnist", "train", device).pixels

    def loader() -> Iterator[Tensor]:
        while True:
            yield images[torch.randint(len(images), (BATCH,), device=device)]

    def loss(x: Tensor) -> Tensor:
        h, log_det = logits(x + torch.rand(x.shape, device=device))
        return flows.bits_per_dim(log_prob(h) + log_det).mean()

    return plain(model, loss, loader(), 1e-3)


def zuko_flow(device: str) -> Trainer:
    """zuko's coupling transforms and networks, of the same sizes and masks."""
    import zuko
    from zuko.flows.coupling import GeneralCouplingTransform

    layers = [
        GeneralCouplingTransform(784, mask=mask.bool(), hidden_features=(HIDDEN, HIDDEN))
        for mask in flows.alternate(flows.checkerboard(28, 28), 8)
    ]
    base = zuko.lazy.UnconditionalDistribution(
        zuko.distributions.DiagNormal, torch.zeros(784), torch.ones(784), buffer=True
    )
    model = zuko.lazy.Flow(layers, base).to(device)
    return library_flow(lambda h: model().log_prob(h), model, device)


def nflows_flow(device: str) -> Trainer:
    """nflows' affine couplings, with networks of the same sizes and masks."""
    from nflows.distributions.normal import StandardNormal
    from nflows.flows import Flow
    from nflows.nn.nets import MLP
    from nflows.transforms import AffineCouplingTransform, CompositeTransform

    class Network(MLP):
        def forward(self, inputs: Tensor, context: None = None) -> Tensor:
            return super().forward(inputs)

    layers = [
        AffineCouplingTransform(1 - mask, lambda inputs, outputs: Network([inputs], [outputs], [HIDDEN, HIDDEN]))
        for mask in flows.alternate(flows.checkerboard(28, 28), 8)
    ]
    model = Flow(CompositeTransform(layers), StandardNormal([784])).to(device)
    return library_flow(model.log_prob, model, device)


FAMILIES: dict[str, dict[str, Callable[[str], Trainer]]] = {
    "vae": {
        **ours("vae-20d"),
        "usual loop": plain_vae,
        "pythae": pythae_vae,
    },
    "gan": {**ours("gan"), "usual loop": plain_gan},
    "flow": {
        **ours("flow-fc"),
        "usual loop": plain_flow,
        "zuko": zuko_flow,
        "nflows": nflows_flow,
    },
}


# ---------------------------------------------------------------- measuring


def flops_per_image(train_steps: Trainer) -> float:
    """Of matrix products, forward and backward, counted in one step."""
    with FlopCounterMode(display=False) as counter:
        train_steps(1)
    return counter.get_total_flops() / BATCH


def ceiling(device: str) -> float:
    """Operations per second of the fastest of some float32 matrix products, each the best of ten."""

    def once(size: int) -> float:
        a, b = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
        start = time.perf_counter()
        (a @ b)[0, 0].item()
        return 2 * size**3 / (time.perf_counter() - start)

    return max(once(size) for size in (512, 1024, 2048) for _ in range(10))


def measure(family: str, rounds: int, device: str) -> dict:
    """Name -> images per second of each round, and the last one's loss; with the share of the ceiling."""
    found: dict[str, dict] = {}
    contenders: dict[str, Trainer] = {}
    for name, make in FAMILIES[family].items():
        try:
            run = make(device)
            run(2)
        except Exception as error:  # any: what others' code raises shall not cost the rest of the table
            print(f"{family}, {name}: left out ({type(error).__name__}: {error}).", file=sys.stderr)
        else:
            contenders[name] = run
    for number in range(rounds + 1):
        for name, run in contenders.items():
            steps = STEPS[family] * (LONGER[family] if device == "cuda" and name.startswith("this course") else 1)
            start = time.perf_counter()
            loss = run(steps)
            rate = steps * BATCH / (time.perf_counter() - start)
            found.setdefault(name, {"rates": []})["loss"] = loss
            found[name]["rates"] += [rate] if number else []
    peak = ceiling(device)
    own = found["this course, float32"]
    flops = flops_per_image(contenders["this course, float32"])
    own["share of the ceiling"] = statistics.median(own["rates"]) * flops / peak
    return found


def before_training() -> dict[str, float]:
    """Seconds in a fresh process: torch's import, the course's modules after it, MNIST read and verified."""
    script = """import time; a = time.perf_counter()
import torch; b = time.perf_counter()
from gm_helpers import data, flows, gan, metrics, recipes, vae; c = time.perf_counter()
for split in ("train", "test"): data.load("mnist", split)
print(b - a, c - b, time.perf_counter() - c)"""
    runs = [
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True) for _ in range(5)
    ]
    columns = zip(*(map(float, run.stdout.split()) for run in runs), strict=True)
    names = ("import torch", "import of gm_helpers' modules after it", "MNIST, read and verified")
    return dict(zip(names, map(statistics.median, columns), strict=True))


def installed(package: str) -> str:
    """Its version, or nothing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def table(results: dict[str, dict[str, dict]], card: str = "") -> str:
    """Threads -> family -> what `measure` found, as Markdown: rates, their range, and the ratio to the reference.

    card: the name of the GPU, where it was one.
    """
    names = {"1": "One thread", "2": "Two threads"}
    counts = [card or names.get(threads, f"{threads} threads") for threads in results]
    lines = ["| Model | Trained by | " + " | ".join(counts) + " | Loss |", "|---" * (3 + len(counts)) + "|"]
    for family, contenders in next(iter(results.values())).items():
        for name, own in contenders.items():
            cells = []
            for families in results.values():
                rates, reference = families[family][name]["rates"], families[family].get(REFERENCES[family])
                cell = f"{statistics.median(rates):,.0f} ({min(rates):,.0f}–{max(rates):,.0f})"
                if reference:
                    cell += f", **{statistics.median(rates) / statistics.median(reference['rates']):.2f}**"
                cells.append(cell)
            lines.append(f"| {family} | {name} | {' | '.join(cells)} | {own['loss']:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure in a process of its own for each number of threads, print tables, write them as JSON."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    options.add_argument("--device", default="cpu")
    options.add_argument("--json", type=Path, help="default: speed-DEVICE.json beside this file")
    options.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    told = options.parse_args()
    if told.worker:
        torch.set_num_threads(told.threads[0])
        print(json.dumps({family: measure(family, told.rounds, told.device) for family in told.families}))
        return
    results = {}
    for threads in told.threads if told.device == "cpu" else [torch.get_num_threads()]:
        command = [sys.executable, __file__, "--worker", "--threads", str(threads), "--rounds", str(told.rounds)]
        command += ["--device", told.device, "--families", *told.families]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TQDM_DISABLE": "1"}
        run = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        results[str(threads)] = json.loads(run.stdout.splitlines()[-1])
    seconds = before_training()
    card = torch.cuda.get_device_name() if told.device == "cuda" else ""
    print(table(results, card))
    for threads, families in results.items():
        shares = ", ".join(
            f"{family} {own['this course, float32']['share of the ceiling']:.0%}" for family, own in families.items()
        )
        print(f"\nShare of the fastest float32 matrix product, {threads} threads: {shares}.")
    print("\n" + "; ".join(f"{name}: {own:.2f} s" for name, own in seconds.items()) + ".")
    packages = {name: own for name in ("torch", "zuko", "nflows", "pythae") if (own := installed(name))}
    machine = {"cpu": platform.machine(), "cores": os.cpu_count(), "device": card or told.device}
    content = {"date": date.today().isoformat(), "machine": machine, "versions": packages}
    target = told.json or Path(__file__).with_name(f"speed-{told.device}.json")
    target.write_text(json.dumps(content | {"threads": results, "seconds": seconds}, indent=1) + "\n")


if __name__ == "__main__":
    main()
