"""Questions to a server at the start: does it run our sampler, which weights does it hold, does it draw apart?"""

from __future__ import annotations

import io
import logging
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from geozero.common.errors import InputError
from geozero.engines.base import Request, SamplingParams
from geozero.engines.openai_client import Body, RequestRefused, Server, ServerFailed, data_url, post
from geozero.engines.prompts import IMAGE_MARK, Prompt
from geozero.engines.serving.bodies import BodyMaker
from geozero.engines.serving.served_model import IDENTITY_BYTES, check_weights

IDENTITY = "geozero_identity"  # geozero.engines.vllm_sampler.IDENTITY, without importing vLLM
SIDE = 1 << 6  # of the image
SEEDS = 6
TEMPERATURE = 20.0  # seeds then give different answers

log = logging.getLogger(__name__)


class Probe:
    """Asks servers about themselves."""

    def __init__(self, client: httpx.Client, bodies: BodyMaker) -> None:
        self.client, self.bodies = client, bodies

    def runs_our_sampler(self, server: Server) -> bool:
        """Several seeds at a high temperature: with our sampler the answers differ, else they are greedy.

        Raises:
            InputError: it does not answer the question.
        """
        params, answers = SamplingParams(temperature=TEMPERATURE, max_tokens=4), set()
        for seed in range(SEEDS):
            try:
                reply = self._ask(server, params, seed, 1)
            except (RequestRefused, ServerFailed) as failure:
                raise InputError(str(failure), server.url, "see the server's own log") from None
            answers.add(str(reply["choices"][0].get("token_ids")))
        return len(answers) > 1

    def draws_apart(self, server: Server, n: int) -> bool:
        """Whether n completions of one request are drawn apart: some servers give all of them one seed, or only one
        completion. One that gives the same answer whatever the seed has nothing to draw.
        """
        params, answers = SamplingParams(temperature=TEMPERATURE, max_tokens=8), []
        for seed in (0, None):
            try:
                reply = self._ask(server, params, seed, n)
            except (RequestRefused, ServerFailed):
                return False
            answers.append([str(choice["message"].get("content")) for choice in reply["choices"]])
        seeded, unseeded = answers
        return len(seeded) == n and (len(set(seeded)) > 1 or len(set(unseeded)) == 1)

    def check_weights(self, server: Server, path: Path) -> bool:
        """Compare the hash of a server's weights with the checkpoint's; False where it does not report one.

        Raises:
            InputError: they differ.
            ServerFailed: it does not answer.
        """
        digits = 2 * IDENTITY_BYTES
        turns = [{"role": "user", "content": "Which weights are these?"}]
        asked = {"model": server.model, "messages": turns, "max_tokens": digits, "temperature": 0.0}
        asked |= {"vllm_xargs": {IDENTITY: 1}, "ignore_eos": True, "return_token_ids": True}
        try:
            tokens = post(self.client, server, Body(asked, b"").encoded())["choices"][0].get("token_ids") or []
        except RequestRefused as refused:
            raise InputError(str(refused), server.url, "see the server's own log") from None
        if len(tokens) != digits or any(not 0 <= token < 16 for token in tokens):
            log.warning("%s does not report the hash of its weights: it runs an older geozero", server.url)
            return False
        check_weights("".join(f"{token:x}" for token in tokens), path, server.url)
        return True

    def _ask(self, server: Server, params: SamplingParams, seed: int | None, n: int) -> dict[str, Any]:
        request, prompt = self._question
        fields = self.bodies.for_server(server, self.bodies.fields(request, prompt, params), seed, n)
        return post(self.client, server, Body(fields, data_url(prompt.image)).encoded())

    @cached_property
    def _question(self) -> tuple[Request, Prompt]:
        image = io.BytesIO()
        Image.radial_gradient("L").resize((SIDE, SIDE)).convert("RGB").save(image, "PNG")
        request = Request("probe", [{"role": "user", "content": f"{IMAGE_MARK}What is this?"}], image.getvalue())
        return request, self.bodies.prompter.prepare(request)
