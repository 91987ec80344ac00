"""The page in a real browser: samples, filters and links work, axe finds no fault, hostile texts run nothing."""

from __future__ import annotations

import csv
import html
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
AXE = Path.home() / ".cache/geozero/node_modules/axe-core/axe.min.js"
AXE_MISSING = f"no {AXE}: npm install --prefix ~/.cache/geozero axe-core@4.14.1"
SCREENS = 3
SCREEN = (1280, 900)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]


def dom_of(page: Path, folder: Path, address: str = "", *flags: str) -> str:
    """The document after its script has run."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, *flags, f"--user-data-dir={folder / 'profile'}", f"file://{page}{address}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def result_of(page: Path, folder: Path, script: str, address: str = "", flags: tuple[str, ...] = ()) -> Any:
    """What an async script that runs in the page returns, as JSON; the page's policy is widened for it, in a copy."""
    text = page.read_text()
    widened = re.sub(r"script-src '[^']*'", "script-src 'unsafe-inline'", text, count=1)
    own = f"""<script>addEventListener("load", async () => {{
      const tick = () => new Promise((done) => setTimeout(done, 60));
      const result = await (async () => {{ {script} }})();
      document.title = "RESULT" + JSON.stringify(result);
    }});</script></body>"""
    copy = page.with_name("widened.html")
    copy.write_text(widened.replace("</body>", own, 1))
    title = dom_of(copy, folder, address, *flags).split("<title>")[1].split("</title>")[0]
    assert title.startswith("RESULT"), title
    return json.loads(html.unescape(title.removeprefix("RESULT")))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A page of 40 samples, and these."""
    folder = tmp_path_factory.mktemp("page")
    data = fake_report.write(folder / "data", items=40)
    items = json.loads((data / "gallery.json").read_text())
    return build_report(data, folder / "index.html"), items


def right(item: dict[str, Any], side: int) -> bool | None:
    reward = item["answers"][side]["reward"]
    return None if item["task"] == "caption" else reward >= (0.5 if item["task"] == "grounding" else 1.0)


def test_the_first_view_answers_and_is_short(made: tuple[Path, Any], tmp_path: Path) -> None:
    script = """
      const answer = document.querySelector(".answer").getBoundingClientRect();
      return [document.documentElement.scrollHeight, answer.bottom, document.querySelectorAll(".item").length];"""
    height, answer, drawn = result_of(made[0], tmp_path, script, flags=(f"--window-size={SCREEN[0]},{SCREEN[1]}",))
    assert height <= SCREENS * SCREEN[1] and answer < SCREEN[1] / 2 and drawn == 0


def test_it_fits_a_telephone(made: tuple[Path, Any], tmp_path: Path) -> None:
    """In a frame of 400 pixels, because a browser's window may not be as narrow."""
    page = tmp_path / "frame.html"
    shutil.copy(made[0], tmp_path / "inner.html")
    page.write_text(f"<iframe width=400 height=800 src='{tmp_path / 'inner.html'}#view=gallery&order=gain'></iframe>")
    shot = tmp_path / "shot.png"
    dom_of(page, tmp_path, "", f"--screenshot={shot}", "--window-size=440,840")
    script = """
      document.body.style.width = "400px"; await tick();
      const wide = [...document.querySelectorAll("main *")].filter((node) => !node.closest(".scroll, nav, svg, select")
        && node.getBoundingClientRect().right > 401 && node.getBoundingClientRect().height > 0);
      return wide.map((node) => node.outerHTML.slice(0, 80));"""
    assert result_of(made[0], tmp_path, script, flags=("--window-size=400,900",)) == []


@pytest.mark.skipif(not AXE.is_file(), reason=AXE_MISSING)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(made: tuple[Path, Any], tmp_path: Path, scheme: str) -> None:
    script = (
        AXE.read_text().replace("</script", "<\\/script")
        + """;
      for (const part of document.querySelectorAll("details")) part.open = true;
      await tick(); await tick();
      const dark = matchMedia("(prefers-color-scheme: dark)").matches;
      const found = await axe.run(document, { resultTypes: ["violations"] });
      const faults = found.violations.map((v) => [v.id, v.impact, v.nodes.length, v.nodes[0].html.slice(0, 160)]);
      return [dark, document.querySelectorAll(".item").length, faults];"""
    )
    setting = f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}"
    flags = (setting, "--virtual-time-budget=60000")
    dark, drawn, faults = result_of(made[0], tmp_path, script, flags=flags)
    assert dark is (scheme == "dark") and drawn == 24
    assert [fault for fault in faults if fault[1] in ("serious", "critical")] == []


def test_the_gallery_draws_its_first_page_with_boxes(made: tuple[Path, Any], tmp_path: Path) -> None:
    dom = dom_of(made[0], tmp_path, "#view=gallery")
    assert dom.count('<article class="item">') == 24
    assert "Showing 24 of 40" in dom
    grounding = sum(i["task"] == "grounding" for i in made[1][:24])
    for name in ("truth", "before", "after"):
        assert dom.count(f'<rect class="{name}"') == grounding
    assert 'href="data:image/jpeg;base64,/9j/' in dom


def test_an_address_opens_its_sample(made: tuple[Path, Any], tmp_path: Path) -> None:
    dom = dom_of(made[0], tmp_path, f"#sample={made[1][29]['id']}")
    assert "<dialog" in dom and f'<div class="bar"><span>{made[1][29]["id"]}</span>' in dom


def test_true_boxes_are_in_the_pixels_that_they_say(tmp_path: Path) -> None:
    data = fake_report.write(tmp_path / "data", items=1)
    (item,) = json.loads((data / "gallery.json").read_text())
    item["answer"] = "[125, 417, 312, 542]"  # as the model is to write it, in thousandths
    (data / "gallery.json").write_text(json.dumps([item]))
    dom = dom_of(build_report(data, tmp_path / "index.html"), tmp_path, "#view=gallery")
    pixels = f"[{', '.join(str(round(v)) for v in item['box'])}]"
    assert f"<span>Truth, in pixels</span><b>{pixels}</b>" in dom
    assert "as it stands in the data: [125, 417, 312, 542]" in dom


def test_hostile_texts_run_nothing(tmp_path: Path) -> None:
    data = fake_report.write(tmp_path / "clean", items=26)
    page = build_report(hostile_inputs(data, tmp_path / "data"), tmp_path / "index.html")
    dom = dom_of(page, tmp_path, "#view=gallery")
    head = dom[: dom.index("</head>")]
    assert head.count("<title>") == 1 and "<title>owned" not in head
    assert dom.count('<article class="item">') == 24
    assert dom.count("<script") == dom.count('<script type="application/json"') + 1
    assert "<img" not in OWN_IMAGE.sub("", dom)


def test_images_that_stand_behind_the_script_are_shown_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (gallery, build):
        monkeypatch.setattr(module, "IMAGES_PER_BLOCK", 10)
        monkeypatch.setattr(module, "TEXTS_PER_BLOCK", 10)
    page = build_report(fake_report.write(tmp_path / "data", items=25), tmp_path / "index.html")
    assert page.read_text().count('type="application/json"') == 1 + 3 + 3
    assert dom_of(page, tmp_path, "#view=gallery").count('href="data:image/jpeg;base64,/9j/') == 24


def test_images_beside_the_page_are_loaded_when_they_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = fake_report.write(tmp_path / "data", items=3)
    size = gallery._size
    monkeypatch.setattr(gallery, "_size", lambda items, budget: size(items, 10))
    page = build_report(data, tmp_path / "index.html")
    script = """
      const images = [...document.querySelectorAll(".item image")];
      const loaded = await Promise.all(images.map(async (node) => {
        const image = new Image(); image.src = node.getAttribute("href"); await image.decode(); return image.width; }));
      return [images.map((node) => node.getAttribute("href")), loaded];"""
    addresses, widths = result_of(page, tmp_path, script, "#view=gallery")
    assert addresses == [f"index-images/{i}.jpg" for i in range(3)] and widths == [96] * 3


def test_the_samples_are_filtered_and_the_address_remembers(made: tuple[Path, Any], tmp_path: Path) -> None:
    page, items = made
    chosen = {
        "task": "vqa",
        "source": "toy_aid",
        "kind": "presence",
        "truth": "harbour",
        "flag": "malformed",
        "outcome": "right",
        "text": "looks like forest",
    }
    outcomes = ("was-wrong", "fixed", "broken")
    steps = [*chosen.items(), *(("outcome", value) for value in outcomes)]
    script = f"""
      document.querySelector("#gallery").open = true; await tick();
      const form = document.querySelector(".filters"), said = [];
      for (const [name, value] of {json.dumps(steps)}) {{
        form.reset(); await tick(); form.elements[name].value = value;
        form.dispatchEvent(new Event("input")); await tick();
        said.push([document.querySelector(".count").textContent, location.hash]);
      }}
      return said;"""
    counts = [
        sum(i["task"] == "vqa" for i in items),
        sum(i["source"] == "toy_aid" for i in items),
        sum(i["question_type"] == "presence" for i in items),
        sum(i["task"] == "scene_cls" and i["answer"] == "harbour" for i in items),
        sum("malformed" in i["answers"][0]["flags"] for i in items),
        sum(right(i, 1) is True for i in items),
        sum("looks like forest" in i["answers"][1]["thought"] for i in items),
        sum(right(i, 0) is False for i in items),
        sum(right(i, 0) is False and right(i, 1) is True for i in items),
        sum(right(i, 0) is True and right(i, 1) is False for i in items),
    ]
    assert all(counts)
    found = result_of(page, tmp_path, script)
    assert [text for text, _ in found] == [f"Showing {min(n, 24)} of {n} (of 40)" for n in counts]
    assert [hash for _, hash in found][:2] == ["#task=vqa", "#source=toy_aid"]


def test_a_confusion_leads_to_its_samples(made: tuple[Path, Any], tmp_path: Path) -> None:
    page, items = made
    pairs = [(i["answer"], i["answers"][1]["answer"]) for i in items if i["task"] == "scene_cls"]
    truth, said = next((t, s) for t, s in pairs if t != s)
    script = f"""
      const links = [...document.querySelectorAll("#details td a")];
      const link = links.find((a) => a.hash.includes("truth={truth}&said={said}&"));
      link.click(); await tick();
      return [document.querySelector(".count").textContent, document.querySelector("#gallery").open];"""
    n = pairs.count((truth, said))
    assert result_of(page, tmp_path, script) == [f"Showing {n} of {n} (of 40)", True]


def test_any_two_models_are_compared_and_tables_sort_and_download(made: tuple[Path, Any], tmp_path: Path) -> None:
    script = """
      const models = document.querySelector(".models").elements, said = [];
      models.second.value = "1"; models.first.value = "0";
      document.querySelector(".models").dispatchEvent(new Event("input")); await tick();
      said.push(document.querySelector(".comparison .answer").textContent, location.hash);
      const table = document.querySelector("table.scores"), head = table.querySelectorAll("thead th")[5];
      const column = () => [...table.tBodies[0].rows].slice(1).filter((row) => !row.classList.contains("detail"))
        .map((row) => +row.cells[5].dataset.value);
      head.querySelector("button").click(); said.push(column());
      head.querySelector("button").click(); said.push(column());
      const blobs = []; URL.createObjectURL = (blob) => { blobs.push(blob); return "#"; };
      document.querySelector("#scores .csv").click();
      said.push((await blobs[0].text()).split("\\r\\n").slice(0, 2));
      return said;"""
    lead, address, down, up, lines = result_of(made[0], tmp_path, script)
    assert lead == "Base, tagged and Base, direct were not compared question by question."
    assert address == "#pair=0-1"
    assert down == sorted(down, reverse=True) and up == sorted(up) and len(up) == 4
    assert lines[0].lstrip("\ufeff").startswith('"","Test set') or lines[0].lstrip("\ufeff").startswith(',"Test set')
    assert lines[1].startswith('"Rendered toy world · hard test split","')


def test_a_downloaded_table_has_each_number_in_a_cell_of_its_own(made: tuple[Path, Any], tmp_path: Path) -> None:
    script = """
      const blobs = []; URL.createObjectURL = (blob) => { blobs.push(blob); return "#"; };
      document.querySelector("#comparisons .csv").click();
      return (await blobs[0].text()).replace("\ufeff", "");"""
    head, *rows = csv.reader(result_of(made[0], tmp_path, script).split("\r\n"))
    numbers = [dict(zip(head, row, strict=True)) for row in rows]
    (scene,) = (r for r in numbers if r["Test set"] == "Scene classification · toy_aid" and "hard" in r[""])
    assert [float(scene[f"Difference{end}"]) for end in ("", " low", " high")] == [7.0, 3.0, 11.0]
    differences = [float(row[f"Difference{end}"] or 0) for row in numbers for end in ("", " low", " high")]
    assert min(differences) < 0 < max(differences)  # a minus that programs read


def test_a_metric_leads_to_what_stands_behind_its_score(made: tuple[Path, Any], tmp_path: Path) -> None:
    script = """
      const links = [...document.querySelectorAll(".scores td a")];
      links[0].click(); await tick();
      const place = document.querySelector(links[0].getAttribute("href"));
      const dead = links.filter((link) => !document.querySelector(link.getAttribute("href")));
      return [place.open, place.closest("#details").open, dead.length];"""
    assert result_of(made[0], tmp_path, script) == [True, True, 0]


def test_a_thought_is_shown_once_and_only_where_there_is_an_answer_block_behind_it(tmp_path: Path) -> None:
    data = fake_report.write(tmp_path / "data", items=2)
    items = json.loads((data / "gallery.json").read_text())
    open_block, whole = "I see <answer>yes", "yes <answer>yes</answer>"
    items[0]["answers"][1] |= {"raw": open_block, "answer": open_block, "thought": "I see"}
    items[1]["answers"][1] |= {"raw": whole, "answer": "yes", "thought": "yes"}
    (data / "gallery.json").write_text(json.dumps(items))
    dom = dom_of(build_report(data, tmp_path / "index.html"), tmp_path, "#view=gallery")
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
    dom = dom_of(build.report(tmp_path / "scores", tmp_path / "index.html")[0], tmp_path, "#view=gallery")
    assert dom.count('<article class="item">') == 3 and "<b>Base</b>" in dom and "<b>tuned</b>" in dom
    assert "&lt;img src=x onerror=alert(1)&gt;" in dom and "<img" not in dom
    assert dom.count('href="data:image/jpeg;base64,/9j/') == 3
