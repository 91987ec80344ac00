"""Start the stack's Prefect server: `python -m geozero.stack.prefect_server --host HOST --port PORT`.

While a server is away no heartbeat reaches it and no lease is renewed. As it starts it would take every run for dead,
so what is due gets a moment more first, in which living runs report; the others are found dead after it.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from geozero.common.atomic import write_json

SPARE_SECONDS = 120  # until a server on a busy machine answers and each run has sent a heartbeat
LEASES, INDEX = "concurrency_leases", "expirations.json"


def spare_runs(home: Path) -> None:
    """Let no heartbeat be due and no lease end within the next two minutes.

    Args:
        home: `PREFECT_HOME`, with the SQLite database and the leases of a server that does not run.
    """
    due = datetime.now(UTC) + timedelta(seconds=SPARE_SECONDS)
    late = due.strftime("%Y-%m-%d %H:%M:%S.%f")  # as the database has times: UTC, as text
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{home / 'prefect.db'}?mode=rw", uri=True)) as database:
        database.execute('UPDATE automation_bucket SET "end" = max("end", ?)', (late,))
        database.commit()
    with suppress(OSError, ValueError, KeyError, TypeError):
        index = json.loads((home / LEASES / INDEX).read_text())
        for name, ends in index.items():
            if datetime.fromisoformat(ends) < due:
                lease = json.loads((home / LEASES / f"{name}.json").read_text())
                write_json(home / LEASES / f"{name}.json", lease | {"expiration": due.isoformat()})
                index[name] = due.isoformat()
        write_json(home / LEASES / INDEX, index)


if __name__ == "__main__":
    spare_runs(Path(os.environ["PREFECT_HOME"]))
    os.execv(sys.executable, [sys.executable, "-m", "prefect", "server", "start", *sys.argv[1:]])
