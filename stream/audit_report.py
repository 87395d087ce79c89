"""What an audit found, and its figures summed up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from stream.comparison import Difference, Page, StoredPartition, differences
from stream.recount import PartitionCount, Place, Sums

__all__ = ["Report", "summary"]


@dataclass(slots=True)
class Report:
    """What the audit found.

    Attributes
    ----------
    noted : dict
        End of each partition when the audit began: everything below is in all figures.
    counted : dict
        Offset behind the last record that any figure had, by partition.
    records : int
        Records recounted.
    with_metrics : bool
        Whether pages were compared.
    log, state, log_at_metrics, metrics : Sums
        Over all partitions: the own count to where the state stands, the state, the same of the pages.
    differences : list of Difference
        By partition, hour and figure.
    unassessed : list
        Place, id and version of accepted events without an assessment.
    stray_assessments : list of str
        Assessments that belong to no accepted event.
    stray_letters, altered_letters, unlettered : list of str
        Dead letters that belong to no record, or have other bytes than it; unreadable records without one.
    reasons : Counter
        Dead letters by reason.
    foreign_letters : int
        Dead letters of other topics, passed over.
    dropped_hours : int
        Hours that the state no longer keeps.
    """

    noted: dict[int, int]
    counted: dict[int, int] = field(default_factory=dict)
    records: int = 0
    with_metrics: bool = False
    log: Sums = field(default_factory=Sums)
    state: Sums = field(default_factory=Sums)
    log_at_metrics: Sums = field(default_factory=Sums)
    metrics: Sums = field(default_factory=Sums)
    differences: list[Difference] = field(default_factory=list)
    unassessed: list[tuple[Place, str, int]] = field(default_factory=list)
    stray_assessments: list[str] = field(default_factory=list)
    stray_letters: list[str] = field(default_factory=list)
    altered_letters: list[str] = field(default_factory=list)
    unlettered: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    foreign_letters: int = 0
    dropped_hours: int = 0
    seconds: float = 0.0

    @property
    def findings(self) -> dict[str, list[str]]:
        """What is wrong apart from figures, by kind."""
        named = [f"news.events {at.partition}:{at.offset} ({id_!r} v{v})" for at, id_, v in self.unassessed]
        return {
            "unassessed": named,
            "stray_assessments": self.stray_assessments,
            "stray_letters": self.stray_letters,
            "altered_letters": self.altered_letters,
            "unlettered": self.unlettered,
        }

    @property
    def equal(self) -> bool:
        """Whether log, state and metrics say the same, and everything has its output."""
        return not self.differences and not any(self.findings.values())

    def add(self, counted: PartitionCount, stored: StoredPartition, page: Page | None) -> None:
        """Compare one partition and take over what was found."""
        number = counted.partition
        self.counted[number] = counted.upto + 1
        self.records += counted.records
        self.reasons += counted.reasons
        self.dropped_hours += len(stored.dropped)
        self.differences += differences(counted, stored, page)
        self.log.votes.update(counted.total.votes)
        self.log.outcomes.update(counted.total.outcomes)
        self.state.votes.update(stored.total.by_vote())
        self.state.outcomes.update(stored.total.outcomes)
        if page is not None:
            self.log_at_metrics.votes.update(counted.shown.votes)
            self.log_at_metrics.outcomes.update(counted.shown.outcomes)
            self.metrics.votes.update(page.votes)
            self.metrics.outcomes.update(page.outcomes)
        place = f"news.events {number}:"
        self.unassessed += [(Place(number, offset), id_, v) for offset, id_, v in counted.unassessed]
        self.unlettered += [
            f"{place}{offset} cannot be read, and has no letter" for offset in counted.unlettered
        ]
        self.altered_letters += [
            f"the letter of {place}{offset} has other bytes" for offset in counted.altered
        ]
        self.stray_assessments += [
            f"an assessment names {place}{offset}, where no event of that id and version was accepted"
            for offset in counted.decisions.left(number, counted.upto)
        ]


def summary(report: Report) -> list[dict[str, Any]]:
    """Each figure over all partitions: outcomes, then votes by topic and stance.

    ``log`` is counted to where the state stands, ``log_at_metrics`` to where the pages stand.
    """
    sides = {"log": report.log, "state": report.state}
    if report.with_metrics:
        sides |= {"log_at_metrics": report.log_at_metrics, "metrics": report.metrics}
    rows: list[dict[str, Any]] = [
        {"outcome": outcome, **{side: sums.outcomes[outcome] for side, sums in sides.items()}}
        for outcome in sorted({outcome for sums in sides.values() for outcome in sums.outcomes})
    ]
    rows += [
        {
            "topic": topic,
            "stance": stance,
            **{side: sums.votes[topic, stance] for side, sums in sides.items()},
        }
        for topic, stance in sorted({vote for sums in sides.values() for vote in sums.votes})
    ]
    return [row for row in rows if any(row[side] for side in sides)]
