"""Figures of a gateway by name, and how one gateway gets those of all gateways of the server.

::

    collect("metrics") ──► own provider ──► value ──┐
                  └──► supervisor ──► providers of the other gateways ──► values ──► [value, …]

A snapshot is what a provider returns at the moment when it is asked: a value that JSON can hold. A gateway
that does not answer in time is left out, which ``survey`` tells.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import Any, Protocol, TypeAlias

Provider: TypeAlias = Callable[[], Any]
"""Returns a value that JSON can hold, or awaits one for a moment. It runs in the event loop, so is quick."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answers:
    """The ``values`` of the other gateways, and the names of those that are ``silent``."""

    values: list[Any] = field(default_factory=list)
    silent: tuple[str, ...] = ()


class Peers(Protocol):
    """The other gateways of the server."""

    def ask(self, name: str) -> Awaitable[Answers]:
        """Return the snapshots with this name of all that answer within a bounded time."""


class Snapshots:
    """The snapshots of this gateway, each with the function that makes it, and those of the ``peers``."""

    def __init__(self, peers: Peers | None = None) -> None:
        self._providers: dict[str, Provider] = {}
        self._peers = peers
        self._silent: tuple[str, ...] = ()

    def add(self, name: str, provider: Provider) -> None:
        """Let ``provider`` make the snapshots with this name. There is one for each name."""
        if name in self._providers:
            raise ValueError(f"there is a snapshot {name!r} already")
        self._providers[name] = provider

    async def take(self, name: str) -> Any:
        """Return the snapshot of this gateway alone. Raises ``KeyError`` if there is none of this name."""
        value = self._providers[name]()
        return await value if isawaitable(value) else value

    async def collect(self, name: str) -> list[Any]:
        """Return the snapshots of all gateways that answer in time; that of this one is the first."""
        return (await self.survey(name)).values

    async def survey(self, name: str) -> Answers:
        """Return the snapshots of all gateways, as ``collect`` does, and which gateways did not answer."""
        own = await self.take(name)
        others = await self.of_others(name)
        return Answers([own, *others.values], others.silent)

    async def of_others(self, name: str) -> Answers:
        """Return the snapshots of the other gateways, if there are any."""
        if self._peers is None:
            return Answers()
        answers = await self._peers.ask(name)
        self._tell(answers.silent)
        return answers

    def _tell(self, silent: tuple[str, ...]) -> None:
        if silent != self._silent:
            self._silent = silent
            if silent:
                _log.warning("figures are incomplete: %s did not answer in time", ", ".join(silent))
            else:
                _log.info("figures are complete again: all gateways answer")
