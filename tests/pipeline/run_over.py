"""Resize many files in a process of its own, as a worker would, and report on each.

``python -m tests.pipeline.run_over LIST FOLDER``: LIST is a JSON list of [path, width, height]. Results go
into FOLDER, named by their position in the list. Standard output has JSON: a list of [class of the error or
null, message, CPU seconds], and the peak of this process's memory in bytes.
"""

import json
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path

from tests.pipeline.run import LIMITS
from vipsrv import pipeline
from vipsrv.errors import RequestError
from vipsrv.options import ResizeOptions


def main(listed: Path, folder: Path) -> None:
    pipeline.start()
    told: list[tuple[str | None, str, float]] = []
    for place, (path, width, height) in enumerate(json.loads(listed.read_text())):
        upload = pipeline.Upload.from_memory(Path(path).read_bytes())
        options = ResizeOptions(width=width, height=height)
        before = time.process_time()
        kind, message = None, ""
        try:
            result = pipeline.resize(upload, [options], config=replace(LIMITS, quality=95))
            (folder / str(place)).write_bytes(result.outputs[0].data)
        except RequestError as error:
            kind, message = type(error).__name__, error.message
        told.append((kind, message, time.process_time() - before))
    json.dump([told, _peak()], sys.stdout)


def _peak() -> int:
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Not getrusage: on Linux a process begins with the peak of the process that started it.
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
