"""The files of a tape: JSON lines, a stretch of files for each source and each run, bounded, and read leniently.

A directory holds files `SOURCE.RUN.NUMBER.jsonl`, with `.gz` behind it where they are compressed. Each begins with a
line that says what it is; then come, in the order in which they happened:

- `poll`: a poll began at `at`, with the seed of its random numbers; with `cursor` and `watched` if they are not what
  the polls before on this tape led to, and with `own` where the intake had entries of its own at the first;
- `seen`: the ledger knew these `trails` of a `scope` before anything on this tape happened to them;
- `answer`: to a request (`method`, `path`) asked at `asked`, something came at `at`: `status`, `headers` and `json` or
  `torn`, or in their place `failure`;
- `step`: the next page was asked for, before the answers that follow came;
- `ended`: the source had shown all of the poll, or gave up with `error`;
- `completing`, `completed`: details of what was news were looked up, beginning at `at`.

A process that was killed leaves a torn last line, which counts as not written.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bridge import __version__
from bridge.domain.errors import BridgeError, Unavailable
from bridge.protocols.ledger import Key

FORMAT = 1
"""The version of the files' format."""
_ROLL_BYTES = 64 * 10**6
_CHUNK_BYTES = 1 << 20
_GZIP = 31
"""zlib's own sign for the gzip container."""

Line = dict[str, Any]


class TapeError(BridgeError):
    """A tape cannot be read; the text names the file, the line and what to do."""


class Full(Exception):
    """The tape has reached its bound."""


@dataclass(slots=True)
class Budget:
    """How many bytes the directory may hold, shared by all that write into it."""

    limit: int
    used: int = 0

    def take(self, size: int) -> None:
        """Count bytes that are about to be written; raises `Full` when there is no room for them."""
        if self.used + size > self.limit:
            raise Full
        self.used += size


def prepare(folder: Path, limit: int) -> Budget:
    """Make the directory and count what is in it; raises `Unavailable` where nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch(mode=0o600)
        probe.unlink()
        return Budget(limit, sum(path.stat().st_size for path in _files(folder)))
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise Unavailable(f"the tape's directory {folder} cannot be written to ({reason}); give another one") from None


def _files(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.jsonl"), *folder.glob("*.jsonl.gz")])


# --- writing ----------------------------------------------------------------------------------------------------------


class Writer:
    """Writes one source's lines of one run; a file holds an hour at most, and 64 MB more or less.

    Every line is handed to the system at once: a process that is killed loses the last one at most. Raises `Full` and
    `OSError`.
    """

    def __init__(self, folder: Path, source: str, kind: str, run: str, budget: Budget, *, compress: bool) -> None:
        self._folder = folder
        self._head = {"tape": FORMAT, "bridge": __version__, "source": source, "type": kind, "run": run}
        self._stem = f"{source}.{run}"
        self._budget = budget
        self._suffix = ".jsonl.gz" if compress else ".jsonl"
        self._number = 0
        self._file = -1
        self._packer: Any = None
        self._hour: tuple[int, int] | None = None
        self._size = 0

    def write(self, line: Line, at: datetime) -> None:
        """Write one line, which happened at `at`."""
        hour = (at.toordinal(), at.hour)
        if hour != self._hour or self._size >= _ROLL_BYTES:
            self._roll()
            self._hour = hour
        self._put(line)

    def close(self) -> None:
        """End the present file; a later line begins another one."""
        if self._file < 0:
            return
        file, self._file, self._hour = self._file, -1, None
        try:
            if self._packer is not None:
                os.write(file, self._packer.flush(zlib.Z_FINISH))
        finally:
            os.close(file)

    def _roll(self) -> None:
        self.close()
        self._number += 1
        self._size = 0
        path = self._folder / f"{self._stem}.{self._number:04d}{self._suffix}"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._packer = zlib.compressobj(wbits=_GZIP) if self._suffix.endswith(".gz") else None
        self._put(self._head)

    def _put(self, line: Line) -> None:
        data = json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        if self._packer is not None:
            data = self._packer.compress(data) + self._packer.flush(zlib.Z_SYNC_FLUSH)
        try:
            self._budget.take(len(data))
        except Full:
            self._packer = None  # it has taken in what is not written: what it gave before is the end
            raise
        self._size += len(data)
        while data:
            data = data[os.write(self._file, data) :]


# --- reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begun:
    """When a piece of work began, and with which random numbers."""

    at: datetime
    monotonic: float
    seed: int

    @classmethod
    def of(cls, line: Line) -> Begun:
        """Read it from the line that says so."""
        return cls(moment(line["at"]), line["monotonic"], line["seed"])


@dataclass(slots=True)
class Poll:
    """One poll as it is on the tape."""

    source: str
    kind: str
    """The type of the source."""
    run: str
    begun: Begun
    last: datetime
    """When the last of it happened."""
    cursor: dict[str, str] | None = None
    """The cursor it began with, where that is not what the polls before led to."""
    watched: list[str] | None = None
    """What operators had named, where that was not the same at the poll before."""
    own: dict[str, str] = field(default_factory=dict)
    """The intake's own entries of the cursor, at the first poll of a run."""
    seen: list[tuple[Key, str]] = field(default_factory=list)
    """What the ledger knew of resources before anything on this tape happened to them."""
    course: list[Line] = field(default_factory=list)
    """Answers and steps, in the order in which they came."""
    completions: list[Begun] = field(default_factory=list)
    """When the details of what was news were looked up."""
    ended: bool = False
    completing: bool = False

    @property
    def whole(self) -> bool:
        """Whether the tape has all of it: nothing was killed, and no bound was reached, in the middle."""
        return self.ended and not self.completing


def sources(folder: Path) -> dict[str, list[list[Path]]]:
    """Return the files of each source, run by run; raises `TapeError` where there is none."""
    runs: dict[tuple[str, str], list[Path]] = {}
    for path in _files(folder):
        name, run, *_ = path.name.split(".")
        runs.setdefault((name, run), []).append(path)
    if not runs:
        raise TapeError(f"{folder}: there is no tape; `bridgectl run --record {folder} -c FILE` makes one")
    recordings: dict[str, list[list[Path]]] = {}
    for (name, _), paths in sorted(runs.items()):
        recordings.setdefault(name, []).append(paths)
    return recordings


def polls(files: list[Path]) -> Iterator[Poll]:
    """Read one run of one source, poll by poll; raises `TapeError`."""
    poll: Poll | None = None
    head: Line = {}
    for path in files:
        for number, line in _lines(path):
            try:
                if "tape" in line:
                    head = _checked(line, path)
                elif line["line"] == "poll":
                    if poll is not None:
                        yield poll
                    poll = _poll(head, line)
                elif poll is not None:
                    _add(poll, line)
            except (AttributeError, KeyError, TypeError, ValueError):
                raise TapeError(f"{path}:{number}: not a line of a tape; take the file away to go on without") from None
    if poll is not None:
        yield poll


def _checked(line: Line, path: Path) -> Line:
    if line["tape"] != FORMAT:
        raise TapeError(
            f"{path}: a tape of format {line['tape']}, and this version reads {FORMAT}: "
            f"play it with bridge {line['bridge']}"
        )
    return line


def _poll(head: Line, line: Line) -> Poll:
    return Poll(
        source=head["source"],
        kind=head["type"],
        run=head["run"],
        begun=Begun.of(line),
        last=moment(line["at"]),
        cursor=line.get("cursor"),
        watched=line.get("watched"),
        own=line.get("own", {}),
    )


def _add(poll: Poll, line: Line) -> None:
    if "at" in line:
        poll.last = max(poll.last, moment(line["at"]))
    match line["line"]:
        case "answer":
            outcome = line["failure"]["error"] if "failure" in line else line["status"]
            _ = outcome, line["method"], line["path"], line["monotonic"], line["asked"], line["at"]
            poll.course.append(line)
        case "step":
            poll.course.append(line)
        case "seen":
            poll.seen += [(Key(line["scope"], name), history) for name, history in line["trails"].items()]
        case "ended":
            poll.ended = True
        case "completing":
            poll.completing = True
            poll.completions.append(Begun.of(line))
        case "completed":
            poll.completing = False


def _lines(path: Path) -> Iterator[tuple[int, Line]]:
    """Read a file line by line; the last one may be torn, and then counts as not written."""
    number = 0
    rest = b""
    for chunk in _chunks(path):
        *whole, rest = (rest + chunk).split(b"\n")
        for text in whole:
            number += 1
            try:
                yield number, json.loads(text)
            except ValueError:
                raise TapeError(f"{path}:{number}: not a line of a tape; take the file away to go on without") from None


def _chunks(path: Path) -> Iterator[bytes]:
    unpacker = zlib.decompressobj(wbits=_GZIP) if path.suffix == ".gz" else None
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk if unpacker is None else unpacker.decompress(chunk)
    except zlib.error:
        return  # torn in the middle of a block: what came before is whole
    except OSError as error:
        raise TapeError(f"{path}: cannot be read: {error.strerror}") from None


def moment(text: str) -> datetime:
    """Read a time that `stamp` wrote."""
    return datetime.fromisoformat(text)


def stamp(at: datetime) -> str:
    """Return a time in UTC to the microsecond."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")
