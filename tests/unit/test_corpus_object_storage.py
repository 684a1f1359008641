"""Files in object storage: `s3://`, from a server of the tests' own."""

import gzip
import io
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bertsmith.corpus.files import find_files
from bertsmith.corpus.sources import source_inputs
from bertsmith.errors import DataError
from corpus_case import documents_of, source_of, texts

pytest.importorskip("s3fs", reason='no s3fs: pip install "bertsmith[s3]"')
moto_server = pytest.importorskip("moto.server", reason="no moto to stand in for S3: pip install 'moto[server]'")

LINES = "".join(f"line {number} of the text\n\n" for number in range(3000))


def parquet(*texts: str) -> bytes:
    written = io.BytesIO()
    pq.write_table(pa.table({"text": texts}), written)
    return written.getvalue()


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    import s3fs

    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "made-up",
            "AWS_SECRET_ACCESS_KEY": "made-up",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
        }.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        storage = s3fs.S3FileSystem()
        storage.mkdir("texts")
        for path, content in {
            "texts/en/a.txt": LINES.encode(),
            "texts/en/b.txt.gz": gzip.compress(b"one\n\ntwo\n"),
            "texts/en/.hidden": b"x",
            "texts/c.parquet": parquet("three", "four"),
        }.items():
            storage.pipe(path, content)
        yield "s3://texts"
        s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def test_folders_globs_and_files(bucket: str) -> None:
    assert [file.name for file in find_files([bucket])] == ["c.parquet", "en/a.txt", "en/b.txt.gz"]
    assert [file.path for file in find_files([f"{bucket}/en/*.txt*"])] == [
        f"{bucket}/en/a.txt",
        f"{bucket}/en/b.txt.gz",
    ]
    assert texts(f"{bucket}/en/b.txt.gz") == ["one", "two"]
    assert texts(f"{bucket}/c.parquet", kind="parquet") == ["three", "four"]


def test_ranges_of_a_large_file(bucket: str, tmp_path: Path) -> None:
    source = source_of(f"{bucket}/en/a.txt")
    found = [document.text for document in documents_of(source, chunk_bytes=10_000)]
    assert found == LINES.split("\n\n")[:-1]


def test_digests_are_the_storage_s_own(bucket: str) -> None:
    digests = source_inputs(source_of(f"{bucket}/en"))
    assert [digest.startswith("ETag ") and digest.endswith(" bytes") for digest in digests.values()] == [True, True]


def test_what_is_not_there(bucket: str) -> None:
    with pytest.raises(DataError, match=r"'s3://texts/de/\*\.txt' matches no file"):
        find_files([f"{bucket}/de/*.txt"])
    with pytest.raises(DataError, match=r"'s3://nobucket/a\.txt' (matches no file|cannot be listed)"):
        find_files(["s3://nobucket/a.txt"])


def test_a_file_that_goes_away(bucket: str) -> None:
    import s3fs

    s3fs.S3FileSystem().pipe("texts/gone.txt", b"one\n")
    gone = find_files([f"{bucket}/gone.txt"])[0]
    s3fs.S3FileSystem().rm("texts/gone.txt")
    with pytest.raises(OSError, match="gone"):
        gone.open()
