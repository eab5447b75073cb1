"""The command line: one line or one sentence, and the exit code that goes with it."""

import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import nbformat
import pytest
from conftest import handled

from gm_helpers import __main__, batch, checkpoint, data, metrics, recipes, train
from gm_helpers.files import CourseError, UsageError

pytestmark = pytest.mark.slow


@pytest.fixture
def command(monkeypatch, capsys):
    """Run one command in this process; gives exit code, standard output and standard error."""

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["gm_helpers", *map(str, arguments)])
        code = __main__.main()
        return code, *capsys.readouterr()

    return command


def in_a_shell(*arguments, **environment):
    """The same of a command in a process of its own."""
    call = [sys.executable, "-m", "gm_helpers", *arguments]
    run = subprocess.run(call, env=os.environ | environment, capture_output=True, text=True, check=False)
    return run.returncode, run.stdout, run.stderr


def test_data_prints_one_line(command):
    line = "digits from scikit-learn: train 1,197, val 300, test 300 images\n"
    assert command("data", "--dataset", "digits") == (0, line, "")


def test_data_that_cannot_be_fetched_gives_one_sentence_and_a_non_zero_exit(tmp_path):
    closed = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9") | {"no_proxy": ""}
    code, out, err = in_a_shell("data", "--dataset", "mnist", GM_DATA=str(tmp_path), **closed)
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert "could not be fetched" in err


SMOKE = ["train", "flow-2d", "--profile", "smoke"]


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        (["device", "tpu"], "choose one of auto, cpu, cuda, mps"),
        (["evaluate", "vae-3d"], f"choose one of {', '.join(recipes.RECIPES)}"),
        (["figures", "1_vae", "--profile", ""], "unknown profile '': choose one of smoke, quick, full"),
        (["figures", "1_vae", "-p", "nix", "1"], "choose among dataset, profile, weights, seed, device, figure_dir"),
        (["figures", "1_vae", "-p", "seed", "false"], "seed must be of type int"),
        (["figures", "1_vae", "-p", "seed", "-3"], "seed must be from 0 to 4,294,967,295, but is -3"),
        (["figures", "1_vae", "-p", "weights", "old"], "choose one of shipped, fresh"),
        (["figures", "1_vae", "-p", "figure_dir", "s3://x"], "s3://x is an address on a network: name a folder"),
        (["figures", "9_none"], "choose one of 1_vae"),
        (["notebooks", "9_none.md"], "choose one of notebooks/source/*.md"),
        (["train"], f"nothing to train: name some of {', '.join(recipes.RECIPES)}, or say --shipped"),
        (["train", "vae-3d"], f"choose one of {', '.join(recipes.RECIPES)}"),
        (["train", "flow-2d", "gam"], f"unknown model 'gam': choose one of {', '.join(recipes.RECIPES)}"),
        ([*SMOKE, "--seed", str(2**64)], "seed must be from 0 to 4,294,967,295"),
        ([*SMOKE, "--device", "auto:0"], "choose one of auto, cpu, cuda, mps"),
        (
            [*SMOKE, "--set", "coupling=3"],
            "flow-2d has nothing called 'coupling' to set: choose among couplings, hidden",
        ),
        ([*SMOKE, "--set", "couplings=many"], "couplings must be a whole number, at least 1, but is 'many'"),
        ([*SMOKE, "--set", "steps=0"], "steps must be a whole number, at least 1, but is 0"),
        (["train", "gan", "--set", "generator_loss=hinge"], "choose one of saturating, non_saturating"),
        ([*SMOKE, "--out", "s3://x"], "s3://x is an address on a network: name a folder"),
        ([*SMOKE, "--out", __file__], "is a file): choose another folder by --out"),
    ],
)
def test_a_wrong_argument_gives_exit_code_2_and_one_sentence_that_lists_what_is_allowed(command, arguments, allowed):
    code, out, err = command(*arguments)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert allowed in err


def test_device_prints_the_one_that_will_be_used(command):
    assert command("device", "cpu") == (0, "cpu\n", "")


def test_train_then_evaluate_print_the_same_measurements(command, tmp_path, monkeypatch):
    few = replace(recipes.RECIPES["vae-2d"], measure=partial(metrics.bounds, samples=5))  # 500 take half a minute
    monkeypatch.setitem(recipes.RECIPES, "vae-2d", few)
    rest = ["--dataset", "digits", "--device", "cpu"]
    code, out, _ = command("train", "vae-2d", "--profile", "smoke", "--out", tmp_path, *rest)
    assert code == 0
    assert [own.name for own in tmp_path.iterdir()] == ["vae-2d.safetensors"]
    code, measured, _ = command("evaluate", tmp_path / "vae-2d.safetensors", *rest)
    assert code == 0
    numbers = [word.strip("{},") for word in measured.split() if word[0].isdigit() or word[0] == "-"]
    assert len(numbers) == 8
    assert all(number in out for number in numbers)
    code, fewer, _ = command("evaluate", tmp_path / "vae-2d.safetensors", "--samples", "3", *rest)
    assert code == 0
    assert "importance_weighted_3" in fewer


@pytest.fixture
def data_fails(command, monkeypatch):
    """What the command `data` gives where that error is raised."""

    def data_fails(error):
        def choose(_):
            raise error

        monkeypatch.setattr(data, "choose", choose)
        return command("data")

    return data_fails


FAILURES = CourseError, data.DataError, checkpoint.CheckpointError, train.DivergenceError, batch.NotebookError, OSError


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        *((kind("it did not work"), 1, "gm_helpers: it did not work\n") for kind in FAILURES),
        (UsageError("it cannot be"), 2, "gm_helpers: it cannot be\n"),
        (PermissionError(13, "Permission denied", "/some/where"), 1, "gm_helpers: /some/where: Permission denied\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_an_error_is_one_sentence_and_the_exit_code_says_whose_it_is(data_fails, error, code, sentence):
    assert data_fails(error) == (code, "", sentence)


@pytest.mark.parametrize("error", [RuntimeError, ValueError, TypeError, KeyError])
def test_a_mistake_of_the_program_s_own_is_not_hidden_in_a_sentence(data_fails, error):
    with pytest.raises(error, match="a shape does not fit"):
        data_fails(error("a shape does not fit"))


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """Three notebooks, of which the last has fewer parameters, and a list of the runs, which only claim to draw:
    each with the parameters that are not the notebook's own."""
    calls = []
    (tmp_path / "source").mkdir()
    for name in ("source/1_a.md", "source/2_b.md", "source/3_c.md", "Untitled.ipynb"):
        (tmp_path / name).touch()
    for name in ("1_a", "2_b"):
        shutil.copy(batch.NOTEBOOKS / "1_vae.ipynb", tmp_path / f"{name}.ipynb")
    fewer = batch.NOTEBOOKS.joinpath("1_vae.ipynb").read_text().replace("weights: str", "w: str")
    (tmp_path / "3_c.ipynb").write_text(fewer)

    def run(path, parameters):
        calls.append((path.stem, dict(parameters.items() - batch.check(path, {}).items())))
        return [tmp_path / "out" / "1.1-a.png"] * (path.stem != "2_b")

    monkeypatch.setattr(batch, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(batch, "run", run)
    monkeypatch.setattr(data, "choose", lambda name: print(f"chosen: {name}"))
    return calls


def test_profile_and_parameters_reach_each_named_notebook_and_one_line_says_what_it_drew(command, runs, tmp_path):
    code, out, err = command("figures", "1_a", "2_b", "--profile", "full", "-p", "seed", "3", "-p", "dataset", "digits")
    assert (code, err) == (0, "")
    lines = rf"chosen: digits\n1_a: 1 figures in {tmp_path / 'out'}, \d+ s\nchosen: digits\n2_b: 0 figures, \d+ s\n"
    assert re.fullmatch(lines, out)
    assert runs == [(name, {"profile": "full", "seed": 3, "dataset": "digits"}) for name in ("1_a", "2_b")]


def test_all_notebooks_that_have_a_source_are_run_where_none_is_named(command, runs):
    assert command("figures")[0] == 0
    assert runs == [("1_a", {}), ("2_b", {}), ("3_c", {})]


def test_two_notebooks_of_one_name_are_refused_and_one_named_twice_is_run_once(command, runs, tmp_path):
    (tmp_path / "b").mkdir()
    shutil.copy(tmp_path / "1_a.ipynb", tmp_path / "b" / "1_a.ipynb")
    code, _, err = command("figures", "1_a", tmp_path / "b" / "1_a.ipynb")
    assert (code, runs) == (2, [])
    assert "would replace each other's figures: run them one by one" in err
    assert command("figures", "1_a", "1_a")[0] == 0
    assert len(runs) == 1


def test_nothing_is_run_where_one_notebook_of_several_is_asked_wrongly(command, runs):
    code, out, err = command("figures", "1_a", "3_c", "-p", "weights", "fresh")
    assert (code, out, runs) == (2, "", [])
    assert "3_c has no parameter 'weights'" in err


@pytest.mark.parametrize(
    ("words", "parameters"),
    [
        *((words, {"seed": 3}) for words in (["-p", "seed", "3"], ["-p", "seed=3"], ["-pseed=3"])),
        (["-p", "seed", "4", "-p", "seed", "3"], {"seed": 3}),
        (["-p", "figure_dir", "-out", "-p", "seed", "3"], {"figure_dir": "-out", "seed": 3}),
        (["-p", "figure_dir", "--b"], {"figure_dir": "--b"}),
        (["-p", "figure_dir", "a=b"], {"figure_dir": "a=b"}),
    ],
)
def test_a_parameter_is_given_by_a_name_and_a_value_which_may_begin_with_a_dash(command, runs, words, parameters):
    assert command("figures", *words, "1_a")[0] == 0
    assert runs == [("1_a", parameters)]


def test_a_parameter_without_a_value_is_refused(command, capsys):
    with pytest.raises(SystemExit) as refused:
        command("figures", "-p", "seed")
    assert refused.value.code == 2
    assert "give a name and a value, such as -p seed 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("named", "trained"),
    [
        (["vae-2d", "vae-20d", "vae-2d"], ["vae-2d", "vae-20d"]),
        (["--shipped"], recipes.SHIPPED),
        (["flow-fc", "gan", "--shipped"], ["flow-fc", "gan", *(own for own in recipes.SHIPPED if own != "gan")]),
    ],
)
def test_train_tries_all_that_is_named_before_it_trains_them_in_order(command, monkeypatch, tmp_path, named, trained):
    calls, tried = [], []

    def ship(*options, measured):
        assert measured
        calls.append((*options, len(tried)))
        return {"metrics": {"bpd": 1.5}, "seconds": 2}

    monkeypatch.setattr(recipes, "check", lambda *_: None)
    monkeypatch.setattr(recipes, "rehearse", lambda *options: tried.append(options))
    monkeypatch.setattr(recipes, "ship", ship)
    options = ["--profile", "smoke", "--dataset", "digits", "--seed", 5, "--device", "cuda", "--out", tmp_path]
    code, out, err = command("train", *named, *options)
    assert (code, err) == (0, "")
    assert out == "".join(f'{tmp_path / name}.safetensors: {{"bpd": 1.5}} after 2 s\n' for name in trained)
    assert tried == [(name, "smoke", "digits", 5, "cuda", tmp_path, {}) for name in trained]
    assert calls == [(*options, len(trained)) for options in tried]


def test_settings_reach_the_training_which_can_leave_its_measuring_to_evaluate(command, tmp_path):
    setting = ["--set", "steps=3", "--set=couplings=2", "--set", "learning_rate=1"]
    code, out, _ = command(*SMOKE, *setting, "--dataset", "digits", "--unmeasured", "--out", tmp_path)
    assert (code, out.splitlines()[-1]) == (0, f"{tmp_path}/flow-2d.safetensors: not measured, after 0 s")
    metadata = checkpoint.load(tmp_path / "flow-2d.safetensors")[1]
    assert (metadata["settings"], metadata["metrics"]) == ({"steps": 3, "couplings": 2, "learning_rate": 1.0}, {})
    code, out, _ = command("evaluate", tmp_path / "flow-2d.safetensors", "--dataset", "digits")
    assert (code, list(json.loads(out))) == (0, ["val_loss", "test_loss"])


def test_a_relative_data_folder_is_the_same_one_for_kernels_which_work_elsewhere(command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GM_DATA", "mine")
    command("data", "--dataset", "digits")
    assert os.environ["GM_DATA"] == str(tmp_path / "mine")
    monkeypatch.setenv("GM_DATA", "s3://mine")
    assert command("data", "--dataset", "digits")[0] == 2


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["figures", "--help"]])
def test_help_is_printed_on_a_terminal_that_has_ascii_alone(words):
    code, out, err = in_a_shell(*words, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (code, err) == (0, "")
    assert out.isascii()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("ignored", [False, True])
def test_a_command_leaves_by_way_of_all_that_cleans_up_but_keeps_ignoring_what_nohup_ignores(
    number, code, ignored, monkeypatch
):
    monkeypatch.setattr(sys, "argv", ["gm_helpers", "device", "cpu"])
    before = signal.SIG_IGN if ignored else signal.SIG_DFL
    with handled(signal.SIGTERM, before), handled(signal.SIGHUP, before):
        with pytest.raises(SystemExit):
            runpy.run_path(__main__.__file__, run_name="__main__")
        with nullcontext() if ignored else pytest.raises(SystemExit, match=f"^{code}$"):
            os.kill(os.getpid(), number)


def test_a_training_that_is_terminated_saves_its_state_and_goes_on_from_there(tmp_path):
    call = [sys.executable, "-m", "gm_helpers", "train", "flow-2d", "--profile", "full", "--out", str(tmp_path)]
    run = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    shown = ""
    while not re.search(r" [1-9]\d*/20000 ", shown):  # in the progress bar: it is at work
        shown += run.stderr.read(1)
        assert run.poll() is None, shown
    run.terminate()
    out, err = run.communicate(timeout=60)
    assert run.returncode == 143, err
    assert [own.name for own in tmp_path.iterdir()] == ["flow-2d.state"]
    step = checkpoint.load_state(tmp_path / "flow-2d.state")["run"]["step"]
    assert f"flow-2d was stopped at step {step:,} of 20,000" in out


def test_a_run_of_a_notebook_that_is_terminated_or_interrupted_leaves_nothing_and_says_nothing(tmp_path, interruptible):
    path = tmp_path / "7_toy.ipynb"
    book = nbformat.read(batch.NOTEBOOKS / "1_vae.ipynb", as_version=4)
    parameters = next(cell for cell in book.cells if "parameters" in cell.metadata.get("tags", []))
    wait = f"open({str(tmp_path / 'flag')!r}, 'w').close(); import time; time.sleep(600)"
    book.cells = [parameters, nbformat.v4.new_code_cell(wait)]
    nbformat.write(book, path)
    call = [sys.executable, "-m", "gm_helpers", "figures", str(path), "-p", "dataset", "digits"]
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        (tmp_path / "flag").unlink(missing_ok=True)
        run = subprocess.Popen([*call, "-p", "figure_dir", str(tmp_path / "out")], stderr=subprocess.PIPE, text=True)
        while not (tmp_path / "flag").exists():
            assert run.poll() is None, run.stderr.read()
            time.sleep(0.05)
        run.send_signal(number)
        assert run.communicate(timeout=60)[1] == ""
        assert run.returncode == code
        assert [own.name for own in (tmp_path / "out").iterdir()] == ["notebooks"]


def test_each_source_is_written(command, monkeypatch):
    monkeypatch.setattr(batch, "write", lambda source: [source.with_suffix(own) for own in (".ipynb", ".solved")])
    lines = [f"{own} written\n" for own in ("1_a.ipynb", "1_a.solved", "2_b.ipynb", "2_b.solved")]
    assert command("notebooks", "1_a.md", "2_b.md") == (0, "".join(lines), "")
