"""A quantum processor as a qjax sampler.

embed      chains for the problem's graph, from the cache if it has them (embedding.py, cache.py)
program    chains, gauges and scale (programming.py); reads are split by gauge, initial state and the device's limit
           (submissions.py)
submit     all submissions are sent, answers journaled, faults typed and retried (desk.py)
decode     gauges are undone and broken chains resolved by a rule (unembed.py)
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from qjax.energy.qubo import Qubo
from qjax.interop.bqm import to_bqm
from qjax.interop.dwave.client import check_client, processor
from qjax.interop.dwave.desk import Answer, Remote
from qjax.interop.dwave.embedding import METHODS, embed
from qjax.interop.dwave.errors import BrokenChains, DeviceError
from qjax.interop.dwave.programming import CHAIN_STRENGTHS, Programmed, check_schedule, program
from qjax.interop.dwave.reported import is_mock, reported, summed
from qjax.interop.dwave.submissions import Piece, request, split
from qjax.interop.dwave.unembed import RULES, unembedded
from qjax.samplers.contract import one_of


@dataclass(frozen=True)
class QPU(Remote):
    """Reads from a D-Wave processor, or from a mock of one. Calls cannot be traced.

    device              a structured dimod sampler; None: `DWaveSampler(**client)`, whose token comes from D-Wave's own
                        configuration
    client              (name, value) pairs, such as (("solver", "Advantage2"),); a token is refused
    embedding           "auto" (the clique layout where more than half of all pairs are coupled, else a search),
                        "clique", "search", or the chain of every bit
    embedding_seed      of the search
    cache               a folder for embeddings, which processes may share; None: in memory only
    chain_strength      a rule, "uniform_torque_compensation" or "scaled", or a number in the problem's own units
    chain_strength_prefactor  of the rule; None: 1.414 for the first, 1 for the second
    chain_break_method  "majority_vote", "weighted_random", "minimize_energy" or "discard", see unembed.py
    auto_scale          scale the problem to fill the device's ranges; if False, coefficients out of range are an error
    extended_range      use the device's extended_j_range
    annealing_time      microseconds
    anneal_schedule     (microseconds, s) points, see `pause` and `reverse`; initial states need a reverse one, and each
                        distinct state is a submission of its own
    num_spin_reversals  the number of gauges that the reads are split over; 0: none
    parameters          (name, value) pairs for the device's `sample`
    max_submissions     a call that needs more is an error, before anything is paid for
    retry, timeout, journal: see `Remote`

    info: chain_break_fraction (reads,): broken chains of each read. Of each bit, (n,): chain_breaks, the share of reads
    in which its chain was broken, and chain_length. Scalars: chain_strength, scale_factor, weakest_coefficient,
    precision_bits (see `Programmed`), submissions, replayed (answers from the journal), embedding_searches,
    intact_reads. `seconds` by ledger phase, and `reported`, seconds by the processor's own names (not for a mock).
    Errors: ValueError for fields; the types of errors.py for everything outside this machine.
    """

    device: Any = None
    client: tuple[tuple[str, Any], ...] = ()
    embedding: str | tuple[tuple[int, ...], ...] = "auto"
    embedding_seed: int = 0
    cache: str | None = None
    chain_strength: str | float = "uniform_torque_compensation"
    chain_strength_prefactor: float | None = None
    chain_break_method: str = "majority_vote"
    auto_scale: bool = True
    extended_range: bool = False
    annealing_time: float | None = None
    anneal_schedule: tuple[tuple[float, float], ...] | None = None
    num_spin_reversals: int = 0
    parameters: tuple[tuple[str, Any], ...] = ()
    max_submissions: int = 100

    by_read: ClassVar[frozenset[str]] = frozenset({"chain_break_fraction"})
    counts: ClassVar[frozenset[str]] = frozenset({"submissions", "replayed", "embedding_searches", "intact_reads"})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_client(self.client)
        if isinstance(self.embedding, str):
            one_of("embedding", self.embedding, METHODS)
        if isinstance(self.chain_strength, str):
            one_of("chain_strength", self.chain_strength, CHAIN_STRENGTHS)
        elif not self.chain_strength > 0:
            raise ValueError(f"chain_strength must be positive, got {self.chain_strength!r}")
        one_of("chain_break_method", self.chain_break_method, RULES)
        if self.num_spin_reversals < 0 or self.max_submissions < 1:
            raise ValueError("num_spin_reversals must not be negative, and max_submissions at least 1")
        if self.annealing_time is not None and self.anneal_schedule is not None:
            raise ValueError("annealing_time and anneal_schedule exclude each other")

    def _reads(
        self, seed: int, qubo: Qubo, num_reads: int, initial: np.ndarray | None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        device = self.device if self.device is not None else processor(self.client)
        self._check(device, initial is not None)
        started = time.perf_counter()
        spin = to_bqm(qubo).change_vartype("SPIN", inplace=False)
        built = time.perf_counter()
        found = embed(qubo, device, self.embedding, self.embedding_seed, self.cache)
        draw, n = np.random.default_rng(seed), qubo.num_bits
        gauges = np.ones((1, n), np.int8)
        if self.num_spin_reversals:
            gauges = draw.choice(np.array([-1, 1], np.int8), size=(min(self.num_spin_reversals, num_reads), n))
        laying = time.perf_counter()
        programmed = program(
            spin,
            found.chains,
            device,
            self.chain_strength,
            self.chain_strength_prefactor,
            gauges,
            self.auto_scale,
            self.extended_range,
        )
        embedded = found.seconds + time.perf_counter() - laying
        pieces = split(self, device, num_reads, len(gauges), initial, sum(map(len, found.chains)))
        desk = self._desk(device)
        requests = [request(self, device, programmed, piece, found.chains, initial, seed) for piece in pieces]
        answers, trouble = desk.answers(requests)
        every = [answer for parts in answers for answer in parts]
        if trouble is not None and not any(len(answer.sampleset) for answer in every):
            raise trouble
        decoding = time.perf_counter()
        states, broken, came = self._decoded(spin, programmed, found.chains, pieces, answers, num_reads, draw)
        kept, intact = self._kept(broken, came, answers)
        info: dict[str, Any] = {
            "chain_break_fraction": broken[kept].mean(1),
            "chain_breaks": broken[came].mean(0),
            "chain_length": np.array([len(chain) for chain in found.chains]),
            "chain_strength": np.float64(programmed.strength),
            "scale_factor": np.float64(programmed.factor),
            "weakest_coefficient": np.float64(programmed.weakest),
            "precision_bits": np.float64(programmed.precision_bits),
            "submissions": np.int64(len(requests)),
            "replayed": np.int64(sum(answer.replayed for answer in every)),
            "embedding_searches": np.int64(found.origin == "search"),
            "intact_reads": np.int64(intact),
        }
        if not is_mock(device):
            info["reported"] = summed([reported(answer.sampleset) for answer in every if not answer.replayed])
        info["seconds"] = desk.booked(embed=embedded, program=built - started, decode=time.perf_counter() - decoding)
        bits = (states[kept] > 0).astype(np.int8)
        if trouble is not None:
            trouble.reads = bits, info
            raise trouble
        return bits, info

    def _check(self, device: Any, from_states: bool) -> None:
        """Errors: ValueError for fields that this device does not accept."""
        known = device.parameters
        for name, _ in self.parameters:
            if name not in known:
                raise ValueError(f"parameters: the device has no {name!r}; it has {', '.join(sorted(known))}")
        limits = device.properties.get("annealing_time_range")
        if self.annealing_time is not None and limits and not limits[0] <= self.annealing_time <= limits[1]:
            raise ValueError(f"annealing_time must lie in {limits} us on this device, got {self.annealing_time!r}")
        if self.anneal_schedule is not None or from_states:
            check_schedule(self.anneal_schedule or ((0.0, 0.0), (1.0, 1.0)), device.properties, from_states)

    def _decoded(
        self,
        spin: Any,
        programmed: Programmed,
        chains: Any,
        pieces: list[Piece],
        answers: list[list[Answer]],
        num_reads: int,
        draw: np.random.Generator,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(spins (reads, n), whether chains were broken (reads, n), whether reads came back (reads,)), in the order of
        the reads."""
        order = [q for chain in chains for q in chain]
        lengths = np.array([len(chain) for chain in chains])
        states = np.zeros((num_reads, len(chains)), np.int8)
        broken, came = np.zeros(states.shape, bool), np.zeros(num_reads, bool)
        for piece, parts in zip(pieces, answers, strict=True):
            if not parts:
                continue
            qubits = np.concatenate([_qubits(answer.sampleset, order) for answer in parts])[: piece.reads.size]
            reads = piece.reads[: len(qubits)]
            # The gauge is undone first, since minimize_energy takes the fields of the problem as it was given.
            gauge = programmed.gauges[piece.gauge]
            turned = qubits * np.repeat(gauge, lengths)
            states[reads], broken[reads] = unembedded(self.chain_break_method, turned, lengths, spin, draw)
            came[reads] = True
        return states, broken, came

    def _kept(self, broken: np.ndarray, came: np.ndarray, answers: list[list[Answer]]) -> tuple[np.ndarray, int]:
        """(indices (reads,) of the reads to return, number of reads without a broken chain). Errors: BrokenChains."""
        whole = np.flatnonzero(came & ~broken.any(1))
        if self.chain_break_method != "discard":
            kept = np.arange(came.size)
            kept[~came] = np.resize(np.flatnonzero(came), np.sum(~came))
            return kept, whole.size
        if not whole.size:
            every = tuple(answer.sampleset for parts in answers for answer in parts)
            raise BrokenChains(answers=every)
        return np.resize(whole, came.size), whole.size


def _qubits(sampleset: Any, order: list[int]) -> np.ndarray:
    """Spins (reads, qubits) in the given order of qubits. Errors: DeviceError for missing qubits, or other values."""
    spins = sampleset if sampleset.vartype.name == "SPIN" else sampleset.change_vartype("SPIN", inplace=False)
    place = {v: column for column, v in enumerate(spins.variables)}
    missing = [q for q in order if q not in place]
    if missing:
        raise DeviceError(f"the answer has no value for the qubits {missing[:8]}", (sampleset,))
    rows = np.asarray(spins.record.sample)[:, [place[q] for q in order]]
    if not np.isin(rows, (-1, 1)).all():
        raise DeviceError("the answer has values other than -1 and 1", (sampleset,))
    return np.repeat(rows, np.asarray(spins.record.num_occurrences), axis=0)
