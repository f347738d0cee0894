// Streams that are resumed (XEP-0198) by @xmpp/client and stanza: nothing is lost and nothing comes twice.
import assert from "node:assert/strict"
import { once } from "node:events"
import { join } from "node:path"
import { test } from "node:test"
import mqtt from "mqtt"
import { Line } from "./line.js"
import { DOMAIN, folderOf, gatewayOf, JSON_NAMESPACE, Online, options, PUBSUB, stanzaOver, xml } from "./online.js"

const numbers = (from, to) => Array.from({ length: to - from }, (_, index) => `${from + index}`)

// A client of @xmpp/client that connects again by itself, over a line. It does not count the answers to its requests, and so acknowledges too
// little and is sent messages again: `seen` has each once.
class Resuming extends Online {
  static async over(context, line, name) {
    const online = await Resuming.of(context, { xmpp: line.xmpp }, name)
    online.xmpp.reconnect.delay = 50
    online.xmpp.reconnect.start()
    await online.enabled
    return online
  }

  get seen() {
    return [...new Map(this.items.map(({ id, content }) => [id, content])).values()]
  }

  async sees(count) {
    while (this.seen.length < count) await this.notified(this.items.length + 1)
    return this.seen
  }

  resumed() {
    return new Promise((resolve) => this.xmpp.streamManagement.once("resumed", resolve))
  }

  // Publishes without waiting for the answer, which may be lost with a connection.
  send(node, content) {
    const item = xml("item", {}, xml("json", { xmlns: JSON_NAMESPACE }, content))
    const publish = xml("pubsub", { xmlns: PUBSUB }, xml("publish", { node }, item))
    return this.xmpp.send(xml("iq", { type: "set", to: DOMAIN, id: `p${content}` }, publish))
  }
}

test("a message that was published into a broken connection is appended once, and crosses to HTTP and MQTT", options, async (context) => {
  const gateway = await gatewayOf(context)
  const line = await Line.to(context, gateway)
  const [anna, bob] = [await Resuming.over(context, line, "anna"), await Resuming.over(context, line, "bob")]
  await anna.publish("a/b", "0")
  await bob.subscribe("a/b")
  const device = await mqtt.connectAsync(`mqtt://${gateway.mqtt}`)
  context.after(() => device.endAsync(true))
  const byMqtt = []
  device.on("message", (_, payload) => byMqtt.push(String(payload)))
  await device.subscribeAsync("a/b", { qos: 1 })
  for (const number of numbers(1, 9)) {
    await anna.send("a/b", number)
    if (number % 3 === 0) {
      const both = Promise.all([anna.resumed(), bob.resumed()])
      line.cut()
      await both
    }
  }
  await bob.sees(8)
  await device.publishAsync("a/b", "9", { qos: 1 })
  assert.deepEqual(await bob.sees(9), numbers(1, 10))
  const read = await fetch(gateway.stream("a/b"))
  assert.deepEqual(await read.json(), numbers(0, 10).map(Number))
  while (byMqtt.length < 9) await once(device, "message")
  assert.deepEqual(byMqtt, numbers(1, 10))
})

test("a connection that nobody is at the other end of is replaced", options, async (context) => {
  const gateway = await gatewayOf(context)
  const line = await Line.to(context, gateway)
  const bob = await Resuming.over(context, line, "bob")
  await gateway.create("a")
  await bob.subscribe("a")
  const again = bob.resumed()
  line.cutNear()
  await gateway.append("a", "1")
  await again
  await gateway.append("a", "2")
  assert.deepEqual(await bob.sees(2), ["1", "2"])
  const metrics = await (await fetch(`${gateway.admin}/metrics`)).text()
  assert.match(metrics, /^pollgate_xmpp_clients 1$/m)
  assert.match(metrics, /^pollgate_xmpp_resumed_total 1$/m)
})

test("stanza goes on over a new connection, with what has come meanwhile, once", options, async (context) => {
  const gateway = await gatewayOf(context)
  const line = await Line.to(context, gateway)
  const carol = await stanzaOver(context, line, "carol")
  for (const node of ["a", "b"]) {
    await gateway.create(node)
    await carol.subscribeToNode(DOMAIN, node)
  }
  for (const round of numbers(1, 4)) {
    await gateway.append("a", `${round}0`)
    await gateway.append("b", `${round}1`)
    // Cut before, or after, it has been notified.
    if (round !== "1") await carol.notified(4 * round - 2)
    const again = carol.resumed()
    line.close()
    await gateway.append("a", `${round}2`)
    await gateway.append("b", `${round}3`)
    line.open()
    await again
    await carol.notified(4 * round)
  }
  const of = (parity) => carol.contents.filter((content) => Number(content) % 2 === parity)
  assert.deepEqual([of(0), of(1)], [["10", "12", "20", "22", "30", "32"], ["11", "13", "21", "23", "31", "33"]])
  // Requests go on too.
  await carol.publish(DOMAIN, "a", { itemType: JSON_NAMESPACE, json: 40 })
  assert.equal((await carol.notified(13)).at(-1), "40")
})

for (const how of ["drain", "stop"])
  test(`a gateway that is ${how === "drain" ? "started again" : "killed and started again"} goes on with the streams of its clients`, options, async (context) => {
    const store = ["--store", join(await folderOf(context), "store")]
    let gateway = await gatewayOf(context, store)
    const line = await Line.to(context, gateway)
    const carol = await stanzaOver(context, line, "carol")
    await gateway.create("a")
    await carol.subscribeToNode(DOMAIN, "a")
    await gateway.append("a", "1")
    await carol.notified(1)
    const again = carol.resumed()
    line.close()
    await gateway.append("a", "2")
    const { address } = gateway
    await gateway[how]()
    gateway = await gatewayOf(context, store, address)
    await gateway.append("a", "3")
    line.open()
    await again
    await gateway.append("a", "4")
    // After a kill nobody knows what has arrived, so it may come again.
    const isNew = (content, index, all) => all.indexOf(content) === index
    while (carol.contents.filter(isNew).length < 4) await carol.notified(carol.contents.length + 1)
    assert.deepEqual(carol.contents.filter(isNew), numbers(1, 5))
    if (how === "drain") assert.deepEqual(carol.contents, numbers(1, 5))
  })
