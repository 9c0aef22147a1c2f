"""Opens every page of the site in Chromium, as wide as a desk's screen and as a phone's.

    python tools/check_site.py [--pictures FOLDER] [build/site]

A page must not be wider than the window, and its console must have no errors. All pages are served
from this process. Needs `chromium` and `chromedriver` on the path, and no package.
"""

from __future__ import annotations

import argparse
import base64
import functools
import http.server
import json
import re
import subprocess
import sys
import tempfile
import threading
import urllib.request
from pathlib import Path
from typing import Any

WIDTHS = (1280, 390)
TALLEST = 2400  # pixels of a page in its picture
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
]
PICTURES = ("index", "bslfast.nn", "bslfast.functional", "benchmarks/index", "catalogue")
PICTURES += ("troubleshooting", "choosing", "bayesian_neural_networks_wine", "migration_flows")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


class Browser:
    """Chromium by the WebDriver protocol."""

    def __init__(self, profile: str) -> None:
        self.process = subprocess.Popen(
            ["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        found = (re.search(r"started .* on port (\d+)", line) for line in self.process.stdout)
        port = next(match[1] for match in found if match)
        self.address = f"http://127.0.0.1:{port}/session"
        options = {"args": [*OPTIONS, f"--user-data-dir={profile}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self.address += "/" + self.do("", capabilities={"alwaysMatch": wanted})["sessionId"]

    def do(self, command: str, method: str = "POST", **body: Any) -> Any:
        data = json.dumps(body).encode() if method == "POST" else None
        request = urllib.request.Request(self.address + command, data, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]

    def width(self, width: int) -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.cdp("Emulation.setDeviceMetricsOverride", **size)

    def cdp(self, command: str, **parameters: Any) -> Any:
        """A command of the protocol of Chromium's own tools."""
        return self.do("/goog/cdp/execute", cmd=command, params=parameters)

    def run(self, script: str) -> Any:
        return self.do("/execute/sync", script=script, args=[])

    def close(self) -> None:
        self.do("", "DELETE")
        self.process.terminate()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("site", type=Path, nargs="?", default=Path("build/site"))
    parser.add_argument("--pictures", type=Path)
    chosen = parser.parse_args()
    handler = functools.partial(Quiet, directory=str(chosen.site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    pages = sorted(p.relative_to(chosen.site).as_posix() for p in chosen.site.rglob("*.html"))
    wrong = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(profile)
        for width in WIDTHS:
            browser.width(width)
            for page in pages:
                browser.do("/url", url=f"http://127.0.0.1:{server.server_port}/{page}")
                wide = browser.run("return document.scrollingElement.scrollWidth - innerWidth")
                if wide > 0:
                    wrong.append(f"{page}: {wide} pixels wider than {width}")
                log = browser.do("/se/log", type="browser")
                wrong += [f"{page}: {e['message']}" for e in log if e["level"] == "SEVERE"]
                if chosen.pictures and page.removesuffix(".html").endswith(PICTURES):
                    chosen.pictures.mkdir(parents=True, exist_ok=True)
                    name = f"{page.removesuffix('.html').replace('/', '-')}-{width}.png"
                    clip = {"x": 0, "y": 0, "width": width, "height": TALLEST, "scale": 1}
                    shot = browser.cdp(
                        "Page.captureScreenshot", captureBeyondViewport=True, clip=clip
                    )
                    (chosen.pictures / name).write_bytes(base64.b64decode(shot["data"]))
        browser.close()
    print(*wrong, f"{len(pages)} pages at {len(WIDTHS)} widths, {len(wrong)} errors", sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
