"""Pictures of the pages as SVG, made on the server: no script, colors from the style sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from feedamp_airflow.pages.page import counted

BAR_SERIES = {"placed": ("order", "placed"), "shipped": ("unit", "shipped"), "closed": ("order", "closed")}


def _counted(count: int, name: str) -> str:
    noun, done = BAR_SERIES[name]
    return f"{counted(count, noun)} {done}"


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
                        "<title>{}: {}</title></rect>"
                    ).format(
                        name,
                        x + place * bar,
                        height - tall,
                        bar - 1,
                        tall,
                        label,
                        _counted(values[index], name),
                    )
                )
        if index % max(1, len(labels) // 8) == 0:
            parts.append(
                Markup('<text class="quiet" x="{:.1f}" y="{}">{}</text>').format(x, height + 17, label)
            )
    # Beside the picture, of which a narrow screen shows the newest bars only.
    names = Markup(" ").join(
        Markup('<span class="{}">{}</span>').format(name, _counted(sum(values), name))
        for name, values in series.items()
    )
    most = f"at most {top:,} in {'an hour' if by == 'hour' else 'a day'}"
    legend = Markup('<p class="legend">{} <span class="quiet">{}</span></p>').format(names, most)
    said = ", ".join(_counted(sum(values), name) for name, values in series.items())
    said = f"Per {by} (UTC): {said}; {most}"
    # Not in the name of the picture: who sees it reads it, too.
    hint = Markup(
        '<p class="quiet sideways">The chart moves sideways; with the keyboard, go to it and press ← or →.</p>'
    )
    picture = Markup(
        '<div class="wide newest" tabindex="0" role="region" aria-label="{}"><svg viewBox="0 0 {} {}" width="{}">{}</svg></div>'
    ).format(said, width, height + 24, width, Markup("").join(parts))
    return legend + hint + picture
