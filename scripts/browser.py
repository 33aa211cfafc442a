"""A headless Chromium that is asked over a pipe (the DevTools protocol): pages with their own policies, real clicks and
keys, real time. Needs Python alone.
"""

import base64
import fcntl
import json
import os
import pathlib
import subprocess
import time

# Numbers of the ends of pipes in Chromium are 3 and 4: those here must not be in the way.
FREE_FROM = 10


class Browser:
    """One page; it reaches 127.0.0.1 and nothing else."""

    def __init__(self, chromium, size=(1366, 900)):
        (read_asked, self.asked), (self.told, write_told) = [map(above, os.pipe()) for _ in range(2)]
        command = [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                   "--remote-debugging-pipe", f"--window-size={size[0]},{size[1]}",
                   "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "about:blank"]
        joined = ["bash", "-c", f'exec "$@" 3<&{read_asked} 4>&{write_told}', "chromium", *command]
        self.process = subprocess.Popen(joined, pass_fds=(read_asked, write_told), stderr=subprocess.DEVNULL)
        os.close(read_asked)
        os.close(write_told)
        self.count, self.session, self.rest, self.requests, self.problems = 0, None, b"", [], []
        target = next(target for target in self.ask("Target.getTargets")["targetInfos"] if target["type"] == "page")
        self.session = self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.ask(f"{domain}.enable")
        self.resize(*size)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        os.close(self.asked)
        os.close(self.told)

    def ask(self, method, **parameters):
        """The answer to one command; requests and errors of the page that are told before it are kept."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.asked, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.next()
            if answer.get("id") == self.count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.note(answer)

    def next(self):
        while b"\0" not in self.rest:
            part = os.read(self.told, 1 << 20)
            if not part:
                raise RuntimeError("Chromium has ended")
            self.rest += part
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def note(self, event):
        parameters = event.get("params", {})
        if event.get("method") == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif event.get("method") == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description", details["text"]))
        elif event.get("method") == "Log.entryAdded" and parameters["entry"]["source"] == "security":
            self.problems.append(parameters["entry"]["text"])

    def value(self, expression):
        """What `expression` is in the page, as JSON has it."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, expression, seconds=20):
        """Waits until `expression` holds. Returns how long that took, in seconds; None if it never did."""
        begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            if self.value(expression):
                return time.monotonic() - begun
            time.sleep(0.005)
        return None

    def open(self, address, until="document.readyState === 'complete'"):
        """Goes to `address`. Returns how long it took until `until` held there."""
        begun = time.monotonic()
        self.ask("Page.navigate", url=address)
        waited = self.wait(f"location.href.split('#')[0] === {json.dumps(address.split('#')[0])} && ({until})")
        return waited and time.monotonic() - begun

    def click(self, selector):
        """Presses the mouse on the middle of what `selector` finds first."""
        box = self.value(f"""(() => {{
            const found = document.querySelector({json.dumps(selector)});
            found.scrollIntoView({{ block: "center", behavior: "instant" }});
            const {{ x, y, width, height }} = found.getBoundingClientRect();
            return [x + width / 2, y + height / 2];
        }})()""")
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def press(self, key, code):
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if len(key) == 1 and kind == "keyDown" else {}
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key if len(key) > 1 else "Space",
                     windowsVirtualKeyCode=code, **text)

    def type(self, selector, text):
        """Writes `text` in place of what stands in a field."""
        field = f"document.querySelector({json.dumps(selector)})"
        self.value(f"{field}.focus(), {field}.select()")
        if text:
            self.ask("Input.insertText", text=text)
        else:
            self.press("Backspace", 8)

    def select(self, selector, value):
        self.value(f"""(() => {{
            const select = document.querySelector({json.dumps(selector)});
            select.value = {json.dumps(value)};
            select.dispatchEvent(new Event("change", {{ bubbles: true }}));
        }})()""")

    def resize(self, width, height):
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def screenshot(self, path):
        """The whole page, to its end."""
        content = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        pathlib.Path(path).write_bytes(base64.b64decode(content))


def above(descriptor):
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD, FREE_FROM)
    os.close(descriptor)
    return moved
