"""Every view of the dashboard before axe-core, light and dark, wide and narrow."""

from typing import Any

import pytest
from playwright.sync_api import Browser

from gradprobe import Client
from gradprobe.embedded import Stack
from tests.acceptance.browser import violations, watched


@pytest.fixture(scope="module")
def views(stack: Stack) -> dict[str, int]:
    """Every view by its fragment, and how many charts it has to have before it is looked at."""
    axes = {"/network/activation": ["sigmoid", "relu"], "/training/seed": [0, 1]}
    with Client(stack.url) as client:
        made = client.sweep(axes, base={"dataset": "synthetic", "training": {"iterations": 100}}, name="looked at")
        ids = [member.experiment_id for member in client.wait_sweep(made.id).members]
    return {
        "/": 0,
        f"/experiments/{ids[0]}": 3,
        f"/compare?ids={','.join(ids)}": 2,
        "/compare": 0,
        "/sweeps": 0,
        f"/sweeps/{made.id}": 1,
        "/new": 1,
        "/nowhere": 0,
    }


@pytest.mark.parametrize(
    ("scheme", "width"),
    [
        ("dark", 390),  # where most goes wrong
        pytest.param("light", 390, marks=pytest.mark.large),
        pytest.param("light", 1280, marks=pytest.mark.large),
        pytest.param("dark", 1280, marks=pytest.mark.large),
    ],
)
def test_no_serious_violation(browser: Browser, stack: Stack, views: dict[str, int], scheme: Any, width: int) -> None:
    found: dict[str, list[str]] = {}
    with watched(browser, stack.url, color_scheme=scheme, viewport={"width": width, "height": 1600}) as dashboard:
        for view, charts in views.items():
            page = dashboard.open(view)
            dashboard.drawn(charts if width == 1280 else 0)  # narrow, they are drawn once they are seen
            assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{view} is wider than the page"
            found |= {view: problems} if (problems := violations(page)) else {}
    assert found == {}
