"""Handle errors and try again: ``python retry.py photo.jpg small.jpg``.

An error says whether the same request may succeed later (``retryable``) and, if that is known, how long
to wait (``retry_after_ms``). Everything else would fail again and is reported at once.
"""

import random
import sys
import time

from vipsrv import (
    Client,
    ConnectFailed,
    ConnectionLost,
    RequestError,
    ResizeResult,
    VipsrvError,
    WorkerDied,
)

ATTEMPTS = 4
ATTEMPTS_AFTER_A_CRASH = 2  # an image that crashes the decoder twice will do so again
FIRST_PAUSE = 0.1  # seconds, doubled each time


def resize(client: Client, source: str) -> ResizeResult:
    """Return the resized image. Raises the last error after ``ATTEMPTS`` attempts."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return client.resize(source, width=800, height=600)
        except RequestError as error:
            attempts = ATTEMPTS_AFTER_A_CRASH if isinstance(error, WorkerDied) else ATTEMPTS
            if not error.retryable or attempt >= attempts:
                raise
            pause = FIRST_PAUSE * 2 ** (attempt - 1)
            if error.retry_after_ms is not None:
                pause = max(pause, error.retry_after_ms / 1000)
        except (ConnectFailed, ConnectionLost):
            if attempt == ATTEMPTS:
                raise
            pause = FIRST_PAUSE * 2 ** (attempt - 1)
        # A random part keeps many clients from coming back at the same moment.
        time.sleep(pause * random.uniform(1.0, 1.5))
    raise AssertionError("the last attempt returns or raises")


def main(source: str, target: str) -> int:
    """Write the resized image; the exit status is 1 if that failed."""
    with Client() as client:
        try:
            resize(client, source).save(target)
        except VipsrvError as error:
            print(f"{source}: {type(error).__name__}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
