"""The schedules of the project: when each runs next, how the last run ended, and what is wrong."""

from __future__ import annotations

from datetime import datetime

from loopwright.config import Project
from loopwright.console.formats import Reader, span
from loopwright.console.fragments import pill
from loopwright.console.markup import Html, el, join
from loopwright.console.views import Glance, ScheduleLine, Tone
from loopwright.ledger import Ledger
from loopwright.pipelines import plan, standing, watch
from loopwright.pipelines.timing import Timing

__all__ = ["lines", "schedules"]

_TONES: dict[str, Tone] = {"completed": "good", "running": "info", "failed": "bad", "crashed": "bad"}


def lines(project: Project, ledger: Ledger, at: datetime) -> tuple[ScheduleLine, ...]:
    """Return one line per schedule."""
    standings = standing.read_all(ledger)
    problems = watch.check(project, ledger, at)
    found = []
    for name, one in plan.schedules(project).items():
        state = standings.get(name)
        timing = Timing.of(state.timing) if state and state.timing else one.timing
        active = state.active if state else not one.paused
        last = state.last if state else None
        found.append(
            ScheduleLine(
                name=name,
                when=str(timing or one.when),
                following=timing.after(at) if timing and active else None,
                active=active,
                last=last.time if last else None,
                result="running" if state and state.running else (last.status if last else ""),
                seconds=last.seconds if last else None,
                wrong=tuple(
                    problem.message for problem in problems if problem.schedule in {name, watch.RUNNER}
                ),
            )
        )
    return tuple(found)


def schedules(view: Glance, reader: Reader) -> Html:
    """Return the table of schedules; nothing where none is declared."""
    if not view.schedules:
        return Html("")
    head = el("tr", *(el("th", name) for name in ("Schedule", "Runs", "Next", "Last", "Result", "")))
    rows = [_row(line, reader) for line in view.schedules]
    title = el("div.section", el("h1", "Schedules"), el("span.minor", f"{len(rows)} in all"))
    return join(title, el("table", el("thead", head), el("tbody", *rows)))


def _row(line: ScheduleLine, reader: Reader) -> Html:
    following = reader.date(line.following) if line.following else ("-" if line.active else "paused")
    took = f" in {span(line.seconds)}" if line.result == "completed" and line.seconds is not None else ""
    result = pill(_TONES.get(line.result, "plain"), f"{line.result}{took}") if line.result else "-"
    return el(
        "tr",
        el("td", line.name),
        el("td", line.when),
        el("td", following),
        el("td", reader.date(line.last) if line.last else "-"),
        el("td", result),
        el("td", *(el("div.bad-text", text) for text in line.wrong)),
    )
