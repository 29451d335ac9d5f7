#!/usr/bin/env python3
"""Lets a server run out of disk space, then of permissions, and checks that it loses nothing and continues (standard library only).

    python3 tests/full_disk.py --binary target/debug/residuum --model smollm2-135m=models/SmolLM2-135M-Instruct.Q4_1.gguf

The data folder is a tmpfs of 40 MB. A file leaves less and less space on it, so that at first the blob, then the commit, then
the run itself does not fit. The server must refuse or wait, never fail what it accepted, serve what it has, and delete. Once
there is space again, every accepted run must complete with the numbers of an undisturbed server, and the store must verify.
A start on a full disk must use the reserve, serve, delete, and say what is wrong. Then the folder of blobs is not writable for
a while; at last the whole folder is read-only when `residuum verify` and the server start. Without the permission to mount,
the test says so and passes. The last line is `N passed, N failed`.
"""

import argparse
import http.client
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]
from crash import Report, read_back, superfluous_files  # noqa: E402  (the path is set above)
from harness import FINAL, ApiError, Client, HarnessError, Server, interrupt_on_signals  # noqa: E402

SIZE_MB = 40
CAPTURE = {"hooks": ["resid_post"], "layers": "all", "positions": "all"}
# KiB that are left free, the most first: a capture takes about 1,100.
ROOM = (3000, 1400, 300, 0)
# The same for a server that was just started, whose write-ahead log is empty: a run takes about 40 there.
ROOM_FOR_ROWS = (0, 4, 16, 48, 96, 0)
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


class Disk:
    """A tmpfs, and a file that fills it."""

    def __init__(self, folder):
        self.folder, self.filler = folder, folder / "filler"
        folder.mkdir()

    def __enter__(self):
        options = f"size={SIZE_MB}m,mode=0777"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise PermissionError(done.stderr.strip())
        return self

    def __exit__(self, *_):
        subprocess.run(["umount", "--lazy", str(self.folder)], capture_output=True, check=False)

    def leave(self, kib):
        """Fills the disk except for `kib` KiB."""
        self.free()
        room = shutil.disk_usage(self.folder).free - kib * 1024
        if room > 0:
            with open(self.filler, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, room)

    def free(self):
        self.filler.unlink(missing_ok=True)

    def remount(self, options):
        return subprocess.run(["mount", "-o", f"remount,{options}", str(self.folder)], check=False).returncode == 0


def prompt(i):
    return f"Number {i}: the seven stones under the river are green and not grey"


def post(client, i):
    body = {"model": client.model, "input": prompt(i), "capture": CAPTURE, "reuse": False}
    return client.request("POST", "/v1/runs", body)


def statuses(client, runs):
    """{run: its description} of those that exist."""
    answers = {run: client.request("GET", f"/v1/runs/{run}") for run in runs}
    return {run: answer.json() for run, answer in answers.items() if answer.status == 200}


def wait_for(client, runs, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        known = statuses(client, runs)
        if len(known) == len(runs) and all(run["status"] in FINAL for run in known.values()):
            break
        time.sleep(0.1)
    return [f"run {run} is {d['status']}: {d['error']}" for run, d in known.items() if d["status"] != "completed"]


def wrong_numbers(client, caches, expected):
    for cache in caches:
        if read_back(client, cache["id"]) != expected[cache["text"]]:
            yield f"cache {cache['id']} differs from the reference"


def unexpected(answers):
    """Answers that are neither an acceptance nor a refusal because the disk is full."""
    for answer in answers:
        refused = answer.status == 507 and answer.json()["code"] == "store_full"
        if answer.status != 202 and not refused:
            yield f"{answer.status}: {answer.body[:200]!r}"


def full(disk, server, client, expected, report):
    """Less and less space, then space again."""
    accepted, answers, number = {}, [], 0
    for number in range(3):
        answers.append(post(client, number))
    accepted |= {a.json()["id"]: i for i, a in enumerate(answers) if a.status == 202}
    report.check("runs complete while there is room", wait_for(client, accepted))
    before = list(client.items("/v1/caches"))
    for kib in ROOM:
        number += 1
        disk.leave(kib)
        answers.append(post(client, number))
        if answers[-1].status == 202:
            accepted[answers[-1].json()["id"]] = number
        time.sleep(0.4)
    report.check("every answer is an acceptance or 507 store_full", unexpected(answers))
    refused = [a for a in answers if a.status == 507]
    report.check(f"{len(refused)} runs were refused for want of room", [] if refused else ["none was"])
    waiting = [d for d in statuses(client, accepted).values() if d["status"] not in FINAL]
    failed = [d for d in statuses(client, accepted).values() if d["status"] == "failed"]
    report.check("none that was accepted fails", [f"run {d['id']}: {d['error']}" for d in failed])
    report.check(f"{len(waiting)} accepted runs wait", [] if waiting else ["none does"])
    report.check("what is stored is served on a full disk", wrong_numbers(client, before, expected))
    report.check("the server lives", [] if server.process.poll() is None else [f"it ended{server.log_tail()}"])
    disk.free()
    report.check("with room again every accepted run completes", wait_for(client, accepted))
    deadline = time.monotonic() + 20
    while (answer := post(client, number + 1)).status == 507 and time.monotonic() < deadline:
        time.sleep(0.2)
    report.check("and new runs are taken", unexpected([answer]) if answer.status != 507 else ["507"])
    runs = dict(accepted) | {answer.json()["id"]: number + 1}
    report.check("and complete", wait_for(client, runs))
    caches = list(client.items("/v1/caches"))
    faults = [] if len(caches) == len(runs) else [f"{len(caches)} caches of {len(runs)} runs"]
    report.check("each has its one cache", faults)
    report.check("and the reference's numbers", wrong_numbers(client, caches, expected))
    found = client.get("/v1/caches", text="seven stones", count="true")
    report.check("and is found by its words", [] if found["total"] == len(caches) else [f"{found['total']} found"])


def full_index(disk, server, client, expected, report):
    """No space for rows: the write-ahead log is empty after a start, and has to grow for every change."""
    report.check("the server stops with status 0", [f"status {code}" for code in [server.stop()] if code != 0])
    server.start()
    before = list(client.items("/v1/caches"))
    reserve = disk.folder / "data/reserve"
    answers = []
    for number, kib in enumerate(ROOM_FOR_ROWS):
        disk.leave(kib)
        answers.append(post(client, number))
        time.sleep(0.2)
    report.check("every answer is an acceptance or 507 store_full", unexpected(answers))
    runs = [a.json()["id"] for a in answers if a.status == 202]
    refused = len(answers) - len(runs)
    report.check(f"{refused} runs of {len(answers)} were refused", [] if refused else ["none was"])
    report.check("what is stored is served", wrong_numbers(client, before, expected))
    had_reserve = reserve.exists()
    gone = client.request("DELETE", f"/v1/caches/{before[0]['id']}")
    report.check("a cache can be deleted on a full disk", [] if gone.status == 204 else [f"{gone.status} {gone.body}"])
    used = had_reserve and not reserve.exists()
    report.check("with what was kept in reserve", [] if used else ["the reserve was not needed: this shows nothing"])
    disk.free()
    report.check("with room again what was accepted completes", wait_for(client, runs))
    report.check("the reserve is there again", [] if reserve.exists() else ["it is not"])


def start_alive(server, client, seconds=60):
    """Starts a server that may not become ready; returns its faults."""
    with open(server.log, "ab") as log:
        server.process = subprocess.Popen(
            server.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            # the model is loaded by then, so only the disk can be the reason
            answer = client.request("GET", "/readyz")
            if answer.status == 200 or "disk is full" in answer.json()["detail"]:
                return []
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.1)
    return [f"it does not serve{server.log_tail()}"]


def full_start(disk, server, client, expected, report):
    """A start on a full disk, and a second one after a kill, when the reserve is gone."""
    reserve = disk.folder / "data/reserve"
    before = list(client.items("/v1/caches"))
    report.check("the server stops with status 0", [f"status {code}" for code in [server.stop()] if code != 0])
    disk.leave(0)
    report.check("a server starts on a full disk", start_alive(server, client))
    report.check("with what was kept in reserve", ["the reserve is still there"] if reserve.exists() else [])
    said = "the store starts with what was kept in reserve" in server.log.read_text(errors="replace")
    report.check("and warns of it", [] if said else [server.log_tail()])
    for attempt in ("at the first start", "after a kill"):
        ready = client.request("GET", "/readyz")
        says = ready.status == 503 and "make room" in ready.json()["detail"]
        report.check(f"/readyz says what to do {attempt}", [] if says else [f"{ready.status} {ready.body[:300]!r}"])
        report.check(f"what is stored is served {attempt}", wrong_numbers(client, before, expected))
        refused = post(client, 50)
        report.check(f"a new run is refused {attempt}", [] if refused.status == 507 else [f"{refused.status}"])
        gone = client.request("DELETE", f"/v1/caches/{before.pop(0)['id']}")
        report.check(f"a cache can be deleted {attempt}", [] if gone.status == 204 else [f"{gone.status} {gone.body}"])
        if attempt == "at the first start":
            server.kill()
            report.check("a killed server starts on a full disk again", start_alive(server, client))
    disk.free()
    deadline = time.monotonic() + 20
    while client.request("GET", "/readyz").status != 200 and time.monotonic() < deadline:
        time.sleep(0.1)
    ready = client.request("GET", "/readyz")
    report.check("with room again it is ready", [] if ready.status == 200 else [f"{ready.status} {ready.body[:300]!r}"])
    answer = post(client, 7)
    report.check("and takes runs", unexpected([answer]) if answer.status != 507 else ["507"])
    report.check("which complete", wait_for(client, [answer.json()["id"]]) if answer.status == 202 else ["refused"])
    report.check("and the reserve is there again", [] if reserve.exists() else ["it is not"])


def locked_out(disk, client, report):
    """The folder of blobs is not writable for a while."""
    folders = [disk.folder / "data/blobs", *(disk.folder / "data/blobs").iterdir()]
    for folder in folders:
        folder.chmod(0o555)
    answers = [post(client, 100 + i) for i in range(2)]
    runs = [a.json()["id"] for a in answers if a.status == 202]
    time.sleep(1)
    status = [d["status"] for d in statuses(client, runs).values()]
    stuck = [] if "failed" not in status and "completed" not in status else [f"they are {status}"]
    report.check("runs wait while blobs cannot be written", [*unexpected(answers), *stuck])
    for folder in folders:
        folder.chmod(0o755)
    report.check("and complete when they can", wait_for(client, runs))


def verified(args, data_dir, report):
    command = [args.binary, "verify", "--data-dir", str(data_dir)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    report.check("residuum verify finds nothing", [] if done.returncode == 0 else [done.stdout + done.stderr])
    report.check("no temporary file remains", superfluous_files(data_dir))


def references(args, folder, count):
    """What an undisturbed server computes: {prompt: (shape, bytes)}."""
    server = Server(args.binary, folder / "reference", [args.model], log=folder / "reference.log").start()
    try:
        client, prompts = Client(server.url), [prompt(i) for i in range(count)]
        run = client.run({"model": args.model_id, "input": prompts, "capture": CAPTURE})
        return {text: read_back(client, cache) for text, cache in zip(prompts, run["caches"])}
    finally:
        server.stop()


def run_as_nobody(server):
    """Root may write everywhere; the server drops that privilege if it can."""
    if os.geteuid() == 0 and shutil.which(NOBODY[0]) is not None:
        server.command = [*NOBODY, *server.command]
    return os.geteuid() != 0 or shutil.which(NOBODY[0]) is not None


def disk_test(args, folder, disk, report):
    expected = references(args, folder, 10)
    server = Server(args.binary, disk.folder / "data", [args.model], log=folder / "server.log")
    powerless = run_as_nobody(server)
    try:
        server.start()
        client = Client(server.url, timeout=20.0)
        client.model = args.model_id
        full(disk, server, client, expected, report)
        full_index(disk, server, client, expected, report)
        full_start(disk, server, client, expected, report)
        if powerless:
            locked_out(disk, client, report)
        report.check("the server stops with status 0", [f"status {code}" for code in [server.stop()] if code != 0])
        verified(args, disk.folder / "data", report)
        if disk.remount("ro"):
            verified(args, disk.folder / "data", report)
            check_read_only_start(server, report)
    finally:
        if server.process is not None:
            server.stop()


def check_read_only_start(server, report):
    try:
        server.start(timeout=30)
        faults = ["it started"]
    except HarnessError as error:
        faults = [] if "cannot be written" in str(error) else [str(error)]
    report.check("a server on a read-only folder says so and ends", faults)


def main():
    parser = argparse.ArgumentParser(description="Full and read-only disks under a residuum server.")
    parser.add_argument("--binary", required=True, help="the residuum program")
    parser.add_argument("--model", required=True, metavar="ID=PATH")
    args = parser.parse_args()
    args.binary = str(Path(args.binary).resolve())
    args.model_id, _, path = args.model.partition("=")
    args.model = f"{args.model_id}={Path(path).resolve()}"
    report = Report()
    interrupt_on_signals()
    with tempfile.TemporaryDirectory(prefix="residuum-disk-") as folder:
        os.chmod(folder, 0o755)
        try:
            with Disk(Path(folder) / "disk") as disk:
                disk_test(args, Path(folder), disk, report)
        except PermissionError as error:
            print(f"skipped: a small disk could not be mounted here ({error})")
        except (HarnessError, ApiError, OSError, http.client.HTTPException) as error:
            report.check("the test ran to its end", [repr(error)])
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
