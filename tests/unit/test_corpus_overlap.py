import gzip
import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.config import EvaluationFiles
from bertsmith.corpus import grams
from bertsmith.corpus.grams import gram_hashes, token_hashes
from bertsmith.corpus.overlap import Overlap
from bertsmith.errors import DataError

LONG = "In the year of the flood nobody in the small town by the river could remember such rain."
SHORT = "Eight words stand in this little row here."
CHINESE = "中国科学院的研究人员在昨天的会议上宣布了一项新的重要发现"
HEADLINE = "北京今日迎来入冬第一场雪"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"He said: {LONG} Then he left.", True),
        (LONG.upper().replace(" ", ", "), True),
        ("A flood nobody in the small town by the river could remember such rain as this", True),  # 13 words of it
        ("A flood nobody in the small town by the river could remember such wind as this", False),  # 12
        (f"Look: {SHORT}", True),
        ("Eight words stand in this little row there.", False),
        ("Too few words.", False),
        (f"据报道，{CHINESE}。", True),
        ("他们说研究人员在昨天的会议上，宣布了一项新的重大发现", False),  # 19 characters
        ("他们说：研究人员在昨天的会议上宣布了一项新的重要的事", True),  # 20
        (f"新闻：{HEADLINE}，很美", True),
        ("北京今日迎来入冬第一场雨", False),
        ("", False),
    ],
)
def test_rows_are_found(text: str, expected: bool) -> None:
    overlap = Overlap.from_rows([LONG, SHORT, "Too few words.", CHINESE, HEADLINE, ""])
    assert (overlap.num_rows, overlap.num_short_rows) == (4, 2)
    assert pickle.loads(pickle.dumps(overlap)).found_in(text) is expected


@given(st.lists(st.sampled_from("abc"), min_size=0, max_size=40), st.lists(st.sampled_from("abc"), max_size=40))
def test_rows_are_found_as_comparing_all_finds_them(row: list[str], text: list[str]) -> None:
    length = min(len(row), 13)
    runs = {tuple(row[start : start + length]) for start in range(len(row) - length + 1)}
    expected = length >= 8 and any(
        tuple(text[start : start + length]) in runs for start in range(len(text) - length + 1)
    )
    assert Overlap.from_rows([" ".join(row)]).found_in(" ".join(text)) is expected


def test_tokens() -> None:
    assert token_hashes("Don't stop").tolist() == token_hashes("don’t—STOP!").tolist()
    assert len(token_hashes("他用 Python3 写程序。")) == 6
    assert len(set(token_hashes("ab ba abc a b 1 12 21 é 中 国").tolist())) == 11
    assert len(gram_hashes(token_hashes("a b c d"), 2)) == 3
    assert len(gram_hashes(token_hashes("a b"), 3)) == len(token_hashes("...")) == 0


@given(st.text("ab1 ,中国\n", max_size=60), st.integers(1, 9))
def test_a_long_text_is_read_in_pieces(text: str, size: int) -> None:
    whole = token_hashes(text).tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grams, "_CHARACTERS_AT_ONCE", size)
        assert token_hashes(text).tolist() == whole


def test_files(tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text(f"{SHORT}\n\nx\n", encoding="utf-8")
    (tmp_path / "rows.tsv").write_text(f"id\ttext\tother\n1\t{LONG}\t{HEADLINE}\n2\n", encoding="utf-8-sig")
    (tmp_path / "rows.csv").write_text(f'text,label\n"{LONG}",0\n', encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"a": {"b": [LONG]}, "c": HEADLINE}) + "\n\n", encoding="utf-8")
    (tmp_path / "rows.json").write_text(json.dumps([[SHORT], {"q": CHINESE}]), encoding="utf-8")

    def found(name: str, *columns: str | int) -> list[str]:
        overlap = Overlap.from_files([EvaluationFiles(paths=(name,), columns=columns)], [tmp_path])
        return [row for row in (LONG, SHORT, CHINESE, HEADLINE) if overlap.found_in(row)]

    with gzip.open(tmp_path / "packed.txt.gz", "wt", encoding="utf-8") as packed:
        packed.write(LONG)
    assert found("packed.txt.gz") == [LONG]
    assert found("rows.txt") == [SHORT]
    assert found("rows.tsv") == [LONG, HEADLINE]
    assert found("rows.tsv", "text") == found("rows.tsv", 1) == found("rows.csv") == found("rows.jsonl", "a") == [LONG]
    assert found("rows.json") == [SHORT, CHINESE]
    assert found("rows.*") == [LONG, SHORT, CHINESE, HEADLINE]


@pytest.mark.parametrize(
    ("name", "content", "columns", "message"),
    [
        ("a.tsv", b"id\ttext\n", ("body",), r"a\.tsv:1: no column 'body'; columns: id, text"),
        ("a.jsonl", b'{"text": "x"}\n', ("body",), r"a\.jsonl:1: no field 'body'; fields here: text"),
        ("a.jsonl", b"{\n", (), r"a\.jsonl:1: not JSON"),
        ("a.json", b"[", (), r"a\.json: not JSON"),
        ("a.txt.gz", b"\x1f\x8bno", (), r"a\.txt\.gz: cannot be read"),
        ("a.txt", b"caf\xe9\n", (), r"a\.txt: not UTF-8 \(byte 0xe9 at 3\)"),
    ],
)
def test_files_that_cannot_be_read(
    tmp_path: Path, name: str, content: bytes, columns: tuple[str, ...], message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        Overlap.from_files([EvaluationFiles(paths=(name,), columns=columns)], [tmp_path])
    with pytest.raises(DataError, match="matches no file"):
        Overlap.from_files([EvaluationFiles(paths=("nowhere.txt",))], [tmp_path])
