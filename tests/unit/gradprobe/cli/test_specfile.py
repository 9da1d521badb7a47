import io
import json
from pathlib import Path
from typing import Any

import pytest

from gradprobe import Spec
from gradprobe.cli.exits import CommandError
from gradprobe.cli.specfile import OPTION_PATHS, build, read, validated
from gradprobe.spec import LeakyReLU


def test_nothing_given_is_an_empty_spec() -> None:
    assert build(None, dict.fromkeys(OPTION_PATHS)) == {}


def test_the_later_wins_file_then_options_then_set(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text('{"name": "file", "network": {"depth": 3, "width": 4, "activation": "relu"}}', encoding="utf-8")
    spec = build(str(path), {"depth": 5, "width": 6, "name": None}, ["a=b=c"], ["network.width=7"])
    assert spec == {
        "name": "file",
        "network": {"depth": 5, "width": 7, "activation": "relu"},
        "tags": {"a": "b=c"},
    }


def test_every_option_leads_to_a_field_of_the_spec() -> None:
    values = {
        "name": "n",
        "dataset": "synthetic",
        "activation": "tanh",
        "initialization": "he_normal",
        "depth": 3,
        "width": 4,
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "iterations": 7,
        "batch_size": 2,
        "seed": 9,
        "device": "cpu",
    }
    assert values.keys() == OPTION_PATHS.keys()
    dumped = json.dumps(Spec.model_validate(build(None, values)).model_dump(mode="json"))
    for value in values.values():
        assert json.dumps(value) in dumped


def test_a_parameter_turns_a_bare_name_into_an_object() -> None:
    spec = build(None, {"activation": "leaky_relu"}, settings=["network.activation.negative_slope=0.2"])
    assert spec["network"]["activation"] == {"name": "leaky_relu", "negative_slope": 0.2}
    assert Spec.model_validate(spec).network.activation == LeakyReLU(negative_slope=0.2)


@pytest.mark.parametrize(
    ("text", "value"),
    [("20", 20), ("0.5", 0.5), ("null", None), ("true", True), ("relu", "relu"), ('"20"', "20"), ("[1]", [1]),
     ("NaN", "NaN"), ("", ""), ("a=b", "a=b")],
)  # fmt: skip
def test_a_value_is_json_or_else_a_string(text: str, value: Any) -> None:
    assert build(None, {}, settings=[f"x={text}"]) == {"x": value}


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ({"settings": ["network.width"]}, "network.width=20"),
        ({"settings": ["network..width=1"]}, "not a path"),
        ({"settings": ["=1"]}, "no value"),
        ({"settings": ["network=3", "network.width=1"]}, "no fields"),
        ({"tags": ["alone"]}, "key=value"),
    ],
)
def test_what_can_not_be_understood_says_how_to_write_it(arguments: Any, hint: str) -> None:
    with pytest.raises(CommandError, match=hint) as caught:
        build(None, {}, **arguments)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("content", ["{", "[1]", '"text"', '{"x": NaN}', ""])
def test_a_file_that_is_no_json_object_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "spec.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(CommandError, match=r"spec\.json"):
        read(str(path))


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="can't be read"):
        read(str(tmp_path / "none.json"))
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CommandError, match="UTF-8"):
        read(str(tmp_path / "binary.json"))


def test_yaml_is_read_and_refused_in_the_same_way(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("network:\n  depth: 3\n", encoding="utf-8")
    assert read(str(path)) == {"network": {"depth": 3}}
    path.write_text("network:\n\tdepth: 3\n", encoding="utf-8")
    with pytest.raises(CommandError, match="not YAML: line 2, column 1: found character"):
        read(str(path))


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("1.5E+2", 150.0), ("-2e3", -2000.0), (".5e1", 5.0), ("1e", "1e"), ("e3", "e3"), ("3", 3)],
)
def test_a_number_in_yaml_may_have_an_exponent_without_a_point(tmp_path: Path, text: str, value: Any) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(f"x: {text}\n", encoding="utf-8")
    assert read(str(path)) == {"x": value}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"network": {"dept": 3}}, ["/network/dept: there is no field of this name; did you mean depth?"]),
        ({"depth": 3}, ["/depth: there is no field of this name; did you mean /network/depth?"]),
        (
            {"optimizer": {"lr": 0.1}},
            ["/optimizer/lr: there is no field of this name; there are: name, learning_rate, weight_decay, schedule"],
        ),
        (
            {"optimizer": {"schedule": {"name": "step", "facto": 1}}},
            ["/optimizer/schedule/facto: there is no field of this name; did you mean factor?"],
        ),
        (
            {"gradient_clipping": {"kind": "norm", "maximum": 1}},
            [
                "/gradient_clipping/maximum: there is no field of this name; there are: kind, max_norm",
            ],
        ),
        (
            {"gradient_clipping": {"max_norm": 1}},
            ["/gradient_clipping: Field required: 'kind', which says which it is"],
        ),
        (
            {"optimizer": "Adam"},
            ["/optimizer: Input should be one of 'adam', 'adamw', 'rmsprop', 'sgd', not 'Adam'"],
        ),
        (
            {"network": 3, "dataset": [1]},
            [
                "/dataset: Input should be a name such as 'mnist', or an object with it, not a list",
                "/network: Input should be an object",
            ],
        ),
        (
            {"network": {"activation": True}, "training": {"seed": "x"}},
            [
                "/network/activation: Input should be a name such as 'sigmoid', or an object with it, not a boolean; "
                "YAML reads no, yes, on and off as booleans, unless they are in quotes",
                "/training/seed: Input should be a valid integer",
            ],
        ),
    ],
)
def test_a_fault_is_told_at_the_place_that_was_written_and_with_what_is_meant(
    spec: dict[str, Any], said: list[str]
) -> None:
    with pytest.raises(CommandError) as caught:
        validated(spec)
    assert caught.value.message == "; ".join(said)


def test_a_dash_reads_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('{"name": "piped"}'))
    assert read("-") == {"name": "piped"}
