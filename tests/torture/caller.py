"""Calls whose every packet can be found again: for the machine that loses its power.

usage: caller.py SIP_PORT CALLS NAME

Keeps CALLS calls going over UDP, each with two tracks of G.711 in which every packet says its number (see numbers.py), and prints
    answered CALL          when the INVITE was answered
    sent CALL N            after each fifth packet: numbers 0 to N of both tracks are sent
    ended CALL N           when the BYE was answered; N is the last number
NAME goes into the names of the calls, so that they are unlike those of other runs.
"""

import random
import socket
import sys
import time

from numbers_in_audio import payload

PACKET_S = 0.02
HOST = "127.0.0.1"

METADATA = """<?xml version="1.0" encoding="UTF-8"?>
<recording_metadata xmlns="urn:ietf:params:xml:ns:siprec"><dataMode>complete</dataMode>
<session id="urn:uuid:s"><start-time>2026-05-11T10:20:30.000+0200</start-time></session>
<participant id="urn:uuid:a" session="urn:uuid:s"><aor>sip:user@example.com</aor><send><id>urn:uuid:1</id></send></participant>
<participant id="urn:uuid:b" session="urn:uuid:s"><aor>sip:+4930770001@example.com</aor><send><id>urn:uuid:2</id></send></participant>
<stream id="urn:uuid:1" session="urn:uuid:s"><label>1</label><mode>separate</mode></stream>
<stream id="urn:uuid:2" session="urn:uuid:s"><label>2</label><mode>separate</mode></stream>
<extensiondata id="urn:uuid:e" parent="urn:uuid:s">
<broadWorksRecordingMetadata version="3.0" xmlns="http://schema.broadsoft.com/broadworksCallRecording">
<userID>user@example.com</userID><callID>{name}</callID>
<recordingType>on</recordingType></broadWorksRecordingMetadata></extensiondata></recording_metadata>
"""

SDP = """v=0
o=- 1 1 IN IP4 127.0.0.1
s=-
c=IN IP4 127.0.0.1
t=0 0
m=audio {0} RTP/AVP 0
a=sendonly
a=label:1
m=audio {1} RTP/AVP 0
a=sendonly
a=label:2
"""


def crlf(text):
    return text.replace("\n", "\r\n")


class Call:
    def __init__(self, name, server):
        self.name, self.server = name, server
        self.sip = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sip.bind((HOST, 0))
        self.sip.settimeout(0.5)
        self.rtp = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for track in self.rtp:
            track.bind((HOST, 0))
        self.tag, self.cseq, self.sent = random.randrange(1 << 30), 0, 0
        self.packets_max = random.randrange(200, 900)

    def request(self, method, to_tag="", body="", headers=""):
        port = self.sip.getsockname()[1]
        if method != "ACK":
            self.cseq += 1
        head = (
            f"{method} sip:{HOST}:{self.server[1]} SIP/2.0\n"
            f"Via: SIP/2.0/UDP {HOST}:{port};branch=z9hG4bK{self.tag}{method}{self.cseq};rport\nMax-Forwards: 70\n"
            f"From: <sip:+390508600001@{HOST}>;tag={self.tag}\nTo: <sip:{HOST}:{self.server[1]}>{to_tag}\n"
            f"Call-ID: {self.name}@{HOST}\nCSeq: {self.cseq} {method}\nContact: <sip:{HOST}:{port}>;+sip.src\n{headers}"
            f"Content-Length: {len(body)}\n\n"
        )
        return crlf(head).encode() + body.encode()

    def ask(self, message):
        """Sends a request until a final answer comes, for ten seconds."""
        for _ in range(20):
            self.sip.sendto(message, self.server)
            try:
                while True:
                    answer = self.sip.recv(65535).decode(errors="replace")
                    if not answer.startswith("SIP/2.0 1"):
                        return answer
            except (TimeoutError, OSError):
                pass
        return ""

    def begin(self):
        ports = [track.getsockname()[1] for track in self.rtp]
        parts = [("application/sdp", SDP.format(*ports)), ("application/rs-metadata+xml", METADATA.format(name=self.name))]
        body = "".join(f"--cut\nContent-Type: {kind}\n\n{text}\n" for kind, text in parts) + "--cut--\n"
        headers = "Require: siprec\nContent-Type: multipart/mixed;boundary=cut\n"
        answer = self.ask(self.request("INVITE", body=crlf(body), headers=headers))
        if not answer.startswith("SIP/2.0 200"):
            print(f"refused {self.name} {answer[:40]!r}", flush=True)
            return False
        to = next(line for line in answer.splitlines() if line.lower().startswith("to:"))
        self.to_tag = ";tag=" + to.split(";tag=")[1].split(";")[0]
        self.media = [int(line.split()[1]) for line in answer.splitlines() if line.startswith("m=audio")]
        self.sip.sendto(self.request("ACK", self.to_tag), self.server)
        print(f"answered {self.name}", flush=True)
        self.next = time.monotonic()
        return True

    def send(self):
        """Sends what is due; says whether the call goes on."""
        while self.next <= time.monotonic():
            n = self.sent
            header = b"\x80\x00" + (n & 0xFFFF).to_bytes(2, "big") + (n * 160 & 0xFFFFFFFF).to_bytes(4, "big")
            for track, port in zip(self.rtp, self.media):
                track.sendto(header + (port + self.tag & 0xFFFFFFFF).to_bytes(4, "big") + payload(n), (HOST, port))
            self.sent += 1
            self.next += PACKET_S
            if n % 5 == 4:
                print(f"sent {self.name} {n}", flush=True)
        return self.sent < self.packets_max

    def end(self):
        if self.ask(self.request("BYE", self.to_tag)).startswith("SIP/2.0 200"):
            print(f"ended {self.name} {self.sent - 1}", flush=True)
        for opened in [self.sip, *self.rtp]:
            opened.close()


def main():
    port, count, name = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    calls, made = [], 0
    while True:
        while len(calls) < count:
            call = Call(f"{name}-{made}", (HOST, port))
            made += 1
            if call.begin():
                calls.append(call)
            else:
                time.sleep(1)
        for call in calls[:]:
            if not call.send():
                calls.remove(call)
                call.end()
        time.sleep(max(0, min(call.next for call in calls) - time.monotonic()) if calls else 0)


main()
