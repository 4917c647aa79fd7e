"""The name that the certificate of a server has to have."""

import pytest

from vipsrv.address import Address
from vipsrv.client.tls import choose_tls


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("images.example", "images.example"),
        ("images.example.", "images.example"),
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_the_name_in_the_certificate(host: str, name: str) -> None:
    address, tls = choose_tls(Address(host, 1), tls=True)
    assert address.host == host
    assert tls is not None
    assert tls.server_name == name
