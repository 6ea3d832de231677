"""Flax models as pure functions: parameters that qjax reads by name, their state beside them, and back again.

    split = qjax.interop.flax.nnx(model)          or      qjax.interop.flax.linen(module, variables)
    outputs, state = split.apply(split.params, split.state, inputs, key=key, train=True)
    model = split.merge(params, state)            an nnx module; of linen, the variables that module.apply takes

`params` are nested dicts of arrays, {"conv": {"kernel": ...}}: the name of that leaf is "conv/kernel". `state` is all
else that is held in arrays: batch statistics, keys and counts of nnx's random streams. Gradients, encodings and
optimizers see the first; `qjax.refine` and `qjax.hybrid` take the second as `state=`.

Whether a call is one of training is said by `train=`, for both libraries. True: batches are normalised by their own
statistics, the statistics in the state move, dropout drops. False: none of these.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import flax.core
import flax.errors
import flax.linen
import flax.nnx
import jax
import jax.numpy as jnp
from jax.tree_util import DictKey, keystr, tree_leaves_with_path, tree_map_with_path

from qjax.formulate.leaves import names

Tree: TypeAlias = Any
KeyPath: TypeAlias = tuple[Any, ...]

# The arguments that tell a model whether it is in training, and what they are then.
_MODES = {"train": True, "training": True, "is_training": True, "deterministic": False, "use_running_average": False}


class Split(NamedTuple):
    """A model taken apart.

    params  what is trained and encoded: nested dicts of arrays
    state   what a call in training changes and no gradient touches: nested dicts of arrays, {} where there is none
    apply   apply(params, state, *inputs, key=None, train=False, **keywords) -> (outputs, state)
    merge   merge(params, state) -> the nnx module, or linen's {"params": params, **state}

    Both functions are pure: they take and return values, and any transformation of JAX can trace them.

    `apply` calls the model with the inputs and keywords. If its call has an argument named train, training,
    is_training, deterministic or use_running_average, that is set by `train`. The state returned has the structure,
    shapes and dtypes of the one given; with train=False, linen's is the one given.
    key: jax.random.key of all that is random in this call. Without it, linen draws nothing, and nnx draws from the
    model's own streams, whose counts move on in the state; with it, the streams in the state stay as they are.
    Errors: ValueError for params or state of another structure, or with nnx Variables in them; for a model that needs a
    key where there is none; for a linen module that writes to its state with train=False; for a state whose shapes
    change.
    """

    params: Tree
    state: Tree
    apply: Callable[..., tuple[Any, Tree]]
    merge: Callable[[Tree, Tree], Any]


def nnx(model: flax.nnx.Module, wrt: Any = flax.nnx.Param) -> Split:
    """Take an nnx module apart. It stays as it is; `merge` makes new ones, in the mode (train, eval) it was in.

    wrt: what is trained, a filter as of nnx.Optimizer: a type of Variable (say nnx.LoRAParam), or any other.
    A parameter that several layers share is one leaf, under the first of its names. What a call adds to the module
    (`sow`) or writes to its parameters is dropped.
    Errors: ValueError for what is not an nnx module, or has no Variable that fits wrt.
    """
    if not isinstance(model, flax.nnx.Module):
        raise ValueError(f"model must be an nnx module, got {_kind(model)}; a linen module goes to linen(module, ...)")
    trained, rest = flax.nnx.state(model, wrt, ...)
    params, state = flax.nnx.to_pure_dict(trained), flax.nnx.to_pure_dict(rest)
    if not params:
        raise ValueError(f"{_kind(model)} has no Variable that fits wrt={wrt}")
    variables = [(tuple(map(DictKey, path)), variable) for path, variable in flax.nnx.to_flat_state(rest)]
    keys = tuple(path for path, variable in variables if isinstance(variable, flax.nnx.RngKey))
    counts = tuple(path for path, variable in variables if isinstance(variable, flax.nnx.RngCount))
    apply = _Nnx(flax.nnx.graphdef(model), tuple(names(params)), tuple(names(state)), keys, counts)
    return Split(params, state, apply, apply.merge)


def linen(module: flax.linen.Module, variables: Mapping[str, Any]) -> Split:
    """Take the variables of a linen module apart: the collection "params", and the others as state.

    variables: what module.init returns. Boxes around their arrays (nn.Partitioned) are taken off.
    A key is that of the stream "dropout", as in rngs={"dropout": key}; the other streams derive theirs from it.
    Errors: ValueError for what is not a linen module, or variables without the collection "params".
    """
    if not isinstance(module, flax.linen.Module):
        raise ValueError(f"module must be a linen module, got {_kind(module)}; an nnx module goes to nnx(model)")
    if "params" not in variables:
        raise ValueError(f"variables must hold the collection 'params', as module.init returns, got {list(variables)}")
    state = flax.core.unfreeze(flax.linen.meta.unbox(variables))
    params = state.pop("params")
    apply = _Linen(module, tuple(names(params)), tuple(names(state)))
    return Split(params, state, apply, apply.merge)


@dataclass(frozen=True)
class _Linen:
    """`apply` of a linen module whose params and state have leaves of these names."""

    module: flax.linen.Module
    params: tuple[str, ...]
    state: tuple[str, ...]

    def __call__(
        self,
        params: Tree,
        state: Tree,
        *inputs: Any,
        key: jax.Array | None = None,
        train: bool = False,
        **keywords: Any,
    ) -> tuple[Any, Tree]:
        module, variables = self.module, self.merge(params, state)
        keywords = _modes(_arguments(module.__call__, inputs), train) | keywords
        rngs = None if key is None else {"dropout": key, "params": jax.random.fold_in(key, 0)}
        mutable = list(state) if train else False  # a list, even an empty one, makes `apply` return a pair
        try:
            result = module.apply(variables, *inputs, rngs=rngs, mutable=mutable, **keywords)
        except flax.errors.InvalidRngError as error:
            raise _needs_key(module, error) from error
        except flax.errors.ModifyScopeVariableError as error:
            raise ValueError(
                f"{_kind(module)} writes to what apply with train={train} keeps: its __call__ has to take and heed one "
                f"of {', '.join(_MODES)} ({error})"
            ) from error
        outputs, moved = result if train else (result, state)
        return outputs, _like(state, {**state, **moved})

    def merge(self, params: Tree, state: Tree) -> dict[str, Tree]:
        _check("params", params, self.params)
        _check("state", state, self.state)
        return {"params": params, **state}


@dataclass(frozen=True)
class _Nnx:
    """`apply` of an nnx module whose params and state have leaves of these names.

    graph         the module's structure, as of nnx.split
    keys, counts  the paths in the state of the keys and counts of its random streams
    """

    graph: flax.nnx.GraphDef[Any]
    params: tuple[str, ...]
    state: tuple[str, ...]
    keys: tuple[KeyPath, ...]
    counts: tuple[KeyPath, ...]

    def __call__(
        self,
        params: Tree,
        state: Tree,
        *inputs: Any,
        key: jax.Array | None = None,
        train: bool = False,
        **keywords: Any,
    ) -> tuple[Any, Tree]:
        model = self.merge(params, state if key is None else self._seeded(state, key))
        model.train() if train else model.eval()
        arguments = _arguments(model, inputs)
        keywords = _modes(arguments, train) | keywords
        # Dropout made without rngs= has no stream, and expects one from its caller.
        bare = [node for _, node in flax.nnx.iter_graph(model) if isinstance(node, flax.nnx.Dropout) and not node.rngs]
        if key is not None:
            for number, dropout in enumerate(bare, start=len(self.keys)):
                dropout.rngs = flax.nnx.RngStream(jax.random.fold_in(key, number), tag="dropout")
            if "rngs" in arguments:
                own = jax.random.fold_in(key, len(self.keys) + len(bare))
                keywords = {"rngs": flax.nnx.Rngs(own)} | keywords
        try:
            outputs = model(*inputs, **keywords)
        except (TypeError, ValueError) as error:
            if key is None and "rngs" in str(error):  # what nnx and Python name where a stream is missing
                raise _needs_key(model, error) from error
            raise
        kept = () if key is None else self.keys + self.counts
        return outputs, _like(state, flax.nnx.to_pure_dict(flax.nnx.state(model)), kept)

    def merge(self, params: Tree, state: Tree) -> Any:
        _check("params", params, self.params)
        _check("state", state, self.state)
        return flax.nnx.merge(self.graph, params, state)

    def _seeded(self, state: Tree, key: jax.Array) -> Tree:
        """The state with the key of stream i from fold_in(key, i), and all counts 0: the draws depend on key alone."""

        def seeded(path: KeyPath, leaf: Any) -> Any:
            if path in self.counts:
                return jnp.zeros_like(leaf)
            if path not in self.keys:
                return leaf
            own = jax.random.fold_in(key, self.keys.index(path))
            return jax.random.split(own, leaf.shape) if leaf.shape else own  # layers made by nnx.vmap have a key each

        return tree_map_with_path(seeded, state)


def _arguments(call: Callable[..., Any], inputs: tuple[Any, ...]) -> tuple[str, ...]:
    """The names of the arguments of a call that come after its inputs."""
    return tuple(inspect.signature(call).parameters)[len(inputs) :]


def _modes(arguments: Collection[str], train: bool) -> dict[str, bool]:
    return {name: train == in_training for name, in_training in _MODES.items() if name in arguments}


def _like(state: Tree, moved: Tree, kept: Collection[KeyPath] = ()) -> Tree:
    """The leaves of moved that state has, but those of `kept` from state, in state's structure and dtypes."""
    found = dict(tree_leaves_with_path(moved))

    def leaf(path: KeyPath, old: Any) -> Any:
        new = old if path in kept else found[path]
        if jnp.shape(new) != jnp.shape(old):
            name = keystr(path, simple=True, separator="/")
            raise ValueError(f"state {name!r} must keep its shape {jnp.shape(old)}, a call made it {jnp.shape(new)}")
        dtype = jnp.result_type(old)
        return new if jnp.result_type(new) == dtype else jnp.asarray(new, dtype)

    return tree_map_with_path(leaf, state)


def _check(argument: str, tree: Tree, expected: tuple[str, ...]) -> None:
    """ValueError for a tree that is no dict, has nnx Variables in it, or leaves of other names or in another order."""
    if any(map(_is_variable, jax.tree.leaves(tree, is_leaf=_is_variable))):
        raise ValueError(
            f"{argument} hold nnx Variables, got {_kind(tree)}; use those of qjax.interop.flax.nnx(model), or "
            "nnx.to_pure_dict(...)"
        )
    if not isinstance(tree, Mapping):
        raise ValueError(f"{argument} must be a dict, got {_kind(tree)}")
    found = names(tree)
    missing, unknown = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or unknown:
        raise ValueError(
            f"{argument} must have the model's leaves; missing: {missing or 'none'}, unknown: {unknown or 'none'}"
        )
    if tuple(found) != expected:  # "10" comes before "2", 2 before 10
        raise ValueError(
            f"{argument} has text where a list has numbers: nnx.restore_int_paths({argument}) puts it right"
        )


def _is_variable(node: Any) -> bool:
    return isinstance(node, flax.nnx.Variable)


def _needs_key(model: Any, error: Exception) -> ValueError:
    return ValueError(f"{_kind(model)} draws random numbers, so that apply needs a key= ({error})")


def _kind(thing: Any) -> str:
    return f"the class {thing.__name__}" if isinstance(thing, type) else type(thing).__name__
