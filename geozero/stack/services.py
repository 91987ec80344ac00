"""What the local stack is made of: four processes, how each is started, and what each needs around it."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from geozero.common.process import quiet_environment

SERVER, MLFLOW = "prefect", "mlflow"
POOLS = {"cpu": 2, "gpu": 1}  # work pools, and how many runs each takes at a time
PROCESS_TAG = "GEOZERO_STACK"  # environment variable that every process of a stack carries, its directory as the value
HEARTBEAT_SECONDS = 30  # the shortest that Prefect takes
LOOPBACK = ("127.0.0.1", "localhost", "::1")
PRIVATE = ("localhost:*", "127.*", "10.*", "192.168.*", *(f"172.{i}.*" for i in range(16, 32)))  # MLflow's own defaults
SERVER_LOGGING = Path(__file__).with_name("server-logging.yaml")


@dataclass(frozen=True)
class StackPlan:
    """Where a stack lies and listens.

    Attributes:
        root: the checkout; flows run in it, `mlflow.db` and `mlartifacts/` lie in it.
        host: the address both servers listen on.
        port: of the Prefect server.
        mlflow_port: of the MLflow server.
    """

    root: Path
    host: str = "127.0.0.1"
    port: int = 4200
    mlflow_port: int = 5000

    @property
    def directory(self) -> Path:
        return self.root / ".geozero" / "stack"

    @property
    def home(self) -> Path:
        """Prefect's home: its settings and its database, so that runs are still known after `down` and `up`."""
        return self.root / ".geozero" / "prefect"

    @property
    def prefect_address(self) -> str:
        return f"http://{self._reached}:{self.port}"

    @property
    def mlflow_address(self) -> str:
        return f"http://{self._reached}:{self.mlflow_port}"

    @property
    def _reached(self) -> str:
        return "127.0.0.1" if self.host == "0.0.0.0" else self.host

    def address(self, part: str) -> str:
        """Where to look at a part: a worker's page in Prefect."""
        if part == MLFLOW:
            return self.mlflow_address
        pool = part.removeprefix("worker-")
        return self.prefect_address + (f"/work-pools/work-pool/{pool}" if pool != part else "")

    def log(self, part: str) -> Path:
        return self.directory / f"{part}.log"

    def environment(self, part: str = "") -> dict[str, str]:
        """Of a part: this Prefect and no other, all telemetry off, this environment's commands found first."""
        own = {"PREFECT_LOGGING_SETTINGS_PATH": str(SERVER_LOGGING)} if part == SERVER else {}
        search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        return quiet_environment(
            {
                PROCESS_TAG: str(self.directory),
                "PATH": search,
                "PREFECT_HOME": str(self.home),
                "PREFECT_API_URL": f"{self.prefect_address}/api",
                "PREFECT_SERVER_UI_API_URL": "/api",  # else its pages call port 4200 whatever the port is
                "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
                "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",  # an unreachable server is an error, not another server
                "GEOZERO_PREFECT_UI": self.prefect_address,
                "GEOZERO_MLFLOW_UI": self.mlflow_address,
                **own,
            }
        )

    def command(self, part: str) -> list[str]:
        """The command line of a part."""
        python = [sys.executable, "-m"]
        if part == SERVER:
            return [*python, "prefect", "server", "start", "--host", self.host, "--port", str(self.port)]
        if part == MLFLOW:
            return [
                *(*python, "mlflow", "server", "--host", self.host, "--port", str(self.mlflow_port), "--workers", "1"),
                *("--backend-store-uri", f"sqlite:///{self.root / 'mlflow.db'}"),
                *("--artifacts-destination", (self.root / "mlartifacts").as_uri()),
                *("--uvicorn-opts", "--log-level warning"),
                *self._let_in(),
            ]
        pool = part.removeprefix("worker-")
        return [*python, "prefect", "worker", "start", "--pool", pool, "--type", "process", "--name", self.worker(pool)]

    def _let_in(self) -> list[str]:
        """By which names MLflow may be called: of itself it refuses this machine's own to others, and to its pages."""
        if self.host in LOOPBACK:
            return []
        names = dict.fromkeys((self.host, socket.gethostname(), socket.getfqdn()))
        hosts = [*(f"{name}:{self.mlflow_port}" for name in names), *PRIVATE]
        origins = [f"http://{host}" for host in hosts]
        return ["--allowed-hosts", ",".join(hosts), "--cors-allowed-origins", ",".join(origins)]

    def worker(self, pool: str) -> str:
        return f"geozero-{pool}"


SERVICES = (SERVER, MLFLOW, *(f"worker-{pool}" for pool in POOLS))
