"""Tunes the straight-through refinement of the one-bit head, by what is best for the controls.

    python -m experiments.images.tune_lowbit     about 2 minutes on 2 cores; rewrites experiments/tuned/lowbit.json

learning_rate and latent are those of highest mean validation accuracy of the controls `greedy` and `rounded` over two
seeds that the table does not use. The hybrid has no say, so that the refinement it shares is tuned for its rivals.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

from experiments.harness.presentation.cells import write_atomic
from experiments.images import lowbit

RATES = (1e-3, 3e-3, 1e-2)
LATENTS = (0.1, 0.3, 1.0)
SEEDS = (100, 101)
JUDGES = ("greedy", "rounded")


def main() -> None:
    config = lowbit.configuration("full")
    config = replace(config, features=replace(config.features, networks=1))
    found: dict[tuple[float, float], float] = {}
    for rate, latent in itertools.product(RATES, LATENTS):
        schedule = replace(config.schedule, learning_rate=rate, latent=latent)
        # The validation accuracy is all that is looked at.
        scores = [
            lowbit.run(replace(config, schedule=schedule), method, seed)["results"]["validation"]
            for method in JUDGES
            for seed in SEEDS
        ]
        found[rate, latent] = sum(scores) / len(scores)
        print(f"learning_rate {rate:g} latent {latent:g}: {found[rate, latent]:.2f} %", flush=True)
    rate, latent = max(found, key=lambda pair: found[pair])
    record = json.loads(lowbit.TUNED.read_text())
    record["settings"]["schedule"] |= {"learning_rate": rate, "latent": latent}
    record["command"] = "python -m experiments.images.tune_lowbit"
    record["validation"] = {f"learning_rate {r:g} latent {m:g}": round(score, 3) for (r, m), score in found.items()}
    write_atomic(lowbit.TUNED, json.dumps(record, indent=2) + "\n")
    print(f"chosen: learning_rate {rate:g}, latent {latent:g}")


if __name__ == "__main__":
    main()
