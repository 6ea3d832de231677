"""Annealing processors, simulated: a chip's graph and its chains (`Chip`), its faults around any sampler (`Noisy`)."""

from qjax.annealers.chains import Chip, MissingEdge
from qjax.annealers.noise import Noisy

__all__ = ["Chip", "MissingEdge", "Noisy"]
