# Takes on the AppArmor label LABEL and tries what an intruder would, in the guest. See "apparmor".
# usage: apparmor-probe.py LABEL WHAT[:OF]...    prints WHAT:OF and yes, or the name of the error
import errno
import os
import socket
import sys

FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6, "unix": socket.AF_UNIX}


def attempt(what, of):
    if what == "read":
        os.close(os.open(of, os.O_RDONLY))
    elif what == "write":
        os.close(os.open(of, os.O_WRONLY | os.O_CREAT, 0o600))
    elif what == "socket":
        socket.socket(FAMILIES[of], socket.SOCK_STREAM).close()
    elif what == "start":
        os.posix_spawn(of, [of, "-version"], {})


def tried(text):
    what, _, of = text.partition(":")
    try:
        attempt(what, of)
        return "yes"
    except OSError as error:
        return errno.errorcode[error.errno]


label, attempts = sys.argv[1], sys.argv[2:]
"".encode("idna")  # what Python would load later
if label != "-":
    with open("/proc/self/attr/apparmor/current", "w") as current:
        current.write("changeprofile " + label)
for text in attempts:
    print(text, tried(text), flush=True)
