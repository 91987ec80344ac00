"""One interface, several engines: `open_engine` starts the one that can really run here."""

from geozero.engines.base import Completion, Engine, Request, SamplingParams, request_seed, rollout_seed

__all__ = ["Completion", "Engine", "Request", "SamplingParams", "request_seed", "rollout_seed"]
