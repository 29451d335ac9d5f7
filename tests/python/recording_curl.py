"""Stands in for `curl` when README's commands are run: sends the request to the server under test and logs the answer.

`RECORDING_CURL_URL` is the server, `RECORDING_CURL_LOG` a file that gets one line of JSON for each request. Knows the options
that the pages use; `documented_requests.py` refuses others.
"""

import json
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from harness import Client  # noqa: E402  (the path is set above)


def arguments(words):
    """The parts of a command: method, address, headers, body, file for the answer."""
    method, url, headers, body, output = None, None, {}, None, None
    waiting = iter(words)
    for word in waiting:
        if word == "-X":
            method = next(waiting)
        elif word == "-H":
            name, _, value = next(waiting).partition(":")
            headers[name.strip()] = value.strip()
        elif word in ("-d", "--data-binary", "--json"):
            value = next(waiting)
            body = Path(value[1:]).read_bytes() if value.startswith("@") else value.encode()
            if word == "--json":
                headers["Content-Type"] = headers["Accept"] = "application/json"
        elif word == "-o":
            output = next(waiting)
        elif not word.startswith("-"):
            url = word
        elif word not in ("-s", "-N", "-sN"):
            sys.exit(f"recording_curl: the option {word} is not known")
    return method or ("GET" if body is None else "POST"), url, headers, body, output


def main():
    method, url, headers, body, output = arguments(sys.argv[1:])
    parts = urlsplit(url if "://" in url else f"http://{url}")
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    answer = Client(os.environ["RECORDING_CURL_URL"], timeout=300.0).request(method, path, body, headers)
    is_json = "json" in answer.headers.get("content-type", "")
    record = {
        "method": method,
        "path": path,
        "status": answer.status,
        "headers": answer.headers,
        "json": answer.json() if is_json and answer.body else None,
    }
    with open(os.environ["RECORDING_CURL_LOG"], "a", encoding="utf-8") as log:
        log.write(json.dumps(record) + "\n")
    if output:
        Path(output).write_bytes(answer.body)
        return
    try:
        sys.stdout.buffer.write(answer.body)
        sys.stdout.buffer.flush()
    except BrokenPipeError:  # `| head -c` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
