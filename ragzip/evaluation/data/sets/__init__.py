"""The named sets, one file for each family; the folder is the list of what there is."""

from ragzip.evaluation.data.sets import (
    domains,
    evidence,
    long_documents,
    multihop,
    natural_questions,
    retrieval,
    squad,
)
from ragzip.evaluation.data.sets._base import Content, NamedSet, Wanted

SETS: dict[str, NamedSet] = {
    found.name: found
    for family in (multihop, natural_questions, squad, evidence, long_documents, domains, retrieval)
    for found in family.SETS
}

__all__ = ["SETS", "Content", "NamedSet", "Wanted"]
