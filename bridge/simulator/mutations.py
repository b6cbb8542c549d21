"""Effects on what an answer says: items, fields, counts, times, watermarks and links."""

from __future__ import annotations

import copy
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

from bridge.simulator.fault_injection import Effect, FaultContext
from bridge.simulator.provider_api import SimResponse, encode

_TIMES = ("created_at", "completed_at", "sent_at", "timestamp")
Edit = Callable[[Any, FaultContext], Any]
"""Returns the changed payload, or None where there is nothing to change."""


def edits(edit: Edit) -> Effect:
    """Return the effect that changes a JSON body by `edit`; it applies to true answers only."""

    def effect(context: FaultContext) -> bool:
        if context.answer.status != 200 or not context.answer.body:  # noqa: PLR2004 - OK
            return False
        changed = edit(json.loads(context.answer.body), context)
        if changed is None:
            return False
        context.answer.body = encode(changed)
        return True

    return effect


def items_of(payload: Any) -> list[dict[str, Any]]:
    """Return the resources in a body: of a list, of a feed, or the one that it is."""
    items = payload.get("messages", [payload]) if isinstance(payload, dict) else payload
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def listed(edit: Callable[[list[Any], FaultContext], bool]) -> Effect:
    """Return the effect that changes the list of items by `edit`, wherever a body has it."""

    def whole(payload: Any, context: FaultContext) -> Any:
        items = payload.get("messages") if isinstance(payload, dict) else payload
        return payload if isinstance(items, list) and items and edit(items, context) else None

    return edits(whole)


def one_item(edit: Callable[[dict[str, Any], FaultContext], bool]) -> Effect:
    """Return the effect that changes one item of a body, drawn by lot, by `edit`."""

    def whole(payload: Any, context: FaultContext) -> Any:
        items = items_of(payload)
        return payload if items and edit(items[context.random.randrange(len(items))], context) else None

    return edits(whole)


def every_item(edit: Callable[[dict[str, Any], FaultContext], bool]) -> Effect:
    """Return the effect that changes all items of a body by `edit`."""

    def whole(payload: Any, context: FaultContext) -> Any:
        edited = [edit(item, context) for item in items_of(payload)]
        return payload if any(edited) else None

    return edits(whole)


# --- items of a page --------------------------------------------------------------------------------------------------


def repeat_first(items: list[Any], context: FaultContext) -> bool:
    """Show the first item once more at the end of the page."""
    del context
    items.append(copy.deepcopy(items[0]))
    return True


def reverse(items: list[Any], context: FaultContext) -> bool:
    """Turn the order of a page round."""
    del context
    items.reverse()
    return len(items) > 1


def put_null(items: list[Any], context: FaultContext) -> bool:
    """Put a null among the items."""
    items.insert(context.random.randint(0, len(items)), None)
    return True


# --- fields -----------------------------------------------------------------------------------------------------------

_OPTIONAL = (
    *("created_at", "completed_at", "error_message", "formatted_phone", "phone", "recipient_counts"),
    *("recipient_detail_counts", "body", "reference", "campaign", "job", "team", "number", "timestamp"),
    *("statusMessage", "statusCode", "definitionKey", "info"),
)


def add_unknown(item: dict[str, Any], context: FaultContext) -> bool:
    """Add fields that no reference names."""
    del context
    item["carrier"] = {"name": "Example Mobile", "mcc": [310, 410]}
    item["x_experiment"] = None
    return True


def set_null(item: dict[str, Any], context: FaultContext) -> bool:
    """Make every optional field null."""
    return _each_optional(item, lambda name: item.__setitem__(name, None), context)


def leave_out(item: dict[str, Any], context: FaultContext) -> bool:
    """Leave every optional field out."""
    return _each_optional(item, item.pop, context)


def retype(item: dict[str, Any], context: FaultContext) -> bool:
    """Give every optional field, and a number that names or a state, another JSON type."""
    for name in ("id", "eventID", "state"):
        if isinstance(item.get(name), int):
            item[name] = str(item[name])
    return _each_optional(item, lambda name: item.__setitem__(name, _other_type(item[name])), context)


def _each_optional(item: dict[str, Any], change: Callable[[str], Any], context: FaultContext) -> bool:
    del context
    names = [name for name in _OPTIONAL if name in item]
    for name in names:
        change(name)
    return bool(names)


def _other_type(value: Any) -> Any:
    match value:
        case dict():
            return {key: str(inner) for key, inner in value.items()}
        case str():
            return int(value) if value.isdecimal() else [value]
        case _:
            return str(value)


def add_id(item: dict[str, Any], context: FaultContext) -> bool:
    """Add the `id` that real items may have in addition to their link."""
    del context
    path = item.get("_links", {}).get("self", "")
    item["id"] = int(path.rpartition("/")[2])
    return True


def id_alone(item: dict[str, Any], context: FaultContext) -> bool:
    """Give an `id` and take the links away."""
    add_id(item, context)
    del item["_links"]
    return True


def drop_identity(item: dict[str, Any], context: FaultContext) -> bool:
    """Take away all by which the item could be known."""
    del context
    return bool([item.pop(name) for name in ("_links", "id", "eventID") if name in item])


def absolute_self(item: dict[str, Any], context: FaultContext) -> bool:
    """Write the item's own link with scheme and host."""
    item["_links"] = {name: context.ask.origin + path for name, path in item["_links"].items()}
    return True


def rename_status(item: dict[str, Any], context: FaultContext) -> bool:
    """Use a status that no table knows."""
    if "state" in item:
        item["state"] = 9
    elif "eventCategoryType" in item:
        item["eventCategoryType"] = f"TransactionalSendEvents.{context.value}"
    else:
        item["status"] = str(context.value)
    return True


def null_status(item: dict[str, Any], context: FaultContext) -> bool:
    """Make the status itself null."""
    del context
    names = [name for name in ("status", "state", "eventCategoryType") if name in item]
    for name in names:
        item[name] = None
    return bool(names)


def keys_to_top(item: dict[str, Any], context: FaultContext) -> bool:
    """Put the keys of an event at its top level, where the reference table has them."""
    del context
    item.update(item.pop("info"))
    return True


def unknown_reason(item: dict[str, Any], context: FaultContext) -> bool:
    """Use a reason code that the table does not have."""
    del context
    item["statusCode"], item["statusMessage"] = 9999, "SomethingNew"
    return True


def shift_times(hours: int) -> Callable[[dict[str, Any], FaultContext], bool]:
    """Return the edit that moves the times of an item by so many hours."""

    def shifted(text: str) -> str:
        moment = datetime.fromisoformat(text[:19]) + timedelta(hours=hours)
        return moment.isoformat() + text[19:]

    def edit(item: dict[str, Any], context: FaultContext) -> bool:
        del context
        return _each_time(item, shifted)

    return edit


def garble_times(item: dict[str, Any], context: FaultContext) -> bool:
    """Write the times of an item as nobody reads them."""
    return _each_time(item, lambda _: context.random.choice(("yesterday", "0000-00-00T00:00:00Z", "")))


def _each_time(item: dict[str, Any], change: Callable[[str], str]) -> bool:
    names = [name for name in _TIMES if isinstance(item.get(name), str)]
    for name in names:
        item[name] = change(item[name])
    return bool(names)


# --- counts -----------------------------------------------------------------------------------------------------------


def false_counts(payload: Any, context: FaultContext) -> Any:
    """Let the counts not add up to their total."""
    counts = payload.get("recipient_counts")
    if not counts:
        return None
    counts["sent"] += context.random.randint(1, 9)
    return payload


def without_counts(payload: Any, context: FaultContext) -> Any:
    """Leave the counts out, as while a message is new."""
    del context
    removed = [payload.pop(name) for name in ("recipient_counts", "recipient_detail_counts") if name in payload]
    return payload if removed else None


def null_counts(payload: Any, context: FaultContext) -> Any:
    """Make the counts null."""
    del context
    if "recipient_counts" not in payload:
        return None
    return {**payload, "recipient_counts": None}


# --- the feed of Marketing Cloud --------------------------------------------------------------------------------------


def watermark(change: Callable[[int, dict[str, Any]], Any]) -> Edit:
    """Return the edit that says another `lastEventID`."""

    def edit(payload: Any, context: FaultContext) -> Any:
        del context
        return {**payload, "lastEventID": change(payload["lastEventID"], payload)}

    return edit


def without_watermark(payload: Any, context: FaultContext) -> Any:
    """Leave the watermark out."""
    del context
    return {key: value for key, value in payload.items() if key != "lastEventID"}


def no_messages(value: Any, *, absent: bool = False) -> Edit:
    """Return the edit that says an empty feed differently."""

    def edit(payload: Any, context: FaultContext) -> Any:
        del context
        if payload["messages"]:
            return None
        rest = {key: value for key, value in payload.items() if key != "messages"}
        return rest if absent else {**rest, "messages": value}

    return edit


def token_field(name: str, change: Callable[[Any, FaultContext], Any]) -> Edit:
    """Return the edit that changes a field of the token's answer; None leaves it out."""

    def edit(payload: Any, context: FaultContext) -> Any:
        value = change(payload[name], context)
        rest = {key: value for key, value in payload.items() if key != name}
        return rest if value is None else {**rest, name: value}

    return edit


# --- links ------------------------------------------------------------------------------------------------------------

_LINK = re.compile(r'<([^>]*)>; rel="(\w+)"')


def links(write: Callable[[list[tuple[str, str]], FaultContext], str | None]) -> Effect:
    """Return the effect that writes the Link header of a listing differently, in answers that have one."""

    def effect(context: FaultContext) -> bool:
        pairs = _LINK.findall(context.answer.headers.get("Link", ""))
        text = write(pairs, context) if pairs else None
        if text is None:
            return False
        context.answer.headers["Link"] = text
        return True

    return effect


def next_links(change: Callable[[str, FaultContext], str]) -> Effect:
    """Return the effect that changes the target of `next`; it applies to answers with a next page."""

    def write(pairs: list[tuple[str, str]], context: FaultContext) -> str | None:
        if "next" not in dict(_turned(pairs)):
            return None
        return join((change(target, context) if name == "next" else target, name) for target, name in pairs)

    return links(write)


def each_link(change: Callable[[str, FaultContext], str]) -> Effect:
    """Return the effect that changes all targets."""
    return links(lambda pairs, context: join((change(target, context), name) for target, name in pairs))


def _turned(pairs: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    return ((name, target) for target, name in pairs)


def join(pairs: Any, form: str = '<{}>; rel="{}"', between: str = ", ") -> str:
    """Return a Link header."""
    return between.join(form.format(target, name) for target, name in pairs)


def in_path(target: str, context: FaultContext) -> str:
    """Write `?page=2` as `/page/2`."""
    del context
    path, _, query = target.partition("?")
    number = re.search(r"page=(\d+)$", query)
    rest = re.sub(r"&?page=\d+$", "", query)
    return f"{path}/page/{number[1] if number else 1}" + (f"?{rest}" if rest else "")


def empty_link(context: FaultContext) -> bool:
    """Send an empty Link header where no page follows."""
    if 'rel="next"' in context.answer.headers.get("Link", ""):
        return False
    context.answer.headers["Link"] = ""
    return True


def endless(context: FaultContext) -> bool:
    """Let every page have a next one, for ever: beyond the end the first page is shown again."""
    page = context.ask.query.get("page", "1")
    if context.answer.body == b"[]":
        context.answer.body = context.memory.get(context.ask.path, b"[]")
    context.memory[context.ask.path] = context.answer.body
    number = int(page) + 1 if page.isdecimal() else 2
    context.answer.headers["Link"] = f'<{context.ask.path}?page={number}>; rel="next"'
    return True


def stale(context: FaultContext) -> bool:
    """Answer as the last time, like a replica that lags behind."""
    target = context.ask.target
    before = context.memory.get(target)
    context.memory[target] = SimResponse(context.answer.status, context.answer.body, dict(context.answer.headers))
    if before is None or before.body == context.answer.body:
        return False
    context.answer.body, context.answer.headers = before.body, dict(before.headers)
    return True


# --- bytes ------------------------------------------------------------------------------------------------------------


def packed(name: str, pack: Callable[[bytes, FaultContext], bytes]) -> Effect:
    """Return the effect that sends a body under a content encoding."""

    def effect(context: FaultContext) -> bool:
        context.answer.body = pack(context.answer.body, context)
        context.answer.headers["Content-Encoding"] = name
        return True

    return effect


def bomb(body: bytes, context: FaultContext) -> bytes:
    """Return few bytes that unpack to very many blanks in front of a body."""
    packer = zlib.compressobj(9, wbits=31)
    out = [packer.compress(b" " * (1 << 20)) for _ in range(int(context.value) >> 20)]
    return b"".join([*out, packer.compress(body), packer.flush()])


def squeeze(body: bytes, context: FaultContext) -> bytes:
    """Return a body as gzip."""
    del context
    return gzip.compress(body)


def written(change: Callable[[bytes], bytes], content_type: str | None = None) -> Effect:
    """Return the effect that writes a body's bytes differently, or says another content type."""

    def effect(context: FaultContext) -> bool:
        if not context.answer.body:
            return False
        context.answer.body = change(context.answer.body)
        if content_type is not None:
            context.answer.headers["Content-Type"] = content_type
        return True

    return effect
