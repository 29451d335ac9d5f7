#!/usr/bin/env python3
"""Starts the server and shows its main job: capture two prompts, fetch a layer, compare the two.

Standard library only; `scripts/demo.sh` fetches the model and builds the server first. The server then stays up until
Ctrl-C, or ends after the table with `--once`. Its address is RESIDUUM_LISTEN, by default 127.0.0.1:8080 or the next
free port.
"""

import argparse
import math
import os
import sys
import time
from array import array
from pathlib import Path

from harness import (
    ApiError,
    Client,
    HarnessError,
    Server,
    can_bind,
    free_port,
    interrupt_on_signals,
    split_listen,
)

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_LISTEN = "127.0.0.1:8080"
PROMPTS = {"A": "The Eiffel Tower is in the city of", "B": "The Colosseum is in the city of"}
LAYER = 12
BAR_WIDTH = 40


class Page:
    """What the reader sees. Colours and bar characters only where the output can show them."""

    def __init__(self, out):
        self.out = out
        self.colours = out.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self.blocks = "utf" in (out.encoding or "").lower()

    def paint(self, code, text):
        return f"\033[{code}m{text}\033[0m" if self.colours else text

    def line(self, text=""):
        print(text, file=self.out, flush=True)

    def head(self, title, request=""):
        self.line()
        self.line(self.paint("1;36", f"{title:<10}") + (self.paint("2", request) if request else ""))

    def bar(self, fraction):
        """A bar of `fraction` of the full width."""
        eighths = round(min(max(fraction, 0.0), 1.0) * BAR_WIDTH * 8)
        if not self.blocks:
            return "#" * round(eighths / 8)
        partial = "" if eighths % 8 == 0 else " ▏▎▍▌▋▊▉"[eighths % 8]
        return self.paint("36", "█" * (eighths // 8) + partial)


def floats(response):
    """The float32 values of a `format=raw` answer."""
    values = array("f", response.body)
    if sys.byteorder == "big":
        values.byteswap()
    return values


def choose_listen(page):
    """The address to listen at: what RESIDUUM_LISTEN says, else the default or a port near it."""
    wanted = os.environ.get("RESIDUUM_LISTEN")
    host, port = split_listen(wanted or DEFAULT_LISTEN)
    if can_bind(host, port):
        return wanted or DEFAULT_LISTEN
    if wanted:
        raise HarnessError(
            f"{wanted} cannot be bound: another program is listening there, or it is not an address of this machine. "
            f"This one is free: RESIDUUM_LISTEN=127.0.0.1:{free_port()} ./scripts/demo.sh"
        )
    other = next((p for p in range(port + 1, port + 20) if can_bind(host, p)), None) or free_port()
    page.line(f"Port {port} is taken by another program: using port {other} (RESIDUUM_LISTEN chooses the address).")
    return f"{host}:{other}"


def show_model(page, client, model):
    info = client.get(f"/v1/models/{model}")
    page.head("Serving", client.url)
    page.line(
        f"  {model}: {info['architecture']}, {info['n_layers']} layers, d_model {info['d_model']}, on {info['device']}"
    )
    return info


def capture(page, client, model):
    """Captures both prompts in one run and returns the descriptions of their caches."""
    page.head("Capture", "POST /v1/runs   the residual stream after every layer, and the logits, at the final token")
    body = {
        "model": model,
        "input": list(PROMPTS.values()),
        "capture": {"hooks": ["resid_post", "logits"], "layers": "all", "positions": "last"},
        "tags": ["demo"],
    }
    start = time.perf_counter()
    run = client.run(body)
    elapsed = 1000 * (time.perf_counter() - start)
    caches = [client.get(f"/v1/caches/{cache}") for cache in run["caches"]]
    for name, cache in zip(PROMPTS, caches):
        text = page.paint("1", f"{cache['text']:<36}")
        page.line(f"  {name}  {text}  {len(cache['token_ids'])} tokens   cache {cache['id']}")
    reused = run["n_reused"] == run["n_items"]
    source = "read from the store, nothing computed again" if reused else "computed and stored"
    page.line(f"  {elapsed:.0f} ms, {source}")
    return caches


def show_next_tokens(page, client, model, caches):
    """Prints the most probable next token of each prompt."""
    best = []
    for cache in caches:
        logits = floats(client.call("GET", f"/v1/caches/{cache['id']}/tensors/logits?format=raw"))
        peak = max(logits)
        best.append((logits.index(peak), 1.0 / sum(math.exp(v - peak) for v in logits)))
    # A cache lists the text of its tokens, so one more input, the prompt with the token, gives the token's text.
    extended = [cache["token_ids"] + [token] for cache, (token, _) in zip(caches, best)]
    run = client.run({"model": model, "input": extended, "capture": {"hooks": ["hook_embed"]}, "tags": ["demo"]})
    page.head("Predict", "GET /v1/caches/{id}/tensors/logits")
    for name, cache_id, (token, probability) in zip(PROMPTS, run["caches"], best):
        text = client.get(f"/v1/caches/{cache_id}")["tokens"][-1]
        page.line(f"  {name}  next token {page.paint('1;32', repr(text))} (id {token}), probability {probability:.2f}")


def show_layer(page, client, cache, layer):
    path = f"/v1/caches/{cache['id']}/layers/{layer}?format=raw"
    answer = client.call("GET", path)
    values = floats(answer)
    page.head("Fetch", f"GET {path}")
    shape, dtype = answer.headers["residuum-shape"], answer.headers["residuum-dtype"]
    page.line(f"  A, layer {layer}: shape {shape}, {dtype}")
    page.line("  " + "  ".join(f"{v:.4f}" for v in values[:8]) + "  ...")


def show_comparison(page, client, caches):
    answer = client.call(
        "POST",
        "/v1/comparisons",
        {
            "mode": "pairs",
            "a": [caches[0]["id"]],
            "b": [caches[1]["id"]],
            "hook": "resid_post",
            "layers": "all",
            "metrics": ["cosine"],
        },
    ).json()
    cosines = answer["pairs"][0]["values"]["cosine"]
    # The bars start just below the smallest value, or all of them would look full.
    floor = math.floor(min(cosines) * 20 - 1e-9) / 20
    page.head("Compare", "POST /v1/comparisons   cosine of A and B, layer by layer")
    scale = f"{floor:.2f}".ljust(BAR_WIDTH - 4) + "1.00"
    page.line(page.paint("2", f"  layer   cosine   {scale}"))
    for layer, cosine in zip(answer["layers"], cosines):
        page.line(f"  {layer:>5}   {cosine:.4f}   {page.bar((cosine - floor) / (1 - floor))}")


def show_next_steps(page, client, model, caches, data_dir):
    url, first = client.url, caches[0]["id"]
    page.head("Try next")
    page.line(f"  open {url}/docs/   every route, to try")
    page.line(f"  curl -s {url}/v1/models/{model}")
    page.line(f"  curl -s '{url}/v1/runs?wait=30' -H 'content-type: application/json' \\")
    page.line(f'       -d \'{{"model": "{model}", "input": "Two plus two is", "tags": ["mine"]}}\'')
    page.line(f"  curl -s '{url}/v1/caches?tag=demo&limit=5'")
    page.line(f"  curl -s '{url}/v1/caches/{first}/layers/{LAYER}'")
    page.line(f"  curl -s '{url}/v1/caches/{first}/layers?format=npy' -o layers.npy")
    page.line(f"  curl -s '{url}/v1/caches/{first}/safetensors' -o cache.safetensors")
    page.line()
    page.line(f"The caches are kept in {data_dir}: start the demo again and they are read, not computed.")


def tour(page, client, model):
    """The whole demonstration against a server that is ready; returns the captured caches."""
    info = show_model(page, client, model)
    caches = capture(page, client, model)
    show_next_tokens(page, client, model, caches)
    show_layer(page, client, caches[0], min(LAYER, info["n_layers"] - 1))
    show_comparison(page, client, caches)
    return caches


def stay(page, server):
    """Waits for Ctrl-C; a server that ends by itself is an error."""
    page.line(page.paint("1", f"The dashboard is at {server.url}/ui/. Ctrl-C stops the server."))
    code = server.process.wait()
    raise HarnessError(f"the server ended by itself with status {code}{server.log_tail()}")


def parse_args():
    once = os.environ.get("RESIDUUM_DEMO_ONCE", "") not in ("", "0")
    parser = argparse.ArgumentParser(description="Start the server and show what it does.")
    parser.add_argument("--once", action="store_true", default=once, help="stop after the table")
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/residuum")
    parser.add_argument("--data-dir", type=Path, default=ROOT / "data")
    parser.add_argument("--model", default=f"smollm2-135m={ROOT / 'models/SmolLM2-135M-Instruct.Q4_1.gguf'}")
    return parser.parse_args()


def main():
    args = parse_args()
    page = Page(sys.stdout)
    model = args.model.partition("=")[0]
    server = None
    interrupt_on_signals()
    try:
        if not args.binary.is_file():
            raise HarnessError(f"{shown(args.binary)} is not built yet; scripts/demo.sh builds and starts it")
        log = args.binary.parent / "demo-server.log"
        log.write_bytes(b"")
        server = Server(args.binary, args.data_dir, [args.model], listen=choose_listen(page), log=log)
        page.line(f"Starting the server (its log: {shown(log)}) ...")
        server.start()
        client = Client(server.url)
        caches = tour(page, client, model)
        if not args.once:
            show_next_steps(page, client, model, caches, shown(args.data_dir))
            stay(page, server)
    except KeyboardInterrupt:
        page.line()
    except (HarnessError, ApiError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    finally:
        if server is not None and server.process is not None:
            server.stop()
    page.line("The server has stopped.")
    return 0


def shown(path):
    """A path as a reader in the repository root would write it."""
    path = path.resolve()
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


if __name__ == "__main__":
    sys.exit(main())
