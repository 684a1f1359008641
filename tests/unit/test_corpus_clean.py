import pickle
import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.config import CleanConfig, CorpusConfig
from bertsmith.corpus.boilerplate import line_hashes
from bertsmith.corpus.clean import Cleaned, Cleaner, Rejected, clean_text
from bertsmith.corpus.document import RawDocument
from bertsmith.corpus.overlap import Overlap

PROSE = "He went down to the river in the morning. Nobody else was there yet."
ROW = "the quick brown fox jumps over the lazy dog and runs away again"


def cleaner(**changes: object) -> Cleaner:
    return Cleaner(CorpusConfig(clean=CleanConfig.model_validate(changes)))


def reason(text: str, **changes: object) -> str | None:
    result = cleaner(**changes).clean(RawDocument("a", text, "b"))
    return result.reason if isinstance(result, Rejected) else None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("caf\u0065\u0301", "café"),
        ("doesnâ€™t", "doesn’t"),
        ("å¥½çš„", "好的"),
        ("a\r\nb\rc\u2028d", "a\nb\nc\nd"),
        ("\ufeffzero\u200bwidth\x00 \x07bell\x7f", "zerowidth bell"),
        ("lone \ud800 surrogate", "lone surrogate"),
        ("a \t\u00a0\u3000 b  ", "a b"),
        ("one\n \n\n\ntwo\n", "one\n\ntwo"),
        ("e\u200b\u0301", "é"),
        ("in some way Â\x85 we can't", "in some way … we can't"),  # a stray NEL is no line end
        ("fine: 10 µm, 20 °C\ndoesnâ€™t", "fine: 10 µm, 20 °C\ndoesn’t"),
        ("“引号”——好……", "“引号”——好……"),
        ("naïve façade, Übung", "naïve façade, Übung"),
    ],
)
def test_clean(text: str, expected: str) -> None:
    assert clean_text(text) == expected


@given(st.text(st.characters(exclude_categories=()), max_size=80))
def test_clean_text_is_writable_and_stays_as_it_is(text: str) -> None:
    cleaned = clean_text(text)
    cleaned.encode("utf-8")
    assert unicodedata.is_normalized("NFC", cleaned)
    assert not any(unicodedata.category(character) == "Cc" for character in cleaned if character not in "\n")


@given(st.text(st.characters(exclude_categories=()), max_size=80), st.sampled_from(["NFC", "NFKC", "off"]))
def test_cleaning_twice_is_cleaning_once(text: str, form: str) -> None:
    config = CleanConfig.model_validate({"unicode_form": form, "mend_mojibake": False})
    cleaned = clean_text(text, config)
    assert clean_text(cleaned, config) == cleaned


@pytest.mark.parametrize(
    ("change", "text", "expected"),
    [
        ({"mend_mojibake": False}, "doesnâ€™t", "doesnâ€™t"),
        ({"drop_control_characters": False}, "a\u200bb\x07 \ud800c", "a\u200bb\x07 c"),
        ({"unicode_form": "off"}, "e\u0301", "e\u0301"),
        ({"unicode_form": "NFKC"}, "ﬁne，好　的", "fine,好 的"),
        ({"squeeze_spaces": False}, " a\t  b \n\n\n", " a\t  b \n\n\n"),
    ],
)
def test_each_step_is_on_or_off_by_itself(change: dict[str, object], text: str, expected: str) -> None:
    assert clean_text(text, CleanConfig.model_validate(change)) == expected


def test_what_was_changed_is_counted() -> None:
    counts: Counter[str] = Counter()
    clean_text("doesnâ€™t\ncafe\u0301\x00\x07", counts=counts)
    assert counts == {
        "mojibake lines mended": 1,
        "control characters dropped": 2,
        "documents brought to one Unicode form": 1,
    }


def test_a_document_goes_through() -> None:
    raw = RawDocument("id", f"{PROSE}\n\n  {PROSE.upper()}\n", "file")
    assert cleaner().clean(raw) == Cleaned(
        f"{PROSE}\n\n{PROSE.upper()}",
        tuple(sentence for text in (PROSE, PROSE.upper()) for sentence in (text[:41], text[42:])),
    )


def test_sentences_that_the_source_gives_are_kept() -> None:
    raw = RawDocument("id", "", "file", ("One. Two.\u2028Three.", "  ", PROSE))
    result = cleaner().clean(raw)
    assert isinstance(result, Cleaned)
    assert result.sentences == ("One. Two. Three.", PROSE)
    assert result.text == f"One. Two. Three.\n{PROSE}"


@pytest.mark.parametrize(
    ("text", "changes", "expected"),
    [
        ("Short.", {}, "too short"),
        ("\x00" * 100, {}, "too short"),
        (PROSE, {"max_characters": 50}, "too long"),
        (PROSE, {"max_characters": 100}, None),
        ("1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 | 16 17 18 a b", {}, None),
        ("1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 | 16 17 18 a b", {"max_non_letter_share": 0.4}, "mostly not letters"),
        (PROSE, {"max_non_letter_share": 0.4}, None),
        ("那天早上，他走到河边。还没有别人来，只有水声。" * 3, {"max_non_letter_share": 0.4}, None),
        ("那天早上，他走到河边。还没有别人来，只有水声。" * 3, {"scripts": ["latin"]}, "another script"),
        ("那天早上，他走到 river 河边。还没有别人来。" * 3, {"scripts": ["han"]}, None),
        ("彼は朝、川のほとりまで歩いて行った。まだ誰も来ていなかった。" * 2, {"scripts": ["han"]}, "another script"),
        ("Утром он спустился к реке. Там ещё никого не было.", {"scripts": ["latin", "han"]}, "another script"),
        ("Утром он спустился к реке. Там ещё никого не было.", {"scripts": ["cyrillic"]}, None),
        (f"{PROSE}\n{PROSE}\n{PROSE.upper()}", {"max_repeated_line_share": 0.3}, "repeated lines"),
        (f"{PROSE}\n{PROSE}\n{PROSE.upper()}", {"max_repeated_line_share": 0.34}, None),
    ],
)
def test_refusals(text: str, changes: dict[str, object], expected: str | None) -> None:
    assert reason(text, **changes) == expected


def test_boilerplate_rows_and_masks() -> None:
    menu = "Home | About us | Contact | Imprint"
    config = CorpusConfig(clean=CleanConfig(mask_emails=True, mask_phones=True))
    one = Cleaner(config, boilerplate=line_hashes(menu), overlap=Overlap.from_rows([ROW]))
    one = pickle.loads(pickle.dumps(one))
    kept = one.clean(RawDocument("a", f"{menu}\n\n\n{PROSE}\nMail a.b@c.org or call +44 20 7946 0958.\n\n{menu}", "s"))
    assert isinstance(kept, Cleaned)
    assert kept.text == f"{PROSE}\nMail [EMAIL] or call [PHONE]."
    assert kept.sentences[-1] == "Mail [EMAIL] or call [PHONE]."
    refused = one.clean(RawDocument("b", f"{PROSE} {ROW.upper()}!", "s"))
    assert refused == Rejected("overlap with evaluation files")
    assert one.counts == {
        "boilerplate lines left out": 2,
        "e-mail addresses masked": 1,
        "phone numbers masked": 1,
    }
    assert one.lines(RawDocument("c", f" {menu}  \nshort", "s")).tolist() == line_hashes(menu).tolist()
