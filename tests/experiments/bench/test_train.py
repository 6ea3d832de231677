"""The comparison with PyTorch is honest: the same numbers from the same weights, and a verdict from paired rates."""

import importlib.util
from dataclasses import asdict, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.bench.train import BOUND, SMOKE, BenchTrain, bench_train, shape, table
from experiments.harness.presentation.cells import UsageError
from experiments.images.deep import networks, recipe
from experiments.images.models import scaled

IMAGES = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
LABELS = np.random.default_rng(1).integers(0, 10, 16, dtype=np.int32)


@pytest.fixture(autouse=True)
def as_flax_assumes() -> Any:
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def both(name: str) -> tuple[Any, Any, Any]:
    """The network, its variables with BatchNorm's scales and biases off their start, and PyTorch's with the same."""
    pytest.importorskip("torch", reason="comes with its own set (third_party/README.md)")
    from experiments.bench.torch_network import ConvNetwork, assign

    network = networks.get(name)
    variables = network.init(jax.random.key(0), IMAGES, train=False)
    leaves, tree = jax.tree.flatten(variables["params"])
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [leaf + 0.1 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    params = jax.tree.unflatten(tree, moved)
    peer = ConvNetwork(**shape(network))
    assign(peer, jax.tree.map(np.asarray, params))
    return network, {**variables, "params": params}, peer


def weights_of(peer: Any, read: Any) -> dict[str, Any]:
    """`read` of PyTorch's parameters as flax names and shapes them."""
    kernel = lambda parameter: read(parameter).permute(*((2, 3, 1, 0) if parameter.ndim == 4 else (1, 0))).numpy()  # noqa: E731
    layer = lambda module: {"kernel": kernel(module.weight), "bias": read(module.bias).numpy()}  # noqa: E731
    found: dict[str, Any] = {"first": layer(peer.first), "head": layer(peer.head)}
    for number, block in enumerate(peer.blocks):
        norm = {"scale": read(block[-2].weight).numpy(), "bias": read(block[-2].bias).numpy()}
        found[f"block{number}"] = {"conv": {"kernel": kernel(block[0].weight)}, "norm": norm}
    return found


def assert_same(found: Any, expected: Any, tolerance: float) -> None:
    """Every leaf, within `tolerance` of its largest entry."""
    assert jax.tree.structure(found) == jax.tree.structure(jax.tree.map(np.asarray, expected))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=tolerance * float(np.max(np.abs(other))), rtol=0)


@pytest.mark.parametrize(
    "name", ["conv-small", *(pytest.param(name, marks=pytest.mark.slow) for name in ("conv", "conv-residual"))]
)
def test_both_compute_the_same_logits_and_the_same_gradient(name: str) -> None:
    network, variables, peer = both(name)
    import torch

    from experiments.bench import torch_network

    options = replace(recipe.Recipe(), flip=False)
    state, batch = recipe.first_state(variables, options), (IMAGES, LABELS, 0 * LABELS)
    logits, _ = network.apply(variables, IMAGES, train=True, mutable=["batch_stats"])
    found = peer(torch_network.scaled(torch.from_numpy(IMAGES)))
    np.testing.assert_allclose(found.detach().numpy(), logits, atol=1e-4 * float(jnp.max(jnp.abs(logits))), rtol=0)
    given = (variables["params"], state, batch)
    (value, _), gradient = jax.jit(jax.value_and_grad(lambda *a: recipe.loss(network, options, 1, *a), has_aux=True))(
        *given
    )
    smoothed = torch.nn.CrossEntropyLoss(label_smoothing=options.smoothing)(found, torch.from_numpy(LABELS).long())
    smoothed.backward()
    assert smoothed.item() == pytest.approx(float(value), rel=1e-5)
    assert_same(weights_of(peer, lambda parameter: parameter.grad), gradient, 1e-3)


def test_both_optimizers_make_the_same_steps_from_the_same_gradients() -> None:
    _, variables, peer = both("conv-small")
    import torch

    from experiments.bench.torch_network import Training

    length = 8
    options = replace(recipe.Recipe(), batch_size=4, peak=0.1, weight_decay=1.0)
    training = Training(peer, IMAGES, LABELS, asdict(options), length, "float32", 0)
    optimizer = recipe.optimizer(options, length)
    params, state = variables["params"], optimizer.init(variables["params"])
    update = jax.jit(optimizer.update)
    for step in range(length):
        training.update(training.loss(peer(training.batch()[0]), torch.zeros(4, dtype=torch.long)))
        gradient = jax.tree.map(np.copy, weights_of(peer, lambda parameter: parameter.grad))
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        assert training.step == step + 1
    assert_same(weights_of(peer, lambda parameter: parameter.detach()), params, 1e-4)


def test_the_batches_of_the_peer_are_shifted_and_mirrored_images() -> None:
    _, _, peer = both("conv-small")
    from experiments.bench.torch_network import Training

    options = replace(recipe.Recipe(), batch_size=8, shift=2)
    training = Training(peer, IMAGES, LABELS, asdict(options), 4, "float32", 0)
    padded = np.pad(IMAGES, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
    windows = np.stack([padded[:, i : i + 32, j : j + 32] for i in range(5) for j in range(5)], 1)
    seen: dict[tuple[int, int], int] = {}
    for step in range(4):
        training.step = step
        images, labels = training.batch()
        for image, label, row in zip(images.permute(0, 2, 3, 1).numpy(), labels, training.rows.tolist(), strict=True):
            epoch = step // 2
            shown = image[:, ::-1] if (int(training.sides[row]) + epoch) % 2 else image
            assert int(label) == LABELS[row]
            fits = [place for place in range(25) if np.array_equal(scaled(jnp.asarray(windows[row, place])), shown)]
            assert len(fits) == 1
            seen[row, epoch] = fits[0]
    assert len(seen) == 32 and len(set(seen.values())) > 5


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rates_ratio_and_verdict(dtype: Any) -> None:
    pytest.importorskip("torch", reason="comes with its own set (third_party/README.md)")
    found = bench_train(BenchTrain(**SMOKE, dtype=dtype))
    ours, torchs = (np.asarray(found["rates"][side]) for side in ("ours", "torch"))
    assert len(ours) == len(torchs) == SMOKE["repeats"] and min(*ours, *torchs) > 0
    assert found["target"]["ratio"] == pytest.approx(np.median(ours / torchs))
    assert found["target"]["met"] == (found["target"]["ratio"] >= BOUND)
    assert f"| conv-small | 32 | {found['threads']} |" in table(found) and f", {dtype}; ours" in table(found)


def test_what_cannot_be_compared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="did you mean 'conv'"):
        bench_train(BenchTrain(network="convv"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="torch, which is not installed"):
        bench_train(BenchTrain())
