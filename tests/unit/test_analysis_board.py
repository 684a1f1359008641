"""The board: what the table says of each run, and that only what is new is read and sent."""

import gzip
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from made_up_run import (
    finetuning_events,
    make_classify_run,
    make_tag_run,
    pretraining_events,
    start_event,
    write_events,
)
from typer.testing import CliRunner

from bertsmith.analysis import tail
from bertsmith.analysis.board.feed import Feed
from bertsmith.analysis.board.server import Board
from bertsmith.analysis.board.shelf import Shelf
from bertsmith.analysis.board.summary import CURVE_POINTS, Summary
from bertsmith.analysis.folder import read_run_folder
from bertsmith.analysis.recipes import differences
from bertsmith.cli import app
from bertsmith.errors import ArtifactError, UsageError


def row_of(folder: Path, *, later_seconds: float = 0.0) -> dict[str, Any]:
    summary = Summary(folder)
    summary.update()
    return summary.row("run", time.time() + later_seconds)


def append(folder: Path, *events: Mapping[str, Any], torn: str = "") -> None:
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as log:
        log.write("".join(json.dumps(event) + "\n" for event in events) + torn)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Board, Callable[..., HTTPResponse]]]:
    """A board of tmp_path/runs, and a function that asks it."""
    (tmp_path / "runs").mkdir()
    with Board(tmp_path / "runs", port=0, seconds_between_looks=0) as board:
        thread = threading.Thread(target=board.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def ask(target: str, method: str = "GET", headers: Mapping[str, str] | None = None) -> HTTPResponse:
            connection = HTTPConnection("127.0.0.1", board.server_port, timeout=10)
            connection.request(method, target, headers=dict(headers or {}))
            return connection.getresponse()

        try:
            yield board, ask
        finally:
            board.shutdown()
            thread.join()


def test_a_row_tells_what_a_log_says(tmp_path: Path) -> None:
    make_tag_run(tmp_path / "run", steps=200)
    row = row_of(tmp_path / "run" / "pretrain")
    told = {key: row[key] for key in ("kind", "state", "step", "total", "metric", "score", "seconds", "broken")}
    assert told == {"kind": "pretrain", "state": "done", "step": 200, "total": 200, "metric": "validation loss",
                    "score": 3.7, "seconds": 32.0, "broken": 0}  # fmt: skip
    assert row["loss"] == pytest.approx(pretraining_events(200)[-5]["loss"], abs=1.0)
    assert 2 <= len(row["curve"]) <= CURVE_POINTS
    assert row["curve"][0] > 8 > row["curve"][-1]


def test_the_best_evaluation_counts_by_the_metric_that_chooses(tmp_path: Path) -> None:
    events = finetuning_events("tag", best=0.7)
    evaluations = [event for event in events if event["event"] == "evaluation"]
    write_events(tmp_path, events)
    assert row_of(tmp_path)["score"] == pytest.approx(
        evaluations[2]["scores"]["f1"], rel=1e-5
    )  # the last one is not best
    (tmp_path / "recipe.toml").write_text('[finetune]\nmetric = "recall"\n', encoding="utf-8")
    row = row_of(tmp_path)
    assert (row["metric"], row["score"]) == ("recall", pytest.approx(evaluations[2]["scores"]["recall"], rel=1e-5))


def test_states(tmp_path: Path) -> None:
    events = finetuning_events("tag", best=0.7)[:-1]
    write_events(tmp_path, events)
    assert row_of(tmp_path)["state"] == "running"
    killed = row_of(tmp_path, later_seconds=3600)
    assert killed["state"] == "killed"
    assert "a guess" in killed["said"]
    append(tmp_path, {"event": "stop", "step": 128, "reason": "SIGINT"})
    assert row_of(tmp_path, later_seconds=3600)["state"] == "stopped"
    append(tmp_path, {**start_event("finetune", "tag", 128, {}), "resumed_from": 96})
    resumed = row_of(tmp_path)
    assert (resumed["state"], resumed["step"]) == ("running", 96)
    append(tmp_path, {"event": "stop", "step": 96, "reason": "error", "message": "no room"})
    failed = row_of(tmp_path)
    assert (failed["state"], failed["said"]) == ("failed", "no room")


@pytest.mark.parametrize("is_watched", [False, True], ids=["read at once", "watched"])
def test_a_log_that_is_slow_is_not_taken_for_that_of_a_killed_run(tmp_path: Path, is_watched: bool) -> None:
    write_events(tmp_path, [start_event("finetune", "tag", 128, {})])
    summary = Summary(tmp_path)

    def state(later_seconds: float) -> str:
        summary.update()
        return str(summary.row("run", time.time() + later_seconds)["state"])

    assert (state(500), state(700)) == ("running", "killed")  # it may be compiling
    for i in range(1, 4):
        append(tmp_path, {"event": "step", "step": i, "elapsed_seconds": 100.0 * i, "loss": 1.0})
        assert not is_watched or state(0) == "running"
    assert (state(900), state(1100)) == ("running", "killed")
    append(tmp_path, {"event": "evaluation", "step": 3, "loss": 1.0, "scores": {}, "seconds": 1000.0})
    assert (state(2900), state(3100)) == ("running", "killed")
    hurried = [{"event": "step", "step": i, "elapsed_seconds": 300.0 + i, "loss": 1.0} for i in range(4, 40)]
    write_events(tmp_path, [start_event("finetune", "tag", 128, {}), *hurried])
    assert (state(100), state(130)) == ("running", "killed")


def test_only_new_lines_are_read_and_the_answer_is_that_of_reading_all(tmp_path: Path) -> None:
    events = pretraining_events(120)
    write_events(tmp_path, [])
    summary = Summary(tmp_path)
    for i, event in enumerate(events):
        written = json.dumps(event) + "\n"
        append(tmp_path, torn=written[: 7 + i % 20])
        summary.update()
        append(tmp_path, torn=written[7 + i % 20 :])
        assert summary.update()
        assert not summary.update()
    now = time.time()
    whole = Summary(tmp_path)
    whole.update()
    assert summary.row("run", now) == whole.row("run", now)


def test_a_torn_last_line_is_waited_for_and_broken_ones_are_counted(tmp_path: Path) -> None:
    write_events(tmp_path, finetuning_events("tag", best=0.7)[:10], torn='{"event": "step", "step": 9')
    assert (row_of(tmp_path)["step"], row_of(tmp_path)["broken"]) == (32, 0)
    append(tmp_path, torn='99"\nno json\n[1, 2]\n')
    assert (row_of(tmp_path)["step"], row_of(tmp_path)["broken"]) == (32, 3)


def test_a_log_cut_off_by_a_resume_is_read_again(tmp_path: Path) -> None:
    events = pretraining_events(100)
    write_events(tmp_path, events[:60])
    summary = Summary(tmp_path)
    summary.update()
    changed = [{**event, "elapsed_seconds": 1000.5, "loss": 2.5} for event in events[40:] if event["event"] == "step"]
    write_events(tmp_path, [*events[:40], *changed])  # longer than it was, and other lines in the middle
    assert summary.update()
    assert summary.row("run", time.time()) == row_of(tmp_path)
    assert row_of(tmp_path)["loss"] == 2.5


def test_a_long_log_is_read_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "MOST_BYTES", 5000)
    write_events(tmp_path, pretraining_events(100))
    summary = Summary(tmp_path)
    turns = 1
    while summary.update() and summary.is_behind:
        turns += 1
    assert turns > 5
    assert summary.row("run", 0)["state"] == "done"
    (tmp_path / "metrics.jsonl").write_text("x" * 20_000, encoding="utf-8")  # no line ever ends: not read for ever
    summary.update()
    assert not summary.is_behind


def test_a_feed_tells_what_is_new() -> None:
    feed = Feed()
    feed.update({"a": 1, "b": 2})
    first = feed.since("")
    assert (first["whole"], first["items"], first["gone"]) == (True, {"a": 1, "b": 2}, [])
    feed.update({"a": 1, "c": 3})
    then = feed.since(first["version"])
    assert (then["whole"], then["items"], then["gone"]) == (False, {"c": 3}, ["b"])
    assert feed.since(then["version"])["items"] == {}
    feed.update({"a": 1, "b": 2, "c": 3})
    assert feed.since(first["version"]) == {
        "version": feed.token,
        "whole": False,
        "items": {"b": 2, "c": 3},
        "gone": [],
    }
    for unknown in ("", "other-1", f"{feed.token}9", first["version"].replace("1", "-1"), feed.token + "x"):
        assert feed.since(unknown)["whole"], unknown


def test_runs_are_found_at_any_depth_and_go_when_they_go(tmp_path: Path) -> None:
    make_tag_run(tmp_path / "one", steps=20)
    write_events(tmp_path / "deep" / "er" / "trial-1", pretraining_events(20))
    write_events(tmp_path / "one" / "pretrain" / "checkpoints" / "no", pretraining_events(20))
    write_events(tmp_path / "best" / "refit", pretraining_events(20))  # a run may be called as a part of one is
    write_events(tmp_path / ".hidden", pretraining_events(20))
    (tmp_path / "around").symlink_to(tmp_path)
    shelf = Shelf(tmp_path, seconds_between_looks=0)
    first = shelf.since("")
    stages = [f"one/{name}" for name in ("finetune", "finetune-random-weights", "pretrain")]
    assert sorted(first["items"]) == ["best/refit", "deep/er/trial-1", *stages]
    assert shelf.folder("one") == tmp_path / "one"
    for unknown in ("", ".", "deep", "deep/er", "one/checkpoints", "../" + tmp_path.name, str(tmp_path), "one/../one"):
        assert shelf.folder(unknown) is None, unknown
    shutil.rmtree(tmp_path / "one")
    write_events(tmp_path / "new", pretraining_events(20))
    then = shelf.since(first["version"])
    assert (list(then["items"]), sorted(then["gone"])) == (["new"], stages)


def test_a_run_whose_text_is_being_prepared_waits(tmp_path: Path) -> None:
    make_tag_run(tmp_path / "inner" / "new", upto="corpus")
    shelf = Shelf(tmp_path, seconds_between_looks=0)
    first = shelf.since("")
    assert [(name, row["state"]) for name, row in first["items"].items()] == [("inner/new", "waiting")]
    assert shelf.folder("inner/new") == tmp_path / "inner" / "new"
    write_events(tmp_path / "other" / "pretrain", pretraining_events(20))
    assert first["items"]["inner/new"].keys() == shelf.since(first["version"])["items"]["other/pretrain"].keys()
    write_events(tmp_path / "inner" / "new" / "pretrain", pretraining_events(20))
    then = shelf.since(first["version"])
    assert (sorted(then["items"]), then["gone"]) == (["inner/new/pretrain", "other/pretrain"], ["inner/new"])


def test_of_thousands_of_runs_those_that_changed_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(300):
        write_events(tmp_path / f"run-{i}", finetuning_events("tag", best=0.7)[:4])
        os.utime(tmp_path / f"run-{i}", (1e9, 1e9))
    os.utime(tmp_path, (1e9, 1e9))
    shelf = Shelf(tmp_path, seconds_between_looks=0)
    first = shelf.since("")
    assert len(first["items"]) == 300
    listed: list[Any] = []
    opened: list[Path] = []
    scandir, path_open = os.scandir, Path.open
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scandir(path))
    monkeypatch.setattr(Path, "open", lambda path, *args, **more: opened.append(path) or path_open(path, *args, **more))
    append(tmp_path / "run-7", {"event": "stop", "step": 12, "reason": "done"})
    opened.clear()
    then = shelf.since(first["version"])
    assert list(then["items"]) == ["run-7"]
    assert (listed, opened) == ([], [tmp_path / "run-7" / "metrics.jsonl"])


def test_many_logs_are_read_bit_by_bit(tmp_path: Path) -> None:
    for i in range(20):
        write_events(tmp_path / f"run-{i}", pretraining_events(20))
    shelf = Shelf(tmp_path, seconds_a_look=0.0)
    assert shelf.since("")["unread"] == 20
    shelf._seconds_a_look = 10.0
    answer = shelf.since("")
    assert (answer["unread"], len(answer["items"])) == (0, 20)


def test_recipes_differ_by_key(tmp_path: Path) -> None:
    for name, rate, sources in (
        ("a", "1e-5", "[{ paths = ['x'] }]"),
        ("b", "2e-5", "[{ paths = ['y'] }]\nextra = true"),
    ):
        text = f'name = "{name}"\n[corpus]\nsources = {sources}\n[finetune]\nlearning_rate = {rate}\nepochs = 3\n'
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.toml").write_text(text, encoding="utf-8")
    found = differences([read_run_folder(tmp_path / name) for name in ("a", "b")])
    assert found == [
        ("corpus.sources[1].paths", ["['x']", "['y']"]),
        ("finetune.learning_rate", ["1e-05", "2e-05"]),
        ("corpus.extra", [None, "true"]),
    ]


def test_pages_of_a_run_come_in_parts_and_then_only_new_ones(served: Any, tmp_path: Path) -> None:
    _, ask = served
    make_tag_run(tmp_path / "runs" / "quick", steps=300, upto="pretrain")
    assert ask("/run?run=quick").status == 200
    first = json.load(ask("/api/run?run=quick"))
    assert {"header", "section curves", "chart pretrain/Loss"} <= first["items"].keys()
    assert first["order"] == list(first["items"])
    assert "<svg" not in first["items"]["section curves"]
    assert 'data-part="chart pretrain/Loss"' in first["items"]["section curves"]
    rest = [event for event in pretraining_events(300) if event["step"] > 150]
    log = tmp_path / "runs" / "quick" / "pretrain" / "metrics.jsonl"
    kept = log.read_text(encoding="utf-8").rpartition("\n")[0] + "\n"
    log.write_text(kept + "".join(json.dumps(event) + "\n" for event in rest), encoding="utf-8")
    then = json.load(ask("/api/run?" + urlencode({"run": "quick", "since": first["version"]})))
    assert not then["whole"]
    assert {"header", "chart pretrain/Loss"} <= then["items"].keys()
    assert "section data" in first["items"].keys() - then["items"].keys()


def test_several_runs_are_compared(served: Any, tmp_path: Path) -> None:
    _, ask = served
    make_classify_run(tmp_path / "runs" / "a")
    make_classify_run(tmp_path / "runs" / "b")
    (tmp_path / "runs" / "b" / "recipe.toml").write_text('name = "b"\n[finetune]\nepochs = 9\n', encoding="utf-8")
    assert b"2 runs compared" in ask("/run?run=a&run=b").read()
    parts = json.load(ask("/api/run?run=a&run=b"))["items"]
    assert "finetune.epochs" in parts["section recipes"]
    scores = parts["section scores"]
    assert "a: BERT, fine-tuned" in scores
    assert "Matthews on in_domain_dev" in scores.split("By all other metrics")[0]
    assert "accuracy on in_domain_dev" in scores.split("By all other metrics")[1]
    assert "a: training" in parts["chart finetune/Loss"]
    assert "b: training" in parts["chart finetune/Loss"]


def test_the_best_of_a_column_stands_out(served: Any, tmp_path: Path) -> None:
    _, ask = served
    for name, score in (("a", 0.6), ("b", 0.7)):
        write_events(tmp_path / "runs" / name, finetuning_events("tag", best=score))
    append(
        tmp_path / "runs" / "a", {"event": "evaluation", "step": 130, "best": True, "loss": 0.1, "scores": {"f1": 0.2}}
    )
    scores = json.load(ask("/api/run?run=a&run=b"))["items"]["section scores"]
    assert re.findall(r'<td class="n best">([\d.]+)', scores.split("b, step")[0]) == ["0.100"]  # of losses the smallest
    assert re.findall(r'<td class="n best">([\d.]+)', scores.split("b, step")[1]) == ["0.685"]


def test_a_stage_shown_alone_is_not_said_to_wait_for_others(served: Any, tmp_path: Path) -> None:
    _, ask = served
    make_tag_run(tmp_path / "runs" / "quick", steps=100, upto="pretrain")
    shutil.copy(tmp_path / "runs" / "quick" / "recipe.toml", tmp_path / "runs" / "quick" / "pretrain")
    assert "not yet" in json.load(ask("/api/run?run=quick"))["items"]["header"]
    assert "not yet" not in json.load(ask("/api/run?run=quick/pretrain"))["items"]["header"]


def test_a_run_that_cannot_be_read_says_so_and_keeps_what_was_shown(served: Any, tmp_path: Path) -> None:
    _, ask = served
    make_classify_run(tmp_path / "runs" / "a")
    first = json.load(ask("/api/run?run=a"))
    os.mkfifo(tmp_path / "runs" / "a" / "other.json")
    then = json.load(ask("/api/run?" + urlencode({"run": "a", "since": first["version"]})))
    assert list(then["items"]) == ["section trouble"]
    assert "no plain file" in then["items"]["section trouble"]
    assert then["order"] == ["section trouble", *first["order"]]


def test_unchanged_answers_are_not_sent_again_and_long_ones_are_compressed(served: Any) -> None:
    _, ask = served
    whole = ask("/static/report.css", headers={"Accept-Encoding": "gzip"})
    packed = whole.read()
    plain = ask("/static/report.css").read()
    assert gzip.decompress(packed) == plain
    assert len(packed) < len(plain) / 2
    again = ask("/static/report.css", headers={"If-None-Match": whole.headers["ETag"]})
    assert (again.status, again.read()) == (304, b"")
    head = ask("/static/report.css", method="HEAD")
    assert (head.status, head.headers["Content-Length"], head.read()) == (200, str(len(plain)), b"")


def test_every_page_has_its_parts_and_no_script_of_its_own(served: Any, tmp_path: Path) -> None:
    _, ask = served
    make_classify_run(tmp_path / "runs" / "a")
    for target in ("/", "/run?run=a", "/run?run=a&run=a/finetune"):
        answer = ask(target)
        page = answer.read().decode()
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")
        assert "<script>" not in page
        for name in ("report.css", "board.css"):
            assert f"/static/{name}" in page
    assert ask("/static/server.py").status == 404
    assert ask("/?" + urlencode([("tick", f"run-{i}") for i in range(100)])).status == 200


def test_wrong_folders_hosts_and_ports_get_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is not a folder; name the one that holds your runs"):
        Board(tmp_path / "nowhere")
    with Board(tmp_path, port=0) as board:
        assert board.is_loopback
        with pytest.raises(UsageError, match="--port 0 for any port that is free"):
            Board(tmp_path, port=board.server_port)
    with pytest.raises(UsageError, match="--host"):
        Board(tmp_path, host="203.0.113.7", port=0)


def test_the_command_says_where_and_warns_when_others_can_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Board, "serve_forever", lambda board: None)
    here = CliRunner().invoke(app, ["board", str(tmp_path), "--port", "0"])
    assert here.exit_code == 0
    assert here.stdout.startswith(f"{tmp_path} at http://127.0.0.1:")
    assert here.stderr == ""
    everywhere = CliRunner().invoke(app, ["board", str(tmp_path), "--port", "0", "--host", "0.0.0.0"])
    [warning] = everywhere.stderr.splitlines()
    assert warning == "warning: everybody who can reach 0.0.0.0 can read these runs; there is no password"
    assert CliRunner().invoke(app, ["board", str(tmp_path), "--port", "70000"]).exit_code == 2
