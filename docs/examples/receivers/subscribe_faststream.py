"""A subscriber with FastStream (RabbitMQ)."""

import asyncio
import json
import os

from faststream import AckPolicy, FastStream
from faststream.rabbit import ExchangeType, RabbitBroker, RabbitExchange, RabbitMessage, RabbitQueue
from faststream.rabbit.schemas.queue import QueueType

broker = RabbitBroker(os.environ.get("BROKER_URL", "amqp://guest:guest@localhost:5672//"), logger=None)
app = FastStream(broker, logger=None)
exchange = RabbitExchange("bridge.events", type=ExchangeType.TOPIC, durable=True)
queue = RabbitQueue("example.faststream", queue_type=QueueType.QUORUM, durable=True, routing_key="#")
seen = set()  # yours: a unique key in your database, written together with what you do


@broker.subscriber(queue, exchange, ack_policy=AckPolicy.NACK_ON_ERROR)
async def handle(message: RabbitMessage):
    """Handle one event; one whose handling raises returns to the queue."""
    event = json.loads(message.body)
    if event["id"] not in seen:
        print(event["id"], event["type"], event["subject"], flush=True)
        seen.add(event["id"])


if __name__ == "__main__":
    asyncio.run(app.run())
