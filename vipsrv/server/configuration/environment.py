"""Reads settings from the environment: ``VIPSRV_PORT``, or ``VIPSRV_PORT_FILE`` for the text of a file.

The second form is that of Docker and Kubernetes for secrets. An empty variable counts as unset, because
Compose turns ``${VIPSRV_WORKERS:-}`` into one. A variable that begins with ``VIPSRV_`` and is unknown is
refused, because it is a setting with a mistake in its name. The case of a name makes no difference.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from vipsrv.address import is_service_link
from vipsrv.errors import SettingsError
from vipsrv.server.configuration.origin import Given, Origin, Source, suggestion
from vipsrv.server.configuration.toml_file import read_text

PREFIX = "VIPSRV_"

CONFIG_VARIABLE = "VIPSRV_CONFIG"
"""Names the TOML file, as ``--config`` does."""

OTHER_VARIABLES = frozenset(
    {
        *(CONFIG_VARIABLE, "VIPSRV_SERVERS", "VIPSRV_TOKEN", "VIPSRV_TOKEN_FILE"),
        "VIPSRV_STORAGE_RETRY_SECONDS",
    }
)
"""Variables that are no settings: of the command line, of the clients, and of a batch."""

_BENCHMARKS = ("VIPSRV_BENCH_", "VIPSRV_PEER_")
_FILE = "_FILE"

MOST_SECRET_BYTES = 64 * 1024
"""A larger file holds no value of a setting."""

_SERVICE = re.compile(
    r"VIPSRV_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_PORT = re.compile(r"VIPSRV_(\w+_)?PORT")


def read_environment(
    environment: Mapping[str, str], settings: Iterable[str]
) -> tuple[dict[str, Given], list[str]]:
    """Return the values of ``settings`` by name, and the faults of the environment, one line each."""
    variables, faults = _in_upper_case(environment)
    known = {f"{PREFIX}{name.upper()}": name for name in settings}
    values: dict[str, Given] = {}
    for variable, value in variables.items():
        if comes_from_kubernetes(variable, value):
            continue
        named = known.get(variable.removesuffix(_FILE))
        if variable in known:
            values[known[variable]] = Given(value, Origin(Source.VARIABLE, variable))
        elif variable in OTHER_VARIABLES or variable.startswith(_BENCHMARKS):
            continue
        elif named is None:
            faults.append(_unknown(variable, known))
        elif _is_set(variables, variable.removesuffix(_FILE)):
            faults.append(f"{variable}: {variable.removesuffix(_FILE)} is set as well; unset one of them")
        else:
            try:
                values[named] = Given(_secret(value), Origin(Source.SECRET, variable))
            except SettingsError as error:
                faults.append(f"{variable}: {error}")
    return values, faults


def named_file(environment: Mapping[str, str]) -> Path | None:
    """Return the TOML file that ``VIPSRV_CONFIG`` names, or ``None``."""
    variables, _ = _in_upper_case(environment)
    name = variables.get(CONFIG_VARIABLE)
    return Path(name) if name else None


def comes_from_kubernetes(variable: str, value: str) -> bool:
    """Whether Kubernetes describes a Service by this variable: one named vipsrv, or vipsrv-something."""
    if _SERVICE.fullmatch(variable):
        return True
    return bool(_SERVICE_PORT.fullmatch(variable)) and is_service_link(value)


def _in_upper_case(environment: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return our variables with their names in upper case, and a fault for each that is there twice."""
    variables: dict[str, str] = {}
    faults: list[str] = []
    for name, value in environment.items():
        upper = name.upper()
        if not value or not upper.startswith(PREFIX):
            continue
        if variables.setdefault(upper, value) != value:
            faults.append(f"{upper}: it is set twice, in upper and in lower case; unset one of them")
    return variables, faults


def _is_set(variables: Mapping[str, str], variable: str) -> bool:
    value = variables.get(variable, "")
    return bool(value) and not comes_from_kubernetes(variable, value)


def _secret(path: str) -> str:
    # Editors and `echo` end a file with a line break.
    text = read_text(Path(path), MOST_SECRET_BYTES).strip()
    if not text:
        raise SettingsError(f"{path}: the file is empty")
    return text


def _unknown(variable: str, known: Iterable[str]) -> str:
    candidates = [*known, *OTHER_VARIABLES]
    if variable.endswith(_FILE):
        candidates += [f"{name}{_FILE}" for name in known]
    words = [name.removeprefix(PREFIX) for name in candidates]  # the prefix is no likeness
    return f"{variable}: there is no such variable" + suggestion(
        variable.removeprefix(PREFIX), words, prefix=PREFIX
    )
