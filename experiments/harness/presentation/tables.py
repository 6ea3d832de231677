"""The summary as people read it: the same tables as Markdown (summary.md) and on the terminal."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable


@dataclass(frozen=True)
class Table:
    """A titled table of text."""

    title: str
    header: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """GitHub's table syntax, under a heading."""
        head = ["| " + " | ".join(self.header) + " |", "|" + "---|" * len(self.header)]
        body = ["| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in self.lines]
        return "\n".join([f"## {self.title}", "", *head, *body, ""])

    def print(self, console: Console) -> None:
        """The table on the terminal."""
        table = RichTable(
            title=self.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
        )
        for column, name in enumerate(self.header):
            table.add_column(name, justify="left" if column < 2 else "right")
        for line in self.lines:
            table.add_row(*line)
        console.print(table)


BRACKETS = (
    "Brackets hold from 6 seeds on a 95 % t interval of a mean or of a paired difference, and order statistics that",
    "cover a median with at least 95 %. Below that they hold minimum and maximum: these cover a median with 50, 75, 88",
    "and 94 % at 2, 3, 4 and 5 seeds, and of a mean nothing is claimed. Shares of solved runs and their differences",
    "have exact intervals (Clopper and Pearson) of at least 95 % at any number of seeds. That an interval leaves out 0",
    "is claimed from 10 paired seeds on.",
)


def tables(summary: Mapping[str, Any]) -> list[Table]:
    """Rows, time ratios, gains, their shares, the annealer's own gains, targets; one without lines is left out."""
    made = [_rows(summary), _times(summary), _gains(summary), _shares(summary), _annealer(summary), _targets(summary)]
    return [table for table in made if table.lines]


def markdown(
    summary: Mapping[str, Any],
    title: str,
    parts: Sequence[Table] | None = None,
    notes: Sequence[str] = (),
    remarks: Iterable[str] = (),
) -> str:
    """summary.md: where it ran, remarks on that, the tables (`tables` unless given), and how to read them."""
    env = summary["environment"]
    facts = [
        f"- data: {', '.join(env['data']) or 'none (synthetic problems only)'}",
        f"- results digest: {summary['results_digest']}",
        *(f"- {remark}" for remark in remarks),
        "",
    ]
    about = notes or [
        *BRACKETS,
        "Accuracies and success rates are percent, gains are points. Seconds are medians over seeds of everything",
        "from loading data to the last evaluation. To target: seconds to the baseline's last value, or to the solution",
        "where a run is judged by one. Time ratio: the method's seconds to the baseline's last value over the",
        "baseline's last second, or over the second at which the baseline itself first reached that value; where runs",
        "are judged by a solution, the ratio of the seconds to it. Pairs in which either never gets there count as not",
        "reached. Without curves both gains are those at the end.",
        "",
    ]
    parts = tables(summary) if parts is None else parts
    return "\n".join([*preamble(title, env), *facts, *(table.markdown() for table in parts), *about])


def preamble(title: str, env: Mapping[str, Any]) -> list[str]:
    """The first lines of a summary.md: its title, and where it ran."""
    versions = ", ".join(f"{name} {version}" for name, version in env["versions"].items() if version)
    flags = f"; XLA flags: `{env['xla_flags']}`" if env["xla_flags"] else ""
    return [
        f"# {title}",
        "",
        f"- device: {env['device']}, {env['cores']} cores; {env['system']}, Python {env['python']}",
        f"- versions: {versions}",
        f"- commit: {env['commit'] or 'unknown'}; command: `{env['command']}`{flags}",
    ]


def number(value: float | None, digits: int = 1) -> str:
    """A number with `digits` decimals, a dash for None."""
    return "-" if value is None else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 2) -> str:
    """The same with its sign, so that a loss is seen as one."""
    return "-" if value is None else f"{value:+.{digits}f}"


def with_interval(entry: Mapping[str, Any], key: str, digits: int = 1, sign: bool = False) -> str:
    """ "value [low, high]"; the interval is left out for a single seed."""
    show = signed if sign else number
    if entry["interval"] is None or entry["n"] < 2:
        return show(entry[key], digits)
    low, high = entry["interval"]
    ends = f"{show(low, digits) if low is not None else '∞'}, {show(high, digits) if high is not None else '∞'}"
    return f"{show(entry[key], digits)} [{ends}]"


def reached(entry: Mapping[str, Any], digits: int) -> str:
    """Times over seeds with the share of runs that got there; a dash where there was no target."""
    if entry["n"] == 0:
        return "-"
    shown = with_interval(entry, "median", digits) if entry["reached"] else "not reached"
    missing = entry["reached"] < entry["n"]
    return f"{shown} ({entry['reached']}/{entry['n']})" if missing else shown


def _rows(summary: Mapping[str, Any]) -> Table:
    lines = []
    for row in summary["rows"]:
        timed, target = row["timed"], row["timed"]["seconds_to_target"]
        feasible = row["results"].get("feasible", {}).get("mean")
        lines.append(
            (
                row["problem"],
                row["method"],
                row["sampler"],
                str(len(row["seeds"])),
                with_interval(row["results"]["final"], "mean"),
                number(timed["seconds"]),
                reached(target, 1),
                "-" if feasible is None else f"{100 * feasible:.0f} %",
            )
        )
    header = ("problem", "method", "sampler", "seeds", "final %", "seconds", "to target", "feasible")
    return Table("Rows", header, tuple(lines))


def _times(summary: Mapping[str, Any]) -> Table:
    lines = []
    for found in summary["comparisons"]:
        ratio = found["time_ratio"]
        kinds = (ratio, ratio["without_data_and_compile"], ratio["to_first_crossing"])
        if ratio["n"]:
            lines.append((found["problem"], _pair(found), *(reached(kind, 2) for kind in kinds)))
    header = ("problem", "method / baseline", "time ratio", "without data, compile", "to its first crossing")
    return Table("Time to the baseline's last value", header, tuple(lines))


def _gains(summary: Mapping[str, Any]) -> Table:
    lines = []
    for found in summary["comparisons"]:
        gains = (found["gain"], found["final_gain"])
        lines.append((found["problem"], _pair(found), *(with_interval(gain, "mean", 2, sign=True) for gain in gains)))
    header = ("problem", "method / baseline", "points at its last second", "points at the end")
    return Table("Gain over the baseline", header, tuple(lines))


def _shares(summary: Mapping[str, Any]) -> Table:
    lines = []
    for found in summary["comparisons"]:
        if split := found.get("shares"):
            parts = [(f"{part['label']}: {part['method']} - {part['minus']}", part) for part in split["parts"]]
            for name, part in [*parts, ("together", split)]:
                gains = (with_interval(part[kind], "mean", 2, sign=True) for kind in ("gain", "final_gain"))
                lines.append((found["problem"], _pair(found), name, str(len(split["seeds"])), *gains))
    header = ("problem", "method / baseline", "share", "seeds", "points at its last second", "points at the end")
    return Table("What the gain is made of", header, tuple(lines))


def _pair(found: Mapping[str, Any]) -> str:
    return f"{found['method']} / {found['baseline']}"


def _annealer(summary: Mapping[str, Any]) -> Table:
    lines = []
    for found in summary["comparisons"]:
        gain = found["annealer_gain"]
        for control, entry in gain["by_control"].items():
            best = "best control" if control == gain["best_control"] else ""
            lines.append(
                (found["problem"], f"{found['method']} - {control}", with_interval(entry, "mean", 2, sign=True), best)
            )
    return Table("The annealer's own gain", ("problem", "hybrid - control", "points", ""), tuple(lines))


def _targets(summary: Mapping[str, Any]) -> Table:
    lines = []
    for found in summary["comparisons"]:
        for target in found["targets"]:
            lines.append(
                (
                    found["problem"],
                    f"{_quantity(target)} {target['sense']} {target['bound']:g}",
                    number(target["judged"], 2),
                    _verdict(target),
                )
            )
    return Table("Targets", ("problem", "target", "measured", "verdict"), tuple(lines))


def _quantity(target: Mapping[str, Any]) -> str:
    name = _QUANTITIES[target["quantity"]]
    return name if target["end"] is None else f"{name}, {target['end']} end of the interval"


def _verdict(target: Mapping[str, Any]) -> str:
    if target["met"] is None:
        return f"no verdict: {target['note']}"
    return "met" if target["met"] else "MISSED"


_QUANTITIES = {
    "time_ratio": "time ratio",
    "gain": "gain at the baseline's last second",
    "final_gain": "gain at the end",
    "annealer_gain": "annealer's gain",
    "final": "final",
    "baseline_final": "baseline's final",
}
