"""The server engine: one or many OpenAI-compatible servers, with the prompts, pixels and seeds of the other engines.

Prompt and image are made here from the checkpoint's own files. A server gets the turns with the fitted image (PNG) and
must count exactly the tokens that we count; otherwise it reads something else and is refused. Where a server runs vLLM
with our sampler (ours does; others with `--logits-processors geozero.engines.vllm_sampler:SeededRows`) the answers are
those of the other engines; elsewhere the server's own random numbers sample from the same distribution.
"""

from __future__ import annotations

import io
import itertools
import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from geozero.common.errors import BadRecord, InputError
from geozero.common.retry import retry
from geozero.engines.base import (
    Answered,
    Completion,
    Engine,
    EngineDied,
    EngineOptions,
    Request,
    SamplingParams,
    failed,
    first_seed,
)
from geozero.engines.openai_client import RequestRefused, Server, ServerFailed, address, connect, data_url, post
from geozero.engines.prompts import IMAGE_MARK, Prompt, Prompter, content_parts
from geozero.engines.vllm_server import VllmServer

CONCURRENCY = 64  # completions in progress per server; it batches them itself
ATTEMPTS = 7  # per completion, on one server after the other
BACKOFF_SECONDS = 0.5  # doubled with each attempt: half a minute in all, in which a server may restart
REST_SECONDS = 60.0  # for which an unreachable server is used only if the others fail too
CONNECT_SECONDS = 10.0
POLL_SECONDS = 0.02  # that `collect(0)` waits
ARGUMENT = "geozero_draw"  # geozero.engines.vllm_sampler.ARGUMENT, without importing vLLM
PROBE_SIDE = 1 << 6  # of the image of the question at the start
PROBE_SEEDS = 6
PROBE_TEMPERATURE = 20.0  # with our sampler, seeds then give different answers

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Pending:
    """A request in progress: its completions, each with its seed (None: greedy)."""

    id: str
    params: SamplingParams
    prompt: Prompt | None = None
    replies: list[tuple[int | None, Future[dict[str, Any]]]] = field(default_factory=list)
    error: str = ""  # why it could not be sent


class ServerEngine(Engine):
    """Answers through servers in turn; a request moves on to the next server where one fails.

    Args:
        path: the checkpoint's directory: the one that the servers hold.
        urls: addresses, with or without `/v1`; none: a vLLM server is started here and ends with the engine.
        reason: why this engine was chosen.
        options: see `EngineOptions`.

    Raises:
        InputError: a server that is not there, refuses, answers rubbish or holds another model.
        EngineDied: in `generate`, no server answers any more.
    """

    name = "server"

    def __init__(self, path: Path, urls: Sequence[str] = (), *, reason: str = "requested", **options: Any) -> None:
        self.path, self.reason = path, reason
        given = EngineOptions(**options)
        self._own = None if urls else VllmServer(path, **options)
        try:
            self._connect(given, [self._own.url] if self._own else urls)
        except BaseException:
            if self._own is not None:
                self._own.close()
            raise

    def _connect(self, options: EngineOptions, urls: Sequence[str]) -> None:
        self._client = httpx.Client(
            timeout=httpx.Timeout(options.patience, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=CONCURRENCY * len(urls)),
            trust_env=self._own is None,  # a proxy has no business between us and our own child
        )
        self._servers = [connect(self._client, address(url), self.path) for url in urls]
        shortest = min([options.max_length, *(s.max_length for s in self._servers if s.max_length)])
        self.prompter = Prompter(self.path, replace(options, max_length=shortest))
        self._turn: Iterator[int] = itertools.count()
        self._submitted: deque[list[_Pending]] = deque()
        self._pool = ThreadPoolExecutor(CONCURRENCY * len(self._servers))
        self.seeded = True
        self.seeded = all(server.vllm for server in self._servers) and self._servers_run_our_sampler()
        if not self.seeded:
            log.warning(
                "the server samples with its own random numbers: its answers follow the same distribution, but differ "
                "from another engine's"
            )

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> list[list[Completion]]:
        return self._gather([self._send(request, params) for request in requests])

    def submit(self, requests: Sequence[Request], params: SamplingParams) -> None:
        self._submitted.append([self._send(request, params) for request in requests])

    def collect(self, at_least: int = 1) -> list[Answered]:
        """See `Engine.collect`; all requests of one `submit` together, while later ones are in progress."""
        found: list[Answered] = []
        if at_least == 0 and self._submitted:
            replies = [reply for one in self._submitted[0] for _, reply in one.replies]
            at_least = int(not wait(replies, POLL_SECONDS).not_done)
        while self._submitted and len(found) < at_least:
            pending = self._submitted.popleft()
            found += zip((one.id for one in pending), self._gather(pending), strict=True)
        return found

    def _send(self, request: Request, params: SamplingParams) -> _Pending:
        """Send a request's completions, each by itself."""
        pending = _Pending(request.id, params)
        try:
            prompt = pending.prompt = self.prompter.prepare(request)
        except BadRecord as bad:
            pending.error = str(bad)
            return pending
        image, greedy = data_url(prompt.image), params.temperature == 0
        for rollout in range(1 if greedy else params.n):
            seed = None if greedy else first_seed(request, params) + rollout
            body = self._body(request, prompt, image, seed, params)
            pending.replies.append((seed, self._pool.submit(self._complete, body, prompt)))
        return pending

    def _gather(self, pending: Sequence[_Pending]) -> list[list[Completion]]:
        answers: list[list[Completion]] = []
        failures: list[ServerFailed] = []
        for one in pending:
            row = failed(one.error, one.params.n) if one.error else []
            for seed, reply in one.replies:
                assert one.prompt is not None
                try:
                    row.append(self._completion(reply.result(), one.prompt, seed, one.params))
                except RequestRefused as refused:
                    row += failed(str(refused), 1)
                except ServerFailed as failure:
                    row += failed(str(failure), 1)
                    failures.append(failure)
            answers.append(row * one.params.n if len(row) == 1 < one.params.n else row)
        n_replies = sum(len(one.replies) for one in pending)
        if failures and (any(failure.transient for failure in failures) or len(failures) == n_replies):
            raise EngineDied(str(failures[-1]))  # not one request's fault
        return answers

    def _completion(
        self, reply: dict[str, Any], prompt: Prompt, seed: int | None, params: SamplingParams
    ) -> Completion:
        choice = reply["choices"][0]
        budget = self.prompter.budget(prompt, params.max_tokens)
        if choice.get("token_ids") is not None:
            return self.prompter.completion(choice["token_ids"], budget, seed)
        length = int(reply["usage"]["completion_tokens"]) - (choice["finish_reason"] == "stop")
        text = choice["message"]["content"] or ""
        return Completion(text, "length" if length >= budget else "stop", max(0, length), seed)

    def _body(
        self, request: Request, prompt: Prompt, image: str, seed: int | None, params: SamplingParams
    ) -> dict[str, Any]:
        """A chat completion's request, without the model's name."""
        part = {"type": "image_url", "image_url": {"url": image}}
        turns: list[dict[str, Any]] = [
            turn | {"content": content_parts(turn["content"], part)} if IMAGE_MARK in turn["content"] else dict(turn)
            for turn in request.messages
        ]
        body: dict[str, Any] = {"messages": turns, "max_tokens": self.prompter.budget(prompt, params.max_tokens)}
        if request.prefix:
            turns.append({"role": "assistant", "content": request.prefix})
            body |= {"add_generation_prompt": False, "continue_final_message": True}
        body |= {"temperature": params.temperature, "top_p": params.top_p}
        if params.top_k:  # not in OpenAI's own interface; the servers that know it take 0 for all
            body["top_k"] = params.top_k
        return body if seed is None else body | {"seed": seed}

    def _body_for(self, server: Server, body: dict[str, Any]) -> dict[str, Any]:
        """The request with what this server needs to sample as we do."""
        body = {"model": server.model, **body}
        if not server.vllm:
            return body
        vocabulary = self.prompter.vocabulary
        body |= {"return_token_ids": True, "stop_token_ids": list(vocabulary.end)}
        if self.seeded:
            seed = body.pop("seed", None)
            if seed is not None:  # vLLM takes the best of what our sampler leaves over
                draw = [seed, body["temperature"], body["top_p"], body.pop("top_k", 0)]
                body |= {"temperature": 0.0, "top_p": 1.0, "vllm_xargs": {ARGUMENT: draw}}
            return body
        # nothing but temperature and top_p may shape the distribution, whatever the server's defaults
        bias = {str(token): -100 for token in vocabulary.suppressed}
        return {"top_k": 0} | body | {"min_p": 0.0, "repetition_penalty": 1.0, "logit_bias": bias}

    def _complete(self, body: dict[str, Any], prompt: Prompt) -> dict[str, Any]:
        """One completion, as the server sent it; from another server, or later, where the first one fails."""
        turns = itertools.count(next(self._turn))

        def ask() -> tuple[Server, dict[str, Any]]:
            server = self._server(next(turns))
            try:
                return server, post(self._client, server, self._body_for(server, body))
            except ServerFailed as failure:
                if failure.unreachable:
                    server.resting_until = time.monotonic() + REST_SECONDS
                raise

        server, reply = retry(ask, lambda error: isinstance(error, ServerFailed), ATTEMPTS, BACKOFF_SECONDS)
        counted = reply["usage"]["prompt_tokens"]
        if counted != prompt.n_tokens:
            raise InputError(
                f"the server reads {counted} tokens where the checkpoint's own files make {prompt.n_tokens}",
                server.url,
                f"it must hold {self.path}, with this chat template and pixel limits; `--engine server` without "
                "addresses starts one",
            )
        return reply

    def _server(self, turn: int) -> Server:
        """The server whose turn it is, among those that do not rest if there are any."""
        now = time.monotonic()
        awake = [server for server in self._servers if server.resting_until <= now] or self._servers
        return awake[turn % len(awake)]

    def _servers_run_our_sampler(self) -> bool:
        """Ask at a high temperature with several seeds: with our sampler the answers differ, else they are greedy."""
        image = io.BytesIO()
        Image.radial_gradient("L").resize((PROBE_SIDE, PROBE_SIDE)).convert("RGB").save(image, "PNG")
        request = Request("probe", [{"role": "user", "content": f"{IMAGE_MARK}What is this?"}], image.getvalue())
        prompt = self.prompter.prepare(request)
        params = SamplingParams(temperature=PROBE_TEMPERATURE, max_tokens=4)
        for server in self._servers:
            answers = set()
            for seed in range(PROBE_SEEDS):
                body = self._body(request, prompt, data_url(prompt.image), seed, params)
                try:
                    reply = post(self._client, server, self._body_for(server, body))
                except (RequestRefused, ServerFailed) as failure:
                    raise InputError(str(failure), server.url, "see the server's own log") from None
                answers.add(str(reply["choices"][0].get("token_ids")))
            if len(answers) == 1:
                return False
        return True

    def describe(self) -> dict[str, Any]:
        return {
            "engine": self.name,
            "reason": self.reason,
            "model": str(self.path),
            "servers": [server.url for server in self._servers],
            "own": self._own is not None,
            "seeded": self.seeded,
            **self.prompter.describe(),
        }

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()
        if self._own is not None:
            self._own.close()
