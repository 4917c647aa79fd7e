"""The server beside the load: CPU time by process, and memory over time."""

from bench.load.record import MemorySample
from bench.measuring.processes import anonymous_bytes, cpu_seconds
from bench.measuring.server import Server


class Watch:
    """Looks at a server's processes in /proc; one that ends meanwhile is left out."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def cpu(self) -> dict[int, float]:
        """Seconds of CPU time so far by process id, the gateway's first."""
        found = {}
        for pid in self._server.pids:
            try:
                found[pid] = cpu_seconds(pid)
            except (FileNotFoundError, ProcessLookupError):
                continue  # a worker that was replaced between the two looks
        return found

    def memory(self, seconds: float, requests: int) -> MemorySample:
        """A sample now."""
        found = []
        for pid in self._server.pids:
            try:
                found.append(anonymous_bytes(pid))
            except (FileNotFoundError, ProcessLookupError, KeyError):
                continue  # likewise; /proc/PID/status of a process that has ended names no memory
        return MemorySample(
            seconds=seconds, requests=requests, gateway_bytes=found[0], worker_bytes=sorted(found[1:])
        )


def used(before: dict[int, float], after: dict[int, float]) -> tuple[float, list[float]]:
    """CPU seconds between two looks: the gateway's, and the workers', the busiest first.

    A worker that was started meanwhile counts from its start; what one used that has ended is not known.
    """
    gateway, *workers = (seconds - before.get(pid, 0.0) for pid, seconds in after.items())
    return gateway, sorted(workers, reverse=True)
