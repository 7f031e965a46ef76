"""The unit of times to an event, and times that no follow-up in that unit has."""

import pandas as pd

from longvit.config import TimeUnit

PER_YEAR: dict[TimeUnit, float] = {"days": 365.25, "months": 12, "years": 1}
LONGEST_YEARS = 60
"""No cohort with slides was followed for longer."""
SHORTEST_DAYS = 40
"""A longest follow-up below this, in days, is one in months or years."""


def implausible(times: pd.Series, unit: TimeUnit) -> tuple[str, TimeUnit | None] | None:
    """Return why these times cannot be in the unit, in words, and the unit they may be in; None if they can."""
    longest, median = float(times.max()), float(times.median())
    years = longest / PER_YEAR[unit]
    said = f"a longest follow-up of {longest:g} {unit} and a median of {median:g}"
    if unit == "days" and longest < SHORTEST_DAYS:
        return said, "months"
    if years <= LONGEST_YEARS:
        return None
    finer = [one for one in ("months", "days") if PER_YEAR[one] > PER_YEAR[unit]]
    likely = next((one for one in finer if longest / PER_YEAR[one] <= LONGEST_YEARS), None)
    return f"{said}, which is more than {LONGEST_YEARS} years", likely
