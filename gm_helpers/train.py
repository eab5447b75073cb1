"""The one training loop: for a game of any number of players, on any device, resumable to the bit."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Generator, Tensor, nn

from gm_helpers import checkpoint, device, progress
from gm_helpers.checkpoint import CheckpointError
from gm_helpers.files import CourseError, UsageError

SIGHUP = getattr(signal, "SIGHUP", signal.SIGTERM)  # of a terminal that is closed; Windows has none
LARGEST_SEED = 2**32 - 1  # what NumPy takes too
LOGS = 50  # rows of history in a run
SAVE_EVERY = 60.0  # seconds between checkpoints
EVALUATION_BATCH = 1000

# What a loss function returns: "loss", which is minimised, what else is to be logged, and under "shown" what is not
# logged but handed to the next player's loss of this step, as its third argument.
Values = dict[str, Tensor]
Players = dict[str, tuple[nn.Module, Callable[..., Values]]]  # name -> (module, loss), in playing order
Prepare = Callable[[Tensor, Generator], Tensor]


class Game(Protocol):
    """What can be trained: an nn.Module that names its players."""

    training: bool

    def players(self) -> Players:
        """Name -> (module, loss), loss(x, generator) -> {"loss": scalar, …}, in playing order."""

    def train(self, mode: bool = True) -> Any: ...
    def eval(self) -> Any: ...
    def to(self, *args: Any, **options: Any) -> Any: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...


class DivergenceError(CourseError):
    """A loss or a weight became NaN or infinite."""


@dataclass
class Run:
    """What a training gives back; the model itself was trained in place.

    history: a row for each log step, {"step": …, "train": {player: {name: mean since the last row}}, "val": {…}},
    all plain numbers. snapshots: fraction of the run -> the model's state_dict then, on the CPU. precision: in which it
    was trained after its first step, "float32" or "bfloat16".
    """

    step: int = 0
    seconds: float = 0.0
    finished: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)
    snapshots: dict[float, dict[str, Tensor]] = field(default_factory=dict)
    precision: str = ""


def check_seed(seed: int) -> None:
    """Raises UsageError for a number that not every generator takes as a seed."""
    if not isinstance(seed, int):
        raise UsageError(f"seed must be a whole number, but is {seed!r}")
    if not 0 <= seed <= LARGEST_SEED:
        raise UsageError(f"seed must be from 0 to {LARGEST_SEED:,}, but is {seed:,}")


def train(
    game: Game,
    pixels: Tensor,
    prepare: Prepare,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    decay: bool = False,
    warm_up: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
    average: float = 0.0,
    bfloat16: bool = False,
    seed: int = 0,
    validation: Tensor | None = None,
    snapshots: Sequence[float] = (),
    state_file: Path | None = None,
    arguments: Mapping[str, Any] | None = None,
    title: str = "training",
) -> Run:
    """Train every player of `game.players()` in turn, each with its own Adam, and return the run's history.

    game: its `players()` give name -> (module, loss), loss(x, generator) -> {"loss": scalar, …}; what a loss returns as
    "shown" is handed to the next player's. Weights that require no gradient stay as they are.
    pixels: all training images (N, …) uint8 on the game's device. prepare: turns a batch into what the loss takes.
    decay: bring the learning rate to 0 along half a cosine. warm_up: share of the steps in which it rises from 0 in a
    straight line. betas: Adam's. average: a in average ← a·average + (1 − a)·weights after each step, which the game
    and its snapshots have in place of the last weights; 0 for none. bfloat16: after the first step matrix products and
    convolutions in that precision (autocast), weights and the rest in float32; where a trial of both shows that it does
    not pay on this device, a printed sentence says that the run does without.
    validation: images on which the losses are logged too, by the weights that are trained, not the averaged ones.
    snapshots: fractions of the run, 0 to 1. state_file: keeps the run's state; if it exists the run goes on from it.
    arguments: with which the game was made, where a state of one that was made with others is to be refused.
    On CUDA the step is one graph (`device.graphed`), which no loss may leave: it asks for no number and draws from the
    given generator or from torch's own; a printed sentence says where a game is trained step by step instead.
    Ctrl-C ends the run after the current step, SIGTERM and SIGHUP then end the process too. Raises UsageError,
    DivergenceError, and CheckpointError for an unusable state file.
    """
    plan: dict[str, Any] = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate, "decay": decay}
    plan |= {"warm_up": warm_up, "betas": betas, "average": average, "bfloat16": bfloat16, "seed": seed}
    plan |= {"images": len(pixels), "device": pixels.device.type, "arguments": dict(arguments or {})}
    _check(plan, snapshots, validation)
    generator = torch.Generator(pixels.device).manual_seed(seed)
    state = _State(plan, game, generator)
    if not state.optimizers:
        raise UsageError(f"{title}: there is nothing to train, because no weight requires a gradient")
    if state_file and state_file.exists():
        state.restore(state_file, snapshots)
    run = state.run
    state.keep(snapshots)

    def step(precision: str) -> None:
        index = torch.randint(len(pixels), (batch_size,), generator=generator, device=pixels.device)
        x, shown = prepare(pixels[index], generator), None
        for name, (_, loss) in state.players.items():
            half = precision == "bfloat16"
            with torch.autocast(pixels.device.type, torch.bfloat16, enabled=half, cache_enabled=not pixels.is_cuda):
                values = loss(x, generator) if shown is None else loss(x, generator, shown)
            shown = values.pop("shown", None)
            if name in state.optimizers:
                state.optimizers[name].zero_grad()
                values["loss"].backward(inputs=state.parameters[name])
                state.optimizers[name].step()
            state.add(name, values)
        state.follow()

    game.train()
    take: device.Step | None = None
    started, saved = time.monotonic() - run.seconds, time.monotonic()
    with _interruptible() as signals, device.deterministic(), progress.bar(title, steps, run.step) as bar:
        while run.step < steps and not signals:
            state.set_rate()
            if run.step == 0:  # ActNorm sets itself, Adam and the averages make their tensors
                step("float32")
            else:
                if take is None:
                    choices = [run.precision] if run.precision else ["float32", "bfloat16"][: 1 + bfloat16]
                    run.precision, take = device.quickest(step, choices, state.tensors(), generator, title)
                    if bfloat16 and run.precision == "float32":
                        print(f"{title}: trained in float32, because bfloat16 does not pay on this device.")
                take()
            run.step += 1
            bar.update()
            state.keep(snapshots)
            if run.step % max(1, steps // LOGS) == 0 or run.step == steps:
                state.log(evaluate(game, validation, prepare) if validation is not None else None)
                run.seconds = time.monotonic() - started
                losses = {name: values["loss"] for name, values in run.history[-1]["train"].items()}
                bar.set_postfix(losses, refresh=False)
                if state_file and time.monotonic() - saved > SAVE_EVERY:
                    state.save(state_file)
                    saved = time.monotonic()
        run.seconds, run.finished = time.monotonic() - started, run.step == steps
        bar.finish(_summary(title, run))
    state.require_finite()
    if state_file and run.step:  # before the first step ActNorm has not been set, and a state would say that it has
        state.save(state_file)
    game.load_state_dict(state.weights())
    if not run.finished:
        print(f"{title} was stopped at step {run.step:,} of {steps:,}; the model keeps what it has learnt.", flush=True)
    for number in signals:
        if number != signal.SIGINT:
            signal.raise_signal(number)
    return run


def _summary(title: str, run: Run) -> str:
    """What is left to be read of a run: "vae-20d: 3,500 steps in 23 s, loss 104.2"."""
    last = run.history[-1]["train"] if run.history else {}
    losses = [f", {'loss' if len(last) == 1 else name} {own['loss']:.4g}" for name, own in last.items()]
    return f"{title}: {run.step:,} steps in {run.seconds:.0f} s{''.join(losses)}"


def _check(plan: dict[str, Any], snapshots: Sequence[float], validation: Tensor | None) -> None:
    """Raises UsageError for a value with which nothing can be trained."""
    check_seed(plan["seed"])
    conditions: dict[str, tuple[str, Callable[[Any], bool]]] = {
        "steps": ("a whole number, at least 1", lambda own: own >= 1 and own == int(own)),
        "batch_size": ("a whole number, at least 1", lambda own: own >= 1 and own == int(own)),
        "learning_rate": ("above 0 and finite", lambda own: 0 < own < math.inf),
        "betas": ("two numbers from 0 to below 1", lambda own: all(0 <= one < 1 for one in own)),
        "warm_up": ("from 0 to 1", lambda own: 0 <= own <= 1),
        "average": ("from 0 to below 1", lambda own: 0 <= own < 1),
        "images": ("at least one", lambda own: own >= 1),
        "validation images": ("at least one", lambda own: own >= 1),
        "snapshots": ("fractions of the run, from 0 to 1", lambda own: all(0 <= one <= 1 for one in own)),
    }
    values = plan | {"snapshots": snapshots, "validation images": 1 if validation is None else len(validation)}
    for name, (allowed, fits) in conditions.items():
        if not fits(values[name]):
            raise UsageError(f"{name} must be {allowed}, but is {values[name]}")


def learning_rate(plan: dict[str, Any], step: int) -> float:
    """Of that step, counted from 0: a straight rise over the share "warm_up" of the steps, with "decay" times half a
    cosine from 1 to 0 (Loshchilov & Hutter 2017, without restarts)."""
    rise = min(1.0, (step + 1) / (plan["warm_up"] * plan["steps"])) if plan["warm_up"] else 1.0
    fall = 0.5 * (1 + math.cos(math.pi * (step / plan["steps"]))) if plan["decay"] else 1.0
    return plan["learning_rate"] * rise * fall


@torch.no_grad()
def evaluate(game: Game, images: Tensor, prepare: Prepare, seed: int = 0) -> dict[str, dict[str, float]]:
    """Mean of each player's logged values over all images, in eval mode: player -> name -> value.

    The same seed draws the same noise, so that two calls differ by the model alone.
    """
    generator = torch.Generator(images.device).manual_seed(seed)
    was_training = game.training
    game.eval()
    sums: dict[str, dict[str, float]] = {}
    for part in images.split(EVALUATION_BATCH):
        x = prepare(part, generator)
        for name, (_, loss) in game.players().items():
            own = sums.setdefault(name, {})
            values = loss(x, generator)
            values.pop("shown", None)  # here each player draws its own, so that no number depends on another's turn
            for key, value in values.items():
                own[key] = own.get(key, 0.0) + value.item() * len(part) / len(images)
    game.train(was_training)
    return sums


class _State:
    """All that a run needs to go on as if it had never stopped."""

    def __init__(self, plan: dict[str, Any], game: Game, generator: Generator):
        self.plan, self.game, self.generator = plan, game, generator
        self.run = Run()
        self.players = game.players()
        self.parameters = {
            name: [own for own in module.parameters() if own.requires_grad]
            for name, (module, _) in self.players.items()
        }
        on_cuda = generator.device.type == "cuda"
        # in a CUDA graph numbers are what they were when it was captured, so there the rate is a tensor
        self.rate = torch.tensor(plan["learning_rate"], device=generator.device) if on_cuda else plan["learning_rate"]
        self.optimizers = {
            name: torch.optim.Adam(own, lr=self.rate, betas=plan["betas"], fused=True, capturable=on_cuda)
            for name, own in self.parameters.items()
            if own  # a player whose every weight is frozen does not move
        }
        self.sums: dict[str, Values] = {}  # of each player's values since the last log step, on the device
        self.averages: dict[str, Tensor] = {}

    def set_rate(self) -> None:
        """The learning rate of the next step."""
        rate = learning_rate(self.plan, self.run.step)
        if isinstance(self.rate, Tensor):
            self.rate.fill_(rate)
        else:
            for optimizer in self.optimizers.values():
                optimizer.param_groups[0]["lr"] = rate

    def tensors(self) -> list[Tensor]:
        """All that a step changes, once one has been taken."""
        moments = [
            own for optimizer in self.optimizers.values() for one in optimizer.state.values() for own in one.values()
        ]
        sums = [value for own in self.sums.values() for value in own.values()]
        return [*self.game.state_dict().values(), *moments, *sums, *self.averages.values()]

    def add(self, player: str, values: Values) -> None:
        """Add to the sums, in place."""
        own = self.sums.setdefault(player, {})
        for key, value in values.items():
            if key in own:
                own[key].add_(value.detach())
            else:
                own[key] = value.detach().clone()

    @torch.no_grad()
    def follow(self) -> None:
        """Move the averages a step towards the weights, batch norm's statistics among them.

        They begin with the weights after the first step, in which ActNorm has set itself.
        """
        if not self.plan["average"]:
            return
        now = {k: v.detach() for k, v in self.game.state_dict().items() if v.is_floating_point()}
        if not self.averages:
            self.averages = {key: tensor.clone() for key, tensor in now.items()}
        else:
            torch._foreach_lerp_(list(self.averages.values()), list(now.values()), 1 - self.plan["average"])

    def weights(self) -> dict[str, Tensor]:
        """The game's state_dict, with the averages where there are any."""
        return {**self.game.state_dict(), **self.averages}

    def keep(self, fractions: Sequence[float]) -> None:
        """Those snapshots that fall on this step."""
        for fraction in fractions:
            if round(fraction * self.plan["steps"]) == self.run.step:
                self.run.snapshots[fraction] = {k: v.detach().cpu().clone() for k, v in self.weights().items()}

    def log(self, validation: dict | None) -> None:
        """A row of history: the means since the last one. Raises DivergenceError."""
        self.require_finite()
        steps = self.run.step - (self.run.history[-1]["step"] if self.run.history else 0)
        train = {player: {key: v.item() / steps for key, v in own.items()} for player, own in self.sums.items()}
        self.run.history.append({"step": self.run.step, "train": train} | ({"val": validation} if validation else {}))
        for values in self.sums.values():
            for value in values.values():
                value.zero_()

    def require_finite(self) -> None:
        """Raises DivergenceError for a NaN or infinity in a weight, or in a value since the last log step."""
        # sums, because a NaN or an infinity stays one in them, and looking at each number takes thirty times as long
        players = dict.fromkeys([*self.optimizers, *self.sums])  # a frozen player has no optimizer
        sums = {player: torch.stack([v.sum() for v in self.numbers(player)]) for player in players}
        bad = [player for player, own in sums.items() if not own.isfinite().all()]
        if bad:
            good = "no step was good"
            if self.run.history:
                last = self.run.history[-1]
                losses = ", ".join(f"{last['train'][player]['loss']:.4g}" for player in bad)
                good = f"the last good loss was {losses} at step {last['step']}"
            raise DivergenceError(
                f"{', '.join(bad)}: a loss or weight is not finite at step {self.run.step}; {good}. "
                "Lower the learning rate."
            )

    def numbers(self, player: str) -> Iterator[Tensor]:
        yield from self.sums.get(player, {}).values()
        if player in self.optimizers:
            yield from self.optimizers[player].param_groups[0]["params"]

    def save(self, path: Path) -> None:
        checkpoint.save_state(
            path,
            {
                "plan": self.plan,
                "run": vars(self.run),
                "sums": self.sums,
                "model": self.game.state_dict(),
                "averages": self.averages,
                "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
                "generator": self.generator.get_state(),
                "global_generators": device.global_generators(self.generator.device),
            },
        )

    def restore(self, path: Path, snapshots: Sequence[float]) -> None:
        """Go on from that file. Raises CheckpointError, also where it is past a snapshot that it does not hold."""
        saved = checkpoint.load_state(path)
        other_version = (
            f"{path} is of another model, or of another version of the course; delete it or train with that one"
        )
        old = saved.get("plan")
        if not isinstance(old, dict) or self.plan.keys() - old.keys():
            raise CheckpointError(other_version)
        other = [f"{key} {old.get(key)}" for key, value in self.plan.items() if old.get(key) != value]
        if other:
            raise CheckpointError(
                f"{path} is of a run with {', '.join(other)}; delete it or train with the same settings"
            )
        where = self.generator.device
        try:
            self.run = Run(**saved["run"])
            if {key: type(own) for key, own in saved["run"].items()} != {k: type(v) for k, v in vars(Run()).items()}:
                raise TypeError("run")
            self.sums = {player: {key: v.to(where) for key, v in own.items()} for player, own in saved["sums"].items()}
            for name, optimizer in self.optimizers.items():
                optimizer.load_state_dict(saved["optimizers"][name])
                optimizer.param_groups[0]["lr"] = self.rate
            self.averages = {key: tensor.to(where) for key, tensor in saved["averages"].items()}
            self.game.load_state_dict(self.weights())  # tried, because the averages are needed at the end alone
            self.game.load_state_dict(saved["model"])
            self.generator.set_state(saved["generator"])
            device.set_global_generators(saved["global_generators"], where)
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(other_version) from error
        late = [own for own in snapshots if round(own * self.plan["steps"]) < self.run.step]
        if missing := [own for own in late if own not in self.run.snapshots]:
            raise CheckpointError(
                f"{path} is past the snapshot at {missing[0]}, which it does not hold; delete it or leave that one out"
            )


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Signals that end a run are put down in a list, so that no step is cut in half; a second one acts as usual."""
    signals: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # only there can Python handle signals
        yield signals
        return
    # None stands for a handler that was not set from Python, which can't be set again
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGINT, signal.SIGTERM, SIGHUP)}
    if before[SIGHUP] is signal.SIG_IGN:  # as nohup wants it
        del before[SIGHUP]

    def ask(number: int, _: Any) -> None:
        signals.append(number)
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, ask)
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
