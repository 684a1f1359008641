import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import xxhash
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bertsmith.corpus import dedup, spill
from bertsmith.corpus.dedup import Seen, exact_key, find_duplicates, split_key
from bertsmith.corpus.minhash import MinHasher, bands_and_rows

WORDS = [f"word{number}" for number in range(5000)]


def saved(
    folder: Path, texts: Sequence[str], *, borders: Sequence[int] = (), hasher: MinHasher
) -> dict[str, list[Path]]:
    """Key and signature files of chunks that end at `borders`."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, list[Path]] = {"exact": [], "signatures": []}
    for number, (start, stop) in enumerate(zip([0, *borders], [*borders, len(texts)], strict=True)):
        chunk = texts[start:stop]
        keys = np.frombuffer(b"".join(map(exact_key, chunk)), "<u8").reshape(-1, 2)
        signatures = np.array([hasher.signature(text) for text in chunk], np.uint32).reshape(
            -1, hasher.num_permutations
        )
        for kind, rows in (("exact", keys), ("signatures", signatures)):
            files[kind].append(folder / f"{kind}-{number}.npy")
            np.save(files[kind][-1], rows)
    return files


def by_comparing_all(texts: Sequence[str], threshold: float, hasher: MinHasher) -> list[int]:
    """What `find_duplicates` is to find, the slow way."""
    signatures = [hasher.signature(text) for text in texts]
    flags: list[int] = []
    for later, text in enumerate(texts):
        near = [kept for kept in range(later) if flags[kept] == 0]
        if exact_key(text) in map(exact_key, texts[:later]):
            flags.append(1)
        else:
            flags.append(2 * any((signatures[kept] == signatures[later]).mean() >= threshold for kept in near))
    return flags


def changed(text: str, num_words: int, draw: random.Random) -> str:
    words = text.split()
    for place in draw.sample(range(len(words)), num_words):
        words[place] = draw.choice(WORDS)
    return " ".join(words)


def test_seen() -> None:
    seen = Seen()
    assert not seen.add("One  two\nthree")
    assert seen.add("one two THREE ")
    assert not seen.add("one two four")


def test_equal_texts_fall_into_the_same_split_and_units_keep_together() -> None:
    keys = [exact_key(text) for text in ("One  two\nthree", "one two three", "one two four")]
    assert split_key(keys[0]) == split_key(keys[1]) != split_key(keys[2])
    assert split_key(keys[0], "module") == split_key(keys[2], "module") != split_key(keys[0], "other")
    shares = [split_key(exact_key(f"document {number}")) / 2**64 < 0.1 for number in range(2000)]
    assert 150 < sum(shares) < 250


texts_of_few_words = st.lists(
    st.lists(st.sampled_from(["a", "b", "c", "d", "E", "e"]), max_size=12).map(" ".join), max_size=25
)


@settings(deadline=None, max_examples=50)
@given(texts=texts_of_few_words, data=st.data())
def test_duplicates_are_those_that_comparing_all_finds(
    texts: list[str], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("chunks")
    hasher = MinHasher(64, 2)
    borders = sorted(data.draw(st.lists(st.integers(0, len(texts)), max_size=3)))
    files = saved(folder, texts, borders=borders, hasher=hasher)
    # With a threshold this low every band is one number, so that candidates are all pairs which share any.
    chunks = list(find_duplicates(files["exact"], files["signatures"], threshold=0.05, work=folder / "work"))
    assert [len(flags) for flags in chunks] == np.diff([0, *borders, len(texts)]).tolist()
    assert np.concatenate(chunks).tolist() == by_comparing_all(texts, 0.05, hasher)
    exact_alone = np.concatenate(list(find_duplicates(files["exact"], None, threshold=0.05, work=folder / "work")))
    assert exact_alone.tolist() == [
        exact_key(text) in map(exact_key, texts[:number]) for number, text in enumerate(texts)
    ]


def test_planted_near_duplicates_are_found_and_others_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(7)
    originals = [" ".join(draw.choices(WORDS, k=200)) for _ in range(150)]
    near = [changed(text, 2, draw) for text in originals]  # similarity about 0.9: one change spoils five shingles
    far = [changed(text, 40, draw) for text in originals]  # about 0.2
    order = list(range(450))
    draw.shuffle(order)
    texts = [(originals + near + far)[place] for place in order]
    hasher = MinHasher()
    files = saved(tmp_path, texts, borders=(100, 100, 255), hasher=hasher)
    flags = np.concatenate(
        list(find_duplicates(files["exact"], files["signatures"], threshold=0.7, work=tmp_path / "w"))
    )
    is_far = np.array(order) >= 300
    assert not flags[is_far].any()
    assert (flags[~is_far] == 2).sum() >= 0.99 * 150
    expected = by_comparing_all(texts, 0.7, hasher)
    assert (flags == expected).mean() > 0.998
    monkeypatch.setattr(spill, "_RECORDS_OF_A_PART", 150)
    monkeypatch.setattr(dedup, "_PAIRS_AT_ONCE", 7)
    monkeypatch.setattr(dedup, "_ROWS_AT_ONCE", 64)
    in_parts = find_duplicates(files["exact"], files["signatures"], threshold=0.7, work=tmp_path / "w")
    assert np.concatenate(list(in_parts)).tolist() == flags.tolist()
    assert not list((tmp_path / "w").iterdir())


def test_the_work_for_many_that_look_alike_is_bounded() -> None:
    same = np.array([[5, number] for number in range(1000)] + [[9, 1000], [9, 1001]], np.uint64)
    pairs = np.concatenate(list(dedup._candidates(same)))
    assert len(pairs) < 64 * 1000
    assert (pairs[:, 0] > pairs[:, 1]).all()
    assert {tuple(pair) for pair in pairs[pairs[:, 0] < 65].tolist()} == {(b, a) for b in range(65) for a in range(b)}
    assert [1001, 1000] in pairs.tolist()


@pytest.mark.parametrize("similarity", [0.5, 0.8, 0.95])
def test_a_signature_tells_the_similarity(similarity: float) -> None:
    estimates = []
    for trial in range(40):
        words = [f"{trial}-{number}" for number in range(1000)]
        shared = round(2 * 500 * similarity / (1 + similarity))
        one, other = words[:500], words[500 - shared : 1000 - shared]
        hasher = MinHasher(128, 1)
        # Hyphens part words, so each stands for itself with its trial: sets of words with a known overlap.
        signatures = [hasher.signature(" ".join(word.replace("-", "x") for word in side)) for side in (one, other)]
        estimates.append((signatures[0] == signatures[1]).mean())
    deviation = (similarity * (1 - similarity) / 128) ** 0.5
    assert abs(np.mean(estimates) - similarity) < 4 * deviation / 40**0.5
    assert np.std(estimates) < 1.5 * deviation


def test_signatures_of_texts_without_shingles() -> None:
    hasher = MinHasher(16, 5)
    assert (hasher.signature("two words") == hasher.signature("Two, words!")).all()
    assert (hasher.signature("!!!") != hasher.signature("???")).any()
    assert hasher.signature("").shape == (16,)
    assert (hasher.signature("今天天气很好，我们去公园") == hasher.signature("今天天气很好。我们去公园")).all()


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 0.99])
def test_bands_leave_little_at_the_threshold_unseen(threshold: float) -> None:
    bands, rows = bands_and_rows(128, threshold)
    assert bands * rows <= 128
    assert 1 - (1 - threshold**rows) ** bands >= 0.99
    assert bands_and_rows(128, 0.8) == (21, 6)


@given(st.text(st.sampled_from("aB \t\n\r\x0b\x0c\x1c\x1f\x85é\u3000"), max_size=30))
@example("  A b\n\n\tc ")
def test_the_key_of_ascii_text_is_that_of_its_formula(text: str) -> None:
    assert exact_key(text) == xxhash.xxh3_128_digest(" ".join(text.casefold().split()).encode())
