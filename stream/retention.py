"""How long the state is kept, and the sweeps that delete what is older.

Time is told by the log itself, for each partition: nothing expires while no records come, and the same log
gives the same state however often it is delivered or replayed. Two clocks, both kept under the total of the
partition (``stream.tables.Counts``) and both only ever going forward:

* **event time**, for hour buckets: the newest ``published_at`` that was accepted (an archive is counted by
  its own time), but not beyond the day on which the newest record was written to Kafka: an event dated
  ahead ages nothing. A bucket is kept for `bucket_days`, counted in hours. An event, or a vote to be taken
  back, whose hour is older counts in the totals only; a first version is then ``late``, whatever the
  classifier says of it, while corrections and retractions stay what they are.
* **the day of the log**, for identities: the newest Kafka time stamp so far, in whole UTC days. A version of
  an event is known until `identity_days` after the day on which it was accepted. After that a duplicate
  cannot be told: it counts as a new event, and a correction as well, beside the old vote in the totals.
  Kafka sets the time stamps (or the producer does, and Kafka 4 refuses those more than an hour ahead). One
  of no year up to 9999 is passed over, its record a dead letter.

Whether something has expired follows from these rules alone, never from whether it was swept already. Sweeps
only free memory and disk. They may be cut off or repeated at any write, because they delete nothing that
anybody can still ask for:

* a bucket goes when it had expired at the end of the batch before, whose total is in the changelog ahead of
  the deletion: a record that is delivered again finds its hour expired and casts no vote there;
* an identity goes when it had expired at the offset that is *committed*: what is delivered again comes from
  there or later, and finds everything that it was first judged by. For that the total remembers at which
  offset each day of the log began, back to the committed one; a record from further back (the group was set
  back by hand, or forgotten by Kafka) was counted, and is passed over.

No sweep is needed for the versions of an identity: each time that it is written, those that decide nothing
any more are left out (``stream.tables.trim``), by the committed offset that the changelog has in the total.

A sweep takes one stretch of each table behind each batch and goes round and round, so its work is bounded by
the size of the batch. What expires during a round goes with the next one: up to a half more identities may be
stored than are remembered.

Other settings apply to what comes next: `stancewatch audit` recounts with those in force, and shows what was
judged under others as differences.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from stream.settings import Settings
from stream.tables import TOTAL, Counts, decode_identity, split_counts_key

__all__ = ["Retention", "SweepableTable"]


class SweepableTable(Protocol):
    """A table that can be looked through bit by bit."""

    def __delitem__(self, key: bytes, /) -> None: ...

    def next_entries(self, partition: int, limit: int) -> Iterable[tuple[bytes, bytes]]:
        """The next entries of a partition, round and round."""


class Retention:
    """Sweeps the tables of one process.

    Parameters
    ----------
    counts, identities : SweepableTable
    settings : Settings
        With `bucket_days` and `identity_days`.

    Attributes
    ----------
    stretch_min, stretch_per_record : int
        Entries looked at in each table behind a batch: so many for each of its records, at least so many.
        Four a record means that a round ends before a third more identities than there were have come.
    """

    def __init__(self, counts: SweepableTable, identities: SweepableTable, settings: Settings) -> None:
        self.counts = counts
        self.identities = identities
        self.bucket_days = settings.bucket_days
        self.identity_days = settings.identity_days
        self.stretch_min = 64
        self.stretch_per_record = 4

    def sweep(self, partition: int, total: Counts, committed: int, records: int) -> tuple[int, int]:
        """Delete what has expired in the next stretch of each table.

        Parameters
        ----------
        partition : int
        total : Counts
            Of the partition, as the changelog has it.
        committed : int
            Records below this offset are not delivered again.
        records : int
            Size of the batch.

        Returns
        -------
        tuple of int
            Buckets and identities deleted.
        """
        limit = max(self.stretch_min, self.stretch_per_record * records)
        first_hour = total.kept_from(self.bucket_days)
        hours = [
            key
            for key, _ in self.counts.next_entries(partition, limit)
            if (bucket := split_counts_key(key)[1]) != TOTAL and int(bucket) < first_hour
        ]
        for key in hours:
            del self.counts[key]
        oldest = total.day_at(committed) - self.identity_days
        forgotten = [
            key
            for key, value in self.identities.next_entries(partition, limit)
            if all(entry.is_older_than(oldest) for entry in decode_identity(value).accepted)
        ]
        for key in forgotten:
            del self.identities[key]
        return len(hours), len(forgotten)
