"""refine: its steps against their definition; traces, faults, callbacks and options."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from qjax.descend.refine import Refine, refine

pytestmark = [pytest.mark.optimised, pytest.mark.usefixtures("loop")]

KEY = jax.random.key(5)
ROWS, BATCH = 23, 4


def problem() -> tuple[dict[str, jax.Array], dict[str, np.ndarray]]:
    """Parameters of zeros, and data whose least-squares fit is exact: y = x @ (0, 1, 2) + 1."""
    x = np.random.default_rng(0).normal(size=(ROWS, 3)).astype(np.float32)
    data = {"x": x, "y": x @ np.arange(3, dtype=np.float32) + 1, "row": np.arange(ROWS, dtype=np.int32)}
    return {"w": jnp.zeros((3,)), "b": jnp.zeros(())}, data


def squares(params: Any, batch: Any) -> jax.Array:
    return jnp.mean((batch["x"] @ params["w"] + params["b"] - batch["y"]) ** 2)


def visited(params: Any, batch: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    return squares(params, batch), {"rows": batch["row"]}


def identical(a: Any, b: Any) -> bool:
    return all(bool((np.asarray(x) == np.asarray(y)).all()) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


def counted(loss: Callable[..., Any]) -> tuple[Callable[..., Any], list[int]]:
    """The loss, and a list that grows by one every time it is traced."""
    traces: list[int] = []

    def counting(*args: Any) -> Any:
        traces.append(1)
        return loss(*args)

    return counting, traces


def test_three_lines_fit_a_line() -> None:
    params, data = problem()
    result = refine(KEY, squares, params, data, optax.adam(0.1), 400, batch_size=BATCH)
    np.testing.assert_allclose(result.params["w"], [0.0, 1.0, 2.0], atol=1e-2)
    assert result.step == 400 and result.metrics["loss"].shape == (400,) and result.info["status"] == "finished"
    assert result.metrics["loss"][-1] < 1e-3 < result.metrics["loss"][0]
    assert identical(params, {"w": jnp.zeros((3,)), "b": jnp.zeros(())})  # the caller's arrays are not donated


def test_steps_follow_the_documented_law() -> None:
    """Against a plain Python loop: epoch e has the order permutation(fold_in(fold_in(key, 0), e)), and so on."""
    params, data = problem()

    def augment(key: jax.Array, batch: Any) -> Any:
        return {**batch, "x": batch["x"] + 0.1 * jax.random.normal(key, batch["x"].shape)}

    def noisy(params: Any, batch: Any, key: jax.Array) -> jax.Array:
        return squares(params, batch) + 0.1 * jnp.sum(params["w"] * jax.random.normal(key, (3,)))

    result = refine(KEY, noisy, params, data, optax.sgd(0.05), 12, batch_size=BATCH, augment=augment, stochastic=True)
    expected, gradients = params, jax.jit(jax.grad(noisy))
    for step in range(12):
        epoch, place = divmod(step, ROWS // BATCH)
        order = jax.random.permutation(jax.random.fold_in(jax.random.fold_in(KEY, 0), epoch), ROWS)
        rows = np.asarray(order)[place * BATCH : (place + 1) * BATCH]
        batch = {name: jnp.asarray(leaf[rows]) for name, leaf in data.items()}
        batch = augment(jax.random.fold_in(jax.random.fold_in(KEY, 1), step), batch)
        gradient = gradients(expected, batch, jax.random.fold_in(jax.random.fold_in(KEY, 2), step))
        expected = jax.tree.map(lambda p, g: p - 0.05 * g, expected, gradient)
    np.testing.assert_allclose(result.params["w"], expected["w"], rtol=1e-5, atol=1e-6)


def test_a_batch_in_parts_gives_the_step_of_the_whole() -> None:
    """The mean over rows is the mean of the microbatches' means; a stochastic loss has one key per microbatch."""
    params, data = problem()
    options = {"batch_size": BATCH, "num_steps": 12, "optimizer": optax.adam(0.1)}
    whole = refine(KEY, squares, params, data, **options)
    parts = refine(KEY, squares, params, data, microbatch_size=2, **options)
    np.testing.assert_allclose(parts.params["w"], whole.params["w"], rtol=1e-4)
    np.testing.assert_allclose(parts.metrics["loss"], whole.metrics["loss"], rtol=1e-4)

    def drawn(params: Any, batch: Any, key: jax.Array) -> Any:
        return squares(params, batch), {"draw": jax.random.uniform(key)}

    draws = refine(KEY, drawn, params, data, microbatch_size=2, stochastic=True, **options).metrics["draw"]
    step = jax.random.fold_in(jax.random.fold_in(KEY, 2), 3)
    expected = [jax.random.uniform(jax.random.fold_in(step, part)) for part in range(2)]
    np.testing.assert_allclose(draws[3], np.mean(expected), rtol=1e-6)
    for bad, message in ((3, "must divide batch_size"), (0, "at least 1")):
        with pytest.raises(ValueError, match=message):
            refine(KEY, squares, params, data, microbatch_size=bad, **options)


@pytest.mark.parametrize("resident", [True, False])
def test_epochs_are_permutations_and_chunks_do_not_matter(resident: bool) -> None:
    params, data = problem()
    call = {"optimizer": optax.adam(0.1), "num_steps": 33, "batch_size": BATCH}
    result = refine(KEY, visited, params, data, **call, chunk_size=7, resident=resident)
    whole = refine(KEY, visited, params, data, **call)
    assert identical(result.params, whole.params) and identical(result.metrics, whole.metrics)
    length = ROWS // BATCH
    epochs = result.metrics["rows"][: 6 * length].reshape(6, -1)
    for rows in epochs:
        assert len(set(rows.tolist())) == length * BATCH and set(rows.tolist()) <= set(range(ROWS))
    assert len({tuple(rows) for rows in epochs.tolist()}) == 6


def test_one_trace_serves_every_seed_every_length_and_every_equal_program() -> None:
    params, data = problem()
    loss, traces = counted(squares)
    optimizer = optax.adam(0.1)
    first = refine(KEY, loss, params, data, optimizer, 30, batch_size=BATCH, chunk_size=20)
    refine(jax.random.key(6), loss, first.params, data, optimizer, 45, batch_size=BATCH, chunk_size=20)
    program = Refine(loss, optimizer, batch_size=BATCH, chunk_size=20)
    assert hash(program) == hash(Refine(loss, optimizer, batch_size=BATCH, chunk_size=20))
    compiled = program.compile(params, data)
    assert len(traces) == 1
    again = compiled(KEY, params, data, 30)
    assert len(traces) == 1 and identical(again.params, first.params)
    with pytest.raises(ValueError, match="compiled for 23 rows"):
        compiled(KEY, params, jax.tree.map(lambda leaf: leaf[:20], data), 30)


def test_compiling_needs_shapes_only_and_data_are_no_constants() -> None:
    params = {"w": jax.ShapeDtypeStruct((300,), jnp.float32), "b": jax.ShapeDtypeStruct((), jnp.float32)}
    data = {"x": jax.ShapeDtypeStruct((100_000, 300), jnp.float32), "y": jax.ShapeDtypeStruct((100_000,), jnp.float32)}
    compiled = Refine(squares, optax.sgd(0.1), batch_size=BATCH).compile(params, data)
    memory: Any = compiled.programs.chunk.program
    memory = memory.memory_analysis()
    assert memory.argument_size_in_bytes > 120_000_000
    assert memory.temp_size_in_bytes < 10_000_000  # for sorting the epoch's order, without a copy of the data


@pytest.mark.parametrize("loop", ["device", "host"])
def test_options_reach_the_compiler(loop: Any) -> None:
    params, data = problem()
    program = Refine(squares, optax.sgd(0.1), batch_size=BATCH, loop=loop)
    options = {"xla_backend_optimization_level": 1}
    assert identical(
        program.compile(params, data, compiler_options=options)(KEY, params, data, 3).params,
        program.compile(params, data)(KEY, params, data, 3).params,
    )
    with pytest.raises(Exception, match="no_such_option"):
        program.compile(params, data, compiler_options={"no_such_option": 1})


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.lbfgs(),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.cosine_decay_schedule(0.1, 60))),
        optax.MultiSteps(optax.adam(0.1), 3),
        optax.contrib.schedule_free_adamw(0.1),
        optax.chain(optax.add_noise(0.01, 0.5, jax.random.key(0)), optax.sgd(0.1)),
    ],
    ids=["lbfgs", "clipped", "accumulated", "schedule-free", "noisy"],
)
def test_any_optimizer_descends(optimizer: optax.GradientTransformation) -> None:
    params, data = problem()
    losses = refine(KEY, squares, params, data, optimizer, 60, batch_size=None).metrics["loss"]
    assert losses[-1] < 0.5 * losses[0]


def test_no_data_and_python_numbers() -> None:
    result = refine(KEY, lambda params, _: (params["w"] - 2.0) ** 2, {"w": 0.5}, None, optax.sgd(0.1), 100)
    assert float(result.params["w"]) == pytest.approx(2.0, abs=1e-3)
    assert refine(KEY, squares, *problem(), optax.sgd(0.1), 0).metrics == {}


def test_callback_sees_every_chunk_and_can_end_the_run() -> None:
    params, data = problem()
    seen: list[tuple[int, int, float]] = []

    def callback(step: int, metrics: dict[str, np.ndarray], params: Any) -> bool:
        seen.append((step, len(metrics["loss"]), float(squares(params, data))))
        return step >= 20

    result = refine(KEY, squares, params, data, optax.sgd(0.1), 100, batch_size=BATCH, chunk_size=10, callback=callback)
    assert [entry[:2] for entry in seen] == [(10, 10), (20, 10)]
    assert (result.step, result.info["status"], len(result.metrics["loss"])) == (20, "stopped", 20)
    assert seen[-1][2] == pytest.approx(float(squares(result.params, data)))


def root(params: Any, _: Any) -> jax.Array:
    return jnp.sqrt(jnp.abs(params["w"] - 1.0)) * 0.0 + params["w"] ** 2  # the gradient at w = 1 is not a number


def logarithm(params: Any, _: Any) -> jax.Array:
    return jnp.log(params["w"])


def parabola(params: Any, _: Any) -> jax.Array:
    return params["w"] ** 2


FAULTS = {
    "loss": (logarithm, 0.5, optax.sgd(0.1)),
    "gradient": (root, 1.0, optax.sgd(0.1)),
    "parameters": (parabola, 1.0, optax.sgd(lambda step: jnp.where(step < 3, 0.1, jnp.inf))),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_what_is_not_finite_is_reported_and_never_kept(fault: str) -> None:
    loss, start, optimizer = FAULTS[fault]
    params = {"w": jnp.asarray(start)}
    result = refine(KEY, loss, params, None, optimizer, 50, chunk_size=8)
    assert (result.info["status"], result.info["fault"]) == ("nonfinite", fault)
    assert bool(jnp.isfinite(result.params["w"])) and bool(np.isfinite(result.metrics["loss"]).all())
    assert len(result.metrics["loss"]) == result.step < 50
    before = refine(KEY, loss, params, None, optimizer, result.step, chunk_size=8)
    assert before.info["status"] == "finished" and identical(before.params, result.params)
    with pytest.raises(FloatingPointError, match=f"step {result.step}: the {fault} is not finite"):
        refine(KEY, loss, params, None, optimizer, 50, chunk_size=8, on_nonfinite="raise")


def test_skipping_goes_on_without_the_bad_batch() -> None:
    params, data = problem()
    data["y"][7] = np.nan
    result = refine(KEY, visited, params, data, optax.adam(0.1), 200, batch_size=BATCH, on_nonfinite="skip")
    bad = (result.metrics["rows"] == 7).any(axis=1)
    assert result.info["skipped"] == bad.sum() > 10
    assert (np.isnan(result.metrics["loss"]) == bad).all() and result.step == 200
    np.testing.assert_allclose(result.params["w"], [0.0, 1.0, 2.0], atol=0.05)


def test_frozen_leaves_stay_and_whole_numbers_are_never_trained() -> None:
    params, data = problem()
    params = {"head": params, "table": jnp.arange(4), "headless": jnp.ones(())}

    def loss(params: Any, batch: Any) -> jax.Array:
        return squares(params["head"], batch) + params["headless"] ** 2 + params["table"].sum().astype(jnp.float32)

    call = {"optimizer": optax.adam(0.1), "num_steps": 20, "batch_size": BATCH}
    some = refine(KEY, loss, params, data, **call, trainable=("head/w",))
    assert identical((some.params["head"]["b"], some.params["table"], some.params["headless"]), (0.0, range(4), 1.0))
    assert not identical(some.params["head"]["w"], params["head"]["w"])
    assert len(jax.tree.leaves(some.optimizer)) == 3  # count, mean and variance of one leaf
    subtree = refine(KEY, loss, params, data, **call, trainable=("head",))
    assert float(subtree.params["headless"]) == 1.0 and float(subtree.params["head"]["b"]) != 0.0
    with pytest.raises(ValueError, match=r"unknown trainable leaf 'head/v'; did you mean 'head/[wb]'"):
        refine(KEY, loss, params, data, **call, trainable=("head/v",))


def test_mixed_precision_computes_low_and_keeps_high() -> None:
    params, data = problem()
    seen: list[Any] = []

    def loss(params: Any, batch: Any) -> jax.Array:
        seen.append((params["w"].dtype, batch["x"].dtype, batch["row"].dtype))
        return squares(params, batch).astype(jnp.float32)

    result = refine(KEY, loss, params, data, optax.adam(0.1), 200, batch_size=BATCH, compute_dtype=jnp.bfloat16)
    assert seen == [(jnp.bfloat16, jnp.bfloat16, jnp.int32)]
    assert {leaf.dtype for leaf in jax.tree.leaves(result.params)} == {jnp.dtype(jnp.float32)}
    np.testing.assert_allclose(result.params["w"], [0.0, 1.0, 2.0], atol=0.1)


def test_double_precision() -> None:
    _, data = problem()
    with jax.enable_x64(True):
        wide = {"w": jnp.zeros((3,), jnp.float64), "b": jnp.zeros((), jnp.float64)}
        data = {**data, "x": data["x"].astype(np.float64), "y": data["y"].astype(np.float64)}
        result = refine(KEY, squares, wide, data, optax.adam(0.1), 30, batch_size=BATCH)
        assert result.params["w"].dtype == jnp.float64 and result.metrics["loss"].dtype == np.float64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 24}, "batch_size 24 is more than the 23 rows"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"chunk_size": 0}, "chunk_size must be at least 1"),
        ({"num_steps": -1}, "num_steps must not be negative"),
        ({"on_nonfinite": "ignore"}, "on_nonfinite must be"),
        ({"trainable": "w"}, "trainable must be a tuple"),
        ({"batchsize": 3}, "did you mean 'batch_size'"),
        ({"data": None}, "one leading axis"),
        ({"data": {"x": np.zeros((4, 3)), "y": np.zeros(5)}}, r"one leading axis.*\(5,\)"),
        ({"params": {"w": jnp.asarray([1.0, jnp.nan, 0.0]), "b": jnp.zeros(())}}, "params are not finite at w"),
        ({"loss": lambda params, batch: params["w"]}, r"real scalar, got float32\[3\]"),
        ({"loss": lambda params, batch: (params["b"], params["b"])}, "must be a dict"),
        ({"loss": lambda params, batch: (params["b"], {"loss": params["b"]})}, "without the name 'loss'"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    params, data = problem()
    call = {"loss": squares, "params": params, "data": data, "optimizer": optax.sgd(0.1), "num_steps": 3, "key": KEY}
    with pytest.raises(ValueError, match=message):
        refine(**{**call, "batch_size": BATCH, **change})
