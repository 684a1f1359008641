"""Calibration: figures by hand, temperatures that are known, and what a calibrated model says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from bertsmith.errors import CheckpointError, RecipeError
from bertsmith.model.weights import read_card, write_card
from bertsmith.tasks.calibration import COLDEST, HOTTEST, Decisions, calibration, fit_temperature
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.losses import ANY_OF_LABELS, ONE_OF_CLASSES, ONE_OF_ITEMS, Outputs
from bertsmith.tasks.predict import Predictor
from finetune_case import (
    CPU,
    choice_rows,
    multilabel_rows,
    question_rows,
    quiet,
    recipe,
    spoken,
    tagged_rows,
    text_rows,
    write_tiny_model,
)


def decided(confidence: list[float], right: list[bool]) -> Decisions:
    return Decisions(np.array(confidence), np.array(right, dtype=bool))


def test_figures_by_hand() -> None:
    found = calibration(decided([0.55, 0.56, 0.95, 0.99, 0.98], [True, False, True, True, False]))
    # bins (8/15, 9/15] and (14/15, 1]
    expected = 2 / 5 * abs(1 / 2 - 0.555) + 3 / 5 * abs(2 / 3 - (0.95 + 0.99 + 0.98) / 3)
    assert found.ece == pytest.approx(expected)
    assert found.brier == pytest.approx((0.45**2 + 0.56**2 + 0.05**2 + 0.01**2 + 0.98**2) / 5)
    assert [(one.low, one.high, one.count) for one in found.bins if one.count] == [(0.5333, 0.6, 2), (0.9333, 1.0, 3)]
    assert found.bins[8].accuracy == 0.5
    assert found.decisions == 5
    assert len(found.bins) == 15


def test_the_edges_of_bins_and_no_decisions() -> None:
    assert [one.count for one in calibration(decided([0.0, 1.0, 1 / 15], [True, True, False])).bins] == [
        2,
        *[0] * 13,
        1,
    ]
    nothing = calibration(decided([], []))
    assert (nothing.ece, nothing.brier, nothing.decisions) == (0, 0, 0)


def drawn(seed: int, rows: int = 4000, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Outputs that are calibrated as they are: the classes are drawn from their probabilities."""
    draw = np.random.default_rng(seed)
    outputs = draw.normal(0, 2, (rows, classes))
    shares = softmax(outputs, axis=1)
    return outputs, np.array([draw.choice(classes, p=share) for share in shares])


def classes_loss(outputs: np.ndarray, targets: np.ndarray, temperature: float) -> float:
    return float(-log_softmax(outputs / temperature, axis=1)[np.arange(len(targets)), targets].mean())


def test_a_known_temperature_is_found() -> None:
    """Outputs times 3 are mended by a temperature 3 times as large, to 1 where they were right before."""
    outputs, targets = drawn(1)
    plain = fit_temperature(lambda t: classes_loss(outputs, targets, t))
    tripled = fit_temperature(lambda t: classes_loss(3 * outputs, targets, t))
    assert plain == pytest.approx(1, abs=0.05)
    assert tripled == pytest.approx(3 * plain, rel=1e-4)
    before, after = (
        calibration(Decisions(softmax(scaled, axis=1).max(1), scaled.argmax(1) == targets))
        for scaled in (3 * outputs, 3 * outputs / tripled)
    )
    assert before.ece > 0.08
    assert after.ece < 0.03
    assert after.brier < before.brier


@settings(max_examples=30)
@given(seed=st.integers(0, 200), scale=st.floats(0.05, 20), kind=st.sampled_from(["one", "any", "items"]))
def test_the_loss_is_never_worse_and_there_is_no_better_temperature(seed: int, scale: float, kind: str) -> None:
    draw = np.random.default_rng(seed)
    raw = torch.from_numpy(draw.normal(0, scale, (30, 3)))
    groups = torch.arange(30) // 3
    cases: dict[str, tuple[Outputs, torch.Tensor, torch.Tensor | None]] = {
        "one": (ONE_OF_CLASSES, torch.from_numpy(draw.integers(0, 3, 30)), None),
        "any": (ANY_OF_LABELS, torch.from_numpy(draw.integers(0, 2, (30, 3))), None),
        "items": (ONE_OF_ITEMS, torch.from_numpy(draw.integers(0, 3, (10, 3))), groups),
    }
    outputs, targets, of = cases[kind]

    def loss(temperature: float) -> float:
        return float(outputs.losses(raw / temperature, targets, of).mean())

    found = fit_temperature(loss)
    assert loss(found) <= loss(1.0)
    tried = [loss(temperature) for temperature in np.geomspace(COLDEST, HOTTEST, 100)]
    assert loss(found) <= min(tried) * (1 + 1e-5)


TABLES: dict[str, tuple[list[Any], list[Any]]] = {
    "classify": (text_rows(60, seed=1), text_rows(40, seed=2)),
    "multilabel": (multilabel_rows(60, seed=1), multilabel_rows(40, seed=2)),
    "choose": (choice_rows(60, seed=1), choice_rows(40, seed=2)),
    "tag": (tagged_rows(40, seed=1), tagged_rows(20, seed=2)),
    "answer": (question_rows(40, seed=1), question_rows(20, seed=2)),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize("task", list(TABLES))
def test_a_calibrated_model_answers_the_same_with_other_probabilities(base: Path, tmp_path: Path, task: str) -> None:
    """Kept in its card, without training again; said before and after in scores.json."""
    train, test = TABLES[task]
    tables = {"model": base, "train": train, "validation": test, "test": {"new": test}, "runtime": CPU}
    keys: dict[str, Any] = {"task": task, "epochs": 1, "learning_rate": 0.02}
    plain = finetune(recipe(**keys), tmp_path, console=quiet(), **tables)
    uncalibrated = Predictor.load(plain.run_dir, runtime=CPU)
    file = tmp_path / "predictions-new.jsonl"
    before = [json.loads(line) for line in file.read_text().splitlines()]
    said = json.loads((tmp_path / "scores.json").read_text())["calibration"]
    assert (uncalibrated.temperature, said["kept"]) == (1.0, False)
    weights = (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns

    console = quiet()
    kept = finetune(recipe(**keys, calibrate=True), tmp_path, console=console, **tables)
    assert (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns == weights
    calibrated = Predictor.load(kept.run_dir, runtime=CPU)
    assert calibrated.temperature == said["temperature"] != 1.0
    assert f", at temperature {said['temperature']:.3g}" in spoken(console)
    assert said["validation_loss"]["after"] < said["validation_loss"]["before"]
    after = [json.loads(line) for line in file.read_text().splitlines()]
    for key in ("prediction", "predictions"):
        assert [row.get(key) for row in after] == [row.get(key) for row in before]
    assert after != before, "probabilities"
    of_split = said["splits"]["new"]
    assert of_split["after"]["loss"] < of_split["before"]["loss"], "the same rows here"
    decisions = calibrated.task.decisions(*_read(file, calibrated))
    assert decisions is not None
    assert calibration(decisions).ece == pytest.approx(of_split["after"]["ece"], abs=1e-4)
    assert kept.scores["new"] == pytest.approx(plain.scores["new"])


def _read(file: Path, predictor: Predictor) -> tuple[list[Any], list[Any]]:
    pairs = [predictor.task.of_record(json.loads(line)) for line in file.read_text().splitlines()]
    return [row for row, _ in pairs], [answer for _, answer in pairs]


def test_numbers_have_no_calibration(base: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="takes no calibrate; that is of classify"):
        recipe(task="regress", calibrate=True)
    rated = [(text, float(len(text))) for text, _ in text_rows(30, seed=1)]
    finetune(recipe(task="regress", epochs=1), tmp_path, model=base, train=rated, console=quiet(), runtime=CPU)
    assert "calibration" not in json.loads((tmp_path / "scores.json").read_text())


@pytest.mark.parametrize("wrong", [0, -1, "warm", float("nan")])
def test_a_card_with_no_temperature_is_refused(base: Path, tmp_path: Path, wrong: object) -> None:
    tables = {"model": base, "train": text_rows(20, seed=1), "console": quiet(), "runtime": CPU}
    model = finetune(recipe(epochs=1), tmp_path, **tables).run_dir / "model"
    write_card(model, read_card(model) | {"temperature": wrong})
    with pytest.raises(CheckpointError, match=r"bertsmith\.json is not as bertsmith writes it: .*"):
        Predictor.load(model, runtime=CPU)
