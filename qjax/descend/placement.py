"""Where the loop over the steps runs: on the device, in one compiled program, or on the host, a program a step.

A loop on the device costs nothing a step. But on CPUs XLA brings convolutions into the form that its fast kernels take
only in a program's outermost computation (its pass conv_canonicalization visits no other), and inside a loop the
gradient of a convolution runs at about 2 GFLOP/s. The rule is fixed; nothing is timed when a program runs. Measured:
the time inside a loop over that of a program sent by the host for every step, on two cores, JAX 0.10.2 and 0.12.0:

    gradient of a 3 x 3 convolution   64, 55     1 x 1   17, 23     depthwise   13, 12     in one dimension   87, 70
    gradients of max- and average-pools, of a softmax, of normalisations, of an embedding          0.4 to 1.4
    matrix products, from 1024 x 1024 down to 64 x 64      1.0 to 0.1; batched 1.6, 1.8; their gradients 0.7 to 1.3
    sorting, random bits, cumulative sums, FFT, Cholesky   0.1 to 1.2
"""

from collections.abc import Iterator
from typing import Any

import jax
from jax.extend.core import jaxprs_in_params
from jax.sharding import Mesh

SLOW_INSIDE_LOOPS = {"cpu": {"conv_general_dilated"}}  # primitives by platform


def slow_inside_loops(jaxpr: Any, mesh: Mesh | None) -> bool:
    """Whether the jaxpr, or one inside it, has a primitive that is slow inside a loop where it runs: on the mesh, or
    else on JAX's default device."""
    config: Any = jax.config
    device = config.jax_default_device if mesh is None else mesh.devices.flat[0]
    platform = jax.default_backend() if device is None else getattr(device, "platform", device)
    return not SLOW_INSIDE_LOOPS.get(platform, set()).isdisjoint(_primitives(jaxpr))


def _primitives(jaxpr: Any) -> Iterator[str]:
    """The names of all primitives of a jaxpr and of those inside it."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inner in jaxprs_in_params(equation.params):
            yield from _primitives(inner)
