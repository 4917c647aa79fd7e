import json
from typing import Any

import pytest

from vipsrv.errors import BadRequest
from vipsrv.server.request_options import formats_of_results, parse_resize
from vipsrv.workers.channel import MAX_OUTPUTS


def test_the_meta_becomes_options_for_a_worker() -> None:
    options, deadline_ms = parse_resize(
        {"width": 80, "height": 60, "quality": 70, "background": "#102030", "fit": "fill", "deadline_ms": 9}
    )
    assert json.loads(options) == {"width": 80, "height": 60, "quality": 70, "background": "#102030"}
    assert deadline_ms == 9


@pytest.mark.parametrize("width", [True, 1.0, "1", None, [], {}])
def test_a_value_that_equals_1_but_is_not_an_integer_is_refused(width: Any) -> None:
    parse_resize({"width": 1, "height": 1})  # so that a cache that compares values has an answer ready
    with pytest.raises(BadRequest, match="width"):
        parse_resize({"width": width, "height": 1})


@pytest.mark.parametrize(
    ("meta", "name"),
    [
        ({"outputs": [{"width": 1, "height": 1}] * (MAX_OUTPUTS + 1)}, "outputs"),
    ],
)
def test_a_refusal_names_the_option(meta: dict[str, Any], name: str) -> None:
    with pytest.raises(BadRequest, match=name):
        parse_resize(meta)


def test_several_outputs_keep_their_own_options() -> None:
    outputs = [{"width": 3, "fit": "inside"}, {"height": 2, "fit": "outside", "format": "webp"}]
    options, deadline_ms = parse_resize({"outputs": outputs, "deadline_ms": 5})
    assert json.loads(options) == {"outputs": outputs}
    assert deadline_ms == 5


def test_a_list_of_one_output_means_the_same_as_its_options() -> None:
    assert parse_resize({"outputs": [{"width": 3, "height": 2}]}) == parse_resize({"width": 3, "height": 2})


def test_the_formats_of_results() -> None:
    outputs = [{"width": 3, "height": 2}, {"width": 3, "height": 2, "format": "webp"}]
    options, _ = parse_resize({"outputs": [*outputs, {"width": 3, "height": 2, "format": "auto"}]})
    assert formats_of_results(options) == {"jpeg", "webp", "auto"}
    assert formats_of_results(parse_resize({"width": 3, "height": 2, "format": "jpg"})[0]) == {"jpeg"}
