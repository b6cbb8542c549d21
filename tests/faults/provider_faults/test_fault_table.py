"""A table of bad answers: what follows from each."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from harness import expected
from inprocess import History, polling
from rigs.provider_faults import SETTINGS, SOURCES, STAGES, Stage, stage

from bridge.domain.errors import BridgeError, Permanent, Transient, Unauthorized
from bridge.domain.event import Event
from bridge.http.errors import NotFound, ProviderError, RequestRejected, Throttled, TooLarge
from bridge.simulator import Simulator, SimulatorSettings
from bridge.simulator.fault_catalogue import FAULTS
from bridge.testing.fakes import Jumping

pytestmark = pytest.mark.faults


MIB = 1 << 20


def is_prefix(committed: dict[str, History], shown: dict[str, History]) -> bool:
    """Whether nothing was committed that the provider had not shown, and in that order."""
    return all(shown.get(subject, [])[: len(history)] == history for subject, history in committed.items())


MAX_POLLS = 15
NOTHING, EVERYTHING, OTHERS, SOME = "nothing", "everything", "all but the struck", "what was readable"


@dataclass(frozen=True)
class Row:
    """One behaviour of one provider, and what is promised of it."""

    source: str
    promise: str
    fault: str
    committed: str = EVERYTHING
    """What is committed while the trouble lasts."""
    raises: type[BridgeError] | None = None
    """What each poll fails with."""
    says: str = ""
    """A regular expression that the error, or a line on a single resource, matches."""
    where: str = ""
    """A regular expression of the requests that are struck; `{name}` is one of the stage's resources."""
    value: Any = None
    limit: int | None = None
    share: float = 1.0
    waits: tuple[float, float] = (0.0, 3700.0)
    """Between which seconds the service waits until the next poll."""
    polls: int = 2
    unpolled: bool = False
    """Whether the trouble is there at a first start."""
    all_shown: bool = True
    """Whether the provider shows all that it has once the trouble is over; not what a feed has told already."""
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.source}-{self.fault}: {self.promise}"


REFUSES = "refuses the credentials|token request was refused"
NOT_FOLLOWED = "a redirect: not followed, the token stays here"
BROKE = "the connection broke before the answer was complete"
IN_TIME = "no complete answer within the time allowed"
# Trouble that concerns a provider as a whole: what it is met with, what is said of it, how long the source keeps quiet.
WHOLE: list[tuple[str, str, type[BridgeError], str, dict[str, Any]]] = [
    ("http_500", "a 500 is waited out", Transient, "500, the provider failed", {}),
    ("http_502", "a proxy's 502 in HTML is waited out", Transient, "502, the provider failed", {}),
    ("http_503", "a 503 without a word is waited out", Transient, "503, the provider failed", {}),
    ("http_504", "a 504 is waited out", Transient, "504, the provider failed", {}),
    ("http_408", "a 408 is waited out", Transient, "408, the provider could not answer now", {}),
    ("http_410", "a 410 on everything is a failure and not an empty account", NotFound, "410", {}),
    ("not_found", "a 404 on everything is a failure and not an empty account", NotFound, "404", {}),
    ("too_many", "no request before Retry-After is over", Throttled, "429", {"value": 70, "waits": (70, 76)}),
    (
        "too_many_date",
        "a Retry-After in the form of a date is kept",
        Throttled,
        "429",
        {"value": 90, "waits": (88, 95)},
    ),
    ("too_many_bare", "a 429 without Retry-After is backed off from", Throttled, "429", {"waits": (0, 300)}),
    (
        "retry_after_garbage",
        "a Retry-After that says nothing is backed off from",
        Throttled,
        "429",
        {"waits": (0, 300)},
    ),
    ("retry_after_absurd", "nobody keeps us quiet for more than an hour", Throttled, "429", {"waits": (3590, 3600)}),
    (
        "unavailable_retry_after",
        "a 503 that says when is asked again then",
        Transient,
        "503|asked for quiet",
        {"value": 40, "waits": (38, 300)},
    ),
    ("unauthorized", "a 401 says to check the credentials", Unauthorized, REFUSES, {}),
    ("forbidden", "a 403 says to check the credentials", Unauthorized, REFUSES, {}),
    ("redirect_moved", "a redirect is not followed", RequestRejected, f"301, {NOT_FOLLOWED}", {}),
    ("redirect_elsewhere", "a redirect to another host is not followed", RequestRejected, f"302, {NOT_FOLLOWED}", {}),
    ("html_page", "a page of HTML is no empty list", Transient, "answered HTML instead of JSON", {}),
    ("empty_body", "an answer of nothing is no empty list", Transient, "answered nothing instead of JSON", {}),
    ("json_null", "null is no empty list", Transient, "answered (no JSON|something else)", {}),
    ("wrong_shape", "a number is no empty list", Transient, "answered (no JSON|something else)", {}),
    ("error_in_200", "an error told with a 200 is an error", Transient, "answered (no JSON|something else)", {}),
    ("deep_nesting", "100,000 nested lists are torn JSON", Transient, "torn JSON", {}),
    ("truncated_json", "half of the JSON is torn JSON", Transient, "torn JSON", {}),
    ("broken_gzip", "a body that is no gzip is a broken answer", Transient, BROKE, {}),
    ("huge_body", "a body of 40 MiB is refused", TooLarge, "32 MiB", {"value": 40 * MIB}),
    ("torn_body", "a body shorter than it said is no answer", Transient, BROKE, {}),
    ("torn_chunks", "a chunked body without its end is no answer", Transient, BROKE, {}),
    ("reset_midway", "a connection that is reset midway is no answer", Transient, BROKE, {}),
    ("reset", "a connection that is reset is opened again", Transient, BROKE, {}),
    ("closed_unanswered", "a connection closed without an answer is opened again", Transient, BROKE, {}),
    ("never_answers", "silence is not waited for without end", Transient, IN_TIME, {"polls": 1}),
    ("headers_only", "headers without a body are silence", Transient, IN_TIME, {"polls": 1}),
    ("broken_status_line", "what is not HTTP is a failure", Transient, "not HTTP", {}),
    ("refused", "a refused connection is tried again", Transient, "cannot connect", {"value": 0.3}),
]
# Oddities that an able client reads through.
HARMLESS: list[tuple[str, str, dict[str, Any]]] = [
    ("huge_header", "a header of 70 kB is read", {}),
    ("bom", "a byte order mark is passed over", {}),
    ("wrong_content_type", "JSON counts, whatever it calls itself", {}),
    ("wrong_charset", "JSON is UTF-8, whatever it calls itself", {}),
    ("unknown_charset", "a charset that does not exist is passed over", {}),
    ("gzip", "a compressed body is read", {}),
    ("deflate", "a deflated body is read", {}),
    ("slow_answer", "a slow answer is waited for", {"value": 0.05}),
    ("slow_drip", "an answer in drops is waited for", {"value": 0.05}),
    ("idle_close", "a connection that died while idle is opened again", {"value": 0.05, "committed": SOME}),
    ("unknown_fields", "fields that nobody documented are kept and break nothing", {}),
    ("fields_null", "optional fields may be null", {"all_shown": False}),
    ("fields_absent", "optional fields may be absent", {"all_shown": False}),
    ("fields_other_type", "fields may have another type", {}),
    ("clock_ahead", "a provider's clock that is an hour ahead loses nothing", {}),
    ("clock_behind", "a provider's clock that is an hour behind loses nothing", {}),
    ("garbled_times", "times that cannot be read lose nothing", {}),
    ("duplicated_items", "an item that stands on a page twice is one", {}),
    ("reversed_items", "the order on a page is of no matter", {}),
    (
        "null_item",
        "a null among the items is reported and stops nothing",
        {"says": "no identity|without an id|that say nothing"},
    ),
]
CITY = [
    Row("city", "a message that fails does not stop the others", "http_500", OTHERS, says="{big}: 500", where="{big}\\?$"),
    Row("city", "a message that is not found does not stop the others", "not_found", OTHERS, says="{big}: 404", where="{big}\\?$"),
    Row("city", "a message that is refused does not stop the others", "redirect_moved", OTHERS, says="{big}: 301", where="{big}\\?$"),
    Row("city", "a message in HTML does not stop the others", "html_page", OTHERS, says="{big}: .*HTML", where="{big}\\?$"),
    Row("city", "a message told as an error does not stop the others", "error_in_200", OTHERS, says="{big}: .*no JSON object of a message", where="{big}\\?$"),
    Row("city", "a message too large does not stop the others", "huge_body", OTHERS, says="{big}: .*32 MiB", where="{big}\\?$", value=40 * MIB),
    Row("city", "a message that unpacks to very much does not stop the others", "gzip_bomb", OTHERS, says="{big}: .*32 MiB", where="{big}\\?$", value=40 * MIB, settings={"timeout": "5s"}),
    Row("city", "a torn message does not stop the others", "torn_body", OTHERS, says=f"{{big}}: {BROKE}", where="{big}\\?$"),
    Row("city", "a silent message does not stop the others", "never_answers", OTHERS, says=f"{{big}}: {IN_TIME}", where="{big}\\?$"),
    Row("city", "a page that failed half-way is not the end of the list", "http_500", SOME, says="{big}/recipients: 500", where="{big}/recipients.*page=2"),
    Row("city", "a page torn half-way is not the end of the list", "truncated_json", SOME, says="{big}/recipients: .*torn", where="{big}/recipients.*page=2"),
    Row("city", "a page that answers nothing is not the end of the list", "empty_body", SOME, says="{big}/recipients: .*nothing", where="{big}/recipients.*page=3"),
    Row("city", "a page cut off half-way is not the end of the list", "reset_midway", SOME, says=BROKE, where="{big}/recipients.*page=2"),
    Row("city", "a 202 is not ready and never empty", "still_building", OTHERS, where="{big}/recipients"),
    Row("city", "a 202 on the list of messages leaves those that are followed alone", "still_building", EVERYTHING, where="^/messages/sms\\?"),
    Row("city", "a list that fails leaves the messages that are followed alone", "http_500", EVERYTHING, says="GET /messages/sms: 500", where="^/messages/sms\\?"),
    Row("city", "a collection of calls that fails leaves the other messages alone", "http_500", SOME, says="{call}/recipients/busy: 500", where="{call}/recipients/busy"),
    Row("city", "a vanished message does not stop the others", "vanished_message", SOME, says="{big}: 404", where="{big}\\?$"),
    Row("city", "what slips onto the next page is not reported twice", "shifted_pages"),
    Row("city", "what slips between two pages is reported as missing and read later", "skipping_pages", SOME, says="{big}: 119 recipients are listed, 120 are counted", where="{big}/"),
    Row("city", "a message made while the list is read hides no other", "born_during_walk", unpolled=True, limit=1, polls=3),
    Row("city", "two changes that cancel out in the counts are both seen", "cancelling_changes", SOME, where="{big}\\?$", limit=1),
    Row("city", "a bounce after sent is seen", "late_bounce", where="{big}\\?$", limit=1),
    Row("city", "a status that goes back is an event, and its return another", "regress", SOME, where="{big}\\?$", limit=1),
    Row("city", "a final status that is left is an event, and its return another", "reopen", SOME, where="{big}\\?$", limit=1),
    Row("city", "an item without identity is reported and stops nothing", "no_identity", SOME, says="no identity"),
    Row("city", "a recipient without a status is reported and stops nothing", "status_null", SOME, says="no status or no identity: passed over", where="{big}/recipients"),
    Row("city", "a message without a status is reported, and its recipients are read", "status_null", says="{big}: the message has no status", where="{big}\\?$"),
    Row("city", "a status that no table knows is an event of its own", "unknown_status", SOME, where="{big}\\?$", limit=1),
    Row("city", "a recipient's status that no table knows is an event of its own", "unknown_status", SOME, where="{big}/recipients", limit=1),
    Row("city", "an id beside the link changes nothing", "items_with_id"),
    Row("city", "an id without a link will do", "items_with_id_alone"),
    Row("city", "links with scheme and host name the same resources", "absolute_self_links"),
    Row("city", "counts that do not add up are no error", "counts_do_not_add_up"),
    Row("city", "without counts the recipients are read", "counts_absent"),
    Row("city", "with counts of null the recipients are read", "counts_null"),
    Row("city", "next links with scheme and host are followed", "absolute_links"),
    Row("city", "next links with the page in the path are followed", "page_in_path"),
    Row("city", "a blank inside a link is passed over", "link_blank_inside"),
    Row("city", "links need no blank between them", "link_no_blank"),
    Row("city", "a comma after the last link is passed over", "link_trailing_comma"),
    Row("city", "a relation needs no quotes", "link_unquoted"),
    Row("city", "relations may be in capitals", "link_upper_case"),
    Row("city", "an empty Link header is the end", "link_empty"),
    Row("city", "a next link that leads in a circle ends", "cyclic_next", SOME, says="{big}: the list's next link leads back"),
    Row("city", "pages without end end, of messages too", "endless_pages", says="has led to nobody new for 10 pages", where="{big}/", polls=1),
    Row("city", "a list of messages that begins again and again ends", "endless_pages", says="/messages/voice: 3 pages in a row show nothing new", where="^/messages/voice\\?", polls=1),
    Row("city", "a next link to another host is asked at the configured one", "next_elsewhere", where="{big}"),
    Row("city", "a list's next link to another host is asked at the configured one", "next_elsewhere", where="^/messages/sms\\?", unpolled=True),
    Row("city", "bytes that are no characters hide no page", "invalid_utf8", SOME, where="{small}"),
    Row("city", "a storm of 429 is waited out, and what gets through counts", "too_many", SOME, share=0.5, value=3, polls=12),
    Row("city", "a storm of resets is ridden out", "reset", SOME, share=0.4, polls=6),
    Row("city", "a storm of 500 is ridden out", "http_500", SOME, share=0.4, polls=6),
]  # fmt: skip
DROPS = [
    Row("drops", "a small body that unpacks to very much is refused", "gzip_bomb", NOTHING, raises=TooLarge, says="32 MiB", value=40 * MIB, polls=1),
    Row("drops", "a window that the provider calls too long (400) is asked for in halves", "window_400", value=280),
    Row("drops", "a window that the provider calls too long (413) is asked for in halves", "window_413", value=280),
    Row("drops", "a window that takes too long (504) is asked for in halves", "window_504", value=280),
    Row("drops", "records on the ends of a window are seen though the ends do not count", "exclusive_ends"),
    Row("drops", "a record without an id is reported and stops nothing", "no_identity", SOME, says="without an id: passed over"),
    Row("drops", "a record without a state is reported and stops nothing", "status_null", SOME, says="without a state that can be read: passed over"),
    Row("drops", "a state that no table knows is an event of its own", "unknown_status", SOME),
    Row("drops", "bytes that are no characters hide no page", "invalid_utf8", SOME),
    Row("drops", "a storm of 429 is waited out, and what gets through counts", "too_many", SOME, share=0.5, value=3, polls=10),
    Row("drops", "a storm of resets is ridden out", "reset", SOME, share=0.5, polls=8),
]  # fmt: skip
JOURNEYS = [
    Row("journeys", "a small body that unpacks to very much is refused", "gzip_bomb", NOTHING, raises=TooLarge, says="32 MiB", value=40 * MIB, polls=1),
    Row("journeys", "a watermark that counts as included repeats nothing", "inclusive_start"),
    Row("journeys", "a feed that begins again repeats nothing, and is reported", "feed_starts_over", SOME, says="the provider's watermark went back"),
    Row("journeys", "a short page is not the end of the feed", "short_pages"),
    Row("journeys", "a token that expires before its time is fetched anew", "token_expires_early", limit=1),
    Row("journeys", "a new token that is refused says to check the credentials", "token_expires_early", NOTHING, raises=Unauthorized, says=REFUSES),
    Row("journeys", "429 with code 50100 waits as long as it says", "rate_limited_50100", NOTHING, raises=Throttled, says="50100", waits=(4.9, 300)),
    Row("journeys", "429 with code 50200 keeps quiet for minutes", "blocked_50200", NOTHING, raises=Throttled, says="50200.*nothing is asked for 300 s", waits=(299, 301)),
    Row("journeys", "credentials that are refused say which to check", "token_refused", NOTHING, raises=Unauthorized, says="check client_id, client_secret and account_id", unpolled=True),
    Row("journeys", "a token endpoint that fails is waited out", "http_500", NOTHING, raises=ProviderError, says="POST /v2/token: 500", where="/v2/token", unpolled=True),
    Row("journeys", "a token endpoint that is not there says to check auth_url", "not_found", NOTHING, raises=Permanent, says="check auth_url", where="/v2/token", unpolled=True),
    Row("journeys", "a token endpoint in HTML is waited out", "html_page", NOTHING, raises=ProviderError, says="POST /v2/token: .*HTML", where="/v2/token", unpolled=True),
    Row("journeys", "a token endpoint without a token is waited out", "error_in_200", NOTHING, raises=ProviderError, says="no access_token", where="/v2/token", unpolled=True),
    Row("journeys", "a token endpoint asked too often is left alone as long as it says", "too_many", NOTHING, raises=Throttled, says="429", where="/v2/token", value=60, waits=(59, 66), unpolled=True),
    Row("journeys", "a token endpoint that redirects gets no secret twice", "redirect_elsewhere", NOTHING, raises=Unauthorized, says="302, a redirect: not followed", where="/v2/token", unpolled=True),
    Row("journeys", "a token of one second is renewed as often as that takes", "token_short_lived", unpolled=True),
    Row("journeys", "a token that does not say when it expires is used all the same", "token_without_expiry", unpolled=True),
    Row("journeys", "a REST address without its slash will do", "rest_url_bare", unpolled=True),
    Row("journeys", "a token without a REST address says to set rest_url", "rest_url_absent", NOTHING, raises=Permanent, says="set rest_url", unpolled=True),
    Row("journeys", "a REST address where nobody listens is a failure", "rest_url_elsewhere", NOTHING, raises=ProviderError, says="cannot connect", unpolled=True),
    Row("journeys", "without a watermark the highest event takes its place", "watermark_absent"),
    Row("journeys", "a watermark of null never resets the cursor", "watermark_null"),
    Row("journeys", "a watermark of 0 never resets the cursor", "watermark_zero"),
    Row("journeys", "a watermark that goes back never moves the cursor back", "watermark_backwards", says="the provider's watermark went back"),
    Row("journeys", "a watermark in quotes is a watermark", "watermark_text"),
    Row("journeys", "an empty feed may have null for messages", "messages_null"),
    Row("journeys", "an empty feed may have no messages at all", "messages_absent"),
    Row("journeys", "an empty feed may be a 204", "no_content_204"),
    Row("journeys", "keys at the top level are read like those under info", "keys_at_top_level"),
    Row("journeys", "a reason that the table does not have passes through", "unknown_reason"),
    Row("journeys", "an event of another category is an event of that status", "other_category"),
    Row("journeys", "a category that no table knows is an event of its own", "unknown_status"),
    Row("journeys", "bytes that are no characters hide no page", "invalid_utf8", SOME, all_shown=False),
    Row("journeys", "a page that fails in the middle of the feed is where the next poll goes on", "http_500", SOME, raises=ProviderError, says="500", share=0.5, polls=1),
    Row("journeys", "a storm of 429 is waited out, and what gets through counts", "too_many", SOME, share=0.5, value=3, polls=10),
    Row("journeys", "a storm of resets is ridden out", "reset", SOME, share=0.5, polls=8),
]  # fmt: skip
ROWS = [
    *(
        Row(source, promise, fault, NOTHING, raises=raises, says=says, **more)
        for fault, promise, raises, says, more in WHOLE
        for source in SOURCES
    ),
    *(Row(source, promise, fault, **more) for fault, promise, more in HARMLESS for source in SOURCES),
    *CITY,
    *DROPS,
    *JOURNEYS,
]
# Those with tests of their own, below.
OWN = {"stale_answer"}


def test_every_trouble_that_the_simulator_can_make_has_a_promise():
    assert {row.fault for row in ROWS} | OWN == set(FAULTS)
    assert len({row.id for row in ROWS}) == len(ROWS) > 200


def resolved(text: str, scene: Stage) -> str:
    """Put the paths of the stage's resources into a pattern."""
    for name, path in scene.names.items():
        text = text.replace(f"{{{name}}}", path)
    return text


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
async def test_what_providers_really_do(row: Row, tmp_path: Path) -> None:
    async with stage(row.source, tmp_path, unpolled=row.unpolled, **row.settings) as scene:
        before = await scene.polled.histories()
        scene.move()
        where = resolved(row.where, scene)
        scene.simulator.switch_on(row.fault, path=where, value=row.value, limit=row.limit, share=row.share)
        said: list[str] = []
        for number in range(MAX_POLLS):
            applied = scene.simulator.board.applied[row.fault]
            if number >= row.polls and applied and (row.committed != EVERYTHING or await committed_all(row, scene)):
                break
            wait = await scene.poll()
            error = scene.polled.error
            assert row.waits[0] <= wait <= row.waits[1], wait
            if row.share == 1:
                assert isinstance(error, row.raises) if row.raises else error is None, error
            said += [str(error)] if error else []
            said += scene.polled.problems
        assert scene.simulator.board.applied[row.fault] > 0, "the trouble never struck"
        assert any(re.search(resolved(row.says, scene), line) for line in said) or not row.says, said
        await check_committed(row, scene, before, where)
        scene.simulator.switch_off()
        await scene.complete(all_shown=row.all_shown)


async def committed_all(row: Row, scene: Stage) -> bool:
    """Whether all that was shown is committed, and all that there is was shown; older drops have minutes for that."""
    left = scene.simulator.unseen() if row.all_shown and row.source != "drops" else []
    return not left and not await scene.differences()


async def check_committed(row: Row, scene: Stage, before: dict[str, History], where: str) -> None:
    """Hold what was committed meanwhile against what is promised."""
    committed, shown = await scene.polled.histories(), expected(scene.simulator)
    if FAULTS[row.fault].reads:
        assert is_prefix(committed, shown)
    news = {subject: history for subject, history in committed.items() if history != before.get(subject)}
    if row.committed == NOTHING:
        assert not news
    elif row.committed == EVERYTHING:
        assert await committed_all(row, scene)
        assert news
    elif row.committed == OTHERS:
        applied = re.match(r"/messages/\w+/\d+", where)
        assert applied is not None
        assert news
        assert not any(subject.startswith(applied[0]) for subject in news)
        left = [path for path in scene.simulator.unseen() if not path.startswith(applied[0])]
        assert not left


@pytest.mark.parametrize("source", SOURCES)
async def test_unreadable_provider_for_ten_polls_loses_no_followed_message(source, tmp_path):
    # A gateway that knows no route answers 404 to everything; nobody is to conclude that all messages were deleted.
    async with stage(source, tmp_path) as scene:
        scene.simulator.switch_on("not_found")
        for _ in range(10):
            await scene.poll()
            assert isinstance(scene.polled.error, NotFound)
        scene.move()
        scene.simulator.switch_off()
        await scene.complete()


async def test_abandoned_message_is_followed_again_while_listed(tmp_path):
    async with stage("city", tmp_path) as scene:
        big = scene.names["big"]
        scene.simulator.switch_on("not_found", path=big)
        while not any("no longer followed" in line for line in scene.polled.problems):
            await scene.poll()
            scene.time.ahead += 900
        scene.move()
        asked = scene.simulator.board.applied["not_found"]
        for _ in range(10):
            await scene.poll()
        assert scene.simulator.board.applied["not_found"] - asked <= 1, "it is asked for once an hour at most"
        scene.simulator.switch_off()
        await scene.complete()


async def test_failed_day_does_not_stop_the_next_day(tmp_path):
    async with stage("drops", tmp_path) as scene:
        midnight = scene.time.now().replace(hour=0, minute=0, second=0, microsecond=0)
        yesterday, today = (scene.simulator.world.add_drop(at=(midnight + by).timestamp()) for by in
                            (-timedelta(hours=1), timedelta(seconds=2)))  # fmt: skip
        scene.simulator.switch_on("http_500", path=f"end={midnight:%Y-%m-%d}T00:00:01")
        said: list[str] = []
        for _ in range(12):
            await scene.poll()
            assert scene.polled.error is None
            said += scene.polled.problems
        assert any("500, the provider failed; read again at the next poll" in line for line in said)
        committed = await scene.polled.histories()
        assert today.path in committed
        assert yesterday.path not in committed
        scene.simulator.switch_off()
        await scene.complete()


@pytest.mark.parametrize("source", ["city", "drops"])
async def test_lagging_replica_delays_but_corrupts_nothing(source, tmp_path):
    # Not the feed of what was not sent: there each place is asked for once, and a replica has no earlier answer.
    # The slice of yesterday is asked for in the same words all the time, at whatever time of the day: it is well inside.
    window = {} if source == "city" else {"lookback": "96h"}
    async with stage(source, tmp_path, **window) as scene:
        world = scene.simulator.world
        midnight = scene.time.now().replace(hour=0, minute=0, second=0, microsecond=0)
        if source == "city":
            recipient = world.find(scene.names["small"])[0].recipient(1)
        else:
            record = world.add_drop(at=(midnight - timedelta(hours=1)).timestamp())
        scene.simulator.switch_on("stale_answer", path="" if source == "city" else f"end={midnight:%Y-%m-%d}T00:00:01")
        for number, status in enumerate(("sent", "failed", "sent", "failed")):
            if source == "city":
                world.move(recipient, status)
            else:
                world.move_drop(record, 1 + number % 2)
            for _ in range(4):
                await scene.poll()
                assert scene.polled.error is None
                assert is_prefix(await scene.polled.histories(), expected(scene.simulator))
                scene.time.ahead += 400
        assert scene.simulator.board.applied["stale_answer"] > 0
        scene.simulator.switch_off()
        await scene.complete()


SKEWS = [("clock_ahead", 3600), ("clock_behind", -3600)]


@pytest.mark.parametrize(("fault", "skew"), SKEWS)
@pytest.mark.parametrize("source", SOURCES)
async def test_wrong_provider_clock_is_quoted_but_not_used(source, fault, skew, tmp_path):
    async with stage(source, tmp_path) as scene:
        before = {event.id for event in await scene.polled.events()}
        began = scene.time.now()
        scene.move()
        scene.simulator.switch_on(fault)
        await scene.poll()
        done = scene.time.now()
        news = [event for event in await scene.polled.events() if event.id not in before]
        assert news
        moved = expected_times(scene, began, skew)
        for event in news:
            observed = event.data.observed
            assert began <= observed.by <= done
            assert observed.after is None or observed.after <= observed.by
            assert began - timedelta(milliseconds=1) <= event.recordedtime <= done
            assert moved(event), (event.type, event.time, event.data.observed)


def expected_times(scene: Stage, began: datetime, skew: float) -> Callable[[Event], bool]:
    """Tell when an event's time should be: the provider's own, with its wrong clock, or that of our observation."""

    def check(event: Event) -> bool:
        by_them = abs((event.time - began).total_seconds() - skew) < 60
        by_us = event.time == event.data.observed.by
        provider_dates_it = event.data.status in {"sent", "failed", "not_sent"} and event.data.channel != "voicemail"
        if event.data.channel == "voicemail":
            provider_dates_it = event.data.transition == "first"
        return by_them if provider_dates_it else by_us

    return check


@pytest.mark.parametrize("skew", [3600, -3600])
@pytest.mark.parametrize("source", SOURCES)
async def test_own_clock_wrong_by_an_hour_sees_everything_soon(source, skew, tmp_path):
    ours = Jumping(ahead=skew)
    async with (
        Simulator(SimulatorSettings.still()) as simulator,
        polling(source, simulator, tmp_path, ours.clock, **SETTINGS[source]) as polled,
    ):
        move, _ = STAGES[source](simulator)
        # The first answer tells the provider's time; the second question is for all up to then.
        for _ in range(2):
            ours.ahead += await polled.poll()
        assert not simulator.unseen()
        move()
        began = ours.ahead
        while simulator.unseen():
            ours.ahead += await polled.poll()
            assert polled.error is None
            # A message made an hour ago, as it seems, is looked at each three minutes; yesterday's drops each ten.
            assert ours.ahead - began < (700 if source == "drops" else 300)
        assert await polled.histories() == expected(simulator)
