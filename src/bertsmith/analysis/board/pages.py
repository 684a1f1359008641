"""The board's pages without their content, which scripts fetch and renew."""

from collections.abc import Sequence
from importlib import resources
from urllib.parse import urlencode

from bertsmith.analysis.markup import Html, tag

_STATIC = {
    "report.css": ("bertsmith.analysis", "text/css"),
    "report.js": ("bertsmith.analysis", "text/javascript"),
    "board.css": ("bertsmith.analysis.board", "text/css"),
    "runs.js": ("bertsmith.analysis.board", "text/javascript"),
    "live.js": ("bertsmith.analysis.board", "text/javascript"),
}
POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; style-src-elem 'self'; style-src-attr 'unsafe-inline'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content security: nothing runs but the board's own scripts, whatever a run's files hold. Bars have inline widths."""


def static(name: str) -> tuple[str, str] | None:
    """Text and content type of a style or script of the board; None where there is none of that name."""
    if name not in _STATIC:
        return None
    package, content_type = _STATIC[name]
    return resources.files(package).joinpath(name).read_text("utf-8"), f"{content_type}; charset=utf-8"


def runs_page(folder_name: str) -> str:
    """The table of runs."""
    search = {
        "type": "search",
        "id": "search",
        "placeholder": "Search: words, or step>1000 loss<3 score>=0.5",
        "aria-label": "Search runs",
        "autocomplete": "off",
        "spellcheck": "false",
    }
    compare = tag("a", {"id": "compare"}, "Compare")
    tools = tag(
        "div", {"class": "tools"}, _void("input", search), tag("div", {"id": "filters", "class": "filters"}), compare
    )
    return _page(
        f"{folder_name} · bertsmith board",
        ("runs.js",),
        tag("p", {"class": "kicker"}, "bertsmith board"),
        tag("h1", None, folder_name),
        tools,
        tag("p", {"id": "told", "class": "said", "role": "status"}, "Reading …"),
        tag(
            "div",
            {"class": "scroll"},
            tag("table", {"id": "runs", "class": "runs"}, tag("thead"), tag("tbody")),
        ),
        tag("button", {"id": "more", "type": "button", "hidden": True}, "Show more"),
    )


def report_page(name: str, whole: str | None) -> str:
    """The report of one run; `whole` is the run that it is a stage of."""
    link = tag("a", {"href": _address([whole])}, f"the whole run {whole}") if whole is not None else None
    return _live_page(name, [tag("b", None, name), link], None)


def compare_page(names: Sequence[str]) -> str:
    """Several runs beside each other."""
    links = [tag("li", None, tag("a", {"href": _address([name])}, name)) for name in names]
    heading = tag("header", None, tag("h1", None, f"{len(names)} runs compared"), tag("ol", {"class": "names"}, links))
    return _live_page(f"{len(names)} runs compared", [], heading)


def wrong_page(status: int, said: str) -> str:
    """An error, in words."""
    return _page(f"{status} · bertsmith board", (), tag("h1", None, str(status)), tag("p", None, said), _back())


def _address(names: Sequence[str]) -> str:
    return "/run?" + urlencode([("run", name) for name in names], errors="replace")


def _live_page(title: str, place: list[Html | None], heading: Html | None) -> str:
    told = tag("span", {"id": "told", "role": "status"}, "Reading …")
    top = tag("div", {"class": "top screen"}, _back(), place, told)
    return _page(
        f"{title} · bertsmith board", ("report.js", "live.js"), top, heading, tag("nav", {"hidden": True}), tag("main")
    )


def _back() -> Html:
    return tag("a", {"href": "/"}, "← all runs")


def _page(title: str, scripts: tuple[str, ...], *body: Html | None) -> str:
    head = tag(
        "head",
        None,
        tag("meta", {"charset": "utf-8"}),
        tag("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("meta", {"name": "color-scheme", "content": "light dark"}),
        tag("title", None, title),
        [_void("link", {"rel": "stylesheet", "href": f"/static/{name}"}) for name in ("report.css", "board.css")],
        _void("link", {"rel": "icon", "href": "data:,"}),
    )
    needed = tag("noscript", None, tag("p", None, "The board needs JavaScript; `bertsmith report RUN` does not."))
    run = [tag("script", {"src": f"/static/{name}"}) for name in scripts]
    return (
        f"<!doctype html>\n{tag('html', {'lang': 'en'}, head, tag('body', None, body, needed if run else None, run))}\n"
    )


def _void(name: str, attributes: dict[str, str]) -> Html:
    """An element that has no end tag."""
    return Html(tag(name, attributes).removesuffix(f"</{name}>"))
