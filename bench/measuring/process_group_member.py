"""A member process of a ``ProcessGroup``: reads orders as lines of JSON and writes a reply to each."""

import base64
import importlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from bench.measuring.process_group import LEAST

Check = Callable[[bytes], str | None]
"""Says what is wrong with a result, if anything is."""


def main() -> None:
    """Carry out orders until standard input ends."""
    call: Callable[[], bytes] | None = None
    first = b""
    check: Check = _no_check
    for line in sys.stdin:
        order = json.loads(line)
        reply: dict[str, Any]
        if "check" in order:
            check = importlib.import_module(order["check"]).checker(**order["arguments"])
            reply = {"problem": check(first)}
        elif "module" in order:
            call, check = importlib.import_module(order["module"]).prepare(**order["arguments"]), _no_check
            first = call()
            reply = {"result": base64.b64encode(first).decode()}
        else:
            assert call is not None, "prepare comes first"
            reply = _repeat(call, first, check, order["until"], order["count"])
        print(json.dumps(reply), flush=True)


def _no_check(_: bytes) -> str | None:
    return None


def _repeat(
    call: Callable[[], bytes], first: bytes, check: Check, until: float | None, count: int | None
) -> dict[str, Any]:
    completed: list[float] = []
    # One comparison of bytes for each result; only what differs from the first result is looked at.
    problem_of_first = check(first)
    wrong, problem = 0, problem_of_first
    before, started = time.process_time(), time.monotonic()
    while count is None or len(completed) < count:
        result = call()
        completed.append(time.monotonic())
        found = problem_of_first if result == first else check(result)
        if found is not None:
            wrong, problem = wrong + 1, found
        if until is not None and completed[-1] >= until and len(completed) >= LEAST:
            break
    return {
        "started": started,
        "completed": completed,
        "cpu_seconds": time.process_time() - before,
        "wrong": wrong,
        "problem": problem,
    }


if __name__ == "__main__":
    main()
