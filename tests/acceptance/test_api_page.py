"""The contract as `/docs` shows it, in a real browser: Swagger UI, out of an installed package."""

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from gradprobe.embedded import Stack
from tests.acceptance.browser import watched

CONTRACT = json.loads((Path(__file__).parents[2] / "openapi" / "openapi.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("width", [1280, pytest.param(390, marks=pytest.mark.large)])
def test_every_operation_is_shown_and_one_is_tried(browser: Browser, stack: Stack, width: int) -> None:
    operations = sum(len(path) for path in CONTRACT["paths"].values())
    with watched(browser, stack.url, viewport={"width": width, "height": 900}) as dashboard:
        page = dashboard.page
        page.goto(f"{stack.url}/docs")
        expect(page.locator(".opblock")).to_have_count(operations)
        expect(page.locator(".info .title")).to_contain_text("Gradprobe")
        assert page.evaluate("document.documentElement.scrollWidth") <= width

        ready = page.locator(".opblock", has_text="/readyz")
        ready.locator(".opblock-summary-control").click()
        ready.get_by_role("button", name="Try it out").click()
        ready.get_by_role("button", name="Execute").click()
        expect(ready.locator(".live-responses-table tbody .response-col_status")).to_contain_text("200")
        shown: Any = json.loads(ready.locator(".live-responses-table .highlight-code code").inner_text())
        assert shown["status"] == "ready"
