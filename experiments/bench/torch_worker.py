"""What runs in PyTorch's own process, so that its threads and XLA's never wait for one another. Imports no JAX."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.bench.torch_network import Training

_loaded: list["Training"] = []


def load(
    threads: int,
    shape: dict[str, Any],
    params: Any,
    images: Any,
    labels: Any,
    recipe: dict[str, Any],
    length: int,
    dtype: str,
) -> str:
    """Builds the network from flax's parameters (NumPy arrays), its data and its optimizer; returns torch's version."""
    import torch

    from experiments.bench.torch_network import ConvNetwork, Training, assign

    torch.set_num_threads(threads)
    network = ConvNetwork(**shape)
    assign(network, params)
    _loaded[:] = [Training(network, images, labels, recipe, length, dtype, seed=0)]
    return str(torch.__version__)


def run(steps: int) -> float:
    """The seconds of this many steps."""
    return _loaded[0].run(steps)
