"""Anneal a matrix: minimise x'Qx over x in {0, 1}^n, Q any square numpy array."""

import jax
import numpy as np

import qjax

matrix = np.random.default_rng(0).integers(-50, 50, size=(100, 100)).astype(np.float32)
qubo = qjax.Qubo.from_matrix(matrix)  # any triangle convention: only Q + Q' counts

sampler = qjax.samplers.get("anneal", num_sweeps=500)  # or "auto", "tabu", ...: qjax.samplers.names()
samples = sampler(jax.random.key(0), qubo, num_reads=100)

x = np.asarray(samples.best_bits, np.float32)
print("lowest energy", float(samples.best_energy), "by numpy", float(x @ matrix @ x))
print("reads that found it", int((samples.energies == samples.best_energy).sum()), "of 100")
