import hashlib
import io
import pickle
import random
from pathlib import Path

import pytest
import safetensors.torch
import torch
from conftest import same, seeded
from torch import nn

from gm_helpers.checkpoint import CheckpointError, load, load_state, save, save_state

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int64, torch.bool]
# 1e-05 and é have a second spelling in JSON, one flipped bit away, and 0.30000000000000004 has several.
METADATA = {"rate": 1e-05, "sum": 0.30000000000000004, "name": "é", "steps": [1, None, True], "by": {"b": "x", "a": ""}}


def weights():
    draws = {str(dtype): (100 * torch.randn(3, 5, generator=seeded(1))).to(dtype) for dtype in DTYPES}
    return draws | {"scalar": torch.tensor(0.1, dtype=torch.float64), "none": torch.zeros(0, 4)}


def accepted(read, path, versions):
    """Those versions of a file that are read without a CheckpointError, which names the file in one sentence."""
    silent, sentences = [], set()
    for version in versions:
        path.unlink(missing_ok=True)  # to overwrite it would wait for the disk each time
        path.write_bytes(version)
        try:
            silent.append((version, read(path)))
        except CheckpointError as error:
            sentences.add(str(error))
    assert all(str(path) in sentence and "\n" not in sentence for sentence in sentences)
    return silent


@pytest.fixture(params=["weights", "state"])
def written(request, tmp_path):
    """How a small file of either kind is read, its path and its bytes."""
    path = tmp_path / "a"
    if request.param == "weights":
        save(path, {"w": torch.tensor([0.1, -2.0]), "n": torch.tensor(3)}, METADATA)
        return load, path, path.read_bytes()
    save_state(path, {"w": torch.tensor([0.1])})
    return load_state, path, path.read_bytes()


# ---------------------------------------------------------------- both kinds of files


@pytest.mark.slow
def test_every_flipped_bit_is_noticed(written):
    read, path, whole = written
    flips = (
        whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :] for at in range(len(whole)) for bit in range(8)
    )
    assert accepted(read, path, flips) == []


def test_a_file_cut_at_any_length_is_noticed_and_so_is_one_that_has_grown(written):
    read, path, whole = written
    cut = [whole[:length] for length in range(len(whole))]
    assert accepted(read, path, [*cut, whole + b"\0", whole + b" "]) == []


@pytest.mark.parametrize("read", [load, load_state])
def test_a_missing_file_and_a_folder_give_a_sentence(read, tmp_path):
    with pytest.raises(CheckpointError, match=r"^there is no file .*nowhere$"):
        read(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=rf"^{tmp_path} cannot be read \(Is a directory\)"):
        read(tmp_path)


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize(
    ("tensors", "metadata", "read"),
    [
        (weights(), {}, {}),
        (weights(), METADATA, METADATA),
        ({}, METADATA, METADATA),
        ({"transposed": nn.Parameter(weights()["torch.float32"].T)}, {}, {}),
        ({}, {2: "two", 10: "ten"}, {"2": "two", "10": "ten"}),  # JSON's keys are strings
    ],
)
def test_tensors_and_metadata_come_back_as_they_were(tensors, metadata, read, tmp_path):
    save(tmp_path / "a.safetensors", tensors, metadata)
    assert same(load(str(tmp_path / "a.safetensors")), (tensors, read))
    assert same(safetensors.torch.load_file(tmp_path / "a.safetensors"), tensors)  # and so does any other program


def test_the_same_input_gives_the_same_bytes_in_any_order(tmp_path):
    for copy in range(20):
        tables = [dict(reversed(own.items())) if copy % 2 else own for own in (weights(), METADATA)]
        save(tmp_path / f"{copy}", *tables)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_swapped_tensors_and_another_dtype_or_shape_are_noticed(tmp_path):
    save(tmp_path / "a", {"v": torch.zeros(2, 3), "w": torch.ones(2, 3)}, {})
    whole = (tmp_path / "a").read_bytes()
    swapped = whole.replace(b'"v"', b'"u"').replace(b'"w"', b'"v"').replace(b'"u"', b'"w"')
    others = [swapped, whole.replace(b"F32", b"I32"), whole.replace(b"[2,3]", b"[3,2]")]
    assert accepted(load, tmp_path / "a", others) == []


def test_a_foreign_file_is_refused_in_one_sentence(tmp_path):
    deep = "[" * 200_000 + "]" * 200_000
    ours = [{"gm_helpers": own} for own in ("5", "[]", "{}", "no JSON", deep)]
    foreign = [safetensors.torch.save(weights(), metadata=metadata) for metadata in (None, {"format": "pt"}, *ours)]
    for metadata in ([], None, 3, "text", [{"name": "vae-2d"}]):  # sealed, but no tables
        save(tmp_path / "a", weights(), metadata)
        foreign.append((tmp_path / "a").read_bytes())
    foreign += [b"", b"hello", bytes(1000), random.Random(0).randbytes(1000), Path(__file__).read_bytes()]
    assert accepted(load, tmp_path / "a.safetensors", foreign) == []


@pytest.mark.parametrize(
    ("end", "sentence"), [(b"\1", "was altered after it was written"), (b"", "is cut short or no weights file")]
)
def test_an_altered_file_and_a_foreign_one_are_told_apart(end, sentence, tmp_path):
    save(tmp_path / "a", {"w": torch.zeros(2)}, {})
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[:-1] + end)
    with pytest.raises(CheckpointError, match=sentence):
        load(tmp_path / "a")


# ---------------------------------------------------------------- the state of a run


def test_a_state_comes_back_as_it_was(tmp_path):
    state = {
        "snapshots": {0.0: weights(), 0.25: None, 1.0: {}},
        "history": [{"step": 1, "loss": 0.1, "train": {"vae": (1, "a", b"b")}}, [], True],
        "generator": seeded(3).get_state(),
    }
    save_state(tmp_path / "runs" / "a.state", state)
    assert same(load_state(tmp_path / "runs" / "a.state"), state)


def test_a_state_from_a_gpu_is_read_onto_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    save_state(tmp_path / "a", {"w": torch.ones(2)})
    assert load_state(tmp_path / "a")["w"].device == torch.device("cpu")


class Trespasser:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_a_state_that_would_run_code_is_refused(tmp_path):
    save_state(tmp_path / "a", {"step": Trespasser(tmp_path / "mark")})
    with pytest.raises(CheckpointError, match=r"a holds no state of a run; delete it and train from the start$"):
        load_state(tmp_path / "a")
    assert not (tmp_path / "mark").exists()


def torch_saved(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"junk", bytes(100), b"PK\x03\x04 no archive", random.Random(0).randbytes(1000), pickle.dumps({})),
        *(torch_saved(value) for value in ([], None, 3, torch.zeros(2))),
        torch_saved({})[:-30],
    ],
)
def test_what_is_sealed_but_no_state_is_refused_in_one_sentence(tmp_path, content):
    (tmp_path / "a").write_bytes(hashlib.sha256(content).digest() + content)
    with pytest.raises(CheckpointError) as refused:
        load_state(tmp_path / "a")
    assert str(refused.value) == f"{tmp_path / 'a'} holds no state of a run; delete it and train from the start"
