"""kill -9 at random moments of ingest, delete, undo and re-ingest: nothing lost, nothing doubled, nothing half.

    python -m bench.crash [--kills 100] [--evidence 20] [--real 3] [--seed 0]

A child process uses the library as the app does: the product's services, queue, originals, parser worker and
Qdrant Edge, with tiny real PDFs. It tells in a file what it is about to do and what was done. It is killed at a
moment drawn from its whole life, from the start of Python to the end of closing. Then the library is opened again,
the queue is worked off, and everything is compared: files, records, queue, index, and a fresh index of the same
files. The bi-encoder is a stand-in that takes its time, but for `--real` kills. `--evidence` kills are of a child
that writes question sets, runs, votes and thresholds. Exits with 1 on any violation.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from bench.timing import table
from ingest.embed import Embedder, Vectors, unit_rows
from ingest.originals import Record
from ingest.pipeline import Tools, ingest
from ingest.queue import OPEN, State
from ingest.sandbox import Sandbox
from ingest.store import LOCAL_OWNER, Stored
from ingest.store.edge import EdgeStore, open_edge_store
from ingest.store.points import Where
from rag.evidence.questions import Judgement, Question, QuestionSet
from rag.evidence.run import Progress, corpus_of, make_header, run
from rag.evidence.sets import EvidenceStore
from rag.evidence.variants import Plan, make_plan
from rag.services import Lazy, Services
from rag.settings import Settings
from rag.threshold import Threshold
from rag.votes import Vote, VoteLog
from tests.fakes import length_reranker
from tests.pdfs import text_pdf

ROOT = Path(__file__).resolve().parents[1]
FILES = 6
STEPS = 12
"""So many things does a child do before it closes, if it is let."""
FOLDER_KILLS = 12
"""After so many kills a new data folder is begun, so that the making of one is killed, too."""
NAMES = ("sweet", "sour")
STATES = 24
OWNER = LOCAL_OWNER


class SlowEmbedder:
    """Words to vectors by their hash; takes its time, as a model does, and tells the state before and after."""

    name = "words by hash"
    id = "words-by-hash@1"
    dimension = 384
    device = "cpu, float32"

    def __init__(self, seconds: float = 0.0, tell: Callable[[str], None] = lambda _: None) -> None:
        self._seconds = seconds
        self._tell = tell

    def embed(
        self, texts: Sequence[str], *, on_progress: Callable[[int, int], None] | None = None
    ) -> Vectors:
        """One vector for each text."""
        self._tell("embedding")
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                vectors[row, int(hashlib.sha256(word.encode()).hexdigest(), 16) % self.dimension] += 1
            time.sleep(self._seconds)
            if on_progress:
                on_progress(row + 1, len(texts))
        self._tell("writing")
        return unit_rows(vectors)

    def reads_whole(self, text: str) -> bool:
        """All of them."""
        return bool(text)


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill: what the child was doing, and what was wrong afterwards."""

    state: str
    violations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fate:
    """What the child said about one file: whether it must be there, and whether that was being changed."""

    there: bool
    changing: bool


def pdfs() -> dict[str, bytes]:
    """The PDFs by name: 1 to FILES pages, no two alike."""
    return {
        f"file {number}.pdf": text_pdf(
            [
                [f"document {number} page {page}", f"apple pear plum word{number}x{page}"]
                for page in range(number)
            ],
            title=f"Title {number}",
        )
        for number in range(1, FILES + 1)
    }


def services_of(folder: Path, embedder: Embedder | None, sandbox: Sandbox | None = None) -> Services:
    """The product's services; with an embedder or a parser, those in the place of their own."""
    services = Services(Settings(data=folder / "data"))
    if embedder:
        services.use_models(embedder, None, "none in this benchmark")
    if sandbox:
        services._sandbox.put(sandbox)
    return services


def close_but_parser(services: Services) -> None:
    """Close all but the parser, which serves others."""
    services._sandbox = Lazy(lambda: Sandbox(seconds=1, memory_mb=1))
    services.close()


# --- The child -------------------------------------------------------------------------------------------


class Teller:
    """What the child is doing, in a file that a kill leaves as it is."""

    def __init__(self, folder: Path) -> None:
        self._state = os.open(folder / "state", os.O_CREAT | os.O_RDWR)
        self._ledger = os.open(folder / "ledger", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        self.doing("starting")
        self.ingesting("idle")

    def doing(self, state: str) -> None:
        """What the main thread does now."""
        os.pwrite(self._state, state.ljust(STATES).encode(), 0)

    def ingesting(self, state: str) -> None:
        """What the queue's thread does now."""
        os.pwrite(self._state, state.ljust(STATES).encode(), STATES)

    def note(self, line: str) -> None:
        """A line of the ledger: "add SHA", "added SHA" and the like, before and after."""
        os.write(self._ledger, f"{line}\n".encode())


def child(folder: Path, seed: int, *, steps: int, real: bool) -> None:
    """Live: start, open, do so many things while the queue works, close."""
    teller = Teller(folder)
    services = services_of(folder, None if real else SlowEmbedder(0.05, teller.ingesting))
    teller.doing("opening")
    _ = services.store
    write = services.queue._set

    def write_and_tell(job_id: int, state: State, message: str) -> None:
        write(job_id, state, message)
        teller.ingesting(state if state in OPEN else "idle")

    services.queue._set = write_and_tell  # type: ignore[method-assign]
    services.queue.start()
    chance = random.Random(seed)
    for _ in range(steps):
        _step(services, teller, chance)
        teller.doing("waiting")
        time.sleep(chance.uniform(0, 0.2))
    teller.doing("closing")
    services.close()


def _step(services: Services, teller: Teller, chance: random.Random) -> None:
    name, data = chance.choice(sorted(pdfs().items()))
    doc_id = hashlib.sha256(data).hexdigest()
    waiting = {job.doc_id for job in services.queue.jobs(owner=OWNER) if job.open}
    there = {document.id for document in services.store.documents(owner=OWNER)}
    if doc_id in waiting:
        return
    if doc_id not in there or chance.random() < 0.2:
        teller.doing("uploading")
        teller.note(f"add {doc_id}")
        services.queue.add(name, data, owner=OWNER)
        teller.note(f"added {doc_id}")
    else:
        _delete(services, teller, chance, doc_id)
    for job in services.queue.jobs(owner=OWNER):
        if job.state in ("done", "unchanged") and chance.random() < 0.5:
            services.queue.dismiss(job.id, owner=OWNER)


def _delete(services: Services, teller: Teller, chance: random.Random, doc_id: str) -> None:
    teller.doing("deleting")
    teller.note(f"delete {doc_id}")
    deleted = services.delete(doc_id, owner=OWNER)
    teller.note(f"deleted {doc_id}")
    if chance.random() < 0.5:
        teller.doing("undoing")
        teller.note(f"undo {doc_id}")
        services.undo(deleted)
        teller.note(f"undone {doc_id}")
    elif chance.random() < 0.5:
        services.forget(deleted)


# --- The parent ------------------------------------------------------------------------------------------


class Parent:
    """Kills children in one data folder, and looks at what they leave."""

    def __init__(self, folder: Path, embedder: Embedder, sandbox: Sandbox) -> None:
        self._folder = folder
        self._embedder = embedder
        self._sandbox = sandbox
        self.life = 0.0
        """Seconds from a child's first line to its end; 0 before one was let live."""
        folder.mkdir(parents=True, exist_ok=True)

    def kill(self, chance: random.Random, *arguments: str) -> str | None:
        """Start a child and kill it at a random moment; returns its state, None where it had ended before.

        One in ten is killed in its first second, in which Python starts; the others after their first line.
        """
        if not self.life:
            self.life = self._live(self._start(chance, *arguments))
        process = self._start(chance, *arguments)
        if chance.random() < 0.1:
            moment = chance.uniform(0, 1)
        else:
            self._wait_for_first_line(process)
            moment = chance.uniform(0, self.life)
        try:
            process.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return self._state()
        self._ended_well(process)
        self.life = max(0.5, self.life * 0.9)
        return None

    def _live(self, process: subprocess.Popen[bytes]) -> float:
        """Seconds from the first line of a child to its end."""
        self._wait_for_first_line(process)
        begin = time.monotonic()
        process.wait()
        self._ended_well(process)
        return time.monotonic() - begin

    def _wait_for_first_line(self, process: subprocess.Popen[bytes]) -> None:
        while not (self._folder / "state").exists() and process.poll() is None:
            time.sleep(0.002)

    def _ended_well(self, process: subprocess.Popen[bytes]) -> None:
        if process.returncode:
            said = (self._folder / "stderr").read_text()
            raise SystemExit(f"A child ended with {process.returncode} before it was killed.\n{said}")

    def check(self) -> list[str]:
        """Open the library again, work off the queue, and compare everything; returns what is wrong."""
        services = services_of(self._folder, self._embedder, self._sandbox)
        try:
            store = services.store
            services.queue.run_pending()
            assert isinstance(store, EdgeStore)
            wrong = [*self._check_queue(services), *self._check_points(services, store)]
            return wrong + self._check_search(services, store)
        finally:
            close_but_parser(services)

    def _start(self, chance: random.Random, *arguments: str) -> subprocess.Popen[bytes]:
        (self._folder / "state").unlink(missing_ok=True)
        command = [sys.executable, "-m", "bench.crash", "--child", str(self._folder), *arguments]
        with (self._folder / "stderr").open("w") as said:
            return subprocess.Popen([*command, "--seed", str(chance.randrange(10**9))], cwd=ROOT, stderr=said)

    def _state(self) -> str:
        try:
            text = (self._folder / "state").read_bytes().decode()
        except FileNotFoundError:
            return "starting Python"
        doing, ingesting = text[:STATES].strip(), text[STATES:].strip()
        return ingesting if doing == "waiting" else doing

    def _check_queue(self, services: Services) -> list[str]:
        jobs = services.queue.jobs(owner=OWNER)
        return [
            f"job {job.id} of {job.source} is {job.state}: {job.message}"
            for job in jobs
            if job.state not in ("done", "unchanged")
        ]

    def _check_points(self, services: Services, store: EdgeStore) -> list[str]:
        wrong = []
        documents = {document.id: document for document in store.documents(owner=OWNER)}
        data = self._folder / "data"
        if len(documents) != len(store.documents(owner=OWNER)):
            wrong.append("a document is there twice")
        points = sum(1 for _ in store._scan(Where(), payload=False))
        expected = 1 + sum(1 + document.chunks for document in documents.values())
        if points != expected:
            wrong.append(f"{points} points where {expected} belong")
        if services.originals.files(owner=OWNER) != set(documents):
            wrong.append("files and documents differ")
        if services.originals.records(owner=OWNER) != set(documents):
            wrong.append("records and documents differ")
        for doc_id, document in documents.items():
            record = services.originals.record(doc_id, owner=OWNER)
            if record != Record(OWNER, document.source, document.added):
                wrong.append(f"the record of {document.source} is {record}")
            path = services.originals.path(doc_id, owner=OWNER)
            if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() != doc_id:
                wrong.append(f"the file of {document.source} has other bytes")
        wrong += [f"{path.name} is left over" for path in data.rglob("*.part")]
        known = {hashlib.sha256(content).hexdigest(): name for name, content in pdfs().items()}
        for doc_id, fate in self._fates().items():
            if not fate.changing and fate.there != (doc_id in documents):
                wrong.append(f"{known[doc_id]} should {'' if fate.there else 'not '}be there")
            if doc_id in documents and documents[doc_id].source != known[doc_id]:
                wrong.append(f"{known[doc_id]} is called {documents[doc_id].source}")
        self._settle_ledger(set(documents))
        return wrong

    def _fates(self) -> dict[str, Fate]:
        path = self._folder / "ledger"
        fates: dict[str, Fate] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            word, doc_id = line.split()
            before = fates.get(doc_id, Fate(there=False, changing=False))
            match word:
                case "add" | "delete" | "undo":
                    fates[doc_id] = Fate(before.there, changing=True)
                case "added" | "undone":
                    fates[doc_id] = Fate(there=True, changing=False)
                case "deleted":
                    fates[doc_id] = Fate(there=False, changing=False)
        return fates

    def _settle_ledger(self, documents: set[str]) -> None:
        """What was in doubt is known now."""
        lines = [f"{'added' if doc_id in documents else 'deleted'} {doc_id}\n" for doc_id in self._fates()]
        with (self._folder / "ledger").open("a") as file:
            file.writelines(lines)

    def _check_search(self, services: Services, store: EdgeStore) -> list[str]:
        """Compare ids, vectors and cosines with a fresh index of the same files."""
        wrong = []
        with (
            TemporaryDirectory(prefix="crash-fresh-") as folder,
            closing(open_edge_store(Path(folder) / "index", services.recipe)) as fresh,
        ):
            tools = services.tools
            own = Tools(tools.sandbox, tools.chunker, tools.embedder, fresh, tools.max_pages)
            documents = store.documents(owner=OWNER)
            for document in documents:
                path = services.originals.path(document.id, owner=OWNER)
                if path.exists():
                    ingest(
                        path,
                        own,
                        doc_id=document.id,
                        source=document.source,
                        owner=OWNER,
                        added=document.added,
                    )
                wrong += _differences(
                    document.source,
                    store.take(document.id, owner=OWNER),
                    fresh.take(document.id, owner=OWNER),
                )
            for words in ("apple pear", "document page", "word3x1"):
                vector = services.embedder.embed([words])[0]
                ours, theirs = (
                    [(chunk.id, cosine) for chunk, cosine in one.search(vector, 50)] for one in (store, fresh)
                )
                same = [id_ for id_, _ in ours] == [id_ for id_, _ in theirs]
                if not same or any(abs(a[1] - b[1]) > 1e-6 for a, b in zip(ours, theirs, strict=True)):
                    wrong.append(f"a search for {words!r} finds something else than in a fresh index")
        return wrong


def _differences(source: str, ours: Stored | None, theirs: Stored | None) -> list[str]:
    if ours is None or theirs is None:
        return [f"{source} cannot be taken out"]
    if ours.document != theirs.document or ours.chunks != theirs.chunks:
        return [f"{source} has other chunks than in a fresh index"]
    if not np.allclose(ours.vectors, theirs.vectors, atol=1e-6):
        return [f"{source} has other vectors than in a fresh index"]
    return []


def library_kills(
    folder: Path,
    kills: int,
    seed: int,
    *,
    real: bool = False,
    steps: int = STEPS,
    say: Callable[[Kill], None] = lambda _: None,
) -> list[Kill]:
    """Kill a child that uses a library so often, and check after each."""
    embedder: Embedder = _real_embedder() if real else SlowEmbedder()
    arguments = ["--steps", str(steps), *(["--real-model"] if real else [])]
    chance = random.Random(seed)
    done: list[Kill] = []
    with Sandbox(seconds=30, memory_mb=1500) as sandbox:
        parent = Parent(folder / "0", embedder, sandbox)
        while len(done) < kills:
            state = parent.kill(chance, *arguments)
            violations = parent.check()
            if state is None and not violations:
                continue
            done.append(Kill(state or "ended by itself", tuple(violations)))
            say(done[-1])
            if len(done) % FOLDER_KILLS == 0:
                life = parent.life
                parent = Parent(folder / str(len(done)), embedder, sandbox)
                parent.life = life
    return done


def _real_embedder() -> Embedder:
    from ingest.embed import identify, load_embedder

    return load_embedder(identify())


# --- Question sets, runs, votes, thresholds ---------------------------------------------------------------


def question_set(name: str) -> QuestionSet:
    """One of two sets that replace each other: a reader finds one of them, whole."""
    questions = tuple(
        Question(f"{name}{number}", f"{name} apple {number}", (Judgement("file 3.pdf", (1,)),))
        for number in range(40)
    )
    return QuestionSet("fruit", questions)


def evidence_child(folder: Path, seed: int) -> None:
    """Replace a set and a threshold, vote, and run a set again and again."""
    teller = Teller(folder)
    chance = random.Random(seed)
    with closing(_evidence_services(folder)) as services:
        kept = EvidenceStore(services.settings.data)
        log = VoteLog(services.settings.data / "votes.sqlite3")
        while True:
            name = chance.choice(NAMES)
            teller.doing("saving a set")
            kept.save(question_set(name))
            teller.doing("choosing a threshold")
            kept.choose_threshold(Threshold(1.0, name, name * 200, name * 200))
            teller.doing("voting")
            turn = str(time.time_ns())
            teller.note(f"vote {turn}")
            log.add(_vote(turn))
            teller.note(f"voted {turn}")
            teller.doing("running")
            made = run(
                question_set(name),
                services.embedder,
                services.store,
                _plan(),
                journals=kept.journals,
                on_progress=partial(_note_progress, teller, name),
            )
            teller.doing("keeping a run")
            kept.keep(made)


def _note_progress(teller: Teller, name: str, progress: Progress) -> None:
    teller.note(f"run{name} {progress.done}")


def _vote(turn: str) -> Vote:
    return Vote(turn, "q", "same", "plain", "a", "r", "0", "1", "2026-01-01T00:00:00+00:00")


def _plan() -> Plan:
    return make_plan([length_reranker()], (10,))


def _evidence_services(folder: Path) -> Services:
    return services_of(folder, SlowEmbedder())


class EvidenceParent:
    """Kills the other child, and looks at what it leaves."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        with closing(_evidence_services(folder)) as services:
            for name, data in pdfs().items():
                services.queue.add(name, data, owner=OWNER)
            services.queue.run_pending()

    def kill(self, chance: random.Random) -> Kill:
        """Let a child live for up to two seconds, kill it, and look."""
        (self._folder / "state").unlink(missing_ok=True)
        (self._folder / "ledger").unlink(missing_ok=True)
        command = [sys.executable, "-m", "bench.crash", "--evidence-child", str(self._folder)]
        process = subprocess.Popen([*command, "--seed", str(chance.randrange(10**9))], cwd=ROOT)
        time.sleep(chance.uniform(0.5, 3.0))
        process.send_signal(signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:
            raise SystemExit(f"A child ended with {process.returncode} before it was killed.")
        path = self._folder / "state"
        state = path.read_bytes()[:STATES].decode().strip() if path.exists() else "starting Python"
        return Kill(state, tuple(self._check()))

    def _check(self) -> list[str]:
        wrong = []
        with closing(_evidence_services(self._folder)) as services:
            _ = services.store
            kept = EvidenceStore(services.settings.data)
            if kept.names() and kept.questions("fruit") not in [question_set(name) for name in NAMES]:
                wrong.append("a question set is neither the old nor the new one")
            threshold = kept.threshold
            if threshold and threshold.corpus != threshold.reranker * 200:
                wrong.append("a threshold is neither the old nor the new one")
            votes = {vote.turn for vote in VoteLog(services.settings.data / "votes.sqlite3").votes()}
            lines = [line.split() for line in self._ledger()]
            if not {turn for word, turn in lines if word == "voted"} <= votes:
                wrong.append("a vote is lost")
            for summary in kept.runs():
                if not kept.run(summary.id).finished:
                    wrong.append(f"run {summary.id} is not whole")
            wrong += [f"{path.name} is left over" for path in services.settings.data.rglob("*.part")]
            wrong += self._check_journals(services, kept, lines)
        return wrong

    def _check_journals(self, services: Services, kept: EvidenceStore, lines: list[list[str]]) -> list[str]:
        """What was asked is not asked again, and the run ends as one that nobody killed."""
        wrong = []
        corpus = corpus_of(services.store, services.embedder)
        for name in NAMES:
            questions = question_set(name)
            key = make_header(questions, corpus, services.embedder, _plan()).key
            if not (kept.journals / f"{key}.jsonl").exists():
                continue
            told: list[int] = []
            made = run(
                questions,
                services.embedder,
                services.store,
                _plan(),
                journals=kept.journals,
                on_progress=lambda progress, told=told: told.append(progress.done),  # type: ignore[misc]
            )
            begun = [int(count) for word, count in lines if word == f"run{name}"]
            if begun and 0 < begun[-1] < len(questions.questions) and told[0] < begun[-1]:
                wrong.append(f"a run goes on at question {told[0]}, and {begun[-1]} were asked")
            fresh = run(questions, services.embedder, services.store, _plan())
            if [one.outcomes for one in made.results] != [one.outcomes for one in fresh.results]:
                wrong.append("a run that was killed ends with other numbers")
            kept.keep(made)
        return wrong

    def _ledger(self) -> list[str]:
        path = self._folder / "ledger"
        return path.read_text().splitlines() if path.exists() else []


def evidence_kills(
    folder: Path, kills: int, seed: int, *, say: Callable[[Kill], None] = lambda _: None
) -> list[Kill]:
    """Kill a child that writes evidence so often, and check after each."""
    chance = random.Random(seed)
    parent = EvidenceParent(folder / "evidence")
    done = []
    for _ in range(kills):
        done.append(parent.kill(chance))
        say(done[-1])
    return done


# --- The command -----------------------------------------------------------------------------------------


def main() -> int:
    arguments = _arguments()
    if arguments.child:
        child(arguments.child, arguments.seed, steps=arguments.steps, real=arguments.real_model)
        return 0
    if arguments.evidence_child:
        evidence_child(arguments.evidence_child, arguments.seed)
    begin = time.monotonic()
    with TemporaryDirectory(prefix="crash-") as name:
        folder = Path(name)
        done = library_kills(folder, arguments.kills, arguments.seed, say=_say)
        done += library_kills(folder / "real", arguments.real, arguments.seed, real=True, say=_say)
        done += evidence_kills(folder, arguments.evidence, arguments.seed, say=_say)
    kills = Counter(kill.state for kill in done)
    bad = Counter(kill.state for kill in done if kill.violations)
    rows = [[state, str(count), str(bad[state])] for state, count in kills.most_common()]
    rows.append(["all", str(kills.total()), str(bad.total())])
    print(table([["what it was doing", "kills", "with a violation"], *rows]))
    print(f"{time.monotonic() - begin:.0f} s")
    return 1 if bad else 0


def _say(kill: Kill) -> None:
    for violation in kill.violations:
        print(f"killed while {kill.state}: {violation}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--evidence", type=int, default=20)
    parser.add_argument("--real", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--evidence-child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--real-model", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
