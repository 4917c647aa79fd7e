"""The server beside the load: CPU time by process, and memory over time."""

from bench.load.record import MemorySample
from bench.measuring.processes import anonymous_bytes, cpu_seconds
from bench.measuring.server import Server


class ServerMonitor:
    """Reads CPU time and memory of a server's processes; leaves out one that ends while it is read."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def cpu(self) -> dict[int, float]:
        """CPU seconds so far by process id, the gateway's first."""
        found = {}
        for pid in self._server.pids:
            try:
                found[pid] = cpu_seconds(pid)
            except (FileNotFoundError, ProcessLookupError):
                continue  # a worker that was replaced after the ids were read
        return found

    def memory(self, seconds: float, requests: int) -> MemorySample:
        """A sample of the memory now."""
        found = []
        for pid in self._server.pids:
            try:
                found.append(anonymous_bytes(pid))
            except (FileNotFoundError, ProcessLookupError, KeyError):
                continue  # likewise; the status of a process that is ending names no memory
        return MemorySample(
            seconds=seconds, requests=requests, gateway_bytes=found[0], worker_bytes=sorted(found[1:])
        )


def cpu_between(before: dict[int, float], after: dict[int, float]) -> tuple[float, list[float]]:
    """CPU seconds between two readings: the gateway's, then the workers', the busiest first.

    A worker that was started in between counts from its start; the time of one that has ended is not known.
    """
    gateway, *workers = (seconds - before.get(pid, 0.0) for pid, seconds in after.items())
    return gateway, sorted(workers, reverse=True)
