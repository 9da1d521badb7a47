"""`gradprobe diagnose` and `gradprobe predict`, and the verdict in `gradprobe show`."""

import json
from collections.abc import Callable

import pytest

from gradprobe.cli import run
from gradprobe.client import Client
from gradprobe.diagnosis import VERSION, Thresholds, diagnose
from gradprobe.resources import DiagnosisDocument, ExperimentPage, FieldError
from gradprobe.state import Status
from tests.unit.gradprobe.diagnosis.made import Made, spec_of
from tests.unit.gradprobe.prepared import PreparedServer

CommandLine = Callable[..., tuple[int, str, str]]
CLASSIC = {"depth": 6, "width": 10, "activation": "sigmoid", "initialization": "xavier_uniform"}


@pytest.fixture
def cli(server: PreparedServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    monkeypatch.setenv("COLUMNS", "120")

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(["--url", server.url, *arguments])
        output = capsys.readouterr()
        return code, output.out, output.err

    return call


def prepare(server: PreparedServer, made: Made, verdict: str) -> str:
    experiment = server.experiment(1, Status.SUCCEEDED, verdict=verdict)
    measured = made.measurements
    document = {
        "experiment_id": experiment.id,
        "status": "succeeded",
        "version": VERSION,
        "preset": None,
        "thresholds": Thresholds().values(),
        **diagnose(measured).document(),
        "prediction": measured.prediction.document(),
    }
    own = f"/experiments/{experiment.id}"
    server.prepare("GET", f"{own}/diagnosis", (200, DiagnosisDocument.model_validate(document)))
    server.prepare("GET", own, (200, experiment))
    for kind in ("gradients", "metrics"):
        answer = server.series({"layer1": [1.0]}) if kind == "gradients" else server.metrics([1.0])
        server.prepare("GET", f"{own}/{kind}", (200, answer))
    server.prepare("GET", "/experiments", (200, ExperimentPage(items=[experiment], next_cursor=None)))
    return str(experiment.id)


def test_a_diagnosis_says_what_why_and_what_to_change(server: PreparedServer, cli: CommandLine) -> None:
    identifier = prepare(server, Made(spec_of(CLASSIC)), "vanishing")
    code, out, err = cli("diagnose", identifier)
    assert (code, err) == (0, "")
    for said in (
        "Vanishing from step 0; cause: the activation's derivative (it is small everywhere).",
        "at initialization: vanishing; in training: healthy",
        "as theory predicts of this network",
        '"activation": {"name": "relu"}',
        "ln χ",
    ):
        assert said in out, said
    assert json.loads(cli("diagnose", identifier, "--json")[1])["version"] == VERSION


def test_the_clients_diagnosis_prints_what_the_command_prints(
    server: PreparedServer, cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    identifier = prepare(server, Made(spec_of(CLASSIC)), "vanishing")
    with Client(server.url) as client:
        found = client.diagnosis(identifier)
    monkeypatch.setenv("COLUMNS", "1000")
    assert cli("diagnose", identifier)[1].startswith(f"{found}\n\nWhat carries δ")
    assert str(found).startswith("vanishing\n  Vanishing from step 0; cause: ")
    assert repr(found).startswith("DiagnosisDocument(experiment_id=")


def test_thresholds_and_presets_are_sent(server: PreparedServer, cli: CommandLine) -> None:
    identifier = prepare(server, Made(spec_of()), "healthy")
    assert cli("diagnose", identifier, "--threshold", "depth_limit=8", "--threshold", "band=2")[0] == 0
    assert server.requests[-1].query == {"depth_limit": "8.0", "band": "2.0"}
    assert cli("diagnose", identifier, "--preset", "smdebug")[0] == 0
    assert server.requests[-1].query == {"preset": "smdebug"}
    code, _, err = cli("diagnose", identifier, "--threshold", "depth_limit")
    assert (code, err.count("\n")) == (2, 1)


def test_a_refused_threshold_is_told_as_the_option_that_it_came_from(server: PreparedServer, cli: CommandLine) -> None:
    identifier = prepare(server, Made(spec_of()), "healthy")
    faults = [
        FieldError(pointer="/query/foo", message="no such parameter", code="unknown_parameter"),
        FieldError(pointer="/query/pacience", message="no such parameter", code="unknown_parameter"),
        FieldError(pointer="/query/band", message="Input should be greater than 0", code="greater_than"),
    ]
    refused = server.problem(422, "VALIDATION_FAILED", "/query/foo: no such parameter (and 2 more)", *faults)
    server.prepare("GET", f"/experiments/{identifier}/diagnosis", (422, refused))
    given = [argument for name in ("foo", "pacience", "band") for argument in ("--threshold", f"{name}=-1")]
    code, _, err = cli("diagnose", identifier, *given)
    assert (code, err) == (
        2,
        f"gradprobe: --threshold foo: there is no such threshold; there are: {', '.join(Thresholds().values())}; "
        "--threshold pacience: there is no such threshold; did you mean patience?; "
        "--threshold band: Input should be greater than 0\n",
    )
    elsewhere = server.problem(404, "EXPERIMENT_NOT_FOUND", "There is no such experiment.")
    server.prepare("GET", f"/experiments/{identifier}/diagnosis", (404, elsewhere))
    code, _, err = cli("diagnose", identifier, "--threshold", "band=2")
    assert (code, err) == (1, "gradprobe: There is no such experiment. [EXPERIMENT_NOT_FOUND]\n")


def test_show_says_the_verdict_in_words(server: PreparedServer, cli: CommandLine) -> None:
    identifier = prepare(server, Made(spec_of()), "healthy")
    code, out, _ = cli("show", identifier)
    assert code == 0
    assert "Healthy: gradients reach every layer." in out


def test_a_prediction_asks_no_server(server: PreparedServer, cli: CommandLine) -> None:
    code, out, err = cli("predict", "--activation", "sigmoid")
    assert (code, err, server.requests) == (0, "", [])
    assert "ordered: gradients vanish with depth" in out
    assert "2.1 layers; this network has 6" in out
    for explained in ("χ: the factor on ‖δ‖²", "ξ: layers for an e-fold", "q: variance of", "null band: what chance"):
        assert explained in out
    critical = cli("predict", "--activation", "relu", "--initialization", "he_normal")[1]
    assert "ξ ∞ layers" in critical
    document = json.loads(cli("predict", "--activation", "relu", "--initialization", "he_normal", "--json")[1])
    assert (document["phase"], document["depth_limit"]) == ("critical", None)


def test_a_spec_that_means_nothing_is_one_line(cli: CommandLine) -> None:
    code, out, err = cli("predict", "--depth", "5000")
    assert (code, out) == (2, "")
    assert err.startswith("gradprobe: /network/depth: ")
