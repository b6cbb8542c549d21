"""Spacivox: too much at once, failures, and what happens next to a poll."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest
from aiohttp import web
from aiohttp.test_utils import unused_port
from rigs.spacivox import NOW, TOKEN, VOICEMAIL, Bridge, record, stamp

from bridge.adapters.sqlite.store import SqliteStore
from bridge.domain import errors
from bridge.http.client import HttpClient, HttpLimits
from bridge.http.errors import RequestRejected
from bridge.http.limiter import Limiter
from bridge.ingest.intake import Intake
from bridge.protocols.request_context import LeaseDeadline, bind, reset
from bridge.reconciliation.comparison import CompareOptions
from bridge.reconciliation.reconciler import Reconciler
from bridge.sources.spacivox import SpacivoxSettings, plugin
from bridge.testing.fakes import ManualTime


@pytest.mark.parametrize("refusal", [400, 408, 413, 504, 524])
async def test_oversized_slice_is_halved_until_accepted(vendor, bridge, refusal) -> None:
    vendor.widest, vendor.refusal = timedelta(hours=4), refusal
    vendor.records = [record(number, 0, NOW - timedelta(hours=number)) for number in range(1, 71)]
    poller = bridge()
    result = await poller.poll()
    assert result.problems == []
    assert sorted(int(subject) for subject, _, _ in poller.memory.said) == list(range(1, 71))
    assert len(vendor.requests) < 60


async def test_oversized_slice_is_halved_also_after_retry_after(vendor, bridge, time) -> None:
    vendor.widest, vendor.wait = timedelta(hours=4), "10"
    vendor.records = [record(1), record(2, 0, NOW - timedelta(hours=70))]
    poller = bridge()
    result = await poller.poll()
    assert result.problems == []
    assert sorted(subject for subject, _, _ in poller.memory.said) == ["1", "2"]
    assert time.now - NOW >= timedelta(seconds=30)


async def test_long_retry_after_ends_poll_and_next_asks_less(vendor, bridge, time) -> None:
    vendor.widest, vendor.wait = timedelta(hours=2), "120"
    vendor.records = [record(1, 0, NOW - timedelta(hours=23)), record(2)]
    poller = bridge(lookback="24h")
    with pytest.raises(errors.Transient) as caught:
        await poller.poll()
    assert caught.value.retry_after == pytest.approx(120, abs=5)
    assert time.now - NOW < timedelta(seconds=60)
    for _ in range(6):
        time.passes(seconds=120)
        with suppress(errors.Transient):
            await poller.poll()
    assert sorted(subject for subject, _, _ in poller.memory.said) == ["1", "2"]


async def test_a_wish_for_fewer_requests_does_not_undo_the_halving(vendor, bridge, time) -> None:
    vendor.widest, vendor.refusal = timedelta(hours=8), 413
    vendor.throttled_at = 2
    poller = bridge(lookback="24h")
    with pytest.raises(errors.Transient):
        await poller.poll()
    time.passes(minutes=1)
    result = await poller.poll()
    assert result.problems == []
    assert [span > vendor.widest for span in vendor.spans()[:3]] == [True, False, False]


async def test_silence_is_too_much_as_well(vendor, bridge, time) -> None:
    vendor.widest, vendor.refusal = timedelta(hours=8), 0
    vendor.records = [record(1, 0, NOW - timedelta(hours=30)), record(2)]
    poller = bridge(lookback="36h")
    await hurry(poller)
    result = await poller.poll()
    assert result.problems == []
    assert [subject for subject, _, _ in poller.memory.said] == ["1", "2"]


async def test_answer_over_the_size_limit_is_too_large(vendor, bridge) -> None:
    vendor.records = [record(number, 0, NOW - timedelta(minutes=number)) for number in range(1, 200)]
    poller = bridge(lookback="12h")
    await hurry(poller, body=8000)
    await poller.poll()
    assert len(poller.memory.said) == 199


async def hurry(poller: Bridge, **limits) -> None:
    """Give the source a client with less patience."""
    source = poller.source.client
    client = source.http
    await client.close()
    source.http = HttpClient(
        str(client.origin),
        limiter=Limiter(1000.0, poller.time.clock),
        clock=poller.time.clock,
        headers=source._credentials.headers,
        limits=HttpLimits(read=0.3, retries=0, **limits),
    )


async def test_accepted_span_is_remembered_and_rarely_enlarged(vendor, bridge, time) -> None:
    vendor.widest, vendor.refusal = timedelta(hours=4), 413
    poller = bridge()
    await poller.poll()
    for _ in range(3):
        vendor.requests.clear()
        time.passes(minutes=10)
        await poller.poll()
        refused = [span for span in vendor.spans() if span > vendor.widest]
        assert len(refused) <= 2 < 20 <= len(vendor.spans()) - len(refused)
    vendor.widest = None
    time.passes(minutes=10)
    await poller.poll()
    vendor.requests.clear()
    time.passes(minutes=10)
    await poller.poll()
    assert round(max(vendor.spans()) / timedelta(hours=1)) == 24


async def test_single_failure_does_not_shrink_the_span_for_long(vendor, bridge, time) -> None:
    poller = bridge()
    await poller.poll()
    vendor.widest, vendor.refusal = timedelta(seconds=1), 413
    time.passes(minutes=10)
    with pytest.raises(RequestRejected):
        await poller.poll()
    vendor.widest = None
    vendor.requests.clear()
    time.passes(minutes=10)
    await poller.poll()
    assert len(vendor.requests) < 40


async def test_request_refused_for_one_minute_is_wrong_itself(vendor, bridge) -> None:
    vendor.answer = web.Response(status=400, text="team?")
    with pytest.raises(errors.Permanent, match=r"400.*even for 60 s of records: check url and team") as caught:
        await bridge().poll()
    assert caught.value.__cause__ is None
    assert min(vendor.spans()) <= timedelta(minutes=1, seconds=2)


async def test_failed_slice_does_not_stop_others_and_is_reread(vendor, bridge, time) -> None:
    vendor.records = [record(number, 0, NOW - timedelta(hours=24 * number - 18)) for number in (1, 2, 3)]
    vendor.broken = {"2015-01-05"}
    poller = bridge()
    result = await poller.poll()
    assert [subject for subject, _, _ in poller.memory.said] == ["3", "1"]
    assert result.problems == [
        f"voicemail_drop from 2015-01-05T00:00:00.000Z: GET {VOICEMAIL.path}: 500, the provider failed; read again at the next poll"
    ]
    vendor.broken = set()
    time.passes(seconds=60)
    result = await poller.poll()
    assert [subject for subject, _, _ in poller.memory.said] == ["3", "1", "2"]
    assert result.problems == []
    assert poller.memory.events[-1].data.observed.after is None


async def test_pages_of_a_half_failed_slice_are_kept(vendor, bridge) -> None:
    vendor.widest = timedelta(hours=13)
    vendor.broken = {"2015-01-05"}
    vendor.records = [record(1, 0, NOW - timedelta(hours=59))]
    poller = bridge(slice="96h")
    pages = await poller.pages()
    assert [seen.key for page in pages for seen in page.observations] == ["1"]
    assert not any(page.cursor for page in pages[:1])


async def test_when_nothing_can_be_read_the_poll_has_failed(vendor, bridge) -> None:
    vendor.answer = web.Response(status=500)
    poller = bridge()
    with pytest.raises(errors.Transient, match="500"):
        await poller.poll()
    assert poller.memory.entries == {}
    assert len(vendor.requests) == 4


async def test_unreachable_server_is_not_asked_for_every_slice(vendor, bridge) -> None:
    poller = bridge(url=f"http://127.0.0.1:{unused_port()}", lookback="720h")
    with pytest.raises(errors.Transient, match="cannot connect"):
        await poller.poll()
    assert len(poller.source.problems) == 3


async def test_unreadable_old_records_do_not_block_newer_ones(vendor, bridge) -> None:
    vendor.silent = {"2015-01-03", "2015-01-04"}
    vendor.records = [record(1), record(2, 0, NOW - timedelta(hours=30))]
    poller = bridge(lookback="84h")
    result = await poller.poll()
    assert sorted(subject for subject, _, _ in poller.memory.said) == ["1", "2"]
    assert [problem[:30] for problem in result.problems] == [
        f"voicemail_drop from 2015-01-{day}" for day in ("03", "04")
    ]


async def test_rate_limited_old_records_do_not_block_newer_ones(vendor, bridge, time) -> None:
    vendor.throttled = {"2015-01-04"}
    vendor.records = [record(1), record(2, 0, NOW - timedelta(hours=30))]
    poller = bridge()
    for _ in range(2):
        with pytest.raises(errors.Transient):
            await poller.poll()
        time.passes(minutes=1)
    assert sorted(subject for subject, _, _ in poller.memory.said) == ["1", "2"]


@pytest.mark.parametrize("backfill", [False, True])
async def test_spacivox_stops_asking_after_losing_its_lease(vendor, bridge, time, backfill) -> None:
    poller = bridge()
    lease_deadline = LeaseDeadline("source/drops", 1e9)

    async def ends(since, until) -> None:
        lease_deadline.until = -1e9

    vendor._refusal = ends
    held = bind(lease=lease_deadline)
    try:
        with pytest.raises(errors.LeaseLost):
            await (_backfill(poller) if backfill else poller.poll())
    finally:
        reset(held)
    assert len(vendor.requests) == 1


async def _backfill(poller: Bridge) -> None:
    async for _ in poller.source.backfill(NOW - timedelta(days=4), NOW):
        pass


async def test_a_wrong_token_is_said_so_and_asked_once(vendor, bridge) -> None:
    with pytest.raises(errors.Unauthorized, match="check the token") as caught:
        await bridge(token="wrong-token").poll()
    assert "wrong-token" not in str(caught.value)
    assert len(vendor.requests) == 1


async def test_forbidden_record_sort_does_not_stop_others(vendor, bridge) -> None:
    vendor.forbidden = {"/j/text_records"}
    vendor.records = [record(1)]
    poller = bridge(records=["text", "voicemail_drop"])
    result = await poller.poll()
    assert [topic for _, topic, _ in poller.memory.said] == ["voicemail.drop.sent"]
    (problem,) = result.problems
    assert problem.startswith("text: GET /j/text_records: 403")


async def test_retry_after_ends_the_poll_and_is_passed_on(vendor, bridge) -> None:
    vendor.answer = web.Response(status=429, headers={"Retry-After": "77"})
    with pytest.raises(errors.Transient) as caught:
        await bridge().poll()
    assert caught.value.retry_after == 77
    assert len(vendor.requests) == 1


@pytest.mark.parametrize(
    "body", [b'{"error": "later"}', b"null", b"<html>", b"[{", b"7"], ids=["object", "null", "html", "torn", "number"]
)
async def test_answer_without_a_list_is_not_read_as_empty(vendor, bridge, body) -> None:
    vendor.raw = body
    poller = bridge()
    with pytest.raises(errors.Transient, match="/j/voicemail_drop_records"):
        await poller.poll()
    assert poller.memory.entries == {}


async def test_no_content_is_empty(vendor, bridge) -> None:
    vendor.answer = web.Response(status=204)
    poller = bridge()
    result = await poller.poll()
    assert result.problems == []
    assert poller.memory.entries


async def test_spacivox_past_range_leaves_the_cursor_alone(vendor, bridge) -> None:
    vendor.records = [record(number, 0, NOW - timedelta(days=number)) for number in range(1, 40)]
    poller = bridge()
    pages = [page async for page in poller.source.backfill(NOW - timedelta(days=20, hours=1), NOW - timedelta(days=10))]
    assert sorted(int(seen.key) for page in pages for seen in page.observations) == list(range(10, 21))
    assert not any(page.cursor for page in pages)
    vendor.broken = {"2014-12-20"}
    pages = [page async for page in poller.source.backfill(NOW - timedelta(days=20, hours=1), NOW - timedelta(days=10))]
    assert "2014-12-20" in poller.source.problems[0]


@pytest.mark.parametrize("meaning", ["created", "updated"])
async def test_records_outside_the_window_are_not_reported_missing(vendor, bridge, time, tmp_path, meaning) -> None:
    vendor.records = [record(number, 1, NOW - timedelta(hours=71)) for number in range(1, 20)]
    poller = bridge(timestamp_is=meaning)
    store = SqliteStore(tmp_path / "ledger.db", clock=time.clock)
    await store.open()
    try:
        intake = Intake("drops", "spacivox", poller.source, store, time.clock)
        lease = await store.acquire("source/drops", "me", 1e9)
        await intake.poll(lease)
        time.passes(hours=5)
        vendor.records[0]["timestamp"] = stamp(time.now - timedelta(minutes=5))
        vendor.records.append(record(50, 1, time.now - timedelta(minutes=3)))
        await intake.poll(lease)
        report = await Reconciler("drops", poller.source, store, time.clock).compare(CompareOptions())
    finally:
        await store.close()
    assert report.differences == []
    assert report.failures == {}


@pytest.mark.parametrize("team", [None, 1, [1, 2]])
async def test_record_missing_inside_the_window_is_reported(vendor, bridge, time, tmp_path, team) -> None:
    vendor.records = [record(number, 1, NOW - timedelta(hours=number)) for number in range(1, 9)]
    poller = bridge(team=team)
    store = SqliteStore(tmp_path / "ledger.db", clock=time.clock)
    await store.open()
    try:
        intake = Intake("drops", "spacivox", poller.source, store, time.clock)
        await intake.poll(await store.acquire("source/drops", "me", 1e9))
        time.passes(hours=1)
        del vendor.records[2]
        report = await Reconciler("drops", poller.source, store, time.clock).compare(CompareOptions())
    finally:
        await store.close()
    assert [(poller.resource, poller.what) for poller in report.differences] == [
        ("/j/voicemail_drop_records/3", "gone")
    ]


async def test_the_check_says_what_the_interval_costs(vendor, bridge) -> None:
    vendor.records = [record(1, 0, NOW - timedelta(seconds=30))]
    probe = await bridge(records=["voicemail_drop", "text"]).source.probe()
    assert "127.0.0.1 answers for voicemail_drop, text (2 in the last minute)" in probe.summary
    assert probe.requests_per_day == pytest.approx(2 * (1440 + 3 * 144))
    assert TOKEN not in probe.summary
    with pytest.raises(errors.Unauthorized):
        await bridge(token="wrong").source.probe()


async def test_spacivox_has_nothing_to_watch(bridge) -> None:
    source = bridge().source
    with pytest.raises(ValueError, match="follows every record for 72h by itself"):
        source.resource("/j/voicemail_drop_records/1")
    assert list(await source.complete([])) == []


def test_spacivox_defaults_are_the_documented_ones() -> None:
    values = SpacivoxSettings(type="spacivox", url="https://x.example", token=TOKEN)
    assert (values.team, values.lookback, values.interval, values.records) == (None, 259200.0, 60.0, ["voicemail_drop"])
    assert (values.slice, values.timestamp_is) == (86400.0, "created")
    source = plugin.build("drops", values, ManualTime(NOW).clock)
    assert source.retention > values.catch_up + values.lookback
    assert replace(VOICEMAIL, path="/x").channel == "voicemail"
