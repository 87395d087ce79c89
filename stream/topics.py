"""``stancewatch topics``: what is monitored, and what each of the user's own topics can and cannot do yet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream.options import DebugOption, setup_logging
from stream.settings import load_settings
from stream.startup import load_assessor
from stream.view import out

if TYPE_CHECKING:
    from classifiers.assessor import Assessor
    from classifiers.user_taxonomy import UserTopic
    from classifiers.user_topics import Ability

__all__ = ["TaxonomyOption", "topics_app"]

TaxonomyOption = Annotated[
    Path | None, typer.Option(help="YAML file of your own topics (or STANCEWATCH_TAXONOMY)")
]

topics_app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)


@topics_app.callback()
def topics(context: typer.Context, taxonomy: TaxonomyOption = None, debug: DebugOption = False) -> None:
    """List the topics that the model assigns and the stances of each; `topics check` examines your own.

    Example: stancewatch topics
    """
    setup_logging(debug=debug)
    context.obj = taxonomy
    if context.invoked_subcommand is not None:
        return
    assessor = load_assessor(load_settings(taxonomy=taxonomy))
    described = _descriptions(assessor)
    for topic in assessor.topics:
        out.print(f"{topic:16} {described.get(topic, '(of your own labels)')}", markup=False)
    out.print(
        "\nstances: favor, against, neutral (toward the topic's object); unclear when none is probable enough"
    )


@topics_app.command()
def check(context: typer.Context, taxonomy: TaxonomyOption = None, debug: DebugOption = False) -> None:
    """Say how each topic is detected, whether its stance is given, and which of your cases pass.

    Exit code 1 when a case of `must_match` or `must_not_match` fails.

    Example: stancewatch topics check --taxonomy classifiers/example_topics.yaml
    """
    setup_logging(debug=debug)
    assessor = load_assessor(load_settings(taxonomy=taxonomy or context.obj))
    own = assessor.user.topics if assessor.user else ()
    for name in assessor.topics[: len(assessor.topics) - len(own)]:
        stances = ", ".join(assessor.stance_model.classes_)
        out.print(f"{name}\n  detected by the model; stance: {stances}", markup=False)
    failed = 0
    for topic, ability in zip(own, assessor.user.abilities if assessor.user else (), strict=True):
        out.print(topic.id, markup=False)
        for line in _abilities(topic, ability):
            out.print(f"  {line}", markup=False)
        for passed, line in _cases(topic, assessor):
            failed += not passed
            out.print(f"  {line}", markup=False, style=None if passed else "red")
    if not own:
        out.print("no topics of your own: give --taxonomy FILE or STANCEWATCH_TAXONOMY")
    if failed:
        out.print(f"{failed} case{'s' if failed > 1 else ''} failed", style="red")
        raise typer.Exit(1)


def _descriptions(assessor: Assessor) -> dict[str, str]:
    from classifiers.taxonomy import load_taxonomy  # noqa: PLC0415 - keeps --help fast

    described = {topic.id: topic.description for topic in load_taxonomy()}
    return described | {
        topic.id: topic.description for topic in (assessor.user.topics if assessor.user else ())
    }


def _abilities(topic: UserTopic, ability: Ability) -> Iterator[str]:
    """How the topic is detected, and what about its stance."""
    from classifiers.user_topics import EXAMPLES_MIN, STANCE_EXAMPLES_MIN  # noqa: PLC0415 - keeps --help fast

    if ability.detection == "examples":
        yield f"detected by {ability.examples} examples and the description"
    else:
        have = f"{ability.examples} of the {EXAMPLES_MIN} examples from which on they count (16 are good)"
        yield f"detected by the description only; {have}"
    if not topic.terms:
        yield "no terms: every article is read in full, and related articles pass more easily"
    counts = ", ".join(
        f"{stance} {ability.stance_counts.get(stance, 0)}" for stance in ("favor", "against", "neutral")
    )
    never = [name for name in ("favor", "against", "neutral") if name not in ability.stances]
    if not ability.stances:
        yield (
            f"stance: always unclear; needs {STANCE_EXAMPLES_MIN} examples each of two stances or more"
            f" (there are: {counts})"
        )
    else:
        missing = f"; never {', '.join(never)}: fewer than {STANCE_EXAMPLES_MIN} examples" if never else ""
        given = ", ".join(ability.stances)
        yield f"stance: {given} (examples: {counts}; 20 of each are good){missing}"


def _cases(topic: UserTopic, assessor: Assessor) -> Iterator[tuple[bool, str]]:
    """Each case: whether it passed, and a line with its probability."""
    column = assessor.topics.index(topic.id)
    for name, wanted in (("must_match", True), ("must_not_match", False)):
        texts: tuple[str, ...] = getattr(topic, name)
        found = assessor.topic_probabilities([("", text) for text in texts])[:, column] if texts else ()
        for text, probability in zip(texts, found, strict=True):
            passed = bool(probability >= topic.threshold) == wanted
            verdict = "passed" if passed else "FAILED"
            sign = ">=" if probability >= topic.threshold else "<"
            short = text if len(text) <= 70 else f"{text[:67]}..."  # noqa: PLR2004 - a line
            yield passed, f"{verdict} {name}: {probability:.2f} {sign} {topic.threshold:.2f}: {short}"
    if not topic.must_match and not topic.must_not_match:
        yield True, "no cases: add must_match and must_not_match"
