"""Metrics in an event file of TensorBoard, read back, and in a run of Weights & Biases, by a stand-in for its run."""

import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import qjax
from qjax.interop import loggers

KEY = jax.random.key(3)
DATA = jnp.linspace(-1.0, 1.0, 12).reshape(6, 2)
PARAMS = {"w": jnp.array([1.0, -2.0])}


def loss(params: Any, batch: Any) -> Any:
    value = jnp.mean((batch @ params["w"] - 1.0) ** 2)
    return value, {"halves": jnp.stack([value, 0.5 * value])}


def run(callback: Any, num_steps: int = 10, **options: Any) -> Any:
    return qjax.refine(KEY, loss, PARAMS, DATA, optax.sgd(0.1), num_steps, chunk_size=4, callback=callback, **options)


class Kept:
    """What a logger writes: [(axis, number, values)]."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, int, dict[str, float]]] = []
        self.closed = 0

    def write(self, axis: str, number: int, values: dict[str, float]) -> None:
        self.rows.append((axis, number, values))

    def close(self) -> None:
        self.closed += 1

    def logger(self, every: int = 1) -> loggers.Logger:
        return loggers.Logger(self.write, self.close, every)


def test_every_step_is_logged_once_under_its_number() -> None:
    kept = Kept()
    with kept.logger() as log:
        result = run(log)
        assert not kept.closed
    assert kept.closed == 1
    assert [row[:2] for row in kept.rows] == [("step", number) for number in range(1, 11)]
    assert [row[2]["loss"] for row in kept.rows] == result.metrics["loss"].tolist()
    halves = [[row[2]["halves/0"], row[2]["halves/1"]] for row in kept.rows]
    np.testing.assert_array_equal(halves, result.metrics["halves"])


def test_every_third_step() -> None:
    kept = Kept()
    result = run(kept.logger(every=3))
    assert [row[1] for row in kept.rows] == [3, 6, 9]
    assert [row[2]["loss"] for row in kept.rows] == result.metrics["loss"][2::3].tolist()
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        kept.logger(every=0)


def test_a_resumed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    first, second = Kept(), Kept()
    run(first.logger(), 6, checkpoint=tmp_path)
    result = run(second.logger(), 10, checkpoint=tmp_path)
    assert [row[1] for row in first.rows] == [1, 2, 3, 4, 5, 6]
    assert [row[1] for row in second.rows] == [7, 8, 9, 10]
    assert [row[2]["loss"] for row in first.rows + second.rows] == result.metrics["loss"].tolist()


def hybrid(log: loggers.Logger) -> qjax.Trained:
    def objective(params: Any) -> Any:
        return loss(params, DATA)[0]

    def formulate(params: Any, radius: float) -> Any:
        spec = qjax.FixedPoint(bits=2, step=0.25 * radius, around="current")
        return qjax.hessian(lambda p, _: objective(p), params, DATA), qjax.encode(params, {"w": spec})

    def descend(key: jax.Array, params: Any) -> Any:
        return qjax.refine(key, loss, params, DATA, optax.sgd(0.05), 3, chunk_size=2, callback=log)

    sampler = qjax.samplers.get("exact")
    trained = qjax.hybrid(
        KEY, objective, PARAMS, formulate, sampler, num_rounds=2, descend=descend, descend_every_round=True
    )
    log.rounds(trained.rounds)
    return trained


def test_descents_after_several_rounds_are_counted_on_and_rounds_are_logged() -> None:
    kept = Kept()
    trained = hybrid(kept.logger())
    steps, rounds = kept.rows[:6], kept.rows[6:]
    assert [row[:2] for row in steps] == [("step", number) for number in range(1, 7)]
    losses = [descent.metrics["loss"] for descent in trained.descents]
    assert [row[2]["loss"] for row in steps] == np.concatenate(losses).tolist()
    assert [row[:2] for row in rounds] == [("round", 0), ("round", 1)]
    for (_, _, values), outcome in zip(rounds, trained.rounds, strict=True):
        assert {"round/loss", "round/loss_before", "round/fidelity", "round/ratio", "round/accepted"} <= values.keys()
        assert values["round/loss"] == float(outcome.loss)
        assert not {"round/params", "round/bits", "round/energies"} & values.keys()


def events(folder: Path) -> list[tuple[str, int, float]]:
    """(tag, step, value) of the scalars in an event file, whose records are length, checksum, event, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    (path,) = folder.iterdir()
    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + length])
        found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
        data = data[16 + length :]
    return found


def test_tensorboard_reads_back_what_was_logged(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="comes with `make extras`")
    with loggers.tensorboard(tmp_path / "runs") as log:
        trained = hybrid(log)
    found = events(tmp_path / "runs")
    losses = np.concatenate([descent.metrics["loss"] for descent in trained.descents])
    assert [row for row in found if row[0] == "loss"] == [("loss", k + 1, value) for k, value in enumerate(losses)]
    rounds = [row for row in found if row[0] == "round/loss"]
    assert rounds == [("round/loss", k, float(outcome.loss)) for k, outcome in enumerate(trained.rounds)]


class Run:
    """A run of Weights & Biases as far as the logger uses it. (The package itself, 100 MB installed, is not pinned.)"""

    def __init__(self) -> None:
        self.axes: dict[str, str] = {}
        self.rows: list[dict[str, float]] = []
        self.finished = False

    def define_metric(self, name: str, step_metric: str) -> None:
        assert name not in self.axes and not self.finished
        self.axes[name] = step_metric

    def log(self, data: dict[str, float]) -> None:
        assert data.keys() - self.axes.values() <= self.axes.keys() and not self.finished
        self.rows.append(data)

    def finish(self) -> None:
        self.finished = True


def test_wandb_gets_rows_with_the_axis_that_they_are_drawn_over() -> None:
    stand_in = Run()
    with loggers.wandb(stand_in) as log:
        trained = hybrid(log)
    assert stand_in.finished
    assert stand_in.axes["loss"] == stand_in.axes["halves/1"] == "step" and stand_in.axes["round/loss"] == "round"
    assert [row["step"] for row in stand_in.rows if "step" in row] == [1, 2, 3, 4, 5, 6]
    assert [row["round/loss"] for row in stand_in.rows if "round" in row] == [float(r.loss) for r in trained.rounds]


@pytest.mark.slow
def test_wandb_itself_takes_them_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="not among the pinned packages")
    script = f"""
import numpy as np, wandb
from qjax.interop import loggers
with loggers.wandb(wandb.init(project="qjax", mode="offline", dir={str(tmp_path)!r})) as log:
    log(2, {{"loss": np.array([2.0, 1.0])}})
    log(1, {{"loss": np.array([0.5])}})
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120, capture_output=True)
    (stored,) = tmp_path.rglob("*.wandb")
    assert stored.stat().st_size > 0


def test_loggers_load_no_other_library() -> None:
    script = "import sys, qjax.interop.loggers; assert not {'tensorboardX', 'wandb'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
