// The JavaScript client registers a device, and what it reads afterwards confirms wakes.
import assert from "node:assert/strict"
import { createECDH, randomBytes } from "node:crypto"
import { once } from "node:events"
import { createServer } from "node:http"
import { test } from "node:test"
import { Client, FORMS, GatewayError } from "../../clients/js/src/pollgate.js"
import { append, ask, gatewayOf, key, metric, until } from "./world.js"

// A gateway with an app for Web Push and one for webhooks, and what its webhooks and pushes are.
async function world(context) {
  const got = []
  const provider = createServer((request, response) => {
    got.push(request.url)
    request.resume().on("end", () => response.writeHead(201, { location: "/1" }).end())
  }).listen(0, "127.0.0.1")
  await once(provider, "listening")
  context.after(() => {
    provider.close()
    provider.closeAllConnections()
  })
  const url = `http://127.0.0.1:${provider.address().port}`
  const apps = [
    { name: "hook", kind: "webhook", url: `${url}/hook`, key: "a secret of 16 bytes", min_interval: "0s" },
    { name: "web", kind: "web-push", contact: "mailto:ops@gate.example", key: key(), min_interval: "0s" },
  ]
  const gateway = await gatewayOf(context, apps, ["--outbound-allow", "127.0.0.1"])
  await ask(gateway, "PUT", "/v1/stream/news", [])
  const open = (options) => {
    const client = new Client(gateway.url, options)
    context.after(() => client.close())
    return client
  }
  const device = async (id) => (await ask(gateway, "GET", `/v1/devices/${encodeURIComponent(id)}`)).json()
  return { gateway, got, open, device, url }
}

// Node 20 has no WebSocket.
for (const form of FORMS.filter((form) => form !== "websocket" || globalThis.WebSocket)) {
  test(`a device that was woken confirms it by ${form}`, { timeout: 120_000 }, async (context) => {
    const { gateway, got, open, device } = await world(context)
    const sleeper = open({ forms: [form] })
    await sleeper.registerDevice({ id: "a/b", streams: "news", channels: [{ app: "hook", credential: "t" }], expiresIn: 600 })
    await append(gateway, 1)
    await until("the wake", () => got.length === 1)
    const read = []
    sleeper.subscribe("news", { from: "earliest" }, ({ data }) => void read.push(data))
    await until("the message", () => read.length === 1)
    await until("the poll confirms the wake", async () => (await device("a/b")).wake === null)
    assert.equal(await metric(gateway, 'pollgate_wake_polls_total{provider="webhook"}'), 1)
    await sleeper.unregisterDevice("a/b")
    await assert.rejects(device("a/b"), /404/)
    await sleeper.unregisterDevice("a/b")
  })
}

test("a push subscription goes to the app for Web Push, as it is", { timeout: 120_000 }, async (context) => {
  const { gateway, got, open, device, url } = await world(context)
  const client = open()
  const apps = await client.wakeApps()
  assert.deepEqual(apps.map(({ app, credential }) => `${app} ${credential}`), ["hook token", "web web-push"])
  assert.match(apps[1].publicKey, /^[\w-]{87}$/)
  const keys = createECDH("prime256v1")
  keys.generateKeys()
  const json = {
    endpoint: `${url}/push`, expirationTime: null,
    keys: { p256dh: keys.getPublicKey("base64url"), auth: randomBytes(16).toString("base64url") },
  }
  const pushSubscription = { options: { applicationServerKey: Buffer.from(apps[1].publicKey, "base64url") }, toJSON: () => json }
  await client.registerDevice({
    id: "laptop", streams: { news: "now" }, pushSubscription, quiet: { from: "03:00", to: "03:01", utcOffset: 60 }, escalateAfter: 0,
  })
  assert.deepEqual((await device("laptop")).channels.map(({ app }) => app), ["web"])
  await append(gateway, 1)
  await until("the push", () => got.includes("/push"))
})

test("mistakes are told, and a registration waits for a gateway that is away", { timeout: 120_000 }, async (context) => {
  const { open, device } = await world(context)
  const client = open({ settings: { backoffMin: 0.05 } })
  await assert.rejects(client.registerDevice({ streams: "news" }), TypeError)
  await assert.rejects(client.registerDevice({ id: "a", streams: "news", token: "t" }), TypeError)
  const unknown = client.registerDevice({ id: "a", streams: "news", channels: [{ app: "pigeon", credential: "t" }] })
  await assert.rejects(unknown, (error) => error instanceof GatewayError && error.status === 400)
  let failures = 2
  const flaky = open({
    settings: { backoffMin: 0.05 },
    fetch: (...request) => (failures-- > 0 ? Promise.reject(new TypeError("away")) : fetch(...request)),
  })
  await flaky.registerDevice({ id: "b", streams: "news", channels: [{ app: "hook", credential: "t" }] })
  assert.equal((await device("b")).pending, false)
  const closed = open({ fetch: (_, { signal }) => once(signal, "abort").then(() => Promise.reject(signal.reason)) })
  const never = closed.wakeApps()
  closed.close()
  await assert.rejects(never, /closed/)
})
