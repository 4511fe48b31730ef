"""``loopwright deployment``: the four modes."""

import contextlib
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import cyclopts
from cyclopts import Parameter

from loopwright.cli.output import COMMON, Common, console, emit, emit_table, when
from loopwright.errors import InvalidInput
from loopwright.records import Deployment, Mode

if TYPE_CHECKING:
    from loopwright.config import Project
    from loopwright.deploy.overview import Overview
    from loopwright.release.shadows import Comparison, Difference

__all__ = ["app"]

app = cyclopts.App(name="deployment", help="Start, look at and roll back deployments.")
_SHARE = re.compile(r"([^:=]+)(?::(\d+))?=([0-9.eE+-]+)")


@app.command
def start(name: str, /, *, version: int | None = None, common: Common = COMMON) -> None:
    """Put a model version into service; the champion unless a version is named, the newest when there is none.

    For example:

        loopwright deployment start digits-api --version 2
    """
    from loopwright import parts
    from loopwright.deploy import base

    project = common.open()
    parts.connect(project)
    started = base.start(project, name, version)
    _show(started, common)


@app.command
def rollback(name: str, /, *, common: Common = COMMON) -> None:
    """Go back to the version that served before, at once.

    For example:

        loopwright deployment rollback digits-api
    """
    from loopwright import parts
    from loopwright.deploy import base

    project = common.open()
    parts.connect(project)
    _show(base.rollback(project, name), common)


@app.command
def split(name: str, /, *shares: str, common: Common = COMMON) -> None:
    """Give variants their shares of the entities by hand: NAME=SHARE, with a version where the variant is new.

    The shares sum to 1, one variant is the champion, and an entity keeps its
    variant where it can. A release that is under way ends.

    For example:

        loopwright deployment split digits-api champion=0.9 candidate:5=0.1
        loopwright deployment split digits-api champion=1
    """
    from loopwright import parts
    from loopwright.deploy import base

    if not shares:
        raise InvalidInput(
            "No share is given.",
            valid="Write NAME=SHARE for each.",
            hint=f"loopwright deployment split {name} champion=1",
        )
    given = dict(_share(text) for text in shares)
    if len(given) != len(shares):
        raise InvalidInput("A variant is named twice.", valid="Each has one share.")
    project = common.open()
    parts.connect(project)
    _show(base.split(project, name, given), common)


def _share(text: str) -> tuple[str, tuple[int | None, float]]:
    """Read ``name=0.9`` or ``name:5=0.1``."""
    found = _SHARE.fullmatch(text)
    try:
        assert found is not None
        return found[1], (int(found[2]) if found[2] else None, float(found[3]))
    except (AssertionError, ValueError):
        raise InvalidInput(
            f"{text!r} is no share.", valid="Write NAME=SHARE or NAME:VERSION=SHARE, such as candidate:5=0.1."
        ) from None


@app.command
def shadow(
    name: str,
    /,
    *,
    version: Annotated[int | None, Parameter(help="The version that scores the same rows.")] = None,
    stop: Annotated[bool, Parameter(help="Take the shadow away.", negative="")] = False,
    common: Common = COMMON,
) -> None:
    """Let a version score the same rows without answering anybody; compare it with the champion later.

    For example:

        loopwright deployment shadow digits-api --version 5
        loopwright deployment compare digits-api
        loopwright deployment shadow digits-api --stop
    """
    from loopwright import parts
    from loopwright.deploy import base

    if stop == (version is not None):
        raise InvalidInput("Write either --version or --stop.", hint=f"loopwright deployment show {name}")
    project = common.open()
    if version is None:
        _show(base.stop_shadow(project, name), common)
        return
    parts.connect(project)
    _show(base.shadow(project, name, version), common)


@app.command
def compare(
    name: str,
    /,
    *,
    version: Annotated[
        int | None, Parameter(help="A version that was a shadow; else the present one.")
    ] = None,
    common: Common = COMMON,
) -> None:
    """Compare the shadow with the champion on the same rows: how far they agree, and which is right more often.

    The 95 % interval is for one look; looking until it excludes 0 is what a
    release's canary is made for.

    For example:

        loopwright deployment compare digits-api
    """
    from loopwright.release.shadows import compare as compared

    found = compared(common.open(), name, version)
    if common.json:
        emit(found)
        return
    _print_comparison(found)


def _print_comparison(found: "Comparison") -> None:
    console.print(
        f"[bold]{found.deployment}[/bold]: shadow {found.model}/{found.shadow} against champion "
        f"{found.model}/{found.champion} on {found.rows} rows"
    )
    if not found.rows:
        console.print("Nothing was scored by both yet.")
        return
    if found.agreement is not None:
        console.print(f"same label: {found.agreement:.2%}")
    if found.difference is not None:
        console.print(f"shadow minus champion: {_interval(found.difference)}")
    if found.loss_difference is None:
        console.print("No label has arrived yet. Next: loopwright label --help")
        return
    console.print(
        f"{found.loss} on {found.labelled} labelled rows: shadow {found.shadow_loss:.4g}, "
        f"champion {found.champion_loss:.4g}; shadow minus champion {_interval(found.loss_difference)}"
    )


def _interval(difference: "Difference") -> str:
    if difference.lower is None:
        return f"{difference.estimate:+.4g} (too few rows for an interval)"
    return f"{difference.estimate:+.4g} (95 %: {difference.lower:+.4g} to {difference.upper:+.4g})"


@app.command
def show(name: str, /, *, common: Common = COMMON) -> None:
    """Show a deployment: what serves and why so, what was refused, the service level, the limits, and where to ask.

    For each version it says which runtime answers how many rows, what the
    replay of real rows showed of each that was tried, and how long it takes.

    For example:

        loopwright deployment show digits-api
    """
    from loopwright.deploy.overview import overview

    found = overview(common.open(), name)
    if common.json:
        emit(_plain(found))
        return
    _print_overview(found)


def _plain(found: "Overview") -> dict[str, Any]:
    """Return an overview as plain values, times in seconds: its settings are no dataclasses."""
    plain = {name: getattr(found, name) for name in found.__slots__}
    slo = found.slo.model_dump() if found.slo else None
    if slo:
        slo |= {name: span.total_seconds() for name, span in slo.items() if isinstance(span, timedelta)}
    return plain | {"log": found.log.model_dump(), "slo": slo}


def _print_overview(found: "Overview") -> None:
    from loopwright.deploy.overview import key_in_words, limits_in_words, log_in_words

    since = f" since {when(found.changed)}" if found.changed else ""
    console.print(f"[bold]{found.name}[/bold] ({found.mode}), model {found.model}: {found.state}{since}")
    emit_table(
        "",
        [
            {
                "variant": one.name,
                "version": one.version,
                "share": "shadow" if one.shadow else f"{100 * one.weight:.3g}%",
                "runtime": one.bands or "not prepared",
            }
            for one in found.variants
        ],
        empty=f"Next: loopwright deployment start {found.name}",
    )
    for one in found.variants:
        for proof in one.proofs:
            console.print(f"  {found.model}/{one.version} {proof}", highlight=False, markup=False)
    for version, reason in found.refused.items():
        console.print(f"[bold red]refused[/bold red] version {version}: ", end="")
        console.print(reason, markup=False)
    states = [f"{one.name} {one.state}" for one in found.workers]
    facts = {
        "release": found.release or None,
        "entity": found.entity,
        "log": log_in_words(found.log, found.durability),
        "level": "\n         ".join(found.level_words),
    }
    if found.limits:
        facts |= {
            "limits": limits_in_words(found.limits),
            "API key": key_in_words(bool(found.key_needed)),
            "workers": ", ".join(states) or "none runs: loopwright up",
            "ask": found.ask.get("predict"),
            "try it": found.ask.get("try"),
        }
    for label, value in facts.items():
        if value:
            console.print(f"{label:<8} {value}", highlight=False, markup=False)


@app.command
def run(name: str, /, *, common: Common = COMMON) -> None:
    """Run a batch deployment now: each row of its source is scored once, also after a crash.

    For example:

        loopwright deployment run demand-nightly
    """
    from rich.progress import Progress

    from loopwright.deploy import batch

    project = common.open()
    if project.deployment(name).mode is not Mode.batch:
        raise InvalidInput(
            f"The deployment {name!r} is in mode {project.deployment(name).mode}; only a batch is run.",
            hint="loopwright deployment list",
        )
    with Progress(disable=common.json) as progress:
        bar = progress.add_task(name, total=None)
        done = batch.run(
            project, name, progress=lambda rows, total: progress.update(bar, completed=rows, total=total)
        )
    if common.json:
        emit(done)
        return
    console.print(f"{done.rows} rows read, {done.new_rows} new predictions written in {done.seconds:.1f} s.")


@app.command(name="list")
def list_(*, common: Common = COMMON) -> None:
    """List the declared deployments and what each serves now.

    For example:

        loopwright deployment list
    """
    from loopwright.ledger import Ledger

    project = common.open()
    ledger = Ledger.open(project)
    served = {state.key: state.read(Deployment) for state in ledger.states("deployment")}
    rows = [
        {
            "deployment": name,
            "mode": str(declared.mode),
            "model": declared.model,
            "serves": ", ".join(
                f"{variant.name}={variant.version} ({'shadow' if variant.shadow else f'{100 * variant.weight:.3g}%'})"
                for variant in served[name].variants
            )
            if name in served
            else "not started",
            "runtime": _runtimes(project, served[name]) if name in served else None,
        }
        for name, declared in project.config.deployment.items()
    ]
    if common.json:
        emit(rows)
        return
    emit_table("", rows, empty="No deployment is declared. Add [deployment.<name>] to loopwright.toml.")


def _runtimes(project: "Project", served: Deployment) -> str | None:
    """Return what computes the versions, each once: such as ``onnx, native`` where batch sizes or versions differ."""
    from loopwright.errors import LoopwrightError
    from loopwright.scoring import read_manifest

    found: dict[str, None] = {}
    for variant in served.variants:
        with contextlib.suppress(LoopwrightError):
            found |= dict.fromkeys(read_manifest(project.scorer(served.model, variant.version)).runtimes)
    return ", ".join(found) or None


def _show(deployment: Deployment, common: Common) -> None:
    if common.json:
        emit(deployment)
        return
    for variant in deployment.variants:
        if variant.shadow:
            console.print(
                f"[bold]{deployment.name}[/bold] scores the same rows with {deployment.model}/{variant.version}, "
                "which answers nobody"
            )
            continue
        console.print(
            f"[bold]{deployment.name}[/bold] ({deployment.mode}) serves {deployment.model}/{variant.version} "
            f"as {variant.name} to {100 * variant.weight:.3g}%"
        )
