#!/usr/bin/python3
"""A mail server with a mailbox: aiosmtpd, with STARTTLS or TLS and a password, that fails as it is told.

usage: mail.py IP PORT MAILBOX FAULTFILE PROTECTION CHAIN KEY USER PASSWORD

PROTECTION is "starttls" (required), "tls" or "none"; CHAIN and KEY are PEM files. USER may be empty: nobody need sign in. Each mail is a
file in the folder MAILBOX, named by its number. FAULTFILE holds the fault in force, looked at for each mail: empty for none, "later" and
"refused" for the recipient, "cut" to close the connection after the mail without an answer, "stall" to give none.
"""

import asyncio
import os
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult


class Mailbox:
    def __init__(self, folder, fault):
        self.folder = folder
        self.fault = fault
        self.count = 0

    def told(self):
        with open(self.fault, encoding="ascii") as file:
            return file.read().strip()

    async def handle_RCPT(self, server, session, envelope, address, options):
        if self.told() == "later":
            return f"450 4.2.0 <{address}>: Greylisted, come again"
        if self.told() == "refused":
            return f"550 5.1.1 <{address}>: no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if self.told() == "stall":
            # That it has come is seen from outside.
            open(os.path.join(self.folder, "stalled"), "wb").close()
            await asyncio.sleep(3600)
        self.count += 1
        name = os.path.join(self.folder, f"{self.count:04}")
        with open(name + ".new", "wb") as file:
            file.write(envelope.content)
        os.rename(name + ".new", name + ".eml")
        if self.told() == "cut":
            server.transport.abort()
            return "250 never heard"
        return "250 2.0.0 in the mailbox"


async def main(ip, port, folder, fault, protection, chain, key, user, password):
    context = None
    if protection != "none":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain, key)

    def authenticate(server, session, envelope, mechanism, data):
        good = data.login == user.encode() and data.password == password.encode()
        return AuthResult(success=good, handled=False)

    mailbox = Mailbox(folder, fault)

    def protocol():
        return SMTP(
            mailbox,
            tls_context=context if protection == "starttls" else None,
            require_starttls=protection == "starttls",
            authenticator=authenticate,
            auth_required=bool(user),
            auth_require_tls=protection == "starttls",
            loop=asyncio.get_running_loop(),
        )

    server = await asyncio.get_running_loop().create_server(
        protocol, ip, int(port), ssl=context if protection == "tls" else None
    )
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
