"""Notes are cut, embedded and found; a QA model marks answers in them; spoilt indexes are refused in words."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from bertsmith.artifact import file_sha256, write_json
from bertsmith.cli import app
from bertsmith.corpus.document import RawDocument
from bertsmith.errors import ArtifactError, BertsmithError, DataError, UsageError
from bertsmith.model.encoder import BertModel
from bertsmith.model.heads import BertForQuestionAnswering
from bertsmith.model.weights import write_card
from bertsmith.serve.passages import cut, read_passages
from bertsmith.serve.retrieve import Index, build_index, reader_of
from bertsmith.tasks.predict import Predictor
from bertsmith.tokenizer.encode import Tokenizer
from finetune_case import tiny_config, write_tiny_model

NOTES = {
    "one.txt": "the day was lovely. it was so bright. tom was kind.",
    "two.txt": "rome is awful today. so gloomy and mean.",
    "rows.jsonl": '{"text": "paris is very bright"}\n{"text": "tom is in paris"}\n',
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Notes, a model of vectors, one that marks answers, and an index."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "notes").mkdir()
    for name, text in NOTES.items():
        (folder / "notes" / name).write_text(text)
    for name, head, card in (("embed", BertModel, {"task": "embed"}), ("qa", BertForQuestionAnswering, {})):
        base = write_tiny_model(folder / name)
        torch.manual_seed(1)
        head(tiny_config(Tokenizer.load(base).vocab_size)).save_pretrained(base)
        write_card(base, {"task": "answer", "options": {"stride": 2}} | card)
    write_card(folder / "embed", {"task": "embed"})
    build_index(notes(folder), folder / "index", model=folder / "embed", passage_tokens=12)
    return folder


def notes(folder: Path) -> list[str]:
    return [str(folder / "notes" / name) for name in NOTES]


def words(text: str, world: Path, max_tokens: int) -> list[str]:
    tokenizer = Tokenizer.load(world / "embed")
    found = list(cut(RawDocument("a", text, "a"), tokenizer, max_tokens=max_tokens))
    assert [one.place for one in found] == [f"a, passage {n}" for n in range(1, len(found) + 1)]
    assert all(len(ids) <= max_tokens for ids in tokenizer.encode_ids([one.text for one in found]))
    return [one.text for one in found]


def test_passages_share_a_sentence(world: Path) -> None:
    text = "the day was. it is. tom was so kind. rome is. so it is."
    assert words(text, world, 9) == [
        *("the day was. it is.", "it is. tom was so kind.", "tom was so kind. rome is.", "rome is. so it is."),
    ]
    assert words(text, world, 100) == [text]


def test_a_long_sentence_is_cut_and_nothing_is_lost(world: Path) -> None:
    text = "the day was so very lovely and it is so bright today. it is."
    found = words(text, world, 5)
    assert found[:2] == ["the day was so very", "lovely and it is so"]
    assert set(" ".join(found).split()) == set(text.split())
    assert words("", world, 5) == []


def test_files(world: Path) -> None:
    counts: Counter[str] = Counter()
    found = list(read_passages(notes(world), Tokenizer.load(world / "embed"), max_tokens=30, counts=counts))
    assert counts["documents"] == 4
    assert {one.source for one in found} == set(NOTES)
    assert [one.place for one in found if one.source == "rows.jsonl"] == [
        "rows.jsonl#1, passage 1",
        "rows.jsonl#2, passage 1",
    ]
    with pytest.raises(DataError, match="matches no file"):
        build_index(["no/*.txt"], world / "none", model=world / "embed")
    assert not (world / "none").exists()


def test_the_nearest_are_found(world: Path) -> None:
    index = Index.open(world / "index")
    texts = [one.text for one in index.passages]
    vectors = np.stack([answer.vector for answer in Predictor.load(world / "embed").predict(texts)])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for text, found, similarities in zip(texts, index.search(texts, top=3), vectors @ vectors.T, strict=True):
        assert found[0].passage.text == text
        wanted = np.sort(similarities)[::-1][:3]
        np.testing.assert_allclose([one.similarity for one in found], wanted, atol=1e-5)
    assert len(index.search(["tom"], top=99)[0]) == len(texts)
    assert index.search([]) == []


def test_answers_are_parts_of_what_was_found(world: Path) -> None:
    index, reader = Index.open(world / "index"), reader_of(world / "qa")
    ((*replies,),) = index.ask(["who was kind"], reader, top=4)
    assert replies
    for one in replies:
        assert one.found.passage.text[one.start : one.end] == one.text
        assert 0 < (one.probability or 0) <= 1
    ((alone,),) = index.ask(["who was kind"], top=1)
    assert (alone.text, alone.probability) == (alone.found.passage.text, None)
    with pytest.raises(UsageError, match="is a model of task embed; marking answers needs one of task answer"):
        reader_of(world / "embed")
    with pytest.raises(UsageError, match="an index needs one of task embed"):
        build_index(notes(world), world / "none", model=world / "qa")


def test_the_same_again(world: Path, tmp_path: Path) -> None:
    found = build_index(notes(world), tmp_path / "again", model=world / "embed", passage_tokens=12)
    assert (tmp_path / "again" / "manifest.json").read_bytes() == (world / "index" / "manifest.json").read_bytes()
    assert found.counts["documents"] == 4


def copied(world: Path, folder: Path, **files: bytes) -> Path:
    """The index with other files, and a manifest that says that they are right."""
    folder.mkdir()
    for file in (world / "index").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, content in files.items():
        path = folder / name.replace("_", ".")
        path.write_bytes(content)
        manifest["files"][path.name] = {"bytes": len(content), "sha256": file_sha256(path)}
    write_json(folder / "manifest.json", manifest)
    return folder


def saved(value: Any, folder: Path) -> bytes:
    save_file({"vectors": value}, folder / "some")
    return (folder / "some").read_bytes()


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (b"{", "Expecting property name"),
        (b'{"text": "a", "source": "b"}\n', r"a line of passages\.jsonl has not the texts text, source, place"),
        (b'{"text": 1, "source": "b", "place": "c"}\n', "has not the texts"),
        (b"\xff", "codec can't decode"),
        (b"[" * 100_000, "recursion|Expecting value"),
        (b"", r"vectors of shape .* for 0 passages"),
    ],
)
def test_hostile_passages(world: Path, tmp_path: Path, lines: bytes, reason: str) -> None:
    with pytest.raises(ArtifactError, match=f"is no index as bertsmith writes it .*{reason}"):
        Index.open(copied(world, tmp_path / "bad", passages_jsonl=lines))


def test_hostile_vectors(world: Path, tmp_path: Path) -> None:
    good = load_file(world / "index" / "vectors.safetensors")["vectors"]
    spoilt = good.copy()
    spoilt[0, 0] = np.nan
    shape, table = "vectors of shape", "holds no table of finite float32"
    bad = [(spoilt, table), (good[:-1], shape), (good[:, :-1].copy(), shape), (good[0], table)]
    for number, (value, reason) in enumerate([*bad, (good.astype(np.float64), table)]):
        folder = copied(world, tmp_path / f"bad{number}", vectors_safetensors=saved(value, tmp_path))
        with pytest.raises(ArtifactError, match=reason):
            Index.open(folder)
    for number, content in enumerate([b"", b"\xff" * 8, saved(good, tmp_path)[:-7]], 10):
        with pytest.raises(ArtifactError, match="is no index as bertsmith writes it"):
            Index.open(copied(world, tmp_path / f"bad{number}", vectors_safetensors=content))


def test_what_was_changed_or_is_another_models(world: Path, tmp_path: Path) -> None:
    folder = copied(world, tmp_path / "bad")
    (folder / "passages.jsonl").write_bytes((folder / "passages.jsonl").read_bytes()[:-1])
    with pytest.raises(BertsmithError, match="was changed after it was written"):
        Index.open(folder)
    write_card(write_tiny_model(tmp_path / "other"), {"task": "embed"})
    with pytest.raises(ArtifactError, match=r"was made by another model .*build it again \(bertsmith index\)"):
        Index.open(world / "index", model=tmp_path / "other")


def test_the_commands(world: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    said = run(app, ["index", str(world / "notes"), "--model", str(world / "embed"), "--out", str(tmp_path / "index")])
    assert said.exit_code == 0, said.output
    assert "passages of 4 documents" in said.output
    command = ["ask", str(tmp_path / "index"), "who was kind", "--top", "2"]
    said = run(app, command)
    assert said.exit_code == 0, said.output
    assert ", passage 1)" in said.output
    said = run(app, [*command, "--model", str(world / "qa"), "--json"])
    (found,) = json.loads(said.stdout)
    assert found["question"] == "who was kind"
    assert all(one["found"]["passage"]["source"] in NOTES for one in found["answers"])
