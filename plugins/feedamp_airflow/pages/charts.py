"""Pictures of the pages as SVG, made on the server: no script, colors from the style sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

BAR_SERIES = {"placed": "orders placed", "shipped": "units shipped", "closed": "orders closed"}


@dataclass(frozen=True)
class Stage:
    """A box of the loop: where its number leads, and what is written below it. An aside is no next stage."""

    title: str
    count: int
    href: str
    below: str
    is_aside: bool = False


def loop(stages: Sequence[Stage]) -> Markup:
    """The stages of an order from left to right."""
    width, gap, height = 190, 34, 92
    total = len(stages) * (width + gap) - gap
    parts = []
    for index, stage in enumerate(stages):
        x = 2 + index * (width + gap)
        parts.append(
            Markup(
                '<a href="{}"><rect class="box" x="{}" y="2" width="{}" height="{}" rx="8"/>'
                '<text x="{}" y="25">{}</text><text class="big" x="{}" y="54">{:,}</text>'
                '<text class="quiet" x="{}" y="78">{}</text></a>'
            ).format(
                stage.href, x, width, height, x + 12, stage.title, x + 12, stage.count, x + 12, stage.below
            )
        )
        if index and not stage.is_aside:
            parts.append(
                Markup('<path class="arrow" d="M{} 48h{}"/><path class="head" d="M{} 43l9 5l-9 5z"/>').format(
                    x - gap + 2, gap - 10, x - 11
                )
            )
    said = "; ".join(f"{stage.title}: {stage.count}, {stage.below}" for stage in stages)
    return _svg(total + 4, height + 4, f"An order's way. {said}", parts)


def bars(labels: Sequence[str], series: Mapping[str, Sequence[int]], *, by: str) -> Markup:
    """Bars side by side for each hour or day (`by`); the largest value gives the scale."""
    width, height, left = 1000, 180, 44
    top = max((value for values in series.values() for value in values), default=0)
    if not top:
        return Markup('<p class="quiet">nothing yet</p>')
    step = (width - left) / max(1, len(labels))
    bar = min(22.0, step * 0.8 / max(1, len(series)))
    parts = [Markup('<path class="axis" d="M{} {}H{}" stroke="currentColor"/>').format(left, height, width)]
    parts.append(Markup('<text class="quiet" x="0" y="14">{:,}</text>').format(top))
    for index, label in enumerate(labels):
        x = left + index * step
        for place, (name, values) in enumerate(series.items()):
            if values[index]:
                tall = max(2.0, values[index] / top * (height - 20))
                parts.append(
                    Markup(
                        '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">'
                        "<title>{}: {:,} {}</title></rect>"
                    ).format(
                        name,
                        x + place * bar,
                        height - tall,
                        bar - 1,
                        tall,
                        label,
                        values[index],
                        BAR_SERIES[name],
                    )
                )
        if index % max(1, len(labels) // 8) == 0:
            parts.append(
                Markup('<text class="quiet" x="{:.1f}" y="{}">{}</text>').format(x, height + 17, label)
            )
    # Beside the picture, of which a narrow screen shows the newest bars only.
    names = Markup(" ").join(
        Markup('<span class="{}">{} {:,}</span>').format(name, BAR_SERIES[name], sum(values))
        for name, values in series.items()
    )
    most = f"at most {top:,} in {'an hour' if by == 'hour' else 'a day'}"
    legend = Markup('<p class="legend">{} <span class="quiet">{}</span></p>').format(names, most)
    said = ", ".join(f"{sum(values)} {BAR_SERIES[name]}" for name, values in series.items())
    return legend + _svg(width, height + 24, f"Per {by} (UTC): {said}; {most}", parts, is_newest_right=True)


def _svg(
    width: float, height: float, said: str, parts: Sequence[Markup], *, is_newest_right: bool = False
) -> Markup:
    return Markup(
        '<div class="wide {}" tabindex="0" role="region" aria-label="{}"><svg viewBox="0 0 {} {}" width="{}">{}</svg></div>'
    ).format("newest" if is_newest_right else "", said, width, height, width, Markup("").join(parts))
