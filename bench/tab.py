"""A browser tab in front of the running app, without a browser: it speaks Streamlit's WebSocket protocol.

It does what the front end does: fetches the XSRF cookie, connects, runs the script, reports widgets, uploads files
to the address it was given, fetches images, and runs fragments again that ask for it. It draws nothing, but keeps
what the latest run of the script sent.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import httpx
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.Common_pb2 import FileURLs
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin, Subprotocol

XSRF = "_streamlit_xsrf"
ALERT_ERROR = 1
SECONDS_FOR_A_RUN = 180.0


class Broken(Exception):
    """The app did not do what a person would expect of it."""


@dataclass
class Seen:
    """What the latest run of the script has sent."""

    buttons: dict[str, str] = field(default_factory=dict)
    """Id to label."""
    texts: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    chat_input: str = ""
    uploader: str = ""


class Tab:
    """One page of the app, open. `on_problem` is told of every error that it shows or meets."""

    def __init__(self, url: str, on_problem: Callable[[str], None]) -> None:
        self.seen = Seen()
        self._url = url
        self._tell = on_problem
        self._http = httpx.AsyncClient(base_url=url, timeout=60)
        self._session = ""
        self._page = ""
        self._query = ""
        self._pages: dict[str, str] = {}
        self._started = 0
        self._finished = 0
        self._progress = asyncio.Event()
        self._repeats: dict[str, asyncio.Task[None]] = {}
        self._addresses: dict[str, asyncio.Future[list[FileURLs]]] = {}
        self._numbers = itertools.count(1)
        self._socket: ClientConnection
        self._reader: asyncio.Task[None]

    async def open(self) -> None:
        """Load the page, as at its first visit. Raises Broken."""
        for path in ("/", "/_stcore/health", "/_stcore/host-config"):
            await self._get(path)
        token = self._http.cookies.get(XSRF) or ""
        self._socket = await connect(
            f"ws://{urlsplit(self._url).netloc}/_stcore/stream",
            origin=Origin(self._url),
            subprotocols=[Subprotocol("streamlit"), Subprotocol(token)],
            additional_headers={"Cookie": f"{XSRF}={token}"},
            max_size=None,
            open_timeout=60,
        )
        self._reader = asyncio.create_task(self._read())
        await self._run()

    async def close(self) -> None:
        """Close the tab."""
        self._stop_repeating()
        self._reader.cancel()
        await self._socket.close()
        await self._http.aclose()

    async def go(self, path: str) -> None:
        """Go to another page of the app. Raises Broken."""
        self._page = self._pages[path]
        self._query = ""
        await self._run()

    async def ask(self, question: str) -> float:
        """Type a question and wait for its answer; returns the seconds until it is complete. Raises Broken."""
        begun = perf_counter()
        widget = WidgetState(id=self.seen.chat_input)
        widget.chat_input_value.data = question
        await self._run(widget)
        return perf_counter() - begun

    async def click(self, label: str) -> None:
        """Click on the first button of that label, and fetch the images that come. Raises Broken."""
        button = next((key for key, shown in self.seen.buttons.items() if shown == label), None)
        if button is None:
            raise Broken(f"There is no button {label!r}.")
        await self._run(WidgetState(id=button, trigger_value=True))
        for address in self.seen.images:
            await self._get(address)

    async def upload(self, name: str, data: bytes) -> str:
        """Upload a file on the Documents page; returns its SHA-256 in hex. Raises Broken."""
        number = str(next(self._numbers))
        waiting = self._addresses[number] = asyncio.get_running_loop().create_future()
        message = BackMsg()
        message.file_urls_request.request_id = number
        message.file_urls_request.session_id = self._session
        message.file_urls_request.file_names.append(name)
        await self._send(message)
        (address,) = await asyncio.wait_for(waiting, SECONDS_FOR_A_RUN)
        del self._addresses[number]
        answer = await self._http.put(
            address.upload_url,
            files={name: (name, data, "application/pdf")},
            headers={"X-Xsrftoken": self._http.cookies.get(XSRF) or "", "Origin": self._url},
        )
        if answer.status_code != 204:
            raise Broken(f"The upload was answered with {answer.status_code}.")
        widget = WidgetState(id=self.seen.uploader)
        info = widget.file_uploader_state_value.uploaded_file_info.add()
        info.name, info.size, info.file_id = name, len(data), address.file_id
        info.file_urls.CopyFrom(address)
        await self._run(widget)
        return hashlib.sha256(data).hexdigest()

    async def _get(self, path: str) -> None:
        answer = await self._http.get(path)
        if answer.status_code != 200:
            raise Broken(f"{path} was answered with {answer.status_code}.")

    async def _run(self, *widgets: WidgetState, fragment: str = "") -> None:
        """Have the script run, and wait until it has run to its end."""
        message = BackMsg()
        state = message.rerun_script
        state.page_script_hash, state.query_string = self._page, self._query
        state.context_info.timezone, state.context_info.locale = "Europe/Paris", "en-US"
        state.context_info.url = self._url
        state.widget_states.widgets.extend(widgets)
        if fragment:
            state.fragment_id, state.is_auto_rerun = fragment, True
            await self._send(message)
            return
        started, finished = self._started, self._finished
        await self._send(message)
        async with asyncio.timeout(SECONDS_FOR_A_RUN):
            # a run that the script cut short is followed by another one
            while not (self._started > started and self._finished > finished):
                self._progress.clear()
                await self._progress.wait()
                if self._reader.done():
                    raise Broken("The connection was closed.")

    async def _send(self, message: BackMsg) -> None:
        try:
            await self._socket.send(message.SerializeToString())
        except ConnectionClosed as error:
            raise Broken(f"The connection was closed: {error}.") from error

    async def _read(self) -> None:
        try:
            async for data in self._socket:
                message = ForwardMsg()
                message.ParseFromString(data if isinstance(data, bytes) else data.encode())
                self._take(message)
                self._progress.set()
        except ConnectionClosed as error:
            self._tell(f"disconnected: {error}")
        finally:
            self._progress.set()

    def _take(self, message: ForwardMsg) -> None:
        kind = message.WhichOneof("type")
        if kind == "delta":
            self._look(message.delta)
        elif kind == "new_session" and not message.metadata.run.fragment_ids:
            self._session = message.new_session.initialize.session_id
            self._page = message.new_session.page_script_hash
            self._started += 1
            self.seen = Seen()
            self._stop_repeating()
        elif kind == "script_finished":
            self._finished += message.script_finished == ForwardMsg.FINISHED_SUCCESSFULLY
        elif kind == "navigation":
            self._pages = {
                "" if page.is_default else page.url_pathname: page.page_script_hash
                for page in message.navigation.app_pages
            }
        elif kind == "page_info_changed":
            self._query = message.page_info_changed.query_string
        elif kind == "file_urls_response":
            self._addresses[message.file_urls_response.response_id].set_result(
                list(message.file_urls_response.file_urls)
            )
        elif kind in ("auto_rerun", "stop_auto_rerun"):
            self._schedule(message)
        elif kind == "page_not_found" or (kind == "session_event" and _compilation_failed(message)):
            self._tell(f"the page cannot be run: {kind}")

    def _schedule(self, message: ForwardMsg) -> None:
        for fragment in message.stop_auto_rerun.fragment_ids:
            self._stop_repeating(fragment)
        if message.HasField("auto_rerun"):
            rerun = message.auto_rerun
            self._stop_repeating(rerun.fragment_id)
            self._repeats[rerun.fragment_id] = asyncio.create_task(
                self._repeat(rerun.fragment_id, rerun.interval)
            )

    def _look(self, delta: Any) -> None:
        if delta.WhichOneof("type") != "new_element":
            return
        element = delta.new_element
        kind = element.WhichOneof("type")
        if kind == "exception":
            self._tell(f"exception: {element.exception.type} {element.exception.message}")
        elif kind == "alert" and element.alert.format == ALERT_ERROR:
            self._tell(f"error shown: {element.alert.body}")
        elif kind == "button":
            self.seen.buttons[element.button.id] = element.button.label
        elif kind == "chat_input":
            self.seen.chat_input = element.chat_input.id
        elif kind == "file_uploader":
            self.seen.uploader = element.file_uploader.id
        elif kind == "imgs":
            self.seen.images += [image.url for image in element.imgs.imgs if image.url.startswith("/")]
        elif kind in ("markdown", "text"):
            self.seen.texts.append(getattr(element, kind).body)

    async def _repeat(self, fragment: str, interval: float) -> None:
        while True:
            await asyncio.sleep(interval)
            await self._run(fragment=fragment)

    def _stop_repeating(self, fragment: str | None = None) -> None:
        for name in [fragment] if fragment is not None else list(self._repeats):
            if name in self._repeats:
                self._repeats.pop(name).cancel()


def _compilation_failed(message: ForwardMsg) -> bool:
    return message.session_event.WhichOneof("type") == "script_compilation_exception"
