"""A queue that shares the workers fairly: over accounts and, in each, over its flows.

::

    root ring ──► account ──► account's ring ──► flow ──► its light jobs, its heavy jobs, in order of arrival

The members of a ring take turns by ``deficit_round_robin``, and the jobs of a flow start in their order. What
a job will cost is predicted from the latest jobs of its account that were of the same kind.
"""

from collections.abc import Hashable, Iterator
from enum import IntEnum
from typing import Generic, TypeVar

from vipsrv.server.deficit_round_robin import SMOOTHING, Lane, Member, Request, Ring

_FIRST_COST = 0.02
"""Worker seconds that the first job of all is expected to take."""

Item = TypeVar("Item")


class TicketState(IntEnum):
    """The states of a ticket: WAITING → RUNNING → DONE, or WAITING → DONE for one that is removed."""

    WAITING = 0
    RUNNING = 1
    DONE = 2


class Ticket(Generic[Item]):
    """The place of one job, ``item``, in the queue.

    ``cost`` is what the job is expected to cost, in worker seconds; ``kind`` what that is predicted from.
    """

    __slots__ = ("cost", "item", "kind", "lane", "share", "state")

    def __init__(self, item: Item, share: "FlowShare[Item]", lane: Lane, kind: Hashable, cost: float) -> None:
        self.item = item
        self.share = share
        self.lane = lane
        self.kind = kind
        self.cost = cost
        self.state = TicketState.WAITING


class FlowShare(Member[Ticket[Item]]):
    """The share of one connection, ``key``, and its waiting jobs by lane."""

    __slots__ = ("account", "jobs", "key")

    def __init__(self, key: Hashable, account: "AccountShare[Item]") -> None:
        super().__init__()
        self.key = key
        self.account = account
        # Dictionaries, because any job may be removed. They stay small, as a connection has few in flight.
        self.jobs: tuple[dict[Ticket[Item], None], ...] = ({}, {})

    def next(self, request: Request) -> Ticket[Item] | None:
        """Return its first job; a heavy one goes first."""
        for lane in (Lane.HEAVY, Lane.LIGHT):
            if request.lanes[lane] and self.jobs[lane]:
                return next(iter(self.jobs[lane]))
        return None


class AccountShare(Member[Ticket[Item]]):
    """The share of one client, ``key``, its flows, and what its jobs of each kind have cost."""

    __slots__ = ("flows", "key", "means")

    def __init__(self, key: Hashable, weight: float) -> None:
        super().__init__(weight)
        self.key = key
        self.flows: Ring[Ticket[Item], FlowShare[Item]] = Ring()
        self.means: dict[Hashable, float] = {}

    def next(self, request: Request) -> Ticket[Item] | None:
        """Return the next job of its flows."""
        return self.flows.next(request)


class FairQueue(Generic[Item]):
    """Jobs that wait, and what the running ones will be charged; see the top of this module."""

    def __init__(self) -> None:
        self._accounts: Ring[Ticket[Item], AccountShare[Item]] = Ring()
        self._means: dict[Hashable, float] = {}  # by kind, of all accounts
        self.light = 0
        """The number of waiting light jobs."""
        self.heavy = 0
        """The number of waiting heavy jobs."""

    def __len__(self) -> int:
        """The number of waiting jobs."""
        return self.light + self.heavy

    def __iter__(self) -> Iterator[Ticket[Item]]:
        """All waiting jobs; the queue may change meanwhile."""
        accounts = self._accounts.members.values()
        flows = [
            flow for account in accounts if any(account.waiting) for flow in account.flows.members.values()
        ]
        return iter([ticket for flow in flows for jobs in flow.jobs for ticket in jobs])

    @property
    def accounts(self) -> int:
        """How many accounts have a job, had one a moment ago, or are in debt."""
        return len(self._accounts.members)

    def waiting_of(self, account: Hashable, lane: Lane) -> int:
        """Return the number of waiting jobs of an account in a lane."""
        member = self._accounts.members.get(account)
        return 0 if member is None else member.waiting[lane]

    def predict(self, account: Hashable, kind: Hashable) -> float:
        """Return the worker seconds that a job is expected to cost: the mean of its account's latest jobs."""
        member = self._accounts.members.get(account)
        mean = None if member is None else member.means.get(kind)
        return self._means.get(kind, _FIRST_COST) if mean is None else mean

    def add(
        self,
        item: Item,
        account: Hashable,
        flow: Hashable,
        *,
        lane: Lane,
        kind: Hashable,
        now: float,
        cost: float | None = None,
        weight: float = 1.0,
    ) -> Ticket[Item]:
        """Queue a job; without a ``cost``, that is predicted from jobs of the same ``kind``.

        ``weight``, above 0, is that of the account from now on.
        """
        member = self._accounts.members.get(account)
        if member is None:
            member = self._accounts.insert(account, AccountShare(account, weight))
        elif member.weight != weight:
            self._accounts.reweigh(member, weight)
        flow_share = member.flows.members.get(flow)
        if flow_share is None:
            flow_share = member.flows.insert(flow, FlowShare(flow, member))
        if cost is None:
            cost = member.means.get(kind)
            if cost is None:
                cost = self._means.get(kind, _FIRST_COST)
        ticket = Ticket(item, flow_share, lane, kind, cost)
        flow_share.jobs[lane][ticket] = None
        if lane is Lane.LIGHT:
            self.light += 1
        else:
            self.heavy += 1
        member.flows.joins(flow_share, lane, now)
        self._accounts.joins(member, lane, now)
        return ticket

    def next(self, request: Request) -> Ticket[Item] | None:
        """Return the job to start next, which stays in the queue until ``start``.

        If there is none, ``request.wake_at`` may say when to ask again.
        """
        light, heavy = request.lanes
        if (light and self.light) or (heavy and self.heavy):
            return self._accounts.next(request)
        return None

    def goes_first(self, ticket: Ticket[Item]) -> None:
        """Let the account of a waiting job have the next turn, whatever it owes."""
        self._accounts.goes_first(ticket.share.account)

    def start(self, ticket: Ticket[Item]) -> None:
        """Take a job out of the queue because it runs now."""
        self._take_out(ticket, TicketState.RUNNING)
        share, account = ticket.share, ticket.share.account
        account.flows.starts(share, ticket.lane, ticket.cost)
        self._accounts.starts(account, ticket.lane, ticket.cost)

    def remove(self, ticket: Ticket[Item], now: float) -> None:
        """Take a waiting job out of the queue because nobody wants it any more."""
        self._take_out(ticket, TicketState.DONE)
        share, account = ticket.share, ticket.share.account
        account.flows.leaves(share, ticket.lane, now)
        self._accounts.leaves(account, ticket.lane, now)

    def end(self, ticket: Ticket[Item], seconds: float, now: float) -> None:
        """Charge a running job with the worker seconds that it took, and learn from them."""
        ticket.state = TicketState.DONE
        share, account, kind = ticket.share, ticket.share.account, ticket.kind
        for means in (account.means, self._means):
            mean = means.get(kind, seconds)
            means[kind] = mean + SMOOTHING * (seconds - mean)
        account.flows.ends(share, seconds, ticket.cost, now)
        self._accounts.ends(account, seconds, ticket.cost, now)

    def flow_closed(self, account: Hashable, flow: Hashable) -> None:
        """Forget a flow that adds no more jobs. Its account keeps the debt."""
        member = self._accounts.members.get(account)
        if member is not None:
            member.flows.drop(flow)

    def sweep(self, now: float) -> None:
        """Forget who has had no job for a while. Call it several times a second."""
        for account in self._accounts.sweep(now):
            account.flows.clear()  # they refer to the account: a cycle would wait for the garbage collector
        for account in self._accounts.members.values():
            account.flows.sweep(now)

    def _take_out(self, ticket: Ticket[Item], state: TicketState) -> None:
        del ticket.share.jobs[ticket.lane][ticket]
        if ticket.lane is Lane.LIGHT:
            self.light -= 1
        else:
            self.heavy -= 1
        ticket.state = state
