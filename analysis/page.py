"""The HTML report: one file that opens anywhere, without a network. Its text is the Markdown report's.

Nothing that comes from data reaches the page unescaped: the Markdown is rendered without raw HTML, the template
escapes, and a policy in the page forbids it to load or send anything.
"""

# Plotly's own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markdown_it import MarkdownIt
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from analysis.plots import Picture

_TEMPLATE = Path(__file__).with_name("page.html.jinja")
_SHOWN = {"responsive": True, "displaylogo": False, "modeBarButtonsToRemove": ["lasso2d", "select2d"]}


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """One figure of the answer."""

    value: str
    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Headline:
    """What the first screen says."""

    title: str
    question: str
    candidate: str | None
    """None: there is none."""
    facts: Sequence[Fact]
    text: str
    """The justification."""
    take: str | None
    """What was found when the candidate's folder was checked; None where there is no folder."""


def page(headline: Headline, sections: Mapping[str, str], pictures: Mapping[str, Sequence[Picture]]) -> str:
    """The page.

    Args:
        sections: name -> Markdown, in their order; each begins with its heading.
        pictures: name of a section -> figures that stand at its beginning; `answer`: those of the first screen.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        headline=headline,
        front=[_embedded(picture) for picture in pictures.get("answer", ())],
        sections=[
            {
                "name": name,
                "title": _title(text),
                "figures": [_embedded(picture) for picture in pictures.get(name, ())],
                "body": Markup(_rendered(text)),
            }
            for name, text in sections.items()
            if text
        ],
        plotly=Markup(get_plotlyjs()),
    )


def _embedded(picture: Picture) -> dict[str, object]:
    name = re.sub(r"[^a-z0-9]+", "-", picture.name.lower())
    figure = picture.figure.to_html(full_html=False, include_plotlyjs=False, div_id=f"figure-{name}", config=_SHOWN)
    return {"name": name, "alternative": picture.alternative, "html": Markup(figure)}


def _title(markdown: str) -> str:
    return markdown.splitlines()[0].lstrip("# ")


def _rendered(markdown: str) -> str:
    """HTML of a section without its heading; wide tables scroll by themselves."""
    title, _, body = markdown.partition("\n")
    # no link or picture is ours: names from data must not make the page ask the network
    reader = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["image", "link", "autolink"])
    rendered = reader.render(body)
    name = html.escape(title.lstrip("# "), quote=True)
    opening = f'<div class="wide" role="region" tabindex="0" aria-label="Table: {name}"><table>'
    return rendered.replace("<table>", opening).replace("</table>", "</table></div>")
