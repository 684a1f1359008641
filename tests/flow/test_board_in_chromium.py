"""The board in a real browser: what a person does with it, while a real training runs.

It needs Debian's Chromium (apt-get install --no-install-recommends chromium) and is skipped without it.
"""

import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from bertsmith.analysis.board.server import Board
from bertsmith.config import parse_recipe
from bertsmith.tasks.finetune import finetune
from finetune_case import CPU, quiet, text_rows, write_tiny_model, write_tsv

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HOSTILE = "<img src=x onerror='window.hacked=1'>"


def events(
    kind: str, task: str | None, *, loss: float, steps: int, score: float, stop: str | None
) -> list[dict[str, Any]]:
    start = {"event": "start", "step": 0, "kind": kind, "task": task, "time": 1.76e9, "plan": {"steps": 100}}
    trained = [
        {"event": "step", "step": i, "elapsed_seconds": i / 2, "loss": loss + 5 / (i + 1), "learning_rate": 1e-4}
        for i in range(1, steps + 1)
    ]
    evaluation = {"event": "evaluation", "step": steps, "elapsed_seconds": steps / 2, "loss": loss, "best": True,
                  "scores": {"accuracy": score} if task else {}}  # fmt: skip
    end = [{"event": "stop", "step": steps, "reason": stop}] if stop else []
    return [start, *trained, evaluation, *end]


def write(folder: Path, made: list[dict[str, Any]], *, age_seconds: float = 0.0, recipe: str = "") -> None:
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in made), encoding="utf-8")
    if recipe:
        (folder / "recipe.toml").write_text(recipe, encoding="utf-8")
    then = time.time() - age_seconds
    os.utime(folder / "metrics.jsonl", (then, then))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Five runs: two done, one that runs, one that was killed, and one whose name and task are markup."""
    root = tmp_path / "runs"
    recipe = 'name = "cola"\n[finetune]\nepochs = {epochs}\nlearning_rate = 2e-5\n'
    for i, score in enumerate((0.71, 0.83)):
        made = events("finetune", "classify", loss=0.4 - i / 10, steps=40, score=score, stop="done")
        write(root / f"cola-{i}" / "finetune", made, age_seconds=600 + i, recipe=recipe.format(epochs=3 + i))
    write(root / "words" / "pretrain", events("pretrain", None, loss=6.1, steps=30, score=0, stop=None))
    write(root / "old", events("pretrain", None, loss=7.2, steps=20, score=0, stop=None), age_seconds=7200)
    hostile = events("finetune", HOSTILE, loss=2.0, steps=10, score=0.5, stop="SIGINT")
    write(root / HOSTILE.replace("/", ""), hostile, age_seconds=60)
    return root


@contextmanager
def served(root: Path, port: int = 0) -> Iterator[Board]:
    with Board(root, port=port, seconds_between_looks=0) as board:
        thread = threading.Thread(target=board.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield board
        finally:
            board.shutdown()
            thread.join()


@pytest.fixture
def page(chromium: "Browser") -> Iterator["Page"]:
    """A page whose clock the test moves on, and whose every complaint is a failure."""
    said: list[str] = []
    context = chromium.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.clock.install()
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    yield page
    hacked = page.evaluate("window.hacked")
    context.close()
    assert hacked is None
    assert [line for line in said if "ERR_CONNECTION_REFUSED" not in line and "404" not in line] == []


def later(page: "Page") -> None:
    """Let the page ask the server again."""
    with page.expect_response(re.compile("/api/")):
        page.clock.run_for(2100)


def until(page: "Page", holds: Callable[[], bool]) -> None:
    for _ in range(200):
        if holds():
            return
        page.wait_for_timeout(25)
    assert holds()


def names(page: "Page") -> list[str]:
    return page.locator("#runs tbody td.name a").all_inner_texts()


def address(page: "Page") -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def test_it_opens_sorts_filters_and_keeps_that_in_its_address(runs: Path, page: "Page") -> None:
    hostile = HOSTILE.replace("/", "")
    with served(runs) as board:
        page.goto(board.url)
        page.wait_for_selector("#runs tbody tr")
        newest_first = ["words/pretrain", hostile, "cola-0/finetune", "cola-1/finetune", "old"]
        assert names(page) == newest_first
        states = page.locator("#runs tbody td.state b").all_inner_texts()
        assert states == ["running", "stopped", "done", "done", "killed?"]
        page.click("#runs th.score button")
        assert names(page) == ["old", "words/pretrain", "cola-1/finetune", "cola-0/finetune", hostile]
        assert page.get_attribute("#runs th.score", "aria-sort") == "descending"
        page.click("#runs th.score button")
        assert names(page)[0] == hostile
        page.fill("#search", "cola score>0.8")
        assert names(page) == ["cola-1/finetune"]
        assert page.inner_text("#told") == "1 of 5 runs"
        page.fill("#search", "")
        page.click("#filters .state button.done")
        assert sorted(names(page)) == ["cola-0/finetune", "cola-1/finetune"]
        assert address(page) == {"sort": ["score"], "state": ["done"]}
        page.reload()
        page.wait_for_selector("#runs tbody tr")
        assert names(page) == ["cola-0/finetune", "cola-1/finetune"]
        write(runs / "fresh", events("finetune", "tag", loss=0.1, steps=10, score=0.6, stop="done"))
        shutil.rmtree(runs / "cola-1")
        later(page)
        until(page, lambda: names(page) == ["fresh", "cola-0/finetune"])
        page.goto(board.url + "run?" + urlencode({"run": hostile}))  # its name and its task are shown, and run nothing
        page.wait_for_selector("figure.chart svg path")
        assert hostile in page.inner_text(".top b")


def test_it_compares_and_the_way_back_keeps_the_view(runs: Path, page: "Page") -> None:
    with served(runs) as board:
        page.goto(board.url + "?q=cola&sort=name")
        page.wait_for_selector("#runs tbody tr")
        assert page.get_attribute("#compare", "href") is None
        for box in page.locator("#runs tbody input").all():
            box.check()
        page.click("text=Compare 2 runs")
        page.wait_for_selector("figure.chart svg path")
        assert page.locator("#recipes tbody tr").all_inner_texts() == ["finetune.epochs\t3\t4"]
        scores = page.locator("#scores tbody tr").all_inner_texts()
        assert [line.split("\t")[-1] for line in scores] == ["0.710", "0.830"]
        legend = page.locator("figure.chart", has_text="Loss").first.locator(".legend").inner_text()
        assert "cola-0/finetune: training" in legend
        assert "cola-1/finetune: training" in legend
        page.click("text=all runs")
        page.wait_for_selector("#runs tbody tr")
        assert address(page)["q"] == ["cola"]
        assert page.locator("#runs tbody input:checked").count() == 2
        page.click("#runs tbody a >> text=cola-1")
        page.wait_for_selector("figure.chart svg path")
        assert "cola" in page.inner_text("h1")


def test_it_follows_a_running_training_and_keeps_the_zoom(tmp_path: Path, page: "Page") -> None:
    (tmp_path / "runs").mkdir()
    write_tiny_model(tmp_path / "base")
    write_tsv(tmp_path / "train.tsv", text_rows(120))
    recipe = parse_recipe(
        {
            "name": "live",
            "finetune": {
                "task": "classify", "model": str(tmp_path / "base"), "train": str(tmp_path / "train.tsv"),
                "validation_share": 0.2, "epochs": 4, "batch_size": 8, "max_length": 16, "log_every_steps": 1,
                "evaluate_every": 10,
            },
        }
    )  # fmt: skip
    seen: list[tuple[int, int, list[float]]] = []

    def chart() -> tuple[int, list[float]]:
        """Last step drawn of the loss, and the steps that the chart shows."""
        return tuple(page.evaluate("() => { const c = charts[0]; return [c.data.series[0].x.at(-1), c.x]; }"))

    def look(step: int, evaluation: object) -> bool:
        """Called by the training after each evaluation, while it waits."""
        if not seen:
            page.goto(f"{board.url}run?run=live")
            page.wait_for_selector("figure.chart svg path")
            page.evaluate("window.here = true; charts[0].controls.logX.click(); zoom(charts[0].group, [2, 6])")
            page.evaluate("document.querySelector('#setup details').open = true; charts[1].plot.focus()")
        else:
            later(page)
            until(page, lambda: chart()[0] == step)
        seen.append((step, *chart()))
        return len(seen) == 3

    with served(tmp_path / "runs") as board:
        finetune(recipe, tmp_path / "runs" / "live", console=quiet(), runtime=CPU, on_evaluation=look)
        assert [step for step, _, _ in seen] == [10, 20, 30]
        assert [last for _, last, _ in seen] == [10, 20, 30]
        assert all(shown == [2, 6] for _, _, shown in seen)
        later(page)
        until(page, lambda: "running" not in (page.get_attribute(".stages li", "class") or ""))
        assert page.evaluate("document.activeElement === charts[1].plot")
        assert page.evaluate("charts[0].controls.logX.ariaPressed") == "true"
        assert page.evaluate("window.here && document.querySelector('#setup details').open")  # it was never loaded anew
        page.goto(board.url)
        page.wait_for_selector("#runs tbody tr")
        assert page.inner_text("#runs td.state b") in ("done", "stopped")


def test_it_survives_a_torn_last_line_a_vanished_run_and_a_server_that_ends(runs: Path, page: "Page") -> None:
    log = runs / "words" / "pretrain" / "metrics.jsonl"
    line = json.dumps({"event": "step", "step": 31, "elapsed_seconds": 16.0, "loss": 1.25}) + "\n"
    with served(runs) as board:
        port = board.server_port
        page.goto(board.url + "?state=running")
        page.wait_for_selector("#runs tbody tr")
        with log.open("a", encoding="utf-8") as file:
            file.write(line[:40])
        later(page)
        assert page.inner_text("#runs td.step") == "30 of 100"
        with log.open("a", encoding="utf-8") as file:
            file.write(line[40:])
        later(page)
        until(page, lambda: page.inner_text("#runs td.step") == "31 of 100")
        assert page.inner_text("#runs td.loss") == "1.250"
        page.click("#runs tbody a")
        page.wait_for_selector("figure.chart svg path")
        with log.open("a", encoding="utf-8") as file:
            file.write('{"event": "step", "st')
        later(page)
        assert page.evaluate("charts[0].data.series[0].x.at(-1)") == 31
        shutil.rmtree(runs / "words")
        later(page)
        until(page, lambda: "is gone" in page.inner_text("#told"))
        assert page.locator("figure.chart").count() > 0
    page.goto("about:blank")
    with served(runs, port):
        page.goto(board.url)
        page.wait_for_selector("#runs tbody tr")
    page.clock.run_for(2100)
    until(page, lambda: "does not answer" in page.inner_text("#told"))
    with served(runs, port):
        later(page)
        until(page, lambda: page.inner_text("#told") == "4 runs")


def test_it_fits_a_phone(runs: Path, page: "Page") -> None:
    page.set_viewport_size({"width": 380, "height": 800})
    with served(runs) as board:
        for target, ready in (
            ("", "#runs tbody tr"),
            ("run?run=cola-0/finetune&run=cola-1/finetune", "figure.chart path"),
        ):
            page.goto(board.url + target)
            page.wait_for_selector(ready)
            assert page.evaluate("document.documentElement.scrollWidth") <= 380
