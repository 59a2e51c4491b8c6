"""Expands windows with python-dateutil and the zones of Python: the other opinion on when they open.

Reads {"from", "to", "cases": [{"start", "rule" or "days", "zone"}]} from standard input and writes a list of lists
of instants: those at which each case opens at or after "from" and before "to". Nothing here is taken from
our own code, nor from a library that it uses.
"""

import json
import sys
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from dateutil.rrule import MONTHLY, TU, rrule, rrulestr
from dateutil.tz import resolve_imaginary


def local_times(case, start, end):
    if "rule" in case:
        yield from rrulestr(case["rule"], dtstart=start).between(start, end, inc=True)
        return
    # The month before the start may have its day behind it.
    first = (start.replace(day=1) - timedelta(days=28)).replace(day=1)
    days = timedelta(days=case["days"])
    for tuesday in rrule(MONTHLY, byweekday=TU(2), dtstart=first, until=end):
        if tuesday + days >= start:
            yield tuesday + days


def instants(case, begin, end):
    zone = ZoneInfo(case["zone"])
    start = datetime.fromisoformat(case["start"])
    # Two days more at the end: the farthest zones are within one.
    until = end.replace(tzinfo=None) + timedelta(days=2)
    for local in local_times(case, start, until):
        # fold=0 is the first of two; a time that does not exist is moved forward.
        instant = resolve_imaginary(local.replace(tzinfo=zone, fold=0)).astimezone(timezone.utc)
        if begin <= instant < end:
            yield instant.strftime("%Y-%m-%dT%H:%M:%SZ")


def main():
    asked = json.load(sys.stdin)
    begin, end = (
        datetime.strptime(asked[name], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
        for name in ("from", "to")
    )
    json.dump([list(instants(case, begin, end)) for case in asked["cases"]], sys.stdout)


main()
