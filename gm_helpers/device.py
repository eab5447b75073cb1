"""Which device, which precision pays there, and the training step as one CUDA graph."""

import functools
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Generator, Tensor

from gm_helpers.files import UsageError

DEVICES = ("auto", "cpu", "cuda", "mps")
REHEARSALS = 3  # steps before a capture: what a library sets up at its first call can't be captured
# bfloat16 is taken where it needs at most this share of float32's time. A processor with instructions for it needs half
# as long, one without up to forty times as long: the border lies between, so that other processes, which disturb the
# trial, don't decide. On a GPU nothing disturbs it, and the two are close.
BORDERS = {"cpu": 1.5, "cuda": 0.9, "mps": 0.9}
HOPELESS = 10  # times as long as the fastest: such a way has no second turn
Step = Callable[[], None]


def choose_device(name: str = "auto") -> torch.device:
    """The device of that name, after a computation there has succeeded; "auto" is CUDA where it works, else the CPU.

    A number says which of several, such as "cuda:1". Raises UsageError for an unknown name and for a device that is not
    here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() and _computes("cuda") is None else "cpu")
    if not re.fullmatch(r"cpu|(cuda|mps)(:\d{1,2})?", name):
        raise UsageError(f"unknown device {name!r}: choose one of {', '.join(DEVICES)}")
    if (reason := _computes(name)) is not None:
        here = [other for other in DEVICES[1:] if _computes(other) is None]
        raise UsageError(f"device {name!r} cannot be used here ({reason}): choose one of auto, {', '.join(here)}")
    return torch.device(name)


def _computes(name: str) -> str | None:
    """None if a computation on the device succeeds, else the first line of what went wrong."""
    try:
        (torch.ones(2, 2, device=name) @ torch.ones(2, 2, device=name)).sum().item()
    except (RuntimeError, AssertionError) as error:  # "not compiled with CUDA enabled" is an AssertionError
        return str(error).splitlines()[0]
    return None


def quickest(
    step: Callable[[str], None], precisions: Sequence[str], tensors: Sequence[Tensor], generator: Generator, title: str
) -> tuple[str, Step]:
    """The precision that pays on the generator's device, by its border in BORDERS, and the step in it.

    step: called with a precision, after it was called once already. On CUDA the result replays it as a graph; where it
    can't be one, a printed sentence says why. What the trial does to the tensors, all that the step changes, and to the
    generators is undone, in place.
    """
    ways: dict[str, Step] = {own: functools.partial(step, own) for own in precisions}
    with undone(tensors, generator):
        if generator.device.type == "cuda":
            try:
                ways = {own: graphed(way, generator) for own, way in ways.items()}
            except RuntimeError as error:
                reason = str(error).splitlines()[0]
                print(f"{title}: trained step by step, because the step can't be a CUDA graph ({reason}).")
        seconds = _seconds(ways, tensors[0]) if len(ways) > 1 else dict.fromkeys(ways, 0.0)
    border = BORDERS[generator.device.type]
    chosen = min(precisions, key=lambda own: seconds[own] / (border if own == "bfloat16" else 1))
    return chosen, ways[chosen]


def _seconds(ways: dict[str, Step], tensor: Tensor) -> dict[str, float]:
    """Of each way the fastest of some turns, one after the other; infinity for one that fails, such as for want of an
    operation in bfloat16. What is hopeless after its first turn has no other."""
    best, calls = dict.fromkeys(ways, math.inf), 10 if tensor.is_cuda else 1
    for turn in range(REHEARSALS):
        for name, way in ways.items():
            if turn and best[name] > HOPELESS * min(best.values()):
                continue
            start = time.perf_counter()
            try:
                for _ in range(calls):
                    way()
            except RuntimeError:
                continue
            tensor.sum().item()  # asking for a number waits for a GPU
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def graphed(step: Step, generator: Generator) -> Step:
    """The step recorded as one CUDA graph: a call replays all its kernels by one launch, with new noise each time.

    The step is rehearsed first; its tensors keep their places ever after, and no number of it may be asked for. All
    noise comes from this generator or from torch's own. Raises RuntimeError for a step that can't be recorded.
    """
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    with torch.cuda.device(generator.device), torch.cuda.stream(torch.cuda.Stream()):  # not the stream of before
        torch.cuda.synchronize()
        for _ in range(REHEARSALS):
            step()
        try:
            with torch.cuda.graph(graph):
                step()
        except RuntimeError:
            for own in (generator, torch.cuda.default_generators[torch.cuda.current_device()]):
                own.graphsafe_set_state(own.clone_state())  # else it goes on waiting for the capture's end
            raise
    return graph.replay


@contextmanager
def undone(tensors: Sequence[Tensor], generator: Generator) -> Iterator[None]:
    """What happens meanwhile to the tensors, the generator and torch's own generators is undone, in place."""
    before, state = [own.detach().clone() for own in tensors], generator.get_state()
    shared = global_generators(generator.device)
    try:
        yield
    finally:
        with torch.no_grad():
            for own, kept in zip(tensors, before, strict=True):
                own.copy_(kept)
        generator.set_state(state)
        set_global_generators(shared, generator.device)


@contextmanager
def deterministic() -> Iterator[None]:
    """cuDNN takes only algorithms that give the same bits at each call; it costs nothing where there is no cuDNN."""
    before, torch.backends.cudnn.deterministic = torch.backends.cudnn.deterministic, True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before


def global_generators(device: torch.device) -> dict[str, Tensor]:
    """The states of torch's own generators, from which dropout draws: the CPU's, and that of the device."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def set_global_generators(states: dict[str, Tensor], device: torch.device) -> None:
    """Put back what `global_generators` gave."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
    elif device.type == "mps":
        torch.mps.set_rng_state(states["mps"])
