"""`Client` and `AsyncClient` are one surface: what one can do, the other can, in the same words."""

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, get_type_hints

import pytest

from gradprobe import AsyncClient, Client
from gradprobe.blocks import StatisticsBlock
from gradprobe.client.wire import each, now
from gradprobe.spec import Spec
from gradprobe.statistics import Tensor
from gradprobe.subject import WatchedSpec


def public(client: type) -> dict[str, Any]:
    return {name: getattr(client, name) for name in dir(client) if not name.startswith("_")}


METHODS = sorted(name for name, member in public(Client).items() if callable(member))


def hints(function: Callable[..., Any]) -> dict[str, Any]:
    for_types = {"Spec": Spec, "StatisticsBlock": StatisticsBlock, "Tensor": Tensor, "WatchedSpec": WatchedSpec}
    return get_type_hints(function, {**vars(inspect.getmodule(function)), **for_types})


def test_both_have_the_same_names() -> None:
    assert set(public(Client)) == set(public(AsyncClient))
    assert len(METHODS) > 30
    assert inspect.signature(Client) == inspect.signature(AsyncClient)


@pytest.mark.parametrize("name", METHODS)
def test_both_take_the_same_arguments_and_give_the_same(name: str) -> None:
    blocking, waiting = getattr(Client, name), getattr(AsyncClient, name)
    assert inspect.signature(blocking).parameters == inspect.signature(waiting).parameters
    given, awaited = hints(blocking).pop("return"), hints(waiting).pop("return")
    if getattr(given, "__origin__", None) is Iterator:
        assert inspect.isasyncgenfunction(waiting)
        assert awaited == AsyncGenerator[(*given.__args__, None)]
    else:
        assert inspect.iscoroutinefunction(waiting)
        assert awaited == given


@pytest.mark.parametrize("name", METHODS)
def test_both_say_the_same_of_it(name: str) -> None:
    first, second = ((getattr(client, name).__doc__ or "").splitlines()[0] for client in (Client, AsyncClient))
    assert first.removeprefix("Block until") == second.removeprefix("Wait until")


def test_what_blocks_waits_for_nothing_else() -> None:
    async def waiting() -> None:
        await asyncio.sleep(0)

    with pytest.raises(AssertionError, match="blocking wire"):
        now(waiting())


def test_what_is_left_in_the_middle_is_closed() -> None:
    closed: list[int] = []

    async def numbers() -> AsyncGenerator[int, None]:
        try:
            for number in range(5):
                yield number
        finally:
            closed.append(number)

    for number in each(numbers()):
        if number == 2:
            break
    assert closed == [2]
    assert list(each(numbers())) == [0, 1, 2, 3, 4]
