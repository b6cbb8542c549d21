"""The table of faults: what real providers, and what stands before them, were seen to do."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from bridge.simulator import mutations as t
from bridge.simulator.fault_injection import Delivery, Effect, Fault, FaultContext, Stage
from bridge.simulator.provider_api import JSON, SimResponse, answer_json, encode
from bridge.simulator.raw_response import Wire
from bridge.simulator.spacivox import window
from bridge.simulator.world import Message

ANY: tuple[str, ...] = ()
MESSAGE = ("message",)
RECIPIENTS = ("recipients",)
PAGED = ("messages", "recipients")
ITEMS = ("messages", "message", "recipients", "recipient", "records", "events")
DATA = (*ITEMS, "statistics")
ARRAYS = ("messages", "recipients", "records", "events")
OF_MESSAGE = ("message", "recipients", "recipient")
RECORDS = ("records",)
EVENTS = ("events",)
TOKEN = ("token",)

HTML = b"<!DOCTYPE html><html><head><title>Service</title></head><body><h1>We are doing maintenance</h1></body></html>"
ELSEWHERE = "http://127.0.0.1:9"
_MIB = 1 << 20


def _rows(
    stage: Stage, *rows: tuple[str, str, Any], views: tuple[str, ...], reads: bool = True, value: Any = None
) -> list[Fault]:
    place = "delivery" if stage is Stage.WIRE else "effect"
    return [
        Fault(name, summary, stage, views=views, reads=reads, value=value, **{place: effect})
        for name, summary, effect in rows
    ]


# --- other answers ----------------------------------------------------------------------------------------------------


def _instead(make: Callable[[FaultContext], SimResponse | None]) -> Effect:
    def effect(context: FaultContext) -> bool:
        answer = make(context)
        if answer is not None:
            context.answer = answer
        return answer is not None

    return effect


def _status(status: int, body: bytes = b"", **headers: str) -> Effect:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return _instead(lambda _: SimResponse(status, body, {**({"Content-Type": JSON} if body else {}), **named}))


def _error(status: int, payload: Any, **headers: str) -> Effect:
    return _status(status, encode(payload), **headers)


def _retry_at(context: FaultContext) -> SimResponse:
    moment = datetime.fromtimestamp(context.world.clock.now(), UTC) + timedelta(seconds=float(context.value))
    return SimResponse(429, b"", {"Retry-After": format_datetime(moment, usegmt=True)})


def _retry_after(status: int) -> Effect:
    return _instead(lambda context: SimResponse(status, b"", {"Retry-After": f"{float(context.value):g}"}))


def _redirect(context: FaultContext) -> SimResponse:
    return SimResponse(302, b"", {"Location": f"{context.value}{context.ask.path}"})


def _window(status: int) -> Effect:
    def make(context: FaultContext) -> SimResponse | None:
        try:
            start, end = window(context.ask)
        except (KeyError, ValueError):
            return None
        if end - start <= float(context.value):
            return None
        return answer_json({"error": "The window is too long"}, status)

    return _instead(make)


def _message_of(context: FaultContext) -> Message | None:
    try:
        return context.world.find("/".join(context.ask.path.split("/")[:4]))[0]
    except KeyError:
        return None


def _not_found(context: FaultContext) -> SimResponse | None:
    message = _message_of(context)
    if message is None:
        return None
    context.world.remove(message.path)
    return answer_json({"error": "Not Found"}, 404)


_BLOCKED = {"message": "Request is temporarily blocked", "errorcode": 50200, "documentation": ""}
_TOO_MANY = {"message": "Too many requests", "errorcode": 50100, "documentation": ""}
_INVALID_CLIENT = {"error": "invalid_client", "error_description": "Invalid client ID or secret."}
_ERRORS = {"errors": {"base": ["Something went wrong"]}}
_DEEP = b"[" * 100_000 + b"]" * 100_000

_INSTEAD = [
    *_rows(
        Stage.INSTEAD,
        ("http_500", "500 with a JSON error", _error(500, {"error": "Internal Server Error"})),
        ("http_502", "502 with a proxy's HTML page", _status(502, HTML, Content_Type="text/html")),
        ("http_503", "503 without a body", _status(503)),
        ("http_504", "504 with a proxy's HTML page", _status(504, HTML, Content_Type="text/html")),
        ("http_408", "408, the server waited too long", _status(408)),
        ("http_410", "410, gone", _status(410)),
        ("too_many_bare", "429 without Retry-After", _error(429, {"error": "Too many requests"})),
        ("retry_after_garbage", "429 with a Retry-After that says nothing", _status(429, Retry_After="soon")),
        ("retry_after_absurd", "429 that asks for a year of silence", _status(429, Retry_After="31536000")),
        ("unauthorized", "401; limit=1 for once", _error(401, {"error": "Invalid authentication token"})),
        ("forbidden", "403; limit=1 for once", _error(403, {"error": "Forbidden"})),
        ("not_found", "404 for something that exists", _error(404, {"error": "Not Found"})),
        ("redirect_moved", "301 without a Location", _status(301)),
        ("html_page", "200 with an HTML page instead of JSON", _status(200, HTML, Content_Type="text/html")),
        ("empty_body", "200 with nothing in it", _status(200, b"", Content_Type=JSON)),
        ("json_null", "200 with `null`", _status(200, b"null")),
        ("error_in_200", "200 with an error object", _error(200, _ERRORS)),
        ("wrong_shape", "200 with a number where an object or a list belongs", _status(200, b"42")),
        ("deep_nesting", "200 with 100,000 nested lists", _status(200, _DEEP)),
        views=ANY,
        reads=False,
    ),
    *_rows(
        Stage.INSTEAD,
        ("too_many", "429 with Retry-After in seconds (value)", _retry_after(429)),
        ("too_many_date", "429 with Retry-After as a date, so many seconds (value) ahead", _instead(_retry_at)),
        ("unavailable_retry_after", "503 with Retry-After in seconds (value)", _retry_after(503)),
        views=ANY,
        reads=False,
        value=1,
    ),
    Fault(
        "redirect_elsewhere",
        "302 to another origin (value)",
        Stage.INSTEAD,
        effect=_instead(_redirect),
        reads=False,
        value=ELSEWHERE,
    ),
    *_rows(
        Stage.INSTEAD,
        ("still_building", "202: the listing is still being built", _status(202)),
        views=PAGED,
        reads=False,
    ),
    *_rows(
        Stage.INSTEAD,
        ("vanished_message", "the message is gone for good, in lists too", _instead(_not_found)),
        views=OF_MESSAGE,
        reads=False,
    ),
    *_rows(
        Stage.INSTEAD,
        ("window_400", "400 for a window longer than so many seconds (value)", _window(400)),
        ("window_413", "413 for a window longer than so many seconds (value)", _window(413)),
        ("window_504", "504 for a window longer than so many seconds (value)", _window(504)),
        views=RECORDS,
        reads=False,
        value=6 * 3600,
    ),
    *_rows(
        Stage.INSTEAD,
        ("rate_limited_50100", "429, error 50100, Retry-After: 5", _error(429, _TOO_MANY, Retry_After="5")),
        ("blocked_50200", "429, error 50200, temporarily blocked, no Retry-After", _error(429, _BLOCKED)),
        views=("events", "token"),
        reads=False,
    ),
    *_rows(
        Stage.INSTEAD,
        ("token_refused", "401 invalid_client for good credentials", _error(401, _INVALID_CLIENT)),
        views=TOKEN,
        reads=False,
    ),
]

# --- the world and the question ---------------------------------------------------------------------------------------


def _shift(by: int) -> Effect:
    def effect(context: FaultContext) -> bool:
        page = context.ask.query.get("page", "1")
        context.ask.shift = by if page.isdecimal() and int(page) > 1 else 0
        return context.ask.shift != 0

    return effect


def _created_during_walk(context: FaultContext) -> bool:
    channel = context.ask.path.split("/")[2]
    page = context.ask.query.get("page", "1")
    if not page.isdecimal() or int(page) < 2 or channel not in context.world.messages:  # noqa: PLR2004 - a later page
        return False
    context.world.add_message(channel, 1)
    return True


def _swap(context: FaultContext) -> bool:
    message = _message_of(context)
    return message is not None and context.world.swap(message.settle(context.world.now()))


def _set_back(start: tuple[str, ...], status: str, *, returns: bool) -> Effect:
    def effect(context: FaultContext) -> bool:
        message = _message_of(context)
        back = float(context.value) if returns else None
        return message is not None and context.world.set_back(message, start, status, back_after=back)

    return effect


def _inclusive(context: FaultContext) -> bool:
    last = context.ask.query.get("lastEventId", "")
    if not last.isdecimal() or int(last) < 1:
        return False
    feed = context.ask.path.split("/")[3]
    position = context.world.sends_after(feed, int(last))
    if not position:
        return False
    context.ask.query["lastEventId"] = str(context.world.sends[feed][position - 1].number - 1)
    return True


def _start_over(context: FaultContext) -> bool:
    return context.ask.query.pop("lastEventId", None) is not None


def _short(context: FaultContext) -> bool:
    size = context.ask.query.get("$pageSize", str(context.world.settings.page_size))
    if not size.isdecimal() or int(size) < 2:  # noqa: PLR2004 - half of one is nothing
        return False
    context.ask.query["$pageSize"] = str(int(size) // 2)
    return True


def _exclusive(context: FaultContext) -> bool:
    try:
        start, end = window(context.ask)
    except (KeyError, ValueError):
        return False
    for name, moment in (("start", start + 0.001), ("end", end - 0.001)):
        context.ask.query[name] = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
    return True


def _expire(context: FaultContext) -> bool:
    context.expire_tokens()
    return True


_WORLD = [
    *_rows(
        Stage.WORLD,
        ("shifted_pages", "later pages have slipped by one: the last item of the page before comes again", _shift(-1)),
        ("skipping_pages", "later pages have slipped by one the other way: an item is on no page", _shift(1)),
        views=PAGED,
    ),
    *_rows(
        Stage.WORLD,
        (
            "born_during_walk",
            "a new message appears while later pages are read, and pushes the others on",
            _created_during_walk,
        ),
        views=("messages",),
    ),
    *_rows(
        Stage.WORLD,
        ("cancelling_changes", "one recipient of sent fails while one of failed is sent: the counts stand", _swap),
        ("late_bounce", "a sent recipient fails", _set_back(("sent",), "failed", returns=False)),
        (
            "regress",
            "a recipient goes back to new, and returns after seconds (value)",
            _set_back(("sending", "sent", "failed"), "new", returns=True),
        ),
        (
            "reopen",
            "a recipient leaves its final status for sending, and returns after seconds (value)",
            _set_back(("sent", "failed", "blacklisted", "canceled"), "sending", returns=True),
        ),
        views=OF_MESSAGE,
        value=2,
    ),
    *_rows(
        Stage.WORLD,
        ("inclusive_start", "lastEventId counts as included: its event comes again", _inclusive),
        ("feed_starts_over", "lastEventId is ignored: the feed begins with its oldest event", _start_over),
        ("short_pages", "pages have half of what was asked for, and are not the end", _short),
        views=EVENTS,
    ),
    *_rows(
        Stage.WORLD,
        ("token_expires_early", "all tokens expire before their time: the next request is refused", _expire),
        views=EVENTS,
    ),
    *_rows(
        Stage.WORLD,
        ("exclusive_ends", "the ends of a window are not part of it", _exclusive),
        views=RECORDS,
    ),
]

# --- content ----------------------------------------------------------------------------------------------------------

_CONTENT = [
    *_rows(
        Stage.CONTENT,
        ("duplicated_items", "an item stands on a page twice", t.listed(t.repeat_first)),
        ("reversed_items", "the items of a page are in another order", t.listed(t.reverse)),
        ("null_item", "null stands among the items", t.listed(t.put_null)),
        ("no_identity", "an item lacks all by which it could be known", t.one_item(t.drop_identity)),
        views=ARRAYS,
    ),
    *_rows(
        Stage.CONTENT,
        ("unknown_fields", "items have fields that nobody documented", t.every_item(t.add_unknown)),
        ("fields_null", "all optional fields are null", t.every_item(t.set_null)),
        ("fields_absent", "all optional fields are left out", t.every_item(t.leave_out)),
        ("fields_other_type", "fields have another JSON type", t.every_item(t.retype)),
        ("status_null", "the status of an item is null", t.one_item(t.null_status)),
        ("clock_ahead", "all times are an hour ahead", t.every_item(t.shift_times(1))),
        ("clock_behind", "all times are an hour behind", t.every_item(t.shift_times(-1))),
        ("garbled_times", "times cannot be read", t.every_item(t.garble_times)),
        ("stale_answer", "the answer before comes again, like a replica that lags behind", t.stale),
        views=ITEMS,
    ),
    *_rows(
        Stage.CONTENT,
        ("unknown_status", "an item has a status (value) that no table knows", t.one_item(t.rename_status)),
        views=ITEMS,
        value="throttled",
    ),
    *_rows(
        Stage.CONTENT,
        ("items_with_id", "items have an id in addition to their link", t.every_item(t.add_id)),
        ("items_with_id_alone", "items have an id and no links", t.every_item(t.id_alone)),
        ("absolute_self_links", "the links of items have scheme and host", t.every_item(t.absolute_self)),
        views=PAGED,
    ),
    *_rows(
        Stage.CONTENT,
        ("counts_do_not_add_up", "the counts are not their total", t.edits(t.false_counts)),
        ("counts_absent", "the counts are absent though the message is not new", t.edits(t.without_counts)),
        ("counts_null", "the counts are null", t.edits(t.null_counts)),
        views=MESSAGE,
    ),
    *_rows(
        Stage.CONTENT,
        ("watermark_absent", "lastEventID is absent", t.edits(t.without_watermark)),
        ("watermark_null", "lastEventID is null", t.edits(t.watermark(lambda _, __: None))),
        ("watermark_zero", "lastEventID is 0", t.edits(t.watermark(lambda _, __: 0))),
        ("watermark_backwards", "lastEventID goes back by 1000", t.edits(t.watermark(lambda last, _: last - 1000))),
        ("watermark_text", "lastEventID is text", t.edits(t.watermark(lambda last, _: str(last)))),
        ("messages_null", "an empty feed has null for messages", t.edits(t.no_messages(None))),
        ("messages_absent", "an empty feed has no messages field", t.edits(t.no_messages(None, absent=True))),
        ("keys_at_top_level", "keys and address are siblings of info", t.every_item(t.keys_to_top)),
        ("unknown_reason", "a reason code that the table does not have", t.one_item(t.unknown_reason)),
        views=EVENTS,
    ),
    *_rows(
        Stage.CONTENT,
        ("other_category", "an event of another category (value)", t.one_item(t.rename_status)),
        views=EVENTS,
        value="SMSQueued",
    ),
    *_rows(
        Stage.CONTENT,
        ("token_short_lived", "expires_in is 1", t.edits(t.token_field("expires_in", lambda _, __: 1))),
        ("token_without_expiry", "expires_in is absent", t.edits(t.token_field("expires_in", lambda _, __: None))),
        (
            "rest_url_bare",
            "rest_instance_url lacks its slash",
            t.edits(t.token_field("rest_instance_url", lambda url, _: url.rstrip("/"))),
        ),
        (
            "rest_url_absent",
            "rest_instance_url is absent",
            t.edits(t.token_field("rest_instance_url", lambda _, __: None)),
        ),
        views=TOKEN,
    ),
    *_rows(
        Stage.CONTENT,
        (
            "rest_url_elsewhere",
            "rest_instance_url names another host (value)",
            t.edits(t.token_field("rest_instance_url", lambda _, context: context.value)),
        ),
        views=TOKEN,
        value=f"{ELSEWHERE}/",
    ),
    *_rows(
        Stage.CONTENT,
        (
            "absolute_links",
            "Link has absolute targets",
            t.each_link(lambda target, context: context.ask.origin + target),
        ),
        ("page_in_path", "Link has /page/N instead of ?page=N", t.each_link(t.in_path)),
        ("link_blank_inside", "Link has a blank inside the brackets", t.each_link(lambda target, _: f" {target}")),
        ("link_no_blank", "Link has no blank after its commas", t.links(lambda pairs, _: t.join(pairs, between=","))),
        ("link_trailing_comma", "Link ends with a comma", t.links(lambda pairs, _: t.join(pairs) + ",")),
        ("link_unquoted", "Link has rel without quotes", t.links(lambda pairs, _: t.join(pairs, "<{}>; rel={}"))),
        (
            "link_upper_case",
            "Link has REL and NEXT",
            t.links(lambda pairs, _: t.join(pairs, '<{}>; REL="{}"').replace('"next"', '"NEXT"')),
        ),
        ("link_empty", "Link is empty where no page follows", t.empty_link),
        ("cyclic_next", "the next page is this page", t.next_links(lambda _, context: context.ask.target.rstrip("?"))),
        ("endless_pages", "every page has a next one, for ever", t.endless),
        views=PAGED,
    ),
    *_rows(
        Stage.CONTENT,
        (
            "next_elsewhere",
            "the next page is on another origin (value)",
            t.next_links(lambda target, context: f"{context.value}{target}"),
        ),
        views=PAGED,
        value=ELSEWHERE,
    ),
]

# --- bytes ------------------------------------------------------------------------------------------------------------


def _no_content(context: FaultContext) -> bool:
    if b'"messages":[]' not in context.answer.body:
        return False
    context.answer = SimResponse(204)
    return True


def _half(body: bytes) -> bytes:
    return body[: max(1, len(body) // 2)]


def _invalid_utf8(body: bytes) -> bytes:
    return body.replace(b'"', b'"\xff\xfe', 1)


_BYTES = [
    *_rows(
        Stage.BYTES,
        ("no_content_204", "an empty feed is a 204", _no_content),
        views=EVENTS,
    ),
    *_rows(
        Stage.BYTES,
        ("bom", "a byte order mark before the JSON", t.written(lambda body: b"\xef\xbb\xbf" + body)),
        ("wrong_content_type", "JSON that calls itself text/html", t.written(bytes, "text/html")),
        ("wrong_charset", "UTF-8 that calls itself UTF-16", t.written(bytes, "application/json; charset=utf-16")),
        ("unknown_charset", "a charset that does not exist", t.written(bytes, "application/json; charset=x-none")),
        ("invalid_utf8", "bytes that are not UTF-8 in a string", t.written(_invalid_utf8)),
        ("gzip", "the body is compressed, asked for or not", t.packed("gzip", t.squeeze)),
        ("deflate", "the body is deflated", t.packed("deflate", lambda body, _: zlib.compress(body))),
        views=ANY,
    ),
    *_rows(
        Stage.BYTES,
        ("truncated_json", "200 with half of the JSON and a true length", t.written(_half)),
        ("broken_gzip", "a body that says gzip and is not", t.packed("gzip", lambda body, _: b"\x1f\x8b\x08" + body)),
        views=ANY,
        reads=False,
    ),
    *_rows(
        Stage.BYTES,
        ("gzip_bomb", "few bytes that unpack to so many (value)", t.packed("gzip", t.bomb)),
        views=ANY,
        reads=False,
        value=256 * _MIB,
    ),
]

# --- the wire ---------------------------------------------------------------------------------------------------------

_AFTER = 0.02  # seconds in which what was sent reaches the other side before a reset destroys it


async def _torn(wire: Wire, context: FaultContext) -> bool:
    del context
    body = wire.answer.body
    await wire.send(wire.head(len(body) + 1000) + body[: len(body) // 2])
    return False


async def _torn_chunks(wire: Wire, context: FaultContext) -> bool:
    del context
    half = _half(wire.answer.body or b" ")
    await wire.send(wire.head(None) + b"%x\r\n%b\r\n" % (len(half), half))
    return False


async def _reset_midway(wire: Wire, context: FaultContext) -> bool:
    await _torn(wire, context)
    await wire.flush()
    await wire.wait(_AFTER)
    wire.reset()
    return False


async def _reset(wire: Wire, context: FaultContext) -> bool:
    del context
    wire.reset()
    return False


async def _closed(wire: Wire, context: FaultContext) -> bool:
    del wire, context
    return False


async def _refused(wire: Wire, context: FaultContext) -> bool:
    wire.reset()
    context.refuse(float(context.value))
    return False


async def _never(wire: Wire, context: FaultContext) -> bool:
    del context
    await wire.hold()
    return False


async def _headers_only(wire: Wire, context: FaultContext) -> bool:
    del context
    await wire.send(wire.head(len(wire.answer.body) or 100))
    await wire.hold()
    return False


async def _slow(wire: Wire, context: FaultContext) -> bool:
    await wire.wait(float(context.value))
    await wire.send(wire.head(len(wire.answer.body), Connection="close") + wire.answer.body)
    return True


async def _drip(wire: Wire, context: FaultContext) -> bool:
    body = wire.answer.body
    await wire.send(wire.head(len(body), Connection="close"))
    drops = 20
    size = max(1, -(-len(body) // drops))
    for start in range(0, len(body), size):
        await wire.wait(float(context.value) / drops)
        await wire.send(body[start : start + size])
    return True


async def _huge(wire: Wire, context: FaultContext) -> bool:
    blanks = b" " * (_MIB // 4)
    rounds = max(1, int(context.value) // len(blanks))
    await wire.send(wire.head(rounds * len(blanks) + len(wire.answer.body), Connection="close"))
    for _ in range(rounds):
        await wire.send(blanks)
    await wire.send(wire.answer.body)
    await wire.flush()
    return False


async def _idle_close(wire: Wire, context: FaultContext) -> bool:
    await wire.send(wire.head(len(wire.answer.body)) + wire.answer.body)
    await wire.flush()
    await wire.wait(float(context.value))
    return True


async def _status_line(wire: Wire, context: FaultContext) -> bool:
    del context
    await wire.send(b"HTTP/1.1 2OO Fine\r\n\r\n" + wire.answer.body)
    return False


async def _huge_header(wire: Wire, context: FaultContext) -> bool:
    del context
    await wire.send(wire.head(len(wire.answer.body), X_Trace="x" * 70_000) + wire.answer.body)
    await wire.flush()
    return True


def _wires(*rows: tuple[str, str, Delivery], reads: bool = False, value: Any = None) -> list[Fault]:
    return _rows(Stage.WIRE, *rows, views=ANY, reads=reads, value=value)


_WIRE = [
    *_wires(
        ("torn_body", "Content-Length says more than is sent", _torn),
        ("torn_chunks", "a chunked body without its end", _torn_chunks),
        ("reset_midway", "the connection is reset in the middle of the body", _reset_midway),
        ("reset", "the connection is reset before the answer", _reset),
        ("closed_unanswered", "the connection is closed without an answer", _closed),
        ("never_answers", "nothing comes, and the connection stays open", _never),
        ("headers_only", "the headers come, the body never", _headers_only),
        ("broken_status_line", "the first line is not HTTP", _status_line),
        ("huge_header", "a header of 70 kB", _huge_header),
    ),
    *_wires(("refused", "connections are refused for seconds (value)", _refused), value=1),
    *_wires(("huge_body", "a body of so many bytes (value)", _huge), value=64 * _MIB),
    *_wires(
        ("slow_answer", "the answer comes after seconds (value)", _slow),
        ("slow_drip", "the body comes in drops, over seconds (value)", _drip),
        reads=True,
        value=2,
    ),
    *_wires(
        ("idle_close", "the server closes a kept-alive connection after seconds (value)", _idle_close),
        reads=True,
        value=0.1,
    ),
]

FAULTS: dict[str, Fault] = {fault.name: fault for fault in (*_WORLD, *_INSTEAD, *_CONTENT, *_BYTES, *_WIRE)}
"""All faults by name."""
