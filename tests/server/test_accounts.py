"""The accounts of client addresses."""

import pytest

from vipsrv.server.accounts import UNIX_SOCKET, Accounts, account_key
from vipsrv.storage.budget import Budget


@pytest.mark.parametrize(
    ("peer", "key"),
    [
        (("192.0.2.7", 4711), "192.0.2.7"),
        (("::ffff:192.0.2.7", 4711, 0, 0), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 4711, 0, 0), "2001:db8:1:2::/64"),
        (("2001:db8:1:2::9", 4711, 0, 0), "2001:db8:1:2::/64"),
        (("2001:db8:1:3::9", 4711, 0, 0), "2001:db8:1:3::/64"),
        (("fe80::1%eth0", 4711, 0, 2), "fe80::/64"),
        ("", UNIX_SOCKET),
        ("/run/client.sock", UNIX_SOCKET),
        (None, UNIX_SOCKET),
    ],
)
def test_key_of_an_address(peer: object, key: str) -> None:
    assert account_key(peer) == key


def test_connections_of_one_address_share_an_account() -> None:
    accounts = Accounts()
    first, second, other = (accounts.open_flow(key) for key in ("a", "a", "b"))
    assert first.account is second.account
    assert first.account is not other.account
    assert first.account.flows == {first, second}
    assert len(accounts) == 2


def test_an_account_ends_with_its_last_connection() -> None:
    accounts = Accounts()
    first, second = accounts.open_flow("a"), accounts.open_flow("a")
    accounts.close_flow(first)
    assert len(accounts) == 1
    accounts.close_flow(second)
    accounts.close_flow(second)  # closed already
    assert len(accounts) == 0
    assert accounts.open_flow("a").account is not second.account


def test_an_account_is_kept_while_it_holds_a_part_of_the_spool() -> None:
    accounts, budget = Accounts(), Budget(100)
    flow = accounts.open_flow("a")
    budget.take(flow.account.share.disk, 10)
    accounts.close_flow(flow)
    accounts.forget_unused()
    again = accounts.open_flow("a")
    assert again.account is flow.account
    budget.give_back(flow.account.share.disk, 10)
    accounts.forget_unused()
    assert len(accounts) == 1  # it is connected
    budget.take(flow.account.share.disk, 10)
    accounts.close_flow(again)
    budget.give_back(flow.account.share.disk, 10)
    assert len(accounts) == 1
    accounts.forget_unused()
    assert len(accounts) == 0
