"""Settings: one typed class, read once at start from the environment (prefix `GRADPROBE_`) and from secret files.

A secret is given as `GRADPROBE_<NAME>` or, better, as a file whose path is in `GRADPROBE_<NAME>_FILE`.
"""

import os
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import platformdirs
from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import URL, make_url

from gradprobe.errors import DataDirectoryUnusable

_SECRETS = ("database_password", "redis_password", "object_store_access_key", "object_store_secret_key")
OptionalPath = Annotated[Path | None, BeforeValidator(lambda value: value or None)]


class Settings(BaseSettings):
    """Everything an operator can set. Pass an instance on; nothing reads the environment later."""

    model_config = SettingsConfigDict(env_prefix="GRADPROBE_", frozen=True, extra="ignore", populate_by_name=True)

    data_directory: Path = Field(
        default_factory=lambda: Path(platformdirs.user_data_dir("gradprobe")),
        validation_alias=AliasChoices("GRADPROBE_DATA_DIRECTORY", "data_directory"),
        description="Where the embedded stack keeps its database, its broker's data, logs and data sets.",
    )
    database_url: str = Field(
        default="",
        description="SQLAlchemy URL, postgresql://… or sqlite:///…; empty: SQLite in the data directory.",
    )
    database_password: SecretStr | None = Field(default=None, description="Put into database_url where it has none.")
    redis_url: str = Field(
        default="redis://127.0.0.1:6379/0",
        validation_alias=AliasChoices("GRADPROBE_REDIS_URL", "REDIS_URL", "redis_url"),
        description="The broker: Redis or Valkey.",
    )
    redis_password: SecretStr | None = Field(default=None, description="Put into redis_url where it has none.")

    object_store: str = Field(
        default="",
        pattern=r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[\w./-]*)?)?$",
        description="s3://BUCKET/PREFIX, where `gradprobe archive` moves what ended experiments measured; "
        "empty: it stays in the database.",
    )
    object_store_endpoint: str = Field(
        default="",
        pattern=r"^(https?://.+)?$",
        description="The address of an S3 server of one's own; empty: Amazon's.",
    )
    object_store_access_key: SecretStr | None = Field(
        default=None, description="Who asks the object store; without it AWS_ACCESS_KEY_ID, or the machine's role."
    )
    object_store_secret_key: SecretStr | None = Field(
        default=None, description="That key's secret; without it AWS_SECRET_ACCESS_KEY."
    )

    datasets_directory: OptionalPath = Field(
        default=None,
        description="A directory that already holds the IDX files; read before anything is fetched.",
    )
    dataset_mirrors: bool = Field(default=True, description="Whether public HTTPS mirrors may be asked.")

    authentication: Literal["auto", "required", "loopback_in_front"] = Field(
        default="auto",
        description="Who needs a key. auto: whoever does not come through this machine's loopback interface; required: "
        "everybody; loopback_in_front: nobody, because something else lets in nobody but this machine, as Docker does "
        "for a port that it publishes on 127.0.0.1.",
    )
    cors_origins: tuple[str, ...] = Field(
        default=(), description='Sites whose pages may read the API, a JSON list such as ["https://example.org"].'
    )
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="Of what a server process logs. auto: for people on a terminal, else JSON."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="What is less than this is not logged."
    )
    telemetry: bool = Field(
        default=False,
        description="Whether to send traces by OTLP over HTTP, where OTEL_EXPORTER_OTLP_ENDPOINT says.",
    )
    documentation: bool = Field(default=True, description="Whether /docs and /openapi.json are there.")

    run_silence_seconds: float = Field(
        default=600.0, gt=0, le=7 * 86_400, description="After which a run that reports nothing counts as lost."
    )
    maximum_body_bytes: int = Field(default=1024 * 1024, ge=1024, le=64 * 1024 * 1024)
    maximum_parameters: int = Field(default=50_000_000, ge=1, le=50_000_000, description="Of a network.")
    maximum_unit_iterations: int = Field(
        default=10**11, ge=1, description="Of an experiment: depth × width × iterations."
    )
    maximum_estimated_hours: float = Field(
        default=24.0,
        gt=0.0,
        description="Of an experiment, on one thread of a processor, as far as can be told before.",
    )
    maximum_memory_mebibytes: int = Field(
        default=16_384, ge=1, description="Of a worker, as far as can be told before."
    )
    maximum_stored_mebibytes: int = Field(
        default=10_240, ge=1, description="Of what an experiment records, as far as can be told before."
    )
    maximum_waiting: int = Field(default=10_000, ge=1, le=10_000_000, description="Experiments that may wait in all.")
    maximum_active: int = Field(
        default=1_000, ge=1, le=10_000_000, description="Experiments of one owner that may wait or run."
    )
    maximum_sweep: int = Field(
        default=1_000, ge=1, le=10_000, description="Experiments of one sweep, or of one trial of remedies."
    )
    idempotency_hours: float = Field(
        default=24.0, ge=24.0, le=24.0 * 365, description="How long an Idempotency-Key is remembered."
    )
    retention_days: float = Field(
        default=0.0, ge=0.0, le=36_500.0, description="`gradprobe purge` deletes what ended longer ago; 0: says none."
    )
    maximum_attempts: int = Field(default=3, ge=1, le=100, description="Workers an experiment may lose.")
    lease_seconds: float = Field(
        default=30.0, ge=1.0, le=3600.0, description="After so long without a heartbeat a worker is lost."
    )
    heartbeat_seconds: float = Field(default=5.0, ge=0.1, le=600.0)
    reconcile_seconds: float = Field(default=2.0, ge=0.1, le=600.0, description="How often the reconciler looks.")
    resend_seconds: float = Field(
        default=5.0,
        ge=1.0,
        le=3600.0,
        description="A queued experiment whose message is this old is sent again.",
    )
    flush_seconds: float = Field(
        default=1.0, ge=0.05, le=60.0, description="Longest time measured statistics stay unstored."
    )
    checkpoint_seconds: float = Field(
        default=5.0,
        ge=0.05,
        le=3600.0,
        description="How often a running experiment is saved; what a lost worker had computed since is computed again.",
    )
    maximum_seconds: float = Field(
        default=86_400.0, ge=1.0, description="Longest time an experiment may train, all its attempts together."
    )
    probe_memory_mebibytes: int = Field(default=64, ge=1, le=65536, description="Bound of the ring of gradients.")
    liveness_file: OptionalPath = Field(
        default=None, description="Touched by a worker's reconciler at every round; its age shows that it lives."
    )
    niceness: int = Field(
        default=0, ge=0, le=19, description="By how much training yields to other processes; `gradprobe up` sets 10."
    )
    threads: int = Field(default=0, ge=0, le=1024, description="Threads per worker; 0: chosen by the net's size.")
    stack_members: int = Field(
        default=64,
        ge=1,
        le=1024,
        description="Experiments of one shape that a worker trains side by side at most; 1: each by itself.",
    )
    gpu_stack_members: int = Field(
        default=1024,
        ge=1,
        le=16384,
        description="The same on a GPU, as far as half of its free memory allows; 1: each by itself.",
    )
    stack_memory_mebibytes: int = Field(
        default=1024, ge=16, le=1_048_576, description="What they may take together on the CPU, as can be told before."
    )
    cache_mebibytes: int = Field(
        default=128, ge=0, le=65536, description="What a process of the service keeps of ended experiments; 0: nothing."
    )
    database_pool: int = Field(default=20, ge=1, le=500, description="Connections, and threads that answer requests.")
    maximum_streams: int = Field(default=500, ge=1, le=100_000, description="Event streams open at once, per process.")
    watch_seconds: float = Field(
        default=0.25, ge=0.02, le=5.0, description="How often watched experiments are looked at, once for all streams."
    )
    idle_connection_seconds: int = Field(
        default=75,
        ge=1,
        le=3600,
        description="How long a connection without requests is kept; longer than the proxy in front keeps its own.",
    )
    keepalive_seconds: float = Field(default=15.0, ge=0.1, le=60.0, description="Longest silence of an event stream.")
    stream_seconds: float = Field(
        default=900.0,
        ge=1.0,
        le=86_400.0,
        description="After so long an event stream ends and its reader returns.",
    )

    @model_validator(mode="before")
    @classmethod
    def _read_secret_files(cls, values: dict[str, Any]) -> dict[str, Any]:
        for name in _SECRETS:
            path = os.environ.get(f"GRADPROBE_{name.upper()}_FILE")
            if path and not values.get(name):
                values[name] = Path(path).read_text(encoding="utf-8").strip()
        return values

    @model_validator(mode="after")
    def _check_lease(self) -> Self:
        if self.heartbeat_seconds * 2 > self.lease_seconds:
            raise ValueError("lease_seconds must be at least twice heartbeat_seconds")
        return self

    @cached_property
    def database(self) -> URL:
        """The database's URL with its password; the SQLite file of the data directory by default."""
        if not self.database_url:
            return make_url(f"sqlite:///{self.data_directory / 'gradprobe.db'}")
        url = make_url(self.database_url)
        if url.get_backend_name() == "postgresql" and url.drivername == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
        if self.database_password is not None and url.password is None:
            url = url.set(password=self.database_password.get_secret_value())
        return url

    @cached_property
    def broker_url(self) -> str:
        """The broker's URL with its password, for Celery."""
        url = make_url(self.redis_url)
        if self.redis_password is not None and url.password is None:
            # A URL whose user is None is written without its password; "" is the broker's default user.
            url = url.set(username=url.username or "", password=self.redis_password.get_secret_value())
        return url.render_as_string(hide_password=False)

    @property
    def dataset_cache(self) -> Path:
        """Where verified data sets are kept."""
        return self.data_directory / "datasets"

    def prepare_data_directory(self) -> Path:
        """Create the data directory and show that it can be written.

        Raises:
            DataDirectoryUnusable: with the path and the operating system's reason.
        """
        probe = self.data_directory / f".writable-{os.getpid()}"
        try:
            self.data_directory.mkdir(parents=True, exist_ok=True)
            probe.touch()
            # Where several containers share it, another's process may have the same number, and have removed it by now.
            probe.unlink(missing_ok=True)
        except OSError as error:
            raise DataDirectoryUnusable(
                f"The data directory {self.data_directory} can't be written ({error.strerror}); "
                "make it writable or set GRADPROBE_DATA_DIRECTORY to another."
            ) from error
        return self.data_directory
