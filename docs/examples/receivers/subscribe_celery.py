"""A Celery worker that also takes the bridge's events, and gives each to a task of its own."""

import json
import os

from celery import Celery, bootsteps
from kombu import Consumer, Exchange, Queue

app = Celery("example", broker=os.environ.get("BROKER_URL", "amqp://guest:guest@localhost:5672//"))
app.conf.update(task_acks_late=True, worker_redirect_stdouts=False)
events = Queue(
    "example.celery",
    Exchange("bridge.events", type="topic", durable=True),
    routing_key="#",
    queue_arguments={"x-queue-type": "quorum"},
)
seen = set()  # yours: a unique key in your database, written together with what you do


class Events(bootsteps.ConsumerStep):
    """The bridge's events are no messages of Celery's: this step reads them, and starts a task for each."""

    def get_consumers(self, channel):
        """Consume one queue."""
        return [Consumer(channel, [events], on_message=self.start_task)]

    def start_task(self, message):
        """Acknowledge when the broker has the task."""
        handle.delay(json.loads(message.body))
        message.ack()


app.steps["consumer"].add(Events)


@app.task
def handle(event):
    """Handle one event."""
    if event["id"] not in seen:
        print(event["id"], event["type"], event["subject"], flush=True)
        seen.add(event["id"])


if __name__ == "__main__":
    app.worker_main(["--quiet", "worker", "--pool=solo", "--loglevel=warning", "--without-gossip", "--without-mingle"])
