from __future__ import annotations

import io
import logging
import random
import time
import zipfile
from pathlib import Path

import pytest

from ragzip.indexes.graph.links import key, links
from ragzip.ingest import Document, Skipped, Unchanged, load
from ragzip.ingest.formats import _page as html_format
from ragzip.ingest.formats import docx as docx_format
from tests.ingest.tools import HTML, documents, items, only, pdf, put, why


def test_html(tmp_path):
    document = only(tmp_path, put(tmp_path, "a.html", HTML))
    assert document.title == "Bread & Butter"
    assert "kneaded for ten minutes" in document.text
    assert "never" not in document.text
    assert "Elsewhere" not in document.text
    assert [path for _, path in document.sections] == ["Baking bread", "Baking bread > The dough"]
    at = document.sections[1][0]
    assert document.text[at:].startswith("## The dough")


def test_html_keeps_links_to_other_documents_and_only_the_words_of_others(tmp_path):
    more = "and so much more is said of it here that nobody takes it for a list of links to somewhere else."
    said = [
        ('<a href="sub/b.html#p">the [other] page</a>', r"[the \[other\] page](sub/b.html#p)"),
        ('<a href="a(1).html">one</a>', "[one](<a(1).html>)"),
        ('<a href="#below">below</a>', "below"),
        ('<a href="?page=2">more</a>', "more"),
        ("<code>call[i](x) or [a](#b)</code>", "`call[i](x) or [a](#b)`"),
        ('<a href="https://example.org/x">the web</a>', "the web"),
        ('<a href="//host/x">a host</a>', "a host"),
        ('<a href="mailto:x@y">mail</a>', "mail"),
    ]
    page = HTML.replace("</article>", "".join(f"<p>Bread is in {link}, {more}</p>" for link, _ in said) + "</article>")
    document = only(tmp_path, put(tmp_path, "a.html", page))
    for _, kept in said:
        assert f"Bread is in {kept}, {more}" in document.text
    assert links(document.text, "docs/a.html")[:2] == [key("docs/sub/b.html"), key("docs/a(1).html")]
    at = document.sections[1][0]
    assert document.text[at:].startswith("## The dough")


def test_links_of_html_are_read_in_time_linear_in_the_text():
    def seconds(text):
        started = time.process_time()
        html_format._LINK.sub(html_format._kept, text)
        return time.process_time() - started

    for odd in ("[", "[x", "\\[x", "](", "[x]((", "`", "```"):
        assert seconds(odd * 40_000) < 12 * max(seconds(odd * 8_000), 0.01)


def test_code_in_html_keeps_its_brackets():
    for code in ("```\nhandlers[i](event)[0]()\n[a](https://x.org)\n```", "`[a](#b)`", "``` [a](#b)"):
        assert html_format._LINK.sub(html_format._kept, f"see [x](#y) {code}") == f"see x {code}"


def test_small_html_falls_back_to_its_plain_text(tmp_path):
    assert "Just this." in only(tmp_path, put(tmp_path, "a.htm", "<div>Just this.</div>")).text


def test_html_that_says_its_encoding(tmp_path):
    page = HTML.replace("<head>", '<head><meta charset="iso-8859-1">').replace("Bread is", "Brötchen is")
    document = only(tmp_path, put(tmp_path, "a.html", page.encode("latin-1")))
    assert "Brötchen" in document.text
    wrong = '<?xml version="1.0" encoding="klingon"?><p>é</p>'.encode("latin-1")
    assert "says it is klingon" in why(tmp_path, put(tmp_path, "b.html", wrong))
    assert "not UTF-8" in why(tmp_path, put(tmp_path, "c.html", "<p>é</p>".encode("latin-1")))
    xhtml = '<?xml version="1.0" encoding="utf-8"?>\n' + HTML
    assert "kneaded" in only(tmp_path, put(tmp_path, "d.html", xhtml)).text


@pytest.mark.parametrize("page", ["<html></html>", "<script>x()</script>", "<", "<!-- only -->", "<p> </p>"])
def test_html_without_text(tmp_path, page):
    found = items(tmp_path, put(tmp_path, "a.html", page))
    assert all(isinstance(item, Skipped) and item.reason for item in found) or found[0].text.strip()
    if page != "<":
        assert isinstance(found[0], Skipped)


def test_deep_html(tmp_path):
    page = "<div>" * 50_000 + "deep text" + "</div>" * 50_000
    (found,) = items(tmp_path, put(tmp_path, "a.html", page))
    assert isinstance(found, Document | Skipped)


def test_pdf(tmp_path):
    data = pdf("First page. It has text.", "Second page.\nAnother line here", "Third.", title="A Report")
    document = only(tmp_path, put(tmp_path, "a.pdf", data))
    assert document.title == "A Report"
    assert len(document.pages) == 3
    starts = [document.text[at:].split("\n")[0] for at in document.pages]
    assert starts == ["First page. It has text.", "Second page.", "Third."]


def test_pdf_words_broken_at_line_ends(tmp_path):
    data = pdf("An important exam-\nple of a well-\nknown thing: the example.")
    assert only(tmp_path, put(tmp_path, "a.pdf", data)).text.startswith("An important example of a well-\nknown")


def test_pdf_title_that_is_a_file_name(tmp_path):
    assert only(tmp_path, put(tmp_path, "x.pdf", pdf("Text.", title="draft3.docx"))).title == "x"


def test_pdf_without_text(tmp_path):
    assert why(tmp_path, put(tmp_path, "a.pdf", pdf("", ""))) == "no text layer: run OCR first"


def test_pdf_without_pages(tmp_path):
    import pypdf

    buffer = io.BytesIO()
    pypdf.PdfWriter().write(buffer)
    assert why(tmp_path, put(tmp_path, "a.pdf", buffer.getvalue())) == "no pages"


def test_pdf_with_a_password(tmp_path):
    assert why(tmp_path, put(tmp_path, "a.pdf", pdf("Secret.", password="x"))) == "encrypted: needs a password"


def test_pdf_one_bad_page(tmp_path, monkeypatch):
    import pypdf

    original = pypdf.PageObject.extract_text

    def extract(page, *args, **options):
        text = original(page, *args, **options)
        if "Second" in text:
            raise ValueError("broken font\nin two lines")
        return text

    monkeypatch.setattr(pypdf.PageObject, "extract_text", extract)
    skipped, document = items(tmp_path, put(tmp_path, "a.pdf", pdf("First.", "Second.", "Third.")))
    assert (skipped.source, skipped.reason) == ("a.pdf:page 2", "ValueError: broken font")
    assert document.text[document.pages[2] :] == "Third."
    monkeypatch.setattr(pypdf.PageObject, "extract_text", lambda *_: 1 / 0)
    assert why(tmp_path, tmp_path / "a.pdf").startswith("no page can be read: ZeroDivisionError")


def word(build) -> bytes:
    import docx

    document = docx.Document()
    build(document)
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


def test_docx(tmp_path):
    def build(document):
        document.add_heading("The Title", 0)
        document.add_paragraph("Before.")
        document.add_heading("One", 1)
        document.add_paragraph("First paragraph.\twith a tab")
        document.add_heading("Sub", 2)
        table = document.add_table(2, 2)
        for row, names in zip(table.rows, [("a", "b"), ("c", "")], strict=True):
            for cell, name in zip(row.cells, names, strict=True):
                cell.text = name
        document.add_paragraph("After.")

    document = only(tmp_path, put(tmp_path, "a.docx", word(build)))
    assert document.title == "The Title"
    assert document.text.split("\n\n") == [
        "The Title", "Before.", "One", "First paragraph.\twith a tab", "Sub", "a | b\nc | ", "After."
    ]  # fmt: skip
    assert [path for _, path in document.sections] == ["One", "One > Sub"]
    assert [document.text[at:].split("\n")[0] for at, _ in document.sections] == ["One", "Sub"]


def test_docx_text_that_the_library_does_not_list(tmp_path):
    from docx.oxml import parse_xml

    space = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'

    def build(document):
        body = document.element.body
        run = "<w:r><w:t>{}</w:t></w:r>"
        body.insert(0, parse_xml(
            f"<w:sdt {space}><w:sdtContent><w:p>{run.format('In a control.')}</w:p></w:sdtContent></w:sdt>"
        ))  # fmt: skip
        body.insert(1, parse_xml(
            f"<w:p {space}><w:ins>{run.format('Inserted.')}</w:ins>"
            "<w:del><w:r><w:delText>Deleted.</w:delText></w:r></w:del></w:p>"
        ))  # fmt: skip

    text = only(tmp_path, put(tmp_path, "a.docx", word(build))).text
    assert text == "In a control.\n\nInserted."


def test_docx_nested_table(tmp_path):
    def build(document):
        cell = document.add_table(1, 2).rows[0].cells[0]
        cell.text = "outer"
        cell.add_table(1, 1).rows[0].cells[0].text = "inner"

    assert only(tmp_path, put(tmp_path, "a.docx", word(build))).text == "outer | \ninner"


def test_docx_that_is_something_else(tmp_path):
    assert why(tmp_path, put(tmp_path, "a.docx", word(lambda _: None))) == "no text found"
    assert "damaged" in why(tmp_path, put(tmp_path, "b.docx", b"no zip at all"))
    assert "old .doc" in why(tmp_path, put(tmp_path, "c.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"x" * 600))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", "text")
    assert "zip archive of something else" in why(tmp_path, put(tmp_path, "d.docx", buffer.getvalue()))


def test_zip_bombs_are_not_unpacked(tmp_path, monkeypatch):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("word/media/a.bin", bytes(30_000_000))
    path = put(tmp_path, "a.docx", buffer.getvalue())
    assert path.stat().st_size < 100_000
    assert why(tmp_path, path, max_bytes=20_000_000).startswith("unpacked too big")
    monkeypatch.setattr(docx_format, "_MAX_XML", 1000)
    path = put(tmp_path, "b.docx", word(lambda document: document.add_paragraph("x")))
    assert why(tmp_path, path).startswith("unpacked too big")


def test_billion_laughs_are_not_told(tmp_path):
    laughs = '<!DOCTYPE x [<!ENTITY a "ha">' + "".join(
        f'<!ENTITY {chr(98 + n)} "{("&" + chr(97 + n) + ";") * 10}">' for n in range(9)
    )
    source = io.BytesIO(word(lambda document: document.add_paragraph("joke")))
    target = io.BytesIO()
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "word/document.xml":
                head, _, rest = data.decode().partition("\n")
                data = (head + laughs + "]>" + rest.replace("joke", "&j;")).encode()
            new.writestr(name, data)
    for item in items(tmp_path, put(tmp_path, "a.docx", target.getvalue())):
        assert isinstance(item, Skipped) or len(item.text) < 1000


@pytest.mark.parametrize("suffix", [".pdf", ".docx", ".html"])
def test_damaged_files_give_a_reason_and_no_noise(tmp_path, suffix, caplog, capfd):
    whole = {
        ".pdf": pdf("Some text on a page.", "And more."),
        ".docx": word(lambda document: document.add_paragraph("Some text.")),
        ".html": HTML.encode(),
    }[suffix]
    chance = random.Random(0)
    variants = [whole[: len(whole) * n // 12] for n in range(1, 12)]
    variants += [chance.randbytes(3000), b"%PDF-1.7\n" + chance.randbytes(3000), b"PK\x03\x04" + chance.randbytes(3000)]
    for _ in range(25):
        data = bytearray(whole)
        for _ in range(8):
            data[chance.randrange(len(data))] = chance.randrange(256)
        variants.append(bytes(data))
    with caplog.at_level(logging.DEBUG):
        for number, data in enumerate(variants):
            for item in items(tmp_path, put(tmp_path, f"{number}{suffix}", data)):
                if isinstance(item, Skipped):
                    assert item.reason
                    assert "\n" not in item.reason
                else:
                    item.text.encode()
    assert not [record for record in caplog.records if record.name.split(".")[0] in ("pypdf", "trafilatura")]
    assert capfd.readouterr() == ("", "")


def test_library_loggers_are_left_as_they_were(tmp_path, monkeypatch):
    logger = logging.getLogger("pypdf")
    monkeypatch.setattr(logger, "level", logging.INFO)
    items(tmp_path, put(tmp_path, "a.pdf", b"%PDF-1.7 broken"))
    assert logger.level == logging.INFO


def test_known_files_are_not_parsed(tmp_path, monkeypatch):
    put(tmp_path, "a.html", HTML)
    put(tmp_path, "b.pdf", pdf("Text."))
    put(tmp_path, "c.md", "Text.")
    first = documents(tmp_path)
    hashes = {document.source: document.raw_hash for document in first}
    assert hashes["c.md"] == ""
    assert all(len(hashes[name]) == 64 for name in ("a.html", "b.pdf"))
    monkeypatch.setattr("ragzip.ingest.loading.read_pdf", lambda *_: pytest.fail("parsed"))
    put(tmp_path, "a.html", HTML.replace("ten minutes", "two minutes"))

    def known(source: str, raw_hash: str) -> bool:
        return hashes.get(source) == raw_hash

    found = list(load([str(tmp_path)], base=tmp_path, known=known))
    assert [type(item) for item in found] == [Document, Unchanged, Document]
    assert found[1] == Unchanged("b.pdf", tmp_path.as_posix(), hashes["b.pdf"])


def test_loading_is_deterministic(tmp_path: Path):
    put(tmp_path, "a.html", HTML)
    put(tmp_path, "b.pdf", pdf("Text."))
    put(tmp_path, "c.docx", word(lambda document: document.add_paragraph("Some text.")))
    once = [document.content_hash for document in documents(tmp_path)]
    assert once == [document.content_hash for document in documents(tmp_path)]


@pytest.mark.parametrize("name", ["utf-16", "UTF-16LE", "utf_32", "utf-7"])
def test_a_page_cannot_be_in_an_encoding_in_which_its_head_is_unreadable(tmp_path, name):
    page = HTML.replace("<head>", f'<head><meta charset="{name}">').replace("Bread is", "Brötchen ist")
    path = put(tmp_path, "a.html", page.encode("latin-1"))
    assert "not UTF-8" in why(tmp_path, path)
