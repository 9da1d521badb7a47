"""The documents of groups of experiments: sweeps, comparisons, remedies that are tried. See `gradprobe.resources`."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from gradprobe import display
from gradprobe.resources import Failure, HistogramDocument, MetricsDocument, Resource, SeriesDocument
from gradprobe.state import Status

GroupStatus = Literal["queued", "running", "ended"]


class Counts(Resource):
    """How many members are in which state."""

    queued: int
    running: int
    succeeded: int
    failed: int
    cancelled: int


class GroupProgress(Resource):
    """Iterations of all members together."""

    iteration: int = Field(ge=0)
    iterations: int = Field(ge=0)


class SweepLinks(Resource):
    """Where the rest of a sweep is."""

    self: str
    comparison: str
    experiments: str


class SweepSummary(Resource):
    """One sweep, as a list tells of it."""

    id: str
    name: str | None
    tags: dict[str, str]
    base: dict[str, Any] = Field(description="What was given of the spec that all members have in common.")
    axes: dict[str, list[Any]] = Field(description="By JSON pointer into the spec.")
    size: int = Field(description="Members that there are; one that was deleted is not counted.")
    status: GroupStatus
    counts: Counts
    progress: GroupProgress
    created_at: datetime
    owner: str | None
    links: SweepLinks


class SweepMember(Resource):
    """One experiment of a sweep."""

    experiment_id: str
    name: str | None
    values: dict[str, Any] = Field(description="Its value on each axis.")
    status: Status
    progress: GroupProgress
    verdict: str | None
    error: Failure | None


class Sweep(SweepSummary):
    """One sweep with its members, in the order of the product: the last axis turns fastest."""

    members: list[SweepMember]

    def _repr_html_(self) -> str:
        return display.sweep(self)


class SweepPage(Resource):
    """One page of sweeps, newest first."""

    items: list[SweepSummary]
    next_cursor: str | None = Field(description="Give it back as `cursor` for the next page; null on the last one.")


class SweepComparison(Resource):
    """A sweep as one table, column by column; row i is `experiments[i]`. What is not known (yet) is null."""

    sweep_id: str
    status: GroupStatus
    counts: Counts
    sort: str | None
    experiments: list[str]
    axes: dict[str, list[Any]] = Field(description="Of each axis every member's value.")
    columns: dict[str, list[Any]] = Field(
        description="`status`, `verdict`, `cause`, `delta_ratio_initial` and `delta_ratio_mean` (‖δ‖ of the first "
        "layer ÷ that of the last, at the first recorded step and as the run's geometric mean), `final_loss` (nats), "
        "`train_accuracy`, `test_accuracy` (shares), `test_loss`, `seconds`, `error` (a failed member's code)."
    )

    def _repr_html_(self) -> str:
        return display.sweep_comparison(self)


class ComparedExperiment(Resource):
    """One experiment of a comparison; what was not asked for is null."""

    experiment_id: str
    name: str | None
    status: Status
    verdict: str | None
    series: SeriesDocument | None
    metrics: MetricsDocument | None
    histograms: HistogramDocument | None


class ComparisonDocument(Resource):
    """Several experiments side by side, in the order asked for.

    Where `max_points` reduces them, all are cut into the same buckets of iterations, so that points stand side by side.
    """

    of: str
    items: list[ComparedExperiment]


class RemediesLinks(Resource):
    """Where the rest is."""

    self: str
    experiment: str
    experiments: str


class RemediesSummary(Resource):
    """Remedies of one experiment that are tried, as a list tells of them."""

    id: str
    experiment_id: str
    rule: str = Field(description="The experiment's verdict when they were asked for.")
    status: GroupStatus
    counts: Counts
    progress: GroupProgress
    seeds: list[int]
    enough: str | None = Field(
        description="The smallest change that is enough: on every seed the diagnosis is healthy and the loss is less "
        "than half of a guess's. Null: none, or not known yet."
    )
    created_at: datetime
    owner: str | None
    links: RemediesLinks


class IntervalDocument(Resource):
    """A mean of paired differences with its 95 % interval by Student's t; null bounds where there is one pair."""

    mean: float
    low: float | None
    high: float | None
    pairs: int


class ChangeDocument(Resource):
    """One change that is tried over every seed, and what it did."""

    arm: Literal["plain", "remedy", "control", "combination"]
    id: str
    patch: dict[str, Any]
    reason: str
    size: int = Field(description="Fields that it changes.")
    planned: int = Field(description="Seeds.")
    ended: int = Field(description="Seeds that ended well.")
    verdicts: dict[str, int]
    means: dict[str, float | None] = Field(
        description="`test_accuracy`, `final_loss`, and the geometric mean of `delta_ratio`, ‖δ‖ of the first layer ÷ "
        "that of the last at the first step."
    )
    effects: dict[str, IntervalDocument | None] = Field(
        description="Against the plain spec, seed by seed: of `test_accuracy`, `final_loss`, and `log_delta_ratio`, "
        "the natural logarithm of `delta_ratio`."
    )
    against_control: IntervalDocument | None = Field(
        description="Test accuracy against the mean of the random changes, seed by seed."
    )
    enough: bool


class ControlDocument(Resource):
    """What the random changes did, all together."""

    changes: int
    enough: int = Field(description="How many of them would have been enough.")
    test_accuracy: IntervalDocument | None = Field(description="Their mean effect against the plain spec.")


class RankingDocument(Resource):
    """What each change did, larger gains of test accuracy first."""

    plain: ChangeDocument
    changes: list[ChangeDocument]
    control: ControlDocument
    enough: str | None
    conclusion: str = Field(description="In words.")


class RemedyMember(Resource):
    """One experiment of a trial."""

    experiment_id: str
    arm: str
    change: str
    seed: int
    status: Status
    progress: GroupProgress
    verdict: str | None
    error: Failure | None


class Remedies(RemediesSummary):
    """Remedies that are tried: every experiment of the trial, and the ranking of what has ended so far."""

    members: list[RemedyMember]
    ranking: RankingDocument

    def _repr_html_(self) -> str:
        return display.remedies(self)


class RemediesList(Resource):
    """The trials of one experiment's remedies, newest first."""

    items: list[RemediesSummary]
