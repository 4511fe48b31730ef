"""The try-it page of a deployment: a form made from its signature, filled with a real row, that asks the deployment.

One file without anything from elsewhere: style and script are in the page, and the browser is told to run nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from loopwright.deploy.online.codecs.base import Reply
from loopwright.deploy.online.described import Described
from loopwright.records import Column
from loopwright.registry.profile import ColumnProfile

__all__ = ["door", "index", "page", "wants_page"]

HTML = b"text/html; charset=utf-8"
#: A column whose listed categories cover at least this share of the training data gets a list to choose from.
COVERED = 0.98
_HERE = Path(__file__).parent
_WORDS = {
    "boolean": "true or false",
    "integer": "whole number",
    "long": "whole number",
    "float": "number",
    "double": "number",
    "string": "text",
    "datetime": "time, UTC",
}


def wants_page(accept: bytes) -> bool:
    """Whether a caller prefers a page to JSON: browsers name HTML, programs do not."""
    return b"text/html" in accept.lower()


def page(project_name: str, name: str, one: Described) -> Reply:
    """Return the try-it page of one deployment.

    Parameters
    ----------
    project_name
        Whose deployment it is.
    name
        The deployment.
    one
        What it serves now. Its example rows are shown to whoever may open the page.

    Returns
    -------
    Reply
        HTML, and the headers that keep a browser from running anything but the page's own script.
    """
    columns = "".join(
        _field(at, column, one.seen.get(column.name), made_up=one.real and column.name in one.hidden)
        for at, column in enumerate(one.signature.inputs)
    )
    examples = one.examples or (one.example,)
    another = "" if len(examples) > 1 else " hidden"
    source = (
        "a real row kept with the version" if one.real else "a made-up row: none was kept with the version"
    )
    entity = f"who the row is about ({one.entity})" if one.entity else "who the row is about"
    body = f"""
<div class="title"><h1>{escape(name)}</h1>{_pills(one)}</div>
<p class="subtitle">Predicts <b>{escape(one.signature.target)}</b> with {_versions(one)}</p>
<div class="board">
<form class="panel" id="form" novalidate autocomplete="off">
<div class="panel-head"><h2>Inputs</h2><span class="note">Prefilled with {source}.</span></div>
<div class="fields">{columns}</div>
<div class="who">
<div class="field"><div class="field-head"><label class="field-name" for="entity">Entity</label></div>
<input class="control" id="entity" maxlength="256"><div class="field-note"><span>{escape(entity)}</span></div></div>
<div class="field"><div class="field-head"><label class="field-name" for="variant">Variant</label></div>
<select class="control" id="variant">{_variants(one)}</select>
<div class="field-note"><span>another than its own, for tests</span></div></div>
<div class="field long"><div class="field-head"><label class="field-name" for="key">API key</label></div>
<input class="control" id="key" type="password" maxlength="256" autocomplete="off">
<div class="field-note"><span>where the server needs one</span></div></div>
</div>
<div class="actions"><button class="send" id="send">Predict</button>
<button type="button" class="plain" id="another"{another}>Another example</button>
<span class="note">Each answer is logged like any other prediction.</span></div>
</form>
<div class="side">
<section class="panel" aria-live="polite"><div class="panel-head"><h2>Answer</h2></div>
<div id="result" class="panel-body"><p class="empty">Press Predict to ask the deployment.</p></div></section>
<section class="panel"><div class="panel-head"><div class="tabs" role="tablist">
<button class="tab" role="tab" data-shows="request" aria-selected="true">JSON</button>
<button class="tab" role="tab" data-shows="curl" aria-selected="false">as curl</button>
<button class="tab" role="tab" data-shows="python" aria-selected="false">as Python</button>
<button class="tab" role="tab" data-shows="answer" aria-selected="false">Raw answer</button>
</div><button class="plain small" id="copy">Copy</button></div><pre id="code" tabindex="0"></pre></section>
</div>
</div>
<script type="application/json" id="facts">{_facts(name, one, examples)}</script>
"""
    return _whole(project_name, f"{name} · try it", name, body, script="tryit.js")


def index(project_name: str, deployments: Mapping[str, Described | None]) -> Reply:
    """Return the page of all deployments; None stands for one that does not serve yet."""
    cards = "".join(_card(name, one) for name, one in sorted(deployments.items()))
    empty = '<section class="panel"><p class="empty">No online deployment is declared.</p></section>'
    count = len(deployments)
    body = f"""
<div class="title"><h1>Online deployments</h1><span class="pill">{count}</span></div>
<div class="cards">{cards}</div>{"" if cards else empty}
"""
    return _whole(project_name, "Online deployments", "", body)


def door(project_name: str) -> Reply:
    """Return the page that asks for an API key, for browsers that were refused with 401 at a page.

    It fetches the page with the key and shows that in its own place; the key stays in the browser's tab.
    """
    body = """
<form class="panel door" id="door"><div class="panel-head"><h2>API key</h2></div>
<input class="control" id="key" type="password" maxlength="256" autocomplete="off" aria-label="API key" autofocus>
<div class="actions"><button class="send">Open</button>
<span class="note" id="said" role="status">The pages show real rows, so they need a key as requests do.</span></div></form>
"""
    return _whole(project_name, "API key", "", body, script="tryit_door.js")


def _whole(project_name: str, title: str, here: str, body: str, *, script: str = "") -> Reply:
    style, theme = _asset("tryit.css"), _asset("tryit_theme.js")
    own = _asset(script) if script else ""
    where = f'<span class="slash">/</span><span class="here">{escape(here)}</span>' if here else ""
    text = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{escape(title)} · {escape(project_name)}</title><link rel="icon" href="data:,">
<style>{style}</style><script>{theme}</script></head><body>
<header class="bar"><div><a class="brand" href="/"><span class="mark"></span>Loopwright</a>
<span class="slash">/</span><span class="project">{escape(project_name)}</span>{where}</div>
<div><a class="link" href="/openapi.json">OpenAPI</a><a class="link" href="/metrics">Metrics</a>
<button class="theme" type="button" aria-label="Change between light and dark">Light</button></div></header>
<main class="shell">{body}</main>
{f"<script>{own}</script>" if script else ""}</body></html>
"""
    # The policy names the style and the scripts by their content. It has those of all pages, because the page behind
    # the door is shown under the door's policy.
    scripts = " ".join(_hash(_asset(one)) for one in ("tryit_theme.js", "tryit.js", "tryit_door.js"))
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {scripts}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = [
        (b"content-security-policy", policy.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"cache-control", b"no-store"),
    ]
    return Reply(text.encode(), HTML, headers)


@cache
def _asset(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


@cache
def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _pills(one: Described) -> str:
    pills = [str(one.signature.task), *([one.runtime] if one.runtime else [])]
    return "".join(f'<span class="pill">{escape(text)}</span>' for text in pills)


def _versions(one: Described) -> str:
    return f"<b>{escape(one.model)}</b>, " + ", ".join(
        f"version <b>{variant.version}</b> ({escape(variant.name)}, "
        + ("answers nobody" if variant.shadow else f"{100 * variant.weight:.3g}%")
        + ")"
        for variant in one.variants
    )


def _variants(one: Described) -> str:
    named = "".join(
        f'<option value="{escape(variant.name)}">{escape(variant.name)} (version {variant.version})</option>'
        for variant in one.variants
        if not variant.shadow
    )
    return f'<option value="">by its entity</option>{named}'


def _field(at: int, column: Column, seen: ColumnProfile | None, *, made_up: bool = False) -> str:
    """Return the form's part for one input; of one that is `made_up` in a real row this is said."""
    name = escape(column.name)
    missing = (
        ""
        if column.required
        else '<label class="missing"><input type="checkbox" tabindex="-1">missing</label>'
    )
    control, note, long = _control(at, column, seen)
    note = f"{note}, made up: the log does not keep it" if made_up else note
    return (
        f'<div class="field{" long" if long else ""}" id="field-{at}"><div class="field-head">'
        f'<span class="field-name" title="{name}"><label for="input-{at}">{name}</label></span>{missing}</div>'
        f'{control}<div class="field-note"><span>{escape(note)}</span></div></div>'
    )


def _control(at: int, column: Column, seen: ColumnProfile | None) -> tuple[str, str, bool]:
    """Return what takes a value, what is said below, and whether it needs a whole line on a small screen."""
    given = f'id="input-{at}"'
    words = _WORDS[column.type]
    if column.type == "boolean":
        return f'<label class="switch"><input type="checkbox" {given}>true</label>', words, False
    if column.type == "datetime":
        return f'<input class="control" type="datetime-local" step="any" {given}>', words, True
    if column.type == "string":
        return _text(given, words, seen)
    step = "1" if column.type in {"integer", "long"} else "any"
    control = f'<input class="control" type="number" step="{step}" {given}>'
    if _range(column, seen) is None or seen is None:
        return control, words, False
    return control + _spread(seen), f"{_short(seen.minimum)} to {_short(seen.maximum)}", False


def _text(given: str, words: str, seen: ColumnProfile | None) -> tuple[str, str, bool]:
    known = seen.categories if seen is not None else ()
    if seen is None or not known:
        return f'<input class="control" {given}>', words, True
    options = "".join(f'<option value="{escape(one)}">{escape(one)}</option>' for one in known)
    if sum(seen.counts) >= COVERED * (sum(seen.counts) + seen.other):
        other = '<option value="&#xfffd;">another value ...</option>'
        note = f"{len(known)} known value{'s' if len(known) != 1 else ''}"
        listed = f'<select class="control" {given}>{options}{other}</select>'
        return listed + '<input class="control other" aria-label="another value" hidden>', note, True
    named = given.replace("input-", "known-")
    listed = f'<input class="control" {given} list={named.removeprefix("id=")}><datalist {named}>{options}</datalist>'
    return listed, words, True


def _short(value: float | None) -> str:
    """Return a number in few characters: a field is narrow."""
    number = value or 0.0
    return f"{number:.5g}" if number == 0 or 1e-3 <= abs(number) < 1e5 else f"{number:.3g}"


def _range(column: Column, seen: ColumnProfile | None) -> tuple[float, float] | None:
    """Return the smallest and the largest value of a number in the training data."""
    if seen is None or seen.minimum is None or seen.maximum is None or column.type == "datetime":
        return None
    return seen.minimum, seen.maximum


def _spread(seen: ColumnProfile) -> str:
    """Return the training data's histogram as a picture 100 wide and 16 high, with a line for the value in the form."""
    low, high = seen.minimum or 0.0, seen.maximum or 0.0
    if low == high:
        low, high = low - 0.5, high + 0.5  # a constant stands in the middle
    width = high - low
    ends = [low, *(min(max(edge, low), high) for edge in seen.edges), high]
    bars = ""
    if len(seen.counts) == len(ends) - 1:
        dense = [
            count / max(right - left, width * 1e-2)
            for count, left, right in zip(seen.counts, ends, ends[1:], strict=False)
        ]
        most = max(dense) or 1.0
        for share, left, right in zip(dense, ends, ends[1:], strict=False):
            tall = 14 * (share / most) ** 0.5
            x, wide = 100 * (left - low) / width, max(100 * (right - left) / width, 1)
            bars += f'<rect x="{x:.2f}" y="{15 - tall:.2f}" width="{wide:.2f}" height="{tall:.2f}"/>'
    return (
        '<svg class="spread" viewBox="0 0 100 16" preserveAspectRatio="none" aria-hidden="true">'
        f'{bars}<rect class="base" x="0" y="15" width="100" height="1"/>'
        '<line class="at" y1="0" y2="16" x1="0" x2="0" visibility="hidden"/></svg>'
    )


def _facts(name: str, one: Described, examples: tuple[dict[str, Any], ...]) -> str:
    """Return what the script needs, as JSON that no text in it can break out of."""
    columns = []
    for column in one.signature.inputs:
        facts: dict[str, Any] = {"name": column.name, "type": column.type, "required": column.required}
        found = _range(column, one.seen.get(column.name))
        if found is not None:
            facts |= {"min": found[0], "max": found[1]}
        columns.append(facts)
    facts = {
        "deployment": name,
        "path": f"/predict/{quote(name, safe='')}",
        "task": str(one.signature.task),
        "target": one.signature.target,
        "outputs": list(one.signature.outputs),
        "columns": columns,
        "examples": [
            [_shown(column, row.get(column.name)) for column in one.signature.inputs] for row in examples
        ],
    }
    text = json.dumps(facts, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _shown(column: Column, value: Any) -> str | bool | None:
    """Return a value as the form's field holds it. Numbers are text: a script's number would round large ones."""
    if value is None or isinstance(value, bool):
        return value
    if column.type == "datetime":
        moment = datetime.fromisoformat(str(value)).astimezone(UTC).replace(tzinfo=None)
        return moment.isoformat(timespec="milliseconds" if moment.microsecond else "seconds")
    return str(value)


def _card(name: str, one: Described | None) -> str:
    if one is None:
        return (
            f'<div class="card"><div class="card-head"><h2>{escape(name)}</h2><span class="pill">not serving</span></div>'
            f'<p class="note">loopwright deployment start {escape(name)}</p></div>'
        )
    facts = {
        "model": one.model,
        "versions": ", ".join(str(version) for version in one.versions),
        "inputs": str(len(one.signature.inputs)),
        "runtime": one.runtime or "-",
    }
    listed = "".join(f"<div><dt>{key}</dt><dd>{escape(value)}</dd></div>" for key, value in facts.items())
    return (
        f'<a class="card" href="/try/{quote(name, safe="")}"><div class="card-head"><h2>{escape(name)}</h2>'
        f'<span class="pill">{one.signature.task}</span></div>'
        f'<p class="subtitle">Predicts <b>{escape(one.signature.target)}</b></p>'
        f'<dl class="facts">{listed}</dl><div class="card-foot">Try it</div></a>'
    )
