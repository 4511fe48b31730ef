"""``loopwright model``: the registry."""

import cyclopts

from loopwright.cli.output import COMMON, Common, console, emit, emit_table

__all__ = ["app"]

app = cyclopts.App(name="model", help="Register, list and promote model versions.")


@app.command
def register(model: str, run_id: str, /, *, common: Common = COMMON) -> None:
    """Register the model that a run logged, as the register button in the MLflow page does.

    For example:

        loopwright model register digits 3f0c9a...
    """
    from loopwright import parts, registry

    project = common.open()
    parts.connect(project)
    made = registry.register_run(project, model, run_id)
    if common.json:
        emit(made)
        return
    console.print(
        f"Registered [bold]{made.ref}[/bold]. Next: loopwright deployment start NAME --version {made.version}"
    )


@app.command(name="list")
def list_(model: str | None = None, /, *, common: Common = COMMON) -> None:
    """List the versions of one model, or of all models of the project.

    For example:

        loopwright model list digits
    """
    from loopwright import parts, registry

    project = common.open()
    parts.connect(project)
    names = [model] if model else list(project.config.model)
    found = [(name, registry.versions(project, name), registry.aliases(project, name)) for name in names]
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
    """Show one version: by number or by alias.

    For example:

        loopwright model show digits champion
    """
    from loopwright import parts, registry

    project = common.open()
    parts.connect(project)
    emit(registry.version(project, model, version))


@app.command
def promote(model: str, version: int, /, *, alias: str = "champion", common: Common = COMMON) -> None:
    """Give a version an alias, `champion` unless another is named. Deployments are changed by releases.

    For example:

        loopwright model promote digits 3
    """
    from loopwright import parts, registry

    project = common.open()
    parts.connect(project)
    registry.set_alias(project, model, alias, version)
    console.print(f"{model}/{version} is now {alias}.")
