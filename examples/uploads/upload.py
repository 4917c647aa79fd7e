"""Upload an image by tus with tuspy, and resize it: upload.py photo.jpg out.webp."""

import os
import sys
from pathlib import Path

import requests
from tusclient.client import TusClient

URL = os.environ.get("VIPSRV_URL", "http://127.0.0.1:8080")
TOKEN = os.environ.get("VIPSRV_TOKEN")


def main() -> None:
    """Upload the first argument, and resize it into the second."""
    source, target = sys.argv[1:]
    headers = {"Authorization": f"Bearer {TOKEN}"} if TOKEN else {}
    uploader = TusClient(f"{URL}/files", headers=headers).uploader(source, retries=20, retry_delay=1)
    uploader.upload()  # a connection that breaks does not matter: it asks how much has arrived, and goes on
    upload_id = str(uploader.url).rpartition("/")[2]
    parameters = {"upload": upload_id, "width": "800", "height": "600", "fit": "inside", "format": "webp"}
    reply = requests.post(f"{URL}/resize", params=parameters, headers=headers, timeout=60)
    if not reply.ok:
        problem = reply.json()
        sys.exit(f"{problem['code']}: {problem['detail']}")
    Path(target).write_bytes(reply.content)
    print(reply.headers["Vipsrv-Result"])


if __name__ == "__main__":
    main()
