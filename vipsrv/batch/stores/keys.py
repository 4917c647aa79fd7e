"""The keys of images and results: which are allowed, and what is inside a destination but no result."""

PRIVATE = ".vipsrv/"
"""The prefix of what vipsrv itself keeps in a destination. No source lists what is under it."""


def checked_key(key: str) -> str:
    """Return ``key`` if it names something inside a store whatever the store is.

    Raises ``ValueError`` for an empty one, one that is absolute or leaves the store (``..``), one that two
    stores would write differently (``a//b``, ``./a``), and one with NUL or with bytes that are not UTF-8.
    """
    problem = _problem(key)
    if problem:
        raise ValueError(f"the key {key!r} {problem}")
    return key


def is_hidden(key: str) -> bool:
    """Whether the key, or a folder in it, starts with a dot, as ``.vipsrv/`` and temporary files do."""
    return key.startswith(".") or "/." in key


def _problem(key: str) -> str:
    parts = key.split("/")
    problems = {
        "has no characters": not key,
        "has the character NUL": "\0" in key,
        "is absolute; keys are relative to their source or destination": key.startswith("/"),
        "leaves its folder by '..'": ".." in parts,
        "has nothing, or only '.', between two '/'": "" in parts or "." in parts,
        "is not UTF-8": not is_text(key),
    }
    return next((problem for problem, has_it in problems.items() if has_it), "")


def is_text(name: str) -> bool:
    """Whether a name from the file system is UTF-8: what is not cannot be in the manifest."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
