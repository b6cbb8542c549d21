"""A webhook receiver with FastAPI: verifies, answers at once, and handles each event once."""

import os

import uvicorn
from fastapi import FastAPI, Request, Response

from bridge.client import WebhookError, receive

SECRETS = os.environ["WEBHOOK_SECRET"].split()  # during a rotation: the old and the new one
seen: set[str] = set()  # yours: a unique key in your database, written together with what you do
app = FastAPI()


@app.post("/hook")
async def hook(request: Request) -> Response:
    """Take one event. The body is read as bytes: parsed and written again, it would have another signature."""
    try:
        event = receive(request.headers, await request.body(), SECRETS)
    except WebhookError as error:
        return Response(status_code=error.status, content=str(error))
    if event.id not in seen:
        print(event.id, event.type, event.subject, flush=True)
        seen.add(event.id)
    return Response(status_code=204)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")), log_level="warning")
