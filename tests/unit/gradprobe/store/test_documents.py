"""What stands in a column comes back, whoever wrote it."""

import json
import math

import pytest

from gradprobe.store.documents import parsed


@pytest.mark.parametrize("document", [{"a": [1, 2.5, None, "é"]}, {}, {"seed": 2**53}])
def test_a_document_comes_back(document: object) -> None:
    assert parsed(json.dumps(document)) == document


def test_one_with_nan_too() -> None:
    assert math.isnan(parsed('{"loss": NaN}')["loss"])
