"""A window that is read again: what has not changed is told from its bytes, and only a committed reading is believed."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from rigs.spacivox import NOW, _source, record

from bridge.domain.errors import ConfigError
from bridge.providers import loading
from bridge.sources.rest.records import ItemReader
from bridge.sources.rest.sweep import Overlap
from bridge.testing.definition_suite import suite_of
from bridge.testing.fakes import ManualTime
from bridge.testing.source_suite import NAME


class Polls:
    """A source whose answers a test writes, and its cursor."""

    def __init__(self, **options):
        self.time = ManualTime(NOW)
        self.records = [record(1, 0), record(2, 1)]
        self.cursor = {}
        options = {"lookback": "4h", "slice": "24h", **options}
        self.source = _source(lambda *_: json.dumps(self.records).encode(), self.time, **options)

    async def poll(self, *, committed=True):
        """Return the keys that were shown, and how many more were unchanged."""
        shown, unchanged = [], 0
        async for page in self.source.pages(dict(self.cursor), ()):
            shown += [observation.key for observation in page.observations]
            unchanged += page.unchanged
            if committed:
                self.cursor |= {name: value for name, value in page.cursor.items() if value is not None}
        self.time.passes(minutes=1)
        return shown, unchanged


async def test_unchanged_answer_is_not_read_again():
    polls = Polls()
    assert await polls.poll() == (["1", "2"], 0)
    assert await polls.poll() == ([], 2)
    polls.records[0]["state"] = 1
    assert await polls.poll() == (["1"], 1)
    assert await polls.poll() == ([], 2)
    polls.records[0]["state"] = 0
    assert await polls.poll() == (["1"], 1), "back to what it was is news as well"


async def test_record_with_two_statuses_is_read_whole_again():
    polls = Polls(lookback="12h", slice="24h")
    answers = [[record(1, 0)], [record(1, 1)], [record(1, 0)], [record(1, 0)]]
    polls.source.client.http.get = _in_turn(polls.source.client.http.get, polls, answers)
    polls.source._windows.windows[0]._span.span = timedelta(hours=8)
    assert await polls.poll() == (["1", "1"], 0)
    assert await polls.poll() == (["1"], 0)


def _in_turn(get, polls, answers):
    """Return a client that gives one answer after the other."""

    async def next_answer(target, params):
        polls.records = answers.pop(0)
        return await get(target, params)

    return next_answer


async def test_answer_that_was_not_committed_is_read_again():
    polls = Polls()
    await polls.poll()
    polls.records[0]["state"] = 1
    assert await polls.poll(committed=False) == (["1"], 1)
    assert await polls.poll() == (["1", "2"], 0)
    polls.records[0]["state"] = 0
    assert await polls.poll(committed=False) == (["1"], 1)
    polls.records[0]["state"] = 1
    assert await polls.poll() == (["1", "2"], 0), "the reading in between may be committed in part"


async def test_unchanged_answer_is_read_whole_every_hour():
    polls = Polls()
    await polls.poll()
    assert await polls.poll() == ([], 2)
    polls.time.passes(minutes=59)
    assert await polls.poll() == (["1", "2"], 0)
    assert await polls.poll() == ([], 2)


async def test_unreadable_record_is_reported_at_each_poll():
    polls = Polls()
    polls.records.append({"id": 3})
    for _ in range(3):
        await polls.poll()
        assert polls.source.problems == ["1 records of voicemail_drop without a state that can be read: passed over"]


async def test_many_records_are_told_by_their_answers_alone(monkeypatch):
    monkeypatch.setattr("bridge.sources.rest.unchanged._MAX_RECORDS", 1)
    polls = Polls()
    await polls.poll()
    assert await polls.poll() == ([], 2)
    polls.records[0]["state"] = 1
    assert await polls.poll() == (["1", "2"], 0)
    monkeypatch.setattr("bridge.sources.rest.unchanged._MAX_ANSWERS", 0)
    await polls.poll()
    assert await polls.poll() == (["1", "2"], 0)


async def test_another_process_with_the_cursor_reads_everything():
    polls = Polls()
    await polls.poll()
    other = Polls()
    other.cursor = polls.cursor
    assert await other.poll() == (["1", "2"], 0)


def reader(**changes):
    definition = loading.load(loading.find("plivo-messages", Path()))
    return ItemReader(definition.model_copy(update=changes), {"account": "a"}, {})


def test_value_that_fits_no_field_is_kept_as_it_is():
    item = {"message_uuid": "m", "message_state": "sent", "units": "many", "total_amount": None, "extra": [1]}
    fields = reader().describe(reader().observe(item)).fields
    assert fields["units"] is None
    assert fields["provider"] == {"units": "many", "extra": [1]}


def test_overlap_tells_a_record_once_unless_it_moves():
    own, overlap = reader(), Overlap()
    first, moved = (own.observe({"message_uuid": "m", "message_state": state}) for state in ("sent", "delivered"))
    assert overlap.without_known([first]) == [first]
    assert overlap.without_known([first]) == []
    assert overlap.without_known([first, moved]) == [moved]


def test_path_of_an_event_leads_back_to_its_record():
    own = reader()
    assert own.key_of(own.subject("a/b c")) == "a/b c"
    assert own.key_of("/elsewhere/a") is None
    assert own.scope_at("m", NOW) == "2015-01-06"


@pytest.mark.parametrize("name", ["twilio-messages", "spacivox-texts", "infobip-sms"])
async def test_window_of_a_definition_is_compared_with_the_ledger(tmp_path, name):
    async with suite_of("acme", loading.load(loading.find(name, Path())))().at_work(tmp_path) as work:
        work.add(3)
        await work.publish_all()
        work.time.ahead += timedelta(minutes=10).total_seconds()
        assert await work.poll() is None
        groups = [group async for group in work.source.groups({}, (), everything=True)]
        (group,) = groups
        counts = await work.source.count(group, {}, ask=True)
        assert counts.needs_full_read
        assert await work.source.count("/elsewhere", {}, ask=True) is None
        read = {
            (seen.scope, seen.key)
            async for page in work.source.members(group, await work.store.cursor(NAME))
            for seen in page.observations
        }
        entries = await work.store.read(NAME, (await work.store.journal(NAME)).base, 1000)
        events = [json.loads(entry.event.body) for entry in entries]
        expected = {counts.expects(event["subject"], event["data"]) for event in events}
        assert expected - {None} == read
        assert counts.expects("/elsewhere/1", events[0]["data"]) is None


def test_topics_of_the_bridge_itself_need_its_words_and_fields(tmp_path):
    text = loading.find("spacivox-texts", Path()).read_text()
    file = tmp_path / "mine.yaml"
    file.write_text(
        text.replace('"1": delivered', '"1": arrived').replace("delivered", "arrived").replace("job:", "batch:")
    )
    with pytest.raises(ConfigError) as caught:
        loading.load(file)
    said = str(caught.value)
    assert "status.map: 'arrived' is none of sent, delivered, failed, rejected" in said
    assert "facts.fields.batch: events do not have this field" in said
