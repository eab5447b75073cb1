import copy
import itertools
import math
import os
import shutil
import signal
import sys
import threading
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from conftest import handled, same, seeded
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.testing import assert_close

from gm_helpers import progress
from gm_helpers import train as loop
from gm_helpers.checkpoint import CheckpointError, load_state, save_state
from gm_helpers.files import UsageError
from gm_helpers.train import DivergenceError, evaluate, learning_rate, train


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
    """Two networks against each other, with noise from the loop's generator, dropout from torch's own, and batch norm.

    before_step(k) is called when the first player's k-th training step begins.
    """

    def __init__(self, before_step=lambda step: None, weights_seed=1):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(weights_seed)
            self.forger = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4)).double()
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


def rivals_in_float32(*arguments, **options):
    return Rivals(*arguments, **options).float()


def rivals_partly_frozen(*arguments, **options):
    game = Rivals(*arguments, **options)
    game.forger[0].requires_grad_(False)
    return game


PIXELS = torch.randint(0, 256, (60, 4), dtype=torch.uint8, generator=seeded(0))


def prepare(pixels, generator):
    return torch.bernoulli(pixels.double() / 255, generator=generator)


def prepare_in_float32(pixels, generator):
    return pixels.float() / 255 @ torch.eye(4)  # a product that bfloat16 would round


IN_BFLOAT16 = {"prepare": prepare_in_float32, "bfloat16": True}


def quickly(game, **changes):
    settings = {"steps": 100, "batch_size": 7, "learning_rate": 0.01, "decay": True, "seed": 3}
    settings |= {"validation": PIXELS[:20], "snapshots": (0, 0.25, 1)}
    torch.manual_seed(5)
    return train(game, changes.pop("pixels", PIXELS), changes.pop("prepare", prepare), **settings | changes)


def interrupt(at, number=signal.SIGINT):
    return lambda step: os.kill(os.getpid(), number) if step == at else None


def all_but_the_time(path):
    """Everything in a state file: plan, weights, optimizers, generators, history, snapshots."""
    state = load_state(path)
    del state["run"]["seconds"]
    return state


@pytest.fixture
def uninterrupted(tmp_path):
    """The state in which the whole run of `Rivals` ends."""
    quickly(Rivals(), state_file=tmp_path / "whole.state")
    return all_but_the_time(tmp_path / "whole.state")


# ---------------------------------------------------------------- the game


def by_hand(game, steps, rate=lambda step: 0.01, prepare=prepare, bfloat16=False, **adam):
    """The loop as one would write it."""
    generator = seeded(3)
    torch.manual_seed(5)
    players = [(torch.optim.Adam(own.parameters(), fused=True, **adam), loss) for own, loss in game.players().values()]
    for step in range(steps):
        x = prepare(PIXELS[torch.randint(60, (7,), generator=generator)], generator)
        for optimizer, loss in players:
            optimizer.param_groups[0]["lr"] = rate(step)
            game.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16 and step > 0):
                values = loss(x, generator)
            values["loss"].backward()
            optimizer.step()
    return game.state_dict()


def falling(step):
    return 0.01 * (1 + math.cos(math.pi * (step / 30))) / 2


@pytest.mark.parametrize(
    ("settings", "same_by_hand"),
    [
        ({"decay": False}, {}),
        ({"decay": True}, {"rate": falling}),
        ({"decay": False, "warm_up": 0.5}, {"rate": lambda step: 0.01 * min(1, (step + 1) / 15)}),
        ({"decay": False, "betas": (0.3, 0.8)}, {"betas": (0.3, 0.8)}),
    ],
)
def test_a_run_is_bitwise_the_loop_one_would_write_by_hand(settings, same_by_hand):
    game = Rivals().eval()
    quickly(game, steps=30, validation=None, **settings)
    assert same(game.state_dict(), by_hand(Rivals(), 30, **same_by_hand))


@pytest.mark.parametrize(
    ("decay", "warm_up", "rates"),
    [
        (False, 0.0, [8, 8, 8, 8, 8]),
        (True, 0.0, [8, 6, 4, 2, 0]),  # cos 60° = ½
        (False, 2 / 3, [2, 6, 8, 8, 8]),  # four steps from 0 upwards
        (True, 2 / 3, [2, 4.5, 4, 2, 0]),
    ],
)
def test_the_learning_rate_rises_in_a_straight_line_and_falls_along_half_a_cosine(decay, warm_up, rates):
    plan = {"steps": 6, "learning_rate": 8, "decay": decay, "warm_up": warm_up}
    assert [learning_rate(plan, step) for step in (0, 2, 3, 4, 6)] == pytest.approx(rates)


# ---------------------------------------------------------------- what a run records


def test_history_holds_the_means_since_the_last_row_as_plain_floats():
    a, count = Point([1.0]), itertools.count(1)
    game = Game(a=(a, lambda x, g: {"loss": a.at.sum(), "count": torch.tensor(float(next(count)))}))
    history = quickly(game, steps=205, validation=None).history
    means = {row["step"]: row["train"]["a"]["count"] for row in history}
    assert means == {step: step - 1.5 for step in range(4, 205, 4)} | {205: 205}
    assert history[-1].keys() == {"step", "train"}
    assert {type(value) for row in history for value in row["train"]["a"].values()} == {float}


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


@pytest.mark.parametrize("training", [True, False])
def test_evaluate_restores_the_mode(training):
    game = Rivals().train(training)
    evaluate(game, PIXELS, prepare)
    assert {module.training for module in game.modules()} == {training}


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


@pytest.mark.parametrize(("seconds", "changes"), [(0, range(100, 10_000)), (1e9, range(4))])
def test_the_progress_bar_changes_no_more_often_than_it_should(seconds, changes, monkeypatch, capsys):
    monkeypatch.setattr(progress, "SHOW_EVERY", seconds)
    quickly(Rivals())
    assert capsys.readouterr().err.count("\r") in changes


@pytest.mark.parametrize("at", [None, 41])
def test_what_is_left_of_the_bar_says_steps_seconds_and_the_last_losses_of_all_players(at, monkeypatch, interruptible):
    said = []
    monkeypatch.setattr(progress.Bar, "finish", lambda _, sentence: said.append(sentence))
    run = quickly(Rivals(interrupt(at)), title="rivals")
    losses = ", ".join(f"{name} {own['loss']:.4g}" for name, own in run.history[-1]["train"].items())
    assert said == [f"rivals: {run.step:,} steps in {run.seconds:.0f} s, {losses}"]
    assert run.step == (at or 100)


def test_the_loss_of_a_single_player_needs_no_name():
    run = loop.Run(step=1_200, seconds=2.4, history=[{"step": 1_200, "train": {"vae": {"loss": 104.1234}}}])
    assert loop._summary("vae-20d", run) == "vae-20d: 1,200 steps in 2 s, loss 104.1"


# ---------------------------------------------------------------- interruption and resuming


def resumed(path, at, kind=Rivals, **settings):
    """The states in which a run ends, without an interruption and with one, and the further calls of the latter."""
    quickly(kind(), state_file=path / "whole", **settings)
    assert not quickly(kind(interrupt(at)), state_file=path / "s", **settings).finished
    game = kind(weights_seed=2)
    run = quickly(game, state_file=path / "s", **settings)
    assert same(game.state_dict(), run.snapshots[1])
    return all_but_the_time(path / "whole"), all_but_the_time(path / "s"), game.steps


@pytest.mark.parametrize("at", [1, 40, 41])
@pytest.mark.parametrize(
    ("kind", "settings"), [(Rivals, {}), (Rivals, {"average": 0.9}), (rivals_partly_frozen, {"warm_up": 0.8})]
)
def test_a_run_that_was_interrupted_and_resumed_is_bitwise_the_uninterrupted_one(at, kind, settings, tmp_path):
    whole, own, calls = resumed(tmp_path, at, kind, **settings)
    assert same(own, whole)
    assert calls == 100 - at


def test_a_run_that_was_killed_goes_on_from_its_last_log_step(tmp_path, monkeypatch, uninterrupted):
    monkeypatch.setattr(loop, "SAVE_EVERY", 0)
    path, killed = tmp_path / "s", tmp_path / "killed"
    quickly(Rivals(lambda step: shutil.copy(path, killed) if step == 52 else None), state_file=path)
    assert load_state(killed)["run"]["seconds"] > 0
    game = Rivals(weights_seed=2)
    quickly(game, state_file=killed)
    assert game.steps == 50
    assert same(all_but_the_time(killed), uninterrupted)


def test_between_checkpoints_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", math.inf)
    seen = set()
    quickly(Rivals(lambda step: seen.update(tmp_path.iterdir())), state_file=tmp_path / "s")
    assert not seen


def altered(path, **changes):
    """Put other values into a state file; None takes a key away."""
    state = load_state(path) | changes
    save_state(path, {key: value for key, value in state.items() if value is not None})


def test_the_time_of_a_resumed_run_goes_on_counting(tmp_path):
    run = quickly(Rivals(interrupt(9)), state_file=tmp_path / "s")
    altered(tmp_path / "s", run={**vars(run), "seconds": 1e6})
    assert quickly(Rivals(), state_file=tmp_path / "s").seconds > 1e6


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"steps": 200}, "steps 100"),
        ({"batch_size": 8}, "batch_size 7"),
        ({"learning_rate": 0.1}, "learning_rate 0.01"),
        ({"decay": False}, "decay True"),
        ({"warm_up": 0.1}, "warm_up 0.0"),
        ({"betas": (0.5, 0.99)}, r"betas \(0.9, 0.999\)"),
        ({"average": 0.5}, "average 0.0"),
        ({"bfloat16": True}, "bfloat16 False"),
        ({"pixels": PIXELS[:59]}, "images 60"),
        ({"arguments": {"width": 3}}, "arguments {}"),
        ({"seed": 4, "batch_size": 8}, "batch_size 7, seed 3"),
    ],
)
def test_a_state_of_other_settings_is_refused_and_the_settings_named(change, named, tmp_path):
    quickly(Rivals(interrupt(9)), state_file=tmp_path / "s")
    with pytest.raises(CheckpointError, match=f"s is of a run with {named};"):
        quickly(Rivals(), state_file=tmp_path / "s", **change)


@pytest.mark.parametrize(
    "changes",
    [
        *({key: None} for key in ("plan", "run", "sums", "model", "averages", "optimizers", "generator")),
        {"global_generators": None},
        {"plan": {}},
        {"global_generators": [torch.get_rng_state()]},  # of a version that kept those of all GPUs
        {"model": Game(a=(Point([1.0]), None)).state_dict()},
        {"run": {**vars(loop.Run(step=9)), "unknown": 1}},
        {"run": {key: value for key, value in vars(loop.Run(step=9)).items() if key != "step"}},
        {"run": vars(loop.Run(step="9"))},
        {"averages": {"forger.0.weight": torch.zeros(8, 4), "nowhere": torch.zeros(2)}},
        {"sums": {"forger": 3}},
        {"optimizers": {"forger": {}, "critic": {}}},
        {"generator": torch.zeros(3, dtype=torch.uint8)},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_a_state_of_another_model_or_version_is_refused_in_one_sentence(changes, tmp_path):
    quickly(Rivals(interrupt(9)), state_file=tmp_path / "s")
    altered(tmp_path / "s", **changes)
    with pytest.raises(CheckpointError) as refused:
        quickly(Rivals(), state_file=tmp_path / "s")
    what = "is of another model, or of another version of the course; delete it or train with that one"
    assert str(refused.value) == f"{tmp_path / 's'} {what}"


def test_a_finished_run_is_given_back_with_the_snapshot_of_its_end_and_names_those_that_it_cannot_give(tmp_path):
    games = Rivals(), Rivals(weights_seed=2)
    first = quickly(games[0], snapshots=(0.25,), average=0.9, state_file=tmp_path / "s")
    again = quickly(games[1], snapshots=(0.25, 1), average=0.9, state_file=tmp_path / "s")
    assert (games[1].steps, again.finished, again.history) == (0, True, first.history)
    assert same(games[1].state_dict(), games[0].state_dict())
    assert same(again.snapshots, first.snapshots | {1: dict(games[0].state_dict())})
    with pytest.raises(CheckpointError, match=r"s is past the snapshot at 0.5, which it does not hold; delete it or"):
        quickly(Rivals(), snapshots=(0.25, 0.5, 1), average=0.9, state_file=tmp_path / "s")


def test_an_interrupted_run_goes_on_with_a_snapshot_that_is_still_to_come(tmp_path):
    quickly(Rivals(interrupt(30)), snapshots=(), state_file=tmp_path / "s")
    assert list(quickly(Rivals(), snapshots=(0.3, 0.5, 1), state_file=tmp_path / "s").snapshots) == [0.3, 0.5, 1]


def test_an_interruption_before_the_first_step_leaves_no_state(tmp_path, monkeypatch):
    """A state would say that a layer which its first batch sets has been set."""

    @contextmanager
    def interrupted():
        yield interrupt(0)(0)

    monkeypatch.setattr(loop.device, "deterministic", interrupted)
    assert quickly(Rivals(), state_file=tmp_path / "s").step == 0
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_ctrl_c_gives_back_the_run_after_the_whole_step_and_says_so(average, capsys):
    before, stopped = signal.getsignal(signal.SIGINT), Rivals(interrupt(31))
    quickly(stopped, average=average, title="duel")
    assert capsys.readouterr().out == "duel was stopped at step 31 of 100; the model keeps what it has learnt.\n"
    assert signal.getsignal(signal.SIGINT) is before
    run = quickly(Rivals(), average=average, snapshots=(0.31,))
    assert same(run.snapshots[0.31], stopped.state_dict())
    assert capsys.readouterr().out == ""


def terminate(*_):
    sys.exit(143)


@pytest.mark.parametrize("numbers", [[signal.SIGTERM], [signal.SIGHUP], [signal.SIGINT, signal.SIGTERM]])
def test_sigterm_and_sighup_save_after_the_whole_step_before_they_end_the_process(
    numbers, tmp_path, uninterrupted, capsys
):
    game = Rivals(lambda step: [interrupt(40, number)(step) for number in numbers])
    with handled(numbers[-1], terminate):
        with pytest.raises(SystemExit):
            quickly(game, state_file=tmp_path / "s")
        assert signal.getsignal(numbers[-1]) is terminate
    assert "was stopped at step 40 of 100" in capsys.readouterr().out
    quickly(Rivals(), state_file=tmp_path / "s")
    assert same(all_but_the_time(tmp_path / "s"), uninterrupted)


def test_a_run_under_nohup_goes_on_when_its_terminal_is_closed():
    with handled(signal.SIGHUP, signal.SIG_IGN):
        assert quickly(Rivals(interrupt(40, signal.SIGHUP))).finished
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_a_handler_that_python_does_not_know_becomes_the_default(monkeypatch):
    known = signal.getsignal
    with handled(signal.SIGTERM, terminate):
        monkeypatch.setattr(signal, "getsignal", lambda number: None if number == signal.SIGTERM else known(number))
        assert quickly(Rivals()).finished
        assert known(signal.SIGTERM) is signal.SIG_DFL


def test_a_second_ctrl_c_interrupts_as_usual(interruptible):
    game = Rivals(lambda step: [interrupt(31)(step) for _ in range(2)])
    with pytest.raises(KeyboardInterrupt):
        quickly(game)
    assert game.steps == 31
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_in_a_loss_restores_the_signal_handler():
    before, a = signal.getsignal(signal.SIGINT), Point([1.0])
    with pytest.raises(KeyError):
        quickly(Game(a=(a, lambda x, g: {"other": a.at.sum()})))
    assert signal.getsignal(signal.SIGINT) is before


def test_training_in_another_thread_gives_the_same_run():
    here, there = Rivals(), Rivals()
    quickly(here)
    thread = threading.Thread(target=quickly, args=(there,))
    thread.start()
    thread.join()
    assert same(there.state_dict(), here.state_dict())


# ---------------------------------------------------------------- the average of the weights


def test_the_average_of_weights_and_statistics_begins_after_the_first_step_and_agrees_with_torch_s():
    states = []
    plain = Rivals(lambda step: states.append(copy.deepcopy(plain.state_dict())))
    plain_run, game = quickly(plain, steps=20, snapshots=()), Rivals()
    run = quickly(game, steps=20, snapshots=(0, 0.01, 0.05, 0.25, 1), average=0.8)
    now = Rivals()
    averaged = AveragedModel(now, multi_avg_fn=get_ema_multi_avg_fn(0.8), use_buffers=True)
    expected = [states[0]]
    for state in [*states[1:], plain.state_dict()]:
        now.load_state_dict(state)
        averaged.update_parameters(now)  # the first call copies
        counts = {key: value for key, value in state.items() if not value.is_floating_point()}
        expected.append(copy.deepcopy(averaged.module.state_dict()) | counts)
    assert list(run.snapshots) == [0, 0.01, 0.05, 0.25, 1]
    for fraction, snapshot in run.snapshots.items():
        assert_close(snapshot, dict(expected[round(20 * fraction)]))
    assert_close(game.state_dict(), expected[-1])
    assert run.history == plain_run.history  # of the weights that are trained: the average doesn't touch the run


# ---------------------------------------------------------------- frozen weights


def test_a_layer_whose_weights_are_frozen_stays_and_the_others_are_trained():
    game = rivals_partly_frozen()
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


# ---------------------------------------------------------------- what one player shows the next


def test_what_a_loss_shows_is_handed_to_the_next_player_of_the_step_alone_and_not_logged():
    points, seen = {name: Point([1.0]) for name in "abc"}, []

    def player(name, point):
        def loss(x, generator, *further):
            seen.append((name, *(own.item() for own in further)))
            return {"loss": point.at.sum()} | ({} if name == "b" else {"shown": (10 * point.at).round()})

        return point, loss

    game = Game(**{name: player(name, point) for name, point in points.items()})
    run = train(game, PIXELS, prepare, steps=2, batch_size=1, learning_rate=0.5)
    assert seen == [("a",), ("b", 10), ("c",), ("a",), ("b", 5), ("c",)]
    assert run.history[-1]["train"]["a"].keys() == {"loss"}


def test_evaluation_hands_nothing_over_and_measures_nothing_that_is_shown():
    a, b = Point([1.0]), Point([1.0])
    game = Game(
        a=(a, lambda x, g: {"loss": a.at.sum(), "shown": x}),
        b=(b, lambda x, g, *further: {"loss": b.at.sum() + len(further)}),
    )
    assert evaluate(game, PIXELS, prepare) == {"a": {"loss": 1.0}, "b": {"loss": 1.0}}


# ---------------------------------------------------------------- bfloat16


@pytest.fixture
def faster(monkeypatch):
    """In the precision of that name a step takes half the time, whatever the trial says."""
    measure = loop.device._seconds

    def faster(name):
        monkeypatch.setattr(
            loop.device, "_seconds", lambda ways, tensor: dict.fromkeys(measure(ways, tensor), 2.0) | {name: 1.0}
        )

    return faster


def test_a_bfloat16_run_is_bitwise_the_loop_one_would_write_by_hand_and_in_float32_in_its_first_step(faster, capsys):
    faster("bfloat16")
    game = rivals_in_float32()
    run = quickly(game, steps=30, decay=False, **IN_BFLOAT16)
    assert same(game.state_dict(), by_hand(rivals_in_float32(), 30, **IN_BFLOAT16))
    assert run.history[-1]["val"] == evaluate(game, PIXELS[:20], prepare_in_float32)
    assert (run.precision, capsys.readouterr().out) == ("bfloat16", "")


def test_where_bfloat16_is_slower_the_run_is_bitwise_the_one_in_float32_and_says_so(faster, capsys):
    faster("float32")
    games = rivals_in_float32(), rivals_in_float32()
    asked = quickly(games[0], average=0.9, **IN_BFLOAT16)
    assert capsys.readouterr().out == "training: trained in float32, because bfloat16 does not pay on this device.\n"
    plain = quickly(games[1], average=0.9, prepare=prepare_in_float32)
    assert capsys.readouterr().out == ""
    assert same(games[0].state_dict(), games[1].state_dict())
    assert same(vars(asked) | {"seconds": 0}, vars(plain) | {"seconds": 0})


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_a_resumed_run_keeps_its_precision_without_another_trial_and_is_bitwise_the_whole(precision, faster, tmp_path):
    def kind(*before_step, weights_seed=1):
        faster(precision if weights_seed == 1 else {"bfloat16": "float32", "float32": "bfloat16"}[precision])
        return rivals_in_float32(*before_step, weights_seed=weights_seed)

    whole, own, calls = resumed(tmp_path, 40, kind, **IN_BFLOAT16)
    assert whole["run"]["precision"] == precision
    assert same(own, whole)
    assert calls == 100 - (40 - 2 * loop.device.REHEARSALS)  # those of the trial were no steps


# ---------------------------------------------------------------- on CUDA


@pytest.mark.usefixtures("gpu")
def test_a_run_by_a_cuda_graph_is_bitwise_the_one_step_by_step(tmp_path, capsys):
    graph, plain = Rivals(), Rivals(lambda step: PIXELS.sum().item())  # a number, for which no graph may ask
    quickly(graph, steps=30, state_file=tmp_path / "graph")
    assert graph.steps < 10
    assert capsys.readouterr().out == ""
    quickly(plain, steps=30, state_file=tmp_path / "plain")
    assert "trained step by step, because the step can't be a CUDA graph (" in capsys.readouterr().out
    assert same(graph.state_dict(), plain.state_dict())
    assert same(all_but_the_time(tmp_path / "graph"), all_but_the_time(tmp_path / "plain"))
    assert_close(graph.state_dict(), by_hand(Rivals(), 30, falling), rtol=1e-5, atol=1e-6)  # its rate is in float32


@pytest.mark.usefixtures("gpu")
def test_a_run_by_a_cuda_graph_that_was_resumed_is_bitwise_the_uninterrupted_one(tmp_path):
    whole, own, _ = resumed(tmp_path, 3, steps=20, average=0.9)  # in the rehearsal, from which the graph is made
    assert same(own, whole)


# ---------------------------------------------------------------- divergence


SCORES = {"value": math.inf, "negative value": -math.inf}


def poisoned(where, at, before_step=lambda step: None):
    """A game in which at step `at` something of the critic becomes NaN or infinite: loss, weight, or a logged value."""
    game = Rivals(before_step)
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
    good = quickly(poisoned(None, 0)).history[14]["train"]["critic"]["loss"]
    with pytest.raises(DivergenceError) as error:
        quickly(poisoned(where, 32))
    assert str(error.value) == (
        f"critic: a loss or weight is not finite at step 32; the last good loss was {good:.4g} at step 30. "
        "Lower the learning rate."
    )


@pytest.mark.parametrize(
    ("at", "sentence"),
    [
        (31, r"^forger, critic: .* at step 32; the last good loss was \S+, \S+ at step 30"),
        (1, r"critic: .* at step 2; no step was good"),
    ],
)
def test_divergence_names_every_player_that_it_has_reached_and_says_where_no_step_was_good(at, sentence):
    with pytest.raises(DivergenceError, match=sentence):
        quickly(poisoned("loss", at))


@pytest.mark.parametrize("where", ["loss", "weight", "value"])
def test_after_divergence_the_last_good_state_is_on_disk_and_can_be_resumed(where, tmp_path, monkeypatch):
    quickly(poisoned(None, 0), state_file=tmp_path / "whole.state")
    monkeypatch.setattr(loop, "SAVE_EVERY", 0)
    with pytest.raises(DivergenceError):
        quickly(poisoned(where, 31), state_file=tmp_path / "s")
    assert load_state(tmp_path / "s")["run"]["step"] == 30
    quickly(poisoned(None, 0), state_file=tmp_path / "s")
    assert same(all_but_the_time(tmp_path / "s"), all_but_the_time(tmp_path / "whole.state"))


@pytest.mark.parametrize("where", ["loss", "weight", "value"])
def test_a_run_that_diverged_is_neither_saved_nor_given_back_when_it_is_interrupted(where, tmp_path):
    with pytest.raises(DivergenceError, match=r"critic: .* at step 31"):
        quickly(poisoned(where, 31, interrupt(31)), state_file=tmp_path / "s")
    assert not (tmp_path / "s").exists()


# ---------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"steps": 0}, "steps must be a whole number, at least 1, but is 0"),
        ({"steps": 1.5}, "steps must be a whole number, at least 1, but is 1.5"),
        ({"batch_size": 0}, "batch_size must be a whole number, at least 1, but is 0"),
        ({"pixels": PIXELS[:0]}, "images must be at least one, but is 0"),
        ({"validation": PIXELS[:0]}, "validation images must be at least one, but is 0"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0 and finite, but is 0.0"),
        ({"learning_rate": math.nan}, "learning_rate must be above 0 and finite, but is nan"),
        ({"learning_rate": math.inf}, "learning_rate must be above 0 and finite, but is inf"),
        ({"betas": (2.0, 3.0)}, r"betas must be two numbers from 0 to below 1, but is \(2.0, 3.0\)"),
        ({"warm_up": -0.1}, "warm_up must be from 0 to 1, but is -0.1"),
        ({"warm_up": 1.1}, "warm_up must be from 0 to 1, but is 1.1"),
        ({"average": 1.0}, "average must be from 0 to below 1, but is 1.0"),
        ({"average": -0.5}, "average must be from 0 to below 1, but is -0.5"),
        ({"snapshots": (0, 1.5)}, r"snapshots must be fractions of the run, from 0 to 1, but is \(0, 1.5\)"),
        ({"seed": 1.5}, "seed must be a whole number, but is 1.5"),
        ({"seed": -1}, "seed must be from 0 to 4,294,967,295, but is -1"),
        ({"seed": 2**32}, "seed must be from 0 to 4,294,967,295, but is 4,294,967,296"),
    ],
)
def test_values_with_which_nothing_can_be_trained_are_refused_by_name(change, sentence):
    with pytest.raises(UsageError, match=f"^{sentence}$"):
        quickly(Rivals(), **change)


def test_the_largest_seed_is_taken_by_every_generator():
    np.random.default_rng(loop.LARGEST_SEED)
    quickly(Rivals(), seed=loop.LARGEST_SEED, steps=2)


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, "3"])
def test_what_is_no_seed_for_every_generator_is_refused(seed):
    loop.check_seed(0), loop.check_seed(2**32 - 1)
    with pytest.raises(UsageError, match="seed must be"):
        loop.check_seed(seed)
