"""The try-it page as a document: complete, of one piece, and closed to what stands in names and values."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from described_deployments import COLUMNS, mixed, quantiles

from loopwright.deploy.online import tryit
from loopwright.deploy.online.described import Described
from loopwright.records import Column, Signature, Task, Variant
from loopwright.registry.profile import numeric_profile


class Parsed(HTMLParser):
    """The elements of a page with their attributes, and the texts of scripts and styles."""

    def __init__(self, text: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep an element."""
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Keep the text of the last element."""
        self.texts.append((self.elements[-1][0] if self.elements else "", data))

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        """Return the attributes of the elements that have these."""
        return [
            found
            for name, found in self.elements
            if name == tag and all(found.get(key) == value for key, value in wanted.items())
        ]

    def facts(self) -> Any:
        """Return what the page tells its script."""
        return json.loads(
            next(text for tag, text in self.texts if tag == "script" and text.startswith('{"dep'))
        )


@pytest.mark.parametrize(
    "reply",
    [
        tryit.page("shop", "a/b ü", mixed()),
        tryit.index("shop", {"a": mixed(), "b": None}),
        tryit.door("shop"),
    ],
)
def test_the_page_needs_nothing_from_elsewhere(reply: Any) -> None:
    """No address leads out of the server, nothing is inline but what the policy names by its content."""
    page, headers = Parsed(reply.body), dict(reply.headers)
    policy = headers[b"content-security-policy"].decode()
    for tag, text in page.texts:
        if tag in {"style", "script"} and not text.startswith('{"dep') and text.strip():
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in policy, text[:80]
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("src", "href", "action"):
            value = attributes.get(name) or ""
            assert value == "" or value == "data:," or (value.startswith("/") and not value.startswith("//"))
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert reply.content_type == b"text/html; charset=utf-8"


def test_every_input_has_a_field_of_its_kind() -> None:
    """Numbers, choices, switches and times are what they are, and what may be missing can be made so."""
    page = Parsed(tryit.page("shop", "churn-api", mixed()).body)
    kinds = []
    for at in range(len(COLUMNS)):
        (found,) = [
            (tag, attributes) for tag, attributes in page.elements if attributes.get("id") == f"input-{at}"
        ]
        kinds.append((found[0], found[1].get("type"), found[1].get("step")))
    assert kinds == [
        ("input", "number", "1"),
        ("input", "number", "1"),
        ("input", "number", "any"),
        ("input", "number", "any"),
        ("select", None, None),
        ("input", None, None),
        ("input", "checkbox", None),
        ("input", "datetime-local", "any"),
        ("input", "datetime-local", "any"),
    ]
    assert len(page.all("label", **{"class": "missing"})) == sum(not column.required for column in COLUMNS)
    options = [found["value"] for found in page.all("option")]
    assert {"Köln", "Aachen", "</script><b>x"} <= set(options)
    assert [value for value in options if value in {"champion", "candidate", "next"}] == [
        "champion",
        "candidate",
    ]
    assert len(page.all("svg")) == 4


def test_the_histogram_has_every_bin() -> None:
    """Few distinct values, ties at the ends and a constant are drawn with a bar for each bin, within the picture."""
    for values in (
        [1.0, 1.0, 2.0, 3.0, 3.0],
        [0.0] * 50 + list(range(30)),
        [5.0] * 9,
        list(np.arange(500.0)),
    ):
        seen = numeric_profile("x", np.array(values, dtype=float))
        bars = re.findall(r'<rect x="([\d.-]+)" y="([\d.-]+)" width="([\d.]+)"', tryit._spread(seen))
        assert len(bars) == len(seen.counts)
        assert all(0 <= float(x) <= 100 and 1 <= float(y) <= 15 for x, y, _ in bars)


def test_names_and_values_cannot_break_out() -> None:
    """Markup in names of deployments, columns, classes and values stays text, in the page and in the script's data."""
    bad = '"><script>alert(1)</script><!--'
    signature = Signature((Column(bad, "string"), Column("b", "double")), Task.classification, bad, (bad,))
    one = Described(bad, signature, bad, ({bad: bad, "b": 1.5},), classes=(bad,), runtime=bad)
    reply = tryit.page(bad, bad, one)
    assert b"<script>alert" not in reply.body
    page = Parsed(reply.body)
    assert len(page.all("script")) == 3
    assert page.facts()["columns"][0]["name"] == bad
    assert page.facts()["examples"] == [[bad, "1.5"]]
    assert b"<script>alert" not in tryit.index(bad, {bad: one, bad + "2": None}).body


def test_large_numbers_and_times_reach_the_form_exactly() -> None:
    """A whole number beyond 2^53 is text for the script; a time is what the browser's field takes, in UTC."""
    facts = Parsed(tryit.page("shop", "churn-api", mixed()).body).facts()
    first, second = facts["examples"]
    assert first[1] == "9007199254740993"
    assert (first[3], first[6], first[8]) == (None, True, None)
    assert (first[7], second[8]) == ("2020-02-29T08:30:00.250", "2026-01-31T12:00:00")
    assert facts["path"] == "/predict/churn-api"


def test_a_version_without_profile_and_rows_has_a_page() -> None:
    """The form is made from the signature alone, and says that its values are made up."""
    reply = tryit.page("shop", "demand", quantiles())
    page = Parsed(reply.body)
    assert b"a made-up row" in reply.body
    assert page.facts()["examples"] == [["0", "0.0"]]
    assert page.facts()["outputs"] == ["p10", "p50", "p90"]
    assert page.all("svg") == []


def test_the_index_links_what_serves_and_says_how_to_start_the_rest() -> None:
    """Each serving deployment has a link; one that does not serve has the command."""
    reply = tryit.index("shop", {"churn api": mixed(), "idle": None})
    links = [found["href"] for found in Parsed(reply.body).all("a", **{"class": "card"})]
    assert links == ["/try/churn%20api"]
    assert b"loopwright deployment start idle" in reply.body
    assert b"No online deployment" in tryit.index("shop", {}).body


def test_browsers_get_the_page_and_programs_get_json() -> None:
    """What a browser accepts names HTML; curl, Python and wget do not."""
    assert tryit.wants_page(b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
    assert not any(tryit.wants_page(accept) for accept in (b"", b"*/*", b"application/json"))


def test_the_styles_define_every_colour_twice() -> None:
    """Each colour is there in light and in dark, and no rule uses one that is not defined."""
    style = tryit._asset("tryit.css")
    light, dark = (
        set(re.findall(r"(--[\w-]+):", block))
        for block in re.findall(r"^(?::root|html\[.*?\]) \{(.*?)^\}", style, re.MULTILINE | re.DOTALL)
    )
    assert light - {"--font", "--mono"} == dark
    assert set(re.findall(r"var\((--[\w-]+)\)", style)) <= light


def test_a_value_that_is_made_up_in_a_real_row_says_so() -> None:
    """Only inputs that the log does not keep have the note; and a shadow is said to answer nobody."""
    real = replace(mixed(), real=True)
    name = real.signature.names[0]
    assert "made up: the log" not in tryit.page("p", "d", real).body.decode()
    hidden = tryit.page("p", "d", replace(real, hidden=(name,))).body.decode()
    assert hidden.count("made up: the log does not keep it") == 1
    assert hidden.count("answers nobody") == 1
    alone = replace(real, variants=(Variant("champion", 1),))
    assert "answers nobody" not in tryit.page("p", "d", alone).body.decode()
