"""docs/corpus-sources.md: its examples give the documents that it shows."""

import gzip
import json
import re
import sqlite3
import tomllib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bertsmith.config import Source
from corpus_case import documents_of, write

PAGE = Path(__file__).parents[2] / "docs" / "corpus-sources.md"
EXAMPLES = re.findall(r"```toml\n(.*?)```\n```\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
FIRST = ("The court finds for the claimant.", "Costs follow the event.")
SECOND = ("The appeal is dismissed.", "There is no order as to costs.")
TICKETS = ("The printer is on fire, again.", "It has gone out by itself.")
WRAPPED = """A paragraph that somebody wrapped
by hand at forty characters.

And a second one, also a document
of its own.
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "texts"
    folder.mkdir()
    write(folder / "judgments.txt", "\n".join([*FIRST, "", *SECOND]))
    write(folder / "wrapped.txt.gz", gzip.compress(WRAPPED.encode()))
    write(folder / "posts.jsonl", "\n".join(json.dumps({"post": {"text": " ".join(text)}}) for text in (FIRST, SECOND)))
    write(folder / "tickets.csv", f'id,body\n1,"{TICKETS[0]}"\n2,{TICKETS[1]}\n')
    pq.write_table(pa.table({"text": [" ".join(FIRST), None, " ".join(SECOND)]}), folder / "judgments.parquet")
    with sqlite3.connect("texts.db") as database:
        database.execute("CREATE TABLE texts (id INTEGER, body TEXT)")
        database.executemany("INSERT INTO texts VALUES (?, ?)", [(3, TICKETS[1]), (1, TICKETS[0]), (2, None)])
    database.close()


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize(("recipe", "shown"), EXAMPLES)
def test_the_examples_give_what_the_page_shows(recipe: str, shown: str) -> None:
    [raw] = tomllib.loads(recipe)["corpus"]["sources"]
    if raw["kind"] == "sql":
        pytest.importorskip("sqlalchemy", reason='no SQLAlchemy: pip install "bertsmith[sql]"')
    found = documents_of(Source.model_validate(raw))
    lines = [f"{document.id}  {document.text}".replace("\n", "⏎") for document in found]
    assert lines == shown.splitlines()


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 7
