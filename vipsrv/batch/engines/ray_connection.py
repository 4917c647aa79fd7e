"""The connection to Ray: to a cluster that runs, or to one that is started on this machine for a batch.

Ray's processes of this machine are bound to the thread that starts them: the system kills them when it ends
(``PR_SET_PDEATHSIG``). So a thread of its own starts Ray, waits until it is not needed any more, and ends it.
If this process is killed, they end as well, the last two a minute later.
"""

import asyncio
import logging
import os
import secrets
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from vipsrv.batch.engines.scratch_folder import scratch_folder
from vipsrv.errors import BatchError

OBJECT_STORE_BYTES = 80 * 2**20
"""Memory for Ray's object store, which takes 75 MiB at least. Only keys and rows go through it."""

_ADDRESS = "RAY_ADDRESS"
_CLIENT = "ray://"

_TOKEN = secrets.token_hex(32)
"""For all Rays that this process starts: Ray reads it once in a process."""

_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Ray's processes listen on the loopback interface only. The name tells where that is Ray's own default."""

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # it tells nobody that it runs
    "RAY_NUM_REDIS_GET_RETRIES": "60",  # seconds that it may take to start on a busy machine; usually 20
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray 2.52 warns of a change otherwise
    # What it says of an actor that died goes to standard output, where rows are; we report it ourselves.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed while executing",
}


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """A machine of the cluster that is alive, and the cores that Ray may use there."""

    id: str
    name: str
    cpus: int


class RayConnection:
    """Ray, as one batch uses it. ``ray`` is the package."""

    def __init__(self, ray: ModuleType, address: str) -> None:
        self.ray = ray
        self.address = address
        self._thread: threading.Thread | None = None
        self._needless = threading.Event()

    @property
    def own(self) -> bool:
        """Whether this Ray runs on this machine for this batch only."""
        return not self.address

    @classmethod
    async def open(cls, address: str | None, *, cpus: int | None = None) -> "RayConnection":
        """Connect to the cluster at ``address`` or ``RAY_ADDRESS``, or start one with ``cpus`` cores here.

        If this process is connected already, that connection is used, and left open by ``close``. Raises
        ``BatchError``.
        """
        address = address or os.environ.get(_ADDRESS, "")
        if address.startswith(_CLIENT):
            raise BatchError(
                f"{address}: a batch cannot use the Ray Client; run the command on one of its machines, or "
                "by ray job submit, and give the address HOST:PORT of its head, or auto"
            )
        address = "" if address == "local" else address
        connection = cls(_ray(own=not address), address)
        if connection.ray.is_initialized():
            connection.address = connection.ray.get_runtime_context().gcs_address
        else:
            try:
                await asyncio.shield(asyncio.ensure_future(connection._start(cpus)))
            except asyncio.CancelledError:
                connection._needless.set()  # once it has started
                raise
        return connection

    async def nodes(self) -> list[ClusterNode]:
        """Return the machines that are alive and have cores. Raises ``BatchError``."""
        try:
            found = await asyncio.to_thread(self.ray.nodes)
        except Exception as error:
            raise BatchError(f"Ray does not answer any more: {_first_line(error)}") from error
        return [
            ClusterNode(node["NodeID"], node["NodeManagerHostname"], int(node["Resources"].get("CPU", 0)))
            for node in found
            if node["Alive"] and node["Resources"].get("CPU", 0) >= 1
        ]

    async def close(self) -> None:
        """Leave the cluster; end Ray if it was started here."""
        self._needless.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    async def _start(self, cpus: int | None) -> None:
        started: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        # Daemon: Ray ends its processes itself when the interpreter exits.
        self._thread = threading.Thread(
            target=self._live, args=(cpus, asyncio.get_running_loop(), started), name="ray", daemon=True
        )
        self._thread.start()
        error = await started
        if error is not None:
            await asyncio.to_thread(self._thread.join)
            where = "Ray could not be started" if self.own else f"no connection to Ray at {self.address}"
            raise BatchError(f"{where}: {_first_line(error)}") from error

    def _live(
        self,
        cpus: int | None,
        loop: asyncio.AbstractEventLoop,
        started: "asyncio.Future[BaseException | None]",
    ) -> None:
        """The main function of the thread: all of Ray's life."""
        with ExitStack() as stack:
            try:
                self._init(cpus, stack)
            except BaseException as error:  # noqa: BLE001 - it is raised in the caller's thread
                loop.call_soon_threadsafe(started.set_result, error)
                return
            loop.call_soon_threadsafe(started.set_result, None)
            self._needless.wait()

    def _init(self, cpus: int | None, stack: ExitStack) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
        if not self.own:
            stack.callback(self.ray.shutdown)
            self.ray.init(address=self.address, **options)
            return
        folder = stack.enter_context(scratch_folder())
        stack.callback(self.ray.shutdown)
        with _environment(_QUIET | _LOOPBACK):
            self.ray.init(
                address="local",
                num_cpus=cpus,
                num_gpus=0,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                _temp_dir=str(folder / "r"),  # Ray lets everybody write to its folder
                **options,
            )


def _ray(*, own: bool) -> ModuleType:
    """Import Ray, quietly unless the program uses it, too. Raises ``BatchError`` if it is not installed."""
    first = "ray" not in sys.modules
    if first and own:
        # All users of this machine reach its ports. Ray reads this once, asks for no token by itself before
        # 2.60, and would write one to the home folder.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", _TOKEN)
    try:
        with _environment(_QUIET | _LOOPBACK if own else _QUIET):
            import ray  # noqa: PLC0415 - slow to load, and an extra
    except ImportError:
        raise BatchError(
            "the engine ray needs Ray, which is not installed: pip install 'vipsrv[ray]'"
        ) from None
    if first:
        logging.getLogger("ray").setLevel(logging.ERROR)
    return ray


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables that are not set, for the processes that are started within the block."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
