import re
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from bertsmith.config import Recipe, Source, parse_recipe, recipe_toml
from bertsmith.corpus.document import RawDocument
from bertsmith.corpus.sources import plan_chunks, read_chunk, source_inputs
from bertsmith.errors import DataError, MissingExtraError, RecipeError, UsageError
from corpus_case import documents_of
from postgres_case import PASSWORD, Postgres

pytest.importorskip("sqlalchemy", reason='no SQLAlchemy: pip install "bertsmith[sql]"')

FAILS_AT_1500 = "SELECT 'row ' || (1 / (1500 - i)) AS text FROM generate_series(1, 3000) AS i"
PEAK = """
import sys
from collections import Counter
from bertsmith.config import Source
from bertsmith.corpus.sources import plan_chunks, read_chunk

def rss_anon_mb():
    return int(next(line for line in open("/proc/self/status") if line.startswith("RssAnon")).split()[1]) / 1000

source = Source(kind="sql", url=sys.argv[1], query=sys.argv[2])
[chunk] = plan_chunks(source)
at_first = most = count = size = 0
for count, document in enumerate(read_chunk(chunk, Counter()), start=1):
    size += len(document.text)
    if count == 1000:
        at_first = rss_anon_mb()
    if count % 5000 == 0:
        most = max(most, rss_anon_mb())
print(count, size, most - at_first)
"""


def rows_of(url: str, query: str, counts: Counter[str] | None = None, **settings: object) -> list[RawDocument]:
    return list(documents_of(Source.model_validate({"kind": "sql", "url": url, "query": query, **settings}), counts))


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    path = tmp_path / "texts.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE texts (id INTEGER, body TEXT, note BLOB)")
        database.executemany("INSERT INTO texts VALUES (?, ?, ?)", [(3, "three", b""), (1, "one", b""), (2, None, b"")])
    database.close()
    return f"sqlite:///{path}"


@pytest.fixture
def texts(postgres: Postgres) -> Postgres:
    """A table of 200,000 rows, each with its number and some 200 bytes."""
    postgres.execute(
        "CREATE TABLE IF NOT EXISTS texts AS SELECT i AS id, 'row ' || i || repeat(' 天 and more', 14) AS body "
        "FROM generate_series(1, 200000) AS i"
    )
    return postgres


def test_rows_in_order_with_nulls_counted(sqlite: str) -> None:
    counts: Counter[str] = Counter()
    found = rows_of(sqlite, "SELECT body FROM texts ORDER BY id", counts)
    assert [(document.id, document.text, document.source) for document in found] == [
        (f"{sqlite}#1", "one", sqlite),
        (f"{sqlite}#3", "three", sqlite),
    ]
    assert counts == {"record without text": 1}


def test_the_column_is_named_or_the_only_one(sqlite: str) -> None:
    query = "SELECT id, body FROM texts WHERE id < 2"
    assert [document.text for document in rows_of(sqlite, query, text_field="body")] == ["one"]
    with pytest.raises(DataError, match=r"the query has no column 'text' \(columns: id, body\); set text_field"):
        rows_of(sqlite, query)


@pytest.mark.parametrize(("column", "kind"), [("id", "int"), ("note", "bytes")])
def test_values_that_are_no_text(sqlite: str, column: str, kind: str) -> None:
    query = f"SELECT body AS text, {column} AS other FROM texts WHERE id = 1"
    with pytest.raises(DataError, match=rf"texts\.db: row 1 holds {kind}, not text; cast it in the query"):
        rows_of(sqlite, query, text_field="other")
    counts: Counter[str] = Counter()
    assert rows_of(sqlite, query, counts, text_field="other", on_error="skip") == []
    assert counts == {"record that cannot be used": 1}


def test_percent_and_colon_stand_for_themselves(sqlite: str) -> None:
    assert [document.text for document in rows_of(sqlite, "SELECT '5 % :x ?' WHERE 'abc' LIKE 'a%'")] == ["5 % :x ?"]


@pytest.mark.parametrize(
    ("url", "query", "message"),
    [
        ("", "SELECT 1", 'kind "sql" has no url; give sqlite:///FILE or postgresql://'),
        ("texts.db", "SELECT 1", "url is no database's address; give sqlite:///FILE"),
        ("nosuch://a/b", "SELECT 1", "nosuch://a/b: SQLAlchemy knows no such database"),
        ("sqlite:///no/such/folder/x.db", "SELECT 1", "cannot connect: unable to open database file"),
        ("sqlite://", "", 'kind "sql" has no query; give query'),
        ("sqlite://", "SELECT body FROM texts", "the query failed before its first rows came: no such table: texts"),
    ],
)
def test_what_cannot_be_asked(url: str, query: str, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        rows_of(url, query)


def test_a_query_of_sqlite_that_fails_half_way(sqlite: str) -> None:
    query = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) " + (
        "SELECT CASE WHEN i = 1500 THEN abs(-9223372036854775807 - 1) ELSE 'text' END FROM n"
    )
    with pytest.raises(DataError, match=r"failed at one of rows 1,401 to 1,600: integer overflow"):
        rows_of(sqlite, query)


def test_a_driver_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtraError, match=r'the database postgresql\+psycopg://h/d .* "bertsmith\[sql\]"'):
        rows_of("postgresql+psycopg://h/d", "SELECT 1")
    monkeypatch.setitem(sys.modules, "pymysql", None)
    with pytest.raises(DataError, match=r"mysql\+pymysql://h/d needs the package 'pymysql', which is not installed"):
        rows_of("mysql+pymysql://h/d", "SELECT 1")


SECRETS = [
    "postgresql://me:secret@host/db",
    "postgresql+psycopg://me:se/cret@host/db",
    "postgresql://me:${A}secret@host/db",
    "postgresql://me@host/db?password=secret",
    "postgresql://me@host/db?sslmode=require&sslpassword=secret",
]


@pytest.mark.parametrize("url", SECRETS)
def test_a_password_in_a_recipe_is_refused_and_not_repeated(url: str) -> None:
    raw = {"name": "x", "corpus": {"sources": [{"kind": "sql", "url": url, "query": "SELECT 1"}]}}
    with pytest.raises(RecipeError, match="holds a password, which would be written") as caught:
        parse_recipe(raw)
    for error in (caught.value, caught.value.__cause__):
        assert "secret" not in str(error)
        assert "se/cret" not in str(error)


def test_a_password_in_a_path_is_refused() -> None:
    with pytest.raises(ValueError, match="holds a password"):
        Source(kind="text", paths=("https://me:secret@host/a.txt",))
    Source(kind="text", paths=("https://host:8080/a@b.txt", "s3://bucket/a:b@c"))


def test_variables_stand_for_themselves_in_all_that_is_written(sqlite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTS_URL", sqlite)
    source = Source(kind="sql", url="${TEXTS_URL}", query="SELECT body AS text FROM texts WHERE id = 1")
    assert [document.id for document in documents_of(source)] == ["${TEXTS_URL}#1"]
    assert source_inputs(source) == {"${TEXTS_URL}": source.query}
    recipe = Recipe.model_validate({"name": "x", "corpus": {"sources": [source.model_dump()]}})
    assert sqlite not in recipe_toml(recipe)
    monkeypatch.delenv("TEXTS_URL")
    with pytest.raises(UsageError, match=r"url names the environment variable TEXTS_URL, which is not set"):
        list(documents_of(source))


def test_postgres_rows_in_order(texts: Postgres) -> None:
    found = rows_of(texts.url(), "SELECT id, body FROM texts ORDER BY id DESC LIMIT 1000", text_field="body")
    assert [document.text.split()[1] for document in found] == [str(200_000 - n) for n in range(1000)]
    assert found[0].text.startswith("row 200000 天 and more 天")
    assert found[999].id == f"{texts.url()}#1000"


def test_postgres_rows_come_in_constant_memory(texts: Postgres) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PEAK, texts.url(), "SELECT body FROM texts"], capture_output=True, text=True, check=True
    )
    count, size, grown_mb = ran.stdout.split()
    assert int(count) == 200_000
    assert int(size) > 30_000_000
    assert float(grown_mb) < 8, f"{grown_mb} MB more after 200,000 rows than after 1,000"


def test_postgres_holds_the_rows_and_sends_some_at_a_time(texts: Postgres) -> None:
    """Server-side cursor: when the first row is here, the server is still at the beginning of its work."""
    [chunk] = plan_chunks(Source(kind="sql", url=texts.url(), query="SELECT body FROM texts"))
    rows = read_chunk(chunk, Counter())
    next(rows)
    [(query,)] = texts.execute(
        "SELECT query FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND state LIKE 'idle in%'"
    )
    assert re.match(r"FETCH FORWARD (199|200) FROM", query)
    rows.close()
    assert texts.execute("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%'") == [(0,)]


def test_a_query_of_postgres_that_fails_half_way(postgres: Postgres) -> None:
    with pytest.raises(DataError, match=r"/tests: the query failed at one of rows 1,401 to 1,600: division by zero"):
        rows_of(postgres.url(), FAILS_AT_1500)


def test_a_query_of_postgres_that_fails_at_once(postgres: Postgres) -> None:
    with pytest.raises(DataError, match=r'failed before its first rows came: relation "nowhere" does not exist'):
        rows_of(postgres.url(), "SELECT * FROM nowhere")


def test_a_server_that_ends_the_connection(texts: Postgres) -> None:
    [chunk] = plan_chunks(Source(kind="sql", url=texts.url(), query="SELECT body FROM texts"))
    rows = read_chunk(chunk, Counter())
    next(rows)
    texts.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state LIKE 'idle in%'")
    with pytest.raises(DataError, match=r"the query failed at one of rows 201 to 400: terminating connection"):
        list(rows)


def test_nulls_wrong_types_and_percent_in_postgres(postgres: Postgres) -> None:
    counts: Counter[str] = Counter()
    query = "SELECT v AS text FROM (VALUES ('50 %'), (NULL), ('a:b'), ('c')) AS t(v) WHERE '12:30' LIKE '%:%'"
    assert [document.text for document in rows_of(postgres.url(), query, counts)] == ["50 %", "a:b", "c"]
    assert counts == {"record without text": 1}
    with pytest.raises(DataError, match="row 1 holds int, not text"):
        rows_of(postgres.url(), "SELECT 7 AS text")
    with pytest.raises(DataError, match=r"no column 'text' \(columns: a, b\)"):
        rows_of(postgres.url(), "SELECT 'x' AS a, 'y' AS b")


def test_a_password_from_the_environment(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"postgresql://guarded:${{TEXTS_PASSWORD}}@127.0.0.1:{postgres.port}/tests"
    monkeypatch.setenv("TEXTS_PASSWORD", PASSWORD)
    found = rows_of(url, "SELECT current_user::text AS text")
    assert [document.text for document in found] == ["guarded"]
    assert found[0].source == f"postgresql://guarded:***@127.0.0.1:{postgres.port}/tests"
    monkeypatch.setenv("TEXTS_PASSWORD", "wrong-word")
    with pytest.raises(
        DataError, match=r"guarded:\*\*\*@.*: cannot connect: .*password authentication failed"
    ) as caught:
        rows_of(url, "SELECT 1")
    assert "wrong-word" not in str(caught.value)


@pytest.mark.parametrize("host", ["nowhere.invalid", "127.0.0.1:9"])
def test_a_host_that_is_not_there(host: str) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(DataError, match=rf"postgresql\+psycopg://me@{host}/db: cannot connect: "):
        rows_of(f"postgresql+psycopg://me@{host}/db", "SELECT 1")
