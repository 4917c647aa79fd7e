"""A server whose workers answer at once."""

from bench.baselines.instant_worker import environment
from bench.measuring.server import Server
from bench.wire import Connection


def test_a_worker_answers_without_a_look_at_the_image() -> None:
    arguments = ("--gateways", "2", "--workers", "2", "--log-level", "warning")
    with Server(*arguments, environment=environment()) as server, Connection(server.port) as connection:
        result = connection.resize(b"no image", 200, 150)
    assert len(result) == 8192
