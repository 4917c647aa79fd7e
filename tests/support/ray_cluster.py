"""A Ray cluster of several nodes on this machine: a raylet each. Nothing of it is left when it has ended."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

OBJECT_STORE_BYTES = 80 * 2**20

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_NUM_REDIS_GET_RETRIES": "60",  # seconds that its processes may take to start on a busy machine
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "00" * 32,
}


class RayCluster:
    """A cluster whose head has one core, and to which this process is connected."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="vr-", dir="/tmp"))  # short: it holds unix sockets
        (self._folder / "ray").mkdir()
        # Otherwise Ray would write the address of this cluster where all programs on this machine look.
        self._environment = Environment({**_ENVIRONMENT, "RAY_TMPDIR": str(self._folder)})
        # Imported here: it reads the variables.
        import ray  # noqa: PLC0415
        from ray.cluster_utils import Cluster  # noqa: PLC0415

        self._on_sigterm = signal.getsignal(signal.SIGTERM)  # Ray sets its own
        node = {"num_cpus": 1, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args=node | _node())
        self._ray = ray
        ray.init(address=self._cluster.address, log_to_driver=False, configure_logging=False)

    def add_node(self) -> Any:
        """Let a node with one core join; return its handle."""
        return self._cluster.add_node(num_cpus=1, **_node())

    @contextmanager
    def node(self) -> Iterator[None]:
        """A further node within the block."""
        node = self.add_node()
        try:
            yield
        finally:
            self.remove_node(node)

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
