"""Building a Qubo: the dense couplings of a least-squares head against the one matmul that no method can do without.

    gram     G = X'X / N                              (features, features), the floor
    qjax     features and targets -> least_squares -> pull_back: one batched dense Qubo for all output channels
    dimod    NumPy's Gram matrix and its expansion into bits, then a BinaryQuadraticModel, for one channel
    pyqubo   coefficients given, symbolic expression, compile, for one channel at a smaller size

All from the same arrays in memory. qjax and the Gram matmul are compiled ahead of time and timed in turn.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qjax.energy.qubo import Qubo
from qjax.formulate.encodings import FixedPoint, encode
from qjax.formulate.pullback import pull_back
from qjax.formulate.quadratic import least_squares


@dataclass(frozen=True)
class BenchBuild:
    """Build the dense Qubo of a least-squares head, beside the Gram matmul, dimod and PyQUBO.

    About 1 minute on 2 CPU cores; the target is at most 3 times the Gram matmul.
    """

    rows: int = 50_000
    features: int = 1024
    bits: int = 4
    """Bits per weight: features x bits is the number of variables of a channel."""
    channels: int = 10
    pyqubo_features: int = 128
    """Features of PyQUBO's smaller model (128 x 4 = 512 bits); 0 leaves it out."""
    repeats: int = 5
    seed: int = 0


SMOKE: dict[str, Any] = {"rows": 1000, "features": 32, "pyqubo_features": 8, "repeats": 2}


def bench_build(config: BenchBuild) -> dict[str, Any]:
    """{"config", "rows": [{"method", "bits", "channels", "seconds", "ratio"}], "target": {"ratio", "bound", "met"}}.

    Seconds are medians over repeats; ratio is over the Gram matmul of the same features; None: package not installed.
    """
    import dimod

    x, y = _data(config, config.features)
    gram, build = _compiled(config, x, y)
    gram_seconds, build_seconds = _in_turn([gram, build], config.repeats)
    n = config.features * config.bits
    host_x, host_y = np.asarray(x), np.asarray(y)
    (dimod_seconds,) = _in_turn([lambda: _dimod(dimod, host_x, host_y, config.bits)], 1)
    rows = [
        _row("gram matmul", n, config.channels, gram_seconds, gram_seconds),
        _row("qjax", n, config.channels, build_seconds, gram_seconds),
        _row("dimod", n, 1, dimod_seconds, gram_seconds),
    ]
    if config.pyqubo_features:
        x, y = _data(config, config.pyqubo_features)
        gram, build = _compiled(config, x, y)
        small_gram, small_build = _in_turn([gram, build], config.repeats)
        n = config.pyqubo_features * config.bits
        rows.append(_row("gram matmul", n, config.channels, small_gram, small_gram))
        rows.append(_row("qjax", n, config.channels, small_build, small_gram))
        rows.append(_row("pyqubo", n, 1, _pyqubo_seconds(np.asarray(x), np.asarray(y), config.bits), small_gram))
    ratio = build_seconds / gram_seconds
    return {"config": asdict(config), "rows": rows, "target": {"ratio": ratio, "bound": 3.0, "met": ratio <= 3.0}}


def table(found: dict[str, Any]) -> str:
    """The rows as a Markdown table, and the verdict."""
    lines = ["| method | bits | channels | seconds | x gram matmul |", "|---|---|---|---|---|"]
    for row in found["rows"]:
        shown = ("not installed", "-") if row["seconds"] is None else (f"{row['seconds']:.4f}", f"{row['ratio']:.2f}")
        lines.append(f"| {row['method']} | {row['bits']} | {row['channels']} | {shown[0]} | {shown[1]} |")
    target = found["target"]
    verdict = "met" if target["met"] else "MISSED"
    return "\n".join(
        [*lines, "", f"target: at most {target['bound']:g} x the gram matmul: {target['ratio']:.2f}, {verdict}"]
    )


def _data(config: BenchBuild, features: int) -> tuple[jax.Array, jax.Array]:
    draw = np.random.default_rng(config.seed)
    x = draw.standard_normal((config.rows, features), dtype=np.float32)
    y = np.eye(config.channels, dtype=np.float32)[draw.integers(config.channels, size=config.rows)]
    return jnp.asarray(x), jnp.asarray(y)


def _compiled(config: BenchBuild, x: jax.Array, y: jax.Array) -> tuple[Callable[[], Any], Callable[[], Any]]:
    kernel = jax.random.normal(jax.random.key(config.seed), (x.shape[1], y.shape[1])) / x.shape[1] ** 0.5

    def build(x: jax.Array, y: jax.Array) -> Qubo:
        params = {"head": {"kernel": kernel}}
        encoding = encode(params, {"head/kernel": FixedPoint(bits=config.bits)})
        return pull_back(least_squares(params, "head/kernel", x, y), encoding, form="dense")

    def gram(x: jax.Array) -> jax.Array:
        return x.T @ x / x.shape[0]

    built, matmul = jax.jit(build).lower(x, y).compile(), jax.jit(gram).lower(x).compile()
    return lambda: jax.block_until_ready(matmul(x)), lambda: jax.block_until_ready(built(x, y))


def _bit_model(x: np.ndarray, y: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    # (linear (n,), couplings (n, n)) of channel 0, a weight being sum_k 2^k b_k - 2^(bits-1), as one writes it by hand.
    gram, slope = x.T @ x / len(x), x.T @ y[:, 0] / len(x)
    steps = 2.0 ** np.arange(bits, dtype=np.float32)
    matrix = np.kron(gram, np.outer(steps, steps))
    shift = np.full(x.shape[1], 2.0 ** (bits - 1), np.float32)
    linear = np.kron(-slope - gram @ shift, steps) + 0.5 * np.diagonal(matrix)
    np.fill_diagonal(matrix, 0.0)
    return linear, matrix


def _dimod(dimod: Any, x: np.ndarray, y: np.ndarray, bits: int) -> Any:
    linear, matrix = _bit_model(x, y, bits)
    model = dimod.BinaryQuadraticModel(len(linear), dimod.BINARY)
    model.add_linear_from_array(linear)
    # dimod adds entries (i, j) and (j, i) up.
    model.add_quadratic_from_dense(0.5 * matrix)
    return model


def _pyqubo_seconds(x: np.ndarray, y: np.ndarray, bits: int) -> float | None:
    try:
        import pyqubo
    except ImportError:
        return None

    def build() -> Any:
        linear, matrix = _bit_model(x, y, bits)
        names = [pyqubo.Binary(f"x{i}") for i in range(len(linear))]
        terms = [float(h) * b for h, b in zip(linear, names, strict=True)]
        rows, cols = np.triu_indices(len(linear), 1)
        terms += [float(matrix[i, j]) * names[i] * names[j] for i, j in zip(rows, cols, strict=True)]
        return sum(terms[1:], terms[0]).compile()

    return _seconds(build)


def _in_turn(calls: list[Callable[[], Any]], repeats: int) -> list[float]:
    for call in calls:
        call()
    taken = [[_seconds(call) for call in calls] for _ in range(repeats)]
    return [statistics.median(column) for column in zip(*taken, strict=True)]


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _row(method: str, bits: int, channels: int, seconds: float | None, gram: float) -> dict[str, Any]:
    ratio = None if seconds is None else seconds / gram
    return {"method": method, "bits": bits, "channels": channels, "seconds": seconds, "ratio": ratio}
