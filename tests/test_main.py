"""The command line: one line or one sentence, and the exit code that goes with it."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest

from gm_helpers import __main__, batch, checkpoint, data, metrics, recipes, train


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
        (["evaluate", "vae-3d"], "choose one of vae-2d, vae-20d, digit-classifier, gan"),
        (["train", "vae-3d"], "choose one of vae-2d, vae-20d, digit-classifier, gan"),
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
        raise batch.NotebookError("1_vae, cell 3: the kernel died")

    monkeypatch.setattr(batch, "run", fail)
    code, _, err = command("figures", "1_vae", "-p", "dataset", "digits", "-p", "figure_dir", tmp_path)
    assert (code, err) == (1, "gm_helpers: 1_vae, cell 3: the kernel died\n")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (data.CourseError, 1),
        (data.DataError, 1),
        (checkpoint.CheckpointError, 1),
        (train.DivergenceError, 1),
        (batch.NotebookError, 1),
        (OSError, 1),
        (ValueError, 2),
        (batch.ParameterError, 2),
    ],
)
def test_an_error_is_one_sentence_and_the_exit_code_says_whose_it_is(command, monkeypatch, error, code):
    def fail(*_):
        raise error("it did not work")

    monkeypatch.setattr(data, "choose", fail)
    assert command("data") == (code, "", "gm_helpers: it did not work\n")


def test_a_mistake_of_the_program_s_own_is_not_hidden_in_a_sentence(command, monkeypatch):
    def fail(*_):
        raise RuntimeError("a shape does not fit")

    monkeypatch.setattr(data, "choose", fail)
    with pytest.raises(RuntimeError, match="a shape does not fit"):
        command("data")


def test_an_interrupted_command_says_nothing_and_exits_with_130(command, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "choose", interrupt)
    assert command("data") == (130, "", "")


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """Three notebooks, of which the last has fewer parameters, and a list of the runs, which only claim to draw."""
    calls = []
    for name in ("1_a", "2_b"):
        shutil.copy(batch.NOTEBOOKS / "1_vae.ipynb", tmp_path / f"{name}.ipynb")
    fewer = batch.NOTEBOOKS.joinpath("1_vae.ipynb").read_text().replace("weights: str", "w: str")
    (tmp_path / "3_c.ipynb").write_text(fewer)

    def run(path, parameters):
        calls.append((path.stem, parameters["profile"], parameters["seed"]))
        return [tmp_path / "out" / "1.1-a.png"] * (path.stem != "2_b")

    monkeypatch.setattr(batch, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(batch, "run", run)
    monkeypatch.setattr(data, "choose", lambda name: print(f"chosen: {name}"))
    return calls


def test_profile_and_parameters_reach_each_named_notebook_and_one_line_says_what_it_drew(command, runs, tmp_path):
    named = ["1_a", "2_b", "--profile", "full", "-p", "seed", "3", "-p", "dataset", "digits"]
    assert command("figures", *named) == (
        0,
        f"chosen: digits\n1_a: 1 figures in {tmp_path / 'out'}, 0 s\nchosen: digits\n2_b: 0 figures, 0 s\n",
        "",
    )
    assert runs == [("1_a", "full", 3), ("2_b", "full", 3)]


def test_all_notebooks_are_run_where_none_is_named(command, runs):
    assert command("figures")[0] == 0
    assert runs == [("1_a", "quick", 0), ("2_b", "quick", 0), ("3_c", "quick", 0)]


def test_nothing_is_run_where_one_notebook_of_several_is_asked_wrongly(command, runs):
    code, out, err = command("figures", "1_a", "3_c", "-p", "weights", "fresh")
    assert (code, out) == (2, "")
    assert "3_c has no parameter 'weights'" in err
    assert runs == []


def test_train_passes_its_options_on_for_each_name(command, monkeypatch, tmp_path):
    calls = []

    def ship(*options):
        calls.append(options)
        return {"metrics": {"bpd": 1.5}, "seconds": 2}

    monkeypatch.setattr(recipes, "ship", ship)
    options = ["--profile", "smoke", "--dataset", "digits", "--seed", 5, "--device", "cuda", "--out", tmp_path]
    code, out, err = command("train", "vae-2d", "vae-20d", *options)
    names = ("vae-2d", "vae-20d")
    assert (code, err) == (0, "")
    assert out == "".join(f'{tmp_path / name}.safetensors: {{"bpd": 1.5}} after 2 s\n' for name in names)
    assert calls == [(name, "smoke", "digits", 5, "cuda", tmp_path) for name in names]


def test_each_source_is_written(command, monkeypatch):
    monkeypatch.setattr(batch, "write", lambda source: source.with_suffix(".ipynb"))
    assert command("notebooks", "1_a.md", "2_b.md") == (0, "1_a.ipynb written\n2_b.ipynb written\n", "")
