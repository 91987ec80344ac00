"""The server engine: one or many OpenAI-compatible servers, with the prompts, pixels and seeds of the other engines.

A server has to say that it holds the checkpoint (`served_model`), and to count exactly the tokens that we count:
otherwise it holds or reads something else and is refused. Where it runs vLLM with our sampler (ours does; others with
`--logits-processors geozero.engines.vllm_sampler:SeededRows`) it also reports the hash of its weights, it gets the
fitted image (lossless), and the answers are those of the other engines. Elsewhere the server's own random numbers
sample from the same distribution, and it gets a JPEG or PNG file as it is where it fits the image as we do.

From `TOGETHER` completions on, one request asks for all that is needed of a sample, on servers that draw them apart.
Completion i of such a request has the seed of the first plus i: vLLM numbers seeds so by itself, and our sampler does.
Another server only promises that its completions differ (it is tried first); the seed names the request there.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

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
from geozero.engines.openai_client import (
    Body,
    RequestRefused,
    Server,
    ServerFailed,
    address,
    connect,
    data_url,
    is_up,
    post,
)
from geozero.engines.prompts import Prompt, Prompter
from geozero.engines.serving.adaptive_limit import AdaptiveLimit
from geozero.engines.serving.bodies import BodyMaker
from geozero.engines.serving.credentials import ServerAuth
from geozero.engines.serving.probe import Probe
from geozero.engines.serving.replies import completion_of
from geozero.engines.serving.served_model import servers_for, trusted_name
from geozero.engines.vllm_server import VllmServer

THREADS = 512  # requests in progress, or waiting for the limit
TOGETHER = 4  # completions of a sample from which on one upload carries them all
ATTEMPTS = 7  # per request, on one server after the other
BACKOFF_SECONDS = 0.5  # doubled with each attempt: half a minute in all, in which a server may restart
REST_SECONDS = 60.0  # for which an unreachable server is used only if the others fail too
CONNECT_SECONDS = 10.0
POLL_SECONDS = 0.02  # that `collect(0)` waits
BUSY = ("429", "503")

log = logging.getLogger(__name__)


class _Upload:
    """The image of a request as it is sent, encoded once, by the first thread that sends it."""

    def __init__(self, prompt: Prompt, seeded: bool) -> None:
        self.prompt = prompt
        self.as_file = prompt.file is not None and (prompt.unchanged or not seeded)
        self._lock = threading.Lock()
        self._urls: dict[bool, bytes] = {}

    def url(self, as_file: bool) -> bytes:
        """The data URL of the file as it is, or of the fitted image.

        Raises:
            BadRecord: the image cannot be read.
        """
        with self._lock:
            if as_file not in self._urls:
                source = self.prompt.file if as_file else self.prompt.image
                assert source is not None
                self._urls[as_file] = data_url(source)
            return self._urls[as_file]


@dataclass(slots=True)
class _Pending:
    """A request in progress: its completions, of one reply after the other."""

    id: str
    params: SamplingParams
    replies: list[tuple[int, Future[list[Completion]]]] = field(default_factory=list)  # completions, and who gets them
    error: str = ""  # why it could not be sent


class ServerEngine(Engine):
    """Answers through servers in turn; a request moves on to the next server where one fails.

    Args:
        path: the checkpoint's directory: the one that the servers hold.
        urls: addresses, with or without `/v1`, or model → addresses; none: a vLLM server is started here and ends with
            the engine.
        reason: why this engine was chosen.
        options: see `EngineOptions`.

    Raises:
        InputError: a server that is not there, refuses, answers rubbish or holds another model.
        EngineDied: in `generate`, no server answers any more.
    """

    name = "server"

    def __init__(
        self,
        path: Path,
        urls: Sequence[str] | dict[str, Sequence[str]] = (),
        *,
        reason: str = "requested",
        **options: Any,
    ) -> None:
        self.path, self.reason = path, reason
        given = EngineOptions(**options)
        self.trusted = trusted_name(given.trust_server_model, path, None, 1)
        addresses = servers_for(urls, path)
        self._own = None if addresses else VllmServer(path, **options)
        try:
            self._connect(given, [self._own.url] if self._own else addresses)
        except BaseException:
            if self._own is not None:
                self._own.close()
            raise

    def _connect(self, options: EngineOptions, urls: Sequence[str]) -> None:
        addresses = [address(url) for url in urls]
        self._client = httpx.Client(
            timeout=httpx.Timeout(options.patience, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=THREADS),
            auth=ServerAuth(urls, self._own.key if self._own else None),
            trust_env=self._own is None,  # a proxy has no business between us and our own child
        )
        self._servers = [connect(self._client, url, self.path, self.trusted) for url in addresses]
        lengths = [server.serves.max_length for server in self._servers]
        shortest = min([options.max_length, *(length for length in lengths if length)])
        self.prompter = Prompter(self.path, replace(options, max_length=shortest))
        self.prompter.reads_late = True
        self._turn: Iterator[int] = itertools.count()
        self._submitted: deque[list[_Pending]] = deque()
        self._limit = AdaptiveLimit(options.concurrency, len(self._servers))
        self._pool = ThreadPoolExecutor(min(THREADS, self._limit.most))
        self._checking = threading.Lock()
        self._files = True  # whether servers fit a plain file as we do
        self._refuses_many = False
        self._bodies = BodyMaker(self.prompter)
        self._probe = Probe(self._client, self._bodies)
        ours = [server for server in self._servers if server.vllm and self._probe.runs_our_sampler(server)]
        self.seeded = self._bodies.seeded = len(ours) == len(self._servers)
        self.verified = "name" if self.trusted is None else "trusted"
        if self.trusted is None:
            same = [self._probe.check_weights(server, self.path) for server in ours]
            if len(same) == len(self._servers) and all(same):
                self.verified = "weights"
        else:
            log.warning("the server's %s is taken for %s, whatever it is", self.trusted, self.path)
        if not self.seeded:
            log.warning(
                "the server samples with its own random numbers: its answers follow the same distribution, but differ "
                "from another engine's; its weights are known by their name alone"
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
        """Send a request's completions, together or each by itself."""
        pending = _Pending(request.id, params)
        try:
            prompt = self.prompter.prepare(request)
        except BadRecord as bad:
            pending.error = str(bad)
            return pending
        greedy = params.temperature == 0
        seed = None if greedy else first_seed(request, params)
        upload, rollouts = _Upload(prompt, self.seeded), range(1 if greedy else params.n)
        together = len(rollouts) >= TOGETHER and not self._refuses_many and self._draws_apart
        for first, n in [(0, len(rollouts))] if together else [(rollout, 1) for rollout in rollouts]:
            drawn = None if seed is None else seed + first
            reply = self._pool.submit(self._complete, request, upload, drawn, n, params)
            pending.replies.append((n, reply))
        return pending

    def _gather(self, pending: Sequence[_Pending]) -> list[list[Completion]]:
        answers: list[list[Completion]] = []
        failures: list[ServerFailed] = []
        for one in pending:
            row = failed(one.error, one.params.n) if one.error else []
            for n, reply in one.replies:
                try:
                    row += reply.result()
                except (RequestRefused, BadRecord) as refused:
                    row += failed(str(refused), n)
                except ServerFailed as failure:
                    row += failed(str(failure), n)
                    failures.append(failure)
            answers.append(row * one.params.n if len(row) == 1 < one.params.n else row)
        n_replies = sum(len(one.replies) for one in pending)
        if failures and (any(failure.transient for failure in failures) or len(failures) == n_replies):
            raise EngineDied(str(failures[-1]))  # not one request's fault
        return answers

    def _complete(
        self, request: Request, upload: _Upload, seed: int | None, n: int, params: SamplingParams
    ) -> list[Completion]:
        """n completions, the first with this seed; one by one where a server does not give so many at once."""
        if n == 1:
            return [self._one(request, upload, seed, params)]
        assert seed is not None
        prompt, choices = upload.prompt, list[dict[str, Any]]()
        try:
            reply = self._ask(request, upload, seed, n, params)
            choices = _in_order(reply["choices"])[:n]
        except RequestRefused:
            self._refuses_many = True  # or it refuses the sample: asked for one by one it will say so
        if choices and len(choices) < n:
            self._refuses_many = True
        budget = self.prompter.budget(prompt, params.max_tokens)
        found = [self._completion(choice, None, budget, seed + i) for i, choice in enumerate(choices)]
        return found + [self._one(request, upload, seed + i, params) for i in range(len(found), n)]

    def _one(self, request: Request, upload: _Upload, seed: int | None, params: SamplingParams) -> Completion:
        reply = self._ask(request, upload, seed, 1, params)
        counted = int(reply["usage"]["completion_tokens"])
        return self._completion(
            reply["choices"][0], counted, self.prompter.budget(upload.prompt, params.max_tokens), seed
        )

    def _completion(self, choice: dict[str, Any], counted: int | None, budget: int, seed: int | None) -> Completion:
        """Args: counted: the server's count of this choice's tokens; None: it only counted several choices together."""
        tokens = choice.get("token_ids")
        if tokens is None:
            if counted is not None:
                return completion_of(choice, counted, budget, seed)
            said = completion_of(choice, budget, budget, seed)
            n = self.prompter.count(said.text) + (choice.get("finish_reason") != "length")
            return completion_of(choice, n, budget, seed, exact=False)
        said = completion_of(choice, len(tokens), budget, seed)
        ours = self.prompter.completion(tokens, budget, seed)
        whole = said.is_answer or said.finish_reason == "error"  # our own decoding needs no text
        return ours if whole else replace(ours, finish_reason=said.finish_reason, error=said.error)

    def _ask(
        self, request: Request, upload: _Upload, seed: int | None, n: int, params: SamplingParams
    ) -> dict[str, Any]:
        """A reply with n completions; from another server, or later, where the first one fails."""
        turns, prompt = itertools.count(next(self._turn)), upload.prompt
        fields = self._bodies.fields(request, prompt, params)

        def ask(as_file: bool) -> tuple[Server, dict[str, Any]]:
            image = upload.url(as_file)
            server, busy = self._server(next(turns)), False
            self._limit.acquire(n)
            try:
                if server.was_away:
                    self._check_again(server)
                return server, post(
                    self._client, server, Body(self._bodies.for_server(server, fields, seed, n), image).encoded()
                )
            except ServerFailed as failure:
                busy = any(f"answers {status}" in str(failure) for status in BUSY)
                server.was_away = True
                if failure.unreachable:
                    server.resting_until = time.monotonic() + REST_SECONDS
                raise
            finally:
                self._limit.release(n, busy)

        def reply_to(as_file: bool) -> tuple[Server, dict[str, Any]]:
            return retry(lambda: ask(as_file), lambda error: isinstance(error, ServerFailed), ATTEMPTS, BACKOFF_SECONDS)

        as_file = upload.as_file and (self._files or prompt.unchanged)
        server, reply = reply_to(as_file)
        if reply["usage"]["prompt_tokens"] != prompt.n_tokens and as_file and not prompt.unchanged:
            self._files = False  # it fits images in another way, or within other limits
            server, reply = reply_to(False)
        if self.trusted is None and reply.get("model") not in (None, *server.names):
            what = f"the server answers with {reply['model']}, not {server.model}"
            raise InputError(what, server.url, "give each model a server of its own, not one address for several")
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

    def _check_again(self, server: Server) -> None:
        """Whether a server that did not answer for a while still holds the model.

        Raises:
            ServerFailed: it does not answer yet.
            InputError: it holds another one.
        """
        with self._checking:
            if not server.was_away:
                return
            if not is_up(self._client, server.url):
                raise ServerFailed(f"{server.url} does not answer", unreachable=True)
            again = connect(self._client, server.url, self.path, self.trusted)
            server.serves, server.names = again.serves, again.names
            if self.verified == "weights":
                self._probe.check_weights(server, self.path)
            server.was_away = False

    @cached_property
    def _draws_apart(self) -> bool:
        """Whether every server draws several completions of one request apart from each other."""
        return all(server.vllm or self._probe.draws_apart(server, TOGETHER) for server in self._servers)

    def describe(self) -> dict[str, Any]:
        return {
            "engine": self.name,
            "reason": self.reason,
            "model": str(self.path),
            "servers": [server.url for server in self._servers],
            "own": self._own is not None,
            "seeded": self.seeded,
            "verified": self.verified,
            **self.prompter.describe(),
        }

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()
        if self._own is not None:
            self._own.close()


def _in_order(choices: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A reply's choices by their `index`, as sent where they have none: choice i was drawn with seed i."""
    numbers = [choice.get("index") for choice in choices]
    if sorted(number for number in numbers if isinstance(number, int)) != list(range(len(choices))):
        return choices
    return sorted(choices, key=lambda choice: int(choice["index"]))
