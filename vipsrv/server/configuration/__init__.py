"""Where settings come from: flags, variables, files and defaults; and the documents made from them."""

from vipsrv.server.configuration.origin import Origin, Source
from vipsrv.server.configuration.sources import Configuration, SettingsSources

__all__ = ["Configuration", "Origin", "SettingsSources", "Source"]
