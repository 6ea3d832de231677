"""Figures of a finished experiment, as png files: curves, phases, sampled energies, success over a grid, shares.

Colours are Okabe and Ito's (2008), told apart by readers with any colour vision, and two of Tol's (2021) after them;
methods keep theirs in every figure.
Matplotlib is imported inside the functions: nothing else here needs it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.harness.presentation.intervals import INTERVALS_FROM
from experiments.harness.presentation.tables import signed, with_interval

Record = Mapping[str, Any]
Style = tuple[str, str]

COLOURS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999", "#999933", "#AA3377")
FIXED = {"hybrid": "#D55E00", "adam": "#0072B2", "multi-adam": "#0072B2"}
LINES = ("-", "--", ":")
MARKERS = dict(zip(LINES, ("o", "s", "^"), strict=True))
PHASE_COLOURS = {
    "data": "#999999",
    "compile": "#CCCCCC",
    "formulate": "#56B4E9",
    "embed": "#F0E442",
    "program": "#F0E442",
    "wait": "#EEEEEE",
    "anneal": "#D55E00",
    "readout": "#E69F00",
    "decode": "#CC79A7",
    "refine": "#0072B2",
    "evaluate": "#009E73",
    "other": "#444444",
}
SHARE_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#999999", "#999933")
MOST_PANELS = 6


def draw(
    records: Sequence[Record], folder: Path, first: Sequence[str] = (), compared: Sequence[Record] = ()
) -> list[Path]:
    """Every figure that the records have data for; returns the files written. Errors: OSError.

    Where there are more problems than panels, those in `first` come first. compared: the summary's comparisons.
    """
    ranks = {problem: rank for rank, problem in enumerate(dict.fromkeys(first))}
    records = sorted(records, key=lambda r: ranks.get(r["problem"], len(ranks)))
    styles = method_styles([r["method"] for r in records])
    written = [
        curves(records, styles, folder / "curves.png"),
        phases(records, folder / "phases.png"),
        energies(records, styles, folder / "energies.png"),
        success(records, folder / "success.png"),
        shares(compared, folder / "shares.png"),
    ]
    return [path for path in written if path is not None]


def method_styles(methods: Sequence[str]) -> dict[str, Style]:
    """(colour, line style) of each method; past the palette, colours return with another line style."""
    others = [m for m in dict.fromkeys(methods) if m not in FIXED]
    styles = {m: (colour, "-") for m, colour in FIXED.items()}
    return styles | {m: (COLOURS[i % len(COLOURS)], LINES[i // len(COLOURS) % 3]) for i, m in enumerate(others)}


def curves(records: Sequence[Record], styles: Mapping[str, Style], path: Path) -> Path | None:
    """Metric against seconds, one panel per problem: median over seeds, with a band."""
    problems = _problems([r for r in records if r["outcome"]["timed"]["curve"]])[:MOST_PANELS]
    if not problems:
        return None
    figure, axes = panels(len(problems), 5.2, 3.8)
    for axis, problem in zip(axes, problems, strict=False):
        chosen = [r for r in records if r["problem"] == problem and r["outcome"]["timed"]["curve"]]
        for method, group in _by_method(chosen).items():
            seconds, low, middle, high = band([r["outcome"]["timed"]["curve"] for r in group])
            colour, line = styles[method]
            label = f"{method} ({_seeds(len(group))})"
            # A method with a single evaluation has no line: the marker at the end shows it.
            marker = MARKERS[line]
            axis.plot(seconds, middle, line, color=colour, label=label, lw=1.8, marker=marker, ms=5, markevery=[-1])
            axis.fill_between(seconds, low, high, color=colour, alpha=0.18, lw=0)
        counts = [len(group) for group in _by_method(chosen).values()]
        kinds = {"quartiles" if count >= INTERVALS_FROM else "minimum to maximum" for count in counts}
        kind = kinds.pop() if len(kinds) == 1 else f"quartiles from {INTERVALS_FROM} seeds on, else minimum to maximum"
        axis.set(xlabel="seconds, data and compilation included", ylabel="accuracy (%)", xlim=(0, None))
        axis.set_title(f"{_heading(chosen[0])}\nmedian, band: {kind} over seeds", fontsize=9)
        axis.legend(loc="best", frameon=False, fontsize=8)
    return save(figure, path)


def band(
    lines: Sequence[Sequence[Sequence[float]]], count: int = 200
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(seconds, low, median, high) of several curves on the seconds that all of them cover."""
    seconds, values = resampled(lines, count)
    ends = (25.0, 75.0) if len(lines) >= INTERVALS_FROM else (0.0, 100.0)
    low, high = np.percentile(values, ends, axis=0)
    return seconds, low, np.median(values, axis=0), high


def resampled(lines: Sequence[Sequence[Sequence[float]]], count: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """(seconds (count,), values (lines, count)) of several curves on the seconds that all of them cover."""
    start = max(line[0][0] for line in lines)
    end = min(line[-1][0] for line in lines)
    seconds = np.linspace(start, max(start, end), count)
    columns = [np.asarray(line, dtype=np.float64).T for line in lines]
    return seconds, np.stack([np.interp(seconds, column[0], column[1]) for column in columns])


def phases(records: Sequence[Record], path: Path) -> Path | None:
    """Where the seconds went: one bar per method, the pipeline's phases in order, medians over seeds."""
    problems = _problems(records)[:MOST_PANELS]
    if not problems:
        return None
    figure, axes = panels(len(problems), 6.4, 3.2)
    shown: dict[str, Any] = {}
    for axis, problem in zip(axes, problems, strict=False):
        groups = _by_method([r for r in records if r["problem"] == problem])
        totals = {m: _median_phases(g) for m, g in groups.items()}
        longest = max((sum(t.values()) for t in totals.values()), default=1.0) or 1.0
        for height, (method, phase_seconds) in enumerate(totals.items()):
            left = 0.0
            for phase, colour in PHASE_COLOURS.items():
                width = phase_seconds.get(phase, 0.0)
                if width > 0:
                    bar = axis.barh(height, width, left=left, color=colour, edgecolor="white", lw=0.4, height=0.7)
                    shown.setdefault(phase, bar)
                    if width > 0.07 * longest:
                        ink = "black" if phase in ("compile", "wait", "embed", "program", "readout") else "white"
                        text = f"{width:.1f}" if longest >= 2 else f"{width:.2f}"
                        axis.text(left + width / 2, height, text, ha="center", va="center", fontsize=7, color=ink)
                left += width
            whole = float(np.median([r["outcome"]["timed"]["seconds"] for r in groups[method]]))
            axis.text(left + 0.01 * longest, height, f"{whole:.1f} s", va="center", fontsize=8)
        axis.set_yticks(range(len(totals)), list(totals))
        axis.invert_yaxis()
        axis.set(xlabel="seconds (median over seeds)", xlim=(0, 1.15 * longest))
        axis.set_title(_heading(next(iter(groups.values()))[0]), fontsize=9)
    ordered = [p for p in PHASE_COLOURS if p in shown]
    across = int(figure.get_figwidth())  # an entry is nearly an inch wide
    keys = [shown[p] for p in ordered]
    figure.legend(keys, ordered, loc="outside lower center", ncols=across, frameon=False, fontsize=8)
    return save(figure, path)


def energies(records: Sequence[Record], styles: Mapping[str, Style], path: Path) -> Path | None:
    """Energies of the sampled states, annealer and controls on common bins; one seed, because seeds differ."""
    sampled = [r for r in records if r["outcome"]["results"].get("sampled_energies")]
    problems = _problems(sampled)[:MOST_PANELS]
    if not problems:
        return None
    figure, axes = panels(len(problems), 5.2, 3.4)
    for axis, problem in zip(axes, problems, strict=False):
        chosen = [r for r in sampled if r["problem"] == problem]
        seed = min(r["seed"] for r in chosen)
        values = {
            r["method"]: np.asarray(r["outcome"]["results"]["sampled_energies"]) for r in chosen if r["seed"] == seed
        }
        bins = energy_bins(list(values.values()))
        for method, found in values.items():
            share = np.full(found.shape, 100.0 / found.size)
            label = f"{method} (lowest {found.min():.4g})"
            colour, line = styles[method]
            axis.hist(found, bins, weights=share, color=colour, alpha=0.35)
            # An outline shows through where distributions lie on top of each other.
            axis.hist(found, bins, weights=share, color=colour, histtype="step", ls=line, lw=1.4, label=label)
        axis.set(xlabel="energy E(x) of a sampled state (lower is better)", ylabel="reads (%)")
        axis.ticklabel_format(axis="x", useOffset=False)
        axis.locator_params(axis="x", nbins=5)
        axis.set_title(f"{_heading(chosen[0])}, seed {seed}", fontsize=9)
        axis.legend(frameon=False, fontsize=8)
    return save(figure, path)


def energy_bins(values: Sequence[np.ndarray]) -> np.ndarray:
    """The edges of 40 bins over all these energies."""
    pooled = np.concatenate(values)
    # Reads that differ by rounding alone are one bar, not forty on an axis of noise.
    blur = 1e-5 * max(float(np.abs(pooled).max()), 1e-30)
    low, high = pooled.min(), pooled.max()
    return np.linspace(low - blur, max(high, low + blur) + blur, 41)


def success(records: Sequence[Record], path: Path) -> Path | None:
    """Success over the grid of well depth a and hardness alpha, one panel per method, instances pooled over sizes."""
    grid = [r for r in records if {"a", "alpha"} <= r["tags"].keys()]
    if not grid:
        return None
    depths, alphas = (sorted({float(r["tags"][name]) for r in grid}) for name in ("a", "alpha"))
    if len(depths) * len(alphas) == 1:  # the table says it all
        return None
    groups = _by_method(grid)
    columns = min(len(groups), 4)
    figure, axes = panels(len(groups), max(2.6, 1.2 + 0.7 * len(alphas)), max(2.4, 1.4 + 0.5 * len(depths)), columns)
    image = None
    for axis, (method, group) in zip(axes, groups.items(), strict=False):
        table, counts = success_table(group, depths, alphas)
        image = axis.imshow(table, vmin=0, vmax=100, cmap="cividis", origin="lower", aspect="auto")
        for (row, column), value in np.ndenumerate(table):
            if counts[row, column]:
                ink = "black" if value > 55 else "white"
                text = f"{value:.0f}"
                axis.text(column, row, text, ha="center", va="center", fontsize=8, color=ink)
        axis.set_xticks(range(len(alphas)), [f"{v:g}" for v in alphas])
        axis.set_yticks(range(len(depths)), [f"{v:g}" for v in depths])
        axis.set(xlabel="hardness α = M/n", ylabel="well depth a")
        axis.set_title(f"{method}\n(up to {int(counts.max())} per square)", fontsize=9)
    sizes = sorted({str(r["tags"]["n"]) for r in grid if "n" in r["tags"]})
    figure.suptitle(f"planted double-well glass, n = {', '.join(sizes)}: instances solved", fontsize=10)
    if image is not None:
        figure.colorbar(image, ax=list(axes), label="instances solved (%)", shrink=0.9)
    return save(figure, path)


def success_table(
    group: Sequence[Record], depths: Sequence[float], alphas: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """(percent solved, instances) over depths x alphas; NaN where no instance was run."""
    counts = np.zeros((len(depths), len(alphas)), dtype=np.int64)
    solved = np.zeros((len(depths), len(alphas)))
    for record in group:
        where = depths.index(float(record["tags"]["a"])), alphas.index(float(record["tags"]["alpha"]))
        counts[where] += 1
        solved[where] += record["outcome"]["results"]["final"]
    return np.where(counts > 0, solved / np.maximum(counts, 1), np.nan), counts


def shares(compared: Sequence[Mapping[str, Any]], path: Path) -> Path | None:
    """What gains are made of: a bar per comparison and moment, its shares stacked to either side of zero."""
    moments = {"final_gain": "at the end", "gain": "at {baseline}'s last second"}
    bars = [
        (f"{one['method']} over {one['baseline']}\n{moment.format(**one)}", one["shares"], kind)
        for one in compared
        for kind, moment in moments.items()
        if one.get("shares") and one["shares"][kind]["n"]
    ]
    if not bars:
        return None
    labels = list(dict.fromkeys(part["label"] for _, split, _ in bars for part in split["parts"]))
    colours = dict(zip(labels, SHARE_COLOURS, strict=False))
    figure, (axis,) = panels(1, 8.6, 1.2 + 0.95 * len(bars))
    ends = [stacked([part[kind]["mean"] for part in split["parts"]]) for _, split, kind in bars]
    low, high = (f(edge for spans in ends for span in spans for edge in span) for f in (min, max))
    reach = high - low or 1.0
    for height, ((_, split, kind), spans) in enumerate(zip(bars, ends, strict=True)):
        for part, (left, right) in zip(split["parts"], spans, strict=True):
            axis.barh(height, right - left, 0.42, left, color=colours[part["label"]], edgecolor="white", lw=0.6)
            if right - left > 0.08 * reach:
                text = signed(part[kind]["mean"])
                axis.text((left + right) / 2, height, text, ha="center", va="center", fontsize=8)
        axis.plot(split[kind]["mean"], height, "D", color="black", ms=5, mec="white")
        named = {part["label"]: part[kind] for part in split["parts"]} | {"together": split[kind]}
        *parts, whole = (f"{name} {with_interval(entry, 'mean', 2, sign=True)}" for name, entry in named.items())
        seeds = "n = 1" if split[kind]["n"] == 1 else f"{split[kind]['n']} paired seeds"
        text, paper = f"{',  '.join(parts)}\n{whole}, {seeds}", {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        axis.text(low, height + 0.25, text, ha="left", va="top", fontsize=7, bbox=paper)
    axis.axvline(0.0, color="black", lw=0.8)
    axis.set_yticks(range(len(bars)), [name for name, _, _ in bars], fontsize=8)
    axis.set(xlabel="points of accuracy", ylim=(len(bars) - 0.35, -0.4), xlim=(low - 0.02 * reach, high + 0.04 * reach))
    axis.set_title(", ".join(dict.fromkeys(one["problem"] for one in compared if one.get("shares"))), fontsize=9)
    keys = [axis.barh(0, 0, color=colours[label]) for label in labels]
    diamond = axis.plot([], [], "D", color="black", ms=5, mec="white")
    figure.legend(
        [*keys, *diamond], [*labels, "together"], loc="outside lower center", ncols=4, frameon=False, fontsize=8
    )
    return save(figure, path)


def stacked(values: Sequence[float]) -> list[tuple[float, float]]:
    """(left, right) of each value's bar: gains one after the other to the right of zero, losses to the left."""
    ends, spans = {True: 0.0, False: 0.0}, []
    for value in values:
        before = ends[value > 0]
        ends[value > 0] += value
        spans.append((min(before, before + value), max(before, before + value)))
    return spans


def panels(count: int, width: float, height: float, columns: int = 3) -> tuple[Any, list[Any]]:
    """(figure, axes) of `count` panels of this size in inches, at most `columns` in a row."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = min(count, columns)
    rows = -(-count // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), squeeze=False, layout="constrained"
    )
    flat = list(axes.flat)
    for axis in flat:
        axis.spines[["top", "right"]].set_visible(False)
    for axis in flat[count:]:
        axis.set_visible(False)
    return figure, flat[:count]


def save(figure: Any, path: Path) -> Path:
    """Writes the figure and forgets it. Errors: OSError."""
    import matplotlib.pyplot as plt

    figure.savefig(path, dpi=160)
    plt.close(figure)
    return path


def _problems(records: Sequence[Record]) -> list[str]:
    # Problems with curves first: with many synthetic ones, these are the panels worth the room.
    names = dict.fromkeys(r["problem"] for r in records if r["outcome"]["timed"]["curve"])
    return list(names | dict.fromkeys(r["problem"] for r in records))


def _by_method(records: Sequence[Record]) -> dict[str, list[Record]]:
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record["method"], []).append(record)
    return groups


def _median_phases(group: Sequence[Record]) -> dict[str, float]:
    found = [r["outcome"]["timed"]["phases"] for r in group]
    return {phase: float(np.median([f.get(phase, 0.0) for f in found])) for phase in PHASE_COLOURS}


def _heading(record: Record) -> str:
    return f"{record['problem']}: {record['data']}" if record["data"] else str(record["problem"])


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"
