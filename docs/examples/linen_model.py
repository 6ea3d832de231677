"""A linen model with batch statistics and dropout: the annealer moves its last kernel, the descent everything."""

import flax.linen as nn
import jax
import optax
from sklearn.datasets import load_digits

import qjax
import qjax.interop.flax


class Model(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Dense(64)(x)))
        return nn.Dense(10, name="head")(nn.Dropout(0.2, deterministic=not train)(x))


x, y = map(jax.numpy.asarray, load_digits(return_X_y=True))
data, new = (x[:1500] / 16, y[:1500]), (x[1500:] / 16, y[1500:])
params, state, apply, _ = qjax.interop.flax.linen(Model(), Model().init(jax.random.key(0), x, train=False))


def loss(params, state, batch, key=None):  # with a key as in training: the statistics move, dropout drops
    logits, state = apply(params, state, batch[0], key=key, train=key is not None)
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean(), (state, {})


def formulate(params, radius, state, leaf="head/kernel"):
    bits = qjax.FixedPoint(bits=2, step=0.2 * radius, around="current")
    return qjax.hessian(lambda p: loss(p, state, data)[0], params, leaves=[leaf]), qjax.encode(params, {leaf: bits})


key, sampler, adam = jax.random.key(0), qjax.samplers.get("anneal", num_sweeps=100), optax.adam(3e-3)
trained = qjax.hybrid(key, lambda p, state: loss(p, state, data)[0], params, formulate, sampler, state=state)
print(f"loss {trained.rounds[0].loss_before:.3f}, {trained.rounds[0].loss:.3f} by the annealer's choice of bits")
params, state, *_ = qjax.refine(key, loss, trained.params, data, adam, 500, state=state, stochastic=True, batch_size=50)
right = (apply(params, state, new[0])[0].argmax(-1) == new[1]).mean()
print(f"{loss(params, state, data)[0]:.4f} after the descent, {100 * right:.1f} % of new images right")
