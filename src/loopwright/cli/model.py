"""``loopwright model``: the registry."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import cyclopts
from cyclopts import Parameter

from loopwright.cli.output import COMMON, Common, console, emit, emit_table, when, working

if TYPE_CHECKING:
    from loopwright.config import Project
    from loopwright.records import ModelVersion

__all__ = ["app"]

app = cyclopts.App(name="model", help="Register, list, compare and promote model versions.")


def _open(common: Common) -> Project:
    from loopwright import parts

    project = common.open()
    parts.connect(project)
    return project


@app.command
def register(
    model: str,
    source: str = "",
    /,
    *,
    run: Annotated[str, Parameter(help="The run that logged the model.")] = "",
    artifact: Annotated[str, Parameter(help="The name it was logged under; else the run's last model.")] = "",
    common: Common = COMMON,
) -> None:
    """Register a model that was logged, as the register button in the MLflow page does: of a run, or models:/m-...

    What later stages need and can be known is filled in, and what is missing is said.

    For example:

        loopwright model register digits --run 3f0c9a
        loopwright model register digits models:/m-5e1f
    """
    from loopwright import registry
    from loopwright.errors import InvalidInput, LoopwrightError
    from loopwright.scoring.completion import complete as fill_in

    if bool(source) == bool(run):
        raise InvalidInput(
            "It takes one thing to register: a run or the address of a logged model.",
            hint=f"loopwright model register {model} --run RUN   (loopwright run list)",
        )
    project = _open(common)
    with working(f"Registering {model}"):
        if source.startswith("models:"):
            made = registry.register_logged(project, model, source)
        else:
            made = registry.register_run(project, model, run or source, artifact)
        problem = ""
        try:
            made = fill_in(project, model, made.version)
        except LoopwrightError as error:
            problem = str(error)
    if common.json:
        emit(made)
        return
    console.print(
        f"Registered [bold]{made.ref}[/bold]. Next: loopwright deployment start NAME --version {made.version}"
    )
    if problem:
        console.print(f"It cannot be scored yet: {problem}", markup=False)
    _print_state(project, made)


@app.command(name="list")
def list_(model: str | None = None, /, *, common: Common = COMMON) -> None:
    """List the versions of one model, or of all models of the project.

    For example:

        loopwright model list digits
    """
    from loopwright import registry
    from loopwright.errors import NotFound
    from loopwright.registry import rest

    project = _open(common)
    names = [model] if model else sorted({*project.config.model, *rest.model_names(project)})
    found = [(name, registry.versions(project, name), registry.aliases(project, name)) for name in names]
    if model and not found[0][1] and model not in project.config.model:
        raise NotFound.among("model", model, rest.model_names(project), hint="loopwright model list")
    if common.json:
        emit([{"model": name, "aliases": aliases, "versions": versions} for name, versions, aliases in found])
        return
    emit_table(
        "",
        [
            {
                "model": name,
                "version": version.version,
                "alias": ", ".join(alias for alias, number in aliases.items() if number == version.version),
                "registered": version.created,
                "rows": version.training.rows if version.training else None,
                "dataset": version.training.digest[:12] if version.training else None,
                "run": version.run_id,
            }
            for name, versions, aliases in found
            for version in versions
        ],
        empty="No version is registered yet. Try: loopwright pipeline run pipelines:train",
    )


@app.command
def show(model: str, version: str = "champion", /, *, common: Common = COMMON) -> None:
    """Show one version, by number or by alias: where it comes from, and what it has and lacks.

    For example:

        loopwright model show digits champion
    """
    from loopwright import registry

    project = _open(common)
    found = registry.version(project, model, version)
    if common.json:
        from loopwright.records import to_plain
        from loopwright.registry.completeness import completeness

        emit(to_plain(found) | {"completeness": completeness(project, found)})
        return
    named = [alias for alias, number in registry.aliases(project, model).items() if number == found.version]
    console.print(found.ref, style="bold", markup=False, highlight=False)
    for label, value in (
        ("aliases", ", ".join(named)),
        ("registered", when(found.created)),
        ("run", found.run_id),
        ("files", found.uri),
    ):
        console.print(f"  {label:<12} {value or '-'}", markup=False, highlight=False)
    _print_state(project, found)


def _print_state(project: Project, version: ModelVersion) -> None:
    from loopwright.registry.completeness import completeness

    for have in completeness(project, version):
        mark = "has    " if have.there else "missing"
        console.print(
            f"  {mark} {have.name:<12} {have.detail}",
            style=None if have.there else "yellow",
            markup=False,
            highlight=False,
        )
        if have.hint:
            console.print(f"          give it: {have.hint}", markup=False, highlight=False)


@app.command
def complete(
    model: str,
    version: str = "champion",
    /,
    *,
    dataset: Annotated[str, Parameter(help="What it learned from: a name, name@2 or a fingerprint.")] = "",
    common: Common = COMMON,
) -> None:
    """Fill in what a version that was registered by hand lacks: dataset, replay rows, reference profile.

    The dataset is found by what the version's MLflow run says, or given. The controller does this by itself for
    each version that appears in MLflow.

    For example:

        loopwright model complete digits 4 --dataset scans@2
    """
    from loopwright.lineage.history import resolve
    from loopwright.scoring.completion import complete as fill_in

    project = _open(common)
    ref = resolve(project, dataset) if dataset else None
    with working(f"Describing {model}"):
        found = fill_in(project, model, version, ref)
    if common.json:
        emit(found)
        return
    console.print(found.ref, style="bold", markup=False, highlight=False)
    _print_state(project, found)


@app.command
def promote(model: str, version: int, /, *, alias: str = "champion", common: Common = COMMON) -> None:
    """Give a version an alias, `champion` unless another is named. Running deployments follow a new champion.

    No gate is asked and no canary is run: that is what a release is for.

    For example:

        loopwright model promote digits 3
    """
    from loopwright import registry

    project = _open(common)
    registry.set_alias(project, model, alias, version, follow=True)
    console.print(f"{model}/{version} is now {alias}.", markup=False)


@app.command(name="alias")
def alias_(
    model: str,
    alias: str,
    version: int | None = None,
    /,
    *,
    delete: Annotated[bool, Parameter(help="Take the alias away.", negative="")] = False,
    common: Common = COMMON,
) -> None:
    """Give a version an alias, or take an alias away. Running deployments follow a new champion.

    For example:

        loopwright model alias digits challenger 4
        loopwright model alias digits challenger --delete
    """
    from loopwright import registry
    from loopwright.errors import InvalidInput

    if (version is None) != delete:
        raise InvalidInput(
            "It takes the version to name, or --delete.",
            hint=f"loopwright model alias {model} {alias} VERSION",
        )
    project = _open(common)
    if version is None:
        was = registry.delete_alias(project, model, alias)
        console.print(f"{model}/{was} is no longer {alias}.", markup=False)
        return
    registry.set_alias(project, model, alias, version, follow=True)
    console.print(f"{model}/{version} is now {alias}.", markup=False)


@app.command
def compare(before: str, after: str, /, *, common: Common = COMMON) -> None:
    """Compare two versions: metrics, parameters, inputs, dataset, packages, and their answers on the same rows.

    A version is MODEL/VERSION, MODEL/ALIAS, or MODEL for its champion; the second may be the version alone.

    For example:

        loopwright model compare digits/3 digits/champion
        loopwright model compare digits/3 4
    """
    from loopwright import registry
    from loopwright.registry.versus import differences
    from loopwright.scoring.disagreeing import disagreement

    project = _open(common)
    model, _, which = before.partition("/")
    other, slash, other_which = after.partition("/")
    if not slash and other.isdecimal():
        other, other_which = model, other
    one = registry.version(project, model, which or None)
    two = registry.version(project, other, other_which or None)
    with working(f"Comparing {one.ref} with {two.ref}"):
        found = differences(project, one, two)
        answers = disagreement(project, one, two)
    if common.json:
        emit({"before": one.ref, "after": two.ref, "differences": found, "answers": answers})
        return
    rows = [{"": item.kind, "name": item.name, one.ref: item.before, two.ref: item.after} for item in found]
    emit_table("", rows, empty="They differ in nothing that is known of them.")
    if answers.problem:
        console.print(f"\nTheir answers cannot be compared: {answers.problem}", markup=False)
        return
    share = answers.differ / answers.rows if answers.rows else 0.0
    console.print(
        f"\nanswers on {answers.rows:,} real rows: {answers.differ:,} differ ({share:.1%})", highlight=False
    )
    if answers.mean is not None:
        console.print(
            f"difference: {answers.mean:.4g} on average, at most {answers.largest:.4g}", highlight=False
        )


@app.command
def delete(
    model: str,
    version: int,
    /,
    *,
    yes: Annotated[bool, Parameter(help="Do not ask.", negative="")] = False,
    common: Common = COMMON,
) -> None:
    """Delete a version that has no alias and is not deployed. Its files and its predictions stay.

    For example:

        loopwright model delete digits 2
    """
    from loopwright.errors import InvalidInput
    from loopwright.registry import removal

    project = _open(common)
    if not yes:
        removal.check(project, model, version)
        if not sys.stdin.isatty():
            raise InvalidInput(
                f"Deleting {model}/{version} wants a yes, and nobody can be asked here.",
                hint=f"loopwright model delete {model} {version} --yes",
            )
        console.print(f"Delete {model}/{version} from the registry? [y/N] ", end="", markup=False)
        if input().strip().lower() not in {"y", "yes"}:
            console.print("Nothing was deleted.")
            return
    removal.delete(project, model, version)
    console.print(f"{model}/{version} is deleted.", markup=False)
