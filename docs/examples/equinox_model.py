"""An equinox model with dropout: the annealer moves its last weights, the descent all of them."""

import equinox as eqx
import jax
import optax
from sklearn.datasets import load_digits

import qjax

x, y = map(jax.numpy.asarray, load_digits(return_X_y=True))
data, new = (x[:1500] / 16, y[:1500]), (x[1500:] / 16, y[1500:])
body, head = (eqx.nn.Linear(64, width, key=jax.random.key(width)) for width in (64, 10))
model = eqx.nn.Sequential([body, eqx.nn.Lambda(jax.nn.relu), eqx.nn.Dropout(0.2), head])
params, static = eqx.partition(model, eqx.is_inexact_array)  # what is trained, and the rest


def logits(params, x, key=None):  # without a key, dropout does nothing
    model = eqx.nn.inference_mode(eqx.combine(params, static), key is None)
    keys = jax.random.split(jax.random.key(0) if key is None else key, len(x))
    return jax.vmap(lambda x, key: model(x, key=key))(x, keys)


def loss(params, batch, key=None):
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, batch[0], key), batch[1]).mean()


def formulate(params, radius, leaf="layers/3/weight"):
    bits = qjax.FixedPoint(bits=2, step=0.2 * radius, around="current")
    return qjax.hessian(loss, params, data, leaves=[leaf]), qjax.encode(params, {leaf: bits})


key, sampler = jax.random.key(0), qjax.samplers.get("anneal", num_sweeps=100)
trained = qjax.hybrid(key, lambda params: loss(params, data), params, formulate, sampler)
print(f"loss {trained.rounds[0].loss_before:.3f}, {trained.rounds[0].loss:.3f} by the annealer's choice of bits")
params, *_ = qjax.refine(key, loss, trained.params, data, optax.adam(3e-3), 500, stochastic=True, batch_size=100)
right = (logits(params, new[0]).argmax(-1) == new[1]).mean()
print(f"{loss(params, data):.4f} after the descent, {100 * right:.1f} % of new images right")
