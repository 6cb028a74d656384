"""A small data folder in the forms of the real one, with made-up sets."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

TOWNS = ("Alba", "Borgo", "Cella", "Dorno", "Elva", "Faro", "Gavi", "Homs", "Isola", "Jesi", "Kors", "Lodi")
LONG = "This paragraph of the development set is long. " * 40 + "Nobody may train on it."


def lines(path: Path, *rows: Any) -> None:
    """Writes JSON lines, compressed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def squad(path: Path, *paragraphs: tuple[str, str, list[tuple[str, str]]]) -> None:
    """Writes (title, paragraph, [(question, answer)]) in SQuAD's form."""
    data = []
    for number, (title, text, asked) in enumerate(paragraphs):
        questions = [
            {"id": f"{path.stem}{number}.{n}", "question": q, "answers": [{"text": a, "answer_start": text.index(a)}]}
            for n, (q, a) in enumerate(asked)
        ]
        data.append({"title": title, "paragraphs": [{"context": text, "qas": questions}]})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(json.dumps({"data": data}).encode()))


def town(name: str) -> str:
    """A paragraph with the founder in its second sentence."""
    return f"{name} is a town by the sea. It was founded by Count {name}son. Many people like its old harbour."


def write(folder: Path) -> Path:
    """The folder."""
    asked = [(name, town(name), [(f"Who founded {name}?", f"Count {name}son")]) for name in TOWNS]
    squad(folder / "squad" / "train-v1.1-part.json.gz", *asked)
    squad(
        folder / "squad" / "dev-v1.1.json.gz",
        ("Held", "A short paragraph of the development set. It is held out.", [("What is held out?", "It")]),
        ("Held", LONG, [("What is long?", "This paragraph")]),
    )
    lines(
        folder / "squad" / "train-answer-sentences.jsonl.gz",
        *(
            {"question": f"What about {n}?", "answer_sentence": f" {n} lies in the north of it. ", "question_id": n}
            for n in TOWNS
        ),
        {"question": "Empty?", "answer_sentence": " ", "question_id": "none"},
    )
    text = "The bridge is old. It crosses the river Po. Ships pass."
    asked_more = [
        {"question": "What does it cross?", "answer": "river Po"},
        {"question": "What is old?", "answer": "The"},
        {"question": "Why?", "answer": "Nobody knows"},
    ]
    lines(folder / "squad" / "train-extra-paragraphs.jsonl.gz", {"context": text, "qas": asked_more})
    lines(
        folder / "hotpotqa" / "train.jsonl.gz",
        *(
            {
                "_id": f"h{number}",
                "question": f"Which count founded the town where {name} Bell was born?",
                "answer": f"Count {name}son",
                "supporting_facts": [[f"{name} Bell", 0], [name, 1]],
                "context": [
                    [f"{name} Bell", [f"{name} Bell was born in {name}.", " He rang bells."]],
                    ["Bread", ["Bread is made of flour.", " It is eaten."]],
                    [name, [f"{name} is a town.", f" It was founded by Count {name}son.", " It is old."]],
                    ["Tea", ["Tea comes from China.", f" It reached {name} late."]],
                ],
            }
            for number, name in enumerate(TOWNS)
        ),
    )
    paragraphs = [
        ("Alba Bell", "Alba Bell was born in Alba. He rang bells.", True),
        ("Alba", town("Alba"), True),
        ("Held", "A short  paragraph of the Development set. It is held out.", True),
        ("Held", LONG, False),
        ("Tea", "Tea comes from China.", False),
    ]
    lines(
        folder / "musique" / "train.jsonl.gz",
        {
            "id": "m1",
            "question": "Who founded the place of birth of Alba Bell?",
            "answer": "Count Albason",
            "answer_aliases": [],
            "answerable": True,
            "question_decomposition": [
                {"id": 1, "question": "Where was Alba Bell born?", "answer": "Alba", "paragraph_support_idx": 0},
                {"id": 2, "question": "Who founded #1?", "answer": "Count Albason", "paragraph_support_idx": 1},
            ],
            "paragraphs": [
                {"idx": i, "title": t, "paragraph_text": p, "is_supporting": s}
                for i, (t, p, s) in enumerate(paragraphs)
            ],
        },
    )
    return folder
