import contextlib
import errno
import gzip
import hashlib
import http.server
import math
import os
import shutil
import signal
import socket
import struct
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import processes, seeded
from scipy.stats import kstest
from sklearn.datasets import load_digits, make_moons
from sklearn.neighbors import NearestNeighbors
from torch.testing import assert_close
from torchvision.datasets import MNIST

from gm_helpers import data
from gm_helpers.data import (
    SPLITS,
    DataError,
    binarize,
    fetch,
    grey_and_binary,
    labelled,
    levels,
    load,
    scale,
    two_moons,
)
from gm_helpers.files import UsageError

REAL = data.folder()  # tests set GM_DATA to other folders
SOURCES = ["small", "real"] if all((REAL / "MNIST/raw" / name).exists() for name in data.SHA256) else ["small"]
TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
REMEDY = "delete it and run `python -m gm_helpers data --dataset mnist`"


# ---------------------------------------------------------------- a small MNIST, and mirrors that deliver it or fail


def small_mnist():
    """Name -> content of four raw files of random images: 60 to train with, of which 10 validate, and 20 to test."""
    files = {}
    for stem, count in [("train", 60), ("t10k", 20)]:
        draws = np.random.default_rng(count)
        pixels, labels = draws.integers(0, 256, (count, 28, 28), np.uint8), draws.integers(0, 10, count, np.uint8)
        files[f"{stem}-images-idx3-ubyte"] = struct.pack(">4i", 2051, count, 28, 28) + pixels.tobytes()
        files[f"{stem}-labels-idx1-ubyte"] = struct.pack(">2i", 2049, count) + labels.tobytes()
    return files


FILES = small_mnist()


def packed(files):
    return {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in files.items()}


def point_at(mirrors, patch=setattr):
    """Let the package take FILES for MNIST, and torchvision take `mirrors` for its servers."""
    patch(data, "SHA256", {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()})
    patch(data, "VALIDATION", 10)
    patch(MNIST, "mirrors", mirrors)


def drip(handler, content):
    """A few bytes at a time, so that the socket is never silent for long."""
    whole(handler, content, 0)
    for place in range(0, len(content), 20):
        handler.wfile.write(content[place : place + 20])
        if handler.server.over.wait(0.1):
            return


def whole(handler, content, sent=None):
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[:sent])


def silence(handler, content):
    handler.server.over.wait(10)


def half_then_silence(handler, content):
    whole(handler, content, len(content) // 2)
    handler.server.over.wait(10)


def half_then_end(handler, content):
    whole(handler, content, len(content) // 2)


def half_then_reset(handler, content):
    whole(handler, content, len(content) // 2)
    time.sleep(0.05)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(handler.connection.detach())  # with a linger of 0 seconds this sends RST


def unavailable(handler, content):
    handler.send_error(503)


@contextlib.contextmanager
def mirror(archives, answer=whole):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.removeprefix("/")
            answer(self, archives[name]) if name in archives else self.send_error(404)

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        over = threading.Event()

        def handle_error(self, *_):  # a client that hangs up or is killed
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.over.set()
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """Each test starts with no data, no server, and nothing remembered; `nowhere` is the data folder."""
    data._choose_in.cache_clear()
    monkeypatch.setenv("GM_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("no_proxy", "*")
    point_at([], patch=monkeypatch.setattr)
    yield tmp_path / "data"
    data._choose_in.cache_clear()


@pytest.fixture
def raw(nowhere):
    """The folder of the raw files, all four of them there."""
    folder = nowhere / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}/"


def visible(folder):
    return {path.name: path.read_bytes() for path in folder.glob("[!.]*")} if folder.exists() else {}


def refused(dataset, split="train"):
    """The sentence with which a load is refused."""
    with pytest.raises(DataError) as caught:
        load(dataset, split)
    assert "\n" not in str(caught.value)
    assert "Errno" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------- reading MNIST


@pytest.fixture(params=SOURCES)
def source(request, monkeypatch):
    """Sizes of the splits and the folder of the raw files: of the small MNIST, and of the real one where it is."""
    if request.param == "small":
        return {"train": 50, "val": 10, "test": 20}, request.getfixturevalue("raw")
    monkeypatch.undo()
    monkeypatch.setenv("GM_DATA", str(REAL))
    return {"train": 50_000, "val": 10_000, "test": 10_000}, REAL / "MNIST" / "raw"


def read_idx(path):
    """An IDX file as its header describes it: the fourth byte is the number of sizes, big-endian integers."""
    content = path.read_bytes()
    sizes = struct.unpack_from(f">{content[3]}i", content, 4)
    return torch.from_numpy(np.frombuffer(content, np.uint8)[-np.prod(sizes) :].reshape(sizes).copy())


def test_mnist_has_its_published_sizes_shapes_and_dtypes(source):
    for split, size in source[0].items():
        pixels, labels = load("mnist", split)
        assert (pixels.shape, pixels.dtype) == ((size, 1, 28, 28), torch.uint8)
        assert (labels.shape, labels.dtype) == ((size,), torch.int64)


@pytest.mark.parametrize("split", SPLITS)
def test_validation_is_the_end_of_the_training_files(source, split):
    sizes, folder = source
    stem, rows = ("t10k", slice(None)) if split == "test" else ("train", slice(0, sizes["train"]))
    rows = slice(sizes["train"], None) if split == "val" else rows
    pixels, labels = load("mnist", split)
    assert torch.equal(pixels[:, 0], read_idx(folder / f"{stem}-images-idx3-ubyte")[rows])
    assert torch.equal(labels, read_idx(folder / f"{stem}-labels-idx1-ubyte")[rows].long())


def test_auto_is_mnist_where_it_lies(raw, capsys):
    assert data.choose("auto") == "mnist"
    assert torch.equal(load("auto", "test").pixels, load("mnist", "test").pixels)
    assert capsys.readouterr().out == ""


def test_packed_files_are_read_as_plain_ones_are(raw):
    plain = [load("mnist", split) for split in SPLITS]
    for name, content in FILES.items():
        (raw / f"{name}.gz").write_bytes(gzip.compress(content))
        (raw / name).unlink()
    for split, (pixels, labels) in zip(SPLITS, plain, strict=True):
        assert torch.equal(load("mnist", split).pixels, pixels)
        assert torch.equal(load("mnist", split).labels, labels)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_files_are_read_under_the_names_that_other_mirrors_give_them(raw, ending):
    plain = load("mnist", "val")
    for name, content in FILES.items():
        (raw / f"{name.replace('-idx', '.idx')}{ending}").write_bytes(gzip.compress(content) if ending else content)
        (raw / name).unlink()
    assert torch.equal(load("mnist", "val").pixels, plain.pixels)
    alter(raw / f"t10k-images.idx3-ubyte{ending}")
    assert f"{raw / 't10k-images.idx3-ubyte'}{ending} is damaged" in refused("mnist")


def test_a_plain_file_goes_before_a_packed_one(raw):
    (raw / f"{TRAIN_LABELS}.gz").write_bytes(b"old and damaged")
    assert len(load("mnist", "val").labels) == 10


def test_whole_files_need_no_torchvision(raw, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    assert len(load("mnist", "train").labels) == 50


@pytest.mark.parametrize("dataset", ["mnist", "digits"])
def test_images_go_to_the_device_that_is_asked_for(raw, dataset):
    assert [part.device.type for part in load(dataset, "val", torch.device("meta"))] == ["meta", "meta"]


def test_unknown_names_are_answered_with_the_choices():
    with pytest.raises(ValueError, match="'mnits': choose one of auto, mnist, digits"):
        load("mnits", "train")
    with pytest.raises(ValueError, match="'valid': choose one of train, val, test"):
        load("digits", "valid")


def test_data_lie_where_gm_data_says_and_absolutely(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GM_DATA", "some/where")
    assert data.folder() == tmp_path / "some" / "where"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GM_DATA", "~/mnist")
    assert data.folder() == tmp_path / "home" / "mnist"


def test_an_address_is_no_data_folder(monkeypatch):
    monkeypatch.setenv("GM_DATA", "s3://bucket/mnist")
    for dataset in ("auto", "mnist"):
        with pytest.raises(UsageError, match=r"^s3://bucket/mnist is an address on a network: name a folder"):
            load(dataset, "val")


@pytest.mark.parametrize("value", [None, ""])
def test_data_lie_at_the_root_of_the_repository_whatever_the_working_folder(monkeypatch, tmp_path, value):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GM_DATA")
    if value is not None:
        monkeypatch.setenv("GM_DATA", value)
    assert data.folder() == Path(data.__file__).absolute().parents[1] / "data"


# ---------------------------------------------------------------- damaged files


def alter(path):
    content = bytearray(path.read_bytes())
    for place in torch.randperm(len(content) - 16, generator=seeded(0))[:500].tolist():
        content[16 + place] ^= 0xFF
    path.write_bytes(content)


DAMAGES = {
    "500 altered bytes": alter,
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "black images": lambda path: path.write_bytes(path.read_bytes()[:16].ljust(path.stat().st_size, b"\0")),
    "truncated": lambda path: os.truncate(path, path.stat().st_size - 1),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "empty": lambda path: os.truncate(path, 0),
    "of the other split": lambda path: path.write_bytes(FILES[path.name.replace("train", "t10k")]),
}


@pytest.mark.parametrize("dataset", ["mnist", "auto"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_and_nothing_is_loaded(raw, capsys, dataset, damage):
    DAMAGES[damage](raw / TRAIN_IMAGES)
    sentence = refused(dataset)
    assert sentence.startswith(f"{raw / TRAIN_IMAGES} is damaged (")
    assert sentence.endswith(REMEDY)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("dataset", ["mnist", "auto"])
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_in_any_file_is_seen_at_the_next_load_of_any_split(raw, dataset, split, name):
    load(dataset, split)
    content = FILES[name]
    (raw / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert str(raw / name) in refused(dataset, split)


def replace_by_a_folder(path):
    path.unlink()
    path.mkdir()


def replace_by_a_dangling_link(path):
    path.unlink()
    path.symlink_to(path.with_name("nowhere"))


@pytest.mark.parametrize(
    ("what", "reason"),
    [(replace_by_a_folder, "Is a directory"), (replace_by_a_dangling_link, "No such file or directory")],
)
@pytest.mark.parametrize("dataset", ["mnist", "auto"])
def test_what_cannot_be_read_is_not_called_damaged(raw, dataset, what, reason):
    what(raw / TEST_LABELS)
    told = "move it away, or make it a file that you may read"
    assert refused(dataset, "val") == f"{raw / TEST_LABELS} cannot be read ({reason}): {told}"


def test_a_file_that_may_not_be_read_is_not_called_damaged(raw, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert refused("auto").startswith(f"{raw / TRAIN_IMAGES} cannot be read (Permission denied): move it away")


def test_labels_of_the_other_split_are_seen(raw):
    shutil.copy(raw / TEST_LABELS, raw / TRAIN_LABELS)
    assert str(raw / TRAIN_LABELS) in refused("mnist")


def test_a_packed_file_cut_at_any_length_is_seen(raw):
    (raw / TRAIN_LABELS).unlink()
    archive = gzip.compress(FILES[TRAIN_LABELS])
    for length in range(len(archive)):
        (raw / f"{TRAIN_LABELS}.gz").write_bytes(archive[:length])
        sentence = refused("mnist")
        assert f"{raw / TRAIN_LABELS}.gz is damaged" in sentence
        assert REMEDY in sentence


def test_every_flipped_bit_of_a_packed_file_is_seen_or_harmless(raw):
    (raw / TRAIN_LABELS).unlink()
    archive = gzip.compress(FILES[TRAIN_LABELS])
    for bit in range(8 * len(archive)):
        flipped = bytearray(archive)
        flipped[bit // 8] ^= 1 << bit % 8
        (raw / f"{TRAIN_LABELS}.gz").write_bytes(flipped)
        with contextlib.suppress(DataError):
            assert fetch()[TRAIN_LABELS] == FILES[TRAIN_LABELS]


def test_the_remedy_mends_a_damaged_file_and_leaves_the_others(raw, monkeypatch):
    os.truncate(raw / TEST_LABELS, 0)
    refused("mnist")
    (raw / TEST_LABELS).unlink()
    others = {name: (raw / name).stat().st_mtime_ns for name in FILES if name != TEST_LABELS}
    with mirror(packed(FILES)) as url:
        point_at([url], patch=monkeypatch.setattr)
        assert fetch() == FILES
    assert {name: (raw / name).stat().st_mtime_ns for name in others} == others


# ---------------------------------------------------------------- fetching


def test_missing_files_are_fetched_and_left_plain_and_whole(nowhere, monkeypatch):
    with mirror(packed(FILES)) as url:
        point_at([url], patch=monkeypatch.setattr)
        assert len(load("mnist", "val").labels) == 10
    assert visible(nowhere / "MNIST" / "raw") == FILES
    assert list((nowhere / "MNIST" / "raw").glob(".*")) == []
    assert len(load("mnist", "val").labels) == 10  # now without a server


def test_auto_fetches_too(monkeypatch):
    with mirror(packed(FILES)) as url:
        point_at([url], patch=monkeypatch.setattr)
        assert data.choose("auto") == "mnist"


def test_fetch_takes_a_folder_of_ones_own(tmp_path, nowhere, monkeypatch):
    with mirror(packed(FILES)) as url:
        point_at([url], patch=monkeypatch.setattr)
        assert fetch(tmp_path / "own") == FILES
    assert visible(tmp_path / "own" / "MNIST" / "raw") == FILES
    assert not nowhere.exists()


@pytest.mark.parametrize("answer", [silence, half_then_silence, half_then_end, half_then_reset, unavailable, drip])
def test_a_server_that_fails_or_drips_is_followed_by_the_next_mirror(monkeypatch, answer):
    monkeypatch.setattr(data, "FETCH_TIMEOUT", 0.2)
    with mirror(packed(FILES), answer) as bad, mirror(packed(FILES)) as good:
        point_at([bad, good], patch=monkeypatch.setattr)
        assert fetch() == FILES


def host(url):
    return url.removeprefix("http://").removesuffix("/")


def test_a_server_is_too_slow_by_its_mean_rate_once_the_time_limit_is_over(monkeypatch):
    monkeypatch.setattr(data, "FETCH_TIMEOUT", 0.2)
    monkeypatch.setattr(data, "LEAST_RATE", 50.0)
    with mirror({TRAIN_LABELS: bytes(200)}, drip) as url:  # 200 bytes per second
        assert data._answer(f"{url}{TRAIN_LABELS}") == bytes(200)
        monkeypatch.setattr(data, "LEAST_RATE", 1000.0)
        with pytest.raises(TimeoutError, match=r"^\d+ bytes per second is too slow$"):
            data._answer(f"{url}{TRAIN_LABELS}")


@pytest.mark.parametrize("answer", [silence, half_then_silence])
def test_a_stalled_server_ends_in_a_sentence_in_bounded_time(nowhere, monkeypatch, answer):
    monkeypatch.setattr(data, "FETCH_TIMEOUT", 0.2)
    with mirror(packed(FILES), answer) as url:
        point_at([url], patch=monkeypatch.setattr)
        start = time.monotonic()
        sentence = refused("mnist")
        assert time.monotonic() - start < 5
    assert f"{TRAIN_IMAGES}.gz could not be fetched" in sentence
    assert f"{host(url)}: " in sentence
    assert "timed out" in sentence
    assert visible(nowhere / "MNIST" / "raw") == {}


def test_the_sentence_names_every_mirror_that_was_tried(monkeypatch, closed_port):
    with mirror(packed(FILES), unavailable) as url:
        point_at([closed_port, url], patch=monkeypatch.setattr)
        sentence = refused("mnist")
    assert f"{host(closed_port)}: " in sentence
    assert f"{host(url)}: " in sentence


def test_wrong_content_leaves_nothing_in_place(nowhere, monkeypatch):
    wrong = FILES | {TRAIN_IMAGES: FILES[TRAIN_IMAGES][:-1] + b"\0"}
    with mirror(packed(wrong)) as url:
        point_at([url], patch=monkeypatch.setattr)
        assert f"{host(url)}: its SHA-256 is not that of the original MNIST file" in refused("mnist")
    assert not nowhere.exists()


def test_a_mirror_with_wrong_content_is_followed_by_the_next(monkeypatch):
    with mirror(packed(dict.fromkeys(FILES, b"wrong"))) as bad, mirror(packed(FILES)) as good:
        point_at([bad, good], patch=monkeypatch.setattr)
        assert fetch() == FILES


def test_without_a_network_the_sentence_says_which_files_belong_where(nowhere):
    sentence = refused("mnist")
    assert sentence.endswith(f"put {', '.join(FILES)}, plain or as .gz, into {nowhere / 'MNIST' / 'raw'}")


def test_without_a_network_mnist_is_refused(monkeypatch, closed_port):
    point_at([closed_port], patch=monkeypatch.setattr)
    assert f"{TRAIN_IMAGES}.gz could not be fetched from {host(closed_port)}: " in refused("mnist")


def test_without_a_network_auto_means_digits_and_says_so_once(monkeypatch, capsys, closed_port):
    point_at([closed_port], patch=monkeypatch.setattr)
    for split in (*SPLITS, *SPLITS):
        assert torch.equal(load("auto", split).pixels, load("digits", split).pixels)
    assert data.choose("auto") == "digits"
    said = capsys.readouterr().out
    assert said.count("\n") == said.count("MNIST is not here") == said.count("digits") == 1
    assert host(closed_port) in said


def test_a_damaged_file_is_not_passed_over_because_another_one_is_missing(raw, monkeypatch):
    alter(raw / TRAIN_IMAGES)
    (raw / TEST_LABELS).unlink()
    with mirror(packed(FILES)) as url:
        point_at([url], patch=monkeypatch.setattr)
        assert str(raw / TRAIN_IMAGES) in refused("auto")


@pytest.mark.parametrize("dataset", ["auto", "mnist"])
@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("file/data", "Not a directory"),
        ("file", "Not a directory"),
        ("link", "{}/link is a link that leads nowhere"),
        ("link/data", "{}/link is a link that leads nowhere"),
    ],
)
def test_a_file_or_a_dangling_link_in_the_data_folder_s_place_is_refused(monkeypatch, tmp_path, dataset, place, reason):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    monkeypatch.setenv("GM_DATA", str(tmp_path / place))
    sentence = refused(dataset)
    assert sentence.startswith(f"cannot write to {tmp_path}/{place}/MNIST/raw ({reason.format(tmp_path)})")
    assert sentence.endswith("set GM_DATA to a folder that can be written")


@pytest.mark.parametrize("dataset", ["auto", "mnist"])
def test_a_full_disk_is_not_the_mirror_s_fault_and_does_not_mean_digits(monkeypatch, nowhere, capsys, dataset):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with mirror(packed(FILES)) as url:
        point_at([url], patch=monkeypatch.setattr)
        sentence = refused(dataset)
    assert sentence.startswith(f"cannot write to {nowhere}/MNIST/raw (No space left on device)")
    assert host(url) not in sentence
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("existing", ["", "data", "data/MNIST", "data/MNIST/raw"])
def test_a_fetch_that_fails_leaves_no_folder_that_was_not_there(nowhere, existing):
    (nowhere.parent / existing).mkdir(parents=True, exist_ok=True)
    before = set(nowhere.parent.rglob("*"))
    refused("mnist")
    assert set(nowhere.parent.rglob("*")) == before


def forbid(monkeypatch, step, folder):
    """Let `os.<step>` be denied below the folder, as it is to others than root."""
    allowed = getattr(os, step)

    def denied(path, *arguments, **options):
        if isinstance(path, str | Path) and Path(path).is_relative_to(folder):
            raise PermissionError(13, "Permission denied", str(path))
        return allowed(path, *arguments, **options)

    monkeypatch.setattr(os, step, denied)


@pytest.mark.parametrize("steps", [["mkdir"], ["mkdir", "stat"], ["replace"]])
def test_a_folder_that_may_not_be_written_or_entered_is_refused_in_a_sentence(nowhere, monkeypatch, steps):
    with mirror(packed(FILES)) as url:
        point_at([url], patch=monkeypatch.setattr)
        for step in steps:
            forbid(monkeypatch, step, nowhere)
        sentence = refused("mnist")
    assert sentence.startswith(f"cannot write to {nowhere}/MNIST/raw (Permission denied)")


def test_a_folder_that_may_not_be_entered_means_digits_for_auto(nowhere, monkeypatch, capsys):
    forbid(monkeypatch, "mkdir", nowhere)
    forbid(monkeypatch, "stat", nowhere)
    assert data.choose("auto") == "digits"
    assert "Permission denied" in capsys.readouterr().out


@pytest.mark.parametrize("error", ["RuntimeError('operator torchvision::nms does not exist')", "ImportError('none')"])
def test_a_torchvision_that_cannot_be_imported_gives_a_sentence(monkeypatch, tmp_path, error):
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(f"raise {error}")
    monkeypatch.syspath_prepend(tmp_path)
    sentence = refused("mnist")
    assert ("different builds" if "nms" in error else "is not installed") in sentence
    assert "requirements.txt" in sentence


# ---------------------------------------------------------------- kills and rivals


def fetch_elsewhere(mirrors, folders, together):
    """What another process does: fetch into one folder after another, beginning together with its rival."""
    os.environ["no_proxy"] = "*"
    point_at(mirrors)
    for folder in folders:
        together.wait(30)
        assert fetch(folder) == FILES


def test_a_kill_in_the_middle_of_a_fetch_leaves_whole_files_and_the_next_fetch_works(nowhere, monkeypatch):
    reached = threading.Event()

    def stalls_at_the_second_file(handler, content):
        if TRAIN_LABELS not in handler.path:
            return whole(handler, content)
        reached.set()
        half_then_silence(handler, content)

    with mirror(packed(FILES), stalls_at_the_second_file) as url:
        alone = processes.Barrier(1)
        process = processes.Process(target=fetch_elsewhere, args=([url], [nowhere], alone))
        process.start()
        assert reached.wait(30)
        process.kill()
        process.join()
    assert process.exitcode == -signal.SIGKILL
    assert {own.name: own.read_bytes() for own in (nowhere / "MNIST" / "raw").iterdir()} == {
        TRAIN_IMAGES: FILES[TRAIN_IMAGES]
    }
    with mirror(packed(FILES)) as url:
        point_at([url], patch=monkeypatch.setattr)
        assert fetch() == FILES


def test_what_a_killed_fetch_left_is_removed_once_it_is_old_by_any_later_load(raw):
    left, users = raw / f".{TRAIN_IMAGES}.gm_helpers-abcdefgh", raw / ".notes"
    for path in (left, users):
        path.write_text("half")
    load("mnist", "val")
    assert left.exists()  # a living process may be writing it
    for path in (left, users):
        os.utime(path, (0, 0))
    load("mnist", "val")
    assert (left.exists(), users.exists()) == (False, True)


def test_two_processes_that_fetch_at_once_both_succeed(tmp_path):
    folders = [tmp_path / str(attempt) for attempt in range(10)]
    together = processes.Barrier(2)
    with mirror(packed(FILES)) as url:
        rivals = [processes.Process(target=fetch_elsewhere, args=([url], folders, together)) for _ in range(2)]
        for process in rivals:
            process.start()
        for process in rivals:
            process.join(60)
    assert [process.exitcode for process in rivals] == [0, 0]
    assert all(visible(folder / "MNIST" / "raw") == FILES for folder in folders)


# ---------------------------------------------------------------- scikit-learn's digits


@pytest.fixture(scope="module")
def digits():
    return {split: load("digits", split) for split in SPLITS}


@pytest.fixture(scope="module")
def scans():
    """The scans enlarged by numpy's linear interpolation, along rows and then columns: (1797, 28, 28), 0…255."""
    centres = (np.arange(20) + 0.5) * 8 / 20 - 0.5
    rows = np.apply_along_axis(partial(np.interp, centres, np.arange(8)), 2, load_digits().images)
    large = np.apply_along_axis(partial(np.interp, centres, np.arange(8)), 1, rows)
    return torch.from_numpy(np.pad(large, ((0, 0), (4, 4), (4, 4))) * 255 / 16)


def test_digits_have_the_sizes_shapes_and_dtypes_of_their_docstring(digits):
    for split, size in zip(SPLITS, [1197, 300, 300], strict=True):
        pixels, labels = digits[split]
        assert (pixels.shape, pixels.dtype) == ((size, 1, 28, 28), torch.uint8)
        assert (labels.shape, labels.dtype) == ((size,), torch.int64)


def test_digits_are_all_the_scans_once_each_with_their_labels(digits, scans):
    pixels = torch.cat([digits[split].pixels for split in SPLITS]).flatten(1)
    source = torch.cdist(pixels.float(), scans.flatten(1).float()).argmin(1)
    assert (pixels - scans.flatten(1)[source]).abs().max() < 0.501  # rounded
    assert source.sort().values.tolist() == list(range(1797))
    assert torch.equal(
        torch.cat([digits[split].labels for split in SPLITS]), torch.tensor(load_digits().target)[source]
    )


def test_no_image_of_the_digits_is_in_two_splits(digits):
    kinds = [{image.numpy().tobytes() for image in digits[split].pixels} for split in SPLITS]
    assert len(kinds[0] | kinds[1] | kinds[2]) == sum(map(len, kinds))


def test_digits_use_the_whole_range_of_grey_values(digits):
    assert [(int(pixels.min()), int(pixels.max())) for pixels, _ in digits.values()] == [(0, 255)] * 3


def test_digits_have_a_border_of_four_zeros_and_fill_the_rest(digits):
    brightest = digits["train"].pixels.amax((0, 1))
    inside = torch.zeros(28, 28, dtype=torch.bool)
    inside[4:24, 4:24] = True
    assert (brightest[~inside] == 0).all()
    assert (brightest[4:24, 7:21] > 0).all()  # the scans' own first and last columns are all but empty


def test_each_split_of_the_digits_holds_every_class_about_equally(digits):
    for split in SPLITS:
        counts = torch.bincount(digits[split].labels, minlength=10)
        assert len(counts) == 10
        assert counts.min() > 0.6 * counts.float().mean()


def test_digits_are_the_same_at_each_load_and_draw_nothing_from_torch(digits):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    again = load("digits", "val")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(again.pixels, digits["val"].pixels)
    assert torch.equal(again.labels, digits["val"].labels)


# ---------------------------------------------------------------- what is done to pixels

GREY = torch.arange(256, dtype=torch.uint8)


def test_binarized_pixels_are_one_as_often_as_they_are_bright():
    draws = binarize(GREY.expand(4_000, 256), seeded(0)).double()
    p = np.arange(256) / 255
    assert set(draws.unique().tolist()) == {0, 1}
    assert (abs(draws.mean(0).numpy() - p) <= 5 * np.sqrt(p * (1 - p) / len(draws))).all()  # 0 stays 0 and 255 stays 1


def test_binarized_pixels_are_drawn_one_by_one():
    draws = binarize(torch.full((2, 10_000), 128, dtype=torch.uint8), seeded(1)).double()
    assert abs(torch.corrcoef(draws)[0, 1]) < 5 / 100


def test_binarized_pixels_depend_on_the_generator_alone():
    first, second = [binarize(GREY, seeded(3)) for _ in range(2)]
    assert torch.equal(first, second)
    assert not torch.equal(first, binarize(GREY, seeded(4)))
    generator = seeded(3)
    assert not torch.equal(binarize(GREY, generator), binarize(GREY, generator))


def test_scaled_pixels_run_evenly_from_minus_one_to_one():
    scaled = scale(GREY)
    assert (scaled[0], scaled[255]) == (-1, 1)
    assert abs(scaled.double() - torch.linspace(-1, 1, 256, dtype=torch.float64)).max() < 1e-6


def test_scaling_draws_nothing():
    generator = seeded(0)
    scale(GREY, generator)
    assert torch.equal(generator.get_state(), seeded(0).get_state())


def test_levels_are_the_grey_values_themselves():
    assert levels(GREY).tolist() == list(range(256))


def test_levels_draw_nothing():
    generator = seeded(0)
    levels(GREY, generator)
    assert torch.equal(generator.get_state(), seeded(0).get_state())


@pytest.mark.parametrize("prepare", [binarize, scale, levels])
def test_prepared_pixels_keep_their_shape_and_are_float32(prepare):
    prepared = prepare(torch.zeros(5, 1, 28, 28, dtype=torch.uint8), seeded(0))
    assert (prepared.shape, prepared.dtype) == ((5, 1, 28, 28), torch.float32)


# ---------------------------------------------------------------- images with their labels


def random_images_with_labels(n):
    """Pixels of all grey values, and labels 0, 1, 2, … in int64."""
    pixels = torch.randint(0, 256, (n, 1, 28, 28), dtype=torch.uint8, generator=seeded(5))
    return data.Images(pixels, torch.arange(n) % 10)


def test_a_row_is_the_image_s_pixels_line_by_line_with_its_label_behind():
    images = random_images_with_labels(23)
    rows = labelled(images)
    assert (rows.shape, rows.dtype) == ((23, 785), torch.uint8)
    assert rows[:, :784].tolist() == images.pixels.numpy().reshape(23, 784).tolist()
    assert rows[:, 784].tolist() == images.labels.tolist()


@pytest.mark.parametrize(("n", "grey"), [(6, 3), (7, 4), (1, 1)])
def test_the_first_half_of_a_batch_is_grey_and_the_second_binary(n, grey):
    rows = labelled(random_images_with_labels(n))
    prepared = grey_and_binary(rows, seeded(0))
    assert (prepared.shape, prepared.dtype) == ((n, 785), torch.float32)
    assert_close(prepared[:grey, :784].double(), rows[:grey, :784].double() / 255, atol=1e-7, rtol=0)
    assert set(prepared[grey:, :784].unique().tolist()) <= {0.0, 1.0}
    assert prepared[:, 784].tolist() == rows[:, 784].tolist()


def test_the_binary_half_is_drawn_with_the_pixels_as_probabilities():
    rows = torch.cat([GREY, GREY.new_zeros(785 - 256)]).expand(8_000, 785)
    draws = grey_and_binary(rows, seeded(0))[4_000:, :256].double()
    p = np.arange(256) / 255
    assert (abs(draws.mean(0).numpy() - p) <= 5 * np.sqrt(p * (1 - p) / len(draws))).all()


def test_the_binary_half_depends_on_the_generator_alone():
    rows = labelled(random_images_with_labels(6))
    assert torch.equal(grey_and_binary(rows, seeded(1)), grey_and_binary(rows, seeded(1)))
    assert not torch.equal(grey_and_binary(rows, seeded(1)), grey_and_binary(rows, seeded(2)))


# ---------------------------------------------------------------- two moons


def moons(n, noise):
    return two_moons(n, seeded(2), noise).double()


def test_without_noise_the_moons_are_scikit_learn_s_shifted_to_the_origin():
    points = moons(2_000, noise=0)
    curve = make_moons(20_000, shuffle=False)[0] - [0.5, 0.25]
    distance, _ = NearestNeighbors(n_neighbors=1).fit(curve).kneighbors(points.numpy())
    assert distance.max() < 1e-3  # the curve's points are π/10,000 apart, and float32 rounds
    distance, _ = NearestNeighbors(n_neighbors=1).fit(points.numpy()).kneighbors(curve)
    assert distance.max() < 0.1  # both moons are covered from end to end


def test_each_moon_has_half_of_the_points_evenly_along_its_length():
    points = moons(4_000, noise=0)
    upper = ((points + torch.tensor([0.5, 0.25])).norm(dim=1) - 1).abs() < 1e-5
    assert abs(upper.double().mean() - 0.5) < 4 * 0.5 / math.sqrt(4_000)
    for moon, sign in [(points[upper], 1), (points[~upper], -1)]:
        angle = torch.acos((sign * moon[:, 0] + 0.5).clamp(-1, 1)) / math.pi
        assert kstest(angle.numpy(), "uniform").pvalue > 0.01


def test_the_noise_is_normal_and_independent_in_both_coordinates_with_its_deviation():
    noise = (moons(4_000, noise=0.3) - moons(4_000, noise=0)) / 0.3
    assert kstest(noise.flatten().numpy(), "norm").pvalue > 0.01
    assert abs(torch.corrcoef(noise.T)[0, 1]) < 4 / math.sqrt(4_000)


def test_moons_are_float32_points_with_a_noise_of_0_05_unless_told():
    points = two_moons(7, seeded(1))
    assert (points.shape, points.dtype) == ((7, 2), torch.float32)
    assert torch.equal(points, two_moons(7, seeded(1), 0.05))


def test_moons_depend_on_the_generator_alone():
    assert torch.equal(two_moons(7, seeded(1)), two_moons(7, seeded(1)))
    assert not torch.equal(two_moons(7, seeded(1)), two_moons(7, seeded(2)))
