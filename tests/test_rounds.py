"""What a round says of itself in JSON."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import qjax
from qjax.rounds import scalars
from qjax.samplers.samples import Samples

START = {"w": jnp.asarray([0.9, -0.2])}


def _loss(params):
    return jnp.sum((params["w"] - jnp.asarray([0.4, 0.3])) ** 2)


def _formulate(params, radius):
    return qjax.hessian(_loss, params), qjax.encode(params, {"w": qjax.FixedPoint(bits=2, step=0.5)})


def _saying(key, qubo, num_reads=64, initial_states=None):
    """A host sampler whose info has everything that an info can have."""
    samples = qjax.samplers.get("exact")(key, qubo, num_reads)
    info = {"called": np.int64(1), "share": 0.5, "fine": True, "lost": float("nan"), "name": "a machine"}
    info |= {"seconds": {"wait": 0.0}, "reported": {}, "chunks": np.zeros(3), "beta": jnp.float32(2.0)}
    return Samples(samples.bits, samples.energies, info)


_saying.is_host = True


def test_a_round_survives_json_with_its_seconds_and_what_the_sampler_says():
    trained = qjax.hybrid(jax.random.key(0), _loss, START, _formulate, _saying, num_rounds=2, num_candidates=3)
    for outcome in trained.rounds:
        record = json.loads(json.dumps(outcome.to_dict(), allow_nan=False))
        assert record == outcome.to_dict()
        assert set(record) == {*outcome._fields, "improved"} - {"params", "bits"}
        for name in ("energies", "losses", "energies_read"):
            np.testing.assert_array_equal(np.asarray(record[name], np.float32), getattr(outcome, name))
        assert record["loss"] == float(outcome.loss) and len(record["losses"]) == 3 < len(record["energies_read"])
        assert record["info"] == {"called": 1, "share": 0.5, "fine": True, "lost": None, "beta": 2.0}
        assert set(record["seconds"]) == {"formulate", "wait", "other", "decode"}
    first, second = (outcome.to_dict() for outcome in trained.rounds)
    assert first["accepted"] is True and first["improved"] is True and second["accepted"] is False
    booked = sum(sum(outcome.seconds.values()) for outcome in trained.rounds)
    assert booked == pytest.approx(trained.ledger.total - trained.ledger["compile"])


def test_a_traced_round_says_the_same_but_for_seconds():
    sampler = qjax.samplers.get("qaoa", num_layers=1, num_steps=2)

    def once(key):
        return qjax.outer_round(key, _loss, START, _formulate, sampler, num_reads=8)

    traced, plain = jax.jit(once)(jax.random.key(0)).to_dict(), once(jax.random.key(0)).to_dict()
    assert (
        "expected_energy" in traced["info"].keys() == plain["info"].keys()
        and traced["seconds"] == plain["seconds"] == {}
    )
    assert traced["energies"] == pytest.approx(plain["energies"], rel=1e-5, abs=1e-6)


def test_losses_that_are_not_finite_are_null():
    def partly(params):
        return jnp.where(params["w"][0] > 0, jnp.nan, _loss(params))

    outcome = qjax.outer_round(jax.random.key(0), partly, START, _formulate, qjax.samplers.get("exact"), num_reads=16)
    record = outcome.to_dict()
    assert None in record["losses"] and record["loss_before"] is None and record["improved"] is True
    json.dumps(record, allow_nan=False)


def test_scalars_leave_out_text_tables_and_arrays():
    assert set(scalars(_saying(jax.random.key(0), qjax.Qubo.from_matrix(np.eye(2, dtype=np.float32))).info)) == {
        "called",
        "share",
        "fine",
        "lost",
        "beta",
    }
