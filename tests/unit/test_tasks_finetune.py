"""Fine-tuning: learns, keeps best and last, records what a report needs, skips, resumes, starts again."""

import csv
import json
import os
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from safetensors.torch import load_file

from bertsmith.config import ModelConfig
from bertsmith.errors import Stopped, UsageError
from bertsmith.model.positions import sinusoids
from bertsmith.model.weights import read_card, read_config
from bertsmith.tasks.finetune import FinetuneResult, finetune
from bertsmith.training.loop import _Loop
from bertsmith.training.track import read_metrics
from finetune_case import CPU, quiet, recipe, spoken, tagged_rows, text_rows, write_tiny_model
from training_case import events

TRAIN, VALIDATION, TEST = text_rows(60, seed=1), text_rows(24, seed=2), text_rows(24, seed=3)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("base") / "model")


def run(folder: Path, base: Path, *, settings: dict[str, Any] | None = None, **arguments: Any) -> FinetuneResult:
    tables = {"train": TRAIN, "validation": VALIDATION, "test": {"test": TEST}}
    chosen: dict[str, Any] = {"model": base, "console": quiet(), "runtime": CPU} | tables | arguments
    return finetune(recipe(**settings or {}), folder, **chosen)


def weights(folder: Path) -> dict[str, list[float]]:
    return {name: tensor.tolist() for name, tensor in load_file(folder / "model.safetensors").items()}


def test_learns_and_leaves_a_run_behind(tmp_path: Path, base: Path):
    result = run(tmp_path / "run", base, settings={"epochs": 15, "baselines": ["majority", "linear"]})
    assert result.scores["test"]["accuracy"] > 0.9
    folder = result.run_dir
    left = {entry.name for entry in folder.iterdir()}
    assert left - {"mistakes-test.jsonl"} == {  # which is there where there are mistakes
        *("recipe.toml", "state.json", "metrics.jsonl", "checkpoints", "model", "last"),
        *("evaluations.csv", "followed.jsonl", "predictions-test.jsonl", "scores.json"),
    }
    assert read_config(folder / "model").labels == ("bad", "good")
    card = read_card(folder / "model")
    assert (card["task"], card["labels"], card["max_length"], card["metric"]) == (
        "classify",
        ["bad", "good"],
        16,
        "macro_f1",
    )
    assert card["step"] == result.best_step
    assert card["scores"]["test"] == result.scores["test"]
    assert read_card(folder / "last")["step"] == 120

    scores = json.loads((folder / "scores.json").read_text())
    assert [(row["name"], row["metric"]) for row in scores["table"] if row["metric"] == "accuracy"] == [
        ("majority", "accuracy"),
        ("linear", "accuracy"),
        (str(base), "accuracy"),
    ]
    assert all(row["low"] <= row["score"] <= row["high"] for row in scores["table"])
    records = [json.loads(line) for line in (folder / "predictions-test.jsonl").read_text().splitlines()]
    assert [(r["row"], r["line"], r["text"], r["label"]) for r in records] == [
        (number, number + 1, text, label) for number, (text, label) in enumerate(TEST)
    ]
    right = sum(record["label"] == record["prediction"] for record in records)
    assert right / len(records) == pytest.approx(result.scores["test"]["accuracy"])
    assert all(sum(record["probabilities"].values()) == pytest.approx(1, abs=1e-4) for record in records)


def test_events_and_table_say_what_a_report_needs(tmp_path: Path, base: Path):
    settings = {"max_length": 8, "evaluate_every": 5, "log_every_steps": 2, "metric": "accuracy"}
    result = run(tmp_path / "run", base, settings=settings)
    events = list(read_metrics(tmp_path / "run" / "metrics.jsonl"))
    start = events[0]
    assert (start["kind"], start["task"], start["run"]) == ("finetune", "classify", "tiny")
    assert start["data"]["train_rows"] == 60
    assert start["data"]["validation_rows"] == start["data"]["test_rows"] == 24
    assert sum(start["data"]["label_counts"].values()) == 60
    assert start["plan"]["steps"] == 16, "two epochs of ceil(60 / 8) batches"
    steps = [event for event in events if event["event"] == "step"]
    assert all(event["losses"].keys() == {"classify"} for event in steps)
    assert max(event["truncation_share"] for event in steps) > 0
    assert all(0 <= event["padding_share"] < 1 for event in steps)
    evaluations = [event for event in events if event["event"] == "evaluation"]
    assert [event["step"] for event in evaluations] == [5, 10, 15, 16]
    for event in evaluations:
        assert sum(event["predictions_per_class"].values()) == 24
        losses = [example["loss"] for example in event["hardest"]]
        assert len(losses) == 10
        assert losses == sorted(losses, reverse=True)
        assert set(event["hardest"][0]) == {"text", "label", "prediction", "loss"}
    assert [row.step for row in result.table] == [5, 10, 15, 16]
    assert result.best_step == max(result.table, key=lambda row: (row.score, -row.step)).step
    with (tmp_path / "run" / "evaluations.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["step"] for line in lines] == ["5", "10", "15", "16", "total"]
    assert all(line["elapsed_time"].count(":") == 2 for line in lines)
    assert float(lines[-1]["score"]) == max(row.score for row in result.table)


def test_says_what_was_cut_and_what_it_came_to(tmp_path: Path, base: Path):
    console = quiet()
    run(tmp_path / "run", base, settings={"max_length": 8}, console=console)
    said = spoken(console)
    assert "train rows at max_length = 8 tokens" in said
    assert "best at step" in said


def test_tables_may_be_frames_arrow_or_dicts(tmp_path: Path, base: Path):
    frame = pd.DataFrame(TRAIN, columns=["text", "label"])
    tables = {"frame": frame, "arrow": pa.Table.from_pandas(frame), "dicts": frame.to_dict("records")}
    results = [run(tmp_path / name, base, train=table) for name, table in tables.items()]
    assert weights(results[0].run_dir / "last") == weights(results[1].run_dir / "last")
    assert weights(results[0].run_dir / "last") == weights(results[2].run_dir / "last")


def test_a_share_of_the_rows_validates_where_no_validation_is_given(tmp_path: Path, base: Path):
    result = run(tmp_path / "run", base, validation=None, test={})
    start = next(read_metrics(tmp_path / "run" / "metrics.jsonl"))
    assert (start["data"]["train_rows"], start["data"]["validation_rows"]) == (54, 6)
    assert result.scores.keys() == {"validation"}


def test_max_train_rows_leaves_validation_alone(tmp_path: Path, base: Path):
    run(tmp_path / "run", base, validation=None, settings={"max_train_rows": 10})
    start = next(read_metrics(tmp_path / "run" / "metrics.jsonl"))
    assert (start["data"]["train_rows"], start["data"]["validation_rows"]) == (10, 6)


def test_tagging_learns(tmp_path: Path, base: Path):
    result = run(
        tmp_path / "run",
        base,
        settings={"task": "tag", "epochs": 8, "baselines": ["dictionary"]},
        train=tagged_rows(60, seed=1),
        validation=tagged_rows(20, seed=2),
        test={"test": tagged_rows(20, seed=3)},
    )
    assert result.scores["test"]["f1"] > 0.9
    record = json.loads((tmp_path / "run" / "predictions-test.jsonl").read_text().splitlines()[0])
    assert set(record) == {"row", "line", "words", "labels", "predictions", "confidence"}
    assert len(record["words"]) == len(record["predictions"]) == len(record["confidence"])
    assert {row.name for row in result.score_table} == {"dictionary", str(base)}


def test_a_finished_run_is_not_trained_again(tmp_path: Path, base: Path):
    first = run(tmp_path / "run", base)
    changed = (tmp_path / "run" / "model" / "model.safetensors").stat().st_mtime_ns
    console = quiet()
    again = run(tmp_path / "run", base, console=console)
    assert again == first
    assert "done before" in spoken(console)
    assert (tmp_path / "run" / "model" / "model.safetensors").stat().st_mtime_ns == changed
    renamed = run(tmp_path / "run", base, name="another name")
    assert renamed.scores == first.scores
    assert {row.name for row in renamed.score_table} == {"another name"}


def test_another_test_table_or_baseline_is_scored_without_training(tmp_path: Path, base: Path):
    first = run(tmp_path / "run", base)
    changed = (tmp_path / "run" / "model" / "model.safetensors").stat().st_mtime_ns
    tests = {"other": text_rows(16, seed=9)}
    again = run(tmp_path / "run", base, settings={"baselines": ["majority"]}, test=tests)
    assert again.scores.keys() == {"other"}
    assert "majority" in {row.name for row in again.score_table}
    assert not (tmp_path / "run" / "predictions-test.jsonl").exists()
    assert again.best_step == first.best_step
    assert (tmp_path / "run" / "model" / "model.safetensors").stat().st_mtime_ns == changed


@pytest.mark.parametrize("change", [{"learning_rate": 0.02}, {"seed": 7}, {"max_length": 12}])
def test_a_changed_recipe_starts_again(tmp_path: Path, base: Path, change: dict[str, Any]):
    run(tmp_path / "run", base)
    console = quiet()
    run(tmp_path / "run", base, settings=change, console=console)
    assert "starting again" in spoken(console)
    run(tmp_path / "fresh", base, settings=change)
    assert weights(tmp_path / "run" / "last") == weights(tmp_path / "fresh" / "last")


def test_a_folder_with_somebody_elses_files_is_left_alone(tmp_path: Path, base: Path):
    write_tiny_model(tmp_path / "run" / "model")
    with pytest.raises(UsageError, match="holds model, but is no fine-tuning's folder"):
        run(tmp_path / "run", base)
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()


@pytest.mark.parametrize("stop_at", [3, 8, 11])
def test_stopped_and_resumed_equals_never_stopped(tmp_path: Path, base: Path, stop_at: int):
    settings = {"evaluate_every": 1, "micro_batch_size": 3}
    straight = run(tmp_path / "straight", base, settings=settings)

    def interrupt(step: int, _: object) -> None:
        if step == stop_at:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped):
        run(tmp_path / "stopped", base, settings=settings, on_evaluation=interrupt)
    assert not (tmp_path / "stopped" / "scores.json").exists()
    resumed = run(tmp_path / "stopped", base, settings=settings)
    for name in ("model", "last"):
        assert weights(tmp_path / "stopped" / name) == weights(tmp_path / "straight" / name)
    assert resumed.scores == straight.scores
    assert resumed.best_step == straight.best_step
    losses = [(row.step, row.training_loss, row.validation_loss, row.score, row.best) for row in straight.table]
    assert [(r.step, r.training_loss, r.validation_loss, r.score, r.best) for r in resumed.table] == losses


@pytest.mark.parametrize("stop_at", [1, 2])
def test_rows_that_wait_are_resumed_too(tmp_path: Path, base: Path, stop_at: int):
    """Stopped between evaluations, so that rows wait at the checkpoint; and the scores are those of plain AdamW."""
    rows = text_rows(80, seed=2)
    settings = {"evaluate_every": 7, "lazy_embeddings": "on", "batch_size": 4, "epochs": 1, "weight_decay": 0.1}

    def learn(folder: str, **changes: Any) -> Any:
        config = recipe(**settings | changes)
        return finetune(config, tmp_path / folder, model=base, train=rows, console=quiet(), runtime=CPU)

    straight, plain = learn("straight"), learn("plain", lazy_embeddings="off")
    evaluations = 0

    def stopping(self: Any) -> bool:
        nonlocal evaluations
        if self.state.step == 7 * stop_at + 2 and not evaluations:
            evaluations += 1
            os.kill(os.getpid(), signal.SIGINT)
        return update(self)

    update = _Loop._update
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Loop, "_update", stopping)
        with pytest.raises(Stopped):
            learn("stopped")
    learn("stopped")
    for name in ("model", "last"):
        assert weights(tmp_path / "stopped" / name) == weights(tmp_path / "straight" / name)
    for one, other in zip(straight.table, plain.table, strict=True):
        assert one.validation_loss == pytest.approx(other.validation_loss, abs=1e-4)
    assert straight.table[-1].validation_loss != plain.table[-1].validation_loss or straight.scores == plain.scores


def test_what_hinders_waiting_rows_is_said(tmp_path: Path, base: Path):
    config = recipe(lazy_embeddings="on", optimizer="sgd")
    with pytest.raises(UsageError, match="lazy_embeddings = 'on' cannot be: the optimizer is not plain AdamW"):
        finetune(config, tmp_path / "run", model=base, train=text_rows(20), console=quiet(), runtime=CPU)


def test_random_weights_take_the_shape_alone(tmp_path: Path, base: Path):
    pretrained = run(tmp_path / "pretrained", base, settings={"learning_rate": 1e-9})
    random = run(tmp_path / "random", base, settings={"learning_rate": 1e-9}, random_weights=True)
    name = "bert.embeddings.word_embeddings.weight"
    original = load_file(base / "model.safetensors")[name]
    assert load_file(pretrained.run_dir / "last" / "model.safetensors")[name].allclose(original, atol=1e-6)
    fresh = load_file(random.run_dir / "last" / "model.safetensors")[name]
    assert fresh.shape == original.shape
    assert not fresh.allclose(original, atol=0.1)
    assert {row.name for row in random.score_table} == {"random weights"}


def test_random_weights_begin_as_the_recipe_would_have_pre_trained(tmp_path: Path, base: Path):
    settings = {"learning_rate": 1e-9, "dropout": 0.25}
    wanted = recipe(**settings)
    wanted = wanted.model_copy(update={"model": ModelConfig(position_init="sinusoids")})
    for name, random_weights in (("random", True), ("pretrained", False)):
        tables = {"train": TRAIN, "validation": VALIDATION}
        out = tmp_path / name
        finetune(wanted, out, model=base, random_weights=random_weights, console=quiet(), runtime=CPU, **tables)
        config = read_config(out / "model")
        assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.25, 0.25)
        table = load_file(out / "last" / "model.safetensors")["bert.embeddings.position_embeddings.weight"]
        waves = 2 * config.initializer_range * sinusoids(*table.shape)
        assert table.allclose(waves, atol=1e-6) == random_weights


def test_a_head_is_kept_only_for_the_same_labels(tmp_path: Path, base: Path):
    """A head trained for (bad, good) would be wrong for two other names, though its shape fits."""
    first = run(tmp_path / "first", base, settings={"epochs": 15}).run_dir / "model"
    gentle = {"learning_rate": 1e-9, "epochs": 1}
    same = run(tmp_path / "same", first, settings=gentle)
    assert same.scores["test"]["accuracy"] > 0.9
    swapped = {"good": "a", "bad": "b"}
    tables = {
        name: [(text, swapped[label]) for text, label in rows]
        for name, rows in (("train", TRAIN), ("validation", VALIDATION))
    }
    other = run(tmp_path / "other", first, settings=gentle, test={}, **tables)
    old, new = (load_file(d / "model.safetensors")["classifier.weight"] for d in (first, other.run_dir / "last"))
    assert not old.allclose(new, atol=1e-3)


def test_runs_start_from_run_folders(tmp_path: Path, base: Path):
    run(tmp_path / "first", base)
    for name in ("first", "first/best", "first/last"):
        assert run(tmp_path / f"from-{name.replace('/', '-')}", tmp_path / name).scores


def test_labels_may_be_numbers_into_a_file_of_names(tmp_path: Path, base: Path):
    """As THUCNews has it; a name that no row has is still a label, so that the numbers stay those of the file."""
    (tmp_path / "class.txt").write_text("good\nneither\nbad\n", encoding="utf-8")
    number = {"good": "0", "bad": "2"}
    for name, rows in (("train", TRAIN), ("test", TEST)):
        lines = "".join(f"{text}\t{number[label]}\n" for text, label in rows)
        (tmp_path / f"{name}.txt").write_text(lines, encoding="utf-8")
    settings = {
        "train": str(tmp_path / "train.txt"),
        "test": {"test": str(tmp_path / "test.txt")},
        "label_names": str(tmp_path / "class.txt"),
        "header": False,
        "text_column": 0,
        "label_column": 1,
        "epochs": 1,
    }
    result = run(tmp_path / "run", base, settings=settings, train=None, validation=None, test=None)
    assert read_config(result.run_dir / "model").labels == ("good", "neither", "bad")
    records = [json.loads(line) for line in (tmp_path / "run" / "predictions-test.jsonl").read_text().splitlines()]
    assert [record["label"] for record in records] == [label for _, label in TEST]


def test_an_automatic_batch_leaves_a_small_table_enough_updates(tmp_path: Path, base: Path):
    console = quiet()
    settings = {"batch_size": "auto", "micro_batch_size": "auto", "epochs": 2}
    result = run(tmp_path / "auto", base, settings=settings, console=console)
    decided = {event["name"]: event for event in events(tmp_path / "auto", "decision")}
    assert decided["batch_size"]["value"] == 4
    assert "should make about 500 updates or more" in decided["batch_size"]["because"]
    micro = decided["micro_batch_size"]["value"]
    assert 1 <= micro <= 4
    assert "batch      4: " in spoken(console)
    given = run(tmp_path / "given", base, settings={"batch_size": 4, "micro_batch_size": micro, "epochs": 2})
    assert given.scores == result.scores
    assert weights(tmp_path / "given" / "last") == weights(tmp_path / "auto" / "last")
    rows = events(tmp_path / "auto", "start")[0]["plan"]["examples"]
    assert result.table[-1].step == 2 * -(-rows // 4)


def test_rows_that_are_in_training_and_test_are_counted(base: Path, tmp_path: Path) -> None:
    rows = text_rows(60, seed=1)
    console = quiet()
    finetune(
        recipe(epochs=1),
        tmp_path / "run",
        model=base,
        train=rows,
        validation=text_rows(10, seed=9),
        test={"held_out": [*rows[:7], ("something else", "good")]},
        console=console,
        runtime=CPU,
    )
    said = spoken(console)
    assert "7 of the held_out rows are training rows too: their scores say little" in said


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"baselines": ["dictionary"]}, "baselines has 'dictionary'; task 'classify' has: majority, linear, random-we"),
        ({"head_activation": "tanh"}, "head_activation follows hidden layers, and the model has none; set head_layers"),
    ],
)
def test_settings_that_would_change_nothing_are_refused(
    base: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        run(tmp_path / "run", base, settings=settings)
    assert not (tmp_path / "run").exists()
