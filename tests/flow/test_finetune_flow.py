"""From a recipe file to scores: every file that it names, and the model that it leaves, used as a person would."""

import json
from pathlib import Path

import pytest

from bertsmith.config import load_recipe
from bertsmith.tasks.base import Columns
from bertsmith.tasks.evaluate import evaluate
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.predict import predict
from finetune_case import CPU, quiet, tagged_rows, text_rows, write_conll, write_tiny_model, write_tsv

RECIPE = """
name = "flow"
seed = 3

[finetune]
task = "{task}"
model = "{folder}/base"
train = "{folder}/train.{ending}"
validation_share = 0.2
test = {{ near = "{folder}/near.{ending}", far = "{folder}/far.{ending}" }}
max_length = 16
epochs = 3
batch_size = 8
learning_rate = 0.01
metric = "accuracy"
baselines = {baselines}
"""

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize(("task", "ending"), [("classify", "tsv"), ("tag", "conll")])
def test_from_a_recipe_file_to_scores(tmp_path: Path, task: str, ending: str):
    write_tiny_model(tmp_path / "base")
    for seed, name in enumerate(("train", "near", "far")):
        file = tmp_path / f"{name}.{ending}"
        count = 80 if name == "train" else 20
        if task == "classify":
            write_tsv(file, text_rows(count, seed=seed))
        else:
            write_conll(file, tagged_rows(count, seed=seed))
    path = tmp_path / "flow.toml"
    recipe = RECIPE.format(task=task, folder=tmp_path, ending=ending, baselines=["majority"])
    path.write_text(recipe, encoding="utf-8")

    result = finetune(load_recipe(path, ["finetune.epochs=4"]), tmp_path / "run", console=quiet(), runtime=CPU)
    assert result.scores.keys() == {"near", "far"}
    assert len(result.table) == 4
    for split, scores in result.scores.items():
        again = evaluate(tmp_path / "run", tmp_path / f"{split}.{ending}", runtime=CPU)
        assert again.scores == pytest.approx(scores)
        assert again.metric == "accuracy"
        written = [
            json.loads(line) for line in (tmp_path / "run" / f"predictions-{split}.jsonl").read_text().splitlines()
        ]
        predicted = json.loads(json.dumps(list(predict(tmp_path / "run", tmp_path / f"{split}.{ending}", runtime=CPU))))
        key = "prediction" if task == "classify" else "predictions"
        assert [record[key] for record in predicted] == [record[key] for record in written]
    last = evaluate(tmp_path / "run" / "last", tmp_path / f"near.{ending}", runtime=CPU)
    assert 0 <= last.scores["accuracy"] <= 1
    resolved = load_recipe(tmp_path / "run" / "recipe.toml")
    assert resolved.finetune is not None
    assert resolved.finetune.epochs == 4


@pytest.mark.parametrize("task", ["next-sentence", "masked-word", "language-model"])
def test_from_plain_text_to_scores(tmp_path: Path, task: str):
    """A sentence a line, a blank line between documents."""
    write_tiny_model(tmp_path / "base")
    for seed, name in enumerate(("train", "near", "far")):
        texts = [text for text, _ in text_rows(60, seed=seed)]
        documents = ["\n".join(texts[start : start + 6]) for start in range(0, len(texts), 6)]
        (tmp_path / f"{name}.txt").write_text("\n\n".join(documents), encoding="utf-8")
    path = tmp_path / "flow.toml"
    baselines = ["majority"] if task == "next-sentence" else []
    path.write_text(RECIPE.format(task=task, folder=tmp_path, ending="txt", baselines=baselines), encoding="utf-8")

    result = finetune(load_recipe(path), tmp_path / "run", console=quiet(), runtime=CPU)
    assert result.scores.keys() == {"near", "far"}
    for split, scores in result.scores.items():
        assert scores == pytest.approx(evaluate(tmp_path / "run", tmp_path / f"{split}.txt", runtime=CPU).scores)
        written = (tmp_path / "run" / f"predictions-{split}.jsonl").read_text().splitlines()
        assert len(written) == (50 if task == "next-sentence" else 60)
    names = {row.name for row in result.score_table}
    assert ("majority" in names) == (task == "next-sentence")


@pytest.mark.data
def test_cola_as_it_is(tmp_path: Path, minilm_dir: Path, shared_data: Path):
    """The public files, no header, columns by number, the real checkpoint: a few steps."""
    path = tmp_path / "cola.toml"
    path.write_text(
        f"""
name = "cola"
[finetune]
model = "{minilm_dir}"
train = "{shared_data}/cola/in_domain_train.tsv"
test = {{ in_domain = "{shared_data}/cola/in_domain_dev.tsv" }}
header = false
text_column = 3
label_column = 1
max_length = 64
metric = "matthews"
epochs = 1
max_train_rows = 64
validation_share = 0.01
learning_rate = 1e-4
""",
        encoding="utf-8",
    )
    result = finetune(load_recipe(path), tmp_path / "run", console=quiet(), runtime=CPU)
    assert result.scores["in_domain"].keys() >= {"matthews", "accuracy", "macro_f1"}
    assert result.score_table[0].rows == 527
    (record,) = predict(tmp_path / "run", ["They drank the pub dry."], columns=Columns(), runtime=CPU)
    assert record["prediction"] in ("0", "1")


@pytest.mark.data
def test_sick_pairs_as_they_are(tmp_path: Path, minilm_dir: Path, shared_data: Path):
    """recipes/sick.toml on the public files, with the real checkpoint: a few steps."""
    settings = ["max_train_rows=64", "epochs=1", "baselines=[]", f"model={minilm_dir}"]
    files = {"train": "train.tsv", "validation": "trial.tsv", "test.test": "trial.tsv"}
    settings += [f"{key}={shared_data}/sick2014/{name}" for key, name in files.items()]
    loaded = load_recipe(RECIPES / "sick.toml", [f"finetune.{setting}" for setting in settings])
    result = finetune(loaded, tmp_path / "run", console=quiet(), runtime=CPU)
    assert result.score_table[0].rows == 500
    pair = ("A man is sleeping.", "Nobody is sleeping.")
    (record,) = predict(tmp_path / "run", [pair], runtime=CPU)
    assert (record["text"], record["pair"]) == pair
    assert record["prediction"] in ("CONTRADICTION", "ENTAILMENT", "NEUTRAL")
