"""The live figures of a real server: of one gateway, of two, and over a unix socket."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.images import jpeg
from tests.support.running_server import RunningServer, worker_pids
from vipsrv import Client, VipsrvError
from vipsrv.cli.ops_connection import ops_address
from vipsrv.cli.ops_stream import open_stream

SILENT_SECONDS = 60


def first_live(address: str, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """The first figures of which ``condition`` is true."""
    with open_stream(ops_address(address), SILENT_SECONDS) as events:
        return next(data for name, data in events if name == "live" and condition(data))


def count(live: dict[str, Any]) -> int:
    return sum(one["count"] for one in live["statuses"])


@pytest.mark.parametrize("gateways", [1, 2])
def test_every_request_is_counted_whichever_gateway_had_it(gateways: int) -> None:
    arguments = ("--ops-listen", "127.0.0.1:0", "--gateways", str(gateways), "--workers", "2")
    with RunningServer(*arguments) as server:
        image = jpeg()
        for number in range(30):
            with Client(host=server.host, port=server.port) as client:  # each may come to another gateway
                if number % 5:
                    client.resize(image, width=50)
                else:
                    with pytest.raises(VipsrvError):
                        client.resize(b"no image", width=50)
        ended = int(time.monotonic())  # the history has complete seconds only: wait for the end of this one
        live = first_live(server.ops, lambda live: live["columns"]["second"] >= ended)
        assert {(one["status"], one["code"], one["count"]) for one in live["statuses"]} == {
            (200, "ok", 24),
            (415, "unsupported_format", 6),
        }
        assert live["server"]["gateways"] == gateways
        assert live["wanted_workers"] == len(live["workers"]) == 2
        assert sum(worker["jobs"] for worker in live["workers"]) >= 30
        assert all(worker["rss"] > 10_000_000 for worker in live["workers"])
        assert {worker["gateway"] for worker in live["workers"]} == set(range(gateways))
        assert [one["pid"] for one in live["gateways"]].count(server.pid) == (gateways == 1)
        with open_stream(ops_address(server.ops), SILENT_SECONDS) as events:
            history = next(data for name, data in events if name == "history")
            errors = next(data for name, data in events if name == "errors")
        assert (sum(history["ok"]), sum(history["refused"]), sum(history["failed"])) == (24, 6, 0)
        assert sum(history["bytes_in"]) == 24 * len(image)
        assert errors["seen"] == 6
        assert history["waiting"][-1] == 0
        assert len(history["cores"]) == len(history["ok"])


def test_a_worker_with_a_job_is_shown_with_it() -> None:
    with RunningServer("--ops-listen", "127.0.0.1:0", "--workers", "1") as server:
        (pid,) = worker_pids(server.pid)
        os.kill(pid, signal.SIGSTOP)  # so that the job lasts as long as the test looks
        image = jpeg()
        with ThreadPoolExecutor(1) as threads, Client(host=server.host, port=server.port) as client:
            result = threads.submit(client.resize, image, width=20)
            try:
                live = first_live(server.ops, lambda live: live["workers"][0]["state"] == "busy")
            finally:
                os.kill(pid, signal.SIGCONT)
            assert result.result(SILENT_SECONDS).width == 20
        (worker,) = live["workers"]
        assert worker["pid"] == pid
        assert worker["job"]["kind"] == "resize"
        assert worker["job"]["bytes"] == len(image)
        assert worker["job"]["seconds"] >= 0


def test_top_over_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "ops"
    with RunningServer("--ops-listen", f"unix:{path}", "--workers", "1"):
        done = subprocess.run(
            [sys.executable, "-m", "vipsrv", "top", f"unix:{path}", "--json", "--once"],
            capture_output=True,
            timeout=SILENT_SECONDS,
            check=True,
        )
    assert json.loads(done.stdout)["wanted_workers"] == 1
