"""The true loss is compiled once for all candidates of all rounds, and what it closes over is not in its program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import qjax
from qjax import losses

RNG = np.random.default_rng(0)
DATA = jnp.asarray(RNG.normal(size=(300, 4)), jnp.float32)
TARGETS = DATA @ jnp.asarray([[1.5], [-0.5], [0.5], [1.5]])
START = {"w": jnp.zeros((4, 1))}


def _loss(params):
    return ((DATA @ params["w"] - TARGETS) ** 2).mean()


def _formulate(params, radius):
    return qjax.least_squares(params, "w", DATA, TARGETS), qjax.encode(params, {"w": qjax.FixedPoint(2, step=radius)})


def _run(loss, num_rounds=1, **options):
    sampler = qjax.samplers.get("exact")
    return qjax.hybrid(jax.random.key(0), loss, START, _formulate, sampler, num_rounds=num_rounds, **options)


def test_a_loss_that_is_not_jitted_is_traced_once_for_all_rounds():
    traces = []

    def loss(params):
        traces.append(params)
        return _loss(params)

    trained = _run(loss, num_rounds=3)
    assert len(traces) == 1
    np.testing.assert_allclose(trained.params["w"], [[1.5], [-0.5], [0.5], [1.5]], atol=1e-6)
    assert float(trained.rounds[0].loss_before) == pytest.approx(float(_loss(START)), rel=1e-6)
    again = _run(loss)
    assert len(traces) == 2  # what it closes over may have changed
    assert trained.ledger["compile"] > 0 and again.ledger["compile"] > 0


@pytest.mark.parametrize("wrap", [lambda loss: loss, jax.jit], ids=["plain", "jitted"])
def test_what_the_loss_closes_over_is_an_argument(wrap):
    judged, seconds = losses.compiled(wrap(_loss), (START,))
    assert float(judged(START)) == pytest.approx(float(_loss(START)), rel=1e-6)
    (program,) = seconds
    shapes = {tuple(leaf.shape) for leaf in jax.tree.leaves(program.in_avals)}
    assert {(300, 4), (300, 1), (4, 1)} == shapes
    assert "constant({ {" not in program.as_text()


def test_a_loss_on_the_host_is_called_as_it_is_where_asked_for():
    calls = []

    def loss(params):
        calls.append(params)
        return float(np.mean((np.asarray(DATA) @ np.asarray(params["w"]) - np.asarray(TARGETS)) ** 2))

    with pytest.raises(ValueError, match="compile_loss=False"):
        _run(loss)
    calls.clear()
    trained = _run(loss, compile_loss=False, num_candidates=5)
    assert len(calls) == 6
    np.testing.assert_allclose(trained.params["w"], [[1.5], [-0.5], [0.5], [1.5]], atol=1e-6)


@pytest.mark.parametrize("compile_loss", [True, False])
def test_a_loss_that_is_no_scalar_is_refused(compile_loss):
    with pytest.raises(ValueError, match=r"scalar, got shape \(1,\)"):
        _run(lambda params: _loss(params)[None], compile_loss=compile_loss)
