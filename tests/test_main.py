"""The command line: one line or one sentence, and the exit code that goes with it."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest

from gm_helpers import __main__, metrics, recipes


@pytest.fixture
def command(monkeypatch, capsys):
    """Run one command in this process; gives exit code, standard output and standard error."""

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["gm_helpers", *map(str, arguments)])
        code = __main__.main()
        return code, *capsys.readouterr()

    return command


def test_data_prints_one_line(command):
    code, out, err = command("data", "--dataset", "digits")
    assert (code, err) == (0, "")
    assert out == "digits from scikit-learn: train 1,197, val 300, test 300 images\n"


def test_data_that_cannot_be_fetched_gives_one_sentence_and_a_non_zero_exit(tmp_path):
    closed = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    environment = {**os.environ, **closed, "GM_DATA": str(tmp_path)}
    call = [sys.executable, "-m", "gm_helpers", "data", "--dataset", "mnist"]
    run = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stdout == ""
    assert len(run.stderr.splitlines()) == 1
    assert "could not be fetched" in run.stderr


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        (["device", "tpu"], "choose one of auto, cpu, cuda, mps"),
        (["evaluate", "vae-3d"], "choose one of vae-2d, vae-20d"),
        (["train", "vae-3d"], "choose one of vae-2d, vae-20d"),
        (["figures", "1_vae", "--profile", "fast"], "choose one of smoke, quick, full"),
        (["figures", "1_vae", "-p", "nix", "1"], "choose among dataset, profile, weights, seed, device, figure_dir"),
        (["figures", "1_vae", "-p", "seed", "false"], "seed must be of type int"),
        (["figures", "1_vae", "-p", "weights", "old"], "choose one of shipped, fresh"),
        (["figures", "9_none"], "choose one of 1_vae"),
    ],
)
def test_a_wrong_argument_gives_exit_code_2_and_one_sentence_that_lists_what_is_allowed(command, arguments, allowed):
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert allowed in err


def test_device_prints_the_one_that_will_be_used(command):
    assert command("device", "cpu") == (0, "cpu\n", "")


def test_train_then_evaluate_print_the_same_measurements(command, tmp_path, monkeypatch):
    few = replace(recipes.RECIPES["vae-2d"], measure=partial(metrics.bounds, samples=5))  # 500 take half a minute
    monkeypatch.setitem(recipes.RECIPES, "vae-2d", few)
    code, out, _ = command(
        "train", "vae-2d", "--profile", "smoke", "--dataset", "digits", "--device", "cpu", "--out", tmp_path
    )
    assert code == 0
    assert [own.name for own in tmp_path.iterdir()] == ["vae-2d.safetensors"]
    code, measured, _ = command("evaluate", tmp_path / "vae-2d.safetensors", "--dataset", "digits", "--device", "cpu")
    assert code == 0
    numbers = [word.strip("{},") for word in measured.split() if word[0].isdigit() or word[0] == "-"]
    assert len(numbers) == 8
    assert all(number in out for number in numbers)


def test_a_failed_notebook_gives_exit_code_1(command, tmp_path, monkeypatch):
    def fail(*_):
        raise __main__.batch.NotebookError("1_vae, cell 3: the kernel died")

    monkeypatch.setattr(__main__.batch, "run", fail)
    code, _, err = command("figures", "1_vae", "-p", "dataset", "digits", "-p", "figure_dir", tmp_path)
    assert (code, err) == (1, "gm_helpers: 1_vae, cell 3: the kernel died\n")
