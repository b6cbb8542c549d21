"""Threads that nobody has to wait for at the end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from bridge.concurrency.daemon_executor import DaemonThreadExecutor


def test_threaded_call_returns_its_result_or_error():
    threads = DaemonThreadExecutor(2)
    assert threads.submit(divmod, 7, 2).result(5) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        threads.submit(divmod, 7, 0).result(5)
    threads.shutdown()


def test_stuck_call_delays_no_other_while_threads_remain():
    threads, stuck = DaemonThreadExecutor(3), threading.Event()
    held = [threads.submit(stuck.wait) for _ in range(2)]
    assert [threads.submit(str, number).result(5) for number in range(20)] == [str(number) for number in range(20)]
    stuck.set()
    assert [call.result(5) for call in held] == [True, True]
    threads.shutdown()


def test_sequential_calls_share_one_thread_that_ends():
    before, threads = {*threading.enumerate()}, DaemonThreadExecutor(8)
    for _ in range(20):
        threads.submit(threading.get_ident).result(5)
    ours = {*threading.enumerate()} - before
    assert len(ours) == 1
    threads.shutdown()
    for thread in ours:
        thread.join(60)
    assert not any(thread.is_alive() for thread in ours)


def test_call_cancelled_before_it_began_is_never_made():
    threads, stuck, made = DaemonThreadExecutor(1), threading.Event(), []
    threads.submit(stuck.wait)
    assert threads.submit(made.append, 1).cancel()
    last = threads.submit(made.append, 2)
    stuck.set()
    last.result(5)
    assert made == [2]
    threads.shutdown()


def test_nothing_is_accepted_after_the_end():
    threads = DaemonThreadExecutor()
    threads.shutdown()
    with pytest.raises(RuntimeError, match="told to end"):
        threads.submit(int)


async def test_it_serves_a_loop_as_its_default_executor():
    asyncio.get_running_loop().set_default_executor(DaemonThreadExecutor())
    assert await asyncio.to_thread(str, 7) == "7"


STUCK = """
import asyncio, threading
from bridge.cli.support.running import run

async def command():
    asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)
    await asyncio.sleep(0.1)
    return "done"

print(run(command()))
"""


def test_silent_name_server_does_not_keep_a_command_running():
    done = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("done\n", "")
