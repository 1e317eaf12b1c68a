#!/usr/bin/env python3
"""What libpq makes of every connection string in rewind/src/conninfo/corpus.jsonl.

    python3 tests/conninfo_corpus.py LIBPQ            compares it with what the file says
    python3 tests/conninfo_corpus.py LIBPQ --write    writes it into the file

Each line of the file is an object: `text`; then `options`, all that PQconninfoParse finds in it, or `error`, its
message. Lines with `connect` are for PQconnectdb: its message, or null if nothing but the connection fails. Nobody
listens where they lead. New lines need the `text` only, and `connect` if they are for that.

LIBPQ is the library of PostgreSQL 18, built without GSSAPI.
"""

import ctypes
import json
import os
import pathlib
import sys

CORPUS = pathlib.Path(__file__).parent.parent / "rewind/src/conninfo/corpus.jsonl"


class Option(ctypes.Structure):
    _fields_ = [(name, ctypes.c_char_p) for name in ("keyword", "envvar", "compiled", "val", "label", "dispchar")]
    _fields_ += [("dispsize", ctypes.c_int)]


def load(path):
    library = ctypes.CDLL(path)
    library.PQconninfoParse.restype = ctypes.POINTER(Option)
    library.PQconninfoParse.argtypes = [ctypes.c_char_p, ctypes.POINTER(ctypes.c_char_p)]
    library.PQconnectdb.restype = ctypes.c_void_p
    library.PQerrorMessage.restype = ctypes.c_char_p
    library.PQerrorMessage.argtypes = [ctypes.c_void_p]
    return library


def parse(library, text):
    message = ctypes.c_char_p()
    options = library.PQconninfoParse(text.encode(), ctypes.byref(message))
    if not options:
        return {"error": message.value.decode(errors="replace").strip()}
    found, index = {}, 0
    while options[index].keyword:
        if options[index].val is not None:
            found[options[index].keyword.decode()] = options[index].val.decode()
        index += 1
    return {"options": found}


def connect(library, text):
    message = library.PQerrorMessage(library.PQconnectdb(text.encode())).decode().strip()
    line = message.split("\n")[0]
    if line.startswith("connection to server"):
        line = line.split(" failed: ", 1)[1]
        # What the operating system or the server side says is no fault of the string.
        return line if line.startswith("invalid") else None
    return line


def main():
    for name in list(os.environ):
        if name.startswith("PG"):
            del os.environ[name]
    os.environ["HOME"] = "/nonexistent"
    library = load(sys.argv[1])
    lines, wrong = [], 0
    for line in CORPUS.read_text().splitlines():
        known = json.loads(line)
        text = known["text"]
        now = {"text": text, "connect": connect(library, text)} if "connect" in known else {"text": text, **parse(library, text)}
        lines.append(json.dumps(now, ensure_ascii=False))
        if now == known:
            continue
        wrong += 1
        print(f"file:  {line}\nlibpq: {lines[-1]}")
    if "--write" in sys.argv:
        CORPUS.write_text("".join(line + "\n" for line in lines))
    elif wrong:
        sys.exit(f"{wrong} of {len(lines)} lines differ")
    print(f"{len(lines)} strings")


main()
