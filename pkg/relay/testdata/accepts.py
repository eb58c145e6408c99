# SPDX-License-Identifier: Apache-2.0
"""Answers, for each value on stdin, whether systemd takes it.

Request: what the value is to be, length, bytes; the first two are numbers of 32
bits, little endian. Reply: one byte, 0 or 1. The first argument is the path of
libsystemd-shared.
"""

import ctypes
import struct
import sys

lib = ctypes.CDLL(sys.argv[1])
lib.utf8_is_valid_n.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
lib.utf8_is_valid_n.restype = ctypes.c_void_p
lib.fdname_is_valid.restype = ctypes.c_bool

FUNCTIONS = [
    lambda s: lib.utf8_is_valid_n(s, len(s)) is not None,
    lambda s: lib.parse_errno(s) >= 0,
    lib.fdname_is_valid,
]

stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
while head := stdin.read(8):
    function, length = struct.unpack("<II", head)
    stdout.write(bytes([bool(FUNCTIONS[function](stdin.read(length)))]))
    stdout.flush()
