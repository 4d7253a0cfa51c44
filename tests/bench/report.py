"""What was measured, as plain values for a JSON file and as a table for people."""

import re
from statistics import median

from tests.bench.measurements import BY_NAME, CONTESTANTS, HIVE

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
# So many samples make a 99th percentile.
_ENOUGH = 100


def as_values(results, conditions, *, quick):
    """All of it as plain values; ``results`` is from ``run_rounds``."""
    found = {}
    for name, contestant in sorted({*results.samples, *results.errors}):
        by_contestant = found.setdefault(name, {})
        samples = results.samples.get((name, contestant), [])
        by_contestant[contestant] = {
            **_summary(samples),
            "samples": [round(sample, 4) for sample in samples],
            "errors": results.errors.get((name, contestant), []),
        }
    return {
        **conditions,
        "quick": quick,
        "complete": results.complete,
        "measurements": {
            name: {
                "title": measurement.titled(quick=quick),
                "unit": measurement.unit,
                "contestants": found[name],
                "goals": [_judged(goal, found[name]) for goal in measurement.goals],
            }
            for name, measurement in BY_NAME.items()
            if name in found
        },
    }


def _summary(samples):
    if not samples:
        return {}
    summary = {"median": median(samples), "min": min(samples)}
    if len(samples) >= _ENOUGH:
        summary["p99"] = sorted(samples)[len(samples) * 99 // 100]
    return {name: round(value, 4) for name, value in summary.items()}


def _judged(goal, by_contestant):
    """A goal with what was reached; ``reached`` is None where that is not known."""
    ours = by_contestant.get(HIVE, {}).get("median")
    theirs = 1.0 if goal.peer is None else by_contestant.get(goal.peer, {}).get("median")
    reached = None if ours is None or not theirs else ours / theirs
    return {
        "limit": goal.limit,
        "peer": goal.peer,
        "reached": reached and round(reached, 4),
        "met": None if reached is None else reached <= goal.limit,
    }


def table(values):
    """The results as Markdown; ``values`` are from ``as_values``."""
    measured = values["measurements"]
    present = {name for each in measured.values() for name in each["contestants"]}
    columns = [name for name in CONTESTANTS if name in present]
    header = ["median", "goal", "reached", "met", *columns]
    lines = [_row(header), _row(["---"] * len(header))]
    lines += [_line(each, columns) for each in measured.values()]
    if not values["complete"]:
        lines += ["", "Stopped before its end."]
    return "\n".join([*lines, "", _footer(values), *_failures(measured)])


def _line(measurement, columns):
    goals = measurement["goals"]
    cells = [
        f"{measurement['title']}, {measurement['unit']}",
        _joined(map(_goal, goals)),
        _joined(_share(goal["reached"], goal) for goal in goals),
        _joined({True: "yes", False: "**no**", None: "?"}[goal["met"]] for goal in goals),
    ]
    return _row([*cells, *(_cell(measurement["contestants"].get(name)) for name in columns)])


def _row(cells):
    return f"| {' | '.join(cells)} |"


def _joined(texts):
    return "; ".join(texts)


def _goal(goal):
    if goal["peer"] is None:
        return f"at most {goal['limit']:g}"
    return f"{_share(goal['limit'], goal)} of {goal['peer']}"


def _share(value, goal):
    if value is None:
        return "?"
    return _number(value) if goal["peer"] is None else f"{value:.3f}"


def _cell(result):
    if result is None:
        return ""
    if "median" not in result:
        return "failed"
    p99 = f" (p99 {_number(result['p99'])})" if "p99" in result else ""
    return f"{_number(result['median'])}{p99}"


def _number(value):
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _footer(values):
    versions = ", ".join(
        f"{name} {number}" for name, number in values["versions"].items() if number
    )
    load = " ".join(f"{load:g}" for load in values["load_average"])
    return (
        f"Measured {values['date']} with Python {values['python']} on {values['processors']} "
        f"processors, load average {load} at the start; {values['system']}. {versions}."
    )


def _failures(measured):
    """A line for each call that failed: none is dropped in silence."""
    for name, measurement in measured.items():
        for contestant, result in measurement["contestants"].items():
            if result["errors"]:
                count = len(result["errors"])
                yield f"\n{contestant} failed {count} times at {name}: {result['errors'][-1]}"


def replace_table(page, text):
    """The text of a page with another table between its markers."""
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if not pattern.search(page):
        msg = f"the page has no place for the table: {BEGIN} ... {END}"
        raise ValueError(msg)
    return pattern.sub(lambda _: f"{BEGIN}\n{text}\n{END}", page)
