"""Every setting from every source, which source wins, and what is said of faults."""

from pathlib import Path

import pytest

from tests.support.settings_values import another_value, as_text, as_toml
from vipsrv.errors import SettingsError
from vipsrv.server.configuration import Configuration, SettingsSources, Source
from vipsrv.server.settings import ServerSettings

EVERY_SETTING = pytest.mark.parametrize("name", ServerSettings.model_fields)


def wanted(name: str) -> object:
    """The value of a setting once ``another_value`` of it has been read."""
    return getattr(ServerSettings(**{name: another_value(name)}), name)


def read(
    tmp_path: Path,
    toml: str = "",
    environment: dict[str, str] | None = None,
    flags: dict[str, object] | None = None,
) -> Configuration:
    path = tmp_path / "vipsrv.toml"
    path.write_text(toml)
    return SettingsSources(flags, config=path, environment=environment or {}).read()


def faults(tmp_path: Path, toml: str = "", environment: dict[str, str] | None = None) -> list[str]:
    """The faults of the settings, without the folder of the files in them."""
    with pytest.raises(SettingsError) as refused:
        read(tmp_path, toml, environment)
    return [fault.replace(f"{tmp_path}/", "") for fault in refused.value.faults]


@EVERY_SETTING
def test_a_setting_has_its_default(tmp_path: Path, name: str) -> None:
    configuration = read(tmp_path)
    assert getattr(configuration.settings, name) == getattr(ServerSettings(), name)
    assert configuration.origins[name].source is Source.DEFAULT


@EVERY_SETTING
def test_a_setting_from_a_flag(tmp_path: Path, name: str) -> None:
    value = another_value(name)
    given = value if isinstance(value, bool | list) else as_text(value)
    configuration = read(tmp_path, flags={name: given})
    assert getattr(configuration.settings, name) == wanted(name)
    origin = configuration.origins[name]
    assert (origin.source, origin.place) == (Source.FLAG, "--" + name.replace("_", "-"))


@EVERY_SETTING
def test_a_setting_from_a_variable(tmp_path: Path, name: str) -> None:
    variable = f"VIPSRV_{name.upper()}"
    configuration = read(tmp_path, environment={variable: as_text(another_value(name))})
    assert getattr(configuration.settings, name) == wanted(name)
    origin = configuration.origins[name]
    assert (origin.source, origin.place) == (Source.VARIABLE, variable)


@EVERY_SETTING
def test_a_setting_from_a_secret(tmp_path: Path, name: str) -> None:
    secret, variable = tmp_path / "secret", f"VIPSRV_{name.upper()}_FILE"
    secret.write_text(as_text(another_value(name)) + "\n")
    configuration = read(tmp_path, environment={variable: str(secret)})
    assert getattr(configuration.settings, name) == wanted(name)
    origin = configuration.origins[name]
    assert (origin.source, origin.place) == (Source.SECRET, variable)


@EVERY_SETTING
def test_a_setting_from_a_toml_file(tmp_path: Path, name: str) -> None:
    configuration = read(tmp_path, f"# a comment\n\n{name} = {as_toml(another_value(name))}\n")
    assert getattr(configuration.settings, name) == wanted(name)
    origin = configuration.origins[name]
    assert (origin.source, origin.place) == (Source.FILE, f"{tmp_path}/vipsrv.toml:3")


@EVERY_SETTING
def test_a_setting_of_a_wrong_type_in_a_toml_file(tmp_path: Path, name: str) -> None:
    # No setting is a date.
    (fault,) = faults(tmp_path, f"\n{name} = 2026-01-01\n")
    assert fault.startswith(f"vipsrv.toml:2: {name}: must be ")


@EVERY_SETTING
def test_a_flag_wins_over_a_variable_and_that_over_a_file(tmp_path: Path, name: str) -> None:
    value = another_value(name)
    text = as_text(value)
    toml, variable = f"{name} = {as_toml(value)}", {f"VIPSRV_{name.upper()}": text}
    given = value if isinstance(value, bool | list) else text
    assert read(tmp_path, toml).origins[name].source is Source.FILE
    assert read(tmp_path, toml, variable).origins[name].source is Source.VARIABLE
    assert read(tmp_path, toml, variable, {name: given}).origins[name].source is Source.FLAG


def test_each_source_gives_a_value_of_its_own(tmp_path: Path) -> None:
    toml = "queue = 1\nworkers = 1\ndrain = 1"
    environment = {"VIPSRV_WORKERS": "2", "VIPSRV_DRAIN": "2"}
    settings = read(tmp_path, toml, environment, {"drain": "3"}).settings
    assert (settings.queue, settings.workers, settings.drain) == (1, 2, 3)


def test_a_value_that_another_source_overrides_is_not_checked(tmp_path: Path) -> None:
    assert read(tmp_path, "port = 70000", {"VIPSRV_PORT": "1"}).settings.port == 1


def test_all_faults_at_once(tmp_path: Path) -> None:
    toml = """
workers = "four"
quqeue = 1  # nearly
text = '''
port = 1
'''
port = 70000
queue = -1
[server]
drain = 1
"""
    environment = {
        "VIPSRV_MAX_UPLOD": "1",
        "VIPSRV_DEADLINE": "soon",
        "VIPSRV_QUEUE_PER_CLIENT_FILE": "/nowhere",
        "VIPSRV_TRUSTED_PROXIES": "10.0.0.0/8,nobody",
    }
    assert sorted(faults(tmp_path, toml, environment)) == [
        "VIPSRV_DEADLINE: Input should be a valid number, unable to parse string as a number, not 'soon'",
        "VIPSRV_MAX_UPLOD: there is no such variable; did you mean VIPSRV_MAX_UPLOAD?",
        "VIPSRV_QUEUE_PER_CLIENT_FILE: /nowhere: the file cannot be read: No such file or directory",
        "VIPSRV_TRUSTED_PROXIES: 'nobody' does not appear to be an IPv4 or IPv6 network",
        "vipsrv.toml:2: workers: must be a whole number, not 'four'",
        "vipsrv.toml:3: quqeue: there is no such setting; did you mean queue?",
        "vipsrv.toml:4: text: there is no such setting",
        "vipsrv.toml:7: port: Input should be less than or equal to 65535, not 70000",
        "vipsrv.toml:8: queue: Input should be greater than or equal to 0, not -1",
        "vipsrv.toml:9: server: there are no tables: the keys are the names of settings, before any [table]",
    ]


def test_a_file_that_is_no_toml_hides_no_other_fault(tmp_path: Path) -> None:
    assert faults(tmp_path, "port = 1\nqueue =\n", {"VIPSRV_WORKERS": "0"}) == [
        "vipsrv.toml:2: this is not valid TOML: Invalid value",
        "VIPSRV_WORKERS: Input should be greater than or equal to 1, not '0'",
    ]


def test_the_text_of_a_secret_is_never_shown(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    for name in ("PORT", "LISTEN", "TRUSTED_PROXIES", "SANDBOX", "MAX_UPLOAD"):
        (fault,) = faults(tmp_path, "", {f"VIPSRV_{name}_FILE": str(secret)})
        assert fault.startswith(f"VIPSRV_{name}_FILE: ")
        assert "hunter2" not in fault


def test_the_file_is_the_named_one_or_that_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here, named, flagged = Path("vipsrv.toml"), tmp_path / "named.toml", tmp_path / "flagged.toml"
    assert SettingsSources(environment={"VIPSRV_CONFIG": ""}).file in {None, Path("/etc/vipsrv.toml")}
    for number, path in enumerate((here, named, flagged), start=1):
        path.write_text(f"queue = {number}")
    variables = {"VIPSRV_CONFIG": str(named)}
    assert SettingsSources(environment={}).read().settings.queue == 1
    assert SettingsSources(environment=variables).read().settings.queue == 2
    by_flag = SettingsSources(config=flagged, environment=variables).read()
    assert (by_flag.settings.queue, by_flag.file) == (3, flagged)
    without = SettingsSources(read_file=False, environment=variables).read()
    assert (without.settings, without.file) == (ServerSettings(), None)


def test_files_are_read_again_and_the_environment_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml, secret = tmp_path / "vipsrv.toml", tmp_path / "secret"
    toml.write_text("queue = 1")
    secret.write_text("1")
    monkeypatch.setenv("VIPSRV_WORKERS", "1")
    monkeypatch.setenv("VIPSRV_DRAIN_FILE", str(secret))
    sources = SettingsSources(config=toml)
    sources.read()
    toml.write_text("queue = 2")
    secret.write_text("2")
    monkeypatch.setenv("VIPSRV_WORKERS", "2")
    settings = sources.read().settings
    assert (settings.queue, settings.drain, settings.workers) == (2, 2, 1)
