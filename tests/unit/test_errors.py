"""Errors travel between processes: a worker's reaches the person as it was raised."""

import pickle

import pytest

from bertsmith.errors import BertsmithError, DataError, MissingExtraError


@pytest.mark.parametrize(
    "error",
    [DataError("is torn", path="text.txt", line=3), MissingExtraError("a source of kind 'sql'", "sql")],
    ids=lambda error: type(error).__name__,
)
def test_an_error_arrives_as_it_was_raised(error: BertsmithError) -> None:
    arrived = pickle.loads(pickle.dumps(error))
    assert (type(arrived), str(arrived)) == (type(error), str(error))
