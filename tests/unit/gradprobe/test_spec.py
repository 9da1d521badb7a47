"""The spec's defaults, its bounds, and what it refuses."""

import json
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from gradprobe.parts.model import SpecModel
from gradprobe.spec import TENSORS, Network, PlainActivation, Spec

# What `{}` means, written out.
CLASSIC: dict[str, Any] = {
    "name": None,
    "tags": {},
    "dataset": {"name": "mnist", "normalization": "unit"},
    "network": {
        "kind": "mlp",
        "depth": 6,
        "width": 10,
        "activation": {"name": "sigmoid"},
        "initialization": {"name": "xavier_uniform", "gain": 1.0, "bias": 0.0},
        "normalization": "none",
        "residual": False,
        "dropout": 0.0,
    },
    "optimizer": {"name": "adam", "learning_rate": 0.001, "weight_decay": 0.0, "schedule": {"name": "constant"}},
    "gradient_clipping": None,
    "training": {"iterations": 2500, "batch_size": 30, "seed": 0, "device": "auto", "precision": "float32"},
    "recording": {
        "every": 1,
        "histograms_every": 25,
        "evaluate_every": 500,
        "tensors": ["weight_gradients", "output_gradients", "weights", "activations"],
    },
    "queue": {"priority": 0},
}


def at(path: str, value: Any) -> dict[str, Any]:
    """A document that holds `value` at the dotted `path` and nothing else."""
    first, *rest = path.split(".")
    return {first: at(".".join(rest), value) if rest else value}


def refusal(document: Any) -> tuple[str, str]:
    """(type, dotted place) of the one fault found in `document`."""
    with pytest.raises(ValidationError) as caught:
        Spec.model_validate_json(json.dumps(document))
    [error] = caught.value.errors()
    return error["type"], ".".join(str(part) for part in error["loc"])


def test_an_empty_document_is_the_classic_sigmoid_net() -> None:
    assert json.loads(Spec.model_validate({}).model_dump_json()) == CLASSIC
    assert Spec() == Spec.model_validate({})


def test_the_classic_net_written_out_is_the_same_spec() -> None:
    assert Spec.model_validate_json(json.dumps(CLASSIC)) == Spec()


def test_layers_of_the_classic_net() -> None:
    network = Spec().network
    assert network.layer_shapes == [(10, 784), (10, 10), (10, 10), (10, 10), (10, 10), (10, 10)]
    assert network.layer_names == ["layer1", "layer2", "layer3", "layer4", "layer5", "layer6"]
    assert network.parameter_count == 784 * 10 + 5 * 100 + 6 * 10


def test_one_layer_maps_pixels_to_classes() -> None:
    assert Network(depth=1, width=77).layer_shapes == [(10, 784)]


@pytest.mark.parametrize(
    ("path", "lowest", "highest"),
    [
        ("network.depth", 1, 1000),
        ("training.iterations", 1, 1_000_000),
        ("training.batch_size", 1, 10_000),
        ("training.seed", 0, 2**63 - 1),
        ("recording.every", 1, 1_000_000),
        ("recording.histograms_every", 1, 1_000_000),
        ("recording.evaluate_every", 1, 1_000_000),
        ("queue.priority", 0, 9),
    ],
)
def test_whole_numbers_are_bounded_on_both_sides(path: str, lowest: int, highest: int) -> None:
    Spec.model_validate(at(path, lowest))
    Spec.model_validate(at(path, highest))
    assert refusal(at(path, lowest - 1)) == ("greater_than_equal", path)
    assert refusal(at(path, highest + 1))[1] == path
    assert refusal(at(path, True)) == ("int_type", path)
    assert refusal(at(path, str(lowest))) == ("int_type", path)


@pytest.mark.parametrize(
    ("document", "fault", "place"),
    [
        (at("network.width", 0), "greater_than_equal", "network.width"),
        (at("network.width", 8193), "less_than_equal", "network.width"),
        (at("network.dropout", -0.1), "greater_than_equal", "network.dropout"),
        (at("network.dropout", 1.0), "less_than", "network.dropout"),
        (at("optimizer.learning_rate", 0.0), "greater_than", "optimizer.adam.learning_rate"),
        (at("optimizer.learning_rate", 1001.0), "less_than_equal", "optimizer.adam.learning_rate"),
        (at("optimizer.weight_decay", -1e-9), "greater_than_equal", "optimizer.adam.weight_decay"),
        (at("optimizer.weight_decay", 1001.0), "less_than_equal", "optimizer.adam.weight_decay"),
        (at("optimizer", {"name": "sgd", "momentum": 1.0}), "less_than", "optimizer.sgd.momentum"),
        (at("optimizer", {"name": "sgd", "momentum": -0.1}), "greater_than_equal", "optimizer.sgd.momentum"),
        (at("network.initialization.gain", 0.0), "greater_than", "network.initialization.xavier_uniform.gain"),
        (at("network.initialization.gain", 1e7), "less_than_equal", "network.initialization.xavier_uniform.gain"),
        (
            at("network.initialization", {"name": "normal", "std": 0.0}),
            "greater_than",
            "network.initialization.normal.std",
        ),
        (
            at("network.initialization", {"name": "uniform", "bound": -1.0}),
            "greater_than",
            "network.initialization.uniform.bound",
        ),
        (
            at("network.activation", {"name": "leaky_relu", "negative_slope": 1.5}),
            "less_than_equal",
            "network.activation.leaky_relu.negative_slope",
        ),
        (
            at("network.activation", {"name": "prelu", "initial_slope": -0.5}),
            "greater_than_equal",
            "network.activation.prelu.initial_slope",
        ),
        (
            at("optimizer", {"name": "sgd", "schedule": {"name": "cosine", "final_factor": 1.1}}),
            "less_than_equal",
            "optimizer.sgd.schedule.cosine.final_factor",
        ),
        (
            at("optimizer.schedule", {"name": "step", "every": 0}),
            "greater_than_equal",
            "optimizer.adam.schedule.step.every",
        ),
        (at("gradient_clipping", {"kind": "norm", "max_norm": 0.0}), "greater_than", "gradient_clipping.norm.max_norm"),
        (
            at("gradient_clipping", {"kind": "value", "max_norm": 1.0}),
            "extra_forbidden",
            "gradient_clipping.value.max_norm",
        ),
        (at("gradient_clipping", {"max_norm": 1.0}), "union_tag_not_found", "gradient_clipping"),
        (at("network.kind", "transformer"), "literal_error", "network.kind"),
        (at("network.normalization", "group"), "literal_error", "network.normalization"),
        (at("training.precision", "float64"), "literal_error", "training.precision"),
        (at("recording.tensors", []), "too_short", "recording.tensors"),
        (at("recording.tensors", ["weights", "weights"]), "duplicate", "recording.tensors"),
        (at("recording.tensors", ["weights", "losses"]), "literal_error", "recording.tensors.1"),
        (at("name", ""), "string_too_short", "name"),
        (at("name", "x" * 201), "string_too_long", "name"),
        (at("name", "two\nlines"), "control_character", "name"),
        (at("name", "nul\0"), "control_character", "name"),
        (at("tags", {f"tag{number}": "" for number in range(33)}), "too_long", "tags"),
        (at("tags", {"no spaces": ""}), "string_pattern_mismatch", "tags.no spaces.[key]"),
        (at("tags", {"key": "x" * 201}), "string_too_long", "tags.key"),
        (at("tags", {"key": 7}), "string_type", "tags.key"),
        (at("dataset.name", "imagenet"), "literal_error", "dataset.name"),
        (at("dataset.normalization", "none"), "literal_error", "dataset.normalization"),
        (at("training.device", "tpu"), "literal_error", "training.device"),
        (
            at("optimizer", {"name": "sgd", "nesterov": True}),
            "nesterov_without_momentum",
            "optimizer.sgd",
        ),
        (at("optimizer.momentum", 0.9), "extra_forbidden", "optimizer.adam.momentum"),
        (at("network.activation.slope", 0.1), "extra_forbidden", "network.activation.sigmoid.slope"),
        (at("network.activation", "swish"), "union_tag_invalid", "network.activation"),
        (at("network", {"depth": 1000, "width": 8192}), "too_many_parameters", "network"),
    ],
)
def test_a_value_out_of_range_is_refused_at_its_place(document: Any, fault: str, place: str) -> None:
    assert refusal(document) == (fault, place)


@pytest.mark.parametrize("path", ["", "dataset", "network", "optimizer", "training", "recording", "queue"])
def test_an_unknown_field_is_refused_wherever_it_is(path: str) -> None:
    kind, place = refusal(at(f"{path}.colour" if path else "colour", "red"))
    assert kind == "extra_forbidden"
    assert place.endswith("colour")


@pytest.mark.parametrize(
    ("short", "long"),
    [
        (at("network.activation", "relu"), at("network.activation", {"name": "relu"})),
        (at("network.activation", "leaky_relu"), at("network.activation.name", "leaky_relu")),
        (at("network.activation", "prelu"), at("network.activation", {"name": "prelu", "initial_slope": 0.25})),
        (at("network.initialization", "normal"), at("network.initialization", {"name": "normal", "std": 0.01})),
        (at("network.initialization", "torch_default"), at("network.initialization.name", "torch_default")),
        (at("optimizer", "sgd"), at("optimizer", {"name": "sgd", "momentum": 0.0})),
        (
            at("optimizer", {"name": "sgd", "schedule": "constant"}),
            at("optimizer", {"name": "sgd", "schedule": {"name": "constant"}}),
        ),
        (at("dataset", "synthetic"), at("dataset.name", "synthetic")),
        (at("optimizer.learning_rate", 0.1), at("optimizer", {"name": "adam", "learning_rate": 0.1})),
        (at("network.initialization.gain", 2.0), at("network.initialization", {"name": "xavier_uniform", "gain": 2.0})),
    ],
)
def test_a_bare_name_stands_for_the_object_of_that_name(short: Any, long: Any) -> None:
    assert Spec.model_validate(short) == Spec.model_validate(long) != Spec()


def test_the_default_leaky_slope_and_normal_bias() -> None:
    spec = Spec.model_validate(
        {"network": {"activation": "leaky_relu", "initialization": {"bias": {"name": "normal"}}}}
    )
    document = spec.model_dump(mode="json")["network"]
    assert document["activation"] == {"name": "leaky_relu", "negative_slope": 0.01}
    assert document["initialization"]["bias"] == {"name": "normal", "std": 0.05}


def test_it_is_frozen_in_depth() -> None:
    spec = Spec()
    with pytest.raises(ValidationError, match="frozen"):
        spec.name = "other"
    with pytest.raises(ValidationError, match="frozen"):
        spec.network.depth = 2


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_not_finite_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        Spec.model_validate_json('{"optimizer": {"learning_rate": ' + text + "}}")


def test_the_schema_offers_the_bare_name_too() -> None:
    schema = Spec.model_json_schema(mode="validation")
    offered = schema["$defs"]["Network"]["properties"]["activation"]["anyOf"]
    assert {"sigmoid", "leaky_relu", "prelu"} <= set(offered[0]["enum"])


def test_the_schema_tells_what_the_spec_takes() -> None:
    """That no body fits one and is refused by the other for what a schema can tell, is what `make fuzz` looks for."""
    schema = Spec.model_json_schema(mode="validation")
    assert schema["$defs"]["LeakyReLU"]["required"] == ["name"]
    assert schema["$defs"]["ValueClipping"]["required"] == ["kind"]
    assert schema["properties"]["tags"]["additionalProperties"] is False
    assert Spec.model_validate_json('{"training": {"iterations": 1e2, "seed": 7.0}}').training.iterations == 100


class MaybeNumber(SpecModel):
    number: Annotated[int, Field(ge=0, le=50)] | None = None


def test_a_whole_number_is_one_where_null_may_stand_as_well() -> None:
    assert MaybeNumber.model_validate_json('{"number": 46.0}').number == 46
    assert MaybeNumber.model_validate_json('{"number": null}').number is None
    with pytest.raises(ValidationError, match="valid integer"):
        MaybeNumber.model_validate_json('{"number": 46.5}')


def names(*choices: str) -> st.SearchStrategy[str]:
    return st.sampled_from(choices)


def number(low: float, high: float, *, above: bool = False, below: bool = False) -> st.SearchStrategy[float]:
    return st.floats(low, high, exclude_min=above, exclude_max=below)


def document(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects that hold any subset of `fields`, but always their `name`."""
    needed = {key: strategy for key, strategy in fields.items() if key == "name"}
    return st.fixed_dictionaries(needed, optional={key: fields[key] for key in fields.keys() - needed.keys()})


PRINTABLE = st.text(st.characters(blacklist_categories=["Cc", "Cs"]), max_size=200)
BIAS = number(-1e3, 1e3) | document(name=names("normal"), std=number(0.0, 1e6))
PLAIN_ACTIVATION = names("sigmoid", "tanh", "relu", "elu", "selu", "gelu", "silu", "softplus", "hardtanh", "identity")
ACTIVATION = (
    PLAIN_ACTIVATION
    | document(name=PLAIN_ACTIVATION)
    | document(name=names("leaky_relu"), negative_slope=number(0.0, 1.0))
    | document(name=names("prelu"), initial_slope=number(0.0, 1.0))
)
SCALED = names(
    "xavier_uniform", "xavier_normal", "he_uniform", "he_normal", "lecun_uniform", "lecun_normal", "orthogonal"
)
INITIALIZATION = (
    document(name=SCALED, gain=number(0.0, 1e6, above=True), bias=BIAS)
    | document(name=names("normal"), std=number(0.0, 1e6, above=True), bias=BIAS)
    | document(name=names("uniform"), bound=number(0.0, 1e6, above=True), bias=BIAS)
    | document(name=names("zeros"), bias=BIAS)
    | names("torch_default", "zeros", "orthogonal")
)
SCHEDULE = (
    names("constant", "cosine", "step", "linear_warmup")
    | document(name=names("cosine"), final_factor=number(0.0, 1.0))
    | document(name=names("step"), every=st.integers(1, 1_000_000), factor=number(0.0, 1.0, above=True))
    | document(name=names("linear_warmup"), iterations=st.integers(1, 1_000_000))
)
RATES = {"learning_rate": number(0.0, 1e3, above=True), "weight_decay": number(0.0, 1e3), "schedule": SCHEDULE}
OPTIMIZER = document(name=names("adam", "adamw", "rmsprop"), **RATES) | document(
    name=names("sgd"), momentum=number(0.0, 1.0, below=True), **RATES
)
CLIPPED = number(0.0, 1e6, above=True)
SPECS = document(
    tags=st.dictionaries(st.from_regex(r"[A-Za-z0-9_.\-/]{1,64}", fullmatch=True), PRINTABLE, max_size=32),
    dataset=document(name=names("mnist", "fashion_mnist", "synthetic"), normalization=names("unit", "standard")),
    network=document(
        kind=names("mlp", "conv", "resnet"),
        depth=st.integers(2, 100).map(lambda half: 2 * half),
        width=st.integers(2, 40),
        activation=ACTIVATION,
        initialization=INITIALIZATION,
        normalization=names("none", "batch", "layer", "rms"),
        dropout=number(0.0, 1.0, below=True),
    ),
    optimizer=OPTIMIZER,
    gradient_clipping=st.fixed_dictionaries({"kind": names("norm")}, optional={"max_norm": CLIPPED})
    | st.fixed_dictionaries({"kind": names("value")}, optional={"max_value": CLIPPED}),
    training=document(
        iterations=st.integers(1, 1_000_000),
        batch_size=st.integers(2, 200),
        precision=names("float32", "bfloat16", "float16"),
        seed=st.integers(0, 2**63 - 1),
        device=names("auto", "cpu", "cuda"),
    ),
    recording=document(
        every=st.integers(1, 1_000_000),
        histograms_every=st.integers(1, 1_000_000),
        evaluate_every=st.integers(1, 1_000_000),
        tensors=st.lists(st.sampled_from(TENSORS), min_size=1, unique=True),
    ),
    queue=document(priority=st.integers(0, 9)),
)


@given(SPECS, st.none() | PRINTABLE.filter(bool))
def test_any_valid_spec_survives_being_stored_and_read(given_document: dict[str, Any], name: str | None) -> None:
    spec = Spec.model_validate({**given_document, "name": name})
    stored = spec.model_dump_json()
    assert Spec.model_validate_json(stored) == spec
    assert Spec.model_validate(json.loads(stored)) == spec
    assert Spec.model_validate_json(stored).model_dump_json() == stored
    kept = spec.model_dump(mode="json")
    for section, values in given_document.items():
        for key, value in values.items():
            if not isinstance(value, (str, dict)):
                assert kept[section][key] == value


def test_a_part_can_be_built_in_python() -> None:
    network = Network(depth=2, width=3, activation=PlainActivation(name="tanh"))
    assert Spec(network=network).network.activation.name == "tanh"
