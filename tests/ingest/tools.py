"""Files made in code, and short ways to load them."""

from __future__ import annotations

import io
from pathlib import Path

from ragzip.ingest import Document, Skipped, load

HTML = """<!DOCTYPE html><html><head><title>Bread &amp; Butter</title></head><body>
<nav><a href="/">Home</a> <a href="/x">Elsewhere</a></nav>
<article><h1>Baking bread</h1><p>{p1}</p><h2>The dough</h2><p>{p2}</p>
<pre><code># not a heading
x = 1
</code></pre><table><tr><th>flour</th><th>water</th></tr><tr><td>500 g</td><td>330 g</td></tr></table>
</article><script>alert('never');</script></body></html>"""
HTML = HTML.format(
    p1="Bread is made of flour, water, salt and yeast. It has been baked for thousands of years in many places.",
    p2="The dough is kneaded for ten minutes. Then it rests until it has doubled its size, which takes an hour.",
)


def put(folder: Path, name: str, data: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def items(folder: Path, *paths: object, **options) -> list:
    return list(load([str(path) for path in paths] or [str(folder)], base=folder, **options))


def documents(folder: Path, *paths: object, **options) -> list[Document]:
    found = items(folder, *paths, **options)
    assert all(isinstance(item, Document) for item in found), found
    return found


def only(folder: Path, path: object, **options) -> Document:
    (document,) = documents(folder, path, **options)
    return document


def why(folder: Path, path: object, **options) -> str:
    """The reason for which a source is skipped; there must be nothing else."""
    (skipped,) = items(folder, path, **options)
    assert isinstance(skipped, Skipped), skipped
    assert "\n" not in skipped.reason
    assert "Traceback" not in skipped.reason
    return skipped.reason


def pdf(*pages: str, title: str = "", password: str = "") -> bytes:
    from reportlab.lib.pdfencrypt import StandardEncryption
    from reportlab.pdfgen.canvas import Canvas

    buffer = io.BytesIO()
    canvas = Canvas(buffer, encrypt=StandardEncryption(password, strength=40) if password else None)
    if title:
        canvas.setTitle(title)
    for page in pages:
        for number, line in enumerate(page.split("\n")):
            canvas.drawString(72, 750 - 14 * number, line)
        canvas.showPage()
    canvas.save()
    return buffer.getvalue()
