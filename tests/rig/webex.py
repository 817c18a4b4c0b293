"""A stand-in for Webex: as much of its documented interfaces as is asked for, and strict where the documentation is.

webex.py ADDRESS [CHAIN KEY]    prints the port that it listens at

It is told what it holds and what goes wrong by `POST /_set` (JSON, merged into what it knows), and tells what it saw by `GET /_seen`.
Faults: {"path": part of a path, "kind": 429 | 423 | 500 | 503 | 401 | 403 | "cut" | "slow" | "html", "every": n, "times": m}.
"""

import base64
import datetime
import json
import re
import socketserver
import ssl
import struct
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, HTTPServer

PAGE_PEOPLE, PAGE_PEOPLE_CALLING, PAGE_PEOPLE_LOCATION, PAGE_LOCATIONS, PAGE_RECORDS = 1000, 100, 50, 1000, 5000
PAGE_WORKSPACES, PAGE_LINES = 1000, 2000
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==")
SCOPES = {
    "people": "spark-admin:people_read",
    "locations": "spark-admin:locations_read",
    "organizations": "spark-admin:organizations_read",
    "callRecording": "spark-admin:telephony_config_read",
    "vendors": "spark-admin:telephony_config_read",
    "virtualLines": "spark-admin:telephony_config_read",
    "workspaces": "spark-admin:workspaces_read",
    "numbers": "spark-admin:workspaces_read",
    "cdr_stream": "spark-admin:calling_cdr_read",
    "cdr_feed": "spark-admin:calling_cdr_read",
}


class World:
    def __init__(self):
        self.lock = threading.RLock()
        self.known = {
            "client_id": "C-integration",
            "client_secret": "the-integration-secret",
            "redirect_uri": "http://localhost:8990/callback",
            "people": [],
            "locations": [],
            "organizations": [{"id": "org-1", "displayName": "ACME Inc.", "created": "2020-01-01T00:00:00.000Z"}],
            "workspaces": [],
            "numbers": {},
            "virtual_lines": [],
            "native": {},
            "modes": {},
            "vendors": {},
            "records": [],
            "faults": [],
            "token_s": 1209599,
            "refresh_s": 7775999,
            "rotates": True,
            "grace": True,
            "dead": None,
            "scopes": sorted(set(SCOPES.values())),
        }
        self.codes, self.access, self.refresh = {}, {}, {}
        self.count, self.seen, self.wrong, self.serial = {}, {}, [], 0

    def new_tokens(self, scopes, rotated_from=None):
        self.serial += 1
        access = f"standin-access-{self.serial:06d}"
        self.access[access] = (time.time() + self.known["token_s"], scopes)
        refresh = rotated_from
        if rotated_from is None or self.known["rotates"]:
            refresh = f"standin-refresh-{self.serial:06d}"
            self.refresh[refresh] = scopes
            # The one before is good until the new one has been used, or not at all any more.
            if rotated_from is not None and not self.known["grace"]:
                self.refresh.pop(rotated_from, None)
        return {
            "access_token": access, "expires_in": self.known["token_s"], "token_type": "Bearer",
            "refresh_token": refresh, "refresh_token_expires_in": self.known["refresh_s"],
        }


WORLD = World()


class Refused(Exception):
    def __init__(self, status, text, headers=()):
        super().__init__(text)
        self.status, self.text, self.headers = status, text, headers


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def setup(self):
        super().setup()
        self.connection.setsockopt(6, 1, 1)

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, status, content, headers=(), kind="application/json"):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def refuse(self, error):
        body = {"message": error.text, "errors": [{"description": error.text}], "trackingId": "ROUTER_0"}
        self.answer(error.status, body, error.headers)

    def do_GET(self):
        self.serve("GET")

    def do_POST(self):
        self.serve("POST")

    def serve(self, method):
        url = urllib.parse.urlsplit(self.path)
        pairs = urllib.parse.parse_qsl(url.query, keep_blank_values=True)
        query = dict(pairs)
        try:
            if len(query) != len(pairs):
                raise Refused(400, "a parameter is there twice")
            if url.path.startswith("/_"):
                return self.control(url.path)
            if url.path.startswith("/avatar/"):
                return self.avatar(url.path)
            with WORLD.lock:
                WORLD.seen[url.path] = WORLD.seen.get(url.path, 0) + 1
            if self.fault(url.path):
                return None
            if method == "POST":
                return self.access_token(url.path)
            return self.get(url.path, query)
        except Refused as error:
            if error.status == 400:
                with WORLD.lock:
                    WORLD.wrong.append(f"{url.path}: {error.text}")
            return self.refuse(error)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
            return None

    def control(self, path):
        if path == "/_set":
            told = json.loads(self.body())
            with WORLD.lock:
                for key, value in told.items():
                    if key == "revoke":
                        WORLD.access.clear()
                        if value == "all":
                            WORLD.refresh.clear()
                    elif key == "more_records":
                        WORLD.known["records"].extend(value)
                    else:
                        WORLD.known[key] = value
            return self.answer(200, {})
        with WORLD.lock:
            seen = {"seen": WORLD.seen, "wrong": WORLD.wrong, "access": list(WORLD.access), "refresh": list(WORLD.refresh)}
            return self.answer(200, json.loads(json.dumps(seen)))

    def fault(self, path):
        with WORLD.lock:
            hit = None
            for fault in WORLD.known["faults"]:
                if fault["path"] not in path or fault.get("times", 1) < 1:
                    continue
                fault["count"] = fault.get("count", 0) + 1
                if fault["count"] % fault.get("every", 1) == 0:
                    hit = fault
                    if "times" in fault:
                        fault["times"] -= 1
                    break
        if hit is None:
            return False
        kind = hit["kind"]
        self.body()
        if kind == "cut":
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(b'{"items":[{"id":')
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)
        elif kind == "slow":
            time.sleep(hit.get("seconds", 2))
            return False
        elif kind == "html":
            self.answer(200, b"<html><body>Sign in to the network</body></html>", kind="text/html")
        else:
            headers = [("Retry-After", str(hit.get("retry_after", 1)))] if kind in (423, 429) else []
            self.refuse(Refused(kind, "as it was told", headers))
        return True

    def access_token(self, path):
        if path != "/v1/access_token":
            raise Refused(404, "not found")
        if self.headers.get("Content-Type", "").split(";")[0] != "application/x-www-form-urlencoded":
            raise Refused(415, "a form is wanted")
        form = dict(urllib.parse.parse_qsl(self.body().decode(), keep_blank_values=True, strict_parsing=True))
        with WORLD.lock:
            known = WORLD.known
            if form.get("client_id") != known["client_id"] or form.get("client_secret") != known["client_secret"]:
                return self.answer(401, {"error": "invalid_client", "error_description": "no such client"})
            grant = form.get("grant_type")
            if known["dead"]:
                return self.answer(400, {"error": known["dead"]})
            if grant == "authorization_code":
                code = WORLD.codes.pop(form.get("code"), None)
                if code is None or form.get("redirect_uri") != known["redirect_uri"]:
                    return self.answer(400, {"error": "invalid_grant"})
                return self.answer(200, WORLD.new_tokens(code))
            if grant == "refresh_token":
                refresh = form.get("refresh_token")
                if refresh not in WORLD.refresh:
                    return self.answer(400, {"error": "invalid_grant"})
                scopes = WORLD.refresh[refresh]
                return self.answer(200, WORLD.new_tokens(scopes, refresh))
            return self.answer(400, {"error": "unsupported_grant_type"})

    def authorize(self, query):
        known = WORLD.known
        if query.get("client_id") != known["client_id"] or query.get("redirect_uri") != known["redirect_uri"]:
            raise Refused(400, "the client or its redirect is not registered")
        if query.get("response_type") != "code" or not query.get("state"):
            raise Refused(400, "response_type and state are wanted")
        asked = query.get("scope", "").split(" ")
        if not set(asked) <= set(known["scopes"]):
            answer = {"error": "invalid_scope", "state": query["state"]}
        elif known["dead"] == "access_denied":
            answer = {"error": "access_denied", "state": query["state"]}
        else:
            WORLD.serial += 1
            code = f"standin-code-{WORLD.serial:06d}"
            WORLD.codes[code] = asked
            answer = {"code": code, "state": query["state"]}
        to = known["redirect_uri"] + "?" + urllib.parse.urlencode(answer)
        self.answer(302, b"", [("Location", to)])

    def scoped(self, name):
        bearer = self.headers.get("Authorization", "")
        until, scopes = WORLD.access.get(bearer.removeprefix("Bearer "), (0, []))
        if not bearer.startswith("Bearer ") or until < time.time():
            raise Refused(401, "The request requires a valid access token set in the Authorization request header.")
        if SCOPES[name] not in scopes or SCOPES[name] not in WORLD.known["scopes"]:
            raise Refused(403, "the token has not the scope")

    def get(self, path, query):
        with WORLD.lock:
            if path == "/v1/authorize":
                return self.authorize(query)
            name = path.rsplit("/", 1)[-1]
            if name not in SCOPES:
                raise Refused(404, "not found")
            self.scoped(name)
            known = WORLD.known
            if name == "callRecording":
                self.only(query, {"orgId"})
                lines = re.fullmatch(r"/v1/telephony/config/virtualLines/([^/]+)/callRecording", path)
                others = re.fullmatch(r"/v1/(?:people|workspaces)/([^/]+)/features/callRecording", path)
                if not (lines or others):
                    raise Refused(404, "not found")
                person = (lines or others)[1]
                if person not in known["native"]:
                    raise Refused(404, "the person has no recording settings")
                mode = known["modes"].get(person, "Always")
                return self.answer(200, {
                    "enabled": mode != "off", "record": "Never" if mode == "off" else mode, "serviceProvider": "WSWYZ00001",
                    "externalGroup": "WSWYZ00001L31161", "externalIdentifier": known["native"][person],
                })
            if name == "vendors":
                location = re.fullmatch(r"/v1/telephony/config/locations/([^/]+)/callRecording/vendors", path)
                if location is None or location[1] not in {one["id"] for one in known["locations"]}:
                    raise Refused(404, "not found")
                vendor = known["vendors"].get(location[1], "Imagicle")
                return self.answer(200, {
                    "orgDefaultEnabled": True, "orgDefaultVendorId": "v", "orgDefaultVendorName": vendor, "defaultVendorId": "v",
                    "defaultVendorName": vendor, "vendors": [], "failureBehavior": "PROCEED_WITH_CALL_NO_ANNOUNCEMENT",
                })
            if name == "virtualLines":
                self.only(query, {"max", "start", "orgId"})
                return self.page(path, query, self.of(known["virtual_lines"], query), PAGE_LINES, key="virtualLines", by="start")
            if name == "workspaces":
                self.only(query, {"max", "orgId", "calling", "after"})
                places = [one for one in self.of(known["workspaces"], query) if query.get("calling") in (None, one["calling"]["type"])]
                return self.page(path, query, places, PAGE_WORKSPACES)
            if name == "numbers":
                place = path.split("/")[-3]
                if place not in known["numbers"]:
                    raise Refused(404, "the workspace has no numbers")
                return self.answer(200, {"phoneNumbers": known["numbers"][place], "workspace": {"id": place}})
            if name == "organizations":
                self.only(query, set())
                return self.answer(200, {"items": known["organizations"]})
            if name == "locations":
                self.only(query, {"max", "orgId", "after"})
                return self.page(path, query, self.of(known["locations"], query), PAGE_LOCATIONS)
            if name == "people":
                self.only(query, {"max", "orgId", "callingData", "locationId", "after"})
                most = PAGE_PEOPLE_CALLING if query.get("callingData") == "true" else PAGE_PEOPLE
                most = min(most, PAGE_PEOPLE_LOCATION) if "locationId" in query else most
                people = self.of(known["people"], query)
                if query.get("callingData") != "true":
                    people = [{k: v for k, v in p.items() if k not in ("extension", "locationId")} for p in people]
                return self.page(path, query, people, most, {"notFoundIds": None})
            return self.records(name, path, query)

    def only(self, query, names):
        unknown = set(query) - names
        if unknown:
            raise Refused(400, f"unknown parameters {sorted(unknown)}")

    def of(self, items, query):
        return [item for item in items if item.get("orgId", "org-1") == query.get("orgId", "org-1")]

    def page(self, path, query, items, most, more=(), key="items", by="after"):
        if not re.fullmatch(r"[1-9][0-9]*", query.get("max", "100")):
            raise Refused(400, "max is no number")
        size = min(int(query.get("max", most if by == "start" else "100")), most)
        place = query.get(by, "")
        first = int(place or 0) if by == "start" else int(base64.b64decode(place) or 0)
        headers = []
        if first + size < len(items):
            after = str(first + size)
            after = after if by == "start" else base64.b64encode(after.encode()).decode()
            rest = urllib.parse.urlencode({**query, "max": size, by: after})
            scheme = "https" if isinstance(self.connection, ssl.SSLSocket) else "http"
            headers.append(("Link", f'<{scheme}://{self.headers["Host"]}{path}?{rest}>; rel="next"'))
            if "link" in WORLD.known:
                headers = [("Link", WORLD.known["link"])]
        self.answer(200, {**dict(more), key: items[first:first + size]}, headers)

    def records(self, name, path, query):
        self.only(query, {"startTime", "endTime", "locations", "max", "after"})
        def moment(key):
            if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", query.get(key, "")):
                raise Refused(400, f"{key} is not of the form YYYY-MM-DDTHH:MM:SS.mmmZ")
            return datetime.datetime.fromisoformat(query[key])
        start, end = moment("startTime"), moment("endTime")
        now = datetime.datetime.now(datetime.timezone.utc)
        hours = lambda n: datetime.timedelta(hours=n)
        behind, longest, back = (hours(1 / 60), hours(2), hours(12)) if name == "cdr_stream" else (hours(1 / 12), hours(12), hours(720))
        if not start < end or end > now - behind or end - start > longest or start < now - back:
            raise Refused(400, "startTime and endTime are not in the range that is allowed")
        if not 500 <= int(query.get("max", "500")) <= PAGE_RECORDS:
            raise Refused(400, "max is from 500 to 5000")
        field = "_inserted" if name == "cdr_stream" else "Release time"
        found = [r for r in WORLD.known["records"] if start <= datetime.datetime.fromisoformat(r[field]) < end]
        plain = [{k: v for k, v in record.items() if not k.startswith("_")} for record in found]
        self.page(path, query, plain, PAGE_RECORDS)

    def avatar(self, path):
        if self.headers.get("Authorization"):
            with WORLD.lock:
                WORLD.wrong.append("a picture was asked for with a token")
        kind = path.split("/")[2].split(".")[0]
        if kind == "lies":
            return self.answer(200, b"<html>no picture</html>", kind="image/png")
        if kind == "large":
            chunk = b"IDAT" * 64 * 1024
            return self.answer(200, PNG[:-12] + struct.pack(">I", len(chunk)) + chunk + PNG[-12:], kind="image/png")
        if kind == "endless":
            self.send_response(200)
            self.send_header("Content-Type", "image/png")
            self.end_headers()
            while True:
                self.wfile.write(b"\x89PNG" * 4096)
        if kind == "gone":
            raise Refused(404, "no picture")
        return self.answer(200, PNG, kind="image/png")


class Server(socketserver.ThreadingMixIn, HTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_):
        pass


def main():
    address, *tls = sys.argv[1:]
    if ":" in address:
        Server.address_family = 10
    server = Server((address, 0), Handler)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    print(server.server_address[1], flush=True)
    server.serve_forever()


main()
