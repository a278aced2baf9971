"""Entry point: one ASGI app of Streamlit pages, REST API and security headers over one set of services.

Start it with `second-look serve`, `python app.py` or `streamlit run app.py`.
"""

from __future__ import annotations

import sys
import threading
import tomllib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from urllib.parse import urlsplit

import narwhals.stable  # noqa: F401 - now: a page (altair) and the warm-up (scikit-learn) at once end in a deadlock
import streamlit as st
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send
from streamlit.components.v2 import manifest_scanner

from app_pages.parts.drawing import finish_pandas
from rag.access import LOOPBACK, check_address, check_reach, is_loopback, read_access
from rag.guard import Guard
from rag.services import Lazy, shared_services
from rag.settings import read_settings

HERE = Path(__file__).resolve().parent
# Streamlit puts this folder at the front of the path for each run of a page and takes it away again, unless it is
# there: an import in another thread at that moment skips an entry, and finds no module of site-packages
sys.path.append(str(HERE / "app_pages"))
# looking for components in other packages reads the metadata of all that are installed, and there are none here
manifest_scanner.scan_component_manifests = lambda max_workers=None: []  # noqa: ARG005
SETTINGS = read_settings()
ACCESS = read_access(SETTINGS)
check_reach(SETTINGS, ACCESS)
WARM_UP_AFTER = 2.0
"""Seconds that the first page, which somebody is waiting for, does not share the processor with the models."""


@asynccontextmanager
async def lifespan(_: st.App) -> AsyncIterator[None]:
    """Resume the upload queue, and load what the pages need while the first browser gets ready for them."""
    check_address(SETTINGS, st.get_option("server.address"))
    services = shared_services()
    services.queue.start()
    closing = threading.Event()
    warm_up = threading.Thread(target=_warm_up, args=(closing,), name="warm-up", daemon=True)
    warm_up.start()
    yield
    closing.set()
    services.close()
    # an interpreter that ends in the middle of loading a model aborts
    warm_up.join(timeout=30)


def _warm_up(closing: threading.Event) -> None:
    """Load what the first page needs, and then the first question: the models, and what its picture needs."""
    import_module("app_pages.ask")
    if closing.wait(WARM_UP_AFTER):
        return
    shared_services().warm_up()
    finish_pandas()
    import_module("app_pages.parts.movement")
    API.get()


def _create_api() -> ASGIApp:
    """Import what the first page does not need: FastAPI takes a fifth of a second."""
    from rag.api import create_api

    return create_api(shared_services)


API = Lazy(_create_api)


async def api(scope: Scope, receive: Receive, send: Send) -> None:
    """The REST API, made at the first request or by the warm-up."""
    made = API.made
    if made is None:
        made = await run_in_threadpool(API.get)
    await made(scope, receive, send)


def _hosts() -> frozenset[str]:
    """Names under which the app answers; none: under any, where nobody said what it is called."""
    if ACCESS.url:
        return LOOPBACK | {urlsplit(ACCESS.url).hostname or ""}
    return LOOPBACK if is_loopback(SETTINGS.host) else frozenset()


app = st.App(
    HERE / "app_pages" / "main.py",
    routes=[Mount("/api", api)],
    middleware=[Middleware(Guard, access=ACCESS, hosts=_hosts())],
    secrets=ACCESS.login.streamlit_secrets if ACCESS.login else None,
    lifespan=lifespan,
)


def run() -> None:
    """Serve until interrupted. Raises IndexLocked, IndexMismatch, StoreUnavailable before anything starts."""
    _ = shared_services().store
    address = ACCESS.url or f"http://{SETTINGS.host}:{SETTINGS.port}"
    print(f"Second Look is at {address}, for {ACCESS.reach(SETTINGS.host)}. Ctrl-C stops it.")
    app.run(
        config=_streamlit_config()
        | {
            "server.address": SETTINGS.host,
            "server.port": SETTINGS.port,
            "server.maxUploadSize": SETTINGS.max_upload_mb,
        }
    )


def _streamlit_config() -> dict[str, object]:
    """Options of .streamlit/config.toml as Streamlit's flat names, wherever the command is started from."""
    tables = tomllib.loads((HERE / ".streamlit" / "config.toml").read_text(encoding="utf-8"))
    return dict(_flat(tables))


def _flat(table: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


if __name__ == "__main__":
    run()
