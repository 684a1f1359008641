"""The runs that have the illnesses, made anew: each still has its own."""

from pathlib import Path

import pytest
from makers import MAKERS

from bertsmith.analysis.diagnose.diagnose import diagnose

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("illness", MAKERS)
def test_made_again(illness: str, tmp_path: Path) -> None:
    MAKERS[illness](tmp_path)
    assert illness in {finding.illness for finding in diagnose(tmp_path).findings}
