import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from bertsmith.artifact import is_current, open_artifact
from bertsmith.config import CorpusConfig, Source
from bertsmith.corpus import prepare, sources
from bertsmith.corpus.build import build_corpus, corpus_inputs, read_documents
from bertsmith.corpus.dedup import exact_key, split_key
from bertsmith.corpus.look import corpus_stats, find_documents
from bertsmith.corpus.prepare import split_of
from bertsmith.errors import ArtifactError, DataError, UsageError
from examples_case import corpus_config, made_up_text


def corpus_of(tmp_path: Path, text: str, **changes: object) -> Path:
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    build_corpus(corpus_config(tmp_path / "text.txt", **changes), tmp_path / "corpus", environment={})
    return tmp_path / "corpus"


def test_rows_splits_and_counts(tmp_path: Path) -> None:
    path = corpus_of(tmp_path, made_up_text(documents=200, sentences=5), test_share=0.1)
    documents = list(read_documents(path))
    manifest = json.loads((path / "manifest.json").read_text())["counts"]
    splits = [document.split for document in documents]
    assert manifest["documents"] == len(documents)
    assert manifest["splits"] == {split: splits.count(split) for split in ("test", "train", "validation")}
    assert 20 < splits.count("validation") < 60
    assert 8 < splits.count("test") < 40
    assert [document.id for document in read_documents(path, "test")] == [
        document.id for document in documents if document.split == "test"
    ]
    assert documents[0].text == "\n".join(documents[0].sentences)
    assert sum(len(document.sentences) for document in documents) == manifest["sentences"]
    schema = pq.read_schema(path / "part-00000.parquet")
    assert schema.names == ["id", "text", "source", "sentences", "split"]


def test_dropped_documents_are_counted_with_their_reason(tmp_path: Path) -> None:
    text = (
        "The same story again and again.\n\nshort\n\nthe SAME story again  and again.\n\nAnother story, long enough.\n"
    )
    path = corpus_of(tmp_path, text, min_characters=10, validation_share=0.0)
    counts = json.loads((path / "manifest.json").read_text())["counts"]
    assert counts["dropped"] == {"duplicate": 1, "too short": 1}
    assert [document.text for document in read_documents(path)] == [
        "The same story again and again.",
        "Another story, long enough.",
    ]
    kept = corpus_of(tmp_path, text, min_characters=10, validation_share=0.0, deduplicate=False)
    assert len(list(read_documents(kept))) == 3


def test_a_small_corpus_gives_each_wanted_split_a_document(tmp_path: Path) -> None:
    path = corpus_of(tmp_path, made_up_text(documents=4), validation_share=0.001, test_share=0.001)
    assert sorted(document.split for document in read_documents(path)) == ["test", "train", "train", "validation"]


def test_a_split_depends_on_the_text_alone() -> None:
    shares = {"validation_share": 0.1, "test_share": 0.1}
    drawn = [split_of(split_key(exact_key(f"document {number}")), **shares) for number in range(2000)]
    again = [split_of(split_key(exact_key(f"Document  {number}")), **shares) for number in range(2000)]
    assert drawn == again
    assert 150 < drawn.count("validation") < 250
    assert 150 < drawn.count("test") < 250


def test_duplicates_that_are_kept_are_in_one_split(tmp_path: Path) -> None:
    text = made_up_text(documents=80, sentences=3)
    path = corpus_of(tmp_path, text + "\n" + text.upper(), deduplicate=False, validation_share=0.3)
    splits: dict[bytes, set[str]] = {}
    for document in read_documents(path):
        splits.setdefault(exact_key(document.text), set()).add(document.split)
    assert all(len(found) == 1 for found in splits.values())
    assert set().union(*splits.values()) == {"train", "validation"}


def test_near_duplicates_boilerplate_and_evaluation_rows_are_left_out(tmp_path: Path) -> None:
    stories = made_up_text(documents=40, sentences=12).split("\n\n")
    menu = "Home, products, prices, about us, contact, and nothing else."
    near = stories[5].replace(stories[5].split()[7], "anotherword", 1)
    row = " ".join(stories[9].split()[20:36])
    (tmp_path / "rows.tsv").write_text(f"1\t{row}\n0\tshort\n", encoding="utf-8")
    documents = [f"{menu}\n{story}" for story in stories] + [near]
    changes = {
        "clean": {"boilerplate_documents": 20},
        "dedup": {"near": 0.8},
        "evaluation": [{"paths": [str(tmp_path / "rows.tsv")], "columns": [1]}],
        "validation_share": 0.0,
    }
    path = corpus_of(tmp_path, "\n\n".join(documents), **changes)
    counts = open_artifact(path, "corpus").counts
    assert counts["dropped"] == {"near duplicate": 1, "overlap with evaluation files": 1}
    assert counts["cleaned"]["boilerplate lines left out"] == len(stories)
    texts = [document.text for document in read_documents(path)]
    assert len(texts) == len(stories) - 1
    assert not any(menu in text or row in text.replace("\n", " ") for text in texts)
    before = open_artifact(path, "corpus").inputs
    assert any(name.startswith("evaluation: ") for name in before)
    (tmp_path / "rows.tsv").write_text(
        "1\tSomething else altogether, in as many words as it takes.\n", encoding="utf-8"
    )
    config = corpus_config(tmp_path / "text.txt", **changes)
    assert corpus_inputs(config) != before
    assert build_corpus(config, path, environment={}).counts["dropped"] == {"near duplicate": 1}


def test_a_line_that_is_most_of_the_corpus_is_called_out(tmp_path: Path) -> None:
    spam = "Buy two of them now and get the third one for nothing at all.\n" * 30
    path = corpus_of(tmp_path, "\n\n".join([spam, *made_up_text(documents=5, sentences=3).split("\n\n")]))
    (warning, *_) = open_artifact(path, "corpus").counts["warnings"]
    assert warning.startswith("the line 'Buy two of them now")
    assert open_artifact(corpus_of(tmp_path, made_up_text()), "corpus").counts["warnings"] == []


def test_parts_end_where_enough_text_is_in_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(read_documents(corpus_of(tmp_path, made_up_text())))
    monkeypatch.setattr(prepare, "PART_CHARACTERS", 5_000)
    monkeypatch.setattr(prepare, "_GROUP_CHARACTERS", 1_000)
    path = corpus_of(tmp_path, made_up_text())
    assert len(list(path.glob("part-*.parquet"))) > 3
    assert list(read_documents(path)) == whole


def test_max_documents(tmp_path: Path) -> None:
    assert len(list(read_documents(corpus_of(tmp_path, made_up_text(), max_documents=5)))) == 5


def test_an_empty_corpus_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no document is left in the corpus \(1 too short\)"):
        corpus_of(tmp_path, "short\n", min_characters=40)
    with pytest.raises(DataError, match="none was read"):
        build_corpus(CorpusConfig(), tmp_path / "corpus", environment={})
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_a_failure_keeps_the_corpus_that_was_there(tmp_path: Path) -> None:
    path = corpus_of(tmp_path, made_up_text())
    before = list(read_documents(path))
    (tmp_path / "text.txt").write_bytes(b"good\n\xff\n")
    with pytest.raises(DataError, match=r"text\.txt:2"):
        build_corpus(corpus_config(tmp_path / "text.txt"), path, environment={})
    assert list(read_documents(path)) == before


def test_a_changed_file_makes_a_corpus_stale(tmp_path: Path) -> None:
    path = corpus_of(tmp_path, made_up_text())
    config = corpus_config(tmp_path / "text.txt")
    wanted = {"kind": "corpus", "config": config.model_dump(mode="json")}
    assert is_current(path, **wanted, inputs=corpus_inputs(config))  # type: ignore[arg-type]
    (tmp_path / "text.txt").write_text("Something else is in there now.\n")
    assert not is_current(path, **wanted, inputs=corpus_inputs(config))  # type: ignore[arg-type]


def test_reading_what_is_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds no finished corpus"):
        list(read_documents(tmp_path))


@pytest.mark.data
def test_mixed_english_formats(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERTSMITH_DATA", str(shared_data))
    config = CorpusConfig(
        sources=(
            Source(kind="text", paths=("corpus/en/movie_reviews.txt",), layout="sentences"),
            Source(kind="text", paths=("corpus/en/wikitext2_*.txt",)),
            Source(kind="jsonl", paths=("corpus/en/gutenberg.jsonl",), unwrap=True),
        )
    )
    counts = build_corpus(config, tmp_path / "corpus", environment={}).counts
    sources = {name.rpartition("/")[2]: count["documents"] for name, count in counts["sources"].items()}
    assert sources["movie_reviews.txt"] > 1900
    assert sources["wikitext2_test.txt"] > 600
    assert sources["gutenberg.jsonl"] == 17
    assert counts["characters"] > 15_000_000
    emma = next(document for document in read_documents(tmp_path / "corpus") if document.source.endswith(".jsonl"))
    assert any(sentence.startswith("Emma Woodhouse, handsome, clever, and rich, with a") for sentence in emma.sentences)


@pytest.mark.data
def test_chinese(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERTSMITH_DATA", str(shared_data))
    config = CorpusConfig(sources=(Source(kind="jsonl", paths=("corpus/zh/modern.jsonl",)),), max_documents=300)
    counts = build_corpus(config, tmp_path / "corpus", environment={}).counts
    assert counts["documents"] == 300
    sentences = [text for document in read_documents(tmp_path / "corpus") for text in document.sentences]
    ended = sum(sentence[-1] in "。！？；：”」』）…，" for sentence in sentences)
    assert ended > 0.95 * len(sentences)
    assert max(map(len, sentences)) < 1000


def test_mixing_weights_repeat_and_thin_training_documents(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(made_up_text(documents=300, sentences=3, seed=1), encoding="utf-8")
    (tmp_path / "b.txt").write_text(made_up_text(documents=300, sentences=3, seed=2), encoding="utf-8")
    sources = [
        {"kind": "text", "layout": "sentences", "paths": [str(tmp_path / name)], "weight": weight}
        for name, weight in (("a.txt", 2.5), ("b.txt", 0.25))
    ]
    config = CorpusConfig.model_validate({"sources": sources, "min_characters": 5, "validation_share": 0.2})
    counts = build_corpus(config, tmp_path / "corpus", environment={}).counts
    documents = list(read_documents(tmp_path / "corpus"))
    assert len({document.id for document in documents}) == len(documents) == counts["documents"]
    held_out = [document for document in documents if document.split == "validation"]
    assert len({document.text for document in held_out}) == len(held_out)
    often = Counter(document.text for document in documents if document.source == "a.txt" and document.split == "train")
    assert set(often.values()) == {2, 3}
    assert 2.3 < often.total() / len(often) < 2.7
    thinned = sum(document.source == "b.txt" and document.split == "train" for document in documents)
    assert 0.15 < thinned / (thinned + counts["dropped"]["mixing weight"]) < 0.35
    assert {document.id.rpartition("~")[2] for document in documents if "~" in document.id} == {"2", "3"}


def test_everything_left_out_can_be_kept_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("The same story twice.\n\nshort\n\nThe same story twice.\n", encoding="utf-8")
    config = corpus_config(tmp_path / "text.txt", min_characters=10, validation_share=0.0)
    build_corpus(config, tmp_path / "corpus", environment={}, rejects=tmp_path / "rejects.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["id"], row["reason"], row["text"]) for row in rows] == [
        ("text.txt#3", "too short", "short"),
        ("text.txt#5", "duplicate", "The same story twice."),
    ]
    without = build_corpus(config, tmp_path / "without", environment={})
    assert without.digest == open_artifact(tmp_path / "corpus", "corpus").digest


def test_a_build_goes_on_from_the_chunks_that_are_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "CHUNK_BYTES", 3_000)
    (tmp_path / "text.txt").write_text(made_up_text(), encoding="utf-8")
    config = corpus_config(tmp_path / "text.txt")
    whole = build_corpus(config, tmp_path / "whole", environment={}).digest
    made: list[str] = []
    prepare_one = prepare._prepare

    def stop_at_the_fourth(task: prepare.PrepareTask, folder: Path) -> dict[str, Any]:
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(task.key)
        return prepare_one(task, folder)

    monkeypatch.setattr(prepare, "_prepare", stop_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        build_corpus(config, tmp_path / "corpus", environment={})
    assert not (tmp_path / "corpus").exists()

    def count(task: prepare.PrepareTask, folder: Path) -> dict[str, Any]:
        assert task.key not in made
        made.append(task.key)
        return prepare_one(task, folder)

    monkeypatch.setattr(prepare, "_prepare", count)
    assert build_corpus(config, tmp_path / "corpus", environment={}).digest == whole
    assert len(made) > 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "text.txt", "whole"]


def test_looking_at_a_corpus(tmp_path: Path) -> None:
    path = corpus_of(tmp_path, "The first story is about a whale.\n\nThe second one is about a lamp.\n\nshort\n",
                     min_characters=10, validation_share=0.0)  # fmt: skip
    found = corpus_stats(path)
    assert (found.documents, found.sentences, found.duplicates) == (2, 2, 0)
    assert found.dropped == {"too short": 1}
    assert found.lengths == {"below 32": 1, "below 64": 1}
    assert [document.id for document in find_documents(tmp_path, grep="[Ww]hale")] == ["text.txt#1"]
    with pytest.raises(UsageError, match="is no regular expression"):
        list(find_documents(path, grep="("))
    with pytest.raises(UsageError, match="no split 'dev'; use train, validation, test"):
        list(find_documents(path, split="dev"))
