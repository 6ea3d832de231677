"""The recipe by which every row of a network is trained: augmentation, loss, average, optimizer and schedule.

data     (pixels uint8, labels, side): side is 0 or 1, drawn once for each image
flip     in epoch e the images with (side + e) odd are mirrored: each is seen from both sides in turn, which beats
         drawing a side anew (Jordan 2024, arXiv:2404.00498)
shift    by up to `shift` pixels either way, the border mirrored; drawn for every image and step
loss     cross-entropy with smoothed labels
average  of the parameters, a_{t+1} = d a_t + (1 - d) w_t with d = min(decay, (1 + t) / (10 + t)); evaluated
         instead of the last ones where decay > 0
rate     rises linearly from `first` of its peak over `warmup` of the steps, then falls linearly to `last` of it
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

Optimizer = Literal["adam", "muon"]
Batch = tuple[jax.Array, jax.Array, jax.Array]
Tree = Any


@dataclass(frozen=True)
class Recipe:
    """optimizer: adam is AdamW; muon orthogonalises the updates of convolutions and leaves the rest to AdamW, whose
    peak is then adam_peak. decay: of the average, 0 for none. frozen: whether the first layer stays as it started.
    """

    epochs: float = 8.0
    optimizer: Optimizer = "adam"
    peak: float = 5e-3
    adam_peak: float = 2e-3
    warmup: float = 0.2
    first: float = 0.1
    last: float = 0.01
    batch_size: int = 256
    weight_decay: float = 0.05
    momentum: float = 0.6
    smoothing: float = 0.1
    shift: int = 2
    flip: bool = True
    decay: float = 0.0
    frozen: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {self.decay}")
        if self.epochs <= 0:
            raise ValueError(f"epochs must be positive, got {self.epochs}")

    def steps(self, images: int) -> int:
        return max(1, round(self.epochs * (images // self.batch_size)))


def first_state(variables: Tree, recipe: Recipe) -> Tree:
    """The state that goes through training: statistics, the number of the step, the average."""
    average = {"average": variables["params"]} if recipe.decay else {}
    return {"batch_stats": variables["batch_stats"], "step": jnp.zeros((), jnp.int32), **average}


def evaluated(params: Tree, state: Tree) -> Tree:
    """The variables to evaluate with: the average, where there is one."""
    return {"params": state.get("average", params), "batch_stats": state["batch_stats"]}


def augment(recipe: Recipe, key: jax.Array, batch: Batch) -> Batch:
    """Each image shifted on its own."""
    images, labels, side = batch
    if recipe.shift:
        edge = recipe.shift
        padded = jnp.pad(images, ((0, 0), (edge, edge), (edge, edge), (0, 0)), mode="reflect")
        corners = jax.random.randint(key, (images.shape[0], 2), 0, 2 * edge + 1)

        def cut(image: jax.Array, corner: jax.Array) -> jax.Array:
            return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), images.shape[1:])

        images = jax.vmap(cut)(padded, corners)
    return images, labels, side


def loss(
    network: nn.Module, recipe: Recipe, epoch: int, params: Tree, state: Tree, batch: Batch
) -> tuple[jax.Array, tuple[Tree, dict[str, jax.Array]]]:
    """Cross-entropy in training mode, for `refine`; epoch: steps of one. Recorded: accuracy on the batch (percent)."""
    images, labels, side = batch
    if recipe.flip:
        mirrored = (side + state["step"] // epoch) % 2 == 1
        images = jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
    variables = {"params": params, "batch_stats": state["batch_stats"]}
    logits, new = network.apply(variables, images, train=True, mutable=["batch_stats"])
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), recipe.smoothing)
    after = {"batch_stats": new["batch_stats"], "step": state["step"] + 1}
    if recipe.decay:
        step = state["step"].astype(jnp.float32)
        keep = jnp.minimum(recipe.decay, (1.0 + step) / (10.0 + step))
        after["average"] = jax.tree.map(
            lambda old, now: keep * old + (1.0 - keep) * jax.lax.stop_gradient(now), state["average"], params
        )
    right = 100.0 * jnp.mean(jnp.argmax(logits, -1) == labels)
    return optax.softmax_cross_entropy(logits, targets).mean(), (after, {"accuracy": right})


def optimizer(recipe: Recipe, steps: int) -> optax.GradientTransformation:
    """The optimizer with its schedule; weight decay on kernels alone, decoupled, in proportion to the rate."""
    rate = partial(_one_cycle, recipe, steps)
    decay = {"weight_decay": recipe.weight_decay}
    if recipe.optimizer == "adam":
        return optax.adamw(rate(recipe.peak), mask=_kernels, **decay)
    spec = optax.contrib.MuonDimensionNumbers((0, 1, 2), 3)  # a kernel (h, w, in, out) is the matrix (h w in) x out
    muon = optax.contrib.muon(
        rate(recipe.peak), beta=recipe.momentum, muon_weight_dimension_numbers=lambda tree: _each(tree, spec), **decay
    )
    return optax.partition(
        {"muon": muon, "adam": optax.adamw(rate(recipe.adam_peak), mask=_kernels, **decay)}, _by_kind
    )


def _one_cycle(recipe: Recipe, steps: int, peak: float) -> Callable[[Any], Any]:
    rise = max(1, round(recipe.warmup * steps))
    up = optax.linear_schedule(recipe.first * peak, peak, rise)
    down = optax.linear_schedule(peak, recipe.last * peak, max(1, steps - rise - 1))
    return optax.join_schedules([up, down], [rise])


def _kernels(params: Tree) -> Tree:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _by_kind(params: Tree) -> Tree:
    """Kernels of convolutions but the first are Muon's, all else Adam's."""

    def kind(path: tuple[Any, ...], leaf: jax.Array) -> str:
        return "muon" if leaf.ndim == 4 and path[0].key != "first" else "adam"

    return jax.tree_util.tree_map_with_path(kind, params)


def _each(tree: Tree, value: Any) -> Tree:
    return jax.tree.map(lambda leaf: value, tree)
