"""The README's code and commands: every block runs exactly as printed, one after the other, and does what it says."""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_the_blocks_train_a_model_from_data_to_result(capsys: Any) -> None:
    first, hardware = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(first, "README.md, first block", "exec"), names)
    printed = capsys.readouterr().out
    assert "round 0: loss" in printed and "after the descent" in printed and "total" in printed
    loss, data, start, trained = (names[name] for name in ("loss", "data", "params", "trained"))
    before, annealed = float(loss(start, data)), float(trained.rounds[-1].loss)
    assert annealed < before
    assert float(loss(trained.params, data)) < 0.2 * annealed
    assert {"formulate", "anneal", "decode", "refine"} <= trained.ledger.phases.keys()

    exec(compile(hardware, "README.md, second block", "exec"), names)
    trained = names["trained"]
    assert {"embed", "program", "anneal"} <= trained.ledger.phases.keys()
    assert not trained.ledger.reported  # a mock's own times are nobody's
    assert float(trained.rounds[0].loss) < before


def test_the_readme_names_commands_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"`?make ([a-z][a-z0-9]+)", README)) - {"sure"}
    assert {"table1", "test"} <= named
    for name in named:
        assert re.search(rf"^{name}:", makefile, re.MULTILINE), f"make {name} is in the README, not in the Makefile"
