"""Decides which actor does which shard; it has no input, no output and no clock of its own.

::

    a shard ──► waits ──► one actor has it ──────────────────────────► each image has its row
                  ▲          │          └─ an idle actor gets it, too, ──┘
                  │          │             and begins at its other end
                  └──────────┘ the actor has died: what is left of the shard

The rows of an actor arrive while it works, so an actor that dies costs only those images whose rows had not
arrived. Near the end an actor that has nothing to do gets a copy of what is left of another's shard, in
reverse order: the two meet somewhere, and a shard that hangs does not hold up the batch. The first row of an
image counts. A second one can only be of the same results, because names and bytes are deterministic.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto

from vipsrv.batch.engines.interface import Shard
from vipsrv.batch.images import ListedImage
from vipsrv.errors import BatchError

SHARDS_OF_AN_ACTOR = 2
"""Shards that an actor has at a time: the second keeps it busy while the first one's last images are done."""

WORTH_SHARING = 64
"""Images left of a shard: with fewer, its actor is as fast alone, unless it is stuck."""

STUCK_SECONDS = 20.0
"""Time without a row after which a shard with few images left is given to an idle actor, too."""

STOPPING_SECONDS = 120.0
"""Time without a row after ``stop`` after which an actor is not waited for any more."""

MOST_LOSSES = 3
"""Times in succession that actors may leave a shard, most often by dying, without one more row of it."""


class Intake(Enum):
    """Whether there is more to come."""

    OPEN = auto()
    """Further shards may be added."""
    CLOSED = auto()
    """All shards have been added, and all of them will be done."""
    STOPPED = auto()
    """What actors have now is the last."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """The order to an actor to do a shard, or what is left of it. ``number`` tells it from all others."""

    number: int
    actor: str
    shard: Shard


@dataclass(slots=True)
class _OpenShard:
    """A shard of which some images have no row yet: these, and who works on them."""

    left: dict[str, ListedImage]
    runs: list[Assignment] = field(default_factory=list)
    last_row: float = 0.0
    losses: int = 0


class Schedule:
    """Which shards wait, which actor has which shard, and which images have no row yet.

    Times are seconds of any clock that does not go back.
    """

    def __init__(self) -> None:
        self._actors: set[str] = set()
        self._shards: dict[str, _OpenShard] = {}
        self._waiting: deque[str] = deque()
        self._intake = Intake.OPEN
        self._stopped_at = 0.0
        self._given = 0

    @property
    def wanted(self) -> int:
        """How many further shards to add now: so many that no actor is idle and none waits for long."""
        if self._intake is not Intake.OPEN:
            return 0
        return max(0, SHARDS_OF_AN_ACTOR * max(1, len(self._actors)) - len(self._shards))

    @property
    def complete(self) -> bool:
        """Whether all shards are done and no further one comes."""
        return self._intake is not Intake.OPEN and not self._shards

    def add_actor(self, actor: str) -> None:
        """Count on an actor that is ready to work."""
        self._actors.add(actor)

    def actor_died(self, actor: str, reason: str = "") -> None:
        """Forget an actor. What is left of its shards waits for another one, ahead of all others.

        Raises ``BatchError``, with the ``reason``, if one of its shards was lost too often.
        """
        self._actors.discard(actor)
        lost = [run for shard in self._shards.values() for run in shard.runs if run.actor == actor]
        lost.sort(key=lambda run: run.number)
        for run in reversed(lost):
            # It had begun with the first one only, as far as is known: the others had no part in its death.
            self._left(run, reason, blamed=run is lost[0])

    def add_shard(self, shard: Shard) -> None:
        """Add a shard, which then waits for an actor."""
        if self._intake is Intake.OPEN and shard.images:
            self._shards[shard.name] = _OpenShard({image.key: image for image in shard.images})
            self._waiting.append(shard.name)

    def no_more_shards(self) -> None:
        """Expect no further shard."""
        if self._intake is Intake.OPEN:
            self._intake = Intake.CLOSED

    def stop(self, now: float) -> None:
        """Give out nothing more and drop what waits."""
        if self._intake is not Intake.STOPPED:
            self._stopped_at = now
        self._intake = Intake.STOPPED
        while self._waiting:
            del self._shards[self._waiting.popleft()]

    def give_up(self, now: float) -> set[str]:
        """After ``stop``: drop the shards that have been without a row for too long.

        Returns the actors that had them. A later run does what is left.
        """
        silent: set[str] = set()
        if self._intake is Intake.STOPPED:
            for name, shard in list(self._shards.items()):
                if now - max(shard.last_row, self._stopped_at) >= STOPPING_SECONDS:
                    silent.update(run.actor for run in shard.runs)
                    del self._shards[name]
        return silent

    def assignments(self, now: float) -> list[Assignment]:
        """Give what there is to the actors that have room for it, the least busy first."""
        given: list[Assignment] = []
        load = dict.fromkeys(sorted(self._actors), 0)
        for shard in self._shards.values():
            for run in shard.runs:
                load[run.actor] += 1
        while self._waiting and load:
            actor = min(load, key=lambda one: load[one])
            if load[actor] >= SHARDS_OF_AN_ACTOR:
                break
            load[actor] += 1
            given.append(self._give(self._waiting.popleft(), actor, now))
        if self._intake is Intake.CLOSED:
            for actor in [actor for actor, shards in load.items() if not shards]:
                name = self._worth_a_copy(now)
                if name is not None:
                    given.append(self._give(name, actor, now))
        return given

    def has_row(self, assignment: Assignment, key: str, now: float) -> bool:
        """Take note of a row. Return whether it is the first one of its image: only that one counts."""
        shard = self._shards.get(assignment.shard.name)
        if shard is None or shard.left.pop(key, None) is None:
            return False
        shard.last_row = now
        shard.losses = 0
        return True

    def close_if_done(self, name: str) -> list[Assignment] | None:
        """Close a shard if all its images have rows, and return the assignments that are now needless.

        ``None`` if some images have no row yet, or if the shard has been closed before.
        """
        shard = self._shards.get(name)
        if shard is None or shard.left:
            return None
        del self._shards[name]
        return shard.runs

    def ended(self, assignment: Assignment) -> None:
        """Take note that an actor does no more of an assignment.

        What is left waits for an actor again, unless another one has it. Raises ``BatchError`` if that
        happened too often.
        """
        shard = self._shards.get(assignment.shard.name)
        if shard is not None and assignment in shard.runs:
            self._left(assignment, "an actor has left it undone", blamed=True)

    def _left(self, run: Assignment, reason: str, *, blamed: bool) -> None:
        name = run.shard.name
        shard = self._shards[name]
        shard.runs.remove(run)
        if self._intake is Intake.STOPPED:
            if not shard.runs:
                del self._shards[name]
            return
        shard.losses += blamed
        if shard.losses >= MOST_LOSSES:
            raise BatchError(
                f"shard {name} was lost {MOST_LOSSES} times, and no image of it was done in between; next is "
                f"{next(iter(shard.left))!r}. The same command goes on with what is left. Last: {reason}"
            )
        if not shard.runs:
            self._waiting.appendleft(name)

    def _give(self, name: str, actor: str, now: float) -> Assignment:
        shard = self._shards[name]
        images = tuple(shard.left.values())
        if shard.runs:
            images = images[::-1]
        self._given += 1
        run = Assignment(self._given, actor, Shard(name, images))
        shard.runs.append(run)
        shard.last_row = now
        return run

    def _worth_a_copy(self, now: float) -> str | None:
        """The shard that a second actor would help most."""
        alone = [name for name, shard in self._shards.items() if len(shard.runs) == 1]
        if not alone:
            return None
        largest = max(alone, key=lambda name: len(self._shards[name].left))
        if len(self._shards[largest].left) >= WORTH_SHARING:
            return largest
        quietest = min(alone, key=lambda name: self._shards[name].last_row)
        return quietest if now - self._shards[quietest].last_row >= STUCK_SECONDS else None
