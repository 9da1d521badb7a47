"""Whatever is wrong with a request, the answer says so in one form, and nothing is stored."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import orjson
import pytest

from gradprobe.settings import Settings
from gradprobe.store import migrate
from tests.integration.service.problem_shape import assert_problem
from tests.integration.service.serving import serving

JSON = {"Content-Type": "application/json"}
LIMIT = 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """One service for all these requests, none of which may leave a trace in it."""
    settings = Settings(
        data_directory=tmp_path_factory.mktemp("bad-requests"),
        redis_url="redis://127.0.0.1:1/0",
        maximum_body_bytes=LIMIT,
    )
    migrate.upgrade(settings.database)
    with serving(settings) as client:
        yield client


@pytest.fixture
def refusing(server: httpx.Client) -> Iterator[httpx.Client]:
    yield server
    assert server.get("/experiments").json()["items"] == []


MALFORMED: dict[str, bytes] = {
    "empty": b"",
    "cut off": b'{"network": {"depth": 3',
    "a word": b"nul",
    "NaN": b'{"optimizer": {"name": "adam", "learning_rate": NaN}}',
    "infinity": b'{"optimizer": {"name": "adam", "learning_rate": -Infinity}}',
    "a number too large for a double": b'{"optimizer": {"name": "adam", "learning_rate": 1e999}}',
    "trailing garbage": b"{} {}",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "a lone surrogate": b'{"name": "\\ud800"}',
    "not UTF-8": b'{"name": "\xff\xfe"}',
    "UTF-16": "{}".encode("utf-16"),
    "nested too deep": b"[" * 200_000,
    "objects nested too deep": b'{"network":' * 90_000,
    "a comment": b"{} // classic",
    "single quotes": b"{'name': 'x'}",
    "a raw control character": b'{"name": "a\nb"}',
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_body_that_is_not_json_is_malformed(refusing: httpx.Client, body: bytes) -> None:
    problem = assert_problem(refusing.post("/experiments", content=body, headers=JSON), 400, "MALFORMED_JSON")

    assert "empty" in problem["detail"] if not body else "column" in problem["detail"]


def test_the_place_of_the_fault_in_malformed_json_is_told(refusing: httpx.Client) -> None:
    response = refusing.post("/experiments", content=b'{"name": "x",\n "tags": NaN}', headers=JSON)

    assert "line 2, column 10" in assert_problem(response, 400, "MALFORMED_JSON")["detail"]


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin-1",
        "application",
        "",
        "\xe4/x",
    ],
)
def test_a_body_of_another_media_type_is_refused(refusing: httpx.Client, content_type: str) -> None:
    headers = {b"Content-Type": content_type.encode("latin-1")}

    problem = assert_problem(
        refusing.post("/experiments", content=b"{}", headers=headers), 415, "UNSUPPORTED_MEDIA_TYPE"
    )

    assert "application/json" in problem["detail"]


def test_a_body_without_a_media_type_is_refused(refusing: httpx.Client) -> None:
    request = refusing.build_request("POST", "/experiments", content=b"{}")
    assert "content-type" not in request.headers

    assert_problem(refusing.send(request), 415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("excess", [1, 8 * LIMIT])
def test_a_body_that_is_too_large_is_refused(refusing: httpx.Client, chunked: bool, excess: int) -> None:
    size = LIMIT + excess
    pieces = (b" " * min(65536, size - sent) for sent in range(0, size, 65536))
    body: Any = pieces if chunked else b" " * size

    response = refusing.post("/experiments", content=body, headers=JSON)

    assert ("transfer-encoding" in response.request.headers) == chunked
    assert str(LIMIT) in assert_problem(response, 413, "BODY_TOO_LARGE")["detail"]


def test_a_body_of_just_the_largest_size_is_read(refusing: httpx.Client) -> None:
    response = refusing.post("/experiments", content=b" " * (LIMIT - 1) + b"x", headers=JSON)

    assert_problem(response, 400, "MALFORMED_JSON")


class Invalid(NamedTuple):
    """A body, and each place and code it is refused for."""

    body: Any
    faults: set[tuple[str, str]]


def network(**fields: Any) -> dict[str, Any]:
    return {"network": fields}


INVALID: dict[str, Invalid] = {
    "null": Invalid(None, {("", "object_type")}),
    "an array": Invalid([], {("", "object_type")}),
    "a string": Invalid("classic", {("", "object_type")}),
    "a number": Invalid(7, {("", "object_type")}),
    "an unknown field": Invalid({"nework": {}}, {("/nework", "unknown_field")}),
    "an unknown field within": Invalid(network(dept=3), {("/network/dept", "unknown_field")}),
    "a name that must be escaped": Invalid({"a/b~c": 1}, {("/a~1b~0c", "unknown_field")}),
    "an empty name": Invalid({"": 1}, {("/", "unknown_field")}),
    "two faults": Invalid(
        {"network": {"depth": 0}, "training": {"seed": -1}},
        {("/network/depth", "greater_than_equal"), ("/training/seed", "greater_than_equal")},
    ),
    "within a tagged union": Invalid(
        network(activation={"name": "leaky_relu", "negative_slope": 5}),
        {("/network/activation/negative_slope", "less_than_equal")},
    ),
    "a field of another member of the union": Invalid(
        network(activation={"name": "relu", "negative_slope": 0.1}),
        {("/network/activation/negative_slope", "unknown_field")},
    ),
    "within a union of a number and an object": Invalid(
        network(initialization={"bias": {"name": "normal", "std": -1}}),
        {
            ("/network/initialization/bias", "float_type"),
            ("/network/initialization/bias/std", "greater_than_equal"),
        },
    ),
    "an unknown tag as a string": Invalid(network(activation="swish"), {("/network/activation", "union_tag_invalid")}),
    "an unknown tag": Invalid(network(activation={"name": 3}), {("/network/activation", "union_tag_invalid")}),
    "an array in place of an object": Invalid(network(activation=[]), {("/network/activation", "object_type")}),
    "a schedule within an optimizer": Invalid(
        {"optimizer": {"name": "adam", "schedule": {"name": "step", "every": 0}}},
        {("/optimizer/schedule/every", "greater_than_equal")},
    ),
    "a depth that its kind can't have": Invalid(network(kind="resnet", depth=7), {("/network/depth", "depth_of_kind")}),
    "two fields that mean nothing together": Invalid(
        network(kind="resnet", residual=True), {("/network/residual", "residual_resnet")}
    ),
    "two parts that mean nothing together": Invalid(
        {"network": {"normalization": "batch"}, "training": {"batch_size": 1}},
        {("/training/batch_size", "batch_of_one")},
    ),
    "clipping": Invalid(
        {"gradient_clipping": {"kind": "norm", "max_norm": 0}}, {("/gradient_clipping/max_norm", "greater_than")}
    ),
    "an item of an array": Invalid(
        {"recording": {"tensors": ["weights", "biases"]}}, {("/recording/tensors/1", "literal_error")}
    ),
    "a key of a map": Invalid({"tags": {"a b": "x"}}, {("/tags/a b", "string_pattern_mismatch")}),
    "NUL in a key": Invalid({"tags": {"a\0": "x"}}, {("/tags/a\0", "string_pattern_mismatch")}),
    "NUL in a name": Invalid({"name": "a\0b"}, {("/name", "control_character")}),
    "NUL in a value": Invalid({"tags": {"a": "\0"}}, {("/tags/a", "control_character")}),
    "NUL in a field's name": Invalid({"a\0b": 1}, {("/a\0b", "unknown_field")}),
    "a huge integer": Invalid({"training": {"seed": 10**40}}, {("/training/seed", "less_than")}),
    "an integer out of 64 bits": Invalid({"training": {"seed": 2**63}}, {("/training/seed", "less_than")}),
    "a fraction": Invalid({"training": {"iterations": 1.5}}, {("/training/iterations", "int_type")}),
    "a number as a string": Invalid({"training": {"iterations": "5"}}, {("/training/iterations", "int_type")}),
    "a boolean as a number": Invalid({"training": {"seed": True}}, {("/training/seed", "int_type")}),
    "too many parameters": Invalid(network(depth=1000, width=8192), {("/network", "too_many_parameters")}),
    "a combination that means nothing": Invalid(
        {"optimizer": {"name": "sgd", "nesterov": True}}, {("/optimizer", "nesterov_without_momentum")}
    ),
}


def raw(body: Any) -> bytes:
    """JSON with integers of any size, which orjson does not write."""
    return orjson.dumps(body) if "10000000000" not in str(body) else str(body).replace("'", '"').encode()


@pytest.mark.parametrize("case", INVALID.values(), ids=INVALID.keys())
def test_a_spec_that_is_not_valid_is_refused_with_a_pointer_to_each_fault(
    refusing: httpx.Client, case: Invalid
) -> None:
    response = refusing.post("/experiments", content=raw(case.body), headers=JSON)

    problem = assert_problem(response, 422, "VALIDATION_FAILED")
    assert {(error["pointer"], error["code"]) for error in problem["errors"]} == case.faults


def test_an_unknown_name_is_answered_with_the_one_that_is_meant(refusing: httpx.Client) -> None:
    problem = refusing.post("/experiments", json={"depth": 3, "network": {"dept": 3}, "rest": 1}).json()
    near, elsewhere, none = "did you mean depth?", "did you mean /network/depth?", "there are: "
    said = {error["pointer"]: error["message"] for error in problem["errors"]}
    assert said["/network/dept"] == f"There is no field of this name; {near}"
    assert said["/depth"] == f"There is no field of this name; {elsewhere}"
    assert said["/rest"].startswith(f"There is no field of this name; {none}")
    assert "network" in said["/rest"]
    sweep = {"base": {"netwrok": {}}, "axes": {"/network/witdh": [3]}}
    assert "did you mean network?" in refusing.post("/sweeps", json=sweep).json()["detail"]
    del sweep["base"]
    assert "did you mean width?" in refusing.post("/sweeps", json=sweep).json()["detail"]
    for path, hint in (("/experiments?lmit=5", "did you mean limit?"), ("/livez?x=1", "there are: none")):
        assert refusing.get(path).json()["errors"][0]["message"] == f"There is no such parameter here; {hint}"


def test_of_very_many_faults_the_first_are_told(refusing: httpx.Client) -> None:
    body = {f"field{number}": 1 for number in range(5000)}

    problem = assert_problem(refusing.post("/experiments", json=body), 422, "VALIDATION_FAILED")

    assert len(problem["errors"]) == 100
    assert "4999 more" in problem["detail"]


def test_a_long_value_does_not_come_back(refusing: httpx.Client) -> None:
    response = refusing.post("/experiments", json=network(activation="x" * 500_000))

    assert len(assert_problem(response, 422, "VALIDATION_FAILED")["errors"][0]["message"]) <= 500
    assert len(response.content) < 3000


ID = "exp_" + "0" * 26
QUERIES: list[tuple[str, str, str]] = [
    ("/experiments?lmit=5", "/query/lmit", "unknown_parameter"),
    ("/experiments?limit=0", "/query/limit", "greater_than_equal"),
    ("/experiments?limit=501", "/query/limit", "less_than_equal"),
    ("/experiments?limit=ten", "/query/limit", "int_parsing"),
    ("/experiments?limit=", "/query/limit", "int_parsing"),
    ("/experiments?limit=1&limit=2", "/query/limit", "repeated"),
    (f"/experiments?limit={10**40}", "/query/limit", "less_than_equal"),
    (f"/experiments?limit={'9' * 5000}", "/query/limit", "int_parsing_size"),
    ("/experiments?status=done", "/query/status", "enum"),
    ("/experiments?tag=course", "/query/tag/0", "string_pattern_mismatch"),
    ("/experiments?tag=a:b&tag=a%20b:c", "/query/tag/1", "string_pattern_mismatch"),
    ("/experiments?tag=a:%00", "/query/tag/0", "string_pattern_mismatch"),
    ("/experiments?tag=a:1&tag=a:2", "/query/tag", "repeated"),
    ("/experiments?name=%00", "/query/name", "string_pattern_mismatch"),
    ("/experiments?name=", "/query/name", "string_pattern_mismatch"),
    ("/experiments?verdict=Vanishing!", "/query/verdict", "string_pattern_mismatch"),
    (f"/experiments?cursor={'A' * 2001}", "/query/cursor", "string_too_long"),
    ("/experiments?a/b=1", "/query/a~1b", "unknown_parameter"),
    ("/experiments?%00=1", "/query/\0", "unknown_parameter"),
    (f"/experiments/{ID}?wait=31", "/query/wait", "less_than_equal"),
    (f"/experiments/{ID}?wait=-1", "/query/wait", "greater_than_equal"),
    (f"/experiments/{ID}?wait=nan", "/query/wait", "finite_number"),
    (f"/experiments/{ID}?wait=inf", "/query/wait", "finite_number"),
    (f"/experiments/{ID}?fields=id", "/query/fields", "unknown_parameter"),
    (f"/experiments/{ID}?max_points=5", "/query/max_points", "unknown_parameter"),
    (f"/experiments/{ID}/gradients?max_points=0", "/query/max_points", "greater_than_equal"),
    (f"/experiments/{ID}/weights?max_points=100001", "/query/max_points", "less_than_equal"),
    (f"/experiments/{ID}/gradients?quantiles=0.5,1.01", "/query/quantiles", "quantiles"),
    (f"/experiments/{ID}/gradients?quantiles=", "/query/quantiles", "quantiles"),
    (f"/experiments/{ID}/gradients?quantiles=nan", "/query/quantiles", "quantiles"),
    (f"/experiments/{ID}/gradients?quantiles=half", "/query/quantiles", "quantiles"),
    (f"/experiments/{ID}/gradients?quantiles={','.join(['0.5'] * 33)}", "/query/quantiles", "quantiles"),
    (f"/experiments/{ID}/weights?quantiles=0.5", "/query/quantiles", "unknown_parameter"),
    (f"/experiments/{ID}/gradients/histograms?bins=0", "/query/bins", "greater_than_equal"),
    (f"/experiments/{ID}/gradients/histograms?bins=513", "/query/bins", "less_than_equal"),
    (f"/experiments/{ID}/gradients?bins=30", "/query/bins", "unknown_parameter"),
    (f"/experiments/{ID}/gradients/histograms?statistics=norm", "/query/statistics", "unknown_parameter"),
    (f"/experiments/{ID}/metrics?max_points=1.5", "/query/max_points", "int_parsing"),
    (f"/experiments/{ID}/metrics?layers=layer1", "/query/layers", "unknown_parameter"),
    (f"/experiments/{ID}/weights?of=outputs", "/query/of", "unknown_parameter"),
    (f"/experiments/{ID}/gradients?of=biases", "/query/of", "literal_error"),
    (f"/experiments/{ID}/gradients?start=-1", "/query/start", "greater_than_equal"),
    (f"/experiments/{ID}/gradients?stop={2**31}", "/query/stop", "less_than_equal"),
    (f"/experiments/{ID}/gradients?start={2**64}", "/query/start", "less_than_equal"),
    (f"/experiments/{ID}/gradients?start=1.5", "/query/start", "int_parsing"),
    (f"/experiments/{ID}/gradients?layers={'x' * 20_001}", "/query/layers", "string_too_long"),
    ("/livez?verbose=1", "/query/verbose", "unknown_parameter"),
    ("/readyz?verbose", "/query/verbose", "unknown_parameter"),
    ("/?x=1", "/query/x", "unknown_parameter"),
]


@pytest.mark.parametrize(("url", "pointer", "code"), QUERIES, ids=[url[:60] for url, _, _ in QUERIES])
def test_a_query_that_is_not_understood_is_refused_and_never_ignored(
    refusing: httpx.Client, url: str, pointer: str, code: str
) -> None:
    problem = assert_problem(refusing.get(url), 422, "VALIDATION_FAILED")

    assert [(error["pointer"], error["code"]) for error in problem["errors"]] == [(pointer, code)]


@pytest.mark.parametrize("path", [f"/experiments/{ID}/cancel", f"/experiments/{ID}/retry", "/experiments"])
def test_what_changes_something_refuses_unknown_parameters_too(refusing: httpx.Client, path: str) -> None:
    problem = assert_problem(refusing.post(f"{path}?dry_run=1", json={}), 422, "VALIDATION_FAILED")

    assert problem["errors"][0]["pointer"] == "/query/dry_run"


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/experiments/", f"/experiments/{ID}/", f"/experiments/{ID}/nothing", "/%2e%2e/etc", "/%00"],
)
def test_a_path_that_leads_nowhere_is_a_problem_too(refusing: httpx.Client, path: str) -> None:
    assert_problem(refusing.get(path), 404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/experiments", {"GET", "POST"}),
        ("DELETE", "/experiments", {"GET", "POST"}),
        ("OPTIONS", "/experiments", {"GET", "POST"}),
        ("POST", f"/experiments/{ID}", {"GET", "PATCH", "DELETE"}),
        ("GET", f"/experiments/{ID}/cancel", {"POST"}),
        ("POST", f"/experiments/{ID}/gradients", {"GET"}),
        ("TRACE", "/livez", {"GET"}),
    ],
)
def test_a_method_that_is_not_possible_is_answered_with_those_that_are(
    refusing: httpx.Client, method: str, path: str, allowed: set[str]
) -> None:
    response = refusing.request(method, path)

    assert_problem(response, 405, "METHOD_NOT_ALLOWED")
    assert set(response.headers["allow"].split(", ")) == allowed


def test_json_in_utf_8_may_be_named_so(client: httpx.Client) -> None:
    headers = {"Content-Type": "Application/JSON; charset=UTF-8"}

    response = client.post("/experiments", content='{"name": "δ ≠ 0"}'.encode(), headers=headers)

    assert (response.status_code, response.json()["name"]) == (202, "δ ≠ 0")
    assert client.get("/experiments", params={"name": "Δ"}).status_code == 200
