"""Checkpointed runs resume bit for bit, also when killed; a run over eight devices gives the numbers of one."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from qjax.descend.refine import Refine, Refined

pytestmark = [pytest.mark.optimised, pytest.mark.usefixtures("loop")]

KEY = jax.random.key(5)
X = np.random.default_rng(0).normal(size=(23, 3)).astype(np.float32)
DATA = {"x": X, "y": X @ np.arange(3, dtype=np.float32) + 1}
PARAMS = {"w": jnp.zeros((3,)), "b": jnp.zeros(())}
JSON = "qjax-checkpoint_*/description/metadata"


def squares(params: Any, batch: Any) -> jax.Array:
    return jnp.mean((batch["x"] @ params["w"] + params["b"] - batch["y"]) ** 2)


PROGRAM = Refine(squares, optax.adam(0.1), batch_size=4, chunk_size=10)


def run(num_steps: int, folder: Path | None, key: jax.Array = KEY, **options: Any) -> Refined:
    return PROGRAM(key, PARAMS, DATA, num_steps, checkpoint=folder, checkpoint_every=0.0, **options)


def same(a: Refined, b: Refined) -> bool:
    """Whether parameters, optimizer state and every recorded number are equal in every bit."""
    pairs = zip(*(jax.tree.leaves((c.params, c.optimizer, c.metrics)) for c in (a, b)), strict=True)
    return a.step == b.step and all(np.array_equal(np.asarray(x), np.asarray(y)) for x, y in pairs)


def test_a_run_goes_on_exactly_from_any_step(tmp_path: Path) -> None:
    straight = run(47, None)
    assert run(13, tmp_path).info["resumed_at"] is None  # inside a chunk and inside an epoch of five steps
    resumed = run(47, tmp_path)
    assert resumed.info["resumed_at"] == 13 and same(resumed, straight)
    finished = run(47, tmp_path)
    assert finished.info["resumed_at"] == 47 and same(finished, straight)
    with pytest.raises(ValueError, match="at step 47, past num_steps=30"):
        run(30, tmp_path)
    with pytest.raises(ValueError, match="of another run: key differ"):
        run(60, tmp_path, key=jax.random.key(6))
    with pytest.raises(ValueError, match="of another run: first params differ"):
        PROGRAM(KEY, {**PARAMS, "b": jnp.ones(())}, DATA, 60, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="of another run: microbatch_size differ"):
        replace(PROGRAM, microbatch_size=2)(KEY, PARAMS, DATA, 60, checkpoint=tmp_path)


def test_how_a_run_ended_is_remembered(tmp_path: Path) -> None:
    stopped = run(40, tmp_path, callback=lambda step, metrics, params: step >= 20)
    again = run(40, tmp_path)
    assert again.info["status"] == stopped.info["status"] == "stopped" and same(again, stopped)


def test_a_damaged_checkpoint_costs_its_steps_and_nothing_else(tmp_path: Path) -> None:
    run(30, tmp_path)
    newest = max(tmp_path.glob(JSON))
    newest.write_text(newest.read_text()[:-20])
    resumed = run(47, tmp_path)
    assert resumed.info["resumed_at"] == 20 and len(resumed.info["discarded"]) == 1
    assert same(resumed, run(47, None))
    for path in tmp_path.glob(JSON):
        path.write_text("{")
    with pytest.raises(ValueError, match="no checkpoint can be read"):
        run(47, tmp_path)


def test_metrics_of_a_discarded_checkpoint_are_not_read(tmp_path: Path) -> None:
    """The file goes on after the last checkpoint that can be read, with what a save that was cut off left behind it."""
    run(40, tmp_path)
    content = (tmp_path / "qjax-metrics").read_bytes()
    newest = max(tmp_path.glob(JSON))
    newest.write_text("{")
    (tmp_path / "qjax-metrics").write_bytes(content + b"[[cut")
    resumed = run(60, tmp_path)
    assert resumed.info["resumed_at"] == 30 and same(resumed, run(60, None))
    assert (tmp_path / "qjax-metrics").read_bytes()[: len(content)] == content
    whole = (tmp_path / "qjax-metrics").read_bytes()
    (tmp_path / "qjax-metrics").write_bytes(whole[:-1] + bytes([255 - whole[-1]]))
    again = run(60, tmp_path)
    assert again.info["resumed_at"] == 50 and same(again, resumed)
    assert "the metrics in qjax-metrics are not what was saved" in again.info["discarded"][0]
    (tmp_path / "qjax-metrics").unlink()
    with pytest.raises(ValueError, match="no checkpoint can be read"):
        run(60, tmp_path)


def test_a_save_costs_the_same_however_long_the_run(tmp_path: Path) -> None:
    """25 kB of noise as metrics by chunk, which no compression makes smaller."""

    def noisy(params: Any, batch: Any, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        return squares(params, batch), {"noise": jax.random.normal(key, (640,))}

    written: list[tuple[int, int]] = []

    def measure(step: int, metrics: Any, params: Any) -> None:
        newest = tmp_path / newest_of(tmp_path)
        sizes = [path.stat().st_size for path in newest.rglob("*") if path.is_file()] if step > 10 else []
        written.append((sum(sizes), (tmp_path / "qjax-metrics").stat().st_size if step > 10 else 0))

    program = replace(PROGRAM, loss=noisy, stochastic=True)
    arguments = (KEY, PARAMS, DATA, 60)
    result = program(*arguments, callback=measure, checkpoint=tmp_path, checkpoint_every=0.0)
    states, logged = np.array(written[1:]).T
    assert result.metrics["noise"].shape == (60, 640) and same(result, program(*arguments))
    assert states.max() < 1.05 * states.min() and states.max() < 25_000
    assert (np.diff(logged) == logged[0]).all() and 25_600 < logged[0] < 27_000


def test_another_network_is_refused_by_the_leaf(tmp_path: Path) -> None:
    run(10, tmp_path)
    wider = {"w": jnp.zeros((3,)), "b": jnp.zeros((1,))}

    def loss(params: Any, batch: Any) -> jax.Array:
        return squares({**params, "b": params["b"][0]}, batch)

    with pytest.raises(ValueError, match=r"holds state/.*/b as float32\(\), this run as float32\(1,\)"):
        Refine(loss, optax.adam(0.1), batch_size=4)(KEY, wider, DATA, 20, checkpoint=tmp_path)


def test_a_folder_that_cannot_be_written_is_an_oserror(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError):
        run(10, tmp_path / "file" / "inside")


def newest_of(folder: Path) -> str:
    """The name of the newest complete checkpoint, empty where there is none."""
    return max((path.name for path in folder.glob("qjax-checkpoint_" + "[0-9]" * 8)), default="")


KILLED = """
import sys, time
from dataclasses import replace
from pathlib import Path
from tests.descend import test_resume
test_resume.PROGRAM = replace(test_resume.PROGRAM, loop=sys.argv[2])
test_resume.run(250, Path(sys.argv[1]), callback=lambda step, metrics, params: time.sleep(0.03))
"""


def test_killed_at_random_moments_the_numbers_are_the_same(tmp_path: Path, loop: str) -> None:
    """SIGKILL a random time after a run's first complete checkpoint, twice; then this process finishes it."""
    command = [sys.executable, "-c", KILLED, str(tmp_path / "run"), loop]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    newest = ""
    for delay in np.random.default_rng(3).uniform(0.0, 0.4, size=2):
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        while process.poll() is None and newest_of(tmp_path / "run") <= newest:
            time.sleep(0.002)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        newest = newest_of(tmp_path / "run")
    finished = run(250, tmp_path / "run")
    assert finished.info["resumed_at"] > 0 and same(finished, run(250, None))


SHARDED = """
import sys
import jax, jax.numpy as jnp, numpy as np, optax
from qjax.descend.refine import Refine
assert jax.device_count() == 8
generator = np.random.default_rng(0)
data = {"x": generator.normal(size=(103, 4)).astype(np.float32)}
data["y"] = data["x"] @ np.arange(4, dtype=np.float32)
params = {"w": jnp.asarray(generator.normal(size=(4, 8)), jnp.float32), "v": jnp.ones((8,))}

def loss(params, batch):
    return jnp.mean((jnp.tanh(batch["x"] @ params["w"]) @ params["v"] - batch["y"]) ** 2)

def augment(key, batch):
    return {**batch, "x": batch["x"] + 0.1 * jax.random.normal(key, batch["x"].shape)}

options = dict(loss=loss, optimizer=optax.adam(1e-2), batch_size=16, augment=augment, chunk_size=50, loop=sys.argv[1])
one = Refine(**options)(jax.random.key(0), params, data, 120)
auto = (jax.sharding.AxisType.Auto,) * 2
for mesh in (jax.make_mesh((8,), ("data",)), jax.make_mesh((4, 2), ("a", "b"), axis_types=auto)):
    program = Refine(**options, mesh=mesh).compile(params, data)
    assert "all-reduce" in program.programs.chunk.program.as_text(), "the batch is not sharded"
    eight = program(jax.random.key(0), params, data, 120)
    assert len(eight.params["w"].sharding.device_set) == 8
    for name in params:
        np.testing.assert_allclose(eight.params[name], one.params[name], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(eight.metrics["loss"], one.metrics["loss"], rtol=1e-4, atol=1e-5)
try:
    Refine(**{**options, "batch_size": 12}, mesh=mesh)
except ValueError as error:
    assert "does not divide over 8 devices" in str(error)
else:
    raise SystemExit("a batch of 12 on 8 devices was accepted")
"""


@pytest.mark.slow
def test_eight_devices_give_the_numbers_of_one(loop: str) -> None:
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", SHARDED, loop], env=environment, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr[-3000:]
