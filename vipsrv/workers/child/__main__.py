"""The entry of a worker process: ``python -m vipsrv.workers.child``, started only by the gateway.

::

    start   signals, parent ─► imports ─► confined in part ─► libvips tried out ─► confined ─► READY
    loop    head (and descriptor) ─► options ─► image ─► the pipeline ─► reply head, results
    end     the gateway closes its end: exit code 0; it sends something else than a job: exit code 3

The process has one thread, one socket and one job at a time. A worker that cannot start says why in one line
on standard error and exits with code 1.
"""

import argparse
import gc
import json
import logging
import os
import socket
import sys
from dataclasses import dataclass, replace

from vipsrv.worker_config import WatermarkFile, WorkerConfig
from vipsrv.workers.channel import ChannelError
from vipsrv.workers.child import sandbox
from vipsrv.workers.child.loop import JobLoop
from vipsrv.workers.shared_memory import attach

START_FAILED = 1
CHANNEL_BROKEN = 3


@dataclass(frozen=True, slots=True)
class _Arguments:
    channel: socket.socket
    shared: memoryview
    config: WorkerConfig
    parent: int


def main() -> int:
    """Serve jobs until the gateway closes the channel; return the exit code."""
    sandbox.ignore_stop_signals()
    logging.disable()  # pyvips logs every operation and libvips warning, and nothing reads them here
    try:
        loop = _start(_arguments())
    except Exception as error:  # noqa: BLE001 - the gateway gets any reason in one line
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201
        return START_FAILED
    try:
        loop.serve()
    except (BrokenPipeError, ConnectionResetError):
        return 0  # the gateway closed its end while a reply was being sent
    except (ChannelError, OSError):
        return CHANNEL_BROKEN
    return 0


def _arguments() -> _Arguments:
    parser = argparse.ArgumentParser(
        prog="vipsrv.workers.child", description="Started by `vipsrv serve` only."
    )
    parser.add_argument("--socket", type=int, required=True, help="descriptor of the channel to the gateway")
    parser.add_argument(
        "--config",
        required=True,
        help="a JSON object: the fields of WorkerConfig, and parent, the gateway's process id",
    )
    parser.add_argument("--shared", type=int, help="descriptor of the memory that the gateway puts images in")
    arguments = parser.parse_args()
    channel = socket.socket(fileno=arguments.socket)
    channel.setblocking(True)
    shared = memoryview(b"") if arguments.shared is None else attach(arguments.shared)
    config = json.loads(arguments.config)
    parent: int = config.pop("parent")
    config["watermarks"] = tuple(WatermarkFile(**one) for one in config.get("watermarks", ()))
    return _Arguments(channel, shared, WorkerConfig(**config), parent)


def _start(arguments: _Arguments) -> JobLoop:
    sandbox.die_with_parent(arguments.parent)
    # Imported here because it takes most of the start, and a failure must be reported like any other.
    from vipsrv.workers.child.runner import start_pipeline  # noqa: PLC0415

    config = arguments.config
    confinement = sandbox.Confinement(
        config.sandbox,
        parent=arguments.parent,
        job_memory=config.job_memory,
        max_upload=config.max_upload,
        worker_uid=config.worker_uid,
    )
    confinement.begin()
    run, ready = start_pipeline(config, {one.name: _take(one) for one in config.watermarks})
    loop = JobLoop(arguments.channel, arguments.shared, run)
    layers = confinement.complete(arguments.channel.fileno())
    # All objects of now live as long as the worker, so the garbage collector need not visit them.
    gc.freeze()
    arguments.channel.sendall(replace(ready, layers=layers).pack())
    return loop


def _take(file: WatermarkFile) -> bytes:
    data = os.pread(file.descriptor, file.size, 0)
    os.close(file.descriptor)
    return data


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # Skip Python's clean-up: there is nothing to save, and the gateway, which acts when the socket closes,
    # must find the exit code settled by then.
    os._exit(code)
