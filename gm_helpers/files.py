"""Files and folders that are whole or not there at all, and the errors that a person reads as one sentence."""

import glob
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

OURS = ".gm_helpers-"  # in the names of what is ours and not for long, and of nothing else
LEFT_BEHIND = 3600.0  # seconds after which a half-written file is one that a killed process left


class CourseError(RuntimeError):
    """What went wrong and what to do, in one sentence for a person: the command line prints no more than that."""


class UsageError(ValueError):
    """What was asked wrongly, what is allowed, and what to do, in one sentence: the command line exits with 2."""


def folder(text: str | Path) -> Path:
    """The absolute path of a folder that a person named: `~` is their home, and what is relative is so to this folder.

    Raises UsageError for the address of something that is no folder here, such as "s3://…".
    """
    if not str(text):
        raise UsageError("an empty name is no folder: give one, such as . for this folder")
    if "://" in str(text):
        raise UsageError(f"{text} is an address on a network: name a folder of this machine")
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:  # ~nobody
        raise UsageError(f"{text} is in the home of a user who isn't here: name another folder") from error


def root() -> Path:
    """The folder of the course, or, where the package is installed without it, the working directory."""
    own = Path(__file__).absolute().parent.parent
    return own if (own / "notebooks" / "source").is_dir() else Path.cwd()


def make_folder(path: Path) -> None:
    """Make the folder where it is missing, and try that a file can be written there.

    Raises OSError, whose `strerror` says what is in the way.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        what = "is a file" if os.path.exists(error.filename) else "is a link that leads nowhere"
        raise NotADirectoryError(error.errno, f"{error.filename} {what}", str(path)) from error
    tempfile.TemporaryFile(dir=path).close()


def write_atomically(path: Path, content: bytes) -> None:
    """All of the content under this name, or, if the process dies, the file that was there before.

    Raises OSError, which names the path.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_left_behind(path)
        handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}{OURS}")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(scratch, 0o644)  # mkstemp makes files that only their owner can read
            os.replace(scratch, path)
        except BaseException:
            os.unlink(scratch)
            raise
    except OSError as error:
        error.filename, error.filename2 = str(path), None  # not the scratch file, and a full disk names none
        raise


def remove_left_behind(path: Path) -> None:
    """What killed processes left of `write_atomically` to this path, once it is old enough to be of no living one."""
    for scratch in path.parent.glob(f".{glob.escape(path.name)}{OURS}*"):
        with suppress(OSError):  # another process removes it, or may not be disturbed by this one
            if time.time() - scratch.stat().st_mtime > LEFT_BEHIND:
                scratch.unlink()


@contextmanager
def alone(path: Path, sentence: str) -> Iterator[None]:
    """Hold the lock file `path` meanwhile, which ends with the process, however that ends.

    Raises CourseError with the sentence where another process, or another thread of this one, holds it.
    """
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise CourseError(sentence) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held, so that nobody holds a file that has no name
        lock.release()


def sentence(error: OSError) -> str:
    """What the system complains of, for a person: the path and the reason, without a number."""
    reason = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {reason}" if error.filename and str(error.filename) not in reason else reason
