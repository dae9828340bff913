"""Encrypts everything with the newest encryption key, and says when the older ones may go."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta

from feedamp.api.token_journal import TokenJournal
from feedamp.state import State, encrypted_values
from feedamp.state.data_key import NOTED_EVERY, last_used
from feedamp.state.token_cipher import TokenCipher

# A process that began with an older key as its first one encrypts with it until it ends: a task, or a hook in one.
KEEPS_ITS_KEYS = timedelta(hours=24)
# In each pass but the first, only rows that another process has changed since are left.
_PASSES_AT_MOST = 10


@dataclass(frozen=True)
class Rotation:
    """What a rotation did and left.

    `reencrypted` are rows and token pairs of the journal by place. `older` and `values` are values under an older key and
    all; the sellers in `unreadable` have values under a key that this process does not have, as `journal_unreadable` pairs
    are. `older_stay_until` is null if no process can be at work with an older key as its first one.
    """

    keys: int
    reencrypted: dict[str, int]
    values: int
    older: int
    unreadable: list[str]
    journal_unreadable: int
    older_stay_until: datetime | None

    @property
    def older_may_go(self) -> bool:
        """Whether nothing needs the older keys any more."""
        return self.keys > 1 and self.older == 0 and self.older_stay_until is None


def rotate(
    state: State, cipher: TokenCipher, journal: TokenJournal, *, all_restarted: bool = False
) -> Rotation:
    """Encrypts state and journal with the newest key in short transactions. Safe to repeat, also after a kill.

    With `all_restarted`, no process that began before the newest key was there is at work any more.
    """
    done: Counter[str] = Counter()
    for _ in range(_PASSES_AT_MOST):
        changed = encrypted_values.renew(state, cipher)
        if pairs := journal.renew():
            changed["journal"] = pairs
        if not changed:
            break
        done += changed
    use, (pairs, older_pairs, unreadable_pairs) = (
        encrypted_values.examine(state, cipher),
        journal.under_keys(),
    )
    return Rotation(
        keys=len(cipher.key_ids),
        reencrypted=dict(done),
        values=use.values + pairs,
        older=use.older + older_pairs,
        unreadable=sorted(use.unreadable),
        journal_unreadable=unreadable_pairs,
        older_stay_until=None if all_restarted else _older_stay_until(state, cipher),
    )


def _older_stay_until(state: State, cipher: TokenCipher) -> datetime | None:
    newest, *older = cipher.key_ids
    now = state.now()
    with state.read() as connection:
        used = last_used(connection, [newest, *older])
    if not older:
        return None
    # A key that was never noted was in use before versions that note it, at the latest until there was a newer one.
    since_newest, _ = used.get(newest, (now, now))
    last = max(used[key_id][1] if key_id in used else since_newest for key_id in older)
    until = last + NOTED_EVERY + KEEPS_ITS_KEYS
    return until if until > now else None
