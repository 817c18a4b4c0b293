"""A disk that loses what was not flushed when the power goes, as a real one with a write cache does.

usage: disk.py FILE SOCKET SEED       (serves one connection of NBD on the Unix socket SOCKET, then ends)

What is written waits in memory until the client asks for FLUSH or writes with FUA; only then is it in FILE. Killing the emulator alone
would lose nothing: the host's page cache would keep it all. Once the client is gone, for whatever reason, the power is off: of each
sector that waits, either what FILE holds stays or one of the versions written since gets in, by chance, in no order. So writes are
lost, torn, and overtaken by later ones, all of which a disk may do to what nobody flushed. With SIGUSR1 the disk
stops at the next write after which something waits: it says "stopped" and answers nothing more, so that its power can be cut just there.
A moment chosen by the clock is hardly ever one. In the end it prints one line:
    SECTORS waited, KEPT were kept, WRITES, FLUSHES
The protocol: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md (fixed newstyle, simple replies).
"""

import os
import random
import signal
import socket
import struct
import sys

SECTOR = 512
# Longest request: the protocol lets a client assume 32 MiB.
REQUEST_MAX = 32 << 20

NBDMAGIC, IHAVEOPT, REPLY_MAGIC = 0x4E42444D41474943, 0x49484156454F5054, 0x3E889045565A9
FIXED_NEWSTYLE, NO_ZEROES = 1, 2
OPT_EXPORT_NAME, OPT_ABORT, OPT_INFO, OPT_GO = 1, 2, 6, 7
REP_ACK, REP_INFO, REP_ERR_UNSUP = 1, 3, (1 << 31) + 1
HAS_FLAGS, SEND_FLUSH, SEND_FUA = 1, 4, 8
FLAGS = HAS_FLAGS | SEND_FLUSH | SEND_FUA
READ, WRITE, DISC, FLUSH = 0, 1, 2, 3
FUA = 1
EINVAL = 22


class Disk:
    def __init__(self, path):
        self.file = os.open(path, os.O_RDWR)
        self.size = os.fstat(self.file).st_size
        # Sector number to the versions that wait, oldest first.
        self.waiting = {}
        self.writes = self.flushes = 0
        self.stops = False

    def read(self, at, length):
        data = bytearray(os.pread(self.file, length, at))
        for sector in range(at // SECTOR, (at + length) // SECTOR):
            if sector in self.waiting:
                place = sector * SECTOR - at
                data[place : place + SECTOR] = self.waiting[sector][-1]
        return bytes(data)

    def write(self, at, data, through):
        self.writes += 1
        for place in range(0, len(data), SECTOR):
            sector = (at + place) // SECTOR
            if through:
                self.waiting.pop(sector, None)
            else:
                self.waiting.setdefault(sector, []).append(data[place : place + SECTOR])
        if through:
            os.pwrite(self.file, data, at)

    def flush(self):
        self.flushes += 1
        for sector, versions in self.waiting.items():
            os.pwrite(self.file, versions[-1], sector * SECTOR)
        self.waiting.clear()

    def power_off(self, chance):
        """Lets a part of what waits get in: how large a part differs from cut to cut, from nothing to everything."""
        share, kept = chance.choice([0.0, chance.random(), chance.random(), 1.0]), 0
        for sector, versions in self.waiting.items():
            if chance.random() < share:
                os.pwrite(self.file, chance.choice(versions), sector * SECTOR)
                kept += 1
        print(f"{len(self.waiting)} waited, {kept} were kept, {self.writes} writes, {self.flushes} flushes", flush=True)


def exactly(client, length):
    parts = bytearray()
    while len(parts) < length:
        part = client.recv(length - len(parts))
        if not part:
            raise ConnectionError
        parts += part
    return bytes(parts)


def negotiate(client, disk):
    """Agrees on the one disk there is; False if the client wants none."""
    client.sendall(struct.pack(">QQH", NBDMAGIC, IHAVEOPT, FIXED_NEWSTYLE | NO_ZEROES))
    no_zeroes = struct.unpack(">I", exactly(client, 4))[0] & NO_ZEROES
    while True:
        _, option, length = struct.unpack(">QII", exactly(client, 16))
        exactly(client, min(length, REQUEST_MAX))

        def reply(kind, data=b"", option=option):
            client.sendall(struct.pack(">QIII", REPLY_MAGIC, option, kind, len(data)) + data)

        if option == OPT_EXPORT_NAME:
            client.sendall(struct.pack(">QH", disk.size, FLAGS) + (b"" if no_zeroes else bytes(124)))
            return True
        if option in (OPT_GO, OPT_INFO):
            reply(REP_INFO, struct.pack(">HQH", 0, disk.size, FLAGS))
            # Info 3: block sizes. Whole sectors only, so that a sector is what gets lost.
            reply(REP_INFO, struct.pack(">HIII", 3, SECTOR, 4096, REQUEST_MAX))
            reply(REP_ACK)
            if option == OPT_GO:
                return True
        elif option == OPT_ABORT:
            reply(REP_ACK)
            return False
        else:
            reply(REP_ERR_UNSUP)


def serve(client, disk):
    while True:
        _, flags, command, cookie, at, length = struct.unpack(">IHHQQI", exactly(client, 28))
        if command == DISC:
            return
        data, error = b"", 0
        if length > REQUEST_MAX:
            raise ConnectionError
        written = exactly(client, length) if command == WRITE else b""
        if command != FLUSH and (at % SECTOR or length % SECTOR or at + length > disk.size):
            error = EINVAL
        elif command == READ:
            data = disk.read(at, length)
        elif command == WRITE:
            disk.write(at, written, flags & FUA)
            if disk.stops and disk.waiting:
                print("stopped", flush=True)
                while client.recv(1 << 16):
                    pass
                return
        elif command == FLUSH:
            disk.flush()
        else:
            error = EINVAL
        client.sendall(struct.pack(">IIQ", 0x67446698, error, cookie) + data)


def main():
    disk, chance = Disk(sys.argv[1]), random.Random(int(sys.argv[3]))
    signal.signal(signal.SIGUSR1, lambda *_: setattr(disk, "stops", True))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(sys.argv[2])
    listener.listen(1)
    print("ready", flush=True)
    client = listener.accept()[0]
    os.unlink(sys.argv[2])
    try:
        if negotiate(client, disk):
            serve(client, disk)
    except ConnectionError:
        pass
    disk.power_off(chance)


if __name__ == "__main__":
    main()
