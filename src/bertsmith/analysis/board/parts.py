"""A rendered report, cut into parts that can be renewed one by one.

A part is a section without its charts, or a chart. A chart's place in its section is an empty figure with its name, so
a chart that somebody zoomed stays where it is while the text around it is renewed. The cuts are safe: of all that comes
from a run, no `<` gets into a page unescaped.
"""

import re
from collections import Counter
from html import unescape

from bertsmith.analysis.markup import text

_SECTION = re.compile(r'<section id="([\w-]+)".*?</section>', re.DOTALL)
_HEADER = re.compile(r"<header\b.*?</header>", re.DOTALL)
_FIGURE = re.compile(r'<figure\b[^>]*\bclass="chart.*?</figure>', re.DOTALL)
_GROUP = re.compile(r'data-group="([^"]*)"')
_CAPTION = re.compile(r"<b>(.*?)</b>", re.DOTALL)


def parts_of(page: str) -> dict[str, str]:
    """Name -> HTML: `header`, `section NAME` in the page's order, and after each section its `chart ...`s."""
    parts: dict[str, str] = {}
    header = _HEADER.search(page)
    if header is not None:
        parts["header"] = header[0]
    for section in _SECTION.finditer(page):
        charts: dict[str, str] = {}
        seen: Counter[str] = Counter()

        def placed(figure: re.Match[str], charts: dict[str, str] = charts, seen: Counter[str] = seen) -> str:
            said = [found[1] if (found := pattern.search(figure[0])) else "" for pattern in (_GROUP, _CAPTION)]
            name = "chart " + unescape("/".join(said))
            seen[name] += 1
            name += f" {seen[name]}" if seen[name] > 1 else ""
            charts[name] = figure[0]
            return f'<figure data-part="{text(name)}"></figure>'

        parts[f"section {section[1]}"] = _FIGURE.sub(placed, section[0])
        parts |= charts
    return parts
