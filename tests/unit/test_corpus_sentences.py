import pytest

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
    ],
)
def test_sentences(text: str, expected: tuple[str, ...]) -> None:
    assert split_sentences(text) == expected


def test_no_text_is_lost() -> None:
    text = "“好。”他说……天黑了！」』然后？！。。走了 a.b. 「x」"
    assert "".join(split_sentences(text)).replace(" ", "") == text.replace(" ", "")


def test_language() -> None:
    assert language_of("他用 Python 写程序。") == "zh"
    assert language_of("The word 北京 means northern capital.") == "en"
    assert language_of("") == "en"
