"""The definitions that come with the bridge, held against the promises of every source, by simulated providers."""

from __future__ import annotations

from pathlib import Path

from bridge.providers import loading
from bridge.testing.definition_suite import suite_of

WHOLE = ("twilio-messages", "vonage-sms", "mailgun-events")
"""A definition of each shape, whose suite runs whole."""

for _name in WHOLE:
    _suite = suite_of(_name, loading.load(loading.find(_name, Path())))
    globals()[_suite.__name__] = _suite
