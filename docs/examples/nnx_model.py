"""An nnx model with batch statistics and dropout: the annealer moves its last kernel, the descent everything."""

from functools import partial

import jax
import optax
from flax import nnx
from sklearn.datasets import load_digits

import qjax
import qjax.interop.flax

x, y = map(jax.numpy.asarray, load_digits(return_X_y=True))
data, new = (x[:1500] / 16, y[:1500]), (x[1500:] / 16, y[1500:])
rngs = nnx.Rngs(0)
norm, dropout = nnx.BatchNorm(64, rngs=rngs), nnx.Dropout(0.2, rngs=rngs)
model = nnx.Sequential(nnx.Linear(64, 64, rngs=rngs), norm, nnx.relu, dropout, nnx.Linear(64, 10, rngs=rngs))
params, state, apply, merge = qjax.interop.flax.nnx(model)


def loss(params, state, batch, train=False):  # in training, the statistics and the random stream of dropout move
    logits, state = apply(params, state, batch[0], train=train)
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean(), (state, {})


def formulate(params, radius, state, leaf="layers/4/kernel"):
    bits = qjax.FixedPoint(bits=2, step=0.2 * radius, around="current")
    return qjax.hessian(lambda p: loss(p, state, data)[0], params, leaves=[leaf]), qjax.encode(params, {leaf: bits})


key, sampler = jax.random.key(0), qjax.samplers.get("anneal", num_sweeps=100)
trained = qjax.hybrid(key, lambda p, state: loss(p, state, data)[0], params, formulate, sampler, state=state)
print(f"loss {trained.rounds[0].loss_before:.3f}, {trained.rounds[0].loss:.3f} by the annealer's choice of bits")
step = qjax.Refine(partial(loss, train=True), optax.adam(3e-3), batch_size=100)
params, state, *_ = step(key, trained.params, data, 500, state=state)
model = merge(params, state)  # an nnx module again
model.eval()
right = (model(new[0]).argmax(-1) == new[1]).mean()
print(f"{loss(params, state, data)[0]:.4f} after the descent, {100 * right:.1f} % of new images right")
