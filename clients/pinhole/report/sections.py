"""The report's sections as HTML; whatever comes from files is escaped."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from pinhole.atlas.page import map_element
from pinhole.atlas.result import Result
from pinhole.report.chart import mse_chart, rank_chart
from pinhole.report.duplicates import Duplicates
from pinhole.report.tally import Reason, Tally

DIFFERENCE = "difference"  # The caption of the picture that needs an explanation.


@dataclass(frozen=True)
class Card:
    """One of the most unusual images.

    Attributes:
        path: of the image.
        label: its class; "" if it has none.
        mse: of its reconstruction.
        percentile: of its error among the model's own images; None if the result doesn't say.
        outlier: whether the model calls it an outlier.
        pictures: caption → image file, for those pictures that there are.
    """

    path: str
    label: str
    mse: float
    percentile: float | None
    outlier: bool
    pictures: Mapping[str, bytes]


@dataclass(frozen=True)
class Copies:
    """Some images that the model can't tell apart.

    Attributes:
        count: how many.
        members: (path, thumbnail, whether the file is the same as the first's) of some of them.
    """

    count: int
    members: Sequence[tuple[str, bytes, bool]]


def intro(result: Result, tally: Tally, duplicates: int) -> str:
    """What was embedded, and how many."""
    known = result.metadata
    source = f" from <code>{escape(known['source'])}</code>" if "source" in known else ""
    model = f", by model {escape(known['model_digest'][:12])}" if "model_digest" in known else ""
    precision = f" in {escape(known['precision'])}" if "precision" in known else ""
    left = (result.inputs or 0) - tally.rows
    unfinished = f" The job isn’t finished: {left:,} are missing." if left > 0 else ""
    failed = tally.rows - tally.embedded
    figures = [
        figure("images", tally.rows),
        figure("embedded", tally.embedded),
        figure("failed", failed, share(failed, tally.rows), failed > 0),
    ]
    if tally.ranked:
        figures.append(figure("outliers", tally.outliers, share(tally.outliers, tally.embedded)))
    figures.append(figure("have near-duplicates", duplicates, share(duplicates, tally.embedded)))
    return (
        f'<section class="intro"><h1>{escape(name_of(result))}</h1>'
        f'<p class="lead">{count(tally.rows, "image")}{source}{model}{precision}.{unfinished}</p>'
        f'<dl class="figures">{"".join(figures)}</dl></section>'
    )


def figure(name: str, number: int, note: str = "", alarming: bool = False) -> str:
    """One of the large figures."""
    marked = ' class="bad"' if alarming else ""
    small = f" <small>{note}</small>" if note else ""
    return f"<div><dt>{name}</dt><dd{marked}><b>{number:,}</b>{small}</dd></div>"


def errors(tally: Tally) -> str:
    """How well the model knows the images, beside its own."""
    title = "How well the model knows them"
    if not tally.embedded:
        return ""
    if not tally.scored:
        return section(title, note("Embed again with <code>--score</code> to see it."))
    found = tally.errors
    sentence = (
        f"Half of the images are remembered with an mse under {found.quantile(0.5):.3g}, 99 in "
        f"100 under {found.quantile(0.99):.3g}; the worst has {found.greatest:.3g}."
    )
    if not tally.ranked:
        advice = "Embed again with <code>--score</code> to compare them with the model’s own."
        return section(title, f"<p>{sentence}</p>{mse_chart(found)}{note(advice)}")
    beyond = int(tally.ranks[99:].sum())
    worse = int(tally.ranks[50:].sum())
    sentences = (
        f"<b>{share(beyond, tally.embedded)}</b> of the images are remembered worse than 99 in "
        "100 of the model’s own held-out images: 1&nbsp;% would be ordinary. "
        f"{share(worse, tally.embedded)} are remembered worse than the middle one of its own: "
        f"50&nbsp;% would be. {sentence}"
    )
    key = '<p class="key"><i></i> where every bar would end if the images were like its own</p>'
    return section(title, f"<p>{sentences}</p>{rank_chart(tally.ranks)}{key}")


def unusual(cards: Sequence[Card], notes: Iterable[str]) -> str:
    """The most unusual images, with what the model made of them."""
    if not cards:
        return ""
    said = "".join(note(text) for text in notes)
    if any(DIFFERENCE in each.pictures for each in cards):
        said += note(
            'Difference: <i class="missed"></i> only in the image, <i class="added"></i> only in '
            "what is remembered of it."
        )
    listed = "".join(map(card, cards))
    return section("The most unusual", f'{said}<ol class="cards">{listed}</ol>')


def card(found: Card) -> str:
    """One unusual image: its pictures, its name and its figures."""
    pictures = "".join(
        f"<figure>{picture(data, caption)}<figcaption>{caption}</figcaption></figure>"
        for caption, data in found.pictures.items()
    )
    rank = "" if found.percentile is None else f" · percentile {found.percentile:.1f}"
    verdict = ' · <b class="bad">outlier</b>' if found.outlier else ""
    label = f'<span class="label">{escape(found.label)}</span> ' if found.label else ""
    strip = f'<div class="strip">{pictures}</div>' if pictures else ""
    return (
        f'<li>{strip}<p class="path">{label}{escape(found.path)}</p>'
        f'<p class="facts">mse {found.mse:.4f}{rank}{verdict}</p></li>'
    )


def failures(reasons: Sequence[Reason]) -> str:
    """Why inputs have no embedding, the most frequent reason first."""
    if not reasons:
        return ""
    rows = "".join(
        f'<tr><td class="number">{reason.count:,}</td><td>{escape(reason.message)}</td>'
        f"<td>{'<br>'.join(map(escape, reason.examples))}</td></tr>"
        for reason in reasons
    )
    head = '<tr><th class="number">images</th><th>reason</th><th>for example</th></tr>'
    table = f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"
    return section("Failures", table)


def near_duplicates(largest: Sequence[Copies], found: Duplicates) -> str:
    """Images that the model can't tell apart."""
    if not largest:
        return ""
    text = (
        f"{count(found.images, 'image')} in {count(found.groups, 'group')}. Within a group, "
        f"embedding and error are equal to {100 * found.side:.2g} % of their deviation: copies, "
        "the same picture in another kind of file, or pictures that are alike to the model."
    )
    rows = "".join(map(copies, largest))
    rest = found.groups - len(largest)
    more = note(f"{count(rest, 'more group')} {'is' if rest == 1 else 'are'} not shown.")
    return section(
        "Near-duplicates", f'<p>{text}</p><ol class="groups">{rows}</ol>{more if rest else ""}'
    )


def copies(group: Copies) -> str:
    """One group of images."""
    members = "".join(
        f"<figure>{picture(data, '') if data else ''}<figcaption>{escape(path)}"
        f"{'' if same else ', <em>another file</em>'}</figcaption></figure>"
        for path, data, same in group.members
    )
    return f'<li><p class="number">{count(group.count, "image")}</p><div>{members}</div></li>'


def stage() -> str:
    """The map, in which the program shows what the page's data hold."""
    lead = '<p id="lead"></p>'
    return f'<section class="stage"><h2>The map</h2>{lead}{map_element()}</section>'


def section(title: str, content: str) -> str:
    """A section with a heading."""
    return f"<section><h2>{title}</h2>{content}</section>"


def note(text: str) -> str:
    """A remark in a softer colour; HTML."""
    return f'<p class="hint">{text}</p>'


def picture(data: bytes, caption: str) -> str:
    """An image within the page."""
    kind = "png" if data.startswith(b"\x89PNG") else "webp"
    code = base64.b64encode(data).decode()
    return f'<img alt="{caption}" src="data:image/{kind};base64,{code}">'


def name_of(result: Result) -> str:
    """The result's name, without its suffix."""
    path = result.path.resolve()
    return path.name if path.is_dir() else path.stem


def share(part: int, whole: int) -> str:
    """A share in percent, with no more digits than it deserves."""
    percent = 100 * part / max(1, whole)
    return f"{percent:.1f}&nbsp;%" if percent < 9.95 else f"{percent:.0f}&nbsp;%"


def count(number: int, noun: str) -> str:
    """For example ``1 image``, ``2,000 images``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
