"""What is put into a folder of the user's: whole, listed, and nothing else touched."""

import errno
import json
import os
from pathlib import Path

import pytest

from gm_helpers import publish
from gm_helpers.files import UsageError, sentence


def put(target, **files):
    """Publish files of this content for the stem 7_toy; names have _ for the dot of their ending."""
    source = target.parent / "source"
    source.mkdir(exist_ok=True)
    new = {name.replace("_png", ".png"): source / name for name in files}
    for name, content in files.items():
        (source / name).write_text(content)
    publish.publish(new, target, "7_toy")


def contents(folder):
    """Without manifests."""
    files = [own for own in folder.rglob("*") if own.is_file() and ".figures." not in own.name]
    return {str(own.relative_to(folder)): own.read_text() for own in files}


@pytest.fixture
def target(tmp_path):
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


def test_what_is_put_replaces_what_was_put_and_takes_away_what_is_no_longer_there(target):
    put(target, a_png="one", b_png="one", c_png="one")
    put(target, a_png="two", b_png="one")
    assert contents(target) == {"a.png": "two", "b.png": "one"}


def test_a_file_of_the_user_is_kept_under_another_name_and_a_sentence_says_so(target, capsys):
    (target / "a.png").write_text("a user's")
    put(target, a_png="one")
    assert contents(target) == {"a.png": "one", "a.kept.png": "a user's"}
    assert capsys.readouterr().out == f"{target / 'a.png'} is not of an earlier run: it is kept as a.kept.png.\n"
    (target / "a.png").write_text("changed by the user")
    put(target, a_png="two")
    assert contents(target) == {"a.png": "two", "a.kept.png": "a user's", "a.kept1.png": "changed by the user"}


def test_a_file_that_the_user_changed_is_not_taken_away(target):
    put(target, a_png="one", b_png="one")
    (target / "b.png").write_text("changed by the user")
    put(target, a_png="one")
    assert contents(target) == {"a.png": "one", "b.png": "changed by the user"}


def test_a_file_that_is_already_as_it_should_be_is_not_kept_twice(target):
    (target / "a.png").write_text("one")
    put(target, a_png="one")
    assert contents(target) == {"a.png": "one"}


def test_a_link_of_the_user_is_kept_even_if_it_leads_nowhere(target):
    (target / "a.png").symlink_to(target / "nowhere")
    put(target, a_png="one")
    assert os.readlink(target / "a.kept.png") == str(target / "nowhere")
    assert (target / "a.png").read_text() == "one"


def test_what_another_notebook_put_there_is_replaced_and_not_taken_away(target):
    put(target, a_png="one", b_png="one")
    (target / "7_toy.figures.json").rename(target / "8_other.figures.json")
    put(target, a_png="two")
    put(target)
    assert contents(target) == {"b.png": "one"}


@pytest.mark.parametrize("failing", range(1, 7))
def test_after_a_stop_at_any_step_the_next_run_knows_what_is_there(target, monkeypatch, failing):
    """Renames are the steps: of the manifest, of each of three files, of the manifest again, and one too many."""
    put(target, a_png="one", b_png="one", old_png="one")
    steps, replace = [], os.replace

    def stop(*names):
        steps.append(names)
        if len(steps) == failing:
            raise KeyboardInterrupt
        replace(*names)

    monkeypatch.setattr(os, "replace", stop)
    try:
        put(target, a_png="two", b_png="two", c_png="two")
        assert failing > 5
    except KeyboardInterrupt:
        pass
    monkeypatch.setattr(os, "replace", replace)
    put(target, a_png="three")
    assert contents(target) == {"a.png": "three"}


@pytest.mark.parametrize("place", ["b.png", "7_toy.figures.json"])
def test_nothing_is_moved_where_a_folder_has_the_name_of_a_file(target, place):
    (target / place).mkdir()
    with pytest.raises(IsADirectoryError) as refused:
        put(target, a_png="one", b_png="one")
    assert refused.value.filename == str(target / place)
    assert contents(target) == {}


def test_a_full_disk_takes_nothing_away(target, monkeypatch):
    put(target, a_png="one", b_png="one")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            put(target, a_png="two")
    assert contents(target) == {"a.png": "one", "b.png": "one"}


@pytest.mark.parametrize(
    "manifest", ["", "no JSON", "[]", '{"gm_helpers": []}', '{"gm_helpers": {"a": 3}}', '{"other": {}}', "\xff"]
)
def test_something_else_under_the_manifest_s_name_is_kept_and_believed_nothing(target, manifest):
    (target / "7_toy.figures.json").write_text(manifest, encoding="latin-1")
    (target / "a.png").write_text("a user's")
    put(target, b_png="one")
    assert contents(target) == {"a.png": "a user's", "b.png": "one"}
    assert (target / "7_toy.figures.kept.json").read_text(encoding="latin-1") == manifest


@pytest.mark.parametrize("name", ["../a.txt", "sub/../../a.txt", "{}/a.txt"])
def test_a_manifest_that_lists_a_file_elsewhere_takes_nothing_away_there(target, name):
    (target.parent / "a.txt").write_text("a user's")
    digest = publish._digest(target.parent / "a.txt")
    listed = {"gm_helpers": {name.format(target.parent): [digest]}}
    (target / "7_toy.figures.json").write_text(json.dumps(listed))
    put(target, b_png="one")
    assert (target.parent / "a.txt").read_text() == "a user's"


def test_files_in_folders_are_put_and_taken_away_with_their_folders_left(target):
    source = target.parent / "x"
    for name in ("sub/a.png", "sub/b.png"):
        source.write_text("one")
        publish.publish({name: source}, target, "7_toy")
    assert contents(target) == {"sub/b.png": "one"}


# ---------------------------------------------------------------- scratch folders


def test_a_scratch_folder_goes_with_its_run_and_one_that_is_released_stays(target):
    for error in (None, KeyError()):
        try:
            with publish.scratch(target, "7_toy", "advice") as own:
                assert own.parent == target
                if error:
                    raise error
        except KeyError:
            pass
        assert list(target.iterdir()) == []
    with publish.scratch(target, "7_toy", "advice") as own:
        publish.release(own)
    with publish.scratch(target, "7_toy", "advice"):
        pass
    assert list(target.iterdir()) == [own]


def test_what_a_killed_run_left_goes_with_the_next_and_nothing_without_our_mark_does(target):
    ours = target / ".gm_helpers-7_toy-abc"
    others = [
        target / name for name in (".gm_helpers-7_toy-def", ".7_toy-4242", ".gm_helpers-8_other-x", "7_toy-notes")
    ]
    for folder in (ours, *others):
        (folder / "figures").mkdir(parents=True)
    for folder in (ours, others[2], others[3]):
        (folder / publish.MARK).write_text("7_toy")
    with publish.scratch(target, "7_toy", "advice"):
        pass
    assert set(target.iterdir()) == set(others)


def test_an_empty_folder_without_our_mark_is_no_scratch_folder_for_a_stem_with_a_star(target):
    (target / ".gm_helpers-7_toy-abc").mkdir()
    (target / ".gm_helpers-7_toy-abc" / publish.MARK).write_text("*")
    with publish.scratch(target, "*", "advice"):
        pass
    assert (target / ".gm_helpers-7_toy-abc").exists()


def test_the_scratch_folder_of_a_living_run_of_a_longer_stem_stays(target):
    with (
        publish.scratch(target, "7_toy-Copy1", "advice") as longer,
        publish.scratch(target, "7_toy", "advice"),
        publish.scratch(target, "7", "advice"),
    ):
        assert longer.exists()


@pytest.mark.parametrize("error", [OSError("the disk went away"), OSError(28, "No space left on device")])
def test_an_error_of_the_system_keeps_its_message_and_a_full_disk_gets_a_place(target, error):
    with pytest.raises(OSError, match=r".") as failed, publish.scratch(target, "7_toy", "advice"):
        raise error
    place = "" if error.errno is None else f"{target}: "
    assert sentence(failed.value) == place + (error.strerror or "the disk went away")


def test_a_link_that_the_user_put_in_a_figure_s_place_is_kept(target):
    put(target, a_png="one")
    (target / "a.png").rename(target.parent / "album.png")
    (target / "a.png").symlink_to(target.parent / "album.png")
    put(target, a_png="two")
    assert (target / "a.kept.png").is_symlink()
    assert (target.parent / "album.png").read_text() == "one"


def test_a_folder_that_cannot_be_written_is_refused_with_the_advice(target):
    (target / "file").touch()
    with (
        pytest.raises(UsageError, match=r"^cannot write to .*file \(.*file is a file\): take another$"),
        publish.scratch(Path(target / "file"), "7_toy", "take another"),
    ):
        pass
