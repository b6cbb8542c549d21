"""What SIGHUP does to the service: it asks for a reload, and ends it only if its terminal has gone."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest
from rigs.hangups import default_hangups

from bridge.cli.support import running, signals
from bridge.cli.support.signals import Hangups


@pytest.fixture(autouse=True)
def hangups() -> Iterator[None]:
    with default_hangups():
        yield


async def calls_of(hangups: Hangups, *, after: bool = True) -> list[str]:
    calls: list[str] = []
    came = asyncio.Event()

    def note(call: str) -> None:
        calls.append(call)
        came.set()

    hangups.listen(lambda: note("reload"), lambda: note("end"))
    if after:
        signal.raise_signal(signal.SIGHUP)
    await asyncio.wait_for(came.wait(), 20)
    asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)
    return calls


async def test_each_hangup_asks_for_a_reload() -> None:
    assert await calls_of(Hangups()) == ["reload"]


async def test_hangup_before_the_loop_is_heard_in_it() -> None:
    hangups = Hangups()
    signal.raise_signal(signal.SIGHUP)
    assert await calls_of(hangups, after=False) == ["reload"]


async def test_hangup_of_a_closed_terminal_ends_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([True, False])
    monkeypatch.setattr(signals, "_has_terminal", lambda: next(answers))
    assert await calls_of(Hangups()) == ["end"]


async def test_ignored_hangup_asks_for_nothing() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    hangups = Hangups()
    hangups.listen(pytest.fail, pytest.fail)
    signal.raise_signal(signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_work_with_hangups_of_its_own_is_not_interrupted() -> None:
    async def work() -> str:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, lambda: None)
        signal.raise_signal(signal.SIGHUP)
        await asyncio.sleep(0)
        return "done"

    assert running.run(work(), hangup_ends=False) == "done"
