"""Tests that share something dear are run by one process of pytest-xdist."""

from collections import Counter

from tests.support.one_process import TOGETHER, OneProcess


class Process:
    def __init__(self) -> None:
        self.tests: list[int] = []

    def send_runtest_some(self, tests: list[int]) -> None:
        self.tests += tests


def test_tests_that_belong_together_go_to_one_process() -> None:
    names = [f"tests/test_a.py::test_{number}" for number in range(5)]
    names += [f"{TOGETHER[0]}test_{number}" for number in range(7)]
    names += [f"tests/test_z.py::test_{number}" for number in range(5)]
    scheduler = OneProcess.__new__(OneProcess)
    scheduler.collection, scheduler.pending = names, list(range(len(names)))
    processes = [Process(), Process()]
    scheduler.node2pending = {process: [] for process in processes}
    while scheduler.pending:
        for process in processes:
            scheduler._send_tests(process, 2)
    assert sorted(processes[0].tests + processes[1].tests) == list(range(len(names)))
    shared = Counter(
        number for number, process in enumerate(processes) for one in process.tests if 5 <= one < 12
    )
    assert list(shared.values()) == [7]
    assert min(len(process.tests) for process in processes) >= 5
