"""`bridgectl init`: a first configuration, by a few questions or by flags."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from bridge.cli.support.first_configuration import (
    Part,
    address_key,
    as_reference,
    is_private,
    keys_to_ask,
    secret_key,
    write_new,
    written,
)
from bridge.cli.support.notes import print_note
from bridge.cli.support.options import Command, Exit, SuggestingChoice, json_option
from bridge.cli.support.output import print_json
from bridge.config import registry
from bridge.domain.errors import BridgeError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

SIMULATED = "simulated"
_NO_SINK = "none"
_SIMULATOR_URL = "http://127.0.0.1:8025"
_SECRET_MODE = 0o600
"""Rights of a file with a secret: for its owner alone."""
_FILE_MODE = 0o644
"""Rights of the configuration: it has no secret in it."""
_BASELINE = "what a first start finds is recorded and not published: people who read the sink get news alone"


class _Plugin(SuggestingChoice):
    """The name of an installed plugin, or a word that stands for none; plugins are looked up when they are needed."""

    name = "plugin"

    def __init__(self, kind: registry.Kind, word: str) -> None:
        super().__init__([word])
        self._kind = kind
        self._word = word

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        self.choices = tuple(self.names())
        return super().convert(value, param, ctx)

    def names(self) -> list[str]:
        return [*registry.installed(self._kind), self._word]

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        self.choices = tuple(self.names())
        return super().shell_complete(ctx, param, incomplete)


PROVIDER, SINK = _Plugin("source", SIMULATED), _Plugin("sink", _NO_SINK)


@dataclass(frozen=True, slots=True)
class _Questions:
    """Asks on a terminal; elsewhere the default is the answer, and a question without one is an error."""

    terminal: bool

    def answer(self, question: str, flag: str, default: str | None, kind: click.ParamType[Any] | None = None) -> str:
        if self.terminal:
            return str(click.prompt(question, default=default, type=kind, show_choices=False, err=True))
        if default is None:
            raise click.UsageError(f"{question}: without a terminal nothing is asked; say it with {flag}")
        return default

    def reference(self, question: str, flag: str, default: str) -> tuple[str, str]:
        """Return suffix and value of a secret's key: where the secret is, and never the secret itself."""
        while True:
            answer = self.answer(f"{question}: the variable or the file that holds it", flag, default)
            if (reference := as_reference(answer)) is not None:
                return reference
            print_note("that is neither a variable's name in capitals nor a path; a secret itself is not written down")


def _settings(_: click.Context, __: click.Parameter, words: Sequence[str]) -> dict[str, str]:
    pairs = [word.partition("=") for word in words]
    for key, sign, _value in pairs:
        if not sign or not key:
            raise click.BadParameter(f"{key!r} is not KEY=VALUE")
    return {key: value for key, _sign, value in pairs}


@click.command(
    cls=Command,
    examples="""
    bridgectl init                                            asks, and writes bridge.yaml
    bridgectl init --provider simulated                       to try it, next to `bridgectl simulate`
    bridgectl init city.yaml --provider govdelivery --secret-env GOVDELIVERY_TOKEN --sink webhook \\
        --sink-url https://crm.example.com/hooks/status
    bridgectl init --provider spacivox --url https://spacivox.example.com --secret-file /run/secrets/spacivox \\
        --sink slack --sink-secret-env SLACK_WEBHOOK_URL
    """,
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), default="bridge.yaml")
@click.option("--provider", type=PROVIDER, metavar="NAME", help="An installed source, or `simulated`.")
@click.option("--name", help="What the source is called; by default as its provider.")
@click.option("--url", metavar="URL", help="Where the provider is.")
@click.option("--secret-env", metavar="NAME", help="The variable that holds the provider's token or secret.")
@click.option("--secret-file", metavar="PATH", help="The file that holds it.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", callback=_settings, help="Another setting of the source."
)
@click.option("--sink", type=SINK, metavar="NAME", help="Where events go: an installed sink, or `none`.")
@click.option("--sink-url", metavar="URL", help="The address of the sink, if it is no secret.")
@click.option("--sink-secret-env", metavar="NAME", help="The variable that holds the sink's secret, or secret address.")
@click.option("--sink-secret-file", metavar="PATH", help="The file that holds it.")
@click.option(
    "--sink-set", "sink_settings", multiple=True, metavar="KEY=VALUE", callback=_settings,
    help="Another setting of the sink.",
)  # fmt: skip
@click.option("--topic", "topics", multiple=True, metavar="TOPIC", help="Which events the sink gets; repeatable.")
@click.option(
    "--first-sight", type=SuggestingChoice(["emit", "baseline"]),
    help="Publish what a first start finds, or only record it; by default what suits the sink.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace files that are there.")
@click.option("--no-check", is_flag=True, help="Do not try what the file names.")
@json_option
@click.pass_context
def init(context: click.Context, /, file: Path, *, force: bool, no_check: bool, as_json: bool, **given: Any) -> Exit:
    """Write a first configuration: one provider, one sink. What is not given is asked, if there is a terminal.

    Of secrets, the file says where they are: in a variable, or in a file. The secret that the bridge and a receiver
    share is made at random, in a file of its own that its owner alone can read. Next to a sink that people read,
    `first_sight: baseline` is proposed: a first start then floods no channel.

    At the end it does what `check` does, and exits as that does. With --json nothing is checked. Files that are there
    stay as they are, unless --force says otherwise.
    """
    if file.exists() and not force:
        raise BridgeError(f"{file} is there already; name another file, or add --force to replace it")
    questions = _Questions(terminal=not as_json and sys.stdin.isatty() and sys.stderr.isatty())
    state = None
    provider = given["provider"] or questions.answer(
        _choice("Which provider", PROVIDER), "--provider", SIMULATED, PROVIDER
    )
    if provider == SIMULATED:
        sources, state = _simulated(given["url"] or _SIMULATOR_URL), file.absolute().parent / f"{file.stem}-state"
    else:
        sources = [_source(questions, provider, given)]
    sink, secrets = _sink(questions, file, given)
    first = _first_sight(questions, given["first_sight"], sink)
    parts = [_with_first_sight(part, first, sink) for part in sources] + ([sink] if sink else [])
    _write(file, written(parts, state), secrets, force=force)
    if as_json:
        print_json({"file": str(file), "secret_files": [str(path) for path in secrets]})
        return Exit.DONE
    _report(file, secrets)
    return Exit.DONE if no_check else _check(context, file)


def _choice(question: str, plugin: _Plugin) -> str:
    return f"{question} ({', '.join(plugin.names())})"


# --- the parts ----------------------------------------------------------------------------------------------------


def _simulated(url: str) -> list[Part]:
    from bridge.simulator import SimulatorSettings
    from bridge.simulator.config_snippet import sources

    made = sources(dict.fromkeys(("govdelivery", "spacivox", "marketingcloud"), url), SimulatorSettings())
    note = "No secret: the simulator's own."
    return [
        Part(
            "source", name, values["type"], {key: value for key, value in values.items() if key != "type"},
            {"token": note, "client_secret": note},
        )
        for name, values in made.items()
    ]  # fmt: skip


def _source(questions: _Questions, plugin: str, given: Mapping[str, Any]) -> Part:
    part = Part("source", given["name"] or plugin, plugin, given["settings"])
    try:
        _ = part.model
    except ValueError as error:
        raise click.UsageError(f"--set {error}") from None
    flags = _Flags("--url", "--secret-env", "--secret-file", "--set")
    values = _given(part, given["url"], given["secret_env"], given["secret_file"], given["settings"], flags)
    return _asked(questions, replace(part, values=values), flags)


def _sink(questions: _Questions, file: Path, given: Mapping[str, Any]) -> tuple[Part | None, dict[Path, str]]:
    """Return the sink, and the secrets that are made for it, by the file that is to hold each."""
    plugin = given["sink"] or questions.answer(_choice("Where do events go", SINK), "--sink", "stdout", SINK)
    if plugin == _NO_SINK:
        return None, {}
    loaded = registry.load_sink(plugin)
    topics = (
        list(given["topics"])
        or questions.answer(
            "Which topics, separated by blanks", "--topic", "*.*.failed.#" if loaded.for_people else "#"
        ).split()
    )
    flags = _Flags("--sink-url", "--sink-secret-env", "--sink-secret-file", "--sink-set")
    part = Part("sink", plugin, plugin, {"topics": topics})
    own = _given(
        part, given["sink_url"], given["sink_secret_env"], given["sink_secret_file"], given["sink_settings"], flags
    )
    part = _asked(questions, replace(part, values={**part.values, **own}), flags)
    values, notes, secrets = dict(part.values), {}, {}
    for key, secret in loaded.new_secrets().items():
        if not {key, f"{key}_file"} & set(values):
            path = file.absolute().with_name(f"{file.stem}-{plugin}-{key}")
            values[f"{key}_file"], secrets[path] = str(path), f"{secret}\n"
            notes[f"{key}_file"] = "What the receiver verifies the signature with."
    if "allow_private" in part.model.model_fields and is_private(str(values.get(address_key(part.model) or ""))):
        values.setdefault("allow_private", True)
    return replace(part, values=values, notes=notes), secrets


@dataclass(frozen=True, slots=True)
class _Flags:
    """The options that answer the questions about a part."""

    url: str
    secret_env: str
    secret_file: str
    settings: str

    def of(self, part: Part, key: str) -> str:
        """Return the option that says a setting of a part."""
        if key == address_key(part.model):
            return self.url
        if key == secret_key(part.model):
            return f"{self.secret_env} or {self.secret_file}"
        return f"{self.settings} {key}=…"


def _given(
    part: Part, url: str | None, variable: str | None, path: str | None, more: Mapping[str, str], flags: _Flags
) -> dict[str, Any]:
    model, values = part.model, dict[str, Any]()
    if url is not None:
        if (key := address_key(model)) is None:
            raise click.UsageError(
                f"{flags.url}: {part.plugin} has no such address; {flags.of(part, 'url')} may be meant"
            )
        values[key] = url
    for word, flag in ((variable, flags.secret_env), (path, flags.secret_file)):
        if word is not None:
            if (key := secret_key(model)) is None:
                raise click.UsageError(f"{flag}: {part.plugin} needs no secret")
            values[key if flag == flags.secret_env else f"{key}_file"] = (
                f"${{{word}}}" if flag == flags.secret_env else word
            )
    for key, text in more.items():
        if key in model.secret_fields() and not text.startswith("${"):
            raise click.UsageError(
                f"{flags.settings} {key}: no secret is written down; say {key}='${{NAME}}' or {key}_file=PATH"
            )
        values[key] = _read(text)
    return values


def _read(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text) if text[:1] in "[{" or text in ("true", "false") or text.isdecimal() else text
    except yaml.YAMLError:
        return text


def _asked(questions: _Questions, part: Part, flags: _Flags) -> Part:
    """Return the part with an answer for each setting that it needs and does not have."""
    values = dict(part.values)
    for key in keys_to_ask(part.model):
        if key in values or f"{key}_file" in values:
            continue
        info = part.model.model_fields[key]
        said = f"{part.name}: {' '.join((info.description or key).split()).rstrip('.')}"
        if key in part.model.secret_fields():
            variable = f"{part.plugin}_{key}".replace("-", "_").upper()
            suffix, value = questions.reference(said, flags.of(part, key), variable)
            values[f"{key}{suffix}"] = value
        else:
            default = None if info.is_required() else info.default
            values[key] = questions.answer(said, flags.of(part, key), default and str(default))
    return replace(part, values=values)


def _first_sight(questions: _Questions, given: str | None, sink: Part | None) -> str:
    if given is not None:
        return given
    proposed = "baseline" if _is_read_by_people(sink) else "emit"
    if proposed == "emit":
        return proposed
    print_note(f"first_sight: baseline is proposed, since {sink.name if sink else ''} is read by people: {_BASELINE}")
    choice = cast("click.ParamType[Any]", SuggestingChoice(["emit", "baseline"]))
    return questions.answer(
        "What becomes of what a first start finds (emit, baseline)", "--first-sight", proposed, choice
    )


def _is_read_by_people(sink: Part | None) -> bool:
    return sink is not None and registry.load_sink(sink.plugin).for_people


def _with_first_sight(part: Part, first: str, sink: Part | None) -> Part:
    if first == "emit":
        return part
    why = {"first_sight": f"{_BASELINE[:1].upper()}{_BASELINE[1:]}."} if _is_read_by_people(sink) else {}
    return replace(part, values={**part.values, "first_sight": first}, notes={**part.notes, **why})


# --- writing ------------------------------------------------------------------------------------------------------


def _write(file: Path, text: str, secrets: Mapping[Path, str], *, force: bool) -> None:
    _unless_there(secrets, force=force)
    files: list[tuple[Path, str, int]] = [(path, secret, _SECRET_MODE) for path, secret in secrets.items()]
    for path, content, mode in [*files, (file, text, _FILE_MODE)]:
        write_new(path, content, mode=mode, replace=force)


def _unless_there(paths: Iterable[Path], *, force: bool) -> None:
    for path in paths:
        if path.exists() and not force:
            raise BridgeError(f"{path} is there already; move it away, or add --force to replace it")


def _report(file: Path, secrets: Iterable[Path]) -> None:
    print_note(f"wrote {file}; `bridgectl run -c {file}` runs it")
    for path in secrets:
        print_note(f"wrote {path}, a new secret for the receiver too; its owner alone can read it")


def _check(context: click.Context, file: Path) -> Exit:
    from bridge.cli.commands.check import check

    print_note(f"`bridgectl check -c {file}` says:")
    run_check = cast("Callable[..., Exit]", context.invoke)
    return run_check(check, config_file=file, offline=False, as_json=False)
