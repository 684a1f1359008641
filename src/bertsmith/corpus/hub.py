"""A dataset of the model hub, by name: its files are read from there as they stand, range by range."""

from collections.abc import Sequence
from dataclasses import replace

from bertsmith.corpus.files import SourceFile, find_files
from bertsmith.errors import DataError

_READABLE = (".parquet", ".jsonl", ".json", ".csv", ".tsv", ".txt")


def dataset_files(name: str, paths: Sequence[str]) -> list[SourceFile]:
    """Files of dataset `name` (owner/name, or owner/name@revision) that match `paths`, such as `data/train-*.parquet`.

    Without paths: every Parquet file, or every file of the first kind there is. A file's name begins with the
    dataset's. Raises `DataError` for a dataset that is not there or holds no file we read. Nothing is kept on this
    machine.
    """
    if not name:
        raise DataError('a source of kind "hub" names no dataset; give dataset = "OWNER/NAME"')
    root = f"hf://datasets/{name}/"
    try:
        files = find_files([root + path for path in paths or [""]])
    except DataError as error:
        raise DataError(f"dataset {name!r}: {error}") from error
    for suffix in _READABLE:
        chosen = [file for file in files if file.suffix == suffix]
        if chosen:
            return [replace(file, name=f"{name}/{file.path.removeprefix(root)}") for file in chosen]
    kinds = ", ".join(sorted({file.suffix or "no ending" for file in files}))
    raise DataError(f"dataset {name!r} holds no file we read ({', '.join(_READABLE)}), only: {kinds}")
