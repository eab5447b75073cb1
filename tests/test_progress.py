"""How far a training is, without a terminal and without a kernel: what would be seen there is read back."""

import sys
from contextlib import suppress
from types import SimpleNamespace

import IPython.display
import pytest

from gm_helpers import progress


@pytest.fixture
def output(monkeypatch):
    """The texts of the one output of a cell, in the order in which they take each other's place."""
    texts = []

    def display(content, raw, display_id):
        assert raw
        assert display_id
        texts.append(content["text/plain"])
        return SimpleNamespace(update=lambda content, raw: texts.append(content["text/plain"]))

    shell = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    monkeypatch.setattr(IPython.display, "display", display)
    monkeypatch.setattr(progress, "SHOW_EVERY", 0)
    return texts


def test_in_a_notebook_a_bar_is_one_text_that_changes_and_ends_as_a_sentence(output, capsys):
    with progress.bar("vae", 4, 1) as bar:
        for step in (2, 3, 4):
            bar.set_postfix({"loss": 7.5}, refresh=False)
            bar.update()
            assert f" {step}/4 " in output[-1]
            assert "loss=7.5" in output[-1]
        bar.finish("vae: 4 steps in 1 s")
    assert (output[0], output[-1]) == ("vae: 0 %", "vae: 4 steps in 1 s")
    assert capsys.readouterr() == ("", "")


def test_after_an_error_the_text_says_how_far_it_was(output):
    with suppress(ZeroDivisionError), progress.bar("vae", 4, 0) as bar:
        bar.update()
        bar.update(1 / 0)
    assert isinstance(bar, progress.Line)
    assert " 1/4 " in output[-1]


@pytest.mark.parametrize("config", [None, {"TerminalIPythonApp": {}}])
def test_without_a_kernel_a_bar_goes_to_standard_error(config, monkeypatch, capsys):
    shell = None if config is None else SimpleNamespace(config=config)
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    with progress.bar("vae", 4, 0) as bar:
        bar.update(4)
        bar.finish("vae: 4 steps in 1 s")
    assert not isinstance(bar, progress.Line)
    out, err = capsys.readouterr()
    assert out == ""
    assert " 4/4 " in err


def test_where_ipython_was_not_imported_it_is_not_asked(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "IPython")
    with progress.bar("vae", 4, 0) as bar:
        bar.update(4)
    assert " 4/4 " in capsys.readouterr().err
