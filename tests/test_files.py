"""Files that are whole or not there, folders that can be written, and locks."""

import contextlib
import errno
import os
import random
import signal
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import processes

from gm_helpers import files
from gm_helpers.files import CourseError, UsageError, alone, folder, make_folder, sentence, write_atomically

# ---------------------------------------------------------------- writing


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def save_and_die_at(step, path):
    setattr(os, step, die)
    write_atomically(path, b"new" * 100_000)


def save_for_ever(path, started):
    while True:
        for fill in range(2):
            write_atomically(path, bytes([fill]) * 2_000_000)
            started.set()


def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path):
    moments = random.Random(0)
    for _ in range(8):
        started = processes.Event()
        process = processes.Process(target=save_for_ever, args=(tmp_path / "a", started))
        process.start()
        assert started.wait(30)
        time.sleep(moments.uniform(0, 0.03))
        process.kill()
        process.join()
        content = (tmp_path / "a").read_bytes()
        assert content in (bytes([0]) * 2_000_000, bytes([1]) * 2_000_000)


@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=["disk full", "interrupt"])
def test_an_exception_while_writing_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, step, error):
    def fails(*_):
        raise error

    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(os, step, fails)
    with pytest.raises(type(error)):
        write_atomically(tmp_path / "a", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old"}


def test_the_whole_content_is_on_the_disk_and_in_the_target_s_folder_before_it_gets_its_name(tmp_path, monkeypatch):
    """Elsewhere may be another disk, where no rename reaches."""
    steps, fsync, replace = [], os.fsync, os.replace
    folder = tmp_path / "new" / "folder"
    monkeypatch.setattr(os, "fsync", lambda file: steps.append(os.fstat(file).st_size) or fsync(file))
    monkeypatch.setattr(os, "replace", lambda a, b: steps.append(Path(a).parent) or replace(a, b))
    write_atomically(folder / "a", b"new")
    assert steps == [3, folder]
    assert [path.name for path in folder.iterdir()] == ["a"]


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_everybody_may_read_the_file_and_its_owner_write_it(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "a", b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


def left_by_a_kill(path, age):
    """What a killed write leaves beside the path, so many seconds old."""
    before = set(path.parent.iterdir())
    process = processes.Process(target=save_and_die_at, args=("fsync", path))
    process.start()
    process.join(30)
    [left] = set(path.parent.iterdir()) - before
    os.utime(left, (time.time() - age, time.time() - age))
    return left


def test_the_next_write_removes_what_killed_writes_left_long_ago_and_nothing_else(tmp_path):
    left_by_a_kill(tmp_path / "a", 60)
    old = left_by_a_kill(tmp_path / "a", 4000)
    left_by_a_kill(tmp_path / "ab", 4000)
    for name in (".a", ".a-notes", ".a.gm_helpers", ".b.gm_helpers-12345678"):
        (tmp_path / name).write_text("a user's")
        os.utime(tmp_path / name, (0, 0))
    before = set(tmp_path.iterdir())
    write_atomically(tmp_path / "[a]", b"new")  # a name that is a pattern
    assert before < set(tmp_path.iterdir())
    files.remove_left_behind(tmp_path / "a")  # as a write does, too
    assert before - set(tmp_path.iterdir()) == {old}
    old = left_by_a_kill(tmp_path / "a", 4000)
    write_atomically(tmp_path / "a", b"new")
    assert not old.exists()


def test_a_full_disk_is_named_with_the_file_that_was_to_be_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space") as failed:
        write_atomically(tmp_path / "a", b"new")
    assert sentence(failed.value) == f"{tmp_path / 'a'}: No space left on device"


@pytest.mark.parametrize(("place", "reason"), [("folder", "Is a directory"), ("file/a", "File exists")])
def test_what_is_in_the_way_of_a_file_is_said_without_a_number(tmp_path, place, reason):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=reason) as failed:
        write_atomically(tmp_path / place, b"new")
    assert sentence(failed.value) == f"{tmp_path / place}: {reason}"


@pytest.mark.parametrize(
    ("error", "said"), [(OSError("nothing more is known"), "nothing more is known"), (OSError(), "OSError")]
)
def test_an_error_that_knows_no_path_has_a_sentence(error, said):
    assert sentence(error) == said


# ---------------------------------------------------------------- folders


def test_a_folder_is_meant_from_where_it_is_named_and_from_home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert folder("some/where") == tmp_path / "some" / "where"
    assert folder("~/x") == tmp_path / "home" / "x"
    assert folder(tmp_path) == tmp_path


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "an empty name is no folder: give one"),
        ("s3://bucket/figures", "s3://bucket/figures is an address on a network: name a folder"),
        ("~nobody-here/x", "~nobody-here/x is in the home of a user who isn't here: name another folder"),
    ],
)
def test_what_is_no_folder_is_refused_in_a_sentence(text, told):
    with pytest.raises(UsageError, match=rf"^{told}"):
        folder(text)


def test_a_folder_is_made_with_those_above_it_and_left_empty(tmp_path):
    for _ in range(2):
        make_folder(tmp_path / "a" / "b")
        assert list((tmp_path / "a").rglob("*")) == [tmp_path / "a" / "b"]


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("file", "{}/file is a file"),
        ("link", "{}/link is a link that leads nowhere"),
        ("link/below", "{}/link is a link that leads nowhere"),
        ("file/below", "Not a directory"),
    ],
)
def test_what_is_in_the_way_of_a_folder_is_said(tmp_path, place, reason):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OSError, match=r".") as failed:
        make_folder(tmp_path / place)
    assert failed.value.strerror == reason.format(tmp_path)


def test_a_folder_in_which_nothing_can_be_written_is_noticed(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.tempfile, "TemporaryFile", refuse)
    with pytest.raises(PermissionError):
        make_folder(tmp_path)


# ---------------------------------------------------------------- locks


def hold(path, held):
    with alone(path, "busy"):
        held.set()
        time.sleep(600)


def test_what_one_process_holds_no_other_gets_until_it_ends_however_that_is(tmp_path):
    held = processes.Event()
    process = processes.Process(target=hold, args=(tmp_path / "lock", held))
    process.start()
    assert held.wait(30)
    with pytest.raises(CourseError, match=r"^busy$"), alone(tmp_path / "lock", "busy"):
        pass
    process.kill()
    process.join()
    with alone(tmp_path / "lock", "busy"):
        pass


def test_a_thread_does_not_get_what_another_holds(tmp_path):
    def try_it():
        with alone(tmp_path / "lock", "busy"):
            pass

    with ThreadPoolExecutor() as pool, alone(tmp_path / "lock", "busy"), pytest.raises(CourseError, match=r"^busy$"):
        pool.submit(try_it).result()


@pytest.mark.parametrize("error", [None, KeyboardInterrupt()])
def test_a_lock_leaves_no_file(tmp_path, error):
    with contextlib.suppress(KeyboardInterrupt), alone(tmp_path / "lock", "busy"):
        assert [own.name for own in tmp_path.iterdir()] == ["lock"]
        if error:
            raise error
    assert list(tmp_path.iterdir()) == []


def test_the_root_is_the_course_s_folder_and_without_the_course_the_working_one(tmp_path, monkeypatch):
    assert files.root() == Path(__file__).absolute().parents[1]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "__file__", str(tmp_path / "site-packages" / "gm_helpers" / "files.py"))
    assert files.root() == tmp_path
