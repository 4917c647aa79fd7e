"""The schedule of a cluster: who does what, what a death costs, and how the last shards are shared."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipsrv.batch.engines.interface import Shard
from vipsrv.batch.engines.scheduling import (
    MOST_LOSSES,
    SHARDS_OF_AN_ACTOR,
    STOPPING_SECONDS,
    STUCK_SECONDS,
    WORTH_SHARING,
    Assignment,
    Schedule,
)
from vipsrv.batch.images import ListedImage
from vipsrv.errors import BatchError


def shard(name: str, images: int) -> Shard:
    return Shard(name, tuple(ListedImage(key=f"{name}-{number}.jpg") for number in range(images)))


def keys(assignment: Assignment) -> list[str]:
    return [image.key for image in assignment.shard.images]


def schedule(actors: Sequence[str] = (), shards: Sequence[Shard] = ()) -> Schedule:
    made = Schedule()
    for actor in actors:
        made.add_actor(actor)
    for one in shards:
        made.add_shard(one)
    return made


def finish(made: Schedule, assignment: Assignment, now: float = 0.0) -> list[Assignment]:
    """All rows of an assignment arrive, and the actor has nothing more of it."""
    for key in keys(assignment):
        made.has_row(assignment, key, now)
    needless = made.close_if_done(assignment.shard.name)
    assert needless is not None
    made.ended(assignment)
    return needless


def test_each_actor_gets_shards_and_no_more_than_it_has_room_for() -> None:
    made = schedule(["a", "b"], [shard(f"s{number}", 3) for number in range(7)])
    given = made.assignments(0)
    assert [(one.actor, one.shard.name) for one in given] == [
        ("a", "s0"),
        ("b", "s1"),
        ("a", "s2"),
        ("b", "s3"),
    ]
    assert made.assignments(0) == []
    finish(made, given[1])
    (next_one,) = made.assignments(0)
    assert (next_one.actor, next_one.shard.name) == ("b", "s4")
    assert len({one.number for one in [*given, next_one]}) == 5


def test_shards_wait_for_the_first_actor() -> None:
    made = schedule([], [shard("s0", 3)])
    assert made.assignments(0) == []
    assert made.wanted == SHARDS_OF_AN_ACTOR - 1
    made.add_actor("a")
    assert [one.shard.name for one in made.assignments(0)] == ["s0"]


def test_shards_are_taken_for_the_actors_that_there_are() -> None:
    made = schedule(["a", "b", "c"], [shard("s0", 3)])
    assert made.wanted == 3 * SHARDS_OF_AN_ACTOR - 1
    made.assignments(0)
    assert made.wanted == 3 * SHARDS_OF_AN_ACTOR - 1
    made.no_more_shards()
    assert made.wanted == 0


def test_it_is_complete_when_all_shards_have_all_rows() -> None:
    made = schedule(["a"], [shard("s0", 2), shard("s1", 0)])
    (only,) = made.assignments(0)
    made.no_more_shards()
    assert not made.complete
    assert made.has_row(only, "s0-0.jpg", 0)
    assert made.close_if_done("s0") is None
    assert made.has_row(only, "s0-1.jpg", 0)
    assert not made.complete
    assert made.close_if_done("s0") == [only]
    assert made.complete
    assert made.close_if_done("s0") is None


def test_a_shard_without_images_is_never_given() -> None:
    made = schedule(["a"], [shard("s0", 0)])
    assert made.assignments(0) == []
    assert not made.complete  # more may come
    made.no_more_shards()
    assert made.complete


def test_a_dead_actor_costs_the_images_without_rows_and_another_one_does_them_first() -> None:
    made = schedule(["a", "b"], [shard(f"s{number}", 3) for number in range(6)])
    given = {one.shard.name: one for one in made.assignments(0)}
    made.has_row(given["s0"], "s0-1.jpg", 0)
    finish(made, given["s2"])
    made.actor_died("a")
    assert made.assignments(0) == []  # b has its two
    finish(made, given["s1"])
    (again,) = made.assignments(0)
    assert again.actor == "b"
    assert keys(again) == ["s0-0.jpg", "s0-2.jpg"]


def test_a_row_that_arrives_from_a_dead_actor_counts_once() -> None:
    made = schedule(["a", "b"], [shard("s0", 2)])
    (first,) = made.assignments(0)
    made.actor_died("a")
    (second,) = made.assignments(0)
    assert made.has_row(first, "s0-0.jpg", 0)
    assert not made.has_row(second, "s0-0.jpg", 0)
    assert not made.has_row(second, "unknown.jpg", 0)
    assert made.has_row(second, "s0-1.jpg", 0)
    assert made.close_if_done("s0") == [second]
    assert not made.has_row(first, "s0-1.jpg", 0)


def test_an_idle_actor_begins_a_large_shard_at_its_other_end() -> None:
    made = schedule(["a", "b"], [shard("s0", WORTH_SHARING + 1)])
    (first,) = made.assignments(0)
    assert made.assignments(0) == []  # more shards may come for b
    made.no_more_shards()
    made.has_row(first, "s0-0.jpg", 0)
    (copy,) = made.assignments(0)
    assert (first.actor, copy.actor) == ("a", "b")
    assert keys(copy) == keys(first)[:0:-1]
    assert made.assignments(0) == []  # two are enough
    for number in range(WORTH_SHARING // 2):
        assert made.has_row(copy, keys(copy)[number], 0)
        assert made.has_row(first, keys(first)[number + 1], 0)
    assert made.close_if_done("s0") == [first, copy]
    assert made.complete


def test_few_images_are_shared_only_when_their_actor_is_stuck() -> None:
    made = schedule(["a", "b"], [shard("s0", 3), shard("s1", 4)])
    first, second = made.assignments(0)
    made.no_more_shards()
    finish(made, second, 1)
    made.has_row(first, "s0-0.jpg", 5)
    assert made.assignments(5 + STUCK_SECONDS - 1) == []
    (copy,) = made.assignments(5 + STUCK_SECONDS)
    assert (copy.actor, keys(copy)) == ("b", ["s0-2.jpg", "s0-1.jpg"])
    assert made.has_row(copy, "s0-2.jpg", 30)
    assert made.has_row(copy, "s0-1.jpg", 31)
    assert made.close_if_done("s0") == [first, copy]  # the stuck one is told to stop


def test_of_several_shards_the_one_with_most_left_is_shared() -> None:
    made = schedule(["a", "b"], [shard("s0", WORTH_SHARING), shard("s1", 1), shard("s2", 2 * WORTH_SHARING)])
    given = {one.shard.name: one for one in made.assignments(0)}
    assert given["s0"].actor == given["s2"].actor == "a"
    made.no_more_shards()
    finish(made, given["s1"])
    (copy,) = made.assignments(0)
    assert (copy.actor, copy.shard.name) == ("b", "s2")


def test_when_one_of_two_with_the_same_shard_dies_the_other_goes_on() -> None:
    made = schedule(["a", "b"], [shard("s0", WORTH_SHARING)])
    (first,) = made.assignments(0)
    made.no_more_shards()
    (copy,) = made.assignments(0)
    made.actor_died("a")
    assert made.assignments(0) == []
    for key in keys(copy):
        assert made.has_row(copy, key, 0)
    assert made.close_if_done("s0") == [copy]
    made.ended(first)  # its end may be told after that
    assert made.complete


def test_a_shard_that_kills_its_actors_stops_the_batch() -> None:
    made = schedule([], [shard("s0", 2)])
    for number in range(MOST_LOSSES - 1):
        made.add_actor(f"a{number}")
        made.assignments(0)
        made.actor_died(f"a{number}")
    made.add_actor("b")
    (last,) = made.assignments(0)
    with pytest.raises(BatchError, match=r"shard s0 was lost 3 times.*s0-0\.jpg"):
        made.actor_died("b")
    assert last.actor == "b"


def test_one_row_between_two_deaths_is_progress() -> None:
    made = schedule([], [shard("s0", 2 * MOST_LOSSES)])
    for number in range(2 * MOST_LOSSES - 1):
        made.add_actor(f"a{number}")
        (given,) = made.assignments(0)
        assert made.has_row(given, keys(given)[0], 0)
        made.actor_died(f"a{number}")
    made.add_actor("b")
    (last,) = made.assignments(0)
    assert len(keys(last)) == 1


def test_a_shard_that_only_waited_in_an_actor_is_not_blamed_for_its_death() -> None:
    made = schedule([], [shard("s0", 9 * MOST_LOSSES), shard("s1", 2)])
    for number in range(2 * MOST_LOSSES):
        made.add_actor(f"a{number}")
        first, second = made.assignments(0)
        assert (first.shard.name, second.shard.name) == ("s0", "s1")
        made.has_row(first, keys(first)[0], 0)
        made.actor_died(f"a{number}")


def test_an_actor_that_ends_a_shard_early_loses_it() -> None:
    made = schedule(["a"], [shard("s0", 2)])
    (first,) = made.assignments(0)
    made.has_row(first, "s0-0.jpg", 0)
    made.ended(first)
    (again,) = made.assignments(0)
    assert keys(again) == ["s0-1.jpg"]


def test_stopping_drops_what_waits_and_ends_after_what_actors_have() -> None:
    made = schedule(["a"], [shard(f"s{number}", 2) for number in range(4)])
    first, second = made.assignments(0)
    made.stop(0.0)
    made.add_shard(shard("late", 2))
    assert made.wanted == 0
    assert not made.complete
    finish(made, first)
    assert made.assignments(0) == []
    made.has_row(second, "s1-0.jpg", 0)
    made.ended(second)  # stopped in the middle
    assert made.complete


def test_what_a_dead_actor_had_is_not_given_again_after_a_stop() -> None:
    made = schedule(["a", "b"], [shard("s0", 2), shard("s1", 2)])
    made.assignments(0)
    made.stop(0.0)
    made.actor_died("a")
    assert made.assignments(0) == []
    made.actor_died("b")
    assert made.complete


def test_after_a_stop_an_actor_that_is_silent_is_not_waited_for() -> None:
    made = schedule(["a", "b"], [shard("s0", 2), shard("s1", 2)])
    first, _ = made.assignments(0)
    assert made.give_up(10 * STOPPING_SECONDS) == set()
    made.stop(1000)
    made.has_row(first, "s0-0.jpg", 1001)
    assert made.give_up(1000 + STOPPING_SECONDS) == {"b"}
    assert not made.complete
    assert made.give_up(1001 + STOPPING_SECONDS) == {"a"}
    assert made.complete


class Cluster:
    """Actors that work and die as they are told, on the shards of a schedule."""

    def __init__(self, shards: Sequence[Shard], actors: int) -> None:
        self.schedule = schedule([f"a{number}" for number in range(actors)])
        self.shards = iter(shards)
        self.running: dict[Assignment, list[str]] = {}
        self.counted: list[str] = []

    def fill(self, turn: int) -> None:
        for _ in range(self.schedule.wanted):
            one = next(self.shards, None)
            if one is None:
                self.schedule.no_more_shards()
                break
            self.schedule.add_shard(one)
        for assignment in self.schedule.assignments(turn):
            self.running[assignment] = keys(assignment)

    def work(self, assignment: Assignment, rows: int, turn: int) -> None:
        """Some rows arrive, and the actor is told if the shard is done."""
        left = self.running[assignment]
        self.counted += [key for key in left[:rows] if self.schedule.has_row(assignment, key, turn)]
        del left[:rows]
        for needless in self.schedule.close_if_done(assignment.shard.name) or []:
            self.running.pop(needless, None)
        if assignment in self.running and not left:
            self.schedule.ended(assignment)
            del self.running[assignment]

    def die(self, actor: str, turn: int) -> None:
        self.schedule.actor_died(actor)
        self.running = {one: left for one, left in self.running.items() if one.actor != actor}
        self.schedule.add_actor(f"b{turn}")


@given(
    sizes=st.lists(st.integers(0, 150), max_size=6),
    actors=st.integers(1, 4),
    choices=st.lists(
        st.tuples(st.integers(0, 40), st.integers(1, 60), st.booleans()), min_size=1, max_size=60
    ),
)
def test_whatever_dies_each_image_has_one_row(
    sizes: list[int], actors: int, choices: list[tuple[int, int, bool]]
) -> None:
    shards = [shard(f"s{number}", size) for number, size in enumerate(sizes)]
    cluster = Cluster(shards, actors)
    turn = 0
    while not cluster.schedule.complete:
        cluster.fill(turn)
        if cluster.running:
            number, rows, dies = choices[turn % len(choices)]
            assignment = list(cluster.running)[number % len(cluster.running)]
            if dies:  # after a row of its first shard, so that the batch is not given up
                assignment = next(one for one in cluster.running if one.actor == assignment.actor)
            cluster.work(assignment, rows, turn)
            if dies:
                cluster.die(assignment.actor, turn)
            turn += 1
    assert sorted(cluster.counted) == sorted(image.key for one in shards for image in one.images)
