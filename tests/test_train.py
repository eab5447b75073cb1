import contextlib
import copy
import itertools
import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import MethodType, SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import seeded
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.overrides import TorchFunctionMode
from torch.testing import assert_close

from gm_helpers import train as loop
from gm_helpers.checkpoint import CheckpointError, load_state
from gm_helpers.files import UsageError
from gm_helpers.flows import ActNorm
from gm_helpers.train import DivergenceError, choose_device, cosine, evaluate, train


class Point(nn.Module):
    def __init__(self, at):
        super().__init__()
        self.at = nn.Parameter(torch.tensor(at, dtype=torch.float64))


class Game(nn.Module):
    """A game from name=(module, loss), in playing order."""

    def __init__(self, **players):
        super().__init__()
        self.parts = nn.ModuleDict({name: module for name, (module, _) in players.items()})
        self.losses = {name: loss for name, (_, loss) in players.items()}

    def players(self):
        return {name: (module, self.losses[name]) for name, module in self.parts.items()}


class Rivals(nn.Module):
    """Two networks against each other, with noise from the loop's generator and dropout from torch's own.

    before_step(k) is called when the first player's k-th training step begins.
    """

    def __init__(self, before_step=lambda step: None, weights_seed=1):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(weights_seed)
            self.forger = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 4)).double()
            self.critic = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1)).double()
        self.steps, self.before_step = 0, before_step

    def forge(self, x, generator):
        return self.forger(torch.randn(x.shape, generator=generator, dtype=x.dtype))

    def forger_loss(self, x, generator):
        if self.training:
            self.steps += 1
            self.before_step(self.steps)
        fake = self.forge(x, generator)
        return {"loss": (fake - x).square().mean() - self.critic(fake).mean(), "spread": fake.std()}

    def critic_loss(self, x, generator):
        real, fake = self.critic(x), self.critic(self.forge(x, generator))
        return {"loss": nn.functional.softplus(fake - real).mean()}

    def players(self):
        return {"forger": (self.forger, self.forger_loss), "critic": (self.critic, self.critic_loss)}


PIXELS = torch.randint(0, 256, (60, 4), dtype=torch.uint8, generator=seeded(0))


def prepare(pixels, generator):
    return torch.bernoulli(pixels.double() / 255, generator=generator)


def quickly(game, **changes):
    settings = {"steps": 100, "batch_size": 7, "learning_rate": 0.01, "decay": True, "seed": 3}
    settings |= {"validation": PIXELS[:20], "snapshots": (0, 0.25, 1)}
    return train(game, changes.pop("pixels", PIXELS), changes.pop("prepare", prepare), **settings | changes)


def press_ctrl_c(at):
    return lambda step: os.kill(os.getpid(), signal.SIGINT) if step == at else None


def same(one, other):
    """Equal to the bit, at any depth."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def all_but_the_time(path):
    """Everything in a state file: plan, weights, optimizers, generators, history, snapshots."""
    state = load_state(path)
    del state["run"]["seconds"]
    return state


@pytest.fixture
def uninterrupted(tmp_path):
    """The state in which the whole run of `Rivals` ends."""
    torch.manual_seed(5)
    quickly(Rivals(), state_file=tmp_path / "whole.state")
    return all_but_the_time(tmp_path / "whole.state")


# ---------------------------------------------------------------- the game


def test_a_two_player_game_converges_to_its_equilibrium():
    # a minimises ½‖a‖² + a·Cb − p·a, b minimises ½‖b‖² − a·Cb − q·b: neither can gain where a + Cb = p, b − Cᵀa = q.
    c = torch.randn(3, 2, dtype=torch.float64, generator=seeded(1))
    p, q = (torch.randn(n, dtype=torch.float64, generator=seeded(n)) for n in (3, 2))
    a, b = Point([0.0] * 3), Point([0.0] * 2)
    game = Game(
        a=(a, lambda x, g: {"loss": a.at.square().sum() / 2 + a.at @ c @ b.at - p @ a.at}),
        b=(b, lambda x, g: {"loss": b.at.square().sum() / 2 - a.at @ c @ b.at - q @ b.at}),
    )
    train(game, PIXELS, prepare, steps=2000, batch_size=1, learning_rate=0.03, decay=True)
    system = torch.cat([torch.cat([torch.eye(3).double(), c], 1), torch.cat([-c.T, torch.eye(2).double()], 1)])
    equilibrium = torch.linalg.solve(system, torch.cat([p, q]))
    assert_close(torch.cat([a.at, b.at]).detach(), equilibrium, atol=1e-4, rtol=0)


def test_a_players_loss_changes_only_its_own_parameters():
    a, b = Point([1.0]), Point([1.0])
    game = Game(
        a=(a, lambda x, g: {"loss": (a.at * b.at.exp()).sum()}),
        b=(b, lambda x, g: {"loss": 0 * (a.at * b.at).sum()}),
    )
    train(game, PIXELS, prepare, steps=3, batch_size=1, learning_rate=0.1)
    assert b.at.item() == 1.0
    assert a.at.item() == pytest.approx(0.7)  # Adam's steps under a constant gradient have the learning rate's length


def test_a_players_loss_leaves_no_gradient_in_the_others():
    a, b = Point([1.0]), Point([1.0])
    game = Game(
        b=(b, lambda x, g: {"loss": 3 * b.at.sum()}),
        a=(a, lambda x, g: {"loss": (a.at * b.at).sum()}),
    )
    train(game, PIXELS, prepare, steps=3, batch_size=1, learning_rate=0.1)
    assert b.at.grad.item() == 3


def test_players_move_in_the_stated_order_and_see_the_moves_before_theirs():
    seen = []

    def player(name, points):
        def loss(x, generator):
            seen.append((name, *(round(point.at.item(), 6) for point in points)))
            return {"loss": points["zy".index(name)].at.sum()}

        return loss

    points = [Point([0.0]), Point([0.0])]
    game = Game(z=(points[0], player("z", points)), y=(points[1], player("y", points)))
    train(game, PIXELS, prepare, steps=2, batch_size=1, learning_rate=0.5)
    assert seen == [("z", 0, 0), ("y", -0.5, 0), ("z", -0.5, -0.5), ("y", -1, -0.5)]


@pytest.mark.parametrize("decay", [True, False])
def test_a_run_is_bitwise_the_loop_one_would_write_by_hand(decay):
    by_hand, game, steps = Rivals(), Rivals(), 30
    torch.manual_seed(5)
    quickly(game, steps=steps, decay=decay, validation=None)

    torch.manual_seed(5)
    generator = seeded(3)
    forger = torch.optim.Adam(by_hand.forger.parameters(), fused=True)
    critic = torch.optim.Adam(by_hand.critic.parameters(), fused=True)
    for step in range(steps):
        rate = 0.01 * (1 + math.cos(math.pi * (step / steps))) / 2 if decay else 0.01
        batch = PIXELS[torch.randint(60, (7,), generator=generator)]
        x = torch.bernoulli(batch.double() / 255, generator=generator)
        for optimizer, loss in [(forger, by_hand.forger_loss), (critic, by_hand.critic_loss)]:
            optimizer.param_groups[0]["lr"] = rate
            by_hand.zero_grad()
            loss(x, generator)["loss"].backward()
            optimizer.step()
    assert same(game.state_dict(), by_hand.state_dict())


@pytest.mark.parametrize(("betas", "given"), [((0.9, 0.999), {}), ((0.3, 0.8), {"betas": (0.3, 0.8)})])
def test_the_optimizer_is_adam_as_published_with_its_suggested_betas_or_those_given(betas, given):
    # Kingma & Ba 2015, algorithm 1.
    a, (b1, b2) = Point([0.3, -2.0]), betas
    game = Game(a=(a, lambda x, g: {"loss": a.at.pow(4).sum()}))
    train(game, PIXELS, prepare, steps=20, batch_size=1, learning_rate=0.05, **given)
    at, m, v = torch.tensor([0.3, -2.0], dtype=torch.float64), 0, 0
    for t in range(1, 21):
        gradient = 4 * at**3
        m, v = b1 * m + (1 - b1) * gradient, b2 * v + (1 - b2) * gradient**2
        at = at - 0.05 * (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + 1e-8)
    assert_close(a.at.detach(), at)


def test_cosine_falls_from_one_to_zero():
    assert [cosine(f) for f in (0, 1 / 3, 0.5, 1)] == pytest.approx([1, 0.75, 0.5, 0])


def test_the_same_seed_gives_bitwise_the_same_run_and_another_seed_another():
    results = []
    for seed in (3, 3, 4):
        torch.manual_seed(5)
        game = Rivals()
        run = quickly(game, seed=seed)
        results.append((game.state_dict(), run.history, run.snapshots))
    assert same(results[0], results[1])
    assert not any(same(results[0][i], results[2][i]) for i in range(3))


# ---------------------------------------------------------------- what a run records


@pytest.mark.parametrize(
    ("steps", "rows"), [(100, list(range(2, 101, 2))), (3, [1, 2, 3]), (105, [*range(2, 105, 2), 105])]
)
def test_history_has_a_row_for_each_interval_and_the_last_step(steps, rows):
    run = quickly(Rivals(), steps=steps)
    assert [row["step"] for row in run.history] == rows
    assert (run.step, run.finished) == (steps, True)
    assert run.seconds > 0


def test_history_holds_the_means_of_the_losses_since_the_last_row_as_plain_floats():
    recorded, game = {"forger": [], "critic": []}, Rivals()
    for name in recorded:
        original = getattr(game, f"{name}_loss")

        def recording(x, generator, name=name, original=original):
            values = original(x, generator)
            recorded[name].append(values["loss"].item())
            return values

        setattr(game, f"{name}_loss", recording)
    run = quickly(game, steps=205, validation=None)
    assert [row["step"] for row in run.history][-2:] == [204, 205]
    for row, start in zip(run.history, range(0, 205, 4), strict=True):
        assert row.keys() == {"step", "train"}
        for name, losses in recorded.items():
            part = losses[start : row["step"]]
            assert type(row["train"][name]["loss"]) is float
            assert row["train"][name]["loss"] == sum(part) / len(part)
    assert row["train"]["forger"].keys() == {"loss", "spread"}


def test_history_holds_what_evaluate_says_of_the_validation_images():
    game = Rivals()
    run = quickly(game)
    assert run.history[-1]["val"] == evaluate(game, PIXELS[:20], prepare)
    assert run.history[-1]["val"] != run.history[0]["val"]


def test_evaluate_weights_a_smaller_last_batch_by_its_size(monkeypatch):
    monkeypatch.setattr(loop, "EVALUATION_BATCH", 16)
    a = Point([2.0])
    game = Game(a=(a, lambda x, g: {"loss": x.mean() * a.at.sum(), "batch": torch.tensor(len(x))}))
    values = evaluate(game, PIXELS, lambda pixels, generator: pixels.double())
    assert values["a"]["loss"] == pytest.approx(2 * PIXELS.double().mean().item(), rel=1e-12)
    assert values["a"]["batch"] == pytest.approx((3 * 16 * 16 + 12 * 12) / 60)


def test_evaluate_draws_the_same_noise_each_time_and_other_noise_for_another_seed():
    game = Rivals()
    assert evaluate(game, PIXELS, prepare) == evaluate(game, PIXELS, prepare) != evaluate(game, PIXELS, prepare, 1)


def test_validation_is_in_eval_mode_without_gradients_and_training_in_train_mode():
    modes, a = [], Point([1.0])

    def loss(x, generator):
        modes.append((len(x), game.training, torch.is_grad_enabled()))
        return {"loss": a.at.sum()}

    game = Game(a=(a, loss)).eval()
    train(game, PIXELS, prepare, steps=2, batch_size=7, learning_rate=0.1, validation=PIXELS[:20])
    assert modes == [(7, True, True), (20, False, False)] * 2


@pytest.mark.parametrize("training", [True, False])
def test_evaluate_restores_the_mode(training):
    game = Rivals().train(training)
    evaluate(game, PIXELS, prepare)
    assert {module.training for module in game.modules()} == {training}


def test_snapshots_hold_the_state_at_their_fractions():
    states, game = {}, Rivals()
    game.before_step = lambda step: states.setdefault(step - 1, copy.deepcopy(game.state_dict()))
    run = quickly(game, snapshots=(0, 0.001, 0.25, 0.5, 1))
    states[100] = game.state_dict()
    assert list(run.snapshots) == [0, 0.001, 0.25, 0.5, 1]
    for fraction, snapshot in run.snapshots.items():
        assert same(snapshot, dict(states[round(100 * fraction)]))


def test_nothing_is_fetched_from_the_device_between_log_steps(monkeypatch):
    fetched, at_step = [], []
    for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__"):
        original = getattr(torch.Tensor, name)

        def counting(tensor, *args, name=name, original=original):
            fetched.append(name)
            return original(tensor, *args)

        monkeypatch.setattr(torch.Tensor, name, counting)
    game = Rivals(before_step=lambda step: at_step.append(len(fetched)))
    quickly(game, steps=500, snapshots=())
    changes = [step for step in range(1, 500) if at_step[step] != at_step[step - 1]]
    assert changes == list(range(10, 500, 10))


# ---------------------------------------------------------------- interruption and resuming


@pytest.mark.parametrize("at", [1, 40, 41])
def test_a_run_that_was_interrupted_and_resumed_is_bitwise_the_uninterrupted_one(at, tmp_path, uninterrupted):
    torch.manual_seed(5)
    stopped = quickly(Rivals(press_ctrl_c(at)), state_file=tmp_path / "s")
    torch.manual_seed(6)
    game = Rivals(weights_seed=2)
    run = quickly(game, state_file=tmp_path / "s")
    assert (stopped.step, stopped.finished, game.steps) == (at, False, 100 - at)
    assert same(all_but_the_time(tmp_path / "s"), uninterrupted)
    assert same(dict(game.state_dict()), dict(uninterrupted["model"]))
    assert run.history == uninterrupted["run"]["history"]
    assert run.finished


def train_and_die(path):
    """What the next test runs in a process of its own."""
    loop.SAVE_EVERY = 0
    torch.manual_seed(5)
    quickly(Rivals(lambda step: os.kill(os.getpid(), signal.SIGKILL) if step == 52 else None), state_file=path)


def test_a_run_that_was_killed_and_resumed_is_bitwise_the_uninterrupted_one(tmp_path, uninterrupted):
    code = "import pathlib, sys, test_train; test_train.train_and_die(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(tmp_path / "s")]
    assert subprocess.run(command, cwd=Path(__file__).parent, capture_output=True).returncode == -signal.SIGKILL
    game = Rivals(weights_seed=2)
    quickly(game, state_file=tmp_path / "s")
    assert game.steps == 50
    assert same(all_but_the_time(tmp_path / "s"), uninterrupted)


def test_a_finished_run_is_given_back_without_another_step(tmp_path):
    first = quickly(Rivals(), state_file=tmp_path / "s")
    game = Rivals()
    again = quickly(game, state_file=tmp_path / "s")
    assert (game.steps, again.finished, again.history) == (0, True, first.history)


def test_the_time_of_a_resumed_run_goes_on_counting(tmp_path):
    quickly(Rivals(press_ctrl_c(9)), state_file=tmp_path / "s")
    state = load_state(tmp_path / "s")
    state["run"]["seconds"] = 1000.0
    loop.checkpoint.save_state(tmp_path / "s", state)
    assert 1000 < quickly(Rivals(), state_file=tmp_path / "s").seconds < 1060


def test_the_state_is_saved_at_the_first_log_step_after_each_minute_and_at_the_end(tmp_path, monkeypatch):
    saves, clock = [], SimpleNamespace(now=0.0)
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(loop.checkpoint, "save_state", lambda path, state: saves.append(state["run"]["step"]))
    game = Rivals(before_step=lambda step: vars(clock).update(now=10.0 * step))  # ten seconds a step
    assert quickly(game, state_file=tmp_path / "s").seconds == 1000
    assert saves == [*range(8, 97, 8), 100]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"steps": 200}, "steps 100"),
        ({"batch_size": 8}, "batch_size 7"),
        ({"learning_rate": 0.1}, "learning_rate 0.01"),
        ({"decay": False}, "decay True"),
        ({"seed": 4}, "seed 3"),
        ({"betas": (0.5, 0.99)}, r"betas \(0.9, 0.999\)"),
        ({"average": 0.5}, "average 0.0"),
        ({"bfloat16": True}, "bfloat16 False"),
        ({"compiled": "default"}, "compiled "),
        ({"pixels": PIXELS[:59]}, "images 60"),
        ({"seed": 4, "batch_size": 8}, "batch_size 7, seed 3"),
    ],
)
def test_a_state_of_other_settings_is_refused_and_the_settings_named(change, named, tmp_path):
    quickly(Rivals(press_ctrl_c(9)), state_file=tmp_path / "s")
    with pytest.raises(CheckpointError, match=f"s is of a run with {named};"):
        quickly(Rivals(), state_file=tmp_path / "s", **change)


def test_a_state_of_another_model_is_refused(tmp_path):
    quickly(Rivals(press_ctrl_c(9)), state_file=tmp_path / "s")
    other = Rivals()
    other.critic = nn.Linear(4, 1).double()
    with pytest.raises(CheckpointError, match="of another model"):
        quickly(other, state_file=tmp_path / "s")


def altered(path, **changes):
    """Put other values into a state file; None takes a key away."""
    state = load_state(path) | changes
    loop.checkpoint.save_state(path, {key: value for key, value in state.items() if value is not None})


@pytest.mark.parametrize(
    "changes",
    [
        *({key: None} for key in ("plan", "run", "sums", "model", "averages", "optimizers", "generator")),
        {"global_generators": None},
        {
            "global_generators": [torch.get_rng_state(), torch.get_rng_state()]
        },  # of a version that kept those of all GPUs
        {"run": {**vars(loop.Run(step=9)), "unknown": 1}},
        {"run": {key: value for key, value in vars(loop.Run(step=9)).items() if key != "step"}},
        {"run": []},
        {"run": vars(loop.Run(step="9"))},
        {"averages": {"forger.0.weight": torch.zeros(8, 4), "nowhere": torch.zeros(2)}},
        {"averages": {"forger.0.weight": torch.zeros(2, 2)}},
        {"plan": []},
        {"sums": {"forger": 3}},
        {"optimizers": {"forger": {}, "critic": {}}},
        {"generator": torch.zeros(3, dtype=torch.uint8)},
    ],
    ids=str,
)
def test_a_state_of_another_version_is_refused_in_one_sentence(changes, tmp_path):
    quickly(Rivals(press_ctrl_c(9)), state_file=tmp_path / "s")
    altered(tmp_path / "s", **changes)
    with pytest.raises(CheckpointError) as refused:
        quickly(Rivals(), state_file=tmp_path / "s")
    what = "is of another model, or of another version of the course; delete it or train with that one"
    assert str(refused.value) == f"{tmp_path / 's'} {what}"


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_the_generator_of_the_run_s_own_device_goes_into_a_state_and_back(kind, monkeypatch):
    """A stand-in for the device: no test machine has one."""
    device, states = torch.device(kind, 0), {}
    where = (device,) if kind == "cuda" else ()
    module = getattr(torch, kind)
    monkeypatch.setattr(module, "get_rng_state", lambda *own: torch.full((3,), 7) if own == where else None)
    monkeypatch.setattr(module, "set_rng_state", lambda state, *own: states.update({own: state}))
    torch.manual_seed(5)
    saved = loop._global_generators(device)
    expected = torch.rand(3)
    loop._set_global_generators(saved, device)
    assert torch.equal(torch.rand(3), expected)
    assert same(states, {where: torch.full((3,), 7)})


def test_a_finished_run_gives_the_snapshot_of_its_end_and_names_those_that_it_cannot(tmp_path):
    quickly(Rivals(), snapshots=(0.25,), average=0.9, state_file=tmp_path / "s")
    game = Rivals()
    run = quickly(game, snapshots=(0.25, 1), average=0.9, state_file=tmp_path / "s")
    assert list(run.snapshots) == [0.25, 1]
    assert same(run.snapshots[1], dict(game.state_dict()))
    with pytest.raises(CheckpointError, match=r"s is past the snapshot at 0.5, which it does not hold; delete it or"):
        quickly(Rivals(), snapshots=(0.25, 0.5, 1), average=0.9, state_file=tmp_path / "s")


def test_an_interrupted_run_goes_on_with_a_snapshot_that_is_still_to_come(tmp_path):
    quickly(Rivals(press_ctrl_c(30)), snapshots=(), state_file=tmp_path / "s")
    assert list(quickly(Rivals(), snapshots=(0.3, 0.5, 1), state_file=tmp_path / "s").snapshots) == [0.3, 0.5, 1]


def test_an_interruption_before_the_first_step_leaves_no_state(tmp_path):
    """A state would say that a layer which its first batch sets has been set."""

    @contextlib.contextmanager
    def at_once():
        yield [signal.SIGINT]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_interruptible", at_once)
        assert quickly(Rivals(), state_file=tmp_path / "s").step == 0
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-9], lambda b: b"", lambda b: b[:999] + bytes([b[999] ^ 1]) + b[1000:]]
)
def test_a_damaged_state_is_refused(damage, tmp_path):
    path = tmp_path / "s"
    quickly(Rivals(), state_file=path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match=r"s is damaged \(its SHA-256"):
        quickly(Rivals(), state_file=path)


def test_ctrl_c_gives_back_the_run_after_the_whole_step_and_says_so(capsys):
    before = signal.getsignal(signal.SIGINT)
    whole, stopped = Rivals(), Rivals(press_ctrl_c(31))
    torch.manual_seed(5)
    quickly(stopped, title="duel")
    captured = capsys.readouterr()
    assert captured.out == "duel was stopped at step 31 of 100; the model keeps what it has learnt.\n"
    torch.manual_seed(5)
    run = quickly(whole, snapshots=(0.31,))
    assert same(run.snapshots[0.31], dict(stopped.state_dict()))
    assert capsys.readouterr().out == ""
    assert signal.getsignal(signal.SIGINT) is before


class Terminated(Exception):  # noqa: N818
    """What the test's own handler of SIGTERM raises."""


@contextlib.contextmanager
def handled(number, handler):
    before = signal.signal(number, handler)
    yield
    assert signal.signal(number, before) is handler


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_sigterm_and_sighup_save_after_the_whole_step_before_they_end_the_process(
    number, tmp_path, uninterrupted, capsys
):
    def terminate(*_):
        raise Terminated

    torch.manual_seed(5)
    game = Rivals(lambda step: os.kill(os.getpid(), number) if step == 40 else None)
    with handled(number, terminate), pytest.raises(Terminated):
        quickly(game, state_file=tmp_path / "s")
    assert load_state(tmp_path / "s")["run"]["step"] == 40
    assert "was stopped at step 40 of 100" in capsys.readouterr().out
    quickly(Rivals(), state_file=tmp_path / "s")
    assert same(all_but_the_time(tmp_path / "s"), uninterrupted)


def test_a_run_under_nohup_goes_on_when_its_terminal_is_closed():
    game = Rivals(lambda step: os.kill(os.getpid(), signal.SIGHUP) if step == 40 else None)
    with handled(signal.SIGHUP, signal.SIG_IGN):
        assert quickly(game).finished


def test_the_progress_bar_changes_at_most_once_a_second(capsys):
    run = quickly(Rivals(), steps=1000)
    assert capsys.readouterr().err.count("\r") <= run.seconds + 3  # one more at the start and two at the end


def test_a_second_ctrl_c_interrupts_as_usual(tmp_path, interruptible):
    def twice(step):
        for _ in range(2 * (step == 31)):
            os.kill(os.getpid(), signal.SIGINT)

    before, game = signal.getsignal(signal.SIGINT), Rivals(twice)
    with pytest.raises(KeyboardInterrupt):
        quickly(game, state_file=tmp_path / "s")
    assert game.steps == 31
    assert signal.getsignal(signal.SIGINT) is before


def test_an_error_in_a_loss_restores_the_signal_handler():
    before, a = signal.getsignal(signal.SIGINT), Point([1.0])
    with pytest.raises(KeyError):
        train(Game(a=(a, lambda x, g: {"other": a.at.sum()})), PIXELS, prepare, steps=1, batch_size=1, learning_rate=1)
    assert signal.getsignal(signal.SIGINT) is before


def test_training_in_another_thread_gives_the_same_run():
    here, there = Rivals(), Rivals()
    torch.manual_seed(5)
    quickly(here)
    torch.manual_seed(5)
    thread = threading.Thread(target=quickly, args=(there,))
    thread.start()
    thread.join()
    assert same(there.state_dict(), here.state_dict())


# ---------------------------------------------------------------- the average of the weights


class Normed(Rivals):
    """Rivals whose forger has batch norm, so floating buffers and a count. states: the state before each step."""

    def __init__(self, before_step=lambda step: None, weights_seed=1):
        super().__init__(before_step, weights_seed)
        self.forger.insert(1, nn.BatchNorm1d(8).double())
        self.states = []

    def forger_loss(self, x, generator):
        if self.training:
            self.states.append(copy.deepcopy(self.state_dict()))
        return super().forger_loss(x, generator)


@pytest.fixture(scope="module")
def averaged():
    """A run of 20 steps with a = 0.8: the run, its game, and the game of the same run without an average."""
    results = []
    for settings in ({"average": 0.8}, {}):
        torch.manual_seed(5)
        game = Normed()
        run = quickly(game, steps=20, snapshots=(0, 0.25, 1), **settings)
        results += [(run, game)]
    return results


def averages_by_hand(states, last, a):
    """The average after each step, from the states before each step and the last: floats are averaged, counts not.

    Before the first step it is the weights themselves, and it begins with those after that step.
    """
    states = [*states, dict(last)]
    averages = states[:2]
    for state in states[2:]:
        averages.append({
            key: a * averages[-1][key] + (1 - a) * now if now.is_floating_point() else now for key, now in state.items()
        })  # fmt: skip
    return averages


def test_a_run_ends_with_the_average_of_the_weights_and_of_batch_norm_s_statistics(averaged):
    (_, game), (_, plain) = averaged
    expected = averages_by_hand(plain.states, plain.state_dict(), 0.8)[-1]
    assert_close(dict(game.state_dict()), expected)
    assert not torch.allclose(game.forger[0].weight, plain.forger[0].weight, atol=1e-3)


def test_the_average_of_the_weights_agrees_with_torch_s(averaged):
    (_, game), (_, plain) = averaged
    first = Normed()
    expected = AveragedModel(first, multi_avg_fn=get_ema_multi_avg_fn(0.8))
    for state in [*plain.states[1:], plain.state_dict()]:  # the first call copies
        first.load_state_dict(state)
        expected.update_parameters(first)
    assert_close(dict(game.named_parameters()), dict(expected.module.named_parameters()))


def test_snapshots_hold_the_average_after_their_step(averaged):
    (run, _), (_, plain) = averaged
    averages = averages_by_hand(plain.states, plain.state_dict(), 0.8)
    assert list(run.snapshots) == [0, 0.25, 1]
    for fraction, snapshot in run.snapshots.items():
        assert_close(snapshot, dict(averages[round(20 * fraction)]))


def test_averaging_does_not_change_the_run_itself(averaged):
    (run, game), (plain_run, plain) = averaged
    assert all(same(dict(one), dict(other)) for one, other in zip(game.states, plain.states, strict=True))
    assert run.history == plain_run.history  # of the weights that are trained


def test_counts_are_taken_from_the_run_as_they_are(averaged):
    (_, game), _ = averaged
    assert game.forger[1].num_batches_tracked.item() == 40
    assert game.forger[1].num_batches_tracked.dtype == torch.int64


@pytest.mark.parametrize("at", [1, 40, 41])
def test_an_averaged_run_that_was_interrupted_and_resumed_is_bitwise_the_uninterrupted_one(at, tmp_path):
    torch.manual_seed(5)
    whole = Normed()
    quickly(whole, average=0.9, state_file=tmp_path / "whole")
    torch.manual_seed(5)
    quickly(Normed(press_ctrl_c(at)), average=0.9, state_file=tmp_path / "s")
    torch.manual_seed(6)
    game = Normed(weights_seed=2)
    quickly(game, average=0.9, state_file=tmp_path / "s")
    assert same(dict(game.state_dict()), dict(whole.state_dict()))
    assert same(all_but_the_time(tmp_path / "s"), all_but_the_time(tmp_path / "whole"))


def test_an_averaged_run_that_was_interrupted_gives_back_the_average_so_far():
    torch.manual_seed(5)
    stopped = Normed(press_ctrl_c(25))
    quickly(stopped, average=0.9)
    torch.manual_seed(5)
    run = quickly(Normed(), average=0.9, snapshots=(0.25,))
    assert same(dict(stopped.state_dict()), run.snapshots[0.25])


def test_a_finished_averaged_run_is_given_back_with_its_average(tmp_path):
    first, again = Normed(), Normed(weights_seed=2)
    quickly(first, average=0.9, state_file=tmp_path / "s")
    quickly(again, average=0.9, state_file=tmp_path / "s")
    assert again.steps == 0
    assert same(dict(again.state_dict()), dict(first.state_dict()))


def test_the_average_of_a_layer_that_its_first_batch_sets_begins_with_what_that_batch_set():
    results = {}
    for average in (0.0, 0.99):
        model = Parts()
        quickly(model, prepare=as_float32, steps=3, batch_size=60, learning_rate=1e-3, average=average)
        results[average] = torch.cat([model.norm.shift.flatten(), model.norm.log_scale.flatten()])
    # the weights move by at most the learning rate a step; before the first batch both vectors were zero
    assert_close(results[0.99], results[0.0], atol=4e-3, rtol=0)
    assert results[0.0].abs().min() > 0.1


# ---------------------------------------------------------------- frozen weights


def test_a_layer_whose_weights_are_frozen_stays_and_the_others_are_trained():
    game = Rivals()
    game.forger[0].requires_grad_(False)
    before = copy.deepcopy(game.state_dict())
    quickly(game, average=0.5)
    moved = {key for key, tensor in game.state_dict().items() if not torch.equal(tensor, before[key])}
    # the critic's last bias is in both verdicts that it compares, and so has no gradient
    assert before.keys() - moved == {"forger.0.weight", "forger.0.bias", "critic.3.bias"}


def test_a_player_whose_every_weight_is_frozen_does_not_move_and_is_still_logged():
    game = Rivals()
    game.critic.requires_grad_(False)
    before = copy.deepcopy(game.critic.state_dict())
    run = quickly(game)
    assert same(game.critic.state_dict(), before)
    assert run.history[-1]["train"]["critic"]["loss"] != run.history[0]["train"]["critic"]["loss"]
    assert run.history[-1]["train"]["forger"]["loss"] < run.history[0]["train"]["forger"]["loss"]


def test_a_frozen_player_s_loss_that_is_not_a_number_is_named():
    game = poisoned("loss", 32)
    game.critic.requires_grad_(False)
    with pytest.raises(DivergenceError, match=r"^critic: a loss or weight is not finite at step 32"):
        quickly(game)


def test_a_game_without_a_weight_that_may_move_is_refused():
    with pytest.raises(UsageError, match=r"^duel: there is nothing to train, because no weight requires a gradient$"):
        quickly(Rivals().requires_grad_(False), title="duel")


def test_a_frozen_run_that_was_interrupted_and_resumed_is_bitwise_the_uninterrupted_one(tmp_path):
    results = []
    for at in ([], [40]):
        torch.manual_seed(5)
        for stop in [*at, 0]:
            game = Rivals(press_ctrl_c(stop))
            game.forger[0].requires_grad_(False)
            quickly(game, state_file=tmp_path / f"{len(at)}.state")
        results.append(all_but_the_time(tmp_path / f"{len(at)}.state"))
    assert same(*results)


# ---------------------------------------------------------------- what one player shows the next


def test_what_a_loss_shows_is_handed_to_the_next_player_of_the_step_and_not_logged():
    a, b, seen = Point([1.0]), Point([1.0]), []

    def first(x, generator, *further):
        seen.append(further)
        return {"loss": a.at.sum(), "shown": (10 * a.at).round()}

    def second(x, generator, *further):
        seen.append(further)
        return {"loss": b.at.sum()}

    run = train(Game(a=(a, first), b=(b, second)), PIXELS, prepare, steps=2, batch_size=1, learning_rate=0.5)
    assert [[own.item() for own in further] for further in seen] == [[], [10], [], [5]]
    assert run.history[-1]["train"]["a"].keys() == {"loss"}


def test_evaluation_hands_nothing_over_and_measures_nothing_that_is_shown():
    a, b, given = Point([1.0]), Point([1.0]), []

    def second(*arguments):
        given.append(len(arguments))
        return {"loss": b.at.sum()}

    game = Game(a=(a, lambda x, g: {"loss": a.at.sum(), "shown": x}), b=(b, second))
    assert evaluate(game, PIXELS, prepare) == {"a": {"loss": 1.0}, "b": {"loss": 1.0}}
    assert given == [2]


# ---------------------------------------------------------------- bfloat16


class Product(nn.Module):
    """A linear layer in float32 that notes in which mode it was called, and in which precision its result came."""

    def __init__(self, seed):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.layer = nn.Linear(4, 1)
        self.seen = set()

    def loss(self, x, generator):
        y = self.layer(x)
        self.seen.add((self.training, y.dtype))
        return {"loss": (y.float() - 1).square().mean()}


def products():
    a, b = Product(1), Product(2)
    return Game(a=(a, a.loss), b=(b, b.loss))


def as_float32(pixels, generator):
    return pixels.float() / 255


@pytest.fixture
def fast_bfloat16(monkeypatch):
    """This machine is faster in bfloat16."""
    monkeypatch.setattr(loop, "bfloat16_pays", lambda device: device == "cpu")


@pytest.mark.usefixtures("fast_bfloat16")
@pytest.mark.parametrize(("given", "dtype"), [({"bfloat16": True}, torch.bfloat16), ({}, torch.float32)])
def test_bfloat16_is_for_the_losses_of_training_alone_and_only_where_asked(given, dtype):
    game = products()
    quickly(game, prepare=as_float32, steps=3, **given)
    assert [own.seen for own in game.parts.values()] == [{(True, dtype), (False, torch.float32)}] * 2


@pytest.mark.usefixtures("fast_bfloat16")
def test_in_a_bfloat16_run_weights_gradients_and_batches_stay_in_float32():
    game, outside = products(), []

    def note(pixels, generator):
        outside.append(torch.is_autocast_enabled("cpu"))
        return as_float32(pixels, generator)

    quickly(game, prepare=note, steps=3, bfloat16=True)
    assert {own.dtype for p in game.parameters() for own in (p, p.grad)} == {torch.float32}
    assert not any(outside)


@pytest.mark.usefixtures("fast_bfloat16")
def test_a_bfloat16_run_is_bitwise_the_loop_one_would_write_by_hand():
    game, by_hand = products(), products()
    quickly(game, prepare=as_float32, steps=20, decay=False, bfloat16=True)
    generator = seeded(3)
    optimizers = [torch.optim.Adam(own.parameters(), lr=0.01, fused=True) for own in by_hand.parts.values()]
    for _ in range(20):
        x = PIXELS[torch.randint(60, (7,), generator=generator)].float() / 255
        for own, optimizer in zip(by_hand.parts.values(), optimizers, strict=True):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = own.loss(x, generator)["loss"]
            loss.backward()
            optimizer.step()
    assert same(game.state_dict(), by_hand.state_dict())


def test_where_bfloat16_is_slower_the_run_is_in_float32_and_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(loop, "bfloat16_pays", lambda device: False)
    asked, plain = products(), products()
    quickly(asked, prepare=as_float32, steps=3, bfloat16=True, state_file=tmp_path / "s")
    quickly(plain, prepare=as_float32, steps=3)
    assert same(asked.state_dict(), plain.state_dict())
    assert load_state(tmp_path / "s")["plan"]["bfloat16"] is True  # as asked: another trial must not bar a resumption
    assert load_state(tmp_path / "s")["run"]["precisions"] == ["float32"]  # as done
    assert capsys.readouterr().out == "training: trained in float32, because this device is slower in bfloat16.\n"


def products_until(step):
    """`products`, with Ctrl-C pressed in that step of this run."""
    game, steps = products(), []
    loss, press = game.losses["a"], press_ctrl_c(step)

    def counted(x, generator):
        steps.append(x)
        press(len(steps))
        return loss(x, generator)

    game.losses["a"] = counted
    return game


def test_a_run_says_in_which_precisions_it_was_trained(monkeypatch, tmp_path):
    for until, pays, told in [
        (40, True, ["bfloat16"]),
        (20, False, ["bfloat16", "float32"]),
        (0, True, ["bfloat16", "float32"]),
    ]:
        monkeypatch.setattr(loop, "bfloat16_pays", lambda device, pays=pays: pays)
        game, settings = products_until(until), {"validation": None, "snapshots": (), "state_file": tmp_path / "s"}
        assert quickly(game, prepare=as_float32, bfloat16=True, **settings).precisions == told


def test_a_finished_run_says_nothing_of_the_machine_that_reads_it(monkeypatch, tmp_path):
    for pays in (True, False):
        monkeypatch.setattr(loop, "bfloat16_pays", lambda device, pays=pays: pays)
        run = quickly(products(), prepare=as_float32, bfloat16=True, state_file=tmp_path / "s")
        assert run.precisions == ["bfloat16"]


@pytest.mark.parametrize(
    ("bfloat16", "float32", "pays"),
    [
        ((9, 9, 1, *[9] * 17), (2,) * 20, True),
        ((2,) * 20, (9, 9, 1, *[9] * 17), False),
        ((14,) * 20, (10,) * 20, True),
        ((16,) * 20, (10,) * 20, False),
    ],
)
def test_the_best_of_twenty_trials_in_each_precision_decides(bfloat16, float32, pays, monkeypatch):
    durations = [own for pair in zip(bfloat16, float32, strict=True) for own in pair]
    ticks = iter([0, *(time for end in itertools.accumulate(durations) for time in (end, end))])
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    assert loop.bfloat16_pays.__wrapped__("cpu") is pays


def test_the_trial_multiplies_in_both_precisions():
    seen = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function is torch.Tensor.matmul:
                seen.append(args[0].dtype)
            return function(*args, **kwargs or {})

    with Watch():
        loop.bfloat16_pays.__wrapped__("cpu")
    assert seen == [torch.bfloat16, torch.float32] * 20  # in turn, so that other processes disturb both


# ---------------------------------------------------------------- torch.compile


class Parts(nn.Module):
    """A normalising layer that the first batch sets, and a layer after it: two parts of a game of one player."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.norm, self.layer = ActNorm((4,)), nn.Linear(4, 1)

    def loss(self, x, generator):
        z, log_det = self.norm(x)
        return {"loss": self.layer(z).square().mean() - log_det.mean() + z.square().mean() / 2}

    def players(self):
        return {"parts": (self, self.loss)}


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of torch's compiler, which keeps it from being shown
def test_a_compiled_run_learns_what_an_uncompiled_one_does_and_says_what_it_waits_for(capsys):
    torch.compiler.reset()
    compiled, plain = Parts(), Parts()
    runs = [quickly(game, prepare=as_float32, compiled=mode) for game, mode in ((compiled, "default"), (plain, ""))]
    assert_close(compiled.state_dict(), plain.state_dict())
    assert_close(*(torch.tensor([row["val"]["parts"]["loss"] for row in run.history]) for run in runs))
    told = capsys.readouterr().out
    if "trained without torch.compile" in told and not os.environ.get("CI"):
        pytest.skip("no C++ compiler here: both runs were uncompiled (CI demands one)")
    assert told == "training: torch.compile prepares the networks before the bar moves on, which can take a minute.\n"


def test_all_but_the_first_step_is_compiled_and_nothing_outside_the_steps(monkeypatch):
    calls = []

    def noted(function, mode):
        if isinstance(function, MethodType):
            return lambda *args: (
                calls.append((mode, type(function.__self__), torch.is_grad_enabled())) or function(*args)
            )
        return function

    monkeypatch.setattr(torch, "compile", noted)
    game = Parts()
    quickly(game, prepare=as_float32, steps=5, compiled="a mode")
    assert calls == [("a mode", ActNorm, True), ("a mode", nn.Linear, True)] * 4
    game.loss(as_float32(PIXELS, None), None)
    assert len(calls) == 8
    assert not any("forward" in vars(part) for part in game.children())


def test_compiled_code_runs_in_bfloat16_where_both_are_asked(monkeypatch):
    monkeypatch.setattr(loop, "bfloat16_pays", lambda device: True)
    seen = []

    def noted(function, mode):
        return lambda *args: seen.append(torch.is_autocast_enabled("cpu")) or function(*args)

    monkeypatch.setattr(torch, "compile", noted)
    quickly(Parts(), prepare=as_float32, steps=3, bfloat16=True, compiled="default", validation=None)
    assert seen == [False] + [True] * 4  # the trial, then two parts in two steps


def test_an_unknown_mode_is_no_missing_compiler():
    with pytest.raises(RuntimeError, match="Unrecognized mode=defualt"):
        quickly(Parts(), prepare=as_float32, steps=3, compiled="defualt")


def test_where_there_is_no_compiler_the_run_says_so_and_does_without(tmp_path):
    script = """
from test_train import Parts, as_float32, quickly
print(len(quickly(Parts(), prepare=as_float32, compiled="default", title="two parts").history))
"""
    environment = os.environ | {"CXX": "/nowhere/c++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    told = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parent, env=environment, capture_output=True, text=True
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("two parts: trained without torch.compile, which doesn't work here (")
    assert told.stdout.count("\n") == 2
    assert told.stdout.endswith("50\n")


def test_a_step_that_fails_leaves_the_model_its_own_forward(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, mode: function)
    game = Parts()
    game.layer.register_forward_hook(lambda *_: 1 / 0 if not game.norm.untouched and game.steps.pop() else None)
    game.steps = [True, False]  # the second step fails
    with pytest.raises(ZeroDivisionError):
        quickly(game, prepare=as_float32, compiled="default", snapshots=())
    assert not any("forward" in vars(part) for part in game.children())


# ---------------------------------------------------------------- divergence


SCORES = {"value": math.inf, "negative value": -math.inf}


def poisoned(where, at):
    """A game in which at step `at` something of the critic becomes NaN or infinite: loss, weight, or a logged value."""
    game = Rivals()
    game.critic.register_parameter("unused", nn.Parameter(torch.tensor(0.0)))
    honest = game.critic_loss

    def critic_loss(x, generator):
        now = game.training and game.steps == at
        values = honest(x, generator) | {"score": torch.tensor(SCORES.get(where, 0.0) if now else 0.0)}
        if now and where == "loss":
            values["loss"] = values["loss"] * math.nan
        if now and where == "weight":
            game.critic.unused.data.fill_(math.nan)
        if now and where == "last weight":
            game.critic[-1].bias.data.fill_(math.nan)
        return values

    game.critic_loss = critic_loss
    return game


@pytest.mark.parametrize("where", ["loss", "weight", "last weight", "value", "negative value"])
def test_divergence_names_the_player_the_step_and_the_last_good_loss(where):
    torch.manual_seed(5)
    healthy = quickly(poisoned(None, 0))
    torch.manual_seed(5)
    with pytest.raises(DivergenceError) as error:
        quickly(poisoned(where, 32))
    good = healthy.history[14]["train"]["critic"]["loss"]
    assert str(error.value) == (
        f"critic: a loss or weight is not finite at step 32; the last good loss was {good:.4g} at step 30. "
        "Lower the learning rate."
    )


def test_divergence_names_every_player_that_it_has_reached():
    with pytest.raises(
        DivergenceError, match=r"^forger, critic: .* at step 32; the last good loss was \S+, \S+ at step 30"
    ):
        quickly(poisoned("loss", 31))


def test_divergence_before_the_first_row_says_that_no_step_was_good():
    with pytest.raises(DivergenceError, match=r"critic: .* at step 2; no step was good"):
        quickly(poisoned("loss", 1))


@pytest.mark.parametrize("where", ["loss", "weight", "value"])
def test_after_divergence_the_last_good_state_is_on_disk_and_can_be_resumed(where, tmp_path, monkeypatch):
    torch.manual_seed(5)
    quickly(poisoned(None, 0), state_file=tmp_path / "whole.state")
    monkeypatch.setattr(loop, "SAVE_EVERY", 0)
    torch.manual_seed(5)
    with pytest.raises(DivergenceError):
        quickly(poisoned(where, 31), state_file=tmp_path / "s")
    assert load_state(tmp_path / "s")["run"]["step"] == 30
    quickly(poisoned(None, 0), state_file=tmp_path / "s")
    assert same(all_but_the_time(tmp_path / "s"), all_but_the_time(tmp_path / "whole.state"))


@pytest.mark.parametrize("where", ["loss", "weight", "value"])
def test_a_run_that_diverged_is_not_saved_when_it_is_interrupted(where, tmp_path):
    game = poisoned(where, 31)
    game.before_step = press_ctrl_c(31)
    with pytest.raises(DivergenceError, match=r"critic: .* at step 31"):
        quickly(game, state_file=tmp_path / "s")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("where", ["loss", "weight", "value"])
def test_a_run_that_diverged_is_not_given_back_when_it_is_interrupted(where):
    game = poisoned(where, 31)
    game.before_step = press_ctrl_c(31)
    with pytest.raises(DivergenceError):
        quickly(game)


# ---------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"steps": -1}, "steps must be a whole number, at least 1, but is -1"),
        ({"steps": 0}, "steps must be a whole number, at least 1, but is 0"),
        ({"steps": 1.5}, "steps must be a whole number, at least 1, but is 1.5"),
        ({"batch_size": 0}, "batch_size must be a whole number, at least 1, but is 0"),
        ({"batch_size": 2.5}, "batch_size must be a whole number, at least 1, but is 2.5"),
        ({"pixels": PIXELS[:0]}, "images must be at least one, but is 0"),
        ({"validation": PIXELS[:0]}, "validation images must be at least one, but is 0"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0 and finite, but is 0.0"),
        ({"learning_rate": math.nan}, "learning_rate must be above 0 and finite, but is nan"),
        ({"learning_rate": math.inf}, "learning_rate must be above 0 and finite, but is inf"),
        ({"average": 1.0}, "average must be from 0 to below 1, but is 1.0"),
        ({"average": -0.5}, "average must be from 0 to below 1, but is -0.5"),
        ({"snapshots": (0, 1.5)}, r"snapshots must be fractions of the run, from 0 to 1, but is \(0, 1.5\)"),
        ({"seed": None}, "seed must be a whole number, but is None"),
        ({"seed": 1.5}, "seed must be a whole number, but is 1.5"),
        ({"seed": -1}, "seed must be from 0 to 4,294,967,295, but is -1"),
        ({"seed": 2**32}, "seed must be from 0 to 4,294,967,295, but is 4,294,967,296"),
        ({"seed": 2**64}, "seed must be from 0 to 4,294,967,295, but is 18,446,744,073,709,551,616"),
    ],
)
def test_values_with_which_nothing_can_be_trained_are_refused_by_name(change, sentence):
    with pytest.raises(UsageError, match=f"^{sentence}$"):
        quickly(Rivals(), **change)


def test_the_largest_seed_is_taken_by_every_generator():
    np.random.default_rng(loop.LARGEST_SEED)
    quickly(Rivals(), seed=loop.LARGEST_SEED, steps=2)


# ---------------------------------------------------------------- devices


def test_the_cpu_is_always_there():
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    "name", ["tpu", "CPU", "", "cudaa", "auto:0", "cpu:0", "cpu:99999", "cuda:", "cuda:x", "mps:0:1"]
)
def test_an_unknown_device_is_refused_with_the_choices(name):
    with pytest.raises(UsageError, match=f"unknown device '{name}': choose one of auto, cpu, cuda, mps"):
        choose_device(name)


def test_an_absent_device_is_refused_with_what_is_here():
    with pytest.raises(ValueError, match=r"device 'cuda:99' cannot be used here \(.+\): choose one of auto, cpu"):
        choose_device("cuda:99")


def test_only_devices_that_compute_are_offered(monkeypatch):
    monkeypatch.setattr(loop, "_computes", lambda name: None if name in ("cpu", "mps") else "no driver")
    with pytest.raises(
        ValueError, match=r"device 'cuda' cannot be used here \(no driver\): choose one of auto, cpu, mps$"
    ):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("available", "reason", "chosen"), [(True, None, "cuda"), (True, "no kernel image", "cpu"), (False, None, "cpu")]
)
def test_auto_takes_cuda_only_where_it_is_there_and_computes(available, reason, chosen, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(loop, "_computes", lambda name: reason)
    assert choose_device("auto") == choose_device() == torch.device(chosen)
