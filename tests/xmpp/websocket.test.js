// Clients that connect to the gateway itself, over WebSocket (RFC 7395): @xmpp/client and stanza, and sockets that break the rules.
import assert from "node:assert/strict"
import { execFileSync } from "node:child_process"
import { once } from "node:events"
import { mkdtemp, readFile, rm } from "node:fs/promises"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"
import { WebSocket } from "ws"
import { start } from "../conformance/gateway.js"

// Node has none of its own before version 22.
globalThis.WebSocket ??= WebSocket
const { client: connectionOf, xml } = await import("@xmpp/client")
const stanza = createRequire(import.meta.url)("stanza")

// What hangs has failed.
const options = { timeout: 60_000 }

const DOMAIN = "gate.example"
const PUBSUB = "http://jabber.org/protocol/pubsub"
const EVENT = `${PUBSUB}#event`
const MAM = "urn:xmpp:mam:2"
const RSM = "http://jabber.org/protocol/rsm"
const JSON_NAMESPACE = "urn:xmpp:json:0"

async function gatewayOf(context, further = []) {
  const gateway = await start("127.0.0.1:0", ["--xmpp-domain", DOMAIN, ...further])
  context.after(() => gateway.stop())
  gateway.xmpp = `${gateway.url.replace("http", "ws")}/v1/xmpp`
  gateway.stream = (name) => `${gateway.url}/v1/stream/${name}`
  gateway.append = async (name, body, headers = {}) => {
    const answer = await fetch(gateway.stream(name), { method: "POST", body, headers: { "content-type": "application/json", ...headers } })
    assert(answer.ok, `answered ${answer.status}`)
  }
  return gateway
}

// A client of @xmpp/client that is online, and what it was notified of.
class Online {
  items = []
  #waiting = []

  static async of(context, gateway, username, password = "any", resource = undefined) {
    const online = new Online()
    online.xmpp = connectionOf({ service: gateway.xmpp, domain: DOMAIN, username, password, resource })
    online.xmpp.reconnect.stop()
    online.errors = []
    online.xmpp.on("error", (error) => online.errors.push(error))
    online.xmpp.on("stanza", (element) => online.#take(element))
    context.after(() => online.xmpp.stop().catch(() => {}))
    online.jid = String(await online.xmpp.start())
    return online
  }

  #take(element) {
    const items = element.getChild("event", EVENT)?.getChild("items")
    for (const item of items?.getChildren("item") ?? [])
      this.items.push({ id: item.attrs.id, content: item.getChildText("json", JSON_NAMESPACE) })
    for (const waiting of this.#waiting.splice(0)) waiting()
  }

  async notified(count) {
    while (this.items.length < count) await new Promise((resolve) => this.#waiting.push(resolve))
    return this.items.map(({ content }) => content)
  }

  ask(type, child, to = DOMAIN) {
    return this.xmpp.iqCaller.request(xml("iq", { type, to }, child))
  }

  // The condition of the error that a request is answered with.
  refused(type, child, to) {
    return this.ask(type, child, to).then(() => null, ({ condition }) => condition)
  }

  async publish(node, content, id = undefined) {
    const item = xml("item", { id }, xml("json", { xmlns: JSON_NAMESPACE }, content))
    const answer = await this.ask("set", xml("pubsub", { xmlns: PUBSUB }, xml("publish", { node }, item)))
    return answer.getChild("pubsub").getChild("publish").getChild("item").attrs.id
  }

  subscribe(node) {
    return this.ask("set", xml("pubsub", { xmlns: PUBSUB }, xml("subscribe", { node, jid: this.jid.split("/")[0] })))
  }

  // What the archive has behind an id.
  async archive(node, after) {
    const results = []
    const take = (element) => {
      const result = element.getChild("result", MAM)
      if (result) results.push(result)
    }
    this.xmpp.on("stanza", take)
    await this.ask("set", xml("query", { xmlns: MAM, node }, xml("set", { xmlns: RSM }, xml("after", {}, after))))
    this.xmpp.off("stanza", take)
    const content = (result) =>
      result.getChild("forwarded").getChild("message").getChild("event").getChild("items").getChild("item").getChildText("json")
    return results.map((result) => ({ id: result.attrs.id, content: content(result) }))
  }
}

test("@xmpp/client publishes, subscribes, and goes on from the archive", options, async (context) => {
  const gateway = await gatewayOf(context)
  const [alice, bob] = [await Online.of(context, gateway, "alice"), await Online.of(context, gateway, "bob", "any", "phone")]
  assert.equal(bob.jid, `bob@${DOMAIN}/phone`)
  const first = await alice.publish("news/a", '{"n":0}')
  await bob.subscribe("news/a")
  const id = await alice.publish("news/a", '{"n":1}')
  await gateway.append("news/a", '{"n":2}')
  assert.deepEqual(await bob.notified(2), ['{"n":1}', '{"n":2}'])
  assert.equal(bob.items[0].id, id)
  // The ids are offsets of HTTP.
  assert.equal(await (await fetch(`${gateway.stream("news/a")}?offset=${first}`)).text(), '[{"n":1},{"n":2}]')
  const seen = bob.items[1].id
  await bob.xmpp.stop()
  await gateway.append("news/a", '[{"n":3},{"n":4}]')
  const again = await Online.of(context, gateway, "bob", "any", "phone")
  assert.deepEqual((await again.archive("news/a", seen)).map(({ content }) => content), ['{"n":3}', '{"n":4}'])
  await again.subscribe("news/a")
  await gateway.append("news/a", '{"n":5}')
  assert.deepEqual(await again.notified(1), ['{"n":5}'])
})

test("a session has an account without anything in it, and reaches nobody else", options, async (context) => {
  const gateway = await gatewayOf(context)
  const alice = await Online.of(context, gateway, "alice")
  const roster = await alice.ask("get", xml("query", { xmlns: "jabber:iq:roster" }), `alice@${DOMAIN}`)
  assert.equal(roster.getChild("query").children.length, 0)
  const features = await alice.ask("get", xml("query", { xmlns: "http://jabber.org/protocol/disco#info" }))
  assert(features.getChild("query").getChildren("feature").some(({ attrs }) => attrs.var === PUBSUB))
  const items = xml("pubsub", { xmlns: PUBSUB }, xml("items", { node: "a" }))
  assert.equal(await alice.refused("get", items, `alice@${DOMAIN}`), "service-unavailable")
  assert.equal(await alice.refused("get", items, `bob@${DOMAIN}`), "service-unavailable")
  assert.equal(await alice.refused("get", items), "item-not-found")
  const returned = new Promise((resolve) => alice.xmpp.on("stanza", (element) => element.is("message") && resolve(element)))
  await alice.xmpp.send(xml("message", { to: `bob@${DOMAIN}`, id: "7" }, xml("body", {}, "hello")))
  const { attrs } = await returned
  assert.deepEqual([attrs.type, attrs.from, attrs.id], ["error", `bob@${DOMAIN}`, "7"])
})

test("stanza logs in with a bearer token, publishes and is notified", options, async (context) => {
  const gateway = await gatewayOf(context)
  const client = stanza.createClient({
    jid: `carol@${DOMAIN}`, credentials: { token: "any" }, server: DOMAIN, autoReconnect: false,
    transports: { websocket: gateway.xmpp, bosh: false },
  })
  context.after(() => client.disconnect())
  client.connect()
  await once(client, "session:started")
  await client.publish(DOMAIN, "a", { itemType: JSON_NAMESPACE, json: { n: 0 } })
  await client.subscribeToNode(DOMAIN, "a")
  const notified = once(client, "pubsub:published")
  await gateway.append("a", '{"n":1}')
  const [{ pubsub }] = await notified
  assert.equal(pubsub.items.node, "a")
  const { tail } = await fetch(gateway.stream("a"), { method: "HEAD" }).then(({ headers }) => ({ tail: headers.get("stream-next-offset") }))
  assert.equal(pubsub.items.published[0].id, tail)
})

test("a token gives its rights, and the stream ends when it is revoked", options, async (context) => {
  const folder = await mkdtemp(join(tmpdir(), "pollgate-"))
  context.after(() => rm(folder, { recursive: true }))
  const command = (...words) => execFileSync(process.env.GATEWAY_BINARY, words, { encoding: "utf8" }).trim()
  command("keygen", join(folder, "key"))
  const token = (subject) => command("token", "--key-file", join(folder, "key"), "--subject", subject, "--read", "open/#", "--append", "open/#", "--create", "open/#")
  const audit = join(folder, "audit.log")
  const gateway = await gatewayOf(context, ["--auth", join(folder, "key"), "--audit-log", audit, "--limit", "drain_spread=100ms"])
  const alice = await Online.of(context, gateway, "alice", token("anna"))
  await alice.publish("open/a", "1")
  assert.equal(await alice.publish("closed", "1").then(() => null, ({ condition }) => condition), "forbidden")
  const read = (node) => alice.refused("get", xml("pubsub", { xmlns: PUBSUB }, xml("items", { node })))
  assert.equal(await read("closed"), "item-not-found")
  const failed = await Online.of(context, gateway, "alice", "wrong").then(() => null, (error) => error)
  assert.equal(failed.condition, "not-authorized")
  const ended = new Promise((resolve) => alice.xmpp.on("disconnect", resolve))
  const revoked = await fetch(`${gateway.admin}/revocations`, { method: "POST", body: '{"sub":"anna"}' })
  assert(revoked.ok, `answered ${revoked.status}`)
  await ended
  assert.equal(alice.errors[0].condition, "not-authorized")
  await gateway.drain()
  const lines = (await readFile(audit, "utf8")).trim().split("\n").map((line) => JSON.parse(line))
  const entries = lines.filter(({ client }) => client).map(({ event, who, stream }) => [event, who, stream])
  const expected = [["created", "open/a"], ["refused", "closed"], ["refused", "closed"]]
  assert.deepEqual(entries, expected.map(([event, stream]) => [event, "pollgate anna", stream]))
})

test("a socket that breaks the rules is told why, and closed", options, async (context) => {
  const gateway = await gatewayOf(context)
  const open = `<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='${DOMAIN}' version='1.0'/>`
  const auth = (text) => `<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>${btoa(text)}</auth>`
  const ping = "<iq xmlns='jabber:client' type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>"
  // The condition with which the stream ends, or the code with which the socket is closed.
  const end = async (...frames) => {
    const socket = new WebSocket(gateway.xmpp, ["xmpp"])
    let said = ""
    socket.on("message", (data) => (said += data))
    await once(socket, "open")
    for (const frame of frames) socket.send(frame)
    const [code] = await once(socket, "close")
    if (code !== 1000) return code
    return said.match(/<stream:error [^>]*><([a-z-]+)/)?.[1] ?? said
  }
  assert.equal(await end(open, "<a"), "not-well-formed")
  assert.equal(await end(open, "<!DOCTYPE a><a/>"), "not-well-formed")
  assert.equal(await end(open, "<a/><b/>"), "not-well-formed")
  assert.equal(await end(open, Buffer.from("<a/>")), "not-well-formed")
  assert.equal(await end(open, `<a>${"x".repeat(16 * 1024)}</a>`), 1009)
  assert.equal(await end(open, ping), "not-authorized")
  assert.equal(await end(open, auth("\0alice\0any"), open, ping), "not-authorized")
  assert.equal(await end(open, ...Array(3).fill(auth("alice"))), "policy-violation")
  assert.equal(await end(ping), "policy-violation")
  assert.equal(await end(open.replace(DOMAIN, "other.example")), "host-unknown")
  assert.match(await end(open, "<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>"), /<close [^>]*\/>$/)
  // Another subprotocol is refused.
  const [error] = await once(new WebSocket(gateway.xmpp, ["mqtt"]), "error")
  assert.match(error.message, /400/)
})

test("clients move to another gateway while theirs drains", options, async (context) => {
  const gateway = await gatewayOf(context)
  const alice = await Online.of(context, gateway, "alice")
  const ended = new Promise((resolve) => alice.xmpp.on("disconnect", resolve))
  assert.equal(await gateway.drain(), 0)
  await ended
  assert.equal(alice.errors[0].condition, "system-shutdown")
})
