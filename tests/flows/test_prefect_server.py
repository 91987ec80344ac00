"""A starting Prefect server spares the runs that could not report while it was away."""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

from geozero.stack.prefect_server import INDEX, LEASES, SPARE_SECONDS, spare_runs


def test_what_is_due_gets_a_moment_more_and_nothing_gets_less(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    past, later = now - timedelta(hours=1), now + timedelta(hours=1)
    with sqlite3.connect(tmp_path / "prefect.db") as database:
        database.execute('CREATE TABLE automation_bucket (id INTEGER, "end" DATETIME)')
        for number, end in enumerate((past, later)):
            database.execute("INSERT INTO automation_bucket VALUES (?, ?)", (number, end.replace(tzinfo=None)))
    (tmp_path / LEASES).mkdir()
    ends = {"a": past.isoformat(), "b": later.isoformat()}
    (tmp_path / LEASES / INDEX).write_text(json.dumps(ends))
    for name, end in ends.items():
        (tmp_path / LEASES / f"{name}.json").write_text(json.dumps({"id": name, "expiration": end}))
    spare_runs(tmp_path)
    with sqlite3.connect(tmp_path / "prefect.db") as database:
        first, second = (row[0] for row in database.execute('SELECT "end" FROM automation_bucket ORDER BY id'))
    assert second == str(later.replace(tzinfo=None))
    spared = datetime.fromisoformat(first).replace(tzinfo=UTC)
    assert now < spared <= datetime.now(UTC) + timedelta(seconds=SPARE_SECONDS)
    index = json.loads((tmp_path / LEASES / INDEX).read_text())
    assert index["b"] == ends["b"] and datetime.fromisoformat(index["a"]) > now
    assert json.loads((tmp_path / LEASES / "a.json").read_text()) == {"id": "a", "expiration": index["a"]}


def test_a_new_or_broken_home_is_left_alone(tmp_path: Path) -> None:
    spare_runs(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / LEASES).mkdir()
    (tmp_path / LEASES / INDEX).write_text("not json")
    (tmp_path / "prefect.db").write_text("no database")
    spare_runs(tmp_path)
    assert (tmp_path / "prefect.db").read_text() == "no database"
