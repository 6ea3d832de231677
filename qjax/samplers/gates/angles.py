"""Angles of QAOA that serve many problems: published ones, and a deeper circuit's from a shallower one's.

    gammas g_1 .. g_p of the phases, betas b_1 .. b_p of the mixers, in radians: arrays (..., 2, p)

The circuit is that of qjax.samplers.gates.statevector. Fixed angles for unweighted Max-Cut on 3-regular graphs: Wurtz,
Lykov 2021, Phys. Rev. A 104, 052419, by the numbers of the authors' repository danlkv/fixed-angle-QAOA
(angles_regular_graphs.json), brought to rising gammas and falling betas by symmetries that change no cut:
b -> b + pi/2; g -> -g with b -> -b; and, all degrees being odd, g_k -> g_k + pi with b_k and all later b negated.
On any 3-regular graph the expected cut is at least `GUARANTEES[p]` of the maximum: proven for p <= 2, conjectured from
3 on.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

# fmt: off
FIXED: dict[int, tuple[tuple[float, ...], tuple[float, ...]]] = {
    1: ((0.61548002,), (0.39270013,)),
    2: ((0.48788735, 0.89775859), (0.55475546, 0.2922574)),
    3: ((0.41787832, 0.79214776, 0.93232948), (0.60032889, 0.45241986, 0.23511412)),
    4: ((0.40718406, 0.77873346, 0.97786102, 1.14390016), (0.59413038, 0.44061878, 0.31250151, 0.16312574)),
    5: (
        (0.3592396, 0.70611019, 0.82216781, 1.003988, 1.15356927),
        (0.6317379, 0.52261397, 0.39028465, 0.27619481, 0.14934142),
    ),
    6: (
        (0.33146716, 0.64515631, 0.73130303, 0.83674612, 1.00977595, 1.12682383),
        (0.63569681, 0.53407238, 0.46296397, 0.35987601, 0.25850709, 0.13888416),
    ),
    7: (
        (0.3075471, 0.62011806, 0.7006096, 0.76412924, 0.86567754, 1.03551756, 1.1258363),
        (0.64806401, 0.55839915, 0.5007673, 0.45132269, 0.33452177, 0.23544465, 0.12965313),
    ),
    8: (
        (0.30221036, 0.60130604, 0.6597921, 0.7115199, 0.77304704, 0.86802418, 1.02383154, 1.10452208),
        (0.65650754, 0.56238557, 0.49776919, 0.46996502, 0.41361734, 0.31031851, 0.22814776, 0.12058734),
    ),
    9: (
        (0.2794012, 0.56613324, 0.6312226, 0.67933252, 0.72624066, 0.76805642, 0.874522, 1.03747092, 1.11798666),
        (0.65447387, 0.56186397, 0.5090114, 0.48677629, 0.45143509, 0.40321108, 0.30473032, 0.21983296, 0.11718174),
    ),
    10: (
        (0.26671636, 0.5448227, 0.60998102, 0.65626008, 0.69570836, 0.7287574,
         0.77387758, 0.88211138, 1.043801, 1.11525922),
        (0.65558354, 0.56318149, 0.51388817, 0.49558422, 0.46889487, 0.43574328,
         0.38847067, 0.29117619, 0.21050905, 0.11238794),
    ),
    11: (
        (0.2572874, 0.52804058, 0.59177096, 0.6396915, 0.67720562, 0.70206146,
         0.73702426, 0.7753075, 0.88355874, 1.04697026, 1.11523772),
        (0.65643879, 0.56334713, 0.51630143, 0.50366825, 0.481823, 0.45601256,
         0.42143463, 0.37077327, 0.27645017, 0.20094698, 0.1072507),
    ),
}
# fmt: on

GUARANTEES = {
    1: 0.69245005020442,
    2: 0.7559063097485101,
    3: 0.792315514902161,
    4: 0.8167299894216052,
    5: 0.8363793482380077,
    6: 0.8498938819897202,
    7: 0.859619124021074,
    8: 0.8672299758118122,
    9: 0.8723780358122347,
    10: 0.8785275447411593,
    11: 0.8828425408436951,
}


def fixed(num_layers: int) -> jax.Array:
    """The published angles (2, num_layers); past 11 layers those of 11, grown layer by layer."""
    return extended(jnp.asarray(FIXED[min(num_layers, max(FIXED))]), num_layers)


def grown(angles: jax.Array, depth: jax.Array | int) -> jax.Array:
    """From q = depth layers to q + 1, by interpolation (Zhou et al. 2020, Phys. Rev. X 10, 021067, "INTERP"):

        new_i = (i - 1)/q old_{i-1} + (q - i + 1)/q old_i,   i = 1 .. q + 1,   old_0 = old_{q+1} = 0

    angles (..., p) with zeros from layer q + 1 on, p > q -> (..., p) with zeros from q + 2 on; depth may be traced.
    """
    place = jnp.arange(angles.shape[-1], dtype=angles.dtype)  # i - 1
    q = jnp.asarray(depth).astype(angles.dtype)
    before = jnp.concatenate([jnp.zeros_like(angles[..., :1]), angles[..., :-1]], axis=-1)
    # Past layer q + 1 nothing has to be cut off: there both old angles are zero.
    old = jnp.moveaxis(jnp.stack([before, angles]), -1, 0)  # (p, 2, ...)
    weights = jnp.stack([place, q - place], axis=1) / q
    return jnp.moveaxis((old * weights.reshape((*weights.shape, *(1,) * (old.ndim - 2)))).sum(1), 0, -1)


def extended(angles: jax.Array, num_layers: int) -> jax.Array:
    """Angles (..., q) -> (..., num_layers), num_layers >= q, by repeated interpolation.

    Errors: ValueError for fewer layers than q.
    """
    q = angles.shape[-1]
    if num_layers < q:
        raise ValueError(f"angles are of {q} layers, more than num_layers={num_layers}")
    padded = jnp.concatenate([angles, jnp.zeros((*angles.shape[:-1], num_layers - q), angles.dtype)], axis=-1)
    for depth in range(q, num_layers):
        padded = grown(padded, depth)
    return padded
