"""A planted password: nowhere in what is shown or kept."""

from __future__ import annotations

import logging
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from unreachable_store import Unreachable

from geozero.common.errors import InputError
from geozero.common.redaction import redact, redacted
from geozero.tracking import Tracker
from geozero.tracking.outbox import Outbox

SECRET = "hunter2-planted"
ADDRESSES = [
    f"postgresql://user:{SECRET}@db.example/runs",
    f"postgresql+psycopg2://user:{SECRET}@db.example:5432/runs?sslmode=require",
    f"http://user:{SECRET}@tracking.example:5000",
    f"https://{SECRET}@server.example/v1",
    f"http://:{SECRET}@server.example",
    f"mysql://user:with@{SECRET}@db/runs",
    f"mysql://user:with/{SECRET}@db/runs",
    f"postgresql://db/runs?user=me&password={SECRET}",
    f"http://server/v1?api_key={SECRET}#x",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_is_shown_without_its_password(address: str) -> None:
    shown = redact(f"cannot open '{address}', try again")
    assert SECRET not in shown and "***" in shown
    assert shown.startswith("cannot open '") and shown.endswith("', try again")
    error = InputError(f"bad {address}", address, f"see {address}")
    assert SECRET not in str(error) + error.what + error.where + error.hint


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:5000/#/runs/a@b",
        "http://host:8000/path@x",
        "sqlite:///mlflow.db",
        "sqlite:////data/a@b/mlflow.db",
        "me@example.org",
        "the bearer of news, in basic terms",
    ],
)
def test_other_text_stays(text: str) -> None:
    assert redact(text) == text


def test_nested_values_are_copied_without_secrets() -> None:
    given = {"tracking": {"uri": ADDRESSES[0]}, "urls": [ADDRESSES[2]], "extra": {"hub_token": SECRET, "max_tokens": 3}}
    shown = redacted(given)
    assert SECRET not in str(shown) and shown["extra"]["max_tokens"] == 3
    assert redacted({"sft.extra.hub_token": SECRET}) == {"sft.extra.hub_token": "***"}
    assert SECRET in str(given)


def test_nothing_that_a_run_records_holds_the_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = {"tracking": {"uri": ADDRESSES[0]}, "sampling": {"urls": {"fold-0": [ADDRESSES[2]]}}}
    sent: list[Any] = []

    class Client:
        def get_run(self, run: str) -> Any:
            data = SimpleNamespace(params={"tracking.uri": "another"}, tags={})
            return SimpleNamespace(data=data, outputs=None, info=SimpleNamespace(experiment_id="0"))

        def create_logged_model(self, *args: Any, **kwargs: Any) -> Any:
            sent.append((args, kwargs))
            return SimpleNamespace(model_id="m")

        def __getattr__(self, name: str) -> Any:
            def record(*args: Any, **kwargs: Any) -> Any:
                sent.append([name, args, [str(vars(one)) for one in kwargs.get("params", [])], kwargs])
                return SimpleNamespace(info=SimpleNamespace(run_id="r"))

            return record

    monkeypatch.setattr(Tracker, "client", Client())
    monkeypatch.setattr(Tracker, "_experiment", lambda self: "0")
    tracker = Tracker(ADDRESSES[0], project=tmp_path)
    run = tracker.open_pipeline("pipeline", params, {"server": ADDRESSES[2]})
    tracker.log_params(run, params)
    tracker.set_tag(run, "server", ADDRESSES[2])
    tracker.log_table(run, "servers", [{"address": ADDRESSES[2]}])
    tracker.register_checkpoint(run, tmp_path / "checkpoint", "model", params=params)
    assert len(sent) > 8 and SECRET not in str(sent)
    assert SECRET not in tracker.address(run) + tracker.compare_address([run])
    assert SECRET not in Tracker(ADDRESSES[2]).address(run)

    box = Outbox(Unreachable(), tmp_path / "outbox")  # type: ignore[arg-type]
    box.log_params("r", params)
    box.set_tag("r", "server", ADDRESSES[2])
    box.close(0)
    written = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert written and not any(SECRET.encode() in file.read_bytes() for file in written)


def test_servers_are_known_by_addresses_without_passwords(caplog: pytest.LogCaptureFixture) -> None:
    from geozero.engines.openai_client import address

    with caplog.at_level(logging.DEBUG):
        assert address(f"http://user:{SECRET}@server:8000/") == "http://server:8000/v1"
    assert SECRET not in caplog.text


@pytest.mark.parametrize("scheme", ["postgresql", "http"])
def test_an_unreachable_store_is_one_line_at_once(scheme: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refused
        began = time.monotonic()
        with pytest.raises(InputError, match="can't be opened: Connection refused") as caught:
            _ = Tracker(f"{scheme}://user:{SECRET}@127.0.0.1:{taken.getsockname()[1]}/runs").client
    assert time.monotonic() - began < 20
    assert SECRET not in str(caught.value) and "\n" not in str(caught.value)
