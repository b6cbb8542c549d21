"""One URL that gets every event: its settings, and the sink."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog

from bridge.plugin import (
    CONTENT_TYPE,
    Clock,
    Endpoint,
    GuardedClient,
    Outgoing,
    Tls,
    Transient,
    Unauthorized,
    WireEvent,
)
from bridge_webhook.batches import Batches
from bridge_webhook.forms import BATCH_CONTENT_TYPE, batch_body, batch_id, binary
from bridge_webhook.handshake import Handshake
from bridge_webhook.settings import WebhookSettings, usable_keys
from bridge_webhook.signing import SigningKey, signatures
from bridge_webhook.tokens import tokens_of

log = structlog.get_logger()

_UNAUTHORIZED_STATUS = 401


class Webhook:
    """Posts `outgoing.wire.body` as it is; the endpoint sees the event's id, the time of sending, and who signed."""

    def __init__(self, name: str, settings: WebhookSettings, clock: Clock) -> None:
        self._name = name
        self._clock = clock
        self._endpoint = Endpoint.of(settings.url)
        self._headers = settings.headers
        self._is_binary = settings.mode == "binary"
        self._permanent_statuses = frozenset(settings.permanent_statuses)
        self._secrets = settings.secret
        self._texts: tuple[str, ...] = ()
        self._keys: tuple[SigningKey, ...] = ()
        self._warned = False
        self._outbound = GuardedClient(
            allow_private=settings.allow_private,
            allow_networks=settings.allow_networks,
            clock=clock,
            timeout=settings.send_timeout,
            connections=settings.concurrency,
            tls=Tls(settings.ca_file, settings.cert_file, settings.key_file),
        )
        self._tokens = tokens_of(settings, self._outbound, clock)
        self._handshake = Handshake.of(settings, self._outbound, self._endpoint, clock)
        batch = settings.batch
        self._batches = None if batch is None else Batches(clock, batch.size, batch.wait, post=self._post_batch)

    async def open(self) -> None:
        """Make the connection pool."""
        await self._outbound.open()

    async def send(self, outgoing: Outgoing) -> None:
        """Post one event, alone or in a batch; returns when it was answered with 2xx."""
        if self._batches is not None:
            await self._batches.send(outgoing.wire)
            return
        wire = outgoing.wire
        if self._is_binary:
            headers, body = binary(wire.body)
            await self._post(wire.id, body, headers)
        else:
            await self._post(wire.id, wire.body, {"Content-Type": CONTENT_TYPE})

    async def _post_batch(self, events: Sequence[WireEvent]) -> None:
        await self._post(batch_id(events), batch_body(events), {"Content-Type": BATCH_CONTENT_TYPE})

    async def _post(self, message_id: str, body: bytes, form: Mapping[str, str]) -> None:
        headers = {**form, **self._further_headers()}
        if self._handshake is not None:
            headers |= await self._handshake.headers()
        token = {} if self._tokens is None else await self._tokens.headers()
        timestamp = str(int(self._clock.epoch()))
        headers |= {**token, "webhook-id": message_id, "webhook-timestamp": timestamp}
        if self._secrets:
            headers["webhook-signature"] = signatures(self._signing_keys(), message_id, timestamp, body)
        answer = await self._outbound.post(self._endpoint, body, headers)
        if answer.status == _UNAUTHORIZED_STATUS and self._tokens is not None:
            self._tokens.drop(token)  # it may have ended before its time
            headers |= await self._tokens.headers()
            answer = await self._outbound.post(self._endpoint, body, headers)
        if error := answer.error(self._permanent_statuses):
            raise error

    def _further_headers(self) -> dict[str, str]:
        try:
            return {header: value.reveal() for header, value in self._headers.items()}
        except OSError as error:
            raise Unauthorized(f"the file of a header's value cannot be read: {error.strerror}") from None

    async def probe(self) -> str:
        """Connect and get a token if that is asked for; post no event."""
        signed = self._signed()
        await self._outbound.open()
        await self._outbound.check_connectivity(self._endpoint)
        if self._tokens is not None:
            await self._tokens.headers()
        return f"posts to {self._endpoint.name}, {signed}"

    async def close(self) -> None:
        """Stop gathering without sending the rest, and close the connections."""
        if self._batches is not None:
            await self._batches.close()
        await self._outbound.close()

    def _signed(self) -> str:
        keys = self._signing_keys()
        if not keys:
            return "unsigned: receivers cannot tell who sent it; give a secret"
        text = "signed with 1 secret" if len(keys) == 1 else f"signed with {len(keys)} secrets"
        public = [key.public for key in keys if not isinstance(key, bytes)]
        return f"{text}; v1a is verified with {', '.join(public)}" if public else text

    def _signing_keys(self) -> tuple[SigningKey, ...]:
        """Return the keys; a file is read again when it changed, and one that broke leaves the keys as they were."""
        try:
            texts = tuple(secret.reveal() for secret in self._secrets)
            if texts != self._texts:
                self._keys, self._texts = usable_keys(texts), texts
        except (OSError, ValueError, Unauthorized) as error:
            if not self._keys:
                raise Transient(f"sink {self._name} has no usable secret to sign with; nothing is sent") from None
            if not self._warned:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                log.warning(
                    "webhook.secret_unusable", sink=self._name, reason=reason,
                    consequence="signs with the secrets that the file held before",
                )  # fmt: skip
            self._warned = True
        else:
            self._warned = False
        return self._keys
