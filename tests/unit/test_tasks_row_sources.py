"""Labelled rows from several files, from compressed ones, from a query and from a dataset of the hub."""

import gzip
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bertsmith.config import FinetuneConfig, Recipe, parse_recipe, recipe_toml
from bertsmith.errors import DataError, RecipeError, UsageError
from bertsmith.tasks.classify import Classify
from bertsmith.tasks.row_sources import check_files
from bertsmith.tasks.splits import Splits, read_all, read_splits
from finetune_case import CPU, quiet, recipe, text_rows, write_tiny_model, write_tsv
from hub_case import running_hub

READ_HUB = """
import json, sys
from bertsmith.config import RowSource
from bertsmith.errors import BertsmithError
from bertsmith.tasks.row_sources import tables_of
from bertsmith.tasks.tables import read_text_rows

try:
    tables = tables_of(RowSource.model_validate({"kind": "hub", **json.loads(sys.argv[1])}))
    rows = [row for table in tables for row in read_text_rows(table.source)]
    print(json.dumps([[row.text, row.label] for row in rows]))
except BertsmithError as error:
    print(json.dumps(str(error)))
"""


def settings(**finetune: Any) -> FinetuneConfig:
    found = parse_recipe({"name": "rows", "finetune": {"model": "m", **finetune}}).finetune
    assert found is not None
    return found


def splits(**finetune: Any) -> Splits:
    config = settings(**finetune)
    return read_splits(config, Classify(), seed=1, test=config.test, test_share=config.test_share)


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.fixture
def database(tmp_path: Path) -> str:
    pytest.importorskip("sqlalchemy", reason='no SQLAlchemy: pip install "bertsmith[sql]"')
    path = tmp_path / "tickets.db"
    with sqlite3.connect(path) as opened:
        opened.execute("CREATE TABLE tickets (id INTEGER, body TEXT, kind TEXT, author TEXT)")
        rows = [(number, f"text {number}", "xy"[number % 2], f"author {number % 5}") for number in range(20)]
        opened.executemany("INSERT INTO tickets VALUES (?, ?, ?, ?)", rows)
    opened.close()
    return f"sqlite:///{path}"


def test_several_files_globs_and_compressed_ones(tmp_path: Path) -> None:
    write_tsv(tmp_path / "a.tsv", [("one", "x"), ("two", "y")])
    write_tsv(tmp_path / "b.tsv", [("three", "x")])
    packed = tmp_path / "c.tsv.gz"
    packed.write_bytes(gzip.compress(b"text\tlabel\nfour\ty\n"))
    named = [str(tmp_path / "a.tsv"), str(tmp_path / "b.tsv"), str(packed)]
    texts = ["one", "two", "three", "four"]
    for train in (named, str(tmp_path / "*.tsv*"), [str(tmp_path / "[ab].tsv"), named[2]]):
        found = read_all(settings(train=train), Classify())
        assert [row.text for row in found.rows] == texts
        assert found.labels == ("x", "y")
    odd = write(tmp_path / "odd[1].tsv", "text\tlabel\na\tx\nb\ty\n")
    assert len(read_all(settings(train=odd), Classify()).rows) == 2


def test_errors_name_the_file_of_several(tmp_path: Path) -> None:
    first = str(write_tsv(tmp_path / "a.tsv", [("one", "x"), ("two", "y")]))
    second = write(tmp_path / "b.tsv", "text\tlabel\nthree\tz\nfour\t\n")
    with pytest.raises(DataError, match=r"b\.tsv:3: the label is missing"):
        read_all(settings(train=[first, second]), Classify())
    third = write(tmp_path / "c.tsv", "text\tlabel\nthree\tz\n")
    with pytest.raises(DataError, match=r"c\.tsv:2: unknown label 'z'"):
        read_all(settings(train=[first, third], labels=["x", "y"]), Classify())
    with pytest.raises(DataError, match=r"c\.tsv:2: unknown label 'z'"):
        splits(train=first, validation=[first, third])
    with pytest.raises(DataError, match=r"matches no file"):
        check_files(settings(train=str(tmp_path / "none-*.tsv")).train)
    with pytest.raises(DataError, match=r"does not exist"):
        check_files(settings(train=[first, "absent.tsv"]).train)


def test_rows_of_a_query(database: str) -> None:
    query = "SELECT body, kind FROM tickets ORDER BY id"
    rows = {"kind": "sql", "url": database, "query": query}
    found = splits(train=rows, test={"new": rows}, text_column="body", label_column="kind", validation_share=0.2)
    assert [row.text for row in found.test["new"]] == [f"text {number}" for number in range(20)]
    assert [row.line for row in found.test["new"]] == list(range(1, 21))
    assert (len(found.train), len(found.validation), found.labels) == (16, 4, ("x", "y"))


def test_exact_numbers_of_a_database_are_labels(database: str) -> None:
    from decimal import Decimal

    from bertsmith.tasks.row_sources import _plain

    assert list(_plain(iter([(1, (Decimal("3"), Decimal("0.5"), "x"))]))) == [(1, (3, 0.5, "x"))]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT body, kind FROM tickts", r"the query failed before its first rows came: no such table"),
        ("SELECT body FROM tickets", r"\(SELECT body FROM tickets\): no column 'kind'"),
        ("SELECT body, kind FROM tickets WHERE id > 99", r"id > 99\): the query gives no rows"),
        ("SELECT body, 'x' AS kind FROM tickets", r"tickets\): 20 rows with only the label 'x'"),
        (
            "SELECT body, CASE id WHEN 2 THEN NULL WHEN 5 THEN NULL ELSE kind END AS kind FROM tickets ORDER BY id",
            r"\(SELECT body, CASE id WHEN 2 .*…\): row 3: the label is missing; .* \(wrong rows besides: 6\)",
        ),
    ],
)
def test_wrong_rows_of_a_query_are_named_with_it(database: str, query: str, message: str) -> None:
    rows = {"kind": "sql", "url": database, "query": query}
    with pytest.raises(DataError, match=message) as caught:
        splits(train=rows, text_column="body", label_column="kind")
    assert str(caught.value).startswith(database)


def test_an_unknown_label_of_a_query_is_named_with_it(database: str, tmp_path: Path) -> None:
    train = str(write_tsv(tmp_path / "a.tsv", [("one", "x"), ("two", "y")]))
    rows = {"kind": "sql", "url": database, "query": "SELECT body AS text, author AS label FROM tickets"}
    with pytest.raises(DataError, match=r"FROM tickets\): row 1: unknown label 'author 0'"):
        splits(train=train, validation=rows)


def test_a_password_stays_out_of_recipes_and_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match=r"finetune\.train\.url: holds a password") as caught:
        settings(train={"kind": "sql", "url": "postgresql://me:secret@host/db", "query": "SELECT 1"})
    assert "secret" not in str(caught.value)
    monkeypatch.setenv("TICKETS_PASSWORD", "se/cret")
    url = "sqlite:////nowhere/${TICKETS_PASSWORD}.db"
    with pytest.raises(DataError, match=r"cannot connect") as refused:
        splits(train={"kind": "sql", "url": url, "query": "SELECT 1"})
    assert "se/cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"kind": "sql", "url": "sqlite://"}, r"finetune\.train: rows of kind 'sql' need query"),
        ({"kind": "hub"}, r"finetune\.train: rows of kind 'hub' need dataset"),
        ({"kind": "hub", "dataset": "a/b", "query": "SELECT 1"}, r"rows of kind 'hub' take no query"),
        ({"kind": "csv"}, r"finetune\.train\.kind: Input should be 'sql' or 'hub'"),
        (
            {"kind": "hub", "data": "a/b"},
            r"unknown key 'finetune\.train\.data'; did you mean 'finetune\.train\.dataset'",
        ),
        ([], r"finetune\.train: Tuple should have at least 1 item"),
        ([3], r"finetune\.train\.0: Input should be a valid string"),
    ],
)
def test_wrong_sources(rows: object, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        settings(train=rows)


def test_test_files_are_still_named_freely_and_their_keys_checked() -> None:
    config = settings(train="a", test={"dataset": "b.tsv", "new": {"kind": "hub", "dataset": "a/b"}})
    assert set(config.test) == {"dataset", "new"}
    with pytest.raises(RecipeError, match=r"unknown key 'finetune\.test\.new\.datset'"):
        settings(train="a", test={"new": {"kind": "hub", "datset": "a/b"}})


def test_a_resolved_recipe_reads_back() -> None:
    rows = {"kind": "sql", "url": "sqlite:///t.db", "query": "SELECT 1"}
    first: Recipe = parse_recipe({"name": "r", "finetune": {"model": "m", "train": rows, "validation": ["a", "b"]}})
    import tomllib

    assert parse_recipe(tomllib.loads(recipe_toml(first))).finetune == first.finetune


def test_rows_of_a_dataset_of_the_hub(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"text": f"text {number}", "label": number % 2}) + "\n" for number in range(3))
    files = {"data/train.jsonl": lines.encode(), "data/test.csv": b"text,label\na,0\n", "README.md": b"# Rows"}
    with running_hub({"some/rows": {"main": files}}) as endpoint:
        environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HOME": str(tmp_path)}

        def read(**source: object) -> Any:
            command = [sys.executable, "-c", READ_HUB, json.dumps(source)]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
            return json.loads(done.stdout)

        assert read(dataset="some/rows") == [["text 0", "0"], ["text 1", "1"], ["text 2", "0"]]
        assert read(dataset="some/rows", paths=["data/*.csv"]) == [["a", "0"]]


def test_a_test_split_is_made_and_groups_are_never_parted(database: str) -> None:
    rows = {"kind": "sql", "url": database, "query": "SELECT * FROM tickets ORDER BY id"}
    columns = {"text_column": "body", "label_column": "kind"}
    made = splits(train=rows, test_share=0.4, validation_share=0.34, group_column="author", **columns)
    parts = [made.train, made.validation, made.test["test"]]
    assert [len(part) for part in parts] == [8, 4, 8]
    authors = [{row.line % 5 for row in part} for part in parts]  # line 1 is row 0
    assert sum(map(len, authors)) == 5
    again = splits(train=rows, test_share=0.4, validation_share=0.34, group_column="author", **columns)
    assert again.test_digests() == made.test_digests()
    with pytest.raises(RecipeError, match="has test files and test_share"):
        settings(train="a", test={"t": "b"}, test_share=0.1)
    with pytest.raises(DataError, match=r"no column 'autor' \(did you mean 'author'\?\)"):
        splits(train=rows, group_column="autor", **columns)
    with pytest.raises(UsageError, match="the share of test rows is 1"):
        splits(train=rows, test_share=1.0, **columns)


def test_group_column_needs_columns(tmp_path: Path) -> None:
    from bertsmith.tasks.tag import Tag

    path = write(tmp_path / "a.conll", "a\tO\n\nb\tX\n")
    with pytest.raises(DataError, match=r"a\.conll: group_column = 'doc', but such a file has no columns"):
        read_all(settings(train=path, task="tag", group_column="doc"), Tag())


def test_a_query_is_fine_tuned_on(database: str, tmp_path: Path) -> None:
    from bertsmith.tasks.finetune import finetune

    base = write_tiny_model(tmp_path / "base")
    with sqlite3.connect(tmp_path / "tickets.db") as opened:
        opened.execute("CREATE TABLE moods (text TEXT, label TEXT)")
        opened.executemany("INSERT INTO moods VALUES (?, ?)", text_rows(60))
    opened.close()
    rows = {"kind": "sql", "url": database, "query": "SELECT text, label FROM moods ORDER BY rowid"}
    chosen = recipe(train=rows, test_share=0.2, epochs=1)
    found = finetune(chosen, tmp_path / "run", model=base, console=quiet(), runtime=CPU)
    assert set(found.scores) == {"test"}
    assert "SELECT text, label" in (tmp_path / "run/recipe.toml").read_text()
