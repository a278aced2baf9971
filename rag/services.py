"""The one place where things are put together: settings in, everything loaded out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, cast

from ingest.chunk import CHUNKER, Chunker
from ingest.embed import Embedder, identify, load_embedder
from ingest.errors import BadRequest, ModelUnavailable, RerankFailed, StoreUnavailable, UserError
from ingest.files import remove_partials
from ingest.originals import Originals
from ingest.pdf import has_words
from ingest.pipeline import Tools
from ingest.queue import UploadQueue
from ingest.sandbox import Sandbox
from ingest.settle import everybody, orphans, settle
from ingest.store import LOCAL_OWNER, Recipe, Store, Stored, library_fingerprint
from ingest.types import Document
from rag.access import read_access
from rag.answer import Answerer
from rag.checks import load_languages
from rag.limits import Limits, limited_answerer
from rag.pipeline import Stages
from rag.rerank import Reranker, load_reranker
from rag.settings import Settings, read_settings
from rag.threshold import Threshold, apply_threshold, read_threshold, threshold_file

log = logging.getLogger(__name__)

UNDO_SECONDS = 3600.0
"""How long a deleted original can wait in the trash for its undo, at most."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Deleted:
    """A document taken out of the library, with all that is needed to put it back."""

    stored: Stored
    owner: str


class Lazy(Generic[T]):
    """A thing made at its first use, once, whoever asks first; a failure is raised and tried again."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: list[T] = []

    def get(self) -> T:
        """The thing; waits while another thread makes it."""
        with self._lock:
            if not self._made:
                self._made.append(self._make())
            return self._made[0]

    def put(self, thing: T) -> None:
        """Use this one from now on."""
        with self._lock:
            self._made[:] = [thing]

    @property
    def made(self) -> T | None:
        """The thing if it is there already."""
        return self._made[0] if self._made else None


class Background(Protocol):
    """Somebody's work that goes on without a page; `close` ends it."""

    def close(self) -> None:
        """Stop, and wait for the end."""


B = TypeVar("B", bound=Background)


class Services:
    """Everything that stays loaded; models load at their first use, or all together in `warm_up`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.access = read_access(settings)
        self.limits = Limits(settings)
        self.originals = Originals(settings.files, settings.trash)
        self._identity = Lazy(lambda: identify(settings.embedder))
        self._embedder = Lazy(lambda: load_embedder(self._identity.get()))
        self._reranker = Lazy(lambda: _reranker_or_reason(settings.reranker))
        self._store = Lazy(self._open_store)
        self._answerer = Lazy(lambda: limited_answerer(settings, self.score_sentences))
        self._sandbox, self._viewer = (
            Lazy(lambda: Sandbox(seconds=settings.parse_seconds, memory_mb=settings.parse_memory_mb))
            for _ in range(2)
        )
        self._chunker = Lazy(lambda: Chunker(self._identity.get().folder / "tokenizer.json"))
        self.queue = UploadQueue(
            settings.queue,
            self.originals,
            lambda: self.tools,
            store=lambda: self.store,
            max_bytes=settings.max_upload_mb * 1_000_000,
            max_open=settings.max_open_uploads,
            max_waiting=settings.max_queue,
        )
        self._background: dict[tuple[object, str], Background] = {}
        self._finding = threading.Lock()
        self.originals.purge(older_than=UNDO_SECONDS)

    @property
    def store(self) -> Store:
        """The index; needs no model. Raises IndexLocked, IndexMismatch, StoreUnavailable, ModelUnavailable."""
        return self._store.get()

    @property
    def recipe(self) -> Recipe:
        """What the vectors of the index are made with. Raises ModelUnavailable."""
        identity = self._identity.get()
        return Recipe(identity.id, CHUNKER, identity.dimension)

    @property
    def embedder(self) -> Embedder:
        """The bi-encoder. Raises ModelUnavailable."""
        return self._embedder.get()

    @property
    def stages(self) -> Stages:
        """`stages_of` the local owner."""
        return self.stages_of(LOCAL_OWNER)

    def stages_of(self, owner: str) -> Stages:
        """What a question of an owner runs through; a reranker that cannot be loaded is said, not hidden.

        A threshold that the owner chose on the Evidence page is in the reranker as long as it fits model and
        library.
        """
        reranker, problem = self._reranker.get()
        threshold = self.threshold(owner=owner)
        if reranker and threshold:
            reranker = apply_threshold(reranker, threshold, self.library_fingerprint(owner=owner))
        return Stages(self.embedder, self.store, reranker, problem)

    def threshold(self, *, owner: str = LOCAL_OWNER) -> Threshold | None:
        """The threshold that an owner chose, whether it still fits or not. Raises StoreUnavailable."""
        return read_threshold(threshold_file(self.settings.data, owner))

    def library_fingerprint(self, *, owner: str = LOCAL_OWNER) -> str:
        """The same for the same documents, cut and embedded alike. Raises StoreUnavailable."""
        return library_fingerprint(self.store.documents(owner=owner), self.embedder.id)

    @property
    def answerer(self) -> Answerer:
        """The LLM, or the extractive stand-in."""
        return self._answerer.get()

    @property
    def tools(self) -> Tools:
        """What ingest needs."""
        return Tools(
            self._sandbox.get(), self._chunker.get(), self.embedder, self.store, self.settings.max_pages
        )

    @property
    def viewer(self) -> Sandbox:
        """Where pages are drawn for people to look at, who do not wait for a running ingest."""
        return self._viewer.get()

    @property
    def warm(self) -> bool:
        """True when the models are loaded and the first question will not wait for them."""
        return self._embedder.made is not None and self._reranker.made is not None

    def _open_store(self) -> Store:
        owners = everybody(self.queue, self.originals)
        kept = sum(len(orphans(self.queue, self.originals, (), owner=owner)) for owner in owners)
        store = open_store(self.settings, self.recipe, kept=kept)
        store.sweep()
        self._tidy_evidence()
        settle(self.queue, self.originals, store, shared=bool(self.settings.qdrant_url))
        return store

    def _tidy_evidence(self) -> None:
        try:
            remove_partials(self.settings.data / "evidence")
        except OSError as error:
            log.warning("What a killed process left among the evidence stays: %s", error)

    def score_sentences(self, question: str, sentences: Sequence[str]) -> Sequence[float]:
        """How well each sentence answers the question, by the reranker.

        By cosine where the reranker is missing or fails; the page that asks shows that problem itself.
        """
        vectors = self.embedder.embed([question, *sentences])
        cosines: list[float] = (vectors[1:] @ vectors[0]).tolist()
        reranker, _ = self._reranker.get()
        if reranker is None:
            return cosines
        try:
            scores = reranker.score(question, sentences, cosines).total
        except RerankFailed:
            log.exception("Sentences are chosen by cosine")
            return cosines
        return [float(score) for score in scores]

    def use_models(self, embedder: Embedder, reranker: Reranker | None, problem: str = "") -> None:
        """Use models that are loaded already, or none with the reason why."""
        self._embedder.put(embedder)
        self._reranker.put((reranker, problem))

    def open_ahead(self) -> None:
        """Begin to open the index in a thread of its own; what fails is raised where the index is asked for."""

        def open_index() -> None:
            with suppress(UserError):
                self._store.get()

        threading.Thread(target=open_index, name="open-index", daemon=True).start()

    def warm_up(self) -> None:
        """Load everything now; what cannot be loaded is reported at its first use."""
        try:
            _ = self.stages, self.answerer, load_languages()
            self.viewer.call(has_words, "")  # starts its worker
        except UserError as error:
            log.warning("%s", error)

    def delete(self, doc_id: str, *, owner: str = LOCAL_OWNER) -> Deleted:
        """Take a document out of the index and its PDF off the disk, so that `undo` can bring both back.

        Raises BadRequest where there is no such document.
        """
        stored = self.store.take(doc_id, owner=owner)
        if stored is None:
            raise BadRequest(f"There is no document {doc_id[:12]}... in the library.")
        # the file decides: were the process killed in between, the next one would finish the deletion
        self.originals.discard(doc_id, owner=owner)
        try:
            self.store.delete(doc_id, owner=owner)
        except StoreUnavailable:
            self.originals.restore(doc_id, owner=owner)
            raise
        self.originals.purge(older_than=UNDO_SECONDS)
        return Deleted(stored, owner)

    def undo(self, deleted: Deleted) -> Document:
        """Put a deleted document back as it was."""
        stored = deleted.stored
        self.originals.restore(stored.document.id, owner=deleted.owner)
        self.store.add(stored.document, stored.chunks, stored.vectors, owner=deleted.owner)
        return stored.document

    def forget(self, deleted: Deleted) -> None:
        """Make a deletion final."""
        self.originals.forget(deleted.stored.document.id, owner=deleted.owner)

    def background(self, kind: Callable[[Services, str], B], owner: str) -> B:
        """An owner's background work of one kind, the same object for every page; made at its first use."""
        with self._finding:
            found = self._background.get((kind, owner)) or kind(self, owner)
            self._background[kind, owner] = found
        return cast("B", found)

    def close(self) -> None:
        """Stop what works in the background, the queue and the workers, and let go of the index."""
        for work in list(self._background.values()):
            work.close()
        self.queue.close()
        for sandbox in (self._sandbox, self._viewer):
            if sandbox.made:
                sandbox.made.close()
        if self._store.made:
            self._store.made.close()


def open_store(settings: Settings, recipe: Recipe, *, kept: int = 0) -> Store:
    """Qdrant's server where `QDRANT_URL` is set, else the embedded index in the data folder.

    With documents `kept`, one that is gone is told and not made anew.
    """
    if settings.qdrant_url:
        from ingest.store.server import open_server_store

        return open_server_store(
            settings.qdrant_url, settings.qdrant_api_key, settings.qdrant_collection, recipe, kept=kept
        )
    from ingest.store.edge import open_edge_store

    return open_edge_store(settings.index, recipe, kept=kept)


@contextmanager
def opened(settings: Settings) -> Iterator[Services]:
    """Services for the length of a command."""
    services = Services(settings)
    try:
        yield services
    finally:
        services.close()


_SHARED = Lazy(lambda: Services(read_settings()))


def shared_services() -> Services:
    """The services of this process, made at the first call: one index, one queue, each model once."""
    return _SHARED.get()


def _reranker_or_reason(name: str) -> tuple[Reranker | None, str]:
    try:
        return load_reranker(name), ""
    except ModelUnavailable as error:
        return None, str(error)
