"""A reserve of descriptors in a process that has used up all others."""

import os

import pytest

from tests.support.descriptors import descriptors_used_up
from vipsrv.workers.descriptor_reserve import DescriptorReserve, is_used_up


def test_what_is_lent_can_be_opened_and_comes_back() -> None:
    with descriptors_used_up(spare=4):
        reserve = DescriptorReserve(4)
        assert reserve.held == 4
        with pytest.raises(OSError, match="Too many open files") as refused:
            os.dup(0)
        assert is_used_up(refused.value)
        with reserve.lent():
            borrowed = [os.dup(0) for _ in range(4)]
            os.close(borrowed.pop())
        assert reserve.held == 1  # as many as there are
        for descriptor in borrowed:
            os.close(descriptor)
        reserve.refill()
        assert reserve.held == 4
        reserve.close()
        assert reserve.held == 0


def test_a_reserve_that_finds_nothing_is_no_error() -> None:
    with descriptors_used_up():
        assert DescriptorReserve(4).held == 0


def test_other_errors_do_not_say_that_descriptors_are_used_up() -> None:
    assert not is_used_up(PermissionError(1, "no"))
