"""A sink that sends each event as a request of one's own, or as one of the forms that ship."""

from __future__ import annotations

from bridge.protocols.sink import SinkPlugin
from bridge.sinks.http.settings import HttpSinkSettings, settings_for
from bridge.sinks.http.sink import HttpSink

__all__ = ["HttpSink", "HttpSinkSettings", "plugin"]

plugin = SinkPlugin(
    settings=HttpSinkSettings,
    build=HttpSink,
    summary="sends each event to any HTTP endpoint, in a form of your own or of a preset",
    settings_for=settings_for,
)
