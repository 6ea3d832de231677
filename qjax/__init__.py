"""qjax: training and compression of JAX models in three steps: formulate a QUBO, anneal it, descend."""

from qjax import samplers
from qjax.descend.refine import Refine, Refined, refine
from qjax.energy import blocks, penalties
from qjax.energy.blocks import Blocks
from qjax.energy.couplings import Dense, Gram, Implicit, Sparse
from qjax.energy.finder import Found, find_blocks
from qjax.energy.labels import Labels
from qjax.energy.qubo import Ising, Qubo
from qjax.formulate.encodings import Codebook, Direction, Encoding, FixedPoint, Mask, Rounding, Sign, Ternary, encode
from qjax.formulate.fitted import fitted
from qjax.formulate.minimiser import Minimum, minimiser
from qjax.formulate.patches import conv_patches
from qjax.formulate.pullback import pull_back
from qjax.formulate.quadratic import Quadratic, gauss_newton, hessian, layer_gram, least_squares, least_squares_stream
from qjax.hybrid import hybrid, outer_round
from qjax.ledger import Ledger
from qjax.rounds import Problem, Round, Trained
from qjax.samplers.samples import Samples

__all__ = [
    "Blocks",
    "Codebook",
    "Dense",
    "Direction",
    "Encoding",
    "FixedPoint",
    "Found",
    "Gram",
    "Implicit",
    "Ising",
    "Labels",
    "Ledger",
    "Mask",
    "Minimum",
    "Problem",
    "Quadratic",
    "Qubo",
    "Refine",
    "Refined",
    "Round",
    "Rounding",
    "Samples",
    "Sign",
    "Sparse",
    "Ternary",
    "Trained",
    "blocks",
    "conv_patches",
    "encode",
    "find_blocks",
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
