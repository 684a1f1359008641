"""The page to try a model, in a real browser; without Debian's chromium (apt-get install chromium) it is skipped."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from serve_case import running

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("models")) as (found, _):
        yield found


@pytest.fixture(scope="module")
def page(address: str) -> Iterator[Any]:
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(address)
        page.wait_for_selector("#go:not([disabled])")
        yield page
        browser.close()
        assert faults == []


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        ("classify", ".bar"),
        ("multilabel", ".bar"),
        ("rate", ".best"),
        ("choose", ".bar"),
        ("tag", "p"),
        ("answer", "p"),
        ("fill", ".bar"),
        ("pretrained", ".bar"),
        ("next", ".bar"),
        ("embed", ".bar"),
    ],
)
def test_each_head_is_shown(page: Any, model: str, shown: str) -> None:
    options = page.locator("#model option").all_inner_texts()
    place = next(number for number, text in enumerate(options) if text.startswith(f"{model} ("))
    page.select_option("#model", index=place)
    page.click("#go")
    page.wait_for_selector(f"#found {shown}")
    assert page.locator("#found .wrong").count() == 0
    assert "tokens" in page.locator("#found").inner_text()


def test_what_was_typed_is_shown_as_text_and_a_fault_in_words(page: Any) -> None:
    page.select_option("#model", index=0)
    page.fill("textarea", "<img src=x onerror=alert(1)> no mask")
    page.click("#go")
    page.wait_for_selector("#found .wrong")
    assert "[MASK]" in page.locator("#found").inner_text()
    assert page.locator("#found img").count() == 0


def test_nothing_is_asked_of_other_machines(address: str, tmp_path: Path) -> None:
    import httpx

    policy = httpx.get(address).headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
