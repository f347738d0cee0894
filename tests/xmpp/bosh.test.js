// Clients that talk in HTTP requests (BOSH, XEP-0124): strophe.js in a browser and stanza, and requests that are lost, repeated and late.
import assert from "node:assert/strict"
import { execFileSync } from "node:child_process"
import { generateKeyPairSync, sign } from "node:crypto"
import { once } from "node:events"
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { createServer } from "node:http"
import { createRequire } from "node:module"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"
import mqtt from "mqtt"
import { chromium } from "playwright-core"
import { startBrowser } from "../browser/chromium.js"
import { Bosh, DOMAIN, itemsOf } from "./bosh.js"
import { gatewayOf as onlineGatewayOf } from "./online.js"

const require = createRequire(import.meta.url)
const stanza = require("stanza")

// What hangs has failed.
const options = { timeout: 60_000 }

// A gateway whose streams are created by their first appends.
async function gatewayOf(context, further = []) {
  const gateway = await onlineGatewayOf(context, further)
  gateway.append = async (name, body) => {
    const answer = await fetch(`${gateway.stream(name)}?create=1`, { method: "POST", body, headers: { "content-type": "application/json" } })
    assert(answer.ok, `answered ${answer.status}`)
  }
  return gateway
}

async function until(condition) {
  while (!(await condition())) await new Promise((wait) => setTimeout(wait, 20))
}

const numbers = (count) => Array.from({ length: count }, (_, n) => n)

test("strophe.js in a page of another origin publishes and is notified, in order and once", options, async (context) => {
  const { browser, origin, close } = await startBrowser(chromium)
  context.after(close)
  const gateway = await gatewayOf(context, ["--origin", origin])
  const page = await browser.newPage()
  await page.goto(origin)
  const strophe = join(require.resolve("strophe.js"), "../strophe.umd.cjs")
  await page.addScriptTag({ content: await readFile(strophe, "utf8") })
  const heard = []
  await page.exposeFunction("heard", (content) => heard.push(content))
  const listener = await mqtt.connectAsync(`mqtt://${gateway.mqtt}`)
  context.after(() => listener.end(true))
  const over_mqtt = []
  listener.on("message", (_, payload) => over_mqtt.push(Number(payload)))
  await gateway.append("a", "0")
  await listener.subscribeAsync("a", { qos: 1 })
  await page.evaluate(async ({ url, domain }) => {
    const { Strophe, $iq } = globalThis.strophe ?? globalThis
    const connection = (globalThis.connection = new Strophe.Connection(url))
    connection.addHandler((message) => {
      for (const json of message.getElementsByTagName("json")) globalThis.heard(Number(json.textContent))
      return true
    }, null, "message")
    await new Promise((resolve, reject) => {
      connection.connect(`alice@${domain}`, "any", (status, why) => {
        if (status === Strophe.Status.CONNECTED) resolve()
        if ([Strophe.Status.CONNFAIL, Strophe.Status.AUTHFAIL, Strophe.Status.ERROR].includes(status)) reject(new Error(`${status} ${why}`))
      })
    })
    globalThis.ask = (child) => {
      const iq = $iq({ type: "set", to: domain }).c("pubsub", { xmlns: "http://jabber.org/protocol/pubsub" })
      child(iq)
      return new Promise((resolve, reject) => connection.sendIQ(iq, resolve, (error) => reject(new Error(error.outerHTML))))
    }
    await globalThis.ask((iq) => iq.c("subscribe", { node: "a", jid: connection.jid }))
  }, { url: gateway.bosh, domain: DOMAIN })
  for (const n of numbers(10)) {
    if (n % 3 === 0) await gateway.append("a", String(n + 1))
    if (n % 3 === 1) await listener.publishAsync("a", String(n + 1), { qos: 1 })
    if (n % 3 === 2) {
      await page.evaluate((content) => globalThis.ask((iq) => iq.c("publish", { node: "a" }).c("item").c("json", { xmlns: "urn:xmpp:json:0" }).t(content)), String(n + 1))
    }
  }
  const expected = numbers(10).map((n) => n + 1)
  await until(() => heard.length >= 10 && over_mqtt.length >= 10)
  assert.deepEqual(heard, expected)
  assert.deepEqual(over_mqtt.filter((n) => n > 0), expected)
  assert.deepEqual(await gateway.read("a"), [0, ...expected])
  await page.evaluate(() => globalThis.connection.disconnect())
  await until(async () => (await gateway.metric("xmpp_bosh_sessions")) === 0)
})

test("stanza logs in, publishes and is notified", options, async (context) => {
  const gateway = await gatewayOf(context)
  const client = stanza.createClient({
    jid: `carol@${DOMAIN}`, password: "any", server: DOMAIN, autoReconnect: false, transports: { bosh: gateway.bosh, websocket: false },
  })
  client.connect()
  await once(client, "session:started")
  await client.publish(DOMAIN, "a", { itemType: "urn:xmpp:json:0", json: { n: 0 } })
  await client.subscribeToNode(DOMAIN, "a")
  for (const n of [1, 2]) {
    const notified = once(client, "pubsub:published")
    await gateway.append("a", `{"n":${n}}`)
    const [{ pubsub }] = await notified
    assert.equal(pubsub.items.node, "a")
  }
  assert.deepEqual(await gateway.read("a"), [{ n: 0 }, { n: 1 }, { n: 2 }])
  const ended = once(client, "disconnected")
  client.disconnect()
  await ended
})

test("a repeated request is performed once and answered with the same bytes", options, async (context) => {
  const gateway = await gatewayOf(context)
  const client = await Bosh.loggedIn(context, gateway.bosh, "alice")
  const publication = client.publication("a", "1")
  const answered = await client.next("", publication)
  assert.match(answered, /type=["']result/)
  for (const _ of numbers(3)) assert.equal(await client.send(client.rid, "", publication), answered)
  assert.deepEqual(await gateway.read("a"), [1])
})

test("of two requests that wait the older one is released, and late ones come in order", options, async (context) => {
  const gateway = await gatewayOf(context)
  const client = await Bosh.loggedIn(context, gateway.bosh, "alice")
  const waiting = client.next()
  const publications = [1, 2, 3].map((n) => client.publication("a", String(n)))
  const newer = client.next("", publications[0])
  assert.doesNotMatch(await waiting, /<iq/)
  assert.match(await newer, /<iq/)
  const { rid } = client
  const early = client.send(rid + 2, "", publications[2])
  const late = client.send(rid + 1, "", publications[1])
  await Promise.all([early, late])
  assert.deepEqual(await gateway.read("a"), [1, 2, 3])
})

test("a client whose connections break again and again loses nothing and reads nothing twice", options, async (context) => {
  const gateway = await gatewayOf(context)
  await gateway.append("a", "0")
  const client = await Bosh.loggedIn(context, gateway.bosh, "alice")
  await client.subscribe("a")
  const count = 60
  const heard = []
  const reading = (async () => {
    for (client.rid++; heard.length < count; client.rid++) {
      for (;;) {
        // Some connections break before the response comes, and some while it comes.
        const broken = new AbortController()
        const breaking = Math.random() < 0.5 ? setTimeout(() => broken.abort(), Math.random() * 15) : undefined
        const body = await client.send(client.rid, "", "", broken.signal).catch(() => undefined)
        clearTimeout(breaking)
        if (body === undefined) continue
        assert.doesNotMatch(body, /terminate/)
        heard.push(...itemsOf(body).map(({ content }) => Number(content)))
        break
      }
    }
  })()
  for (const n of numbers(count)) await gateway.append("a", String(n + 1))
  await reading
  assert.deepEqual(heard, numbers(count).map((n) => n + 1))
})

test("a connection that is half open does not keep what is sent", options, async (context) => {
  const gateway = await gatewayOf(context)
  await gateway.append("a", "0")
  const client = await Bosh.loggedIn(context, gateway.bosh, "alice")
  await client.subscribe("a")
  // The client has gone to another network: nothing tells the gateway.
  const [host, port] = gateway.address.split(":")
  const gone = connect(Number(port), host)
  context.after(() => gone.destroy())
  const body = `<body xmlns='http://jabber.org/protocol/httpbind' rid='${++client.rid}' sid='${client.sid}'/>`
  gone.write(`POST /v1/bosh HTTP/1.1\r\nhost: ${gateway.address}\r\ncontent-length: ${body.length}\r\n\r\n${body}`)
  await new Promise((sent) => gone.write("", sent))
  // The gateway cannot know which connection the client reads, so both get the same response at once, and the next request waits.
  const again = await client.send(client.rid)
  assert.doesNotMatch(again, /terminate/)
  const next = client.next()
  await gateway.append("a", "1")
  assert.deepEqual([again, await next].flatMap(itemsOf).map(({ content }) => content), ["1"])
})

test("a client that has slept too long goes on from the archive", options, async (context) => {
  const gateway = await gatewayOf(context, ["--limit", "bosh_inactivity=1s"])
  await gateway.append("a", "0")
  const client = await Bosh.loggedIn(context, gateway.bosh, "alice")
  await client.subscribe("a")
  const notified = client.next()
  await gateway.append("a", "1")
  const [{ id }] = itemsOf(await notified)
  await until(async () => (await gateway.metric("xmpp_bosh_sessions")) === 0)
  await gateway.append("a", "[2,3]")
  assert.match(await client.next(), /type='terminate' condition='item-not-found'/)
  const again = await Bosh.loggedIn(context, gateway.bosh, "alice")
  await again.subscribe("a")
  assert.deepEqual((await again.archive("a", id)).map(({ content }) => content), ["2", "3"])
})

test("after a kill of the gateway a client goes on, loses nothing and reads nothing twice", options, async (context) => {
  const folder = await mkdtemp(join(tmpdir(), "pollgate-"))
  context.after(() => rm(folder, { recursive: true }))
  const further = ["--store", join(folder, "data")]
  const gateway = await gatewayOf(context, further)
  await gateway.append("a", "0")
  const client = await Bosh.loggedIn(context, gateway.bosh, "alice")
  await client.subscribe("a")
  const waiting = client.next()
  await gateway.append("a", "1")
  const heard = itemsOf(await waiting)
  const lost = client.next().catch((error) => error)
  await gateway.append("a", "2")
  await gateway.stop()
  const body = await lost
  const next = await gatewayOf(context, further)
  await next.append("a", "3")
  client.url = next.bosh
  const again = await client.send(client.rid)
  if (typeof body === "string") assert.equal(again, body)
  heard.push(...itemsOf(again))
  while (heard.length < 3) heard.push(...itemsOf(await client.next()))
  assert.deepEqual(heard.map(({ content }) => content), ["1", "2", "3"])
  assert.match(await client.next("", client.publication("a", "4")), /type=["']result/)
})

test("a token gives its rights, and the session ends when it is revoked", options, async (context) => {
  const folder = await mkdtemp(join(tmpdir(), "pollgate-"))
  context.after(() => rm(folder, { recursive: true }))
  const command = (...words) => execFileSync(process.env.GATEWAY_BINARY, words, { encoding: "utf8" }).trim()
  command("keygen", join(folder, "key"))
  const token = command("token", "--key-file", join(folder, "key"), "--subject", "anna", "--read", "open/#", "--append", "open/#", "--create", "open/#")
  const gateway = await gatewayOf(context, ["--auth", join(folder, "key")])
  const client = await Bosh.loggedIn(context, gateway.bosh, "alice", token)
  assert.match(await client.next("", client.publication("open/a", "1")), /type=["']result/)
  assert.match(await client.next("", client.publication("closed", "1")), /<forbidden/)
  const other = await Bosh.opened(context, gateway.bosh)
  const wrong = `<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>${btoa("\0alice\0wrong")}</auth>`
  assert.match(await other.next("", wrong), /<not-authorized/)
  const waiting = client.next()
  const revoked = await fetch(`${gateway.admin}/revocations`, { method: "POST", body: '{"sub":"anna"}' })
  assert(revoked.ok, `answered ${revoked.status}`)
  assert.match(await waiting, /type='terminate' condition='remote-stream-error'.*<not-authorized/)
})

test("a request waits for the keys of the issuer of its client's token, which another gateway has verified", options, async (context) => {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519")
  const json = (value) => Buffer.from(JSON.stringify(value)).toString("base64url")
  const keys = JSON.stringify({ keys: [{ ...publicKey.export({ format: "jwk" }), kid: "k", alg: "EdDSA", use: "sig" }] })
  let isOpen = Promise.resolve()
  let asked = 0
  const issuer = createServer(async (_, response) => {
    asked += 1
    await isOpen
    response.end(keys)
  }).listen(0, "127.0.0.1")
  await once(issuer, "listening")
  context.after(() => issuer.close())
  const folder = await mkdtemp(join(tmpdir(), "pollgate-"))
  context.after(() => rm(folder, { recursive: true }))
  const rule = '[[issuer.rule]]\nclaim = "sub"\ncontains = "anna"\nread = ["#"]\n'
  const url = `http://127.0.0.1:${issuer.address().port}/keys`
  await writeFile(join(folder, "auth.toml"), `[[issuer]]\nname = "https://id.example"\naudience = "gate"\njwks_url = "${url}"\n${rule}`)
  const further = ["--store", join(folder, "data"), "--auth", join(folder, "auth.toml")]
  const gateway = await gatewayOf(context, further)
  const exp = Math.floor(Date.now() / 1000) + 600
  const signed = `${json({ alg: "EdDSA", kid: "k", typ: "JWT" })}.${json({ iss: "https://id.example", aud: "gate", sub: "anna", exp })}`
  const token = `${signed}.${sign(null, Buffer.from(signed), privateKey).toString("base64url")}`
  await until(async () => (await fetch(gateway.stream("a"), { headers: { authorization: `Bearer ${token}` } })).status === 404)
  const client = await Bosh.loggedIn(context, gateway.bosh, "anna", token)
  await gateway.stop()
  let open
  isOpen = new Promise((resolve) => (open = resolve))
  const next = await gatewayOf(context, further)
  client.url = next.bosh
  const answered = client.next("", client.iq("get", "<ping xmlns='urn:xmpp:ping'/>"))
  await until(() => asked === 2)
  open()
  assert.match(await answered, /type=["']result/)
})

test("clients are told to come back while their gateway drains", options, async (context) => {
  const gateway = await gatewayOf(context, ["--limit", "drain_spread=100ms"])
  const client = await Bosh.loggedIn(context, gateway.bosh, "alice")
  const waiting = client.next()
  const drained = gateway.drain()
  assert.match(await waiting, /type='terminate' condition='system-shutdown'/)
  assert.equal(await drained, 0)
})

test("pages of other origins and other methods are refused", options, async (context) => {
  const gateway = await gatewayOf(context)
  const ask = async (method, headers = {}) => (await fetch(gateway.bosh, { method, headers })).status
  assert.equal(await ask("GET"), 405)
  assert.equal(await ask("POST", { origin: "https://evil.example" }), 403)
  assert.equal(await ask("OPTIONS", { origin: "https://evil.example", "access-control-request-method": "POST" }), 403)
  assert.equal(await ask("POST"), 200)
})
