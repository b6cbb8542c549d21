"""Whose account a source's ledger and cursor belong to: another account is refused before anything is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from bridge.domain.errors import Permanent
from bridge.protocols.ledger import Ledger
from bridge.protocols.source import HasAccount, RecognizesAccount, Source

ENTRY = "~account"
"""The cursor's entry with the account, next to those of the source; stored by this name."""


class OtherAccount(Permanent):
    """The ledger belongs to another account: only an operator can say what is meant."""


@dataclass(frozen=True, slots=True)
class SourceAccount:
    """The account of a source as the ledger keeps it; the fields are stored by their names."""

    fingerprint: str
    label: str | None = None
    """The operator's own name of it, the setting `account_label`."""

    @classmethod
    def of(cls, source: Source, label: str | None) -> SourceAccount | None:
        """Return the account that a source asks; None if nothing tells which one that is.

        Raises as `RecognizesAccount.fingerprint` does.
        """
        if isinstance(source, RecognizesAccount):
            return cls(source.fingerprint(), label)
        if isinstance(source, HasAccount):
            return cls(source.account, label)
        return None if label is None else cls("", label)

    @classmethod
    def load(cls, text: str | None) -> SourceAccount | None:
        """Read what `dump` wrote; None for a ledger that knows no account yet."""
        try:
            return None if text is None else cls(**json.loads(text))
        except (ValueError, TypeError):
            return None

    def dump(self) -> str:
        """Return the cursor's entry."""
        return json.dumps(asdict(self), separators=(",", ":"))


async def check_account(name: str, source: Source, label: str | None, cursor: Mapping[str, str]) -> str | None:
    """Return what the cursor's entry `ENTRY` has to become; None if it is right as it is.

    A ledger without an account takes the present one. Raises `OtherAccount`, and as `Source.pages` does if the provider
    has to be asked.
    """
    account, known = SourceAccount.of(source, label), SourceAccount.load(cursor.get(ENTRY))
    if account is None or account == known:
        return None
    if known is None or await _is_same(source, account, known, cursor):
        return account.dump()
    raise OtherAccount(
        f"source {name}: the store holds the cursor and the statuses of another account ({_describe(known)}), by which "
        f"events of this one ({_describe(account)}) would be lost: nothing is read. If another account is meant, give "
        f"it a source of its own name, or forget the former one with `bridgectl sources reset {name}`. If it is the "
        "same account, say so by the source's setting `account_label: NAME`"
    )


async def verify_account(ledger: Ledger, name: str, source: Source, label: str | None) -> None:
    """Raise as `check_account` does, and change nothing."""
    await check_account(name, source, label, await ledger.cursor(name))


async def _is_same(source: Source, account: SourceAccount, known: SourceAccount, cursor: Mapping[str, str]) -> bool:
    if account.label is not None and account.label != known.label:
        return known.label is None  # the label is new: the operator says that it is the same account
    if account.label is not None or account.fingerprint == known.fingerprint:
        return True
    own = {key: value for key, value in cursor.items() if not key.startswith("~")}
    return isinstance(source, RecognizesAccount) and await source.recognizes(known.fingerprint, own)


def _describe(account: SourceAccount) -> str:
    return account.label or account.fingerprint.partition(" ")[0] or "without a label"
