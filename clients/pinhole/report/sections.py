"""The report's sections as HTML; whatever comes from files is escaped."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from pinhole.atlas.page import map_element
from pinhole.atlas.result import Result
from pinhole.report.chart import rank_chart
from pinhole.report.duplicates import Duplicates, Group
from pinhole.report.tally import Reason, Tally

DIFFERENCE = "difference"  # The caption of the picture that needs an explanation.


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
    if tally.scored:
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


def unusual(cards: Sequence[str], notes: Iterable[str]) -> str:
    """The most unusual images; see card."""
    if not cards:
        return ""
    said = "".join(note(text) for text in notes)
    if any(DIFFERENCE in each for each in cards):
        said += note(
            'Difference: <i class="missed"></i> only in the image, <i class="added"></i> only in '
            "what is remembered of it."
        )
    return section("The most unusual", f'{said}<ol class="cards">{"".join(cards)}</ol>')


def card(row: Mapping[str, Any], label: str, pictures: Mapping[str, bytes]) -> str:
    """One of the most unusual images.

    Args:
        row: of the result.
        label: the image's class; "" if it has none.
        pictures: caption → image file, for those pictures that there are.
    """
    figures = "".join(
        f"<figure>{picture(data, caption)}<figcaption>{caption}</figcaption></figure>"
        for caption, data in pictures.items()
    )
    strip = f'<div class="strip">{figures}</div>' if figures else ""
    named = f'<span class="label">{escape(label)}</span> ' if label else ""
    verdict = ' · <b class="bad">outlier</b>' if row["outlier"] else ""
    return (
        f'<li>{strip}<p class="path">{named}{escape(row["path"])}</p>'
        f'<p class="facts">mse {row["mse"]:.4f} · percentile {row["percentile"]:.1f}'
        f"{verdict}</p></li>"
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


def near_duplicates(groups: Sequence[str], found: Duplicates) -> str:
    """Images that the model can't tell apart; see group."""
    if not groups:
        return ""
    text = (
        f"{count(found.images, 'image')} in {count(found.groups, 'group')}. Within a group, "
        f"embedding and error are equal to {100 * found.side:.2g} % of their deviation: copies, "
        "the same picture in another kind of file, or pictures that are alike to the model. A "
        "picture saved again as JPEG isn’t found: it moves as far as others lie apart."
    )
    rest = found.groups - len(groups)
    more = note(f"{count(rest, 'more group')} {'is' if rest == 1 else 'are'} not shown.")
    listed = f'<ol class="groups">{"".join(groups)}</ol>'
    return section("Near-duplicates", f"<p>{text}</p>{listed}{more if rest else ''}")


def group(found: Group, thumbnails: Iterable[bytes]) -> str:
    """One group of images, with a thumbnail of each that is shown, b"" if there is none."""
    rows = found.members.to_pylist()
    members = "".join(
        f"<figure>{picture(data, '') if data else ''}<figcaption>{escape(row['path'])}"
        f"{'' if row.get('sha256') == rows[0].get('sha256') else ', <em>another file</em>'}"
        "</figcaption></figure>"
        for row, data in zip(rows, thumbnails, strict=True)
    )
    return f'<li><p class="number">{count(found.count, "image")}</p><div>{members}</div></li>'


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
