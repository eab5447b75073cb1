"""What is measured on a trained model."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from gm_helpers.classifier import DigitClassifier
from gm_helpers.flows import ImageFlow, bits_per_dim
from gm_helpers.train import Game, Prepare, evaluate
from gm_helpers.vae import VAE

ROWS = 8192  # decoded images at a time, 26 MB of logits


def mean_and_standard_error(values: Tensor) -> tuple[float, float]:
    """Mean of independent draws (N,), N ≥ 2, and the standard error of that mean."""
    return values.mean().item(), (values.std() / math.sqrt(len(values))).item()


def verdict(difference: Tensor | float, tolerance: float) -> str:
    """The words that close a notebook's check: accepted if no difference exceeds the tolerance, else rejected.

    NaN is rejected.
    """
    if bool((torch.as_tensor(difference).abs() <= tolerance).all()):
        return f"accepted, within {tolerance:.3g}"
    return f"rejected, off by more than {tolerance:.3g}"


@torch.no_grad()
def mass(
    log_prob: Callable[[Tensor], Tensor],
    low: Sequence[float],
    high: Sequence[float],
    nodes: int = 401,
    where: Callable[[Tensor], Tensor] | None = None,
) -> float:
    """The mass that a density of the plane puts on a rectangle, by the trapezium rule with that many nodes a side.

    log_prob: of points (N, 2), float64, in nats. low, high: the rectangle's lower left and upper right corner. where:
    whether points (N, 2) count, (N,) bool; all do if left out.
    """
    sides = [torch.linspace(*ends, nodes, dtype=torch.float64) for ends in zip(low, high, strict=True)]
    grid = torch.stack(torch.meshgrid(*sides, indexing="ij"), dim=2).flatten(0, 1)
    density = torch.cat([log_prob(part) for part in grid.split(10_000)]).exp()
    if where is not None:
        density = density * where(grid)
    return torch.trapezoid(torch.trapezoid(density.view(nodes, nodes), sides[1]), sides[0]).item()


@torch.no_grad()
def importance_weighted_bounds(
    model: VAE, x: Tensor, samples: Sequence[int], generator: Generator | None = None
) -> Tensor:
    """log 1/K Σ_k p(x|z_k) p(z_k)/q(z_k|x), z_k ~ q(z|x), for each K in nats: lower bounds on log p(x).

    x: (B, 1, 28, 28) or (B, 784), zeros and ones. samples: every K, at least 1 and rising. Returns (len(samples), B).
    K = 1 estimates the ELBO, its KL drawn too, and the bound's expectation grows with K. The draws are nested, each K
    goes on from the one before it, so that a difference of two rows has little noise. Memory does not grow with K.
    Burda, Grosse & Salakhutdinov 2016, equation 8. Raises ValueError for samples that do not rise from 1 or more.
    """
    mean, log_var = model.encode(x)
    draw = lambda count: _log_weights(model, x, mean, log_var, count, generator)  # noqa: E731
    return _nested(draw, samples, at_once=max(1, ROWS // len(x)))


def _nested(draw: Callable[[int], Tensor], samples: Sequence[int], at_once: int) -> Tensor:
    """log 1/K Σ_k w_k for each K, (len(samples), B), of log-weights that draw(count) gives, (count, B)."""
    if not samples or [0, *samples] != sorted({0, *samples}):
        raise ValueError(f"samples {tuple(samples)}: give whole numbers from 1 upwards, each larger than the last")
    total, done, rows = torch.tensor(-math.inf), 0, []
    for goal in samples:
        while done < goal:
            weights = draw(min(at_once, goal - done))
            total = torch.logaddexp(total.to(weights), weights.logsumexp(0))
            done += len(weights)
        rows.append(total - math.log(goal))
    return torch.stack(rows)


def _log_weights(
    model: VAE, x: Tensor, mean: Tensor, log_var: Tensor, count: int, generator: Generator | None
) -> Tensor:
    """log p(x|z) p(z)/q(z|x) for `count` draws z ~ q(z|x) of each image, (count, B)."""
    # eps and z are (count, B, D)
    eps = torch.randn(count, *mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
    z = mean + (0.5 * log_var).exp() * eps
    # log p(z) − log q(z|x); the constants of the two normals are the same
    log_ratio = 0.5 * (eps**2 + log_var - z**2).sum(-1)
    log_likelihood = model.log_likelihood(x.flatten(1).repeat(count, 1), z.flatten(0, 1))
    return log_likelihood.view(count, -1) + log_ratio


def bounds(model: VAE, pixels: Tensor, prepare: Prepare, samples: int = 500, seed: int = 0) -> dict[str, float]:
    """−ELBO and −log p(x) by importance weighting, means over the images in nats, each with its standard error.

    pixels: (N, 1, 28, 28) uint8. The seed decides the binarized images and all noise.
    """
    generator = Generator(pixels.device).manual_seed(seed)
    parts = [
        importance_weighted_bounds(model, prepare(part, generator), sorted({1, samples}), generator)[[0, -1]]
        for part in pixels.split(512)
    ]
    elbos, tighter = torch.cat(parts, dim=1)
    elbo, elbo_error = mean_and_standard_error(elbos)
    bound, bound_error = mean_and_standard_error(tighter)
    return {
        "negative_elbo": -elbo,
        "negative_elbo_error": elbo_error,
        f"importance_weighted_{samples}": -bound,
        f"importance_weighted_{samples}_error": bound_error,
    }


@torch.no_grad()
def dequantized_bounds(
    model: ImageFlow, x: Tensor, samples: Sequence[int], generator: Generator | None = None
) -> Tensor:
    """log 1/K Σ_k p(x + u_k)/q(u_k|x), u_k ~ q(u|x), for each K in nats: lower bounds on log P(x).

    x: (B, 1, 28, 28), whole numbers 0…255. samples: every K, at least 1 and rising. Returns (len(samples), B); K = 1
    is the usual dequantized likelihood, and the draws are nested. Hoogeboom et al. 2020, section 3.
    """
    return _nested(lambda count: model.elbo(x, generator)[None], samples, at_once=1)


def flow_bounds(
    model: ImageFlow, pixels: Tensor, prepare: Prepare, samples: int = 16, seed: int = 0
) -> dict[str, float]:
    """Bits per dimension by one draw of the dequantization and by importance weighting, means with standard errors.

    pixels: (N, 1, 28, 28) uint8. The seed decides all noise.
    """
    generator = Generator(pixels.device).manual_seed(seed)
    parts = [
        dequantized_bounds(model, prepare(part, generator), sorted({1, samples}), generator)[[0, -1]]
        for part in pixels.split(500)
    ]
    one, tighter = (mean_and_standard_error(bits_per_dim(own)) for own in torch.cat(parts, dim=1))
    return {
        "bits_per_dim": one[0],
        "bits_per_dim_error": one[1],
        f"importance_weighted_{samples}": tighter[0],
        f"importance_weighted_{samples}_error": tighter[1],
    }


def mean_loss(model: Game, points: Tensor, prepare: Prepare) -> dict[str, float]:
    """The mean of the one player's loss over the points, as in training."""
    [values] = evaluate(model, points, prepare).values()
    return values


def active_units(means: Tensor, threshold: float = 0.01) -> Tensor:
    """Which latent units say something: those whose posterior mean varies over the images by more than the threshold.

    means: (N, D), E[z|x] of N images. Returns (D,), True where Var_x E[z_i|x] > threshold.
    Burda, Grosse & Salakhutdinov 2016, section 5.
    """
    return means.var(0) > threshold


def linear_probe_accuracy(codes: Tensor, labels: Tensor, test_codes: Tensor, test_labels: Tensor) -> float:
    """Share of the test labels, 0 to 1, that a linear classifier of the codes gets right (Alain & Bengio 2017).

    Codes: (N, D). Labels: (N,) integers. Multinomial logistic regression on codes that are standardised by the mean
    and standard deviation of the training codes; scikit-learn's, with its default L2 penalty.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    probe.fit(codes.detach().cpu().numpy(), labels.cpu().numpy())
    return float(probe.score(test_codes.detach().cpu().numpy(), test_labels.cpu().numpy()))


# ---------------------------------------------------------------- samples without a likelihood


def accuracy(model: DigitClassifier, rows: Tensor, prepare: Prepare, seed: int = 0) -> dict[str, float]:
    """Shares of the digits that are named rightly, from grey values and from binary draws; rows: (N, 785) uint8."""
    generator = Generator(rows.device).manual_seed(seed)
    pixels, labels = rows[:, :-1], rows[:, -1]
    kinds = {"grey": pixels / 255, "binary": torch.bernoulli(pixels / 255, generator=generator)}
    return {f"accuracy_{kind}": _share(in_parts(model, x).argmax(1) == labels) for kind, x in kinds.items()}


def _share(events: Tensor) -> float:
    """How often that is true, from 0 to 1. On the CPU, because not every device has float64."""
    return events.cpu().double().mean().item()


@torch.no_grad()
def in_parts(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """function(x), computed for 250 rows at a time: that bounds the memory, and the parts fit into a CPU's cache."""
    return torch.cat([function(part) for part in x.split(250)])


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """|μ₁ − μ₂|² + tr(C₁ + C₂ − 2 (C₁C₂)^½) for the means μ and covariances C of two sets of features.

    first, second: (N, F) and (M, F). It is the squared Wasserstein distance of the two normals (Dowson & Landau 1982;
    Heusel et al. 2017 for images), computed on the CPU in float64, and biased upwards for small sets. Raises ValueError
    where a set has no more rows than features, because its covariance is then singular.
    """
    for features in (first, second):
        if len(features) <= features.shape[1]:
            raise ValueError(
                f"{len(features)} samples of {features.shape[1]} features have a singular covariance: "
                "give more samples than features"
            )
    first, second = first.cpu().double(), second.cpu().double()
    covariances = [torch.atleast_2d(torch.cov(own.T)) for own in (first, second)]
    root = _root(covariances[0])
    # the eigenvalues of C₁C₂ are those of C₁^½ C₂ C₁^½, which is symmetric
    trace = _root(root @ covariances[1] @ root).trace()
    means = ((first.mean(0) - second.mean(0)) ** 2).sum()
    return (means + first.var(0).sum() + second.var(0).sum() - 2 * trace).item()


def _root(matrix: Tensor) -> Tensor:
    """The positive semi-definite square root of such a matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


def histogram(digits: Tensor) -> Tensor:
    """Shares of the ten digits, (10,), float64 on the CPU, among digits (N,), integers from 0 to 9."""
    return torch.bincount(digits.cpu(), minlength=10).double() / len(digits)


def histogram_kl(samples: Tensor, reference: Tensor) -> float:
    """KL(samples ‖ reference) of two histograms (10,), in nats; infinite where only the samples have a digit."""
    return torch.xlogy(samples, samples / reference).nan_to_num(0.0, posinf=math.inf).sum().item()


def precision_and_recall(real: Tensor, fake: Tensor, neighbours: int = 3) -> tuple[float, float]:
    """Share of fakes in the manifold of the reals, and of reals in that of the fakes, each from 0 to 1.

    real, fake: features (N, F), (M, F). A set's manifold is the union of balls around its points, each reaching to the
    point's k-th nearest neighbour in the set. Kynkäänniemi et al. 2019, section 3.
    """

    def share_inside(points: Tensor, centres: Tensor) -> float:
        distances = (torch.cdist(own, centres) for own in centres.split(1000))
        radii = torch.cat([own.topk(neighbours + 1, largest=False).values[:, -1] for own in distances])
        inside = [(torch.cdist(own, centres) <= radii).any(1) for own in points.split(1000)]
        return _share(torch.cat(inside))

    return share_inside(fake, real), share_inside(real, fake)


def nearest(images: Tensor, training: Tensor) -> tuple[Tensor, Tensor]:
    """For each image the Euclidean distance to the nearest training image, (N,), and that one's index, (N,).

    images: (N, 784). training: (M, 784).
    """
    found = [torch.cdist(part, training).min(1) for part in images.split(500)]
    return torch.cat([own.values for own in found]), torch.cat([own.indices for own in found])


def sample_quality(samples: Tensor, real: Tensor, classifier: DigitClassifier) -> dict[str, float]:
    """What can be said of samples without a likelihood, in the features of the classifier.

    samples, real: (N, 784) or (N, 1, 28, 28) in [0, 1]. frechet_floor is the distance between two random halves of the
    real images: not zero, because sets are finite. (Halves by position are no floor: MNIST's files are ordered by
    writer.) Comparable only with the same classifier and the same number of images.
    """
    features, real_features = in_parts(classifier.features, samples), in_parts(classifier.features, real)
    logits, real_logits = classifier.head(features).detach(), classifier.head(real_features).detach()
    shares = histogram(logits.argmax(1))
    precision, recall = precision_and_recall(real_features, features)
    order = torch.randperm(len(real), generator=Generator().manual_seed(0)).to(real.device)
    return {
        "frechet": frechet_distance(features, real_features),
        "frechet_floor": frechet_distance(*real_features[order].tensor_split(2)),
        "histogram_kl": histogram_kl(shares, histogram(real_logits.argmax(1))),
        "rarest_digit": shares.min().item(),
        "confident": _share(logits.softmax(1).amax(1) > 0.9),
        "precision": precision,
        "recall": recall,
    }
