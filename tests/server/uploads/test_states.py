"""The states of an upload."""

from vipsrv.server.uploads.states import IDLE, TRANSITIONS, UploadState


def test_every_state_has_a_way_to_the_end() -> None:
    assert set(TRANSITIONS) == set(UploadState)
    for state in UploadState:
        reached: set[UploadState] = set()
        found = {state}
        while found - reached:
            reached |= found
            found = {after for one in reached for after in TRANSITIONS[one]}
        assert UploadState.REMOVED in reached


def test_what_is_removed_never_comes_back() -> None:
    assert not TRANSITIONS[UploadState.REMOVED]


def test_only_what_nobody_uses_may_go_for_want_of_room() -> None:
    assert set(IDLE) == {UploadState.WAITING, UploadState.COMPLETE}
