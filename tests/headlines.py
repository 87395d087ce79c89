"""Headlines written for the tests: four themes that are always there, one that rises, and one wire story."""

from __future__ import annotations

from datetime import UTC, datetime

from stream.schema import Event

DAY = 86400.0
END = datetime(2026, 5, 20, 12, tzinfo=UTC).timestamp()

STEADY = {
    "football": """Striker scores twice as the cup holders win the derby
        Football club signs young goalkeeper before the league season
        Coach praises defence after goalless football match
        Late penalty sends the football club into the cup final
        Injured captain misses the league match on Saturday
        Referee under fire after disputed penalty in cup match
        Football league clubs vote on new transfer rules
        Goalkeeper saves two penalties in cup match
        Striker leaves the club at the end of the league season
        Women's football team wins the league cup final
        Club sacks coach after fifth league defeat
        Fans protest ticket prices before the football derby
        Midfielder returns to football club after long injury
        Football league season opens with a goal in the first minute""",
    "weather": """Heavy rain floods villages along the river
        Storm brings strong winds and rain to the coast
        Weather service warns of thunderstorm and hail
        River level rises after three days of rain
        Snow storm closes mountain roads in spring
        Coast prepares for storm surge and heavy rain
        Drought ends as rain returns to the hills
        Strong winds bring down trees and power lines in storm
        Weather: sunshine in the south, rain and storm in the north
        Floods recede and the river towns clean up after the storm
        Hail storm damages orchards, weather service says
        Warm winds melt snow, river floods expected
        Storm delays ferries along the coast, heavy rain forecast
        Record rain for May, weather service reports""",
    "court": """Court jails former mayor for taking bribes
        Judge delays trial of the bank manager accused of fraud
        Jury finds builder guilty of fraud in court
        Prosecutors ask court for ten years in prison for fraud
        Lawyer says judge erred in bribery trial
        Appeal court frees man after wrong verdict
        Trial opens over forged paintings, prosecutors allege fraud
        Witness tells court of bribes paid in cash
        Judge rejects appeal in bribery trial
        Court orders new trial for convicted accountant
        Prosecutors charge two officers with bribery
        Jury hears closing words of the lawyer in fraud trial
        Prison sentence cut by appeal court judge
        Former minister faces trial, court papers show""",
    "cooking": """Recipe for a simple bean soup with garlic and bread
        How to bake bread with a crisp crust: a recipe
        Chef shares recipe for roast vegetables with lemon
        Ten recipes for a quick pasta dinner
        Chocolate cake recipe that needs no oven
        The best soup recipes for cold evenings, by our chef
        Bake a lemon cake with olive oil: recipe
        Chef opens a kitchen that cooks bread over fire
        Garlic, butter and pasta: a dinner recipe from the chef
        Vegetables for dinner, five recipes with beans
        Recipe: onion soup with cheese on toasted bread
        Kitchen tips of a chef for better pasta sauce
        Chocolate and butter cookies to bake with children, recipe
        Roast garlic soup, a recipe of the season""",
}

RISING = [
    "Lunar cargo lander touches down near the south pole of the moon",
    "    Moon lander sends first pictures from the lunar south pole",
    "    Lunar rover rolls off the lander onto moon dust",
    "    Engineers cheer as the moon rover moves its first metre",
    "    Lander finds ice below the lunar surface at the south pole",
    "    Space agency plans second lunar cargo mission to the moon",
    "    Moon dust sticks to the solar panels of the lunar rover",
    "    What the lunar lander will measure on the moon",
    "    Rover drills for ice on the moon, space agency says",
    "    Private company built the lunar lander in four years",
    "    Moon mission control fears for the lander in the cold lunar night",
    "    Lunar samples could return from the moon in two years",
]

WIRE = "Passenger ferry with three hundred aboard runs aground off the northern cape, all brought to safety"


def _event(id_: str, time: float, title: str, source: str) -> Event:
    return Event(
        id=id_,
        published_at=datetime.fromtimestamp(time, UTC),
        title=" ".join(title.split()),
        source=source,
        language="en",  # a headline is short for a guess
    )


def steady(days: int = 7) -> list[Event]:
    """Each theme twice a day, up to END."""
    events = []
    for theme, lines in STEADY.items():
        titles = lines.split("\n")
        for n, title in enumerate(titles):
            time = END - (n + 0.5) / len(titles) * days * DAY
            events.append(_event(f"{theme}-{n}", time, title, f"outlet{n % 5}"))
    return events


def rising(hours: float = 20.0) -> list[Event]:
    """The theme that was not there before, within the last hours."""
    return [
        _event(f"moon-{n}", END - hours * 3600 * (1 - n / len(RISING)), title, f"outlet{n % 4}")
        for n, title in enumerate(RISING)
    ]


def wire(copies: int = 30) -> list[Event]:
    """One story, printed by many within hours, nearly word for word."""
    forms = ("{}", "{} (agency)", "Update: {}", "{} - live")
    return [
        _event(f"wire-{n}", END - 9000.0 - n * 60, forms[n % 4].format(WIRE), f"paper{n}")
        for n in range(copies)
    ]
