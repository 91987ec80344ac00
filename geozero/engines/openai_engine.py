"""The server engine: one or many OpenAI-compatible servers, with the prompts, pixels and seeds of the other engines.

The checkpoint's own files make prompt and image here; the server gets the turns with the fitted image (PNG), and
has to count exactly the tokens that we count, else it reads something else and is refused. Where a server runs vLLM
with our sampler (ours does; others with `--logits-processors geozero.engines.vllm_sampler:SeededRows`) answers are
those of the other engines; elsewhere they are drawn by the server's own random numbers, from the same distribution.
"""

from __future__ import annotations

import io
import itertools
import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from geozero.common.errors import BadRecord, InputError
from geozero.common.retry import retry
from geozero.engines.base import Answered, Completion, EngineDied, Request, SamplingParams, failed, first_seed
from geozero.engines.openai_client import Refused, Server, UnfitServer, address, data_url, look, parts, post
from geozero.engines.prompts import IMAGE_MARK, Prompt, Prompter
from geozero.engines.vllm_server import VllmServer

AT_ONCE = 64  # completions under way a server; it batches them itself
ATTEMPTS = 7  # a completion, on one server after the other
BACKOFF_SECONDS = 0.5  # doubled with each attempt: half a minute in all, in which a server may be started again
REST_SECONDS = 60.0  # in which a server that did not answer is asked only if the others do not either
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 600.0
MOMENT = 0.02  # seconds that somebody waits who asks again and again
ARGUMENT = "geozero_draw"  # geozero.engines.vllm_sampler.ARGUMENT, without importing vLLM
PROBE = 1 << 6  # side of the image that is asked about at the start
PROBE_SEEDS = 6
FLAT = 20.0  # temperature of the probe: with our sampler, seeds then give different answers

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Asked:
    """A request under way: its completions, each with its seed (None: greedy)."""

    id: str
    params: SamplingParams
    prompt: Prompt | None = None
    coming: list[tuple[int | None, Future[dict[str, Any]]]] = field(default_factory=list)
    fault: str = ""  # why it could not be asked


class ServerEngine:
    """Answers through servers; a request goes to the next server in turn, and on to another one where that fails.

    Args:
        path: the checkpoint's directory: the same one that the servers hold.
        urls: addresses, with or without `/v1`.
        max_pixels: most pixels of an image.
        max_length: most tokens of prompt and completion.
        own: the server that was started for this engine and ends with it.
        patience: seconds for one completion.
        reason: why this engine was chosen.

    Raises:
        InputError: a server that is not there, refuses, answers rubbish or holds another model.
        EngineDied: in `generate`, no server answers any more.
    """

    name = "server"

    def __init__(
        self,
        path: Path,
        urls: Sequence[str],
        *,
        max_pixels: int,
        max_length: int,
        own: VllmServer | None = None,
        patience: float = ANSWER_SECONDS,
        reason: str = "asked for",
    ) -> None:
        self.path, self.reason, self._own = path, reason, own
        self._client = httpx.Client(
            timeout=httpx.Timeout(patience, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=AT_ONCE * len(urls)),
            trust_env=own is None,  # a proxy has no business between us and our own child
        )
        self._servers = [look(self._client, address(url), path) for url in urls]
        shortest = min((s.max_length for s in self._servers if s.max_length), default=max_length)
        self.prompter = Prompter(path, max_pixels, min(max_length, shortest))
        self._turn: Iterator[int] = itertools.count()
        self._owed: deque[list[_Asked]] = deque()
        self._pool = ThreadPoolExecutor(AT_ONCE * len(self._servers))
        self.seeded = all(server.vllm for server in self._servers) and self._draws_as_we_do()
        if not self.seeded:
            log.warning(
                "the server draws by its own random numbers: answers are as likely, but not the same as another "
                "engine's"
            )

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> list[list[Completion]]:
        """See `Engine.generate`."""
        return self._gather([self._ask(request, params) for request in requests])

    def submit(self, requests: Sequence[Request], params: SamplingParams) -> None:
        """See `Engine.submit`."""
        self._owed.append([self._ask(request, params) for request in requests])

    def collect(self, at_least: int = 1) -> list[Answered]:
        """See `Engine.collect`; all that was submitted in one call together, while later calls are under way."""
        found: list[Answered] = []
        if at_least == 0 and self._owed:
            at_least = int(not wait([c for one in self._owed[0] for _, c in one.coming], MOMENT).not_done)
        while self._owed and len(found) < at_least:
            asked = self._owed.popleft()
            found += zip((one.id for one in asked), self._gather(asked), strict=True)
        return found

    def _ask(self, request: Request, params: SamplingParams) -> _Asked:
        """Send a request's completions off, each one by itself."""
        asked = _Asked(request.id, params)
        try:
            prompt = asked.prompt = self.prompter.prepare(request)
        except BadRecord as bad:
            asked.fault = str(bad)
            return asked
        image, greedy = data_url(prompt.image), params.temperature == 0
        for rollout in range(1 if greedy else params.n):
            seed = None if greedy else first_seed(request, params) + rollout
            body = self._body(request, prompt, image, seed, params)
            asked.coming.append((seed, self._pool.submit(self._complete, body, prompt)))
        return asked

    def _gather(self, asked: Sequence[_Asked]) -> list[list[Completion]]:
        answers: list[list[Completion]] = []
        unfit: list[UnfitServer] = []
        for one in asked:
            row = failed(one.fault, one.params.n) if one.fault else []
            for seed, coming in one.coming:
                assert one.prompt is not None
                try:
                    row.append(self._completion(coming.result(), one.prompt, seed, one.params))
                except Refused as refused:
                    row += failed(str(refused), 1)
                except UnfitServer as unwell:
                    row += failed(str(unwell), 1)
                    unfit.append(unwell)
            answers.append(row * one.params.n if len(row) == 1 < one.params.n else row)
        if unfit and (any(fault.passing for fault in unfit) or len(unfit) == sum(len(one.coming) for one in asked)):
            raise EngineDied(str(unfit[-1]))  # not one request's fault
        return answers

    def _completion(
        self, found: dict[str, Any], prompt: Prompt, seed: int | None, params: SamplingParams
    ) -> Completion:
        choice = found["choices"][0]
        budget = self.prompter.budget(prompt, params.max_tokens)
        tokens = choice.get("token_ids")
        if tokens is not None:
            end = set(self.prompter.vocabulary.end)
            length = next((i for i, token in enumerate(tokens) if token in end), len(tokens))
            text = self.prompter.decode(tokens[:length])
        else:
            text = choice["message"]["content"] or ""
            length = int(found["usage"]["completion_tokens"]) - (choice["finish_reason"] == "stop")
        return Completion(text, "length" if length >= budget else "stop", max(0, length), seed)

    def _body(
        self, request: Request, prompt: Prompt, image: str, seed: int | None, params: SamplingParams
    ) -> dict[str, Any]:
        """A chat completion's request, the model's name left out."""
        turns: list[dict[str, Any]] = [
            {"role": turn["role"], "content": parts(turn["content"], image)} for turn in request.messages
        ]
        body: dict[str, Any] = {"messages": turns, "max_tokens": self.prompter.budget(prompt, params.max_tokens)}
        if request.prefix:
            turns.append({"role": "assistant", "content": request.prefix})
            body |= {"add_generation_prompt": False, "continue_final_message": True}
        body |= {"temperature": params.temperature, "top_p": params.top_p}
        if params.top_k:  # not in OpenAI's own interface; the servers that know it take 0 for all
            body["top_k"] = params.top_k
        return body if seed is None else body | {"seed": seed}

    def _for(self, server: Server, body: dict[str, Any]) -> dict[str, Any]:
        """The request in this server's own words."""
        body = {"model": server.model, **body}
        if not server.vllm:
            return body
        vocabulary = self.prompter.vocabulary
        body |= {"return_token_ids": True, "stop_token_ids": list(vocabulary.end)}
        if getattr(self, "seeded", True):
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
            server = self._next(next(turns))
            try:
                return server, post(self._client, server, self._for(server, body))
            except UnfitServer as unfit:
                if unfit.silent:
                    server.resting = time.monotonic() + REST_SECONDS
                raise

        server, found = retry(ask, lambda error: isinstance(error, UnfitServer), ATTEMPTS, BACKOFF_SECONDS)
        counted = found["usage"]["prompt_tokens"]
        if counted != prompt.n_tokens:
            raise InputError(
                f"the server reads {counted} tokens where the checkpoint's own files make {prompt.n_tokens}",
                server.url,
                f"it must hold {self.path}, with this chat template and pixel limits; `--engine server` without "
                "addresses starts such a one",
            )
        return found

    def _next(self, turn: int) -> Server:
        """The server whose turn it is, among those that are not at rest if there are any."""
        now = time.monotonic()
        awake = [server for server in self._servers if server.resting <= now] or self._servers
        return awake[turn % len(awake)]

    def _draws_as_we_do(self) -> bool:
        """Whether every server runs our sampler: then a hot draw depends on its seed, else it is greedy."""
        image = io.BytesIO()
        Image.radial_gradient("L").resize((PROBE, PROBE)).convert("RGB").save(image, "PNG")
        request = Request("probe", [{"role": "user", "content": f"{IMAGE_MARK}What is this?"}], image.getvalue())
        prompt = self.prompter.prepare(request)
        hot = SamplingParams(temperature=FLAT, max_tokens=4)
        for server in self._servers:
            texts = set()
            for seed in range(PROBE_SEEDS):
                body = self._body(request, prompt, data_url(prompt.image), seed, hot)
                try:
                    found = post(self._client, server, self._for(server, body))
                except (Refused, UnfitServer) as fault:
                    raise InputError(str(fault), server.url, "see the server's own log") from None
                texts.add(str(found["choices"][0].get("token_ids")))
            if len(texts) == 1:
                return False
        return True

    def describe(self) -> dict[str, Any]:
        """See `Engine.describe`."""
        return {
            "engine": self.name,
            "reason": self.reason,
            "model": str(self.path),
            "servers": [server.url for server in self._servers],
            "own": self._own is not None,
            "seeded": self.seeded,
            "max_pixels": self.prompter.max_pixels,
            "max_length": self.prompter.max_length,
        }

    def close(self) -> None:
        """See `Engine.close`."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()
        if self._own is not None:
            self._own.close()


def open_server(
    path: Path,
    urls: Sequence[str],
    *,
    dtype: str,
    max_pixels: int,
    max_length: int,
    memory: float,
    devices: int,
    patience: float = ANSWER_SECONDS,
    reason: str,
) -> ServerEngine:
    """An engine over these servers; without addresses over a vLLM server that is started here and ends with it."""
    limits: dict[str, Any] = {"max_pixels": max_pixels, "max_length": max_length}
    if urls:
        return ServerEngine(path, urls, **limits, patience=patience, reason=reason)
    own = VllmServer(path, dtype=dtype, **limits, memory=memory, devices=devices)
    try:
        return ServerEngine(path, [own.url], **limits, own=own, patience=patience, reason=reason)
    except BaseException:
        own.close()
        raise
