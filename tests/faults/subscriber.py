"""A service that subscribes by `bridge.client`, and writes the id of each event as soon as it has it."""

from __future__ import annotations

import asyncio
import os
import sys

from bridge.client import subscribe


async def main(url: str, seen: str, out: str) -> None:
    descriptor = os.open(out, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    async with subscribe(url, queue="billing", seen=seen, lease_seconds=2.0) as events:
        async for event in events:
            os.write(descriptor, f"{event.id}\n".encode())
            await asyncio.sleep(0.002)  # work, in which it may be killed


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
