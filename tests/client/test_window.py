"""The window of requests in flight, by a clock of its own."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

from vipsrv import Busy, CorruptImage, Draining, ServerLimits
from vipsrv.client.window import CAREFUL_MOST, CAREFUL_START, MOST_ON_A_CONNECTION, SPREAD, Window
from vipsrv.options import Timings
from vipsrv.server.connections.served import MAX_IN_FLIGHT

AT_ONCE = Timings(receive=1, queue=0.9, process=10, total=12)
WAITED = Timings(receive=1, queue=1.0, process=10, total=12)
HINTED = Busy("busy", retry_after_ms=300)


class Time:
    """A clock that moves only when somebody sleeps, and what was slept."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.now = max(self.now, self.now + seconds)
        await asyncio.sleep(0)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def make(time: Time) -> Callable[..., Window]:
    def make(
        workers: int | None = 2, queue: int | None = 512, *, most_bytes: int = 1000, chance: float = 0.0
    ) -> Window:
        return Window(
            ServerLimits(workers=workers, queue_per_client=queue),
            most_bytes=most_bytes,
            clock=time.clock,
            sleep=time.sleep,
            chance=lambda: chance,
        )

    return make


async def fill(window: Window, count: int, size: int = 1) -> tuple[list[int], list["asyncio.Task[None]"]]:
    """Ask for places; return the numbers of those that have got one so far, and their tasks."""
    given: list[int] = []

    async def hold(number: int) -> None:
        async with window.place(size):
            given.append(number)
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(hold(number)) for number in range(count)]
    await settle()
    return given, tasks


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def end(tasks: list["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize(
    ("workers", "queue", "size", "most"),
    [
        (1, 512, 3, MOST_ON_A_CONNECTION),
        (2, 512, 5, MOST_ON_A_CONNECTION),
        (4, 512, 9, MOST_ON_A_CONNECTION),
        (4, 20, 9, 14),
        (4, 6, 7, 7),  # half of the queue
        (4, 1, 4, 4),
        (4, 0, 4, 4),
        (1, 0, 1, 1),
        (0, 0, 1, 1),
        (2, None, 5, 5),
        (100, 512, MOST_ON_A_CONNECTION, MOST_ON_A_CONNECTION),
        (2**63 - 1, 2**63 - 1, MOST_ON_A_CONNECTION, MOST_ON_A_CONNECTION),
    ],
)
def test_the_size_follows_the_limits(
    make: Callable[..., Window], workers: int, queue: int | None, size: int, most: int
) -> None:
    window = make(workers, queue)
    assert (window.size, window.most) == (size, most)


def test_a_server_that_states_no_workers_gets_a_careful_window(make: Callable[..., Window]) -> None:
    window = make(None, None)
    assert (window.size, window.most) == (CAREFUL_START, CAREFUL_MOST)
    for _ in range(CAREFUL_START):
        window.succeeded(AT_ONCE)
    assert window.size == CAREFUL_START + 1
    for _ in range(1000):
        window.succeeded(AT_ONCE)
    assert window.size == CAREFUL_MOST


def test_the_window_grows_while_requests_find_idle_workers(make: Callable[..., Window]) -> None:
    window = make(2, 20)
    for _ in range(1000):
        window.succeeded()  # nothing is known
        window.succeeded(WAITED)
    assert window.size == 5
    for _ in range(5):
        window.succeeded(AT_ONCE)
    assert window.size == 6
    for timings in [AT_ONCE] * 3 + [WAITED] * 3:
        window.succeeded(timings)
    assert window.size == 7
    # A few find one by chance: the size stays.
    for timings in [AT_ONCE] * 1 + [WAITED] * 6:
        window.succeeded(timings)
    assert window.size == 7
    for _ in range(1000):
        window.succeeded(AT_ONCE)
    assert window.size == window.most == 12
    for _ in range(1000):
        window.succeeded(WAITED)
    assert window.size == 5


def test_the_most_is_what_a_server_reads_from_a_connection() -> None:
    assert MOST_ON_A_CONNECTION == MAX_IN_FLIGHT


async def test_places_are_given_in_order_and_given_back(make: Callable[..., Window]) -> None:
    window = make(1)
    given, tasks = await fill(window, 5)
    assert (given, window.in_flight, window.bytes_in_flight) == ([0, 1, 2], 3, 3)
    await end(tasks[1:2])
    await settle()
    assert given == [0, 1, 2, 3]
    await end(tasks)
    assert (window.in_flight, window.bytes_in_flight) == (0, 0)


async def test_bytes_in_flight_are_bounded_and_a_large_image_goes_alone(make: Callable[..., Window]) -> None:
    window = make(4, most_bytes=100)
    entered: list[int] = []
    async with AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(window.place(40))

        async def one(size: int) -> None:
            async with window.place(size):
                entered.append(size)
                assert window.bytes_in_flight <= 100

        tasks = [asyncio.create_task(one(size)) for size in (500, 10)]
        await settle()
        # Nobody passes the large image: it might wait for ever.
        assert entered == []
    await asyncio.gather(*tasks)
    assert entered == [500, 10]
    assert window.bytes_in_flight == 0


async def test_a_request_that_gives_up_waiting_lets_the_next_one_in(make: Callable[..., Window]) -> None:
    window = make(4, most_bytes=100)
    async with window.place(50):
        _, large = await fill(window, 1, 80)
        given, small = await fill(window, 1, 10)
        assert given == []
        await end(large)
        await settle()
        assert given == [0]
        assert (window.in_flight, window.bytes_in_flight) == (2, 60)
    assert (window.in_flight, window.bytes_in_flight) == (1, 10)
    await end(small)


async def test_a_place_that_comes_with_the_cancellation_is_given_back(make: Callable[..., Window]) -> None:
    window = make(1, 0)
    async with window.place(1):
        task = asyncio.create_task(window.place(1).__aenter__())
        await settle()
    task.cancel()  # the future is done and the task has not run since
    with pytest.raises(asyncio.CancelledError):
        await task
    assert window.in_flight == 0


async def test_busy_halves_and_waits_as_told(make: Callable[..., Window], time: Time) -> None:
    window = make(4)
    await window.busy(HINTED)
    assert (window.size, time.slept) == (4, [0.3])
    await window.busy(HINTED)
    await window.busy(HINTED)
    await window.busy(HINTED)
    assert window.size == 1
    # As many successes as places, for one more.
    window.succeeded()
    assert window.size == 2
    window.succeeded()
    window.succeeded()
    assert window.size == 3
    for _ in range(100):
        window.succeeded()
    assert window.size == 9


async def test_pauses_of_its_own_grow_and_vary(make: Callable[..., Window], time: Time) -> None:
    window = make(4, chance=1.0)
    for _ in range(9):
        await window.busy(Busy("busy"))
    expected = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5]
    assert time.slept == [round(seconds * (1 + SPREAD), 6) for seconds in expected]
    window.succeeded()
    await window.busy(Busy("busy"))
    assert time.slept[-1] == round(0.1 * (1 + SPREAD), 6)


async def test_requests_refused_together_halve_once_and_nothing_is_sent_meanwhile(
    make: Callable[..., Window], time: Time
) -> None:
    window = make(4)
    wakes = asyncio.Event()

    async def sleep(seconds: float) -> None:
        await wakes.wait()
        time.now += seconds

    window._sleep = sleep
    refused = [asyncio.create_task(window.busy(HINTED)) for _ in range(4)]
    await settle()
    assert window.size == 4
    given, tasks = await fill(window, 3)
    assert given == []
    wakes.set()
    await asyncio.gather(*refused)
    await settle()
    assert given == [0, 1, 2]
    await end(tasks)


async def test_a_pause_ends_when_nobody_waits_for_its_end(make: Callable[..., Window]) -> None:
    window = make(4)

    async def sleep(_seconds: float) -> None:
        await asyncio.Event().wait()

    window._sleep = sleep
    refused = asyncio.create_task(window.busy(HINTED))
    await settle()
    given, tasks = await fill(window, 1)
    assert given == []
    await end([refused])
    await settle()
    assert given == [0]
    await end(tasks)


async def test_ask_repeats_what_was_refused(make: Callable[..., Window], time: Time) -> None:
    window = make(4)
    answers: list[Busy | str] = [HINTED, HINTED, "done"]

    async def request() -> str:
        assert window.in_flight == 1
        answer = answers.pop(0)
        if isinstance(answer, Busy):
            raise answer
        return answer

    assert await window.ask(5, request) == "done"
    assert (window.size, window.in_flight, time.slept) == (2, 0, [0.3, 0.3])


async def test_ask_gives_up_if_the_server_answers_nothing(make: Callable[..., Window], time: Time) -> None:
    window = make(4)

    async def request() -> str:
        raise HINTED

    with pytest.raises(Busy):
        await window.ask(5, request, patience=2.0)
    assert 102.0 <= time.now < 102.4
    # While others are answered, it goes on.
    answered = time.now + 5

    async def sometimes() -> str:
        if time.now < answered:
            window.succeeded()
            raise HINTED
        return "done"

    assert await window.ask(5, sometimes, patience=2.0) == "done"


@pytest.mark.parametrize(("error", "size"), [(CorruptImage("bad"), 2), (Draining("ends"), 1)])
async def test_an_error_of_the_image_counts_as_an_answer(
    make: Callable[..., Window], error: Exception, size: int
) -> None:
    window = make(1)
    await window.busy(HINTED)

    async def request() -> str:
        raise error

    with pytest.raises(type(error)):
        await window.ask(5, request)
    assert window.size == size
