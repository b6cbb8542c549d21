"""What servers say when they refuse: in their own words, without secrets, and a missing right is no wrong password."""

from __future__ import annotations

import amqp
import pytest
import redis

from bridge.adapters.kombu.broker import KombuBroker
from bridge.adapters.kombu.connection_thread import failure_reason, refusal
from bridge.adapters.redis.store import RedisStore
from bridge.adapters.redis_words import redis_reason
from bridge.domain.clock import Clock
from bridge.domain.errors import AccessRefused, MissingRight, Unavailable
from bridge.domain.event import JournalEntry, Position, WireEvent
from bridge.testing.servers import RabbitMQServer, RedisServer

CANARY = "c4n4ry"
KEYS = "The user executing the script can't access at least one of the keys mentioned in the command arguments"

REDIS = [
    (redis.exceptions.NoPermissionError("this user has no permissions to run the 'get' command"), MissingRight,
     "NOPERM this user has no permissions to run the 'get' command"),
    (redis.exceptions.NoPermissionError("User bridge has no permissions to run the 'eval' command"), MissingRight,
     "NOPERM User bridge has no permissions to run the 'eval' command"),
    (redis.exceptions.NoPermissionError("No permissions to access a key"), MissingRight, "NOPERM No permissions to access a key"),
    (redis.ResponseError(KEYS), MissingRight, KEYS),
    (redis.ResponseError(f"The user executing the script can't run this command or subcommand script: {'0' * 40}, on "
                         f"@user_script:1. {CANARY}"), MissingRight,
     "The user executing the script can't run this command or subcommand"),
    (redis.AuthenticationError("invalid username-password pair or user is disabled."), AccessRefused,
     "WRONGPASS invalid username-password pair or user is disabled"),
    (redis.AuthenticationError("NOAUTH Authentication required."), AccessRefused, "NOAUTH Authentication required"),
    (redis.ConnectionError("max number of clients reached"), Unavailable, "max number of clients reached"),
    (redis.exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), Unavailable,
     "OOM command not allowed when used memory > 'maxmemory'"),
    (redis.ResponseError(f"Command # 1 (LPUSH queue OOM {CANARY}) of pipeline caused error: this user has no permissions "
                         "to run the 'lpush' command"), MissingRight,
     "NOPERM this user has no permissions to run the 'lpush' command"),
    (redis.exceptions.BusyLoadingError("Redis is loading the dataset in memory"), Unavailable,
     "LOADING Redis is loading the dataset in memory"),
    (redis.exceptions.ReadOnlyError("You can't write against a read only replica."), Unavailable,
     "READONLY You can't write against a read only replica"),
    (redis.ResponseError("MISCONF Redis is configured to save RDB snapshots, but it cannot"), Unavailable,
     "MISCONF Redis is configured to save RDB snapshots, but it cannot"),
    (redis.ResponseError("DB index is out of range"), Unavailable, "DB index is out of range"),
    (redis.ResponseError(f"unknown command 'EVAL', with args beginning with: '{CANARY}'"), Unavailable,
     "unknown command 'EVAL'"),
    (redis.ResponseError(f"Mystery {CANARY}"), Unavailable, "(Mystery)"),
    (redis.ResponseError(f"Command # 2 (LPUSH queue {CANARY}) of pipeline caused error: Mystery"), Unavailable, "(Mystery)"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "kind", "words"), REDIS)
def test_redis_is_quoted_without_values(error: Exception, kind: type[Unavailable], words: str) -> None:
    assert refusal(error) is kind
    for reason in (redis_reason(error, 5.0), failure_reason(error)):
        assert words in reason
        assert CANARY not in reason
        assert ("credentials" in reason or "password" in reason) == (kind is AccessRefused)


RABBITMQ = [
    (403, "ACCESS_REFUSED - access to exchange 'bridge.events' in vhost '/' refused for user 'bridge'", MissingRight),
    (403, "ACCESS_REFUSED - access to queue 'bridge.sink.crm' in vhost '/' refused for user 'bridge'", MissingRight),
    (
        403,
        "ACCESS_REFUSED - access to topic 'a.b' in exchange 'x' in vhost '/' refused for user 'bridge'",
        MissingRight,
    ),
    (530, "NOT_ALLOWED - access to vhost '/' refused for user 'bridge'", MissingRight),
    (530, "NOT_ALLOWED - vhost nope not found", Unavailable),
    (530, "NOT_ALLOWED - access to vhost '/' refused for user 'bridge': connection limit (5) is reached", Unavailable),
    (530, "NOT_ALLOWED - connection refused for user 'bridge': user connection limit (0) is reached", Unavailable),
    (403, "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN.", AccessRefused),
    (403, "ACCESS_REFUSED - Login was refused: user 'guest' can only connect via localhost", AccessRefused),
    (406, "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'bridge.events' in vhost '/'", Unavailable),
]


@pytest.mark.parametrize(("code", "words", "kind"), RABBITMQ)
def test_rabbitmq_is_quoted_as_it_speaks(code: int, words: str, kind: type[Unavailable]) -> None:
    error = amqp.exceptions.error_for_code(code, words, (10, 40), amqp.exceptions.AMQPError)
    assert refusal(error) is kind
    assert words in failure_reason(error)
    assert ("credentials" in failure_reason(error)) == (kind is AccessRefused)


EVENT = JournalEntry(Position("city", 1), WireEvent("e1", "a.b", 1, CANARY.encode()))


async def test_full_redis_says_so_to_store_and_broker() -> None:
    with RedisServer() as server, redis.Redis(port=server.port) as admin:
        admin.config_set("maxclients", 1)
        broker = KombuBroker(server.url, exchange="bridge.events", clock=Clock())
        store = RedisStore(server.url, clock=Clock())
        for part in (broker, store):
            with pytest.raises(Unavailable, match="max number of clients reached"):
                await part.ping()
            await part.close()


async def test_redis_without_memory_is_quoted_without_the_event() -> None:
    with RedisServer() as server, redis.Redis(port=server.port) as admin:
        broker = KombuBroker(server.url, exchange="bridge.events", clock=Clock())
        await broker.declare("bridge.sink.crm", ["#"])
        admin.config_set("maxmemory", 1)
        with pytest.raises(Unavailable, match="OOM command not allowed") as caught:
            await broker.publish([EVENT])
        assert CANARY not in str(caught.value)
        await broker.close()


async def test_rabbitmq_says_which_right_a_user_lacks(rabbitmq_server: RabbitMQServer, rabbitmq_url: str) -> None:
    rabbitmq_server.ctl("add_user", "lacking", CANARY)
    url = rabbitmq_url.replace("guest:guest", f"lacking:{CANARY}")
    try:
        with pytest.raises(MissingRight, match="access to vhost '/' refused for user 'lacking'") as caught:
            await ping(url)
        assert CANARY not in str(caught.value)
        rabbitmq_server.ctl("set_permissions", "-p", "/", "lacking", "", "", "")
        with pytest.raises(MissingRight, match=r"access to exchange 'bridge\.events' in vhost '/' refused"):
            await ping(url)
        with pytest.raises(Unavailable, match="vhost nowhere not found"):
            await ping(f"{url.rstrip('/')}/nowhere")
        rabbitmq_server.ctl("set_user_limits", "lacking", '{"max-connections": 0}')
        with pytest.raises(Unavailable, match=r"connection limit \(0\) is reached"):
            await ping(url)
    finally:
        rabbitmq_server.ctl("delete_user", "lacking")


async def ping(url: str) -> None:
    broker = KombuBroker(url, exchange="bridge.events", clock=Clock())
    try:
        await broker.ping()
    finally:
        await broker.close()
