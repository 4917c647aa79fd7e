"""Documents of ``bench.tools.compare``, made without measuring anything."""

from typing import Any


def row(server: str, image: str = "12 MP", **figures: Any) -> dict[str, Any]:
    """A row with usual figures."""
    return {
        "image": image,
        "server": server,
        "format": "jpeg",
        "width": 800,
        "height": 600,
        "source": "upload",
        "requests_per_second": 100.0,
        "requests_per_second_net": 100.0,
        "p50_ms": 40.0,
        "p99_ms": 90.0,
        "cpu_ms_per_request": 10.0,
        "client_cpu_ms_per_request": None,
        "ratio_to_vipsrv": 1.0,
        "ratio_to_bare_loop": 1.0,
        "cpu_ratio_to_bare_loop": 1.0,
        "input_bytes": 9000,
        "output_bytes": 1000,
        "ssim": 0.95,
        "colour_difference": 0.6,
        "huffman": "standard",
        "shrink_factor": 4,
        "wrong": 0,
        "problem": None,
        "others_share": 0.01,
    } | figures


def document(*rows: dict[str, Any]) -> dict[str, Any]:
    """A document with these rows."""
    return {
        "rows": list(rows),
        "settings": {
            "rounds": 5,
            "seconds": 2.0,
            "connections": 8,
            "server_cores": [0],
            "client_cores": [1],
        },
        "versions": {"vipsrv": "vipsrv 0.1"},
        "missing": {"imgproxy": "no imgproxy on the path"},
        "missing_cases": {"photo": "no photo.jpg"},
        "machine": {"cpu": "a fast one", "cores": 2, "kernel": "Linux 6", "python": "3.12"},
        "commit": None,
    }
