"""A peer for tests: an HTTP server in a process of its own that makes results with Pillow.

Run with the way it replies: ``length``, ``chunked``, ``close`` or ``sometimes-wrong``. It answers a POST of
an image to /WIDTH/HEIGHT, and a GET of /WIDTH/HEIGHT/FILE from its own disk.
"""

import http.server
import io
import itertools
import sys
from pathlib import Path

from PIL import Image

WAY = sys.argv[1]
NUMBERS = itertools.count()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0" if WAY == "close" else "HTTP/1.1"

    def do_POST(self) -> None:
        self.resize(self.rfile.read(int(self.headers["Content-Length"])))

    def do_GET(self) -> None:
        if self.path == "/refused":
            self.send_error(500, "no such image")
            return
        self.resize(Path("/", *self.path.split("/")[3:]).read_bytes())

    def resize(self, image: bytes) -> None:
        width, height = map(int, self.path.split("/")[1:3])
        # Every third result is too wide.
        wider = 1 if WAY == "sometimes-wrong" and next(NUMBERS) % 3 == 2 else 0
        result = io.BytesIO()
        with Image.open(io.BytesIO(image)) as source:
            source.convert("RGB").resize((width + wider, height)).save(result, "JPEG", quality=85)
        self.send_response(200)
        if WAY == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            data = result.getvalue()
            for part in (data[:7], data[7:]):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            self.wfile.write(b"0\r\n\r\n")
        else:
            if WAY != "close":
                self.send_header("Content-Length", str(result.tell()))
            self.end_headers()
            self.wfile.write(result.getvalue())

    def log_message(self, *_: object) -> None:
        """Print nothing."""


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
sys.stdout.write(f"listening on {server.server_port}\n")
sys.stdout.flush()
server.serve_forever()
