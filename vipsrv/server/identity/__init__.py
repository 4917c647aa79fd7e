"""Who a client is: tokens and their file, the limits of an identity, and penalties for failed logins.

These modules have no socket and no event loop, and times are arguments.
"""

from vipsrv.server.identity.directory import Identities, TokenRefused
from vipsrv.server.identity.identity import Identity, IdentityLimits
from vipsrv.server.identity.penalties import Penalties
from vipsrv.server.identity.usage import Usage

__all__ = ["Identities", "Identity", "IdentityLimits", "Penalties", "TokenRefused", "Usage"]
