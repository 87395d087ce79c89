"""The monitored topics."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TAXONOMY", "Topic"]


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic: its id and what belongs to it."""

    id: str
    description: str


TAXONOMY = (
    Topic("cloud", "cloud providers, services, revenue and data centres, AI model services on cloud"),
    Topic(
        "domestic_chips", "a country's or firm's own design or making of semiconductors, and its subsidies"
    ),
    Topic(
        "export_controls", "government limits on selling or transferring chips and other advanced technology"
    ),
)
