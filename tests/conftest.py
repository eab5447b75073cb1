"""What several test files share."""

import importlib.util
import multiprocessing
import os
import signal
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.distributions import Bernoulli, Normal
from torch.func import jacrev
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gm_helpers.flows import Flatten, ImageFlow
from gm_helpers.vae import VAE

# Processes that are to be killed are forked from a server that has imported torch and torchvision once for all.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["pytest", "gm_helpers.checkpoint", "gm_helpers.data", "torchvision.datasets"])


@pytest.fixture
def style():
    """The course's style; figures are closed after the test."""
    import matplotlib.pyplot as plt

    from gm_helpers import figures

    with plt.rc_context():
        figures.use_style()
        yield
    plt.close("all")


@pytest.fixture(scope="module")
def browser():
    """A Chromium; where there is none the test is skipped, and fails in CI."""
    from browser import chromium, installed

    if not (path := installed()):
        without = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        without("no Chromium here: install the package chromium, and these tests will run")
    with chromium(path) as own:
        yield own


def script(path: Path):
    """A Python file of the project that is no module of the package, imported."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    own = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))  # as Python does
    try:
        spec.loader.exec_module(own)
    finally:
        sys.path.remove(str(path.parent))
    return own


@pytest.fixture
def interruptible():
    """Python's own handler of Ctrl-C, which a shell takes away from what it starts in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def shown(monkeypatch):
    """What `display` was given, with its keywords; widgets and figures are closed after the test."""
    import matplotlib.pyplot as plt

    from gm_helpers import explore, figures, pages

    calls = []
    for module in (explore, figures, pages):
        monkeypatch.setattr(
            module, "display", lambda content, **how: calls.append(SimpleNamespace(content=content, **how))
        )
    yield calls
    while explore.live:
        explore.live.popitem()[1].close()
    plt.close("all")


@contextmanager
def handled(number, handler):
    """A signal has that handler meanwhile."""
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same(one, other) -> bool:
    """Equal to the bit and of the same types, at any depth."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=seeded(seed))


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=seeded(seed))


def randomized(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """The module in float64 and eval mode, every parameter drawn anew: nothing begins as zero or as the identity."""
    generator = seeded(seed)
    for name, parameter in module.double().eval().named_parameters():
        inputs = parameter[0].numel() if name.endswith("weight") else 10
        parameter.data.normal_(0, inputs**-0.5, generator=generator)
    return module


def jacobian(bijection: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """∂z/∂x at one example x, as a square matrix, of a layer or flow that gives z and a log-determinant."""
    matrix = jacrev(lambda own: bijection(own[None])[0][0], chunk_size=98)(x)
    return matrix.reshape(x.numel(), x.numel()).detach()


def random_vae(latent_dim: int, seed: int = 0, hidden: int = 16, kind: type[VAE] = VAE) -> VAE:
    """A VAE in float64 whose weights and biases are all far from 0, and whose posterior is wider than a grid step."""
    model, generator = kind(latent_dim, hidden).double(), seeded(seed)
    scales = {"trunk.1": 0.05, "mean_head": 0.25, "log_var_head": 0.2, "decoder.0": 1.0, "decoder.2": 0.1}
    for name, parameter in model.named_parameters():
        parameter.data.normal_(0, scales[name.rpartition(".")[0]], generator=generator)
    return model


def random_images(n: int, seed: int = 0) -> torch.Tensor:
    """Zeros and ones in float64, (n, 1, 28, 28)."""
    return torch.bernoulli(torch.full((n, 1, 28, 28), 0.3, dtype=torch.float64), generator=seeded(seed))


def random_grey_images(n: int, seed: int = 0) -> torch.Tensor:
    """Independent whole numbers from 0 to 255 in float64, (n, 1, 28, 28)."""
    return torch.randint(0, 256, (n, 1, 28, 28), generator=seeded(seed)).double()


def log_joint_on_grid(model: VAE, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """log p(x, z) of a VAE with one latent dimension at the points z of a fine grid: z (Z, 1), log p (B, Z)."""
    z = torch.linspace(-25, 25, 10_001, dtype=torch.float64)[:, None]
    likelihood = Bernoulli(logits=model.decode(z).detach())
    log_likelihood = torch.stack([likelihood.log_prob(image).sum(1) for image in x.flatten(1)])
    return z, log_likelihood + Normal(0.0, 1.0).log_prob(z.T)


def independent_flow(alpha: float = 0.05, seed: int = 0) -> ImageFlow:
    """An image flow in float64 that learns nothing but a shift and a scale for each pixel, here random ones."""
    return randomized(ImageFlow([Flatten((1, 28, 28))], alpha), seed)


def independent_log_probabilities(model: ImageFlow, alpha: float = 0.05) -> torch.Tensor:
    """log P(x) of each grey value at each pixel of an `independent_flow`, exact: (256, 784).

    A pixel's latent z rises with y, and so P(x) is what the normal has between z(x) and z(x + 1).
    """
    shift, log_scale = (own.detach().flatten() for own in model.parameters())
    share = alpha + (1 - 2 * alpha) * torch.arange(257, dtype=torch.float64) / 256
    z = (torch.log(share / (1 - share))[:, None] + shift) * log_scale.exp()
    low, high = z[:-1], z[1:]
    tail = low > 0  # there the differences of Φ(−z) keep their digits
    cdf = Normal(0.0, 1.0).cdf
    return torch.where(tail, cdf(-low) - cdf(-high), cdf(high) - cdf(low)).log()


class NoFloat64(torch.Tensor):
    """Stands in for a tensor on a GPU of Apple's: it refuses float64 until it has been brought to the CPU."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        found = super().__torch_function__(function, types, args, kwargs or {})
        if function is torch.Tensor.cpu:
            return found.as_subclass(torch.Tensor)
        if isinstance(found, torch.Tensor) and found.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return found


class Recording(TorchDispatchMode):
    """Stands in for a CUDA graph: records torch's operations, and replays them into the tensors of then."""

    def __init__(self):
        super().__init__()
        self.calls, self.register_generator_state = [], lambda generator: None

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.ops.aten._local_scalar_dense.default:  # somebody asks for a number
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        result = function(*args, **kwargs)
        self.calls.append((function, args, kwargs, result))
        return result

    @torch.no_grad()
    def replay(self):
        for function, args, kwargs, result in self.calls:
            for own, new in zip(tree_leaves(result), tree_leaves(function(*args, **kwargs)), strict=True):
                if isinstance(own, torch.Tensor) and own.data_ptr() != new.data_ptr():  # neither in place nor a view
                    own.copy_(new)


@pytest.fixture
def gpu(monkeypatch):
    """Stands in for CUDA, which a test machine has not: generators say that they are there, tensors lie on the CPU."""

    class Device(str):
        type = "cuda"

    class Generator(torch.Generator):
        device = Device("cpu")
        clone_state = torch.Generator.get_state
        graphsafe_set_state = torch.Generator.set_state

    names = {"CUDAGraph": Recording, "graph": lambda recording: recording, "current_device": lambda: 0}
    names |= dict.fromkeys(("device", "stream", "Stream", "synchronize"), lambda *_: nullcontext())
    names |= {"get_rng_state": lambda _: torch.ones(1), "set_rng_state": lambda *_: None}
    for name, own in names.items():
        monkeypatch.setattr(torch.cuda, name, own)
    monkeypatch.setattr(torch, "Generator", Generator)
    monkeypatch.setattr(torch.cuda, "default_generators", [Generator()])
