"""The checkers of the course's exercises, each by the exercise's name, and the table of how far a student is."""

# in the order of their sections, as the table of notebook 3 has them
# isort: off
from gm_helpers.exercises.flow_density import bits_of, log_density, preimages
from gm_helpers.exercises.flow_noise import black_noise
from gm_helpers.exercises.flow_layers import invertible_1x1, piecewise_linear
from gm_helpers.exercises.flow_base import two_humped_base
from gm_helpers.exercises.flow_time import euler_step, gaussian_velocity

# isort: on
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
from gm_helpers.exercises.vae_bound import bias_of_estimate, kl_low_rank, optimal_weight, posterior_on_grid
from gm_helpers.exercises.vae_model import collapse, compare_bounds, hidden_beta, leave_one_out

__all__ = [
    "Verdict",
    "beats_histogram",
    "bias_of_estimate",
    "bits_of",
    "black_noise",
    "collapse",
    "compare_bounds",
    "euler_step",
    "fair_claims",
    "frechet_floor",
    "game_step",
    "gaussian_velocity",
    "hidden_beta",
    "invertible_1x1",
    "jsd_bound",
    "kl_low_rank",
    "leave_one_out",
    "log_density",
    "one_scale",
    "optimal_weight",
    "piecewise_linear",
    "posterior_on_grid",
    "preimages",
    "progress",
    "smoothed_gradient",
    "spiral_radius",
    "two_humped_base",
    "wasserstein_line",
]
