"""The states of a server follow the table."""

import itertools

import pytest

from vipsrv.server.server_state import TRANSITIONS, ServerState


@pytest.mark.parametrize(("state", "following"), list(itertools.product(ServerState, repeat=2)))
def test_only_the_transitions_of_the_table_are_made(state: ServerState, following: ServerState) -> None:
    if following in TRANSITIONS[state]:
        assert state.followed_by(following) is following
    else:
        with pytest.raises(RuntimeError, match=f"{state.value} cannot become {following.value}"):
            state.followed_by(following)


def test_every_state_is_reached_and_ends() -> None:
    assert set(TRANSITIONS) == set(ServerState)
    reached = {following for states in TRANSITIONS.values() for following in states}
    assert reached == set(ServerState) - {ServerState.STARTING}
    assert [state for state, states in TRANSITIONS.items() if not states] == [ServerState.ENDED]
