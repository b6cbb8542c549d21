"""A subscriber with aio-pika (RabbitMQ, asyncio); it connects again by itself."""

import asyncio
import json
import os

import aio_pika

URL = os.environ.get("BROKER_URL", "amqp://guest:guest@localhost:5672//")
seen = set()  # yours: a unique key in your database, written together with what you do


async def main():
    """Handle events; one whose handling raises returns to the queue."""
    connection = await aio_pika.connect_robust(URL)
    async with connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=100)
        exchange = await channel.declare_exchange("bridge.events", aio_pika.ExchangeType.TOPIC, durable=True)
        queue = await channel.declare_queue("example.aio-pika", durable=True, arguments={"x-queue-type": "quorum"})
        await queue.bind(exchange, "#")
        async with queue.iterator() as messages:
            async for message in messages:
                async with message.process(requeue=True):
                    if message.message_id not in seen:
                        event = json.loads(message.body)
                        print(event["id"], event["type"], event["subject"], flush=True)
                        seen.add(event["id"])


asyncio.run(main())
