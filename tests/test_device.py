import time
from contextlib import suppress

import pytest
import torch
from conftest import same, seeded
from torch import nn

from gm_helpers import device
from gm_helpers.device import choose_device, deterministic, quickest, undone
from gm_helpers.files import UsageError

BOTH = ["float32", "bfloat16"]

# ---------------------------------------------------------------- which device


@pytest.fixture
def computing(monkeypatch):
    """Names the devices on which a tensor can be made."""
    ones = torch.ones

    def computing(*names):
        def made(*shape, device):
            if device not in names:
                raise AssertionError("no driver\nand much more")  # as torch does where it was built without CUDA
            return ones(*shape)

        monkeypatch.setattr(torch, "ones", made)

    return computing


@pytest.mark.parametrize(
    "name", ["tpu", "CPU", "", "cudaa", "auto:0", "cpu:0", "cpu:99999", "cuda:", "cuda:x", "mps:0:1"]
)
def test_an_unknown_device_is_refused_with_the_choices(name):
    with pytest.raises(UsageError, match=f"^unknown device '{name}': choose one of auto, cpu, cuda, mps$"):
        choose_device(name)


def test_an_absent_device_is_refused_with_what_is_here():
    with pytest.raises(UsageError, match=r"^device 'cuda:99' cannot be used here \(.+\): choose one of auto, cpu"):
        choose_device("cuda:99")


def test_only_devices_that_compute_are_offered(computing):
    computing("cpu", "mps")
    with pytest.raises(UsageError, match=r"'cuda' cannot be used here \(no driver\): choose one of auto, cpu, mps$"):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("available", "works", "chosen"), [(True, True, "cuda"), (True, False, "cpu"), (False, True, "cpu")]
)
def test_auto_takes_cuda_only_where_it_is_there_and_computes(available, works, chosen, monkeypatch, computing):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    computing("cpu", *["cuda"] * works)
    assert choose_device("auto") == choose_device() == torch.device(chosen)


# ---------------------------------------------------------------- what is put back


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_the_state_of_a_device_s_own_generator_is_given_and_put_back(kind, monkeypatch):
    """A stand-in for the device: no test machine has one."""
    where, states = torch.device(kind, 0), {}
    arguments = (where,) if kind == "cuda" else ()
    module = getattr(torch, kind)
    monkeypatch.setattr(module, "get_rng_state", lambda *own: torch.full((3,), 7) if own == arguments else None)
    monkeypatch.setattr(module, "set_rng_state", lambda state, *own: states.update({own: state}))
    saved, expected = device.global_generators(where), torch.rand(3)
    device.set_global_generators(saved, where)
    assert torch.equal(torch.rand(3), expected)
    assert same(states, {arguments: torch.full((3,), 7)})


def draws(generator):
    return torch.rand(3), torch.rand(3, generator=generator)


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_undone_is_as_before_and_in_its_place_also_after_an_error(fails):
    weight, number, generator = nn.Parameter(torch.rand(3)), torch.tensor(4), seeded(1)
    before, places = (weight.detach().clone(), number.clone()), (weight.data_ptr(), number.data_ptr())
    with undone([], generator):
        expected = draws(generator)
    with suppress(KeyError), undone([weight, number], generator), torch.no_grad():
        weight.mul_(2)
        number.add_(1)
        draws(generator)
        if fails:
            raise KeyError
    assert same((weight.detach(), number), before)
    assert (weight.data_ptr(), number.data_ptr()) == places
    assert same(draws(generator), expected)


@pytest.mark.parametrize("before", [True, False])
def test_cudnn_is_deterministic_meanwhile_and_then_as_it_was(before, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", before)
    with suppress(KeyError), deterministic():
        assert torch.backends.cudnn.deterministic
        raise KeyError
    assert torch.backends.cudnn.deterministic is before


# ---------------------------------------------------------------- which precision


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ([0.8] * 4, "bfloat16"),
        ([9, 0.8, 9, 9], "bfloat16"),  # another process disturbs two of three trials
        ([9, 1.4, 1.4, 9], "bfloat16"),
        ([1.6] * 4, "float32"),
        ([40], "float32"),  # and is not tried again
        ([], "float32"),  # the step fails
    ],
)
def test_bfloat16_is_taken_on_a_cpu_unless_its_best_trial_is_far_slower(seconds, chosen, monkeypatch):
    now, taken = [0.0], []

    def step(precision):
        taken.append(precision)
        if precision == "bfloat16" and not seconds:
            raise RuntimeError("not implemented for 'BFloat16'")
        now.append(now[-1] + (1.0 if precision == "float32" else seconds[taken.count(precision) - 1]))

    monkeypatch.setattr(time, "perf_counter", lambda: now[-1])
    precision, take = quickest(step, BOTH, [torch.zeros(1)], seeded(0), "walk")
    take()
    assert precision == taken[-1] == chosen


# ---------------------------------------------------------------- the step as one CUDA graph


class Walk:
    """A step that moves a point at random, and with `asks` looks where it is."""

    def __init__(self, asks=False):
        self.at, self.generator, self.asks, self.calls = torch.zeros(3), seeded(1), asks, 0
        torch.manual_seed(5)

    def step(self, precision):
        self.calls += 1
        self.at += sum(draws(self.generator))
        if self.asks:
            self.at.sum().item()

    def go(self, step):
        """To where five further steps lead, and by how many calls from Python."""
        before = self.calls
        for _ in range(5):
            step()
        return self.at, self.calls - before


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("precisions", [["float32"], BOTH])
def test_on_cuda_the_steps_are_replayed_with_new_noise_each_time_as_if_nothing_had_been_tried(precisions, capsys):
    expected, _ = (plain := Walk()).go(lambda: plain.step(""))
    walk = Walk()
    at, calls = walk.go(quickest(walk.step, precisions, [walk.at], walk.generator, "walk")[1])
    assert (calls, capsys.readouterr().out) == (0, "")
    assert same(at, expected)


@pytest.mark.usefixtures("gpu")
def test_a_step_that_cannot_be_a_cuda_graph_is_taken_from_python_and_a_sentence_says_why(capsys):
    expected, _ = (plain := Walk()).go(lambda: plain.step(""))
    walk = Walk(asks=True)
    at, calls = walk.go(quickest(walk.step, BOTH, [walk.at], walk.generator, "walk")[1])
    assert same((at, calls), (expected, 5))
    assert capsys.readouterr().out == (
        "walk: trained step by step, because the step can't be a CUDA graph "
        "(operation not permitted when stream is capturing).\n"
    )


@pytest.mark.usefixtures("gpu")
def test_a_step_of_which_a_number_is_asked_is_no_graph():
    walk = Walk(asks=True)
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
        device.graphed(lambda: walk.step(""), walk.generator)
