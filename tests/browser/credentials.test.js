// The JavaScript client in Node behind a proxy that checks credentials: headers, tokens, and what 401 and 403 do.
import assert from "node:assert/strict"
import { execFileSync } from "node:child_process"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"
import { Client } from "../../clients/js/src/pollgate.js"
import { start } from "../conformance/gateway.js"
import { guard } from "./guard.js"
import { append, numbers, QUICK, until, world } from "./world.js"

const FORMS = ["sse", "ndjson", "long-poll", "short-poll"]

// A client of the gateway at `url`, with its changes of form.
function clientOf(context, url, options = {}) {
  const client = new Client(url, { WebSocket: undefined, ...options, settings: QUICK })
  context.after(() => client.close())
  const changes = []
  client.addEventListener("form", ({ detail: { from, to, reason } }) => changes.push(`${from} ${to} ${reason}`))
  return { client, changes }
}

// A gateway behind a guard.
async function guarded(context, check) {
  const { gateway } = await world(context)
  return { gateway, proxy: await guard(context, gateway, check) }
}

// A gateway that checks tokens, and a function that signs them.
async function authorized(context) {
  const folder = await mkdtemp(join(tmpdir(), "pollgate-"))
  const key = join(folder, "key")
  const run = (...words) => execFileSync(process.env.GATEWAY_BINARY, words, { encoding: "utf8" }).trim()
  run("keygen", key)
  const gateway = await start("127.0.0.1:0", ["--auth", key])
  context.after(() => Promise.all([gateway.stop(), rm(folder, { recursive: true })]))
  return { gateway, sign: (...rights) => run("token", "--key-file", key, ...rights) }
}

const withToken = (token) => ({ headers }) => (headers.authorization === `Bearer ${token}` ? undefined : 401)

// Long enough for a client that retries to have done so.
const quiet = () => new Promise((wait) => setTimeout(wait, 1000 * (QUICK.backoffMax + QUICK.reprobeAfter)))

for (const form of FORMS) {
  test(`${form}: header fields and the token come with every request, fresh ones if they are functions`, async (context) => {
    const { gateway, proxy } = await guarded(context, withToken("secret"))
    const fixed = clientOf(context, proxy.url, { forms: [form], token: "secret", headers: { "X-Key": "k", Accept: "*/*" } })
    const got = []
    fixed.client.subscribe("s", { from: "earliest" }, ({ data }) => void got.push(data))
    for (const n of numbers(5)) await fixed.client.publish("s", n, { create: true })
    await until(() => got.length === 5)
    assert.deepEqual(got, numbers(5))
    assert(proxy.requests.length > 6)
    assert(proxy.requests.every(({ headers }) => headers["x-key"] === "k" && headers.authorization === "Bearer secret"))
    fixed.client.close()

    let [asked, named] = [0, 0]
    const open = await guard(context, gateway)
    const { client } = clientOf(context, open.url, {
      forms: [form],
      token: async () => `token-${asked++}`,
      headers: () => new Headers({ "x-number": `${named++}`, "content-type": "text/html", authorization: "not this" }),
    })
    client.subscribe("s", { from: "earliest" }, ({ data }) => void got.push(data))
    await client.publish("s", 5)
    await until(() => got.length === 11)
    client.close()
    // Each request has its own token, and the client's own fields are unchanged.
    const seen = open.requests.map(({ headers }) => headers)
    assert(seen.length >= 2 && seen.every(({ authorization }) => /^Bearer token-\d+$/.test(authorization)))
    for (const name of ["authorization", "x-number"]) {
      assert.equal(new Set(seen.map((headers) => headers[name])).size, seen.length, name)
    }
    const [posted] = open.requests.filter(({ method }) => method === "POST")
    assert.equal(posted.headers["content-type"], "application/json")
  })
}

test("a client with header fields does not use WebSockets, which cannot send them", async (context) => {
  const { gateway } = await world(context)
  class Forbidden {
    constructor() {
      assert.fail("a WebSocket was opened")
    }
  }
  await append(gateway, "s", 1)
  for (const options of [{ headers: { a: "b" } }, { headers: async () => undefined }, { headers: {}, token: "t" }]) {
    const { client, changes } = clientOf(context, gateway.url, { ...options, WebSocket: Forbidden })
    const subscription = client.subscribe("s", { from: "earliest" })
    for await (const { data } of subscription) {
      assert.equal(data, 1)
      break
    }
    client.subscribe("s")
    await until(() => changes.length)
    assert.deepEqual(changes, ["websocket sse not_supported"])
    const alone = { ...options, forms: ["websocket"] }
    assert.throws(() => new Client(gateway.url, alone), /a WebSocket cannot send headers/)
  }
})

for (const status of [401, 403]) {
  test(`${status} ends a subscription, an iteration and a publication, and a fixed token is not tried again`, async (context) => {
    const { proxy } = await guarded(context, () => status)
    const { client } = clientOf(context, proxy.url, { token: "wrong" })
    const errors = []
    client.addEventListener("error", ({ detail: { error } }) => errors.push(error))
    const expected = { name: "GatewayError", status, problem: null, message: new RegExp(`^${status} (Unauthorized|Forbidden)`) }
    await assert.rejects(client.subscribe("s", () => {}).closed, expected)
    await assert.rejects(async () => {
      for await (const message of client.subscribe("s")) assert.fail(`${message}`)
    }, expected)
    await assert.rejects(client.publish("s", 1), expected)
    assert.equal(errors.length, 2)
    const { length } = proxy.requests
    await quiet()
    assert.deepEqual([length, proxy.requests.length], [3, 3])
  })
}

test("a token that expires ends the reading; with a new one it goes on behind the resume token", async (context) => {
  const { gateway, proxy } = await guarded(context, withToken("first"))
  for (const form of FORMS) {
    await append(gateway, form, 0)
    proxy.check = withToken("first")
    let token = "first"
    const { client } = clientOf(context, proxy.url, { forms: [form], token: () => token })
    const got = []
    const handler = ({ data }) => void got.push(data)
    const subscription = client.subscribe(form, { from: "earliest" }, handler)
    // The form itself reads the status.
    await until(() => got.length && (form === "short-poll" || proxy.requests.some(({ path }) => path.includes(form))))
    proxy.check = withToken("second")
    proxy.cut()
    await assert.rejects(subscription.closed, { status: 401 })
    const { length } = proxy.requests
    await append(gateway, form, 1)
    await quiet()
    assert.equal(proxy.requests.length, length, form)
    token = "second"
    client.subscribe(form, { resumeToken: subscription.resumeToken }, handler)
    await until(() => got.length === 2)
    await append(gateway, form, 2)
    await until(() => got.length === 3)
    assert.deepEqual(got, numbers(3))
    client.close()
  }
})

for (const form of FORMS) {
  test(`${form}: a subscription outlives its tokens, and loses nothing`, async (context) => {
    const { gateway, sign } = await authorized(context)
    const owner = sign("--create", "#", "--append", "#")
    const got = []
    const asked = []
    const token = (refused) => {
      asked.push(refused)
      return sign("--read", form, "--expires", "2s")
    }
    const { client, changes } = clientOf(context, gateway.url, { forms: [form], token })
    const publisher = clientOf(context, gateway.url, { token: owner }).client
    client.subscribe(form, { from: "earliest" }, ({ data }) => void got.push(data))
    let count = 0
    while (asked.length < 3) {
      await publisher.publish(form, count++, { create: true })
      await until(() => got.length === count)
    }
    assert.deepEqual(got, numbers(count))
    assert.deepEqual(changes, [`null ${form} start`])
  })
}

test("a token that is refused is asked for once more, and told", async (context) => {
  const { gateway, sign } = await authorized(context)
  await fetch(`${gateway.url}/v1/stream/s`, { method: "PUT", headers: { authorization: `Bearer ${sign("--create", "#")}` } })
  for (const form of FORMS) {
    const asked = []
    const token = (refused) => (asked.push(refused), `wrong-${asked.length}`)
    const { client } = clientOf(context, gateway.url, { forms: [form], token })
    await assert.rejects(client.subscribe("s").closed, { status: 401 })
    const expected = [undefined, "wrong-1"]
    // The shared connection may have begun, too.
    assert.deepEqual(asked.slice(0, 2), expected, form)
    assert(asked.length <= 4, `${form}: ${asked}`)
    client.close()
  }
})

test("a stream that the token does not grant is told once, and the others are read", async (context) => {
  const { gateway, sign } = await authorized(context)
  const publisher = clientOf(context, gateway.url, { token: sign("--create", "#", "--append", "#") }).client
  for (const form of FORMS) {
    const { client } = clientOf(context, gateway.url, { forms: [form], token: sign("--read", form) })
    const [got, forbidden] = [[], []]
    client.addEventListener("forbidden", ({ detail: { stream } }) => forbidden.push(stream))
    client.subscribe([form, "hidden"], { from: "earliest" }, ({ data }) => void got.push(data))
    for (const n of numbers(5)) await publisher.publish(form, n, { create: true })
    await until(() => got.length === 5)
    assert.deepEqual([got, forbidden], [numbers(5), ["hidden"]], form)
    client.close()
  }
})

test("403 for the only form that is allowed ends the subscription", async (context) => {
  const { proxy } = await guarded(context)
  const { client } = clientOf(context, proxy.url, { forms: ["sse"] })
  const subscription = client.subscribe("s")
  await until(() => proxy.requests.some(({ path }) => path.includes("live=sse")))
  proxy.check = ({ url }) => (url.includes("live=sse") ? 403 : undefined)
  proxy.cut()
  await assert.rejects(subscription.closed, { status: 403 })
  const { length } = proxy.requests
  await quiet()
  assert.equal(proxy.requests.length, length)
})

test("a proxy that refuses one form with 403 loses it, and the subscription goes on by another", async (context) => {
  const { gateway, proxy } = await guarded(context, ({ url }) => (/live=(sse|ndjson)/.test(url) ? 403 : undefined))
  const { client, changes } = clientOf(context, proxy.url, { token: "t" })
  const got = []
  client.subscribe("s", { from: "earliest" }, ({ data }) => void got.push(data))
  await until(() => changes.length === 3)
  await append(gateway, "s", 1)
  await until(() => got.length)
  assert.deepEqual(changes, ["websocket sse not_supported", "sse ndjson refused", "ndjson long-poll refused"])
})

test("errors of the functions for header fields and tokens end subscriptions and publishes", async (context) => {
  const { gateway, proxy } = await guarded(context)
  const fails = () => {
    throw new Error("logged out")
  }
  for (const options of [{ token: fails }, { headers: async () => fails() }, { headers: { "no name": "v" } }]) {
    const { client } = clientOf(context, proxy.url, options)
    const expected = options.headers && typeof options.headers === "object" ? TypeError : /logged out/
    await assert.rejects(client.subscribe("s").closed, expected)
    await assert.rejects(client.publish("s", 1), expected)
  }
  assert.equal(proxy.requests.length, 0)

  // Also while a subscription reads.
  let token = () => "t"
  const { client } = clientOf(context, proxy.url, { forms: ["sse"], token: () => token() })
  const got = []
  const subscription = client.subscribe("s", { from: "earliest" }, ({ data }) => void got.push(data))
  await append(gateway, "s", 1)
  await until(() => got.length && proxy.requests.some(({ path }) => path.includes("live=sse")))
  token = fails
  proxy.cut()
  await assert.rejects(subscription.closed, /logged out/)
})

test("the client waits for a slow function, and blames no form for it", async (context) => {
  const { gateway, proxy } = await guarded(context)
  const token = () => new Promise((give) => setTimeout(() => give("t"), 1000 * QUICK.envelopeTimeout + 300))
  const { client, changes } = clientOf(context, proxy.url, { token })
  const got = []
  client.subscribe("s", { from: "earliest" }, ({ data }) => void got.push(data))
  await append(gateway, "s", 1)
  await until(() => got.length && proxy.requests.some(({ path }) => path.includes("live=sse")))
  await quiet()
  assert.deepEqual(changes, ["websocket sse not_supported"])
})
