"""The words of a former private dialect, the standard term for each, and where they still stand.

Usage: `python tests/house/dialect.py [ROOT]` prints every place. Scanned are the pages and the files that an operator
reads, and of the code its docstrings, comments, texts (help, errors, log events) and identifiers; of tests and
benchmarks the identifiers alone. Before a text is searched, `snake_case` and `CamelCase` are taken apart, so patterns
are written for words with single spaces; a space in a pattern also stands for a line's end.
"""

from __future__ import annotations

import ast
import io
import keyword
import re
import sys
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

# "The lease cannot be taken", "a backup was taken", "taken over" and their like are ordinary English.
_NOT_TAKEN_IN_USE = "".join(
    rf"(?<!{words})" for words in (r"cannot\sbe\s", r"backup\swas\s", r"lease\sis\s", r"address\sis\s", r"steps\s")
)
_NOT_TAKEN_AWAY = r"(?! (?:apart|at|away|back|before|by|care|down|from|in|into|off|on|out|over|place|together|up)\b)"

# Each row: the word as it was, the term to use instead, and the pattern of its forms.
# These are out everywhere: in prose, in texts and in identifiers.
WORDS = (
    # --- engine ---
    ("mould", "event encoder, encode", r"mould(?:s|ed|ing)?"),
    ("meanwhile", "at the same time; ConcurrentWrites", r"meanwhile"),
    ("fresh", "new, recent, current", r"fresh(?:ly|er|est)?"),
    ("beside", "next to, with, in addition to, while … runs", r"beside"),
    ("patience", "timeout, wait, Retry-After", r"(?:im)?patien(?:ce|t|tly)"),
    ("fate", "outcome, status history", r"fates?"),
    ("lane", "partition", r"lanes?(?! suite\b)"),
    ("floor", "low watermark, minimum, test level", r"floors?"),
    ("trail", "status history", r"trails?"),
    ("far side", "endpoint, provider, receiver", r"far sides?"),
    ("taken charge of", "accepted", r"(?:take[ns]?|taking|took) charge of"),
    ("taken for", "treated as, counted as", r"(?:take[ns]?|taking|took) for(?! granted)"),
    ("taken", "delivered, accepted, used", rf"{_NOT_TAKEN_IN_USE}taken{_NOT_TAKEN_AWAY}"),
    ("held back, held up", "back-pressure, blocked, delayed", r"held (?:back|up)"),
    ("mend", "fix, repair", r"mend(?:s|ed|ing)?"),
    ("mishap", "transport error", r"mishaps?"),
    ("bury", "dead-letter", r"bur(?:y|ied|ies|ying|ial)"),
    ("adopt", "accept a foreign delivery", r"adopt(?:s|ed|ing|ion)?(?! suite\b)"),
    ("tenure", "lease deadline", r"tenures?"),
    ("bunch", "batch", r"bunch(?:es|ed)?"),
    ("tally", "counts", r"tall(?:y|ies|ied)"),
    ("in hand", "in flight", r"in(?: our| its)? hands?"),
    ("dice", "rng, random numbers", r"dice"),
    ("nap", "wait", r"naps?|napping"),
    ("is away", "is unavailable, outage", r"(?:is|are|was|were|be|been|still) away"),
    ("lost its memory", "was reset", r"(?:lost|loses) (?:its|their) memory"),
    ("haste", "close with unacknowledged messages", r"haste|hast(?:y|ily)"),
    ("untold", "unpublished, missing", r"untold"),
    # --- providers, simulator, recording ---
    ("truth", "ground truth, record of truth", r"(?<!ground\s)(?<!source\sof\s)(?<!record\sof\s)truths?"),
    ("face", "provider API, interface", r"faces?"),
    ("strike", "fault context; a fault applies", r"strik(?:e|es|ing)|struck"),
    ("birth", "arrival", r"(?<!date\sof\s)births?"),
    ("barren", "nothing new", r"barren"),
    ("astray", "lost, not followed", r"astray"),
    ("outlive", "expire", r"outliv(?:e|es|ed|ing)"),
    ("acquit", "exonerate: say which of provider and resource failed", r"acquit(?:s|ted|tal)?"),
    ("thrifty", "use cached counts", r"thrift(?:y|ily)?"),
    ("deck", "recording hooks", r"decks?"),
    ("taped", "recorded", r"taped"),
    ("standstill", "frozen clock", r"standstill"),
    # --- ways of speaking ---
    ("whoever", "name the subject: the process that …", r"who(?:m|so)?ever"),
    ("whichever", "name the subject: the first that …", r"whichever"),
    ("whatsoever", "any", r"whatsoever"),
    ("strangers", "undefined statuses, unknown callers", r"strangers?"),
    ("heirs", "subclasses", r"heirs?"),
    ("rooms of the house", "packages", r"rooms? of the house"),
)

# These are ordinary words in a sentence, and say nothing as the name of a value, a function or a class.
NAMES = (
    ("told, tell", "recorded, published, report", r"told|tell(?:s|ing)?"),
    ("sight", "observation times, shown status", r"(?<!first\s)sights?"),
    ("look", "sweep, snapshot, run, audit", r"look(?:s|ed|ing)?(?! (?:up|back|ahead|down)\b)"),
    ("desk", "publisher", r"desks?"),
    ("ill", "problems", r"ill"),
    ("hopes", "should retry", r"hopes?|hoped"),
    ("hand", "in flight, batch, pass", r"hands?"),
    ("bear", "on_success, create", r"bears?|bore|borne"),
    ("familiar", "unchanged, page cache", r"familiar"),
    ("seldom, rarely", "a maximum wait with its unit", r"seldom|rarely"),
    ("ear, bell, ring", "wake-up socket, wake", r"ears?|bells?|rings?"),
    ("suspicion, suspect", "pending mismatch, pending difference", r"suspicions?|suspects?"),
    ("judge", "decide, check status", r"judge[sd]?"),
    ("owed", "expected", r"owed"),
    ("vanish", "not found", r"vanish(?:es|ed)?"),
    ("heard, unheard", "on_messages, looks down", r"(?:un)?heard"),
    ("parted", "split", r"parted"),
    ("swallow", "cover, skip", r"swallow(?:s|ed|ing)?"),
    ("rivals", "conflicts", r"rivals?"),
    ("secretive", "secret", r"secretive"),
    ("complain", "report error, add problem", r"complain(?:s|ed)?"),
    ("calm", "tune", r"calm"),
    ("doubt", "uncertain commits", r"doubts?"),
    ("lesser", "smaller", r"lesser"),
    ("reckon", "recompute", r"reckon(?:s|ed)?"),
    ("sure", "claim deadline", r"sure"),
    ("pace", "change rate, rate limiter", r"pace[sd]?|pacing"),
    ("worth", "value", r"worth(?:while)?(?! (?:after|reading)\b)"),
    ("spends", "counts as attempt", r"spends"),
    ("unread", "unmapped fields", r"unread"),
    ("settlements", "deliveries, delivery store", r"settlements?(?! suite\b)"),
    ("bookkeeping", "reconciliation monitor", r"bookkeep(?:er|ing)"),
    ("survey", "statistics", r"survey(?:s|ed|able)?"),
    ("countable, accounted", "reconcilable, has account", r"countable|accounted"),
    ("stepwise", "resumable", r"stepwise"),
    ("used up", "exhausted", r"used up"),
    ("standing", "frozen time", r"standing|stand at"),
    ("door", "listener", r"doors?"),
    ("lapse", "cooldown", r"lapses?"),
    ("dial", "connect", r"dial(?:s|led)?"),
    ("admits", "is allowed", r"admits?"),
    ("carry", "send", r"carry"),
    ("beating", "heartbeat", r"beating"),
    ("onward", "advance, has more", r"onward"),
    ("wait out", "honour Retry-After", r"wait(?:ed)? out"),
    ("shut out", "credentials rejected", r"shut out"),
    ("give back", "release, requeue", r"(?:give|gave|given|hand|put) back"),
)

# Names of log events that said a sentence; the consequence has a field of its own.
LOG_EVENTS = {
    "sink.asks_for_patience": "sink.retry_after",
    "sink.is_still_away": "sink.probe_failed",
    "sink.pauses": "sink.circuit_opened",
    "sink.recovers": "sink.circuit_closed",
    "sink.events_were_lost_on_the_way": "audit.lost_events_requeued",
    "store.has_lost_its_memory": "store.reset_detected",
    "store.unasked": "store.info_denied",
    "broker.given_back": "broker.requeued",
    "broker.left_in_haste": "broker.closed_with_unacked",
    "broker.blocks_publishers": "broker.blocked",
    "source.held_back": "source.backpressure",
    "part.fails_and_is_started_again": "part.restarted",
    "worker.left_behind": "worker.abandoned",
}


@dataclass(frozen=True)
class Word:
    """A word that is out, and what stands for it."""

    word: str
    instead: str
    pattern: str
    names_only: bool = False


def _apart(text: str) -> str:
    return _CAMEL.sub(" ", text.replace("_", " "))


_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
TABLE = (
    *(Word(old, new, _apart(old).replace(".", r"\.")) for old, new in LOG_EVENTS.items()),
    *(Word(*row) for row in WORDS),
    *(Word(*row, names_only=True) for row in NAMES),
)


@dataclass(frozen=True)
class Allowance:
    """A place where a word of the table stays, since files, stores or programs that exist rely on it.

    What lies within a match of the pattern is allowed, in texts and not in identifiers. A pattern sees a text as it was
    taken apart: `_` is a space.
    """

    pattern: re.Pattern[str]
    reason: str


ALLOWED = tuple(
    Allowance(re.compile(pattern, re.MULTILINE), reason)
    for pattern, reason in (
        (r"\bmath\.floor\b", "the function of the library, in Lua and in Python"),
        (r"\A(?:SELECT|UPDATE|INSERT INTO|DELETE FROM) (?s:.*)\Z", "columns and tables of the SQLite files that exist"),
        (
            r"^(?! *--)[^\n]*\b(?:INTEGER|TEXT|TABLE|INDEX)\b[^\n]*$",
            "columns and tables of the SQLite files that exist",
        ),
        (r":(?:floor|lane)\b", "keys of the Redis stores that exist"),
        (r"\A\.floor\Z", "an entry of the cursors that exist"),
        (r"\Ataken\Z|`taken`|\"taken\"", "the state of a delivery in JSON, in tables and as a label of metrics"),
        (r"\Abeside/", "the name of a lease in the stores that exist"),
        (r"\Atrails\Z|`trails`", "a key of the recordings that exist"),
        (r"\Astruck\Z|`struck`|\"struck\"", "a key of the simulator's JSON"),
        (r"/ simulator/truth|\Atruth\Z|\bthe pages truth\b", "a page of the simulator"),
        (r"/births/", "the seed of the simulator's random numbers: another one makes other histories"),
        (r"--patience\b", "an option of `bridge reconcile`"),
    )
)


@dataclass(frozen=True)
class Text:
    """A piece of prose or an identifier, and where it begins."""

    path: str
    line: int
    text: str
    is_name: bool = False


@dataclass(frozen=True)
class Finding:
    """One use of a word that is out."""

    path: str
    line: int
    used: str
    word: Word

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.used!r}: {self.word.instead}"


# A phrase may go on in the next line, behind the sign of a comment or a quotation.
_SPACE = r"(?:[ ]|[ ]*\n[ ]*(?:(?:[#>*]|--)[ ]*)?)"


@cache
def _pattern(*, of_names: bool) -> re.Pattern[str]:
    """Return one pattern for all words, with a group for each that bears its number in the table."""
    groups = "|".join(
        f"(?P<word{number}>{word.pattern.replace(' ', _SPACE)})"
        for number, word in enumerate(TABLE)
        if of_names or not word.names_only
    )
    return re.compile(rf"(?<![^\W\d_])(?:{groups})(?![^\W\d_])", re.IGNORECASE)


def _matches(text: Text, plain: str) -> list[re.Match[str]]:
    """Find the words of the table; the name of a test is a sentence and read as prose."""
    of_names = text.is_name and not text.text.startswith("test_")
    return list(_pattern(of_names=of_names).finditer(plain))


def _covers(allowance: Allowance, text: Text, plain: str, match: re.Match[str]) -> bool:
    return not text.is_name and any(
        span.start() <= match.start() and match.end() <= span.end() for span in allowance.pattern.finditer(plain)
    )


def findings(text: Text) -> Iterator[Finding]:
    """Yield the words of the table that a text uses and that are not allowed there."""
    plain = _apart(text.text)
    for match in _matches(text, plain):
        if not any(_covers(allowance, text, plain, match) for allowance in ALLOWED):
            used = text.text if text.is_name else " ".join(match[0].split())
            line = text.line + plain.count("\n", 0, match.start())
            yield Finding(text.path, line, used, TABLE[int(match.lastgroup.removeprefix("word"))])


def uses(allowance: Allowance, text: Text) -> bool:
    """Whether an allowance covers a word of the table in a text."""
    plain = _apart(text.text)
    if text.is_name or not allowance.pattern.search(plain):
        return False
    return any(_covers(allowance, text, plain, match) for match in _matches(text, plain))


# --- what is read ---


def python_texts(path: str, source: str) -> Iterator[Text]:
    """Yield the docstrings, other texts and comments of Python code."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value:
            yield Text(path, node.lineno, node.value)
    yield from _comments(path, source)


def _comments(path: str, source: str) -> Iterator[Text]:
    """Yield comments, those in lines that follow each other as one."""
    block: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        if block and (token.start[0], token.start[1]) != (block[-1].start[0] + 1, block[-1].start[1]):
            yield Text(path, block[0].start[0], "\n".join(comment.string for comment in block))
            block = []
        block.append(token)
    if block:
        yield Text(path, block[0].start[0], "\n".join(comment.string for comment in block))


def python_names(path: str, source: str) -> Iterator[Text]:
    """Yield each identifier of Python code once, where it stands first."""
    seen = set(keyword.kwlist)
    before = ["", ""]
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME and token.string not in seen and "".join([*before, token.string]) not in FOREIGN:
            seen.add(token.string)
            yield Text(path, token.start[0], token.string, is_name=True)
        before = [before[1], token.string]


# Names that belong to the language's library.
FOREIGN = {"math.floor"}

CODE = ("bridge/**/*.py", "plugins/*/bridge_*/**/*.py")
IDENTIFIERS_ALONE = ("tests/**/*.py", "benchmarks/**/*.py")
PAGES = (
    *("*.md", "docs/**/*.md", "docs/**/*.py", "docs/**/*.yaml", "plugins/*/*.md", "config/*.yaml"),
    *("bridge/**/*.lua", "bridge/**/*.sql", "Makefile", "Dockerfile", "docker-compose.yml"),
)


# It names in spans of code what has another name now.
CHANGE_LOG = "CHANGELOG.md"


def _without_code_spans(markdown: str) -> str:
    return re.sub(r"`[^`\n]*`", "``", markdown)


def texts(root: Path) -> Iterator[Text]:
    """Yield everything of a checkout that must keep to standard terms."""

    def sources(patterns: Sequence[str]) -> Iterator[tuple[str, str]]:
        for path in sorted({path for pattern in patterns for path in root.glob(pattern) if path.is_file()}):
            yield path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")

    for path, source in sources(PAGES):
        yield Text(path, 1, _without_code_spans(source) if path == CHANGE_LOG else source)
    for path, source in sources(CODE):
        yield from python_texts(path, source)
        yield from python_names(path, source)
    for path, source in sources(IDENTIFIERS_ALONE):
        yield from python_names(path, source)
    for path, _ in sources((*PAGES, *CODE, *IDENTIFIERS_ALONE)):
        yield Text(path, 1, re.sub(r"[_-]", " ", PurePosixPath(path).stem))


def scan(root: Path) -> list[Finding]:
    """Return every use of a word of the table in a checkout."""
    everything = (finding for text in texts(root) for finding in findings(text))
    return sorted(everything, key=lambda finding: (finding.path, finding.line, finding.used))


def main(arguments: Sequence[str]) -> int:
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parents[2]
    everything = scan(root)
    print("\n".join(map(str, everything)))
    return 1 if everything else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
