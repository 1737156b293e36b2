"""Clusters of models that respond alike, found with UMAP and Gaussian mixtures, and how stable these clusters are."""

from __future__ import annotations

from flyxr.clustering.models import cluster, members
from flyxr.clustering.stability import cluster_stability

__all__ = ["cluster", "cluster_stability", "members"]
