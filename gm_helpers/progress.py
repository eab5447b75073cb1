"""How far a training is: tqdm's bar on a terminal; in a notebook one line of text, which needs no widget to be read."""

import io
import sys
from typing import Any

from tqdm import tqdm

SHOW_EVERY = 1.0  # seconds between changes: nbval reads no message before a cell's end, and the kernel throws away what
# a reader leaves lying, after some thousand messages even the one that says "done"


class Bar(tqdm):
    """tqdm's bar on standard error."""

    def finish(self, sentence: str) -> None:
        """What is to be read when it is over; here the bar says it already."""


class Line(Bar):
    """The same as the text of one output of a cell, put in place of the last one; in the end it is a sentence.

    tqdm's own bar for notebooks is a widget: saved, it shows an error in place of the bar.
    """

    def __init__(self, **options: Any):
        from IPython.display import display  # where there is a kernel there is IPython

        self.output = display({"text/plain": f"{options['desc']}: 0 %"}, raw=True, display_id=True)
        super().__init__(file=io.StringIO(), gui=True, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Show the bar as it is, or another text."""
        self.output.update({"text/plain": str(self) if msg is None else msg}, raw=True)

    def finish(self, sentence: str) -> None:
        """Put the sentence in place of the bar."""
        self.display(sentence)


def bar(title: str, steps: int, done: int) -> Bar:
    """A bar of that many steps, of which some are done, for where this runs: `update()` and `finish(sentence)`."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    kind = Line if shell is not None and "IPKernelApp" in shell.config else Bar
    return kind(total=steps, initial=done, desc=title, unit="step", mininterval=SHOW_EVERY)
