"""Pieces of a self-contained HTML page: escaped text, tables, pictures as data, one small style sheet, no scripts."""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import PIL.Image

LARGEST_PX = 512
LARGEST_BYTES = 200_000
_BROWSER_FORMATS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}

# Nothing is loaded from anywhere, even if a prompt should find a way to ask for it.
_POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"

STYLE = """
:root { color-scheme: light dark; --paper: #fdfdfc; --ink: #1d2126; --soft: #626b76; --line: #dfe2e6; --card: #f3f4f6;
  --accent: #2a62c9; --good: #16794a; --bad: #b3352b; --unsure: #8a6100; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181c; --ink: #e7e9ec; --soft: #9aa4b0; --line: #343a42;
  --card: #1f242a; --accent: #7fa8ff; --good: #55c98f; --bad: #ff8a7f; --unsure: #e2b34c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 70rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
p { max-width: 46rem; margin: .5rem 0; }
.soft, figcaption small, caption { color: var(--soft); }
.verdict { border-left: 5px solid var(--unsure); background: var(--card); padding: .9rem 1.1rem; margin: 1.25rem 0;
  border-radius: 0 6px 6px 0; }
.verdict p { font-size: 1.1rem; margin: 0; max-width: 52rem; }
.verdict.better { border-color: var(--good); } .verdict.worse { border-color: var(--bad); }
.verdict svg { width: 100%; max-width: 30rem; height: auto; display: block; margin-top: .8rem; }
.scroll { overflow-x: auto; }
.beside { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; align-items: flex-start; }
.beside > * { max-width: 100%; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0; font-size: .95rem; }
caption { text-align: left; padding-bottom: .3rem; font-size: .9rem; }
th, td { text-align: right; padding: .35rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child { text-align: left; padding-left: 0; white-space: normal; }
thead th { color: var(--soft); font-weight: 500; font-size: .9rem; }
tbody th { font-weight: 500; }
.up { color: var(--good); } .down { color: var(--bad); } .note { color: var(--unsure); }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(258px, 1fr)); gap: 1.1rem 1rem; }
.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)); gap: 1rem 1.5rem; }
figure { margin: 0; }
.pair { max-width: 400px; }
.pair div { display: grid; grid-template-columns: 1fr 1fr; gap: 4px; }
.pair img, .pair video, .pair .lost { display: block; width: 100%; height: auto; aspect-ratio: 1;
  object-fit: contain; background: var(--card); border: 1px solid var(--line); }
.pair audio { display: block; width: 100%; height: 2.25rem; margin: .25rem 0; }
.pair.sound div { grid-template-columns: 1fr; }
.pair.sound img { aspect-ratio: 2; background: #fff; }
.pair .lost { display: grid; place-items: center; color: var(--bad); font-size: .85rem; }
.pair .small { image-rendering: pixelated; }
.pair span span { font-size: .8rem; color: var(--soft); font-variant-numeric: tabular-nums; }
.pair span span.up { color: var(--good); } .pair span span.down { color: var(--bad); }
figcaption small { white-space: nowrap; }
.curves figcaption small { white-space: normal; }
figcaption { font-size: .9rem; line-height: 1.35; margin-top: .15rem; overflow-wrap: anywhere; }
.curves svg { width: 100%; height: auto; display: block; }
.curves svg text { font-family: system-ui, sans-serif !important; }
pre { background: var(--card); padding: .9rem 1rem; overflow-x: auto; border-radius: 6px; font-size: .85rem;
  line-height: 1.45; }
@media (max-width: 40rem) { th, td { padding: .35rem .45rem; font-size: .9rem; } }
summary { cursor: pointer; color: var(--accent); margin: .5rem 0; }
"""


class Html(str):
    """Text that is HTML already; every other text is escaped when it enters a page."""

    __slots__ = ()


def escaped(text: object) -> Html:
    """Any text as HTML, and HTML as it is.

    >>> escaped("a <b> & 'c'"), escaped(Html("<b>bold</b>"))
    ('a &lt;b&gt; &amp; &#x27;c&#x27;', '<b>bold</b>')
    """
    return text if isinstance(text, Html) else Html(html.escape(str(text)))


def page(title: str, body: Iterable[Html], *, refresh_s: int | None = None) -> str:
    """A whole HTML document; with ``refresh_s`` the browser asks for it again after so many seconds."""
    content = "\n".join(part for part in body if part)
    again = "" if refresh_s is None else f'<meta http-equiv="refresh" content="{refresh_s}">\n'
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'{again}<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{content}\n</main>\n</body>\n</html>\n"
    )


def section(title: str, *parts: str) -> Html:
    """A heading and what is under it; nothing at all where every part is empty."""
    content = "\n".join(escaped(part) for part in parts if part)
    return Html(f"<section>\n<h2>{escaped(title)}</h2>\n{content}\n</section>") if content else Html()


def beside(*parts: Html) -> Html:
    """Parts next to each other where the screen is wide enough."""
    content = "\n".join(part for part in parts if part)
    return Html(f'<div class="beside">\n{content}\n</div>') if content else Html()


def paragraph(text: object, kind: str = "") -> Html:
    """A paragraph, with a CSS class if one is named."""
    return Html(f'<p class="{kind}">{escaped(text)}</p>' if kind else f"<p>{escaped(text)}</p>")


def table(head: Sequence[str], rows: Sequence[Sequence[object]], caption: str = "") -> Html:
    """A table whose first column names its rows; nothing where there are no rows. It scrolls on a narrow screen."""
    if not rows:
        return Html()
    first = "".join(f'<th scope="col">{escaped(cell)}</th>' for cell in head)
    body = "\n".join(
        f'<tr><th scope="row">{escaped(row[0])}</th>'
        + "".join(f"<td>{escaped(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    said = f"<caption>{escaped(caption)}</caption>" if caption else ""
    top = f"<thead><tr>{first}</tr></thead>\n" if any(head) else ""
    return Html(f'<div class="scroll"><table>{said}{top}<tbody>\n{body}\n</tbody></table></div>')


def details(title: str, content: str, *, opened: bool = False) -> Html:
    """Something to unfold; nothing where there is no content."""
    if not content:
        return Html()
    return Html(
        f"<details{' open' * opened}><summary>{escaped(title)}</summary>\n{escaped(content)}\n</details>"
    )


def code(text: str) -> Html:
    """Text as it is, in a box to copy from; nothing where it is empty."""
    return Html(f"<pre><code>{escaped(text)}</code></pre>") if text else Html()


def picture(path: Path, alternative: str) -> Html:
    """A picture as data inside the page: small files byte for byte, large ones reduced to a JPEG.

    A file that is missing or unreadable is said to be so in its place.
    """
    try:
        with PIL.Image.open(path) as opened:
            opened.load()
            kind, size = _BROWSER_FORMATS.get(opened.format or ""), opened.size
            data = path.read_bytes()
            if kind is None or max(size) > LARGEST_PX or len(data) > LARGEST_BYTES:
                reduced = opened.convert("RGB")
                reduced.thumbnail((LARGEST_PX, LARGEST_PX))
                buffer = io.BytesIO()
                reduced.save(buffer, "JPEG", quality=88)
                kind, data = "image/jpeg", buffer.getvalue()
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError):
        return lost(alternative)
    return image_element(kind, data, size, alternative)


def lost(alternative: str) -> Html:
    """What stands in the place of a medium that cannot be read."""
    return Html(f'<span class="lost" role="img" aria-label="{escaped(alternative)}">not readable</span>')


def image_element(kind: str, data: bytes, size: tuple[int, int], alternative: str) -> Html:
    """An ``<img>`` with its data in it; one of few pixels keeps them sharp when it is enlarged."""
    attributes = f'src="{data_address(kind, data)}" width="{size[0]}" height="{size[1]}"'
    return Html(f'<img{small(size)} {attributes} alt="{escaped(alternative)}">')


def small(size: tuple[int, int]) -> str:
    """The class of pictures whose pixels are to be seen, as an attribute."""
    return ' class="small"' if max(size) <= 128 else ""


def data_address(kind: str, data: bytes) -> str:
    """Data as an address.

    >>> data_address("audio/wav", b"RIFF")
    'data:audio/wav;base64,UklGRg=='
    """
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
