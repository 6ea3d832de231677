"""Functions rewritten through their jaxprs compute what they did before, in programs of the kind that was asked for."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.tree_util import Partial

from qjax.rewriting import channels_last, lifted
from tests.jaxprs import closed_over, in_order, orders

RNG = np.random.default_rng(0)
LAST = ("NHWC", "HWIO", "NHWC")


def array(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def conv(x, w, strides=(1, 1), numbers=LAST, **options):
    return lax.conv_general_dilated(x, w, strides, "SAME", dimension_numbers=numbers, **options)


@jax.custom_vjp
def _custom(x, w):
    return conv(x, w)


_custom.defvjp(lambda x, w: (conv(x, w), (x, w)), lambda kept, g: jax.vjp(conv, *kept)[1](g))


def _apart(custom):
    """A product with a derivative of its own, which is not asked for."""

    @custom
    def product(x, w, v):
        return _product(conv, x, w, v)

    if custom is jax.custom_vjp:
        product.defvjp(lambda *args: (product(*args), args), lambda args, g: args)
    else:
        product.defjvp(lambda args, tangents: (product(*args), tangents[2]))
    return product


def _scanned(x, w):
    return lax.scan(lambda x, w: (jnp.tanh(conv(x, w)), None), x, jnp.stack([w, 2 * w]))[0]


def _looped(x, w):
    """Backwards only a scan can be followed, so this loop is part of the product and not of the network."""
    slope = jax.grad(lambda w: (jnp.tanh(conv(x, w)) ** 2).sum())
    return lax.fori_loop(0, 2, lambda _, w: w - 0.01 * slope(w), w)


def _branched(x, w):
    return lax.cond(x.sum() > 0, lambda: conv(x, w), lambda: 2 * conv(x, w))


def _product(network, x, w, v):
    """J'J v of a network in its kernel."""

    def outputs(w):
        return network(x, w)

    _, image = jax.jvp(outputs, (w,), (v,))
    return jax.vjp(outputs, w)[1](image)[0]


def _slope(network, x, w, v):
    return jax.grad(lambda w: (network(x, w) * 0.1).sum())(w + v)


IMAGES, KERNEL = (2, 6, 6, 4), (3, 3, 4, 4)
CASES = {
    "plain": (partial(_product, lambda x, w: conv(jnp.tanh(conv(x, w)), w)), IMAGES, KERNEL),
    "jitted": (partial(_product, jax.jit(lambda x, w: conv(jnp.tanh(conv(x, w)), w))), IMAGES, KERNEL),
    "strides": (partial(_product, partial(conv, strides=(2, 2))), IMAGES, KERNEL),
    "dilated": (partial(_product, partial(conv, rhs_dilation=(2, 2))), IMAGES, KERNEL),
    "groups": (partial(_product, partial(conv, feature_group_count=2)), IMAGES, (3, 3, 2, 4)),
    "checkpoint": (partial(_product, jax.checkpoint(conv)), IMAGES, KERNEL),
    "custom gradient": (partial(_slope, _custom), IMAGES, KERNEL),
    "custom_jvp": (_apart(jax.custom_jvp), IMAGES, KERNEL),
    "custom_vjp": (_apart(jax.custom_vjp), IMAGES, KERNEL),
    "scan": (partial(_product, _scanned), IMAGES, KERNEL),
    "while": (lambda x, w, v: _looped(x, w + v), IMAGES, KERNEL),
    "cond": (partial(_product, _branched), IMAGES, KERNEL),
    "channels first": (partial(_product, partial(conv, numbers=("NCHW", "OIHW", "NCHW"))), (2, 4, 6, 6), (4, 4, 3, 3)),
    "one axis": (
        partial(_product, partial(conv, strides=(1,), numbers=("NWC", "WIO", "NWC"))),
        (2, 6, 4),
        (3, 4, 4),
    ),
    "three axes": (
        partial(_product, partial(conv, strides=(1, 1, 1), numbers=("NDHWC", "DHWIO", "NDHWC"))),
        (2, 4, 4, 4, 2),
        (3, 3, 3, 2, 2),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_convolutions_are_in_order_and_numbers_stay(case):
    """Also of many vectors, as in a product of reads, and inside a loop; on other platforms nothing changes."""
    product, images, kernel = CASES[case]
    x, w, many = array(*images), 0.3 * array(*kernel), array(3, *kernel)

    def plain(x, w, many):
        return jax.vmap(lambda v: product(x, w, v))(many)

    def looped(x, w, many):
        step = channels_last(lambda many: plain(x, w, many))
        return lax.fori_loop(0, 2, lambda _, many: 0.1 * step(many), many)

    before, after = orders(plain, x, w, many), orders(looped, x, w, many)
    assert not all(map(in_order, before))
    assert len(after) >= len(set(before)) and all(map(in_order, after)), after
    np.testing.assert_allclose(
        jax.jit(channels_last(plain))(x, w, many), jax.jit(plain)(x, w, many), rtol=1e-4, atol=1e-4
    )
    elsewhere = orders(channels_last(plain), x, w, many, platform="cuda")
    assert sorted(elsewhere) == sorted(orders(plain, x, w, many, platform="cuda"))


def test_functions_without_such_convolutions_are_the_same_program():
    x, w = array(*IMAGES), array(*KERNEL)
    for function in (lambda x, w: conv(x, w), lambda x, w: (x @ w[0, 0], {"none": None})):
        before, after = (jax.make_jaxpr(f)(x, w) for f in (function, channels_last(function)))
        assert str(before) == str(after)


def test_rewritten_functions_can_be_differentiated():
    x, w, v = array(*IMAGES), array(*KERNEL), array(*KERNEL)
    product = CASES["plain"][0]

    def size(function):
        return jax.jit(jax.grad(lambda w: (function(x, w, v) ** 2).sum()))(w)

    np.testing.assert_allclose(size(channels_last(product)), size(product), rtol=1e-4, atol=1e-2)


def test_bodies_of_shard_map_stay_as_they_are():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("rows",))
    spec = jax.sharding.PartitionSpec
    product = CASES["plain"][0]
    summed = jax.shard_map(
        lambda x, w, v: lax.psum(product(x, w, v), "rows"),
        mesh=mesh,
        in_specs=(spec("rows"), spec(), spec()),
        out_specs=spec(),
    )
    x, w, v = array(*IMAGES), array(*KERNEL), array(*KERNEL)
    np.testing.assert_allclose(jax.jit(channels_last(summed))(x, w, v), jax.jit(summed)(x, w, v), rtol=1e-5)


class Scaled:
    """A loss that a user writes: it closes over data, some of it in functions that are jitted themselves."""

    def __init__(self, data):
        self.data, self.traces = data, 0
        self.inner = jax.jit(lambda x: jax.jit(lambda x: x * self.data["inner"])(x) + 1)

    def __call__(self, scale, x):
        self.traces += 1
        return {"image": scale * self.inner(x) + self.data["outer"]}


def called(function, *args):
    return function(*args)


def test_what_a_function_closes_over_becomes_leaves():
    loss = Scaled({"inner": array(5), "outer": RNG.normal(size=5).astype(np.float32)})
    plain, x = Partial(loss, jnp.float32(2)), array(5)
    made = lifted(plain, x)
    assert len(closed_over(called, plain, x)) == 2 and not closed_over(called, made, x)
    assert len(jax.tree.leaves(made)) == 3
    np.testing.assert_allclose(made(x)["image"], plain(x)["image"], rtol=1e-6)
    many = array(2, 5)
    np.testing.assert_allclose(jax.vmap(made)(many)["image"], [plain(row)["image"] for row in many], rtol=1e-6)
    other = array(1)  # not the example's shape
    np.testing.assert_allclose(made(other)["image"], plain(other)["image"], rtol=1e-6)


def test_lifted_functions_share_programs_whatever_they_close_over():
    loss, x = Scaled({"inner": array(5), "outer": array(5)}), array(5)
    run = jax.jit(called)
    first = lifted(Partial(loss, jnp.float32(2)), x)
    run(first, x)
    loss.data = {"inner": array(5), "outer": array(5)}
    loss.inner = jax.jit(lambda x: x * loss.data["inner"] + 1)
    second = lifted(Partial(loss, jnp.float32(3)), x)
    traces = loss.traces
    np.testing.assert_allclose(run(second, x)["image"], loss(3, x)["image"], rtol=1e-6)
    assert loss.traces == traces + 1  # the line above, and nothing by `run`
    assert run._cache_size() == 1


def test_lifted_under_other_settings_is_another_function():
    function, x = Partial(Scaled({"inner": array(5), "outer": array(5)}), jnp.float32(2)), array(5)
    with jax.default_matmul_precision("highest"):
        precise = lifted(function, x).func
    assert precise != lifted(function, x).func == lifted(function, x).func


def test_functions_that_close_over_nothing_stay_what_they_are():
    function = Partial(lambda y, x: x * y + 1, array(5))
    assert lifted(function, array(5)) is function


def test_traced_arrays_are_lifted_as_well():
    def run(data, x):
        made = lifted(Partial(lambda x: x * data), x)
        return made(x), len(jax.tree.leaves(made))

    x = array(5)
    image, leaves = jax.jit(run)(x, x)
    assert int(leaves) == 1
    np.testing.assert_allclose(image, x * x)
