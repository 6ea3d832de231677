"""Linen and nnx models with batch statistics and dropout: taken apart, put together, and through the three steps."""

import itertools
from functools import partial

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import qjax
import qjax.interop.flax
from qjax.formulate.leaves import names

KEY = jax.random.key(5)
X = jax.random.normal(jax.random.key(0), (24, 6))
Y = jnp.arange(24, dtype=jnp.int32) % 3


# flax's layers promote bfloat16 implicitly.
promoting = partial(jax.numpy_dtype_promotion, "standard")


class Linen(nn.Module):
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train):
        with promoting():
            x = nn.Dense(8, param_dtype=self.dtype, name="body")(x)
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9, param_dtype=self.dtype, name="norm")(x)
            x = nn.Dropout(0.5, deterministic=not train)(nn.relu(x))
            return nn.Dense(3, param_dtype=self.dtype, name="head")(x)


class Nnx(nnx.Module):
    def __init__(self, rngs, dtype=jnp.float32):
        self.body = nnx.Linear(6, 8, param_dtype=dtype, rngs=rngs)
        self.norm = nnx.BatchNorm(8, momentum=0.9, param_dtype=dtype, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(8, 3, param_dtype=dtype, rngs=rngs)

    def __call__(self, x):
        with promoting():
            return self.head(self.drop(nnx.relu(self.norm(self.body(x)))))


def _split(library, dtype=jnp.float32):
    if library == "nnx":
        return qjax.interop.flax.nnx(Nnx(nnx.Rngs(1), dtype))
    return qjax.interop.flax.linen(Linen(dtype), Linen(dtype).init(jax.random.key(1), X, train=False))


def _statistics(state):
    return {name.split("/")[-1]: leaf for name, leaf in zip(names(state), jax.tree.leaves(state), strict=True)}


def _assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, *(jax.tree.map(_plain, tree) for tree in (one, other)))


def _plain(leaf):
    return jax.random.key_data(leaf) if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key) else leaf


both = pytest.mark.parametrize("library", ["linen", "nnx"])


@both
def test_params_are_plain_dicts_with_the_names_that_qjax_reads(library):
    split = _split(library)
    leaves = ["body/bias", "body/kernel", "head/bias", "head/kernel", "norm/bias", "norm/scale"]
    assert names(split.params) == leaves
    assert all(type(leaf) is type(X) for leaf in jax.tree.leaves(split.params))
    assert {"mean", "var"} <= set(_statistics(split.state))


@both
def test_statistics_move_in_training_and_stay_in_evaluation(library):
    split = _split(library)
    batch = X @ split.params["body"]["kernel"]
    outputs, moved = split.apply(split.params, split.state, X, key=KEY, train=True)
    np.testing.assert_allclose(_statistics(moved)["mean"], 0.1 * batch.mean(0), atol=1e-6)
    np.testing.assert_allclose(_statistics(moved)["var"], 0.9 + 0.1 * batch.var(0), atol=1e-5)
    outputs, still = split.apply(split.params, moved, X)
    _assert_equal(still, moved)
    assert outputs.shape == (24, 3)
    _assert_equal(split.apply(split.params, moved, X, key=KEY)[0], outputs)


@both
def test_dropout_draws_from_the_key_alone(library):
    split = _split(library)

    def outputs(state, key):
        return split.apply(split.params, state, X, key=key, train=True)

    first, moved = outputs(split.state, KEY)
    _assert_equal(outputs(moved, KEY)[0], first)  # in training, the outputs depend on the batch's own statistics
    assert not np.array_equal(outputs(split.state, jax.random.key(6))[0], first)


@both
def test_apply_can_be_traced_and_compiles_once(library):
    split, traces = _split(library), []

    @jax.jit
    def step(carry, key):
        traces.append(key)
        outputs, state = split.apply(split.params, carry, X, key=key, train=True)
        return state, outputs

    state, eager = split.state, split.state
    for index in range(3):
        key = jax.random.fold_in(KEY, index)
        state, outputs = step(state, key)
        expected, eager = split.apply(split.params, eager, X, key=key, train=True)
        np.testing.assert_allclose(outputs, expected, atol=1e-5)
    assert len(traces) == 1
    scanned, _ = jax.lax.scan(step, split.state, jax.vmap(lambda i: jax.random.fold_in(KEY, i))(jnp.arange(3)))
    for one, other in ((state, eager), (scanned, state)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(_plain(a), _plain(b), atol=1e-6), one, other)


def test_linen_calls_are_those_of_flax():
    module, variables = Linen(), Linen().init(jax.random.key(1), X, train=False)
    split = qjax.interop.flax.linen(module, variables)
    _assert_equal(split.merge(split.params, split.state), variables)
    expected, moved = module.apply(variables, X, train=True, rngs={"dropout": KEY}, mutable=["batch_stats"])
    outputs, state = split.apply(split.params, split.state, X, key=KEY, train=True)
    _assert_equal(outputs, expected)
    _assert_equal(state, moved)
    _assert_equal(split.apply(split.params, state, X, False)[0], module.apply({**variables, **moved}, X, train=False))


def test_nnx_calls_are_those_of_flax():
    model = Nnx(nnx.Rngs(1))
    split = qjax.interop.flax.nnx(model)
    outputs, state = split.apply(split.params, split.state, X, train=True)
    _assert_equal(nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param))), split.state)  # left as it was
    model.train()
    _assert_equal(outputs, model(X))
    _assert_equal(state, nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param))))
    assert int(state["drop"]["rngs"]["count"]) == 1 + int(split.state["drop"]["rngs"]["count"])
    model.eval()
    _assert_equal(split.apply(split.params, state, X)[0], model(X))


def test_nnx_modules_come_back_as_they_were():
    model = Nnx(nnx.Rngs(1))
    model.head.kernel.set_metadata("note", "kept")
    model.eval()
    split = qjax.interop.flax.nnx(model)
    merged = split.merge(split.params, split.state)
    assert nnx.graphdef(merged) == nnx.graphdef(model)
    assert merged.drop.deterministic and merged.head.kernel.get_metadata("note") == "kept"
    _assert_equal(nnx.to_pure_dict(nnx.state(merged)), nnx.to_pure_dict(nnx.state(model)))
    merged.head.bias[...] = jnp.ones(3)
    assert not np.any(model.head.bias[...]) and not np.any(split.params["head"]["bias"])


@both
def test_quadratics_and_encodings_take_the_model(library):
    split = _split(library)
    leaf = "head/bias"

    def outputs(params, x, y):
        return split.apply(params, split.state, x)[0]

    quadratic = qjax.gauss_newton(outputs, _mean_loss, split.params, X, Y, leaves=[leaf], damping=0.1)
    encoding = qjax.encode(split.params, {leaf: qjax.FixedPoint(bits=2, step=0.2)})
    qubo = qjax.pull_back(quadratic, encoding)
    states = jnp.asarray(np.random.default_rng(0).integers(0, 2, (8, qubo.num_bits)), jnp.int8)
    expected = [float(quadratic(encoding.decode(state))) for state in states]
    np.testing.assert_allclose(qubo.energies(states), expected, atol=1e-4)
    assert float(quadratic(split.params)) == pytest.approx(float(_mean_loss(outputs(split.params, X, Y), X, Y)))


def _mean_loss(logits, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), y).mean()


def _training_loss(split):
    def loss(params, state, batch, key):
        x = batch[0].astype(split.params["body"]["kernel"].dtype)
        logits, state = split.apply(params, state, x, key=key, train=True)
        return _mean_loss(logits, *batch), (state, {"largest": logits.max()})

    return loss


each_in_one_dtype = pytest.mark.parametrize(("library", "dtype"), [("linen", jnp.bfloat16), ("nnx", jnp.float32)])


@each_in_one_dtype
def test_refine_moves_the_state_with_the_parameters(library, dtype):
    split = _split(library, dtype)
    loop = qjax.Refine(_training_loss(split), optax.adam(1e-2), batch_size=12, stochastic=True)
    result = loop(KEY, split.params, (X, Y), 40, state=split.state)
    assert result.step == 40
    assert result.metrics["loss"][-5:].mean() < result.metrics["loss"][:5].mean()
    _assert_like(result.params, split.params)
    _assert_like(result.state, split.state)
    assert {leaf.dtype for leaf in jax.tree.leaves(result.params)} == {jnp.dtype(dtype)}
    before, after = (jnp.abs(_statistics(state)["mean"]).max() for state in (split.state, result.state))
    assert before == 0 and after > 0.01


def test_refine_resumes_with_nnx_streams_in_its_state(tmp_path):
    split = _split("nnx")

    def loss(params, state, batch):
        logits, state = split.apply(params, state, batch[0], train=True)
        return _mean_loss(logits, *batch), (state, {})

    loop = qjax.Refine(loss, optax.sgd(0.1), batch_size=12, chunk_size=5)
    whole = loop(KEY, split.params, (X, Y), 10, state=split.state)
    loop(KEY, split.params, (X, Y), 5, state=split.state, checkpoint=tmp_path)
    resumed = loop(KEY, split.params, (X, Y), 10, state=split.state, checkpoint=tmp_path)
    _assert_equal(resumed.params, whole.params)
    _assert_equal(resumed.state, whole.state)
    counts = [int(state["drop"]["rngs"]["count"]) for state in (split.state, resumed.state)]
    assert counts[1] == counts[0] + 10


def _assert_like(tree, other):
    assert jax.tree.map(jax.typeof, tree) == jax.tree.map(jax.typeof, other)


@each_in_one_dtype
def test_rounds_see_the_state_frozen_and_the_descent_moves_it(library, dtype):
    split = _split(library, dtype)

    def outputs(params, x, y, state):
        return split.apply(params, state, x.astype(dtype))[0]

    def loss(params, state):
        return _mean_loss(outputs(params, X, Y, state), X, Y)

    def formulate(params, radius, state):
        data, leaf = (X, Y, state), "head/kernel"
        quadratic = qjax.gauss_newton(outputs, lambda z, x, y, _: _mean_loss(z, x, y), params, *data, leaves=[leaf])
        return quadratic, qjax.encode(params, {leaf: qjax.FixedPoint(bits=1, step=0.5 * radius, around="current")})

    def descend(key, params, state):
        loop = qjax.Refine(_training_loss(split), optax.adam(1e-2), batch_size=12, stochastic=True)
        descents.append(loop(key, params, (X, Y), 40, state=state))
        return descents[-1]

    descents: list[qjax.Refined] = []
    sampler = qjax.samplers.get("greedy")
    options = {"num_rounds": 2, "num_reads": 8, "num_candidates": 4, "descend_every_round": True}
    trained = qjax.hybrid(KEY, loss, split.params, formulate, sampler, state=split.state, descend=descend, **options)
    befores = [(split.params, split.state), (descents[0].params, descents[0].state)]
    for outer, before in zip(trained.rounds, befores, strict=True):
        # Compiled, the loss rounds fewer of its numbers to 16 bits.
        rounding = 1e-5 if dtype == jnp.float32 else 1e-2
        assert float(outer.loss_before) == pytest.approx(float(loss(*before)), rel=rounding)
    _assert_like(trained.params, split.params)
    assert trained.rounds[0].loss < trained.rounds[0].loss_before
    _assert_equal(trained.state, trained.descents[1].state)
    _assert_like(trained.state, split.state)
    means = [_statistics(state)["mean"] for _, state in (*befores, (None, trained.state))]
    assert all(float(jnp.abs(late - early).max()) > 0.01 for early, late in itertools.pairwise(means))


class Tied(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(6, 6, rngs=rngs)
        self.second = self.first
        self.adapter = nnx.LoRA(6, 2, 6, rngs=rngs)
        self.blocks = nnx.List([nnx.Dropout(0.5, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)])

    def __call__(self, x, training=False):
        assert training is not self.blocks[0].deterministic
        self.seen = nnx.Intermediate(x)
        return self.blocks[0](x), self.blocks[1](x), self.second(self.first(x)) + self.adapter(x)


def test_nnx_shares_filters_and_gives_every_layer_its_own_stream():
    model = Tied(nnx.Rngs(0))
    split = qjax.interop.flax.nnx(model)
    assert names(split.params) == ["adapter/lora_a", "adapter/lora_b", "first/bias", "first/kernel"]
    (one, two, _), state = split.apply(split.params, split.state, X, key=KEY, train=True)
    assert not np.array_equal(one == 0, two == 0)
    assert jax.tree.structure(state) == jax.tree.structure(split.state)  # without what the call added
    merged = split.merge(split.params, state)
    assert merged.second is merged.first
    adapter = qjax.interop.flax.nnx(model, wrt=nnx.LoRAParam)
    assert names(adapter.params) == ["adapter/lora_a", "adapter/lora_b"]
    _assert_equal(adapter.apply(adapter.params, adapter.state, X)[0], split.apply(split.params, split.state, X)[0])


class Called(nnx.Module):
    def __init__(self, rngs):
        self.scale = nnx.Param(jnp.ones(()))
        self.drop = nnx.Dropout(0.5)

    def __call__(self, x, rngs):
        return self.drop(self.scale * x, rngs=rngs)


class Stacked(nnx.Module):
    def __init__(self, rngs):
        @nnx.split_rngs(splits=2)
        @nnx.vmap
        def make(rngs):
            return nnx.Dropout(0.5, rngs=rngs)

        self.layers, self.scale = make(rngs), nnx.Param(jnp.ones(()))

    def __call__(self, x):
        return nnx.vmap(lambda layer, x: layer(x), in_axes=(0, None))(self.layers, self.scale * x)


@pytest.mark.parametrize(
    "make",
    [
        Called,
        Stacked,
        lambda rngs: nnx.Sequential(nnx.Linear(6, 6, rngs=rngs), nnx.Dropout(0.5)),
        lambda rngs: nnx.Sequential(nnx.Dropout(0.5), nnx.Linear(6, 6, rngs=rngs)),
    ],
    ids=["called", "stacked", "last", "first"],
)
def test_nnx_dropout_in_any_of_its_forms_draws_from_the_key(make):
    split = qjax.interop.flax.nnx(make(nnx.Rngs(0)))

    def outputs(key, train=True):
        return split.apply(split.params, split.state, X, key=key, train=train)[0]

    first, again, other = outputs(KEY), outputs(KEY), outputs(jax.random.key(6))
    _assert_equal(first, again)
    assert not np.array_equal(first, other)
    _assert_equal(outputs(KEY, train=False), outputs(jax.random.key(6), train=False))


class Noisy(nn.Module):
    @nn.compact
    def __call__(self, x, *, deterministic):
        self.sow("intermediates", "seen", x)
        x = nn.Dense(3, kernel_init=nn.with_partitioning(nn.initializers.ones, (None, None)))(x)
        return x if deterministic else x + jax.random.normal(self.make_rng("noise"), x.shape)


def test_linen_takes_other_streams_boxes_and_frozen_variables():
    variables = flax.core.freeze(Noisy().init(jax.random.key(1), X, deterministic=True))
    split = qjax.interop.flax.linen(Noisy(), {"params": variables["params"]})
    assert names(split.params) == ["Dense_0/bias", "Dense_0/kernel"]
    outputs, state = split.apply(split.params, split.state, X, key=KEY, train=True)
    assert split.state == state == {}
    assert not np.array_equal(split.apply(split.params, state, X, key=jax.random.key(6), train=True)[0], outputs)
    assert not np.array_equal(split.apply(split.params, state, X)[0], outputs)


class Growing(nnx.Module):
    def __init__(self, rngs):
        self.scale, self.seen = nnx.Param(jnp.ones(())), nnx.Cache(jnp.zeros((0, 6)))

    def __call__(self, x):
        self.seen.set_value(jnp.concatenate([self.seen.get_value(), x]))
        return self.scale * x


class Fixed(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=False)(x)


def _apply(split, params=None, state=None, **options):
    return split.apply(
        split.params if params is None else params, split.state if state is None else state, X, **options
    )


class Deep(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(6, 6, rngs=rngs) for _ in range(11)])


def _text(split):
    """Parameters as a checkpoint returns them, with text for the numbers of a list."""
    return split.merge({"layers": {str(number): leaf for number, leaf in split.params["layers"].items()}}, split.state)


def _fixed():
    return qjax.interop.flax.linen(Fixed(), Fixed().init(KEY, X))


def _nnx(make):
    return qjax.interop.flax.nnx(make(nnx.Rngs(0)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: qjax.interop.flax.nnx(Linen()), "an nnx module, got Linen"),
        (lambda: qjax.interop.flax.nnx(Nnx), "an nnx module, got the class Nnx"),
        (lambda: qjax.interop.flax.linen(Nnx(nnx.Rngs(0)), {}), "a linen module, got Nnx"),
        (lambda: qjax.interop.flax.linen(Linen(), _split("linen").params), "'params', .* got .*'body'"),
        (lambda: qjax.interop.flax.nnx(nnx.Dropout(0.5, rngs=nnx.Rngs(0))), "Dropout has no Variable that fits"),
        (lambda: _apply(_split("nnx"), nnx.state(Nnx(nnx.Rngs(1)), nnx.Param)), "params hold nnx Variables"),
        (lambda: _apply(_split("nnx"), Nnx(nnx.Rngs(1))), "params hold nnx Variables"),
        (lambda: _split("nnx").merge(_split("nnx").params, None), "state must be a dict, got NoneType"),
        (lambda: _text(_nnx(Deep)), r"nnx\.restore_int_paths\(params\)"),
        (lambda: _apply(_split("nnx"), None, {}), "state .* missing: .*'norm/mean'"),
        (lambda: _apply(_split("linen"), {"params": _split("linen").params}), "unknown: .*'params/body/bias'"),
        (lambda: _split("linen").merge(_split("linen").params, {}), "state .* missing: .*'batch_stats/norm/mean'"),
        (lambda: _apply(_split("linen"), train=True), "Linen draws random numbers, so that apply needs a key"),
        (lambda: _apply(_nnx(Called), train=True), "Called draws random numbers, so that apply needs a key"),
        (
            lambda: _apply(
                _nnx(lambda rngs: nnx.Sequential(nnx.Linear(6, 6, rngs=rngs), nnx.Dropout(0.5))), train=True
            ),
            "key",
        ),
        (lambda: _apply(_fixed()), "Fixed writes to what apply with train=False keeps: .* one of train, "),
        (lambda: _apply(_nnx(Growing)), r"state 'seen' must keep its shape \(0, 6\), a call made it \(24, 6\)"),
    ],
)
def test_wrong_use_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_errors_of_the_model_itself_pass_through():
    split = _nnx(Called)
    with pytest.raises(TypeError, match="unexpected keyword argument 'mask'"):
        split.apply(split.params, split.state, X, key=KEY, mask=None)


def test_quadratics_say_what_is_wrong_with_a_loss_on_a_live_module():
    model, split = Nnx(nnx.Rngs(1)), _split("nnx")
    with pytest.raises(ValueError, match=r"writes to an nnx object .* qjax\.interop\.flax\.nnx\(model\)"):
        qjax.hessian(lambda params: _mean_loss(model(X), X, Y), split.params)
    for library in ("linen", "nnx"):
        split = _split(library)
        with pytest.raises(ValueError, match="tuple of 2 that outputs returns"):
            qjax.gauss_newton(lambda params, *data, split=split: _apply(split, params), _mean_loss, split.params, X, Y)
