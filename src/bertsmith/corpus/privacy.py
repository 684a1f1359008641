"""E-mail addresses and phone numbers written over with a placeholder.

Phone numbers are found by their written form, so that dates, ISBNs, IP addresses, prices and columns of numbers stay:

    +44 20 7946 0958          a plus sign and 8 to 15 digits (E.164), parted as people part them
    (212) 555-0134            North America: 3-3-4 digits with brackets, hyphens or dots, area and exchange from 2 up
    13800138000               China, mobile: 11 digits from 13 to 19, together or parted 3-4-4
    010-62561234              China, landline: area code from 0, 7 or 8 digits, an extension if any; 400 and 800 lines
    Tel: 020 7946 0958        any 7 to 15 digits, parted, after a word that says so in English or Chinese

A number with none of these forms (`555 0134` in a sentence) is not found: what is masked is meant to be right rather
than complete. Names and street addresses stay.
"""

import re

EMAIL = "[EMAIL]"
PHONE = "[PHONE]"

_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?\.)+"
    r"[A-Za-z]{2,24}(?![A-Za-z0-9-])"
)
_BEFORE = r"(?<![0-9A-Za-z_.,/#$=+-])(?<![-+*/=] )"
"""No part of a longer number, word, path or sum stands before a phone number ..."""
_AFTER = r"(?![0-9A-Za-z_]|[-.,/:][0-9]| ?[*/=%])"
"""... nor after it."""
_FORMS = (
    r"\+(?!(?:19|20)[0-9]{2}-[01][0-9]-[0-3][0-9])"
    r"(?=(?:[ ()-]{0,2}[0-9]){8,15}(?![0-9]))[1-9][0-9]{0,2}(?:[ -]?(?:\([0-9]{1,5}\)|[0-9]{1,14})){1,6}",
    r"(?:\+?1[ .-]?)?\([2-9][0-9]{2}\) ?[2-9][0-9]{2}[ .-][0-9]{4}",
    r"(?:\+?1[.-])?[2-9][0-9]{2}(?P<part>[.-])[2-9][0-9]{2}(?P=part)[0-9]{4}",
    r"(?:86-?)?1[3-9][0-9](?:[0-9]{8}|-[0-9]{4}-[0-9]{4})",
    r"(?:0[0-9]{2,3}-|[(（]0[0-9]{2,3}[)）][ -]?)[2-9](?:[0-9]{6,7}|[0-9]{2,3}-[0-9]{4})(?:(?:-|转)[0-9]{1,5})?",
    r"[48]00-[0-9]{3}-[0-9]{4}|[48]00-[0-9]{4}-[0-9]{3}",
)
_PHONE = re.compile(_BEFORE + "(?:" + "|".join(_FORMS) + ")" + _AFTER)
_SAID = re.compile(
    r"((?:\b(?:tel|telephone|phone|fax|mobile|cell|hotline)(?: (?:no|number))?|电话|手机|传真|热线|联系方式)"
    r"(?:号码|号)?(?:[.:：]|是|为)* ?)"
    r"(?!(?:19|20)[0-9]{2}[-./年])(?=(?:[ .()/-]{0,2}[0-9]){7,15}(?![0-9]))"
    r"[+(]?[0-9](?:[ .()/-]{0,2}[0-9]){6,14}" + _AFTER,
    re.IGNORECASE,
)
_SEVEN_DIGITS = re.compile(r"[0-9](?:[ .()（）/+-]{0,3}[0-9]){6}")
"""Every phone number has them, few other lines do: a quick look before a slow one."""


def mask_emails(text: str) -> tuple[str, int]:
    """The text with `[EMAIL]` for each e-mail address, and their number."""
    return _EMAIL.subn(EMAIL, text) if "@" in text else (text, 0)


def mask_phones(text: str) -> tuple[str, int]:
    """The text with `[PHONE]` for each phone number, and their number."""
    if not _SEVEN_DIGITS.search(text):
        return text, 0
    lines, masked = text.split("\n"), 0
    for number, line in enumerate(lines):
        if _SEVEN_DIGITS.search(line):
            line, said = _SAID.subn(rf"\g<1>{PHONE}", line)
            lines[number], others = _PHONE.subn(PHONE, line)
            masked += said + others
    return "\n".join(lines), masked
