import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.corpus.sentences import language_of, split_sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He left. She stayed, e.g. at home. Why?", ("He left.", "She stayed, e.g. at home.", "Why?")),
        (
            "See Fig. 3 for ``a.b``. It works (really!). Next",
            ("See Fig. 3 for ``a.b``.", "It works (really!).", "Next"),
        ),
        ("A heading\nand a line", ("A heading", "and a line")),
        ("  \n\n", ()),
        ("他没有回答……天黑了。", ("他没有回答……", "天黑了。")),
        ("「走吧！」他喊道。", ("「走吧！」", "他喊道。")),
        ("孔子说：“学而时习之，不亦说乎？”这是第一句。", ("孔子说：“学而时习之，不亦说乎？”", "这是第一句。")),
        ("他喊：“快跑！着火了！”大家都跑了。", ("他喊：“快跑！着火了！”", "大家都跑了。")),
        ("真的吗？！我不信。", ("真的吗？！", "我不信。")),
        ("我想……我不知道……", ("我想……", "我不知道……")),
        ("（他走了。）后来呢？", ("（他走了。）", "后来呢？")),
        ("他停了停……，又走了。", ("他停了停……，又走了。",)),
        ("Hello world. 他来了。天黑了。好的。", ("Hello world.", "他来了。", "天黑了。", "好的。")),
        # Abbreviations, initials, numbers, addresses
        ("J. R. R. Tolkien wrote it. George W. Bush left.", ("J. R. R. Tolkien wrote it.", "George W. Bush left.")),
        (
            "He met Dr. Smith at 5 p.m. on Jan. 3. It was cold.",
            ("He met Dr. Smith at 5 p.m. on Jan. 3.", "It was cold."),
        ),
        ("See vol. 3, ch. 2 and fig. 4. Then p. 5.", ("See vol. 3, ch. 2 and fig. 4.", "Then p. 5.")),
        (
            "It has approx. 5 parts. See https://a.b/c?d=e. Bye.",
            ("It has approx. 5 parts.", "See https://a.b/c?d=e.", "Bye."),
        ),
        ("It costs 3.14 dollars. Version 2.0.1 is out.", ("It costs 3.14 dollars.", "Version 2.0.1 is out.")),
        ("The U.S. Senate voted. It did.", ("The U.S. Senate voted.", "It did.")),
        # Numbered lists
        ("5. SCIENTIFIC COOPERATION", ("5. SCIENTIFIC COOPERATION",)),
        ("IX. The strange lady came. He left.", ("IX. The strange lady came.", "He left.")),
        ("1. 第一条。2. 第二条。", ("1. 第一条。", "2. 第二条。")),
        # Marks inside a sentence
        ("But alas! she must go. He stayed.", ("But alas! she must go.", "He stayed.")),
        ("lol! yes! ok", ("lol!", "yes!", "ok")),
        ("What remains? nothing but this.", ("What remains?", "nothing but this.")),
        ("It opened! --exactly like a box. --You came.", ("It opened! --exactly like a box.", "--You came.")),
        ("我读了《怎么办？》这本书。很好。", ("我读了《怎么办？》这本书。", "很好。")),
        # Ellipses
        ("Hm… Fine. I guess…not. Well... Maybe.", ("Hm…", "Fine.", "I guess…not.", "Well...", "Maybe.")),
        ("“唉！……”他说。好吧。。。走。", ("“唉！……”", "他说。", "好吧。。。", "走。")),
        # Quotes
        ("“Where are you?” he asked. “Here.” She smiled.", ("“Where are you?” he asked.", "“Here.”", "She smiled.")),
        ("“你去哪儿？”他问道，“回家吗？”", ("“你去哪儿？”", "他问道，“回家吗？”")),
        ("他问：“这是谁？”；又问：“为什么？”。然后走了。", ("他问：“这是谁？”；又问：“为什么？”。", "然后走了。")),
        ("他说：“走吧。”，便走了。", ("他说：“走吧。”，便走了。",)),
        ("“学而不厌。”这句话很好。", ("“学而不厌。”这句话很好。",)),
        ("“没有结束引号。他走了。她来了。", ("“没有结束引号。", "他走了。", "她来了。")),
        ('他说："好的。"然后走了。', ('他说："好的。"', "然后走了。")),
        ("他走了。 她来了。", ("他走了。", "她来了。")),
        # Latin letters and decimals in Chinese
        ("W.H.奥登是诗人。价格为3.14元。", ("W.H.奥登是诗人。", "价格为3.14元。")),
        ("公司(Google Inc.)成立了。见www.example.com。", ("公司(Google Inc.)成立了。", "见www.example.com。")),
    ],
)
def test_sentences(text: str, expected: tuple[str, ...]) -> None:
    assert split_sentences(text) == expected


def test_no_text_is_lost() -> None:
    text = "“好。”他说……天黑了！」』然后？！。。走了 a.b. 「x」"
    assert "".join(split_sentences(text)).replace(" ", "") == text.replace(" ", "")


@given(st.text("ab AB.?!…—-19()\"'”“。！？，；：「」《》他说的这\n", max_size=60))
def test_no_text_is_lost_whatever_stands_there(text: str) -> None:
    sentences = split_sentences(text)
    assert "".join("".join(sentences).split()) == "".join(text.split())
    assert all(sentence == sentence.strip() != "" for sentence in sentences)


def test_language() -> None:
    assert language_of("他用 Python 写程序。") == "zh"
    assert language_of("The word 北京 means northern capital.") == "en"
    assert language_of("") == "en"
