"""A bucket, or a prefix in one, as obstore opens it, with the settings that vipsrv chooses."""

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from vipsrv.batch.stores.extras import needs

if TYPE_CHECKING:
    from obstore.store import AzureStore, GCSStore, S3Store

SCHEMES = frozenset({"s3", "gs", "az"})
"""The schemes of URLs that obstore opens. The extras of vipsrv have the same names."""

RETRY_SECONDS = 120.0
"""How long requests that fail are tried again by default: a store that is restarted is waited for."""

RETRY_VARIABLE = "VIPSRV_STORAGE_RETRY_SECONDS"

_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
_ACCOUNT = {"az": "AZURE_STORAGE_ACCOUNT_NAME"}
"""The variable of what has the buckets, where two of the same name may be at one endpoint."""

_ALLOW_HTTP = {"s3": "AWS_ALLOW_HTTP", "gs": "GOOGLE_ALLOW_HTTP", "az": "AZURE_ALLOW_HTTP"}
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


def split_url(url: str) -> tuple[str, str, str]:
    """Return scheme, bucket and prefix. Raises ``ValueError`` if there is no bucket.

    Nothing is decoded: ``%20`` in a URL of a bucket means these three characters, as for other tools.
    """
    scheme, _, rest = url.partition("://")
    bucket, _, prefix = rest.partition("/")
    if not bucket:
        raise ValueError(f"{url}: there is no bucket in it; it is {scheme}://BUCKET/PREFIX")
    return scheme, bucket, prefix.strip("/")


def open_place(url: str) -> "S3Store | GCSStore | AzureStore":
    """Open the store of a URL; nothing is sent.

    Endpoint and credentials come from the variables that obstore reads (``AWS_…``, ``GOOGLE_…``,
    ``AZURE_…``). Without TLS an endpoint is used if it is on this machine, or if ``AWS_ALLOW_HTTP``,
    ``GOOGLE_ALLOW_HTTP`` or ``AZURE_ALLOW_HTTP`` is true.

    Raises ``ValueError`` for a URL or a variable that cannot be used, and ``BatchError`` without obstore.
    """
    scheme, bucket, prefix = split_url(url)
    with needs(scheme):
        from obstore import store as stores  # noqa: PLC0415 - only batches with buckets load it

    make = {"s3": stores.S3Store, "gs": stores.GCSStore, "az": stores.AzureStore}[scheme]
    options: dict[str, Any] = {
        # The whole request may take as long as a large object needs; what stalls is ended by the next.
        "timeout": timedelta(hours=1),
        "read_timeout": timedelta(seconds=60),
    }
    on_this_machine = urlsplit(_endpoint(scheme)).hostname in _LOOPBACK
    if on_this_machine or os.environ.get(_ALLOW_HTTP[scheme], "").lower() in {"true", "1"}:
        options["allow_http"] = True
    retries = {
        "max_retries": 1000,  # the time is the limit
        "retry_timeout": timedelta(seconds=_retry_seconds()),
        "backoff": {"max_backoff": timedelta(seconds=5)},
    }
    try:
        store: S3Store | GCSStore | AzureStore = make(
            bucket, prefix=prefix or None, client_options=options, retry_config=retries
        )
    except Exception as error:
        reason = str(error).partition("\n")[0].rpartition("error: ")[2]
        advice = "; set AZURE_STORAGE_ACCOUNT_NAME" if scheme == "az" else ""
        raise ValueError(f"{url}: {reason}{advice}") from error
    return store


def identity(url: str) -> str:
    """Return a text that two places share only if they are the same one.

    The URL of a bucket is not enough: other variables may lead to another bucket with the same name.
    """
    scheme = url.partition("://")[0]
    account = os.environ.get(_ACCOUNT[scheme], "") if scheme in _ACCOUNT else ""
    return "\n".join(filter(None, (url.rstrip("/"), _endpoint(scheme).rstrip("/"), account)))


def _endpoint(scheme: str) -> str:
    return next((os.environ[name] for name in _ENDPOINTS.get(scheme, ()) if os.environ.get(name)), "")


def _retry_seconds() -> float:
    text = os.environ.get(RETRY_VARIABLE, "")
    if not text:
        return RETRY_SECONDS
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= 24 * 3600:
        raise ValueError(f"{RETRY_VARIABLE}: {text!r} is not a number of seconds between 0 and 86400")
    return seconds
