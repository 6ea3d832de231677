"""qjax: training and compression of JAX models in three steps: formulate a QUBO, anneal it, descend."""

from qjax import penalties, samplers
from qjax.couplings import Dense, Gram, Implicit, Sparse
from qjax.encodings import Codebook, Direction, Encoding, FixedPoint, Mask, Rounding, Sign, Ternary, encode
from qjax.fitted import fitted
from qjax.hybrid import hybrid, outer_round
from qjax.labels import Labels
from qjax.ledger import Ledger
from qjax.minimiser import minimiser
from qjax.pullback import pull_back
from qjax.quadratic import Quadratic, gauss_newton, hessian, layer_gram, least_squares, least_squares_stream
from qjax.qubo import Ising, Qubo
from qjax.refine import Refine, refine
from qjax.samplers.samples import Samples

__all__ = [
    "Codebook",
    "Dense",
    "Direction",
    "Encoding",
    "FixedPoint",
    "Gram",
    "Implicit",
    "Ising",
    "Labels",
    "Ledger",
    "Mask",
    "Quadratic",
    "Qubo",
    "Refine",
    "Rounding",
    "Samples",
    "Sign",
    "Sparse",
    "Ternary",
    "encode",
    "fitted",
    "gauss_newton",
    "hessian",
    "hybrid",
    "layer_gram",
    "least_squares",
    "least_squares_stream",
    "minimiser",
    "outer_round",
    "penalties",
    "pull_back",
    "refine",
    "samplers",
]
