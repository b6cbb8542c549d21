"""The sink `http` and every form that ships, held against the promises of every sink."""

from __future__ import annotations

from contract.test_sinks import hurried
from rigs.http_sink import settings_of

from bridge.protocols.sink import Sink
from bridge.sinks.http import HttpSink, HttpSinkSettings
from bridge.testing.fake_endpoint import Step, reply
from bridge.testing.sink_suite import SinkSuite
from bridge.testing.vendor_endpoints import VENDORS


class TestOwnRequest(SinkSuite):
    secrets = ("header-canary",)

    def make(self, url: str, *, allow_private: bool) -> Sink:
        settings = HttpSinkSettings.model_validate({
            "type": "http", "topics": ["#"], "url": url, "allow_private": allow_private, "send_timeout": "5s",
            "headers": {"Authorization": "Bearer header-canary"},
            "request": {
                "path": ["{data.status}"], "query": {"id": "{id}"}, "headers": {"X-Phone": "{data.phone}"},
                "body": {"text": "{data.error}"},
            },
        })  # fmt: skip
        return HttpSink("own", settings, hurried())


def suite_of(preset: str) -> type[SinkSuite]:
    vendor = next(vendor for vendor in VENDORS if vendor.preset == preset)

    class OfPreset(SinkSuite):
        secrets = tuple(value for name, value in vendor.settings.items() if name != "chat")
        accepts: Step = staticmethod(reply(vendor.accepted.status, vendor.accepted.text))

        def make(self, url: str, *, allow_private: bool) -> Sink:
            more = {**vendor.settings, "allow_private": allow_private, "send_timeout": "5s"}
            return HttpSink("ops", settings_of(preset, url, **more), hurried())

    return OfPreset


class TestDiscord(suite_of("discord")): ...


class TestGoogleChat(suite_of("googlechat")): ...


class TestMattermost(suite_of("mattermost")): ...


class TestOpsgenie(suite_of("opsgenie")): ...


class TestPagerDuty(suite_of("pagerduty")): ...


class TestTeams(suite_of("teams")): ...


class TestTelegram(suite_of("telegram")): ...
