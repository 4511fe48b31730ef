"""``loopwright service``: the project as a service, so that its schedules survive a reboot."""

from typing import Annotated, Literal

import cyclopts
from cyclopts import Parameter

from loopwright.cli.output import COMMON, Common, console, emit
from loopwright.errors import InvalidInput

__all__ = ["app"]

app = cyclopts.App(name="service", help="Have the project started with the machine.")

User = Annotated[bool, Parameter(help="A service of yours (the default).", negative="")]
System = Annotated[bool, Parameter(help="A service of the machine; needs root.", negative="")]


def _scope(user: bool, system: bool) -> Literal["user", "system"]:
    if user and system:
        raise InvalidInput("--user and --system were both given.", valid="One of them; --user without.")
    return "system" if system else "user"


@app.command
def install(
    *,
    user: User = False,
    system: System = False,
    dry_run: Annotated[bool, Parameter(help="Print the unit and write nothing.", negative="")] = False,
    common: Common = COMMON,
) -> None:
    """Write the service's unit, and start it now and with the machine.

    For example:

        loopwright service install --dry-run
        loopwright service install --user
        sudo .venv/bin/loopwright service install --system
    """
    from loopwright.supervisor import service

    project = common.open()
    found = service.service(project, _scope(user, system))
    wrong = service.verify(found)
    if common.json:
        if not dry_run:
            service.install(project, found)
        emit({"service": found, "wrong": wrong, "written": not dry_run})
        return
    if wrong:
        console.print(f"systemd-analyze says: {wrong}", style="yellow", highlight=False)
    if dry_run:
        console.print(f"# {found.path}\n{found.text}", end="", markup=False, highlight=False)
        return
    service.install(project, found)
    console.print(f"Installed {found.path} and started it.", highlight=False)
    if found.kind == "systemd" and found.scope == "user" and not service.lingers():
        console.print("It runs only while you are logged in. Try: sudo loginctl enable-linger $USER")


@app.command
def status(*, user: User = False, system: System = False, common: Common = COMMON) -> None:
    """Say whether the service is installed and active.

    For example:

        loopwright service status
    """
    from loopwright.supervisor import service

    project = common.open()
    scope = _scope(user, system)
    found = service.service(project, scope)
    how = service.state(found)
    if common.json:
        emit({"name": found.name, "scope": scope, "path": str(found.path), "state": how})
        return
    console.print(f"{found.unit} ({scope}): {how} · {found.path}", highlight=False)
    if how == "not installed":
        console.print(f"Try: loopwright service install --{scope}")


@app.command
def uninstall(*, user: User = False, system: System = False, common: Common = COMMON) -> None:
    """Stop the service and delete its unit; the project and all it has written stay.

    For example:

        loopwright service uninstall
    """
    from loopwright.supervisor import service

    found = service.service(common.open(), _scope(user, system))
    service.uninstall(found)
    console.print(f"Removed {found.path}.", highlight=False)
