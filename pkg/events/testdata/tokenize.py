# SPDX-License-Identifier: Apache-2.0
"""Answers, for each string on stdin, what systemd's tokenizer makes of it.

Request: length, bytes. Reply: return value (below 0: -errno), number of lines,
and length and bytes of each. Numbers are 32 bits, little endian. A string must
hold no NUL. The first argument is the path of libsystemd-shared.
"""

import ctypes
import struct
import sys

lib = ctypes.CDLL(sys.argv[1])
strv = ctypes.POINTER(ctypes.c_char_p)
lib.strv_split_newlines_full.argtypes = [ctypes.POINTER(strv), ctypes.c_char_p, ctypes.c_int]
lib.strv_free.argtypes = [strv]
lib.strv_free.restype = ctypes.c_void_p

stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
while head := stdin.read(4):
    text = stdin.read(struct.unpack("<I", head)[0])
    result = strv()
    code = lib.strv_split_newlines_full(ctypes.byref(result), text, 0)
    lines = []
    if code >= 0 and result:
        while (line := result[len(lines)]) is not None:
            lines.append(line)
        lib.strv_free(result)
    stdout.write(struct.pack("<iI", code, len(lines)))
    for line in lines:
        stdout.write(struct.pack("<I", len(line)) + line)
    stdout.flush()
