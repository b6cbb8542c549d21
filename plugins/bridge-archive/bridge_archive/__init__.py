"""The archive sink: every event on a line of its own, in files by day, exactly as it was published."""

from bridge.plugin import SinkPlugin
from bridge_archive.sink import Archive, ArchiveSettings

plugin = SinkPlugin(
    settings=ArchiveSettings,
    build=Archive,
    summary="keeps every event in files by day, as it was published",
)

__all__ = ["Archive", "ArchiveSettings", "plugin"]
