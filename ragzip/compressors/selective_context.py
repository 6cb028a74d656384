"""Selective Context: phrases that a language model could have guessed from their sentence are dropped."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from ragzip import text as texts
from ragzip.compressors._tokenwise import TokenScorer, Words
from ragzip.errors import ConfigError
from ragzip.models import GENERATOR, Dtype, check_options, perplexity
from ragzip.text import Stretch
from ragzip.types import Query

if TYPE_CHECKING:
    from ragzip.models.perplexity import Perplexity

Level = Literal["phrase", "sentence", "word"]

_LONGEST = 5  # words of a phrase; noun phrases are rarely longer
_KNOWN = 0.15  # share of its words by which a language is taken to be known
_OPENING, _CLOSING = "([{<\"'“‘«„¿¡", ".,;:!?…)]}>\"'”’»،؛؟。"
_MARKS = "".join(sorted({*_OPENING, *_CLOSING, *"-–—*_"}))

# Words that begin a phrase, and words that stand alone, of the languages whose nouns are known by such words.
_LANGUAGES = (
    (
        "a an the this that these those my your his her its our their some any each every no another such",
        "of in on at by for with from to into onto over under about after before between through during without "
        "within against among as than and or but nor so yet if because while although though when where whether which "
        "who whom whose what how why i you he she it we they me him us them is are was were be been being am has have "
        "had do does did will would can could shall should may might must not there here then",
    ),
    (
        "der die das den dem des ein eine einen einem einer eines dieser diese dieses diesen diesem mein dein sein "
        "ihr unser kein keine keinen jeder jede jedes",
        "in im an am auf aus bei beim mit nach seit von vom zu zum zur für durch gegen ohne um über unter vor "
        "zwischen während wegen und oder aber denn sondern wenn weil dass ob als wie wo wer was ich du er sie es wir "
        "mich dich sich uns ist sind war waren bin hat haben hatte hatten wird werden wurde wurden kann können muss "
        "müssen soll nicht auch nur noch so da",
    ),
    (
        "le la les l un une des du ce cet cette ces mon ma mes ton ta tes son sa ses notre nos votre vos leur leurs "
        "chaque aucun aucune",
        "de d à au aux en dans par pour sur sous avec sans entre vers chez contre depuis pendant et ou mais donc ni "
        "car si que qu qui quoi dont où quand comme je tu il elle on nous vous ils elles se est sont était étaient "
        "être a ont avait avaient avoir fut ne n pas y",
    ),
    (
        "el la los las un una unos unas este esta estos estas ese esa mi tu su sus nuestro nuestra cada ningún ninguna",
        "de del a al en con por para sin sobre entre desde hasta hacia contra durante y e o u pero ni si que quien "
        "cual cuando donde como yo él ella ellos ellas nos se lo le les es son era eran fue fueron ser está están ha "
        "han había haber no más muy",
    ),
    (
        "il lo la i gli le l un uno una questo questa questi queste quel quella mio tuo suo sua suoi nostro ogni "
        "nessun",
        "di del dello della dei degli delle a al alla ai alle da dal dalla in nel nella nei con su sul sulla per tra "
        "fra senza e ed o ma né se che chi cui quando dove come io tu lui lei noi voi loro si ci vi è sono era erano "
        "fu furono essere ha hanno aveva avere non più anche",
    ),
    (
        "o a os as um uma uns umas este esta esse essa meu minha seu sua seus nosso cada nenhum nenhuma",
        "de do da dos das em no na nos nas por pelo pela para com sem sobre entre até desde e ou mas nem se que quem "
        "qual quando onde como eu ele ela eles elas nós lhe é são era eram foi foram ser está estão há tem têm não "
        "mais",
    ),
    (
        "de het een deze dit die dat mijn jouw zijn haar ons onze hun elke elk geen",
        "van in op aan bij met naar uit voor door over onder tussen tegen zonder tijdens na en of maar want als omdat "
        "wanneer waar wie wat hoe ik jij hij zij wij ze we zich is was waren ben heeft hebben had hadden wordt worden "
        "werd werden kan kunnen niet ook er te dan",
    ),
)
_FUNCTION = tuple((frozenset(opens.split()), frozenset(alone.split())) for opens, alone in _LANGUAGES)


@dataclass(frozen=True)
class SelectiveContext(TokenScorer):
    """Keeps the phrases with the most information, as a language model sees it (arXiv:2310.06201).

    A phrase's score is its self-information: the mean loss of its tokens, in nats, each read behind what stands before
    it in its sentence. Sentences are read by themselves, as in the paper, since what comes late in a long text is
    easier to guess whatever it says. The question is not read: the method is the baseline for those that do. Without
    threshold, keep and budget, half of the tokens are kept.

    Unlike the public code, no sentence is cut, no parser is needed, and sentences are read in batches. Phrases are
    found by the articles they begin with, the prepositions, pronouns and auxiliaries that stand alone, and
    punctuation, in seven languages; a text in another one, or one too short to say, is taken word by word.

        >>> text = "The old museum of the city opens at nine, says the guide."
        >>> [text[start:end] for start, end in SelectiveContext().units(text)]
        ['The old museum', 'of', 'the city opens', 'at', 'nine,', 'says', 'the guide.']

    Attributes:
        level: What is kept or dropped whole: a ``phrase``, a ``sentence`` or a ``word``.
        model: A causal language model: a name that ``ragzip models`` lists, a folder, or a model of the hub.
        dtype: ``auto`` (bf16 where that is much faster, else fp32), ``fp32``, ``bf16`` or ``fp16``.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, ``cuda:N``, ``mps`` or ``xpu``.
    """

    level: Level = "phrase"
    model: str = GENERATOR
    dtype: Dtype = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.level not in get_args(Level):
            raise ConfigError("level", f"must be one of {', '.join(get_args(Level))}, not {self.level!r}")
        if not isinstance(self.model, str) or not self.model:
            raise ConfigError("model", f"must be the name or folder of a model, not {self.model!r}")
        check_options(self.dtype, self.device)

    def load(self) -> Perplexity:
        """The reader, loaded now unless it is already."""
        return perplexity.load_perplexity(self.model, dtype=self.dtype, device=self.device)

    def units(self, text: str) -> list[Stretch]:
        """Phrases, sentences or words, as ``level`` says."""
        if self.level == "sentence":
            return texts.sentences(text)
        return texts.words(text) if self.level == "word" else phrases(text)

    def score(self, query: Query, groups: Sequence[Words]) -> Sequence[Sequence[float]]:
        """Mean losses in nats, at least 0."""
        import numpy as np

        from ragzip.models.perplexity import Tokens

        reader = self.load()
        cut = [texts.sentences(group.text) for group in groups]
        pieces = reader.encode([g.text[a:b] for g, found in zip(groups, cut, strict=True) for a, b in found])
        losses = iter(zip(pieces, reader.read(pieces), strict=True))
        scores = []
        for group, found in zip(groups, cut, strict=True):
            read = [(start, *next(losses)) for start, _ in found]
            whole = Tokens(
                np.concatenate([tokens.ids for _, tokens, _ in read]),
                np.concatenate([tokens.starts + start for start, tokens, _ in read]),
                np.concatenate([tokens.ends + start for start, tokens, _ in read]),
            )
            values = np.concatenate([reading.losses for _, _, reading in read])
            scores.append(whole.means(values, group.spans).tolist())
        return scores


def phrases(text: str) -> list[Stretch]:
    """Phrases of a text, in order; they cover what is no white space, and are words where the language is not known.

    An article or the like begins a phrase of up to five words; a preposition, pronoun or auxiliary stands alone; and
    none goes on across punctuation or a line end.
    """
    spans = texts.words(text)
    bare = [text[start:end].strip(_MARKS).casefold() for start, end in spans]
    language = _language(bare)
    return spans if language is None else list(_phrases(text, spans, bare, *language))


def _phrases(
    text: str, spans: Sequence[Stretch], bare: Sequence[str], opens: frozenset[str], alone: frozenset[str]
) -> Iterator[Stretch]:
    begin, end, size, closed = 0, 0, 0, True
    for (start, stop), word in zip(spans, bare, strict=True):
        single = word in alone and word not in opens
        apart = closed or size == _LONGEST or single or word in opens or text[start] in _OPENING
        if size and (apart or "\n" in text[end:start]):
            yield begin, end
            size = 0
        begin = start if not size else begin
        end, size, closed = stop, size + 1, single or text[stop - 1] in _CLOSING
    if size:
        yield begin, end


def _language(bare: Sequence[str]) -> tuple[frozenset[str], frozenset[str]] | None:
    """The words of the language whose function words are most frequent, or None where no language has enough."""
    counts = Tally(bare)
    found = [sum(number for word, number in counts.items() if word in o or word in a) for o, a in _FUNCTION]
    best = max(range(len(found)), key=lambda i: (found[i], -i))
    return _FUNCTION[best] if found[best] >= max(_KNOWN * len(bare), 2) else None
