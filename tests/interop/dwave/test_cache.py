"""Embeddings on disk: searched once, shared by processes, searched again where a file is damaged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qjax.interop.dwave import QPU, cache, embedding, forget
from tests.interop.dwave.fakes import mock
from tests.interop.dwave.test_qpu import KEY, RING

TWO = """
import sys, time
from qjax.interop.dwave import cache
def search():
    print("searched", flush=True)
    time.sleep(0.5)
    return ((0, 4), (1,))
print(cache.fetched("k", sys.argv[1], lambda chains: True, search)[0])
"""


@pytest.fixture(autouse=True)
def _no_memory() -> None:
    forget()


def test_embeddings_on_disk_are_used_without_those_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device, folder = mock("chimera"), str(tmp_path / "embeddings")
    first = QPU(device, cache=folder)(KEY, RING, 4)
    forget()
    monkeypatch.setattr(embedding, "_found", lambda *a: pytest.fail("searched again"))
    second = QPU(device, cache=folder)(KEY, RING, 4)
    np.testing.assert_array_equal(first.bits, second.bits)
    assert int(first.info["embedding_searches"]) == 1 and int(second.info["embedding_searches"]) == 0


@pytest.mark.parametrize("damage", ["truncated", "not json", "another key", "wrong chains", "not a list"])
def test_a_damaged_file_is_replaced_by_a_new_search(tmp_path: Path, damage: str) -> None:
    device = mock("chimera")
    QPU(device, cache=str(tmp_path))(KEY, RING, 4)
    (path,) = tmp_path.glob("*.json")
    good = path.read_text()
    stored = json.loads(good)
    path.write_text(
        {
            "truncated": good[:-9],
            "not json": "\x00\x01",
            "another key": json.dumps({**stored, "key": "0"}),
            "wrong chains": json.dumps({**stored, "chains": [[q] for q in range(8)]}),
            "not a list": json.dumps({**stored, "chains": 3}),
        }[damage]
    )
    forget()
    assert int(QPU(device, cache=str(tmp_path))(KEY, RING, 4).info["embedding_searches"]) == 1
    assert path.read_text() == good and not list(tmp_path.glob("*.partial"))


def test_two_processes_search_once(tmp_path: Path) -> None:
    """Two processes start together: one searches, the other waits for its file."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    running = [
        subprocess.Popen([sys.executable, "-c", TWO, str(tmp_path)], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=60)[0] for process in running]
    assert all(process.returncode == 0 for process in running)
    assert sum("searched" in text for text in said) == 1
    assert all("((0, 4), (1,))" in text for text in said)


def test_keys_differ_by_graph_chip_method_and_seed() -> None:
    edges, chip, nodes = np.array([[0, 1], [1, 2]]), np.array([[0, 1], [1, 2], [2, 3]]), np.arange(4)
    base = cache.key_of(edges, 3, chip, nodes, "search", 0)
    assert base == cache.key_of(edges[::-1, ::-1], 3, chip[::-1], nodes, "search", 0)
    others = [
        cache.key_of(edges, 4, chip, nodes, "search", 0),
        cache.key_of(edges[:1], 3, chip, nodes, "search", 0),
        cache.key_of(edges, 3, chip[:2], nodes, "search", 0),
        cache.key_of(edges, 3, chip, nodes[:3], "search", 0),
        cache.key_of(edges, 3, chip, nodes, "clique", 0),
        cache.key_of(edges, 3, chip, nodes, "search", 1),
    ]
    assert len({base, *others}) == 7


def test_a_coupling_of_zero_keeps_the_graph() -> None:
    import jax.numpy as jnp

    zeroed = RING.couplings
    weights = tuple(w.at[0].set(jnp.zeros((), w.dtype)) for w in zeroed.weights)
    from dataclasses import replace

    same = replace(RING, couplings=replace(zeroed, weights=weights))
    np.testing.assert_array_equal(embedding.graph(same), embedding.graph(RING))
