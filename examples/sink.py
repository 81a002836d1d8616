#!/usr/bin/env python3
"""An SMTP server that takes any message and writes it to a folder: for trying things out, for nothing else.

    sink.py [PORT] [FOLDER]        # 10026, released
"""

import pathlib
import socketserver
import sys

if {"-h", "--help"} & set(sys.argv):
    sys.exit(print(__doc__.strip()))

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 10026
FOLDER = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else "released")


class Session(socketserver.StreamRequestHandler):
    def reply(self, *lines):
        for line in lines:
            self.wfile.write(line.encode() + b"\r\n")

    def handle(self):
        self.reply("220 sink ESMTP")
        while line := self.rfile.readline():
            verb = line[:4].upper().decode("ascii", "replace")
            if verb == "EHLO":
                self.reply("250-sink", "250-PIPELINING", "250-8BITMIME", "250 SMTPUTF8")
            elif verb == "DATA":
                self.reply("354 go ahead")
                self.take()
            elif verb == "QUIT":
                return self.reply("221 bye")
            else:
                self.reply("250 ok")

    def take(self):
        message = bytearray()
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            message += line[1:] if line.startswith(b".") else line
        if line:
            number = len(list(FOLDER.iterdir())) + 1
            path = FOLDER / f"{number}.eml"
            path.write_bytes(message)
            print(f"{path}: {len(message)} bytes", flush=True)
            self.reply("250 taken")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


FOLDER.mkdir(parents=True, exist_ok=True)
with Server(("127.0.0.1", PORT), Session) as server:
    print(f"taking mail on 127.0.0.1:{PORT} into {FOLDER}/", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
