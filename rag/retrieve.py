"""Question to hits: the bi-encoder's nearest chunks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ingest.store import LOCAL_OWNER, Store
from rag.types import Hit


def retrieve(
    vector: npt.NDArray[np.float32],
    store: Store,
    *,
    depth: int,
    owner: str = LOCAL_OWNER,
    doc_ids: Sequence[str] | None = None,
) -> tuple[Hit, ...]:
    """The `depth` chunks nearest to a question's vector, (dim,) float32 of unit length, best first."""
    found = store.search(vector, depth, owner=owner, doc_ids=doc_ids)
    return tuple(Hit(chunk, cosine, rank) for rank, (chunk, cosine) in enumerate(found, start=1))
