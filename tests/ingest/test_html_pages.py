"""Which part of an HTML page is read, and that nothing of it is lost without a word."""

from __future__ import annotations

import time

import pytest

from ragzip.ingest import Document, Skipped
from tests.ingest.tools import HTML, items, only, put


@pytest.mark.parametrize("own", ["main", "article"])
@pytest.mark.parametrize("called", ["comments", "related-work", "footnotes", "tags", "navigation", "banner", "author"])
def test_no_part_of_a_page_s_own_text_is_left_out_for_its_name(tmp_path, own, called):
    page = f"""<html><body><nav>Elsewhere</nav><{own}><h1>Syntax</h1><p>There are several kinds of tokens here.</p>
    <section id="{called}" class="{called}"><h2>More</h2><p>These words are read.</p><aside>An aside.</aside></section>
    <footer>The last words.</footer></{own}><footer>All rights reserved</footer></body></html>"""
    text = only(tmp_path, put(tmp_path, "a.html", page)).text
    for said in ("## More", "These words are read.", "An aside.", "The last words."):
        assert said in text
    assert "Elsewhere" not in text
    assert "All rights reserved" not in text


def test_a_list_of_links_is_read_with_its_links(tmp_path):
    entries = "".join(f'<li><a href="t/{i}.html"><code>kind_{i}</code></a></li>' for i in range(40))
    code = '<pre><a href="x.html">Alloc</a> y</pre>'
    page = f"<html><body><main><h1>Kinds</h1><ul>{entries}</ul>{code}</main></body></html>"
    text = only(tmp_path, put(tmp_path, "a.html", page)).text
    for i in range(40):
        assert f"- [`kind_{i}`](t/{i}.html)" in text
    assert "Alloc y" in text
    odd = page.replace("Kinds", "Kinds \u2997 1 \u2999 and \u2998")  # what links are marked with on the way
    text = only(tmp_path, put(tmp_path, "b.html", odd)).text
    assert "Kinds \u2997 1 \u2999 and \u2998" in text
    assert "`kind_7`" in text


def test_what_stands_beside_the_one_article_of_a_page_is_left_out(tmp_path):
    article = "<article><h1>Bread</h1>" + "<p>Dough rests for an hour in the warm.</p>" * 9 + "</article>"
    page = f"<html><body><main>{article}<section>Nice post! Me too!</section></main></body></html>"
    assert "Me too" not in only(tmp_path, put(tmp_path, "a.html", page)).text
    short = page.replace("<p>Dough rests for an hour in the warm.</p>" * 9, "")
    assert "Me too" in only(tmp_path, put(tmp_path, "b.html", short)).text


def test_a_page_that_looks_like_nothing_but_frame_is_read_all_the_same(tmp_path):
    rows = "".join(f'<div class="footer"><a href="#p{i}">Part {i}</a> weighs {i} kg.</div>' for i in range(30))
    text = only(tmp_path, put(tmp_path, "a.html", f"<html><body><p>Weights</p>{rows}</body></html>")).text
    assert "Part 29 weighs 29 kg." in text


def test_words_with_underscores_in_html_are_read_as_they_are(tmp_path):
    page = HTML.replace("Bread is", "The att_syntax of _bread_ is")
    assert "The att_syntax of \\_bread\\_ is" in only(tmp_path, put(tmp_path, "a.html", page)).text


@pytest.mark.parametrize("depth", [260, 1000])
def test_nested_html_is_read_to_its_end(tmp_path, depth):
    page = (
        f"<html><body><p>Start.</p>{'<div>' * depth}<p>Deep words.</p>{'</div>' * depth}<p>The last.</p></body></html>"
    )
    text = only(tmp_path, put(tmp_path, "a.html", page)).text
    assert "Deep words." in text
    assert "The last." in text


def test_html_that_is_nested_too_deeply_says_so(tmp_path):
    page = f"<html><body><p>Start of it.</p>{'<div>' * 3000}<p>Deep.</p>{'</div>' * 3000}</body></html>"
    found = items(tmp_path, put(tmp_path, "a.html", page))
    assert [item.text for item in found if isinstance(item, Document)] == ["Start of it."]
    assert [item.reason for item in found if isinstance(item, Skipped)] == [
        "nested too deeply: what stands behind is left out"
    ]


def test_a_log_of_many_megabytes_in_html_is_read_whole(tmp_path):
    lines = "a line of the log\n" * 700_000
    text = only(tmp_path, put(tmp_path, "a.html", f"<h1>Log</h1><pre>{lines}</pre><p>The end of it.</p>")).text
    assert len(text) > 12_000_000
    assert text.endswith("The end of it.")


CONTENT = "<h1>Real</h1>" + "".join(
    f"<p>These {word} words are what the page is about, and there are some of them.</p>"
    for word in ("first", "second", "third", "fourth", "fifth")
)


@pytest.mark.parametrize(
    "body",
    [
        f"<main></main><div>{CONTENT}</div>",
        f"<main><div id=app></div></main><div>{CONTENT}</div>",
        f"<div>{CONTENT}</div><article class=promo><p>Buy now.</p></article>",
        f"<main><form>{CONTENT}</form><p>Foot.</p></main>",
        f"<main><p>Intro.</p><form>{CONTENT}<input value=x><select><option>Red</option></select></form></main>",
        f"<main>{CONTENT}<p style='display: none'>secret</p><p hidden>secret</p></main>",
    ],
)
def test_a_page_is_read_where_its_words_are(tmp_path, body):
    text = only(tmp_path, put(tmp_path, "a.html", f"<html><body>{body}</body></html>")).text
    assert text.count("what the page is about") == 5
    assert "secret" not in text
    assert "Red" not in text


def test_navigation_does_not_make_the_frame_of_a_page_its_text(tmp_path):
    links = "".join(f"<li><a href='{i}.html'>Section number {i} of the site</a></li>" for i in range(80))
    frame = "<div class=sidebar>Popular posts</div><footer>Copyright 2020</footer>"
    page = f"<html><body><nav><ul>{links}</ul></nav><div class=content>{CONTENT}</div>{frame}</body></html>"
    text = only(tmp_path, put(tmp_path, "a.html", page)).text
    assert "what the page is about" in text
    assert "Copyright" not in text


def test_links_take_time_linear_in_their_number(tmp_path):
    page = "<html><body><main><p>" + "<a href=x.html>l</a> word " * 16_000 + "</p></main></body></html>"
    started = time.perf_counter()
    assert only(tmp_path, put(tmp_path, "a.html", page)).text.count("[l](x.html) word") == 16_000
    assert time.perf_counter() - started < 4


def test_cards_that_are_links_keep_their_headings(tmp_path):
    card = "<a href=z.html><h3>The title</h3><p>And what it says about it, in some words.</p></a>"
    document = only(tmp_path, put(tmp_path, "a.html", f"<html><body><main><h1>All</h1>{card * 3}</main></body></html>"))
    assert document.text.count("### The title") == 3
    assert "[###" not in document.text


def test_titles_of_pages_are_no_markup(tmp_path):
    page = f"<html><head><title>The __call__ and *args</title></head><body>{CONTENT}</body></html>"
    assert only(tmp_path, put(tmp_path, "a.html", page)).title == "The __call__ and *args"
