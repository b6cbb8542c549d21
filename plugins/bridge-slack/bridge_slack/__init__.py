"""The Slack sink: posts events to a channel, and gathers bursts into digests."""

from bridge.plugin import SinkPlugin
from bridge_slack.sink import Slack, SlackSettings

plugin = SinkPlugin(
    settings=SlackSettings,
    build=Slack,
    summary="posts to a Slack channel, with bursts gathered into digests",
    for_people=True,
)

__all__ = ["Slack", "SlackSettings", "plugin"]
