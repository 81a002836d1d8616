#!/usr/bin/env python3
"""Sends one message by SMTP, with the EICAR test file in it if asked: for trying things out.

    send.py [PORT] [--eicar]       # 10025
"""

import smtplib
import sys
from email.message import EmailMessage

# In two halves, so that no virus scanner takes this file for what it makes.
EICAR = "X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + "EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"

if {"-h", "--help"} & set(sys.argv):
    sys.exit(print(__doc__.strip()))

arguments = [argument for argument in sys.argv[1:] if argument != "--eicar"]
message = EmailMessage()
message["From"] = "a@client.example"
message["To"] = "b@recipient.example"
message["Subject"] = "a try"
message.set_content("A message that somebody sent to try things out.\n")
if len(arguments) < len(sys.argv) - 1:
    message.add_attachment(EICAR.encode(), maintype="application", subtype="octet-stream", filename="eicar.com")

with smtplib.SMTP("127.0.0.1", int(arguments[0]) if arguments else 10025, timeout=180) as server:
    server.send_message(message)
print("accepted")
