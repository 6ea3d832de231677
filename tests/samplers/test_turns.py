"""Who has the next chunk of a budget, and how long it is."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import qjax.samplers as samplers
from qjax.samplers.turns import Runner, Turns
from tests.samplers import problems
from tests.samplers.test_auto import small_pilots  # noqa: F401


def chunks(energies: dict[str, list[float]], work: dict[str, float], seconds: float) -> list[tuple[str, int]]:
    """(runner, repeats) of all chunks; a repeat takes as many seconds as work, and chunk k of a runner finds its k-th
    energy in all reads, later ones the last of the list."""
    runners = [Runner(name, None, "longer", 1, work[name], restarts=True) for name in energies]
    turns, made = Turns(runners), []
    now, repeats, best, left, count = runners[0], 1, np.inf, seconds, dict.fromkeys(energies, 0)
    while repeats:
        made.append((now.name, repeats))
        found = energies[now.name][min(count[now.name], len(energies[now.name]) - 1)]
        count[now.name] += 1
        left -= repeats * now.work
        lowered, best = found < best, min(found, best)
        now.ended(repeats, repeats * now.work, found, lowered, 2.0)
        now, repeats = turns.next(now, lowered, left)
    return made


def test_schedules_are_lengthened_while_that_helps_then_restarted() -> None:
    """By one more doubling, or to all that is left where that is less than three times as much."""
    falling = {"a": [-1, -2, -3, -4]}
    assert chunks(falling, {"a": 1}, 19) == [("a", 1), ("a", 2), ("a", 4), ("a", 12)]
    assert chunks(falling, {"a": 1}, 31) == [("a", 1), ("a", 2), ("a", 4), ("a", 8), ("a", 16)]
    assert chunks({"a": [-1, -2, -2]}, {"a": 1}, 17) == [("a", 1), ("a", 2), ("a", 4), *[("a", 2)] * 5]
    luck = {"a": [-1, -2, -1.5, -1, -3]}  # once settled, the mean of a later chunk changes nothing
    assert chunks(luck, {"a": 1}, 15) == [("a", 1), ("a", 2), ("a", 4), *[("a", 2)] * 4]


def test_a_leader_that_stalls_shares_its_time() -> None:
    """A turn is at most a third of the leader's work, less after each that lowers nothing; who does, leads."""
    made = chunks({"a": [-5], "b": [-1]}, {"a": 1, "b": 1}, 60)
    assert made.index(("b", 1)) == 3 and made[:3] == [("a", 1), ("a", 2), ("a", 1)]
    shares = [0, 0]
    for name, repeats in made:
        shares[name == "b"] += repeats
        if name == "b":
            assert (
                shares[1] * 3 * sum(other == "b" for other, _ in made[: made.index((name, repeats)) + 1]) <= shares[0]
            )
    assert 3 <= shares[1] <= 8
    made = chunks({"a": [-5], "b": [-1, -6, -7, -8, -8]}, {"a": 1, "b": 1}, 200)
    first = made.index(("b", 2))
    assert made[first : first + 3] == [("b", 2), ("b", 4), ("b", 8)]
    assert sum(n for name, n in made if name == "b") > 120


@pytest.mark.usefixtures("small_pilots")
def test_within_tells_what_auto_tried_and_gave() -> None:
    qubo, auto = problems.qubo("dense", n=20), samplers.Auto(num_sweeps=4)
    info = samplers.within(auto, 0.05)(jax.random.key(0), qubo, 8).info
    assert info["tried"].keys() == info["given"].keys() == {"anneal", "bifurcation"} and info["choice"] == 3
    assert (
        info["sweeps"] == sum(info["given"].values()) and info["given"][min(info["tried"], key=info["tried"].get)] > 0
    )
