"""The documents that travel over HTTP, declared once: the service answers them, the client reads them.

A reader ignores fields it does not know, so that an older client survives a newer server; a field that was added later
has a default, so that a newer client survives an older one. A server always sends all of them.
"""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gradprobe import display, sentences
from gradprobe.state import Status


class Resource(BaseModel):
    """Base of all documents."""

    model_config = ConfigDict(frozen=True, extra="ignore", json_schema_serialization_defaults_required=True)


class Progress(Resource):
    """How far training is, in iterations done."""

    iteration: int = Field(ge=0)
    iterations: int = Field(ge=1)


class Result(Resource):
    """What training came to. A loss that is not finite is null here and named in the metrics' `nonfinite`."""

    final_loss: float | None = Field(description="Training loss (nats) averaged over the last 100 recorded steps.")
    train_accuracy: float | None = Field(description="Share of the training set classified correctly, 0…1.")
    test_accuracy: float | None = Field(description="Share of the test set classified correctly, 0…1.")
    test_loss: float | None = Field(description="Mean cross-entropy over the test set, nats.")
    seconds: float = Field(description="Wall time of the training loop.")
    iterations_per_second: float


class Failure(Resource):
    """Why the service failed: a stable code and a sentence that says what to do."""

    code: str
    message: str


class Provenance(Resource):
    """What is needed to get the same numbers again."""

    gradprobe: str
    torch: str
    python: str
    platform: str
    device: str
    threads: int
    dataset_sha256: str | None
    seed: int
    worker: str
    #: How many trained side by side when it began; null: by itself.
    stacked: int | None = None


class Links(Resource):
    """Where the rest of this experiment is."""

    self: str
    gradients: str
    histograms: str
    weights: str
    activations: str
    metrics: str
    diagnosis: str = ""
    events: str = ""


class Experiment(Resource):
    """One experiment as the service answers it."""

    id: str
    name: str | None
    tags: dict[str, str]
    notes: str | None
    spec: dict[str, Any] = Field(description="The complete spec, every default filled in.")
    status: Status
    progress: Progress
    attempt: int = Field(ge=0)
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    verdict: str | None
    result: Result | None
    error: Failure | None
    provenance: Provenance | None
    links: Links
    owner: str | None = Field(default=None, description="Whose key made it; null where no key was asked for.")
    sweep_id: str | None = Field(default=None, description="The sweep, or the trial of remedies, that it belongs to.")
    member: dict[str, Any] | None = Field(default=None, description="Its place in that: its values on the axes.")
    source: str | None = Field(
        default=None, description="`watched`: a training loop that reports through `POST /runs`; null: trained here."
    )

    def _repr_html_(self) -> str:
        return display.experiment(self)


class ExperimentPage(Resource):
    """One page of experiments, newest first."""

    items: list[Experiment]
    next_cursor: str | None = Field(description="Give it back as `cursor` for the next page; null on the last one.")


class Nonfinite(Resource):
    """A value that JSON can't hold: null in its column, named here.

    In a reduced series it stands at the first step of its bucket, also where the bucket has finite values besides it;
    where it has none, so that both of its points are null, at the last step as well.
    """

    layer: str
    step: int
    statistic: str
    value: Literal["inf", "-inf", "nan"]
    count: int = Field(default=1, description="How many recorded steps it was; more than 1 only in a bucket.")


class Reduction(Resource):
    """How the series was reduced to the number of points asked for.

    Bucket k holds the iterations k·bucket ≤ t < (k + 1)·bucket that were recorded within the range.
    """

    method: str = Field(
        description="`none`: every recorded step. `minmax`: two points a bucket, the minimum of its finite values at "
        "its first recorded step and the maximum at its last; a bucket of one step is one point. `max`: the maximum "
        "of the one bucket that `max_points=1` leaves. `sum`: histograms whose counts were added."
    )
    points: int
    of_points: int = Field(description="Recorded steps in the range.")
    bucket: int = Field(description="Iterations a bucket, a power of two.")


class LayerSeries(Resource):
    """One layer's columns; each is as long as the document's `steps`."""

    name: str
    shape: list[int]
    size: int
    statistics: dict[str, list[float | None]]


class LayerQuantiles(Resource):
    """One layer's quantiles by share, such as `0.5`; each as long as the quantiles' `steps`."""

    name: str
    values: dict[str, list[float | None]]


class Quantiles(Resource):
    """Quantiles of the elements at the iterations with a histogram, within 6 % of the true ones; NaN left out."""

    steps: list[int]
    layers: list[LayerQuantiles]
    reduction: Reduction


class SeriesDocument(Resource):
    """Statistics of one tensor, layer by layer, over the recorded iterations."""

    experiment_id: str
    status: Status
    of: str
    steps: list[int]
    layers: list[LayerSeries]
    nonfinite: list[Nonfinite]
    reduction: Reduction
    quantiles: Quantiles | None = Field(default=None, description="Null where they were not asked for.")


class LayerHistogram(Resource):
    """One layer's counts: `counts[step][bin]`, bin i being [edges[i], edges[i + 1]).

    Zeros and elements that are not finite are counted beside the bins, whichever bins were asked for. In linear bins
    (`bins`) each bin of the logarithmic grid is counted whole where its representative lies.
    """

    name: str
    shape: list[int]
    size: int
    edges: list[float]
    counts: list[list[int]]
    zero: list[int]
    nonfinite: list[int]


class HistogramDocument(Resource):
    """Histograms of one kind of gradient; at every point Σ counts + zero + nonfinite = size · recorded."""

    experiment_id: str
    status: Status
    of: str
    steps: list[int]
    layers: list[LayerHistogram]
    reduction: Reduction
    recorded: list[int] = Field(default=[], description="How many recorded steps each point is the sum of.")


class Evaluation(Resource):
    """The whole test set, at the iterations where it was evaluated."""

    steps: list[int]
    test_loss: list[float | None]
    test_accuracy: list[float | None]
    reduction: Reduction = Reduction(method="none", points=0, of_points=0, bucket=1)


class MetricsDocument(Resource):
    """The run's own series."""

    experiment_id: str
    status: Status
    steps: list[int]
    metrics: dict[str, list[float | None]]
    evaluation: Evaluation
    nonfinite: list[Nonfinite]
    reduction: Reduction


class StatusEvent(Resource):
    """An event `status`: the experiment is in another state, or another attempt has begun.

    What an earlier attempt measured may be measured again, with the same numbers on the same machine; the `statistics`
    events that follow begin at iteration 0 again, and what they tell takes the place of what was told before.
    """

    experiment_id: str
    status: Status
    attempt: int
    started_at: datetime | None
    finished_at: datetime | None
    verdict: str | None
    error: Failure | None


class ProgressEvent(Resource):
    """An event `progress`: iterations done."""

    experiment_id: str
    iteration: int
    iterations: int


class StatisticsEvent(Resource):
    """An event `statistics`: the iterations start ≤ t < stop can be read now.

    It brings `mean_abs` of both gradients, null where the experiment does not record them, and the run's own series:
    the documents that reading this range with `max_points` gives.
    """

    experiment_id: str
    start: int
    stop: int
    weight_gradients: SeriesDocument | None
    output_gradients: SeriesDocument | None
    metrics: MetricsDocument


class LayerPredictionDocument(Resource):
    """One layer at initialization. Logarithms are natural, of squared norms ("e-folds"); δ is per sample."""

    name: str
    weight_scale: float = Field(description="σ_w² = fan_in · Var W.")
    q: float | None = Field(description="Variance of z, before a normalization.")
    chi: float | None = Field(description="E‖δ‖² of this layer ÷ that of the next one.")
    slope_second: float | None = Field(description="E[φ′²].")
    saturated_fraction: float | None = Field(description="Expected share of activations that are saturated.")
    delta_rms: float | None = Field(description="√E[δ²] of one element and one sample.")
    log_delta_ratio: float | None = Field(description="ln E‖δ‖² − ln E‖δ_N‖², N the output layer; null: −∞.")
    null_band: float = Field(description="The deviation of that logarithm from seed to seed, √(5 Σ 1/n).")
    weight_gradient_rms: float | None = Field(description="√E[(∂L/∂W)²] of one weight and one sample.")


class PredictionDocument(Resource):
    """What mean-field theory says of a spec's network at initialization. What is infinite is null."""

    phase: Literal["ordered", "critical", "chaotic"] = Field(
        description="`ordered`: gradients vanish with depth; `chaotic`: they explode."
    )
    chi: float | None = Field(description="χ₁, the factor of E|δ|² a hidden layer, backwards.")
    q: float | None = Field(description="q*, the variance of z that layers settle at.")
    xi: float | None = Field(description="−1/ln χ₁ in layers; negative where gradients explode.")
    depth_limit: float | None = Field(description="Layers up to which it is expected to train; null: no limit.")
    critical_gain: float | None = Field(description="The factor of the weights that would make χ₁ = 1.")
    initial_loss: float | None = Field(description="Expected loss of the first batch, nats.")
    singular_value_spread: float | None = Field(
        description="What a hidden layer adds to Var[s²]/E[s²]² of the Jacobian's singular values s; 0: isometry."
    )
    layers: list[LayerPredictionDocument]
    notes: list[str] = Field(description="What theory can't say of this spec.")


class RemedyDocument(Resource):
    """One change of the spec: a JSON merge patch (RFC 7396)."""

    id: str
    patch: dict[str, Any]
    reason: str
    expected: dict[str, Any] = Field(description="What theory expects of the changed spec.")


class FindingDocument(Resource):
    """Something that is wrong."""

    rule: str
    version: int
    phase: Literal["at_initialization", "in_training"]
    severity: Literal["warning", "critical"]
    cause: str
    detail: str = Field(description="The cause, closer.")
    layers: list[str] = Field(description="Those concerned, input side first; none: the run as a whole.")
    layer_severity: dict[str, float | None]
    first_step: int
    last_step: int
    ongoing: bool = Field(description="Whether it still held at the last step recorded.")
    samples: int = Field(description="Recorded steps that the finding rests on.")
    evidence: dict[str, Any] = Field(description="The numbers, and the thresholds that they crossed.")
    explanation: str
    remedies: list[RemedyDocument]


class FindingEvent(FindingDocument):
    """An event `finding`: the diagnosis of an experiment that has ended holds this; the weightiest comes first."""

    experiment_id: str


class DiagnosisDocument(Resource):
    """What the rules say of what was measured; the weightiest finding comes first and gives the verdict."""

    experiment_id: str
    status: Status
    version: int = Field(description="Of the rules: raised when they say something else of the same measurements.")
    preset: str | None
    thresholds: dict[str, float]
    verdict: str = Field(description="A rule's name, `healthy`, or `undecided` where too little was recorded.")
    at_initialization: str
    in_training: str
    cause: str | None
    summary: str = Field(description="The verdict in words.")
    findings: list[FindingDocument]
    attribution: dict[str, Any] | None = Field(
        description="Each layer's ln χ at the first step, split into weight scale, derivative, normalization, width."
    )
    failed_rules: list[str] = Field(description="Rules that failed themselves; nothing is known of what they look for.")
    prediction: PredictionDocument | None = Field(description="Null for a network that theory does not know.")
    silent: list[str] = Field(default=[], description="Which rules had nothing to go by, and why.")

    def __str__(self) -> str:
        return sentences.text(sentences.diagnosis(self))

    def _repr_html_(self) -> str:
        return display.diagnosis(self)


class FieldError(Resource):
    """One fault in the request, with a JSON pointer (RFC 6901) to its place in the body, or `/query/…`."""

    pointer: str
    message: str
    code: str


class Problem(Resource):
    """Every error's body: RFC 9457 problem details, media type application/problem+json."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    errors: list[FieldError]


class Readiness(Resource):
    """Whether the service can do its work, part by part."""

    status: Literal["ready", "degraded", "unavailable"]
    checks: dict[str, str]
