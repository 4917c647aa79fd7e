"""The figures of several gateways as one."""

import json
from typing import Any

from vipsrv.server.metrics import catalogue
from vipsrv.server.metrics.merging import ServerFigures, Snapshot, SupervisorFigures
from vipsrv.server.metrics.snapshot import Figures, Histogram, Value, merged


def figures(requests: int, **gauges: float) -> Figures:
    found = Figures()
    found.add(catalogue.JOBS, requests)
    found.add(catalogue.COMPRESSION_RATIO, Histogram([requests, *[0] * 10], float(requests)))
    for name, value in gauges.items():
        found.add(catalogue.METRICS[f"vipsrv_{name}"], value)
    return found


def snapshot(gateway: int, run: str, requests: int, **gauges: float) -> Any:
    """What arrives from a gateway, as JSON makes it."""
    return json.loads(json.dumps(Snapshot(gateway, run, figures(requests, **gauges)).to_json()))


def jobs(found: Figures) -> Value | None:
    return found.get(catalogue.JOBS)


def test_json_keeps_everything() -> None:
    before = figures(7, queue_limit=3, deadline_seconds=1.5)
    before.add(catalogue.QUEUE_LENGTH, 2, "light")
    after = Snapshot.from_json(json.loads(json.dumps(Snapshot(2, "x", before).to_json())))
    assert (after.gateway, after.run, after.figures.values) == (2, "x", before.values)


def test_each_metric_is_merged_as_it_is_declared() -> None:
    one, other = figures(1, queue_limit=10, ready=0), figures(2, queue_limit=5, ready=1)
    one.add(catalogue.CERTIFICATE_EXPIRY, 9.0)
    other.add(catalogue.CERTIFICATE_EXPIRY, 8.0)
    one.add(catalogue.RESIDENT_MEMORY, 100, "gateway", "1")
    other.add(catalogue.RESIDENT_MEMORY, 200, "gateway", "2")
    found = merged([one, other])
    assert jobs(found) == 3
    assert found.get(catalogue.QUEUE_LIMIT) == 15
    assert found.get(catalogue.READY) == 1
    assert found.get(catalogue.CERTIFICATE_EXPIRY) == 8.0
    assert found.get(catalogue.COMPRESSION_RATIO) == Histogram([3, *[0] * 10], 3.0)
    assert found.values["vipsrv_process_resident_memory_bytes"] == {
        ("gateway", "1"): 100,
        ("gateway", "2"): 200,
    }


def test_merging_leaves_the_parts_as_they_are() -> None:
    one, other = figures(1), figures(2)
    merged([one, other])
    assert (jobs(one), one.get(catalogue.COMPRESSION_RATIO)) == (1, Histogram([1, *[0] * 10], 1.0))


class Server:
    """A supervisor and the gateway whose page is asked for, which is the first of the snapshots."""

    def __init__(self) -> None:
        self.supervisor = SupervisorFigures()
        self.page = ServerFigures()

    def scrape(self, own: Any, *others: Any, supervisor_answers: bool = True) -> Figures:
        if not supervisor_answers:
            return self.page.merge([own])
        added = self.supervisor.complete([own, *others], own["gateway"])
        return self.page.merge([own, *others, json.loads(json.dumps(added))])


def test_the_counters_of_a_gateway_that_has_ended_are_kept() -> None:
    server = Server()
    assert jobs(server.scrape(snapshot(1, "A", 500), snapshot(2, "B", 300, queue_limit=4))) == 800

    gone = server.scrape(snapshot(1, "A", 510))
    assert jobs(gone) == 810
    assert gone.get(catalogue.QUEUE_LIMIT) is None, "only counters are kept"

    found = server.scrape(snapshot(1, "A", 520), snapshot(2, "C", 10))
    assert jobs(found) == 830
    assert found.get(catalogue.COMPRESSION_RATIO) == Histogram([830, *[0] * 10], 830.0)
    assert jobs(server.scrape(snapshot(1, "A", 520), snapshot(2, "D", 1))) == 831


def test_the_counters_of_the_gateway_that_has_the_page_are_kept_by_the_supervisor() -> None:
    server = Server()
    server.scrape(snapshot(1, "A", 500), snapshot(2, "B", 300))
    server.page = ServerFigures()  # that of another gateway, to which the socket was lent
    assert jobs(server.scrape(snapshot(2, "B", 300))) == 800
    assert jobs(server.scrape(snapshot(1, "C", 1), snapshot(2, "B", 300))) == 801


def test_a_supervisor_that_does_not_answer_makes_no_counter_go_back() -> None:
    server = Server()
    server.scrape(snapshot(1, "A", 500), snapshot(2, "B", 300, queue_limit=4))
    found = server.scrape(snapshot(1, "A", 505), supervisor_answers=False)
    assert jobs(found) == 805
    assert found.get(catalogue.QUEUE_LIMIT) is None
    assert jobs(server.scrape(snapshot(1, "A", 505), snapshot(2, "B", 310))) == 815


def test_the_figures_of_the_gateway_that_asks_count_once_even_if_it_does_not_answer_the_supervisor() -> None:
    server = Server()
    server.scrape(snapshot(1, "A", 500), snapshot(2, "B", 300))
    added = server.supervisor.complete([snapshot(2, "B", 310)], 1)
    assert jobs(server.page.merge([snapshot(1, "A", 505), snapshot(2, "B", 310), added])) == 815


def test_the_last_figures_of_a_gateway_that_ends_are_noted() -> None:
    server = Server()
    server.scrape(snapshot(1, "A", 500), snapshot(2, "B", 300))
    server.supervisor.note(snapshot(2, "B", 350))
    assert jobs(server.scrape(snapshot(1, "A", 500), snapshot(2, "C", 1))) == 851


def test_the_supervisor_counts_the_gateways_that_were_replaced_and_tells_of_itself() -> None:
    server = Server()
    server.supervisor.gateway_ended()
    found = server.scrape(snapshot(1, "A", 1), snapshot(2, "B", 1))
    assert found.get(catalogue.GATEWAY_RESTARTS) == 1
    memory = found.get(catalogue.RESIDENT_MEMORY, "supervisor", "")
    assert isinstance(memory, int)
    assert memory > 1 << 20


def test_a_server_with_one_gateway_needs_no_supervisor() -> None:
    page = ServerFigures()
    assert jobs(page.merge([snapshot(1, "A", 5)])) == 5
    assert jobs(page.merge([snapshot(1, "A", 6)])) == 6
