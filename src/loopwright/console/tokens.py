"""Colours and type sizes of the console, in light and dark pairs. The only place where either is written down.

The colours of the series keep their distance for people who see colours differently (after Okabe and Ito, 2008); state
is never told by colour alone. Texts reach a contrast of 4.5:1 on their surface.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["DARK", "FONT", "LIGHT", "SIZES", "Palette", "css", "palette"]

FONT = "Roboto, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'Liberation Mono', monospace"
#: Type sizes in pixels.
SIZES = {"xs": 11, "sm": 12, "md": 13, "lg": 15, "xl": 20, "xxl": 26}


@dataclass(frozen=True, slots=True)
class Palette:
    """One set of colours. `series` are for lines, `heat` goes from "as before" to "far over the limit"."""

    ground: str
    surface: str
    raised: str
    line: str
    grid: str
    text: str
    muted: str
    accent: str
    good: str
    good_ground: str
    warn: str
    warn_ground: str
    bad: str
    bad_ground: str
    info_ground: str
    series: tuple[str, ...]
    heat: tuple[str, str, str, str]

    def version(self, number: int) -> str:
        """Return the colour that a model version has in every chart."""
        return self.series[(number - 1) % len(self.series)]


LIGHT = Palette(
    ground="#f6f7f9",
    surface="#ffffff",
    raised="#f1f3f6",
    line="#e2e6ec",
    grid="#eceff3",
    text="#161b24",
    muted="#5a6473",
    accent="#1f5fc4",
    good="#08705c",
    good_ground="#e2f4ef",
    warn="#8f5400",
    warn_ground="#fdf0d9",
    bad="#b3311a",
    bad_ground="#fdeae5",
    info_ground="#e8effb",
    series=("#0b63b5", "#cc5a00", "#00856a", "#a6437f", "#3a8cc0", "#7d6300"),
    heat=("#eef2f7", "#bcd5ec", "#f3a95c", "#c2410c"),
)
DARK = Palette(
    ground="#0c0f14",
    surface="#14191f",
    raised="#1c222b",
    line="#272f3a",
    grid="#202731",
    text="#e7ebf1",
    muted="#98a3b3",
    accent="#7fb0ff",
    good="#45cfae",
    good_ground="#10302a",
    warn="#f0b04f",
    warn_ground="#33270f",
    bad="#ff8b70",
    bad_ground="#3a1a14",
    info_ground="#182740",
    series=("#58a8f2", "#f29b45", "#36cba2", "#e28cc0", "#93d2f7", "#d9c45c"),
    heat=("#1b222c", "#26486d", "#b8691a", "#ff8f45"),
)


def palette(dark: bool) -> Palette:
    """Return the colours for one of the two themes."""
    return DARK if dark else LIGHT


def css() -> str:
    """Return all tokens as CSS variables: light by default, dark below ``html[data-theme=dark]``."""
    sizes = "".join(f"--size-{name}:{size}px;" for name, size in SIZES.items())
    fonts = f"--font:{FONT};--mono:{MONO};"
    return f":root{{{fonts}{sizes}{_colours(LIGHT)}}}\nhtml[data-theme=dark]{{{_colours(DARK)}}}\n"


def _colours(colours: Palette) -> str:
    text = ""
    for field in fields(colours):
        value = getattr(colours, field.name)
        if isinstance(value, str):
            text += f"--{field.name.replace('_', '-')}:{value};"
        else:
            text += "".join(f"--{field.name}-{number}:{colour};" for number, colour in enumerate(value, 1))
    return text
