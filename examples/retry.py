"""Handle errors, and decide what is tried again: ``python retry.py photo.jpg small.jpg``.

A client sends again what may succeed later. ``Retry`` says how often and with which pauses, and the call's
timeout ends it all. Everything else would fail again and is raised at once.
"""

import sys

from vipsrv import (
    Client,
    ConnectFailed,
    ConnectionLost,
    CorruptImage,
    RequestError,
    Retry,
    Timeout,
    UnsupportedFormat,
    VipsrvError,
)


def main(source: str, target: str) -> int:
    """Write the resized image; the exit status is 1 if that failed."""
    with Client(retry=Retry(attempts=4), timeout=Timeout(call=60)) as client:
        try:
            result = client.resize(source, width=800, height=600)
        except (CorruptImage, UnsupportedFormat) as error:
            print(f"{source}: {type(error).__name__}, choose another file: {error}", file=sys.stderr)
        except RequestError as error:
            later = "try again later" if error.retryable else "ask for something else"
            print(f"{source}: {error.code}, {later}: {error}", file=sys.stderr)
        except (ConnectFailed, ConnectionLost) as error:
            # The text says how many attempts were made; ``error.attempts`` is the number.
            print(f"{source}: {type(error).__name__}, is the server there? {error}", file=sys.stderr)
        except VipsrvError as error:
            print(f"{source}: {type(error).__name__}: {error}", file=sys.stderr)
        else:
            result.save(target)
            print(f"{target}: {result.attempts} attempt{'s' * (result.attempts > 1)}")
            return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
