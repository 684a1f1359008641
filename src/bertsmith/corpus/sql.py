"""Documents in a database: the rows of a query, streamed by a server-side cursor."""

import contextlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from bertsmith.config import Source
from bertsmith.corpus.document import RawDocument
from bertsmith.corpus.texts import document_of
from bertsmith.errors import DataError, MissingExtraError
from bertsmith.runtime import environment_variable

_ROWS_AT_ONCE = 200
_VARIABLE = re.compile(r"\$\{(\w+)\}")


def shown_url(url: str) -> str:
    """The database's address as it may be shown and written: variables are not filled in, a password is masked."""
    if _VARIABLE.fullmatch(url):
        return url
    return str(_parsed(url).render_as_string(hide_password=True))


def read_query(source: Source, counts: Counter[str]) -> Iterator[RawDocument]:
    """The text column of each row of `source.query`, some hundred rows in memory at a time; NULLs are counted.

    A document's id is its row's number: order the query (ORDER BY), or ids and with them the split may change. Raises
    `DataError` for a database that cannot be reached and for a query that fails, at its start or in the middle.
    """
    if not source.query:
        raise DataError('a source of kind "sql" has no query; give query = "SELECT ..."')
    name = shown_url(source.url)
    with opened_query(source.url, source.query) as (names, rows):
        column = _column(names, source.text_field, name)
        for number, row in rows:
            document = _document(row[column], source, counts, number, name)
            if document is not None:
                yield document


@contextlib.contextmanager
def opened_query(url: str, query: str) -> Iterator[tuple[list[str], Iterator[tuple[int, Sequence[Any]]]]]:
    """Names of a query's columns, and its rows, numbered from 1, streamed; nothing is ever committed.

    Raises `DataError` for a database that cannot be reached and for a query that fails, while they are read too.
    """
    sqlalchemy = _sqlalchemy()
    name = shown_url(url)
    engine = _engine(url, name)
    read = 0

    def numbered(rows: Any) -> Iterator[tuple[int, Sequence[Any]]]:
        nonlocal read
        for rows_at_once in rows.partitions(_ROWS_AT_ONCE):
            for row in rows_at_once:
                read += 1
                yield read, row

    try:
        with _connection(engine, name) as connection:
            options = {"stream_results": True, "no_parameters": True}  # the latter: % and : stand for themselves
            rows = connection.execution_options(**options).exec_driver_sql(query).yield_per(_ROWS_AT_ONCE)
            yield list(rows.keys()), numbered(rows)
    except (sqlalchemy.exc.SQLAlchemyError, UnicodeDecodeError) as error:
        place = f"at one of rows {read + 1:,} to {read + _ROWS_AT_ONCE:,}" if read else "before its first rows came"
        raise DataError(f"{name}: the query failed {place}: {_reason(error)}") from error
    finally:
        engine.dispose()


def _document(value: Any, source: Source, counts: Counter[str], number: int, name: str) -> RawDocument | None:
    try:
        return document_of(value, source, counts, id=f"{name}#{number}", name=name)
    except ValueError as error:
        if source.on_error != "skip":
            raise DataError(f"{name}: row {number:,} {error}; cast it in the query") from error
        counts["record that cannot be used"] += 1
        return None


def _engine(url: str, name: str) -> Any:
    sqlalchemy = _sqlalchemy()
    try:
        return sqlalchemy.create_engine(_filled(url))
    except sqlalchemy.exc.NoSuchModuleError as error:
        raise DataError(f"{name}: SQLAlchemy knows no such database; use sqlite:///FILE or postgresql://...") from error
    except ModuleNotFoundError as error:
        if error.name == "psycopg":
            raise MissingExtraError(f"the database {name}", "sql") from error
        raise DataError(f"{name} needs the package {error.name!r}, which is not installed: pip install it") from error


def _connection(engine: Any, name: str) -> Any:
    try:
        return engine.connect()
    except _sqlalchemy().exc.SQLAlchemyError as error:
        raise DataError(f"{name}: cannot connect: {_reason(error)}") from error


def _filled(url: str) -> Any:
    """The address to connect to: each ${NAME} is that environment variable, as it is (nothing in it is escaped)."""
    if whole := _VARIABLE.fullmatch(url):
        return _parsed(environment_variable(whole[1], needed_by="url"))
    parsed = _parsed(url)
    parts = {part: getattr(parsed, part) for part in ("username", "password", "host", "database")}
    return parsed.set(
        query={key: _with_variables(value) if isinstance(value, str) else value for key, value in parsed.query.items()},
        **{part: _with_variables(str(value)) for part, value in parts.items() if value is not None},
    )


def _with_variables(text: str) -> str:
    return _VARIABLE.sub(lambda found: environment_variable(found[1], needed_by="url"), text)


def _parsed(url: str) -> Any:
    sqlalchemy = _sqlalchemy()
    try:
        return sqlalchemy.engine.make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        given = 'a source of kind "sql" has no url' if not url else "url is no database's address"
        raise DataError(f"{given}; give sqlite:///FILE or postgresql://USER:${{NAME}}@HOST/DATABASE") from None


def _column(names: list[str], wanted: str, database: str) -> int:
    if wanted in names:
        return names.index(wanted)
    if len(names) == 1:
        return 0
    raise DataError(f"{database}: the query has no column {wanted!r} (columns: {', '.join(names)}); set text_field")


def _reason(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0]


def _sqlalchemy() -> Any:
    try:
        import sqlalchemy
    except ImportError as error:
        raise MissingExtraError("a source of kind 'sql'", "sql") from error
    return sqlalchemy
