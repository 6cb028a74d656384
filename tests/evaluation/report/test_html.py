import json
import re
from html.parser import HTMLParser

import pytest

from ragzip.evaluation.report import examples, html, plots, view
from tests.evaluation.report.fake import HOSTILE, make_run


class Page(HTMLParser):
    """What a browser would make of it: every attribute, every text, and which elements there are."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.attributes, self.texts, self.tags, self.data, self._inside = [], [], [], "", []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        if tag == "script":
            self._inside = [dict(attrs).get("id")]

    def handle_endtag(self, tag):
        if tag == "script":
            self._inside = []

    def handle_data(self, data):
        if self._inside == ["data"]:
            self.data += data
        else:
            self.texts.append(data)


@pytest.fixture(scope="module")
def run():
    return make_run(12)


@pytest.fixture(scope="module")
def text(run):
    return html.render(run)


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_the_same_run_gives_the_same_page(run, text):
    assert html.render(run) == text


def test_fetches_nothing(text, page):
    assert not re.search(r"@import|url\((?!#)", text.split('<script type="application/json"')[0])
    for tag, key, value in page.attributes:
        assert "://" not in value, (tag, key, value)
        if key in ("src", "href"):
            assert value.startswith("#")
    assert "link" not in page.tags
    assert not re.search(r"https?:", text)


def test_policy_allows_the_one_script_by_its_hash(text):
    import base64
    import hashlib

    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1]
    script = text[text.rindex("<script>") + len("<script>") : text.rindex("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'")
    assert f"script-src 'sha256-{digest}'" in policy


def test_untrusted_text_stays_text(text, page):
    assert page.tags.count("script") == 2
    assert "img" not in page.tags
    assert not any(key.startswith("on") for _, key, _ in page.attributes)
    raw = text[text.index('id="data">') + len('id="data">') :]
    raw = raw[: raw.index("</script>")]
    assert not set(raw) & set("<>&\u2028\u2029")
    data = json.loads(page.data)
    assert HOSTILE.split("</script>")[1] in data["questions"][3]["q"]


def test_hostile_names_are_escaped_everywhere():
    run = make_run(3, given=("<b>&\"'$x$</script>", "日本語\ud800"))
    found = Page(html.render(run))
    assert found.tags.count("b") == Page(html.render(make_run(3, given=("one", "two")))).tags.count("b")
    assert json.loads(found.data)["names"][:2] == ["<b>&\"'$x$</script>", "日本語\ufffd"]
    assert any("$x$" in piece for piece in found.texts)
    assert found.tags.count("script") == 2


def test_every_row_is_in_the_table_and_the_plots(run, text):
    cleaned = text.replace("<wbr>", "")
    for name in run.names:
        assert re.search(rf'<th scope="row">{re.escape(name)}<', cleaned)
        assert f"<title>{name}: " in text


def test_ids_are_unique_and_all_references_resolve(page, text):
    ids = [value for _, key, value in page.attributes if key == "id"]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r"url\(#([^)]+)\)", text)) | {v[1:] for _, k, v in page.attributes if k == "href"}
    used |= {part for _, k, v in page.attributes if k == "aria-labelledby" for part in v.split()}
    assert used <= set(ids)


def test_significance_is_spelled_out(run, text):
    words = {v.words for n in run.names for m in view.metric_names(run) if (v := view.verdict(run, n, m))}
    assert {"worse", "n.s."} <= words
    assert "significantly worse" in text
    assert "not significant (n.s.)" in text


def test_says_over_what_p_values_are_corrected(page):
    said = " ".join(page.texts)
    assert "over the rows of the table, metric by metric, and not over metrics" in said
    assert "a bound" not in said


def test_failures_of_answers_and_of_compressors_are_shown():
    run = make_run(4)
    assert "Compressors that failed" not in " ".join(Page(html.render(run)).texts)
    run.summary["failed"] = {"rewriter": 2}
    run.summary["failed_steps"] = {"rewriter": {"<b>rewrite: error": 1200}, "soft_stack": {"soft: timeout": 1}}
    found = Page(html.render(run))
    said = " ".join(found.texts)
    assert "could not be answered: rewriter 2" in said
    assert "rewriter 1,200 × <b>rewrite: error; soft_stack 1 × soft: timeout" in said
    assert found.tags.count("b") == Page(html.render(make_run(4))).tags.count("b")


def test_colours_are_variables(text):
    for svg in re.findall(r"<svg class=\"plot\".*?</svg>", text, re.DOTALL):
        assert not re.search(r"#[0-9a-f]{6}\b", svg)
        assert "var(--ink)" in svg


def test_kept_and_relevant_places_count_as_the_browser_counts(run):
    shown = examples.collect(run)
    question = shown["questions"][0]
    row = question["rows"][shown["names"].index("no_compression")]
    assert any("🦊" in p["text"] for p in question["passages"])
    for number, passage in enumerate(question["passages"]):
        units = len(passage["text"].encode("utf-16-le")) // 2
        assert row["k"][number] == [[0, units]]
        assert row["kn"][number] == passage["n"]
    gate = question["passages"][2]
    ((start, end),) = gate["rel"]
    assert gate["text"][start:end].startswith("The gate of")


def test_optional_parts_may_be_missing():
    run = make_run(4, break_even=False, savings=False)
    run.summary.pop("comparisons")
    text = html.render(run)
    for part in ('id="break-even"', 'id="savings"', "significantly worse<"):
        assert part not in text


def test_an_empty_break_even_says_why():
    run = make_run(4)
    run.summary["break_even"] = {"unit": "tokens", "window": 0, "rows": {}, "note": "only 4 measurements"}
    assert "only 4 measurements" in html.render(run)
    run.summary["break_even"] = {
        "unit": "tokens",
        "window": 10,
        "rows": {"rewriter": {"pays_from": None, "points": []}},
    }
    assert plots.break_even(run, "x") == ""
    assert "not known" in html.render(run)


def test_one_row_nulls_and_nothing_generated():
    run = make_run(3, given=("only",), budgets=())
    run.names[:] = ["only"]
    run.summary.update(baseline="", comparisons={}, break_even={}, fronts={})
    run.config["baseline"] = ""
    run.metrics["only"] = {"f1": {"mean": None, "low": None, "high": None, "n": 0}, "tokens_out": None}
    for line in run.records["only"]:
        line.update(answer=None, kept=[], steps=[], metrics={"f1": None}, error="out of memory")
    text = html.render(run)
    assert "No metric has a value." in text
    assert json.loads(Page(text).data)["bases"] == [None]


def test_a_missing_record_is_a_hole_not_an_error():
    run = make_run(3)
    run.records["rewriter"].pop()
    assert examples.collect(run)["questions"][2]["rows"][run.names.index("rewriter")] is None


def test_many_questions_and_huge_passages_are_bounded():
    run = make_run(1000, budgets=(100,))
    shown = examples.collect(run)
    assert len(shown["questions"]) == examples.MOST_QUESTIONS
    assert shown["total"] == 1000
    assert examples.collect(run) == shown
    metric = shown["main"]
    base = run.values("no_compression", metric)
    gap = {i: max(abs(run.values(n, metric)[i] - base[i]) for n in run.names[:4]) for i in base}
    ids = {q["id"] for q in shown["questions"]}
    assert sum(gap[i] for i in ids) / len(ids) > sum(gap.values()) / len(gap)
    assert [q["id"] for q in shown["questions"]] == [i for i in run.questions if i in ids]
    passage = next(iter(run.questions.values()))["passages"][0]
    passage["text"] = "word " * 200_000
    small = examples.collect(run, limit=5, characters=50_000)
    assert 1 <= len(small["questions"]) <= 5
    assert all(len(p["text"]) <= examples.PASSAGE for q in small["questions"] for p in q["passages"])
    text = html.render(run)
    assert len(text) < 25_000_000
    assert "300 of 1,000 questions" in text


def test_write_replaces_whole_and_leaves_nothing_behind(tmp_path, run, monkeypatch):
    path = html.write(run, tmp_path / "report.html")
    before = path.read_bytes()

    def fail(*args):
        raise OSError("no space left")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OSError, match="no space"):
        html.write(run, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_several_baselines_each_row_against_its_own():
    run = make_run(4)
    run.config["rows"]["rewriter"]["baseline"] = "closed_book"
    shown = examples.collect(run)
    assert shown["names"][shown["bases"][run.names.index("rewriter")]] == "closed_book"
    assert shown["names"][shown["bases"][run.names.index("soft_stack")]] == "no_compression"


def test_families_and_their_labels():
    names = ["f@1", "f@2", "lone", "g-1", "closed_book", "closed_book [b]"]
    assert view.families(names) == {
        "f@1": ("f", "@1"),
        "f@2": ("f", "@2"),
        "lone": ("lone", "lone"),
        "g-1": ("g-1", "g-1"),
        "closed_book": ("closed_book", "closed_book"),
        "closed_book [b]": ("closed_book", " [b]"),
    }


def test_front_of_the_run_wins_over_the_means(run):
    assert view.front(run, "f1", "tokens_out")[-1] == "no_compression"
    run = make_run(3)
    run.summary["fronts"] = {"f1/tokens_out": ["rewriter", "gone"]}
    assert view.front(run, "f1", "tokens_out") == ["rewriter"]
