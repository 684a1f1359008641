"""GLUE's nine layouts, read as the official files are, and handed in as the leaderboard wants; made-up sentences."""

import json
import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bertsmith.cli import app
from bertsmith.errors import DataError, RecipeError, UsageError
from bertsmith.model.weights import read_card
from bertsmith.tasks import finetune as room
from bertsmith.tasks.glue import BENCHMARKS, find_benchmark
from finetune_case import BAD, FILLERS, GOOD, write_tiny_model

SMALL = ["--set", "finetune.max_length=16", "--set", "finetune.epochs=1", "--set", "finetune.batch_size=8"]
MNLI = ("index", "promptID", "pairID", "genre", "sentence1_binary_parse", "sentence2_binary_parse", "sentence1_parse")
MNLI = (*MNLI, "sentence2_parse", "sentence1", "sentence2")
STSB = ("index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2")
LAYOUTS: dict[str, dict[str, tuple[str, ...]]] = {
    "cola": {"train.tsv": (), "dev.tsv": (), "test.tsv": ("index", "sentence")},
    "sst2": {
        "train.tsv": ("sentence", "label"),
        "dev.tsv": ("sentence", "label"),
        "test.tsv": ("index", "sentence"),
    },
    "mrpc": {
        "train.tsv": ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"),
        "dev.tsv": ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"),
        "test.tsv": ("index", "#1 ID", "#2 ID", "#1 String", "#2 String"),
    },
    "stsb": {"train.tsv": (*STSB, "score"), "dev.tsv": (*STSB, "score"), "test.tsv": STSB},
    "qqp": {
        "train.tsv": ("id", "qid1", "qid2", "question1", "question2", "is_duplicate"),
        "dev.tsv": ("id", "qid1", "qid2", "question1", "question2", "is_duplicate"),
        "test.tsv": ("id", "question1", "question2"),
    },
    "mnli": {
        "train.tsv": (*MNLI, "label1", "gold_label"),
        "dev_matched.tsv": (*MNLI, "label1", "label2", "label3", "label4", "label5", "gold_label"),
        "dev_mismatched.tsv": (*MNLI, "label1", "label2", "label3", "label4", "label5", "gold_label"),
        "test_matched.tsv": MNLI,
        "test_mismatched.tsv": MNLI,
    },
    "qnli": {
        "train.tsv": ("index", "question", "sentence", "label"),
        "dev.tsv": ("index", "question", "sentence", "label"),
        "test.tsv": ("index", "question", "sentence"),
    },
    "rte": {
        "train.tsv": ("index", "sentence1", "sentence2", "label"),
        "dev.tsv": ("index", "sentence1", "sentence2", "label"),
        "test.tsv": ("index", "sentence1", "sentence2"),
    },
    "wnli": {
        "train.tsv": ("index", "sentence1", "sentence2", "label"),
        "dev.tsv": ("index", "sentence1", "sentence2", "label"),
        "test.tsv": ("index", "sentence1", "sentence2"),
    },
}
TEXTS = ("sentence", "sentence1", "sentence2", "question", "question1", "question2", "#1 String", "#2 String")
LABELS = ("label", "Quality", "is_duplicate", "score", "gold_label")
SUBMISSIONS = {
    "cola": ["CoLA.tsv"],
    "sst2": ["SST-2.tsv"],
    "mrpc": ["MRPC.tsv"],
    "stsb": ["STS-B.tsv"],
    "qqp": ["QQP.tsv"],
    "mnli": ["MNLI-m.tsv", "MNLI-mm.tsv"],
    "qnli": ["QNLI.tsv"],
    "rte": ["RTE.tsv"],
    "wnli": ["WNLI.tsv"],
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's speed is not measured."""
    monkeypatch.setattr(room, "matmul_peak", lambda runtime: 1e9)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("base"))


def sentence(draw: random.Random) -> str:
    words = [draw.choice(FILLERS[:8]) for _ in range(draw.randint(1, 6))]
    return " ".join([*words, draw.choice(GOOD + BAD), draw.choice(('"', "", "'s"))]).strip()


def write_task(name: str, data: Path, *, rows: int = 12) -> Path:
    """The folder of one task in its official layout; quotes stand single in texts, as they do there."""
    row, draw = BENCHMARKS[name], random.Random(name)
    labels = row.labels or tuple(f"{number / 2:.3f}" for number in range(11))
    folder = data / row.folder
    folder.mkdir(parents=True)
    for file, columns in LAYOUTS[name].items():
        lines = ["\t".join(columns)] if columns else []
        for number in range(rows):
            label = labels[number % len(labels)]
            if not columns:
                lines.append("\t".join(("gj04", label, "" if label == "1" else "*", sentence(draw))))
                continue
            texts = {column: sentence(draw) for column in TEXTS}
            values = texts | dict.fromkeys(LABELS, label) | {"index": str(number), "id": str(number)}
            lines.append("\t".join(values.get(column, "x") for column in columns))
        (folder / file).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def run(name: str, base: Path, data: Path, runs: Path, *more: str) -> str:
    command = [
        "finetune",
        "--benchmark",
        f"glue/{name}",
        "--model",
        str(base),
        "--data",
        str(data),
        "--runs",
        str(runs),
    ]
    done = CliRunner().invoke(app, [*command, *SMALL, *more], env={"COLUMNS": "300"}, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_task_from_its_official_files_to_its_submission(name: str, base: Path, tmp_path: Path) -> None:
    row, folder = BENCHMARKS[name], write_task(name, tmp_path / "glue")
    run(name, base, tmp_path / "glue", tmp_path / "runs")
    place = tmp_path / "runs" / f"glue-{name}"
    scores = json.loads((place / "finetune" / "scores.json").read_text())
    assert scores["metric"] == row.metric
    found = {(line["split"], line["metric"]) for line in scores["table"]}
    splits = ("dev-matched", "dev-mismatched") if name == "mnli" else ("dev",)
    assert {(split, metric) for split in splits for metric in (row.metric, *row.also)} <= found
    assert {line["rows"] for line in scores["table"]} == {12}
    assert sorted(path.name for path in (place / "submission").iterdir()) == SUBMISSIONS[name]
    for path in (place / "submission").iterdir():
        head, *lines = path.read_text().split("\n")[:-1]
        assert head == "index\tprediction"
        assert [line.split("\t")[0] for line in lines] == [str(number) for number in range(12)]
        said = {line.split("\t")[1] for line in lines}
        assert said <= set(row.labels) if row.labels else all(0 <= float(one) <= 5 and len(one) == 5 for one in said)
    assert folder.is_dir()


def test_the_table_has_the_nine_tasks_with_the_leaderboard_s_metrics() -> None:
    assert {name: (row.metric, *row.also) for name, row in BENCHMARKS.items()} == {
        "cola": ("matthews",),
        "sst2": ("accuracy",),
        "mrpc": ("positive_f1", "accuracy"),
        "stsb": ("pearson", "spearman"),
        "qqp": ("positive_f1", "accuracy"),
        "mnli": ("accuracy",),
        "qnli": ("accuracy",),
        "rte": ("accuracy",),
        "wnli": ("accuracy",),
    }


def test_mrpc_as_microsoft_has_it(base: Path, tmp_path: Path) -> None:
    """One file to train on, with a byte order mark, one with the labels of the test rows, and no development rows."""
    folder = write_task("mrpc", tmp_path / "glue")
    for old, new in (("train", "train"), ("dev", "test")):
        text = (folder / f"{old}.tsv").read_text(encoding="utf-8")
        (folder / f"msr_paraphrase_{new}.txt").write_text("\ufeff" + text, encoding="utf-8")
    for file in LAYOUTS["mrpc"]:
        (folder / file).unlink()
    run("mrpc", base, tmp_path / "glue", tmp_path / "runs", "--set", "finetune.validation_share=0.25")
    place = tmp_path / "runs" / "glue-mrpc"
    assert {line["split"] for line in json.loads((place / "finetune" / "scores.json").read_text())["table"]} == {"test"}
    assert len((place / "submission" / "MRPC.tsv").read_text().splitlines()) == 13


def test_torn_rows_of_qqp_are_left_out_and_counted(base: Path, tmp_path: Path) -> None:
    folder = write_task("qqp", tmp_path / "glue")
    lines = (folder / "train.tsv").read_text().splitlines()
    torn = [*lines[:3], "7\tx\tx\tis it", "so\tis it kind\t1", "8\tx\tx\t \tis it\t0", *lines[3:]]
    (folder / "train.tsv").write_text("\n".join(torn) + "\n")
    said = run("qqp", base, tmp_path / "glue", tmp_path / "runs")
    assert f"left out   3 rows of {folder / 'train.tsv'}" in said
    card = read_card(tmp_path / "runs" / "glue-qqp" / "finetune" / "model")
    assert card["columns"]["pair"] == "question2", "evaluate and predict read its files"


def test_without_test_rows_nothing_is_handed_in(base: Path, tmp_path: Path) -> None:
    folder = write_task("rte", tmp_path / "glue")
    (folder / "test.tsv").unlink()
    said = run("rte", base, tmp_path / "glue", tmp_path / "runs")
    assert f"submission none: {folder} has no test file" in said
    assert not (tmp_path / "runs" / "glue-rte" / "submission").exists()


def test_what_is_wrong_is_said_before_anything_runs(tmp_path: Path) -> None:
    for name in ("cola", "glue/", "glue/colla", "superglue/cb"):
        with pytest.raises(UsageError, match=rf"there is no benchmark '{name}'; use one of glue/cola, glue/sst2"):
            find_benchmark(name, tmp_path)
    with pytest.raises(DataError, match=r"CoLA/train\.tsv does not exist \(looked at"):
        find_benchmark("glue/cola", tmp_path)
    write_task("cola", tmp_path)
    found = find_benchmark("glue/cola", tmp_path)
    with pytest.raises(RecipeError, match=r"unknown key 'finetune\.epoch'; did you mean 'finetune\.epochs'"):
        found.recipe("m", ["finetune.epoch=2"])
    config = found.recipe("m", ["finetune.epochs=2"]).finetune
    assert config is not None
    assert (config.epochs, config.labels, config.metric) == (2, ("0", "1"), "matthews")
    for wrong, told in (
        (["finetune"], "one of them"),
        (["finetune", "a.toml", "--benchmark", "glue/cola"], "one of them"),
        (["finetune", "--benchmark", "glue/cola"], "--benchmark needs --model"),
    ):
        done = CliRunner().invoke(app, wrong)
        assert isinstance(done.exception, UsageError)
        assert told in str(done.exception)


def test_f1_of_the_positive_class_is_of_two_labels(base: Path, tmp_path: Path) -> None:
    rows = [("so kind", label) for label in "abc" * 6]
    recipe = find_benchmark("glue/sst2", write_task("sst2", tmp_path / "glue").parent).recipe(str(base), [])
    assert recipe.finetune is not None
    three = recipe.model_copy(update={"finetune": recipe.finetune.model_copy(update={"labels": (), "max_length": 16})})
    with pytest.raises(UsageError, match=r"finetune\.metric = 'positive_f1'; task 'classify' here has: accuracy"):
        room.finetune(
            three.model_copy(update={"finetune": three.finetune.model_copy(update={"metric": "positive_f1"})}),
            tmp_path / "run",
            train=[{"sentence": text, "label": label} for text, label in rows],
            validation=[{"sentence": text, "label": label} for text, label in rows],
            test={},
        )
