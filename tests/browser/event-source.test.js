// The EventSource of browsers and of npm resumes by itself: 0 messages lost, 0 repeated, while the gateway ends its responses
// hundreds of times.
import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtemp, rm } from "node:fs/promises"
import { createServer } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"
import { EventSource } from "eventsource"
import { chromium } from "playwright-core"
import { start } from "../conformance/gateway.js"
import { startBrowser } from "./chromium.js"
import { append, keepAppending, numbers, until } from "./world.js"

// As many connections as in an hour with the default lifetime.
const LIFE = "100ms"
const CONNECTIONS = 60
const EVERY = 15
const STREAMS = ["s0", "s1", "s2"]

// Reads one stream and many, from now and from the beginning. It runs in the browser, so it uses nothing from outside. Calls
// `report` with the state of all readers ten times a second. Returns a function that ends all of it.
function read({ base, streams }, Source, report) {
  const [readers, sources] = [{}, []]
  const open = (label, path, take) => {
    const reader = (readers[label] = { connections: 0, closed: false, seen: [] })
    const source = new Source(base + path)
    sources.push(source)
    source.onopen = () => reader.connections++
    source.onerror = () => (reader.closed = source.readyState === 2)
    take(source, (stream, data) => reader.seen.push(...data.map((n) => [stream, n])))
  }
  const one = (source, see) => source.addEventListener("data", (event) => see(streams[0], JSON.parse(event.data)))
  const many = (source, see) =>
    (source.onmessage = (event) => JSON.parse(event.data).batches.forEach(({ stream, data }) => see(stream, data)))
  const query = streams.map((stream) => `stream=${stream}`).join("&")
  open("one, now", `/v1/stream/${streams[0]}?offset=now&live=sse`, one)
  open("one, -1", `/v1/stream/${streams[0]}?offset=-1&live=sse`, one)
  open("many, now", `/v1/streams?${query}&live=sse`, many)
  open("many, earliest", `/v1/streams?${query}&from=earliest&live=sse`, many)
  const timer = setInterval(() => report(readers), 100)
  return () => {
    clearInterval(timer)
    for (const source of sources) source.close()
  }
}

// Publishes while `readers` read, and checks what they have seen. `begin` gets the URL of the gateway, and returns a function
// for the state of the readers.
async function check(context, begin) {
  const gateway = await start("127.0.0.1:0", ["--limit", `live_life=${LIFE}`, "--origin", "*"])
  context.after(() => gateway.stop())
  for (const stream of STREAMS) await append(gateway, stream, -1)
  const state = await begin(gateway.url)
  const all = (condition) => until(() => Object.keys(state()).length === 4 && Object.values(state()).every(condition))
  // The position of a reader from now on is known once it has connected.
  await all(({ connections }) => connections > 0)
  const publisher = keepAppending(gateway, (n) => STREAMS[n % STREAMS.length], EVERY)
  await until(() => Object.values(state()).every(({ connections, closed }) => connections >= CONNECTIONS || closed), 300_000)
  const count = await publisher.stop()
  const last = (stream) => numbers(count).findLast((n) => STREAMS[n % STREAMS.length] === stream)
  const has = ({ seen }, stream) => seen.some(([name, n]) => name === stream && n === last(stream))
  await all((reader) => reader.closed || STREAMS.every((stream) => has(reader, stream) || !reader.seen.some(([name]) => name === stream)))
  for (const [label, { seen, closed }] of Object.entries(state())) {
    assert(!closed, `${label}: the source has given up`)
    for (const stream of label.startsWith("one") ? STREAMS.slice(0, 1) : STREAMS) {
      const published = numbers(count).filter((n) => STREAMS[n % STREAMS.length] === stream)
      const expected = label.endsWith("now") ? published : [-1, ...published]
      const got = seen.filter(([name]) => name === stream).map(([, n]) => n)
      assert.deepEqual(got, expected, `${label}, ${stream}`)
    }
  }
  const connections = Object.values(state()).reduce((sum, reader) => sum + reader.connections, 0)
  context.diagnostic(`${connections} connections, ${count} messages: 0 lost, 0 repeated`)
}

test("the EventSource of npm", (context) =>
  check(context, (base) => {
    let state = {}
    context.after(read({ base, streams: STREAMS }, EventSource, (readers) => (state = readers)))
    return () => state
  }))

// Serves a page that reads and reports to the test, for browsers that are not driven by it.
async function pageFor(context, base) {
  let state = {}
  const page = `<!doctype html><script>
    (${read})(${JSON.stringify({ base, streams: STREAMS })}, EventSource, (readers) =>
      fetch("/state", { method: "POST", body: JSON.stringify(readers) }))
  </script>`
  const server = createServer(async (request, response) => {
    if (request.method !== "POST") return void response.setHeader("content-type", "text/html").end(page)
    let body = ""
    for await (const chunk of request) body += chunk
    state = JSON.parse(body)
    response.end()
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  context.after(() => (server.close(), server.closeAllConnections()))
  return { url: `http://127.0.0.1:${server.address().port}/`, state: () => state }
}

test("the EventSource of Chromium", (context) =>
  check(context, async (base) => {
    const { url, state } = await pageFor(context, base)
    const { browser, close } = await startBrowser(chromium)
    context.after(close)
    await (await browser.newPage()).goto(url)
    return state
  }))

test("the EventSource of Firefox", (context) =>
  check(context, async (base) => {
    const { url, state } = await pageFor(context, base)
    const profile = await mkdtemp(join(tmpdir(), "firefox-"))
    const arguments_ = ["--headless", "--no-remote", "--profile", profile, url]
    const firefox = spawn("firefox-esr", arguments_, { stdio: "ignore", env: { ...process.env, HOME: profile } })
    context.after(async () => {
      firefox.kill("SIGKILL")
      await once(firefox, "exit")
      await rm(profile, { recursive: true, force: true, maxRetries: 5 })
    })
    return state
  }))
