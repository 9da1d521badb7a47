"""`--axis`: values between commas, JSON where it is JSON, a list as it stands; and what is no axis."""

from typing import Any

import pytest

from gradprobe.cli import run
from gradprobe.cli.exits import USAGE
from gradprobe.cli.sweep import _axis


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("/network/activation=relu,tanh", ["relu", "tanh"]),
        ("/training/seed=0,1,2", [0, 1, 2]),
        ("/network/residual=true, false", [True, False]),
        ("/training/seed=[0, 1]", [0, 1]),
        ("/gradient_clipping=null,{\"kind\": \"norm\", \"max_norm\": 1}", [None, {"kind": "norm", "max_norm": 1}]),
        ("/recording/tensors=[[\"weights\"], [\"activations\"]]", [["weights"], ["activations"]]),
        ("/name=\"a, b\",c=d", ["a, b", "c=d"]),
    ],
)  # fmt: skip
def test_an_axis_is_a_pointer_and_its_values(text: str, values: list[Any]) -> None:
    assert _axis(text) == (text.partition("=")[0], values)


@pytest.mark.parametrize("axis", ["network.width=1,2", "/network/width", "/network/width=", "="])
def test_what_is_no_axis_is_told_in_one_line(axis: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sweep", "--axis", axis]) == USAGE
    assert capsys.readouterr().err.count("\n") == 1


def test_a_sweep_needs_an_axis(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sweep"]) == USAGE
    assert "--axis /network/activation=relu,tanh" in capsys.readouterr().err
