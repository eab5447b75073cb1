"""Sweeps run by Snakemake: nothing twice, kills, failures, and a Slurm of one node."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import slurm
import torch
import yaml

pytestmark = [pytest.mark.slow, pytest.mark.rare]

ROOT = Path(__file__).parent.parent
FOUR = {"profile": "smoke", "dataset": "digits", "device": "cpu", "seeds": [0, 1]}
FOUR |= {"models": {"flow-2d": {"couplings": [2, 4]}}}
ON_SLURM = "--slurm-status-command squeue --seconds-between-status-checks 5 --slurm-init-seconds-before-status-checks 5"
ON_SLURM += " --default-resources slurm_account=none slurm_partition=main runtime=5 mem_mb=500"


@pytest.fixture
def start(tmp_path):
    """Start Snakemake with that sweep, in a folder of its own, as `make sweep` does."""
    installed = ROOT / ".venv-sweep" / ".installed"
    assert installed.exists(), "Snakemake is not installed: run make .venv-sweep/.installed"

    def start(sweep, *options, on="local"):
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(sweep))
        call = [installed.parent / "bin" / "python", "-m", "snakemake", "--snakefile", "sweeps/Snakefile"]
        call += ["--directory", tmp_path, "--workflow-profile", f"sweeps/{on}"]
        call += ["--config", f"sweep={tmp_path / 'mine.yaml'}", *options]
        return subprocess.Popen(call, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    return start


@pytest.fixture
def run(start):
    """The same to its end: exit code, how many jobs of each rule ended well, and all that was said."""

    def run(*arguments, **options):
        return outcome(start(*arguments, **options))

    return run


def outcome(process):
    said = process.communicate()[0]
    rules = re.findall(r"Finished jobid: \d+ \(Rule: (\w+)\)", said)
    return process.returncode, {rule: rules.count(rule) for rule in rules}, said


ALL = {"train": 4, "measure": 4, "gather": 1, "draw": 1, "all": 1}
AFTER = {"gather": 1, "draw": 1, "all": 1}


def test_a_sweep_is_run_once_and_afterwards_only_what_a_change_concerns(run, tmp_path):
    assert run(FOUR)[:2] == (0, ALL)
    assert len((tmp_path / "mine.csv").read_text().splitlines()) == 1 + 4 * 2
    assert (tmp_path / "mine.png").read_bytes().startswith(b"\x89PNG")
    code, rules, said = run(FOUR)
    assert (code, rules) == (0, {})
    assert "Nothing to be done" in said
    more = FOUR | {"models": {"flow-2d": {"couplings": [2, 4, 6]}}}
    assert run(more)[:2] == (0, {"train": 2, "measure": 2, **AFTER})
    assert run(FOUR | {"seeds": [1]})[:2] == (0, AFTER)
    few = {"models": {"flow-2d": {"couplings": 2}}, "seeds": [1]}
    assert run(FOUR | few | {"threads": 2})[:2] == (0, {"train": 1, "measure": 1, **AFTER})


def test_a_training_that_fails_stops_no_other_and_is_named(run, tmp_path):
    failing = FOUR | {"models": {"flow-2d": {"learning_rate": [0.001, 1e9]}}}
    code, rules, said = run(failing)
    assert (code, rules) == (1, {"train": 2, "measure": 2})
    missing = said.partition("Without a result, and why, is said in the logs there:")[2]
    assert [seed for seed in (0, 1) if f"/flow-2d/learning_rate=1000000000.0/seed-{seed}" in missing] == [0, 1]
    assert "learning_rate=0.001" not in missing
    assert "a loss or weight is not finite" in said
    assert run(failing)[:2] == (1, {})


def test_a_training_that_fails_after_an_earlier_success_is_named_and_its_old_measurement_is_gone(run, tmp_path):
    one = FOUR | {"seeds": [0], "models": {"flow-2d": {}}}
    assert run(one)[0] == 0
    absent = "cuda" if not torch.cuda.is_available() else "mps"
    code, _, said = run(one | {"device": absent})
    assert code == 1
    assert "smoke-digits/flow-2d/recipe/seed-0" in said.partition("Without a result, and why")[2]
    assert list(tmp_path.rglob("flow-2d.json")) == []


def test_a_training_that_is_killed_goes_on_from_its_state(start, tmp_path):
    long = FOUR | {"seeds": [0], "models": {"flow-2d": {"steps": 4000}}}
    folder = tmp_path / "smoke-digits/flow-2d/steps=4000/seed-0"
    began = []
    for number in (signal.SIGTERM, signal.SIGKILL, None):  # the first has it save its state at once
        process = start(long)
        while number and not re.search(r"step/s, flow=", said(folder)):
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.1)
        if number:
            own = subprocess.run(
                ["pgrep", "-f", f"train flow-2d .*--out {folder.relative_to(tmp_path)}"], capture_output=True
            )
            os.kill(max(map(int, own.stdout.split())), number)  # the shell that started it has the smaller one
        assert (outcome(process)[0] == 0) == (number is None)
        began.append(int(re.search(r"\| (\d+)/4000", said(folder))[1]))
        assert (folder / "flow-2d.state").exists() == (number is not None)
        (folder / "flow-2d-train.log").unlink()
    assert began[0] == 0 < began[1] == began[2]


def said(folder):
    log = folder / "flow-2d-train.log"
    return log.read_text() if log.exists() else ""


def test_a_state_that_was_begun_by_other_code_is_not_gone_on_from(run, tmp_path):
    one = FOUR | {"seeds": [0], "models": {"flow-2d": {}}}
    folder = tmp_path / "smoke-digits/flow-2d/recipe/seed-0"
    folder.mkdir(parents=True)
    (folder / "begun").write_text("other code\n")
    (folder / "flow-2d.state").write_text("damaged: it would be refused")
    assert run(one)[0] == 0


@pytest.fixture
def cluster(tmp_path_factory):
    """A Slurm of one node; where there can be none the test is skipped, and fails in CI."""
    if not slurm.installed():
        without = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        without(f"no Slurm here: as root, install {', '.join(slurm.PACKAGES)} (Debian, Ubuntu), and this test will run")
    with slurm.running(tmp_path_factory.mktemp("slurm")):
        yield


def test_a_sweep_goes_through_slurm_and_after_a_job_was_cancelled_is_repaired_by_a_rerun(cluster, start, run):
    process, waiting = start(FOUR, *ON_SLURM.split(), on="slurm"), []
    while not waiting and process.poll() is None:
        asked = ["squeue", "--noheader", "--states=PENDING", "--format=%i"]
        waiting = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
        time.sleep(0.2)
    subprocess.run(["scancel", waiting[-1]], check=True)
    code, rules, told = outcome(process)
    assert (code, rules) == (1, {"train": 3, "measure": 3})
    assert f"SLURM-job '{waiting[-1]}' failed, SLURM status is: 'CANCELLED'" in told
    assert run(FOUR, *ON_SLURM.split(), on="slurm")[:2] == (0, {"train": 1, "measure": 1, **AFTER})
