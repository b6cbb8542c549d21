"""A subscriber with pika (RabbitMQ)."""

import json
import os

import pika

URL = os.environ.get("BROKER_URL", "amqp://guest:guest@localhost:5672//").removesuffix("//") + "/%2F"
seen = set()  # yours: a unique key in your database, written together with what you do

connection = pika.BlockingConnection(pika.URLParameters(URL))
channel = connection.channel()
channel.exchange_declare("bridge.events", exchange_type="topic", durable=True)
channel.queue_declare("example.pika", durable=True, arguments={"x-queue-type": "quorum"})
channel.queue_bind("example.pika", "bridge.events", routing_key="#")  # or voice.recipient.failed.#
channel.basic_qos(prefetch_count=100)


def handle(channel, method, properties, body):
    """Handle one event; an exception ends the program, and the event returns to the queue."""
    if properties.message_id not in seen:
        event = json.loads(body)
        print(event["id"], event["type"], event["subject"], flush=True)
        seen.add(event["id"])
    channel.basic_ack(method.delivery_tag)


channel.basic_consume("example.pika", handle)
channel.start_consuming()
