"""The fair queue, driven by a simulation of workers with an exact clock."""

import heapq
import itertools
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from math import inf

import pytest

from vipsrv.server.deficit_round_robin import (
    FORGET_SECONDS,
    HOLD_SECONDS,
    LINGER_SECONDS,
    QUANTUM,
    Lane,
    Request,
)
from vipsrv.server.fair_queue import FairQueue, Ticket, TicketState

SWEEP_SECONDS = 0.1


@dataclass(eq=False)
class Client:
    """A client with ``in_flight`` jobs of ``cost`` seconds at any time, in so many connections.

    It sends the next job ``pause`` seconds after each reply, until ``until``.
    """

    account: str
    cost: float
    in_flight: int = 1
    flows: int = 1
    pause: float = 0.001
    until: float = inf
    weight: float = 1.0
    served: float = 0.0
    latencies: list[float] = field(default_factory=list)


@dataclass
class Job:
    client: Client
    flow: int
    since: float


class Simulation:
    """A fair queue in front of ``workers``, and an event for everything that happens."""

    def __init__(self, workers: int, *clients: Client) -> None:
        self.queue: FairQueue[Job] = FairQueue()
        self.workers = self.idle = workers
        self.busy_seconds = 0.0
        self.now = 0.0
        self._clients = clients
        self._order = itertools.count()
        self._events: list[tuple[float, int, object]] = []
        self._wake_at = inf
        for client in clients:
            for number in range(client.in_flight):
                self._at(0.0, Job(client, number % client.flows, 0.0))
        self._at(0.0, None)

    def run(self, until: float) -> None:
        """Let time pass."""
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heapq.heappop(self._events)
            if isinstance(event, Job):
                self._submit(event)
            elif isinstance(event, Ticket):
                self._end(event)
            elif event is None:
                self.queue.sweep(self.now)
                self._at(self.now + SWEEP_SECONDS, None)
            else:
                self._wake_at = inf
            self._dispatch()
        self.now = until

    def _at(self, when: float, event: object) -> None:
        heapq.heappush(self._events, (when, next(self._order), event))

    def _submit(self, job: Job) -> None:
        job.since = self.now
        client = job.client
        key = (client, job.flow)
        self.queue.add(
            job, client.account, key, lane=Lane.LIGHT, kind="job", now=self.now, weight=client.weight
        )

    def _end(self, ticket: Ticket[Job]) -> None:
        self.idle += 1
        job, client = ticket.item, ticket.item.client
        self.queue.end(ticket, client.cost, self.now)
        client.served += client.cost
        client.latencies.append(self.now - job.since)
        if self.now < client.until:
            self._at(self.now + client.pause, Job(client, job.flow, 0.0))

    def _dispatch(self) -> None:
        while self.idle:
            request = Request(self.now, self.idle, self.workers)
            ticket = self.queue.next(request)
            if ticket is None:
                if request.wake_at < self._wake_at:
                    self._wake_at = request.wake_at
                    self._at(request.wake_at, "wake")
                return
            self.queue.start(ticket)
            self.idle -= 1
            self.busy_seconds += ticket.item.client.cost
            self._at(self.now + ticket.item.client.cost, ticket)


def add(
    queue: FairQueue[str], item: str, account: str = "a", flow: str = "f", now: float = 0.0
) -> Ticket[str]:
    return queue.add(item, account, flow, lane=Lane.LIGHT, kind="job", now=now)


def take(queue: FairQueue[str], *, now: float = 0.0, idle: int = 1, workers: int = 1) -> Ticket[str] | None:
    ticket = queue.next(Request(now, idle, workers))
    if ticket is not None:
        queue.start(ticket)
    return ticket


def order(queue: FairQueue[str], count: int, cost: float) -> list[str]:
    """The first jobs that one worker runs, each of which costs so many seconds."""
    items = []
    for _ in range(count):
        ticket = take(queue)
        assert ticket is not None
        items.append(ticket.item)
        queue.end(ticket, cost, 0.0)
    return items


def test_jobs_of_one_flow_keep_their_order() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(20):
        add(queue, str(number))
    assert order(queue, 20, cost=0.004) == [str(number) for number in range(20)]


def test_accounts_take_turns_however_many_connections_they_have() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(30):
        add(queue, "many", "many", str(number))
    for _ in range(10):
        add(queue, "one", "one")
    assert Counter(order(queue, 20, cost=0.01)) == {"many": 10, "one": 10}


def test_connections_of_an_account_take_turns() -> None:
    queue: FairQueue[str] = FairQueue()
    for _ in range(32):
        add(queue, "pipelined", flow="pipelined")
    for _ in range(4):
        add(queue, "other", flow="other")
    assert Counter(order(queue, 8, cost=0.01)) == {"pipelined": 4, "other": 4}


def test_the_real_cost_counts_and_not_the_number_of_jobs() -> None:
    queue: FairQueue[str] = FairQueue()
    for _ in range(100):
        add(queue, "dear", "dear")
        add(queue, "cheap", "cheap")
    seconds: defaultdict[str, float] = defaultdict(float)
    while min(queue.waiting_of("dear", Lane.LIGHT), queue.waiting_of("cheap", Lane.LIGHT)):
        ticket = take(queue)
        assert ticket is not None
        cost = 0.1 if ticket.item == "dear" else 0.01
        queue.end(ticket, cost, 0.0)
        seconds[ticket.item] += cost
    assert abs(seconds["dear"] - seconds["cheap"]) <= 0.1 + QUANTUM


@pytest.mark.parametrize("seed", range(20))
def test_shares_of_backlogged_accounts_differ_by_one_job_at_most(seed: int) -> None:
    chance = random.Random(seed)
    costs = [0.0005, 0.003, 0.02, 0.2]
    clients = [
        Client(str(number), chance.choice(costs), in_flight=24, flows=chance.randint(1, 6), pause=0)
        for number in range(chance.randint(2, 6))
    ]
    simulation = Simulation(1, *clients)
    for until in range(2, 20, 3):
        simulation.run(float(until))
        served = [client.served for client in clients]
        # The prediction of the first job is that of any, so one more of the dearest may be under way.
        assert max(served) - min(served) <= 2 * max(client.cost for client in clients) + 2 * QUANTUM
    assert simulation.busy_seconds >= 20 - 3 - 0.2 - HOLD_SECONDS * 2


@pytest.mark.parametrize("workers", [1, 2, 4, 7])
@pytest.mark.parametrize("weights", [(1.0, 2.0), (1.0, 3.0, 0.5), (8.0, 1.0, 1.0, 1.0), (0.1, 0.1, 0.3)])
def test_shares_are_in_proportion_to_the_weights(weights: tuple[float, ...], workers: int) -> None:
    clients = [
        Client(str(number), (0.004, 0.03, 0.011)[number % 3], in_flight=24, flows=1 + number, weight=weight)
        for number, weight in enumerate(weights)
    ]
    simulation = Simulation(workers, *clients)
    simulation.run(60.0)
    shares = [client.served / client.weight for client in clients]
    assert max(shares) / min(shares) < 1.05
    assert simulation.busy_seconds > 0.97 * workers * 60


def test_a_light_weight_starves_nobody() -> None:
    light = Client("light", 0.01, in_flight=4, weight=0.01)
    heavy = Client("heavy", 0.01, in_flight=24, weight=100.0)
    Simulation(2, light, heavy).run(300.0)
    assert light.served > 0
    assert heavy.served > 0.99 * 2 * 300


def test_a_weight_may_change_while_jobs_wait() -> None:
    changing = Client("changing", 0.01, in_flight=24)
    other = Client("other", 0.01, in_flight=24)
    simulation = Simulation(2, changing, other)
    simulation.run(20.0)
    assert changing.served / other.served == pytest.approx(1.0, rel=0.02)
    before = changing.served, other.served
    changing.weight = 4.0
    simulation.run(60.0)
    ratio = (changing.served - before[0]) / (other.served - before[1])
    assert ratio == pytest.approx(4.0, rel=0.05)


def test_a_client_of_less_weight_is_served_as_before_if_it_asks_for_little() -> None:
    greedy = Client("greedy", 0.1, in_flight=32, pause=0.0, weight=2.0)
    rare = Client("rare", 0.005, pause=0.2)
    Simulation(4, greedy, rare).run(20.0)
    assert max(rare.latencies) < 0.1 + 0.005 + 0.001


@pytest.mark.parametrize("names", ["abcde", "aaaaa"])
def test_a_pipelining_client_does_not_starve_those_who_wait_for_each_reply(names: str) -> None:
    polite = [Client(name, 0.005) for name in names[:4]]
    alone = Simulation(2, *polite)
    alone.run(20.0)
    before = sum(client.served for client in polite), median(polite)
    polite = [Client(name, 0.005) for name in names[:4]]
    greedy = Client(names[4], 0.15, in_flight=32, pause=0.0)
    Simulation(2, greedy, *polite).run(20.0)
    assert sum(client.served for client in polite) > 0.9 * 4 / 5 * before[0]
    assert median(polite) < 1.5 * before[1]
    assert greedy.served > 0.8 * 20 * 2 / 5


@pytest.mark.parametrize(
    ("clients", "workers", "least"), [(1, 1, 0.45), (1, 2, 0.9), (2, 2, 0.7), (2, 4, 0.9)]
)
def test_a_few_clients_keep_their_share_beside_jobs_that_are_much_dearer(
    clients: int, workers: int, least: float
) -> None:
    def served(*others: Client) -> float:
        polite = [Client(str(number), 0.005) for number in range(clients)]
        Simulation(workers, *others, *polite).run(20.0)
        return sum(client.served for client in polite)

    greedy = Client("greedy", 0.15, in_flight=32, pause=0.0)
    assert served(greedy) > least * served()


def median(clients: list[Client]) -> float:
    latencies = sorted(one for client in clients for one in client.latencies)
    return latencies[len(latencies) // 2]


def test_all_workers_are_used_by_a_lone_client() -> None:
    client = Client("a", 0.1, in_flight=32, flows=4, pause=0.0)
    simulation = Simulation(8, client)
    simulation.run(10.0)
    assert client.served > 0.98 * 8 * 10


def test_a_client_that_seldom_asks_costs_another_one_worker_at_most() -> None:
    greedy = Client("greedy", 0.1, in_flight=32, pause=0.0)
    rare = Client("rare", 0.005, pause=0.04)
    simulation = Simulation(4, greedy, rare)
    simulation.run(20.0)
    assert greedy.served > 0.98 * 3 * 20
    assert max(rare.latencies) < 0.01 + 0.005 or median([rare]) == pytest.approx(0.005)


def test_nothing_is_reserved_for_a_client_that_returns_later_than_a_job_takes() -> None:
    greedy = Client("greedy", 0.03, in_flight=32, pause=0.0)
    rare = Client("rare", 0.002, pause=0.09)
    Simulation(2, greedy, rare).run(20.0)
    assert greedy.served > 0.95 * 2 * 20
    assert len(rare.latencies) > 0.8 * 20 / 0.09


def test_the_last_worker_is_used_as_soon_as_its_reservation_ends() -> None:
    queue: FairQueue[str] = FairQueue()
    for now in (0.0, 0.02):  # returns after 20 ms, with jobs of 50 ms
        add(queue, "rare", "rare", now=now)
        ticket = take(queue, now=now, idle=2, workers=2)
        assert ticket is not None
        queue.end(ticket, 0.05, now)
    add(queue, "greedy", "greedy", now=0.03)
    add(queue, "greedy", "greedy", now=0.03)
    assert take(queue, now=0.03, idle=2, workers=2) is not None
    request = Request(0.04, 1, 2)
    assert queue.next(request) is None
    assert request.wake_at == pytest.approx(0.02 + 0.05)
    assert queue.next(Request(request.wake_at, 1, 2)) is not None


def test_holding_a_worker_costs_the_one_that_it_is_held_for() -> None:
    greedy = Client("greedy", 0.005, in_flight=32, pause=0.0)
    slow = Client("slow", 0.001, pause=0.004)  # would keep the only worker idle for four fifths of the time
    Simulation(1, greedy, slow).run(20.0)
    assert greedy.served > 0.45 * 20


def test_a_worker_is_held_for_a_bounded_time() -> None:
    quick = Client("quick", 0.005, until=1.0)
    greedy = Client("greedy", 0.2, in_flight=8, pause=0.0)
    simulation = Simulation(2, greedy, quick)
    simulation.run(1.0)
    before = greedy.served
    simulation.run(11.0)
    assert greedy.served - before > 2 * (10 - LINGER_SECONDS - SWEEP_SECONDS - HOLD_SECONDS - 0.4)


def test_a_job_that_is_removed_is_not_started() -> None:
    queue: FairQueue[str] = FairQueue()
    tickets = [add(queue, str(number)) for number in range(4)]
    queue.remove(tickets[0], 0.0)
    queue.remove(tickets[2], 0.0)
    assert (len(queue), queue.waiting_of("a", Lane.LIGHT)) == (2, 2)
    assert order(queue, 2, cost=0.0) == ["1", "3"]
    assert take(queue) is None
    assert {ticket.state for ticket in tickets} == {TicketState.DONE}


def test_nothing_is_left_of_those_who_have_gone() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(100):
        add(queue, "job", str(number), now=0.0)
    order(queue, 50, cost=0.001)
    for ticket in queue:
        queue.remove(ticket, 0.0)
    assert queue.accounts == 100
    queue.sweep(LINGER_SECONDS * 2)
    queue.sweep(FORGET_SECONDS * 2)
    assert queue.accounts == 0
    assert list(queue) == []


def test_a_debt_is_not_escaped_by_a_short_pause() -> None:
    queue: FairQueue[str] = FairQueue()
    add(queue, "dear", "dear")
    ticket = take(queue)
    assert ticket is not None
    queue.end(ticket, 1.0, 0.0)
    queue.sweep(LINGER_SECONDS * 2)
    for _ in range(20):
        add(queue, "dear", "dear", now=1.0)
        add(queue, "other", "other", now=1.0)
    assert order(queue, 20, cost=0.04) == ["other"] * 20


def test_a_debt_is_not_escaped_by_a_new_connection() -> None:
    queue: FairQueue[str] = FairQueue()
    add(queue, "dear", "dear", "first")
    ticket = take(queue)
    assert ticket is not None
    queue.end(ticket, 1.0, 0.0)
    queue.flow_closed("dear", "first")
    for _ in range(20):
        add(queue, "dear", "dear", "second")
        add(queue, "other", "other")
    assert order(queue, 20, cost=0.04) == ["other"] * 20


def test_a_closed_flow_is_forgotten_but_not_its_jobs() -> None:
    queue: FairQueue[str] = FairQueue()
    done, running = add(queue, "done", flow="done"), add(queue, "running", flow="running")
    for ticket in (done, running):
        queue.start(ticket)
    queue.end(done, 1.0, 0.0)
    add(queue, "waiting", flow="waiting")
    for flow in ("done", "running", "waiting", "unknown"):
        queue.flow_closed("a", flow)
    flows = done.share.account.flows
    assert set(flows.members) == {"running", "waiting"}
    assert order(queue, 1, cost=0.01) == ["waiting"]
    queue.end(running, 0.01, 0.0)


def test_a_lane_that_may_not_start_keeps_its_jobs() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.add("heavy", "a", "f", lane=Lane.HEAVY, kind="heavy", now=0.0)
    add(queue, "light", "b")
    light_only = queue.next(Request(0.0, 1, 2, (True, False)))
    assert light_only is not None
    assert light_only.item == "light"
    queue.start(light_only)
    assert queue.next(Request(0.0, 1, 2, (True, False))) is None
    heavy = queue.next(Request(0.0, 1, 2))
    assert heavy is not None
    assert heavy.item == "heavy"


def test_heavy_and_light_jobs_are_charged_to_one_account() -> None:
    queue: FairQueue[str] = FairQueue()
    heavy = queue.add("heavy", "a", "f", lane=Lane.HEAVY, kind="heavy", now=0.0)
    queue.start(heavy)
    queue.end(heavy, 0.1, 0.0)
    for _ in range(20):
        add(queue, "of the heavy one", "a")
        add(queue, "other", "b")
    assert order(queue, 10, cost=0.01) == ["other"] * 10


def test_a_cost_that_is_known_is_charged_when_the_job_starts() -> None:
    queue: FairQueue[str] = FairQueue()
    giant = queue.add("giant", "a", "f", lane=Lane.HEAVY, kind="heavy", now=0.0, cost=1.0)
    assert giant.cost == 1.0
    queue.start(giant)
    for _ in range(20):
        add(queue, "of the giant's client", "a")
        add(queue, "other", "b")
    assert order(queue, 20, cost=0.04) == ["other"] * 20
    queue.end(giant, 0.0, 0.0)
    assert order(queue, 1, cost=0.04) == ["of the giant's client"]


def test_cost_is_predicted_from_the_jobs_of_the_account() -> None:
    queue: FairQueue[str] = FairQueue()
    for account, cost in (("dear", 1.0), ("cheap", 0.01)):
        for _ in range(40):
            add(queue, "job", account)
            ticket = take(queue, idle=2, workers=2)
            assert ticket is not None
            queue.end(ticket, cost, 0.0)
    assert queue.predict("dear", "job") == pytest.approx(1.0)
    assert queue.predict("cheap", "job") == pytest.approx(0.01)
    assert queue.predict("new", "job") < 0.1


class AnyCalls:
    """Makes calls by chance, and knows what has to be in the queue."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.queue: FairQueue[int] = FairQueue()
        self.waiting: dict[int, Ticket[int]] = {}
        self.running: dict[int, Ticket[int]] = {}
        self.now = 0.0
        self._numbers = itertools.count()

    def add(self) -> None:
        number, account = next(self._numbers), self.chance.randrange(5)
        lane, flow = self.chance.choice(list(Lane)), (account, self.chance.randrange(3))
        self.waiting[number] = self.queue.add(number, account, flow, lane=lane, kind=lane, now=self.now)

    def start(self, idle: int, *, heavy: bool) -> None:
        ticket = self.queue.next(Request(self.now, idle, 4, (True, heavy)))
        if ticket is not None:
            self.queue.start(ticket)
            self.running[ticket.item] = self.waiting.pop(ticket.item)

    def start_any(self) -> None:
        self.start(self.chance.randint(1, 4), heavy=self.chance.random() < 0.5)

    def remove(self) -> None:
        if self.waiting:
            self.queue.remove(self.waiting.pop(self.chance.choice(list(self.waiting))), self.now)

    def end(self) -> None:
        if self.running:
            ticket = self.running.pop(self.chance.choice(list(self.running)))
            self.queue.end(ticket, self.chance.choice([0.0, 0.001, 5.0]), self.now)

    def sweep(self) -> None:
        self.queue.sweep(self.now)

    def close_flow(self) -> None:
        account = self.chance.randrange(5)
        self.queue.flow_closed(account, (account, self.chance.randrange(3)))

    def check(self) -> None:
        assert {ticket.item for ticket in self.queue} == set(self.waiting)
        for lane, waiting in ((Lane.LIGHT, self.queue.light), (Lane.HEAVY, self.queue.heavy)):
            of_lane = [ticket for ticket in self.waiting.values() if ticket.lane is lane]
            assert waiting == len(of_lane)
            assert sum(self.queue.waiting_of(one, lane) for one in range(5)) == len(of_lane)


@pytest.mark.parametrize("seed", range(10))
def test_any_sequence_of_calls_keeps_the_counts_and_loses_no_job(seed: int) -> None:
    calls = AnyCalls(seed)
    choices = [calls.add, calls.start_any, calls.remove, calls.end, calls.sweep, calls.close_flow]
    for _ in range(2000):
        calls.now += calls.chance.choice([0.0, 0.0005, 0.02, 0.3])
        calls.chance.choices(choices, [4, 3, 1, 2, 1, 1])[0]()
        calls.check()
    for _ in range(10_000):  # with workers idle, all that wait get their turn
        if not calls.waiting:
            break
        calls.now += HOLD_SECONDS
        calls.start(4, heavy=True)
        calls.end()
    assert not calls.waiting
