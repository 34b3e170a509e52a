"""Fuzz every reader of bytes from outside.

usage: python benchmarks/fuzz.py [--targets NAME ...] [--executions 100000] [--seconds S]
           [--seed 0] [--corpus FOLDER] [--log FILE]

Each target runs in a process of its own, with valid inputs that are mutated: guided by coverage if
the package atheris is installed (with --corpus, which keeps the inputs that reach new code), or
else at random. A finding is an exception other than a PeewitError, an input that takes more than
20 seconds or 2 GB more than the process had, or a file outside the folder of the input. It ends the
target; the input is kept in the folder findings.
"""

import argparse
import hashlib
import importlib.util
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import fuzz_targets
import rawlog

SECONDS = 20
MEMORY = 2 << 30
INTERESTING = (0, 1, 127, 128, 255)
FINDINGS = Path("findings")


class Executor:
    """Gives inputs to a target, and keeps the first that is a finding.

    Parameters
    ----------
    target : fuzz_targets.Target
    folder : Path
        Where the target finds its input. Nothing may appear beside it.
    """

    def __init__(self, target, folder):
        from peewit.errors import PeewitError

        self.target, self.expected = target, PeewitError
        self.folder = folder
        self.inside = folder / "input"
        self.executions, self.refused, self.finding = 0, 0, None

    def run(self, content):
        """Return whether this input is harmless."""
        self.inside.mkdir()
        self.executions += 1
        signal.alarm(SECONDS)
        try:
            self.target.run(content, self.inside)
        except self.expected:
            self.refused += 1
        except (Exception, TimeoutError):  # whatever it is, it is a finding
            self.finding = content, traceback.format_exc()
        finally:
            signal.alarm(0)
            for file in self.inside.iterdir():
                file.unlink()
            self.inside.rmdir()
        left = [path.name for path in self.folder.iterdir()]
        if left:
            self.finding = content, f"files outside the folder: {left}"
        return self.finding is None


def mutated(content, seeds, draw):
    """Return a damaged copy of ``content``: a few random changes."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4, 8))):
        at = draw.randrange(len(data) + 1)
        length = draw.choice((1, 2, 4, 16, 64))
        kind = draw.randrange(6)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1 and at < len(data):
            data[at] = draw.choice(INTERESTING)
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = data[at : at + length] * draw.randrange(1, 5)
        elif kind == 4:
            data[at:at] = draw.randbytes(length)
        else:
            other = draw.choice(seeds)
            first = draw.randrange(len(other) + 1)
            data[at : at + length] = other[first : first + length]
    return bytes(data)


def at_random(executor, executions, seconds, seed):
    """Run random mutations of the seeds, and of mutations that were not refused."""
    draw, seeds = random.Random(seed), executor.target.seeds()
    ends = time.monotonic() + seconds
    for content in seeds:
        if not executor.run(content):
            return
        if executor.refused:
            raise SystemExit("a seed is refused")
    accepted = list(seeds)
    while executor.executions < executions and time.monotonic() < ends:
        refused = executor.refused
        content = mutated(draw.choice(accepted), seeds, draw)
        if not executor.run(content):
            return
        if executor.refused == refused and len(accepted) < 1_000:
            accepted.append(content)


def by_coverage(executor, executions, seconds, seed, corpus, report):
    """Let atheris choose the inputs; it ends the process."""
    import atheris

    corpus.mkdir(parents=True, exist_ok=True)
    for content in executor.target.seeds():
        (corpus / hashlib.sha256(content).hexdigest()[:16]).write_bytes(content)

    def one(content):
        if not executor.run(bytes(content)) or executor.executions >= executions:
            report()
            sys.stdout.flush()
            os_exit(0)

    options = [f"-runs={executions}", f"-max_total_time={int(seconds)}", f"-seed={seed + 1}"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one)
    import atexit

    atexit.register(report)
    atheris.Fuzz()


def os_exit(code):
    """End the process without libFuzzer's report about it."""
    import os

    os._exit(code)


def child(options):
    """Fuzz one target in this process; print the result as JSON."""
    import resource  # not on Windows

    (name,) = options.targets
    guided = options.corpus is not None and importlib.util.find_spec("atheris") is not None
    if guided:
        import atheris

        with atheris.instrument_imports(include=["peewit"]):
            import peewit
            from peewit.data import sources  # noqa: F401
    import peewit  # noqa: F401

    began, target = time.monotonic(), fuzz_targets.TARGETS[name]
    signal.signal(signal.SIGALRM, _too_long)
    with tempfile.TemporaryDirectory() as folder:
        executor = Executor(target, Path(folder))

        def report():
            found = {
                "executions": executor.executions,
                "refused": executor.refused,
                "seconds": time.monotonic() - began,
                "guided": guided,
                "finding": executor.finding and executor.finding[1],
            }
            if executor.finding:
                FINDINGS.mkdir(exist_ok=True)
                digest = hashlib.sha256(executor.finding[0]).hexdigest()[:12]
                file = FINDINGS / f"{name}-{digest}"
                file.write_bytes(executor.finding[0])
                found["file"] = file.name
            print(json.dumps(found), flush=True)

        for content in target.seeds():  # what is imported late belongs to the process
            executor.run(content)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        if guided:
            corpus = options.corpus / name
            by_coverage(executor, options.executions, options.seconds, options.seed, corpus, report)
        else:
            at_random(executor, options.executions, options.seconds, options.seed)
            report()


def _too_long(number, frame):
    raise TimeoutError(f"more than {SECONDS} seconds")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = list(fuzz_targets.TARGETS)
    parser.add_argument("--targets", nargs="+", default=names, choices=names)
    parser.add_argument("--executions", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=3600.0, help="for each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--corpus", type=Path, help="fuzz with atheris, and keep inputs here")
    parser.add_argument("--log", type=Path, help="(default: today's)")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options)
        return
    log, failed = options.log or rawlog.today("fuzz"), False
    for name in options.targets:
        command = [sys.executable, __file__, "--child", "--targets", name]
        command += ["--executions", options.executions, "--seconds", options.seconds]
        command += ["--seed", options.seed]
        command += ["--corpus", options.corpus] if options.corpus else []
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        found = json.loads(lines[-1]) if lines else {"finding": done.stderr[-2000:]}
        found |= {"exit_code": done.returncode}
        failed = failed or bool(found["finding"]) or done.returncode != 0
        rawlog.append(log, rawlog.machine() | {"target": name, "seed": options.seed} | found)
        print(json.dumps({"target": name} | found), flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
