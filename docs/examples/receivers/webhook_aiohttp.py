"""A webhook receiver with aiohttp: verifies, answers at once, and handles each event once."""

import os

from aiohttp import web

from bridge.client import RecipientFailed, WebhookError, receive

SECRETS = os.environ["WEBHOOK_SECRET"].split()  # during a rotation: the old and the new one
seen: set[str] = set()  # yours: a unique key in your database, written together with what you do


async def hook(request: web.Request) -> web.Response:
    """Take one event: 2xx says that we have it, 4xx and 5xx say what the bridge does next."""
    try:
        event = receive(request.headers, await request.read(), SECRETS)
    except WebhookError as error:
        return web.Response(status=error.status, text=str(error))
    if event.id not in seen:
        print(event.id, event.type, event.subject, flush=True)
        if isinstance(event, RecipientFailed):
            print(f"# {event.data.message}: {event.data.detail or event.data.error}", flush=True)
        seen.add(event.id)
    return web.Response(status=204)


app = web.Application()
app.add_routes([web.post("/hook", hook)])

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")), print=None)
