"""A network link with a limited bandwidth, a delay and losses, between two network namespaces.

In user space by TUN devices, because not every kernel has the queueing discipline netem. Linux, as
root.
"""

import fcntl
import os
import queue
import random
import struct
import subprocess
import threading
import time

SPACES, DEVICES = ("peewit-first", "peewit-second"), ("peewit0", "peewit1")
ADDRESSES = ("10.91.7.1", "10.91.7.2")
# large packets, because Python forwards them one by one
MTU = 16_000
# linux/if_tun.h
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


class SlowLink:
    """The link, while it is entered as a context manager.

    Parameters
    ----------
    megabits : float
        Bandwidth of each direction in Mbit/s.
    delay : float
        Of each packet, in seconds.
    loss : float
        Share of the packets that are dropped.
    """

    def __init__(self, megabits, delay, loss=0.0):
        self.seconds_per_byte, self.delay, self.loss = 8e-6 / megabits, delay, loss

    def __enter__(self):
        remove()
        ends = []
        for space, device, address in zip(SPACES, DEVICES, ADDRESSES, strict=True):
            _ip("netns", "add", space)
            end = os.open("/dev/net/tun", os.O_RDWR)
            fcntl.ioctl(
                end, _TUNSETIFF, struct.pack("16sH", device.encode(), _IFF_TUN | _IFF_NO_PI)
            )
            ends.append(end)
            _ip("link", "set", device, "netns", space)
            _ip("-n", space, "address", "add", f"{address}/24", "dev", device)
            _ip("-n", space, "link", "set", device, "mtu", str(MTU), "up")
            _ip("-n", space, "link", "set", "lo", "up")
        self._ends = ends
        for source, target in (ends, ends[::-1]):
            waiting = queue.SimpleQueue()
            for work in (self._receive, self._deliver):
                end = source if work == self._receive else target
                threading.Thread(target=work, args=(end, waiting), daemon=True).start()
        return self

    def __exit__(self, *_):
        remove()
        for end in self._ends:
            os.close(end)

    def _receive(self, source, waiting):
        free = 0.0  # when the link has transmitted everything before
        drop = random.Random(0)
        while True:
            try:
                packet = os.read(source, 2 * MTU)
            except OSError:  # closed
                waiting.put(None)
                return
            if drop.random() < self.loss:
                continue
            free = max(free, time.monotonic()) + len(packet) * self.seconds_per_byte
            waiting.put((free + self.delay, packet))

    def _deliver(self, target, waiting):
        while (item := waiting.get()) is not None:
            due, packet = item
            if (left := due - time.monotonic()) > 0:
                time.sleep(left)
            try:
                os.write(target, packet)
            except OSError:
                return


def remove():
    """Remove the namespaces, and with them the devices."""
    for space in SPACES:
        subprocess.run(["ip", "netns", "delete", space], stderr=subprocess.DEVNULL)


def _ip(*words):
    subprocess.run(["ip", *words], check=True)
