"""A YAML file as plain values that know their lines, with the environment filled in."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bridge.domain.errors import ConfigError, ConfigProblem
from bridge.domain.secret_text import FoldedText, character_name

try:
    from yaml import CSafeLoader as _Base
except ImportError:  # pragma: no cover - PyYAML without libyaml: slower, the same answers
    from yaml import SafeLoader as _Base  # type: ignore[assignment]  # the two share no base class in the stubs

Place = tuple[str | int, ...]
"""The way to a value: the keys and indices from the top of the file."""

_VARIABLE = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(:-(.*))?", re.DOTALL)
_MOST_VALUES = 100_000
_STR, _INT, _FLOAT, _BOOL, _NULL = (f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null"))


class _Loader(_Base):
    """Reads scalars as YAML 1.2 does: `no` is text, `12:30` is not 750, and a date is not a date."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own way to begin anew


_Loader.add_implicit_resolver(_NULL, re.compile(r"(?:~|null|Null|NULL|)\Z"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(_BOOL, re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), list("tTfF"))
_Loader.add_implicit_resolver(_INT, re.compile(r"[-+]?[0-9]{1,18}\Z"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    _FLOAT, re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?\Z"), list("-+.0123456789")
)


_CONSTRUCTORS: dict[str, Callable[[str], Any]] = {
    _INT: int,
    _FLOAT: float,
    _BOOL: lambda text: {"true": True, "false": False}[text.lower()],
    _NULL: lambda _: None,
}
_TAGS = frozenset({_STR, *_CONSTRUCTORS, "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"})


@dataclass(slots=True)
class Document:
    """What a file says. `problems` are those of the text itself; the values around them can be used all the same."""

    file: str
    values: dict[str, Any]
    lines: dict[Place, int]
    """The line of each key and of each item of a list, from 1."""
    expanded: dict[Place, tuple[str, str]] = field(default_factory=dict)
    """Values that the environment had a part in: as written, and as they came out."""
    problems: list[ConfigProblem] = field(default_factory=list)
    broken: set[Place] = field(default_factory=set)
    """Places whose value could not be made out; what else is wrong with them follows from that."""

    def line(self, place: Place) -> int:
        """Return the line of a place, or of the nearest place around it that the file has."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def problem(self, place: Place, text: str) -> ConfigProblem:
        """Return a problem of this file, at one place."""
        return ConfigProblem(self.file, self.line(place), format_path(place), text)


def format_path(place: Place) -> str:
    """Return a place as a reader writes it: `sinks.crm.topics[0]`."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read(path: Path, environ: Mapping[str, str] | None = None, starter: str = "bridgectl config new") -> Document:
    """Read a file; raises `ConfigError` when it is no mapping in YAML at all.

    `starter` is the command that writes such a file.
    """
    file = str(path)
    text = _text(path, starter)
    node = _compose(file, text)
    if node is None:
        raise ConfigError([ConfigProblem(file, 1, "", f"the file is empty; `{starter}` writes one to start from")])
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError([
            ConfigProblem(file, _line(node), "", "the file has to be a mapping, with keys like `sources:` and `sinks:`")
        ])  # fmt: skip
    builder = _Builder(Document(file, {}, {(): 1}), os.environ if environ is None else environ)
    builder.document.values = builder.mapping(node, ())
    return builder.document


def plain_value(text: str) -> Any:
    """Return a value that stands in YAML or JSON on a command line, read as in a file; raises `ValueError`."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader, with fewer types
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        raise ValueError("is neither YAML nor JSON" + (f": see character {mark.index + 1}" if mark else "")) from None


def _text(path: Path, starter: str) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except IsADirectoryError:
        text = "is a directory; name the configuration file itself"
    except FileNotFoundError:
        text = f"there is no such file; name another one, or let `{starter}` write one"
    except UnicodeDecodeError as error:
        text = f"is not UTF-8 text (byte {error.start + 1}); save it as UTF-8"
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "the name has a null character"
        text = f"cannot be read: {reason}; check its name and its permissions"
    raise ConfigError([ConfigProblem(str(path), None, "", text)])


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _compose(file: str, text: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=_Loader)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        name = character_name(text[error.position : error.position + 1] or "\0")
        what = f"a control character, {name}, which YAML does not allow; remove it"
        raise ConfigError([ConfigProblem(file, line, _key_at(text, error.position), what)]) from None
    except yaml.MarkedYAMLError as error:
        if odd := _odd_break(text, error.problem_mark.index if error.problem_mark else 0):
            line = text.count("\n", 0, odd.start()) + 1
            what = f"{character_name(odd[0])} ends a line here, as YAML reads it; remove it"
            raise ConfigError([ConfigProblem(file, line, _key_at(text, odd.start()), what)]) from None
        line = (error.problem_mark.line if error.problem_mark else 0) + 1
        raise ConfigError([ConfigProblem(file, line, "", f"not valid YAML: {_syntax(error, text, line)}")]) from None
    except RecursionError:
        raise ConfigError([ConfigProblem(file, 1, "", "not valid YAML: nested too deeply; flatten it")]) from None


_ODD_BREAK = re.compile("\r(?!\n)|[\x85\u2028\u2029]")
"""What ends a line for YAML, and is seen by nobody."""


def _odd_break(text: str, position: int) -> re.Match[str] | None:
    """Return the odd line break nearest before a position: in its line, or in the one before."""
    start = text.rfind("\n", 0, max(0, text.rfind("\n", 0, position))) + 1
    end = text.find("\n", position)
    return next(_ODD_BREAK.finditer(text, start, len(text) if end < 0 else end), None)


def _key_at(text: str, position: int) -> str:
    """Return the key of the line of a position, as far as a text that is no YAML has any."""
    key = re.match(r"[\s{-]*([A-Za-z_][\w-]*):", text[text.rfind("\n", 0, position) + 1 : position])
    return key[1] if key else ""


_QUOTE_STAR = 'a value that begins with * or & needs quotes, such as "*.recipient.failed.#"'
_SYNTAX_HINTS = (
    (r"alphabetic or numeric|anchor|alias", _QUOTE_STAR),
    (r"cannot start any token", "a value that begins with @, ` or % needs quotes"),
    (
        r"mapping values are not allowed",
        "a second colon on one line, or wrong indentation; put quotes around a value with ': ' in it",
    ),
    (r"(single|another) document", "`---` begins a second document; keep one in a file"),
)


def _syntax(error: yaml.MarkedYAMLError, text: str, line: int) -> str:
    # libyaml's words, with what usually stands behind them. They may quote the file, which may be a secret.
    problem = re.sub(r"\s+", " ", error.problem or "it cannot be read")
    written = "".join(text.splitlines()[line - 1 : line])
    if "\t" in written[: len(written) - len(written.lstrip())] or "'\\t'" in problem:
        return "a tab is used for indentation; use spaces"
    if re.search(r"[{\[,].*\$\{", written):
        return 'inside { } or [ ] a value with ${…} needs quotes: "${NAME}"'
    for pattern, meaning in _SYNTAX_HINTS:
        if re.search(pattern, problem):
            return meaning
    return f"{re.sub(r'[^ a-zA-Z,.:;<>-]', '', problem).strip()}; look at this line and the one above it"


class _Builder:
    """Makes plain values of nodes, and notes for each place what was found there."""

    def __init__(self, document: Document, environ: Mapping[str, str]) -> None:
        self.document = document
        self._environ = environ
        self._values = 0
        self._around: list[yaml.Node] = []

    def _add_problem(self, place: Place, line: int, text: str) -> None:
        self.document.problems.append(ConfigProblem(self.document.file, line, format_path(place), text))
        self.document.broken.add(place)

    def value(self, node: yaml.Node, place: Place) -> Any:
        self._values += 1
        if any(node is anchor for anchor in self._around):
            self._add_problem(place, _line(node), "refers to itself; write the value out")
            return None
        if self._values > _MOST_VALUES:
            if self._values == _MOST_VALUES + 1:
                self._add_problem(
                    (), _line(node), f"more than {_MOST_VALUES} values, counting what aliases repeat; use fewer"
                )
            return None
        if node.tag not in _TAGS:
            self._add_problem(place, _line(node), "has a tag, which is not supported; quote a value that begins with !")
            return None
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return self._sequence(node, place)
        return self._scalar(node, place)

    def mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        self._around.append(node)
        pairs: dict[str, Any] = {}
        own: dict[str, int] = {}
        for key_node, value_node in self._pairs(node, place):
            key, line = str(key_node.value), _line(key_node)
            merged = (key_node, value_node) not in node.value
            if merged and key in pairs:
                continue  # what stands here itself goes before what was merged in
            if key in own:
                self._add_problem((*place, key), line, f"is given twice, first in line {own[key]}; keep one")
                continue
            own[key] = line
            self.document.lines[*place, key] = line
            pairs[key] = self.value(value_node, (*place, key))
        self._around.pop()
        return pairs

    def _pairs(self, node: yaml.MappingNode, place: Place) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._add_problem(place, _line(key_node), "a key has to be a plain word")
            elif key_node.value == "<<" and key_node.style not in ("'", '"'):
                merged += value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
            else:
                yield key_node, value_node
        for mapping in merged:
            if not isinstance(mapping, yaml.MappingNode):
                self._add_problem(
                    place, _line(mapping), "`<<` merges mappings only; write `<<: *NAME` of an anchored mapping"
                )
            elif any(mapping is outer for outer in self._around):
                self._add_problem(place, _line(mapping), "`<<` merges a mapping into itself; write the keys out")
            else:
                self._around.append(mapping)
                yield from self._pairs(mapping, place)
                self._around.pop()

    def _sequence(self, node: yaml.SequenceNode, place: Place) -> list[Any]:
        self._around.append(node)
        items = []
        for index, child in enumerate(node.value):
            self.document.lines[*place, index] = _line(child)
            items.append(self.value(child, (*place, index)))
        self._around.pop()
        return items

    def _scalar(self, node: yaml.Node, place: Place) -> Any:
        text = str(node.value)
        if node.tag == _STR:
            value = self._expand(text, node, place)
            return FoldedText(value) if _is_folded(node) else value
        try:
            return _CONSTRUCTORS[node.tag](text)
        except (KeyError, ValueError):
            self._add_problem(place, _line(node), "is not of the type that its tag says; remove the tag")
            return None

    def _expand(self, text: str, node: yaml.Node, place: Place) -> str:
        if "${" not in text:
            return text
        try:
            value = expand(text, self._environ)
        except ValueError as error:
            self._add_problem(place, _line(node), str(error))
            return text
        self.document.expanded[place] = (text, value)
        return value


def _is_folded(node: yaml.Node) -> bool:
    """Return whether YAML joined lines with blanks that nobody asked for; a block (`|`, `>`) asks for what it gets."""
    is_block = isinstance(node, yaml.ScalarNode) and node.style in ("|", ">")
    return not is_block and node.end_mark.line > node.start_mark.line and " " in node.value


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Fill in `${NAME}` and `${NAME:-default}`; `$${` stands for a literal `${`.

    The default is used when the variable is unset or empty. Raises `ValueError` naming the variable that is unset.
    """

    def one(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        inner = _NAME.fullmatch(match[1])
        if inner is None or not match[2]:
            raise ValueError(
                "`${` begins a variable, as in ${NAME} or ${NAME:-default}; write $${ for the characters themselves"
            )
        name, default = inner[1], inner[3]
        value = environ.get(name)
        if inner[2] is not None:
            return value or default
        if value is None:
            raise ValueError(f"the environment variable {name} is not set; set it, or write ${{{name}:-default}}")
        return value

    return _VARIABLE.sub(one, text)
