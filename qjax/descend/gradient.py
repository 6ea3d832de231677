"""The loss of a batch and its gradient with respect to the trainable leaves."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from qjax.descend.descent import Descent
from qjax.descend.leaves import Tree


def mean_gradient(descent: Descent, objective: Callable[..., Any], free: Tree, batch: Tree, key: jax.Array) -> Any:
    """((loss, metrics), gradient) of the batch: the means over its microbatches, of which number i draws from
    fold_in(key, i)."""
    slope = jax.value_and_grad(objective, has_aux=True)
    if descent.microbatch_size is None or descent.microbatch_size == descent.batch_size:
        return slope(free, batch, key)
    assert descent.batch_size is not None
    count = descent.batch_size // descent.microbatch_size
    parts = jax.tree.map(lambda leaf: leaf.reshape((count, -1, *leaf.shape[1:])), batch)

    def part(index: jax.Array) -> Any:
        rows = jax.tree.map(lambda leaf: leaf[index], parts)
        return slope(free, rows, jax.random.fold_in(key, index))

    def add(total: Tree, index: jax.Array) -> tuple[Tree, None]:
        return jax.tree.map(jnp.add, total, part(index)), None

    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(part, jnp.int32(0)))
    total, _ = jax.lax.scan(add, zero, jnp.arange(count, dtype=jnp.int32))
    return jax.tree.map(lambda leaf: leaf / jnp.asarray(count, leaf.dtype), total)


def checked(value: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    """What a loss returned, as (scalar, dict of arrays). ValueError where it is neither that nor a scalar."""
    loss, metrics = value if isinstance(value, tuple) else (value, {})
    if jnp.shape(loss) != () or not jnp.issubdtype(jnp.result_type(loss), jnp.floating):
        raise ValueError(f"the loss must be a real scalar, got {jax.typeof(loss)}")
    if not isinstance(metrics, dict) or "loss" in metrics:
        raise ValueError(f"the loss's second value must be a dict of arrays without the name 'loss', got {metrics!r}")
    return loss, {name: jnp.asarray(metric) for name, metric in metrics.items()}
