"""Measure training by several processes: on one machine, and over a slow link between two.

usage: python benchmarks/distributed.py [--rounds 3] [--steps 20] [--log FILE]
       python benchmarks/distributed.py --table [--log FILE]

First, side by side in turns: one process with two threads, and two processes with one thread each.
Then (on Linux, as root) two processes in network namespaces of their own, whose link has a limited
bandwidth, a delay and losses (``slow_link.py``). From a fit to these, the seconds of a step on 8,
64 and 512 machines are extrapolated; a setting that is left out of the fit checks it. Run it on an
otherwise idle machine.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median

import child
import numpy as np
import rawlog
from slow_link import ADDRESSES, DEVICES, SPACES, SlowLink

CHILD = Path(__file__).with_name("distributed_child.py")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run")
# name: recipe, changes, image size
NETWORKS = {
    "fast-xl": ("fast", {"model": "fast-xl", "lr": 0.05, "translate": 2, "skip_easy": 0.0}, 32),
    "efficientnet-lite0": ("pretrained", {"image_size": 128, "batch_size": 64}, 128),
}
# bandwidth in Mbit/s and delay of a packet in ms; the last one checks the model
LINKS = ((1_000, 0.0), (300, 0.0), (100, 0.0), (1_000, 2.0), (1_000, 10.0), (200, 5.0))
LOSSY = (1_000, 1.0, 0.001)  # this share of the packets is lost
WARM_UP = 3
PORT = 29417
MACHINES = (8, 64, 512)
BITS = 8e-6  # Mbit in a byte


def arguments(network, threads, steps, interface=None):
    recipe, changes, size = NETWORKS[network]
    changes = {**changes, "threads": threads, "class_weights": "none"}
    return [CHILD, json.dumps([recipe, changes, size, WARM_UP, steps, interface])]


def on_one_machine(network, processes, threads, steps):
    """Return the results of ``processes`` on this machine."""
    launch = [*TORCHRUN, "--standalone", f"--nproc-per-node={processes}"]
    command = launch if processes > 1 else [sys.executable]
    environment = {"OMP_NUM_THREADS": str(threads)}
    return child.run([*command, *arguments(network, threads, steps)], environment).report


def over_link(network, steps):
    """Return the results of two processes at the ends of the link."""
    running = []
    for rank, (space, interface) in enumerate(zip(SPACES, DEVICES, strict=True)):
        launch = [*TORCHRUN, "--nnodes=2", "--nproc-per-node=1", f"--node-rank={rank}"]
        launch += [f"--master-addr={ADDRESSES[0]}", f"--master-port={PORT}"]
        command = ["ip", "netns", "exec", space, *launch, *arguments(network, 1, steps, interface)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": interface}
        command = [str(word) for word in command]
        running.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        )
    outputs = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        sys.exit("a process over the link failed")
    return json.loads(outputs[0].strip().splitlines()[-1])


def measure(options):
    """Run what is not in the log."""
    for repeat in range(options.rounds):
        for network in NETWORKS:
            for processes, threads in ((1, 2), (2, 1)):
                what = {"network": network, "processes": processes, "threads": threads}
                what |= {"round": repeat}
                if not rawlog.find(options.log, **what):
                    found = on_one_machine(network, processes, threads, options.steps)
                    rawlog.append(options.log, rawlog.machine() | what | found)
                    print(json.dumps(what), f"{median(found['seconds']):.3f} s a step", flush=True)
    if not hasattr(os, "geteuid") or os.geteuid() or not shutil.which("ip"):
        print("no slow link: that takes Linux, root, and the program ip", file=sys.stderr)
        return
    for network in NETWORKS:
        for megabits, delay, loss in (*((*link, 0.0) for link in LINKS), LOSSY):
            what = {"network": network, "megabits": megabits, "delay_ms": delay, "loss": loss}
            if not rawlog.find(options.log, **what):
                with SlowLink(megabits, delay / 1e3, loss):
                    found = over_link(network, options.steps)
                rawlog.append(options.log, rawlog.machine() | what | found)
                print(json.dumps(what), f"{median(found['seconds']):.3f} s a step", flush=True)


def fitted(rows):
    """Fit ``seconds = compute + messages * delay + bytes / bandwidth`` to the links.

    Returns
    -------
    tuple of float
        The seconds without a link, the number of delays in a step, and the bytes that one direction
        carries.
    """
    table = [[1, row["delay_ms"] / 1e3, BITS / row["megabits"]] for row in rows]
    seconds = [median(row["seconds"]) for row in rows]
    found, *_ = np.linalg.lstsq(np.array(table), np.array(seconds), rcond=None)
    return tuple(float(value) for value in found)


def extrapolated(fit, machines, megabits, delay_ms, batches):
    """Return the seconds of a step on ``machines`` machines, for ``batches`` times the batch.

    The all-reduce of gloo is a ring: 2 (n - 1) messages, each with 1 / n of the values. Two
    machines compute half a batch each.
    """
    compute, messages, sent = fit
    hops = 2 * (machines - 1) / 2  # relative to two machines
    share = (machines - 1) / machines / 0.5
    computing = compute * 2 / machines * batches
    return computing + messages * hops * delay_ms / 1e3 + sent * share * BITS / megabits


def table(rows):
    """Return the tables in Markdown."""
    lines = [
        "| network | 1 process, 2 threads | 2 processes, 1 thread | ratio |",
        "|---|---:|---:|---:|",
    ]
    for network in NETWORKS:
        chosen = [row for row in rows if row["network"] == network and "processes" in row]
        one, two = (
            [median(row["seconds"]) for row in chosen if row["processes"] == count]
            for count in (1, 2)
        )
        if not one or not two:
            continue
        ratio, deviation, _ = rawlog.spread(a / b for a, b in zip(one, two, strict=False))
        lines.append(
            f"| {network} | {rawlog.spread(one)[0]:.3f} s | {rawlog.spread(two)[0]:.3f} s "
            f"| {ratio:.2f} ± {deviation:.2f} |"
        )
    for network in NETWORKS:
        links = [row for row in rows if row["network"] == network and "megabits" in row]
        if len(links) <= len(LINKS):
            continue
        *known, check = [row for row in links if not row["loss"]]
        fit = fitted(known)
        lines += [
            "",
            f"| {network}: Mbit/s | delay | lost | MB a step and direction | s a step |",
            "|---:|---:|---:|---:|---:|",
        ]
        for row in links:
            lines.append(
                f"| {row['megabits']:,} | {row['delay_ms']:g} ms | {row['loss']:.1%} "
                f"| {row['sent_bytes_per_step'] / 1e6:.1f} | {median(row['seconds']):.3f} |"
            )
        guess = fit[0] + fit[1] * check["delay_ms"] / 1e3 + fit[2] * BITS / check["megabits"]
        lines += [
            "",
            f"{network}: {fit[0]:.3f} s of computing, {fit[1]:.0f} delays and "
            f"{fit[2] / 1e6:.1f} MB a step; for {check['megabits']} Mbit/s, "
            f"which is not in the fit, {guess:.3f} s instead of the measured "
            f"{median(check['seconds']):.3f} s.",
            "",
            "| machines | batch | s a step at 10 Gbit/s, 0.05 ms | speed-up over one machine |",
            "|---:|---:|---:|---:|",
        ]
        batch = NETWORKS[network][1].get("batch_size", 250)
        for machines in MACHINES:
            for batches in (1, 8):
                seconds = extrapolated(fit, machines, 10_000, 0.05, batches)
                alone = fit[0] * 2 * batches
                lines.append(
                    f"| {machines} | {batch * batches:,} | {seconds:.3f} | {alone / seconds:.1f} |"
                )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--log", type=Path, help="(default: today's; with --table the newest)")
    parser.add_argument("--table", action="store_true", help="print the table and run nothing")
    options = parser.parse_args()
    if not options.table:
        options.log = options.log or rawlog.today("distributed")
        measure(options)
    print(table(rawlog.read(options.log or rawlog.newest("distributed"))))


if __name__ == "__main__":
    main()
