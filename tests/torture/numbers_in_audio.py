"""Packets of G.711 µ-law that say their number, and the numbers that are found in a WAV file again.

A packet of 160 bytes is a group of four bytes, forty times over. The first byte of a group is a negative value, the others are positive
ones; each carries six bits of the number. So a packet is found wherever it lies in the file, and one that is damaged is not found.
"""

import struct

GROUP = 4


def payload(number):
    group = bytes((0x00 if place == 0 else 0x80) | (number >> (6 * place) & 0x3F) for place in range(GROUP))
    return group * 40


def linear(byte):
    """G.711 µ-law to 16 bits (ITU-T G.711, table 2a)."""
    byte = ~byte & 0xFF
    magnitude = (((byte & 0x0F) << 3) + 0x84 << ((byte & 0x70) >> 4)) - 0x84
    return -magnitude if byte & 0x80 else magnitude


BYTES = {linear(byte): byte for byte in [*range(0x00, 0x40), *range(0x80, 0xC0)]}


def channels(path):
    """The samples of each channel of a WAV file of 16 bits."""
    with open(path, "rb") as file:
        data = file.read()
    at, count = 12, 0
    while at + 8 <= len(data):
        name, size = data[at : at + 4], struct.unpack("<I", data[at + 4 : at + 8])[0]
        if name == b"fmt ":
            count = struct.unpack("<H", data[at + 10 : at + 12])[0]
        if name == b"data":
            size = min(size, len(data) - at - 8) // 2 * 2
            samples = struct.unpack(f"<{size // 2}h", data[at + 8 : at + 8 + size])
            return [samples[channel::count] for channel in range(count)]
        at += 8 + size + size % 2
    return []


def numbers(samples):
    """Numbers of the packets that are whole, in the order in which they stand."""
    found, at = [], 0
    while at + 160 <= len(samples):
        first = BYTES.get(samples[at])
        if first is None or first >= 0x80 or samples[at : at + 160] != samples[at : at + GROUP] * 40:
            at += 1
            continue
        group = [BYTES.get(sample, 0) for sample in samples[at : at + GROUP]]
        found.append(sum((byte & 0x3F) << (6 * place) for place, byte in enumerate(group)))
        at += 160
    return found
