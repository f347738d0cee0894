// What tests of clients that connect to the gateway itself, over WebSocket, have in common.
import assert from "node:assert/strict"
import { execFileSync } from "node:child_process"
import { once } from "node:events"
import { mkdtemp, rm } from "node:fs/promises"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { WebSocket } from "ws"
import { start } from "../conformance/gateway.js"

// Node has none of its own before version 22.
globalThis.WebSocket ??= WebSocket
const { client: connectionOf, xml } = await import("@xmpp/client")
const stanza = createRequire(import.meta.url)("stanza")
export { stanza, WebSocket, xml }

// What hangs has failed.
export const options = { timeout: 60_000 }

export const DOMAIN = "gate.example"
export const PUBSUB = "http://jabber.org/protocol/pubsub"
const EVENT = `${PUBSUB}#event`
export const MAM = "urn:xmpp:mam:2"
const RSM = "http://jabber.org/protocol/rsm"
export const JSON_NAMESPACE = "urn:xmpp:json:0"

export async function gatewayOf(context, further = [], listen = "127.0.0.1:0") {
  const gateway = await start(listen, ["--xmpp-domain", DOMAIN, ...further], "127.0.0.1:0")
  context.after(() => gateway.stop())
  gateway.xmpp = `${gateway.url.replace("http", "ws")}/v1/xmpp`
  gateway.bosh = `${gateway.url}/v1/bosh`
  gateway.stream = (name) => `${gateway.url}/v1/stream/${name}`
  gateway.create = async (name) => {
    const answer = await fetch(gateway.stream(name), { method: "PUT", headers: { "content-type": "application/json" } })
    assert.equal(answer.status, 201)
  }
  gateway.read = async (name) => (await fetch(gateway.stream(name))).json()
  gateway.metric = async (name) => {
    const text = await (await fetch(`${gateway.admin}/metrics`)).text()
    return Number(text.match(new RegExp(`^pollgate_${name} (.*)$`, "m"))[1])
  }
  gateway.append = async (name, body, headers = {}) => {
    const answer = await fetch(gateway.stream(name), { method: "POST", body, headers: { "content-type": "application/json", ...headers } })
    assert(answer.ok, `answered ${answer.status}`)
  }
  return gateway
}

// A client of @xmpp/client that is online, and what it was notified of.
export class Online {
  items = []
  #waiting = []

  static async of(context, gateway, username, password = "any", resource = undefined) {
    const online = new this()
    online.xmpp = connectionOf({ service: gateway.xmpp, domain: DOMAIN, username, password, resource })
    online.xmpp.reconnect.stop()
    online.errors = []
    online.xmpp.on("error", (error) => online.errors.push(error))
    online.xmpp.on("stanza", (element) => online.#take(element))
    online.enabled = new Promise((resolve) => online.xmpp.on("element", (element) => element.is("enabled", "urn:xmpp:sm:3") && resolve()))
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

// A client of stanza over a line, and what it was notified of.
export async function stanzaOver(context, line, name) {
  const client = stanza.createClient({
    jid: `${name}@${DOMAIN}`, credentials: { token: "any" }, server: DOMAIN, transports: { websocket: line.xmpp, bosh: false },
    autoReconnect: true, maxReconnectBackoff: 0.05,
  })
  context.after(() => client.disconnect())
  client.connect()
  await once(client, "session:started")
  client.contents = []
  client.on("pubsub:published", ({ pubsub }) => client.contents.push(...pubsub.items.published.map(({ content }) => `${content.json}`)))
  client.notified = async (count) => {
    while (client.contents.length < count) await once(client, "pubsub:published")
    return client.contents
  }
  client.resumed = () => once(client, "stream:management:resumed")
  return client
}

// Runs a command of the gateway, and returns what it prints.
export const command = (words, input = "") =>
  execFileSync(process.env.GATEWAY_BINARY, words, { encoding: "utf8", input }).trim()

// A folder that ends with the test.
export async function folderOf(context) {
  const folder = await mkdtemp(join(tmpdir(), "pollgate-"))
  context.after(() => rm(folder, { recursive: true }))
  return folder
}
