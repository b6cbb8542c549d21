"""The sinks that come with the bridge, held against the promises of every sink."""

from __future__ import annotations

from itertools import count

from bridge.domain.clock import Clock
from bridge.protocols.sink import Sink
from bridge.testing.fake_endpoint import ReceivedRequest, reply
from bridge.testing.sink_suite import SinkSuite
from bridge_slack import Slack, SlackSettings
from bridge_webhook import Webhook, WebhookSettings

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TOKEN = "xoxb-token-canary"


def hurried() -> Clock:
    """Return a clock on which waiting takes no time: every look at it is an hour later."""
    hours = count(0.0, 3600.0)

    async def sleep(_: float) -> None:
        return None

    return Clock(monotonic=lambda: next(hours), sleep=sleep)


class TestWebhook(SinkSuite):
    secrets = (SECRET, SECRET.removeprefix("whsec_"), "header-canary")

    def make(self, url: str, *, allow_private: bool) -> Sink:
        settings = WebhookSettings.model_validate(
            {
                "type": "webhook",
                "topics": ["#"],
                "url": url,
                "secret": SECRET,
                "headers": {"Authorization": "Bearer header-canary"},
                "allow_private": allow_private,
                "send_timeout": "5s",
            }
        )
        return Webhook("crm", settings, Clock())


class TestSlackWebhook(SinkSuite):
    accepts = staticmethod(reply(200, b"ok"))

    def make(self, url: str, *, allow_private: bool) -> Sink:
        values = {"type": "slack", "topics": ["#"], "webhook_url": url, "allow_private": allow_private}
        return Slack("ops", SlackSettings.model_validate(values), hurried())


class TestSlackBot(SinkSuite):
    accepts = staticmethod(reply(200, b'{"ok": true}'))
    secrets = (TOKEN,)

    def make(self, url: str, *, allow_private: bool) -> Sink:
        values = {
            "type": "slack",
            "topics": ["#"],
            "bot_token": TOKEN,
            "channel": "C024BE91L",
            "api_url": url.partition("?")[0],
            "allow_private": allow_private,
        }
        return Slack("ops", SlackSettings.model_validate(values), hurried())

    def is_event(self, request: ReceivedRequest) -> bool:
        return request.path.endswith("/chat.postMessage")
