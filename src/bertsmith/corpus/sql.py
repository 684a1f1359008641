"""Documents in a database: the rows of a query, streamed by a server-side cursor."""

from collections.abc import Iterator
from typing import Any

from bertsmith.config import Source
from bertsmith.corpus.document import RawDocument
from bertsmith.corpus.plain_text import unwrap
from bertsmith.errors import DataError, MissingExtraError

_ROWS_AT_ONCE = 1000


def shown_url(url: str) -> str:
    """The database's address without its password."""
    return str(_sqlalchemy().engine.make_url(url).render_as_string(hide_password=True))


def read_query(source: Source) -> Iterator[RawDocument]:
    """The text column of each row of `source.query`, a thousand rows in memory at a time.

    A document's id is its row's number: order the query (ORDER BY), or ids and with them the split may change. Raises
    `DataError` for a database that cannot be reached and for a query that fails, at its start or in the middle.
    """
    sqlalchemy = _sqlalchemy()
    if not source.query:
        raise DataError('a source of kind "sql" has no query; give query = "SELECT ..."')
    name = shown_url(source.url)
    number = 0
    try:
        engine = sqlalchemy.create_engine(source.url)
        try:
            with engine.connect() as connection:
                stream = connection.execution_options(stream_results=True, yield_per=_ROWS_AT_ONCE)
                rows = stream.execute(sqlalchemy.text(source.query))
                column = _column(list(rows.keys()), source.text_field, name)
                for number, row in enumerate(rows, start=1):
                    yield _document(source, name, number, row[column])
        finally:
            engine.dispose()
    except (sqlalchemy.exc.SQLAlchemyError, sqlalchemy.exc.DBAPIError) as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise DataError(f"{name}: the query failed after {number:,} rows: {reason}") from error
    except ImportError as error:
        raise MissingExtraError(f"the database {name}", "sql") from error


def _column(names: list[str], wanted: str, database: str) -> int:
    if wanted in names:
        return names.index(wanted)
    if len(names) == 1:
        return 0
    raise DataError(f"{database}: the query has no column {wanted!r} (columns: {', '.join(names)}); set text_field")


def _document(source: Source, name: str, number: int, value: Any) -> RawDocument:
    if not isinstance(value, str):
        raise DataError(f"{name}: row {number:,} holds {type(value).__name__}, not text; leave NULLs out of the query")
    text = "\n\n".join(unwrap(value.splitlines())) if source.unwrap else value
    return RawDocument(f"{name}#{number}", text, name)


def _sqlalchemy() -> Any:
    try:
        import sqlalchemy
    except ImportError as error:
        raise MissingExtraError("a source of kind 'sql'", "sql") from error
    return sqlalchemy
