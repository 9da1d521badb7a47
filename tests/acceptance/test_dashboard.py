"""The dashboard in a real browser, on a real stack, with a run that goes on meanwhile."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect
from sqlalchemy import delete, insert, select

from gradprobe import Client
from gradprobe.embedded import Stack
from gradprobe.resources import Experiment
from gradprobe.settings import Settings
from gradprobe.spec import Spec
from gradprobe.store.database import Database
from gradprobe.store.tables import experiments
from tests.acceptance.browser import Watched, violations, watched
from tests.integration.service.keyed import bearer
from tests.integration.service.serving import serving
from tests.integration.store.transactions import Store

VANISHING = {
    "name": "dashboard sigmoid",
    "tags": {"arm": "control"},
    "dataset": "synthetic",
    "training": {"iterations": 300},
}
HEALTHY = {
    "name": "dashboard relu",
    "tags": {"arm": "remedy"},
    "dataset": "synthetic",
    "network": {"activation": "relu", "initialization": "he_normal", "width": 32},
    "training": {"iterations": 300},
}
#: Long enough to be watched; it is cancelled afterwards.
LONG = {"name": "dashboard live", "dataset": "synthetic", "training": {"iterations": 200_000}}
LAST_DRAWN = "() => Math.max(...(document.querySelectorAll('.js-plotly-plot')[0]?.data?.[0]?.x ?? [-1]))"


@pytest.fixture
def dashboard(browser: Browser, stack: Stack) -> Iterator[Watched]:
    with watched(browser, stack.url, viewport={"width": 1280, "height": 900}) as page:
        yield page


@pytest.fixture(scope="module")
def ended(stack: Stack) -> tuple[Experiment, Experiment]:
    """A run whose gradients vanish, and one whose do not."""
    with Client(stack.url) as client:
        made = [client.create(spec) for spec in (VANISHING, HEALTHY)]
        first, second = (client.wait(one.id, timeout=60) for one in made)
    return first, second


@pytest.fixture
def live(stack: Stack, ended: object) -> Iterator[Experiment]:
    with Client(stack.url) as client:
        made = client.create(LONG)
        yield made
        client.cancel(made.id)
        client.wait(made.id, timeout=60)


def test_curves_grow_without_a_reload(dashboard: Watched, live: Experiment) -> None:
    page = dashboard.open(f"/experiments/{live.id}")
    page.evaluate("window.stayed = true")
    dashboard.drawn()
    page.wait_for_function(f"({LAST_DRAWN})() > 0")
    first = page.evaluate(LAST_DRAWN)

    page.wait_for_function(f"before => ({LAST_DRAWN})() > 2 * before", arg=first)
    assert page.evaluate("window.stayed")
    expect(page.locator(".verdict .badge").first).to_have_text("vanishing")
    expect(page.locator(".facts progress")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".facts .dot")).to_have_text("cancelled")


def test_the_verdict_in_words_its_evidence_and_its_charts(
    dashboard: Watched, ended: tuple[Experiment, Experiment]
) -> None:
    vanishing, _ = ended
    page = dashboard.open(f"/experiments/{vanishing.id}")

    expect(page.locator(".sentence")).to_contain_text("Vanishing")
    expect(page.get_by_role("list", name="Remedies").first).to_be_visible()
    for title in ("Gradient flow", "Measured against predicted", "Update ratio", "Activations", "Loss"):
        chart = page.locator("figure", has=page.get_by_role("heading", name=title, exact=True))
        chart.scroll_into_view_if_needed()
        expect(chart.locator(".main-svg").first).to_be_visible()
        assert "nothing yet" not in (chart.locator(".plot").get_attribute("aria-label") or "nothing yet").lower()
    flow = page.locator(".js-plotly-plot").first
    assert flow.evaluate("plot => plot.data[0].z.length") == 6
    assert flow.evaluate("plot => plot.data[0].z[0][0] < -1.5")  # layer1 gets less than a thirtieth of layer6's
    assert flow.evaluate("plot => plot.layout.shapes.length") >= 1  # the finding's mark

    ridges = page.locator("figure", has=page.get_by_role("heading", name="Distribution over time"))
    ridges.scroll_into_view_if_needed()
    expect(ridges.locator(".main-svg").first).to_be_visible()
    assert ridges.locator(".plot").evaluate("plot => plot.layout.xaxis.type") == "log"
    ridges.get_by_text("linear").click()
    page.wait_for_function(
        "() => [...document.querySelectorAll('.js-plotly-plot')].some(p => p.layout.xaxis.title.text === 'value')"
    )


def test_the_list_is_filtered_and_sorted(dashboard: Watched, ended: tuple[Experiment, Experiment]) -> None:
    page = dashboard.open("/")
    names = page.locator(".rows .what > a:first-child")
    expect(page.get_by_text("dashboard sigmoid")).to_be_visible()

    page.get_by_role("searchbox", name="Part of the name").fill("dashboard relu")
    expect(names).to_have_text(["dashboard relu"])
    page.get_by_role("searchbox", name="Part of the name").fill("dashboard")
    page.get_by_role("combobox", name="Verdict").select_option("vanishing")
    expect(page.get_by_text("dashboard relu")).to_have_count(0)
    page.get_by_role("combobox", name="Verdict").select_option("")
    page.get_by_role("searchbox", name="Tag, as key:value").fill("arm:remedy")
    expect(names).to_have_text(["dashboard relu"])
    page.get_by_role("searchbox", name="Tag, as key:value").fill("")
    page.get_by_text("Done", exact=True).click()
    page.get_by_role("button", name="Experiment", exact=True).click()
    expect(names).to_have_text(["dashboard relu", "dashboard sigmoid"])
    page.get_by_role("button", name="Experiment", exact=True).click()
    expect(names).to_have_text(["dashboard sigmoid", "dashboard relu"])
    page.get_by_role("searchbox", name="Part of the name").fill("there is no such name")
    expect(page.get_by_role("heading", name="Nothing matches")).to_be_visible()


def test_two_runs_are_compared(dashboard: Watched, ended: tuple[Experiment, Experiment]) -> None:
    page = dashboard.open("/?name=dashboard&status=succeeded")
    for one in ended:
        page.get_by_role("checkbox", name=f"Choose {one.name}").check()
    page.get_by_role("link", name="Compare", exact=True).last.click()

    expect(page.get_by_role("heading", name="2 runs compared")).to_be_visible()
    expect(page.locator("tbody tr")).to_have_count(2)
    expect(page.locator("thead")).to_contain_text("network activation")
    expect(page.locator("thead")).not_to_contain_text("training seed")
    dashboard.drawn(2)
    assert page.locator(".js-plotly-plot").first.evaluate(
        "plot => plot.data.filter(t => t.name).map(t => t.name).sort()"
    ) == [
        "dashboard relu",
        "dashboard sigmoid",
    ]


def test_an_experiment_is_made_through_the_form(dashboard: Watched, stack: Stack) -> None:
    dashboard.expected = "422"  # of the experiment, and of the prediction beside the form
    page = dashboard.open("/new")
    expect(page.get_by_text("iterations, 1 to 1,000,000")).to_have_count(3)
    expect(page.get_by_role("group", name="Changes to start from")).to_contain_text("Start from")
    expect(page.locator("aside")).to_contain_text("Gradients vanish with depth")
    assert Spec.model_validate_json(page.locator("#raw").input_value()) == Spec()

    page.get_by_label("Name").first.fill("made by the form")
    page.locator("[id='field-dataset-name']").select_option("synthetic")
    page.locator("[id='field-training-iterations']").fill("-3")
    page.get_by_role("button", name="Run it").click()
    refused = page.locator("[id='field-training-iterations']")
    expect(refused).to_have_attribute("aria-invalid", "true")
    expect(refused).to_be_focused()
    expect(page.locator("[id='field-training-iterations-fault']")).to_contain_text("greater than or equal to 1")

    refused.fill("300")
    page.get_by_role("button", name="Run it").click()
    expect(page.get_by_role("heading", name="made by the form")).to_be_visible()
    expect(page.locator(".facts .dot")).to_have_text("done", timeout=60_000)
    expect(page.locator(".verdict .badge").first).to_have_text("vanishing")
    with Client(stack.url) as client:
        assert client.get(page.url.rpartition("/")[2]).verdict == "vanishing"

    page.get_by_role("button", name="Try it").first.click()
    expect(page.locator("[id='field-network-activation']")).to_have_value("relu")


def test_a_sweep_is_a_table_and_a_heat_map(dashboard: Watched, stack: Stack) -> None:
    axes = {"/network/activation": ["sigmoid", "relu"], "/training/seed": [0, 1]}
    with Client(stack.url) as client:
        made = client.sweep(axes, base={"dataset": "synthetic", "training": {"iterations": 100}})
        client.wait_sweep(made.id)
    page = dashboard.open("/sweeps")
    page.locator("tbody a").first.click()

    expect(page.locator("tbody tr")).to_have_count(4)
    dashboard.drawn()
    assert page.locator(".js-plotly-plot").evaluate("plot => plot.data[0].z.flat().filter(v => v > 0).length") == 4
    assert violations(page) == []


def test_a_key_is_asked_for_and_kept_in_this_tab(browser: Browser, tmp_path: Path, sqlite_template: Path) -> None:
    settings = Settings(data_directory=tmp_path, redis_url="redis://127.0.0.1:1/0", authentication="required")
    shutil.copy(sqlite_template, str(settings.database.database))
    database = Database(settings.database)
    key = bearer(database, "ada")
    with serving(settings) as client, watched(browser, str(client.base_url).rstrip("/")) as dashboard:
        page = dashboard.page
        page.goto(f"{dashboard.origin}/")
        expect(page.get_by_role("heading", name="This server asks for a key")).to_be_visible()
        page.get_by_label("Key", exact=True).fill("gp_wrong")
        page.get_by_role("button", name="Open").click()
        expect(page.get_by_role("alert")).to_be_visible()
        page.get_by_label("Key", exact=True).fill(key.secret)
        page.get_by_role("button", name="Open").click()
        expect(page.get_by_role("heading", name="No experiments yet")).to_be_visible()
        page.reload()
        expect(page.get_by_role("heading", name="No experiments yet")).to_be_visible()
        assert page.evaluate("Object.values(localStorage).join()").count("gp_") == 0
        page.get_by_role("button", name="Forget key").click()
        expect(page.get_by_role("heading", name="This server asks for a key")).to_be_visible()
        assert all(re.search("401", fault) for fault in dashboard.faults)
        dashboard.faults.clear()  # Chromium itself reports each 401
    database.close()


def _numbered(number: int, now: float) -> dict[str, Any]:
    name, then = f"number {number}", now - 10_000 + number
    return {"id": f"exp_{number:026}", "name": name, "folded_name": name, "created_at": then, "finished_at": then}


@pytest.fixture
def crowded(browser: Browser, tmp_path: Path, sqlite_template: Path) -> Iterator[Watched]:
    """The dashboard of a server with ten thousand experiments, a second apart."""
    settings = Settings(data_directory=tmp_path, redis_url="redis://127.0.0.1:1/0")
    shutil.copy(sqlite_template, str(settings.database.database))
    database = Database(settings.database)
    Store(database).create()
    with database.write() as connection:
        row = dict(connection.execute(select(experiments)).mappings().one())
        row |= {"status": "succeeded", "verdict": "healthy"}
        connection.execute(delete(experiments))
        connection.execute(
            insert(experiments), [row | _numbered(number, row["created_at"]) for number in range(10_000)]
        )
    with serving(settings) as client, watched(browser, str(client.base_url).rstrip("/")) as page:
        yield page
    database.close()


def test_ten_thousand_experiments_are_paged_filtered_and_found(crowded: Watched) -> None:
    page = crowded.open("/")
    rows, names = page.locator(".rows .row"), page.locator(".rows .what > a:first-child")
    expect(rows).to_have_count(50)
    expect(page.get_by_text("50 experiments loaded")).to_be_visible()
    expect(names.first).to_have_text("number 9999")
    for loaded in (250, 450, 650):
        page.get_by_role("button", name="Show more").click()
        expect(rows).to_have_count(loaded)
    expect(names.last).to_have_text("number 9350")
    page.get_by_role("button", name="Experiment", exact=True).click()
    expect(rows).to_have_count(50)
    expect(names.first).to_have_text("number 0")  # of all there are, not of those that were loaded
    expect(names.last).to_have_text("number 1041")
    page.get_by_role("button", name="Show more").click()
    expect(rows).to_have_count(250)
    expect(names.last).to_have_text("number 1221")
    expect(page.get_by_role("columnheader", name="Experiment", exact=True)).to_have_attribute("aria-sort", "ascending")
    page.get_by_role("button", name="Created").click()
    page.get_by_role("button", name="Created").click()
    expect(names.first).to_have_text("number 0")
    page.get_by_role("button", name="Experiment", exact=True).click()
    page.get_by_role("button", name="Experiment", exact=True).click()
    expect(names.first).to_have_text("number 9999")
    page.reload()
    expect(names.nth(1)).to_have_text("number 9998")
    expect(page.get_by_role("columnheader", name="Experiment", exact=True)).to_have_attribute("aria-sort", "descending")
    page.get_by_role("searchbox", name="Part of the name").fill("number 1234")
    expect(names).to_have_text(["number 1234"])  # on none of the pages that were loaded
    assert violations(page) == []


@pytest.mark.large
def test_twenty_runs_are_compared(dashboard: Watched, stack: Stack) -> None:
    with Client(stack.url) as client:
        base = {"dataset": "synthetic", "training": {"iterations": 30}}
        made = client.sweep({"/training/seed": list(range(20))}, base=base)
        ids = [member.experiment_id for member in client.wait_sweep(made.id).members]
    page = dashboard.open(f"/compare?ids={','.join(ids)}")
    expect(page.get_by_role("heading", name="20 runs compared")).to_be_visible()
    expect(page.locator("tbody tr")).to_have_count(20)
    dashboard.drawn(2)
    lines = "plot => new Set(plot.data.filter(t => t.name).map(t => t.name)).size"
    assert page.locator(".js-plotly-plot").first.evaluate(lines) == 20
    assert violations(page) == []


@pytest.mark.large
def test_a_thousand_layers_are_drawn(dashboard: Watched, stack: Stack) -> None:
    deep = {
        "dataset": "synthetic",
        "network": {"depth": 1000, "width": 2},
        "training": {"iterations": 3, "batch_size": 2},
    }
    with Client(stack.url) as client:
        made = client.wait(client.create(deep).id, timeout=120)
        assert made.status == "succeeded"
    page = dashboard.open(f"/experiments/{made.id}")
    dashboard.drawn(2)
    flow = page.locator(".js-plotly-plot").first
    assert flow.evaluate("plot => plot.data[0].z.length") == 1000
    ratios = page.locator("figure", has=page.get_by_role("heading", name="Update ratio", exact=True))
    ratios.scroll_into_view_if_needed()
    expect(ratios.locator(".main-svg").first).to_be_visible()
    assert 1 <= ratios.locator(".plot").evaluate("plot => plot.data.filter(t => t.name).length") <= 12
    assert violations(page) == []
    page.get_by_role("link", name="Experiments").first.click()  # it answers
    expect(page.get_by_role("heading", name="Experiments")).to_be_visible()


def test_what_is_drawn_is_what_was_measured(dashboard: Watched) -> None:
    """The modules' own arithmetic, in the browser that runs it."""
    page = dashboard.open("/new")
    in_page = """async () => {
      const { buckets, magnitudes, summarized } = await import("/dashboard/series.js");
      const { merge } = await import("/dashboard/verdict.js");
      const reduced = { steps: [0, 3, 4, 7, 8], reduction: { method: "minmax", bucket: 4 } };
      const { groups, steps } = buckets(reduced);
      const layer = { edges: [-0.2, -0.1, 0.1, 0.2, 2, 4], counts: [[2, 0, 2, 0, 4]], zero: [8] };
      const shares = magnitudes(layer, 0);
      return { steps, drawn: summarized([1, 100, null, 4, 0], groups, true),
        total: shares.y.reduce((a, b) => a + b, 0), zero: shares.zero,
        merged: merge({ a: { b: 1, c: 2 }, d: [1] }, { a: { b: null, e: 3 }, d: [2] }) };
    }"""
    assert page.evaluate(in_page) == {
        "steps": [1.5, 5.5, 8],
        "drawn": {"low": [1, 4, 0], "middle": [10, 4, None], "high": [100, 4, 0]},
        "total": 0.5,
        "zero": 0.5,
        "merged": {"a": {"c": 2, "e": 3}, "d": [2]},
    }
