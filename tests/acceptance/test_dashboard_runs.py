"""A training loop of somebody's own, reported by `gradprobe.watch`, on the dashboard: while it goes on, and after."""

import threading
from collections.abc import Iterator

import pytest
import torch
from playwright.sync_api import Browser, expect
from torch import nn

import gradprobe
from gradprobe.embedded import Stack
from gradprobe.watching import Watching
from tests.acceptance.browser import violations, watched
from tests.acceptance.conftest import until
from tests.acceptance.test_dashboard import LAST_DRAWN


def chain() -> nn.Module:
    """Eight dense layers under sigmoid, in which gradients vanish."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Linear(20, 10), nn.Sigmoid()]
    for _ in range(6):
        layers += [nn.Linear(10, 10), nn.Sigmoid()]
    return nn.Sequential(*layers, nn.Linear(10, 4))


class Loop:
    """It goes on until it is told to stop."""

    def __init__(self, url: str, name: str, model: nn.Module, shape: tuple[int, ...]) -> None:
        self.watching: Watching | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(url, name, model, shape))
        self._thread.start()

    @property
    def id(self) -> str | None:
        """Of the run, once the server has told it."""
        return self.watching.id if self.watching is not None else None

    def stop(self) -> None:
        """End it, with everything reported."""
        self._stop.set()
        self._thread.join(60)

    def _run(self, url: str, name: str, model: nn.Module, shape: tuple[int, ...]) -> None:
        optimizer, criterion = torch.optim.Adam(model.parameters()), nn.CrossEntropyLoss()
        with gradprobe.watch(model, optimizer, criterion=criterion, url=url, name=name) as self.watching:
            while not self._stop.wait(0.005):
                loss = criterion(model(torch.rand(16, *shape)), torch.randint(0, 4, (16,)))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()


@pytest.fixture
def loop(stack: Stack) -> Iterator[Loop]:
    going = Loop(stack.url, "my own loop", chain(), (20,))
    until(lambda: going.id, what="the first report")
    yield going
    going.stop()


@pytest.mark.thorough
def test_a_loop_grows_on_the_dashboard_and_ends_there(browser: Browser, stack: Stack, loop: Loop) -> None:
    with watched(browser, stack.url, viewport={"width": 1280, "height": 900}) as dashboard:
        page = dashboard.open("/?name=my+own+loop")
        row = page.locator(".rows .row")
        expect(row.locator("small")).to_contain_text("own loop · Sequential · 8 layers · Adam 0.001")
        expect(row.locator(".status")).to_have_text("running")  # nobody said how long it will be: no share of it
        row.locator(".what a").first.click()

        expect(page.locator(".verdict .badge").first).to_have_text("vanishing")
        expect(page.locator(".sentence")).to_contain_text("Vanishing")
        dashboard.drawn()
        first = page.evaluate(LAST_DRAWN)
        page.wait_for_function(f"before => ({LAST_DRAWN})() > before", arg=first)
        for title in ("Gradient flow", "Measured against predicted", "Update ratio", "Distribution over time", "Loss"):
            chart = page.locator("figure", has=page.get_by_role("heading", name=title, exact=True))
            chart.scroll_into_view_if_needed()
            expect(chart.locator(".main-svg").first).to_be_visible()
        # Nothing of it can be run here.
        for name in ("Copy", "Try it", "Try again"):
            expect(page.get_by_text(name, exact=True)).to_have_count(0)
        assert violations(page) == []
        loop.stop()
        expect(page.locator(".facts .dot")).to_have_text("done")


@pytest.mark.thorough
def test_a_network_that_theory_does_not_know_is_told_as_such(browser: Browser, stack: Stack) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 4)
    )
    loops = [Loop(stack.url, "my convolutions", model, (1, 12, 12)), Loop(stack.url, "my chain", chain(), (20,))]
    ids = [until(lambda one=one: one.id, what="the first report") for one in loops]  # type: ignore[misc]
    for one in loops:
        one.stop()
    for width in (1280, 390):
        with watched(browser, stack.url, color_scheme="dark", viewport={"width": width, "height": 1600}) as dashboard:
            page = dashboard.open(f"/experiments/{ids[0]}")
            expect(page.get_by_text("Theory does not know this network: 0 is a convolution.")).to_be_attached()
            assert violations(page) == []
            page = dashboard.open(f"/compare?ids={','.join(ids)}")
            expect(page.locator("tbody tr")).to_have_count(2)
            dashboard.drawn(2)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert violations(page) == []
