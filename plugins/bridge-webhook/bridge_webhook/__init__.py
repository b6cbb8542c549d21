"""The webhook sink: each event is posted as it travels, with the headers of Standard Webhooks."""

from bridge.plugin import SinkPlugin
from bridge_webhook.settings import WebhookSettings
from bridge_webhook.signing import new_secret
from bridge_webhook.sink import Webhook

plugin = SinkPlugin(
    settings=WebhookSettings,
    build=Webhook,
    summary="posts each event to a URL, signed as Standard Webhooks asks",
    new_secrets=lambda: {"secret": new_secret()},
)

__all__ = ["Webhook", "WebhookSettings", "plugin"]
