"""Deficit round robin: the members of a ring take turns, and share the workers by what their jobs cost.

Each member of a ring has a **deficit**, in worker seconds. When its turn begins it gets a quantum, and it may
start jobs until the deficit is used up. The quanta of members are in proportion to their **weights**, and so
are the shares of those that always have a job waiting. The cost of a job is not known before it has run. So a
start charges the predicted cost, and the end charges the difference to the real one. A member may thus be in
debt for many turns, during which the others run.

Two things go beyond the textbook, because a job cannot be interrupted and most clients send their next
request only after a reply:

- **A worker is held for a member that is about to return.** A member with no job whose next one usually comes
  within ``HOLD_SECONDS`` keeps its turn; without that, each gap between two of its requests would let a job
  of any length slip in. The time for which a worker is held counts as the member's own. Nothing is held where
  all jobs are about as short as these gaps.
- **The last idle worker is left to the others.** A member whose jobs run on its share of the workers, rounded
  up, does not take the last one while another's turn comes in the same round or is nearer than the end of
  the job, or while the worker is reserved for members between two requests. Only a member that
  usually returns sooner than the dearest job takes, and within ``LINGER_SECONDS``, has such a reservation:
  for as long, from the end of its last job.

This module has no clock and no I/O: times are arguments, in seconds of any clock. A job costs constant time
on average: a turn is one step, and a job causes as many steps as its cost has quanta, or one round if all are
in debt.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from enum import IntEnum
from math import inf
from typing import Any, Generic, Protocol, TypeVar

QUANTUM = 0.001
"""Worker seconds that the member with the largest weight gets per turn. Less than most jobs cost: a client
that waits for each reply cannot use more than one job per turn."""

HOLD_SECONDS = 0.01
"""How long a worker is held for a member that is expected back: longer than the round trip in a local
network and a client's work between two requests."""

LINGER_SECONDS = 0.1
"""How long after its last job a member counts as being between two requests, and how long the last idle
worker is reserved for it at most."""

FORGET_SECONDS = 10.0
"""How long a member without a job is remembered because it is in debt."""

_MOST_CREDIT = 0.01
"""Worker seconds that a member saves at most from turns in which none of its jobs may start."""

SMOOTHING = 0.2
"""Weight of the newest value in running means."""

_DEAR_FADES = 0.99
"""By how much the cost of the dearest job fades with each later job."""


class Lane(IntEnum):
    """The two kinds of jobs, which may be stopped from starting independently."""

    LIGHT = 0
    HEAVY = 1


class MemberState(IntEnum):
    """The states of a ring's member: AWAY → BUSY ⇄ RESTING, and RESTING → AWAY after ``LINGER_SECONDS``."""

    AWAY = 0
    """It has no job, and has had none for a while."""
    BUSY = 1
    """A job of it waits or runs."""
    RESTING = 2
    """It has no job, and its last one ended a moment ago: the next one may be on its way."""


# Names of their own, because each job asks for them and an attribute of an enumeration takes 50 ns.
_AWAY, _BUSY, _RESTING = MemberState


class _HasCost(Protocol):
    """A job as a ring sees it."""

    @property
    def cost(self) -> float:
        """The worker seconds that it is expected to cost."""


Job = TypeVar("Job", bound=_HasCost)


@dataclass(slots=True)
class Request:
    """A request for the next job: which lanes may start one, and how many of ``workers`` are idle.

    ``wake_at`` is an answer: when to ask again if a worker is held, infinite if none is.
    """

    now: float
    idle: int
    workers: int
    lanes: tuple[bool, bool] = (True, True)
    wake_at: float = inf


class Member(ABC, Generic[Job]):
    """A member of a ring: what it may use, and what it does at the moment."""

    __slots__ = (
        "deficit",
        "in_ring",
        "rested_at",
        "returns_after",
        "running",
        "state",
        "waiting",
        "weight",
    )

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight
        self.deficit = 0.0
        self.waiting = [0, 0]  # jobs of each lane
        self.running = 0
        self.state = _AWAY
        self.in_ring = False  # whether it has a turn in each round: while it is in debt or may start a job
        self.rested_at = -inf  # when its last job ended
        self.returns_after = inf  # mean seconds from the end of its last job to the next one

    @abstractmethod
    def next(self, request: Request) -> Job | None:
        """Return the job that it would start next, if it may start one."""


_M = TypeVar("_M", bound=Member[Any])


class Ring(Generic[Job, _M]):
    """Members by their key, and the order of their turns."""

    __slots__ = (
        "_current",
        "_dear",
        "_heaviest",
        "_held",
        "_held_since",
        "_returning",
        "_turns",
        "_weights",
        "members",
    )

    def __init__(self) -> None:
        self.members: dict[Hashable, _M] = {}
        self._weights = 0.0  # of all members together
        self._heaviest = 0.0  # the largest weight, or a larger one that is gone since the last sweep
        self._turns: deque[_M] = deque()
        self._current: _M | None = None  # the member whose turn has begun, always the first of _turns
        self._held: list[_M] = []  # those for which workers are held
        self._held_since = 0.0
        # Those that rest and usually return within LINGER_SECONDS; the last one began to rest last.
        self._returning: dict[_M, None] = {}
        self._dear = 0.0  # worker seconds of the dearest of the latest jobs

    def insert(self, key: Hashable, member: _M) -> _M:
        """Add a member, which has no job yet, and return it."""
        self.members[key] = member
        self._weights += member.weight
        self._heaviest = max(self._heaviest, member.weight)
        return member

    def reweigh(self, member: _M, weight: float) -> None:
        """Change the weight of a member."""
        member.weight = weight
        self._weigh()

    def joins(self, member: _M, lane: Lane, now: float) -> None:
        """Note that a job of a member begins to wait."""
        member.waiting[lane] += 1
        state = member.state
        if state is not _BUSY:
            if state is _RESTING:
                gap = now - member.rested_at
                mean = member.returns_after
                member.returns_after = gap if mean == inf else mean + SMOOTHING * (gap - mean)
                self._returning.pop(member, None)
            member.state = _BUSY
        self._queue(member)

    def starts(self, member: _M, lane: Lane, cost: float) -> None:
        """Note that a waiting job of a member runs."""
        member.waiting[lane] -= 1
        member.running += 1
        member.deficit -= cost

    def leaves(self, member: _M, lane: Lane, now: float) -> None:
        """Note that a waiting job of a member was removed."""
        member.waiting[lane] -= 1
        self._rest(member, now)

    def ends(self, member: _M, cost: float, charged: float, now: float) -> None:
        """Note that a running job has ended, what it has cost and what was charged when it started."""
        self._dear *= _DEAR_FADES
        if cost > self._dear:  # noqa: PLR1730 - for each job, and ``max`` is a call
            self._dear = cost
        member.running -= 1
        member.deficit += charged - cost
        if member.deficit < 0:
            self._queue(member)
        self._rest(member, now)

    def next(self, request: Request) -> Job | None:
        """Return the job to start next, or ``None`` if there is none or the workers are held."""
        now = request.now
        if self._held:
            for member in self._held:
                member.deficit -= now - self._held_since
            self._held = []
        if len(self.members) == 1:  # the most frequent case
            member = self._turns[0]
            member.deficit = 0.0
            return member.next(request)
        ticket, least_debt = self._one_round(request)
        while ticket is None and not self._held and least_debt < inf:
            # All that could start a job are in debt: skip the rounds in which nothing would happen. Each
            # time one more starts a job or has a worker held for it.
            for member in self._turns:
                member.deficit += least_debt * member.weight
            ticket, least_debt = self._one_round(request)
        return ticket

    def goes_first(self, member: _M) -> None:
        """Let a member with a waiting job have the next turn, whatever it owes."""
        self._turns.remove(member)
        self._turns.insert(0 if self._current is None else 1, member)
        member.deficit = max(0.0, member.deficit)

    def sweep(self, now: float) -> set[_M]:
        """Forget the members that have had no job for a while, and return them."""
        gone: set[_M] = set()
        for key, member in list(self.members.items()):
            if member.state is _BUSY:
                continue
            idle = now - member.rested_at
            if idle > LINGER_SECONDS and member.state is _RESTING:
                member.state = _AWAY
                self._returning.pop(member, None)
            if idle > (LINGER_SECONDS if member.deficit >= 0 else FORGET_SECONDS):
                del self.members[key]
                gone.add(member)
        if gone:
            self._weigh()
            self._turns = deque(member for member in self._turns if member not in gone)
            self._held = [member for member in self._held if member not in gone]
            if self._current in gone:
                self._current = None
        return gone

    def drop(self, key: Hashable) -> None:
        """Forget a member that will not return, debts included, if it has no job."""
        member = self.members.get(key)
        if member is None or member.state is _BUSY:
            return
        del self.members[key]
        self._weights -= member.weight
        self._returning.pop(member, None)
        if member.in_ring:
            self._turns.remove(member)
        if member in self._held:
            self._held = [one for one in self._held if one is not member]
        if member is self._current:
            self._current = None

    def clear(self) -> None:
        """Forget all members."""
        self.members.clear()
        self._weigh()
        self._turns.clear()
        self._held = []
        self._returning.clear()
        self._current = None

    def _weigh(self) -> None:
        weights = [member.weight for member in self.members.values()]
        self._weights, self._heaviest = sum(weights), max(weights, default=0.0)

    def _one_round(self, request: Request) -> tuple[Job | None, float]:
        """Give each member one turn. Return the job to start; without one, the least debt by weight."""
        turns, now, idle, heaviest = self._turns, request.now, request.idle, self._heaviest
        light, heavy = request.lanes
        current, self._current = self._current, None
        # Of those that have a job to start or are expected to, each divided by its weight.
        debts: list[float] = []
        expected: list[_M] = []
        only_if_last_is_free: _M | None = None  # the first that may take the last worker if no other wants it
        for _ in range(len(turns)):
            member = turns[0]
            waiting = member.waiting
            may_start = (light and waiting[0]) or (heavy and waiting[1])
            if member is not current:  # its turn begins
                member.deficit += QUANTUM * member.weight / heaviest
            if member.deficit <= 0:
                if may_start or self._is_expected(member, now):
                    debts.append(-member.deficit / member.weight)
                turns.rotate(-1)
                continue
            member.deficit = min(member.deficit, _MOST_CREDIT)
            if may_start:
                if idle == 1 and self._has_its_share(member, request.workers):
                    only_if_last_is_free = only_if_last_is_free or member
                elif ticket := member.next(request):
                    self._current = member
                    return ticket, 0.0
            elif self._is_expected(member, now):
                expected.append(member)
                if len(expected) >= idle:
                    self._current = member
                    self._hold_for(expected, request)
                    return None, 0.0
            self._end_turn(member, now)
        return self._end_round(only_if_last_is_free, request, min(debts, default=inf))

    def _end_round(
        self, only_if_last_is_free: _M | None, request: Request, least_debt: float
    ) -> tuple[Job | None, float]:
        """Give the last idle worker to a member that has its share of them, if no other is to get it."""
        if only_if_last_is_free is None or self._is_last_reserved(request):
            return None, least_debt
        ticket = only_if_last_is_free.next(request)
        # Another one that wants it has a debt that is paid before this job would end: it goes first.
        if ticket is not None and least_debt < ticket.cost / only_if_last_is_free.weight:
            return None, least_debt
        return ticket, inf

    def _is_last_reserved(self, request: Request) -> bool:
        """Whether the last idle worker is reserved for another member; if so, say when to ask again."""
        reserved_until = self._reserved_until(request.now)
        if request.now >= reserved_until:
            return False
        request.wake_at = min(request.wake_at, reserved_until)
        return True

    def _reserved_until(self, now: float) -> float:
        """Return until when the last idle worker is reserved, or a time that has passed."""
        most = min(LINGER_SECONDS, self._dear)
        for member in reversed(self._returning):
            until = member.rested_at + most
            if until <= now or member.returns_after < most:
                return until
        return -inf

    def _has_its_share(self, member: _M, workers: int) -> bool:
        if not member.running:
            return False
        return member.running >= workers * member.weight / self._weights

    def _is_expected(self, member: _M, now: float) -> bool:
        """Whether a worker may be held for a member: that is shorter than the job that would slip in."""
        if member.state is not _RESTING or now >= member.rested_at + HOLD_SECONDS:
            return False
        returns_after = member.returns_after
        return returns_after < HOLD_SECONDS and returns_after < self._dear / 2

    def _hold_for(self, expected: list[_M], request: Request) -> None:
        self._held, self._held_since = expected, request.now
        returns_by = min(member.rested_at for member in expected) + HOLD_SECONDS
        request.wake_at = min(request.wake_at, returns_by)

    def _end_turn(self, member: _M, now: float) -> None:
        """End the turn of the first member, which is not in debt. It stays if a job of it may follow."""
        if member.waiting[0] or member.waiting[1] or self._is_expected(member, now):
            self._turns.rotate(-1)
        else:
            self._turns.popleft()
            member.in_ring = False
            member.deficit = 0.0

    def _queue(self, member: _M) -> None:
        if not member.in_ring:
            member.in_ring = True
            self._turns.append(member)

    def _rest(self, member: _M, now: float) -> None:
        waiting = member.waiting
        if member.running or waiting[0] or waiting[1]:
            return
        member.state = _RESTING
        member.rested_at = now
        if member.returns_after < LINGER_SECONDS:
            self._returning[member] = None
        if self._is_expected(member, now):
            self._queue(member)
