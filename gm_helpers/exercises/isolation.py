"""Foreign code, run so that it comes to an end and the notebook does not notice it."""

import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from types import FrameType
from typing import Any

import numpy as np
import torch

HERE = os.path.dirname(__file__)  # the checkers' own code
AGAIN = 0.002  # seconds between further tries to stop what catches everything


class TimeUp(BaseException):
    """Not an Exception, so that foreign code's own `except Exception` lets it pass."""


@contextmanager
def stopped_after(seconds: float) -> Iterator[None]:
    """Raise TimeUp in what runs inside, and again until it ends, even where one or two callers catch all errors.

    Not in a thread other than the main one, where alone a signal can raise, and not inside one call of compiled code.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    inside, tries, tracer = True, 0, sys.gettrace()

    def stop(_: int, frame: FrameType | None) -> None:
        nonlocal tries
        tries += 1
        if inside and tries > 1:  # the first was caught: raise at the next line of one of the callers, too
            frames: list[FrameType] = []
            while frame and not frame.f_code.co_filename.startswith(HERE):
                frames.append(frame)
                frame.f_trace, frame = None, frame.f_back
            sys.settrace(lambda *_: None)
            frames[tries % len(frames)].f_trace = _at_the_next_line
        if inside:
            raise TimeUp

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    finally:
        inside = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.settrace(tracer)
        signal.signal(signal.SIGALRM, before)


def _at_the_next_line(frame: FrameType, event: str, _: Any) -> Any:
    if event == "line":
        raise TimeUp
    return _at_the_next_line


@contextmanager
def unnoticed() -> Iterator[None]:
    """What runs inside may print, warn, draw random numbers and change modes: afterwards all is as it was."""
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
            torch.set_default_device(device)
