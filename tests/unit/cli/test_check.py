"""`bridgectl check`: every part is asked, and nothing is sent."""

from __future__ import annotations

import re

import pytest

from bridge.cli.support.options import Exit
from bridge.testing.servers import RedisServer


def test_a_check_asks_every_part_and_tells_what_polling_costs(bridge, file) -> None:
    done = bridge("check", "-c", file)
    assert (done.code, done.err) == (Exit.DONE, "")
    assert re.search(r"^store +ok +- +- +sqlite:", done.out, re.MULTILINE)
    assert re.search(r"^broker +ok +- +- +embedded$", done.out, re.MULTILINE)
    assert re.search(r"^source lamps +ok +2,880 +1,051,200 +shines$", done.out, re.MULTILINE)
    assert re.search(r"^sink crm +ok +- +- +rings$", done.out, re.MULTILINE)


@pytest.mark.parametrize(("strict", "code"), [((), Exit.DONE), (("--strict",), Exit.FAILED)])
def test_allowance_that_is_too_small_is_a_warning(bridge, file, strict, code) -> None:
    file.write_text(file.read_text().replace("lamps: {type: lamp", "lamps: {type: lamp, fault: dear"))
    done = bridge("check", "-c", file, "--json", *strict)
    assert (done.code, done.json["ok"]) == (code, code is Exit.DONE)
    (row,) = [row for row in done.json["parts"] if row["part"] == "source lamps"]
    assert row["state"] == "warning"
    assert "315% of the allowance" in row["said"]
    assert re.search(r"^source lamps +warning .* 315% of", bridge("check", "-c", file).out, re.MULTILINE)


@pytest.mark.parametrize(
    ("fault", "code", "state", "said"),
    [("away", Exit.UNREACHABLE, "unreachable", "lamp.example is away"), ("wrong", Exit.FAILED, "refused", "the token was refused"),
     ("never", Exit.FAILED, "refused", "no such account"), ("defect", Exit.FAILED, "refused", "a defect: unexpected KeyError")],
)  # fmt: skip
@pytest.mark.parametrize("part", ["lamps: {type: lamp", "crm: {type: bell"])
def test_a_check_says_which_part_fails_and_why(bridge, file, part, fault, code, state, said) -> None:
    file.write_text(file.read_text().replace(part, f"{part}, fault: {fault}"))
    done = bridge("check", "-c", file, "--json")
    assert done.code == code
    assert not done.json["ok"]
    name = "source lamps" if "lamp" in part else "sink crm"
    assert {row["part"]: (row["state"], row["said"]) for row in done.json["parts"]}[name] == (state, said)
    assert sum(row["state"] == "ok" for row in done.json["parts"]) == 4


def test_unavailable_store_is_reported_without_its_password(bridge, file) -> None:
    file.write_text(f"{file.read_text()}store: redis://:canary@127.0.0.1:1/0\nbroker: redis://:canary@127.0.0.1:1/1\n")
    done = bridge("check", "-c", file)
    assert done.code == Exit.UNREACHABLE
    assert re.search(r"^store +unreachable .* cannot be reached: connection refused", done.out, re.MULTILINE)
    assert re.search(r"^broker +unreachable .* connection refused", done.out, re.MULTILINE)
    assert "canary" not in done.out + done.err


@pytest.mark.parametrize("key", ["store", "broker"])
def test_address_unreadable_by_its_library_is_a_file_problem(bridge, file, key) -> None:
    url = {"store": "redis://h/0?socket_timeout=x", "broker": "amqp://h//?ssl_cert_reqs=canary"}[key]
    file.write_text(f"{file.read_text()}{key}: {url}\n")
    done = bridge("tail" if key == "broker" else "sources", "-c", file)
    assert done.code == Exit.CONFIG
    assert re.match(rf".*bridge\.yaml:\d+: {key}: ", done.err)
    assert "canary" not in done.err


def test_refused_password_is_not_reported_as_unreachable(bridge, file) -> None:
    with RedisServer() as server:
        url = server.url.replace("//", "//nobody:canary@")
        file.write_text(f"{file.read_text()}store: {url}\nbroker: {url}\n")
        done = bridge("check", "-c", file)
    assert done.code == Exit.FAILED
    assert re.search(r"^store +refused .* refuses the credentials", done.out, re.MULTILINE)
    assert re.search(r"^broker +refused .* refuses the credentials", done.out, re.MULTILINE)
    assert "canary" not in done.out + done.err


def test_command_without_its_store_ends_with_4(bridge, file) -> None:
    file.write_text(f"{file.read_text()}store: redis://:canary@127.0.0.1:1/0\n")
    done = bridge("sources", "-c", file)
    assert done.code == Exit.UNREACHABLE
    assert len(done.err.splitlines()) == 1
    assert "canary" not in done.err


def test_a_check_without_connections_makes_none(bridge, file, tmp_path) -> None:
    assert bridge("check", "--offline", "-c", file).out.endswith("ok: sources lamps; sinks crm, ops\n")
    assert not (tmp_path / "state").exists()


def test_plugin_settings_refusal_is_reported_as_json(bridge, file) -> None:
    file.write_text("sources: {}\n")
    done = bridge("check", "-c", file, "--json")
    assert done.code == Exit.CONFIG
    assert done.json["problems"][0]["line"] == 1
