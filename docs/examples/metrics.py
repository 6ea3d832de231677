"""The metrics of a descent, and the round before it, in TensorBoard. Needs `pip install ".[tensorboard]"`."""

import tempfile

import jax
import jax.numpy as jnp
import optax

import qjax
from qjax.interop import loggers

rows = jax.random.normal(jax.random.key(0), (500, 8))
noise = 0.1 * jax.random.normal(jax.random.key(1), (500,))
data = rows, rows @ jnp.linspace(-1, 1, 8) + noise


def loss(params, batch):
    return jnp.mean((batch[0] @ params["w"] - batch[1]) ** 2)


def formulate(params, radius):
    return qjax.hessian(loss, params, data), qjax.encode(params, {"w": qjax.FixedPoint(bits=2, step=0.5 * radius)})


if __name__ == "__main__":
    folder = tempfile.mkdtemp(prefix="runs-")
    with loggers.tensorboard(folder) as log:  # or loggers.wandb(wandb.init(project="qjax"))

        def descend(key, params):
            return qjax.refine(key, loss, params, data, optax.adam(1e-2), 200, batch_size=50, callback=log)

        objective, sampler = (lambda params: loss(params, data)), qjax.samplers.get("anneal")
        trained = qjax.hybrid(jax.random.key(2), objective, {"w": jnp.zeros(8)}, formulate, sampler, descend=descend)
        log.rounds(trained.rounds)
    print(f"loss {trained.rounds[0].loss:.4f} by the annealer, {objective(trained.params):.4f} after the descent")
    print(f"tensorboard --logdir {folder}")
