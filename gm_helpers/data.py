"""Images as whole tensors on the device: fetched, verified, split; and what is done to pixels before training.

The folder that holds them is `GM_DATA`, or `data/` at the repository's root. MNIST is read from `MNIST/raw/` inside
it, plain or as .gz, and each file is compared with its SHA-256 at each load, because damaged files load silently.
"""

import errno
import gzip
import hashlib
import http.client
import math
import os
import time
import zlib
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlparse
from urllib.request import Request, urlopen

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from gm_helpers import files
from gm_helpers.files import CourseError, UsageError

DATASETS = ("auto", "mnist", "digits")
SPLITS = ("train", "val", "test")
VALIDATION = 10_000  # the last images of MNIST's training files
FETCH_TIMEOUT = 15.0  # seconds of silence from a server before the next mirror is tried
LEAST_RATE = 20_000.0  # bytes per second, after as many seconds; the largest file has 10 MB
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


class DataError(CourseError):
    """Data that is missing, damaged or can't be fetched; the message says what to do."""


class UnreachableError(DataError):
    """No mirror delivers, or none can be asked."""


class Images(NamedTuple):
    """A whole split on one device."""

    pixels: Tensor  # (N, 1, 28, 28) uint8
    labels: Tensor  # (N,) int64


def folder() -> Path:
    """Where data sets lie: the environment variable GM_DATA, or `data/` in the course's folder; absolute."""
    return files.folder(os.environ.get("GM_DATA") or files.root() / "data")


def load(dataset: str, split: str, device: str | torch.device = "cpu") -> Images:
    """One split, whole, on the device.

    dataset: "mnist" (train 50,000, val 10,000, test 10,000), "digits" (scikit-learn's 8×8 scans brought to 28×28:
    1,197, 300 and 300), or "auto", which is MNIST where it is there or can be fetched.
    Raises UsageError for an unknown name and DataError for data that is missing or damaged.
    """
    if split not in SPLITS:
        raise UsageError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    images = _mnist(split) if choose(dataset) == "mnist" else _digits(split)
    return Images(images.pixels.to(device), images.labels.to(device))


def choose(dataset: str) -> str:
    """The data set that `dataset` means here, "mnist" or "digits"; for "auto" it says so when it has to take digits."""
    if dataset not in DATASETS:
        raise UsageError(f"unknown dataset {dataset!r}: choose one of {', '.join(DATASETS)}")
    return _choose_in(folder()) if dataset == "auto" else dataset


@cache  # one attempt to fetch, one sentence, for all loads of a process
def _choose_in(where: Path) -> str:
    try:
        fetch(where)
    except UnreachableError as error:  # what else is wrong, damage or a full disk, is for a person to mend
        print(f"MNIST is not here ({error}). Going on with scikit-learn's handwritten digits: smaller, other numbers.")
        return "digits"
    return "mnist"


def binarize(pixels: Tensor, generator: Generator | None = None) -> Tensor:
    """Bernoulli draws with the grey values as probabilities: uint8 (…) 0…255 -> float32 (…) zeros and ones."""
    return torch.bernoulli(pixels.float() / 255, generator=generator)


def scale(pixels: Tensor, generator: Generator | None = None) -> Tensor:
    """Grey values brought to [−1, 1]: uint8 (…) 0…255 -> float32 (…). Draws nothing from the generator."""
    return pixels.float() / 127.5 - 1


def levels(pixels: Tensor, generator: Generator | None = None) -> Tensor:
    """Grey values as they are: uint8 (…) -> float32 (…), whole numbers 0…255. Draws nothing from the generator."""
    return pixels.float()


def averaged(pixels: Tensor, side: int) -> Tensor:
    """Images of side × side pixels, the whole parts of means over blocks: uint8 (N, 1, H, W) -> (N, 1, side, side)."""
    return F.adaptive_avg_pool2d(pixels.float(), side).byte()


def labelled(images: Images) -> Tensor:
    """Each image as a row of 784 grey values with its label behind them: (N, 785) uint8."""
    return torch.cat([images.pixels.flatten(1), images.labels[:, None].to(torch.uint8)], dim=1)


def grey_and_binary(rows: Tensor, generator: Generator | None = None) -> Tensor:
    """Rows of `labelled` as a classifier learns from them: grey values / 255 in the first half of the batch, Bernoulli
    draws in the second, so that it can judge both; the labels stay. uint8 (B, 785) -> float32 (B, 785)."""
    half = (len(rows) + 1) // 2
    pixels = torch.cat([rows[:half, :-1] / 255, binarize(rows[half:, :-1], generator)])
    return torch.cat([pixels, rows[:, -1:]], dim=1)


def ring_of_gaussians(n: int, generator: Generator | None = None, modes: int = 8, spread: float = 0.05) -> Tensor:
    """n points (n, 2), float32, around `modes` centres evenly on the unit circle, each with the deviation `spread`."""
    angle = torch.randint(modes, (n,), generator=generator) * (2 * math.pi / modes)
    return torch.stack([angle.cos(), angle.sin()], dim=1) + spread * torch.randn(n, 2, generator=generator)


def two_moons(n: int, generator: Generator | None = None, noise: float = 0.05) -> Tensor:
    """n points (n, 2), float32, on two half circles of radius 1 that reach into each other, blurred by normal noise."""
    angle, upper = math.pi * torch.rand(n, generator=generator), torch.rand(n, generator=generator) < 0.5
    x = torch.where(upper, angle.cos() - 0.5, 0.5 - angle.cos())
    y = torch.where(upper, angle.sin() - 0.25, 0.25 - angle.sin())
    return torch.stack([x, y], dim=1) + noise * torch.randn(n, 2, generator=generator)


def two_moons_log_prob(points: Tensor, noise: float = 0.05) -> Tensor:
    """The log-density of `two_moons` at points (N, 2), (N,), in nats, float64, on the CPU.

    The integral over the angle is Gauss's and Legendre's sum: its 200 nodes lie at most 0.025 apart, half of
    the usual noise.
    """
    nodes, weights = (torch.from_numpy(own) for own in np.polynomial.legendre.leggauss(200))
    angle = math.pi / 2 * (nodes + 1)
    upper = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], dim=1)
    circles = torch.cat([upper, -upper])  # the lower moon is the upper one, turned by half a circle
    log_weights = (weights / 4).log().repeat(2) - math.log(2 * math.pi * noise**2)
    parts = points.cpu().double().split(4096)
    squares = (((own[:, None] - circles) ** 2).sum(2) / noise**2 for own in parts)
    return torch.cat([torch.logsumexp(log_weights - own / 2, dim=1) for own in squares])


def distances_to_moons(points: Tensor) -> Tensor:
    """How far points (N, 2) are from the upper and from the lower half circle, (N, 2)."""

    def to_upper(x: Tensor) -> Tensor:
        x = x - x.new_tensor([-0.5, -0.25])
        to_end = torch.stack([x[:, 0].abs() - 1, x[:, 1]], dim=1).norm(dim=1)
        return torch.where(x[:, 1] >= 0, (x.norm(dim=1) - 1).abs(), to_end)

    return torch.stack([to_upper(points), to_upper(-points)], dim=1)


def off_the_moons(points: Tensor) -> Tensor:
    """Whether points (N, 2) are farther than 0.25 from both half circles, five deviations of the noise: (N,) bool."""
    return distances_to_moons(points).amin(1) > 0.25


# ---------------------------------------------------------------- MNIST


def fetch(where: Path | None = None) -> dict[str, bytes]:
    """MNIST's four raw files, fetched where they are missing, verified: name -> content.

    where: the data folder; None takes `folder()`. What is fetched is verified before it is written, whole, so that a
    kill or a second process leaves whole files. Raises DataError, and UnreachableError where no mirror delivers.
    """
    where = where or folder()
    raw = where / "MNIST" / "raw"
    if missing := _missing(where):
        new = [own for own in (raw, *raw.parents) if not os.path.lexists(own)]
        try:
            files.make_folder(raw)
            for name in missing:
                files.write_atomically(raw / name, _download(name, raw))
        except OSError as error:
            # where nobody may write `auto` means digits; a full disk or a file in the way is to be mended
            kind = UnreachableError if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) else DataError
            what = f"cannot write to {raw} ({error.strerror}): set GM_DATA to a folder that can be written"
            raise kind(what) from error
        finally:
            for own in new:
                with suppress(OSError):  # it isn't empty, or was not made
                    own.rmdir()
    for name in SHA256:
        files.remove_left_behind(raw / name)
    return {name: _verified(_path(where, name), name) for name in SHA256}


def _path(where: Path, name: str) -> Path:
    """Where that raw file lies, plain or packed, also under the name that another mirror gives it."""
    dotted = name.replace("-idx", ".idx")
    paths = [where / "MNIST" / "raw" / own for own in (name, dotted, f"{name}.gz", f"{dotted}.gz")]
    # os.path.lexists, because Path.exists raises PermissionError for a folder that may not be entered
    return next(filter(os.path.lexists, paths), paths[0])


def _missing(where: Path) -> list[str]:
    return [name for name in SHA256 if not os.path.lexists(_path(where, name))]


def _download(name: str, raw: Path) -> bytes:
    """The content of one raw file from the first of torchvision's mirrors that delivers it whole."""
    reasons = []
    for mirror in _mirrors():
        try:
            content = gzip.decompress(_answer(f"{mirror}{name}.gz"))
            if hashlib.sha256(content).hexdigest() == SHA256[name]:
                return content
            reasons.append(f"{urlparse(mirror).netloc}: its SHA-256 is not that of the original MNIST file")
        except (OSError, EOFError, zlib.error, http.client.HTTPException) as error:  # each is a failed mirror
            cause = getattr(error, "reason", error)  # of a URLError
            reason = getattr(cause, "strerror", None) or " ".join(str(cause).split()) or type(error).__name__
            reasons.append(f"{urlparse(mirror).netloc}: {reason}")
    raise UnreachableError(
        f"{name}.gz could not be fetched from {'; '.join(reasons)}; if you have the files, put {', '.join(SHA256)}, "
        f"plain or as .gz, into {raw}"
    )


def _answer(url: str) -> bytes:
    """What a server answers. Raises OSError where it is silent, or slower than any that is worth waiting for."""
    parts, received, start = [], 0, time.monotonic()
    with urlopen(Request(url, headers={"User-Agent": "gm_helpers"}), timeout=FETCH_TIMEOUT) as response:
        while part := response.read1(1 << 16):  # what there is, because `read` waits for all of it
            parts.append(part)
            received, seconds = received + len(part), time.monotonic() - start
            if seconds > FETCH_TIMEOUT and received < LEAST_RATE * seconds:
                raise TimeoutError(f"{received / seconds:,.0f} bytes per second is too slow")
    return b"".join(parts)


def _mirrors() -> list[str]:
    try:
        from torchvision.datasets import MNIST
    except ImportError as error:
        raise UnreachableError(
            f"torchvision is not installed ({error}): install it as requirements.txt pairs it"
        ) from error
    except RuntimeError as error:  # "operator torchvision::nms does not exist"
        raise DataError(
            f"torchvision cannot be imported beside torch {torch.__version__}, because the two come from different "
            "builds: install both from the same index, as requirements.txt pairs them"
        ) from error
    return MNIST.mirrors


def _verified(path: Path, name: str) -> bytes:
    """The file's content, which is what was hashed: nothing is read again afterwards."""
    try:
        content = path.read_bytes()
    except OSError as error:
        what = f"{path} cannot be read ({error.strerror}): move it away, or make it a file that you may read"
        raise DataError(what) from error
    try:
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        reason = "its SHA-256 is not that of the original MNIST file"
    except (OSError, EOFError, zlib.error) as error:
        content, reason = b"", f"it cannot be unpacked: {error}"
    if hashlib.sha256(content).hexdigest() == SHA256[name]:
        return content
    raise DataError(f"{path} is damaged ({reason}); delete it and run `python -m gm_helpers data --dataset mnist`")


def _mnist(split: str) -> Images:
    content = fetch()
    stem = "t10k" if split == "test" else "train"
    part = {"train": slice(None, -VALIDATION), "val": slice(-VALIDATION, None), "test": slice(None)}[split]
    # IDX files: sizes in a header of 16 (images) or 8 (labels) bytes, then one byte a value.
    pixels = np.frombuffer(content[f"{stem}-images-idx3-ubyte"], np.uint8, offset=16).reshape(-1, 1, 28, 28)[part]
    labels = np.frombuffer(content[f"{stem}-labels-idx1-ubyte"], np.uint8, offset=8)[part]
    return Images(torch.from_numpy(pixels.copy()), torch.from_numpy(labels.astype(np.int64)))


# ---------------------------------------------------------------- scikit-learn's digits


def _digits(split: str) -> Images:
    """Handwritten digits of 8×8 pixels, 0…16, enlarged to 20×20 and centred in 28×28, as MNIST's are."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = torch.from_numpy(digits.images).float()[:, None] / 16
    large = F.pad(F.interpolate(small, (20, 20), mode="bilinear"), (4, 4, 4, 4))
    order = torch.randperm(len(large), generator=torch.Generator().manual_seed(0))
    rows = dict(zip(SPLITS, order.split([1197, 300, 300]), strict=True))[split]
    return Images((large * 255).round().to(torch.uint8)[rows], torch.from_numpy(digits.target)[rows].long())
