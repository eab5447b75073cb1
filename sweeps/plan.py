"""A sweep's YAML, checked, and the runs that it asks for."""

import ast
import itertools
import json
import shlex
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import fingerprint
import yaml

HERE = Path(__file__).parent
ROOT = HERE.parent
CHOICES = {
    "profile": ("smoke", "quick", "full"),
    "dataset": ("mnist", "digits"),
    "device": ("auto", "cpu", "cuda", "mps"),
}
OTHERS = ("threads", "seeds", "models", "notebooks", "table", "figure")
OF_A_MODEL = ("seeds", "samples")  # keys under a model that are no arguments of it


class SweepError(ValueError):
    """What is wrong in a sweep, in one sentence."""


@dataclass(frozen=True)
class Run:
    """One training or, where `notebook` is set, one run of a notebook under its name.

    settings: what differs from the recipe. samples: for the measurement, where it is to be another number than usual.
    """

    name: str
    seed: int
    profile: str
    dataset: str
    device: str
    threads: int
    settings: dict[str, Any] = field(default_factory=dict)
    samples: int | None = None
    notebook: bool = False

    @property
    def folder(self) -> str:
        """Where its files lie, the same in every sweep that asks for this run."""
        parts = (
            f"{self.profile}-{self.dataset}",
            self.name,
            self.told.replace(" ", ",") or "recipe",
            f"seed-{self.seed}",
        )
        return "/".join(quote(part, safe="=,") for part in parts)

    @property
    def told(self) -> str:
        """Its settings, such as "latent_dim=40"; `settings_in` reads them."""
        return " ".join(f"{name}={json.dumps(value, separators=(',', ':'))}" for name, value in self.settings.items())

    @property
    def result(self) -> str:
        """The file that says what came out."""
        return f"{self.folder}/notebooks/{self.name}.ipynb" if self.notebook else f"{self.folder}/{self.name}.json"

    @property
    def options(self) -> str:
        """For the command line of `train`, or of `figures`, quoted for a shell."""
        own = {"profile": self.profile, "dataset": self.dataset, "seed": self.seed, "device": self.device}
        if self.notebook:
            return " ".join(f"-p {key}={value}" for key, value in own.items())
        told = [f"--{key}={value}" for key, value in own.items()]
        return shlex.join(told + [f"--set={key}={value}" for key, value in self.settings.items()])

    def begun(self) -> str:
        """What decides it: a state, or a result, of another is of no use."""
        if self.notebook:
            own = fingerprint.notebook(ROOT / "notebooks" / f"{self.name}.ipynb")
        else:
            own = fingerprint.recipe(self.name, self.profile)
        return f"{own} {self.options} threads={self.threads}"

    def measured(self) -> str:
        """What decides its measurement."""
        return f"{fingerprint.recipe(self.name, self.profile, measuring=True)} {self.samples}"


def settings_in(told: str) -> dict[str, Any]:
    """Settings of such a text."""
    return {name: json.loads(value) for name, _, value in (own.partition("=") for own in told.split())}


def read(name: str) -> dict[str, Any]:
    """The sweep of that name in this folder, or of a path, with what it leaves out. Raises SweepError."""
    path = ROOT / name if name.endswith(".yaml") else HERE / f"{name}.yaml"
    if not path.is_file():
        there = ", ".join(sorted(own.stem for own in HERE.glob("*.yaml")))
        raise SweepError(f"there is no sweep {name!r}: choose one of {there}, or write sweeps/{path.name}")
    try:
        own = yaml.safe_load(path.read_text("utf-8"))
    except yaml.YAMLError as error:
        raise SweepError(f"{path.name} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(own, dict):
        raise SweepError(f"{path.name} must have keys: {', '.join([*CHOICES, *OTHERS])}")
    for key, ending in {"table": ".csv", "figure": ".png"}.items():
        target = Path(str(own.get(key, f"{path.stem}{ending}")))
        if (
            target.suffix != ending or path.stem not in target.stem
        ):  # a copy of a sweep writes over nothing of the first
            raise SweepError(f"{key} of {path.name} must be a {ending} with {path.stem} in its name, but is {target}")
    return {"profile": "quick", "dataset": "mnist", "device": "auto", "threads": 1} | own


def runs(sweep: dict[str, Any]) -> list[Run]:
    """All runs of a sweep, each once. Raises SweepError for whatever it cannot mean."""
    _known("the sweep", sweep, [*CHOICES, *OTHERS])
    for key, choices in CHOICES.items():
        if sweep[key] not in choices:
            raise SweepError(f"{key} must be one of {', '.join(choices)}, but is {sweep[key]!r}")
    common = {key: sweep[key] for key in (*CHOICES, "threads")}
    _at_least_1("threads", common["threads"])
    models, notebooks = sweep.get("models") or {}, sweep.get("notebooks") or []
    if not isinstance(models, dict) or not isinstance(notebooks, list) or not (models or notebooks):
        raise SweepError("a sweep needs models, each with its arguments under it, or a list of notebooks")
    own = [run for name, block in models.items() for run in _trainings(name, block or {}, sweep, common)]
    _known("notebooks", notebooks, sorted(own.stem for own in (ROOT / "notebooks").glob("[1-9]*.ipynb")))
    if len(set(notebooks)) < len(notebooks):
        raise SweepError(f"notebooks must be named once each, but are {notebooks}")
    for name in notebooks:
        own += [Run(name, seed, **common, notebook=True) for seed in _seeds(sweep.get("seeds"))]
    return own


def _trainings(name: str, block: Any, sweep: dict[str, Any], common: dict[str, Any]) -> list[Run]:
    """Every combination of a model's values, with every seed."""
    _known("models", [name], list(fingerprint.rows()))
    if not isinstance(block, dict):
        raise SweepError(f"under {name} must stand arguments with their values, but there is {block!r}")
    _known(name, block, [*fingerprint.arguments(name), *OF_A_MODEL])
    samples, seeds = block.get("samples"), _seeds(block.get("seeds", sweep.get("seeds")))
    if samples is not None:
        _at_least_1("samples", samples)
        if not fingerprint.draws(name):
            raise SweepError(f"{name} has no samples whose number could be set: leave that out")
    values = {key: own if isinstance(own, list) else [own] for key, own in block.items() if key not in OF_A_MODEL}
    values = {key: list(map(_number, own)) for key, own in values.items()}
    for key, own in values.items():
        if not own or any(own.count(value) > 1 for value in own):
            raise SweepError(f"{key} of {name} must have values, each once, but is {own}")
    grid = [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]
    return [Run(name, seed, **common, settings=settings, samples=samples) for settings in grid for seed in seeds]


def _number(value: Any) -> Any:
    """The number that a text is: YAML takes 1e-3 for a text."""
    with suppress(ValueError, SyntaxError, TypeError):
        if isinstance(own := ast.literal_eval(value), int | float):
            return own
    return value


def _known(what: str, names: Any, choices: list[str]) -> None:
    for name in names:
        if name not in choices:
            raise SweepError(f"{what} can't have {name!r}: choose among {', '.join(choices)}")


def _seeds(seeds: Any) -> list[int]:
    good = isinstance(seeds, list) and seeds and all(type(own) is int and 0 <= own < 2**32 for own in seeds)
    if not good or len(set(seeds)) < len(seeds):
        raise SweepError(f"seeds must be a list of whole numbers from 0, each once, but is {seeds!r}")
    return seeds


def _at_least_1(name: str, value: Any) -> None:
    if type(value) is not int or value < 1:
        raise SweepError(f"{name} must be a whole number, at least 1, but is {value!r}")
