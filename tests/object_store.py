"""An S3 server of moto on loopback, real HTTP, which tells what was asked of it and fails when it is told to."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

Request = tuple[str, str]  # method and path: ("GET", "/bucket/folder/file")
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "no-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_MAX_ATTEMPTS": "1",
}


class ObjectStore:
    """requests: so far. refuses: of a request, whether it is answered with 403, as for a wrong key."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.refuses: Callable[[Request], bool] = lambda request: False
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.app = DomainDispatcherApplication(create_backend_app)
        self.server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Any:
        request = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append(request)
        if self.refuses(request):
            body = b"<Error><Code>InvalidAccessKeyId</Code><Message>The key does not exist</Message></Error>"
            start_response("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
            return [body]
        return self.app(environ, start_response)

    def names(self, url: str) -> list[str]:
        """Of all objects below a URL, relative to it."""
        files: Any = fsspec.filesystem("s3")
        files.invalidate_cache()
        root = url.removeprefix("s3://")
        return [name.removeprefix(f"{root}/") for name in files.find(root)]

    def files(self, url: str) -> dict[str, bytes]:
        """The same objects with what is in them, where nobody writes meanwhile."""
        files: Any = fsspec.filesystem("s3")
        return {name: files.cat_file(f"{url}/{name}") for name in self.names(url)}

    def put(self, url: str, content: bytes) -> None:
        fsspec.filesystem("s3").pipe_file(url, content)

    def read(self, url: str) -> list[str]:
        """The objects below a URL whose content was asked for, in turn."""
        root = url.removeprefix("s3:/")
        return [path.removeprefix(f"{root}/") for method, path in self.requests if method == "GET" and root in path]


@contextmanager
def running_store() -> Iterator[ObjectStore]:
    """A store with a bucket named `shop`; this process and those that it starts find it as they find S3."""
    store, before = ObjectStore(), dict(os.environ)
    os.environ.update(CREDENTIALS, AWS_ENDPOINT_URL=store.address)
    files: Any = fsspec.get_filesystem_class("s3")
    files.clear_instance_cache()
    fsspec.filesystem("s3").mkdir("shop")
    try:
        yield store
    finally:
        files.clear_instance_cache()
        os.environ.clear()
        os.environ.update(before)
        store.server.shutdown()
