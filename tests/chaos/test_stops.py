"""Poison in every place of a batch, and what a worker cannot survive: it says what happened and stops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain

import pytest
from confluent_kafka.admin import NewTopic

from tests.chaos.feed import event
from tests.chaos.harness import Chaos
from tests.stack import samples

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

BATCH = 8
NOW = datetime.now(UTC)


def test_poison_costs_itself_alone_and_a_deleted_topic_stops_the_worker(chaos: Callable[..., Chaos]) -> None:
    """Batches with a record that breaks the model, and with one that cannot be read, in each position.

    Then the topic is deleted under the worker, and created again: neither is passed over in silence.
    """
    with chaos(partitions=1, batch_events=BATCH, batch_seconds=10) as run:  # only full batches
        batches = []
        for number in range(2 * BATCH):
            batch = [event(f"event-{number}-{n}", "The cloud is a success", NOW) for n in range(BATCH)]
            place, key = number % BATCH, f"poison-{number}".encode()
            batch[place] = (
                replace(event(key.decode(), "POISON in the cloud", NOW), row=None)
                if number < BATCH
                else replace(batch[place], key=key, value=b"{no json", row=None)
            )
            batches.append(batch)
        run.publish(list(chain(*batches)))
        process = run.start_sentinel("a", poison="POISON")
        result = run.check()
        run.faults["poison"] += 2 * BATCH
        assert result.found == [], result
        letters = samples(process.metrics_url, "stancewatch_dead_letters_total")
        assert {labels["reason"]: count for labels, count in letters if count} == {
            "unclassifiable": BATCH,
            "invalid_json": BATCH,
        }
        assert samples(process.metrics_url, "stancewatch_batch_events_count")[0][1] == 2 * BATCH

        admin, topic = run.admin(), run.settings.events_topic
        admin.delete_topics([topic])[topic].result(20)
        run.wait(lambda: process.process.poll() is not None, "the worker stops")
        assert process.process.returncode == 70
        assert "was deleted" in process.output
        admin.create_topics([NewTopic(topic, 1, 3)])[topic].result(20)
        process = run.start("a", ready=False)
        run.resting.add("a")
        run.wait(lambda: process.process.poll() is not None, "the worker stops again")
        assert process.process.returncode == 70
        assert "was deleted and created again" in process.output
