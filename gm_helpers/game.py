"""The game of a GAN on a line, where both densities are known: the best discriminator, what the game is worth against
it, and the divergence that this is. All is summed over one grid, in float64: no noise of draws is in it. Densities are
given by their logarithms, so that a ratio of two is right where both are 0 in float64."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

# A density by its logarithm at each of some points, and a discriminator by its logit there.
OnLine = Callable[[Tensor], Tensor]
# 500 steps a unit, for the sharp bend of a logit between narrow densities; far beyond what any of them reaches.
GRID = torch.linspace(-40, 40, 40_001, dtype=torch.float64)


def best_logit(log_data: OnLine, log_samples: OnLine) -> OnLine:
    """The logit of the best discriminator, log p_data − log p_g, so that D* = p_data/(p_data + p_g) is its sigmoid.

    log_data, log_samples: points (N,) to log-densities (N,). Goodfellow et al. 2014, proposition 1.
    """
    return lambda x: log_data(x) - log_samples(x)


def value(logit: OnLine, log_data: OnLine, log_samples: OnLine) -> float:
    """V(D, G) = E_data[log D(x)] + E_g[log(1 − D(x))] in nats, at most 0; Goodfellow et al. 2014, equation 1.

    logit: of D, points (N,) to logits (N,). log_data, log_samples: points (N,) to the log-densities of data and of
    samples (N,). What a density has beyond the grid, from −40 to 40, is left out.
    """
    a = _on_grid(logit)
    return _mean(log_data, F.logsigmoid(a)) + _mean(log_samples, F.logsigmoid(-a))


def jsd(log_data: OnLine, log_samples: OnLine) -> float:
    """The Jensen–Shannon divergence, ½ KL(p_data ‖ m) + ½ KL(p_g ‖ m) with m = ½ (p_data + p_g), from 0 to log 2 nats.

    Of the best discriminator's value it is ½ (V + log 4). log_data, log_samples: as in `value`. Lin 1991.
    """
    both = torch.stack([_on_grid(log_data), _on_grid(log_samples)])
    log_m = torch.logsumexp(both, 0) - math.log(2)
    return 0.5 * (_mean(log_data, both[0] - log_m) + _mean(log_samples, both[1] - log_m))


def _on_grid(function: OnLine) -> Tensor:
    return torch.as_tensor(function(GRID))


def _mean(log_density: OnLine, values: Tensor) -> float:
    """The mean under that density of a function, given by its values on the grid."""
    return torch.trapezoid(_on_grid(log_density).exp() * values, GRID).item()
