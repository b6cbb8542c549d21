"""Answers kept for conditional requests."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from aiohttp import hdrs
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from bridge.http.headers import http_date
from bridge.http.response import Response
from bridge.http.status import OK_STATUS

_STRONG_AFTER_SECONDS = 60.0


class ConditionalCache:
    """The last answers with validators, least recently used first, bounded in bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._answers: OrderedDict[URL, Response] = OrderedDict()

    def get(self, url: URL) -> Response | None:
        """Return the kept answer of a URL; None if there is none."""
        answer = self._answers.get(url)
        if answer is not None:
            self._answers.move_to_end(url)
        return answer

    def put(self, url: URL, answer: Response) -> Response:
        """Keep an answer that allows conditional requests; return it with the means to forget it."""
        self._drop(url)
        body = answer.body
        if answer.status != OK_STATUS or not body or len(body) > self._limit // 4 or not validators(answer):
            return answer
        if answer.on_forget is None:  # it comes from a transport
            answer = replace(answer, on_forget=self.forget)
        self._answers[url] = answer
        self._size += len(body)
        while self._size > self._limit:
            self._drop(next(iter(self._answers)))
        return answer

    def forget(self, url: URL, body: bytes) -> None:
        """Forget the answer of a URL, unless a newer one with another body is kept by now."""
        kept = self._answers.get(url)
        if kept is not None and kept.body is body:
            self._drop(url)

    def _drop(self, url: URL) -> None:
        old = self._answers.pop(url, None)
        self._size -= len(old.body) if old else 0


def validators(answer: Response) -> dict[str, str]:
    """Return the request headers that ask whether `answer` still holds; empty if it has no usable validator."""
    if hdrs.ETAG not in answer.headers and not _is_strong(answer):
        return {}
    pairs = ((hdrs.IF_NONE_MATCH, hdrs.ETAG), (hdrs.IF_MODIFIED_SINCE, hdrs.LAST_MODIFIED))
    return {asked: answer.headers[given] for asked, given in pairs if given in answer.headers}


def _is_strong(answer: Response) -> bool:
    """Say whether the answer's `Last-Modified` identifies this answer alone.

    It counts in seconds: a second change within the same second would be treated as unchanged for ever (RFC 9110,
    8.8.2.2).
    """
    modified, date = (http_date(answer.headers.get(name)) for name in (hdrs.LAST_MODIFIED, hdrs.DATE))
    return modified is not None and date is not None and (date - modified).total_seconds() >= _STRONG_AFTER_SECONDS


def confirmed(known: Response, answer: Response) -> Response:
    """Return what HTTP 304 stands for: the earlier body, under the headers as they are now (RFC 9111, 4.3.4)."""
    headers = CIMultiDict(known.headers)
    headers.update(answer.headers)
    return replace(known, asked=answer.asked, at=answer.at, headers=CIMultiDictProxy(headers), unchanged=True)
