"""The code of docs/hardware.md runs on a mock, and the page names only what exists."""

import re
from pathlib import Path
from typing import Any

import qjax
from qjax.interop import dwave
from qjax.interop.dwave import errors

PAGE = (Path(__file__).resolve().parent.parent / "docs/hardware.md").read_text()


def test_the_code_on_the_mock_runs(capsys: Any) -> None:
    _, mock, noise, gates = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(mock, names)
    exec(noise, names)
    exec(gates, names)
    assert names["samples"].info["angles"].shape == (2, 4) and not names["ledger"].reported
    assert {"embed", "program", "anneal", "decode"} <= names["ledger"].phases.keys()
    assert "total" in capsys.readouterr().out


def test_the_page_names_what_exists() -> None:
    named = set(re.findall(r"`([A-Z][A-Za-z]+)`", PAGE.split("## When something fails")[1]))
    assert {name for name in named if not hasattr(dwave, name)} == set()
    kinds = {name for name, kind in vars(errors).items() if isinstance(kind, type)}
    assert {kind for kind in kinds if kind.endswith(("Error", "Lost", "Refused"))} <= set(dwave.__all__)
    fields = set(qjax.interop.dwave.QPU.__dataclass_fields__)
    assert {"cache", "journal", "max_submissions", "num_spin_reversals", "chain_break_method"} <= fields
