"""The gateway process: everything between the clients' sockets and the workers'."""

from vipsrv.server.configuration import Configuration, SettingsSources
from vipsrv.server.diagnosis import Finding, Rating, diagnose
from vipsrv.server.formats import formats_of
from vipsrv.server.serve import serve
from vipsrv.server.settings import ServerSettings

__all__ = [
    "Configuration",
    "Finding",
    "Rating",
    "ServerSettings",
    "SettingsSources",
    "diagnose",
    "formats_of",
    "serve",
]
