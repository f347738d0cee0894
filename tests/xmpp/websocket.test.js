// Clients that connect to the gateway itself, over WebSocket (RFC 7395): @xmpp/client and stanza, and sockets that break the rules.
import assert from "node:assert/strict"
import { once } from "node:events"
import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { test } from "node:test"
import { command, DOMAIN, folderOf, gatewayOf, JSON_NAMESPACE, Online, options, PUBSUB, stanza, WebSocket, xml } from "./online.js"

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
  const folder = await folderOf(context)
  command(["keygen", join(folder, "key")])
  const token = (subject) =>
    command(["token", "--key-file", join(folder, "key"), "--subject", subject, "--read", "open/#", "--append", "open/#", "--create", "open/#"])
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
