"""A loop in pieces: killed and begun again, it gives the numbers and the seconds of one that was not."""

import itertools
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.harness import pieces
from experiments.harness.account import Account
from qjax import Refine, Refined

STEPS, CHUNK = 20, 5


def loss(params: jax.Array, batch: jax.Array) -> jax.Array:
    return jnp.mean(jnp.square(batch @ params - 1.0))


LOOP = Refine(loss, optax.adam(0.1), batch_size=4, chunk_size=CHUNK)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "SECONDS", 0.0)  # a piece a chunk


def trained(folder: Path | None, kill_at: int | None = None, asleep: float = 0.0) -> tuple[Refined, list, Account]:
    """The loop's result, [step, second] of its callbacks, and its account; asleep: seconds before it begins."""
    account, gathered = Account(), []
    account.run("data", time.sleep, asleep)

    def callback(step: int, metrics: object, params: object) -> None:
        gathered.append([step, account.seconds])
        if step == kill_at:
            raise KeyboardInterrupt

    data = jnp.asarray(np.random.default_rng(0).normal(size=(40, 3)), jnp.float32)
    arguments = LOOP, jax.random.key(0), jnp.zeros(3), data, STEPS, callback
    refined = account.refine(*arguments, folder=folder, gathered=gathered)
    account.close()
    return refined, gathered, account


def equal(one: Refined, other: Refined) -> bool:
    leaves = (jax.tree.leaves((run.params, run.optimizer, run.metrics)) for run in (one, other))
    return all(np.array_equal(*pair) for pair in zip(*leaves, strict=True))


def test_a_killed_loop_goes_on_with_the_same_numbers(tmp_path: Path) -> None:
    whole, gathered, _ = trained(None)
    assert equal(trained(tmp_path / "whole")[0], whole)
    for kill_at in (15, STEPS, None):  # from the start, from step 10, from step 15
        folder = tmp_path / "killed"
        if kill_at is not None:
            with pytest.raises(KeyboardInterrupt):
                trained(folder, kill_at)
    refined, again, account = trained(folder)
    assert equal(refined, whole) and refined.step == STEPS and account.repeated > 0
    assert [step for step, _ in again] == [step for step, _ in gathered] == [5, 10, 15, 20]
    finished, kept, _ = trained(folder)  # nothing is left to do
    assert equal(finished, whole) and kept == again


def test_seconds_are_those_of_one_process(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, kill_at=15)
    start = time.perf_counter()
    _, gathered, account = trained(tmp_path, asleep=0.5)
    passed = time.perf_counter() - start
    seconds = [second for _, second in gathered]
    # A piece learns only at its end how long it read its checkpoint: until then that is on the clock.
    assert all(later > earlier - 0.3 for earlier, later in itertools.pairwise(seconds))
    assert seconds[0] > 0 and seconds[-1] <= account.ledger.total + 0.3
    # What this process slept before it went on is not the run's, and is not lost.
    # (Compilation is charged here, too, where an earlier run of the process did it.)
    assert account.ledger["data"] < 0.1 and 0.5 <= account.repeated <= passed + account.ledger["compile"]
    assert sum(account.ledger.phases.values()) == pytest.approx(account.ledger.total)
    before = [compiled for _, compiled in account._charged.values()]
    assert account.ledger["compile"] > 0 and before == [0.0]


def test_what_is_damaged_is_begun_anew(tmp_path: Path) -> None:
    whole, *_ = trained(None)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, kill_at=15)
    (tmp_path / "account-10.json").write_text("{")
    refined, gathered, account = trained(tmp_path)
    assert equal(refined, whole) and len(gathered) == 4 and account.repeated == 0.0
