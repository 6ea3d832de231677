"""Filters from data, for layers that are not trained yet: windows of the input, whitened (the literature's patches).

    w_k = s_k (C + shrink tr(C)/d I)^-1 (p_k - m),   bias_k = -w_k . m,   s_k such that w_k . p has unit deviation

m and C are mean and covariance of a layer's input windows, p_k some of them. C^-1 is the whitening applied twice: the
response w . x compares x and p_k after whitening both. Source: Coates and Ng 2012, Learning feature representations
with k-means.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments.images.models import gather_windows


class Filters(NamedTuple):
    """kernel (size, size, C, count) and bias (count,) of a convolution."""

    kernel: jax.Array
    bias: jax.Array


def whitened(
    key: jax.Array, inputs: jax.Array, count: int, size: int, stride: int, shrink: float, num_windows: int = 10000
) -> Filters:
    """`count` filters from windows of inputs (N, H, W, C), float: what the layer will see.

    shrink > 0 keeps directions of little variance from taking over; num_windows are drawn for m and C.
    Errors: ValueError for fewer windows than filters.
    """
    windows = gather_windows(inputs, size, stride)
    windows = windows.reshape(-1, windows.shape[-1])
    total = windows.shape[0]
    used = min(num_windows, total)
    if count > used:
        raise ValueError(f"{count} filters need as many windows, and there are {used}")
    windows = windows[jax.random.randint(key, (used,), 0, total)]
    mean = windows.mean(0)
    centred = windows - mean[None, :]
    product = functools.partial(jnp.matmul, precision="highest")
    covariance = product(centred.T, centred) / used
    width = covariance.shape[0]
    ridge = shrink * jnp.trace(covariance) / width * jnp.eye(width, dtype=covariance.dtype)
    # Windows are drawn independently, so the first of them are as random as any.
    kernel = jax.scipy.linalg.solve(covariance + ridge, centred[:count].T, assume_a="pos")
    kernel = kernel / jnp.maximum(product(centred, kernel).std(0), 1e-6)[None, :]
    return Filters(kernel.reshape(size, size, inputs.shape[-1], count), -product(mean, kernel))
