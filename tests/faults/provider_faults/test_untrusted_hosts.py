"""Where credentials must not go, names, certificates, and everything at once."""

from __future__ import annotations

import asyncio
import random
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from harness import expected
from inprocess import polling
from rigs.provider_faults import SETTINGS, SOURCES, STAGES, stage

from bridge.domain.errors import Transient
from bridge.simulator import Simulator, SimulatorSettings
from bridge.simulator.fault_catalogue import FAULTS
from bridge.testing.fakes import Jumping

pytestmark = pytest.mark.faults


@asynccontextmanager
async def foreign_server() -> AsyncIterator[tuple[str, list[web.BaseRequest]]]:
    """Give another origin, and all that arrives there."""
    came: list[web.BaseRequest] = []

    async def take(request: web.BaseRequest) -> web.StreamResponse:
        came.append(request)
        return web.json_response([])

    runner = web.ServerRunner(web.Server(take))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", came
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("source", "fault", "where"),
    [
        ("city", "next_elsewhere", ""),
        ("city", "redirect_elsewhere", ""),
        ("drops", "redirect_elsewhere", ""),
        ("journeys", "redirect_elsewhere", "^/messaging"),
        ("journeys", "redirect_elsewhere", "^/v2/token"),
    ],
)
async def test_cross_origin_link_is_refused_and_receives_no_token(source, fault, where, tmp_path):
    async with foreign_server() as (origin, came), stage(source, tmp_path, unpolled=True) as scene:
        scene.simulator.switch_on(fault, value=origin, path=where)
        for _ in range(3):
            await scene.poll()
        assert scene.simulator.board.applied[fault] > 0
        assert not came
        scene.simulator.switch_off()
        await scene.complete()
        assert not came


async def test_with_rest_url_given_a_token_goes_nowhere_else(tmp_path):
    async with foreign_server() as (origin, came), stage("journeys", tmp_path, unpolled=True) as scene:
        config = scene.polled.settings.model_copy(update={"rest_url": scene.simulator.url})
        scene.polled.source._rest._tokens._rest_url = config.rest_url
        scene.simulator.switch_on("rest_url_elsewhere", value=f"{origin}/")
        await scene.poll()
        assert scene.simulator.board.applied["rest_url_elsewhere"] > 0
        assert scene.polled.error is None
        assert not came
        await scene.complete()


@pytest.mark.parametrize(
    ("source", "key"), [("city", "url"), ("drops", "url"), ("journeys", "auth_url"), ("journeys", "rest_url")]
)
async def test_unresolvable_host_is_named_and_retried(source, key, tmp_path):
    async with stage(source, tmp_path, unpolled=True, **{key: "http://tms.invalid"}) as scene:
        for _ in range(2):
            await scene.poll()
            assert isinstance(scene.polled.error, Transient)
            assert "host name cannot be resolved" in str(scene.polled.error)
        assert not await scene.polled.histories()


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an authority, and what it signed: a good certificate, an expired one, one for another host; and an unknown issuer's."""
    folder = tmp_path_factory.mktemp("certificates")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(folder, "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=Test CA")
    (folder / "index.txt").touch()
    (folder / "serial").write_text("01")
    (folder / "ca.conf").write_text(
        "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\n"
        "policy=p\ncopy_extensions=copy\nunique_subject=no\n[p]\ncommonName=supplied\n"
    )
    for name, host, start, end in (
        ("good", "localhost", "20200101000000Z", "20490101000000Z"),
        ("expired", "localhost", "20200101000000Z", "20210101000000Z"),
        ("not yet valid", "localhost", "20480101000000Z", "20490101000000Z"),
        ("other host", "tms.example.com", "20200101000000Z", "20490101000000Z"),
    ):
        openssl(folder, "req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={host}",
                "-addext", f"subjectAltName=DNS:{host}")  # fmt: skip
        openssl(folder, "ca", "-batch", "-config", "ca.conf", "-cert", "ca.pem", "-keyfile", "ca.key", "-notext",
                "-in", f"{name}.csr", "-out", f"{name}.pem", "-startdate", start, "-enddate", end)  # fmt: skip
    openssl(folder, "req", "-x509", *key, "-keyout", "self-signed.key", "-out", "self-signed.pem", "-days", "2",
            "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")  # fmt: skip
    return folder


@asynccontextmanager
async def encrypted(certificates: Path, name: str, target: str) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Put a certificate before a simulator; give its address and all that was said to it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
    said: list[bytes] = []
    tasks: set[asyncio.Task[None]] = set()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, keep: list[bytes] | None) -> None:
        try:
            while data := await reader.read(1 << 16):
                if keep is not None:
                    keep.append(data)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = target.removeprefix("http://").rpartition(":")
        inner_reader, inner_writer = await asyncio.open_connection(host, int(port))
        for direction in (pass_on(reader, inner_writer, said), pass_on(inner_reader, writer, None)):
            tasks.add(asyncio.ensure_future(direction))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}", said
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


UNTRUSTED = ["self-signed", "expired", "not yet valid", "other host"]


@pytest.mark.parametrize("certificate", UNTRUSTED)
async def test_a_certificate_that_proves_nothing_gets_no_token(certificate, certificates, tmp_path):
    clock = Jumping()
    async with (
        Simulator(SimulatorSettings.still(), clock.world) as simulator,
        encrypted(certificates, certificate, simulator.url) as (url, said),
        polling(
            "city", simulator, tmp_path, clock.clock, url=url, ca_file=str(certificates / "ca.pem"), interval="30s"
        ) as polled,
    ):
        STAGES["city"](simulator)
        for _ in range(2):
            clock.ahead += await polled.poll()
            assert isinstance(polled.error, Transient)
            assert "its certificate is not trusted: " in str(polled.error)
        assert not said
        assert not await polled.histories()


@pytest.mark.parametrize(("source", "key"), [("drops", "url"), ("journeys", "auth_url"), ("journeys", "rest_url")])
async def test_no_source_trusts_a_certificate_that_nobody_signed(source, key, certificates, tmp_path):
    clock = Jumping()
    async with (
        Simulator(SimulatorSettings.still(), clock.world) as simulator,
        encrypted(certificates, "self-signed", simulator.url) as (url, said),
        polling(source, simulator, tmp_path, clock.clock, **(SETTINGS[source] | {key: url})) as polled,
    ):
        await polled.poll()
        assert isinstance(polled.error, Transient)
        assert "certificate is not trusted" in str(polled.error)
        assert not said


async def test_a_certificate_of_the_configured_authority_is_trusted(certificates, tmp_path):
    clock = Jumping()
    async with (
        Simulator(SimulatorSettings.still(), clock.world) as simulator,
        encrypted(certificates, "good", simulator.url) as (url, said),
        polling(
            "city", simulator, tmp_path, clock.clock, url=url, ca_file=str(certificates / "ca.pem"), interval="30s"
        ) as polled,
    ):
        STAGES["city"](simulator)
        await polled.poll()
        assert polled.error is None
        assert await polled.histories() == expected(simulator) != {}
        assert said


@pytest.mark.parametrize("source", ["city", "drops"])
async def test_a_server_that_does_not_speak_tls_gets_no_token(source, tmp_path):
    async with foreign_server() as (origin, came):
        async with stage(source, tmp_path, unpolled=True, url=origin.replace("http:", "https:")) as scene:
            await scene.poll()
            assert isinstance(scene.polled.error, Transient)
            assert "no encrypted connection came about" in str(scene.polled.error)
        assert not came


# What a provider says differently stays said, so that no truth could be held against it.
REPORTED = {"no_identity", "status_null", "unknown_status", "other_category", "fields_null", "fields_absent"}
# A change that is shown in an answer of a poll that then fails, and is taken back before the next, is seen by nobody.
TO_AND_FRO = {"regress", "reopen", "cancelling_changes", "late_bounce", "stale_answer"}
SLOW = {"never_answers", "headers_only", "endless_pages", "gzip_bomb", "huge_body", "refused", "retry_after_absurd"}
FOR_GOOD = {"vanished_message", "rest_url_elsewhere"}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("source", SOURCES)
async def test_random_faults_over_forty_polls_lose_and_repeat_nothing(source, seed, tmp_path):
    rng = random.Random(f"{source}/{seed}")
    usable = sorted(set(FAULTS) - REPORTED - TO_AND_FRO - SLOW - FOR_GOOD)
    async with stage(source, tmp_path) as scene:
        world = scene.simulator.world
        for number in range(40):
            scene.simulator.switch_off()
            for fault in rng.sample(usable, 6):
                scene.simulator.switch_on(fault, share=0.3, value=0.02 if fault.startswith("slow") else None)
            match source:
                case "city":
                    world.move(world.find(scene.names["big"])[0].recipient(20 + number), "failed")
                case "drops":
                    world.add_drop(state=number % 4)
                case "journeys":
                    world.add_send_event()
            await scene.poll()
        assert len(scene.simulator.board.applied) >= 10
        scene.simulator.switch_off()
        await scene.complete()
        assert sum(map(len, (await scene.polled.histories()).values())) > 40
