"""The report: whatever part of a run there is, hostile text and torn files included, gives one safe, whole page."""

import base64
import hashlib
import json
import random
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_up_run import (
    classified_rows,
    finetuning_events,
    make_classify_run,
    make_tag_run,
    pretraining_events,
    start_event,
    step_event,
    tagged_rows,
    write_events,
    write_lines,
)

from bertsmith.analysis.curves import NUM_COLOURS
from bertsmith.analysis.folder import read_run_folder
from bertsmith.analysis.predictions import read_answers
from bertsmith.analysis.report import render, write_report
from bertsmith.errors import ArtifactError, UsageError

HOSTILE = (
    "</script></style><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>\"'\u2028\x00\x07\ud800"
)


class Page(HTMLParser):
    """Every element closed in order, and what the page would run or load."""

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.scripts: list[str] = []
        self.loads: list[str] = []
        self.headings: list[str] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        if name not in ("meta", "br"):
            self.open.append(name)
        given = dict(attributes)
        if name == "script" and given.get("type") != "application/json":
            self.scripts.append("")
        self.loads += [str(given[key]) for key in ("src", "href", "action", "data", "poster") if key in given]
        assert not [key for key in given if key.startswith("on")]

    def handle_endtag(self, name: str) -> None:
        assert self.open, f"</{name}> closes nothing"
        assert self.open.pop() == name

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("h2", "h3"):
            self.headings.append(data)
        elif self.open and self.open[-1] == "script" and not data.startswith("{"):
            self.scripts[-1] += data
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


def page_of(root: Path) -> Page:
    return Page(write_report(root).read_text(encoding="utf-8"))


def test_a_whole_run_has_every_section(tmp_path: Path) -> None:
    page = page_of(make_tag_run(tmp_path / "run"))
    expected = ["Scores", "Learning curves", "Right and wrong", "Masked words", "Data", "Evaluations"]
    assert [h for h in page.headings if h in expected] == expected
    for part in ("Confusion matrix", "Ten most confident mistakes", "Tagged sentences", "Fill in the blank"):
        assert part in page.headings
    for said in ("0.712", "0.691 – 0.731", "dictionary", "too short", "17,204,511", "8,192", "validation", "missed"):
        assert said in page.text
    assert "first try, 4 x 256, MLM alone" in page.text


def test_the_headline_is_the_best_by_the_chosen_metric_not_the_largest_number(tmp_path: Path) -> None:
    page = page_of(make_tag_run(tmp_path / "run"))
    headline = page.text.index("best: BERT, pre-trained")
    assert "0.712 F1 on test" in page.text[:headline]
    assert [h for h in page.headings if " on test" in h] == ["F1 on test"]
    assert "All scores on test" in page.text


def test_counts_by_split_and_by_source_are_tables(tmp_path: Path) -> None:
    page = page_of(make_tag_run(tmp_path / "run"))
    assert "tokens 4,410,233 91,020" in page.text
    assert "train validation test code words 2,000 1,000 2,000" in page.text
    assert "left out: markup 20 20 20" in page.text
    assert "sympy 10,000,000 13,192" in page.text


def test_a_classification_has_batch_scores_and_a_table_for_each_test_file(tmp_path: Path) -> None:
    page = page_of(make_classify_run(tmp_path / "run"))
    assert page.headings.count("Per-batch scores") == 2
    assert "Matthews on in_domain_dev" in page.headings
    assert "Matthews on out_of_domain_dev" in page.headings
    assert "Tagged sentences" not in page.headings


def test_more_scores_than_colours_leave_out_the_last(tmp_path: Path) -> None:
    events = finetuning_events("tag", best=0.8)
    scores = {f"score_{i}": 0.5 for i in range(NUM_COLOURS + 2)}
    events = [event | {"scores": scores} if event["event"] == "evaluation" else event for event in events]
    write_events(tmp_path / "run", events)
    written = write_report(tmp_path / "run").read_text(encoding="utf-8")
    (figure,) = re.findall(r"<figure(?:(?!</figure).)*Validation scores.*?</figure>", written, re.DOTALL)
    keys = re.findall(r'class="key c(\d+)"', figure)
    assert keys == [str(i + 1) for i in range(NUM_COLOURS)]


def test_it_loads_nothing_and_its_one_script_is_the_one_the_policy_allows(tmp_path: Path) -> None:
    written = write_report(make_tag_run(tmp_path / "run")).read_text(encoding="utf-8")
    page = Page(written)
    assert all(load.startswith("#") for load in page.loads)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", written)
    assert "@import" not in written
    assert "url(" not in written
    assert len(page.scripts) == 1
    digest = base64.b64encode(hashlib.sha256(page.scripts[0].encode()).digest()).decode()
    assert f"script-src &#x27;sha256-{digest}&#x27;" in written
    assert "default-src &#x27;none&#x27;" in written


def test_equal_input_gives_an_equal_file(tmp_path: Path) -> None:
    first = write_report(make_tag_run(tmp_path / "a" / "run"), tmp_path / "first.html")
    again = write_report(tmp_path / "a" / "run", tmp_path / "again.html")
    assert first.read_bytes() == again.read_bytes()


def test_a_long_run_stays_light(tmp_path: Path) -> None:
    root = make_tag_run(tmp_path / "run", steps=20_000)
    assert write_report(root).stat().st_size < 700_000


@pytest.mark.parametrize("upto", ["corpus", "pretrain"])
def test_in_the_middle_of_a_run(tmp_path: Path, upto: str) -> None:
    page = page_of(make_tag_run(tmp_path / "run", upto=upto))
    assert "not yet" in page.text
    assert "Scores" not in page.headings or "From elsewhere" in page.headings
    if upto == "pretrain":
        assert "of 1,500" in page.text
        assert "Pre-training" in page.headings


def test_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.toml").write_text("# nothing is asked for\n", encoding="utf-8")
    page = page_of(tmp_path / "run")
    assert "Recipe and machine" in page.headings
    assert "Learning curves" not in page.headings


def test_a_folder_with_nothing_of_a_run_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "metrics.txt").write_text("loss 3\n", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"notes is not a run: it has no recipe\.toml, no metrics\.jsonl"):
        write_report(tmp_path / "notes")
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["metrics.txt"]


def test_one_run_directory_alone(tmp_path: Path) -> None:
    root = make_tag_run(tmp_path / "run")
    shutil.copy(root / "recipe.toml", root / "finetune" / "recipe.toml")
    shutil.copy(root / "scores.json", root / "finetune" / "scores.json")
    page = page_of(root / "finetune")
    assert (root / "finetune" / "report.html").is_file()
    assert "Fine-tuning" in page.headings
    assert "Pre-training" not in page.headings
    assert "Tagged sentences" in page.headings
    assert "quickstart / finetune" in page.text or "quickstart" in page.text


def test_no_such_run(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is not a run; give a folder such as"):
        write_report(tmp_path / "none")
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(ArtifactError, match="is not a run"):
        write_report(tmp_path / "file")


def test_a_failed_report_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_tag_run(tmp_path / "run", upto="corpus")
    before = write_report(root).read_bytes()
    monkeypatch.setattr("bertsmith.artifact.os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_report(root)
    assert (root / "report.html").read_bytes() == before
    assert [p.name for p in root.iterdir() if "draft" in p.name] == []


def test_hostile_text_is_shown_not_run(tmp_path: Path) -> None:
    root = tmp_path / "run"
    root.mkdir()
    recipe = (
        f"name = 'x'\ndescription = {json.dumps(HOSTILE.split(chr(0x2028))[0])}\n[finetune.literature]\n'<b>' = '<i>'\n"
    )
    (root / "recipe.toml").write_text(recipe, encoding="utf-8")
    rows = classified_rows(40, (HOSTILE, "b"))
    for row in rows:
        row["text"] = HOSTILE
    start = start_event("finetune", "classify", 10, {"label_counts": {HOSTILE: 3}, HOSTILE: HOSTILE})
    step = step_event(1, 10, 1.0, {HOSTILE: 1.0, "b": 2.0}, random.Random(0))
    masked = [{"truth": HOSTILE, "predictions": [[HOSTILE, 0.5]]}]
    hardest = [{"text": HOSTILE, "label": HOSTILE, "prediction": HOSTILE, "loss": 1.0}]
    events = [
        start,
        step,
        {"event": "evaluation", "step": 1, "loss": 1.0, "scores": {HOSTILE: 0.5}, "hardest": hardest},
        {"event": "sample", "step": 1, "text": HOSTILE + "[MASK]", "masked": masked},
        {"event": "stop", "step": 1, "reason": HOSTILE, "message": HOSTILE},
    ]
    for name in ("finetune", "finetune-<script>alert(1)<"):
        folder = root / name
        folder.mkdir()
        for file, lines in (
            ("metrics.jsonl", events),
            ("predictions-test.jsonl", rows),
            ("predictions-tags.jsonl", [{"words": [HOSTILE], "labels": ["O"], "predictions": [HOSTILE]}]),
        ):
            (folder / file).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="ascii")
    table = [{"name": HOSTILE, "split": HOSTILE, "metric": HOSTILE, "score": 0.5, "note": HOSTILE}]
    (root / "scores.json").write_text(json.dumps({"metric": "f1", "table": table}), encoding="ascii")
    (root / "fill_mask.json").write_text(json.dumps([{"text": HOSTILE, "predictions": [[HOSTILE, 0.4]]}]), "ascii")
    written = write_report(root).read_bytes().decode("utf-8")
    page = Page(written)
    assert len(page.scripts) == 1
    assert "hacked" not in page.scripts[0]
    assert "<img" not in written
    assert "window.hacked=1" in page.text
    assert "\x00" not in written


def test_what_a_resume_did_again_replaces_what_stood_there(tmp_path: Path) -> None:
    noise = random.Random(0)
    events = [start_event("pretrain", None, 40, {})]
    events += [step_event(step, 40, 9.0, {"mlm": 9.0}, noise) for step in range(1, 31)]
    events += [{"event": "stop", "step": 30, "reason": "SIGINT"}]
    events += [{**start_event("pretrain", None, 40, {}), "step": 20, "resumed_from": 20}]
    events += [step_event(step, 40, 5.0, {"mlm": 5.0}, noise) for step in range(21, 26)]
    write_events(tmp_path / "run" / "pretrain", events)
    (training,) = read_run_folder(tmp_path / "run").trainings
    losses = {event["step"]: event["loss"] for event in training.of("step")}
    assert losses == {**dict.fromkeys(range(1, 21), 9.0), **dict.fromkeys(range(21, 26), 5.0)}
    assert (training.last_step, training.stop) == (25, None)


def test_an_interrupted_run_says_so(tmp_path: Path) -> None:
    events = pretraining_events(100)[:-1]
    stop = {"event": "stop", "step": 60, "reason": "SIGINT", "elapsed_seconds": 9.0}
    write_events(tmp_path / "run" / "pretrain", [*events, stop])
    assert "stopped at step 100 of 100 (SIGINT)" in page_of(tmp_path / "run").text


def test_a_broken_metrics_line_is_told_of_and_all_others_are_shown(tmp_path: Path) -> None:
    root = tmp_path / "run"
    write_events(root / "pretrain", pretraining_events(100), torn="not json\n")
    lines = (root / "pretrain" / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (root / "pretrain" / "metrics.jsonl").write_text("".join([*lines[:40], "not json\n", *lines[41:]]))
    page = page_of(root)
    assert f"2 lines of the log cannot be read (lines 41, {len(lines)}): gaps in the curves" in page.text


def test_confusion_and_mistakes_are_counted_right(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"row": 0, "line": 1, "text": "a", "label": "x", "prediction": "x", "probabilities": {"x": 0.99}},
        {"row": 1, "line": 2, "text": "b", "label": "x", "prediction": "y", "probabilities": {"y": 0.7}},
        {"row": 2, "line": 3, "text": "c", "label": "y", "prediction": "x", "probabilities": {"x": 0.9}},
        {"row": 3, "line": 4, "text": "d", "label": None, "prediction": "x", "probabilities": {"x": 0.9}},
        {"row": 4, "line": 5, "text": "e", "label": "y", "prediction": "x", "probabilities": {"x": 0.9}},
    ]
    write_lines(tmp_path / "p.jsonl", rows)
    answers = read_answers("test", tmp_path / "p.jsonl")
    assert answers is not None
    assert dict(answers.confusion) == {("x", "x"): 1, ("x", "y"): 1, ("y", "x"): 2}
    assert [one.text for one in answers.mistakes] == ["c", "e", "b"]


def test_only_the_ten_surest_mistakes_are_kept(tmp_path: Path) -> None:
    rows = [{"text": str(i), "label": "x", "prediction": "y", "probabilities": {"y": i / 100}} for i in range(100)]
    write_lines(tmp_path / "p.jsonl", rows)
    answers = read_answers("test", tmp_path / "p.jsonl")
    assert answers is not None
    assert [one.text for one in answers.mistakes] == [str(i) for i in range(99, 89, -1)]


def test_batch_scores_are_of_32_rows_in_order(tmp_path: Path) -> None:
    right = [{"text": "", "label": str(i % 2), "prediction": str(i % 2)} for i in range(32)]
    inverted = [{"text": "", "label": str(i % 2), "prediction": str(1 - i % 2)} for i in range(32)]
    constant = [{"text": "", "label": str(i % 2), "prediction": "1"} for i in range(5)]
    write_lines(tmp_path / "p.jsonl", [*right, *inverted, *constant])
    answers = read_answers("test", tmp_path / "p.jsonl")
    assert answers is not None
    assert answers.blocks.scores == pytest.approx([1.0, -1.0, 0.0])


def test_tagged_words_are_marked_found_missed_or_wrong(tmp_path: Path) -> None:
    root = make_tag_run(tmp_path / "run")
    row = {"row": 0, "line": 1, "words": ["use", "dtype", "or", "copy"], "labels": ["O", "CODE", "CODE", "O"],
           "predictions": ["O", "CODE", "O", "CODE"], "confidence": [0.9, 0.8, 0.7, 0.6]}  # fmt: skip
    write_lines(root / "finetune" / "predictions-test.jsonl", [row])
    written = write_report(root).read_text(encoding="utf-8")
    sentence = written.split('<p class="sentence">')[1].split("</p>")[0]
    marks = re.findall(r'<mark class="(\w+)" title="([^"]*)">(\w+)</mark>', sentence)
    assert marks == [
        ("right", "true: CODE, predicted: CODE", "dtype"),
        ("missed", "true: CODE, predicted: O", "or"),
        ("wrong", "true: O, predicted: CODE", "copy"),
    ]
    assert sentence.startswith("use ")


def test_many_labels_are_told_as_confusions(tmp_path: Path) -> None:
    root = make_classify_run(tmp_path / "run", rows=6000, names=tuple(f"label {i}" for i in range(40)))
    page = page_of(root)
    assert "Most frequent confusions" in page.headings
    assert "Confusion matrix" not in page.headings
    assert "Matthews of each 64 rows, in their order in the file" in page.text


def test_rows_that_do_not_fit_are_passed_over(tmp_path: Path) -> None:
    root = make_tag_run(tmp_path / "run")
    rows = [
        {"words": ["a", "b"], "labels": ["O"], "predictions": ["O", "O"]},
        {"words": ["a"], "labels": None, "predictions": ["O"]},
        {"words": ["a"], "labels": ["X"], "predictions": ["O"], "confidence": None},
        ["not", "an", "object"],
    ]
    path = root / "finetune" / "predictions-test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"torn', encoding="utf-8")
    answers = read_answers("test", path)
    assert answers is not None
    assert answers.confusion.total() == 1
    page_of(root)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**400), 10**400) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NUMBERS = ["step", "epoch", "elapsed_seconds", "loss", "learning_rate", "gradient_norm", "clip_rate", "time", "seconds"]
OBJECTS = ["losses", "scores", "plan", "data", "environment", "masked", "hardest", "followed", "resumed_from"]
WORDS = ["tokens_per_second", "name", "value", "because", "reason", "message", "text", "best", "memory_bytes", "kind"]
KEYS = [*NUMBERS, *OBJECTS, *WORDS]
EVENT = st.builds(
    lambda kind, fields: {"event": kind, **fields},
    st.sampled_from(["start", "step", "evaluation", "sample", "decision", "checkpoint", "stop"]),
    st.dictionaries(st.sampled_from(KEYS), JSON, max_size=8),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(EVENT, max_size=8), scores=JSON, fills=JSON, rows=st.lists(JSON, max_size=4))
def test_no_file_of_a_run_can_break_the_page(
    tmp_path: Path, events: list[Any], scores: object, fills: object, rows: list[object]
) -> None:
    root = tmp_path / "run"
    shutil.rmtree(root, ignore_errors=True)
    (root / "finetune").mkdir(parents=True)
    (root / "corpus").mkdir()
    lines = "".join(json.dumps(event) + "\n" for event in events)
    (root / "finetune" / "metrics.jsonl").write_text(lines, encoding="ascii")
    answers = [{"words": row, "labels": row, "predictions": row, "label": row, "prediction": row} for row in rows]
    (root / "finetune" / "predictions-test.jsonl").write_text(
        "".join(json.dumps(answer) + "\n" for answer in [*rows, *answers]), encoding="ascii"
    )
    (root / "scores.json").write_text(json.dumps({"table": [scores, {"score": scores}]}), encoding="ascii")
    (root / "fill_mask.json").write_text(json.dumps(fills), encoding="ascii")
    (root / "corpus" / "manifest.json").write_text(json.dumps({"counts": {"a": scores, "b": {"c": fills}}}), "ascii")
    folder = read_run_folder(root)
    Page(render(folder))
    Page(render([folder, folder]))


def test_the_generator_speaks_the_format_the_loop_writes() -> None:
    """The made-up run is only worth something while it looks like metrics.jsonl, format 1."""
    assert {event["event"] for event in pretraining_events(100)} >= {"start", "step", "evaluation", "sample", "stop"}
    assert all(
        event["event"] in ("start", "step", "evaluation", "stop") for event in finetuning_events("tag", best=0.7)
    )
    assert len(tagged_rows(3, wrong=0.1)) == 3


def test_several_runs_share_charts_and_tables(tmp_path: Path) -> None:
    runs = [make_classify_run(tmp_path / name / "cola") for name in ("one", "other")]
    recipe = runs[1] / "recipe.toml"
    recipe.write_text(recipe.read_text(encoding="utf-8") + "[pretrain]\nseed = 7\n", encoding="utf-8")
    page = Page(write_report(runs, tmp_path / "both.html").read_text(encoding="utf-8"))
    assert page.headings.count("Fine-tuning") == 1
    for said in ("one/cola: BERT, fine-tuned", "other/cola: BERT, fine-tuned", "one/cola: validation", "pretrain.seed"):
        assert said in page.text
    assert "different tasks" not in page.text
    assert "cannot be ranked" not in page.text


def test_runs_of_different_tasks_get_no_common_table(tmp_path: Path) -> None:
    runs = [make_classify_run(tmp_path / "cola"), make_tag_run(tmp_path / "quickstart")]
    written = write_report(runs, tmp_path / "both.html").read_text(encoding="utf-8")
    page = Page(written)
    assert "of different tasks (classify: cola; pretrain: quickstart; tag: quickstart)" in page.text
    for table in re.findall(r"<table.*?</table>", written.split('<section id="scores">')[1], re.DOTALL):
        assert not ("cola" in table and "quickstart" in table and "score" in table)
    assert {"Fine-tuning: classify", "Fine-tuning: tag", "Pre-training"} <= set(page.headings)


def test_scores_of_other_rows_are_not_ranked(tmp_path: Path) -> None:
    runs = [make_classify_run(tmp_path / name) for name in ("a", "b")]
    scores = json.loads((runs[1] / "scores.json").read_text(encoding="utf-8"))
    (runs[1] / "scores.json").write_text(
        json.dumps(scores | {"table": [row | {"rows": 999} for row in scores["table"]]}), encoding="utf-8"
    )
    page = Page(write_report(runs, tmp_path / "both.html").read_text(encoding="utf-8"))
    assert "Not equally many rows in in_domain_dev, out_of_domain_dev" in page.text
    log = runs[1] / "finetune" / "metrics.jsonl"
    log.write_text(log.read_text(encoding="utf-8").replace('"validation_rows": 500', '"validation_rows": 400'))
    written = write_report(runs, tmp_path / "both.html").read_text(encoding="utf-8")
    assert "The runs have unequally many validation rows" in written
    assert 'class="n best"' not in written.split('<section id="scores">')[1]


def test_a_run_given_twice_and_too_many_runs_are_refused(tmp_path: Path) -> None:
    run = make_classify_run(tmp_path / "cola")
    with pytest.raises(UsageError, match="given twice"):
        write_report([run, run / ".." / "cola"])
    with pytest.raises(UsageError, match="at most 12"):
        write_report([tmp_path / str(i) for i in range(13)])


def test_samples_are_told_of_at_steps_that_grow_tenfold(tmp_path: Path) -> None:
    masked = [{"position": 1, "truth": "day", "predictions": [["day", 0.5]]}]
    samples = [
        {"event": "sample", "step": step, "text": "a [MASK]", "masked": masked} for step in range(50, 20_001, 50)
    ]
    write_events(tmp_path / "run" / "pretrain", [start_event("pretrain", None, 20_000, {}), *samples])
    written = write_report(tmp_path / "run").read_text(encoding="utf-8")
    steps = re.findall(r"<tr><td[^>]*>([\d,]+)</td>", written.split('class="guesses"')[1].split("</table>")[0])
    assert len(steps) == 8
    assert {"50", "100", "1,000", "10,000", "20,000"} <= set(steps)
