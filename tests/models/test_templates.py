"""Chat templates that let a model think first, or tell it the date."""

import copy
import dataclasses
import datetime

import pytest

from ragzip.compressors._judge import _chat
from ragzip.compressors._writer import Request, Writer
from ragzip.models import load_causal_lm
from ragzip.models.chat import encode_prompt
from ragzip.types import Message

TURN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}THOUGHTS{% endif %}"
)
TURN += "{{ m.content }}<|im_end|>\n{% endfor %}"
NONE = "<think>\n\n</think>\n\n"
SWITCH = "{% if enable_thinking is defined and enable_thinking is false %}" + NONE + "{% endif %}"
BEGIN = "{% if add_generation_prompt %}<|im_start|>assistant\nSWITCH{% endif %}"
THINKING = TURN.replace("THOUGHTS", NONE) + BEGIN.replace("SWITCH", SWITCH)
ALWAYS = TURN.replace("THOUGHTS", NONE) + BEGIN.replace("SWITCH", "")
DATED = "Today: {{ strftime_now('%d %b %Y') }}\n" + TURN.replace("THOUGHTS", "") + BEGIN.replace("SWITCH", "")
LLAMA = (
    "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}{{ date_string }}\n"
)


@pytest.fixture
def with_template(tiny_lm_path):
    lm = load_causal_lm(tiny_lm_path, dtype="fp32", device="cpu")

    def make(template):
        tokenizer = copy.deepcopy(lm.tokenizer)
        tokenizer.chat_template = template
        return dataclasses.replace(lm, tokenizer=tokenizer)

    return make


def read(lm, prompt):
    return lm.text.tokenizer.decode(prompt.ids, skip_special_tokens=False)


def test_a_model_that_could_think_is_to_answer_at_once(with_template):
    lm = with_template(THINKING)
    asked = read(lm, encode_prompt(lm, [Message("user", ("Who?",))]))
    assert asked == f"<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n{NONE}"
    assert read(lm, Writer(lm).encode(Request("Who?"))) == asked
    going_on = read(lm, encode_prompt(lm, [Message("user", ("Who?",)), Message("assistant", ("It is",))]))
    assert going_on == f"<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n{NONE}It is"


@pytest.mark.parametrize("template", [THINKING, ALWAYS])
def test_the_judge_answers_behind_thoughts_that_are_left_out(with_template, template):
    words = _chat(with_template(template))
    assert words.tail == f"<|im_end|>\n<|im_start|>assistant\n{NONE}"
    assert words.answer == ""


def test_the_day_is_told_in_the_format_that_is_asked_for(with_template):
    form = "\n{{ strftime_now('%Y-%m-%d').split('-')[1] | int }} {{ strftime_now('%B %Y') }}\n"
    lm = with_template(form + TURN.replace("THOUGHTS", "") + BEGIN.replace("SWITCH", ""))
    own = lm.tokenizer.apply_chat_template([{"role": "user", "content": "Who?"}], tokenize=False)
    asked = read(lm, Writer(lm).encode(Request("Who?")))
    assert asked.startswith("\n7 July 2024\n")
    assert own.startswith("\n") and own.partition("<|im_start|>")[2] in asked


@pytest.mark.parametrize("template", [DATED, LLAMA + DATED])
def test_what_compressors_ask_does_not_hang_on_the_day(with_template, template):
    lm = with_template(template)
    day = datetime.date.today()
    asked = read(lm, encode_prompt(lm, [Message("user", ("Who?",))]))
    today = f"{day:%d %b %Y}"
    assert today in asked or datetime.date.today() != day
    for asked in (read(lm, Writer(lm).encode(Request("Who?"))), _chat(lm).head):
        assert "26 Jul 2024" in asked
        assert today not in asked


OPENS = BEGIN.replace("SWITCH", "<think>\n")


def test_a_template_that_always_begins_to_think_is_told_to_have_thought(with_template):
    lm = with_template(TURN.replace("THOUGHTS", "") + OPENS)
    asked = read(lm, encode_prompt(lm, [Message("user", ("Who?",))]))
    assert asked == f"<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n{NONE}"


SILENT = "{% for m in messages %}{% if m.role == 'user' %}U:{{ m.content }}\n{% endif %}{% endfor %}A:"


@pytest.mark.parametrize("said", ["Answer in German only.", "  With spaces \n"])
def test_a_template_without_a_system_turn_does_not_lose_it(with_template, said):
    lm = with_template(SILENT)
    asked = read(lm, encode_prompt(lm, [Message("system", (said,)), Message("user", ("Where?",))]))
    assert asked == f"U:{said}\n\nWhere?\nA:"
    whole = with_template(ALWAYS)
    turns = [Message("system", (said,)), Message("user", ("Where?",))]
    assert read(whole, encode_prompt(whole, turns)).startswith(f"<|im_start|>system\n{said}<|im_end|>")
