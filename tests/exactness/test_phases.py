"""Promise 5 over the phases of a run: from any checkpoint of any phase the rest is the same, bit for bit."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bertsmith.config import ExamplesConfig, Recipe, parse_recipe
from bertsmith.corpus.build import corpus_parts
from bertsmith.examples.shards import beside, build_examples
from bertsmith.tasks.labelled import LabelledRows
from bertsmith.tasks.predict import Predictor
from bertsmith.tokenizer.encode import Tokenizer
from bertsmith.training.phases import phases_of
from bertsmith.training.plan import Due
from bertsmith.training.track import read_metrics
from pretrain_case import Made, make_examples, run
from training_case import CPU

PHASES = [
    {"name": "pairs", "objectives": ["nsp"], "max_steps": 4},
    {
        "name": "words",
        "objectives": ["mlm"],
        "max_steps": 5,
        "max_length": 48,
        "batch_size": 4,
        "mask_share": [0.4, 0.15],
    },
    {"name": "both", "max_steps": 3, "objectives": ["mlm", "nsp", "agreement", "smoothness"], "learning_rate": 1e-3},
]
_CLOCK = {"elapsed_seconds", "seconds", "time", "tokens_per_second", "loader_wait_seconds", "memory_bytes"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    made = make_examples(tmp_path_factory.mktemp("made"))
    corpus = made.examples.parent / "corpus"
    assert corpus_parts(corpus)
    build_examples(
        ExamplesConfig(max_length=48), corpus, made.tokenizer, beside(made.examples, 48), seed=1, environment={}
    )
    return made


def _recipe(made: Made, **changes: Any) -> Recipe:
    model = {"preset": "tiny", "overrides": {**made.raw["model"]["overrides"], "max_position_embeddings": 48}}
    pretraining = {
        **made.raw["pretrain"],
        "phases": PHASES,
        "weights": {},
        "log_every_steps": 2,
        "keep_checkpoints": 99,
        "checkpoint_every_seconds": 1e-9,
        **changes,
    }
    return parse_recipe({**made.raw, "model": model, "pretrain": pretraining})


def _log(directory: Path) -> list[dict[str, Any]]:
    kept = [event for event in read_metrics(directory / "metrics.jsonl") if event["event"] != "start"]
    return [{name: value for name, value in event.items() if name not in _CLOCK} for event in kept]


def test_a_run_of_phases_from_each_of_its_checkpoints(made: Made, tmp_path: Path) -> None:
    straight = tmp_path / "straight"
    result, printed = run(made, straight, _recipe(made))
    assert result.steps == 12
    assert [line for line in printed.splitlines() if line.startswith("phase")] == [
        f"phase      {number} of 3: {name}" for number, name in enumerate(("pairs", "words", "both"), 1)
    ]
    steps = sorted(int(path.name.removeprefix("step-")) for path in (straight / "checkpoints").iterdir())
    assert steps == list(range(1, 13))
    weights, log = (result.model / "model.safetensors").read_bytes(), _log(straight)
    for step in steps:
        directory = tmp_path / f"from-{step}"
        shutil.copytree(straight, directory, ignore=shutil.ignore_patterns("model"))
        for later in range(step + 1, 13):
            shutil.rmtree(directory / "checkpoints" / f"step-{later:08d}")
        again, printed = run(made, directory, _recipe(made))
        assert f"resumed    from step {step}" in printed
        assert (again.model / "model.safetensors").read_bytes() == weights, f"weights differ from step {step} on"
        assert _log(directory) == log, f"logs differ from step {step} on"


def test_each_phase_learns_what_it_says(made: Made, tmp_path: Path) -> None:
    run(made, tmp_path, _recipe(made))
    log = _log(tmp_path)
    losses = {event["step"]: set(event["losses"]) for event in log if event["event"] == "step"}
    assert losses[2] == losses[4] == {"nsp"}
    assert losses[6] == losses[9] == {"mlm"}
    assert losses[12] == {"mlm", "nsp", "agreement", "smoothness"}
    phases = [event for event in log if event["event"] == "phase"]
    assert [(event["step"], event["plan"]["first_step"], event["plan"]["steps"]) for event in phases] == [
        (0, 0, 4),
        (4, 4, 9),
        (9, 9, 12),
    ]


def _due(progress: float) -> Due:
    """The first update of a phase, as it would be at some progress."""
    return Due(0, progress, batch_size=8, micro_batch_size=4, first_position=0, number=0)


def test_no_phase_repeats_the_examples_of_another(made: Made) -> None:
    config = _recipe(made, phases=[{"max_steps": 4}, {"max_steps": 4}]).pretrain
    assert config is not None
    phases = phases_of(config, made.examples, tokenizer=Tokenizer.load(made.tokenizer), seed=7)
    first, second = (phase.batches(phase.data("train", static_shapes=False), _due(0.0))[0] for phase in phases)
    assert set(first.example_ids) != set(second.example_ids)


def test_masks_become_fewer_over_a_phase(made: Made) -> None:
    config = _recipe(made, phases=[{"max_steps": 4, "objectives": ["mlm"], "mask_share": [0.5, 0.1]}]).pretrain
    assert config is not None
    (phase,) = phases_of(config, made.examples, tokenizer=Tokenizer.load(made.tokenizer), seed=7)
    for static_shapes in (False, True):
        data = phase.data("train", static_shapes=static_shapes)
        early, late = (phase.batches(data, _due(progress)) for progress in (0.0, 1.0))
        shares = [sum(b.counts["mlm"] for b in part) / sum(b.num_tokens for b in part) for part in (early, late)]
        assert 0.4 < shares[0] < 0.5
        assert 0.05 < shares[1] < 0.15
        same_shape = early[0].masked_positions.shape == late[0].masked_positions.shape
        assert same_shape == static_shapes
    evaluation = next(iter(data.evaluation_batches(32, 32)))
    assert evaluation.counts["mlm"] / evaluation.num_tokens < 0.16


def test_weights_of_objectives_count_in_the_gradient(made: Made, tmp_path: Path) -> None:
    """A loss of weight w has w times the gradient: here by the first update of plain sums."""
    losses = {}
    for weight in (1.0, 3.0):
        recipe = _recipe(made, phases=[], max_steps=1, objectives=["mlm", "nsp"], weights={"nsp": weight})
        run(made, tmp_path / str(weight), recipe)
        (event,) = [event for event in _log(tmp_path / str(weight)) if event["event"] == "step"]
        losses[weight] = event
    one, three = losses[1.0], losses[3.0]
    assert one["losses"] == three["losses"]
    assert one["loss"] == pytest.approx(one["losses"]["mlm"] + one["losses"]["nsp"])
    assert three["loss"] == pytest.approx(three["losses"]["mlm"] + 3 * three["losses"]["nsp"])
    assert three["gradient_norm"] != one["gradient_norm"]
    assert torch.isfinite(torch.tensor(three["gradient_norm"]))


def _labelled(made: Made, folder: Path) -> tuple[Recipe, LabelledRows]:
    """Words first, then labels beside words, then labels alone."""
    rows = [f"The {noun} sees the {other} today.\t{noun}" for noun in ("cat", "dog") for other in ("bird", "horse")]
    (folder / "rows.tsv").write_text("text\tlabel\n" + "\n".join(rows * 10) + "\n", encoding="utf-8")
    phases = [
        {"objectives": ["mlm"], "max_steps": 3},
        {"objectives": ["mlm", "label"], "max_steps": 3, "weights": {"label": 0.5}},
        {"objectives": ["label"], "max_steps": 40, "learning_rate": 2e-2},
    ]
    table = {"train": str(folder / "rows.tsv"), "batch_size": 8, "max_length": 32}
    recipe = _recipe(made, phases=phases, labelled=table)
    assert recipe.pretrain is not None
    assert recipe.pretrain.labelled is not None
    return recipe, LabelledRows(recipe.pretrain.labelled, Tokenizer.load(made.tokenizer), 42, CPU)


def test_labelled_rows_as_an_objective_beside_words_and_alone(made: Made, tmp_path: Path) -> None:
    recipe, labelled = _labelled(made, tmp_path)
    result, _ = run(made, tmp_path / "run", recipe, labelled=labelled)
    losses = {event["step"]: set(event["losses"]) for event in _log(tmp_path / "run") if event["event"] == "step"}
    assert (losses[2], losses[6], losses[46]) == ({"mlm"}, {"mlm", "label"}, {"label"})
    assert result.scores["label_accuracy"] == 1.0, "the first noun gives the label away"
    predictor = Predictor.load(tmp_path / "run" / "classifier", runtime=CPU)
    answers = predictor.predict(["The cat sees the bird today.", "The dog sees the bird today."])
    assert [answer.label for answer in answers] == ["cat", "dog"]
    own = load_file(tmp_path / "run" / "classifier" / "model.safetensors")
    language = load_file(result.model / "model.safetensors")
    shared = own.keys() & language.keys()
    assert any("encoder.layer.0" in name for name in shared)
    assert all(torch.equal(own[name], language[name]) for name in shared)
    directory = tmp_path / "again"
    shutil.copytree(tmp_path / "run", directory, ignore=shutil.ignore_patterns("model", "classifier"))
    for later in range(6, 47):
        shutil.rmtree(directory / "checkpoints" / f"step-{later:08d}")
    again, _ = run(made, directory, recipe, labelled=labelled)
    for name in ("model", "classifier"):
        paths = (folder / name / "model.safetensors" for folder in (tmp_path / "run", directory))
        assert len({path.read_bytes() for path in paths}) == 1
    assert again.scores == result.scores
