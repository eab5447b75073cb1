"""The one table of trainings: for each name the model, its arguments and how it is trained, in each profile."""

import hashlib
import inspect
import json
import math
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor, nn

from gm_helpers import checkpoint, data, files, gan, metrics, settings
from gm_helpers.checkpoint import CheckpointError
from gm_helpers.classifier import DigitClassifier
from gm_helpers.device import choose_device
from gm_helpers.files import UsageError
from gm_helpers.flow_matching import ImageFlowMatching, matching_2d, matching_images
from gm_helpers.flows import flow_2d, flow_convolutional, flow_fully_connected
from gm_helpers.gan import GAN, ConditionalGAN
from gm_helpers.train import DivergenceError, Game, Prepare, Run, check_seed, train
from gm_helpers.vae import VAE, GreyVAE

WEIGHTS = Path(__file__).parent / "weights"
Settings = Mapping[str, Any]  # a person's values for arguments of a model and fields of a schedule
NONE: Settings = MappingProxyType({})
CURVE_IMAGES = 2000  # validation images on which a run's curves are measured


@dataclass(frozen=True)
class Schedule:
    """One Adam run, told to `train`."""

    steps: int
    batch_size: int
    learning_rate: float
    decay: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    average: float = 0.0
    bfloat16: bool = False
    warm_up: float = 0.0


def _pixels(dataset: str, split: str, device: Any) -> Tensor:
    return data.load(dataset, split, device).pixels


def _labelled(dataset: str, split: str, device: Any) -> Tensor:
    return data.labelled(data.load(dataset, split, device))


def _moons(dataset: str, split: str, device: Any) -> Tensor:
    seed = ("train", "val", "test").index(split)
    return data.two_moons(50_000 if split == "train" else 10_000, torch.Generator().manual_seed(seed)).to(device)


@dataclass(frozen=True)
class Recipe:
    """A model and its arguments, what is done to the pixels, what is measured, and a schedule for each profile.

    kind: "vae", "flow", "gan", "matching" or "classifier". in_full: arguments that the model has besides in the profile
    `full`. inputs: the tensor whose rows are drawn in training, for a data set, a split of it and a device. points: the
    name of what it draws itself, where these are no images of a data set. shipped: whether its weights of the profile
    `full` come with the course. kept: the only part of the model that is written, where the rest serves its training
    alone.
    """

    kind: str
    model: Callable[..., Game]
    arguments: dict[str, Any]
    prepare: Prepare
    measure: Callable[..., dict[str, float]]
    schedules: dict[str, Schedule]
    inputs: Callable[[str, str, Any], Tensor] = _pixels
    points: str = ""
    shipped: bool = True
    in_full: dict[str, Any] = field(default_factory=dict)
    kept: str = ""

    def arguments_in(self, profile: str) -> dict[str, Any]:
        """What the model is made with in that profile."""
        return self.arguments | (self.in_full if profile == "full" else {})


# On validation images, in nats: decay gains 1.1 in `full` and loses 1.2 in `quick`, which has no time for small steps;
# in `full`, batches of 512 at 2e-3 gain 1.4 over batches of 128 at 1e-3 in runs of the same duration on a GPU. bfloat16
# brings `quick` from 27 to 16 s on two cores, with a mean −ELBO of 104.8 in three runs as without it.
VAE_SCHEDULES = {
    "smoke": Schedule(steps=60, batch_size=128, learning_rate=2e-3, decay=False),
    "quick": Schedule(steps=3_500, batch_size=128, learning_rate=2e-3, decay=False, bfloat16=True),
    "full": Schedule(steps=60_000, batch_size=512, learning_rate=2e-3, decay=True),
}

CLASSIFIER_SCHEDULES = {
    "smoke": Schedule(steps=60, batch_size=128, learning_rate=2e-3, decay=True),
    "quick": Schedule(steps=1_000, batch_size=128, learning_rate=2e-3, decay=True),
    "full": Schedule(steps=6_000, batch_size=256, learning_rate=1e-3, decay=True),
}

# What each choice bought, as the Fréchet distance on validation images. In `quick`, five seeds (sweeps/course.csv):
# betas (0.5, 0.999) without an average of the weights 149 ± 7, with it 102 ± 7; beta₁ = 0 without it 46 ± 6, with it
# 23.5 ± 0.7. One run each: after 10,000 steps of batch 128 as usually copied, betas (0.5, 0.999), label 0.9: 40; with
# the average of the weights 17; with beta₁ = 0 besides 6.8.
# In `full` without dropout 3.5, and after 10,000 steps more 6.3, with the digits' shares uneven; with dropout 0.1 2.7.
# What can be had in a minute of two cores without bfloat16, two seeds each: 2,500 steps of 128 images without dropout
# 23.8 and 24.3, 2,400 with dropout 32.0 and 31.4, 1,200 of 256 images with it 49 and 48.
GAN_SCHEDULES = {
    "smoke": Schedule(steps=60, batch_size=128, learning_rate=5e-4, decay=False, betas=(0.0, 0.999), average=0.9),
    "quick": Schedule(
        steps=2_600, batch_size=128, learning_rate=5e-4, decay=False, betas=(0.0, 0.999), average=0.99, bfloat16=True
    ),
    "full": Schedule(
        steps=20_000, batch_size=512, learning_rate=4e-4, decay=False, betas=(0.0, 0.999), average=0.999, bfloat16=True
    ),
}
GAN_CONV_SCHEDULES = {
    "smoke": Schedule(steps=2, batch_size=64, learning_rate=3e-4, decay=True, betas=(0.0, 0.999), average=0.9),
    "quick": Schedule(
        steps=400, batch_size=128, learning_rate=3e-4, decay=True, betas=(0.0, 0.999), average=0.99, bfloat16=True
    ),
    "full": Schedule(
        steps=12_000, batch_size=128, learning_rate=3e-4, decay=True, betas=(0.0, 0.999), average=0.999, bfloat16=True
    ),
}

# What each choice bought, in bits per dimension. On the test images, after the steps of `quick`, three seeds each
# (benchmarks/seeds.py): for flow-fc ActNorm 0.05, 1.928 ± 0.007 to 1.874 ± 0.001. On 2,000 validation images, after
# equal times on one core, one run each: for flow-fc ActNorm 0.09 (1.938 to 1.844 in 116 and 102 s), for flow-conv 0.11
# (1.618 to 1.507 in 95 s), a margin of 1e-5 instead of 0.05 0.6 (2.141 to 1.507), variational dequantization 0.2 (1.507
# to 1.296, in 92 and 124 s). bfloat16 makes a step of flow-fc 1.8 to 2.2 times as fast, one of flow-conv 1.8 times with
# the channels last.
FLOW_FC_SCHEDULES = {
    "smoke": Schedule(steps=30, batch_size=128, learning_rate=1e-3, decay=True),
    "quick": Schedule(steps=1_300, batch_size=128, learning_rate=1e-3, decay=True, bfloat16=True),
    "full": Schedule(steps=6_000, batch_size=128, learning_rate=1e-3, decay=True, bfloat16=True),
}
FLOW_CONV_SCHEDULES = {
    "smoke": Schedule(steps=10, batch_size=64, learning_rate=2e-3, decay=True),
    "quick": Schedule(steps=400, batch_size=64, learning_rate=2e-3, decay=True, bfloat16=True),
    "full": Schedule(steps=24_000, batch_size=64, learning_rate=2e-3, decay=True, bfloat16=True),
}
# For a GPU: 22 ms a step on an H200. Without a warm-up a wider network (96) exploded at 1e-3 in the third step. The
# average bought nothing that was seen: 1.062 on validation images with it and, in another run, without.
FLOW_CONV_LARGE_SCHEDULES = {
    "smoke": Schedule(steps=2, batch_size=8, learning_rate=1e-3, decay=True, warm_up=0.03),
    "quick": Schedule(steps=1_000, batch_size=256, learning_rate=1e-3, decay=True, bfloat16=True, warm_up=0.03),
    "full": Schedule(
        steps=15_800, batch_size=256, learning_rate=1e-3, decay=True, average=0.999, bfloat16=True, warm_up=0.03
    ),
}
FLOW_2D_SCHEDULES = {
    "smoke": Schedule(steps=60, batch_size=256, learning_rate=2e-3, decay=True),
    "quick": Schedule(steps=2_000, batch_size=256, learning_rate=2e-3, decay=True),
    "full": Schedule(steps=20_000, batch_size=512, learning_rate=2e-3, decay=True),
}
MATCHING_SCHEDULES = {
    "smoke": Schedule(steps=2, batch_size=64, learning_rate=1e-3, decay=True, average=0.9, warm_up=0.03),
    "quick": Schedule(steps=400, batch_size=128, learning_rate=1e-3, decay=True, average=0.99, warm_up=0.03),
    "full": Schedule(steps=10_000, batch_size=128, learning_rate=1e-3, decay=True, average=0.999, warm_up=0.03),
}
# The divergence from the data, in nats, one run each: 0.6 in `quick`, 0.03 in `full`, which takes a minute.
MATCHING_2D_SCHEDULES = {
    "smoke": Schedule(steps=30, batch_size=256, learning_rate=4e-3, decay=True, average=0.9),
    "quick": Schedule(steps=2_000, batch_size=512, learning_rate=4e-3, decay=True, average=0.99),
    "full": Schedule(steps=20_000, batch_size=1024, learning_rate=4e-3, decay=True, average=0.999),
}
VAE_8BIT_SCHEDULES = {
    "smoke": Schedule(steps=60, batch_size=128, learning_rate=2e-3, decay=True),
    "quick": Schedule(steps=1_500, batch_size=128, learning_rate=2e-3, decay=True),
    "full": Schedule(steps=25_000, batch_size=128, learning_rate=2e-3, decay=True),
}


def _as_they_are(points: Tensor, generator: torch.Generator | None = None) -> Tensor:
    return points


def _gan_quality(model: GAN, images: Tensor, prepare: Prepare, samples: int = 10_000) -> dict[str, float]:
    """`sample_quality` of that many samples against the grey images, in the features of the shipped classifier.

    images: (N, 1, 28, 28), or rows of `data.labelled`.
    """
    rng = torch.Generator(images.device).manual_seed(0)
    classifier = cast(DigitClassifier, pretrained("digit-classifier", images.device.type))
    real = images.flatten(1)[:, : 28 * 28].view(-1, 1, 28, 28) / 255
    return metrics.sample_quality(model.sample(samples, rng), real, classifier)


def _matching_quality(
    model: ImageFlowMatching,
    pixels: Tensor,
    prepare: Prepare,
    samples: int = 2_000,
    steps: tuple[int, ...] = (2, 5, 20, 100),
) -> dict[str, float]:
    """`sample_quality` of that many samples by these numbers of Euler's steps, and bits per dimension of a few images.

    pixels: (N, 1, 28, 28) uint8; so many of them are compared with, drawn because the files are ordered by writer, and
    the bits are those of a twentieth of these, by 50 midpoint steps and one probe each.
    """
    rng = torch.Generator(pixels.device).manual_seed(0)
    pixels = pixels[torch.randperm(len(pixels), generator=rng, device=pixels.device)[:samples]]
    classifier = cast(DigitClassifier, pretrained("digit-classifier", pixels.device.type))
    found: dict[str, float] = {}
    for count in steps:
        made = model.sample(samples, rng, count) / 255
        quality = metrics.sample_quality(made, pixels / 255, classifier)
        found |= {f"{own}_{count}": quality[own] for own in ("frechet", "precision", "recall")}
    bits = model.bits_per_dim(prepare(pixels[: samples // 20], rng), 50, rng)
    mean, error = metrics.mean_and_standard_error(bits)
    return found | {"frechet_floor": quality["frechet_floor"], "bits_per_dim": mean, "bits_per_dim_error": error}


RECIPES = {
    "vae-2d": Recipe("vae", VAE, {"latent_dim": 2}, data.binarize, metrics.bounds, VAE_SCHEDULES),
    "vae-20d": Recipe("vae", VAE, {"latent_dim": 20}, data.binarize, metrics.bounds, VAE_SCHEDULES),
    "digit-classifier": Recipe(
        "classifier", DigitClassifier, {}, data.grey_and_binary, metrics.accuracy, CLASSIFIER_SCHEDULES, _labelled
    ),
    "gan": Recipe("gan", GAN, {}, data.scale, _gan_quality, GAN_SCHEDULES, in_full={"dropout": 0.1}, kept="generator"),
    "gan-conv": Recipe(
        "gan",
        ConditionalGAN,
        {"dropout": 0.1},
        gan.rows,
        _gan_quality,
        GAN_CONV_SCHEDULES,
        _labelled,
        kept="generator",
    ),
    "flow-fc": Recipe(
        "flow",
        flow_fully_connected,
        {"hidden": 256},
        data.levels,
        metrics.flow_bounds,
        FLOW_FC_SCHEDULES,
        shipped=False,
    ),
    "flow-conv": Recipe(
        "flow", flow_convolutional, {"variational": True}, data.levels, metrics.flow_bounds, FLOW_CONV_SCHEDULES
    ),
    "flow-conv-large": Recipe(
        "flow",
        flow_convolutional,
        {"width": 64, "blocks": 3, "couplings": 8, "variational": True},
        data.levels,
        metrics.flow_bounds,
        FLOW_CONV_LARGE_SCHEDULES,
    ),
    "flow-conv-uniform": Recipe("flow", flow_convolutional, {}, data.levels, metrics.flow_bounds, FLOW_CONV_SCHEDULES),
    "flow-2d": Recipe("flow", flow_2d, {}, _as_they_are, metrics.mean_loss, FLOW_2D_SCHEDULES, _moons, "two-moons"),
    "flow-2d-two-humps": Recipe(
        "flow", flow_2d, {"two_humps": True}, _as_they_are, metrics.mean_loss, FLOW_2D_SCHEDULES, _moons, "two-moons"
    ),
    "flow-matching": Recipe("matching", matching_images, {}, data.levels, _matching_quality, MATCHING_SCHEDULES),
    "matching-2d": Recipe(
        "matching", matching_2d, {}, _as_they_are, metrics.mean_loss, MATCHING_2D_SCHEDULES, _moons, "two-moons"
    ),
    "vae-8bit": Recipe("vae", GreyVAE, {"latent_dim": 40}, data.levels, metrics.bounds, VAE_8BIT_SCHEDULES),
}
SHIPPED = [name for name, recipe in RECIPES.items() if recipe.shipped]
PROFILES = ("smoke", "quick", "full")


def _study(smoke: int, quick: int, full: int, **rest: Any) -> dict[str, Schedule]:
    """The same schedule for each profile but for its steps."""
    return {name: Schedule(steps=own, **rest) for name, own in zip(PROFILES, (smoke, quick, full), strict=True)}


# Short trainings of which a section of a notebook needs several, to compare them. A ring's batch holds points
# for each of four games.
STUDIES = {
    "vae-short": _study(60, 700, 10_000, batch_size=128, learning_rate=2e-3),
    "gan-ahead": _study(20, 200, 200, batch_size=128, learning_rate=2e-4, betas=(0.5, 0.999)),
    "gan-race": _study(50, 50, 50, batch_size=128, learning_rate=2e-4, betas=(0.5, 0.999)),
    "gan-ring": _study(24, 744, 4_992, batch_size=4 * 128, learning_rate=1e-3, betas=(0.5, 0.9)),
    "wgan-ring": _study(24, 408, 4_992, batch_size=4 * 128, learning_rate=1e-3, betas=(0.0, 0.9)),
    "flow-humps": _study(20, 600, 3_000, batch_size=256, learning_rate=3e-3, decay=True),
    "flow-8x8": _study(20, 300, 10_000, batch_size=128, learning_rate=1e-3, decay=True),
}


def study(name: str, profile: str) -> dict[str, Any]:
    """How `train` is told to do that study in that profile. Raises UsageError for an unknown name."""
    return asdict(_choice("profile", profile, _choice("study", name, STUDIES)))


def check_parameters(**values: Any) -> None:
    """Raises UsageError for a value that this parameter of a notebook can't have; any of them may be left out."""
    for name, choices in {"profile": PROFILES, "dataset": data.DATASETS, "weights": ("shipped", "fresh")}.items():
        if name in values and values[name] not in choices:
            raise UsageError(f"unknown {name} {values[name]!r}: choose one of {', '.join(choices)}")
    check_seed(values.get("seed", 0))
    choose_device(str(values.get("device", "auto")))
    if figure_dir := values.get("figure_dir"):
        files.folder(str(figure_dir))


def variant(name: str, changes: Settings) -> Recipe:
    """The recipe with these values for arguments of its model and fields of its schedules, in every profile.

    Raises UsageError for an unknown name, a value of the wrong type, and one with which the model cannot be made.
    """
    recipe = _choice("model", name, RECIPES)
    if not changes:
        return recipe
    arguments, fields = settings.declared(recipe.model), settings.declared(Schedule)
    own = settings.check(changes, arguments | fields, name)
    changed = {key: value for key, value in own.items() if key in arguments}
    recipe = replace(
        recipe,
        arguments=recipe.arguments | changed,
        in_full={key: value for key, value in recipe.in_full.items() if key not in changed},
        schedules={
            profile: replace(schedule, **{key: value for key, value in own.items() if key in fields})
            for profile, schedule in recipe.schedules.items()
        },
    )
    try:
        recipe.model(**recipe.arguments)
    except (ValueError, RuntimeError) as error:
        raise UsageError(f"{name} can't be made with {told(changed)}: {error}") from error
    return recipe


def parse(name: str, texts: dict[str, str]) -> Settings:
    """Settings from the texts of a command line, as `variant` takes them. Raises UsageError for an unknown model."""
    recipe = _choice("model", name, RECIPES)
    return settings.parse(texts, settings.declared(recipe.model) | settings.declared(Schedule))


def told(changes: Settings) -> str:
    """Settings as a person writes them: "latent_dim=40 hidden=300"."""
    return " ".join(f"{key}={value}" for key, value in changes.items())


def check(name: str, profile: str, dataset: str, seed: int, device: str, changes: Settings = NONE) -> None:
    """Raises UsageError for a training that cannot be, before anything is done for it."""
    _choice("profile", profile, variant(name, changes).schedules)
    check_parameters(dataset=dataset, seed=seed, device=device)


def fit(
    name: str,
    profile: str,
    dataset: str = "auto",
    seed: int = 0,
    device: str = "auto",
    snapshots: tuple[float, ...] = (),
    state_file: Path | None = None,
    changes: Settings = NONE,
) -> tuple[nn.Module, Run]:
    """Build the model of that recipe and train it on the training images; returns it in eval mode, and its run.

    The seed decides the initial weights, the batches and all noise. changes: to the recipe, as in `variant`. Raises
    UsageError for an unknown name or profile.
    """
    check(name, profile, dataset, seed, device, changes)
    recipe, where = variant(name, changes), choose_device(device)
    dataset = recipe.points or data.choose(dataset)
    torch.manual_seed(seed)
    model = _placed(recipe.model(**recipe.arguments_in(profile)), where)
    run = train(
        model,
        recipe.inputs(dataset, "train", where),
        recipe.prepare,
        **asdict(recipe.schedules[profile]),
        seed=seed,
        validation=recipe.inputs(dataset, "val", where)[:CURVE_IMAGES],
        snapshots=snapshots,
        state_file=state_file,
        arguments=recipe.arguments_in(profile),
        title=name,
    )
    return model.eval(), run


def _placed(model: Any, device: torch.device) -> Any:
    """On the device, with the channels last: so convolutions take two thirds of the time on a CPU."""
    return model.to(memory_format=torch.channels_last).to(device)


def ship(
    name: str,
    profile: str,
    dataset: str,
    seed: int,
    device: str,
    folder: Path,
    changes: Settings = NONE,
    measured: bool = True,
) -> dict[str, Any]:
    """Train, round the weights to float16, measure them as rounded, write NAME.safetensors; returns its metadata.

    changes: to the recipe, as in `variant`. measured: False leaves the file's metrics empty. A run that was interrupted
    goes on from `NAME.state`, which lies beside it until the weights are written. Raises what `rehearse` does,
    CourseError where another process trains the same, and DivergenceError for weights or measurements that are not
    finite.
    """
    origin = rehearse(name, profile, dataset, seed, device, folder, changes)
    target, state_file = folder / f"{name}.safetensors", folder / f"{name}.state"
    busy = f"{name} is being trained into {folder} already: wait for that, or choose another folder by --out"
    with files.alone(folder / f"{files.OURS}{name}-lock", busy):
        rehearse(name, profile, dataset, seed, device, folder, changes)  # another process may have ended meanwhile
        model, run = fit(name, profile, dataset, seed, device, state_file=state_file, changes=changes)
        if not run.finished:
            raise KeyboardInterrupt
        rounded = {key: own.half() if own.is_floating_point() else own for key, own in model.state_dict().items()}
        if not _finite(rounded):
            raise DivergenceError(
                f"{name}: a weight is beyond the range of float16, so nothing was written; delete {state_file}, and "
                "lower the learning rate"
            )
        model.load_state_dict(rounded)
        if measured:
            print(f"{name}: measuring on the validation and the test images", flush=True)
        values = evaluate(name, model, origin["dataset"]) if measured else {}
        metadata = _metadata(name, model, run, origin, values)
        checkpoint.save(target, _kept(RECIPES[name], rounded), metadata)
        state_file.unlink()
    return metadata


def _kept(recipe: Recipe, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those that belong to the part of the model that is written."""
    return {name: own for name, own in tensors.items() if name.startswith(recipe.kept)}


def _metadata(
    name: str, model: nn.Module, run: Run, origin: dict[str, Any], measured: dict[str, float]
) -> dict[str, Any]:
    """How the weights came to be, as it was: the recipe says what was asked, the precision what was done."""
    recipe, device = variant(name, origin["settings"]), next(model.parameters()).device
    pixels = None if recipe.points else data.load(origin["dataset"], "train").pixels
    return {
        "name": name,
        "model": recipe.model.__name__,
        "arguments": recipe.arguments_in(origin["profile"]),
        "recipe": asdict(recipe.schedules[origin["profile"]]),
        "precision": run.precision,
        **origin,
        "data_sha256": None if pixels is None else hashlib.sha256(pixels.numpy().tobytes()).hexdigest(),
        "metrics": measured,
        "seconds": round(run.seconds),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
    }


def rehearse(
    name: str, profile: str, dataset: str, seed: int, device: str, folder: Path, changes: Settings = NONE
) -> dict[str, Any]:
    """What can stop `ship`, tried before the first step; returns what decides the weights, as their file names it.

    Makes the folder, and fetches the data where they are missing. Raises UsageError for what cannot be trained, for a
    folder that cannot be written, and where other weights lie, and DataError.
    """
    check(name, profile, dataset, seed, device, changes)
    points = RECIPES[name].points
    if not points:
        data.load(dataset, "test")
    try:
        files.make_folder(folder)
    except OSError as error:
        raise UsageError(f"cannot write to {folder} ({error.strerror}): choose another folder by --out") from error
    origin = {"profile": profile, "seed": seed, "dataset": points or data.choose(dataset), "settings": dict(changes)}
    target = folder / f"{name}.safetensors"
    if os.path.lexists(target) and (what := _other(target, origin)):
        raise UsageError(f"{target} {what}: move it away, or choose another folder by --out")
    return origin


def _other(target: Path, origin: dict[str, Any]) -> str:
    """What lies there, if it is not from a training that began the same way."""
    try:
        metadata = checkpoint.load(target)[1]
    except CheckpointError:
        return "is no weights file of this course"
    there = {"settings": {}} | metadata
    origin = origin | {"settings": json.loads(json.dumps(origin["settings"]))}  # as it was read: tuples are lists there
    other: dict[str, Any] = {key: there.get(key) for key, value in origin.items() if there.get(key) != value}
    if "settings" in other:
        other["settings"] = told(other["settings"]) or "as in the recipe"
    return f"holds a training with {', '.join(f'{key} {value}' for key, value in other.items())}" if other else ""


def _finite(tensors: dict[str, Tensor]) -> bool:
    return all(bool(own.isfinite().all()) for own in tensors.values())


def evaluate(name: str, model: nn.Module, dataset: str, samples: int | None = None) -> dict[str, float]:
    """The recipe's measurements on the validation and the test images; the noise is the same at each call.

    samples: of a bound or a GAN, where it is to be another number than usual. Raises UsageError where nothing is drawn,
    DivergenceError for a measurement that is not finite.
    """
    recipe, device = RECIPES[name], next(model.parameters()).device
    told = {} if samples is None else {"samples": samples}
    if samples is not None and (samples < 1 or "samples" not in inspect.signature(recipe.measure).parameters):
        raise UsageError(f"{name} can't be measured with {samples} samples: leave that out, or name at least 1")
    measured = {
        f"{split}_{key}": round(value, 3)
        for split in ("val", "test")
        for key, value in recipe.measure(model, recipe.inputs(dataset, split, device), recipe.prepare, **told).items()
    }
    if bad := [key for key, value in measured.items() if not math.isfinite(value)]:
        raise DivergenceError(f"{name}: {', '.join(bad)} came out as NaN or infinite; lower the learning rate")
    return measured


def pretrained(name_or_path: str | Path, device: str = "auto") -> nn.Module:
    """A shipped model by its name, or one that `ship` wrote, by its path; in eval mode. A GAN has its generator alone.

    Raises CheckpointError for a file that is missing, damaged, of another model or shape, or holds NaN or infinities.
    """
    path = weights_file(name_or_path)
    tensors, metadata = checkpoint.load(path)
    foreign = f"{path} holds no model that this version of the course knows; train it again"
    try:
        recipe = variant(str(metadata.get("name")), metadata.get("settings") or NONE)
    except UsageError as error:
        raise CheckpointError(foreign) from error
    arguments = recipe.arguments_in(str(metadata.get("profile")))
    if (metadata.get("model"), metadata.get("arguments")) != (recipe.model.__name__, arguments):
        raise CheckpointError(foreign)
    model: Any = recipe.model(**arguments)
    for part, _ in list(model.named_children()):
        if not part.startswith(recipe.kept):
            delattr(model, part)
    try:
        model.load_state_dict(_kept(recipe, tensors))
    except RuntimeError as error:
        raise CheckpointError(f"{path} has other weights than {metadata['name']} needs; train it again") from error
    if not _finite(tensors):
        raise CheckpointError(f"{path} holds weights that are not finite; train it again with a lower learning rate")
    return _placed(model, choose_device(device)).eval()


def weights_file(name_or_path: str | Path) -> Path:
    """Where the weights of that name lie, or the path itself. Raises UsageError for what is neither."""
    if str(name_or_path) in RECIPES:
        return WEIGHTS / f"{name_or_path}.safetensors"
    if Path(name_or_path).suffix == ".safetensors":
        return Path(name_or_path)
    raise UsageError(f"unknown model {str(name_or_path)!r}: choose one of {', '.join(RECIPES)}, or a .safetensors file")


def _choice(what: str, name: str, table: dict[str, Any]) -> Any:
    if name not in table:
        raise UsageError(f"unknown {what} {name!r}: choose one of {', '.join(table)}")
    return table[name]
