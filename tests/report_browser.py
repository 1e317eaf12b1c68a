"""Opens a report.html in headless Chromium and uses it as a reader would.

    python3 report_browser.py REPORT [SCREENSHOTS]

Needs Chromium (apt-get install -y --no-install-recommends chromium fonts-noto-cjk) and nothing else: it speaks the
DevTools protocol through a pipe. Prints what was measured; the exit status is 1 if something is wrong.

Checked: no error or warning on the console and no request to a network; all transactions are listed; unfolding shows
rows; text, table and transaction filter; the language changes; data is never taken for HTML; no task of the page takes
longer than LONGEST, and no answer to the reader longer than ANSWER.
"""

import base64
import json
import os
import subprocess
import sys
import tempfile
import time

LONGEST = 500  # ms of one task, after the file itself has been read
ANSWER = 5000  # ms until a filter over everything has ended
BROWSERS = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]


class Browser:
    """A browser, and one page in it."""

    def __init__(self, profile, language):
        to_browser, self.out = os.pipe()
        self.input, from_browser = os.pipe()
        command = [
            next(path for path in BROWSERS if os.path.exists(path)), "--headless=new", "--no-sandbox", "--disable-gpu",
            "--remote-debugging-pipe", f"--user-data-dir={profile}", f"--lang={language}", "--no-first-run",
            "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update",
            "--window-size=1280,1600", "about:blank",
        ]
        # The protocol's file descriptors are 3 and 4.
        shell = ["bash", "-c", f'exec "$@" 3<&{to_browser} 4>&{from_browser}', "bash"]
        self.process = subprocess.Popen(shell + command, pass_fds=[to_browser, from_browser],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                        env={**os.environ, "LANGUAGE": language.replace("-", "_")})
        os.close(to_browser)
        os.close(from_browser)
        self.buffer, self.number, self.session = b"", 0, None
        self.events = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ["Page", "Runtime", "Log", "Network"]:
            self.call(f"{domain}.enable")
        self.call("Emulation.setLocaleOverride", locale=language)
        self.call("Network.setUserAgentOverride", userAgent="report test", acceptLanguage=language)

    def receive(self):
        while b"\0" not in self.buffer:
            more = os.read(self.input, 1 << 20)
            if not more:
                raise SystemExit("the browser has ended")
            self.buffer += more
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.out, data):]
        while True:
            answer = self.receive()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise SystemExit(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def run(self, script):
        """The value of a script, which may wait."""
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise SystemExit(f"{script}: {json.dumps(result['exceptionDetails'])[:600]}")
        return result["result"].get("value")

    def open(self, path):
        # Tasks are measured from before the first script of the page on.
        self.call("Page.addScriptToEvaluateOnNewDocument", source="""
            window.tasks = [];
            new PerformanceObserver(list => list.getEntries().forEach(one => tasks.push([one.startTime, one.duration])))
              .observe({ type: "longtask", buffered: true });
        """)
        started = time.time()
        self.call("Page.navigate", url="file://" + os.path.abspath(path))
        while self.run("document.readyState") != "complete":
            time.sleep(0.02)
        return time.time() - started

    def picture(self, path):
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def pdf(self, path):
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"]))

    def close(self):
        self.process.terminate()
        self.process.wait()


# Waits until a filter has ended, and returns how long that took and what is said then.
FILTER = """(async () => {
  const started = performance.now();
  const set = (id, value) => { const one = document.getElementById(id); one.value = value;
    one.dispatchEvent(new Event(id === "by-table" ? "change" : "input", { bubbles: true })); };
  document.getElementById("by-text").value = ""; document.getElementById("by-xid").value = "";
  document.getElementById("by-table").value = "";
  set(%s, %s);
  await new Promise(go => setTimeout(go, 250));
  while (view.part < 1 || (!view.filter.isEmpty && !view.result)) await new Promise(go => setTimeout(go, 10));
  return { took: performance.now() - started, found: document.getElementById("found").textContent,
    transactions: view.result?.found.length ?? Data.total, rows: view.result?.rows ?? Data.rows };
})()"""

OPEN_FIRST = """(async () => {
  const started = performance.now();
  const one = document.querySelector("#list details");
  one.open = true;
  while (!one.querySelector(".body").firstChild) await new Promise(go => setTimeout(go, 5));
  await new Promise(go => setTimeout(go, 100));
  return { took: performance.now() - started - 100, rows: one.querySelectorAll("tbody tr, .record").length };
})()"""


def main():
    report = sys.argv[1]
    pictures = sys.argv[2] if len(sys.argv) > 2 else None
    wrong = []

    def expect(is_right, what):
        print(("ok    " if is_right else "WRONG ") + what)
        if not is_right:
            wrong.append(what)

    with tempfile.TemporaryDirectory() as profile:
        browser = Browser(profile, "en-US")
        took = browser.open(report)
        total, rows = browser.run("[Data.total, Data.rows]")
        print(f"{os.path.getsize(report) / 1e6:.1f} MB, {total} transactions, {rows} rows, shown after {took:.2f} s")
        expect(browser.run("document.documentElement.lang") == "en", "English by default")
        expect(browser.run("document.querySelectorAll('#list details').length") == min(50, total), "the first page is listed")
        if pictures:
            browser.picture(f"{pictures}/en.png")
        opened = browser.run(OPEN_FIRST)
        expect(opened["rows"] > 0 and opened["took"] < 1000, f"a transaction unfolds: {opened}")
        before = browser.run("performance.now()")
        first = browser.run("Data.transaction(0).head.xid")
        by_xid = browser.run(FILTER % ('"by-xid"', json.dumps(str(first))))
        expect(by_xid["transactions"] == 1, f"a transaction is found by its ID: {by_xid}")
        table = browser.run("document.querySelectorAll('#by-table option')[1].value")
        by_table = browser.run(FILTER % ('"by-table"', json.dumps(table)))
        expect(0 < by_table["rows"] < max(rows, 2), f"a table is found: {by_table}")
        nothing = browser.run(FILTER % ('"by-text"', '"no such text anywhere"'))
        expect(nothing["transactions"] == 0 and nothing["took"] < ANSWER, f"what is nowhere is not found: {nothing}")
        # The text of a value of the last row that has one.
        needle = browser.run("""(() => { for (let number = Data.total - 1; number >= 0; number--)
            for (const line of Data.lines(Data.transaction(number))) { const row = JSON.parse(line);
              const text = Array.isArray(row) && (row[5] ?? row[4])?.find(value => typeof value === "string" && value.length > 2);
              if (text) return text; } })()""")
        by_text = browser.run(FILTER % ('"by-text"', json.dumps(needle)))
        expect(by_text["rows"] > 0 and by_text["took"] < ANSWER, f"a value is found: {by_text}")
        unfolded = browser.run(OPEN_FIRST)
        expect(0 < unfolded["rows"] <= by_text["rows"], f"only rows that match are shown: {unfolded}")
        if pictures:
            browser.picture(f"{pictures}/found.png")
        browser.run("document.querySelector('#filter [type=reset]').click()")
        browser.run("new Promise(go => setTimeout(go, 300))")
        expect(browser.run("view.result === null"), "all is shown again")
        browser.run("document.querySelector('[data-go=last]').click()")
        expect(browser.run("document.querySelectorAll('#list details').length") > 0, "the last page is listed")
        browser.run("document.querySelector('[data-go=first]').click()")
        browser.run("document.getElementById('unfold').click()")
        browser.run("new Promise(go => setTimeout(go, 1500))")
        tasks = browser.run("tasks")
        longest = max([took for started, took in tasks if started > before], default=0)
        expect(longest < LONGEST, f"no task takes long: {longest:.0f} ms")
        print(f"      tasks above 50 ms: {[round(took) for _, took in tasks]} ms")
        made = browser.run("[document.scripts.length === document.querySelectorAll('script').length, "
                           "document.querySelectorAll('#list script, #list b b, #tables script, img, iframe').length]")
        expect(made == [True, 0], f"no data is HTML: {made}")
        if pictures:
            browser.pdf(f"{pictures}/print.pdf")
        browser.run("document.getElementById('language').click()")
        expect(browser.run("document.querySelector('h1').textContent") == "丢失的事务", "Chinese on request")
        if pictures:
            browser.picture(f"{pictures}/zh.png")
        logged = [event for event in browser.events if event["method"] in
                  ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")]
        expect(not logged, f"nothing on the console: {json.dumps(logged)[:500]}")
        asked = [event["params"]["request"]["url"] for event in browser.events if event["method"] == "Network.requestWillBeSent"]
        outside = [url for url in asked if not url.startswith("file://") and url != "about:blank"]
        expect(not outside, f"no request: {outside}")
        browser.close()
    with tempfile.TemporaryDirectory() as profile:
        browser = Browser(profile, "zh-CN")
        browser.open(report)
        expect(browser.run("document.documentElement.lang") == "zh-CN", "Chinese by the browser's language")
        browser.close()
    print(f"{len(wrong)} wrong")
    sys.exit(1 if wrong else 0)


main()
