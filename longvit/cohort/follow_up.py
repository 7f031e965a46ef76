"""Unit of times to an event, and the check that times are plausible in their unit."""

import pandas as pd

from longvit.config import TimeUnit

PER_YEAR: dict[TimeUnit, float] = {"days": 365.25, "months": 12, "years": 1}
LONGEST_YEARS = 60
"""Longest plausible follow-up: no cohort with slides was followed for longer."""
SHORTEST_DAYS = 40
"""Longest follow-up, in days, that is plausible in days; a shorter one is in months or years."""


def implausible(times: pd.Series, unit: TimeUnit) -> tuple[str, TimeUnit | None] | None:
    """Return a sentence on why these times are implausible in the unit, and their likely unit; None if plausible."""
    longest, median = float(times.max()), float(times.median())
    years = longest / PER_YEAR[unit]
    said = f"a longest follow-up of {longest:g} {unit} and a median of {median:g}"
    if unit == "days" and longest < SHORTEST_DAYS:
        return said, "months"
    if years <= LONGEST_YEARS:
        return None
    finer: list[TimeUnit] = [one for one in reversed(PER_YEAR) if PER_YEAR[one] > PER_YEAR[unit]]
    likely: TimeUnit | None = next((one for one in finer if longest / PER_YEAR[one] <= LONGEST_YEARS), None)
    return f"{said}, which is more than {LONGEST_YEARS} years", likely
