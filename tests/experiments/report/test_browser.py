"""The page in a real browser: Debian's Chromium through Playwright. Skipped where either is missing."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from experiments.report import command
from experiments.report.options import Report
from experiments.sweeps.space import Axis
from tests.experiments.report import stored

playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: make extras installs it")
CHROMIUM = shutil.which("chromium") or ""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium: apt-get install chromium"),
]
SIZES = {1280: 800, 390: 844}
DRAWN = "document.querySelectorAll('.chart[data-drawn] svg').length === document.querySelectorAll('.chart').length"
WALK = """async () => {
  for (const chart of document.querySelectorAll('.chart')) {
    chart.scrollIntoView();
    await new Promise((done) => setTimeout(done, 50));
  }
  window.scrollTo(0, 0);
}"""
# Texts of charts that leave their chart, or legends whose entries lie on each other.
MISPLACED = """() => {
  const found = [];
  for (const chart of document.querySelectorAll('.chart')) {
    const frame = chart.getBoundingClientRect();
    const boxes = [...chart.querySelectorAll('svg text')]
      .filter((text) => text.textContent && getComputedStyle(text).opacity !== '0')
      .map((text) => [text.textContent, text.getBoundingClientRect()]);
    for (const [text, box] of boxes)
      if (box.left < frame.left - 2 || box.right > frame.right + 2) found.push(`${text} leaves its chart`);
    const labels = [...chart.querySelectorAll('.role-legend-label text')].map((text) => text.getBoundingClientRect());
    labels.forEach((a, i) => labels.slice(i + 1).forEach((b) => {
      if (a.left < b.right && b.left < a.right && a.top < b.bottom - 2 && b.top < a.bottom - 2) found.push('legend');
    }));
    if (!chart.querySelector('svg .mark-symbol path, svg .mark-line path, svg .mark-rect path')) found.push('empty');
  }
  return found;
}"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run of two problems against an earlier one, of a sweep over a grid, and of a search."""
    folder = tmp_path_factory.mktemp("report")

    def value(point: dict[str, Any], method: str, seed: int) -> float:
        gain = {"anneal": 1.0, "tabu": 0.2}[point["toy.sampler"]] * point["toy.sampler.length"] ** 0.3
        return 60.0 + seed + (method == "hybrid") * gain * (1 + 0.1 * seed)

    stored.run(folder / "results" / "table1", stored.records(10))
    stored.run(folder / "earlier" / "table1", stored.records(10, gain=2.0))
    stored.sweep(folder / "results" / "sweeps" / "toy", value, seeds=10)
    axes = (Axis("toy.rate", (0.01, 1.0), True), Axis("toy.sampler", ("anneal", "tabu")))
    points = [{"toy.rate": 0.01 * 1.3**n, "toy.sampler": ("anneal", "tabu")[n % 2]} for n in range(16)]
    searched = folder / "results" / "sweeps" / "toy-searched"
    stored.sweep(searched, lambda p, m, s: p["toy.rate"] * (m == "hybrid") + s, 2, "tpe", axes, points)
    config = Report((folder / "results",), folder / "earlier", folder / "report.html")
    return command.run(config, Console(quiet=True))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as tools:
        found = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(params=[(width, scheme) for width in SIZES for scheme in ("light", "dark")], ids=str)
def page(request: pytest.FixtureRequest, browser: Any, report: Path) -> Iterator[Any]:
    """The opened page, all charts drawn; afterwards nothing may have been said or asked for."""
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": SIZES[width]}, color_scheme=scheme)
    context.set_default_timeout(120_000)  # of a machine that does much else
    found, heard = context.new_page(), []
    found.on("console", lambda message: heard.append(message.text))
    found.on("pageerror", lambda error: heard.append(str(error)))
    found.on("request", lambda asked: heard.append(asked.url) if asked.url != report.as_uri() else None)
    found.goto(report.as_uri())
    found.evaluate(WALK)
    found.wait_for_function(DRAWN)
    yield found
    context.close()
    assert heard == []


def column(table: Any, number: int) -> list[str]:
    return [row.locator("td").nth(number).inner_text() for row in table.locator("tbody tr").all()]


def chart(page: Any, section: str, title: str) -> Any:
    """The first chart of this title in this section."""
    inner = page.locator("section", has=page.get_by_role("heading", name=section, exact=True))
    return inner.locator("figure", has=page.get_by_text(title)).first


def switch(figure: Any, name: str) -> Any:
    """The input of a chart's parameter."""
    return figure.locator(f".vega-bindings [name={name}]")


def test_everything_fits_and_nothing_is_empty(page: Any) -> None:
    root = "document.documentElement"
    assert page.evaluate(f"{root}.scrollWidth <= {root}.clientWidth")
    assert page.evaluate(MISPLACED) == []
    first = page.locator(".overview").first.bounding_box()
    assert first["y"] + 40 < page.viewport_size["height"]


def test_light_and_dark_reach_the_figures(page: Any) -> None:
    is_dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    paper, ink, label = page.evaluate(
        """() => [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color,
        getComputedStyle(document.querySelector('.chart svg .role-axis-label text')).fill]"""
    )
    assert label == ink
    light = [sum(map(int, colour[4:-1].split(","))) > 380 for colour in (paper, ink)]
    assert light == [not is_dark, is_dark]


def test_tables_sort_by_click_and_by_key(page: Any) -> None:
    table = page.get_by_role("region", name="Rows").locator("table").first
    head = table.locator("th").nth(4)
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    up = [float(text.split(" ")[0]) for text in column(table, 4)]
    assert up == sorted(up) and len(set(up)) > 3
    head.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert [float(text.split(" ")[0]) for text in column(table, 4)] == up[::-1]
    name = table.locator("th").nth(1)
    name.get_by_role("button").click()
    assert column(table, 1) == sorted(column(table, 1))
    assert [name.get_attribute("aria-sort"), head.get_attribute("aria-sort")] == ["ascending", "none"]
    # What was never reached is last either way.
    target = table.locator("th").nth(6)
    for _ in range(2):
        target.get_by_role("button").click()
        assert column(table, 6)[-1] in ("-", "not reached (0/10)")


def test_seeds_bands_and_methods_can_be_switched(page: Any) -> None:
    curves = chart(page, "Learning curves", "digits")
    lines, areas = (curves.locator(f".mark-{kind} path") for kind in ("line", "area"))
    assert lines.count() == 4 * (10 + 1) and areas.count() == 4
    switch(curves, "seeds").uncheck()
    assert lines.count() == 4
    switch(curves, "band").select_option("none")
    assert lines.count() == 0 and areas.count() == 0
    switch(curves, "seeds").check()
    assert lines.count() == 40
    switch(curves, "band").select_option("mean, interval")
    assert areas.count() == 4
    curves.locator(".role-legend-label text", has_text="hybrid").click()
    faint = [float(area.get_attribute("opacity") or 1) for area in areas.all()]
    assert sorted(faint)[:3] == [0.03] * 3 and max(faint) == 0.2


def test_values_stand_under_the_pointer(page: Any) -> None:
    curves = chart(page, "Learning curves", "digits")
    curves.scroll_into_view_if_needed()
    box = curves.locator("svg").bounding_box()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.4 * box["height"])
    tip = page.locator("#vg-tooltip-element.visible")
    tip.wait_for()
    keys, values = (tip.locator(f"td.{kind}").all_inner_texts() for kind in ("key", "value"))
    shown = dict(zip((key.strip(": ") for key in keys), values, strict=True))
    assert shown["method"] in ("adam", "hybrid", "greedy", "random-bits")
    assert "seed" in shown["of"] and float(shown["seconds"]) > 0 and 20 <= float(shown["%"]) <= 100


def test_switches_of_the_other_charts(page: Any) -> None:
    seconds = chart(page, "Where the seconds went", "digits")
    bars = seconds.locator(".mark-rect path")
    assert bars.count() == 4 * 6
    switch(seconds, "charged").uncheck()
    assert bars.count() == 4 * 4
    energies = chart(page, "Energies of the sampled states", "digits")
    before = energies.locator("svg").inner_html()
    switch(energies, "seed").select_option("3")
    assert energies.locator("svg").inner_html() != before
    parallel = chart(page, "toy, hybrid", "Parallel coordinates")
    assert parallel.locator(".mark-line path").count() == 6
    switch(parallel, "best").fill("2")
    assert parallel.locator(".mark-line path").count() == 2


def test_what_changed_is_said_first(page: Any) -> None:
    first = page.locator(".overview").first
    assert "Of 6 rows that both have" in first.locator(".outcome").inner_text()
    assert "digits hybrid: final 71 → 73" in first.inner_text()
