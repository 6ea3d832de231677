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
        now.ended(repeats, repeats * now.work, found, 2.0)
        lowered, best = found < best, min(found, best)
        now, repeats = turns.next(now, lowered, left)
    return made


def test_schedules_are_lengthened_while_that_helps_then_restarted() -> None:
    """By one more doubling, or to all that is left where that is less than three times as much."""
    falling = {"a": [-1, -2, -3, -4]}
    assert chunks(falling, {"a": 1}, 19) == [("a", 1), ("a", 2), ("a", 4), ("a", 12)]
    assert chunks(falling, {"a": 1}, 31) == [("a", 1), ("a", 2), ("a", 4), ("a", 8), ("a", 16)]
    assert chunks({"a": [-1, -2, -2]}, {"a": 1}, 17) == [("a", 1), ("a", 2), ("a", 4), ("a", 4), ("a", 4), ("a", 2)]


def test_a_leader_that_stalls_shares_its_time() -> None:
    """A quarter of the work goes to the other one, until that one finds something lower: then it leads."""
    made = chunks({"a": [-5], "b": [-1]}, {"a": 1, "b": 0.5}, 400)
    assert made[:3] == [("a", 1), ("a", 2), ("b", 1)]
    spent = {name: sum(n for other, n in made if other == name) for name in "ab"}
    assert 80 <= 0.5 * spent["b"] <= 110 and 285 <= spent["a"] <= 320
    made = chunks({"a": [-5], "b": [-1, -6, -7, -8, -8]}, {"a": 1, "b": 1}, 100)
    first = made.index(("b", 2))
    assert made[first : first + 3] == [("b", 2), ("b", 4), ("b", 8)]
    assert sum(n for name, n in made if name == "b") > 70


@pytest.mark.usefixtures("small_pilots")
def test_within_tells_what_auto_tried_and_gave() -> None:
    qubo, auto = problems.qubo("dense", n=20), samplers.Auto(num_sweeps=4)
    info = samplers.within(auto, 0.05)(jax.random.key(0), qubo, 8).info
    assert info["tried"].keys() == info["given"].keys() == {"anneal", "bifurcation"} and info["choice"] == 3
    assert (
        info["sweeps"] == sum(info["given"].values()) and info["given"][min(info["tried"], key=info["tried"].get)] > 0
    )
