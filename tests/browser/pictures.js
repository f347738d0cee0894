// Takes the pictures of README (docs/pictures/make), or those that are named, of the real thing: GATEWAY_BINARY and LOADTEST_BINARY name
// the commands.
import { execFileSync } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import { chromium } from "playwright-core"
import { Client } from "../../clients/js/src/pollgate.js"
import { start } from "../conformance/gateway.js"
import { startBrowser } from "./chromium.js"
import { numbers } from "./world.js"

const SIZE = { width: 1280, height: 960 }
const sleep = (seconds) => new Promise((wait) => setTimeout(wait, 1000 * seconds))

const { browser, close } = await startBrowser(chromium)

async function open(url, size = SIZE) {
  const page = await browser.newPage({ viewport: size, colorScheme: "light" })
  await page.goto(url)
  return page
}

const take = (page, name) =>
  page.screenshot({ path: new URL(`../../docs/pictures/${name}.png`, import.meta.url).pathname })

// The page, while messages come and one form is cut.
async function takePage() {
  const gateway = await start("127.0.0.1:0", [], "127.0.0.1:0")
  const page = await open(gateway.url)
  await page.getByLabel("one every second").check()
  await sleep(10)
  await page.getByRole("button", { name: "Cut for 5 s: Long poll" }).click()
  await page.evaluate(() => scrollTo(0, 0))
  await sleep(3)
  await take(page, "page")
  await gateway.stop()
}

// The dashboard of a gateway with readers in all forms and publishers of different rates.
async function takeDashboard() {
  const gateway = await start("127.0.0.1:0", ["--hold", "25s"])
  const publisher = new Client(gateway.url)
  const streams = ["chat/lobby", "orders/amsterdam", "orders/berlin", "sensors/cellar", "sensors/roof", "tickers/eur"]
  const timers = streams.map((stream, at) =>
    setInterval(() => publisher.publish(stream, { n: at, at: new Date().toISOString() }, { create: true }), 300 + 400 * at))
  const page = await open(gateway.admin)
  await sleep(2)
  const readers = numbers(60).map((n) => {
    const form = ["websocket", "sse", "long-poll", "ndjson", "long-poll", "short-poll"][n % 6]
    const reader = new Client(gateway.url, { forms: [form] })
    reader.subscribe(streams[n % streams.length], () => {})
    return reader
  })
  const polls = new AbortController()
  // A device that sends its polls itself, under its name.
  const poll = async (client) => {
    for (let offset = "now"; ; ) {
      const path = `/v1/stream/sensors/roof?live=long-poll&client=${client}&offset=${offset}`
      const response = await fetch(gateway.url + path, { signal: polls.signal })
      await response.arrayBuffer()
      offset = response.headers.get("stream-next-offset")
    }
  }
  for (const client of ["pump-3", "boiler-1", "gate-7"]) poll(client).catch(() => {})
  await sleep(45)
  await take(page, "dashboard")
  timers.forEach(clearInterval)
  polls.abort()
  for (const client of [publisher, ...readers]) client.close()
  await gateway.stop()
}

// The report of a short comparison, whose figures are therefore coarse. A busy machine may publish late.
async function takeReport() {
  const folder = mkdtempSync(join(tmpdir(), "pictures-"))
  const settings = ["--clients", "50", "--seconds", "5", "--late-after", "1s", "--day-phones", "2", "--gateway", process.env.GATEWAY_BINARY]
  execFileSync(process.env.LOADTEST_BINARY, settings, { cwd: folder, stdio: ["ignore", "ignore", "inherit"] })
  const page = await open(pathToFileURL(join(folder, "report.html")).href)
  await sleep(1)
  await take(page, "report")
  rmSync(folder, { recursive: true })
}

const pictures = { page: takePage, dashboard: takeDashboard, report: takeReport }
const chosen = process.argv.slice(2)
for (const name of chosen.length ? chosen : Object.keys(pictures)) await pictures[name]()
await close()
