"""Codes of vectors whose centroids were trained together with an encoder of questions (JPQ, arXiv 2108.00644)."""
