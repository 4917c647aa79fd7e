"""The example file loads, and the schema accepts and refuses what the settings do."""

import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ByteSize, TypeAdapter, ValidationError

from tests.support.settings_values import another_value
from vipsrv.errors import SettingsError
from vipsrv.server.configuration import SettingsSources
from vipsrv.server.configuration.documents import example_file, json_schema
from vipsrv.server.configuration.types import SIZE_PATTERN, shown, toml_of
from vipsrv.server.settings import ServerSettings

EVERY_SETTING = pytest.mark.parametrize("name", ServerSettings.model_fields)


def read(tmp_path: Path, toml: str) -> ServerSettings:
    path = tmp_path / "vipsrv.toml"
    path.write_text(toml)
    return SettingsSources(config=path, environment={}).read().settings


def is_accepted_by_schema(document: dict[str, Any]) -> bool:
    return bool(jsonschema.Draft7Validator(json_schema()).is_valid(document))


def is_accepted(tmp_path: Path, document: dict[str, Any]) -> bool:
    """Whether the settings accept a document."""
    try:
        read(tmp_path, "\n".join(f"{name} = {toml_of(value)}" for name, value in document.items()))
    except SettingsError:
        return False
    return True


def uncommented() -> str:
    return re.sub(r"^#(\w+ = )", r"\1", example_file(), flags=re.MULTILINE)


def test_the_example_changes_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, example_file()) == ServerSettings()


def test_the_example_loads_without_its_comment_marks(tmp_path: Path) -> None:
    text = uncommented()
    assert list(tomllib.loads(text)) == list(ServerSettings.model_fields)
    settings, defaults = read(tmp_path, text), ServerSettings()
    for name, field in ServerSettings.model_fields.items():
        if field.default is not None:
            assert getattr(settings, name) == getattr(defaults, name)
    assert is_accepted_by_schema(tomllib.loads(text))


@EVERY_SETTING
def test_the_example_explains_each_setting(name: str) -> None:
    words = " ".join(line.removeprefix("# ") for line in example_file().splitlines())
    description = ServerSettings.model_fields[name].description
    assert description
    assert description in words


def test_the_example_says_what_needs_a_restart() -> None:
    sections = example_file().split("\n\n")[1:]
    with_restart = {
        section.rpartition("#")[2].split()[0] for section in sections if "Needs a restart." in section
    }
    assert with_restart == ServerSettings.model_fields.keys() - ServerSettings.reloadable()


def test_the_schema_is_one() -> None:
    jsonschema.Draft7Validator.check_schema(json_schema())
    assert is_accepted_by_schema({})
    assert not is_accepted_by_schema({"max-upload": 1})
    assert list(json_schema()["properties"]) == list(ServerSettings.model_fields)


@EVERY_SETTING
def test_the_schema_accepts_a_valid_value_and_no_table(name: str) -> None:
    assert is_accepted_by_schema({name: another_value(name)})
    assert not is_accepted_by_schema({name: {}})
    assert not is_accepted_by_schema({name: None})


@EVERY_SETTING
def test_the_schema_has_the_bounds_of_the_settings(tmp_path: Path, name: str) -> None:
    schema = json_schema()["properties"][name]
    number = schema.get("anyOf", [schema])[0]
    if number.get("type") not in {"integer", "number"}:
        return
    values = [0, -1, 10**12]
    for word in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"):
        if word in number:
            values += [number[word] - 1, number[word], number[word] + 1]
    for value in values:
        document = {name: value}
        assert is_accepted_by_schema(document) is is_accepted(tmp_path, document), document


@pytest.mark.parametrize(
    "text",
    ["200MB", "2GiB", "2 gib", "1.5GB", "12", "12b", "3k", " 7 MB", "much", "-1", "2Gi", "", "GB", "1 2"],
)
def test_the_schema_accepts_the_sizes_that_the_settings_accept(text: str) -> None:
    try:
        TypeAdapter(ByteSize).validate_python(text)
    except ValidationError:
        accepted = False
    else:
        accepted = True
    assert bool(re.search(SIZE_PATTERN, text)) is accepted


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (0.5, "0.5"),
        (ByteSize(0), "0"),
        (ByteSize(3 << 30), '"3GiB"'),
        (ByteSize(1536 << 10), '"1536KiB"'),
        (ByteSize(200_000_000), '"200MB"'),
        (ByteSize(1001), "1001"),
        (("a", 'b"'), r'["a", "b\""]'),
        (Path("/a b"), '"/a b"'),
        ("\x7f\n\\", r'"\u007f\n\\"'),
        (None, "none"),
    ],
)
def test_a_value_is_shown_as_in_toml(value: object, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize("text", ['[jpeg "a", \n\t é\x7f', "\U0001f600", "back\\slash"])
def test_a_text_is_the_same_after_it_was_written(text: str) -> None:
    assert tomllib.loads(f"x = {toml_of(text)}") == {"x": text}


@pytest.mark.parametrize("size", [0, 1, 1000, 1 << 30, 10**6 * 7])
def test_a_size_is_the_same_after_it_was_written(size: int) -> None:
    written = tomllib.loads(f"x = {toml_of(ByteSize(size))}")["x"]
    assert TypeAdapter(ByteSize).validate_python(written) == size
