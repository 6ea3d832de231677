"""Models of annealing processors, on classical computers; `qjax.interop.dwave` calls real ones.

Chip     the couplers of a chip and the chains of a problem's bits
Noisy    control and readout errors around any sampler
"""

from qjax.annealers.chains import Chip, MissingEdge
from qjax.annealers.noise import Noisy

__all__ = ["Chip", "MissingEdge", "Noisy"]
