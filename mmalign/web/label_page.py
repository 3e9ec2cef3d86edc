"""The labelling page: gradio's components around a stage of ours, over a store that knows nothing of either."""

import itertools
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mmalign.data.label_store import LabelStore, StaleError, check_name
from mmalign.errors import ConfigError, MissingExtraError, MmalignError
from mmalign.web.guard import Guard
from mmalign.web.label_media import LabelMedia, content_type
from mmalign.web.label_stage import buttons, finished, stage, status

HERE = Path(__file__).parent
PREPARED = 2
"""Showings whose media are got ready while a person looks at the one before."""


class LabelPage:
    """What the page's events do; each answer is the stage and the line of progress.

    Args:
        store: who has judged what.
        media: of the folder.
    """

    def __init__(self, store: LabelStore, media: LabelMedia) -> None:
        self.store, self.media = store, media
        self._turns, self._lock = itertools.count(1), threading.Lock()
        self._preparing = ThreadPoolExecutor(1, thread_name_prefix="media")

    def begin(self, name: Any) -> tuple[str, str]:
        """What a person has before them; nothing, and why, for a name that nobody can have.

        A name that begins or ends with spaces is taken without them.
        """
        try:
            name = check_name(name.strip() if isinstance(name, str) else name)
        except ConfigError as error:
            return "", str(error) if name else ""
        return self._answer(name)

    def send(self, text: Any) -> tuple[str, str]:
        """Keep a choice, or take the last one back, and show what comes then.

        Args:
            text: JSON with ``annotator``, ``shown`` and ``choice`` or ``undo``.
        """
        try:
            asked = json.loads(text)
            name, shown = check_name(asked["annotator"]), str(asked["shown"])
        except (ValueError, TypeError, KeyError, ConfigError):
            return "", "this is no choice of the page"
        message = ""
        try:
            if asked.get("undo"):
                message = "" if self.store.undo(name, shown or None) else "there is nothing to take back"
            else:
                self.store.choose(name, shown, asked.get("choice"))
        except StaleError as error:
            message = str(error)
        except MmalignError as error:
            message = f"not kept: {error}"
        except OSError as error:
            message = (
                f"NOT KEPT, the file of labels cannot be written ({error.strerror}); tell who runs this page"
            )
        return self._answer(name, message)

    def _answer(self, name: str, message: str = "") -> tuple[str, str]:
        for showing in self.store.upcoming(name, 1):  # before the time of the item begins
            for file in showing.order:
                self.media.element(file)
        current = self.store.current(name)
        with self._lock:
            turn = next(self._turns)
        said = status(self.store.progress(name), name, message)
        if current is None:
            return finished(name, turn), said
        shown = stage(current, self.store.settings, name, turn, self.media.element)
        self._preparing.submit(self._prepare, name)
        return shown, said

    def _prepare(self, name: str) -> None:
        for showing in self.store.upcoming(name, 1 + PREPARED)[1:]:
            for file in showing.order:
                self.media.element(file)

    def close(self) -> None:
        """Prepare nothing more."""
        self._preparing.shutdown(wait=False, cancel_futures=True)


def label_app(page: LabelPage, *, token: str | None) -> Guard:
    """The page as an ASGI application, behind its guard.

    Raises:
        MissingExtraError: gradio is not installed.
    """
    # Read when gradio is imported: no report of use, no question for a newer version, nothing of the hub.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import gradio
        from fastapi import FastAPI
        from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
    except ImportError:
        raise MissingExtraError("gradio", "web") from None

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/media/{key}")
    def medium(key: str) -> Any:
        path = page.media.path(key)
        if path is None:
            return PlainTextResponse("no such medium", status_code=404)
        headers = {"Cache-Control": "private, max-age=3600"}
        return FileResponse(path, media_type=content_type(path), headers=headers)

    @app.get("/media/{key}/mesh")
    def mesh(key: str) -> Any:
        found = page.media.mesh(key)
        return PlainTextResponse("no mesh", status_code=404) if found is None else JSONResponse(found)

    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("label.css", "label.js"))
    gradio.mount_gradio_app(
        app,
        _blocks(page),
        path="/",
        css=style,
        head=f"<script>{script}</script>",
        theme=gradio.themes.Default(
            font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        ),
        footer_links=[],
        allowed_paths=[],
        ssr_mode=False,
        show_error=False,
        run_history=False,
        mcp_server=False,
        pwa=False,
        max_file_size=0,
    )
    return Guard(app, token=token)


def _blocks(page: LabelPage) -> Any:
    """The page: a name first, then the stage, a button for every key, and how far one is."""
    import gradio

    def started(name: Any) -> tuple[Any, ...]:
        shown, said = page.begin(name)
        work = bool(shown)
        why = "" if work else said
        return gradio.update(visible=not work), gradio.update(visible=work), shown, said if work else "", why

    with gradio.Blocks(title="mmalign label", analytics_enabled=False) as blocks:
        with gradio.Column(visible=False, elem_id="start") as start:
            gradio.Markdown("## Who are you?\nEverybody sees the samples in an order of their own.")
            name = gradio.Textbox(label="Your name", elem_id="name", autofocus=True, max_lines=1)
            why = gradio.Markdown()
            begin = gradio.Button("Begin", variant="primary", elem_id="begin")
        with gradio.Column(visible=False, elem_id="work") as work:
            said = gradio.HTML()
            shown = gradio.HTML()
            with gradio.Row(elem_id="keys"):
                for key, caption in buttons(page.store.settings.mode):
                    button = gradio.Button(caption, size="sm", min_width=90)
                    button.click(None, js=f"() => {{ window.mmalign.click({json.dumps(key)}); }}")
        send = gradio.Button("send", elem_id="send")
        text = gradio.Textbox(visible=False)
        outputs = [start, work, shown, said, why]
        quick: dict[str, Any] = {"queue": False, "show_progress": "hidden"}
        gradio.on([begin.click, name.submit], started, name, outputs, api_name="begin", **quick)
        blocks.load(started, text, outputs, js="() => window.mmalign.name()", api_name="load", **quick)
        send.click(
            page.send, text, [shown, said], js="() => window.mmalign.outgoing()", api_name="send", **quick
        )
    return blocks
