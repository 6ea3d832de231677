"""Devices that need neither token nor network: D-Wave's mock, and a fake that fails as its script says."""

from __future__ import annotations

from typing import Any

import dimod
import dwave.graphs
from dwave.samplers import SimulatedAnnealingSampler
from dwave.system.testing import MockDWaveSampler

TOKEN = "DEV-0123456789abcdef0123456789abcdef01234567"


def mock(topology: str = "pegasus", shape: list[int] | None = None, sweeps: int = 100) -> Any:
    """D-Wave's mock, with seeded simulated annealing and without the exact solver that replaces its first read."""
    shapes = {"chimera": [2, 2, 4], "pegasus": [2], "zephyr": [1, 4]}
    return MockDWaveSampler(
        topology_type=topology,
        topology_shape=shape or shapes[topology],
        substitute_sampler=SimulatedAnnealingSampler(),
        substitute_kwargs={"seed": 3, "num_sweeps": sweeps},
        exact_solver_cutoff=0,
    )


class Solved:
    """The future of a cloud client: it has an id immediately, and an answer when it is resolved."""

    def __init__(self, answer: Any, problem_id: str, ready: bool = False) -> None:
        self.answer, self.problem_id, self.ready = answer, problem_id, ready

    def done(self) -> bool:
        return self.ready

    def wait_id(self, timeout: float | None = None) -> str:
        return self.problem_id

    @property
    def sampleset(self) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Client:
    """A cloud client with a token, and every answer by its problem id."""

    def __init__(self) -> None:
        self.token, self.answers, self.retrieved = TOKEN, {}, []

    def retrieve_answer(self, problem_id: str) -> Solved:
        self.retrieved.append(problem_id)
        return Solved(self.answers[problem_id], problem_id)


class Fake(dimod.Sampler, dimod.Structured):
    """A small Chimera chip that enforces its limits as a processor does, and keeps every submission in `calls`.

    script    what happens to each submission in turn:
              an exception            raised on submission
              ("late", exception)     raised when the answer is resolved
              ("lost", exception)     the same, but the answer can still be fetched by its id
              ("short", k)            only k reads are returned
              None                    an answer; also after the end of the script
    remote    whether answers are futures
    """

    def __init__(self, script: tuple[Any, ...] = (), remote: bool = True, **properties: Any) -> None:
        graph = dwave.graphs.chimera_graph(2, 2, 4)
        self._nodes, self._edges, self._graph = sorted(graph.nodes), sorted(map(tuple, graph.edges)), graph
        names = "num_reads answer_mode auto_scale annealing_time anneal_schedule initial_state reinitialize_state label"
        self._parameters = {name: [] for name in names.split()}
        self._properties = {
            "h_range": [-4.0, 4.0],
            "j_range": [-1.0, 1.0],
            "extended_j_range": [-2.0, 1.0],
            "per_qubit_coupling_range": [-18.0, 15.0],
            "num_reads_range": [1, 8],
            "annealing_time_range": [0.5, 2000.0],
            "default_annealing_time": 20.0,
            "max_anneal_schedule_points": 4,
            "problem_run_duration_range": [0.0, 1e6],
            **properties,
        }
        self.script, self.remote, self.calls, self.client = list(script), remote, [], Client()

    nodelist = property(lambda self: self._nodes)
    edgelist = property(lambda self: self._edges)
    parameters = property(lambda self: self._parameters)
    properties = property(lambda self: self._properties)

    def to_networkx_graph(self) -> Any:
        return self._graph

    def sample(self, bqm: Any, **arguments: Any) -> Any:
        event = self.script.pop(0) if self.script else None
        if isinstance(event, Exception):
            raise event
        self.calls.append((bqm.copy(), arguments))
        assert bqm.vartype is dimod.SPIN and set(arguments) <= set(self.parameters)
        assert 1 <= arguments["num_reads"] <= self.properties["num_reads_range"][1]
        low, high = self.properties["extended_j_range"]
        assert all(low <= bias <= high for bias in bqm.quadratic.values())
        assert all(abs(bias) <= 4.0 for bias in bqm.linear.values())
        problem_id = f"problem-{len(self.calls)}"
        kind, what = event if event is not None else ("fine", None)
        reads = what if kind == "short" else arguments["num_reads"]
        answer = SimulatedAnnealingSampler().sample(bqm, num_reads=reads, num_sweeps=50, seed=len(self.calls))
        answer.info.clear()
        timing = {"qpu_access_time": 9000.0, "qpu_anneal_time_per_sample": 20.0, "qpu_programming_time": 8000.0}
        answer.info.update(timing=timing, problem_id=problem_id, note=f"seen by {TOKEN}")
        self.client.answers[problem_id] = answer
        if kind == "late":
            self.client.answers[problem_id] = what
        if not self.remote:
            return answer
        shown = what if kind in ("late", "lost") else answer
        return dimod.SampleSet.from_future(Solved(shown, problem_id), lambda future: future.sampleset)
