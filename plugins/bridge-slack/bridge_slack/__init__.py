"""The Slack sink: a channel is told what happened, and bursts come as digests."""

from bridge.plugin import SinkPlugin
from bridge_slack.sink import Slack, SlackSettings

plugin = SinkPlugin(
    settings=SlackSettings, build=Slack, summary="tells a Slack channel, with bursts gathered into digests"
)

__all__ = ["Slack", "SlackSettings", "plugin"]
