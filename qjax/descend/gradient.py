"""The loss of a batch, its gradient with respect to the trainable leaves, and the model's new state."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import tree_leaves_with_path

from qjax.descend.descent import Descent
from qjax.descend.leaves import Tree, cast, leaf_name, merge, strong
from qjax.descend.placement import slow_inside_loops


class Slope(NamedTuple):
    """What a batch gives: its loss (), the gradient of that, and what the loss records."""

    loss: jax.Array
    gradient: Tree
    metrics: dict[str, jax.Array]


def objective(
    descent: Descent, free: Tree, frozen: Tree, model: Tree, batch: Tree, key: jax.Array
) -> tuple[jax.Array, tuple[Tree, dict[str, jax.Array]]]:
    """(loss (), (the model's new state, metrics)) of the batch.

    free, frozen: as of `split`; model: the model's state, None where it has none; key: used where stochastic.
    """
    inputs = [cast(merge(free, frozen), descent.compute_dtype), batch]
    if model is not None:
        inputs.insert(1, jax.tree.map(lambda leaf: leaf, model))  # nnx changes no variable made outside of this trace
    # Of a jitted loss the function: what an inner program closes over would be its constants (see qjax.descend.chunk).
    inner: Any = getattr(descent.loss, "__wrapped__", None)
    function = inner if isinstance(descent.loss, jax.stages.Wrapped) else descent.loss
    value = function(*inputs, key) if descent.stochastic else function(*inputs)
    if model is None:
        loss, metrics = value if isinstance(value, tuple) else (value, {})
    else:
        loss, model, metrics = _unpacked(value, model)
    if jnp.shape(loss) != () or not jnp.issubdtype(jnp.result_type(loss), jnp.floating):
        raise ValueError(f"the loss must be a real scalar, got {jax.typeof(loss)}")
    if not isinstance(metrics, dict) or "loss" in metrics:
        raise ValueError(f"the loss's metrics must be a dict of arrays without the name 'loss', got {metrics!r}")
    return loss, (model, {name: jnp.asarray(metric) for name, metric in metrics.items()})


def slope(descent: Descent, free: Tree, frozen: Tree, model: Tree, batch: Tree, key: jax.Array) -> tuple[Slope, Tree]:
    """(loss, gradient and metrics of the batch, the model's new state). Arguments: as of `objective`.

    Means over the microbatches. The model's state goes through them in order; number i draws from fold_in(key, i).
    """

    def whole(model: Tree, batch: Tree, key: jax.Array) -> tuple[Slope, Tree]:
        def inner(free: Tree) -> tuple[jax.Array, tuple[Tree, dict[str, jax.Array]]]:
            return objective(descent, free, frozen, model, batch, key)

        (loss, (new, metrics)), gradient = jax.value_and_grad(inner, has_aux=True)(free)
        return Slope(loss, gradient, metrics), new

    if descent.microbatch_size is None or descent.microbatch_size == descent.batch_size:
        return whole(model, batch, key)
    assert descent.batch_size is not None
    count = descent.batch_size // descent.microbatch_size
    parts = jax.tree.map(lambda leaf: leaf.reshape((count, -1, *leaf.shape[1:])), batch)

    def part(model: Tree, index: jax.Array) -> tuple[Slope, Tree]:
        return whole(model, jax.tree.map(lambda leaf: leaf[index], parts), jax.random.fold_in(key, index))

    def add(carry: tuple[Slope, Tree], index: jax.Array) -> tuple[tuple[Slope, Tree], None]:
        new, model = part(carry[1], index)
        return (jax.tree.map(jnp.add, carry[0], new), model), None

    jaxpr, (shapes, _) = jax.make_jaxpr(part, return_shape=True)(model, jnp.int32(0))
    zero: Slope = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    unroll = count if slow_inside_loops(jaxpr, descent.mesh) else 1
    (total, model), _ = jax.lax.scan(add, (zero, model), jnp.arange(count, dtype=jnp.int32), unroll=unroll)
    return jax.tree.map(lambda leaf: leaf / jnp.asarray(count, leaf.dtype), total), model


def _unpacked(value: Any, old: Tree) -> tuple[Any, Tree, Any]:
    """(loss, the model's new state, metrics) of what a loss with a state returned.

    Errors: ValueError where it is not (scalar, (state, metrics)), or where a leaf of the new state is missing,
    unknown, or of another shape or dtype than in the old one.
    """
    match value:
        case (loss, (new, metrics)):
            pass
        case _:
            raise ValueError(
                "with a state, the loss must return (scalar, (state, metrics)), got a value of the structure "
                f"{jax.tree.structure(value)}"
            )
    before, after = (
        {leaf_name(path): f"{jnp.result_type(leaf)}{jnp.shape(leaf)}" for path, leaf in tree_leaves_with_path(tree)}
        for tree in (old, new)
    )
    for name in before | after:
        if name not in after:
            raise ValueError(f"the loss's new state lacks the leaf {name!r}")
        if name not in before:
            raise ValueError(f"the loss's new state has a leaf {name!r}, which the old one lacks")
        if after[name] != before[name]:
            raise ValueError(f"the loss's new state has {name!r} as {after[name]}, the old one as {before[name]}")
    found: Any = jax.tree.structure(new)
    if found != (known := jax.tree.structure(old)):
        raise ValueError(f"the loss's new state has the structure {found}, the old one {known}")
    return loss, jax.tree.map(strong, new), metrics
