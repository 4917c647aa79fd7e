"""Lets requests be in flight together, or one of them alone.

A connection that breaks ends all requests on it, whichever of them is the cause. The one that breaks it while
it is alone is the cause itself.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


class Turns:
    """The requests in flight on one connection. Whoever wants to be alone goes first."""

    def __init__(self) -> None:
        self._together = 0
        self._nobody = asyncio.Event()
        self._wanting_alone = 0
        self._open = asyncio.Event()
        self._one_by_one = asyncio.Lock()

    async def take(self, request: Callable[[], Awaitable[T]], *, alone: bool) -> T:
        """Make a request beside others, or while no other is in flight, and return what it returns."""
        if alone:
            return await self._alone(request)
        while self._wanting_alone:
            await self._open.wait()
        self._together += 1
        try:
            return await request()
        finally:
            self._together -= 1
            if not self._together:
                self._nobody.set()

    async def _alone(self, request: Callable[[], Awaitable[T]]) -> T:
        self._wanting_alone += 1
        self._open.clear()
        try:
            async with self._one_by_one:
                while self._together:
                    self._nobody.clear()
                    await self._nobody.wait()
                return await request()
        finally:
            self._wanting_alone -= 1
            if not self._wanting_alone:
                self._open.set()
