"""A simulator, and a client that reads from it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

FEED = "/messaging/v1/sms/messages/?type=notSent"


class Reader:
    """A plain client with the right credentials."""

    def __init__(self, sim, session):
        self.sim = sim
        self.session = session
        self.token = None

    async def raw(self, path, headers, method="GET", **options):
        async with self.session.request(method, self.sim.url + path, headers=headers, **options) as response:
            return response.status, response.headers, await response.read()

    async def full(self, path):
        settings = self.sim.settings
        if path.startswith(("/messages/", "/reports/")) or path == "/":
            headers = {"X-AUTH-TOKEN": settings.govdelivery_token}
        elif path.startswith("/j/"):
            headers = {"Authorization": f"Bearer {settings.spacivox_token}"}
        else:
            self.token = self.token or (await self.sign_in())["access_token"]
            headers = {"Authorization": f"Bearer {self.token}"}
        return await self.raw(path, headers)

    async def get(self, path):
        status, _, body = await self.full(path)
        assert status == 200, (status, body)
        return json.loads(body)

    async def sign_in(self, **changes):
        settings = self.sim.settings
        asked = {
            "grant_type": "client_credentials",
            "client_id": settings.client_id,
            "client_secret": settings.client_secret,
            "account_id": settings.account_id,
            **changes,
        }
        return json.loads((await self.raw("/v2/token", {}, "POST", json=asked))[2])

    async def control(self, path, method="GET", **options):
        status, _, body = await self.raw(f"/_simulator/{path}", {}, method, **options)
        return status, json.loads(body)


def window(sim, before=3600, after=3600):
    now = datetime.fromtimestamp(sim.time.now(), UTC)
    start, end = (now + timedelta(seconds=by) for by in (-before, after))
    return f"start={start:%Y-%m-%dT%H:%M:%SZ}&end={end:%Y-%m-%dT%H:%M:%SZ}"
