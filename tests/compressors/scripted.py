"""A writer that says what a test wants it to say, and remembers what it was asked."""

from types import SimpleNamespace

from ragzip.types import Generation


class Scripted:
    """Prompts cost a token for every four characters of the user's turn."""

    def __init__(self, say, room=2000, stopped=True, doubt=lambda prompt: 0.0):
        self.say, self.most, self.stopped, self.doubt = say, room, stopped, doubt
        self.asked, self.limits = [], []

    def room(self, max_new_tokens, window=None):
        return min(self.most, window or self.most)

    def encode(self, request):
        return SimpleNamespace(text=request.user, request=request, length=len(request.user) // 4)

    def write_unless(self, prompts, *, max_new_tokens, word, least, batch_size=1):
        written = self.write(prompts, max_new_tokens=max_new_tokens)
        return [(text, self.doubt(prompt.text)) for text, prompt in zip(written, prompts, strict=True)]

    def write(self, prompts, *, max_new_tokens, stop=(), batch_size=1):
        self.asked += [prompt.text for prompt in prompts]
        self.limits.append(max_new_tokens)
        return [self._one(prompt.text) for prompt in prompts]

    def _one(self, prompt):
        text = self.say(prompt) if callable(self.say) else self.say
        return Generation(text, 0, 0, 0.0, 0.0, stopped=self.stopped)


def install(monkeypatch, say, **options):
    """Puts one in the place of every language model."""
    writer = Scripted(say, **options)
    monkeypatch.setattr("ragzip.compressors._writer.load_writer", lambda name, **_: writer)
    return writer
