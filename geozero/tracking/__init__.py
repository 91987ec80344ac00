"""Runs in MLflow, without Prefect: where they are kept, what they hold, how they begin and end."""

from geozero.tracking.contents import flatten
from geozero.tracking.tracker import PARENT_TAG, REUSED_TAG, RUN_ID_FILE, Status, Tracker

__all__ = ["PARENT_TAG", "REUSED_TAG", "RUN_ID_FILE", "Status", "Tracker", "flatten"]
