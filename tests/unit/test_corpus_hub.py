"""Datasets of the hub, from a server of the tests' own; each is read by a process that knows no other hub."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bertsmith.corpus.hub import dataset_files
from bertsmith.errors import DataError
from hub_case import running_hub

READ = """
import json, sys, time
from collections import Counter
from bertsmith.config import Source
from bertsmith.corpus.sources import plan_chunks, read_chunk, source_inputs
from bertsmith.errors import BertsmithError

time.sleep = lambda seconds: None  # the hub's client waits longer and longer between its tries

try:
    source = Source.model_validate({"kind": "hub", **json.loads(sys.argv[1])})
    documents = [
        [document.id, document.text] for chunk in plan_chunks(source) for document in read_chunk(chunk, Counter())
    ]
    print(json.dumps({"documents": documents, "inputs": source_inputs(source)}))
except BertsmithError as error:
    print(json.dumps({"error": str(error)}))
"""


def parquet(*texts: str) -> bytes:
    written = io.BytesIO()
    pq.write_table(pa.table({"text": texts}), written, row_group_size=100, compression="none")
    return written.getvalue()


DATASETS = {
    "some/tables": {
        "main": {
            "README.md": b"# Tables",
            "data/train-0.parquet": parquet("one", "two"),
            "data/train-1.parquet": parquet("three"),
            "data/test-0.parquet": parquet("four"),
        },
        "v1": {"data/train-0.parquet": parquet("old")},
    },
    "some/lines": {"main": {"README.md": b"# Lines", "a.jsonl": b'{"body": "one"}\n{"body": "two"}\n', "b.csv": b"x"}},
    "some/pictures": {"main": {"README.md": b"# Pictures", "a.jpg": b"picture"}},
    "some/large": {"main": {"a.parquet": parquet(*(f"{number:01000d}" for number in range(6000)))}},
}


def read_hub(endpoint: str, home: Path, **settings: object) -> dict[str, Any]:
    ran = subprocess.run(
        [sys.executable, "-c", READ, json.dumps(settings)],
        env=os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_parquet_files_by_name_and_by_pattern(tmp_path: Path) -> None:
    with running_hub(DATASETS) as hub:
        found = read_hub(hub, tmp_path, dataset="some/tables")
        assert found["documents"] == [
            ["some/tables/data/test-0.parquet#1", "four"],
            ["some/tables/data/train-0.parquet#1", "one"],
            ["some/tables/data/train-0.parquet#2", "two"],
            ["some/tables/data/train-1.parquet#1", "three"],
        ]
        assert all(digest.startswith("blob_id ") for digest in found["inputs"].values())
        found = read_hub(hub, tmp_path, dataset="some/tables", paths=["data/train-*.parquet"])
        assert [text for _, text in found["documents"]] == ["one", "two", "three"]
    assert not any(path.is_file() and path.stat().st_size > 1000 for path in tmp_path.rglob("*")), "something was kept"


def test_a_revision(tmp_path: Path) -> None:
    with running_hub(DATASETS) as hub:
        found = read_hub(hub, tmp_path, dataset="some/tables@v1")
        assert found["documents"] == [["some/tables@v1/data/train-0.parquet#1", "old"]]
        found = read_hub(hub, tmp_path, dataset="some/tables@v2")
        assert found["error"].startswith("dataset 'some/tables@v2': ")
        assert "v2" in found["error"]


def test_json_lines(tmp_path: Path) -> None:
    with running_hub(DATASETS) as hub:
        found = read_hub(hub, tmp_path, dataset="some/lines", text_field="body")
    assert found["documents"] == [["some/lines/a.jsonl#1", "one"], ["some/lines/a.jsonl#2", "two"]]


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("some/nothing", "dataset 'some/nothing': 'hf://datasets/some/nothing/' matches no file"),
        (
            "some/pictures",
            "dataset 'some/pictures' holds no file we read (.parquet, .jsonl, .json, .csv, .tsv, .txt), only: .j",
        ),
    ],
)
def test_datasets_that_cannot_be_read(tmp_path: Path, dataset: str, message: str) -> None:
    with running_hub(DATASETS) as hub:
        assert read_hub(hub, tmp_path, dataset=dataset)["error"].startswith(message)


def test_a_hub_that_breaks_off(tmp_path: Path) -> None:
    size = len(DATASETS["some/large"]["main"]["a.parquet"])
    assert size > 4 << 20, "one read would fetch it whole"
    with running_hub(DATASETS, breaks_after=size - 500_000) as hub:
        error = read_hub(hub, tmp_path, dataset="some/large")["error"]
    assert "hf://datasets/some/large/a.parquet: " in error


def test_a_hub_that_is_not_there(tmp_path: Path) -> None:
    error = read_hub("http://127.0.0.1:9", tmp_path, dataset="some/tables")["error"]
    assert error.startswith("dataset 'some/tables': ")


def test_a_source_without_a_dataset() -> None:
    with pytest.raises(DataError, match=r'kind "hub" names no dataset; give dataset = "OWNER/NAME"'):
        dataset_files("", ())
