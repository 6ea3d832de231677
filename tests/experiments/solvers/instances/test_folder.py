"""Folders of instance files, their best known values, and one line for each mistake in a file."""

from pathlib import Path

import pytest

from experiments.solvers.instances.folder import read_folder
from experiments.solvers.instances.problem import InstanceError
from tests.experiments.solvers.instances.files import GRAPH, written
from tests.samplers.problems import all_states


def test_a_folder_with_its_best_known_values(tmp_path: Path) -> None:
    dimod = pytest.importorskip("dimod")
    written(tmp_path, "one/g.txt", GRAPH)
    written(tmp_path, "README.txt", "no instance\n")
    written(tmp_path, "best_known.csv", "instance,kind,variables,best_known,sense\ng,maxcut,4,5,max\n")
    written(tmp_path, "one/best_known.csv", "instance,best_known,sense\nm,-1.5,min\n")
    model = dimod.BinaryQuadraticModel({0: 0.5, 1: -1}, {(0, 1): -1.0}, 0.0, "SPIN")
    with model.to_file() as file:
        (tmp_path / "one/m.bqm").write_bytes(file.read())
    found = {i.name: i for i in read_folder(tmp_path)}
    assert {n: i.best_known for n, i in found.items()} == {"g": 5.0, "m": -1.5}
    assert float(found["m"].qubo.energies(all_states(2)).min()) == -1.5
    written(tmp_path, "two/g.txt", GRAPH)
    with pytest.raises(InstanceError, match="another instance g"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", r"a.txt:0: .*`n m`"),
        ("a.txt", "3 2\n1 2 1\n", r"a.txt:2: the file ends .* 1 more"),
        ("a.txt", "3 1\n1 2 1\n2 3 1\n", r"a.txt:3: more entries"),
        ("a.txt", "3 1\n1 4 1\n", r"a.txt:2: .*1 .. 3"),
        ("a.txt", "3 1\n\n2 2 1\n", r"a.txt:3: .*node 2 to itself"),
        ("a.txt", "3 1\n1 x 1\n", r"a.txt:2: expected `i j value`"),
        ("a.txt", "3 1\n1 2 nan\n", r"a.txt:2: .*finite"),
        ("a.txt", "3 -1\n", r"a.txt:1: expected a count"),
        ("a.txt", "3 1 1\n", r"a.txt:1: expected `n m`"),
        ("a.sparse", "3 99999999999\n", r"a.sparse:1: expected a count"),
        ("b.txt", "2\n1 1\n1 1 3\n", r"b.txt:3: .*problem b-2"),
        ("a.txt", "é\n", "a.txt: not a text file"),
        ("a.bqm", "nothing", "a.bqm: no dimod model"),
        ("best_known.csv", "instance,best_known\n", r"best_known.csv:1: no column 'sense'"),
        ("best_known.csv", "instance,best_known,sense\ng,much,max\n", r"best_known.csv:2: needs a number"),
        ("none.csv", "", "no instance files"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    if name.endswith("bqm"):
        pytest.importorskip("dimod")
    written(tmp_path, name, text)
    with pytest.raises(InstanceError, match=message):
        read_folder(tmp_path)
