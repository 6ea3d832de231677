"""Where the loop over the steps runs, that its place does not change the numbers, and what its program takes."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from qjax.descend import chunk
from qjax.descend.chunk import DeviceLoop, HostLoop
from qjax.descend.placement import slow_inside_loops
from qjax.descend.refine import Refine

pytestmark = pytest.mark.optimised

KEY = jax.random.key(5)
GENERATOR = np.random.default_rng(0)
DATA = {
    "image": GENERATOR.normal(size=(22, 6, 6, 2)).astype(np.float32),
    "label": GENERATOR.integers(0, 3, 22).astype(np.int32),
}
PARAMS = {
    "kernel": jnp.asarray(GENERATOR.normal(size=(3, 3, 2, 4)), jnp.float32),
    "head": jnp.asarray(GENERATOR.normal(size=(4, 3)), jnp.float32),
}
STATE = {"mean": jnp.zeros((4,))}


def convolved(params: Any, images: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(
        images, params["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def cross_entropy(params: Any, state: Any, batch: Any) -> Any:
    x = jnp.tanh(convolved(params, batch["image"]))
    mean = x.mean((0, 1, 2))
    logits = (x - mean[None, None, None]).mean((1, 2)) @ params["head"]
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()
    return loss, ({"mean": 0.9 * state["mean"] + 0.1 * mean.astype(jnp.float32)}, {"labels": batch["label"]})


PROGRAM = Refine(cross_entropy, optax.adam(1e-2), batch_size=4, chunk_size=7)


@pytest.mark.parametrize("change", [{}, {"microbatch_size": 2}, {"resident": False}, {"batch_size": None}])
def test_the_place_of_the_loop_does_not_change_the_numbers(change: dict[str, Any]) -> None:
    host, device = (
        replace(PROGRAM, loop=loop, **change)(KEY, PARAMS, DATA, 24, state=STATE) for loop in ("host", "device")
    )
    assert host.step == device.step == len(host.metrics["loss"]) == 24
    np.testing.assert_array_equal(host.metrics["labels"], device.metrics["labels"])
    for a, b in zip(*(jax.tree.leaves((r.params, r.state, r.metrics)) for r in (host, device)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loop", ["host", "device"])
def test_a_fault_ends_the_run_where_it_is_also_with_epochs_to_come_in_the_chunk(loop: Any) -> None:
    bad = {**DATA, "image": DATA["image"].copy()}
    bad["image"][9] = np.nan
    program = replace(PROGRAM, loop=loop, chunk_size=50)
    result = program(KEY, PARAMS, bad, 90, state=STATE)
    assert (result.info["status"], result.info["fault"]) == ("nonfinite", "loss") and 0 < result.step < 5
    before = program(KEY, PARAMS, bad, result.step, state=STATE)
    assert before.info["status"] == "finished" and len(result.metrics["loss"]) == result.step
    for a, b in zip(*(jax.tree.leaves((r.params, r.state, r.optimizer)) for r in (result, before)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_convolutions_are_stepped_from_the_host_on_cpus_and_nothing_else_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def dense(params: Any, state: Any, batch: Any) -> Any:
        logits = batch["image"][:, 0, 0] @ params["kernel"][0, 0] @ params["head"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean(), (state, {})

    def place(program: Refine) -> type:
        return type(program.compile(PARAMS, DATA, STATE).programs.chunk)

    assert place(PROGRAM) is HostLoop and place(replace(PROGRAM, loss=dense)) is DeviceLoop
    assert place(replace(PROGRAM, loop="device")) is DeviceLoop
    assert place(replace(PROGRAM, loss=dense, loop="host")) is HostLoop

    def nested(images: jax.Array) -> jax.Array:
        def one(carry: jax.Array, _: None) -> tuple[jax.Array, None]:
            return jax.lax.cond(carry.sum() > 0, lambda: jax.jit(convolved)(PARAMS, images).sum(), lambda: carry), None

        return jax.lax.scan(one, jnp.zeros(()), None, length=2)[0]

    jaxpr = jax.make_jaxpr(nested)(DATA["image"])
    assert slow_inside_loops(jaxpr, None)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not slow_inside_loops(jaxpr, None)
    with jax.default_device(jax.devices("cpu")[0]):
        assert slow_inside_loops(jaxpr, None)
    assert slow_inside_loops(jaxpr, jax.make_mesh((1,), ("data",)))


def test_microbatches_with_convolutions_are_no_loop_either() -> None:
    """Every convolution of the compiled program is in its entry computation, or in one called from there."""
    program = replace(PROGRAM, microbatch_size=2).compile(PARAMS, DATA, STATE).programs.chunk.program
    assert program is not None
    text = program.as_text()
    bodies = {name for line in text.splitlines() if " while(" in line for name in _called(line)}
    found = [block for block in text.split("\n\n") if " convolution(" in block]
    assert found and not [block for block in found if block.split()[0].lstrip("%") in bodies]


def _called(line: str) -> list[str]:
    """The computations that an instruction of a loop calls."""
    return [part.split("=")[1].lstrip("%") for part in line.split(", ") if part.startswith(("body=", "condition="))]


@pytest.mark.parametrize("loop", ["host", "device"])
@pytest.mark.parametrize("jitted", [False, True])
def test_what_a_loss_closes_over_is_no_constant(loop: Any, jitted: bool) -> None:
    teacher = jnp.asarray(GENERATOR.normal(size=(1000, 1000)), jnp.float32)

    def distilled(params: Any, batch: Any) -> jax.Array:
        return jnp.mean((batch @ params["w"] - batch @ teacher) ** 2)

    params, data = {"w": jnp.zeros((1000, 1000))}, np.eye(1000, dtype=np.float32)
    loss = jax.jit(distilled) if jitted else distilled
    compiled = Refine(loss, optax.sgd(2.5e5), batch_size=500, loop=loop).compile(params, data)
    program: Any = compiled.programs.chunk.program
    assert program.memory_analysis().argument_size_in_bytes > 12_000_000  # params, data and teacher
    result = compiled(KEY, params, data, 2)
    np.testing.assert_allclose(result.params["w"], teacher, rtol=1e-3, atol=1e-3)


def test_an_epoch_is_permuted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    order = chunk.epoch_order

    def counted(*args: Any) -> jax.Array:
        calls.append(int(args[2]))
        return order(*args)

    monkeypatch.setattr(chunk, "epoch_order", counted)
    PROGRAM(KEY, PARAMS, DATA, 24, state=STATE)
    assert calls == [0, 5, 10, 15, 20]


# A batch of one row r asks for the slope r; rows of 1e30 throw the parameters out of range by a rate of 1e30.
def _hidden(params: Any, batch: Any) -> Any:
    """Its value and slope stay finite where a parameter is not: only the parameters themselves tell."""
    return jnp.where(jnp.isfinite(params["w"]), params["w"] * batch["x"].sum(), 0.0), {"row": batch["row"]}


def _plain(params: Any, batch: Any) -> Any:
    return params["w"] * batch["x"].sum(), {"row": batch["row"]}


@pytest.mark.parametrize("on_nonfinite", ["stop", "skip"])
@pytest.mark.parametrize("loss", [_hidden, _plain])
@pytest.mark.parametrize("bad", [{7: 1e30}, {0: np.nan}, {3: np.nan, 11: 1e30}, {r: 1e30 for r in range(0, 16, 3)}])
def test_a_fault_is_found_at_its_step_whatever_it_is(on_nonfinite: Any, loss: Any, bad: dict[int, float]) -> None:
    x = np.full(16, 1e-30, np.float32)
    for row, value in bad.items():
        x[row] = value
    data, params = {"x": x, "row": np.arange(16)}, {"w": jnp.ones(())}
    program = Refine(loss, optax.sgd(1e30), batch_size=1, chunk_size=20, on_nonfinite=on_nonfinite)
    host, device = (replace(program, loop=loop)(KEY, params, data, 50) for loop in ("host", "device"))
    for name in ("status", "fault", "skipped"):
        assert host.info[name] == device.info[name]
    assert host.step == device.step == len(device.metrics["row"]) and (host.step == 50) == (on_nonfinite == "skip")
    np.testing.assert_array_equal(host.metrics["row"], device.metrics["row"])
    np.testing.assert_allclose(host.metrics["loss"], device.metrics["loss"], rtol=1e-5)
    np.testing.assert_allclose(host.params["w"], device.params["w"], rtol=1e-5)
    assert np.isfinite(device.params["w"]).all()
    if on_nonfinite == "skip":
        taken = np.isin(device.metrics["row"], list(bad))
        assert device.info["skipped"] == taken.sum() > 2
