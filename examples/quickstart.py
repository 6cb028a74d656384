"""Index a folder, ask a question, see what compression saved. Run: python examples/quickstart.py docs/ "question"."""

import sys

import ragzip

folder, question = sys.argv[1], sys.argv[2]
ragzip.build_index(folder, "kb/")
generator = ragzip.HuggingFace(stop=("\n\n",))
pipeline = ragzip.Pipeline(generator, ragzip.for_index("kb/"), ragzip.SentenceFilter(budget=400))
answer = pipeline.answer(question)
print(answer.text)
print(f"{answer.compression.tokens_in} -> {answer.compression.tokens_out} tokens ({answer.compression.ratio:.1f}x)")
for citation in answer.citations:
    print(f"{citation.source}: {citation.text}")
