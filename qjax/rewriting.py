"""Functions rewritten through their jaxprs before they are compiled.

    channels_last(function)      convolutions that are as fast inside a loop as outside of one, on a CPU
    lifted(function, *example)   arrays that a function closes over, as leaves of a Partial

`channels_last`: XLA's CPU kernels take convolutions with the axes (batch, space, channel) and (space, in, out) alone.
Its pass that brings others into that order visits a program's entry computation only (ConvCanonicalization in
xla/service/cpu/conv_canonicalization.cc; github.com/jax-ml/jax/issues/12868), so that in the body of a loop they run as
plain nested loops, 10 to 100 times slower. Gradients of convolutions are always of that kind. Here the transposes of
that pass are written into the function: the numbers stay the same, inside of loops and outside.

`lifted`: what a function closes over is a constant of every program it is part of. XLA then computes with it while it
compiles, for a minute where it is a batch of images, and a program serves no other batch.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core
from jax.extend.core import ClosedJaxpr  # type: ignore[attr-defined, unused-ignore]
from jax.tree_util import Partial

from qjax import programs

Rule = Callable[..., list[Any]]

_CALLS = ("jit", "pjit")
# Equations whose inner functions can be traced on their own, which the body of a shard_map cannot.
_NESTED = (*_CALLS, "scan", "while", "cond", "checkpoint", "remat2", "custom_jvp_call", "custom_vjp_call")
_MOST_SPATIAL_AXES = 3


def channels_last(function: Callable[..., Any]) -> Callable[..., Any]:
    """function(*args) on pytrees of arrays, with the axes of its convolutions in the order that CPUs are fast in.

    The numbers are those of `function`; without such convolutions, and on other platforms, the program is, too. What
    function calls by shard_map stays as it is. A trace of function more, where it has none.
    """

    def rewritten(*args: Any) -> Any:
        traced, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
        if not _holds(traced.jaxpr, _is_out_of_order):
            return function(*args)
        results = _evaluated(_in_order, traced.jaxpr, traced.consts, jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shapes), results)

    return rewritten


def lifted(function: Partial, *example: Any) -> Partial:
    """The same function, with the arrays that it closes over among its leaves; itself where there are none.

    example: arguments of the shapes it will be called with; for others it closes over its arrays as before. Two of them
    compare equal, and so share programs, where their functions do, whatever numbers the arrays hold. Functions jitted
    inside that close over arrays become part of the whole, without shardings of their own.
    """

    def call(function: Partial, *args: Any) -> Any:
        return function(*args)

    traced, shapes = jax.make_jaxpr(call, return_shape=True)(function, *example)
    leaves = jax.tree.leaves((function, *example))
    if _holds(traced.jaxpr, _closes_over):
        whole = traced
        traced = jax.make_jaxpr(lambda *args: _evaluated(_inlined, whole.jaxpr, whole.consts, args))(*leaves)
    if not traced.consts:
        return function
    held = tuple(array if isinstance(array, jax.Array) else jnp.asarray(array) for array in traced.consts)
    static = _Lifted(function.func, _signature(leaves), programs.context(), traced.jaxpr, jax.tree.structure(shapes))
    return Partial(static, function, held)


@dataclass(frozen=True)
class _Lifted:
    """The function of a `Partial`, as a jaxpr; compares by what it was made of."""

    function: Callable[..., Any]
    signature: tuple[Any, ...]
    context: Hashable
    jaxpr: Any = field(compare=False)
    structure: Any = field(compare=False)

    def __call__(self, function: Partial, held: tuple[jax.Array, ...], *args: Any) -> Any:
        leaves = jax.tree.leaves((function, *args))
        if _signature(leaves) != self.signature:
            return function(*args)
        return jax.tree.unflatten(self.structure, _evaluated(_bound, self.jaxpr, held, leaves))


def _signature(leaves: Sequence[Any]) -> tuple[Any, ...]:
    return tuple((jnp.shape(leaf), jax.dtypes.result_type(leaf)) for leaf in leaves)


def _evaluated(rule: Rule, jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    """The jaxpr's results, each of its equations done by rule(equation, *inputs)."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

    def value(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for equation in jaxpr.eqns:
        results = rule(equation, *map(value, equation.invars))
        values.update(zip(equation.outvars, results, strict=True))
    return [value(atom) for atom in jaxpr.outvars]


def _bound(equation: Any, *inputs: Any, **changes: Any) -> list[Any]:
    """The equation as it stands, up to changed parameters."""
    primitive = equation.primitive
    results = primitive.bind(*inputs, **primitive.get_bind_params({**equation.params, **changes}))
    return list(results) if primitive.multiple_results else [results]


def _holds(jaxpr: Any, test: Callable[[Any], bool]) -> bool:
    """Whether the test is true of an equation, also of those inside others."""
    return any(test(equation) or _holds_inside(equation, test) for equation in jaxpr.eqns)


def _holds_inside(equation: Any, test: Callable[[Any], bool]) -> bool:
    return any(_holds(inner, test) for inner in core.jaxprs_in_params(equation.params))


def _closes_over(equation: Any) -> bool:
    return equation.primitive.name in _CALLS and len(equation.params["jaxpr"].consts) > 0


def _inlined(equation: Any, *inputs: Any) -> list[Any]:
    """Functions jitted inside become part of the whole, so that what they close over is closed over by the whole."""
    if equation.primitive.name in _CALLS and (_closes_over(equation) or _holds_inside(equation, _closes_over)):
        inner = equation.params["jaxpr"]
        return _evaluated(_inlined, inner.jaxpr, inner.consts, inputs)
    return _bound(equation, *inputs)


def _is_out_of_order(equation: Any) -> bool:
    if equation.primitive.name != "conv_general_dilated":
        return False
    numbers = equation.params["dimension_numbers"]
    space = len(numbers.lhs_spec) - 2
    return 1 <= space <= _MOST_SPATIAL_AXES and numbers != _numbers(space)


def _numbers(space: int) -> lax.ConvDimensionNumbers:
    """(batch, space, channel) and (space, in, out), as `lax` writes it."""
    image = (0, space + 1, *range(1, space + 1))
    return lax.ConvDimensionNumbers(image, (space + 1, space, *range(space)), image)


def _in_order(equation: Any, *inputs: Any) -> list[Any]:
    if _is_out_of_order(equation):
        plain, ordered = partial(_convolved, equation), partial(_convolved_in_order, equation)
        return [lax.platform_dependent(*inputs, cpu=ordered, default=plain)]
    if equation.primitive.name in _NESTED and _holds_inside(equation, _is_out_of_order):
        changes = {key: _with_inner_in_order(value) for key, value in equation.params.items()}
        return _bound(equation, *inputs, **changes)
    return _bound(equation, *inputs)


def _convolved(equation: Any, lhs: jax.Array, rhs: jax.Array) -> jax.Array:
    return _bound(equation, lhs, rhs)[0]


def _convolved_in_order(equation: Any, lhs: jax.Array, rhs: jax.Array) -> jax.Array:
    numbers = equation.params["dimension_numbers"]
    batch, channel, *space = numbers.lhs_spec
    out_channel, in_channel, *kernel_space = numbers.rhs_spec
    lhs = lax.transpose(lhs, (batch, *space, channel))
    rhs = lax.transpose(rhs, (*kernel_space, in_channel, out_channel))
    image = _bound(equation, lhs, rhs, dimension_numbers=_numbers(len(space)))[0]
    batch, channel, *space = numbers.out_spec
    return lax.transpose(image, np.argsort((batch, *space, channel)))


def _with_inner_in_order(value: Any) -> Any:
    """A parameter of an equation, with the convolutions of the functions in it in order."""
    if isinstance(value, tuple):
        return tuple(map(_with_inner_in_order, value))
    if isinstance(value, ClosedJaxpr):
        inputs = [var.aval for var in value.jaxpr.invars]
        return jax.make_jaxpr(lambda *args: _evaluated(_in_order, value.jaxpr, value.consts, args))(*inputs)
    # An open jaxpr; from JAX 0.11 on there is but one kind.
    return _with_inner_in_order(ClosedJaxpr(value, ())).jaxpr if isinstance(value, core.Jaxpr) else value
