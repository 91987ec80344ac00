"""Moved to `geozero.difficulty.answer_store`; `pass_rates` is found here until the next minor version."""

from geozero.difficulty.answer_store import pass_rates

__all__ = ["pass_rates"]
