"""Check that the time which a wrong token takes shows nothing about the token that would be right.

    python -m bench.tools.token_timing [--rounds 100000] [--tokens 1000]

Three kinds of wrong tokens are compared, by ``Identities.identify`` in this process:

- ``early``: the id of a token in the file, and its secret with the first characters wrong;
- ``late``: the same with the last characters wrong;
- ``unknown``: an id that is not in the file.

In each round one of each kind is timed, in random order. The texts are made beforehand, and the times are
written to one list without their kinds, so that a measurement does not depend on the kind of the one before
it. For each pair of kinds a sign test counts in how many rounds one took longer than the other. If the kinds
take the same time, each of them is longer in half of the rounds, however the machine's speed varies: only the
order of the three is random, and all orders are equally likely. The test finds a difference by mistake in
one of 1000 runs (all pairs together, Bonferroni).

The controls are checks of a token that do show something. The command fails if it finds a difference between
the kinds, and also if it finds none in a control: then its test is too weak.
"""

import itertools
import math
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from vipsrv.errors import Unauthorized
from vipsrv.server.identity import Identities
from vipsrv.server.identity.token_records import TokenRecord, format_record
from vipsrv.server.identity.tokens import Token, hash_secret, new_token, split_token

FALSE_ALARMS = 0.001
"""How often a run finds a difference where there is none."""

KINDS = ("early", "late", "unknown")
CHANGED = 4
"""Characters of a secret that are made wrong: so many that hardly any text comes twice."""

_BATCH = 500
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

Check = Callable[[str], object]
"""Refuses a wrong token with ``Unauthorized``."""


@dataclass(frozen=True)
class Difference:
    """How often the first of two kinds took longer than the second: ``z`` is in standard deviations."""

    first: str
    second: str
    z: float

    @property
    def found(self) -> bool:
        """Whether it is more than chance."""
        pairs = math.comb(len(KINDS), 2)
        return abs(self.z) > statistics.NormalDist().inv_cdf(1 - FALSE_ALARMS / pairs / 2)


class WrongTokens:
    """Makes wrong tokens of each kind, all by the same steps."""

    def __init__(self, known: list[Token]) -> None:
        self._known = known
        self._unknown = [new_token() for _ in known]

    def make(self, kind: str) -> str:
        """Return the text of a new wrong token."""
        number = random.randrange(len(self._known))
        token_id = (self._known[number].id, self._unknown[number].id)[kind == "unknown"]
        letters = list(self._known[number].secret)
        start = (0, len(letters) - CHANGED)[kind == "late"]
        for place in range(start, start + CHANGED):
            letters[place] = random.choice(_LETTERS.replace(letters[place], ""))
        return Token(token_id, "".join(letters)).text


def measure(check: Check, wrong: WrongTokens, rounds: int) -> dict[str, list[int]]:
    """Return the nanoseconds of each kind, one number a round."""
    taken: dict[str, list[int]] = {kind: [] for kind in KINDS}
    for _ in range(math.ceil(rounds / _BATCH)):
        kinds = [kind for _ in range(_BATCH) for kind in random.sample(KINDS, len(KINDS))]
        texts = [wrong.make(kind) for kind in kinds]
        # Each round in another order than its texts were made in.
        for start in range(0, len(kinds), len(KINDS)):
            pairs = list(zip(kinds[start:], texts[start : start + len(KINDS)], strict=False))
            random.shuffle(pairs)
            for place, (kind, text) in enumerate(pairs, start):
                kinds[place], texts[place] = kind, text
        for kind, nanoseconds in zip(kinds, _time(check, texts), strict=True):
            taken[kind].append(nanoseconds)
    return taken


def _time(check: Check, texts: list[str]) -> list[int]:
    clock = time.perf_counter_ns
    taken = [0] * len(texts)
    for place, text in enumerate(texts):
        begin = clock()
        try:
            check(text)
        except Unauthorized:
            taken[place] = clock() - begin
    assert all(taken), "a wrong token was accepted"
    return taken


def compare(taken: dict[str, list[int]]) -> list[Difference]:
    """Return the result of the sign test for each pair of kinds."""
    differences = []
    for first, second in itertools.combinations(KINDS, 2):
        longer = sum(a > b for a, b in zip(taken[first], taken[second], strict=True))
        shorter = sum(a < b for a, b in zip(taken[first], taken[second], strict=True))
        z = (longer - shorter) / math.sqrt(max(1, longer + shorter))
        differences.append(Difference(first, second, z))
    return differences


def controls(known: list[Token]) -> dict[str, Check]:
    """Checks of a token that show something by their time."""
    secrets = {token.id: token.secret for token in known}
    ids = set(secrets)

    def character_by_character(text: str) -> None:
        token = split_token(text)
        for given, right in zip(token.secret, secrets.get(token.id, ""), strict=False):
            if given != right:
                break
        raise Unauthorized("wrong")

    def no_hash_for_an_unknown_id(text: str) -> None:
        token = split_token(text)
        if token.id in ids:
            hash_secret(token.secret)
        raise Unauthorized("wrong")

    return {
        "compared character by character": character_by_character,
        "no hash for an unknown id": no_hash_for_an_unknown_id,
    }


def search_by_the_id(known: list[Token]) -> Check:
    """Return the check that hashes every secret and looks for the id; its difference is small or none."""
    digests = {token.id: hash_secret(token.secret) for token in known}
    nothing = hash_secret("")

    def check(text: str) -> None:
        token = split_token(text)
        if digests.get(token.id, nothing) != hash_secret(token.secret):
            raise Unauthorized("wrong")

    return check


def report(title: str, taken: dict[str, list[int]]) -> bool:
    """Print what was measured, and return whether a difference was found."""
    print(f"{title}: {len(taken[KINDS[0]])} rounds")
    for kind, all_taken in taken.items():
        median = statistics.median(all_taken)
        fast = statistics.fmean(sorted(all_taken)[: len(all_taken) * 9 // 10])
        print(f"  {kind:8} median {median:7.0f} ns, mean of the fastest 90 % {fast:8.1f} ns")
    differences = compare(taken)
    for one in differences:
        verdict = "a difference" if one.found else "no difference"
        print(f"  {one.first} against {one.second}: z = {one.z:+.2f}, {verdict}")
    return any(one.found for one in differences)


def main(
    rounds: Annotated[int, typer.Option(min=1000, help="Tokens of each kind.")] = 100_000,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens in the file.")] = 1000,
) -> None:
    """Print the result of the sign tests; exit with 1 if a token could be learnt, or if a control was not."""
    known = [new_token() for _ in range(tokens)]
    wrong = WrongTokens(known)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tokens.toml"
        path.touch(mode=0o600)
        path.write_text("\n".join(_table(number, token) for number, token in enumerate(known)))
        identities = Identities(path)
    _time(
        lambda text: identities.identify(text, 0.0), [wrong.make("early") for _ in range(_BATCH)]
    )  # warm-up
    found = report("Identities.identify", measure(lambda text: identities.identify(text, 0.0), wrong, rounds))
    missed = [
        name
        for name, check in controls(known).items()
        if not report(f"control: {name}", measure(check, wrong, rounds // 5))
    ]
    report("for comparison: searched by the id", measure(search_by_the_id(known), wrong, rounds))
    if found:
        print("the time of a wrong token shows something about the right one")
    for name in missed:
        print(f"nothing was found in the control: {name}")
    if found or missed:
        raise typer.Exit(1)


def _table(number: int, token: Token) -> str:
    created = datetime(2026, 1, 1, tzinfo=UTC)
    return format_record(
        TokenRecord(id=token.id, name=f"n{number}", digest=hash_secret(token.secret), created=created)
    )


if __name__ == "__main__":
    typer.run(main)
