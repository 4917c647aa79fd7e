"""``Servers``: which server an attempt goes to, with a clock and a chance that the tests set."""

from itertools import pairwise

import pytest

from vipsrv.client.servers import FIRST_LEAVE, LONGEST_LEAVE, Place, Servers, ServerState
from vipsrv.errors import (
    Busy,
    ClientTimeout,
    ConnectFailed,
    ConnectionLost,
    CorruptImage,
    Draining,
    VipsrvError,
)

REFUSED = ConnectFailed("refused")
LOST = ConnectionLost("lost")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Chances:
    """Gives the numbers in turn, again and again."""

    def __init__(self, *numbers: float) -> None:
        self.numbers = numbers
        self._given = 0

    def __call__(self) -> float:
        self._given += 1
        return self.numbers[(self._given - 1) % len(self.numbers)]


@pytest.fixture
def clock() -> Clock:
    return Clock()


def three(clock: Clock, *chances: float) -> Servers[str]:
    return Servers("abc", clock=clock, chance=Chances(*(chances or (0.0, 0.0))))


def place_at(servers: Servers[str], name: str) -> Place[str]:
    """Take a place at the server with this name, whatever would be chosen."""
    others = [server for server in servers.all if server.endpoint != name]
    place = servers.choose(others)
    assert place.server.endpoint == name
    return place


def fail(servers: Servers[str], name: str, error: VipsrvError = REFUSED) -> None:
    servers.end(place_at(servers, name), error)


def state_of(servers: Servers[str], name: str) -> ServerState:
    return next(server.state for server in servers.all if server.endpoint == name)


def test_of_two_at_random_the_one_with_fewer_in_flight_is_chosen(clock: Clock) -> None:
    servers = three(clock, 0.0, 0.0)  # these draw the first and the second server
    chosen = [servers.choose().server.endpoint for _ in range(4)]
    assert chosen == ["a", "b", "a", "b"]
    assert [server.in_flight for server in servers.all] == [2, 2, 0]


@pytest.mark.parametrize(
    ("first", "second", "pair"), [(0.99, 0.0, "ca"), (0.5, 0.99, "bc"), (0.0, 0.99, "ac")]
)
def test_the_two_are_never_the_same(clock: Clock, first: float, second: float, pair: str) -> None:
    servers = three(clock, first, second)
    assert "".join(servers.choose().server.endpoint for _ in range(2)) == pair


def test_a_server_that_refuses_is_left_out_until_a_probe_is_answered(clock: Clock) -> None:
    servers = three(clock)
    fail(servers, "a")
    assert state_of(servers, "a") is ServerState.LEFT_OUT
    assert {servers.choose().server.endpoint for _ in range(8)} == {"b", "c"}
    assert servers.due() == []
    clock.now += FIRST_LEAVE
    (probed,) = servers.due()
    assert (probed.endpoint, probed.state) == ("a", ServerState.PROBING)
    assert servers.due() == [], "it is probed once at a time"
    assert {servers.choose().server.endpoint for _ in range(8)} == {"b", "c"}
    servers.probed(probed)
    assert probed.state is ServerState.UP
    assert "a" in {servers.choose().server.endpoint for _ in range(4)}


def test_each_failure_doubles_the_time_until_the_next_probe(clock: Clock) -> None:
    servers = three(clock)
    fail(servers, "a")
    times = []
    for _ in range(10):
        times.append(servers.all[0].until - clock.now)
        clock.now = servers.all[0].until
        (probed,) = servers.due()
        servers.probed(probed, ClientTimeout("no answer"))
    assert times[0] == FIRST_LEAVE
    assert all(later == min(LONGEST_LEAVE, 2 * earlier) for earlier, later in pairwise(times))
    assert times[-1] == LONGEST_LEAVE


def test_an_answered_probe_does_not_forget_the_failures_but_a_call_does(clock: Clock) -> None:
    servers = three(clock)
    for expected in (1, 2, 4):
        fail(servers, "a")
        assert servers.all[0].until - clock.now == FIRST_LEAVE * expected
        clock.now = servers.all[0].until
        (probed,) = servers.due()
        servers.probed(probed)
    servers.end(place_at(servers, "a"))
    fail(servers, "a")
    assert servers.all[0].until - clock.now == FIRST_LEAVE


def test_calls_that_fail_by_one_event_count_once(clock: Clock) -> None:
    servers = three(clock)
    places = [place_at(servers, "a") for _ in range(20)]
    for place in places:
        servers.end(place, ClientTimeout("silent"))
    assert servers.all[0].failures == 1
    assert servers.all[0].in_flight == 0


@pytest.mark.parametrize("error", [REFUSED, Draining("bye"), ClientTimeout("silent")])
def test_what_leaves_a_server_out(clock: Clock, error: VipsrvError) -> None:
    servers = three(clock)
    fail(servers, "a", error)
    assert state_of(servers, "a") is ServerState.LEFT_OUT


@pytest.mark.parametrize(
    "error", [None, Busy("full"), CorruptImage("broken"), OSError("file"), KeyboardInterrupt()]
)
def test_what_does_not(clock: Clock, error: BaseException | None) -> None:
    servers = three(clock)
    servers.end(place_at(servers, "a"), error)
    assert state_of(servers, "a") is ServerState.UP


def test_one_lost_connection_is_no_failure_but_two_in_a_row_are(clock: Clock) -> None:
    servers = three(clock)
    both = [place_at(servers, "a"), place_at(servers, "a")]
    for place in both:
        servers.end(place, LOST)  # with the same connection
    assert state_of(servers, "a") is ServerState.UP
    servers.end(place_at(servers, "a"))
    fail(servers, "a", LOST)
    assert state_of(servers, "a") is ServerState.UP, "a reply came in between"
    fail(servers, "a", LOST)
    assert state_of(servers, "a") is ServerState.LEFT_OUT


def test_an_attempt_avoids_the_server_that_failed_it_unless_the_others_are_left_out(clock: Clock) -> None:
    servers = three(clock)
    failed = servers.choose()
    servers.end(failed, Busy("full"))
    assert all(servers.choose([failed.server]).server is not failed.server for _ in range(5))
    for server in servers.all:
        if server is not failed.server:
            fail(servers, server.endpoint)
    assert servers.choose([failed.server]).server is failed.server


def test_if_all_are_left_out_the_one_to_be_probed_first_is_tried_and_may_come_back(clock: Clock) -> None:
    servers = three(clock)
    for name in "cab":
        fail(servers, name)
        clock.now += 0.01
    place = servers.choose()
    assert place.server.endpoint == "c"
    servers.end(place)
    assert state_of(servers, "c") is ServerState.UP
    assert servers.choose().server.endpoint == "c"


def test_a_single_server_is_always_the_one_and_never_probed(clock: Clock) -> None:
    servers = Servers("a", clock=clock)
    fail(servers, "a")
    clock.now += 100
    assert servers.due() == []
    assert servers.choose().server.endpoint == "a"


def test_a_call_that_is_answered_while_the_probe_is_out_decides(clock: Clock) -> None:
    servers = three(clock)
    for name in "abc":
        fail(servers, name)
    clock.now += FIRST_LEAVE
    probed = servers.due()
    place = servers.choose()
    servers.end(place)
    servers.probed(place.server, ClientTimeout("late"))
    assert place.server.state is ServerState.UP
    assert len(probed) == 3


def test_replacing_the_endpoints_keeps_what_is_known(clock: Clock) -> None:
    servers = three(clock)
    fail(servers, "b")
    gone = servers.replace("bcd")
    assert [server.endpoint for server in gone] == ["a"]
    assert [server.endpoint for server in servers.all] == ["b", "c", "d"]
    assert state_of(servers, "b") is ServerState.LEFT_OUT
    assert {servers.choose().server.endpoint for _ in range(8)} == {"c", "d"}


def test_without_any_server_there_is_no_choice(clock: Clock) -> None:
    with pytest.raises(LookupError):
        Servers("", clock=clock).choose()


def test_a_second_attempt_goes_to_another_server_that_is_up_or_nowhere(clock: Clock) -> None:
    servers = three(clock)
    first = servers.choose()
    second = servers.other([first.server])
    assert second is not None
    assert second.server is not first.server
    for name in "abc":
        if name != first.server.endpoint:
            fail(servers, name)
    assert servers.other([first.server]) is None


def test_the_preferred_server_is_taken_while_it_is_up(clock: Clock) -> None:
    servers = three(clock)
    assert [servers.choose(preferred="c").server.endpoint for _ in range(3)] == ["c", "c", "c"]
    fail(servers, "c")
    assert servers.choose(preferred="c").server.endpoint in "ab"
    assert servers.choose(preferred="unknown").server.endpoint in "ab"


def test_whether_there_is_another_one(clock: Clock) -> None:
    servers = three(clock)
    assert servers.has_other(servers.all[:2])
    fail(servers, "c")
    assert not servers.has_other(servers.all[:2])


def test_a_forked_child_has_no_requests_in_flight(clock: Clock) -> None:
    servers = three(clock)
    servers.choose()
    servers.forget()
    assert [server.in_flight for server in servers.all] == [0, 0, 0]


def test_a_state_changes_only_by_the_table(clock: Clock) -> None:
    server = three(clock).all[0]
    with pytest.raises(RuntimeError, match="from UP to PROBING"):
        server.move_to(ServerState.PROBING)
