"""Domain errors: what went wrong, in words for the caller, with a stable code.

They know nothing of HTTP, because the worker raises them too; `service.problems` maps each to a status, and a
test holds that every class has one.
"""


class GradprobeError(Exception):
    """Base of all errors raised on purpose. `code` never changes; the message says what to do next."""

    code = "INTERNAL"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip())

    @property
    def message(self) -> str:
        """The sentence for the caller."""
        return str(self.args[0])


class ExperimentNotFound(GradprobeError):
    """There is no experiment with this id; list them with GET /experiments."""

    code = "EXPERIMENT_NOT_FOUND"


class SweepNotFound(GradprobeError):
    """There is no sweep with this id; list them with GET /sweeps."""

    code = "SWEEP_NOT_FOUND"


class RemediesNotFound(GradprobeError):
    """There are no remedies with this id; GET /experiments/{id}/remedies lists those of an experiment."""

    code = "REMEDIES_NOT_FOUND"


class SweepRunning(GradprobeError):
    """Some of its experiments are running; cancel it first."""

    code = "SWEEP_RUNNING"


class NothingToRemedy(GradprobeError):
    """The diagnosis has no finding with a remedy; read GET /experiments/{id}/diagnosis."""

    code = "NOTHING_TO_REMEDY"


class UnknownRemedy(GradprobeError):
    """The diagnosis has no remedy of this id."""

    code = "UNKNOWN_REMEDY"


class Unauthenticated(GradprobeError):
    """This server asks for a key: send `Authorization: Bearer gp_…`; its operator makes one with `gradprobe keys`."""

    code = "UNAUTHENTICATED"


class InvalidKey(GradprobeError):
    """This key opens nothing here; see that it was copied whole, or ask this server's operator for another."""

    code = "INVALID_KEY"


class MissingScope(GradprobeError):
    """This key does not allow that."""

    code = "MISSING_SCOPE"


class KeyNotFound(GradprobeError):
    """There is no such key; `gradprobe keys list` shows those there are."""

    code = "KEY_NOT_FOUND"


class NoKey(GradprobeError):
    """A server that others can reach needs a key; make one with `gradprobe keys create NAME`, then start it again."""

    code = "NO_KEY"


class UnknownLayer(GradprobeError):
    """The network has no layer of this name."""

    code = "UNKNOWN_LAYER"


class UnknownStatistic(GradprobeError):
    """This statistic is not recorded for this tensor."""

    code = "UNKNOWN_STATISTIC"


class NotRecorded(GradprobeError):
    """This experiment's spec does not record this tensor."""

    code = "NOT_RECORDED"


class InvalidRange(GradprobeError):
    """`stop` must be greater than `start`."""

    code = "INVALID_RANGE"


class InvalidCursor(GradprobeError):
    """This cursor was not made by this list with these filters; start again without one."""

    code = "INVALID_CURSOR"


class InvalidEventId(GradprobeError):
    """No event stream of this server gave this id; leave Last-Event-ID out to be told everything."""

    code = "INVALID_EVENT_ID"


class TooManyStreams(GradprobeError):
    """This process has as many event streams open as it may (GRADPROBE_MAXIMUM_STREAMS); try again shortly."""

    code = "TOO_MANY_STREAMS"


class ExportTooLarge(GradprobeError):
    """What was asked for is too large for one file; ask for fewer iterations with start and stop."""

    code = "EXPORT_TOO_LARGE"


class ExportUnavailable(GradprobeError):
    """This server can't write files of that format; its operator gets it with: pip install 'gradprobe[export]'"""

    code = "EXPORT_UNAVAILABLE"


class NothingToImport(GradprobeError):
    """There is nothing to import."""

    code = "NOTHING_TO_IMPORT"


class ExperimentRunning(GradprobeError):
    """The experiment is running; cancel it first."""

    code = "EXPERIMENT_RUNNING"


class ExperimentNotEnded(GradprobeError):
    """Only an experiment that failed or was cancelled can be tried again."""

    code = "EXPERIMENT_NOT_ENDED"


class PreconditionFailed(GradprobeError):
    """The experiment has changed since the state that If-Match names; read it again, then decide again."""

    code = "PRECONDITION_FAILED"


class IdempotencyKeyReused(GradprobeError):
    """This Idempotency-Key came before with another request; use a new key for a new request."""

    code = "IDEMPOTENCY_KEY_REUSED"


class CreatedResourceGone(GradprobeError):
    """What an earlier request with this Idempotency-Key made has been deleted; use a new key to make another."""

    code = "CREATED_RESOURCE_GONE"


class TooManyExperiments(GradprobeError):
    """As many of your experiments wait or run as this server takes of one owner; send it again when one has ended."""

    code = "TOO_MANY_EXPERIMENTS"


class QueueFull(GradprobeError):
    """As many experiments wait as this server takes; send it again later."""

    code = "QUEUE_FULL"


class DatabaseUnavailable(GradprobeError):
    """The database does not answer; nothing was changed, try again shortly."""

    code = "DATABASE_UNAVAILABLE"


class ObjectStoreUnavailable(GradprobeError):
    """The object store that holds what this experiment measured does not answer; try again shortly."""

    code = "OBJECT_STORE_UNAVAILABLE"


class ObjectStoreUnusable(GradprobeError):
    """GRADPROBE_OBJECT_STORE is set, and needs obstore; get it with: pip install 'gradprobe[objects]'."""

    code = "OBJECT_STORE_UNUSABLE"


class SchemaOutOfDate(GradprobeError):
    """The database's schema is not this release's; run `gradprobe migrate`."""

    code = "SCHEMA_OUT_OF_DATE"


class BackupFailed(GradprobeError):
    """The database could not be copied."""

    code = "BACKUP_FAILED"


class DataDirectoryUnusable(GradprobeError):
    """The data directory can't be written."""

    code = "DATA_DIRECTORY_UNUSABLE"


class CorruptBlock(GradprobeError):
    """A stored block fails its checksum."""

    code = "CORRUPT_BLOCK"


class LeaseLost(GradprobeError):
    """Another attempt owns this experiment now; this one must stop writing."""

    code = "LEASE_LOST"


class ExperimentCancelled(GradprobeError):
    """The experiment was cancelled while it ran."""

    code = "CANCELLED"


class TimeLimitExceeded(GradprobeError):
    """The experiment trained for longer than this server allows; ask for fewer iterations or a smaller network."""

    code = "TIME_LIMIT_EXCEEDED"


class WorkerStopping(GradprobeError):
    """This worker was asked to stop; another one takes the experiment up."""

    code = "WORKER_STOPPING"


class DatasetUnavailable(GradprobeError):
    """The data set could not be read from any source."""

    code = "DATASET_UNAVAILABLE"


class DeviceUnavailable(GradprobeError):
    """The experiment asks for a device that this worker does not have."""

    code = "DEVICE_UNAVAILABLE"


class TelemetryUnavailable(GradprobeError):
    """GRADPROBE_TELEMETRY is on, and needs OpenTelemetry; get it with: pip install 'gradprobe[telemetry]'."""

    code = "TELEMETRY_UNAVAILABLE"


class UnsupportedModule(GradprobeError):
    """The probe can't measure this module without changing what it measures."""

    code = "UNSUPPORTED_MODULE"


class NothingMeasured(GradprobeError):
    """A watched loop has not measured what was asked for."""

    code = "NOTHING_MEASURED"


class RunNotTrainedHere(GradprobeError):
    """This run is a training loop that reported what it measured; the server can't train it again."""

    code = "RUN_NOT_TRAINED_HERE"


class NotARun(GradprobeError):
    """This is an experiment, which its worker reports on; only what POST /runs made takes statistics."""

    code = "NOT_A_RUN"


class RunEnded(GradprobeError):
    """The run has ended; begin another with POST /runs."""

    code = "RUN_ENDED"


class StepsMissing(GradprobeError):
    """The report begins after the next step that is expected."""

    code = "STEPS_MISSING"


class RunTooLong(GradprobeError):
    """The run has reported as much as this server keeps of one."""

    code = "RUN_TOO_LONG"
