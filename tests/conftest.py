"""Strict numerics for every test: nothing is promoted in silence. And what one process compiled serves them all."""

import gc
import os
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# XLA's older generator makes code for CPUs in half the time, in one piece in less again; `XLA_FLAGS= pytest` tests
# programs of the newer one, the only one from jaxlib 0.11 on.
if version("jaxlib").startswith("0.10."):
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_parallel_codegen_split_count=1 --xla_cpu_use_fusion_emitters=false")

import jax

# Tracing makes objects by the million and few cycles.
gc.set_threshold(200_000, 20, 100)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

# Nearly all of the tests' time is XLA's: a program that a worker, a subprocess or a test before `jax.clear_caches` has
# compiled is read back. The folder lives no longer than the run, so that no run depends on an earlier one.
_shared = None
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _shared = tempfile.TemporaryDirectory(prefix="qjax-tests-", ignore_cleanup_errors=True)
    for name, value in (
        ("jax_compilation_cache_dir", _shared.name),
        ("jax_persistent_cache_min_compile_time_secs", 0),
        ("jax_persistent_cache_min_entry_size_bytes", 0),
    ):
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)  # for workers and subprocesses


# Linux's limit is 65,530, vm.max_map_count.
MOST_MAPS = 45_000
_quick = False


@pytest.fixture(autouse=True, scope="module")
def _memory_maps() -> Iterator[None]:
    """Drops compiled programs before the process has more pieces of memory than Linux allows, on which it dies: each
    program takes several. The shared folder still has them."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(autouse=True, scope="module")
def _compilation(request: pytest.FixtureRequest) -> None:
    """Most programs run for milliseconds: compiled with few optimisations, but in the modules marked `optimised`."""
    global _quick
    before, _quick = _quick, request.node.get_closest_marker("optimised") is None
    jax.config.update("jax_disable_most_optimizations", _quick)
    if before and not _quick:
        jax.clear_caches()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Optimised modules first: what they compiled serves the others, the other way round it may not."""
    items.sort(key=lambda item: item.get_closest_marker("optimised") is None)


def pytest_unconfigure() -> None:
    if _shared is not None:
        _shared.cleanup()


def pytest_xdist_auto_num_workers() -> int:
    """A worker a core, up to four for their memory; one alone on an accelerator, which JAX takes whole."""
    return min(os.cpu_count() or 1, 4) if os.environ["JAX_PLATFORMS"] == "cpu" else 1
