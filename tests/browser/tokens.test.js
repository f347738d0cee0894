// Pages in Chromium and Firefox read from a gateway with --auth: by a ticket, by the first frame of a WebSocket, and by a cookie.
import assert from "node:assert/strict"
import { execFileSync, spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtemp, rm } from "node:fs/promises"
import { createServer } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before, test } from "node:test"
import { chromium } from "playwright-core"
import { start } from "../conformance/gateway.js"
import { startBrowser } from "./chromium.js"
import { until } from "./world.js"

const UNGUARDED = "--disable-features=LocalNetworkAccessChecks"

let browser
let close

before(async () => ({ browser, close } = await startBrowser(chromium, [UNGUARDED])))
after(() => close?.())

// A gateway that checks tokens, with the stream `s` of one message, and a server for a page of another origin, which it allows.
async function world(context, further = () => []) {
  const folder = await mkdtemp(join(tmpdir(), "pollgate-"))
  const path = (name) => join(folder, name)
  const run = (...words) => execFileSync(process.env.GATEWAY_BINARY, words, { encoding: "utf8" }).trim()
  run("keygen", path("key"))
  const reports = []
  let script = ""
  const pages = createServer(async (request, response) => {
    if (request.method !== "POST") return void response.setHeader("content-type", "text/html").end(`<!doctype html>${script}`)
    let body = ""
    for await (const chunk of request) body += chunk
    reports.push(JSON.parse(body))
    response.end()
  })
  pages.listen(0, "127.0.0.1")
  await once(pages, "listening")
  const origin = `http://127.0.0.1:${pages.address().port}`
  const gateway = await start("127.0.0.1:0", ["--auth", path("key"), "--origin", origin, ...further(path)])
  context.after(async () => {
    pages.close()
    pages.closeAllConnections()
    await gateway.stop()
    await rm(folder, { recursive: true })
  })
  const sign = (...rights) => run("token", "--key-file", path("key"), ...rights)
  const show = (html) => (script = html)
  return { gateway, origin, sign, show, reports }
}

async function create(url, token) {
  const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" }
  const answer = await fetch(`${url}/v1/stream/s`, { method: "PUT", body: "[1]", headers })
  assert.equal(answer.status, 201)
}

// Runs in a page: what it reads with a ticket and by a first frame, and what it gets without.
async function readByTicketAndFrame({ url, token }) {
  const ticket = async (live) => {
    const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" }
    const answer = await fetch(`${url}/v1/ticket`, { method: "POST", headers, body: JSON.stringify({ stream: ["s"], live }) })
    return (await answer.json()).ticket
  }
  const byEvents = (ticket) =>
    new Promise((resolve) => {
      const source = new EventSource(`${url}/v1/stream/s?offset=-1&live=sse&ticket=${ticket}`)
      const end = (what) => (source.close(), resolve(what))
      source.addEventListener("data", ({ data }) => end(JSON.parse(data)))
      // A refused EventSource stays closed; the browser hides the status.
      source.onerror = () => source.readyState === 2 && end("refused")
    })
  const bySocket = (query, first) =>
    new Promise((resolve) => {
      const socket = new WebSocket(`${url.replace("http", "ws")}/v1/stream/s?offset=-1&live=websocket${query}`)
      socket.onopen = () => first && socket.send(JSON.stringify({ auth: first }))
      socket.onmessage = ({ data }) => JSON.parse(data).data && (resolve(JSON.parse(data).data), socket.close())
      socket.onclose = ({ code }) => resolve(code)
    })
  const reused = await ticket("sse")
  return {
    events: await byEvents(reused),
    again: await byEvents(reused),
    wrongEvents: await byEvents("wrong"),
    socket: await bySocket(`&ticket=${await ticket("websocket")}`),
    frame: await bySocket("", token),
    wrongFrame: await bySocket("", "wrong"),
  }
}

const EXPECTED = { events: [1], again: [1], wrongEvents: "refused", socket: [1], frame: [1], wrongFrame: 4401 }

test("a page in Chromium reads by a ticket and by a first frame", async (context) => {
  const { gateway, origin, sign } = await world(context)
  await create(gateway.url, sign("--create", "#"))
  const page = await browser.newPage()
  context.after(() => page.close())
  await page.goto(origin)
  const read = await page.evaluate(readByTicketAndFrame, { url: gateway.url, token: sign("--read", "s") })
  assert.deepEqual(read, EXPECTED)
})

test("a page in Firefox reads by a ticket and by a first frame", async (context) => {
  const { gateway, origin, sign, show, reports } = await world(context)
  await create(gateway.url, sign("--create", "#"))
  const options = JSON.stringify({ url: gateway.url, token: sign("--read", "s") })
  show(`<script>(${readByTicketAndFrame})(${options}).then((read) => fetch("/", { method: "POST", body: JSON.stringify(read) }))</script>`)
  const profile = await mkdtemp(join(tmpdir(), "firefox-"))
  const firefox = spawn("firefox-esr", ["--headless", "--no-remote", "--profile", profile, `${origin}/`], {
    stdio: "ignore", env: { ...process.env, HOME: profile },
  })
  context.after(async () => {
    firefox.kill("SIGKILL")
    await once(firefox, "exit")
    await rm(profile, { recursive: true, force: true, maxRetries: 5 })
  })
  await until(() => reports.length)
  assert.deepEqual(reports[0], EXPECTED)
})

test("the client in a page reads by WebSocket with its token, beyond the token's end", async (context) => {
  const { gateway, sign } = await world(context)
  await create(gateway.url, sign("--create", "#"))
  const page = await browser.newPage()
  context.after(() => page.close())
  await page.exposeFunction("sign", () => sign("--read", "s", "--expires", "20s"))
  await page.goto(`${gateway.url}/page.css`)
  await page.evaluate(async (url) => {
    const { Client } = await import("/pollgate.js")
    globalThis.state = { got: [], asked: 0, refused: 0, forms: [] }
    const token = (refused) => {
      state.asked++
      if (refused) state.refused++
      return globalThis.sign()
    }
    const client = new Client(url, { forms: ["websocket", "sse"], token, share: false })
    client.addEventListener("form", ({ detail: { to } }) => state.forms.push(to))
    client.subscribe("s", { from: "earliest" }, ({ data }) => void state.got.push(data))
  }, gateway.url)
  const headers = { authorization: `Bearer ${sign("--append", "s")}`, "content-type": "application/json" }
  const state = () => page.evaluate(() => globalThis.state)
  let count = 1
  // A renewal has half of the token's life to arrive in.
  while ((await state()).asked < 3) {
    await fetch(`${gateway.url}/v1/stream/s`, { method: "POST", body: `${++count}`, headers })
    await until(async () => (await state()).got.length === count)
  }
  const { got, refused, forms } = await state()
  assert.deepEqual(got, Array.from({ length: count }, (_, n) => n + 1))
  assert.deepEqual([refused, forms], [0, ["websocket"]])
})

test("a cookie reads, and lets pages of allowed origins alone do more", async (context) => {
  const tls = (path) => {
    const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", path("tls.key")]
    execFileSync("openssl", ["req", "-x509", ...key, "-out", path("tls.pem"), "-days", "30", ...subject], { stdio: "ignore" })
    return ["--tls-certificate", path("tls.pem"), "--tls-key", path("tls.key")]
  }
  const { gateway, sign } = await world(context, tls)
  const url = `https://${gateway.url.split("//")[1]}`
  const shown = await browser.newContext({ ignoreHTTPSErrors: true })
  context.after(() => shown.close())
  const token = sign("--create", "s", "--read", "s", "--append", "s")
  await shown.addCookies([{ name: "__Host-pollgate", value: token, url: `${url}/`, httpOnly: true, secure: true, sameSite: "Strict" }])
  const page = await shown.newPage()
  await page.goto(`${url}/page.css`)
  const read = await page.evaluate(async () => {
    const headers = { "content-type": "application/json" }
    const created = (await fetch("/v1/stream/s", { method: "PUT", body: "[1]", headers })).status
    const events = await new Promise((resolve) => {
      const source = new EventSource("/v1/stream/s?offset=-1&live=sse")
      source.addEventListener("data", ({ data }) => (source.close(), resolve(JSON.parse(data))))
      source.onerror = () => resolve("refused")
    })
    const socket = await new Promise((resolve) => {
      const socket = new WebSocket(`wss://${location.host}/v1/stream/s?offset=-1&live=websocket`)
      socket.onmessage = ({ data }) => (resolve(JSON.parse(data).data), socket.close())
      socket.onclose = ({ code }) => resolve(code)
    })
    const appended = (await fetch("/v1/stream/s", { method: "POST", body: "2", headers })).status
    return { created, events, socket, appended }
  })
  assert.deepEqual(read, { created: 201, events: [1], socket: [1], appended: 204 })
  // A client that is no page sends no origin, and may only read.
  const cookie = { cookie: `__Host-pollgate=${token}` }
  const byRequest = async (method, options) => (await shown.request[method](`${url}/v1/stream/s`, options)).status()
  assert.equal(await byRequest("get", { headers: cookie }), 200)
  assert.equal(await byRequest("post", { headers: { ...cookie, "content-type": "application/json" }, data: "3" }), 403)
})
