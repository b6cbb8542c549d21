"""The e-mail sink: one message an event, or a digest in a window, over a verified connection."""

from bridge.plugin import SinkPlugin
from bridge_email.settings import EmailSettings
from bridge_email.sink import Email

plugin = SinkPlugin(
    settings=EmailSettings,
    build=Email,
    summary="sends e-mail, one message an event or in digests",
    for_people=True,
)

__all__ = ["Email", "EmailSettings", "plugin"]
