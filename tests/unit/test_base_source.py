"""What a third party's source gets from `BaseSource` and `ResourceType.of`."""

from __future__ import annotations

import pytest

from bridge.domain.clock import Clock
from bridge.plugin import (
    BaseSource,
    Data,
    Event,
    Facts,
    HttpSourceSettings,
    Lifecycle,
    Observation,
    Page,
    ProviderError,
    ResourceType,
    Unauthorized,
)
from bridge.testing.fake_endpoint import FakeEndpoint, reply


class ParcelData(Data):
    """One parcel."""


class ParcelEvent(Event):
    """One parcel moved."""

    channels = ("parcel",)
    entity = "box"
    provider = "post"
    data: ParcelData


class ParcelSent(ParcelEvent):
    """The parcel has left."""

    status = "sent"


class ParcelArrived(ParcelEvent):
    """The parcel has arrived."""

    status = "arrived"


class LetterSent(ParcelEvent):
    """Another resource."""

    entity = "letter"
    status = "sent"


def describe(parcel: Observation) -> Facts:
    return Facts(subject=f"/parcels/{parcel.key}", time=None, fields={}, model=ParcelData)


VALUES = {"1": ParcelSent, "2": ParcelArrived, "3": ParcelArrived}
PARCEL = ResourceType.of(values=VALUES, follows={ParcelSent: (ParcelArrived,)}, describe=describe)


class Parcels(BaseSource[HttpSourceSettings]):
    kind = PARCEL

    async def pages(self, cursor, watched):
        answer = await self.client.get("/parcels", {"since": cursor.get("since"), "limit": 5})
        yield Page([Observation(self.kind, "all", "1", "1", item) for item in answer.json_list()], by=answer.at)

    def backfill(self, start, end):
        return self.pages({}, ())


@pytest.fixture
async def provider():
    async with FakeEndpoint(default=reply(200, b"[]", {"Content-Type": "application/json"})) as endpoint:
        yield endpoint


@pytest.fixture
async def make(provider):
    sources, clock = [], Clock()

    def make(**values) -> Parcels:
        settings = {"type": "parcels", "url": provider.url, "token": "a-token", "rate": "100/s", **values}
        sources.append(Parcels("post", HttpSourceSettings.model_validate(settings), clock))
        return sources[-1]

    yield make
    for source in sources:
        await source.close()


def test_a_resource_type_is_made_of_its_event_classes():
    assert (PARCEL.channel, PARCEL.entity) == ("parcel", "box")
    assert PARCEL.events == {"sent": ParcelSent, "arrived": ParcelArrived}
    assert PARCEL.lifecycle == Lifecycle(
        status_by_value={"1": "sent", "2": "arrived", "3": "arrived"},
        follows={"sent": ("arrived",)},
        finals=frozenset({"arrived"}),
    )


def test_final_events_can_be_named():
    kind = ResourceType.of(values=VALUES, follows={ParcelSent: (ParcelArrived,)}, finals=(), describe=describe)
    assert kind.lifecycle.finals == frozenset()


@pytest.mark.parametrize("values", [{}, {"1": ParcelSent, "2": LetterSent}])
def test_a_resource_type_has_one_channel_and_one_entity(values):
    with pytest.raises(ValueError, match="one channel and one entity"):
        ResourceType.of(values=values, describe=describe)


async def test_an_operators_statuses_reach_the_source(make):
    source = make(statuses={"9": "arrived"})
    assert source.kind.lifecycle.status_by_value["9"] == "arrived"
    assert "9" not in PARCEL.lifecycle.status_by_value
    with pytest.raises(ValueError, match="'lost' is not one of sent, arrived"):
        make(statuses={"9": "lost"})


async def test_a_request_has_the_token_and_the_given_parameters_only(make, provider):
    pages = [page async for page in make().pages({}, ())]
    assert [list(page.observations) for page in pages] == [[]]
    assert provider.requests[0].headers["authorization"] == "Bearer a-token"
    assert provider.requests[0].path == "/parcels?limit=5"


async def test_the_default_probe_reads_one_page(make, provider):
    probe = await make(interval="60s").probe()
    assert (probe.summary, probe.requests_per_day) == ("127.0.0.1 answers", 1440.0)
    provider.answer(reply(401))
    with pytest.raises(Unauthorized):
        await make().probe()


async def test_an_answer_that_is_no_list_is_a_failure(make, provider):
    provider.answer(reply(200, b"{}", {"Content-Type": "application/json"}))
    with pytest.raises(ProviderError, match="something else than a list"):
        await make().probe()


async def test_sources_of_one_account_share_its_budget(make):
    first, second, other = make(), make(rate="50/s"), make(token="another-token")
    assert first.account == second.account != other.account
    assert "a-token" not in first.account
    assert first.client.limiter is second.client.limiter is not other.client.limiter


async def test_no_resource_has_to_be_named(make):
    with pytest.raises(ValueError, match="a parcels source follows everything by itself"):
        make().resource("/parcels/1")
    assert await make().complete([]) == []
