import pytest

from bench.load.schedule import Due, Schedule, shares


def all_of(schedule: Schedule, now: float) -> list[Due]:
    taken = []
    while schedule.next_due(now) is not None:
        taken.append(schedule.take(now))
    return taken


def test_in_an_open_loop_requests_are_due_by_the_clock() -> None:
    schedule = Schedule(start=100.0, measure_from=100.0, end=101.0, rate=4)
    assert schedule.next_due(50.0) == 100.0
    # Taken far too late, and still due when they were due.
    assert [due.intended for due in all_of(schedule, now=500.0)] == [100.0, 100.25, 100.5, 100.75]


def test_the_requests_of_several_processes_are_evenly_spaced() -> None:
    intended = [
        due.intended
        for index in range(3)
        for due in all_of(Schedule(start=0, measure_from=0, end=2, rate=6, index=index, of=3), now=9)
    ]
    assert sorted(intended) == pytest.approx([n / 6 for n in range(12)])


def test_requests_due_in_the_warm_up_do_not_count() -> None:
    schedule = Schedule(start=0.0, measure_from=1.0, end=2.0, rate=2)
    assert all_of(schedule, now=0) == [Due(0.0, False), Due(0.5, False), Due(1.0, True), Due(1.5, True)]


def test_in_a_closed_loop_requests_are_due_immediately_until_the_end() -> None:
    schedule = Schedule(start=10.0, measure_from=11.0, end=12.0)
    assert schedule.next_due(5.0) == 10.0
    assert schedule.next_due(10.5) == 10.5
    assert schedule.take(10.5) == Due(10.5, measured=False)
    assert schedule.take(11.5) == Due(11.5, measured=True)
    assert schedule.next_due(12.0) is None


@pytest.mark.parametrize("rate", [None, 1000.0])
def test_the_count_is_of_measured_requests(rate: float | None) -> None:
    schedule = Schedule(start=0.0, measure_from=0.002, count=3, rate=rate)
    if rate is None:
        assert schedule.take(0.0) == Due(0.0, measured=False)
    taken = all_of(schedule, now=5.0)
    assert sum(due.measured for due in taken) == 3
    assert schedule.next_due(9.0) is None


def test_a_schedule_needs_an_end_or_a_count() -> None:
    with pytest.raises(ValueError, match="an end or a count"):
        Schedule(start=0, measure_from=0)


def test_shares_are_even_and_complete() -> None:
    assert shares(10, 4) == [3, 3, 2, 2]
    assert shares(2, 3) == [1, 1, 0]
