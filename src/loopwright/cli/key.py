"""``loopwright key``: who may ask the online deployments."""

import cyclopts

from loopwright.cli.output import COMMON, Common, console, emit, emit_table

__all__ = ["app"]

app = cyclopts.App(name="key", help="Make and revoke the API keys of online deployments.")


@app.command
def create(name: str, /, *, common: Common = COMMON) -> None:
    """Make an API key and print it, this once; from the first key on, each request needs one.

    For example:

        loopwright key create web-shop
    """
    from loopwright.deploy.online import keys
    from loopwright.ledger import Ledger

    key = keys.create(Ledger.open(common.open()), name)
    if common.json:
        emit({"name": name, "key": key})
        return
    console.print(key, highlight=False, markup=False)
    console.print(
        f"This is the key {name!r}; it is shown only now. Send it as: x-api-key: <key>", highlight=False
    )


@app.command(name="list")
def list_(*, common: Common = COMMON) -> None:
    """List the keys: when each was made and, where it is no longer valid, revoked.

    For example:

        loopwright key list
    """
    from loopwright.deploy.online import keys
    from loopwright.ledger import Ledger

    rows = [
        {"name": key.name, "created": key.created, "revoked": key.revoked}
        for key in keys.known(Ledger.open(common.open()))
    ]
    if common.json:
        emit(rows)
        return
    emit_table("", rows, empty="No key was made: this machine asks freely. Next: loopwright key create NAME")


@app.command
def revoke(name: str, /, *, common: Common = COMMON) -> None:
    """Make a key invalid; serving processes refuse it within a second.

    For example:

        loopwright key revoke web-shop
    """
    from loopwright.deploy.online import keys
    from loopwright.ledger import Ledger

    ledger = Ledger.open(common.open())
    done = keys.revoke(ledger, name)
    left = [key.name for key in keys.known(ledger) if key.revoked is None]
    if common.json:
        emit({"name": done.name, "created": done.created, "revoked": done.revoked, "left": left})
        return
    console.print(f"The key {name!r} is not valid any more.", highlight=False)
    if not left:
        console.print(
            "No valid key is left: every request is refused until one is made (loopwright key create NAME) "
            f"or the revoked ones are forgotten (loopwright key forget {name}).",
            highlight=False,
        )


@app.command
def forget(name: str, /, *, common: Common = COMMON) -> None:
    """Forget a revoked key. When the last is forgotten, callers on this machine need no key again.

    For example:

        loopwright key forget web-shop
    """
    from loopwright.deploy.online import keys
    from loopwright.ledger import Ledger

    keys.forget(Ledger.open(common.open()), name)
    if common.json:
        emit({"name": name})
        return
    console.print(f"The key {name!r} is forgotten.", highlight=False)
