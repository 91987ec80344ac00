"""What a chat completion's request says, so that each kind of server samples as we do."""

from __future__ import annotations

from typing import Any

from geozero.engines.base import Request, SamplingParams
from geozero.engines.openai_client import IMAGE_PLACE, Server
from geozero.engines.prompts import IMAGE_MARK, Prompt, Prompter, content_parts

ARGUMENT = "geozero_draw"  # geozero.engines.vllm_sampler.ARGUMENT, without importing vLLM


class BodyMaker:
    """Makes the fields of requests.

    Attributes:
        seeded: whether the servers run our sampler.
    """

    def __init__(self, prompter: Prompter) -> None:
        self.prompter, self.seeded = prompter, True

    def fields(self, request: Request, prompt: Prompt, params: SamplingParams) -> dict[str, Any]:
        """What a chat completion's request says on every server."""
        part = {"type": "image_url", "image_url": {"url": IMAGE_PLACE}}
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
        return body

    def for_server(self, server: Server, body: dict[str, Any], seed: int | None, n: int) -> dict[str, Any]:
        """The request with what this server needs to sample as we do."""
        body = {"model": server.model, **body} | ({} if seed is None else {"seed": seed}) | ({"n": n} if n > 1 else {})
        if not server.vllm:
            return body
        vocabulary = self.prompter.vocabulary
        body |= {"return_token_ids": True, "stop_token_ids": list(vocabulary.end)}
        if self.seeded:
            seed = body.pop("seed", None)
            if seed is not None:  # vLLM takes the best of what our sampler leaves over, and refuses n greedy ones
                draw = [seed, body["temperature"], body["top_p"], body.pop("top_k", 0)]
                body |= {"temperature": 0.0 if n == 1 else 1.0, "top_p": 1.0, "vllm_xargs": {ARGUMENT: draw}}
            return body
        # nothing but temperature and top_p may shape the distribution, whatever the server's defaults
        bias = {str(token): -100 for token in vocabulary.suppressed}
        return {"top_k": 0} | body | {"min_p": 0.0, "repetition_penalty": 1.0, "logit_bias": bias}
