import hashlib
import inspect
import json
import math
import os
import signal
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import randomized, seeded
from sklearn.datasets import make_moons
from torch.testing import assert_close

from gm_helpers import checkpoint, data, metrics, recipes, train
from gm_helpers.checkpoint import CheckpointError
from gm_helpers.files import CourseError, UsageError
from gm_helpers.flows import ActNorm, bits_per_dim
from gm_helpers.gan import GAN
from gm_helpers.metrics import DigitClassifier
from gm_helpers.recipes import PROFILES, RECIPES, WEIGHTS, Schedule, fit, pretrained, ship
from gm_helpers.train import DivergenceError
from gm_helpers.vae import VAE, GreyVAE

# flow-fc has millions of weights and is the worst of the flows; flow-conv-large is still to be trained
SHIPPED = [name for name in RECIPES if name not in ("flow-fc", "flow-conv-large")]
IMAGE_FLOWS = [name for name in RECIPES if name.startswith("flow-") and name != "flow-2d"]


def smoke(name="vae-2d", **changes):
    """A training of seconds on images that are always here."""
    return fit(name, "smoke", "digits", device="cpu", **changes)


def as_json(value):
    """As a file's metadata give it back: tuples are lists there."""
    return json.loads(json.dumps(value))


@pytest.fixture(scope="module", autouse=True)
def cheap_measurements():
    """As in RECIPES, but with few samples: 3 of the posterior instead of 500, or 100 images instead of 10,000."""
    few = {"vae-2d": 3, "vae-20d": 3, "vae-8bit": 3, "gan": 100} | dict.fromkeys(IMAGE_FLOWS, 2)
    with pytest.MonkeyPatch.context() as patch:
        for name, samples in few.items():
            recipe = RECIPES[name]
            patch.setitem(RECIPES, name, replace(recipe, measure=partial(recipe.measure, samples=samples)))
        yield


@pytest.fixture(scope="module")
def fitted():
    """Weights and history of one smoke run."""
    model, run = smoke(seed=5)
    return model.state_dict(), run.history


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """The folder in which the same run was shipped, and the metadata that `ship` gave."""
    folder = tmp_path_factory.mktemp("shipped") / "new" / "folder"
    return folder, ship("vae-2d", "smoke", "digits", 5, "cpu", folder)


# ---------------------------------------------------------------- fit


def test_the_same_seed_gives_bitwise_the_same_fit(fitted):
    torch.manual_seed(1)  # what was drawn before does not matter
    model, run = smoke(seed=5)
    assert all(torch.equal(tensor, fitted[0][key]) for key, tensor in model.state_dict().items())
    assert run.history == fitted[1]


def test_the_seed_decides_the_initial_weights(monkeypatch):
    monkeypatch.setattr(recipes, "train", lambda *_, **__: None)
    models = [smoke(seed=seed)[0] for seed in (1, 2)]
    torch.manual_seed(1)
    assert torch.equal(models[0].decoder[0].weight, VAE(2).decoder[0].weight)
    assert not torch.equal(models[0].decoder[0].weight, models[1].decoder[0].weight)


def test_a_fit_follows_its_row_of_the_table(monkeypatch):
    monkeypatch.setattr(recipes, "train", lambda model, pixels, prepare, **rest: (model, pixels, prepare, rest))
    schedule = Schedule(2, 3, 0.1, True, betas=(0.1, 0.2), average=0.3, bfloat16=True, compiled="default")
    monkeypatch.setitem(RECIPES["vae-20d"].schedules, "quick", schedule)
    options = {"seed": 8, "snapshots": (1,), "state_file": Path("s")}
    model, (trained, pixels, prepare, rest) = fit("vae-20d", "quick", "digits", device="cpu", **options)
    assert model is trained
    assert model.latent_dim == 20
    assert not model.training
    assert torch.equal(pixels, data.load("digits", "train").pixels)
    assert prepare is data.binarize
    assert torch.equal(rest.pop("validation"), data.load("digits", "val").pixels)
    assert rest == asdict(schedule) | options | {"title": "vae-20d"}


def test_a_classifier_is_fitted_to_images_with_their_labels(monkeypatch):
    monkeypatch.setattr(recipes, "train", lambda model, rows, prepare, **rest: (rows, prepare, rest["validation"]))
    rows, prepare, validation = smoke("digit-classifier")[1]
    assert prepare is data.grey_and_binary
    for own, split in [(rows, "train"), (validation, "val")]:
        assert torch.equal(own, data.labelled(data.load("digits", split)))


def test_a_fit_lowers_the_loss(fitted):
    first, *_, last = (row["val"]["vae"]["loss"] for row in fitted[1])
    assert last < 0.6 * first


def test_a_gan_comes_back_with_the_average_of_its_weights(monkeypatch):
    given = {}

    def spy(*arguments, **settings):
        given.update(settings)
        return train.train(*arguments, **settings | {"steps": 3})

    monkeypatch.setattr(recipes, "train", spy)
    model, run = smoke("gan", snapshots=(1,))
    assert (given["average"], given["betas"]) == (0.9, (0.0, 0.999))
    assert all(torch.equal(tensor, run.snapshots[1][key]) for key, tensor in model.state_dict().items())
    assert model.generator.layers[3].num_batches_tracked == 3  # both players have the same samples


def test_curves_are_measured_on_2000_validation_images_at_most(monkeypatch):
    many = data.Images(torch.zeros(2500, 1, 28, 28, dtype=torch.uint8), torch.zeros(2500))
    monkeypatch.setattr(data, "load", lambda *_: many)
    monkeypatch.setattr(recipes, "train", lambda *_, validation, **__: len(validation))
    assert smoke()[1] == 2000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("vae-3d", "smoke"), f"unknown model 'vae-3d': choose one of {', '.join(RECIPES)}"),
        (("vae-2d", "slow"), "unknown profile 'slow': choose one of smoke, quick, full"),
        (("vae-2d", "smoke", "cifar"), "unknown dataset 'cifar': choose one of auto, mnist, digits"),
        (("vae-2d", "smoke", "digits", 0, "tpu"), "unknown device 'tpu': choose one of auto, cpu, cuda, mps"),
        (
            ("vae-2d", "smoke", "digits", 2**64),
            "seed must be from 0 to 4,294,967,295, but is 18,446,744,073,709,551,616",
        ),
    ],
)
def test_an_unknown_name_is_refused_with_the_choices(arguments, message, tmp_path):
    with pytest.raises(UsageError, match=f"^{message}"):
        fit(*arguments)
    rest = ("vae-2d", "smoke", "digits", 0, "cpu")[len(arguments) :]
    with pytest.raises(UsageError, match=f"^{message}"):
        ship(*arguments, *rest, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_every_profile_and_a_model_that_plays(name):
    recipe = RECIPES[name]
    assert tuple(recipe.schedules) == PROFILES
    model = recipe.model(**recipe.arguments)
    x = recipe.prepare(recipe.inputs("digits", "val", "cpu")[:3], seeded(0))
    for _, loss in model.players().values():
        assert loss(x, seeded(0))["loss"].isfinite()


def test_bfloat16_is_where_the_readme_says_and_torch_compile_nowhere():
    rows = [(name, profile, own) for name, recipe in RECIPES.items() for profile, own in recipe.schedules.items()]
    both = [(name, profile) for name in ("gan", *IMAGE_FLOWS) for profile in ("quick", "full")]
    assert {(name, profile) for name, profile, own in rows if own.bfloat16} == {
        *both,
        ("vae-2d", "quick"),
        ("vae-20d", "quick"),
    }
    assert not any(own.compiled for _, _, own in rows)


def test_what_a_schedule_leaves_out_is_as_train_has_it():
    defaults = inspect.signature(train.train).parameters
    schedule = asdict(Schedule(steps=1, batch_size=1, learning_rate=1.0, decay=False))
    for option in ("betas", "average", "bfloat16", "compiled"):
        assert schedule[option] == defaults[option].default


@pytest.mark.parametrize("split", data.SPLITS)
@pytest.mark.parametrize("name", [name for name in RECIPES if name not in ("digit-classifier", "flow-2d")])
def test_models_of_images_are_trained_on_the_pixels_of_the_split(name, split):
    assert torch.equal(RECIPES[name].inputs("digits", split, "cpu"), data.load("digits", split).pixels)


def test_models_of_grey_values_see_them_as_they_are():
    pixels = data.load("digits", "val").pixels[:3]
    for name in [*IMAGE_FLOWS, "vae-8bit"]:
        assert torch.equal(RECIPES[name].prepare(pixels, seeded(0)), pixels.float())


@pytest.mark.parametrize("name", ["flow-fc", "vae-8bit"])
def test_models_of_grey_values_draw_grey_values(name):
    recipe = RECIPES[name]
    x = 255 * recipe.model(**recipe.arguments).sample(3, seeded(0))
    assert len(x.round().unique()) > 100
    assert_close(x, x.round(), atol=1e-4, rtol=0)


def moons(split, dataset="digits"):
    return RECIPES["flow-2d"].inputs(dataset, split, "cpu")


def test_the_flow_in_the_plane_is_trained_on_two_moons_as_scikit_learn_s():
    # in each square of a grid as many of these points as of scikit-learn's, moved to the origin
    edges = np.linspace(-2, 2, 9)
    (points, _), own = make_moons(50_000, noise=0.05, random_state=0), moons("train").numpy()
    expected, found = (np.histogram2d(*each.T, [edges, edges])[0].ravel() for each in (points - [0.5, 0.25], own))
    assert own.shape == (50_000, 2)
    assert (abs(found - expected) <= 5 * np.sqrt(found + expected)).all()
    assert expected.sum() > 49_000


def test_no_point_of_the_two_moons_is_in_two_splits():
    points = [tuple(point) for split in data.SPLITS for point in moons(split)[:9_000].tolist()]
    assert len(set(points)) == len(points) == 27_000


def test_the_two_moons_are_the_same_each_time_and_for_every_data_set():
    before = torch.get_rng_state()
    first = moons("val")
    torch.manual_seed(1)
    assert torch.equal(moons("val", "mnist"), first)
    torch.set_rng_state(before)


def test_points_are_trained_on_as_they_are():
    points = moons("val")[:5]
    assert torch.equal(RECIPES["flow-2d"].prepare(points, seeded(0)), points)


def test_inputs_go_to_the_device_that_is_asked_for():
    assert {recipe.inputs("digits", "val", "meta").device.type for recipe in RECIPES.values()} == {"meta"}


@pytest.mark.parametrize("name", ["flow-2d", "vae-8bit"])
def test_a_fit_of_points_or_grey_values_lowers_the_loss(name):
    _, run = smoke(name)
    first, *_, last = (next(iter(row["val"].values()))["loss"] for row in run.history)
    assert last < 0.9 * first


@pytest.mark.parametrize("name", IMAGE_FLOWS)
def test_a_flow_over_images_is_fitted_to_standardised_logits_and_comes_back_in_eval_mode(name, monkeypatch):
    def once(model, pixels, prepare, **settings):
        return train.train(model, pixels, prepare, **settings | {"steps": 1, "batch_size": 16, "validation": None})

    monkeypatch.setattr(recipes, "train", once)
    model, run = smoke(name)
    actnorm = next(own for own in model.modules() if isinstance(own, ActNorm))
    assert not any(own.training for own in model.modules())
    assert actnorm.shift.abs().mean() > 1  # digits are mostly black, whose logits are far below 0
    assert math.isfinite(run.history[0]["train"]["flow"]["loss"])


# ---------------------------------------------------------------- ship and pretrained


def test_shipped_weights_are_the_trained_ones_rounded_to_float16(shipped, fitted):
    tensors, _ = checkpoint.load(shipped[0] / "vae-2d.safetensors")
    assert tensors.keys() == fitted[0].keys()
    for key, tensor in fitted[0].items():
        assert tensors[key].dtype == torch.float16
        assert torch.equal(tensors[key], tensor.half())


def test_a_shipped_model_comes_back_in_eval_mode_and_as_it_was_measured(shipped):
    folder, metadata = shipped
    model = pretrained(folder / "vae-2d.safetensors", "cpu")
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    fresh = {}
    for split in ("val", "test"):
        values = metrics.bounds(model, data.load("digits", split).pixels, data.binarize, samples=3)
        fresh |= {f"{split}_{key}": round(value, 3) for key, value in values.items()}
    assert metadata["metrics"] == fresh
    assert recipes.evaluate("vae-2d", model, "digits") == fresh


def test_metadata_says_how_the_weights_came_to_be(shipped):
    folder, metadata = shipped
    assert checkpoint.load(folder / "vae-2d.safetensors")[1] == as_json(metadata)
    pixels = data.load("digits", "train").pixels
    assert as_json(metadata) | {"metrics": 0, "seconds": 0, "versions": 0} == {
        "name": "vae-2d",
        "model": "VAE",
        "arguments": {"latent_dim": 2},
        "recipe": as_json(asdict(RECIPES["vae-2d"].schedules["smoke"])),
        "precision": "float32",
        "profile": "smoke",
        "seed": 5,
        "dataset": "digits",
        "data_sha256": hashlib.sha256(bytes(pixels.flatten().tolist())).hexdigest(),
        "metrics": 0,
        "seconds": 0,
        "device": "cpu",
        "versions": 0,
    }
    assert metadata["versions"].keys() == {"python", "torch"}
    assert metadata["seconds"] >= 0


def test_nothing_but_the_weights_is_left_behind(shipped):
    assert [path.name for path in shipped[0].iterdir()] == ["vae-2d.safetensors"]


@pytest.fixture
def no_training(monkeypatch):
    """`ship` gets a model with its initial weights."""

    def untrained(*_, state_file):
        state_file.touch()
        return VAE(2), train.Run(finished=True)

    monkeypatch.setattr(recipes, "fit", untrained)


def test_weights_are_measured_as_rounded(tmp_path, monkeypatch, no_training):
    def measure(model, pixels, prepare):
        return {"exact": float(all(torch.equal(p, p.half().float()) for p in model.parameters()))}

    monkeypatch.setitem(RECIPES, "vae-2d", replace(RECIPES["vae-2d"], measure=measure))
    assert ship("vae-2d", "smoke", "digits", 0, "cpu", tmp_path)["metrics"] == {"val_exact": 1, "test_exact": 1}


def test_the_batches_that_batch_norm_has_counted_are_not_rounded(tmp_path, monkeypatch):
    def untrained(*_, state_file):
        state_file.touch()
        model = GAN(dropout=0.1).eval()
        model.generator.layers[3].num_batches_tracked.fill_(2049)  # which float16 can't hold
        return model, train.Run(finished=True)

    monkeypatch.setattr(recipes, "fit", untrained)
    ship("gan", "smoke", "digits", 0, "cpu", tmp_path)
    model = pretrained(tmp_path / "gan.safetensors", "cpu")
    assert model.generator.layers[3].num_batches_tracked.item() == 2049


def test_a_classifier_is_measured_on_both_splits_from_grey_and_from_binary_images():
    model = DigitClassifier().eval()
    expected = {}
    for split in ("val", "test"):
        values = metrics.accuracy(model, data.labelled(data.load("digits", split)), data.grey_and_binary)
        expected |= {f"{split}_{key}": round(value, 3) for key, value in values.items()}
    assert recipes.evaluate("digit-classifier", model, "digits") == expected
    assert expected.keys() == {f"{split}_accuracy_{kind}" for split in ("val", "test") for kind in ("grey", "binary")}


def test_a_gan_is_measured_in_the_features_of_the_shipped_classifier_against_grey_images():
    model = GAN(dropout=0.1).eval()
    expected = {}
    for split in ("val", "test"):
        values = metrics.sample_quality(
            model.sample(100, seeded(0)), data.load("digits", split).pixels / 255, pretrained("digit-classifier", "cpu")
        )
        expected |= {f"{split}_{key}": round(value, 3) for key, value in values.items()}
    assert recipes.evaluate("gan", model, "digits") == expected


@pytest.mark.parametrize("name", IMAGE_FLOWS)
def test_a_flow_over_images_is_measured_in_bits_per_dimension_of_its_grey_values(name, monkeypatch):
    recipe, expected = RECIPES[name], {}
    monkeypatch.setitem(RECIPES, name, replace(recipe, inputs=lambda *of: recipe.inputs(*of)[:6]))
    model = recipe.model(**recipe.arguments).eval()
    for split in ("val", "test"):
        values = metrics.flow_bounds(model, data.load("digits", split).pixels[:6], data.levels, samples=2)
        expected |= {f"{split}_{key}": round(value, 3) for key, value in values.items()}
    assert recipes.evaluate(name, model, "digits") == expected


def test_the_flow_in_the_plane_is_measured_by_its_density_in_nats():
    model = RECIPES["flow-2d"].model().eval()
    expected = {f"{split}_loss": -model.log_prob(moons(split)).mean().item() for split in ("val", "test")}
    assert recipes.evaluate("flow-2d", model, "digits") == pytest.approx(expected, abs=6e-4)  # it rounds to 3 digits


def test_the_grey_vae_is_measured_on_grey_values():
    model = GreyVAE(40).eval()
    expected = {}
    for split in ("val", "test"):
        values = metrics.bounds(model, data.load("digits", split).pixels, data.levels, samples=3)
        expected |= {f"{split}_{key}": round(value, 3) for key, value in values.items()}
    assert recipes.evaluate("vae-8bit", model, "digits") == expected


def test_a_shipped_flow_keeps_its_weights_when_it_is_trained_on(tmp_path, monkeypatch):
    recipe = RECIPES["flow-conv"]
    own = randomized(recipe.model(**recipe.arguments)).float()
    monkeypatch.setattr(recipes, "fit", lambda *_, state_file: (state_file.touch(), (own, train.Run(finished=True)))[1])
    monkeypatch.setitem(RECIPES, "flow-conv", replace(recipe, measure=lambda *_: {}))
    ship("flow-conv", "smoke", "digits", 0, "cpu", tmp_path)
    model = pretrained(tmp_path / "flow-conv.safetensors", "cpu").train()
    model.loss(data.levels(data.load("digits", "val").pixels[:8]), seeded(0))
    assert all(torch.equal(tensor, own.state_dict()[key].half().float()) for key, tensor in model.state_dict().items())


def run_of(model, **told):
    """In place of `fit`: that model, as if it had been trained."""

    def fit(*_, state_file):
        state_file.touch()
        return model, train.Run(finished=True, **told)

    return fit


def test_the_metadata_say_what_was_done_where_that_is_not_what_was_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "fit", run_of(VAE(2), precisions=["bfloat16", "float32"]))
    metadata = ship("vae-2d", "quick", "digits", 0, "cpu", tmp_path)
    assert (metadata["recipe"]["bfloat16"], metadata["precision"]) == (True, "bfloat16, then float32")


def test_points_are_shipped_under_their_own_name_and_need_no_images(tmp_path, monkeypatch):
    def missing(*_):
        raise data.DataError("no MNIST")

    monkeypatch.setattr(data, "load", missing)
    monkeypatch.setattr(data, "choose", missing)
    for dataset in ("mnist", "auto"):
        metadata = ship("flow-2d", "smoke", dataset, 0, "cpu", tmp_path)
        assert (metadata["dataset"], metadata["data_sha256"]) == ("two-moons", None)


@pytest.mark.parametrize("value", [math.nan, math.inf, 65_520.0, -1e6])
def test_weights_that_float16_cannot_hold_are_not_written_and_the_state_stays(tmp_path, monkeypatch, value):
    model = VAE(2)
    model.mean_head.bias.data[1] = value
    monkeypatch.setattr(recipes, "fit", run_of(model))
    with pytest.raises(
        DivergenceError, match=r"^vae-2d: a weight is beyond the range of float16, so nothing was written"
    ):
        ship("vae-2d", "smoke", "digits", 0, "cpu", tmp_path)
    assert [own.name for own in tmp_path.iterdir()] == ["vae-2d.state"]


def test_the_largest_number_of_float16_is_written(tmp_path, monkeypatch):
    model = VAE(2)
    model.mean_head.bias.data[1] = 65_504.0
    monkeypatch.setattr(recipes, "fit", run_of(model))
    monkeypatch.setitem(RECIPES, "vae-2d", replace(RECIPES["vae-2d"], measure=lambda *_: {}))
    ship("vae-2d", "smoke", "digits", 0, "cpu", tmp_path)
    assert pretrained(tmp_path / "vae-2d.safetensors", "cpu").mean_head.bias[1] == 65_504


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_file_of_weights_that_are_not_finite_is_refused(shipped, tmp_path, value):
    tensors, metadata = checkpoint.load(shipped[0] / "vae-2d.safetensors")
    tensors["mean_head.bias"][1] = value
    checkpoint.save(tmp_path / "bad.safetensors", tensors, metadata)
    with pytest.raises(
        CheckpointError, match=r"bad.safetensors holds weights that are not finite; train it again with a"
    ):
        pretrained(tmp_path / "bad.safetensors", "cpu")


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_measurement_that_is_not_finite_is_named_and_nothing_is_written(tmp_path, monkeypatch, no_training, value):
    monkeypatch.setitem(RECIPES, "vae-2d", replace(RECIPES["vae-2d"], measure=lambda *_: {"good": 1.0, "bad": value}))
    with pytest.raises(DivergenceError, match=r"^vae-2d: val_bad, test_bad came out as NaN or infinite; lower the"):
        ship("vae-2d", "smoke", "digits", 0, "cpu", tmp_path)
    assert [own.name for own in tmp_path.iterdir()] == ["vae-2d.state"]


@pytest.mark.parametrize(
    ("again", "what"),
    [
        (("vae-2d", "smoke", "digits", 4, "cpu"), "holds a training with seed 5"),
        (("vae-2d", "quick", "digits", 4, "cpu"), "holds a training with profile smoke, seed 5"),
    ],
)
def test_weights_of_another_training_are_not_written_over(again, what, shipped, tmp_path, no_training):
    target = tmp_path / "vae-2d.safetensors"
    target.write_bytes((shipped[0] / "vae-2d.safetensors").read_bytes())
    with pytest.raises(UsageError) as refused:
        ship(*again, tmp_path)
    assert str(refused.value) == f"{target} {what}: move it away, or choose another folder by --out"
    assert target.read_bytes() == (shipped[0] / "vae-2d.safetensors").read_bytes()


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_what_is_no_weights_file_is_not_written_over(make, tmp_path, no_training):
    make(tmp_path / "vae-2d.safetensors")
    with pytest.raises(
        UsageError, match=r"vae-2d.safetensors is no weights file of this course: move it away, or choose"
    ):
        ship("vae-2d", "smoke", "digits", 0, "cpu", tmp_path)


def test_the_same_training_is_written_anew(shipped, tmp_path, no_training):
    (tmp_path / "vae-2d.safetensors").write_bytes((shipped[0] / "vae-2d.safetensors").read_bytes())
    ship("vae-2d", "smoke", "digits", 5, "cpu", tmp_path)
    assert (tmp_path / "vae-2d.safetensors").read_bytes() != (shipped[0] / "vae-2d.safetensors").read_bytes()


def test_two_trainings_of_one_model_into_one_folder_do_not_meet(tmp_path, monkeypatch):
    inner = []

    def untrained(*_, state_file):
        with pytest.raises(
            CourseError, match=rf"^vae-2d is being trained into {tmp_path} already: wait for that, or choose"
        ):
            ship("vae-2d", "smoke", "digits", 1, "cpu", tmp_path)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(recipes, "fit", run_of(VAE(20)))
            inner.append(ship("vae-20d", "smoke", "digits", 0, "cpu", tmp_path)["name"])
        state_file.touch()
        return VAE(2), train.Run(finished=True)

    monkeypatch.setattr(recipes, "fit", untrained)
    ship("vae-2d", "smoke", "digits", 0, "cpu", tmp_path)
    assert inner == ["vae-20d"]
    assert sorted(own.name for own in tmp_path.iterdir()) == ["vae-20d.safetensors", "vae-2d.safetensors"]


def test_a_folder_that_cannot_be_written_is_refused_before_the_training(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"^cannot write to .*file \(.*is a file\): choose another folder by --out$"):
        ship("vae-2d", "smoke", "digits", 0, "cpu", tmp_path / "file")


def test_data_that_are_missing_are_noticed_before_the_training(tmp_path, monkeypatch):
    monkeypatch.setenv("GM_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setattr(data, "_mirrors", list)
    with pytest.raises(data.DataError, match="could not be fetched"):
        recipes.rehearse("vae-2d", "smoke", "mnist", 0, "cpu", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_auto_ships_the_name_of_the_data_it_took(tmp_path, monkeypatch, no_training):
    monkeypatch.setattr(data, "_choose_in", lambda where: "digits")
    assert ship("vae-2d", "smoke", "auto", 0, "cpu", tmp_path)["dataset"] == "digits"


def test_an_interrupted_shipping_goes_on_where_it_stopped(tmp_path, monkeypatch, shipped):
    honest, calls = VAE.loss, []

    def loss(self, x, generator=None):
        calls.append(self.training)
        if calls.count(True) == 25 and self.training:
            os.kill(os.getpid(), signal.SIGINT)
        return honest(self, x, generator)

    monkeypatch.setattr(VAE, "loss", loss)
    with pytest.raises(KeyboardInterrupt):
        ship("vae-2d", "smoke", "digits", 5, "cpu", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["vae-2d.state"]
    assert calls.count(True) == 25
    metadata = ship("vae-2d", "smoke", "digits", 5, "cpu", tmp_path)
    assert calls.count(True) == 60
    assert metadata["metrics"] == shipped[1]["metrics"]
    assert [path.name for path in tmp_path.iterdir()] == ["vae-2d.safetensors"]
    tensors, expected = (checkpoint.load(folder / "vae-2d.safetensors")[0] for folder in (tmp_path, shipped[0]))
    assert all(torch.equal(tensors[key], expected[key]) for key in expected)


def test_shipping_does_not_go_on_from_a_run_on_other_data(tmp_path, monkeypatch):
    fit("vae-2d", "smoke", "digits", device="cpu", state_file=tmp_path / "vae-2d.state")
    digits = data.load
    monkeypatch.setattr(data, "load", lambda *where: data.Images(*(part[:-1] for part in digits(*where))))
    with pytest.raises(CheckpointError, match=r"vae-2d.state is of a run with images 1197; delete it"):
        ship("vae-2d", "smoke", "digits", 0, "cpu", tmp_path)


@pytest.mark.parametrize(
    ("tensors", "metadata", "sentence"),
    [
        ({}, {"arguments": {"latent_dim": 3}}, "holds no model that this version of the course knows; train it again"),
        ({}, {"model": "Flow"}, "holds no model that this version of the course knows; train it again"),
        ({}, {"name": ["vae-2d"]}, "holds no model that this version of the course knows; train it again"),
        ({}, {"name": "vae-3d"}, "holds no model that this version of the course knows; train it again"),
        ({"mean_head.bias": torch.zeros(3)}, {}, "has other weights than vae-2d needs; train it again"),
        ({"third_head.bias": torch.zeros(2)}, {}, "has other weights than vae-2d needs; train it again"),
        ({"mean_head.bias": None}, {}, "has other weights than vae-2d needs; train it again"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_one_sentence(tensors, metadata, sentence, shipped, tmp_path):
    old, own = checkpoint.load(shipped[0] / "vae-2d.safetensors")
    new = {key: tensor for key, tensor in (old | tensors).items() if tensor is not None}
    checkpoint.save(tmp_path / "other.safetensors", new, own | metadata)
    with pytest.raises(CheckpointError) as error:
        pretrained(tmp_path / "other.safetensors", "cpu")
    assert str(error.value) == f"{tmp_path / 'other.safetensors'} {sentence}"


def test_a_weights_file_of_another_program_is_refused(tmp_path):
    checkpoint.save(tmp_path / "other.safetensors", {"w": torch.zeros(2)}, {"name": "vae-2d"})
    with pytest.raises(CheckpointError, match="holds no model that this version of the course knows"):
        pretrained(tmp_path / "other.safetensors", "cpu")


def test_a_damaged_file_is_refused(shipped, tmp_path):
    content = bytearray((shipped[0] / "vae-2d.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "flipped.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"flipped.safetensors was altered after it was written"):
        pretrained(tmp_path / "flipped.safetensors", "cpu")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"^there is no file .*nowhere.safetensors$"):
        pretrained(tmp_path / "nowhere.safetensors", "cpu")


@pytest.mark.parametrize("name", ["vae-3d", "", "weights.pt"])
def test_what_is_neither_a_name_nor_a_file_is_refused_with_the_choices(name):
    choices = f"choose one of {', '.join(RECIPES)}, or a .safetensors file"
    with pytest.raises(UsageError, match=f"^unknown model {name!r}: {choices}$"):
        pretrained(name)


def test_pretrained_goes_to_the_device_that_is_asked_for():
    with pytest.raises(UsageError, match="unknown device 'tpu'"):
        pretrained("vae-2d", "tpu")
    assert pretrained("vae-2d", "cpu").mean_head.weight.device.type == "cpu"


# ---------------------------------------------------------------- the weights in the package


def test_the_package_ships_a_file_for_every_recipe_that_is_to_be_shipped_and_less_than_20_megabytes():
    files = sorted(WEIGHTS.iterdir())
    assert [path.name for path in files] == sorted(f"{name}.safetensors" for name in SHIPPED)
    assert sum(path.stat().st_size for path in files) < 20_000_000


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_are_of_the_full_run_on_mnist(name):
    tensors, metadata = checkpoint.load(WEIGHTS / f"{name}.safetensors")
    counts = {key for key in tensors if key.endswith("num_batches_tracked")}
    assert all(tensors[key].dtype == (torch.int64 if key in counts else torch.float16) for key in tensors)
    assert metadata.keys() >= {"seed", "data_sha256", "versions", "metrics", "seconds"}
    schedule = Schedule(**metadata["recipe"])  # a setting that a file doesn't name had its default
    assert as_json(asdict(schedule)) == as_json(asdict(RECIPES[name].schedules["full"]))
    assert (metadata["name"], metadata["profile"]) == (name, "full")
    assert metadata["dataset"] == (RECIPES[name].points or "mnist")
    assert (metadata["model"], metadata["arguments"]) == (RECIPES[name].model.__name__, RECIPES[name].arguments)


# These need MNIST: where it is neither there nor to be fetched they fail, because nothing would have been measured.


@pytest.mark.parametrize(
    ("name", "at_most"), [("vae-20d", {"val": 95.5, "test": 94.5}), ("vae-2d", {"val": 145.5, "test": 144})]
)
def test_shipped_weights_reach_on_mnist_what_their_metadata_says(name, at_most):
    told, model = checkpoint.load(WEIGHTS / f"{name}.safetensors")[1]["metrics"], pretrained(name, "cpu")
    for split in ("val", "test"):
        pixels = data.load("mnist", split).pixels
        values = metrics.bounds(model, pixels, data.binarize, samples=1, seed=1)
        error = values["negative_elbo_error"]
        assert error == pytest.approx(told[f"{split}_negative_elbo_error"], rel=0.1)
        assert abs(values["negative_elbo"] - told[f"{split}_negative_elbo"]) < error  # the images are the same
        assert values["negative_elbo"] < at_most[split]
        gain = told[f"{split}_negative_elbo"] - told[f"{split}_importance_weighted_500"]
        part = data.binarize(pixels[::100], seeded(2)), seeded(3)
        one, many = metrics.importance_weighted_bounds(model, part[0], (1, 500), part[1])
        mean, error = metrics.mean_and_standard_error(many - one)
        assert abs(mean - gain) < 4 * error


def test_the_shipped_classifier_names_on_mnist_the_share_of_digits_that_its_metadata_says():
    told = checkpoint.load(WEIGHTS / "digit-classifier.safetensors")[1]["metrics"]
    values = metrics.accuracy(
        pretrained("digit-classifier", "cpu"), data.labelled(data.load("mnist", "test")), data.grey_and_binary, seed=1
    )
    assert values["accuracy_grey"] >= 0.988
    # grey images have no noise: what remains is the third digit, and 5 images near the border of two classes
    assert values["accuracy_grey"] == pytest.approx(told["test_accuracy_grey"], abs=0.001)
    # binary draws differ: at most as much as two independent sets of 10,000 images would, 4 standard errors
    error = math.sqrt(2 * 0.989 * 0.011 / 10_000)
    assert values["accuracy_binary"] == pytest.approx(told["test_accuracy_binary"], abs=4 * error)


def test_the_shipped_gan_s_samples_are_on_mnist_as_good_as_its_metadata_says(monkeypatch):
    told = checkpoint.load(WEIGHTS / "gan.safetensors")[1]["metrics"]
    monkeypatch.setattr(metrics, "precision_and_recall", lambda *_: (math.nan, math.nan))  # takes longer than the rest
    real = data.load("mnist", "test").pixels / 255
    classifier, samples = pretrained("digit-classifier", "cpu"), pretrained("gan", "cpu").sample(10_000, seeded(1))
    values = metrics.sample_quality(samples, real, classifier)
    assert values["frechet_floor"] == pytest.approx(told["test_frechet_floor"], abs=0.01)  # the same halves
    # 7 seeds gave distances with a standard deviation of 0.21; both numbers are draws, so 4 standard errors are 4√2
    assert values["frechet"] == pytest.approx(told["test_frechet"], abs=4 * math.sqrt(2) * 0.21)
    for share in ("confident", "rarest_digit"):
        error = math.sqrt(told[f"test_{share}"] * (1 - told[f"test_{share}"]) / 10_000)
        assert values[share] == pytest.approx(told[f"test_{share}"], abs=4 * math.sqrt(2) * error)
    # 7 seeds gave 0.0022 to 0.0034; a digit that is made half as often as it should be gives 0.017
    assert values["histogram_kl"] < told["test_histogram_kl"] + 0.003


@pytest.mark.parametrize("name", [name for name in IMAGE_FLOWS if name in SHIPPED])
def test_shipped_flows_need_on_mnist_the_bits_per_dimension_that_their_metadata_says(name):
    told, model = checkpoint.load(WEIGHTS / f"{name}.safetensors")[1]["metrics"], pretrained(name, "cpu")
    pixels = data.load("mnist", "test").pixels[::20]  # of 10,000, because each takes milliseconds
    values = metrics.flow_bounds(model, pixels, data.levels, samples=1, seed=1)
    assert abs(values["bits_per_dim"] - told["test_bits_per_dim"]) < 4 * values["bits_per_dim_error"]
    one, many = metrics.dequantized_bounds(model, data.levels(pixels[::10]), (1, 16), seeded(1))
    gain, error = metrics.mean_and_standard_error(bits_per_dim(one - many))
    assert abs(gain - (told["test_bits_per_dim"] - told["test_importance_weighted_16"])) < 4 * error + 1e-3  # rounded


def test_the_shipped_flow_in_the_plane_has_the_loss_that_its_metadata_says():
    told, model = checkpoint.load(WEIGHTS / "flow-2d.safetensors")[1]["metrics"], pretrained("flow-2d", "cpu")
    for split in ("val", "test"):  # the same points, without noise
        assert -model.log_prob(moons(split)).mean().item() == pytest.approx(told[f"{split}_loss"], abs=1e-3)


def test_the_shipped_grey_vae_reaches_on_mnist_what_its_metadata_says():
    told, model = checkpoint.load(WEIGHTS / "vae-8bit.safetensors")[1]["metrics"], pretrained("vae-8bit", "cpu")
    values = metrics.bounds(model, data.load("mnist", "test").pixels, data.levels, samples=1, seed=1)
    error = values["negative_elbo_error"]
    assert error == pytest.approx(told["test_negative_elbo_error"], rel=0.1)
    assert abs(values["negative_elbo"] - told["test_negative_elbo"]) < error  # the images are the same


def test_shipped_weights_were_trained_on_mnist_s_training_images():
    digest = hashlib.sha256(data.load("mnist", "train").pixels.numpy().tobytes()).hexdigest()
    for name in SHIPPED:
        told = checkpoint.load(WEIGHTS / f"{name}.safetensors")[1]["data_sha256"]
        assert told == (None if RECIPES[name].points else digest)
