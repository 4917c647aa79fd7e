"""A member process of a ``ProcessGroup``: reads orders as lines of JSON and writes a reply to each."""

import base64
import importlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from bench.measuring.process_group import LEAST


def main() -> None:
    """Carry out orders until standard input ends."""
    call: Callable[[], bytes] | None = None
    for line in sys.stdin:
        order = json.loads(line)
        if "module" in order:
            call = importlib.import_module(order["module"]).prepare(**order["arguments"])
            reply: dict[str, Any] = {"result": base64.b64encode(call()).decode()}
        else:
            assert call is not None, "prepare comes first"
            reply = _repeat(call, order["until"], order["count"])
        print(json.dumps(reply), flush=True)


def _repeat(call: Callable[[], bytes], until: float | None, count: int | None) -> dict[str, Any]:
    completed: list[float] = []
    before = time.process_time()
    while count is None or len(completed) < count:
        call()
        completed.append(time.monotonic())
        if until is not None and completed[-1] >= until and len(completed) >= LEAST:
            break
    return {"completed": completed, "cpu_seconds": time.process_time() - before}


if __name__ == "__main__":
    main()
