"""A Ray cluster of several nodes on this machine: a raylet each. Nothing of it is left when it has ended."""

import os
import shutil
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

OBJECT_STORE_BYTES = 80 * 2**20

START_SECONDS = 120
"""Time for the first node. Ray's own helper waits for 30 s, which is too short on a busy machine."""

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_NUM_REDIS_GET_RETRIES": "60",  # seconds that its processes may take to start on a busy machine
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # all ports are on the loopback interface
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "00" * 32,
}


class RayCluster:
    """A cluster whose head has two cores, and to which this process is connected."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="vr-", dir="/tmp"))  # short: it holds unix sockets
        (self._folder / "ray").mkdir()
        # Otherwise Ray would write the address of this cluster where all programs on this machine look.
        self._environment = Environment({**_ENVIRONMENT, "RAY_TMPDIR": str(self._folder)})
        # Imported here: it reads the variables.
        import ray  # noqa: PLC0415
        from ray.cluster_utils import Cluster  # noqa: PLC0415

        self._on_sigterm = signal.getsignal(signal.SIGTERM)  # Ray sets its own
        self._ray = ray
        self._cluster = Cluster()
        try:
            head = self._cluster.add_node(wait=False, num_cpus=2, include_dashboard=False, **_node())
            self._cluster._wait_for_node(head, START_SECONDS)
            ray.init(address=self._cluster.address, log_to_driver=False, configure_logging=False)
        except BaseException:
            self.close()
            raise

    def add_node(self) -> Any:
        """Let a node with one core join, some time later; return its handle."""
        return self._cluster.add_node(wait=False, num_cpus=1, **_node())

    def remove_node(self, node: Any) -> None:
        """End a node with all its processes, as if its machine had gone."""
        self._cluster.remove_node(node, allow_graceful=False)

    def actors(self) -> list[psutil.Process]:
        """The processes of all actors of batches, in the order of their start."""
        found = []
        for raylet in psutil.process_iter(["cmdline"]):
            if str(self._folder) in " ".join(raylet.info["cmdline"] or ()):
                found += [one for one in raylet.children() if one.name().startswith("ray::Node")]
        return sorted(found, key=lambda one: one.create_time())

    def close(self) -> None:
        """End all processes and remove their files."""
        self._ray.shutdown()
        self._cluster.shutdown()  # type: ignore[no-untyped-call]
        signal.signal(signal.SIGTERM, self._on_sigterm)
        self._environment.restore()
        shutil.rmtree(self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Environment:
    """Variables of this process that are set until ``restore``."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._before = {name: os.environ.get(name) for name in values}
        os.environ.update(values)

    def restore(self) -> None:
        """Give the variables the values that they had."""
        for name, value in self._before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _node() -> dict[str, Any]:
    return {"num_gpus": 0, "object_store_memory": OBJECT_STORE_BYTES}
