"""The page in a real browser: the gallery draws, filters work, and hostile texts run nothing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import fake_report
import pytest
from hostile_page import OWN_IMAGE, hostile_inputs
from PIL import Image

from geozero.evaluation.evaluate import evaluate
from geozero.evaluation.report import build, gallery
from geozero.evaluation.report.build import build_report

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
    assert "<img" not in OWN_IMAGE.sub("", dom)


def test_images_that_stand_behind_the_script_are_shown_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "IMAGES_PER_BLOCK", 10)
    monkeypatch.setattr(build, "IMAGES_PER_BLOCK", 10)
    page = build_report(fake_report.write(tmp_path / "data", items=25), tmp_path / "index.html")
    assert page.read_text().count('type="application/json"') == 1 + 3
    assert dom_of(page, tmp_path).count('href="data:image/jpeg;base64,/9j/') == 24


def test_the_gallery_filters_by_task_source_and_outcome(tmp_path: Path) -> None:
    """A script of the test sets each filter and writes down what is shown; the page's policy is widened for it."""
    data = fake_report.write(tmp_path / "data", items=40)
    items = json.loads((data / "gallery.json").read_text())
    page = build_report(data, tmp_path / "index.html")
    chosen = [
        ("task", "vqa"),
        ("source", "toy_aid"),
        ("outcome", "right"),
        ("outcome", "was-wrong"),
        ("outcome", "fixed"),
    ]
    script = f"""<script>addEventListener("load", async () => {{
      const form = document.querySelector(".filters"), said = [];
      for (const [name, value] of {json.dumps(chosen)}) {{
        form.reset(); form.elements[name].value = value;
        form.dispatchEvent(new Event("input")); await new Promise((done) => setTimeout(done, 50));
        said.push(document.querySelector(".count").textContent);
      }}
      document.title = said.join("; ");
    }});</script></body>"""
    text = page.read_text()
    widened = re.sub(r"script-src '[^']*'", "script-src 'unsafe-inline'", text, count=1)
    page.write_text(widened.replace("</body>", script, 1))
    title = dom_of(page, tmp_path).split("<title>")[1].split("</title>")[0]

    def right(item: dict[str, Any], side: str) -> bool | None:
        reward = item[side]["reward"]
        return None if item["task"] == "caption" else reward >= (0.5 if item["task"] == "grounding" else 1.0)

    counts = [
        sum(i["task"] == "vqa" for i in items),
        sum(i["source"] == "toy_aid" for i in items),
        sum(right(i, "after") is True for i in items),
        sum(right(i, "before") is False for i in items),
        sum(right(i, "before") is False and right(i, "after") is True for i in items),
    ]
    assert title == "; ".join(f"Showing {min(n, 24)} of {n} (of 40)" for n in counts)


def test_a_thought_is_shown_once_and_only_where_there_is_an_answer_block_behind_it(tmp_path: Path) -> None:
    data = fake_report.write(tmp_path / "data", items=2)
    items = json.loads((data / "gallery.json").read_text())
    open_block, whole = "I see <answer>yes", "yes <answer>yes</answer>"
    items[0]["after"] |= {"raw": open_block, "answer": open_block, "thought": "I see"}
    items[1]["after"] |= {"raw": whole, "answer": "yes", "thought": "yes"}
    (data / "gallery.json").write_text(json.dumps(items))
    dom = dom_of(build_report(data, tmp_path / "index.html"), tmp_path)
    assert dom.count('<p class="none">no complete answer block') == 1
    assert dom.count('<p class="thought">yes</p>') == 1 and '<p class="thought">I see</p>' not in dom


def test_what_evaluate_wrote_opens_with_its_gallery(tmp_path: Path) -> None:
    Image.new("RGB", (60, 40), (20, 120, 60)).save(tmp_path / "a.png")
    for model, answer in (
        ("base", "<img src=x onerror=alert(1)>"),
        ("tuned", "I see <b>trees</b>. <answer>forest</answer>"),
    ):
        rows = [
            {"id": f"s{i}", "raw_output": answer, "label": "forest", "image_path": str(tmp_path / "a.png")}
            for i in range(3)
        ]
        (tmp_path / f"{model}.json").write_text(json.dumps(rows))
        evaluate("scene_cls", "strict", tmp_path / f"{model}.json", tmp_path / "scores" / model / "aid.json")
    dom = dom_of(build.report(tmp_path / "scores", tmp_path / "index.html")[0], tmp_path)
    assert dom.count('<article class="item">') == 3 and "<b>Base</b>" in dom and "<b>tuned</b>" in dom
    assert "&lt;img src=x onerror=alert(1)&gt;" in dom and "<img" not in dom
    assert dom.count('href="data:image/jpeg;base64,/9j/') == 3
