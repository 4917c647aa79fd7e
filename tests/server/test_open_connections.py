"""The registry of open connections: its bounds, and which connection gives way to a new one."""

import asyncio
import random

from vipsrv.server.accounts import UNIX_SOCKET, Account
from vipsrv.server.idle_connections import IdleConnections
from vipsrv.server.open_connections import MOST_TURNED_AWAY, OpenConnections

ME, OTHER = Account("192.0.2.1"), Account("192.0.2.2")
MANY = 1000


class OtherConnection:
    """A connection that nothing happens on. It is turned away when it gives way."""

    watch_at = 0.0

    def __init__(self, connections: OpenConnections | None = None) -> None:
        self.gave_way = False
        self.used = False  # since it was marked as idle
        self._connections = connections

    def give_way(self) -> bool:
        if self.used:
            return False
        self.gave_way = True
        assert self._connections is not None
        self._connections.turn_away(self)
        return True

    def watch(self, now: float) -> None: ...
    def drain(self) -> None: ...
    def stop(self) -> None: ...
    def abort(self) -> None: ...


def test_excess_clients_are_not_counted_and_their_number_is_limited() -> None:
    connections = OpenConnections(limit=2, per_client=MANY)
    served, told_busy = ([OtherConnection() for _ in range(2)] for _ in range(2))
    closed_at_once = OtherConnection()
    for one, account in zip(served, (ME, OTHER), strict=True):
        assert connections.add(one, account)
    for one, account in zip((*told_busy, closed_at_once), (ME, OTHER, ME), strict=True):
        assert connections.served == 2
        assert not connections.add(one, account)
        assert connections.served == 3
        assert connections.turn_away(one) is (one is not closed_at_once)
    assert connections.served == 2
    assert connections.excess == 3
    assert set(connections) == {*served, *told_busy, closed_at_once}
    for open_one in connections:
        connections.remove(open_one)
    assert connections.served == 0


def test_a_server_with_many_places_bounds_the_excess_clients_that_it_tells() -> None:
    unbounded = Account(UNIX_SOCKET)
    connections = OpenConnections(limit=2 * MOST_TURNED_AWAY, per_client=MANY)
    excess = [OtherConnection() for _ in range(MOST_TURNED_AWAY + 1)]
    for one in excess:
        connections.add(one, unbounded)
    told = [connections.turn_away(one) for one in excess]
    assert told == [True] * MOST_TURNED_AWAY + [False]


def test_lower_limits_close_no_connection() -> None:
    unbounded = Account(UNIX_SOCKET)
    connections = OpenConnections(limit=3, per_client=MANY)
    open_ones = [OtherConnection() for _ in range(3)]
    for one in open_ones:
        assert connections.add(one, unbounded)
    connections.change_limits(limit=2, per_client=MANY)
    assert connections.served == 3
    for left, has_place in zip(open_ones, (False, True, True), strict=True):
        connections.remove(left)
        late = OtherConnection()
        assert connections.add(late, unbounded) is has_place
        if not has_place:
            connections.turn_away(late)
        connections.remove(late)
    connections.change_limits(limit=20, per_client=1)
    assert connections.add(OtherConnection(), ME)
    assert not connections.add(OtherConnection(), ME)


def test_only_connections_that_have_something_to_check_are_due() -> None:
    connections = OpenConnections(limit=2, per_client=MANY)
    new, sleeping = OtherConnection(), OtherConnection()
    sleeping.watch_at = 10.0
    for one in (new, sleeping):
        connections.add(one, ME)
    assert connections.due(9.9) == [new]
    assert connections.due(10.0) == [new, sleeping]


def test_the_bound_of_a_client_does_not_bound_others() -> None:
    connections = OpenConnections(limit=MANY, per_client=2)
    assert [connections.add(OtherConnection(), ME) for _ in range(2)] == [True, True]
    excess = [OtherConnection() for _ in range(3)]
    for one in excess:
        assert not connections.add(one, ME)
    # As many as are served may be told so; they leave the others' excess connections alone.
    assert [connections.turn_away(one) for one in excess] == [True, True, False]
    assert connections.add(OtherConnection(), OTHER)
    assert all(connections.add(OtherConnection(), Account(UNIX_SOCKET)) for _ in range(3))
    connections.remove(excess[0])
    assert not connections.add(OtherConnection(), ME)


def test_a_few_clients_leave_places_and_answers_to_others() -> None:
    """They take whatever they get; four of them have a bound of a quarter each."""
    connections = OpenConnections(limit=400, per_client=100)
    greedy = [Account(f"203.0.113.{number}") for number in range(4)]
    refused = 0
    for account in 300 * greedy:
        one = OtherConnection()
        if not connections.add(one, account):
            refused += 1
            if not connections.turn_away(one):
                connections.remove(one)  # aborted
    assert refused > 400
    assert connections.served < 400
    for account in (ME, OTHER):
        assert connections.add(OtherConnection(), account)
    health_check = OtherConnection()
    connections.add(health_check, Account("192.0.2.3"))
    assert connections.turn_away(health_check)  # its PING would be answered


def test_a_client_over_its_share_takes_the_places_of_larger_ones_only() -> None:
    connections = OpenConnections(limit=4, per_client=3)
    large, equal = ([OtherConnection(connections) for _ in range(count)] for count in (3, 1))
    for one, account in ((large[0], ME), (large[1], ME), (large[2], ME), (equal[0], OTHER)):
        assert connections.add(one, account)
    for one in large[:2]:
        connections.mark_idle(one, ME, idle=True)
    assert connections.add(OtherConnection(), OTHER)  # ME had 3, OTHER would have 2
    assert (large[0].gave_way, large[1].gave_way) == (True, False)
    assert not connections.add(OtherConnection(), OTHER)  # ME has 2
    assert not large[1].gave_way


def test_a_client_at_its_bound_gets_a_place_by_closing_its_own_idle_connection() -> None:
    connections = OpenConnections(limit=MANY, per_client=2)
    others, mine = OtherConnection(connections), [OtherConnection(connections) for _ in range(2)]
    connections.add(others, OTHER)
    connections.mark_idle(others, OTHER, idle=True)
    for one in mine:
        connections.add(one, ME)
        connections.mark_idle(one, ME, idle=True)
    connections.mark_idle(mine[0], ME, idle=False)
    assert connections.add(OtherConnection(), ME)
    assert (others.gave_way, mine[0].gave_way, mine[1].gave_way) == (False, False, True)
    assert (connections.displaced, connections.idle) == (1, 1)
    assert not connections.add(OtherConnection(), ME)


def test_many_idle_connections_of_one_client_keep_nobody_out() -> None:
    connections = OpenConnections(limit=100, per_client=99)
    modest = OtherConnection(connections)
    connections.add(modest, OTHER)
    connections.mark_idle(modest, OTHER, idle=True)
    hoarded = [OtherConnection(connections) for _ in range(99)]
    for one in hoarded:
        assert connections.add(one, ME)
        connections.mark_idle(one, ME, idle=True)
    for number in range(50):
        assert connections.add(OtherConnection(), Account(f"203.0.113.{number}"))
    assert [one.gave_way for one in hoarded] == [True] * 50 + [False] * 49
    assert not modest.gave_way
    assert connections.served == 100


def test_the_account_with_the_most_idle_connections_comes_first() -> None:
    """Compared with a plain search, over many random steps."""
    draw = random.Random(10)
    accounts = [Account(str(number)) for number in range(5)]
    idle: IdleConnections[int] = IdleConnections()
    expected: dict[Account, list[int]] = {account: [] for account in accounts}
    for connection in range(3000):
        account = draw.choice(accounts)
        if expected[account] and draw.random() < 0.5:
            gone = draw.choice(expected[account])
            expected[account].remove(gone)
            idle.remove(gone, account)
            idle.remove(gone, account)  # not idle already
        else:
            expected[account].append(connection)
            idle.add(connection, account)
            idle.add(connection, account)  # idle already
        most = max(map(len, expected.values()))
        first = idle.first()
        assert first in {of[0] for of in expected.values() if of and len(of) == most} or (first, most) == (
            None,
            0,
        )
        assert idle.first(account) == next(iter(expected[account]), None)


def test_a_connection_that_was_used_since_it_was_idle_keeps_its_place() -> None:
    connections = OpenConnections(limit=MANY, per_client=2)
    used, idle = OtherConnection(connections), OtherConnection(connections)
    for one in (used, idle):
        connections.add(one, ME)
        connections.mark_idle(one, ME, idle=True)
    used.used = True
    assert connections.add(OtherConnection(), ME)
    assert (used.gave_way, idle.gave_way) == (False, True)
    used.used = False
    assert not connections.add(OtherConnection(), ME)  # it has to be marked again first


def test_a_connection_that_is_marked_again_has_been_idle_for_the_shortest_time() -> None:
    connections = OpenConnections(limit=MANY, per_client=2)
    first, second = OtherConnection(connections), OtherConnection(connections)
    for one in (first, second, first):
        if one not in set(connections):
            connections.add(one, ME)
        connections.mark_idle(one, ME, idle=True)
    assert connections.add(OtherConnection(), ME)
    assert (first.gave_way, second.gave_way) == (False, True)


async def test_waiting_ends_when_the_last_connection_is_closed() -> None:
    connections = OpenConnections(limit=2, per_client=MANY)
    one = OtherConnection()
    connections.add(one, ME)
    await connections.wait_until_closed(0.001)
    assert set(connections) == {one}
    waiting = asyncio.create_task(connections.wait_until_closed(20))
    await asyncio.sleep(0)
    connections.remove(one)
    await waiting
    await connections.wait_until_closed(20)
