"""The store of runs: a SQLite file or a server, an experiment in it, and the addresses of MLflow's pages."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit
from urllib.request import getproxies

from geozero.common.errors import InputError
from geozero.common.process import QUIET_AND_OFFLINE

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

LOCAL_UI = "http://127.0.0.1:5000"
STACK = ".geozero/stack/state.json"  # what `geozero stack up` writes while it runs
PAGES = "GEOZERO_MLFLOW_UI"  # environment variable: the address at which the pages of a SQLite store are served
# With MLflow's own 7 retries of 120 s, an unreachable server costs four minutes before the first message.
LIMITS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # with the password that tracking.uri may hold
    "PGCONNECT_TIMEOUT": "4",  # seconds per attempt of a PostgreSQL that accepts the connection and says nothing
}
URI_VARIABLE = "MLFLOW_TRACKING_URI"
ARTIFACTS = "mlartifacts"  # of a SQLite store, beside it
# Columns of MLflow's database that hold places of artifacts.
PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
CONNECT_SECONDS = 10.0
DATABASE_RETRIES = 3  # of MLflow, each twice as long as the one before; its own 15 take hours
NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # MLflow's codes for something that does not exist

_REFUSED = re.compile(r"\[Errno -?\d+\] ([^'\")]+)")


@dataclass(frozen=True)
class MlflowStore:
    """A tracking store and an experiment in it, in plain values that can be pickled and sent to a worker.

    Attributes:
        uri: `sqlite:///mlflow.db` (relative to `project`) or a server's `http://…`.
        project: directory of params.yaml; the artifacts of a SQLite store go there, too (`mlartifacts/`).
    """

    uri: str = "sqlite:///mlflow.db"
    experiment: str = "geozero"
    project: Path = Path()

    @property
    def store(self) -> str:
        """The URI with a relative SQLite path made absolute."""
        path = self.uri.removeprefix("sqlite:///")
        if path == self.uri or path.startswith("/") or path in ("", ":memory:"):
            return self.uri
        return f"sqlite:///{(self.project / path).resolve()}"

    @property
    def client(self) -> MlflowClient:
        """MLflow's own client of this store, for reading and searching runs."""
        return _client(self.store)

    def answers(self) -> bool:
        """Whether the store can be read now."""
        try:
            self.client.search_experiments(max_results=1)
        except Exception:  # for any reason
            return False
        return True

    def run(self, run_id: str) -> Run | None:
        """A run as MLflow has it; None if there is none with this id."""
        from mlflow.exceptions import MlflowException

        try:
            return self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code not in NOT_THERE:
                raise
            return None  # the store was deleted, or replaced

    def compare_address(self, run_ids: Sequence[str]) -> str:
        """The address of MLflow's page that compares runs: parameters, metrics, and plots of them.

        For a SQLite store it is where `geozero stack up` or `mlflow ui` serve it by default.
        """
        experiments = sorted({str(self.client.get_run(run).info.experiment_id) for run in run_ids})
        runs, within = (quote(json.dumps(ids, separators=(",", ":"))) for ids in (list(run_ids), experiments))
        return f"{self._pages()}/#/compare-runs?runs={runs}&experiments={within}"

    def address(self, run_id: str) -> str:
        """The address of a run's page in MLflow."""
        return f"{self._pages()}/#/experiments/{self.client.get_run(run_id).info.experiment_id}/runs/{run_id}"

    def _pages(self) -> str:
        """The address of MLflow's pages: the server's, or where the checkout's stack serves those of a SQLite store."""
        if self.store.startswith("http"):
            scheme, _, rest = self.store.rstrip("/").partition("://")
            return f"{scheme}://{rest.rpartition('@')[2]}"  # the browser asks for a password by itself
        try:
            plan = json.loads((self.project / STACK).read_text())["plan"]
            stack = f"http://{str(plan['host']).replace('0.0.0.0', '127.0.0.1')}:{plan['mlflow_port']}"
        except (OSError, ValueError, KeyError, TypeError):
            stack = LOCAL_UI
        return os.environ.get(PAGES, stack)

    def _experiment(self) -> str:
        return _experiment_id(self.store, self.experiment, str((self.project / ARTIFACTS).resolve()))


def configured_uri(uri: str) -> str:
    """The address of the store: the parameter file's, where it is not the default, or else `MLFLOW_TRACKING_URI`."""
    return (os.environ.get(URI_VARIABLE) or uri) if uri == MlflowStore.uri else uri


def follow_move(database: Path, artifacts: Path) -> int:
    """Correct the places of artifacts in the SQLite store of a checkout that was moved or copied.

    MLflow records absolute paths: without this the pages of a moved checkout show no artifacts, and new ones go to the
    directory it was moved from. Returns how many entries were corrected.
    """
    database, artifacts = database.resolve(), artifacts.resolve()
    if not database.is_file() or database.parent != artifacts.parent:
        return 0
    n = 0
    with closing(sqlite3.connect(database, timeout=CONNECT_SECONDS)) as connection, suppress(sqlite3.OperationalError):
        locations = [row[0] for row in connection.execute("SELECT artifact_location FROM experiments") if row[0]]
        for old in locations:
            place = Path(unquote(urlsplit(old).path))
            if urlsplit(old).scheme not in ("", "file") or place.name != ARTIFACTS or place == artifacts:
                continue
            if place.is_dir() and not artifacts.is_dir():
                continue  # the database was moved without its artifacts
            with connection:
                for table, column in PLACES:
                    n += connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?)"
                        f" WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                        (artifacts.as_uri(), len(old) + 1, old, len(old) + 1, f"{old}/"),
                    ).rowcount
    return n


@lru_cache(maxsize=8)
def _client(store: str) -> MlflowClient:
    for key, value in (QUIET_AND_OFFLINE | LIMITS).items():
        os.environ.setdefault(key, value)
    for name in ("alembic", "mlflow.store.db.utils"):  # a new SQLite store would report each of its migrations
        logging.getLogger(name).setLevel(logging.WARNING)
    from mlflow import MlflowClient

    _connect(store)
    if not store.startswith(("http", "sqlite")):
        from mlflow.store.db import utils

        utils.MAX_RETRY_COUNT = DATABASE_RETRIES
    try:
        return MlflowClient(tracking_uri=store)
    except Exception as error:
        raise _unreachable(store, error) from error


def _connect(store: str) -> None:
    """Say soon that a server cannot be reached: the libraries themselves try for minutes.

    Raises:
        InputError: nothing listens there.
    """
    try:
        parts = urlsplit(store)
        host, port = parts.hostname, parts.port or PORTS.get(parts.scheme.partition("+")[0])
    except ValueError as error:
        raise InputError(f"no address of a tracking store: {error}", store, "set tracking.uri") from None
    if not host or port is None or (parts.scheme.startswith("http") and getproxies()):
        return
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except OSError as error:
        raise _unreachable(store, error) from error


@lru_cache(maxsize=64)
def _experiment_id(store: str, name: str, artifacts: str) -> str:
    """The experiment's id, created if necessary: MLflow's own default for artifacts is the current directory."""
    from mlflow.exceptions import MlflowException

    if store.startswith("sqlite:///"):
        follow_move(Path(store.removeprefix("sqlite:///")), Path(artifacts))
    client = _client(store)
    try:
        found = client.get_experiment_by_name(name)
        if found is None:
            try:
                location = Path(artifacts).as_uri() if store.startswith("sqlite:") else None
                return str(client.create_experiment(name, artifact_location=location))
            except MlflowException:  # another process created it first
                found = client.get_experiment_by_name(name)
    except Exception as error:
        raise _unreachable(store, error) from error
    if found is None or found.lifecycle_stage == "deleted":
        raise InputError(f"experiment '{name}' was deleted", store, "restore it in MLflow, or name another one")
    return str(found.experiment_id)


def _unreachable(store: str, error: Exception) -> InputError:
    hint = "start it with `geozero stack up`, or set tracking.uri" if store.startswith("http") else "set tracking.uri"
    refused = _REFUSED.search(str(error))  # the system's own words, within those of three libraries
    reason = refused[1] if refused else " ".join(str(error).split())[:200]
    return InputError(f"the tracking store can't be opened: {reason}", store, hint)
