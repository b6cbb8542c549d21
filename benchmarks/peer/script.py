"""The script that teams write today: Celery beat, requests, SET NX, kombu with confirms, requests to the webhook.

Run by Celery itself, in an environment that has nothing of the bridge; it is told by its environment where things are.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime

import kombu
import redis
import requests
from celery import Celery
from celery.signals import worker_process_init

PROVIDER = os.environ["PEER_PROVIDER"]
WEBHOOK = os.environ.get("PEER_WEBHOOK")
app = Celery("script", broker=os.environ["PEER_REDIS"])
app.conf.update(
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    beat_schedule={
        path: {"task": "script.poll", "schedule": float(os.environ.get("PEER_INTERVAL", "1")), "args": [path]}
        for path in os.environ["PEER_MESSAGES"].split(",")
    },
    beat_schedule_filename=os.environ["PEER_SCHEDULE"],
)
state: dict[str, object] = {}


@worker_process_init.connect
def connect(**_: object) -> None:
    """Connect once for each process."""
    connection = kombu.Connection(os.environ["PEER_RABBITMQ"], transport_options={"confirm_publish": True})
    exchange = kombu.Exchange(os.environ["PEER_EXCHANGE"], type="topic", durable=True)
    state["producer"] = kombu.Producer(connection.channel(), exchange=exchange, auto_declare=False)
    state["http"] = requests.Session()
    state["redis"] = redis.Redis.from_url(os.environ["PEER_REDIS"])


@app.task(name="script.poll")
def poll(path: str) -> None:
    """Read all pages of a message's recipients, and publish of each status that was not seen before."""
    url: str | None = f"{PROVIDER}{path}/recipients"
    while url is not None:
        answer = state["http"].get(url, headers={"X-AUTH-TOKEN": "t"}, timeout=30)
        answer.raise_for_status()
        for item in answer.json():
            publish(path, item)
        following = answer.links.get("next")
        url = None if following is None else requests.compat.urljoin(url, following["url"])


def publish(path: str, item: dict[str, object]) -> None:
    """Publish one recipient's status once, and post it."""
    subject, status = item["_links"]["self"], item["status"]
    key = f"{subject}:{status}"
    if not state["redis"].set(key, 1, nx=True, ex=30 * 86400):
        return
    event = {
        "specversion": "1.0", "id": key, "source": "/govdelivery/script", "type": f"bridge.sms.recipient.{status}",
        "subject": subject, "time": item.get("completed_at") or datetime.now(UTC).isoformat(),
        "datacontenttype": "application/json",
        "data": {
            "channel": "sms", "status": status, "message": path, "phone": item["formatted_phone"],
            "error": item["error_message"], "created_at": item["created_at"], "completed_at": item.get("completed_at"),
        },
    }  # fmt: skip
    body = json.dumps(event)
    state["producer"].publish(
        body, routing_key=f"sms.recipient.{status}", content_type="application/cloudevents+json",
        content_encoding="utf-8", delivery_mode=2, mandatory=True, message_id=key,
    )  # fmt: skip
    if WEBHOOK:
        state["http"].post(WEBHOOK, data=body, headers={"webhook-id": key}, timeout=30).raise_for_status()
