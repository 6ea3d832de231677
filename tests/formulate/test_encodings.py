"""Encodings: decode, transpose, nearest, constraints and repair, against plain NumPy and enumeration."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qjax.formulate.encodings import Codebook, Direction, FixedPoint, Mask, Rounding, Sign, Ternary, encode

RNG = np.random.default_rng(1)
PARAMS = {
    "conv": {"kernel": jnp.asarray(RNG.normal(size=(2, 1, 2)), jnp.float32)},
    "head": {"kernel": jnp.asarray(RNG.normal(size=(2, 3)), jnp.float32), "bias": jnp.zeros(3)},
}
ATOMS = jnp.asarray(RNG.normal(size=(3, 2)), jnp.float32)
SPECS = {
    "sign": {"head/kernel": Sign()},
    "sign, one step per leaf": {"head/kernel": Sign(per="leaf")},
    "ternary": {"head/kernel": Ternary()},
    "fixed-point": {"head/kernel": FixedPoint(bits=2)},
    "fixed-point, around the current values": {"head/kernel": FixedPoint(bits=2, step=0.3, around="current")},
    "rounding": {"head/kernel": Rounding(bits=3)},
    "mask": {"head/kernel": Mask()},
    "channel mask": {"head/kernel": Mask(axis=-1)},
    "mask of two": {"head/kernel": Mask(cardinality=2)},
    "codebook of atoms": {"head/kernel": Codebook(ATOMS, axis=-1)},
    "codebook of levels": {"head/bias": Codebook(jnp.asarray([-1.0, 0.0, 2.0]))},
    "three axes": {"conv/kernel": FixedPoint(bits=2)},
    "two leaves": {"conv/kernel": Sign(), "head/bias": FixedPoint(bits=2, step=0.5)},
    "direction": Direction({"head": {"kernel": jnp.asarray(RNG.normal(size=(3, 2, 3)), jnp.float32)}}, bits=2),
}


def _states(n):
    return np.array(list(itertools.product([0, 1], repeat=n)), np.int8)


def _leaf(params, path):
    for key in path.split("/"):
        params = params[key]
    return params


@pytest.mark.parametrize("name", SPECS)
def test_the_map_is_affine_and_transpose_is_its_adjoint(name):
    encoding = encode(PARAMS, SPECS[name])
    n = encoding.num_bits
    v = {path: RNG.normal(size=_leaf(PARAMS, path).shape).astype(np.float32) for path in encoding.paths}
    x = RNG.integers(0, 2, n)
    x[0] = 1

    @jax.jit
    def mapped(x, v):
        return jax.vmap(encoding.apply)(jnp.eye(n)), encoding.transpose(v), encoding.apply(x)

    units, transposed, image = jax.tree.map(np.asarray, mapped(jnp.asarray(x, jnp.float32), v))
    assert set(units) == set(v)
    expected = sum(unit.reshape(n, -1) @ v[path].reshape(-1) for path, unit in units.items())
    np.testing.assert_allclose(transposed, expected, atol=1e-5)
    for path, leaf in image.items():
        np.testing.assert_allclose(leaf, np.tensordot(x, units[path], 1), atol=1e-5)


@pytest.mark.parametrize("name", SPECS)
def test_decode_is_origin_plus_map_and_leaves_the_rest_alone(name):
    encoding = encode(PARAMS, SPECS[name])
    states = RNG.integers(0, 2, (2, 3, encoding.num_bits))

    @jax.jit
    def found(states):
        one = states[1, 2]
        return encoding.decode(states), encoding.decode(one), encoding.apply(one.astype(jnp.float32))

    decoded, one, moved = found(states)
    for path in ("conv/kernel", "head/kernel", "head/bias"):
        if path in encoding.paths:
            assert _leaf(decoded, path).shape == (2, 3, *_leaf(PARAMS, path).shape)
            np.testing.assert_allclose(_leaf(one, path), _leaf(encoding.origin, path) + moved[path], atol=1e-6)
            np.testing.assert_allclose(_leaf(decoded, path)[1, 2], _leaf(one, path), atol=1e-6)
        else:
            np.testing.assert_array_equal(_leaf(decoded, path), _leaf(PARAMS, path))


@jax.jit
def _rounded(encoding, target, states):
    """(parameters, feasible) of the state nearest to the target, and of every state."""
    nearest = encoding.nearest(target)
    return tuple((encoding.decode(x), encoding.feasible(x)) for x in (nearest, states))


@pytest.mark.parametrize("name", [name for name in SPECS if name != "direction"])
def test_nearest_is_the_nearest_of_all_feasible_states(name):
    encoding, target = encode(PARAMS, SPECS[name]), jax.tree.map(lambda leaf: leaf + 0.1, PARAMS)
    (found, holds), (decoded, feasible) = _rounded(encoding, target, _states(encoding.num_bits))

    def distances(params, lead):
        total = 0.0
        for path in encoding.paths:
            gap = np.asarray(_leaf(params, path)) - np.asarray(_leaf(target, path))
            total = total + (gap**2).reshape((*lead, -1)).sum(-1)
        return total

    assert bool(holds)
    every = distances(decoded, (len(feasible),))
    np.testing.assert_allclose(distances(found, ()), every[np.asarray(feasible)].min(), atol=1e-5)


def test_nearest_of_sixteen_bits_takes_no_list_of_levels_per_parameter():
    """10,000 parameters: a list of 65,536 levels for each would take 2.6 GB."""
    params = {"w": jnp.asarray(np.random.default_rng(3).uniform(-1, 1, (100, 100)), jnp.float32)}
    encoding = encode(params, {"w": FixedPoint(bits=16, step=2**-14)})
    decoded = np.asarray(encoding.decode(encoding.nearest(params))["w"])
    assert np.abs(decoded - np.asarray(params["w"])).max() <= 0.51 * 2**-14


def test_decoded_values_by_hand():
    w = jnp.asarray([[1.0, -4.0], [-3.0, 2.0]])
    params = {"w": w}
    states = {
        "sign": (Sign(), [1, 0, 0, 1], [[2.0, -3.0], [-2.0, 3.0]]),
        "ternary": (Ternary(step=2.0), [1, 1, 0, 0, 1, 0, 0, 1], [[2.0, 0.0], [-2.0, 0.0]]),
        "fixed-point": (FixedPoint(bits=2), [0, 0, 1, 1, 1, 0, 0, 1], [[-3.0, -4 / 3], [3.0, 4 / 3]]),
        "rounding": (Rounding(step=0.8), [1, 0, 0, 1], [[1.6, -4.0], [-3.2, 2.4]]),
        "mask": (Mask(), [1, 0, 0, 1], [[1.0, 0.0], [0.0, 2.0]]),
        "channel mask": (Mask(axis=-1), [0, 1], [[0.0, -4.0], [0.0, 2.0]]),
        "row mask": (Mask(axis=0), [0, 1], [[0.0, 0.0], [-3.0, 2.0]]),
    }
    for name, (spec, bits, expected) in states.items():
        decoded = encode(params, {"w": spec}).decode(bits)["w"]
        np.testing.assert_allclose(decoded, expected, atol=1e-5, err_msg=name)
    directions = Direction({"w": jnp.stack([jnp.eye(2), jnp.ones((2, 2))])}, bits=1, radius=jnp.asarray([1.0, 0.5]))
    np.testing.assert_allclose(encode(params, directions).decode([1, 0])["w"], w + jnp.eye(2) - 0.5, atol=1e-6)


def test_labels_name_leaf_and_index():
    encoding = encode(PARAMS, SPECS["two leaves"])
    assert len(encoding.labels) == encoding.num_bits
    assert encoding.labels[0] == ("conv/kernel", (0, 0, 0, 0))
    assert encoding.labels[encoding.num_bits - 1] == ("head/bias", (2, 1))


@pytest.mark.parametrize("name", ["codebook of atoms", "codebook of levels", "mask of two"])
def test_repair_keeps_feasible_states_and_mends_the_others(name):
    encoding = encode(PARAMS, SPECS[name])
    states = _states(encoding.num_bits)
    feasible = np.asarray(encoding.feasible(states))
    required = sum(c.required * len(c.indices) for c in encoding.constraints)
    assert set(states[feasible].sum(1).tolist()) == {required}
    for fields in (None, RNG.normal(size=states.shape)):
        mended = np.asarray(encoding.repair(states, fields))
        assert bool(encoding.feasible(mended).all())
        np.testing.assert_array_equal(mended[feasible], states[feasible])
        for indices, count in encoding.constraints:
            over = states[:, indices].sum(-1) > count
            # Groups with too many set bits only lose some, groups with too few only gain some.
            assert (mended[:, indices] <= states[:, indices])[over].all()
            assert (mended[:, indices] >= states[:, indices])[~over].all()


def test_repair_prefers_low_fields():
    encoding = encode({"w": jnp.zeros(1)}, {"w": Codebook(jnp.asarray([1.0, 2.0, 3.0]))})
    assert encoding.repair([1, 0, 1], [0.0, -5.0, -1.0]).tolist() == [0, 0, 1]
    assert encoding.repair([0, 0, 0], [0.0, -5.0, -1.0]).tolist() == [0, 1, 0]


def test_nonzeros_count_parameters():
    pruned = {**PARAMS, "head": {**PARAMS["head"], "kernel": PARAMS["head"]["kernel"].at[0, 1].set(0.0)}}
    for spec in (Mask(), Mask(axis=-1), Codebook(jnp.asarray([0.0, 1.5, -2.0]))):
        encoding = encode(pruned, {"head/kernel": spec})
        states = RNG.integers(0, 2, (20, encoding.num_bits))
        states = encoding.repair(states)
        nonzero = (np.asarray(encoding.decode(states)["head"]["kernel"]) != 0).sum((1, 2))
        np.testing.assert_array_equal(np.asarray(states) @ np.asarray(encoding.nonzeros), nonzero)
    with pytest.raises(ValueError, match="not linear"):
        _ = encode(PARAMS, {"head/kernel": Ternary()}).nonzeros
    with pytest.raises(ValueError, match="outside jit"):
        jax.eval_shape(lambda params: encode(params, {"head/kernel": Mask()}).nonzeros, PARAMS)


@pytest.mark.parametrize("spec", [Sign(), Ternary(), FixedPoint(), Rounding()])
def test_a_channel_of_zeros_takes_the_largest_step_and_a_leaf_of_zeros_none(spec):
    leaf = PARAMS["head"]["kernel"].at[:, 1].set(0.0)
    step = encode({"w": leaf}, {"w": spec}).parts[0].step
    assert step.shape == (1, 3) and float(step[0, 1]) == float(step.max()) == max(float(step[0, 0]), float(step[0, 2]))
    with pytest.raises(ValueError, match=r"'head/bias' is all zeros, .* give step="):
        encode(PARAMS, {"head/bias": spec})


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_the_grid_of_16_bit_leaves_is_that_of_float32_rounded(dtype):
    # Made in 16 bits, the step and every level would be off by up to 0.4 %, and levels of 8 bits would coincide.
    low = {"w": PARAMS["head"]["kernel"].astype(dtype)}
    full = {"w": low["w"].astype(jnp.float32)}
    for spec in (FixedPoint(bits=8), FixedPoint(bits=8, step=1e-3, around="current"), Rounding(), Sign(), Ternary()):
        ours, exact = encode(low, {"w": spec}), encode(full, {"w": spec})
        bits = RNG.integers(0, 2, (10, exact.num_bits))
        decoded = ours.decode(bits)["w"]
        assert decoded.dtype == dtype
        np.testing.assert_array_equal(decoded, exact.decode(bits)["w"].astype(dtype))
        np.testing.assert_array_equal(ours.nearest(low), exact.nearest(full))


def test_rounding_by_default_has_one_level_more_than_fixed_point():
    # 2^2 + 1 multiples of the step, -2 .. 2.
    encoding = encode({"w": jnp.linspace(-3.0, 3.0, 13)}, {"w": Rounding(bits=2)})
    ends = encoding.decode(jnp.asarray([[0] * 13, [1] * 13]))["w"] / encoding.parts[0].step[None, :]
    np.testing.assert_allclose(np.unique(np.round(ends, 4)), [-2.0, -1.0, 0.0, 1.0, 2.0], atol=1e-4)


def test_encodings_pass_through_jit():
    encoding = encode(PARAMS, SPECS["two leaves"])
    bits = RNG.integers(0, 2, (4, encoding.num_bits))
    jitted = jax.jit(lambda e, b: e.decode(b))(encoding, bits)
    for a, b in zip(jax.tree.leaves(jitted), jax.tree.leaves(encoding.decode(bits)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ({"head/kernal": Sign()}, "did you mean 'head/kernel'"),
        ({}, "no leaf"),
        ({"head/kernel": FixedPoint(bits=0)}, "bits"),
        ({"head/kernel": FixedPoint(step=-1.0)}, "step"),
        ({"head/kernel": FixedPoint(step=jnp.ones(2))}, r"step must broadcast to the shape \(2, 3\) .*, got \(2,\)"),
        ({"head/kernel": FixedPoint(step=jnp.ones((1, 2, 3)))}, "step must broadcast"),
        ({"head/kernel": Rounding(bits=0)}, "bits"),
        ({"count": Sign()}, "leaf 'count' must be floating-point, got int32"),
        (Direction({"count": jnp.ones((3, 2))}), "leaf 'count' must be floating-point, got int32"),
        ({"empty": Codebook(jnp.ones(3))}, "leaf 'empty' has no parameters"),
        ({"head/kernel": FixedPoint(step=float("nan"))}, "step"),
        ({"head/kernel": Sign(per="row")}, "per"),
        ({"head/kernel": Mask(axis=2)}, "axis"),
        ({"head/kernel": Mask(cardinality=7)}, "cardinality"),
        ({"head/kernel": Codebook(jnp.ones((3, 3)), axis=-1)}, "atoms"),
        (Direction({"head": {"kernel": jnp.ones((3, 3, 2))}}), "directions"),
        (Direction({"head": {"kernel": jnp.ones((3, 2, 3))}}, bits=17), "bits"),
    ],
)
def test_bad_specs_are_named(specs, message):
    with pytest.raises(ValueError, match=message):
        encode({**PARAMS, "count": jnp.arange(2), "empty": jnp.zeros((0, 2))}, specs)


def test_wrong_number_of_bits_is_named():
    with pytest.raises(ValueError, match="bits must have shape"):
        encode(PARAMS, SPECS["sign"]).decode(np.zeros(5))


@pytest.mark.parametrize(
    "spec",
    [
        Sign(step=np.int64(3 * 10**9)),
        FixedPoint(bits=1, step=np.array([6 * 10**9])),
        Codebook(np.array([0, 3 * 10**9])),
    ],
    ids=["sign", "fixed-point", "codebook"],
)
def test_steps_and_atoms_beyond_int32_do_not_wrap(spec):
    encoding = encode({"w": jnp.zeros(1)}, {"w": spec})
    state = [0, 1] if isinstance(spec, Codebook) else [1]
    np.testing.assert_array_equal(encoding.decode(state)["w"], np.float32([3e9]))


@pytest.mark.parametrize("name", SPECS)
def test_blocks_allow_each_value_once_and_what_the_constraints_allow(name):
    """Of all states: as many inside the blocks as there are different parameters that satisfy the constraints."""
    encoding = encode(PARAMS, SPECS[name])
    n = min(encoding.num_bits, 12)
    held = encoding.blocks.within(0, n)
    held.check(n)
    states = np.zeros((2**n, encoding.num_bits), np.int8)
    states[:, :n] = _states(n)
    inside = np.asarray(held.feasible(states))
    if n == encoding.num_bits:
        assert held.num_bits == encoding.blocks.num_bits
        wanted = np.asarray(encoding.feasible(states))
        assert not (inside & ~wanted).any()
        decoded = encoding.decode(states[wanted])
        leaves = [np.asarray(_leaf(decoded, path)).reshape(wanted.sum(), -1) for path in encoding.paths]
        rows = np.concatenate(leaves, axis=1)
        assert inside.sum() == len(np.unique(rows.round(5), axis=0))
