"""Learning a vocabulary, stopped half-way: no part is counted twice, and the artifact is the same."""

from pathlib import Path
from typing import Any

import pytest

from bertsmith.artifact import work_folder
from bertsmith.config import CorpusConfig, Source, TokenizerConfig
from bertsmith.corpus.build import build_corpus
from bertsmith.errors import RecipeError
from bertsmith.tokenizer import count
from bertsmith.tokenizer.train import train_tokenizer
from examples_case import made_up_text

PARTS = 4


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of some parts, with more than ASCII."""
    folder = tmp_path_factory.mktemp("made")
    for number in range(PARTS):
        text = made_up_text(documents=20, seed=number) + "\n\n天地玄黄。 naïve \U0001f600 words.\n"
        (folder / f"{number}.txt").write_text(text, encoding="utf-8")
    sources = tuple(Source(kind="text", paths=(str(folder / f"{n}.txt"),), layout="sentences") for n in range(PARTS))
    build_corpus(CorpusConfig(sources=sources, min_characters=1), folder / "corpus", environment={})
    assert len(list((folder / "corpus").glob("part-*"))) == PARTS
    return folder / "corpus"


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the parts that are counted."""
    read, names = count.read_sentences, list[str]()

    def noted(part: Path, split: str) -> Any:
        names.append(part.name)
        return read(part, split)

    monkeypatch.setattr(count, "read_sentences", noted)
    return names


def train(corpus: Path, out: Path, **settings: Any) -> dict[str, bytes]:
    """The files of the artifact but run.json, which tells the time."""
    train_tokenizer(TokenizerConfig(**{"vocab_size": 300, **settings}), corpus, out, environment={})
    assert not list(out.parent.glob(f".{out.name}*")), "something is left behind"
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.name != "run.json"}


def stop_at_the_third_part(corpus: Path, out: Path, monkeypatch: pytest.MonkeyPatch, counted: list[str]) -> None:
    words = count.count_words

    def stop(*arguments: Any, **more: Any) -> Any:
        if len(counted) == 3:
            raise KeyboardInterrupt
        return words(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(count, "count_words", stop)
        with pytest.raises(KeyboardInterrupt):
            train(corpus, out)


def test_stopped_after_some_parts_it_goes_on(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[str]
) -> None:
    expected = train(corpus, tmp_path / "straight")
    assert len(counted) == PARTS
    counted.clear()
    stop_at_the_third_part(corpus, tmp_path / "out", monkeypatch, counted)
    assert not (tmp_path / "out").exists()
    assert len(list(work_folder(tmp_path / "out").iterdir())) == 2
    assert train(corpus, tmp_path / "out") == expected
    assert counted == [f"part-{number:05d}.parquet" for number in (0, 1, 2, 2, 3)]


def test_other_settings_count_anew(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[str]
) -> None:
    stop_at_the_third_part(corpus, tmp_path / "out", monkeypatch, counted)
    train(corpus, tmp_path / "out", lowercase=False)
    assert len(counted) == 3 + PARTS


def test_nothing_is_left_where_the_recipe_is_wrong(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="has no room"):
        train(corpus, tmp_path / "out", vocab_size=20)
    assert not list(tmp_path.iterdir())
