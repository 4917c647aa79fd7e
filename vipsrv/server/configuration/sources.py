"""The settings of a server from all places, and where each value came from.

::

    flags  >  VIPSRV_… variables, or the files that VIPSRV_…_FILE name  >  a TOML file  >  defaults

The defaults of budgets and workers are lower where a cgroup limits the memory (``memory_limit``).
All faults are reported at once, each with its place.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from vipsrv.errors import SettingsError
from vipsrv.server.cgroups import Cgroups
from vipsrv.server.configuration.environment import named_file, read_environment
from vipsrv.server.configuration.origin import DEFAULT, Given, Origin, Source, flag_of
from vipsrv.server.configuration.toml_file import default_file, read_toml
from vipsrv.server.configuration.types import SECRET_TEXT, shown
from vipsrv.server.memory_limit import settings_within
from vipsrv.server.settings import ServerSettings
from vipsrv.server.spool_folder import size_in_memory

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Configuration:
    """Checked settings, the origin of each by name, and the TOML file that was read."""

    settings: ServerSettings
    origins: Mapping[str, Origin]
    file: Path | None

    def shown(self, name: str) -> str:
        """Return the value of a setting as a TOML file would give it, but no secret."""
        return SECRET_TEXT if self.is_secret(name) else shown(getattr(self.settings, name))

    def is_secret(self, name: str) -> bool:
        """Whether the value of a setting must not be shown: its file may be a secret."""
        return self.origins[name].source is Source.SECRET


class SettingsSources:
    """Reads the settings from ``flags`` (values by name of the setting), the environment and a TOML file.

    ``config`` names the file; without it, ``VIPSRV_CONFIG`` does, or else it is the first of ./vipsrv.toml
    and /etc/vipsrv.toml that exists. With ``read_file=False`` none is read. Later calls of ``read`` read all
    files again; the environment remains that of now.
    """

    def __init__(
        self,
        flags: Mapping[str, Any] | None = None,
        *,
        config: Path | None = None,
        read_file: bool = True,
        environment: Mapping[str, str] | None = None,
        cgroups: Cgroups | None = None,
    ) -> None:
        self._flags = {
            name: Given(value, Origin(Source.FLAG, flag_of(name)))
            for name, value in (flags or {}).items()
            if value is not None and value != []
        }
        self._environment = dict(os.environ if environment is None else environment)
        self._config = config
        self._read_file = read_file
        self._cgroups = cgroups or Cgroups()

    def read(self) -> Configuration:
        """Return the settings. Raises ``SettingsError`` with all faults."""
        given, faults = self.collect()
        try:
            settings = ServerSettings(**{name: one.value for name, one in given.items()})
        except ValidationError as error:
            # What is wrong between settings may follow from one that could not be read.
            found = [detail for detail in error.errors() if detail["loc"] or not faults]
            raise SettingsError(*faults, *(_fault(detail, given) for detail in found)) from None
        if faults:
            raise SettingsError(*faults)
        origins = {
            name: given[name].origin if name in given else DEFAULT for name in ServerSettings.model_fields
        }
        limit = self._cgroups.memory_limit()
        fitted = settings_within(settings, limit, spool_limit=size_in_memory(settings.spool_dir))
        if limit is not None:
            origin = Origin(Source.LIMIT, f"memory limit of {limit / _MIB:,.0f} MiB")
            origins |= dict.fromkeys(fitted, origin)
        return Configuration(settings.model_copy(update=fitted), origins, self.file)

    @property
    def file(self) -> Path | None:
        """The TOML file to read, if there is one. Raises ``SettingsError`` if it cannot be trusted."""
        if not self._read_file:
            return None
        return self._config or named_file(self._environment) or default_file()

    def collect(self) -> tuple[dict[str, Given], list[str]]:
        """Return the values of all sources together, unchecked, and what is wrong with the sources."""
        faults: list[str] = []
        in_file: dict[str, Given] = {}
        file = None
        try:
            file = self.file
            if file is not None:
                in_file, file_faults = read_toml(file)
                faults += file_faults
        except SettingsError as error:
            faults += error.faults
        in_environment, environment_faults = read_environment(self._environment, ServerSettings.model_fields)
        return {**in_file, **in_environment, **self._flags}, faults + environment_faults


def _fault(detail: ErrorDetails, given: Mapping[str, Given]) -> str:
    """Return the line for a fault that the settings model has found."""
    reason = str(detail["msg"]).removeprefix("Value error, ")
    if not detail["loc"]:
        return reason
    name = str(detail["loc"][0])
    origin = given[name].origin
    own_words = detail["type"] == "value_error"  # those of a validator name the value themselves
    if origin.source is Source.SECRET:
        reason = "the text of the file is not valid" if own_words else reason
    elif not own_words:
        reason = f"{reason}, not {detail['input']!r}"
    return origin.fault(name, reason)
