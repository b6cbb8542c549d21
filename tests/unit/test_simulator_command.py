"""`bridgectl simulate` says where it listens, what opens it, and ends with Ctrl-C."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys

import pytest
import yaml
from click.testing import CliRunner

from bridge.cli.commands.simulate import simulate
from bridge.simulator.fault_catalogue import FAULTS


def call(*args):
    return CliRunner().invoke(simulate, args)


def control(url, page):
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    try:
        connection.request("GET", f"/_simulator/{page}")
        return json.load(connection.getresponse())
    finally:
        connection.close()


class Running:
    """The command in a process of its own, started and answering."""

    def __init__(self, *args):
        command = [sys.executable, "-m", "bridge", "simulate", "--listen", "127.0.0.1:0", *args]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


def test_simulator_prints_json_writes_configuration_and_exits_zero(tmp_path):
    file = tmp_path / "bridge.yaml"
    with Running(
        "--json", "--seed", "5", "--write-config", str(file), "--fault", "http_503:share=1,path=^/j/"
    ) as running:
        said = json.loads(running.process.stdout.readline())
        assert control(said["url"], "faults")["active"][0]["name"] == "http_503"
        assert running.interrupt() == (0, "", "")
    written = yaml.safe_load(file.read_text())
    assert written["sources"] == said["sources"]
    assert {source["type"] for source in written["sources"].values()} == {"govdelivery", "spacivox", "marketingcloud"}
    assert written["sinks"]["screen"] == {"type": "stdout", "topics": ["#"]}
    assert written["state"] == str(tmp_path / "bridge-state-5")
    assert said["config"] == str(file)


def test_a_reader_finds_address_tokens_and_sources_to_paste(tmp_path):
    with Running("--separate-ports", "--write-config", str(tmp_path / "b.yaml")) as running:
        lines = []
        while not lines or "Ctrl-C" not in lines[-1]:
            lines.append(running.process.stdout.readline())
        assert running.interrupt()[0] == 0
    text = "".join(lines)
    sources = yaml.safe_load(text[text.index("sources:") : text.index("# written to")])["sources"]
    assert len({source.get("url") or source["auth_url"] for source in sources.values()}) == 3
    assert "X-AUTH-TOKEN: simulated-govdelivery-token" in text


def test_occupied_port_is_one_line_and_a_failure():
    with Running("--json") as running:
        url = json.loads(running.process.stdout.readline())["url"]
        command = [sys.executable, "-m", "bridge", "simulate", "--listen", url.removeprefix("http://")]
        second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 1
    assert second.stderr.startswith("error: cannot listen on 127.0.0.1:")
    assert second.stderr.count("\n") == 1


@pytest.mark.parametrize("text", ["store: redis://localhost\n", "# Written by `bridgectl simulate`; run with …\n"])
def test_only_a_file_of_its_own_is_written_over(tmp_path, text):
    file = tmp_path / "bridge.yaml"
    file.write_text(text)
    with Running("--json", "--write-config", str(file)) as running:
        ours = running.process.stdout.readline() != ""
        code, _, err = running.interrupt() if ours else (running.process.wait(60), "", running.process.stderr.read())
    assert ours == text.startswith("#")
    assert (code, file.read_text() == text) == ((0, False) if ours else (1, True))
    assert ours or "left as it is" in err


def test_all_faults_are_listed_for_readers_and_for_programs():
    listed = call("--list-faults")
    assert listed.exit_code == 0
    assert all(name in listed.stdout for name in FAULTS)
    assert {item["name"] for item in json.loads(call("--list-faults", "--json").stdout)} == set(FAULTS)


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["--listen", "8025"], "HOST:PORT"),
        (["--listen", "127.0.0.1:99999"], "HOST:PORT"),
        (["--fault", "http_999"], "is not a fault"),
        (["--fault", "http_500:share=7"], "between 0 and 1"),
        (["--fault", "http_500:path=("], "regular expression"),
        (["--speed", "0"], "--speed"),
    ],
)
def test_wrong_usage_names_the_option_and_exits_with_two(args, word):
    result = call(*args)
    assert result.exit_code == 2
    assert word in result.stderr


def test_the_help_page_ends_with_examples():
    assert "curl -s http://127.0.0.1:8025/_simulator/books" in call("--help").stdout.splitlines()[-1]
