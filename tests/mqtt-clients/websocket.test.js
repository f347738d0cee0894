// The door for MQTT over WebSocket: who gets in, and a browser that does.
import assert from "node:assert/strict"
import { once } from "node:events"
import { request } from "node:http"
import { request as requestOverTls } from "node:https"
import { after, before, test } from "node:test"
import { fileURLToPath } from "node:url"
import { chromium } from "playwright-core"
import { startBrowser } from "../browser/chromium.js"
import { token } from "../conformance/credentials.js"
import { MQTT_3, MQTT_5, World } from "./world.js"

const MQTT_JS = fileURLToPath(import.meta.resolve("mqtt/dist/mqtt.min"))

const ELSEWHERE = "http://elsewhere.example"

let browser
let origin
let close

before(async () => ({ browser, origin, close } = await startBrowser(chromium)))
after(() => close?.())

// What a handshake with these fields is answered.
async function shake(world, path, headers) {
  const asked = (token ? requestOverTls : request)(`${world.gateway.url}${path}`, {
    headers: {
      connection: "upgrade", upgrade: "websocket", "sec-websocket-version": "13",
      "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==", ...headers,
    },
  })
  asked.end()
  const [event, answer] = await Promise.race(
    ["response", "upgrade"].map(async (event) => [event, (await once(asked, event))[0]]),
  )
  asked.destroy()
  return { event, status: answer.statusCode, subprotocol: answer.headers["sec-websocket-protocol"] }
}

test("a handshake has to offer the subprotocol mqtt", async (context) => {
  const world = await World.start(context)
  const offer = (subprotocol) => shake(world, "/mqtt", subprotocol && { "sec-websocket-protocol": subprotocol })
  for (const offered of ["mqtt", "other, mqtt"]) {
    assert.deepEqual(await offer(offered), { event: "upgrade", status: 101, subprotocol: "mqtt" })
  }
  for (const offered of [undefined, "mqttv3.1", "other"]) assert.equal((await offer(offered)).status, 400, offered)
  assert.equal((await fetch(`${world.gateway.url}/mqtt`)).status, 426)
})

test("a page of another origin gets in only if it is allowed", async (context) => {
  const fields = { "sec-websocket-protocol": "mqtt", origin: ELSEWHERE }
  const closed = await World.start(context)
  assert.equal((await shake(closed, "/mqtt", fields)).status, 403)
  const own = { ...fields, origin: closed.gateway.url }
  assert.equal((await shake(closed, "/mqtt", own)).status, 101)
  const open = await World.start(context, ["--origin", ELSEWHERE])
  assert.equal((await shake(open, "/mqtt", fields)).status, 101)
})

// A page with mqtt.js in it.
async function pageAt(context, url) {
  const page = await browser.newPage()
  context.after(() => page.close())
  await page.goto(url)
  await page.addScriptTag({ path: MQTT_JS })
  return page
}

// Inside of the page: publishes to itself in each quality, and returns what came.
const echo = async ([url, protocolVersion, password]) => {
  const credentials = password && { username: "any", password }
  const client = await globalThis.mqtt.connectAsync(url, { protocolVersion, reconnectPeriod: 0, ...credentials }, false)
  const came = []
  client.on("message", (topic, payload, { qos }) => came.push([topic, String(payload), qos]))
  await client.subscribeAsync("page/+", { qos: 2 })
  for (const qos of [0, 1, 2]) {
    const arrived = new Promise((resolve) => client.once("message", resolve))
    await client.publishAsync(`page/${qos}`, `${qos}`, { qos })
    await arrived
  }
  await client.endAsync()
  return came
}

for (const { version, protocolVersion } of [MQTT_3, MQTT_5]) {
  test(`a page that is allowed publishes and subscribes in each quality (${version})`, async (context) => {
    const world = await World.start(context, ["--origin", origin])
    const url = `${world.gateway.url.replace("http", "ws")}/mqtt`
    for (const at of [origin, `${world.gateway.url}/v1/stream/none`]) {
      const page = await pageAt(context, at)
      const expected = [0, 1, 2].map((qos) => [`page/${qos}`, `${qos}`, qos])
      assert.deepEqual(await page.evaluate(echo, [url, protocolVersion, token]), expected)
    }
  })
}

test("a page that is not allowed does not get in", async (context) => {
  const world = await World.start(context)
  const page = await pageAt(context, origin)
  const url = `${world.gateway.url.replace("http", "ws")}/mqtt`
  await assert.rejects(page.evaluate(echo, [url, 5, token]), /Couldn't connect to server/)
})
