"""Settings: what the environment says, what a secret file says, what is refused."""

from pathlib import Path

import pytest
from kombu.utils.url import parse_url
from pydantic import SecretStr, ValidationError

from gradprobe.errors import DataDirectoryUnusable
from gradprobe.settings import Settings


def password_file(folder: Path, text: str) -> str:
    path = folder / "password"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_the_default_database_is_a_file_in_the_data_directory(tmp_path: Path) -> None:
    url = Settings(data_directory=tmp_path).database
    assert url.get_backend_name() == "sqlite"
    assert url.database == str(tmp_path / "gradprobe.db")


def test_an_empty_url_means_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADPROBE_DATABASE_URL", "")
    monkeypatch.setenv("GRADPROBE_DATA_DIRECTORY", str(tmp_path))
    assert Settings().database.database == str(tmp_path / "gradprobe.db")


@pytest.mark.parametrize("given", ["postgresql://me@there/db", "postgresql+psycopg://me@there/db"])
def test_postgresql_is_spoken_to_by_psycopg(given: str) -> None:
    assert str(Settings(database_url=given).database) == "postgresql+psycopg://me@there/db"


def test_a_password_goes_into_a_url_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADPROBE_DATABASE_URL", "postgresql://me@there/db")
    monkeypatch.setenv("GRADPROBE_DATABASE_PASSWORD", "p@ss/w:rd")
    url = Settings().database
    assert url.password == "p@ss/w:rd"
    assert "p@ss/w:rd" not in str(url)


def test_a_password_that_is_in_the_url_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADPROBE_DATABASE_URL", "postgresql://me:mine@there/db")
    monkeypatch.setenv("GRADPROBE_DATABASE_PASSWORD", "other")
    assert Settings().database.password == "mine"


def test_a_secret_is_read_from_its_file_without_the_newline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADPROBE_DATABASE_URL", "postgresql://me@there/db")
    monkeypatch.setenv("GRADPROBE_DATABASE_PASSWORD_FILE", password_file(tmp_path, "from a file\n"))
    assert Settings().database.password == "from a file"


def test_an_object_store_is_a_bucket_and_its_keys_are_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADPROBE_OBJECT_STORE", "s3://bucket/some/where")
    monkeypatch.setenv("GRADPROBE_OBJECT_STORE_SECRET_KEY_FILE", password_file(tmp_path, "hush\n"))
    settings = Settings()
    assert settings.object_store_secret_key == SecretStr("hush")
    assert "hush" not in repr(settings)


@pytest.mark.parametrize(
    "given", ["bucket", "s3://", "s3:///prefix", "gs://bucket", "s3://Bucket", "s3://user:key@bucket"]
)
def test_what_is_no_bucket_is_refused(given: str) -> None:
    with pytest.raises(ValidationError, match="object_store"):
        Settings(object_store=given)


def test_an_endpoint_is_an_address() -> None:
    with pytest.raises(ValidationError, match="object_store_endpoint"):
        Settings(object_store_endpoint="s3.example.org")


def test_a_secret_given_itself_wins_over_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADPROBE_DATABASE_URL", "postgresql://me@there/db")
    monkeypatch.setenv("GRADPROBE_DATABASE_PASSWORD", "itself")
    monkeypatch.setenv("GRADPROBE_DATABASE_PASSWORD_FILE", password_file(tmp_path, "from a file"))
    assert Settings().database.password == "itself"


def test_a_secret_file_that_is_not_there_stops_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = tmp_path / "missing"
    monkeypatch.setenv("GRADPROBE_REDIS_PASSWORD_FILE", str(missing))
    with pytest.raises((ValidationError, OSError), match=str(missing)):
        Settings()


def test_the_brokers_password_goes_into_its_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADPROBE_REDIS_URL", "redis://broker:6379/2")
    monkeypatch.setenv("GRADPROBE_REDIS_PASSWORD_FILE", password_file(tmp_path, "secret\n"))
    assert Settings().broker_url == "redis://:secret@broker:6379/2"


@pytest.mark.parametrize("given", ["redis://broker:6379/2", "redis://user@broker:6379/2"])
@pytest.mark.parametrize("password", ["secret", "p@ss/w:rd", "100% #? +&=", "ü€"])
def test_any_password_reaches_the_broker_as_it_is(given: str, password: str) -> None:
    parts = parse_url(Settings(redis_url=given, redis_password=SecretStr(password)).broker_url)
    assert parts["password"] == password
    assert parts["hostname"] == "broker"
    assert parts["virtual_host"] == "2"


def test_a_password_that_is_in_the_brokers_url_wins() -> None:
    settings = Settings(redis_url="redis://:mine@broker:6379/2", redis_password=SecretStr("other"))
    assert parse_url(settings.broker_url)["password"] == "mine"


def test_the_usual_name_of_the_brokers_variable_works_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://usual:6379/0")
    assert Settings().broker_url == "redis://usual:6379/0"
    monkeypatch.setenv("GRADPROBE_REDIS_URL", "redis://ours:6379/0")
    assert Settings().broker_url == "redis://ours:6379/0"


def test_no_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADPROBE_DATABASE_PASSWORD", "never-shown")
    monkeypatch.setenv("GRADPROBE_REDIS_PASSWORD", "never-shown")
    assert "never-shown" not in repr(Settings())


def test_a_lease_outlasts_two_heartbeats() -> None:
    Settings(lease_seconds=10.0, heartbeat_seconds=5.0)
    with pytest.raises(ValidationError, match="at least twice heartbeat_seconds"):
        Settings(lease_seconds=9.9, heartbeat_seconds=5.0)


def test_they_can_not_be_changed(settings: Settings) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        settings.threads = 2


@pytest.mark.parametrize("name", ["maximum_attempts", "database_pool", "maximum_body_bytes", "lease_seconds"])
def test_zero_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"GRADPROBE_{name.upper()}", "0")
    with pytest.raises(ValidationError, match=f"GRADPROBE_{name.upper()}|{name}"):
        Settings()


def test_the_data_directory_is_made(tmp_path: Path) -> None:
    wanted = tmp_path / "some" / "where"
    assert Settings(data_directory=wanted).prepare_data_directory() == wanted
    assert list(wanted.iterdir()) == []


def test_a_data_directory_is_shared_with_a_process_of_the_same_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As containers do that share a volume: each counts its processes from 1."""
    made = Path.touch

    def touched_and_removed_by_another(path: Path) -> None:
        made(path)
        path.unlink()

    monkeypatch.setattr(Path, "touch", touched_and_removed_by_another)
    assert Settings(data_directory=tmp_path).prepare_data_directory() == tmp_path


def test_a_data_directory_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    # Beneath a regular file, because root may write where permissions say otherwise.
    (tmp_path / "file").touch()
    wanted = tmp_path / "file" / "data"
    with pytest.raises(DataDirectoryUnusable, match="GRADPROBE_DATA_DIRECTORY") as caught:
        Settings(data_directory=wanted).prepare_data_directory()
    assert str(wanted) in caught.value.message


def test_no_data_sets_directory_is_none_and_not_the_working_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADPROBE_DATASETS_DIRECTORY", "")
    assert Settings().datasets_directory is None
