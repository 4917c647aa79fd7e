"""Imports the libraries of storage where they are used, and names the extra of one that is missing."""

from importlib import import_module
from types import ModuleType

from vipsrv.errors import BatchError


def imported(module: str, extra: str) -> ModuleType:
    """Return a module that comes with an extra of vipsrv. Raises ``BatchError`` if it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        raise BatchError(f"{module} is not installed; install vipsrv[{extra}]") from error
