"""Every definition that ships keeps the promises that differ between definitions, whatever its shape."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from bridge.cli.support.samples import differences
from bridge.providers import loading
from bridge.testing.definition_suite import suite_of
from bridge.testing.fake_endpoint import reply, reset

NAMES = sorted(loading.installed())
OTHERS = [name for name in NAMES if name not in ("twilio-messages", "vonage-sms", "mailgun-events")]
"""Those whose suite does not run whole: one of each shape does."""
PROMISES = (
    "what_is_new_is_told_once",
    "what_happens_to_it_later_is_told_once_each_time",
    "many_that_come_at_once_are_all_told",
    "the_same_cursor_shows_the_same",
    "poll_interrupted_after_any_page_loses_nothing",
    "a_backfill_tells_what_is_new_and_nothing_twice",
    "a_resource_keeps_its_scope_and_its_key",
    "every_status_has_an_event_that_is_announced",
    "a_probe_says_in_a_line_that_all_is_well",
    "refused_credentials_are_told_apart",
)
SEED = 1
STEPS = 20


def suite(name):
    return suite_of(name, loading.load(loading.find(name, Path())))()


@pytest.mark.parametrize("name", NAMES)
def test_samples_become_the_events_that_they_expect(name):
    definition = loading.load(loading.find(name, Path()))
    assert definition.samples
    assert list(differences(definition)) == []


@pytest.mark.parametrize("promise", PROMISES)
@pytest.mark.parametrize("name", OTHERS)
async def test_definition_keeps_the_promise(tmp_path, name, promise):
    own = suite(name)
    async with own.at_work(tmp_path) as work:
        await getattr(own, f"test_{promise}")(work)


@pytest.mark.parametrize("name", NAMES)
async def test_random_history_with_faults_and_kills_balances(tmp_path, name):
    """Nothing is lost and nothing made up, whatever fails between two commits."""
    random = Random(f"{name} {SEED}")
    faults = (reply(500), reply(503), reset(), reply(429, b"", {"Retry-After": "1"}), reply(200, b"<html>"))
    own = suite(name)
    async with own.at_work(tmp_path) as work:
        alive: list[str] = []
        for _ in range(STEPS):
            match random.randrange(5):
                case 0 | 1:
                    alive += work.add(random.randint(1, 3))
                case 2 if alive:
                    await work.publish_all()  # a poll cannot see what came and went between two of them
                    work.move(alive.pop(random.randrange(len(alive))))
                case 3:
                    work.provider.answer(*[work.account.answer] * random.randrange(3), random.choice(faults))
                    await work.poll()
                    work.provider.forget()
                case _:
                    work.ledger.left = random.randrange(3)
                    await work.poll()
                    work.ledger.left = None
                    work.begin()
            work.time.ahead += random.uniform(1, 600)
        await work.publish_all()
