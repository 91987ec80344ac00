"""The page in a real browser: the gallery draws, filters work, and hostile texts run nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import fake_report
import pytest
from test_report_page import hostile_inputs

from geozero.evaluation import gallery, report
from geozero.evaluation.report import build_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=3000",
    "--dump-dom",
]

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]


def dom_of(page: Path, folder: Path, address: str = "") -> str:
    """The document after its script has run."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", f"file://{page}{address}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_the_gallery_draws_its_first_page_with_boxes(tmp_path: Path) -> None:
    data = fake_report.write(tmp_path / "data", items=30)
    page = build_report(data, tmp_path / "index.html")
    dom = dom_of(page, tmp_path)
    assert dom.count('<article class="item">') == 24
    assert "Showing 24 of 30" in dom
    grounding = sum(i["task"] == "grounding" for i in json.loads((data / "gallery.json").read_text())[:24])
    for name in ("truth", "before", "after"):
        assert dom.count(f'<rect class="{name}"') == grounding
    assert 'href="data:image/jpeg;base64,/9j/' in dom


def test_an_address_opens_its_sample(tmp_path: Path) -> None:
    data = fake_report.write(tmp_path / "data", items=30)
    last = json.loads((data / "gallery.json").read_text())[29]
    dom = dom_of(build_report(data, tmp_path / "index.html"), tmp_path, f"#sample={last['id']}")
    assert "<dialog" in dom and f'<div class="bar"><span>{last["id"]}</span>' in dom


def test_hostile_texts_run_nothing(tmp_path: Path) -> None:
    data = fake_report.write(tmp_path / "clean", items=26)
    page = build_report(hostile_inputs(data, tmp_path / "data"), tmp_path / "index.html")
    dom = dom_of(page, tmp_path)
    head = dom[: dom.index("</head>")]
    assert head.count("<title>") == 1 and "<title>owned" not in head
    assert dom.count('<article class="item">') == 24
    assert dom.count("<script") == dom.count('<script type="application/json"') + 1
    assert "<img" not in dom


def test_pictures_that_stand_behind_the_script_are_shown_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "IMAGES_PER_BLOCK", 10)
    monkeypatch.setattr(report, "IMAGES_PER_BLOCK", 10)
    page = build_report(fake_report.write(tmp_path / "data", items=25), tmp_path / "index.html")
    assert page.read_text().count('type="application/json"') == 1 + 3
    assert dom_of(page, tmp_path).count('href="data:image/jpeg;base64,/9j/') == 24
