"""The report as Chromium shows it; without Chromium there is nothing to test (CONTRIBUTING.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.report.browser import CHROMIUM, faults_of, look

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


def test_the_demo_s_report_is_as_promised(simulated_run: Any) -> None:
    """Nothing logged, nothing loaded, no wider than a phone, dark in dark, and it prints."""
    seen, pdf = look(simulated_run.report)
    assert faults_of(seen) == []
    assert {view.ink for view in seen.values()} == {"rgb(27, 31, 36)", "rgb(230, 237, 243)"}
    assert pdf.startswith(b"%PDF")


def test_a_broken_page_is_seen(tmp_path: Path) -> None:
    """A picture from elsewhere, a page wider than the phone, no dark: each is a fault."""
    page = tmp_path / "broken.html"
    page.write_text(
        '<!doctype html><meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
        '<body style="color: black; background: white"><img src="missing.png"><div style="width: 700px">x</div>'
    )
    faults = " | ".join(faults_of(look(page)[0]))
    for fault in ("loads http", "404", "708 px wide on 390 px", "dark is as light"):
        assert fault in faults, faults
