"""Tunes Table I's images rows: as many trials for Adam as for the starts from data, on the validation split.

    python -m experiments.images.tune --length default --trials 12      writes experiments/tuned/cifar10.json

A trial draws the peak rate, the warm-up and the layers' rates at random (log-uniform), and runs once with seed 100; the
steps stay as they are, and test accuracies are not looked at. The settings of the best validation accuracy are kept.
"""

import json
import sys
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import tyro

from experiments.images.training import TUNED, Images, Training, configuration, data_name, run

SEED = 100


@dataclass(frozen=True)
class Tune:
    """Random search with the same number of trials for both families; about 45 s per trial on 2 cores."""

    length: Literal["default", "full"] = "default"
    trials: int = 12


def draw(rng: np.random.Generator, training: Training) -> Training:
    """One candidate: rates log-uniform, warm-up uniform; steps, batch and decay as given."""
    return replace(
        training,
        peak=float(10 ** rng.uniform(-3.2, -2.0)),
        warmup=float(rng.uniform(0.02, 0.3)),
        head_scale=float(10 ** rng.uniform(-1.0, 1.2)),
    )


def search(config: Images, method: str, trials: int) -> tuple[Training, list[dict[str, Any]]]:
    """The best of the current settings and `trials` - 1 drawn ones, and every trial with its validation accuracy."""
    if trials < 1:
        raise ValueError(f"trials must be at least 1, got {trials}")
    rng = np.random.default_rng(SEED)
    candidates = [config.training, *(draw(rng, config.training) for _ in range(trials - 1))]
    found = []
    for training in candidates:
        outcome = run(replace(config, training=training), method, SEED)
        found.append({"settings": asdict(training), "validation": outcome["results"]["validation"]})
    best = max(range(trials), key=lambda index: float(found[index]["validation"]))
    return candidates[best], found


def tune(options: Tune) -> None:
    """Writes the best settings of both families beside the command and the number of trials."""
    path = TUNED / f"{data_name()}.json"
    content = json.loads(path.read_text())
    scale: Literal["default", "full"] = options.length
    for kind, method in (("adam", "adam"), ("start", "adam-data-start")):
        best, found = search(configuration(scale, method), method, options.trials)
        content["settings"][scale][kind] = asdict(best)
        content.setdefault("trials", {}).setdefault(scale, {})[kind] = found
    content["command"] = "python -m experiments.images.tune " + " ".join(sys.argv[1:])
    content.pop("note", None)
    path.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    tune(tyro.cli(Tune, description=__doc__))
