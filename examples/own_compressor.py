"""A compressor of one's own in a few lines: keeps sentences that share words with the query.

Run: python examples/own_compressor.py
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import ragzip
from ragzip.compressors import Sentences, SentenceScorer


@dataclass(frozen=True, kw_only=True)
class SharedWords(SentenceScorer):
    """Scores a sentence by how many of the query's words it holds."""

    least_length: int = 3

    def score(self, query: ragzip.Query, groups: Sequence[Sentences]) -> list[list[float]]:
        asked = {word for word in self._words(query.text) if len(word) >= self.least_length}
        return [[float(len(asked & self._words(text))) for text in group.texts] for group in groups]

    @staticmethod
    def _words(text: str) -> set[str]:
        return set(re.findall(r"\w+", text.lower()))


PASSAGES = (
    ragzip.Passage(
        "1", "The lighthouse was built in 1871. Its keeper lived alone. The lamp burnt rape oil.", "Lighthouse"
    ),
    ragzip.Passage("2", "Rape oil was pressed in the village mill. The mill stood by the river.", "Mill"),
)

if __name__ == "__main__":
    context = ragzip.context_of(ragzip.Query("What did the lamp of the lighthouse burn?"), PASSAGES)
    result = (SharedWords(threshold=2) >> ragzip.Dedupe()).run([context])[0]
    for segment in result.context.segments:
        print(segment.text, segment.sources)
    for step in result.steps:
        print(step.name, step.status, step.tokens_in, step.tokens_out)
