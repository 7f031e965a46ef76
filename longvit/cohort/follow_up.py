"""Follow-up of a cohort: its length, and checks that times and events are plausible."""

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


MOST_EVENTS, FEWEST_EVENTS, FEWEST_PATIENTS = 0.9, 0.02, 50
"""Bounds of a plausible share of events, and the smallest cohort in which they are checked. In TCGA's cohorts overall
survival has 2 to 85 % events."""
LATE_EVENTS = 0.55
"""Largest plausible share of events among the tenth of patients with the longest times."""


def describe_follow_up(times: pd.Series, event: pd.Series, unit: str) -> str:
    """Return a sentence with the events and the median follow-up.

    The follow-up is given in both of the usual kinds: by reverse Kaplan-Meier, in which events are censored (Schemper
    and Smith 1996), and as the median time of the patients without the event.
    """
    reverse, censored = reverse_kaplan_meier(times, event), times[event == 0]
    return (
        f"{len(event)} patients, {int(event.sum())} events ({100 * event.mean():.0f} %); median follow-up "
        f"{'not reached' if reverse is None else f'{reverse:.4g} {unit}'} by reverse Kaplan-Meier, "
        f"{f'{censored.median():.4g} {unit}' if len(censored) else 'unknown'} of patients without the event"
    )


def reverse_kaplan_meier(times: pd.Series, event: pd.Series) -> float | None:
    """Return the median follow-up: the first time at which the censoring curve is at most 1/2; None if it stays above.

    At one time events come first, as in Kaplan-Meier curves of censoring.
    """
    table = pd.DataFrame({"time": times.astype(float), "censored": 1 - event}).groupby("time")["censored"]
    censored, all_at = table.sum(), table.size()
    at_risk = all_at[::-1].cumsum()[::-1] - (all_at - censored)
    curve = (1 - censored / at_risk.where(at_risk > 0, 1)).cumprod()
    below = curve.index[curve <= 0.5 + 1e-12]
    return float(below[0]) if len(below) else None


def turned_round(times: pd.Series, event: pd.Series) -> str | None:
    """Return a sentence on why events are likely those of patients without the event, and the other way round, or None.

    Events are implausibly frequent or rare; or most patients with the longest times have the event, and they have it
    at least as often as all patients. Where the status is right, survivors have the longest times.
    """
    share = float(event.mean())
    if len(event) < FEWEST_PATIENTS or event.nunique() < 2:
        return None
    if not FEWEST_EVENTS <= share <= MOST_EVENTS:
        return f"{100 * share:.1f} % of {len(event)} patients have the event"
    late = float(event[times >= times.quantile(0.9)].mean())
    if late > LATE_EVENTS and late >= share:
        shares = f"{100 * late:.0f} % have the event, of all {100 * share:.0f} %"
        return f"of the tenth of patients with the longest times {shares}"
    return None
