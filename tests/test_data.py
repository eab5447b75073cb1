"""Images: read, verified, fetched from mirrors that deliver or fail; and what is done to pixels before training."""

import contextlib
import errno
import gzip
import hashlib
import http.server
import math
import os
import socket
import struct
import sys
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import processes, seeded
from scipy.stats import kstest
from sklearn.datasets import load_digits, make_moons
from sklearn.neighbors import NearestNeighbors
from torch.distributions import MultivariateNormal
from torch.testing import assert_close
from torchvision.datasets import MNIST

from gm_helpers import data
from gm_helpers.data import SPLITS, DataError, binarize, fetch, grey_and_binary, labelled, levels, load, scale
from gm_helpers.files import UsageError

REAL = data.folder()  # tests set GM_DATA to other folders
SOURCES = ["small", "real"] if all((REAL / "MNIST/raw" / name).exists() for name in data.SHA256) else ["small"]
TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
REMEDY = "delete it and run `python -m gm_helpers data --dataset mnist`"
each_dataset = pytest.mark.parametrize("dataset", ["mnist", "auto"])


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


def take_for_mnist(mirrors, patch=setattr):
    """Let the package take FILES for MNIST, and torchvision take `mirrors` for its servers."""
    patch(data, "SHA256", {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()})
    patch(data, "VALIDATION", 10)
    patch(MNIST, "mirrors", mirrors)


def whole(handler, content, sent=None):
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[:sent])


def silence(handler, content):
    handler.server.over.wait(60)


def half_then_end(handler, content):
    whole(handler, content, len(content) // 2)


def half_then_silence(handler, content):
    half_then_end(handler, content)
    silence(handler, content)


def half_then_reset(handler, content):
    half_then_end(handler, content)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(handler.connection.detach())  # with a linger of 0 seconds this sends RST


def drip(handler, content):
    """Ten parts, so that the socket is never silent for long."""
    whole(handler, content, 0)
    size = math.ceil(len(content) / 10)
    for place in range(0, len(content), size):
        handler.server.over.wait(0.15)
        handler.wfile.write(content[place : place + size])


@contextlib.contextmanager
def mirror(answer=whole):
    """One more server in torchvision's list, which gives its answer to each request for one of FILES, packed."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            answer(self, gzip.compress(FILES[self.path.removeprefix("/").removesuffix(".gz")]))

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        over = threading.Event()

        def handle_error(self, *_):  # a client that hangs up or is killed
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        url = f"http://127.0.0.1:{server.server_port}/"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        MNIST.mirrors.append(url)
        try:
            yield url
        finally:
            MNIST.mirrors.remove(url)
            server.over.set()
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """Each test starts with no data, no server, and nothing remembered; `nowhere` is the data folder."""
    data._choose_in.cache_clear()
    monkeypatch.setenv("GM_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("no_proxy", "*")
    take_for_mnist([], patch=monkeypatch.setattr)
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
def closed_port(nowhere):
    """The address of a mirror that takes no connection: its port is bound, but nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/"
        MNIST.mirrors.append(url)
        yield host(url)


def host(url):
    return url.removeprefix("http://").removesuffix("/")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


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


def test_mnist_has_its_published_sizes_and_validation_is_the_end_of_the_training_files(source):
    sizes, folder = source
    rows = {"train": slice(sizes["train"]), "val": slice(sizes["train"], None), "test": slice(None)}
    for split, size in sizes.items():
        stem = "t10k" if split == "test" else "train"
        pixels, labels = load("mnist", split)
        assert (pixels.shape, pixels.dtype) == ((size, 1, 28, 28), torch.uint8)
        assert (labels.shape, labels.dtype) == ((size,), torch.int64)
        assert torch.equal(pixels[:, 0], read_idx(folder / f"{stem}-images-idx3-ubyte")[rows[split]])
        assert torch.equal(labels, read_idx(folder / f"{stem}-labels-idx1-ubyte")[rows[split]].long())


def test_auto_is_mnist_where_it_lies(raw, capsys):
    assert data.choose("auto") == "mnist"
    assert torch.equal(load("auto", "test").pixels, load("mnist", "test").pixels)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("separator", "ending"), [("-idx", ".gz"), (".idx", ""), (".idx", ".gz")])
def test_packed_files_and_those_with_the_names_of_other_mirrors_are_read_and_verified(raw, separator, ending):
    paths = {name: raw / f"{name.replace('-idx', separator)}{ending}" for name in FILES}
    for name, content in FILES.items():
        (raw / name).unlink()
        paths[name].write_bytes(gzip.compress(content) if ending else content)
    assert fetch() == FILES
    os.truncate(paths[TEST_IMAGES], 99)
    assert f"{paths[TEST_IMAGES]} is damaged" in refused("mnist")


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
    with pytest.raises(UsageError, match="'mnits': choose one of auto, mnist, digits"):
        load("mnits", "train")
    with pytest.raises(UsageError, match="'valid': choose one of train, val, test"):
        load("digits", "valid")


@pytest.mark.parametrize("value", ["some/where", "", None])
def test_data_lie_where_gm_data_says_or_at_the_root_of_the_repository(monkeypatch, tmp_path, value):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GM_DATA")
    if value is not None:
        monkeypatch.setenv("GM_DATA", value)
    root = Path(data.__file__).absolute().parents[1]
    assert data.folder() == (tmp_path / "some" / "where" if value else root / "data")


def test_without_the_course_around_the_package_data_lie_in_the_working_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("GM_DATA")
    monkeypatch.setattr(data.files, "root", lambda: tmp_path)
    assert data.folder() == tmp_path / "data"


# ---------------------------------------------------------------- damaged files


DAMAGES = {
    "one flipped bit": lambda name: FILES[name][:-1] + bytes([FILES[name][-1] ^ 1]),
    "truncated": lambda name: FILES[name][:-1],
    "empty": lambda name: b"",
    "of the other split": lambda name: next(FILES[own] for own in FILES if own != name and own[-12:] == name[-12:]),
}


@each_dataset
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_damage_of_any_file_is_named_at_the_next_load_of_any_split(raw, capsys, dataset, damage, name):
    load(dataset, "val")
    (raw / name).write_bytes(DAMAGES[damage](name))
    for split in SPLITS:
        sentence = refused(dataset, split)
        assert sentence.startswith(f"{raw / name} is damaged (")
        assert sentence.endswith(REMEDY)
    assert capsys.readouterr().out == ""


@each_dataset
@pytest.mark.parametrize("what", ["Is a directory", "No such file or directory", "Permission denied"])
def test_what_cannot_be_read_is_not_called_damaged(raw, monkeypatch, dataset, what):
    def refuse(path):
        raise PermissionError(errno.EACCES, what, str(path))

    path = raw / TRAIN_IMAGES
    path.unlink()
    if what == "Is a directory":
        path.mkdir()
    else:
        path.symlink_to(raw / "nowhere")
    if what == "Permission denied":
        monkeypatch.setattr(Path, "read_bytes", refuse)
    told = "move it away, or make it a file that you may read"
    assert refused(dataset, "val") == f"{path} cannot be read ({what}): {told}"


def test_a_packed_file_cut_anywhere_or_with_any_flipped_bit_is_called_damaged_or_is_whole(raw):
    (raw / TRAIN_LABELS).unlink()
    packed, archive = raw / f"{TRAIN_LABELS}.gz", gzip.compress(FILES[TRAIN_LABELS])
    number, size = int.from_bytes(archive, "big"), len(archive)
    flipped = [(number ^ 1 << bit).to_bytes(size, "big") for bit in range(8 * size)]
    for content in flipped + [archive[:length] for length in range(size)]:
        packed.write_bytes(content)
        try:
            right = fetch()[TRAIN_LABELS] == FILES[TRAIN_LABELS]
        except DataError as error:
            right = f"{packed} is damaged (" in str(error) and REMEDY in str(error)
        assert right


# ---------------------------------------------------------------- fetching


@each_dataset
def test_missing_files_are_fetched_and_left_plain_and_whole(nowhere, dataset):
    with mirror():
        assert len(load(dataset, "val").labels) == 10
    assert contents(nowhere / "MNIST" / "raw") == FILES
    assert len(load(dataset, "val").labels) == 10  # now without a server


def test_fetch_takes_a_folder_of_ones_own(tmp_path, nowhere):
    with mirror():
        assert fetch(tmp_path / "own") == FILES
    assert contents(tmp_path / "own" / "MNIST" / "raw") == FILES
    assert not nowhere.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (silence, "timed out"),
        (half_then_silence, "timed out"),
        (half_then_end, ""),
        (half_then_reset, "Connection reset by peer"),
        (lambda handler, content: handler.send_error(503), "Service Unavailable"),
        (lambda handler, content: whole(handler, content[:10] + b"\xff" * 20), "Error -3 while decompressing data"),
        (lambda handler, content: whole(handler, gzip.compress(b"x")), "its SHA-256 is not that of the original MNIST"),
    ],
)
def test_a_mirror_that_fails_is_named_and_followed_by_the_next(raw, monkeypatch, closed_port, answer, reason):
    monkeypatch.setattr(data, "FETCH_TIMEOUT", 1.0)
    (raw / TEST_LABELS).unlink()
    left = FILES.keys() - {TEST_LABELS}
    with mirror(answer) as url:
        sentence = refused("mnist")
        assert sentence.startswith(f"{TEST_LABELS}.gz could not be fetched from {closed_port}: Connection refused; ")
        assert f"; {host(url)}: {reason}" in sentence
        assert sentence.endswith(f"put {', '.join(FILES)}, plain or as .gz, into {raw}")
        assert contents(raw).keys() == left
        with mirror():
            assert fetch() == FILES


def test_a_mirror_that_answers_something_else_than_http_is_followed_by_the_next():
    with mirror(lambda handler, content: handler.wfile.write(b"what is this?\r\n\r\n")), mirror():
        assert fetch() == FILES


@pytest.mark.slow
def test_a_slow_server_is_waited_for_while_its_mean_rate_is_above_the_least(raw, monkeypatch):
    monkeypatch.setattr(data, "FETCH_TIMEOUT", 1.0)
    (raw / TEST_LABELS).unlink()
    with mirror(drip):
        monkeypatch.setattr(data, "LEAST_RATE", 1e6)
        assert "bytes per second is too slow" in refused("mnist")
        monkeypatch.setattr(data, "LEAST_RATE", 1.0)
        assert fetch() == FILES


def test_without_a_network_auto_means_digits_and_says_so_once(capsys, closed_port):
    for split in (*SPLITS, *SPLITS):
        assert torch.equal(load("auto", split).pixels, load("digits", split).pixels)
    assert data.choose("auto") == "digits"
    said = capsys.readouterr().out
    assert said.count("\n") == said.count("MNIST is not here") == said.count("digits") == 1
    assert closed_port in said


def test_a_damaged_file_is_not_passed_over_because_another_one_is_missing(raw):
    os.truncate(raw / TRAIN_IMAGES, 99)
    (raw / TEST_LABELS).unlink()
    with mirror():
        assert str(raw / TRAIN_IMAGES) in refused("auto")


@each_dataset
def test_a_dangling_link_in_the_data_folder_s_place_is_refused(nowhere, dataset):
    nowhere.symlink_to("elsewhere")
    told = f"({nowhere} is a link that leads nowhere): set GM_DATA to a folder that can be written"
    assert refused(dataset) == f"cannot write to {nowhere}/MNIST/raw {told}"


@each_dataset
def test_a_full_disk_is_not_the_mirror_s_fault_and_does_not_mean_digits(monkeypatch, nowhere, capsys, dataset):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with mirror() as url:
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


def forbid(monkeypatch, step, folder, number):
    """Let `os.<step>` be denied below the folder, as it is to others than root."""
    allowed = getattr(os, step)

    def denied(path, *arguments, **options):
        if isinstance(path, str | Path) and Path(path).is_relative_to(folder):
            raise OSError(number, os.strerror(number), str(path))
        return allowed(path, *arguments, **options)

    monkeypatch.setattr(os, step, denied)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS], ids=errno.errorcode.get)
@pytest.mark.parametrize("steps", [["mkdir"], ["mkdir", "stat"], ["replace"]])
def test_where_nobody_may_write_mnist_is_refused_and_auto_means_digits(nowhere, monkeypatch, capsys, steps, number):
    with mirror():
        for step in steps:
            forbid(monkeypatch, step, nowhere, number)
        assert refused("mnist").startswith(f"cannot write to {nowhere}/MNIST/raw ({os.strerror(number)})")
        assert data.choose("auto") == "digits"
    assert os.strerror(number) in capsys.readouterr().out


@pytest.fixture
def broken_torchvision(monkeypatch, tmp_path):
    """Lets the import of torchvision raise what it is given."""
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "torchvision").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    return lambda error: (tmp_path / "torchvision" / "__init__.py").write_text(f"raise {error}")


def test_without_torchvision_mnist_is_refused_and_auto_means_digits(broken_torchvision):
    broken_torchvision("ImportError('none')")
    assert refused("mnist") == "torchvision is not installed (none): install it as requirements.txt pairs it"
    assert data.choose("auto") == "digits"


@each_dataset
def test_a_torchvision_of_another_build_is_to_be_mended_and_does_not_mean_digits(broken_torchvision, dataset):
    broken_torchvision("RuntimeError('operator torchvision::nms does not exist')")
    assert "different builds: install both from the same index, as requirements.txt pairs them" in refused(dataset)


# ---------------------------------------------------------------- kills and rivals


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


def fetch_elsewhere(mirrors, folders, together):
    """What another process does: fetch into one folder after another, beginning together with its rival."""
    os.environ["no_proxy"] = "*"
    take_for_mnist(mirrors)
    for folder in folders:
        together.wait(30)
        assert fetch(folder) == FILES


@pytest.mark.slow
def test_two_processes_that_fetch_at_once_both_succeed(tmp_path):
    folders = [tmp_path / str(attempt) for attempt in range(10)]
    together = processes.Barrier(2)
    with mirror() as url:
        rivals = [processes.Process(target=fetch_elsewhere, args=([url], folders, together)) for _ in range(2)]
        for process in rivals:
            process.start()
        for process in rivals:
            process.join(60)
    assert [process.exitcode for process in rivals] == [0, 0]
    assert all(contents(folder / "MNIST" / "raw") == FILES for folder in folders)


# ---------------------------------------------------------------- scikit-learn's digits


@pytest.fixture(scope="module")
def digits():
    return {split: load("digits", split) for split in SPLITS}


def test_digits_have_the_sizes_shapes_and_dtypes_of_their_docstring(digits):
    for split, size in zip(SPLITS, [1197, 300, 300], strict=True):
        pixels, labels = digits[split]
        assert (pixels.shape, pixels.dtype) == ((size, 1, 28, 28), torch.uint8)
        assert (labels.shape, labels.dtype) == ((size,), torch.int64)


def test_digits_are_all_the_scans_once_each_with_their_labels(digits):
    """Enlarged by numpy's linear interpolation, along rows and then columns, with a border of four pixels."""
    interpolated = partial(np.interp, (np.arange(20) + 0.5) * 8 / 20 - 0.5, np.arange(8))
    large = np.apply_along_axis(interpolated, 1, np.apply_along_axis(interpolated, 2, load_digits().images))
    scans = torch.from_numpy(np.pad(large, ((0, 0), (4, 4), (4, 4))) * 255 / 16).flatten(1)
    pixels = torch.cat([digits[split].pixels for split in SPLITS]).flatten(1)
    source = torch.cdist(pixels.double(), scans).argmin(1)
    assert (pixels - scans[source]).abs().max() < 0.501  # rounded
    assert source.sort().values.tolist() == list(range(1797))
    labels = torch.cat([digits[split].labels for split in SPLITS])
    assert torch.equal(labels, torch.tensor(load_digits().target)[source])


def test_each_split_of_the_digits_holds_every_class_about_equally(digits):
    for split in SPLITS:
        counts = torch.bincount(digits[split].labels, minlength=10)
        assert counts.min() > 0.6 * counts.double().mean()


def test_digits_are_the_same_at_each_load_and_draw_nothing_from_torch(digits):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    again = load("digits", "val")
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(own, other) for own, other in zip(again, digits["val"], strict=True))


# ---------------------------------------------------------------- what is done to pixels

GREY = torch.arange(256, dtype=torch.uint8)
ROW = torch.cat([GREY, GREY.new_zeros(785 - 256)])  # an image of all grey values, and the label 0


@pytest.mark.parametrize(
    "draw",
    [
        lambda generator: binarize(GREY.expand(4_000, 256), generator),
        lambda generator: grey_and_binary(ROW.expand(8_000, 785), generator)[4_000:, :256],
    ],
    ids=["binarize", "grey_and_binary"],
)
def test_binary_pixels_are_one_as_often_as_they_are_bright(draw):
    draws = draw(seeded(0)).double()
    p = np.arange(256) / 255
    assert set(draws.unique().tolist()) == {0, 1}
    assert (abs(draws.mean(0).numpy() - p) <= 5 * np.sqrt(p * (1 - p) / len(draws))).all()  # 0 stays 0 and 255 stays 1


def test_binarized_pixels_are_drawn_one_by_one():
    draws = binarize(torch.full((2, 10_000), 128, dtype=torch.uint8), seeded(1)).double()
    assert abs(torch.corrcoef(draws)[0, 1]) < 5 / 100


def test_scaled_pixels_run_evenly_from_minus_one_to_one():
    scaled = scale(GREY)
    assert (scaled[0], scaled[255]) == (-1, 1)
    assert abs(scaled.double() - torch.linspace(-1, 1, 256, dtype=torch.float64)).max() < 1e-6


def test_levels_are_the_grey_values_themselves():
    assert levels(GREY).tolist() == list(range(256))


@pytest.mark.parametrize("prepare", [scale, levels])
def test_scale_and_levels_draw_nothing(prepare):
    generator = seeded(0)
    prepare(GREY, generator)
    assert torch.equal(generator.get_state(), seeded(0).get_state())


@pytest.mark.parametrize("prepare", [binarize, scale, levels])
def test_prepared_pixels_keep_their_shape_and_are_float32(prepare):
    prepared = prepare(torch.zeros(5, 1, 28, 28, dtype=torch.uint8), seeded(0))
    assert (prepared.shape, prepared.dtype) == ((5, 1, 28, 28), torch.float32)


@pytest.mark.parametrize(
    "draw",
    [
        lambda generator: binarize(GREY, generator),
        lambda generator: grey_and_binary(ROW.expand(2, 785), generator),
        lambda generator: data.two_moons(7, generator),
        lambda generator: data.ring_of_gaussians(7, generator),
        lambda generator: data.ring_of_gaussians(7, generator, spread=0),
    ],
    ids=["binarize", "grey_and_binary", "two_moons", "ring", "ring without noise"],
)
def test_draws_depend_on_the_generator_alone(draw):
    generator = seeded(3)
    first, second = draw(generator), draw(generator)
    assert torch.equal(first, draw(seeded(3)))
    assert not torch.equal(first, second)


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


# ---------------------------------------------------------------- points in the plane


@pytest.mark.parametrize("modes", [8, 3, 1])
def test_the_ring_s_modes_are_the_roots_of_unity_and_equally_likely(modes):
    points = data.ring_of_gaussians(8_000, seeded(0), modes, spread=0).double()
    roots = torch.view_as_real(torch.from_numpy(np.roots([1, *[0] * (modes - 1), -1]).astype(complex)))
    distance, mode = torch.cdist(points, roots).min(1)
    assert distance.max() < 1e-6
    share = torch.bincount(mode, minlength=modes) / 8_000
    assert ((share - 1 / modes).abs() <= 4 * math.sqrt((1 - 1 / modes) / modes / 8_000)).all()


def test_the_ring_s_spread_is_the_same_normal_around_each_mode_in_both_coordinates():
    points = data.ring_of_gaussians(8_000, seeded(1), spread=0.07).double()
    angle = 2 * math.pi * torch.arange(8, dtype=torch.float64) / 8
    centres = torch.stack([angle.cos(), angle.sin()], dim=1)
    mode = torch.cdist(points, centres).argmin(1)
    for own in range(8):
        noise = (points[mode == own] - centres[own]) / 0.07
        assert kstest(noise[:, 0].numpy(), "norm").pvalue > 0.001
        assert kstest(noise[:, 1].numpy(), "norm").pvalue > 0.001
        assert abs(torch.corrcoef(noise.T)[0, 1]) < 4 / math.sqrt(len(noise))


def moons(n, noise):
    return data.two_moons(n, seeded(2), noise).double()


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


def test_the_moons_noise_is_normal_and_independent_in_both_coordinates_with_its_deviation():
    noise = (moons(4_000, noise=0.3) - moons(4_000, noise=0)) / 0.3
    assert kstest(noise.flatten().numpy(), "norm").pvalue > 0.01
    assert abs(torch.corrcoef(noise.T)[0, 1]) < 4 / math.sqrt(4_000)


@pytest.mark.parametrize(
    ("make", "default"), [(data.two_moons, {"noise": 0.05}), (data.ring_of_gaussians, {"modes": 8, "spread": 0.05})]
)
def test_points_are_float32_with_the_defaults_of_their_docstring(make, default):
    points = make(7, seeded(1))
    assert (points.shape, points.dtype) == ((7, 2), torch.float32)
    assert torch.equal(points, make(7, seeded(1), **default))


def half_circle(moon):
    """Points along a half circle, π/20,000 apart; moon: 1 the upper, −1 the lower."""
    angle = math.pi * (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    return moon * torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], dim=1)


@pytest.mark.parametrize("noise", [0.05, 0.3])
def test_the_moons_density_is_the_mean_of_normals_along_both_half_circles(noise):
    points = torch.cat([moons(40, noise), torch.tensor([[0.0, 0.0], [3.0, -2.0]])])
    along = torch.cat([half_circle(1), half_circle(-1)])
    log_p = MultivariateNormal(torch.zeros(2).double(), noise**2 * torch.eye(2).double())
    each = torch.stack([log_p.log_prob(own - along).logsumexp(0) - math.log(len(along)) for own in points.double()])
    assert_close(data.two_moons_log_prob(points, noise), each, rtol=1e-6, atol=1e-6)


def test_the_moons_noise_is_0_05_unless_told_and_their_density_float64_also_of_float32_points():
    points = data.two_moons(9, seeded(1))
    assert data.two_moons_log_prob(points).dtype == torch.float64
    assert torch.equal(data.two_moons_log_prob(points), data.two_moons_log_prob(points, 0.05))


def test_the_mean_of_the_moons_ratio_of_densities_is_1_over_their_draws():
    """E_p[r/p] = 1 for any density r: here one of the same moons, less blurred."""
    points = moons(50_000, 0.1)
    weights = (data.two_moons_log_prob(points, 0.08) - data.two_moons_log_prob(points, 0.1)).exp()
    assert abs(weights.mean() - 1) < 4 * weights.std() / math.sqrt(len(weights))


def test_the_distances_to_the_moons_are_those_of_their_nearest_points():
    points = 4 * torch.rand(300, 2, generator=seeded(0), dtype=torch.float64) - 2
    nearest = [
        NearestNeighbors(n_neighbors=1).fit(half_circle(moon).numpy()).kneighbors(points.numpy())[0][:, 0]
        for moon in (1, -1)
    ]
    assert_close(data.distances_to_moons(points), torch.from_numpy(np.stack(nearest, axis=1)), rtol=0, atol=1e-4)


def test_off_the_moons_is_what_is_farther_than_five_deviations_from_both():
    on_a_ray = torch.tensor([[-0.5, 0.75 + 0.249], [-0.5, 0.75 + 0.251], [0.5, -0.75 - 0.249], [0.5, -0.75 - 0.251]])
    assert data.off_the_moons(on_a_ray).tolist() == [False, True, False, True]


def test_averaged_images_are_the_whole_parts_of_means_over_blocks():
    pixels = torch.randint(0, 256, (3, 1, 28, 28), generator=seeded(0), dtype=torch.uint8)
    means = pixels.double().reshape(3, 1, 7, 4, 7, 4).mean((3, 5))
    assert data.averaged(pixels, 7).dtype == torch.uint8
    assert torch.equal(data.averaged(pixels, 7), means.floor().byte())
    assert data.averaged(pixels, 8).shape == (3, 1, 8, 8)
