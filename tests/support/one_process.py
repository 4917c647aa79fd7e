"""Spreads tests over the processes of pytest-xdist, except for those that share something dear."""

from xdist.scheduler.load import LoadScheduling
from xdist.workermanage import WorkerController

TOGETHER = ("tests/batch/engines/test_ray_engine.py::", "tests/docker/test_haproxy.py::")
"""Tests whose names begin so go to one process: each process would start a Ray cluster, or three servers
and HAProxy, for them.
"""


class OneProcess(LoadScheduling):  # type: ignore[misc]  # xdist has no types
    """The usual distribution, ``--dist load``, except that tests that belong together are sent together.

    ``loadgroup`` is no way. With pytest 9.2 it does not group, as xdist 3.8 sets an id that nobody reads; and
    it hands out all other tests one by one, so that both processes start the servers of each module.
    """

    def _send_tests(self, node: WorkerController, num: int) -> None:
        while 0 < num < len(self.pending) and self._together(num - 1, num):
            num += 1
        super()._send_tests(node, num)

    def _together(self, one: int, other: int) -> bool:
        names = self.collection or []
        first, second = names[self.pending[one]], names[self.pending[other]]
        return any(first.startswith(start) and second.startswith(start) for start in TOGETHER)
