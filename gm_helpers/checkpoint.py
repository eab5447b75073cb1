"""Files on disk that are whole or not there at all: model weights, and the state of a run that is to be resumed.

Weights are safetensors (any program reads them); a run's state is what torch.save writes, read back with
`weights_only=True`. Neither format notices a flipped bit, so both carry a SHA-256.
"""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from
from safetensors.torch import save as bytes_of
from torch import Tensor

from gm_helpers.files import CourseError, write_atomically

KEY = "gm_helpers"  # one key, because safetensors writes several in random order


class CheckpointError(CourseError):
    """A file that is not what it should be; the message says which and what to do."""


def save(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write tensors and metadata (anything that JSON holds), hashed together; the same input gives the same bytes."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = json.loads(json.dumps(metadata))  # as it will be read: JSON's keys are strings
    write_atomically(Path(path), bytes_of(tensors, metadata={KEY: _seal(tensors, metadata)}))


def load(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata that `save` wrote. Raises CheckpointError for a file that is missing or was altered."""
    path = Path(path)
    foreign = f"{path} is cut short or no weights file of this course; train it again"
    try:
        content = path.read_bytes()
        tensors = tensors_from(content)
        length = int.from_bytes(content[:8], "little")  # a safetensors file begins with the length of its JSON header
        seal = json.loads(content[8 : 8 + length])["__metadata__"][KEY]
        metadata = json.loads(seal)["metadata"]
        whole = seal == _seal(tensors, metadata)  # the whole text: a flip may turn 1e-05 into 1E-05
    except OSError as error:
        raise _unreadable(path, error) from error
    except (SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise CheckpointError(foreign) from error
    if not whole:
        raise CheckpointError(f"{path} was altered after it was written (its SHA-256 differs); train it again")
    if not isinstance(metadata, dict):
        raise CheckpointError(foreign)
    return tensors, metadata


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    if isinstance(error, FileNotFoundError):
        return CheckpointError(f"there is no file {path}")
    return CheckpointError(f"{path} cannot be read ({error.strerror}); name a file that can")


def _seal(tensors: dict[str, Tensor], metadata: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return json.dumps({"metadata": metadata, "sha256": digest.hexdigest()}, sort_keys=True)


def save_state(path: Path, state: dict[str, Any]) -> None:
    """The state of a run: nested dicts and lists of tensors and plain Python values."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    write_atomically(path, hashlib.sha256(content).digest() + content)


def load_state(path: Path) -> dict[str, Any]:
    """What `save_state` wrote, on the CPU. Raises CheckpointError for a file that is not as it was written."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        raise CheckpointError(f"{path} is damaged (its SHA-256 differs); delete it and train from the start")
    try:
        state = torch.load(io.BytesIO(content[32:]), map_location="cpu", weights_only=True)
    except Exception as error:  # any: what is no state lets the unpickler stumble in a dozen ways
        raise CheckpointError(f"{path} holds no state of a run; delete it and train from the start") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds no state of a run; delete it and train from the start")
    return state
