"""Every configuration that a reader can copy is one that the bridge takes, and the starting point names all keys."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from house.pages import PAGES, ROOT

from bridge.config.loading import load
from bridge.domain.settings import Settings
from bridge.protocols.sink import SinkSettings
from bridge.protocols.source import SourceSettings

# A block with a title belongs to the plugin tutorial, which is tested as a whole.
YAML = re.compile(r"^ *```ya?ml\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
WHOLE = re.compile(r"^sources:", re.MULTILINE)
FILES = [path for folder in ("config", "docs/examples") for path in sorted((ROOT / folder).glob("*.yaml"))]
VALUES = {"store": "redis://redis:6379/0", "broker": "amqp://rabbitmq:5672//", "url": "https://example.com/hooks"}
A_SECRET = "whsec_" + "c2VjcmV0IG9mIDI0IGJ5dGVzISEhISEh"


def examples() -> dict[str, str]:
    texts = {str(path.relative_to(ROOT)): path.read_text() for path in FILES}
    for page in PAGES:
        for number, text in enumerate(YAML.findall(page.read_text()), start=1):
            if WHOLE.search(text):
                texts[f"{page.relative_to(ROOT)} block {number}"] = text
    return texts


def fitting(name: str) -> str:
    """Return a value for a variable or a secret file by its name: addresses for addresses, secrets for the rest."""
    return next((value for word, value in VALUES.items() if word in name.lower()), A_SECRET)


def with_files(text: str, folder: Path) -> str:
    def made(key: re.Match[str]) -> str:
        path = folder / key["key"]
        path.write_text(fitting(key["key"]))
        return f"{key['key']}_file: {path}"

    return re.sub(r"(?P<key>\b\w+)_file: [^\s,}]+", made, text)


def test_examples_are_found() -> None:
    assert {Path(name).parts[0] for name in examples()} >= {"config", "docs", "README.md block 1"}


@pytest.mark.parametrize("name", examples())
def test_example_is_accepted(name: str, tmp_path: Path) -> None:
    text = with_files(examples()[name], tmp_path)
    environ = {variable: fitting(variable) for variable in re.findall(r"\$\{(\w+)\}", text)}
    file = tmp_path / "bridge.yaml"
    file.write_text(text)
    assert load(file, environ={**environ, "HOME": str(tmp_path)}).sources


def keys_of(kind: str, text: str) -> dict[str, set[str]]:
    """Return for each type of source or sink the keys that the text shows, also those behind a `#`."""
    lines = re.sub(r"^( *)# ?(?=[a-z_]+:)", r"\1", text, flags=re.MULTILINE)
    parts: dict[str, set[str]] = {}
    for part in yaml.safe_load(lines)[kind].values():
        parts.setdefault(part["type"], set()).update(part)
    return parts


def test_commented_example_shows_every_common_key() -> None:
    text = (ROOT / "config" / "bridge.yaml").read_text()
    sources, sinks = keys_of("sources", text), keys_of("sinks", text)
    assert set(sources) == {"govdelivery", "marketingcloud", "spacivox"}
    assert set(sinks) == {"slack", "stdout", "webhook"}
    common: list[tuple[dict[str, set[str]], type[Settings]]] = [(sources, SourceSettings), (sinks, SinkSettings)]
    for shown, base in common:
        assert set(base.model_fields) <= set().union(*shown.values())
