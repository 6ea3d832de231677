"""Where a run took place: versions, device, cores, code. Everything here is printed with the numbers it explains."""

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

ROOT = Path(__file__).resolve().parents[3]
RECORDED_PACKAGES = (
    "jax",
    "jaxlib",
    "numpy",
    "scipy",
    "optax",
    "flax",
    "dimod",
    "dwave-samplers",
    "openjij",
    "simulated-bifurcation",
    "torch",
    "cma",
    "scikit-learn",
)
# What only prints, stores or times stands apart by folder, and so does what was measured: no file of these, nor one
# directly under experiments/, can change a number of a cell.
PRESENTATION = (
    *("experiments/harness/presentation", "experiments/bench", "experiments/sweeps"),
    *("experiments/commandline", "experiments/report", "experiments/measured"),
)


def versions(packages: Iterable[str] = RECORDED_PACKAGES) -> dict[str, str | None]:
    """The installed version of each package, None where it is not installed."""

    def version(package: str) -> str | None:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    return {package: version(package) for package in packages}


def cores() -> int:
    """The cores this process may use, which containers and affinity masks make fewer than the machine's."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def device() -> str:
    """The accelerator as JAX names it; for a CPU the processor's name too."""
    first = jax.devices()[0]
    name = f"{jax.device_count()} x {first.device_kind}"
    return f"{name} ({_processor()})" if first.platform == "cpu" else name


def commit(root: Path = ROOT) -> str | None:
    """The commit of the working tree, "+changes" where it differs from it; None without git or outside a repository."""
    try:
        head = _git(root, "rev-parse", "HEAD")
        changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+changes" if changes else "")


def code_digest(root: Path = ROOT) -> str:
    """SHA-256 over every source and tuned configuration that can change a number: qjax/ and the folders of experiments/
    but for `PRESENTATION`."""
    digest = hashlib.sha256()
    files = [*(root / "qjax").rglob("*.py"), *(root / "experiments").glob("*/**/*.py")]
    files += (root / "experiments").glob("*/**/*.json")
    for file in sorted(files):
        name = file.relative_to(root).as_posix()
        if not name.startswith(tuple(f"{folder}/" for folder in PRESENTATION)):
            digest.update(f"{name}\n".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def environment(data: Iterable[str] = ()) -> dict[str, Any]:
    """The record that goes into every summary; `data` are the copies of the data sets used."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": device(),
        "cores": cores(),
        "versions": versions(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "x64": bool(jax.config.values["jax_enable_x64"]),
        "commit": commit(),
        "code": code_digest(),
        "data": sorted(set(data) - {""}),
        "command": " ".join(["python -m experiments", *sys.argv[1:]]),
    }


def made_by(record: dict[str, Any]) -> dict[str, Any]:
    """What two runs must share for one to stand in for the other: code, device, cores, and JAX itself."""
    return {
        "code": record["code"],
        "device": record["device"],
        "cores": record["cores"],
        "jax": record["versions"]["jax"],
        "x64": record["x64"],
        "xla_flags": record["xla_flags"],
    }


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
