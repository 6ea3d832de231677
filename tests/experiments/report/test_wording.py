"""Numbers as the page writes them."""

import pytest

from experiments.report import wording
from experiments.report.differences import paired


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (83.15, 100.0, "[83, 100]"),
        (-0.62, 0.08, "[-0.620, 0.080]"),
        (86.2, 89.94, "[86.2, 89.9]"),
        (1234.6, 99999.0, "[1235, 99999]"),
        (0.0, 0.0, "[0, 0]"),
        (1e-9, 2.54e-9, "[1e-09, 2.54e-09]"),
    ],
)
def test_both_ends_have_as_many_decimals(low: float, high: float, text: str) -> None:
    assert wording.between(low, high) == text


def test_differences_have_signs_and_what_is_known_of_them() -> None:
    three = {0: 1.0, 1: 2.0, 2: 3.0}
    assert wording.difference(paired(three, {0: 0.5, 1: 2.25, 2: 3.5})) == "+0.083 [−0.500, +0.500]"
    assert wording.difference(paired({0: 1.0}, {0: 4.0})) == "+3.00"
    assert wording.difference(paired(three, three)) == "0"


def test_lists_counts_and_values() -> None:
    assert [wording.joined(list("abc"[:count])) for count in range(4)] == ["", "a", "a and b", "a, b and c"]
    assert [wording.counted(count, "seed") for count in (1, 2)] == ["1 seed", "2 seeds"]
    assert [wording.shown(text) for text in ("anneal", "0.0107007103", "1000", "bifurcation")] == [
        "anneal",
        "0.0107",
        "1000",
        "bifurcation",
    ]
    assert wording.mean({"mean": 0.25, "interval": [0.125, 0.5], "n": 3}) == "0.25 [0.125, 0.500]"
    assert wording.mean({"mean": 12345.6, "interval": [12345.6, 12345.6], "n": 1}) == "12345.6"
