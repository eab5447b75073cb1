"""What a run puts into a folder that is not ours, where anything may lie: whole, listed, and nothing else touched.

What a run of a notebook put there stands in a manifest beside it, `STEM.figures.json`. Only what a manifest lists, and
only while it is as it was put there, is removed or replaced by a later run.
"""

import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from gm_helpers import files
from gm_helpers.files import UsageError

MARK = "gm_helpers-scratch"  # a file that makes its folder one that a later run of the stem in it may remove
Manifest = dict[str, list[str]]  # file -> SHA-256 of what a run put there or, while it is publishing, is about to


def make(folder: Path, advice: str) -> None:
    """Make the folder where it is missing. Raises UsageError with the advice where nothing can be written there."""
    try:
        files.make_folder(folder)
    except OSError as error:
        raise UsageError(f"cannot write to {folder} ({error.strerror}): {advice}") from error


@contextmanager
def scratch(target: Path, stem: str, advice: str) -> Iterator[Path]:
    """A folder for a run beside its results, removed at the end; also those that killed runs left behind.

    Raises UsageError where nothing can be written, and CourseError where another run of that stem is at work.
    """
    make(target, advice)
    prefix = f"{files.OURS}{stem}-"
    busy = f"another run of {stem} writes to {target}: wait for it, or {advice}"
    with files.alone(target / f"{prefix}lock", busy):
        for mark in target.glob(f"{glob.escape(prefix)}*/{MARK}"):
            if mark.read_text(encoding="utf-8") == stem:  # the pattern fits those of "a-b" for the stem "a" too
                shutil.rmtree(mark.parent)
        own = Path(tempfile.mkdtemp(dir=target, prefix=prefix))
        (own / MARK).write_text(stem, encoding="utf-8")
        (own / "figures").mkdir()
        try:
            yield own
        except OSError as error:
            if error.errno is not None:
                error.filename = error.filename or str(target)  # a full disk names none
            raise
        finally:
            if (own / MARK).exists():
                shutil.rmtree(own)


def release(scratch: Path) -> None:
    """Leave that folder to the user: neither this run nor a later one removes it."""
    (scratch / MARK).unlink(missing_ok=True)


def publish(new: dict[str, Path], target: Path, stem: str) -> None:
    """Move files into place, each whole; then remove those that the last run of that stem put there and this didn't.

    new: name in the target -> file. A file that no run put there is kept under another name, and a sentence says so.
    Raises OSError, before anything is moved where a folder has a file's name.
    """
    manifest = target / f"{stem}.figures.json"
    for place in (*(target / name for name in new), manifest):
        if place.is_dir():
            raise IsADirectoryError(None, "is a folder, where a file was to go", str(place))
    last, now = _read(manifest), {name: [_digest(path)] for name, path in new.items()}
    known = {name: last.get(name, []) + now.get(name, []) for name in last | now}
    for other in target.glob("*.figures.json"):
        for name, digests in _read(other).items():
            known.setdefault(name, []).extend(digests)
    # what is there now and what is coming, so that after a kill the next run knows both
    _write(manifest, {name: known[name] for name in last | now})
    for name, path in new.items():
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(place) and _digest(place) not in known[name]:
            keep(place)
        os.replace(path, place)
    for name in last.keys() - new.keys():
        if _digest(target / name) in last[name]:
            (target / name).unlink()
    _write(manifest, now)


def keep(place: Path) -> None:
    """Give a file that no run put there another name, and say so."""
    names = (place.with_name(f"{place.stem}.kept{n or ''}{place.suffix}") for n in count())
    kept = next(own for own in names if not os.path.lexists(own))
    os.rename(place, kept)
    print(f"{place} is not of an earlier run: it is kept as {kept.name}.")


def _digest(path: Path) -> str:
    """SHA-256 of a file; nothing for what is none, or a link."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not path.is_symlink() else ""


def _read(manifest: Path) -> Manifest:
    """What the manifest lists; nothing where there is none, or something else under its name."""
    try:
        listed = json.loads(manifest.read_text(encoding="utf-8"))["gm_helpers"].items()
        return {name: [own for own in digests if own] for name, digests in listed if _is_inside(Path(name))}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _is_inside(name: Path) -> bool:
    return not name.is_absolute() and ".." not in name.parts


def _write(manifest: Path, listed: Manifest) -> None:
    if os.path.lexists(manifest) and not _read(manifest):
        keep(manifest)
    content = json.dumps({"gm_helpers": listed}, indent=1, sort_keys=True)
    files.write_atomically(manifest, f"{content}\n".encode())
