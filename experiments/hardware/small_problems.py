"""Problems of at most some 20 bits, which every sampler can take: enumeration, statevectors, embedded chips.

SmallHead     a classifier's head of one bit per weight, near its continuous solution: `images.lowbit` made small
SmallGlass    the planted double-well glass of `landscapes.synthetic`, made small

Each gives params, a true loss and a formulation for the hybrid step of `qjax.hybrid`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import qjax
from experiments.data.sources import load
from experiments.landscapes.functions import glass, glass_value
from qjax.formulate.quadratic import Quadratic

_NEWTON_STEPS = 12


@dataclass(frozen=True)
class SmallHead:
    """Odd against even digits by logistic regression on the `features` leading principal components (no intercept):

    w in {-s, +s}^features,  s the mean |w| of the continuous solution;  Gauss-Newton there, over the training digits
    """

    features: int = 16
    rows: int = 1200
    damping: float = 1e-3

    @property
    def name(self) -> str:
        return f"head-{self.features}bit"

    @property
    def data_title(self) -> str:
        return "digits (scikit-learn)"

    def instance(self, seed: int) -> tuple[Any, Any]:
        """(params, data); the seed chooses the training digits."""
        digits = load("digits")
        chosen = np.random.default_rng(seed).permutation(len(digits.train_labels))[: self.rows]
        pixels = digits.train_images[chosen].reshape(len(chosen), -1).astype(np.float64)
        centred = pixels - pixels.mean(0)
        parts = np.linalg.svd(centred, full_matrices=False)[2][: self.features]
        x = centred @ parts.T
        x /= x.std(0)
        data = (jnp.asarray(x, jnp.float32), jnp.asarray(digits.train_labels[chosen] % 2, jnp.float32))
        weights = jnp.zeros(self.features, jnp.float32)
        for _ in range(_NEWTON_STEPS):
            weights = _newton(weights, data, self.damping)
        return {"w": weights}, data

    def loss(self, params: Any, data: Any) -> jax.Array:
        return _logistic(jnp.matmul(data[0], params["w"], precision="highest"), data[1])

    def formulate(self, params: Any, data: Any) -> tuple[Quadratic, Any]:
        step = jnp.abs(params["w"]).mean()
        return qjax.gauss_newton(_scores, _score_loss, params, *data), qjax.encode(params, {"w": qjax.Sign(step=step)})


@dataclass(frozen=True)
class SmallGlass:
    """w = s, s in {-1, 1}^size, under the Hessian of the glass at the centre of its box."""

    size: int = 16
    alpha: float = 0.95
    height: float = 1.0

    @property
    def name(self) -> str:
        return f"glass-{self.size}bit"

    @property
    def data_title(self) -> str:
        return ""

    def instance(self, seed: int) -> tuple[Any, Any]:
        """(params, data)."""
        landscape = glass(self.size, self.alpha, self.height, seed)
        return {"w": jnp.zeros(self.size)}, landscape.data

    def loss(self, params: Any, data: Any) -> jax.Array:
        return glass_value(params["w"], data)

    def formulate(self, params: Any, data: Any) -> tuple[Quadratic, Any]:
        return qjax.hessian(self.loss, params, data), qjax.encode(params, {"w": qjax.Sign(step=1.0)})


@jax.jit
def _newton(weights: jax.Array, data: Any, damping: float) -> jax.Array:
    def penalised(w: jax.Array) -> jax.Array:
        return _logistic(jnp.matmul(data[0], w, precision="highest"), data[1]) + 0.5 * damping * (w * w).sum()

    return weights - jnp.linalg.solve(jax.hessian(penalised)(weights), jax.grad(penalised)(weights))


def _scores(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.matmul(x, params["w"], precision="highest")


def _score_loss(scores: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    return _logistic(scores, y)


def _logistic(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy of labels 0/1 under sigmoid(scores)."""
    return (jnp.logaddexp(jnp.zeros_like(scores), scores) - labels * scores).mean()
