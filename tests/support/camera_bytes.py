"""Camera files written byte by byte."""

import struct

import lz4.frame
import zstandard

HEAD2, HEAD3 = (b"% evt 2.0\n% geometry 16x12\n% end\n", b"% evt 3.0\n% geometry 16x12\n% end\n")


def time2(t):
    """An EVT2 word of type 8: the upper 28 of 34 bits of the time."""
    return 8 << 28 | t >> 6 & 0xFFFFFFF


def change2(t, x, y, p):
    """An EVT2 word of type 0 or 1: the lower 6 bits of the time, x and y of OFF or ON."""
    return (p > 0) << 28 | (t & 63) << 22 | x << 11 | y


def high3(t):
    """An EVT3 word of type 8: the upper 12 of 24 bits of the time."""
    return 8 << 12 | t >> 12 & 4095


def low3(t):
    """An EVT3 word of type 6: the lower 12 bits of the time."""
    return 6 << 12 | t & 4095


def change3(x, p):
    """An EVT3 word of type 2: an event at x; its row was said before, by a word that is the row."""
    return 2 << 12 | (p > 0) << 11 | x


def base3(x, p):
    """An EVT3 word of type 3: where the vectors begin that words of type 4 (12 pixels) and 5 (8 pixels) describe."""
    return 3 << 12 | (p > 0) << 11 | x


def evt2(words, header=HEAD2):
    """A file of EVT2 words."""
    return header + struct.pack(f"<{len(words)}I", *words)


def evt3(words, header=HEAD3):
    """A file of EVT3 words."""
    return header + struct.pack(f"<{len(words)}H", *words)


def evt21(words, is_legacy=False, header=b"% evt 2.1\n% geometry 64x12\n% end\n"):
    """A file of EVT2.1 words, each given as a word of EVT2 and the bits of 32 pixels; legacy files turn them round."""
    halves = [half for head, mask in words for half in ((head, mask) if is_legacy else (mask, head))]
    return header + struct.pack(f"<{len(halves)}I", *halves)


def evt2_bytes(events, header=HEAD2):
    """Events as EVT2, each after its time."""
    return evt2([word for t, x, y, p in events.to_array().tolist() for word in (time2(t), change2(t, x, y, p))], header)


def evt3_bytes(events, header=HEAD3):
    """Events as EVT3, each after its time and row."""
    rows = events.to_array().tolist()
    return evt3([word for t, x, y, p in rows for word in (high3(t), low3(t), y, change3(x, p))], header)


def dat(rows, version=2, kind=12, lines=b"% Height 12\n% Width 16\n"):
    """DAT of rows t, x, y, p: the time, then 14 bits of x, 14 of y and the polarity; version 1 has 9, 8 and one."""
    header = b"% Data file containing CD events.\n% Version " + b"%d\n" % version + lines + bytes([kind, 8])
    x_bits, p_bit = (14, 28) if version == 2 else (9, 17)
    words = [(t & 0xFFFFFFFF, (p > 0) << p_bit | y << x_bits | x) for t, x, y, p in rows]
    return header + b"".join(struct.pack("<II", *word) for word in words)


def dat_bytes(events):
    """Events as DAT."""
    return dat(events.to_array().tolist())


def es(rows, kind=1, size=(12, 16)):
    """An Event Stream of rows t, x, y, p: a byte 255 for each 127 us, the rest of them and p, x, and y from below."""
    data, last = struct.pack("<12s4B2H", b"Event Stream", 2, 0, 0, kind, size[1], size[0]), 0
    for t, x, y, p in rows:
        whole, rest = divmod(t - last, 127)
        data += b"\xff" * whole + struct.pack("<BHH", rest << 1 | (p > 0), x, size[0] - 1 - y)
        last = t
    return data


def as_it_is(part, data):
    """The bytes of a part of a file, unchanged."""
    return data


def aedat4(streams, size=(12, 16), identifier="EVTS", compression=1, closing=b"table", change=as_it_is):
    """AEDAT4 of streams by camera and output, each a list of packets of rows t, x, y, p, and a table at the end.

    Each part is changed before it is put into the next: the "text", the "header"; of a packet its "table", its "frame"
    of compressed bytes, and its "head" of 8.
    """
    nodes, packets = "", b""
    for number, ((camera, output), stream) in enumerate(streams.items()):
        said = {"originalOutputName": output, "typeIdentifier": identifier}
        info = {"sizeX": size[1], "sizeY": size[0], "source": camera}
        inner = f'<node name="info">{_attributes(info)}</node>'
        nodes += f'<node name="{number}">{_attributes(said)}{inner}</node>'
        packets += b"".join(_packet(number, rows, compression, change) for rows in stream)
    xml = f'<dv version="2.0"><node name="outInfo">{nodes}</node></dv>'.encode() + b"\0"
    xml = change("text", xml)
    end = 14 + 4 + 44 + len(xml + packets) if closing else -1
    # The root table at 20 has three fields, at 4 the compression, at 8 where packets end, at 16 the text's place.
    table = struct.pack("<I4s5H2xiiqII", 20, b"IOHE", 10, 20, 4, 8, 16, 12, compression, end, 4, len(xml) - 1)
    header = change("header", table + xml)
    return b"#!AER-DAT4.0\r\n" + struct.pack("<I", len(header)) + header + packets + closing


def _attributes(said):
    kinds = {int: "int", str: "string"}
    return "".join(f'<attr key="{key}" type="{kinds[type(value)]}">{value}</attr>' for key, value in said.items())


def _packet(number, rows, compression, change):
    # The root table at 16 has one field at 4, the place of the vector.
    table = struct.pack("<I4s3H2xiII", 16, b"EVTS", 6, 8, 4, 8, 4, len(rows))
    data = table + b"".join(struct.pack("<qhh?3x", *row[:3], row[3] > 0) for row in rows)
    compress = (bytes, lz4.frame.compress, lz4.frame.compress, zstandard.compress, zstandard.compress)[compression]
    packed = change("frame", compress(change("table", struct.pack("<I", len(data)) + data)))
    return change("head", struct.pack("<iI", number, len(packed))) + packed
