"""What people read: losses and missed targets stand in it as such."""

from experiments.harness.presentation import report, tables
from tests.experiments.harness.presentation.records import COMPARISON, ENVIRONMENT, pair


def test_losses_and_missed_targets_are_printed_as_such() -> None:
    records = [r for seed in range(3) for r in pair(seed, hybrid=58.0)]
    text = tables.markdown(report.summary(records, [COMPARISON], ENVIRONMENT), "Table I")
    assert "| digits | final >= 60 | 58.00 | MISSED |" in text
    assert "-2.00 [-2.00, -2.00]" in text  # gain at the end
    assert "hybrid - greedy | +0.50 [-0.50, +1.50] | best control" in text
    assert "no verdict: 3 of the 10 paired seeds" in text
    assert "commit: unknown" in text and "XLA flags: `--xla_cpu_x`" in text
