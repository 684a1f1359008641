"""The report in a real browser: hover, zoom, smoothing, log axes, on a log with gaps.

It needs Debian's Chromium (apt-get install --no-install-recommends chromium) and is skipped without it.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bertsmith.analysis.report import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

HOSTILE = "</script><img src=x onerror='window.hacked=1'>"


def write_run(folder: Path, *, name: str = "run") -> Path:
    steps: list[dict[str, Any]] = [
        {"event": "step", "step": i, "loss": None if 500 <= i < 600 else 9 * math.exp(-i / 300) + 0.1 * (i % 3),
         "learning_rate": 1e-3 * (1 - i / 1001)}
        for i in range(1, 1001)
    ]  # fmt: skip
    start = {"event": "start", "step": 0, "kind": "pretrain", "run": name, "plan": {"steps": 1000}, "time": 1.76e9}
    steps.insert(700, {"event": "rollback", "step": 700, "from_step": 700, "to_step": 650, "because": HOSTILE})
    run = folder / name / "pretrain"
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in [start, *steps]))
    return run.parent


@pytest.fixture
def page(chromium: "Browser", tmp_path: Path) -> Iterator["Page"]:
    """A report; whatever its script complains of is a failure."""
    context = chromium.new_context(viewport={"width": 1100, "height": 800})
    tab = context.new_page()
    errors: list[str] = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(write_report(write_run(tmp_path)).resolve().as_uri())
    yield tab
    hacked = tab.evaluate("window.hacked")
    context.close()
    assert (errors, hacked) == ([], None)


def labels(chart: "Locator", axis: str) -> list[str]:
    return chart.locator(f".{axis} span").all_inner_texts()


def test_a_person_reads_the_curves(page: "Page") -> None:
    loss, rate = page.locator("figure.chart").nth(0), page.locator("figure.chart").nth(1)
    line = loss.locator("path.line")
    assert (line.get_attribute("d") or "").count("M") == 2, "the gap is not drawn over"
    box = loss.locator("svg").bounding_box()
    assert box is not None

    def at(step: float) -> tuple[float, float]:
        return box["x"] + box["width"] * (step + 9) / 1020, box["y"] + 60

    page.mouse.move(*at(550))
    assert "gap" in loss.locator(".tip").inner_text()
    page.mouse.move(*at(700))
    assert HOSTILE in loss.locator(".tip .told").inner_text()
    assert rate.locator(".cross").is_visible(), "charts of a group point at the same step"

    before = line.get_attribute("d")
    loss.get_by_text("smooth", exact=True).click()  # now raw
    assert loss.locator("path.faint").count() == 0
    loss.get_by_text("raw", exact=True).click()
    loss.get_by_text("smoother", exact=True).click()
    assert loss.locator("path.line").get_attribute("d") != before

    loss.get_by_text("log y").click()
    assert "2" in labels(loss, "y")
    assert "0" not in labels(loss, "y")
    assert rate.get_by_text("log y").get_attribute("aria-pressed") != "true", "values are each chart's own"
    loss.get_by_text("log x").click()
    assert labels(rate, "x") == labels(loss, "x") == ["1", "10", "100", "1k"]


def test_zoom_on_a_log_axis_and_back(page: "Page") -> None:
    loss = page.locator("figure.chart").nth(0)
    loss.get_by_text("log x").click()
    whole = loss.locator("svg").get_attribute("viewBox")
    box = loss.locator("svg").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + 50)
    page.mouse.up()
    assert loss.locator("svg").get_attribute("viewBox") != whole
    shown = labels(loss, "x")
    assert "50" in shown
    assert "1" not in shown
    loss.get_by_text("show all").click()
    assert loss.locator("svg").get_attribute("viewBox") == whole
