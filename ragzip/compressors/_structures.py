"""Where a text is not prose: JSON, code, Markdown, HTML and delimited tables, preformatted text, lists.

Everything is found by layout alone, in time linear in the length of the text, and given as exact stretches.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ragzip.compressors._json_text import json_in
from ragzip.text import Stretch, complement, fence_pairs, merge, sentences

_FENCE = re.compile(r"[^\S\n]*(`{3,}(?![^\n]*`)|~{3,})[^\S\n]*([^\n]*)")
_ITEM = re.compile(r"[^\S\n]*(?:[-*+•‣◦▪]|\d{1,3}[.)]|[A-Za-z]\)|\((?:\d{1,3}|[a-z]|[ivx]{1,4})\))[^\S\n]+\S")
_RULE_CELL = re.compile(r":?-+:?")
_HEADING = re.compile(r"#{1,6}\s")
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_COLON = re.compile(r"\s*:")
_TAG = re.compile(r"<(/?)(table|pre|tr|td|th)(?:\s[^<>]*)?>", re.IGNORECASE)
_CODE = re.compile(r"[{}()\[\]=;<>]|:\s*\Z|\A\s*(?:return|import|end|else|#|//)\b")
_END = re.compile(r"[.!?:][\"')\]”’»]*\Z")

# What begins code at the left edge. Lines of prose, too, begin with "import", "class" or "public".
_OPENING = re.compile(
    r"""
      (?:async\s)?def\s+[\w.]+[?!]?(?:\s*[(\[]|\Z)
    | class\s+(?:\w+\s*(?:[(\[].*)?:|[A-Z]\w*)\Z
    | import\s+(?:static\s+)?\w[\w.*]*(?:\s+as\s+\w+)?(?:\s*,\s*\w[\w.]*)*;?\Z
    | import\s*["'({*] | import\s[^"';]*\sfrom\s["']
    | from\s+[\w.]+\s+import\s+[\w(*]
    | \#(?:include\s*[<"]|define\s\w|if(?:n?def)?\s|pragma\s|!/)
    | (?:export\s+)?(?:default\s+)?(?:async\s+)?function\s*\*?\s*[\w$]+\(
    | (?:public|private|protected|internal|static|final|abstract|extern|inline|pub|fn|func)\s.*\w[(<].*[;,()>]\Z
    | (?:export\s+)?(?:const|let|var|val)\s+[\w$\[{][^=]*=\s*\S
    | (?:(?:const|unsigned|struct)\s+)*(?:int|void|char|bool|float|double|long|auto|size_t)\s[\w\s*&:]*\w\(.*[;,()]\Z
    | (?:package|using|namespace|use)\s+[\w.:\\]+;\Z
    | SELECT(?:\Z|\s(?=.*[a-z*]))
    | (?:INSERT\s+INTO|DELETE\s+FROM|UPDATE|(?:CREATE|ALTER|DROP)\s+\w+|WITH\s+\w+\s+AS)\s(?=.*[a-z(;])
    | .*\{\Z
    """,
    re.VERBOSE,
)
# A line that is a statement, or the end of one.
_STATEMENT = re.compile(
    r"""
    \s*(?:
      [)\]}] | // | /\* | @[\w.]+(?:\(.*)?\Z | \[[A-Za-z][\w.-]*\]\Z | \$\s\w
    | (?:[\w:\[*&][\w:<>\[\]*&]{0,80}\s+){0,2}[\w.$@*\[\]"':>,()-]{1,200}\s*(?:[-+*/%|&^:?~]|//|\*\*)?=(?!=)\s*[^\s=]
    | (?:(?:await|return|yield|new|not|echo)\s+)?[\w.:$!>-]+\(.*[])({,[:]\Z
    | (?:if|elif|while|for|except|with|async|match|case|else)\b.*[^:\s]:\Z
    | (?:if|while|for|switch|catch)\s*\( | .*;\s(?:then|do)\Z
    | (?:else|try|finally|do|default|public|private|protected):\Z
    | (?:pass|break|continue|return|end|fi|done|else|then|do)\Z
    | (?:return|raise|throw|yield|assert|del|echo|export)\s+(?:["'(\[{$-]|[\w.]+(?:[(\[]|\s*[-+*/%<>=!&|]|\Z))
    | (?:FROM|WHERE|AND|OR|ON|SET|VALUES|HAVING|LIMIT|(?:\w+\s+)?JOIN|(?:GROUP|ORDER)\s+BY)\s(?=.*[a-z0-9(])
    )
    | \s+(?:\#|--\s|(?:if|elif|while|for|except|with|case)\s.*:\s)
    | \s+(?:[\w.$]+,\Z|["'].*["'],?\Z|["']?[\w$-]+["']?:\s.*[,;]\Z)
    """,
    re.VERBOSE,
)
# With a semicolon at its end, prose has its brackets and quotes apart.
_MARKED = re.compile(r"\w[(\[]|[={}]|->|::|\A\s*(?:const\s|return|break|continue|int|float|double|char|bool)\s*\S*\Z")
_KEY = re.compile(r"(?:\s+(?:-\s+)?)?[a-z_][\w.-]*:(?:\s+\S+)?\Z")
_REMARK = re.compile(r"#\s|--\s")
_QUOTES = re.compile(r"\"{3}|'{3}")

_PARAGRAPH = 300  # characters of list items from which on they are prose with a mark before it
_LONGEST_ROW = 20_000
_LONGEST_CODE = 500
_GAP = 2  # blank lines between two pieces of code that belong together
_TIME = re.compile(r"\W{0,2}\d{1,2}:\d{2}")
_SENTENCE = 6  # words of a field from which on it may be a sentence
_PROSE = 80  # characters of a JSON string from which on it may be prose


@dataclass(frozen=True, slots=True)
class _Line:
    start: int
    end: int
    text: str  # without what follows the last visible character; "" for a blank line
    tail: str  # what follows, up to its last tab: cells with nothing in them

    @property
    def indented(self) -> bool:
        return self.text[:1].isspace()


def structures(text: str) -> list[Stretch]:
    r"""The stretches that are no prose, in order, apart from each other; each is to be kept whole or dropped.

    * JSON objects, and arrays of objects, arrays or strings, that parse; anywhere in the text;
    * code between fences of which one closes the other, indented code, and code at the left edge: what begins like
      code, with the lines indented below it and the code that follows after at most two blank lines;
    * tables and preformatted text in HTML, with their tags;
    * Markdown tables; at least three lines (two with tabs) that are equally many comma-, semicolon- or tab-separated
      fields, of which commas are only believed with nothing but a few words between them;
    * lists of at least two items with everything that belongs to them, unless their items are long paragraphs.

        >>> text = "See:\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nThat is all."
        >>> [text[start:end] for start, end in structures(text)]
        ['| a | b |\n|---|---|\n| 1 | 2 |']
    """
    lines = _lines(text)
    fenced = list(_fenced(lines))
    taken = [False] * len(lines)
    for first, last in fenced:
        taken[first : last + 1] = [True] * (last + 1 - first)
    blocks = [(lines[first].start, lines[last].end) for first, last in fenced]
    code = list(_unfenced(lines, taken))
    found, rows = [*code, *_tables(lines, taken), *_code(lines, taken)], list(_delimited(lines, taken))
    for first, last in code:  # remarks in it are no items of a list
        taken[first : last + 1] = [True] * (last + 1 - first)
    found += _lists(lines, taken)
    stretches = [(lines[first].start, lines[last].end) for first, last in found]
    return merge([*blocks, *rows, *stretches, *_html(text, blocks), *json_in(text)])


def code_in(text: str) -> bool:
    """Whether some of a text is code that stands between no fences."""
    lines = _lines(text)
    taken = [False] * len(lines)
    return any(True for _ in (*_unfenced(lines, taken), *_code(lines, taken)))


def json_prose(text: str) -> list[tuple[Stretch, str]]:
    """The long string values of a JSON text that are prose: where each literal stands, and what it says.

    Keys are none, nor are strings of one sentence: names, paths, addresses and code.
    """
    found = []
    for match in _STRING.finditer(text):
        if match.end() - match.start() < _PROSE or _COLON.match(text, match.end()):
            continue
        value = json.loads(match[0], strict=False)
        if len(sentences(value)) > 1 and not structures(value):
            found.append((match.span(), value))
    return found


def _lines(text: str) -> list[_Line]:
    lines, start = [], 0
    for line in text.split("\n"):
        visible = line.rstrip()
        rest = line[len(visible) :]
        lines.append(_Line(start, start + len(visible), visible, rest[: rest.rfind("\t") + 1]))
        start += len(line) + 1
    return lines


def _fenced(lines: Sequence[_Line]) -> Iterator[tuple[int, int]]:
    """First and last line of each code block."""
    fences = [(number, _FENCE.match(line.text)) for number, line in enumerate(lines)]
    yield from fence_pairs([(number, fence[1], bool(fence[2])) for number, fence in fences if fence])


def _tables(lines: Sequence[_Line], taken: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """Pipe tables with their rule, and runs of rows or of a grid that begin with a pipe or a plus."""
    number = 0
    while number < len(lines):
        first = last = number
        bare = lines[number].text.lstrip()
        if taken[number] or not bare:
            number += 1
            continue
        if number + 1 < len(lines) and "|" in bare and not taken[number + 1] and _is_rule(lines[number + 1].text):
            last = number + 1
            while last + 1 < len(lines) and "|" in lines[last + 1].text and not taken[last + 1]:
                last += 1
        elif bare.startswith(("|", "+-", "+=")):
            while last + 1 < len(lines) and lines[last + 1].text.lstrip().startswith(("|", "+-", "+=")):
                last += 1
        if last > first:
            yield first, last
        number = last + 1


def _is_rule(line: str) -> bool:
    cells = line.strip().removeprefix("|").removesuffix("|").split("|")
    return "|" in line and all(_RULE_CELL.fullmatch(cell.strip()) for cell in cells)


def _delimited(lines: Sequence[_Line], taken: Sequence[bool]) -> Iterator[Stretch]:
    """Runs of lines with equally many fields; tabs at the ends of lines are cells, or are left there by chance."""
    for mark, fields, rows, tails in (("\t", 2, 2, True), ("\t", 2, 2, False), (";", 3, 3, False), (",", 3, 3, False)):
        first, count = 0, 0
        for number in range(len(lines) + 1):
            here = 0
            if number < len(lines) and not taken[number] and lines[number].text:
                row = lines[number].text + (lines[number].tail if tails else "")
                here = len(_fields(row, mark)) if mark in row else 0
            if here == count:
                continue
            run = lines[first:number]
            if count >= fields and len(run) >= rows and _is_data(run, mark):
                yield run[0].start, run[-1].end + (len(run[-1].tail) if tails else 0)
            first, count = number, here


def _fields(line: str, mark: str) -> list[str]:
    if len(line) > _LONGEST_ROW:
        return []
    if '"' not in line:
        return line.split(mark)
    try:
        return next(csv.reader([line], delimiter=mark), [])
    except csv.Error:
        return []


def _is_data(run: Sequence[_Line], mark: str) -> bool:
    """Whether lines with separators are data: prose has a space after its commas, and ends its sentences."""
    if mark == "\t":  # prose has none within, though some may be left at the ends of its lines, or behind who speaks
        inner = [line.text for line in run if mark in line.text.lstrip()]  # before a line they indent it
        return 2 * len(inner) >= len(run) and 2 * sum(map(_speaks, inner)) < len(inner)
    rows = [_fields(line.text, mark) for line in run]
    if not any(field[:1].isspace() for row in rows for field in row[1:]):
        return True
    words = sum(len(field.split()) for row in rows for field in row)
    return words <= 3 * sum(map(len, rows)) and not any(_END.search(line.text) for line in run)


def _speaks(row: str) -> bool:
    """Whether a row is what somebody says: a sentence behind a time or a name."""
    fields = [field.strip() for field in row.split("\t") if field.strip()]
    if len(fields) != 2 or len(fields[1].split()) < _SENTENCE or not _END.search(fields[1]):
        return False
    return fields[0].endswith(":") or _TIME.match(fields[0]) is not None


def _lists(lines: Sequence[_Line], taken: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """Lists: items, what is indented below them, and lines that go on without a blank line before."""
    number = 0
    while number < len(lines):
        if taken[number] or not _ITEM.match(lines[number].text):
            number += 1
            continue
        first = last = number
        items, size, edge = 1, len(lines[number].text), _edge(lines[number])
        number += 1
        while number < len(lines):
            line = lines[number]
            if not line.text:
                number += 1
                continue
            item = not taken[number] and _ITEM.match(line.text) is not None
            follows = number == last + 1 and not _HEADING.match(line.text) and "|" not in line.text[:1]
            below = _edge(line) > edge or (line.indented and _before_item(lines, taken, number))
            if not (item or below or follows) or number > last + 3:
                break
            edge = min(edge, _edge(line)) if item else edge
            items, size, last = items + item, size + len(line.text), number
            number += 1
        if items > 1 and size <= _PARAGRAPH * items:
            yield first, last
        number = last + 1


def _edge(line: _Line) -> int:
    """The column in which it begins."""
    wide = line.text.expandtabs(8)
    return len(wide) - len(wide.lstrip())


def _before_item(lines: Sequence[_Line], taken: Sequence[bool], number: int) -> bool:
    """Whether the next line that is not blank is an item."""
    behind = next((n for n in range(number + 1, min(number + 4, len(lines))) if lines[n].text), number)
    return not taken[behind] and _ITEM.match(lines[behind].text) is not None


def _code(lines: Sequence[_Line], taken: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """Runs of lines indented by four columns after a blank line, of which half look like code."""
    number = 0
    while number < len(lines):
        starts = number == 0 or not lines[number - 1].text
        if not starts or not _is_indented_code(lines[number], taken[number]):
            number += 1
            continue
        first = last = number
        while number < len(lines) and (not lines[number].text or _is_indented_code(lines[number], taken[number])):
            last = number if lines[number].text else last
            number += 1
        filled = [line for line in lines[first : last + 1] if line.text]
        if len(filled) > 1 and 2 * sum(_CODE.search(line.text) is not None for line in filled) >= len(filled):
            yield first, last


def _is_indented_code(line: _Line, taken: bool) -> bool:
    return not taken and line.text.startswith(("    ", "\t"))


def _unfenced(lines: Sequence[_Line], taken: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """Runs of code that begin at the left edge.

    A line that prose could have as well begins one only if half of what follows it is code; where nothing is
    indented, every line must be code.
    """
    number = 0
    while number < len(lines):
        line = lines[number]
        first, opens = number, _opens(line)
        number += 1
        apart = line.text.endswith(":") and not (number < len(lines) and lines[number].text)
        if taken[first] or line.indented or not (opens or (_is_code(line) and not apart)):
            continue
        last, filled = _run(lines, taken, first)
        number = last + 1
        if any(line.indented for line in lines[first:number]):
            rest = [_is_code(line) for line in filled[not opens :]]
            if any(rest) and 2 * sum(rest) >= len(rest):
                yield first, last
        elif len(filled) > (1 if opens else 2) and not any(_KEY.match(line.text) for line in filled):
            yield first, last


def _run(lines: Sequence[_Line], taken: Sequence[bool], first: int) -> tuple[int, list[_Line]]:
    """The last line of the run that begins here, and its lines without blank ones, comments and long strings.

    To it belong code at the left edge, everything indented, and strings of several lines if they are closed.
    """
    last, quote, before, filled = first, -1, first, list[_Line]()
    for number in range(first, len(lines)):
        line = lines[number]
        if taken[number]:
            break
        if not line.text:
            if number - last > _GAP and quote < 0:
                break
            continue
        if quote < 0 and not (line.indented or _is_code(line)):
            below = lines[number + 1].text if number + 1 < len(lines) else ""
            if below and _REMARK.match(line.text):
                continue
            break
        if len(_QUOTES.findall(line.text)) % 2:
            quote, before = (number, last) if quote < 0 else (-1, before)
        elif quote < 0 and not line.text.lstrip().startswith("*"):
            filled.append(line)
        last = number
    return (last if quote < 0 else before), filled


def _opens(line: _Line) -> bool:
    return _may_be_code(line) and _OPENING.match(line.text.lstrip()) is not None


def _is_code(line: _Line) -> bool:
    """Whether a line is a statement, or the beginning or the end of one, by itself."""
    if not _may_be_code(line):
        return False
    if line.text[-1] == ";" and _MARKED.search(line.text):
        return True
    return any(pattern.match(line.text) for pattern in (_STATEMENT, _KEY)) or _opens(line)


def _may_be_code(line: _Line) -> bool:
    return 0 < len(line.text) <= _LONGEST_CODE and (line.text[-1] not in ".?!" or line.text.lstrip()[:1] in "#/*")


def _html(text: str, fenced: Sequence[Stretch]) -> Iterator[Stretch]:
    """Tables with cells, and preformatted text; what is between fences is neither."""
    opened: dict[str, list[int]] = {"table": [], "pre": []}
    cell = -1  # where the last one begins
    for start, end in complement(fenced, len(text)):
        for tag in _TAG.finditer(text, start, end):
            closes, name = tag[1], tag[2].lower()
            if name not in opened:
                cell = cell if closes else tag.start()
            elif not closes:
                opened[name] += [] if tag[0].endswith("/>") else [tag.start()]
            elif opened[name]:
                begin = opened[name].pop()
                if name == "pre" or cell > begin:
                    yield begin, tag.end()
