"""What is put into a folder of the user's: whole, listed, and nothing else touched."""

import contextlib
import hashlib
import json
import os
import time

import pytest
from conftest import processes

from gm_helpers import publish
from gm_helpers.files import sentence

DIGEST = hashlib.sha256(b"one").hexdigest()


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


@pytest.mark.parametrize("leads_to", ["album.png", "nowhere"])
@pytest.mark.parametrize("listed", [{"a.png": [""], "b.png": [""]}, {"a.png": [DIGEST], "b.png": [DIGEST]}, {}])
def test_a_link_of_the_user_is_kept_whatever_a_manifest_lists_and_wherever_it_leads(target, listed, leads_to):
    (target.parent / "album.png").write_text("one")
    (target / "7_toy.figures.json").write_text(json.dumps({"gm_helpers": listed}))
    for name in ("a.png", "b.png"):
        (target / name).symlink_to(target.parent / leads_to)
    put(target, a_png="two")
    assert (target / "a.png").read_text() == "two"
    assert [os.readlink(target / name) for name in ("a.kept.png", "b.png")] == [str(target.parent / leads_to)] * 2
    assert (target.parent / "album.png").read_text() == "one"


@pytest.mark.parametrize(("place", "kept"), [("a.kept.png", "a.kept1.png"), ("7_toy.figures.json", "a.kept.png")])
def test_a_dangling_link_in_the_place_of_a_kept_file_or_of_the_manifest_is_kept_too(target, place, kept):
    (target / "a.png").write_text("a user's")
    (target / place).symlink_to(target / "nowhere")
    put(target, a_png="one")
    assert contents(target) == {"a.png": "one", kept: "a user's"}
    assert [os.readlink(own) for own in target.iterdir() if own.is_symlink()] == [str(target / "nowhere")]
    put(target)
    assert contents(target) == {kept: "a user's"}


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
    with contextlib.suppress(KeyboardInterrupt):
        put(target, a_png="two", b_png="two", c_png="two")
        assert failing > 5
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
    (target.parent / "a.txt").write_text("one")
    listed = {"gm_helpers": {name.format(target.parent): [DIGEST]}}
    (target / "7_toy.figures.json").write_text(json.dumps(listed))
    put(target, b_png="one")
    assert (target.parent / "a.txt").exists()


def test_files_in_folders_are_put_and_taken_away_with_their_folders_left(target):
    source = target.parent / "x"
    for name in ("sub/a.png", "sub/b.png"):
        source.write_text("one")
        publish.publish({name: source}, target, "7_toy")
    assert contents(target) == {"sub/b.png": "one"}


# ---------------------------------------------------------------- scratch folders


def test_a_scratch_folder_goes_with_its_run_and_one_that_is_released_stays(target):
    for failing in (False, True):
        with contextlib.suppress(KeyError), publish.scratch(target, "7_toy", "advice") as own:
            assert own.parent == target
            if failing:
                raise KeyError
        assert list(target.iterdir()) == []
    with publish.scratch(target, "7_toy", "advice") as own:
        publish.release(own)
    with publish.scratch(target, "7_toy", "advice"):
        pass
    assert list(target.iterdir()) == [own]


def work(target, begun):
    with publish.scratch(target, "7_toy", "advice"):
        begun.set()
        time.sleep(600)


@pytest.mark.slow
def test_what_a_killed_run_left_goes_with_the_next(target):
    begun = processes.Event()
    process = processes.Process(target=work, args=(target, begun))
    process.start()
    assert begun.wait(60)
    process.kill()
    process.join()
    [left] = target.glob(".gm_helpers-7_toy-*/")
    with publish.scratch(target, "7_toy", "advice"):
        assert not left.exists()


@pytest.mark.parametrize("stem", ["7_toy", "*"])
def test_nothing_without_the_mark_or_of_another_stem_is_taken_for_what_a_killed_run_left(target, stem):
    names = (".gm_helpers-8_other-x", "7_toy-notes", f".gm_helpers-{stem}-def", f".{stem}-4242")
    for name in names:
        (target / name / "figures").mkdir(parents=True)
    for name in names[:2]:
        (target / name / publish.MARK).write_text(stem)
    with publish.scratch(target, stem, "advice"):
        pass
    assert {own.name for own in target.iterdir()} == set(names)


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
