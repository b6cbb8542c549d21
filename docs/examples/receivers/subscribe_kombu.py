"""A subscriber with kombu: RabbitMQ and Redis alike."""

import json
import os

from kombu import Connection, Exchange, Queue
from kombu.mixins import ConsumerMixin

URL = os.environ.get("BROKER_URL", "amqp://guest:guest@localhost:5672//")
exchange = Exchange("bridge.events", type="topic", durable=True)
queue = Queue("example.kombu", exchange, routing_key="#", queue_arguments={"x-queue-type": "quorum"})
seen = set()  # yours: a unique key in your database, written together with what you do


class Subscriber(ConsumerMixin):
    """Connects again by itself. `on_message` gets the bytes: kombu does not know the content type of CloudEvents."""

    def __init__(self, connection):
        self.connection = connection

    def get_consumers(self, consumer, channel):
        """Consume one queue."""
        return [consumer([queue], on_message=self.handle, prefetch_count=100)]

    def handle(self, message):
        """Handle one event."""
        if message.properties.get("message_id") not in seen:
            event = json.loads(message.body)
            print(event["id"], event["type"], event["subject"], flush=True)
            seen.add(event["id"])
        message.ack()


with Connection(URL) as connection:
    Subscriber(connection).run()
