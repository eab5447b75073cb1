"""Foreign code, run so that it comes to an end and the notebook does not notice it."""

import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from types import FrameType
from typing import Any

import numpy as np
import torch

AGAIN = 0.002  # seconds between further tries to stop what catches everything; they come ever faster
FASTEST = 0.0002


class TimeUp(BaseException):
    """Not an Exception, so that foreign code's own `except Exception` lets it pass."""


def foreign(function: Callable[..., Any], *arguments: Any) -> Any:
    """function(*arguments), which may be stopped: TimeUp is raised nowhere but in what runs in here."""
    return function(*arguments)


@contextmanager
def stopped_after(seconds: float) -> Iterator[None]:
    """Raise TimeUp in what runs by way of `foreign`, again until it ends, even where callers catch all errors.

    Not in a thread other than the main one, where alone a signal can raise, and not inside one call of compiled code.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    traced: list[FrameType] = []
    tries, tracer = 0, sys.gettrace()

    def stop(_: int, frame: FrameType | None) -> None:
        nonlocal tries
        callers = _callers(frame)
        if callers is None or stop.__code__ in [own.f_code for own in callers]:  # our own code, or a tick within a tick
            return
        tries += 1
        if tries > 1 and callers:  # the first was caught: raise at the next line of one of the callers, too
            for own in callers:
                own.f_trace = None
            traced.append(callers[tries % len(callers)])
            traced[-1].f_trace = _at_the_next_line
            sys.settrace(lambda *_: None)
            signal.setitimer(signal.ITIMER_REAL, *[max(FASTEST, AGAIN * 0.9**tries)] * 2)
        raise TimeUp

    before = signal.signal(signal.SIGALRM, stop)
    left = signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *left)
        signal.signal(signal.SIGALRM, before)
        sys.settrace(tracer)
        for own in traced:
            own.f_trace = None


def _callers(frame: FrameType | None) -> list[FrameType] | None:
    """The frames of foreign code that run now, the innermost first; None where our own code runs."""
    frames: list[FrameType] = []
    while frame and frame.f_code is not foreign.__code__:
        frames.append(frame)
        frame = frame.f_back
    return frames if frame else None


def _at_the_next_line(frame: FrameType, event: str, _: Any) -> Any:
    if event == "line":
        raise TimeUp
    return _at_the_next_line


@contextmanager
def unnoticed() -> Iterator[None]:
    """What runs inside may print, warn, draw random numbers and change modes: afterwards all is as it was.

    Not so what it does to the process: environment, folder, numbers of threads, print options, files.
    """
    states, legacy = random.getstate(), np.random.get_state()
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    with (
        open(os.devnull, "w") as nowhere,
        redirect_stdout(nowhere),
        redirect_stderr(nowhere),
        torch.random.fork_rng(devices=[]),
        torch.enable_grad(),
        np.errstate(),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            random.setstate(states)
            np.random.set_state(legacy)
            torch.set_default_dtype(dtype)
            if torch.get_default_device() != device:  # setting it leaves a mode behind, which None takes away
                torch.set_default_device(None if device.type == "cpu" else device)
