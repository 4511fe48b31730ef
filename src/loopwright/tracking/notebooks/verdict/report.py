"""The reports of a check: a page for people, and the same as JSON and as a lock for programs."""

from __future__ import annotations

import html
import json
from dataclasses import asdict
from pathlib import Path

from loopwright.errors import Denied
from loopwright.tracking.notebooks.verdict.findings import CellFinding, Verdict

__all__ = ["as_dict", "page", "write"]

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2330; --soft: #5b6475; --paper: #fff; --card: #f6f7f9; --line: #e1e4ea;
        --good: #18794e; --bad: #c62a2f; --warn: #946800; --code: #eef0f4; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaf0; --soft: #a2a9b8; --paper: #14171d; --card: #1c2028;
        --line: #2d333f; --good: #4cc38a; --bad: #ff8589; --warn: #f1c21b; --code: #232833; } }
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
main { max-width: 60rem; margin: 0 auto; padding: 2rem 1rem 4rem }
h1 { font-size: 1.1rem; font-weight: 600; color: var(--soft); margin: 0 0 .5rem; overflow-wrap: anywhere }
.verdict { font-size: 1.5rem; line-height: 1.3; font-weight: 650; margin: 0 0 .75rem; text-wrap: balance }
.good { color: var(--good) } .bad { color: var(--bad) } .warn { color: var(--warn) } .soft { color: var(--soft) }
.facts { color: var(--soft); margin: 0 0 1.5rem }
.strip { display: flex; gap: 3px; margin: 0 0 2rem; height: 1rem }
.strip a { flex: 1; min-width: 2px; border-radius: 3px; background: var(--line) }
.strip .good { background: var(--good) } .strip .bad { background: var(--bad) } .strip .warn { background: var(--warn) }
article { background: var(--card); border: 1px solid var(--line); border-left: 4px solid var(--line);
          border-radius: 6px; margin: 0 0 .75rem; padding: .6rem .9rem }
article.good { border-left-color: var(--good) } article.bad { border-left-color: var(--bad) }
article.warn { border-left-color: var(--warn) } article.good, article.bad, article.warn { color: inherit }
.head { display: flex; flex-wrap: wrap; gap: .25rem 1rem; align-items: baseline }
.head b { min-width: 4rem } .head span:last-child { margin-left: auto }
pre { background: var(--code); border-radius: 4px; padding: .6rem .8rem; overflow-x: auto; margin: .5rem 0 .2rem;
      font: 13px/1.45 ui-monospace, monospace; max-height: 20rem }
details > summary { cursor: pointer; color: var(--soft); font: 13px/1.45 ui-monospace, monospace; overflow: hidden;
                    text-overflow: ellipsis; white-space: nowrap }
.why { margin: .4rem 0 0 } .why b { font-weight: 600 }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
ul { margin: .3rem 0; padding-left: 1.2rem } li { overflow-wrap: anywhere }
"""


def as_dict(verdict: Verdict) -> dict[str, object]:
    """Return the verdict as JSON values, with its sentence."""
    return {"verdict": verdict.sentence, "reproduces": verdict.reproduces, **asdict(verdict)}


def write(verdict: Verdict, folder: Path) -> dict[str, Path]:
    """Write the page, the JSON and the lock into a folder, and return where they are.

    Raises
    ------
    Denied
        The folder cannot be written to.
    """
    files = {
        "report.html": page(verdict),
        "report.json": json.dumps(as_dict(verdict), indent=1) + "\n",
        "requirements.lock": "".join(f"{line}\n" for line in verdict.lock),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise Denied(
            f"The report cannot be written to {folder}: {error.strerror}.", hint="--out <another folder>"
        ) from error
    return {name: folder / name for name in files}


def _look(cell: CellFinding) -> str:
    if cell.status == "failed":
        return "bad"
    if cell.status == "not reached":
        return ""
    return "warn" if cell.output == "different" else "good"


def page(verdict: Verdict) -> str:
    """Return the page: one file that needs nothing else."""
    look = "good" if verdict.reproduces else ("bad" if verdict.failed else "warn")
    runs = "run twice" if verdict.runs == 2 else "run once"
    strip = "".join(
        f'<a class="{_look(cell)}" href="#cell-{cell.number}" title="cell {cell.number}: {cell.status}"></a>'
        for cell in verdict.cells
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(Path(verdict.notebook).name)}: check</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>{_text(verdict.notebook)}</h1>"
        f'<p class="verdict {look}">{_text(verdict.sentence)}</p>'
        f'<p class="facts">Python {_text(verdict.python)}, {len(verdict.lock)} packages, '
        f"{runs} in a process of its own, {verdict.seconds:.1f} s in all</p>"
        f'<div class="strip">{strip}</div>{_order(verdict)}'
        + "".join(map(_cell, verdict.cells))
        + _outside(verdict)
        + f"<h2>What it imported</h2><p class='soft'>The packages with the versions that were used; also in "
        f"requirements.lock.</p><pre>{_text(chr(10).join(verdict.lock) or '(only the standard library)')}</pre>"
        "</main></body></html>"
    )


def _text(text: str) -> str:
    return html.escape(text)


def _order(verdict: Verdict) -> str:
    return f'<p class="warn">{_text(verdict.order)}.</p>' if verdict.order else ""


_OUTPUTS = {
    "equal": "output as stored",
    "different": "another output than stored",
    "not stored": "no output stored",
    "none": "no output",
    "": "",
}


def _cell(cell: CellFinding) -> str:
    look = _look(cell)
    state = cell.status if cell.status != "ran" else f"ran · {_OUTPUTS[cell.output]}"
    time = f"{cell.seconds:.2f} s" if cell.status != "not reached" else ""
    first = cell.source.strip().split("\n")[0]
    opened = " open" if cell.cause else ""
    why = ""
    if cell.difference:
        why += f'<p class="why">{_text(cell.difference)}</p>'
    if cell.cause:
        why += f'<p class="why"><b>{_text(cell.cause.kind)}</b>: {_text(cell.cause.text)}</p>'
        if cell.cause.advice:
            why += f'<p class="why soft">Try: {_text(cell.cause.advice)}</p>'
    return (
        f'<article class="{look}" id="cell-{cell.number}"><div class="head"><b>Cell {cell.number}</b>'
        f'<span class="{look or "soft"}">{_text(state)}</span><span class="soft">{time}</span></div>'
        f"<details{opened}><summary>{_text(first)}</summary><pre>{_text(cell.source)}</pre></details>{why}</article>"
    )


def _outside(verdict: Verdict) -> str:
    text = ""
    if verdict.written:
        items = "".join(f"<li><code>{_text(path)}</code></li>" for path in verdict.written)
        text += f'<h2 class="warn">Written outside of its folder</h2><ul>{items}</ul>'
    if verdict.hosts:
        items = "".join(f"<li><code>{_text(host)}</code></li>" for host in verdict.hosts)
        text += f'<h2 class="warn">Asked over the network</h2><ul>{items}</ul>'
    return text
