"""Small documents of each kind that the report reads, made without measuring anything."""

import json
from pathlib import Path
from typing import Any

from bench.load.histogram import Latencies
from bench.load.record import (
    CoresStats,
    Document,
    GeneratorStats,
    ImageStats,
    MemorySample,
    Run,
    ServerStats,
    to_json,
)
from bench.report.growth import COSTS

MEGA = 1_000_000

SERVERS = ("bare-loop", "codec-floor", "original", "vipsrv", "sharp <0.35>")


def run(rate: float | None = None, *, ms: float = 20.0, replies: int = 3000, **changes: Any) -> Run:
    """A run with all latencies near ``ms``; memory grows from 60 to 72 MB."""
    latencies = Latencies()
    for percent in range(50, 150):
        latencies.record(ms * percent / 1e5)
    memory = [
        MemorySample(
            seconds=number / 2,
            requests=number * replies // 10,
            gateway_bytes=20 * MEGA,
            worker_bytes=[20 * MEGA, (20 + min(number, 8)) * MEGA + number * MEGA // 2],
        )
        for number in range(11)
    ]
    usual: dict[str, Any] = {
        "loop": "closed" if rate is None else "open",
        "rate": rate,
        "protocol": 1,
        "connections": 8,
        "pipeline": 1,
        "width": 800,
        "height": 600,
        "idle": None,
        "warmup_seconds": 0.0,
        "seconds": 5.0,
        "replies_per_second": 123.4,
        "sent_mb_per_second": 1.0,
        "received_mb_per_second": 1.0,
        "answered": 100,
        "errors": {"busy": 2},
        "coordinated_omission": "not corrected" if rate is None else "from intended start",
        "expected_interval_ms": None,
        "latency": latencies.summary(),
        "service": latencies.summary(),
        "images": [
            ImageStats(
                name="a.jpg",
                bytes=9,
                weight=1.0,
                answered=100,
                failed=2,
                mean_ms=20.0,
                mean_result_bytes=5.0,
            )
        ],
        "server": ServerStats(arguments=[], gateway_cpu_ms=0.5, worker_cpu_ms=[5.0, 4.5], memory=memory),
        "generator": GeneratorStats(processes=2, cpu_ms=0.2, busiest=0.1, saturated=False, late_p99_ms=0.1),
        "cores": CoresStats(cores=2, others=0.01, stolen=0.0),
    }
    return Run(**(usual | changes))


def load(*runs: Run) -> Document:
    """A file of ``bench.load``."""
    return Document(
        started="2026-01-02T03:04:05+00:00",
        command=["python"],
        machine={"cpu": "a processor", "cores": 2},
        commit="abc+",
        runs=[*runs],
    )


def comparison() -> dict[str, Any]:
    """A file of ``bench.tools.compare``: two images, and ``SERVERS`` with each."""
    rows = [
        {
            "image": image,
            "server": server,
            "width": 800,
            "height": 600,
            "requests_per_second": 11.0 + place,
            "requests_per_second_net": 12.0 + place,
            "cpu_ms_per_request": 30.0 - place,
            "client_cpu_ms_per_request": None if "-" in server else 0.5,
            "ratio_to_bare_loop": 1.0 - place / 10,
            "cpu_ratio_to_bare_loop": 1.0,
            "input_bytes": 1000,
            "output_bytes": 100 + place,
            "ssim": None if server == "codec-floor" else 0.95 + place / 100,
        }
        for image in ("big.jpg", "plain.png")
        for place, server in enumerate(SERVERS)
    ]
    return {
        "machine": {"cpu": "a processor", "cores": 2},
        "commit": "0123456789ab",
        "time": "2026-01-02T03:04:05+00:00",
        "settings": {"server_cores": [0, 1], "connections": 8},
        "versions": {"vipsrv": "vipsrv 0.1"},
        "missing": {"imgproxy": "not on the path"},
        "rows": rows,
    }


def suite(commit: str, day: int, *, ratio: float = 0.9, dirty: bool = False) -> dict[str, Any]:
    """A file of pytest-benchmark, without most of its fields."""
    time = f"2026-01-{day:02}T00:00:00+00:00"
    cases = ("jpeg-1mp.jpg-400x300", "webp-6mp.webp-800x533")
    return {
        "machine_info": {"cpu": {"brand_raw": "a processor"}},
        "commit_info": {"id": commit, "time": time, "dirty": dirty, "branch": "main"},
        "datetime": time,
        "version": "5.1.0",
        "benchmarks": [
            {
                "group": None,
                "name": f"test_one_client[{case}]",
                "fullname": f"bench/test_server.py::test_one_client[{case}]",
                "params": {"case": case},
                "stats": {"min": 0.1, "median": 0.125, "rounds": 5, "data": [0.1]},
                "extra_info": {
                    "cpu_over_bare": ratio,
                    "compression_ratio": 10.0,
                    "ssim": 0.96,
                    "missing": {"gateway_syscalls": "no strace"},
                },
            }
            for case in cases
        ]
        + [
            {
                "name": "test_pack",
                "fullname": "bench/test_protocol.py::test_pack",
                "stats": {"median": 1e-6, "rounds": 9},
                "extra_info": {},
            }
        ],
    }


def grown(commit: str, day: int, *, exponent: float = 1.0) -> dict[str, Any]:
    """A file of the suite of growth, with one row whose costs grow along cores."""
    document = suite(commit, day)
    points = [
        {"x": x, **dict.fromkeys(COSTS, 2.0 * x**exponent), "requests": 9, "others": 0.25}
        for x in (1.0, 10.0, 100.0)
    ]
    law = {"exponent": exponent, "error": 0.0312, "exponent_at_end": exponent, "each": 1.5}
    row = {
        "name": "test_throughput_grows_with_the_cores",
        "fullname": "suites/test_growth.py::test_throughput_grows_with_the_cores",
        "stats": {"median": 9.0, "rounds": 1},
        "extra_info": {
            "axis": "cores",
            "unit": "cores",
            "points": points,
            "growth": dict.fromkeys(COSTS, law),
            "others": 0.25,
        },
    }
    return document | {"benchmarks": [row]}


def write_all(folder: Path) -> None:
    """A folder with files of each kind, and one of no kind."""
    sweep = [run(rate, ms=10 * number) for number, rate in enumerate((50.0, 100.0, 150.0), start=1)]
    (folder / "load.json").write_bytes(to_json(load(*sweep)))
    (folder / "deeper").mkdir()
    (folder / "deeper" / "more.json").write_bytes(to_json(load(run(replies=20000))))
    (folder / "compare.json").write_text(json.dumps(comparison()))
    (folder / "suite-2.json").write_text(json.dumps(suite("b" * 40, 2, ratio=0.8)))
    (folder / "suite-1.json").write_text(json.dumps(suite("a" * 40, 1)))
    (folder / "other.json").write_text("[1, 2]")
