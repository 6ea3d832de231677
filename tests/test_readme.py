"""The README's code runs as it stands, on a flax model of the reader's own."""

import re
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from sklearn.datasets import load_digits

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()


class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(10, name="head")(nn.relu(nn.Dense(8)(x)))


def test_the_opening_lines_train_a_flax_model() -> None:
    opening, setting, hardware = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert README.startswith("# qjax\n\n```python\n")
    assert len(opening.strip().splitlines()) == 3
    images, labels = load_digits(return_X_y=True)
    names: dict[str, Any] = {
        "images": jnp.asarray(images[:100] / 16.0, jnp.float32),
        "labels": jnp.asarray(labels[:100], jnp.int32),
        "model": Model(),
    }
    exec(setting, names)
    exec(opening, names)
    loss, trained = names["loss"], names["trained"]
    start = float(loss(names["params"], names["data"]))
    annealed = float(trained.rounds[0].loss)
    assert annealed < start
    assert float(loss(trained.params, names["data"])) < 0.5 * annealed
    assert {"formulate", "anneal", "decode", "refine"} <= trained.ledger.phases.keys()

    exec(hardware, names)
    assert {"embed", "program", "anneal"} <= names["trained"].ledger.phases.keys()
    assert not names["trained"].ledger.reported  # a mock's own times are nobody's
    assert float(loss(names["trained"].params, names["data"])) < start


def test_the_readme_names_commands_that_exist() -> None:
    makefile = (Path(__file__).resolve().parent.parent / "Makefile").read_text()
    named = set(re.findall(r"`?make ([a-z][a-z0-9]+)", README)) - {"sure"}
    assert {"table1", "test"} <= named
    for name in named:
        assert re.search(rf"^{name}:", makefile, re.MULTILINE), f"make {name} is in the README, not in the Makefile"
