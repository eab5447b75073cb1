"""That the README's tables say what the shipped files' metadata do."""

import importlib.util
from pathlib import Path

import pytest

from gm_helpers import recipes

ROOT = Path(__file__).parent.parent
spec = importlib.util.spec_from_file_location("measured", ROOT / "benchmarks" / "measured.py")
measured = importlib.util.module_from_spec(spec)
spec.loader.exec_module(measured)


def test_the_readme_s_tables_are_those_that_the_command_writes():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert measured.written(readme) == readme


def test_a_table_names_every_shipped_model_of_its_kind():
    named = [line.split("`")[1] for name in measured.TABLES for line in measured.table(name).splitlines()[2:]]
    kinds = {recipes.RECIPES[name].kind for name in named}
    assert kinds == {"vae", "gan", "flow", "matching"}
    images = [
        name for name in recipes.SHIPPED if recipes.RECIPES[name].kind in kinds and not recipes.RECIPES[name].points
    ]
    assert sorted(named) == sorted(images)


@pytest.mark.parametrize(("nats", "bits"), [(784 * 0.6931471805599453, "1.000"), (1000.0, "1.840")])
def test_a_vae_of_grey_values_is_told_in_bits(nats, bits):
    metrics = {"test_negative_elbo": nats, "test_negative_elbo_error": 0.0, "test_importance_weighted_500": 0.0}
    assert measured.grey(metrics)[0].startswith(f"**{bits}**")


def test_of_flow_matching_the_distances_stand_in_the_order_of_their_steps_and_the_floor_for_sets_of_their_size():
    metrics = {f"test_frechet_{n}": float(n) for n in (20, 100, 5)} | {"test_frechet_floor": 3.0}
    metrics |= {"test_precision_100": 0.7, "test_recall_100": 0.8, "test_precision_5": 0.1, "test_recall_5": 0.2}
    metrics |= {"test_bits_per_dim": 1.234, "test_bits_per_dim_error": 0.056}
    assert measured.matching(metrics) == ["5.0, 20.0, 100.0 (1.5)", "0.70, 0.80", "**1.23** ± 0.06"]
