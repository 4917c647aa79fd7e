"""Passes each request that has ended to those who follow them: the log, the metrics, the traces."""

from typing import Protocol

from vipsrv.server.logs.request_line import RequestLine

AT_ONCE = 64
"""Requests that a follower counts together: about 0.1 ms of work, and 100 KB of lines that wait for it."""


class Follower(Protocol):
    """Is told of requests that have ended, in the event loop, once for each reply: so it must be quick."""

    @property
    def follows_successes(self) -> bool:
        """Whether it wants to know of successes as well; it is told of all failures."""

    def log(self, line: RequestLine) -> None:
        """Take note of a request whose reply has been sent or is lost."""


class EndedRequests:
    """The ``followers`` of all requests of a server."""

    def __init__(self, *followers: Follower) -> None:
        self._followers = list(followers)

    @property
    def follows_successes(self) -> bool:
        """Whether a successful request needs a line."""
        return any(follower.follows_successes for follower in self._followers)

    def add(self, follower: Follower) -> None:
        """Tell one more of all requests that end from now on."""
        self._followers.append(follower)

    def log(self, line: RequestLine) -> None:
        """Tell all followers of a request that has ended."""
        for follower in self._followers:
            follower.log(line)
