"""A model's state: threaded through the steps, saved and resumed, dropped with a bad step, checked by the leaf."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from qjax.descend.refine import Refine, Refined, refine

pytestmark = [pytest.mark.optimised, pytest.mark.usefixtures("loop")]

KEY = jax.random.key(5)
X = np.random.default_rng(0).normal(size=(23, 3)).astype(np.float32)
DATA = {"x": X, "y": X @ np.arange(3, dtype=np.float32) + 1}
PARAMS = {"w": jnp.zeros((3,)), "b": jnp.zeros(())}
STATE = {"mean": jnp.zeros((3,)), "seen": jnp.zeros((), jnp.int32), "key": jax.random.key(3)}


def centred(params: Any, state: Any, batch: Any) -> Any:
    """Squares on inputs less their batch's mean, the running mean in the state; a mask drawn from the state's key."""
    mean = batch["x"].mean(0)
    key, now = jax.random.split(state["key"])
    kept = jax.random.bernoulli(now, 0.8, (batch["x"].shape[0],)).astype(batch["x"].dtype)
    new = {
        "mean": 0.9 * state["mean"] + 0.1 * mean.astype(state["mean"].dtype),
        "seen": state["seen"] + batch["x"].shape[0],
        "key": key,
    }
    error = (batch["x"] - mean[None]) @ params["w"] + params["b"] - batch["y"]
    return jnp.mean(kept * error**2), (new, {"kept": kept.sum()})


PROGRAM = Refine(centred, optax.adam(0.1), batch_size=4, chunk_size=10)


def run(num_steps: int, folder: Path | None = None, program: Refine = PROGRAM, state: Any = STATE) -> Refined:
    return program(KEY, PARAMS, DATA, num_steps, checkpoint=folder, checkpoint_every=0.0, state=state)


def numbers(tree: Any) -> list[np.ndarray]:
    """The leaves on the host, keys by their data."""

    def plain(leaf: Any) -> Any:
        return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf

    return [np.asarray(plain(leaf)) for leaf in jax.tree.leaves(tree)]


def same(a: Refined, b: Refined) -> bool:
    """Whether everything but the seconds is equal in every bit."""
    pairs = zip(*(numbers((c.params, c.state, c.optimizer, c.metrics)) for c in (a, b)), strict=True)
    return a.step == b.step and all(np.array_equal(x, y) for x, y in pairs)


def batches(num_steps: int, size: int = 4) -> list[dict[str, jax.Array]]:
    """The batches of the first steps, by the documented law."""
    found = []
    for step in range(num_steps):
        epoch, place = divmod(step, len(X) // size)
        order = jax.random.permutation(jax.random.fold_in(jax.random.fold_in(KEY, 0), epoch), len(X))
        rows = np.asarray(order)[place * size : (place + 1) * size]
        found.append({name: jnp.asarray(leaf[rows]) for name, leaf in DATA.items()})
    return found


def test_the_state_goes_from_step_to_step() -> None:
    """Against a plain Python loop."""
    result = run(12)
    slope = jax.jit(jax.value_and_grad(centred, has_aux=True))
    optimizer = optax.adam(0.1)
    params, state, moments, kept = PARAMS, STATE, optimizer.init(PARAMS), []
    with jax.numpy_dtype_promotion("standard"):
        for batch in batches(12):
            (_, (state, metrics)), gradient = slope(params, state, batch)
            updates, moments = optimizer.update(gradient, moments)
            params = optax.apply_updates(params, updates)
            kept.append(metrics["kept"])
    assert int(result.state["seen"]) == 48 and bool(result.state["key"] == state["key"])
    np.testing.assert_allclose(result.state["mean"], state["mean"], rtol=1e-5)
    np.testing.assert_allclose(result.params["w"], params["w"], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(result.metrics["kept"], kept)
    assert int(STATE["seen"]) == 0  # the caller's arrays are not donated


def test_without_a_state_there_is_none() -> None:
    assert refine(KEY, lambda params, _: params["b"] ** 2, PARAMS, None, optax.sgd(0.1), 3).state is None


def test_a_run_goes_on_exactly_with_its_state(tmp_path: Path) -> None:
    straight = run(47)
    run(13, tmp_path)
    resumed = run(47, tmp_path)
    assert resumed.info["resumed_at"] == 13 and same(resumed, straight)
    with pytest.raises(ValueError, match="of another run: first state differ"):
        run(60, tmp_path, state={**STATE, "seen": jnp.ones((), jnp.int32)})


def test_one_program_serves_compiled_and_called() -> None:
    traces: list[int] = []

    def counted(*args: Any) -> Any:
        traces.append(1)
        return centred(*args)

    program = replace(PROGRAM, loss=counted)
    compiled = program.compile(PARAMS, DATA, STATE)
    first = compiled(KEY, PARAMS, DATA, 25, state=STATE)
    again = program(KEY, first.params, DATA, 12, state=first.state)
    assert len(traces) == 1 and same(first, run(25)) and int(again.state["seen"]) == 148


def test_microbatches_hand_the_state_on_in_order() -> None:
    def squares(params: Any, state: Any, batch: Any) -> Any:
        error = batch["x"] @ params["w"] + params["b"] - batch["y"]
        return jnp.mean(error**2), (0.5 * state + batch["x"][0], {})

    options = {"optimizer": optax.adam(0.1), "num_steps": 3, "batch_size": 4, "state": jnp.zeros((3,))}
    whole = refine(KEY, squares, PARAMS, DATA, **options)
    parts = refine(KEY, squares, PARAMS, DATA, microbatch_size=2, **options)
    expected = np.zeros(3, np.float32)
    for batch in batches(3):
        expected = 0.5 * (0.5 * expected + np.asarray(batch["x"][0])) + np.asarray(batch["x"][2])
    np.testing.assert_allclose(parts.state, expected, rtol=1e-5)
    np.testing.assert_allclose(parts.params["w"], whole.params["w"], rtol=1e-4)


def test_low_precision_leaves_the_state_alone() -> None:
    seen: list[Any] = []

    def loss(params: Any, state: Any, batch: Any) -> Any:
        seen.append((params["w"].dtype, state["mean"].dtype, batch["x"].dtype))
        return centred(params, state, batch)

    result = run(5, program=replace(PROGRAM, loss=loss, compute_dtype=jnp.bfloat16))
    assert seen == [(jnp.bfloat16, jnp.float32, jnp.bfloat16)]
    assert result.state["mean"].dtype == jnp.float32 and int(result.state["seen"]) == 20


def test_line_searches_see_one_state_a_step() -> None:
    """The loss grows with the state: no step would pass for progress if the search saw the new one."""

    def loss(params: Any, state: Any, batch: Any) -> Any:
        error = batch["x"] @ params["w"] + params["b"] - batch["y"]
        return jnp.mean(error**2) + 1e3 * state.astype(jnp.float32), (state + 1, {})

    result = refine(KEY, loss, PARAMS, DATA, optax.lbfgs(), 8, state=jnp.zeros((), jnp.int32))
    assert int(result.state) == 8
    np.testing.assert_allclose(result.params["w"], [0.0, 1.0, 2.0], atol=1e-2)


def soaring(params: Any, state: Any, batch: Any) -> Any:
    """The state, not the loss, overflows after a few steps."""
    return jnp.sum(params["w"] ** 2) + params["b"] ** 2, ({"big": state["big"] * 1e10}, {})


def test_a_state_that_is_not_finite_is_never_kept() -> None:
    first = {"big": jnp.ones(())}
    result = refine(KEY, soaring, {**PARAMS, "b": jnp.ones(())}, None, optax.sgd(0.1), 20, chunk_size=8, state=first)
    assert (result.info["status"], result.info["fault"], result.step) == ("nonfinite", "state", 3)
    assert float(result.state["big"]) == pytest.approx(1e30) and len(result.metrics["loss"]) == 3
    assert float(result.params["b"]) == pytest.approx(0.8**3)
    with pytest.raises(FloatingPointError, match="step 3: the state is not finite"):
        refine(KEY, soaring, PARAMS, None, optax.sgd(0.1), 20, state=first, on_nonfinite="raise")


def test_a_skipped_step_leaves_the_state_as_it_was() -> None:
    bad = {**DATA, "y": DATA["y"].copy()}
    bad["y"][7] = np.nan
    result = replace(PROGRAM, on_nonfinite="skip")(KEY, PARAMS, bad, 60, state=STATE)
    assert result.step == 60 and 5 < result.info["skipped"] < 20
    assert int(result.state["seen"]) == 4 * (60 - result.info["skipped"])


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda loss, new: (loss, {}), r"must return \(scalar, \(state, metrics\)\)"),
        (lambda loss, new: loss, r"must return \(scalar, \(state, metrics\)\)"),
        (lambda loss, new: (loss, ({**new, "mean": new["mean"][:2]}, {})), r"'mean' as float32\(2,\), the old one as"),
        (
            lambda loss, new: (loss, ({**new, "seen": new["mean"][0]}, {})),
            r"'seen' as float32\(\), the old one",
        ),
        (lambda loss, new: (loss, ({"mean": new["mean"], "seen": new["seen"]}, {})), "lacks the leaf 'key'"),
        (lambda loss, new: (loss, ({**new, "extra": new["mean"]}, {})), "has a leaf 'extra'"),
        (lambda loss, new: (loss, ({**new, "none": None}, {})), "has the structure"),
        (lambda loss, new: (loss, (new, {"loss": loss})), "without the name 'loss'"),
    ],
)
def test_another_state_is_refused_by_the_leaf(returned: Any, message: str) -> None:
    def loss(params: Any, state: Any, batch: Any) -> Any:
        value, (new, _) = centred(params, state, batch)
        return returned(value, new)

    with pytest.raises(ValueError, match=message):
        run(3, program=replace(PROGRAM, loss=loss))


def test_a_first_state_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="state is not finite at mean"):
        run(3, state={**STATE, "mean": jnp.full((3,), jnp.inf)})


SHARDED = """
import sys
import jax, jax.numpy as jnp, numpy as np, optax
from qjax.descend.refine import Refine
assert jax.device_count() == 8
generator = np.random.default_rng(0)
data = {"x": generator.normal(size=(103, 4)).astype(np.float32)}
data["y"] = data["x"] @ np.arange(4, dtype=np.float32)
params = {"w": jnp.asarray(generator.normal(size=(4,)), jnp.float32)}

def loss(params, state, batch):
    mean, variance = batch["x"].mean(0), batch["x"].var(0)
    new = {"mean": 0.9 * state["mean"] + 0.1 * mean, "variance": 0.9 * state["variance"] + 0.1 * variance}
    x = (batch["x"] - mean) / jnp.sqrt(variance + 1e-5)
    return jnp.mean((x @ params["w"] - batch["y"]) ** 2), (new, {"variance": variance})

state = {"mean": jnp.zeros(4), "variance": jnp.ones(4)}
options = dict(loss=loss, optimizer=optax.adam(1e-2), batch_size=16, chunk_size=50, loop=sys.argv[1])
one = Refine(**options)(jax.random.key(0), params, data, 120, state=state)
program = Refine(**options, mesh=jax.make_mesh((8,), ("data",))).compile(params, data, state)
eight = program(jax.random.key(0), params, data, 120, state=state)
for a, b in zip(*(jax.tree.leaves((c.params, c.state, c.metrics)) for c in (eight, one)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
for leaf in jax.tree.leaves(eight.state):
    assert len(leaf.sharding.device_set) == 8 and leaf.sharding.is_fully_replicated
"""


def test_statistics_over_eight_devices_are_those_of_the_whole_batch(loop: str) -> None:
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", SHARDED, loop], env=environment, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_modules_of_nnx_need_nothing_but_split_and_merge(tmp_path: Path) -> None:
    nnx = pytest.importorskip("flax.nnx")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # as flax assumes
        layers = (nnx.Linear(3, 4, rngs=(rngs := nnx.Rngs(0))), nnx.BatchNorm(4, rngs=rngs))
        network = nnx.Sequential(*layers, nnx.Dropout(0.1, rngs=rngs), nnx.Linear(4, 1, rngs=rngs))
        graph, params, state = nnx.split(network, nnx.Param, ...)

        def loss(params: Any, state: Any, batch: Any) -> Any:
            network = nnx.merge(graph, params, state)
            value = jnp.mean((network(batch["x"])[:, 0] - batch["y"]) ** 2)
            return value, (nnx.state(network, nnx.Not(nnx.Param)), {})

        program = Refine(loss, optax.adam(0.1), batch_size=4, chunk_size=10)
        result = program(KEY, params, DATA, 47, state=state)
        counts = [leaf for leaf in jax.tree.leaves(result.state) if leaf.dtype == jnp.uint32 and leaf.shape == ()]
        assert 47 in [int(count) for count in counts]  # one mask a step
        assert result.metrics["loss"][-10:].mean() < 0.5 * result.metrics["loss"][:10].mean()
        program(KEY, params, DATA, 13, state=state, checkpoint=tmp_path)
        assert same(program(KEY, params, DATA, 47, state=state, checkpoint=tmp_path), result)


def test_a_callback_sees_the_state_that_belongs_to_its_parameters() -> None:
    seen: list[tuple[int, int, bool]] = []

    def callback(step: int, metrics: Any, params: Any, state: Any) -> bool:
        seen.append((step, int(state["seen"]), bool(jnp.all(params["w"] == 0))))
        return step == 20

    ended = PROGRAM(KEY, PARAMS, DATA, 60, callback=callback, state=STATE)
    assert seen == [(10, 40, False), (20, 80, False)] and int(ended.state["seen"]) == 80
