"""qjax: training and compression of JAX models in three steps: formulate a QUBO, anneal it, descend."""

from qjax.couplings import Dense, Gram, Implicit, Sparse
from qjax.labels import Labels
from qjax.qubo import Ising, Qubo
