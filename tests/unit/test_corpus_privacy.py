import pytest

from bertsmith.corpus.privacy import mask_emails, mask_phones


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write to jane.doe+news@mail.example.co.uk.", "Write to [EMAIL]."),
        ("<bob_1@example.com>, mailto:al@ex-ample.org", "<[EMAIL]>, mailto:[EMAIL]"),
        ("联系邮箱:zhangsan@163.com。谢谢", "联系邮箱:[EMAIL]。谢谢"),
    ],
)
def test_emails(text: str, expected: str) -> None:
    masked, count = mask_emails(text)
    assert masked == expected
    assert count == expected.count("[EMAIL]")


@pytest.mark.parametrize(
    "text",
    ["a @-@ b", "@user said", "meet @ 5.30", "x@y", "f(a)@b.c_d", "git@host:path", "1@2.3", "pkg@1.2.3", "@property"],
)
def test_no_emails(text: str) -> None:
    assert mask_emails(text) == (text, 0)


@pytest.mark.parametrize(
    "number",
    [
        "+44 20 7946 0958",
        "+86 138 0013 8000",
        "+8613800138000",
        "+33 1 42 68 53 00",
        "+49 (30) 901820",
        "+1-212-555-0134",
        "+1 (212) 555-0134",
        "(212) 555-0134",
        "1-800-555-0199",
        "212-555-0134",
        "212.555.0134",
        "13800138000",
        "138-0013-8000",
        "86-13800138000",
        "010-62561234",
        "0571-8765-4321",
        "（021）62561234",
        "(010) 62561234-801",
        "010-62561234转801",
        "400-820-8820",
        "400-8208-820",
    ],
)
@pytest.mark.parametrize("around", ["Call {} now.", "{}", "我的号码是{}，请记下", "({})", "home: {}; office"])
def test_phones(number: str, around: str) -> None:
    assert mask_phones(around.format(number)) == (around.format("[PHONE]"), 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Tel: 020 7946 0958", "Tel: [PHONE]"),
        ("phone number 5550134, room 12", "phone number [PHONE], room 12"),
        ("Fax 62561234 or Tel. (020) 79460958", "Fax [PHONE] or Tel. [PHONE]"),
        ("电话：6256 1234，传真：62561235", "电话：[PHONE]，传真：[PHONE]"),
        ("手机号138 0013 8000", "手机号[PHONE]"),
    ],
)
def test_phones_after_a_word_that_says_so(text: str, expected: str) -> None:
    assert mask_phones(text) == (expected, expected.count("[PHONE]"))


@pytest.mark.parametrize(
    "text",
    [
        "2023-01-15, 15/01/2023, 2004-2005, 20230115123456",
        "电话会议 2023-01-15 举行",
        "电话是2023年装的",
        "at 12:30:45.123456",
        "ISBN 978-7-302-51234-5, ISBN 0-306-40615-2, 9787302512345",
        "192.168.100.1 and 10.0.0.255",
        "1,234,567,890 dollars, $2125550134, 3.14159265358979",
        "212 555 0134 300 415 1600",
        "12 13800 138 0013 8000",
        "a = 13800138000 * x + 15600000000*y",
        "id_13800138000, v13800138000, 13800138000.5, 138001380001",
        "lines 100-2000, pages 123-456-78",
        "+1.0000000, +0.42439636, +1980-02-29",
        "[+10 +10 +10 +10 +10]",
        "10086 or 110",
        "http://example.com/212-555-0134",
        "1695123456 1695123456789",
    ],
)
def test_no_phones(text: str) -> None:
    assert mask_phones(text) == (text, 0)
