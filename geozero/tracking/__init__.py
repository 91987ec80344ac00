"""Runs in MLflow, without Prefect: their store, their contents, their beginning and end."""

from geozero.tracking.contents import flatten
from geozero.tracking.tracker import PARENT_TAG, REUSED_TAG, RUN_ID_FILE, Status, Tracker

__all__ = ["PARENT_TAG", "REUSED_TAG", "RUN_ID_FILE", "Status", "Tracker", "flatten"]
