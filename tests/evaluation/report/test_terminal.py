import pytest
from rich.cells import cell_len
from rich.console import Console

from ragzip.evaluation.report import terminal, view
from tests.evaluation.report.fake import make_run


@pytest.fixture(scope="module")
def run():
    return make_run(30)


def _table(run, **options):
    shown = [line.plain for line in terminal.lines(run, **options)]
    return shown[: shown.index("")], "\n".join(shown[shown.index("") :])


@pytest.mark.parametrize("width", [60, 100, 200])
def test_fits_the_width_without_folding_and_says_what_it_left_out(run, width):
    table, remarks = _table(run, width=width)
    assert len(table) == len(run.names) + 1
    assert all(cell_len(line) <= width for line in table)
    assert all(line.startswith(name) for line, name in zip(table[1:], run.names, strict=True))
    shown = table[0].split("  ")
    for heading in ("em", "f1", "match", "tokens out", "ratio", "ttft", "total"):
        assert (heading in [cell.strip() for cell in shown]) != (f" {heading}" in remarks.split("left out, the")[-1])


def test_narrowest_keeps_the_main_metric_and_tokens(run):
    table, _ = _table(run, width=60)
    assert "f1" in table[0]
    assert "tokens out" in table[0]


def test_without_a_limit_everything_is_shown(run):
    table, remarks = _table(run)
    assert "too narrow" not in remarks
    assert all(view.heading(metric) in table[0] for metric in view.quality_names(run))


def test_names_the_data_its_version_hash_and_size(run):
    _, remarks = _table(run)
    assert "synthetic-gates, dev, version 3, sha256 ab12ab12ab12; n = 30" in remarks


def test_significance_is_marked_and_its_absence_said(run):
    table, _ = _table(run)
    for name, line in zip(run.names, table[1:], strict=True):
        words = {v.words for m in view.quality_names(run) if (v := view.verdict(run, name, m))}
        assert ("n.s." in line) == ("n.s." in words)
        assert ("▼" in line) == ("worse" in words)
        assert ("▲" in line) == ("better" in words)
    assert not view.verdict(run, "no_compression", "f1")


def test_the_best_is_bold_and_oracles_are_no_competitors(run):
    assert view.best(run, "f1") == {"no_compression"}
    line = terminal.lines(run)[1 + run.names.index("no_compression")]
    assert any(str(span.style) == "bold" for span in line.spans)
    oracle = terminal.lines(run)[1 + run.names.index("oracle_sentences@100")]
    assert not [span for span in oracle.spans if str(span.style) == "bold"]


def test_lopsided_intervals_print_their_ends():
    run = make_run(8)
    run.metrics["closed_book"]["f1"] = {"mean": 0.0, "low": 0.0, "high": 0.168, "n": 8}
    table, _ = _table(run)
    assert "0.0 [0.0, 16.8]" in table[1 + run.names.index("closed_book")]


def test_no_colour_prints_plain_lines(run, capsys):
    console = Console(no_color=True, force_terminal=False, width=500, highlight=False)
    terminal.show(run, console.print)
    terminal.show(run)
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert printed.count("truncate@400") == 2


def test_ascii_only(run):
    assert all(line.plain.isascii() for line in terminal.lines(run, ascii_only=True))


def test_metrics_without_values_and_one_row():
    run = make_run(3, given=("only",), budgets=())
    run.names[:] = ["only"]
    run.metrics["only"] = {"f1": {"mean": None, "low": None, "high": None, "n": 0}}
    table, _ = _table(run, width=80)
    assert table == ["pipeline", "only"]


def test_a_hostile_name_stays_on_its_line():
    run = make_run(3, given=("evil\x1b[31m\n\u202ename", "x" * 90))
    table, _ = _table(run, width=60)
    assert len(table) == len(run.names) + 1
    assert not any(char in "\n".join(table) for char in "\x1b\u202e")
    assert all(cell_len(line) <= 60 for line in table)


def test_failures_are_told(run):
    run = make_run(4, break_even=False)
    run.summary["failed"] = {"rewriter": 2, "soft_stack": 0}
    _, remarks = _table(run)
    assert "could not be answered: rewriter 2" in remarks
    assert "soft_stack" not in remarks


def test_failing_compressors_are_told():
    run = make_run(4, break_even=False)
    run.summary["failed_steps"] = {
        "rewriter": {"rewrite: error": 1200, "rewrite: timeout": 3, "other: error": 0},
        "soft_stack": {},
        "evil\x1b[31m\nname": {"x\n: error": 1},
        "odd": None,
    }
    _, remarks = _table(run)
    assert "rewriter 1,200 × rewrite: error, 3 × rewrite: timeout" in remarks
    assert "other" not in remarks and "soft_stack" not in remarks and "odd" not in remarks
    assert "\x1b" not in remarks and "name 1 × x : error" in remarks
    assert all(line.plain.isascii() for line in terminal.lines(run, ascii_only=True))
    run.summary["failed_steps"] = {}
    assert "failed" not in _table(run)[1]


def test_says_over_what_p_values_are_corrected(run):
    _, remarks = _table(run)
    assert "corrected over the rows of the table, metric by metric, and not over metrics" in remarks
    run = make_run(4)
    run.summary.pop("comparisons")
    assert "corrected" not in _table(run)[1]


def test_oracles_read_the_labels_and_are_no_bound(run):
    _, remarks = _table(run)
    assert "read the labels" in remarks
    assert "bound" not in remarks


def test_says_from_where_on_compression_saves_time():
    run = make_run(4)
    rows = run.summary["break_even"]["rows"]
    pays, loses = next(iter(rows)), list(rows)[-1]
    rows[pays] |= {"low": 200.4, "high": None}
    _, remarks = _table(run)
    told = next(line for line in remarks.splitlines() if line.startswith("saves time"))
    assert f"{pays} {rows[pays]['pays_from']:,.0f} [200, never]" in told
    assert rows[loses]["pays_from"] is None and f"{loses} not within 8,192" in told
    rows |= {f"row{number}\x1b": rows[pays] for number in range(9)} | {"unknown": {"points": []}, "odd": None}
    told = next(line for line in _table(run)[1].splitlines() if line.startswith("saves time"))
    assert told.endswith(f"{len(rows) - 10} more in the report") and "unknown" not in told and "\x1b" not in told
    run.summary["break_even"] = {"rows": {}, "note": "only 4 measurements"}
    assert "saves time" not in _table(run)[1]
