"""``Silence``: when a connection asks its server and when it gives it up, by a clock that the tests set."""

from vipsrv.client.silence import ASK_AFTER, SLOWER_IF_UNKNOWN, Action, Silence

PATIENCE = 1.5


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Connection:
    """A silence and the figures that a connection has of its socket."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.silence = Silence(PATIENCE, clock=self.clock)
        self.accepted = 1000
        self.queued: int | None = 0
        self.can_ask = True
        self.since = self.clock.now

        self.arrived = False
        self.wait = 0.0

    def look(self) -> Action:
        action, self.wait = self.silence.look(
            self.since,
            accepted=self.accepted,
            queued=self.queued,
            can_ask=self.can_ask,
            arrived=self.arrived,
        )
        assert self.wait > 0, "it would look without a pause"
        return action

    def after(self, seconds: float) -> Action:
        """Look after a time, and before that whenever it is to be looked."""
        end = self.clock.now + seconds
        while self.wait and self.clock.now + self.wait < end - 1e-6:
            self.clock.now += self.wait
            assert self.look() is Action.WAIT
        return self.after_a_stop(end - self.clock.now)

    def after_a_stop(self, seconds: float) -> Action:
        """Look after a time in which this process did not run."""
        self.clock.now += seconds
        return self.look()

    def hear(self) -> None:
        self.silence.heard = self.clock.now


def test_a_server_that_is_silent_is_asked_and_then_given_up() -> None:
    connection = Connection()
    assert connection.look() is Action.WAIT
    assert connection.after(ASK_AFTER) is Action.ASK
    assert connection.after(PATIENCE - 0.01) is Action.WAIT
    assert connection.after(0.01) is Action.GIVE_UP


def test_it_looks_again_just_when_something_is_to_be_done() -> None:
    connection = Connection()
    first = connection.silence.look(connection.since, accepted=0, queued=0, can_ask=True)
    assert first == (Action.WAIT, ASK_AFTER)
    connection.clock.now += first.wait
    asked = connection.silence.look(connection.since, accepted=0, queued=0, can_ask=True)
    assert asked.action is Action.ASK
    connection.clock.now += asked.wait
    assert connection.silence.look(connection.since, accepted=0, queued=0, can_ask=True) == (
        Action.WAIT,
        PATIENCE - asked.wait,
    )


def test_a_server_that_answers_is_asked_again_and_again_and_never_given_up() -> None:
    connection = Connection()
    assert connection.look() is Action.WAIT
    for _ in range(50):
        assert connection.after(connection.wait) is Action.ASK
        assert connection.after(PATIENCE - 0.01) is Action.WAIT
        connection.hear()
        assert connection.after(0.02) is Action.WAIT


def test_bytes_of_other_replies_count_as_well() -> None:
    connection = Connection()
    for _ in range(10):
        connection.clock.now += ASK_AFTER - 0.01
        connection.hear()
        assert connection.look() is Action.WAIT


def test_silence_before_the_request_does_not_count() -> None:
    connection = Connection()
    connection.clock.now += 100
    connection.since = connection.clock.now
    assert connection.look() is Action.WAIT


def test_a_slow_network_that_still_takes_bytes_is_no_silence() -> None:
    connection = Connection()
    connection.queued = 500_000
    for _ in range(20):
        connection.accepted += 1
        assert connection.after(ASK_AFTER) is Action.WAIT
    assert connection.after(ASK_AFTER) is Action.ASK, "it takes no more"
    connection.accepted += 1
    assert connection.after(ASK_AFTER) is Action.WAIT, "the PING waits behind what is taken again"
    assert connection.after(ASK_AFTER) is Action.ASK
    assert connection.after(PATIENCE) is Action.GIVE_UP


def test_where_the_queue_is_unknown_it_is_more_patient() -> None:
    connection = Connection()
    connection.queued = None
    assert connection.after(ASK_AFTER) is Action.WAIT, "it has accepted the request since"
    assert connection.after(ASK_AFTER) is Action.ASK
    assert connection.after(PATIENCE) is Action.WAIT
    assert connection.after(PATIENCE * (SLOWER_IF_UNKNOWN - 1)) is Action.GIVE_UP


def test_within_an_image_the_server_is_doubted_instead_and_asked_afterwards() -> None:
    connection = Connection()
    connection.can_ask = False
    assert connection.after(ASK_AFTER) is Action.DOUBT
    assert connection.after(PATIENCE - 0.01) is Action.WAIT
    assert connection.after(0.01) is Action.DOUBT, "again, as nothing has arrived yet"
    connection.can_ask = True
    assert connection.after(PATIENCE) is Action.ASK
    assert connection.after(PATIENCE) is Action.GIVE_UP


def test_an_answer_that_was_not_read_yet_counts() -> None:
    connection = Connection()
    assert connection.after(ASK_AFTER) is Action.ASK
    connection.arrived = True
    assert connection.after(PATIENCE) is Action.WAIT


def test_a_time_in_which_this_process_stood_still_does_not_count() -> None:
    connection = Connection()
    assert connection.after(ASK_AFTER) is Action.ASK
    assert connection.after_a_stop(100) is Action.WAIT
    assert connection.after(ASK_AFTER) is Action.ASK
    assert connection.after(PATIENCE) is Action.GIVE_UP
