"""One virtual environment for each set of peers that agree on their shared clients, below `.cache/bench`.

What is in one stands in `bench/requirements/<name>.txt`, pinned. `python -m bench.environments` compiles these files
anew from the list here, each on its own: together the peers may agree on clients that are years old.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

from tools.source import ROOT

FOLDER = ROOT / ".cache" / "bench"
PINS = ROOT / "bench" / "requirements"

REQUIREMENTS: dict[str, tuple[str, ...]] = {
    # nearcache itself is put in from the checkout.
    "nearcache": ("msgspec", "prometheus-client", "redis", "hiredis", "uvloop"),
    "near": (
        "aiocache",
        "async-lru",
        "cachebox",
        "cachelib",
        "cachetools",
        "cashews",
        "dogpile.cache",
        "moka-py",
        "theine",
    ),
    "policies": ("libcachesim",),
    "redis": ("redis", "hiredis", "uvloop", "dogpile.cache", "django", "django-redis"),
    "locks": ("redis", "hiredis", "python-redis-lock"),
    "limits": ("limits[redis]", "hiredis", "throttled-py[redis]"),
    "memcached": ("pymemcache", "aiomcache"),
    "hazelcast": ("hazelcast-python-client",),
    "hazelcast-nearcache": ("msgspec", "prometheus-client", "hazelcast-python-client"),
    "cashews": ("cashews[redis]", "hiredis", "uvloop"),
    "aiocache": ("aiocache[redis]", "hiredis", "uvloop"),
    "coredis": ("coredis", "uvloop"),
    "glide": ("valkey-glide", "valkey-glide-sync", "uvloop"),
}


class UnavailableError(Exception):
    """An environment could not be made; the message says why."""


def python_of(name: str) -> Path:
    """Return the Python of an environment, and make it if it is not there or its pins have changed."""
    folder, pins = FOLDER / name, PINS / f"{name}.txt"
    stamp, wanted = folder / ".pins", hashlib.sha256(pins.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"making the environment {name}", file=sys.stderr, flush=True)
        make(folder, pins, editable=name.endswith("nearcache"))
        stamp.write_text(wanted)
    return folder / "bin" / "python"


def make(folder: Path, pins: Path, *, editable: bool) -> None:
    """Make an environment with what is pinned, and this checkout if it is `editable`."""
    python = folder / "bin" / "python"
    uv("venv", "--clear", "--python", sys.executable, folder)
    uv("pip", "install", "--python", python, "--requirement", pins)
    if editable:
        uv("pip", "install", "--python", python, "--no-deps", "--editable", ROOT)


def uv(*arguments: str | Path) -> None:
    """Run uv; raise `UnavailableError` with its last words if it fails."""
    command = [sys.executable, "-m", "uv", "--quiet", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError((done.stderr.strip() or f"uv failed with {done.returncode}").splitlines()[-1])


def pin() -> None:
    """Compile the pins anew."""
    for name, requirements in REQUIREMENTS.items():
        source = FOLDER / f"{name}.in"
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_text("\n".join(requirements) + "\n")
        options = "--upgrade --no-emit-index-url --no-header --no-annotate --python-version 3.11 --output-file"
        uv("pip", "compile", *options.split(), PINS / f"{name}.txt", source)


if __name__ == "__main__":
    pin()
