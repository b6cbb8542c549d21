"""A subscriber with `bridge.client`: typed events on RabbitMQ, Redis and the embedded broker."""

import asyncio
import os
import signal

from bridge.client import RecipientFailed, subscribe

URL = os.environ.get("BROKER_URL", "amqp://guest:guest@localhost:5672//")
SEEN = os.environ.get("SEEN", "sqlite:///seen.db")  # which events were handled, also after a restart


async def main() -> None:
    """Handle events until SIGTERM; the event that is being handled then is finished first."""
    async with subscribe(URL, ["#"], queue="example.client", seen=SEEN) as events:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, events.stop)
        async for event in events:
            print(event.id, event.type, event.subject, flush=True)
            if isinstance(event, RecipientFailed):
                print(f"# {event.data.message}: {event.data.detail or event.data.error}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
