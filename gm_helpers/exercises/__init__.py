"""The checkers of the course's exercises, each by the exercise's name, and the table of how far a student is."""

from gm_helpers.exercises.checking import Verdict
from gm_helpers.exercises.conclusion import beats_histogram, fair_claims, one_scale
from gm_helpers.exercises.gan import (
    frechet_floor,
    game_step,
    jsd_bound,
    smoothed_gradient,
    spiral_radius,
    wasserstein_line,
)
from gm_helpers.exercises.table import progress

__all__ = [
    "Verdict",
    "beats_histogram",
    "fair_claims",
    "frechet_floor",
    "game_step",
    "jsd_bound",
    "one_scale",
    "progress",
    "smoothed_gradient",
    "spiral_radius",
    "wasserstein_line",
]
