"""The recipe: what an epoch shows of an image, the average, the schedule, what each optimizer moves."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.images.deep import networks, recipe
from experiments.images.deep.recipe import Recipe

IMAGES = jax.random.randint(jax.random.key(0), (8, 8, 8, 3), 0, 256).astype(jnp.uint8)
LABELS = jnp.arange(8) % 3
SIDE = jnp.arange(8) % 2
NETWORK = networks.get("conv-small", num_classes=3)
VARIABLES = NETWORK.init(jax.random.key(1), IMAGES, train=False)


class Seen:
    """Stands for a network: it keeps the images that it is shown."""

    def apply(self, variables: Any, images: jax.Array, train: bool, mutable: Any) -> Any:
        self.images = images
        return variables["params"]["logits"], {"batch_stats": variables["batch_stats"]}


@pytest.mark.parametrize("step", [0, 4, 5, 9, 10])
def test_each_image_is_seen_from_both_sides_in_turn(step: int) -> None:
    seen, state = Seen(), {"batch_stats": {}, "step": jnp.asarray(step)}
    params = {"logits": jnp.zeros((8, 3))}
    recipe.loss(seen, Recipe(smoothing=0.0), 5, params, state, (IMAGES, LABELS, SIDE))
    mirrored = [bool((SIDE[i] + step // 5) % 2) for i in range(8)]
    for image, shown, flipped in zip(IMAGES, seen.images, mirrored, strict=True):
        np.testing.assert_array_equal(shown, image[:, ::-1] if flipped else image)


def test_loss_is_the_cross_entropy_with_smoothed_labels() -> None:
    logits = jax.random.normal(jax.random.key(2), (8, 3))
    state = {"batch_stats": {}, "step": jnp.asarray(0)}
    value, (new, metrics) = recipe.loss(
        Seen(), Recipe(smoothing=0.3), 5, {"logits": logits}, state, (IMAGES, LABELS, SIDE)
    )
    targets = 0.7 * np.eye(3)[np.asarray(LABELS)] + 0.1
    expected = -(targets * np.asarray(jax.nn.log_softmax(logits))).sum(1).mean()
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert int(new["step"]) == 1
    assert float(metrics["accuracy"]) == 100 * np.mean(np.argmax(logits, 1) == np.asarray(LABELS))


def test_shifts_are_windows_of_the_mirrored_border() -> None:
    shown, labels, side = recipe.augment(Recipe(shift=2), jax.random.key(3), (IMAGES, LABELS, SIDE))
    assert shown.dtype == IMAGES.dtype and labels is LABELS and side is SIDE
    corners = []
    for image, found in zip(np.asarray(IMAGES), np.asarray(shown), strict=True):
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="reflect")
        fits = [(i, j) for i in range(5) for j in range(5) if np.array_equal(padded[i : i + 8, j : j + 8], found)]
        assert len(fits) == 1
        corners += fits
    assert len(set(corners)) > 3
    assert recipe.augment(Recipe(shift=0), jax.random.key(3), (IMAGES, LABELS, SIDE))[0] is IMAGES


def test_the_average_follows_its_formula_and_is_what_is_evaluated() -> None:
    options, batch = Recipe(decay=0.5), (IMAGES, LABELS, SIDE)
    state = recipe.first_state(VARIABLES, options)
    expected, params = VARIABLES["params"]["head"]["kernel"], VARIABLES["params"]
    for step in range(12):
        params = jax.tree.map(lambda leaf: leaf + 1.0, params)
        _, (state, _) = recipe.loss(NETWORK, options, 5, params, state, batch)
        keep = min(0.5, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * params["head"]["kernel"]
    np.testing.assert_allclose(state["average"]["head"]["kernel"], expected, rtol=1e-5)
    assert recipe.evaluated(params, state)["params"] is state["average"]
    plain = recipe.first_state(VARIABLES, Recipe())
    assert recipe.evaluated(params, plain)["params"] is params


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_the_rate_rises_and_falls_and_decay_is_for_kernels_alone(optimizer: Any) -> None:
    options = Recipe(optimizer=optimizer, peak=0.5, adam_peak=0.5, warmup=0.25, first=0.2, last=0.1, weight_decay=0.1)
    moved = recipe.optimizer(options, 100)
    params = jax.tree.map(jnp.ones_like, VARIABLES["params"])
    nothing = jax.tree.map(jnp.zeros_like, params)
    state, rates, update = moved.init(params), [], jax.jit(moved.update)
    for _ in range(100):  # without gradients, only the decay moves anything: by rate x 0.1
        updates, state = update(nothing, state, params)
        rates.append(-10 * float(updates["head"]["kernel"][0, 0]))
        assert all(not np.any(updates[name][leaf]) for name, leaf in (("head", "bias"), ("first", "bias")))
    np.testing.assert_allclose([rates[0], rates[25], rates[-1]], [0.1, 0.5, 0.05], rtol=1e-4)
    assert np.argmax(rates) == 25


def test_muon_orthogonalises_the_kernels_of_convolutions_but_the_first() -> None:
    moved = recipe.optimizer(Recipe(optimizer="muon", peak=1.0, weight_decay=0.0, first=1.0), 10)
    params = VARIABLES["params"]
    gradients = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(4), leaf.shape), params)
    updates, _ = moved.update(gradients, moved.init(params), params)
    kernel = updates["block1"]["conv"]["kernel"]
    singular = np.linalg.svd(np.asarray(kernel.reshape(-1, kernel.shape[-1])), compute_uv=False)
    assert singular.max() / singular.min() < 3
    first = updates["first"]["kernel"]
    np.testing.assert_allclose(np.abs(first), Recipe().adam_peak * np.ones(first.shape), rtol=1e-3)  # Adam's first step


def test_mistakes_are_said() -> None:
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\), got 1.0"):
        Recipe(decay=1.0)
    with pytest.raises(ValueError, match="epochs must be positive, got 0"):
        Recipe(epochs=0)
    assert Recipe(epochs=2.5, batch_size=100).steps(1050) == 25
