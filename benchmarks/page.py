"""Time the report page with thousands of gallery items in headless Chromium: `python -m benchmarks.page [--items N]`.

The images are all different (each its own noise), as large as the profile of a real run makes them, and every answer
carries a thought; so the page is as heavy as it gets. Opening is measured by the page itself: from the start of the
navigation to the first view, and to the first drawn samples with their images decoded (they are folded at first: an
address unfolds them); best and median of some runs.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import random
import re
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from geozero.evaluation.report.build import report

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
MOST_SECONDS, MOST_MEGABYTES = 1.0, 30.0  # what is wanted
WAIT = 120  # seconds until a browser counts as hung
# Tells the console how long opening took; the copy that is timed allows it beside the page's own script.
PROBE = """<script>
const images = () => [...document.querySelectorAll(".item image")].map((node) => {
  const image = new Image(); image.src = node.getAttribute("href"); return image.decode();
});
const drawn = () => requestAnimationFrame(() => setTimeout(() => {
  Promise.all(images()).then(() => { console.log(`opened ${performance.now().toFixed(0)} ms`); });
}));
document.readyState === "complete" ? drawn() : addEventListener("load", drawn);
</script></body>"""


def write_inputs(folder: Path, items: int, side: int, seed: int) -> None:
    """`gallery.json` and a score, so that the page is a page."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, noise = random.Random(seed), np.random.default_rng(seed)
    words = [f"{a}{b}" for a in ("bright", "grey", "long", "round") for b in (" roofs", " roads", " ships", " fields")]
    rows = []
    for i in range(items):
        box = [rng.randrange(side // 2) for _ in range(2)]
        row: dict[str, Any] = {"id": f"{i:06d}", "task": ("grounding", "scene_cls", "vqa", "caption")[i % 4]}
        row |= {"source": f"source_{i % 17}", "split": "test", "question": f"What stands at place {i} of the image?"}
        row |= {"answer": rng.choice(words), "image_jpeg_base64": image(noise, side), "width": side, "height": side}
        row["box"] = [*box, box[0] + 40, box[1] + 40] if i % 4 == 0 else None
        row["answers"] = []
        for model in ("sft", "a2grpo"):
            thought = " ".join(rng.choice(words) for _ in range(40))
            answer = {"thought": thought, "answer": rng.choice(words), "reward": float(rng.random() < 0.6)}
            answer |= {"model": model, "mode": "tagged", "raw": f"{thought} <answer>{answer['answer']}</answer>"}
            row["answers"].append(answer)
        rows.append(row)
    (folder / "gallery.json").write_text(json.dumps(rows))
    score = {"mode": "tagged", "split": "test", "world": "toy", "task": "vqa", "metric": "accuracy", "n": items}
    scores = [score | {"model": model, "value": 0.5} for model in ("sft", "a2grpo")]
    (folder / "scores.json").write_text(json.dumps(scores))


def image(noise: np.random.Generator, side: int) -> str:
    """Smooth noise with some grain: JPEG makes of it about what it makes of a real aerial image."""
    coarse = noise.integers(0, 255, (side // 16, side // 16, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC), dtype=np.int16)
    grain = noise.normal(0, 12, (side, side, 1))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(image + grain, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
    return base64.b64encode(buffer.getvalue()).decode()


def opened(browser: str, page: Path, address: str) -> float:
    """Seconds until the page is drawn, in a browser with a new profile."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        told = (
            "--enable-logging=stderr",
            "--remote-debugging-port=0",
            f"--user-data-dir={profile}",
            f"file://{page}{address}",
        )
        process = subprocess.Popen([browser, *FLAGS, *told], stderr=subprocess.PIPE, text=True)
        watch = threading.Timer(WAIT, process.kill)
        watch.start()
        try:
            for line in process.stderr or ():
                if found := re.search(r"opened (\d+) ms", line):
                    return int(found.group(1)) / 1000
        finally:
            watch.cancel()
            process.terminate()
            process.wait()
    raise SystemExit("the page did not say that it was drawn")


def main(arguments: list[str] | None = None) -> None:
    """Make the page, open it some times, and print a line each."""
    parser = argparse.ArgumentParser(description="Time the report page in headless Chromium.")
    parser.add_argument("--items", type=int, default=5_000)
    parser.add_argument("--side", type=int, default=384, help="pixels of an image before the page shrinks it")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        raise SystemExit(f"none of {', '.join(BROWSERS)} is installed")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_inputs(folder / "data", chosen.items, chosen.side, chosen.seed)
        start = time.perf_counter()
        page = report(folder / "data", folder / "index.html")[0]
        made, megabytes = time.perf_counter() - start, page.stat().st_size / 1e6
        files = len(list(folder.glob("index-images/*")))
        print(
            f"page: items={chosen.items} made={made:.1f}s size={megabytes:.1f}MB (wanted < {MOST_MEGABYTES:g})", end=""
        )
        print(f", {files} images beside it" if files else ", images inside")
        text = page.read_text(encoding="utf-8")
        allowed = re.sub(r"script-src '[^']*'", "script-src 'unsafe-inline'", text, count=1)
        timed = folder / "timed.html"
        timed.write_text(allowed.replace("</body>", PROBE, 1), encoding="utf-8")
        for what, address in (("opens", ""), ("opens with samples", "#view=gallery")):
            seconds = [opened(browser, timed, address) for _ in range(chosen.runs)]
            median = statistics.median(seconds)
            print(
                f"{what}: best={min(seconds):.2f}s median={median:.2f}s of {chosen.runs} (wanted ≤ {MOST_SECONDS:g} s)"
            )


if __name__ == "__main__":
    main()
