"""The log of a real server whose reader stalls, and what a client can write into it."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress

from tests.conftest import StartServer
from tests.support import bare_client
from vipsrv.client import Client

NO_IMAGE = bare_client.header(4) + b"none"
FAILED_REQUESTS = 200


def test_a_stalled_log_reader_stops_neither_requests_nor_the_end() -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    with suppress(BlockingIOError):
        while True:
            os.write(write_end, b"\n")
    os.set_blocking(write_end, True)  # and now each write to it waits for ever
    with subprocess.Popen(
        [sys.executable, "-m", "vipsrv", "serve", "--port", "0", "--workers", "1", "--log-level", "debug"],
        stdout=subprocess.PIPE,
        stderr=write_end,
        text=True,
    ) as process:
        try:
            os.close(write_end)
            assert process.stdout is not None
            port = int(process.stdout.readline().rpartition(":")[2])
            for _ in range(FAILED_REQUESTS):
                with bare_client.connect(port) as sock:
                    sock.sendall(NO_IMAGE)
                    assert bare_client.read_answer(sock).error["status"] == 415
            with Client("127.0.0.1", port) as client:
                assert client.ping() > 0
            process.send_signal(signal.SIGTERM)
            assert process.wait(bare_client.SECONDS) == 0
        finally:
            process.kill()
            os.close(read_end)


def test_a_client_cannot_fill_the_log(start_server: StartServer) -> None:
    server = start_server("--workers", "1")
    for _ in range(FAILED_REQUESTS):
        with bare_client.connect(server.port) as sock:
            sock.sendall(NO_IMAGE)
            bare_client.read_answer(sock)
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(bare_client.SECONDS)
    lines = [json.loads(line) for line in server.log.splitlines()]
    refusals = [line for line in lines if line["event"] == "request"]
    counts = [line for line in lines if "more lines were left out: 415 unsupported_format" in line["event"]]
    assert counts
    assert len(refusals) + sum(line["left_out"] for line in counts) == FAILED_REQUESTS
