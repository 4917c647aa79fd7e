"""``vipsrv health``: ask a server whether it is alive or ready, for probes that run a command."""

import http.client
import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from vipsrv.address import Address
from vipsrv.cli.ops_connection import ops_connection


class NoOperator(Exception):
    """What answers at the address, if anything, is no ops listener of vipsrv; the message says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether the server is what it was asked for, in words, and the lines of its checks."""

    ok: bool
    text: str
    checks: tuple[str, ...] = ()


def ask(address: Address, *, ready: bool, timeout: float) -> Answer:
    """Ask the ops listener at ``address`` whether the server is alive, or ready.

    Raises ``NoOperator``, or ``TimeoutError`` if it does not answer within ``timeout`` seconds.
    """
    connection = ops_connection(address, timeout)
    try:
        connection.request("GET", "/readyz" if ready else "/livez", headers={"Accept": "application/json"})
        response = connection.getresponse()
        return _answer(response.status, json.loads(response.read()), ready=ready)
    except TimeoutError:
        raise TimeoutError(f"{address} did not answer within {timeout:g} s") from None
    except OSError as error:
        raise NoOperator(f"{address} cannot be reached: {error.strerror or error}") from None
    except (http.client.HTTPException, ValueError, KeyError, TypeError):
        raise NoOperator(f"what answers at {address} is not vipsrv") from None
    finally:
        connection.close()


def _answer(status: int, reply: dict[str, Any], *, ready: bool) -> Answer:
    """Return what a reply says. Raises ``KeyError`` or ``TypeError`` if it is none of this program."""
    if not ready:
        return Answer(bool(reply["alive"]) and status == HTTPStatus.OK, "alive")
    checks = tuple(f"[{'+' if one['ok'] else '-'}] {one['name']}: {one['detail']}" for one in reply["checks"])
    word = "ready" if reply["ready"] else "not ready"
    return Answer(
        bool(reply["ready"]) and status == HTTPStatus.OK,
        f"{word}: {reply['reason']}" if reply["reason"] else word,
        checks,
    )
