"""docs/errors.md: wrong input, typed as a person would, and the sentence that it gets.

The page is made from these very commands. After a change of a message, make it anew:

    .venv/bin/python tests/faults/test_errors_page.py
"""

import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import pytest
import torch

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from bertsmith import cli
from bertsmith.model.heads import BertForSequenceClassification
from bertsmith.model.weights import write_card
from bertsmith.tokenizer.encode import Tokenizer
from finetune_case import GOOD, tiny_config, write_tiny_model

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
HOME = "/home/you"
"""What the page shows in place of the folder in which the commands were typed."""

FINETUNE = '[finetune]\nmodel = "base"\ntrain = "tickets.csv"\nmax_length = 32\n'
CORPUS = '[corpus]\nsources = [{ kind = "text", paths = ["text.txt"] }]\n'
PRETRAIN = f"{CORPUS}[tokenizer]\nvocab_size = 200\n[examples]\nmax_length = 32\n[pretrain]\nmax_steps = 1\n"
TEXT = "The day was lovely and bright. Tomorrow it is so.\n\n" * 30
BEGIN, END = "<!-- tables: made by tests/faults/test_errors_page.py -->", "<!-- end of tables -->"
ROWS = "text,label\n" + "the day was lovely,good\nthe day was awful,bad\n" * 10


@dataclass(frozen=True)
class Case:
    """A command that fails, and the files it finds besides those of `make_world`."""

    what: str
    command: tuple[str, ...]
    code: int = 1
    files: Mapping[str, str | bytes] = field(default_factory=dict)


def case(what: str, *command: str, code: int = 1, **files: str | bytes) -> Case:
    """Keyword arguments are files: `odd_csv` is odd.csv."""
    return Case(what, command, code, {name.replace("_", "."): content for name, content in files.items()})


def finetune(what: str, *settings: str, code: int = 1, **files: str | bytes) -> Case:
    sets = [part for setting in settings for part in ("--set", f"finetune.{setting}")]
    return case(what, "finetune", "mine.toml", *sets, code=code, **files)


def source(what: str, settings: str, code: int = 1, **files: str | bytes) -> Case:
    return case(what, "run", "text.toml", "--set", f"corpus.sources=[{{{settings}}}]", code=code, **files)


def recipe(what: str, text: str) -> Case:
    return case(what, "run", "odd.toml", code=2, odd_toml=text)


SECTIONS: dict[str, list[Case]] = {
    "Labelled tables": [
        finetune("a file that is not there", "train=nowhere.csv"),
        finetune("a folder instead of a file", "train=base"),
        finetune("an empty file", "train=odd.csv", odd_csv=""),
        finetune("a header and nothing else", "train=odd.csv", odd_csv="text,label\n"),
        finetune("not UTF-8", "train=odd.csv", odd_csv="text,label\ncaf\xe9,good\n".encode("latin-1")),
        finetune("a kind of file that is not known", "train=odd.xlsx", odd_xlsx="text,label\n"),
        finetune("a row with a missing column", "train=odd.csv", odd_csv=f"{ROWS}the day\n"),
        finetune("a column that is not there", "text_column=texts"),
        finetune("a column's name for a file without a header", "header=false"),
        finetune("a missing label", "train=odd.csv", odd_csv=f"{ROWS}the day,\n"),
        finetune("a text that is empty", "train=odd.csv", odd_csv=f"{ROWS},good\n"),
        finetune("one class only", "train=odd.csv", odd_csv="text,label\n" + "the day,good\n" * 20),
        finetune("a label that training does not know", "test.new=odd.csv", odd_csv="text,label\nthe day,middling\n"),
        finetune("a label that the recipe does not name", 'labels=["good","fair"]'),
        finetune("a number without a name", "label_names=odd.txt", "train=odd.csv",
                 odd_txt="good\nbad\n", odd_csv="text,label\nthe day,0\nthe sun,7\n"),
        finetune("a measure where a class is wanted", "train=odd.jsonl",
                 odd_jsonl='{"text": "the day", "label": 0.5}\n'),
        finetune("a line that is not JSON", "train=odd.jsonl",
                 odd_jsonl='{"text": "the day", "label": "good"}\nthe day\n'),
        finetune("a field that is not there", "train=odd.jsonl", odd_jsonl='{"texts": "the day", "label": "good"}\n'),
        finetune("a mark that is neither 0 nor 1", "task=multilabel", 'label_columns=["good"]', "train=odd.csv",
                 odd_csv="text,good\nthe day,1\nthe sun,yes\n"),
        finetune("a right choice that is none of the choices", "task=choose", "train=odd.jsonl",
                 odd_jsonl='{"text": "the day", "choices": ["lovely", "awful"], "label": 2}\n'),
        finetune("a single choice", "task=choose", "train=odd.jsonl",
                 odd_jsonl='{"text": "the day", "choices": ["lovely"], "label": 0}\n'),
        finetune("an answer that is not in its text", "task=answer", "train=odd.jsonl",
                 odd_jsonl='{"question": "when", "context": "the day", '
                           '"answers": {"text": ["sun"], "answer_start": [4]}}\n'),
        finetune("a question without an answer", "task=answer", "train=odd.jsonl",
                 odd_jsonl='{"question": "when", "context": "the day", "answers": {"text": [], "answer_start": []}}\n'),
        finetune("JSON that is not SQuAD's", "task=answer", "train=odd.json", odd_json='{"rows": []}'),
        finetune("weights for a label that is not there", "class_weights={god=2.0}", code=2),
        finetune("a header that comes again", "train=odd.csv", odd_csv=f"{ROWS}text,label\nthe day,good\n"),
        finetune("numbers with fractions in a text file", "train=odd.csv",
                 odd_csv="text,label\nthe day,1\nthe sun,2.5\n"),
        finetune("a query that fails", 'train={kind="sql",url="sqlite://",query="SELECT text FROM rows"}'),
        finetune("a glob that matches nothing", "train=no-*.csv"),
        finetune("a column of groups that is not there", "group_column=author"),
        case("more folds than rows", "finetune", "mine.toml", "--folds", "99", code=2),
        finetune("entities that overlap", "task=tag", "train=odd.jsonl",
                 odd_jsonl='{"text": "the day was", "entities": [[0, 7, "A"], [4, 11, "B"]]}\n'),
        finetune("an entity that is not in its text", "task=tag", "train=odd.jsonl",
                 odd_jsonl='{"text": "the day", "entities": [{"start": 4, "end": 9, "label": "A"}]}\n'),
        finetune("CoNLL with a label missing", "task=tag", "train=odd.conll", odd_conll="the\tO\nday\n"),
        finetune("CoNLL with words alone", "task=tag", "train=odd.conll", odd_conll="the\nday\n"),
    ],
    "Text to pre-train on": [
        case("files that are not there", "run", "text.toml", "--set",
             'corpus.sources=[{kind="text",paths=["no/*.txt"]}]'),
        case("a source that names no files", "run", "text.toml", "--set", 'corpus.sources=[{kind="text"}]'),
        case("an empty file", "run", "text.toml", text_txt=""),
        case("not UTF-8", "run", "text.toml", text_txt="caf\xe9\n".encode("latin-1")),
        case("documents that are all too short", "run", "text.toml", text_txt="one\n\ntwo\n"),
        case("JSON Lines with another field", "run", "text.toml", "--set",
             'corpus.sources=[{kind="jsonl",paths=["odd.jsonl"]}]', odd_jsonl='{"body": "the day"}\n'),
        source("UTF-16 that nobody said", 'kind="text",paths=["odd.txt"]', odd_txt="the day\n".encode("utf-16")),
        source("a NUL: no text, or UTF-16", 'kind="text",paths=["odd.txt"]', odd_txt=b"the\0day\n"),
        source("a torn compressed file", 'kind="text",paths=["odd.txt.gz"]',
               odd_txt_gz=gzip.compress(TEXT.encode(), mtime=0)[:-9]),
        source("an encoding that is not known", 'kind="text",paths=["text.txt"],encoding="utf-9"', code=2),
        source("JSON Lines with a line that is no object", 'kind="jsonl",paths=["odd.jsonl"]', odd_jsonl="the day\n"),
        source("half of a surrogate pair in JSON", 'kind="jsonl",paths=["odd.jsonl"]',
               odd_jsonl='{"text": "the \\ud83d day"}\n'),
        source("JSON that is torn", 'kind="json",paths=["odd.json"]', odd_json='[{"text": "the day"}, {"te'),
        source("CSV without the column", 'kind="csv",paths=["tickets.csv"],text_field="body"'),
        source("a file that is no Parquet", 'kind="parquet",paths=["tickets.csv"]'),
        source("a database that is not there", 'kind="sql",url="sqlite:///no/such.db",query="SELECT 1"'),
        source("a query that fails", 'kind="sql",url="sqlite://",query="SELECT body FROM texts"'),
        source("a password in a recipe", 'kind="sql",url="postgresql://me:secret@host/db",query="SELECT 1"', code=2),
        source("a variable that is not set", 'kind="sql",url="${TEXTS_URL}",query="SELECT 1"', code=2),
        case("a package that is not installed", "run", "text.toml", "--set",
             'corpus.sources=[{kind="python-docs",packages=["nopackage"]}]'),
        case("a vocabulary with no room for the characters", "run", "text.toml", "--set",
             "tokenizer.vocab_size=20", code=2),
    ],
    "Recipes and options": [
        case("a recipe that is not there", "run", "nowhere.toml", code=2),
        recipe("not TOML", 'name = "odd\n'),
        recipe("no name", "seed = 1\n"),
        recipe("near duplicates without equal ones", f'name = "odd"\n{CORPUS}deduplicate = false\ndedup.near = 0.8\n'),
        recipe("an unknown key", f'name = "odd"\n{FINETUNE}learning_rat = 1e-4\n'),
        recipe("a value of the wrong kind", f'name = "odd"\n{FINETUNE}epochs = "four"\n'),
        recipe("a value out of bounds", f'name = "odd"\n{FINETUNE}epochs = 0\n'),
        recipe("no end to pre-training", f'name = "odd"\n{PRETRAIN}'.replace("max_steps = 1", "")),
        recipe("two questions about one pair", f'name = "odd"\n{PRETRAIN}objectives = ["nsp", "sop"]\n'),
        recipe("a ramp that falls", f'name = "odd"\n{PRETRAIN}batch_size_rampup = [64, 0.5]\n'),
        recipe("a key of another schedule", f'name = "odd"\n{FINETUNE}cycles = 3\n'),
        recipe("a schedule without what it needs", f'name = "odd"\n{FINETUNE}schedule = "step"\n'),
        recipe("a key of another optimizer", f'name = "odd"\n{FINETUNE}momentum = 0.5\n'),
        recipe("a stage without the one it reads", 'name = "odd"\n[pretrain]\nmax_steps = 1\n'),
        recipe("nothing to learn from", 'name = "odd"\n[finetune]\nmodel = "base"\n'),
        case("a field that no BERT has", "run", "text.toml", "--set", "model.overrides.hiden_size=64", code=2),
        case("--set without a value", "run", "mine.toml", "--set", "finetune.epochs", code=2),
        case("a stage that is not there", "run", "mine.toml", "--until", "finetunes", code=2),
        finetune("a part to freeze that is not there", 'freeze=["encoder.layers.0"]', code=2),
        finetune("a layer to freeze that is not there", 'freeze=["encoder.layer.0-5"]', code=2),
        finetune("a metric of another task", "metric=f1", code=2),
        finetune("a key of another task", "task=regress", "label_smoothing=0.1", code=2),
        finetune("a key without the one beside which it counts", "max_windows=3", code=2),
        finetune("windows for words", "task=tag", "windows=mean", code=2),
        finetune("test files, and a share for a test", "test.new=tickets.csv", "test_share=0.1", code=2),
        finetune("more tokens than the model has positions", "max_length=64", code=2),
        case("a recipe without that section", "pretrain", "mine.toml", code=2),
        case("an address of a cluster, but no cluster", "run", "text.toml", "--set",
             "runtime.ray_address=10.0.0.1:6379", code=2),
        case("texts and a file at once", "predict", "tickets", "the day", "--file", "tickets.csv", code=2),
        case("nothing to fill in", "fill-mask", "base", "the day was", code=2),
        case("a choice to draw from where nothing is drawn", "generate", "base", "the day", "--top-k", "5", code=2),
    ],
    "Models and checkpoints": [
        finetune("a directory that is not there", "model=./nowhere"),
        finetune("a directory without a model", "model=empty"),
        finetune("a file instead of a directory", "model=tickets.csv"),
        finetune("a tokenizer that does not fit the weights", "model=unfit"),
        finetune("no tokenizer", "model=speechless"),
        finetune("encoder weights that are missing", "model=part"),
        finetune("encoder weights of another shape", "model=misshaped"),
        finetune("a damaged file", "model=damaged"),
        finetune("a pickle instead of safetensors", "model=pickled"),
        finetune("a network that is not this one", "model=relative"),
        case("predict with a model that was only pre-trained", "predict", "base", "the day"),
        case("a continuation by a model that reads both ways", "generate", "base", "the day"),
        case("fill-mask with a model that was fine-tuned", "fill-mask", "tickets", "the [MASK]"),
        case("a label that the model does not know", "evaluate", "tickets", "odd.csv",
             odd_csv="text,label\nthe day,fair\n"),
        case("a part of the table by a column that is not there", "evaluate", "tickets", "tickets.csv",
             "--slice", "topic"),
        case("two models that were scored on different rows", "compare", "one.jsonl", "other.jsonl",
             one_jsonl='{"line": 1, "text": "the day", "label": "good", "prediction": "good"}\n',
             other_jsonl='{"line": 1, "text": "a day", "label": "good", "prediction": "good"}\n'),
        case("a comparison with what is no run", "compare", "one.jsonl", "runs/nothing",
             one_jsonl='{"line": 1, "text": "the day", "label": "good", "prediction": "good"}\n'),
        case("a report of what is no run", "report", "runs/nothing"),
        case("a diagnosis of what is no run", "diagnose", "runs/nothing"),
        case("a probe of nothing", "probe", "base", code=2),
        case("neighbours of a word that no vocabulary has", "probe", "base", "--neighbours", "zyx", code=2),
        case("a comparison of one run alone", "compare", "one.jsonl", code=2,
             one_jsonl='{"line": 1, "text": "the day", "label": "good", "prediction": "good"}\n'),
        case("a smaller model that is to be where a file is", "compress", "prune", "tickets", "--layers", "1",
             "--out", "text.txt", code=2),
        case("two served models of one name", "serve", "tickets", "tickets", code=2),
        case("served keys in a file that is not there", "serve", "tickets", "--api-keys", "keys.txt", code=2),
        case("bfloat16 with ranges to fix", "compress", "quantize", "tickets", "--to", "bf16", "--static",
             "--out", "small", code=2),
        case("a model to prune that is of no run", "compress", "prune", "base", "--layers", "1", "--out", "small"),
        case("a report of the same run twice", "report", "runs/mine", "runs/mine", code=2),
        case("the attention of a run that has no model yet", "report", "runs/mine", "--attention", "the day"),
        case("a board of what is no folder", "board", "runs/nothing"),
        case("a board at an address that is another machine's", "board", ".", "--host", "203.0.113.7", code=2),
        case("examples of what is no run", "examples", "show", "runs/nothing"),
    ],
    "Taking models elsewhere": [
        case("a head that transformers does not know", "export", "hf", "pooled", "--out", "out", code=2),
        case("unequal heads", "export", "hf", "uneven", "--out", "out", code=2),
        case("a folder that holds something", "export", "hf", "tickets", "--out", "base", code=2),
        case("vectors of a model for labels", "export", "sentence-transformers", "tickets", "--out", "out", code=2),
        case("a card of what is no model", "card", "empty"),
        case("a name that no hub takes", "push", "tickets", "ada/my tickets", code=2),
        case("a TensorFlow checkpoint that is not there", "import", "tf1", "empty", "--out", "out"),
        case("a TensorFlow checkpoint that is cut off", "import", "tf1", "torn", "--out", "out"),
        case("a pickle that was not allowed", "import", "bin", "pickled", "--out", "out"),
        case("an index by a model for labels", "index", "text.txt", "--model", "tickets", "--out", "out", code=2),
        case("a question to what is no index", "ask", "empty", "when"),
        case("a pickle that is none", "import", "bin", "base", "--allow-pickle", "--out", "out", code=2),
    ],
    "Vocabularies": [
        case("a report without a text", "tokenizer", "report", "base", code=2),
        case("a text without words", "tokenizer", "report", "base", "--text", "odd.txt", odd_txt=" \n"),
        case("a new word that is two words", "tokenizer", "extend", "base", "--words", "odd.txt", code=2,
             odd_txt="the day\n"),
        case("a Chinese word, which is no single entry", "tokenizer", "extend", "base", "--words", "odd.txt", code=2,
             odd_txt="心脏\n"),
        case("a list of new words that is empty", "tokenizer", "extend", "base", "--words", "odd.txt", odd_txt="\n"),
        case("new words for a model into a folder that exists", "tokenizer", "extend", "base", "--words", "odd.txt",
             "--out", "base", code=2, odd_txt="hospital\n"),
    ],
    "Downloads": [
        case("a file that is not what the recipe says", "fetch", "fetch.toml"),
        case("a download without a digest", "fetch", "open.toml", code=2),
        case("a path that leaves the data folder", "fetch", "out.toml", code=2),
    ],
}  # fmt: skip


def make_world(folder: Path) -> None:
    """Models good and bad, a table, a text, recipes."""
    base = write_tiny_model(folder / "base")
    tokenizer = Tokenizer.load(base)
    tickets = BertForSequenceClassification(tiny_config(tokenizer.vocab_size).with_labels(("bad", "good")))
    tickets.save_pretrained(folder / "tickets")
    tokenizer.save(folder / "tickets")
    write_card(folder / "tickets", {"format": 1, "task": "classify", "labels": ["bad", "good"], "max_length": 32})

    for name in ("unfit", "speechless", "part", "misshaped", "damaged", "pickled", "relative"):
        shutil.copytree(base, folder / name)
    write_tiny_model(folder / "other", words=(*GOOD, *(f"word{number}" for number in range(50))))
    for file in (folder / "other").glob("*.*"):
        if file.name not in ("config.json", "model.safetensors"):
            shutil.copy(file, folder / "unfit")
    for name in ("tokenizer.json", "vocab.txt"):
        (folder / "speechless" / name).unlink()
    change_config(folder / "part", num_hidden_layers=3)
    change_config(folder / "misshaped", intermediate_size=48)
    change_config(folder / "relative", position_embedding_type="relative_key")
    (folder / "damaged" / "model.safetensors").write_bytes(b"half a file")
    (folder / "pickled" / "model.safetensors").unlink()
    torch.save({}, folder / "pickled" / "pytorch_model.bin")
    (folder / "empty").mkdir()
    (folder / "torn").mkdir()
    (folder / "torn" / "bert_config.json").write_text("{}")
    (folder / "torn" / "bert_model.ckpt.index").write_bytes(b"half a file")
    for name, changes in {"pooled": {"head_pooling": "mean"}, "uneven": {"layer_heads": (2, 1)}}.items():
        shutil.copytree(folder / "tickets", folder / name)
        config = tiny_config(tokenizer.vocab_size, **changes).with_labels(("bad", "good"))
        BertForSequenceClassification(config).save_pretrained(folder / name)

    (folder / "tickets.csv").write_text(ROWS, encoding="utf-8")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    (folder / "mine.toml").write_text(f'name = "mine"\n{FINETUNE}', encoding="utf-8")
    (folder / "text.toml").write_text(f'name = "text"\n{PRETRAIN}', encoding="utf-8")
    url, digest = (folder / "text.txt").as_uri(), hashlib.sha256(b"another file").hexdigest()
    for name, rest in {
        "fetch": f'path = "text.txt"\nsha256 = "{digest}"',
        "open": 'path = "text.txt"',
        "out": f'path = "../text.txt"\nsha256 = "{digest}"',
    }.items():
        text = f'name = "{name}"\n[[data.downloads]]\nurl = "{url}"\nlicence = "none"\n{rest}\n'
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")


def change_config(model: Path, **changes: object) -> None:
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes), encoding="utf-8")


def answer(one: Case, folder: Path) -> tuple[int, str]:
    """Exit code and all that was written to standard error, of a command typed in `folder`."""
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")  # a case may have put another there
    for name, content in one.files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    errors = io.StringIO()
    code = 0
    try:
        with (
            mock.patch.object(sys, "argv", ["bertsmith", *one.command]),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(errors),
            contextlib.chdir(folder),
        ):
            cli.main()
    except SystemExit as left:
        code = int(str(left.code))
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return code, errors.getvalue().replace(str(folder), HOME)


def said(errors: str) -> list[str]:
    """The sentences; what a command tells of its progress is left out."""
    lines = [line for line in errors.splitlines() if line.startswith("bertsmith: ")]
    return [line.removeprefix("bertsmith: error: ") for line in lines]


@contextlib.contextmanager
def world() -> Iterator[Path]:
    """A folder to type commands in, in which and beside which there is no data of this machine."""
    with tempfile.TemporaryDirectory() as name, mock.patch.dict(os.environ):
        os.environ.pop("BERTSMITH_DATA", None)
        folder = Path(name).resolve() / "home" / "you"
        folder.mkdir(parents=True)
        make_world(folder)
        yield folder


@pytest.fixture(scope="module")
def answers() -> dict[str, tuple[int, str]]:
    """Section and case -> exit code and standard error; after each, nothing half-written may be left."""
    found = {}
    with world() as folder:
        for title, cases in SECTIONS.items():
            for one in cases:
                found[f"{title}: {one.what}"] = answer(one, folder)
                left = [str(path.relative_to(folder)) for path in folder.rglob(".*")]
                assert not left, f"{title}: {one.what}: {left} is left behind"
        assert not list(folder.glob("runs/mine/*")), "a refused run leaves no folder"
    return found


@pytest.mark.parametrize(
    ("name", "code"), [(f"{title}: {one.what}", one.code) for title, cases in SECTIONS.items() for one in cases]
)
def test_one_sentence_and_no_traceback(answers: dict[str, tuple[int, str]], name: str, code: int) -> None:
    found, errors = answers[name]
    assert found == code, errors
    assert len(said(errors)) == 1, errors
    assert errors.rstrip().splitlines()[-1].startswith("bertsmith: error: "), errors
    assert "Traceback" not in errors


def test_the_page_says_what_the_commands_say(answers: dict[str, tuple[int, str]]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_tables(page, answers), f"{PAGE.name} is out of date; run: .venv/bin/python {__file__}"


def with_tables(page: str, answers: Mapping[str, tuple[int, str]]) -> str:
    """`page` with the tables between its two marks made anew."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    assert begin + end == BEGIN + END, f"{PAGE} has lost one of its marks {BEGIN} and {END}"
    tables = []
    for title, cases in SECTIONS.items():
        lines = [f"## {title}", "", "| what is wrong | what bertsmith says | exit code |", "|---|---|---|"]
        for one in cases:
            code, errors = answers[f"{title}: {one.what}"]
            lines.append(f"| {one.what} | {as_cell(said(errors)[0])} | {code} |")
        tables.append("\n".join(lines))
    return "\n\n".join([head + begin, *tables, end + tail])


def as_cell(text: str) -> str:
    """A message in a Markdown table, every character as it is."""
    fence = "``" if "`" in text else "`"
    return fence + text.replace("|", "\\|") + fence


if __name__ == "__main__":
    with world() as folder:
        fresh = {f"{title}: {one.what}": answer(one, folder) for title, cases in SECTIONS.items() for one in cases}
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), fresh), encoding="utf-8")
    print(f"wrote {PAGE}")
