import hashlib
import io
import pickle
import random
from pathlib import Path

import pytest
import safetensors.torch
import torch
from conftest import seeded
from torch import nn

from gm_helpers import checkpoint
from gm_helpers.checkpoint import CheckpointError, load, load_state, save, save_state

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int64, torch.bool]
# 1e-05 and é have a second spelling in JSON, one flipped bit away, and 0.30000000000000004 has several.
METADATA = {"rate": 1e-05, "sum": 0.30000000000000004, "name": "é", "steps": [1, None, True], "by": {"b": "x", "a": ""}}


def same(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return type(b) is dict and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def weights():
    draws = {str(dtype): (100 * torch.randn(3, 5, generator=seeded(1))).to(dtype) for dtype in DTYPES}
    return draws | {"scalar": torch.tensor(0.1, dtype=torch.float64), "none": torch.zeros(0, 4)}


def each_flip(content):
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bytes(flipped)


def accepted(read, path, versions):
    """Those versions of a file that are read without a CheckpointError."""
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


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize("metadata", [{}, METADATA])
def test_tensors_and_metadata_come_back_as_they_were(tmp_path, metadata):
    save(tmp_path / "a.safetensors", weights(), metadata)
    tensors, came_back = load(tmp_path / "a.safetensors")
    assert same(tensors, weights())
    assert came_back == metadata


def test_a_file_may_hold_metadata_alone(tmp_path):
    save(tmp_path / "a", {}, METADATA)
    assert load(tmp_path / "a") == ({}, METADATA)


def test_numbers_as_keys_of_the_metadata_come_back_as_text(tmp_path):
    save(tmp_path / "a", {}, {2: "two", 10: "ten"})
    assert load(tmp_path / "a")[1] == {"2": "two", "10": "ten"}


def test_parameters_and_transposed_tensors_are_saved_by_value(tmp_path):
    table = torch.randn(3, 5, generator=seeded(2))
    save(tmp_path / "a", {"parameter": nn.Parameter(table), "transposed": table.T}, {})
    assert same(load(str(tmp_path / "a"))[0], {"parameter": table, "transposed": table.T.contiguous()})


def test_any_safetensors_program_reads_the_weights(tmp_path):
    save(tmp_path / "a", weights(), METADATA)
    assert same(safetensors.torch.load_file(tmp_path / "a"), weights())


def test_the_same_input_gives_the_same_bytes_in_any_order(tmp_path):
    def backwards(table):
        return dict(reversed(table.items()))

    for copy in range(20):
        save(
            tmp_path / f"{copy}", *([weights(), METADATA] if copy % 2 else [backwards(weights()), backwards(METADATA)])
        )
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_every_flipped_bit_of_a_weights_file_is_noticed(tmp_path):
    path = tmp_path / "a.safetensors"
    save(path, {"w": torch.tensor([0.1, -2.0]), "n": torch.tensor(3)}, METADATA)
    assert accepted(load, path, each_flip(path.read_bytes())) == []


def test_a_weights_file_cut_at_any_length_is_noticed_and_so_is_one_that_has_grown(tmp_path):
    path = tmp_path / "a.safetensors"
    save(path, {"w": torch.tensor([0.1, -2.0])}, METADATA)
    whole = path.read_bytes()
    assert accepted(load, path, [whole[:length] for length in range(len(whole))] + [whole + b"\0", whole + b" "]) == []


def test_swapped_tensors_of_one_shape_are_noticed(tmp_path):
    save(tmp_path / "a", {"v": torch.zeros(2), "w": torch.ones(2)}, {})
    whole = (tmp_path / "a").read_bytes()
    assert accepted(load, tmp_path / "a", [whole.replace(b'"v"', b'"u"').replace(b'"w"', b'"v"')]) == []


def test_a_reinterpreted_dtype_or_shape_is_noticed(tmp_path):
    save(tmp_path / "a", {"w": torch.zeros(2, 3)}, {})
    whole = (tmp_path / "a").read_bytes()
    assert accepted(load, tmp_path / "a", [whole.replace(b"F32", b"I32"), whole.replace(b"[2,3]", b"[3,2]")]) == []


def test_a_foreign_file_is_refused_in_one_sentence(tmp_path):
    ours = {"gm_helpers": "5"}, {"gm_helpers": "[]"}, {"gm_helpers": "{}"}, {"gm_helpers": "no JSON"}
    foreign = [safetensors.torch.save(weights(), metadata=metadata) for metadata in (None, {"format": "pt"}, *ours)]
    foreign += [b"", b"hello", bytes(1000), random.Random(0).randbytes(1000), Path(__file__).read_bytes()]
    assert accepted(load, tmp_path / "a.safetensors", foreign) == []


def test_a_missing_file_and_a_folder_give_a_sentence(tmp_path):
    with pytest.raises(CheckpointError, match=r"^there is no file .*nowhere\.safetensors$"):
        load(tmp_path / "nowhere.safetensors")
    for read in (load, load_state):
        with pytest.raises(CheckpointError, match=rf"^{tmp_path} cannot be read \(Is a directory\)"):
            read(tmp_path)


def test_an_altered_file_and_a_foreign_one_are_told_apart(tmp_path):
    save(tmp_path / "a", {"w": torch.zeros(2)}, {})
    whole = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(whole[:-1] + b"\1")
    with pytest.raises(CheckpointError, match="was altered after it was written"):
        load(tmp_path / "a")
    (tmp_path / "a").write_bytes(whole[:-1])
    with pytest.raises(CheckpointError, match="is cut short or no weights file"):
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


def test_an_optimizer_goes_on_from_its_state(tmp_path):
    def step(weight, optimizer):
        optimizer.zero_grad()
        (weight**3).sum().backward()
        optimizer.step()

    weight = nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))
    optimizer = torch.optim.Adam([weight])
    step(weight, optimizer)
    save_state(tmp_path / "a", {"weight": weight.detach(), "optimizer": optimizer.state_dict()})
    saved = load_state(tmp_path / "a")
    resumed = nn.Parameter(saved["weight"])
    other = torch.optim.Adam([resumed])
    other.load_state_dict(saved["optimizer"])
    step(weight, optimizer)
    step(resumed, other)
    assert torch.equal(weight, resumed)


def test_every_flipped_bit_of_a_state_is_noticed(tmp_path):
    path = tmp_path / "a.state"
    save_state(path, {"loss": 0.5})
    assert accepted(load_state, path, each_flip(path.read_bytes())) == []


def test_a_state_cut_at_any_length_is_noticed_and_so_is_one_that_has_grown(tmp_path):
    path = tmp_path / "a.state"
    save_state(path, {"w": torch.tensor([0.1])})
    whole = path.read_bytes()
    assert accepted(load_state, path, [whole[:length] for length in range(len(whole))] + [whole + b"\0"]) == []


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


@pytest.mark.parametrize("metadata", [[], None, 3, "text", [{"name": "vae-2d"}]])
def test_sealed_metadata_that_are_no_table_are_refused(tmp_path, metadata):
    save(tmp_path / "a", {"w": torch.zeros(2)}, metadata)
    with pytest.raises(CheckpointError, match=r"a is cut short or no weights file of this course; train it again$"):
        load(tmp_path / "a")


def test_metadata_that_are_nested_too_deeply_to_be_read_are_refused(tmp_path):
    deep = "[" * 200_000 + "]" * 200_000
    (tmp_path / "a").write_bytes(safetensors.torch.save(weights(), metadata={"gm_helpers": deep}))
    with pytest.raises(CheckpointError, match=r"a is cut short or no weights file of this course"):
        load(tmp_path / "a")


def test_a_state_is_read_onto_the_cpu(tmp_path, monkeypatch):
    places, read = [], torch.load
    monkeypatch.setattr(
        checkpoint.torch, "load", lambda *a, **options: places.append(options["map_location"]) or read(*a, **options)
    )
    save_state(tmp_path / "a", {})
    load_state(tmp_path / "a")
    assert [torch.device(place).type for place in places] == ["cpu"]
