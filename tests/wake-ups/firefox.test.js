// A real browser subscribes with the key of the gateway, receives its wakes through a push service, decrypts them and polls.
import assert from "node:assert/strict"
import { once } from "node:events"
import { createServer } from "node:http"
import { test } from "node:test"
import { firefox } from "./firefox.js"
import { pushService } from "./push-service.js"
import { append, ask, gatewayOf, key, metric, register, until } from "./world.js"

// The worker reads the stream when it is woken, as an app does, and tells the test what it got.
const WORKER = (gateway) => `
  self.addEventListener("install", () => self.skipWaiting())
  self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()))
  self.addEventListener("push", (event) => event.waitUntil((async () => {
    const wake = event.data.json()
    const device = await (await fetch("${gateway}/v1/devices/browser")).json()
    const read = (offset) => fetch("${gateway}/v1/stream/news?client=browser&offset=" + offset)
    const response = await read(device.streams.news)
    const news = await response.json()
    await read(response.headers.get("stream-next-offset"))
    await fetch("/got", { method: "POST", body: JSON.stringify({ wake, news }) })
  })()))`

test("Firefox decrypts the wakes of the gateway and polls", { timeout: 180_000 }, async (context) => {
  const service = await pushService(context)
  const app = { name: "web", kind: "web-push", contact: "mailto:ops@gate.example", key: key(), min_interval: "0s" }
  const gateway = await gatewayOf(context, [app], ["--outbound-allow", "127.0.0.1", "--origin", "*"])
  const got = []
  const pages = createServer(async (request, response) => {
    if (request.url === "/worker.js") return response.setHeader("content-type", "text/javascript").end(WORKER(gateway.url))
    if (request.url === "/got") {
      let body = ""
      for await (const part of request) body += part
      got.push(JSON.parse(body))
      return response.end()
    }
    response.setHeader("content-type", "text/html").end("<!doctype html><h1>page</h1>")
  }).listen(0, "127.0.0.1")
  await once(pages, "listening")
  context.after(() => {
    pages.close()
    pages.closeAllConnections()
  })
  const browser = await firefox(context, service)
  const { apps } = (await ask(gateway, "GET", "/v1/devices")).json()
  const page = await browser.newPage()
  await page.goto(`http://127.0.0.1:${pages.address().port}/`)
  const subscription = await page.evaluate(async (publicKey) => {
    const registration = await navigator.serviceWorker.register("/worker.js")
    await navigator.serviceWorker.ready
    const options = { userVisibleOnly: true, applicationServerKey: publicKey }
    return JSON.parse(JSON.stringify(await registration.pushManager.subscribe(options)))
  }, apps[0].public_key)
  await register(gateway, "browser", [{ app: "web", credential: subscription }])

  for (const message of [1, 2]) {
    await append(gateway, message)
    await until("the page was woken", () => got.length === message)
    await until("the wake is confirmed", async () =>
      (await metric(gateway, 'pollgate_wake_polls_total{provider="web-push"}')) === message)
  }
  assert.deepEqual(got.map(({ news }) => news), [[1], [2]])
  assert.match(got[0].wake.pollgate, /^[0-9a-f]{16}$/)
  await until("the browser acknowledged both", () => service.acked.length >= 2)
  // 100: delivered to the worker; 101 would be a failed decryption.
  assert.deepEqual(service.acked.map(({ code }) => code), [100, 100])
  assert.equal(service.posted.length, 2)
})
