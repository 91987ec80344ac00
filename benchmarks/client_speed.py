"""How many answers per second one client can ask for: `python -m benchmarks.client_speed [--model DIR] [--samples N]`.

The server, in a process of its own, reads each request and answers at once, n completions where n are asked for. Images
are noisy JPEG files. Beside the rate stands the client's CPU time per answer, which the server's share of the cores
does not blur.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import logging
import multiprocessing
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from geozero.engines.base import Request, SamplingParams
from geozero.engines.openai_engine import ServerEngine

GOAL = 1500  # answers per second at 600 px
SIDES = (256, 600, 608, 960)  # 608 needs no fitting on a grid of 32
MODEL = Path("models/tiny-qwen3-vl")
MOST_PIXELS, MOST_TOKENS = 1 << 20, 4096
IMAGES = 24  # different ones
QUESTION = "<image>What is in this image? Answer in one word."


def serve(connection: Connection, name: str) -> None:
    """Answer until the process is ended; the prompt's tokens are what the client said last."""
    tokens = [0]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.reply({"data": [{"id": name, "max_model_len": MOST_TOKENS}]})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/tokens":
                tokens[0] = int(body)
                return self.reply({})
            n = json.loads(body).get("n", 1)
            choice = {"message": {"content": "forest"}, "finish_reason": "stop"}
            usage = {"prompt_tokens": tokens[0], "completion_tokens": 3 * n}
            return self.reply({"choices": [choice] * n, "usage": usage})

        def reply(self, value: dict[str, Any]) -> None:
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    connection.send(server.server_port)
    server.serve_forever()


def jpeg(rng: np.random.Generator, side: int) -> bytes:
    """A soft image with noise: about the bytes per pixel of a photograph."""
    small = rng.integers(0, 255, (side // 8, side // 8, 3), dtype=np.uint8)
    soft = np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC), np.float64)
    pixels = (soft + rng.normal(0, 8, soft.shape)).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def measure(engine: ServerEngine, url: str, side: int, samples: int, params: SamplingParams) -> str:
    """One line about images of this size."""
    rng = np.random.default_rng(side)
    images = [jpeg(rng, side) for _ in range(min(samples, IMAGES))]
    turns = [{"role": "user", "content": QUESTION}]
    requests = [Request(f"r{side}-{i}", turns, images[i % len(images)]) for i in range(samples)]
    httpx.post(f"{url}/tokens", content=str(engine.prompter.prepare(requests[0]).n_tokens).encode())
    engine.generate(requests[:8], params)
    wall, cpu = time.perf_counter(), time.process_time()
    found = engine.generate(requests, params)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert all(one.is_answer for row in found for one in row)
    n = samples * params.n
    goal = f"; goal {GOAL}: {'met' if n / wall >= GOAL else 'MISSED'}" if side == 600 else ""
    size = sum(map(len, images)) / len(images) / 1024
    return f"{side} px, {size:.0f} KiB: {n / wall:,.0f} answers/s, {cpu / n * 1e3:.2f} ms of CPU per answer{goal}"


def main() -> None:
    """Measure each size and print a line for it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--seeded", action="store_true", help="send the fitted image, lossless")
    given = parser.parse_args()
    logging.getLogger("httpx").setLevel(logging.ERROR)
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, given.model.name), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{ours.recv()}"
    engine = ServerEngine(given.model, [url], max_pixels=MOST_PIXELS, max_length=MOST_TOKENS)
    # the tiny checkpoint allows less than a real one
    engine.prompter.limits = dataclasses.replace(engine.prompter.limits, max_pixels=MOST_PIXELS)
    engine.prompter.max_length = MOST_TOKENS
    params = SamplingParams(n=given.k, temperature=1.0, max_tokens=40)
    engine.seeded = given.seeded
    for side in SIDES:
        print(measure(engine, url, side, given.samples, params), flush=True)
    engine.close()
    server.terminate()


if __name__ == "__main__":
    main()
