"""A provider that a definition describes: its lists and feeds polled, and what is not final followed."""

from __future__ import annotations

from bridge.protocols.source import SourcePlugin
from bridge.providers.models import Definition
from bridge.sources.rest.settings import RestSettings, model_of, settings_for
from bridge.sources.rest.source import Rest

__all__ = ["Rest", "RestSettings", "plugin", "plugin_of"]

plugin = SourcePlugin(
    settings=RestSettings,
    build=Rest,
    summary="any provider that a definition describes, in a page of YAML",
    settings_for=settings_for,
)


def plugin_of(definition: Definition) -> SourcePlugin:
    """Return the plugin as it is for one definition, for the contract suite."""
    settings = model_of(definition)
    return SourcePlugin(settings=settings, build=Rest, events=settings.own_events, summary=definition.title)
