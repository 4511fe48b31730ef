"""``loopwright label``: late ground truth."""

from loopwright.cli.output import COMMON, Common, console
from loopwright.records import Scalar

__all__ = ["label"]


def label(prediction_id: str, actual: str, /, *, common: Common = COMMON) -> None:
    """Hand in what turned out to be true for one prediction; a later label corrects an earlier one.

    For example:

        loopwright label 0192f3... 7
    """
    from loopwright.deploy.online.client import label as send

    send(prediction_id, _scalar(actual), project=common.open())
    console.print(f"Labelled {prediction_id} as {actual}.")


def _scalar(text: str) -> Scalar:
    import msgspec

    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
    return value if isinstance(value, bool | int | float | str) else text
