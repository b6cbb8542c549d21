"""What a real bash completes, and what becomes of a reader that has gone."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

FILE = "sources: {city-voice: {type: govdelivery, token: '${UNSET}'}, drops: {}}\nsinks: {crm: {}, ops-slack: {}}\n"
CASES = {
    "bridgectl rep": ["replay", "replay-tape"],
    "bridgectl backfill c": ["city-voice"],
    "bridgectl reconcile ": ["city-voice", "drops"],
    "bridgectl watch add d": ["drops"],
    "bridgectl replay -c other.yaml ": ["elsewhere"],
    "bridgectl replay o": ["ops-slack"],
    "bridgectl tail voice.recipient.failed.b": ["voice.recipient.failed.busy"],
    "bridgectl plugins schema g": ["govdelivery"],
    "bridgectl events schema RecipientF": ["RecipientFailed"],
    "bridgectl init --provider s": ["simulated", "spacivox"],
    "bridgectl run --role r": ["relay"],
    "bridgectl help watch ": ["add", "list", "remove"],
    "bridgectl completion ": ["bash", "fish", "zsh"],
    "bridgectl tail --l": ["--limit"],
}


@pytest.fixture(scope="module")
def completed(tmp_path_factory) -> dict[str, list[str]]:
    """Have one bash complete all lines, as it does when Tab is pressed behind them."""
    folder = tmp_path_factory.mktemp("shell")
    (folder / "bridge.yaml").write_text(FILE)
    (folder / "other.yaml").write_text("sources: {}\nsinks: {elsewhere: {}}\n")
    program = folder / "bin" / "bridgectl"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom bridge.cli import main\nmain()\n")
    program.chmod(0o755)
    lines = ['eval "$(bridgectl completion bash)"']
    for line in CASES:
        words = [*line.split(), *([""] if line.endswith(" ") else [])]
        lines += [
            f"COMP_WORDS=({' '.join(map(shlex.quote, words))}) COMP_CWORD={len(words) - 1} COMPREPLY=()",
            "_bridgectl_completion bridgectl", 'echo "${COMPREPLY[*]}"',
        ]  # fmt: skip
    env = {"PATH": f"{program.parent}:{os.environ['PATH']}", "HOME": str(folder)}
    done = subprocess.run(
        ["bash", "-c", "\n".join(lines)], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return dict(zip(CASES, map(str.split, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("line", CASES)
def test_bash_completes_the_names(completed, line) -> None:
    assert sorted(completed[line]) == CASES[line]


@pytest.mark.parametrize(("shell", "mark"), [("zsh", "#compdef bridgectl"), ("fish", "function _bridgectl_completion")])
def test_scripts_of_other_shells_are_printed(bridge, shell, mark) -> None:
    assert bridge("completion", shell).out.lstrip().startswith(mark)


@pytest.mark.parametrize("arguments", [["events", "list", "--json"], ["--help"], ["events", "schema"]])
def test_command_whose_reader_has_gone_ends_well(arguments) -> None:
    command = [sys.executable, "-c", f"from bridge.cli import main; main({json.dumps(arguments)})"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_head_ends_a_command_without_a_word() -> None:
    line = f"set -o pipefail; {shlex.quote(sys.executable)} -m bridge events schema | head -1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{\n", "")


def test_full_disk_is_a_failure() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "bridge", "events", "schema"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "error: No space left on device\n")
