"""The checkers of the exercises on all three families, at the end of notebook 3."""

import functools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gm_helpers import data, metrics, recipes
from gm_helpers.exercises.checking import Mistake, Open, Wrong, compare, exercise, numbers, rng, shown
from gm_helpers.flows import bits_per_dim

NOTEBOOK = "3_flows"

# ---------------------------------------------------------------- which claims follow

CLAIMS = 3
# for each claim: whether it follows, and what goes wrong in the other answer
FOLLOWS = [
    (False, "two upper bounds on −log-likelihood, of which one is slack by an unknown amount: do they tell an order?"),
    (True, "one number is exact, and the other can only get better: can the order still change?"),
    (
        False,
        "by that distance one of the recipes was chosen, and the others were not; and do good samples tell of a "
        "likelihood?",
    ),
]


@exercise(NOTEBOOK, "4")
def fair_claims(answer: Any) -> str:
    """Three booleans: which of the three claims of section 4 follow from the numbers."""
    if isinstance(answer, Tensor | np.ndarray) and answer.shape == (CLAIMS,):
        answer = answer.tolist()
    if not isinstance(answer, tuple | list) or len(answer) != CLAIMS:
        raise Wrong(
            f"your answer is {shown(answer)}, and should be {CLAIMS} of True and False, such as (True, True, True)"
        )
    if any(own is None or own is ... for own in answer):
        raise Open(f"{sum(own is None or own is ... for own in answer)} of {CLAIMS} claims have no answer yet")
    if not all(isinstance(own, bool | np.bool_) for own in answer):
        raise Wrong(f"your answer is {shown(answer)}, and should be made of True and False")
    for number, (own, (follows, idea)) in enumerate(zip(answer, FOLLOWS, strict=True), 1):
        if own != follows:
            raise Wrong(f"claim {number}: {idea}")
    return "all three claims"


# ---------------------------------------------------------------- one scale for a VAE and a flow


def _bits(log_weights: Tensor, dims: int) -> float:
    """Bits per dimension of the bound by all draws, log-weights (K, N), a mean over the images."""
    return float((math.log(len(log_weights)) - log_weights.logsumexp(0)).mean() / (dims * math.log(2)))


def _few(vae: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    draws = min(len(vae), len(flow))
    return vae[:draws], flow[:draws]


def _one_scale(vae: Tensor, flow: Tensor, dims: int) -> tuple[float, ...]:
    return tuple(_bits(own, dims) for own in _few(vae, flow))


def _each(bound: Any) -> Any:
    """The same for both models, by the same number of draws."""
    return lambda vae, flow, dims: tuple(bound(own, dims) for own in _few(vae, flow))


UNFAIR = "one model has more draws than the other, so that its bound is tighter: is that fair?"
ONE_SCALE_MISTAKES = [
    Mistake(_each(lambda own, dims: _bits(own, dims) * math.log(2)), "nats per dimension, where bits are asked for"),
    Mistake(
        _each(lambda own, dims: _bits(own, 1)), "a sum over all dimensions, where bits *per dimension* are asked for"
    ),
    Mistake(_each(lambda own, dims: -_bits(own, dims)), "the sign: lower bits per dimension are better"),
    Mistake(lambda vae, flow, dims: (_bits(vae, dims), _bits(flow, dims)), UNFAIR),
    Mistake(lambda vae, flow, dims: (_bits(_few(vae, flow)[0], dims), _bits(flow, dims)), UNFAIR),
    Mistake(lambda vae, flow, dims: (_bits(vae, dims), _bits(_few(vae, flow)[1], dims)), UNFAIR),
    Mistake(
        _each(lambda own, dims: float(-own.mean() / dims / math.log(2))),
        "a mean of logarithms over the draws; the tighter bound has the logarithm of a mean",
    ),
    Mistake(
        lambda vae, flow, dims: tuple(float(-own.mean() / dims / math.log(2)) for own in (vae, flow)),
        "a mean of logarithms over the draws; the tighter bound has the logarithm of a mean",
    ),
    Mistake(
        _each(lambda own, dims: _bits(own, dims) - math.log2(len(own)) / dims),
        "a sum over the draws, where a mean belongs: where is log K?",
    ),
    Mistake(
        _each(lambda own, dims: float(-(own.flatten().logsumexp(0) - math.log(own.numel())) / dims / math.log(2))),
        "images are averaged inside the logarithm: each image has a log-likelihood of its own",
    ),
    Mistake(
        _each(lambda own, dims: _bits(own, dims) * own.shape[1]), "a sum over the images, where a mean is asked for"
    ),
]


@exercise(NOTEBOOK, "4")
def one_scale(answer: Any) -> str:
    """(vae_nats (S, N), flow_nats (T, N), dims) -> both bounds in bits per dimension, by the first min(S, T) draws."""
    random = rng()

    def case(s: int, t: int, n: int, dims: int) -> dict[str, Any]:
        nats = (torch.from_numpy(random.normal(-1.5 * dims, 3, size=(own, n))) for own in (s, t))
        return dict(zip(("vae_nats", "flow_nats"), nats, strict=True)) | {"dims": dims}

    cases = [case(1, 1, 1, 1), case(1, 1, 2, 4), case(2, 2, 2, 4), case(5, 2, 3, 10)]
    cases += [case(*(int(random.integers(2, high)) for high in (50, 50, 20, 800))) for _ in range(16)]
    compare(answer, cases, _one_scale, ONE_SCALE_MISTAKES, relative=1e-5, parts=2)
    return "20 pairs of sets of log-weights, of 1 to 49 draws"


# ---------------------------------------------------------------- a mixture with a good likelihood and bad samples

COMPONENTS = ("flow", "histogram", "noise")
IMAGES, SAMPLES = 500, 1000
WORSE = 1.25  # the mixture's Fréchet distance against the flow's; another 1,000 samples change either by two per cent


@functools.cache
def _components() -> tuple[Tensor, list[Tensor], Tensor]:
    """Log-probabilities (3, IMAGES) in nats, the flow's a bound; features of samples of each; those of test images."""
    random = torch.Generator().manual_seed(0)
    test, counts = data.load("mnist", "test").pixels, _counts(data.load("mnist", "train").pixels.flatten(1))
    flow: Any = recipes.pretrained("flow-conv", "cpu")
    classifier: Any = recipes.pretrained("digit-classifier", "cpu")
    some = test[torch.randperm(len(test), generator=random)]  # the files are ordered by writer
    grey = some[:IMAGES].flatten(1).long()
    log_counts = (counts / counts.sum(1, keepdim=True)).log()
    samples = [
        flow.sample(SAMPLES, random),
        torch.multinomial(counts, SAMPLES, replacement=True, generator=random).T.float(),
        torch.randint(0, 256, (SAMPLES, 784), generator=random).float(),
    ]
    with torch.no_grad():
        bound = metrics.in_parts(lambda x: flow.elbo(x, random), some[:IMAGES].float()).double()
    log_probs = [bound, log_counts[torch.arange(784), grey].sum(1), torch.full((IMAGES,), -784 * math.log(256))]
    features = [metrics.in_parts(classifier.features, own / 255) for own in [*samples, some[:SAMPLES]]]
    return torch.stack(log_probs), features[:3], features[3]


def _counts(pixels: Tensor) -> Tensor:
    """How often each pixel has each grey value, and one more, (784, 256), float64."""
    return torch.stack([torch.bincount(own.long(), minlength=256) for own in pixels.T]).double() + 1


def _weights(answer: Any) -> Tensor:
    """Those of COMPONENTS; raises Wrong for what are none."""
    if not isinstance(answer, dict) or not {*answer} <= {*COMPONENTS}:
        raise Wrong(f"your answer is {shown(answer)}, and should be weights of {', '.join(COMPONENTS)}, by name")
    if any(own is None or own is ... for own in answer.values()):
        raise Open("some weights are not filled in yet")
    weights = torch.cat([numbers(answer.get(name, 0.0), (1,), f"the weight of {name}: ") for name in COMPONENTS])
    if weights.min() < -1e-9:
        raise Wrong(f"a weight is a probability, and none is negative; yours are {shown(weights)}")
    if abs(weights.sum().item() - 1) > 1e-6:
        raise Wrong(f"weights add up to 1; yours add up to {weights.sum().item():.6g}")
    return weights.clamp(min=0) / weights.clamp(min=0).sum()


@exercise(NOTEBOOK, "4", seconds=60)
def beats_histogram(answer: Any) -> str:
    """Name -> weight of a mixture that beats the histogram in likelihood, with worse samples than the flow's.

    The components are "flow" (the shipped flow-conv), "histogram" and "noise". Likelihood: bits per dimension of 500
    test images. Samples: the Fréchet distance of 1,000, at least a quarter larger than the flow's. Needs MNIST.
    """
    weights = _weights(answer)
    if data.choose("auto") != "mnist":
        raise Open("this one can't be checked without MNIST, which isn't here")
    log_probs, features, real = _components()
    bits = [
        bits_per_dim(own).mean().item() for own in ((weights.log()[:, None] + log_probs).logsumexp(0), log_probs[1])
    ]
    scores = f"bits per dimension: your mixture {bits[0]:.3f}, the histogram {bits[1]:.3f}"
    if bits[0] >= bits[1]:
        raise Wrong(f"{scores}\nwhich component gives test images a high density, and how little of it is enough?")
    drawn = torch.from_numpy(rng().multinomial(SAMPLES, weights.numpy()))
    mixed = torch.cat([own[:count] for own, count in zip(features, drawn.tolist(), strict=True)])
    distances = [metrics.frechet_distance(own, real) for own in (mixed, features[0])]
    scores += f"\nFréchet distance of 1,000 samples: your mixture {distances[0]:.0f}, the flow {distances[1]:.0f}"
    if distances[0] < WORSE * distances[1]:
        raise Wrong(f"{scores}\nthat is hardly worse, or not at all: how many of 100 samples are not the flow's?")
    return (
        "more likely than the histogram on 500 test images, with a Fréchet distance at least a quarter above the flow's"
    )
