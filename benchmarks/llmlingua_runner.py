"""The other side of ``llmlingua2.py``: runs under a Python that has the ``llmlingua`` package, and not ragzip.

Reads a job a line from standard input, ``{"texts": [...], "rate": 0.5}``, and answers each with a line: the seconds
that it took and what was left. The package asks a server for tiktoken's vocabulary when it is constructed; without a
network that fails, so tiktoken is given a stand-in that counts words. It is cheaper than the real one.
"""

import json
import re
import sys
import time


class Words:
    """Stands in for tiktoken's encoder."""

    def encode(self, text: str, **_: object) -> list[str]:
        """Words and marks."""
        return re.findall(r"\w+|[^\w\s]", text)


def main() -> None:
    folder, threads = sys.argv[1], int(sys.argv[2])
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever the package prints is no answer
    import tiktoken
    import torch

    tiktoken.encoding_for_model = lambda name: Words()
    torch.set_num_threads(threads)
    from llmlingua import PromptCompressor

    compressor = PromptCompressor(model_name=folder, use_llmlingua2=True, device_map="cpu")
    print(json.dumps({"ready": torch.__version__}), file=answers, flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        start = time.perf_counter()
        found = compressor.compress_prompt_llmlingua2(
            job["texts"], rate=job["rate"], use_context_level_filter=False, use_token_level_filter=True
        )
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "text": found["compressed_prompt"]}), file=answers, flush=True)


if __name__ == "__main__":
    main()
