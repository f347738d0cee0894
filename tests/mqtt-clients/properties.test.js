// What MQTT 5 lets the two sides say beside the message itself.
import assert from "node:assert/strict"
import { MQTT_3, MQTT_5, scenario } from "./world.js"

const ONLY_MQTT_5 = { versions: [MQTT_5] }

const PACKET_TOO_LARGE = 0x95
const PAYLOAD_FORMAT_INVALID = 0x99
const NOT_AUTHORIZED = 0x87

scenario("what a publisher says of a message is passed on", async (world) => {
  const [publisher, subscriber] = [await world.connect(), await world.connect()]
  await subscriber.subscribe("s")
  const properties = {
    payloadFormatIndicator: true,
    contentType: "text/plain",
    responseTopic: "answers/1",
    correlationData: Buffer.from([0, 1, 255]),
    // A key may come more than once.
    userProperties: { key: ["a", "b"], other: "c" },
  }
  await publisher.publish("s", "1", { qos: 1, properties })
  const told = (await subscriber.next("message")).properties
  assert.deepEqual({ ...told, userProperties: { ...told.userProperties } }, properties)
}, ONLY_MQTT_5)

scenario("a question is answered where it says, with what ties the two together", async (world) => {
  const [asking, answering] = [await world.connect(), await world.connect()]
  await asking.subscribe("answers")
  await answering.subscribe("questions")
  const properties = { responseTopic: "answers", correlationData: Buffer.from("7") }
  await asking.publish("questions", "6 x 7", { qos: 1, properties })
  const { properties: asked } = await answering.next("message")
  await answering.publish(asked.responseTopic, "42", { qos: 1, properties: { correlationData: asked.correlationData } })
  const { text, properties: answered } = await asking.next("message")
  assert.deepEqual([text, answered.correlationData.toString()], ["42", "7"])
}, ONLY_MQTT_5)

scenario("a subscriber is told the type of a stream that HTTP created", async (world) => {
  const subscriber = await world.connect()
  await world.create("s", "application/json")
  await subscriber.subscribe("s")
  await world.append("s", "application/json", "1")
  assert.equal((await subscriber.next("message")).properties.contentType, "application/json")
}, ONLY_MQTT_5)

scenario("the first message of a stream may say its type", async (world) => {
  const publisher = await world.connect()
  await publisher.publish("s", '{"n":1}', { qos: 1, properties: { contentType: "application/json" } })
  assert.deepEqual(await world.json("s"), [{ n: 1 }])
}, ONLY_MQTT_5)

scenario("a client may use topic aliases", async (world) => {
  const [publisher, subscriber] = [await world.connect(), await world.connect()]
  await subscriber.subscribe("s/#")
  const publish = (topic, text, topicAlias) => publisher.publish(topic, text, { qos: 1, properties: { topicAlias } })
  assert(publisher.connack.properties.topicAliasMaximum >= 2)
  await publish("s/a", "1", 1)
  await publish("s/b", "2", 2)
  for (const [alias, text] of [[1, "3"], [2, "4"]]) await publish("", text, alias)
  // An alias can be given to another topic.
  await publish("s/c", "5", 1)
  await publish("", "6", 1)
  const told = []
  while (told.length < 6) told.push(await subscriber.next("message"))
  const by = (topic) => told.filter((message) => message.topic === topic).map(({ text }) => text)
  assert.deepEqual([by("s/a"), by("s/b"), by("s/c")], [["1", "3"], ["2", "4"], ["5", "6"]])
}, ONLY_MQTT_5)

scenario("a client that takes topic aliases is given them, as far as they go", async (world) => {
  const [publisher, subscriber] =
    [await world.connect(), await world.connect({ properties: { topicAliasMaximum: 2 } })]
  await subscriber.subscribe("s/#")
  for (const round of ["1", "2"]) {
    for (const topic of ["s/a", "s/b", "s/c"]) {
      await publisher.publish(topic, round)
      const told = await subscriber.next("message")
      const packet = await subscriber.next("publish")
      assert.deepEqual([told.topic, told.text], [topic, round])
      const isAliased = topic !== "s/c"
      assert.equal(packet.properties?.topicAlias !== undefined, isAliased)
      assert.equal(packet.topic, isAliased && round === "2" ? "" : topic)
    }
  }
}, ONLY_MQTT_5)

scenario("a message expires for whom it has not reached, and says what is left of it", async (world) => {
  const [publisher, here] = [await world.connect(), await world.connect()]
  const away = await world.connect(world.persistent("away"))
  for (const client of [here, away]) await client.subscribe("s")
  await away.leave()
  const publish = (text, messageExpiryInterval) =>
    publisher.publish("s", text, { qos: 1, properties: { messageExpiryInterval } })
  await publish("short", 1)
  await publish("long", 3600)
  for (const [text, left] of [["short", 1], ["long", 3600]]) {
    const message = await here.next("message")
    assert.deepEqual([message.text, message.properties.messageExpiryInterval], [text, left])
  }
  // The will of a session that ends a second later says that the second is over.
  const clock = await world.connect({
    clientId: "clock",
    properties: { sessionExpiryInterval: 3600 },
    will: { topic: "s", payload: "later", qos: 1, properties: { willDelayInterval: 2 } },
  })
  await clock.vanish()
  assert.equal((await here.next("message")).text, "later")
  const back = await world.connect(world.persistent("away"))
  const { text, properties } = await back.next("message")
  assert.equal(text, "long")
  const left = properties.messageExpiryInterval
  assert(left < 3600 && left > 3590, `${left} s are left`)
  assert.equal((await back.next("message")).text, "later")
}, ONLY_MQTT_5)

scenario("a client gets no packet larger than it takes", async (world) => {
  const [publisher, subscriber] =
    [await world.connect(), await world.connect({ properties: { maximumPacketSize: 1000 } })]
  for (const qos of [0, 1, 2]) {
    await subscriber.subscribe("s", { qos })
    await publisher.publish("s", "x".repeat(1000), { qos })
    await publisher.publish("s", "small", { qos })
    assert.equal((await subscriber.next("message")).text, "small")
  }
}, ONLY_MQTT_5)

scenario("a client that sends a packet larger than the gateway takes is cut, and told why", async (world) => {
  const publisher = await world.connect()
  assert.equal(publisher.connack.properties.maximumPacketSize, 1024 * 1024)
  publisher.mqtt.publish("s", Buffer.alloc(1024 * 1024), { qos: 0 })
  assert.equal((await publisher.next("disconnect")).reasonCode, PACKET_TOO_LARGE)
}, ONLY_MQTT_5)

scenario("a message says which subscriptions it is for", async (world) => {
  const [publisher, subscriber] = [await world.connect(), await world.connect()]
  for (const [filter, subscriptionIdentifier] of [["a/#", 1], ["a/b", 268_435_455], ["+/c", 3]]) {
    await subscriber.subscribe(filter, { qos: 1, properties: { subscriptionIdentifier } })
  }
  for (const [topic, identifiers] of [["a/b", [1, 268_435_455]], ["x/c", [3]], ["a/c", [1, 3]]]) {
    await publisher.publish(topic, topic)
    const { subscriptionIdentifier } = (await subscriber.next("message")).properties
    assert.deepEqual([subscriptionIdentifier].flat().sort((a, b) => a - b), identifiers, topic)
  }
}, ONLY_MQTT_5)

scenario("a client that wants none of its own messages gets those of others", async (world) => {
  const [client, other] = [await world.connect(), await world.connect()]
  await client.subscribe("s", { qos: 1, nl: true })
  await client.publish("s", "own")
  await other.publish("s", "of another")
  assert.equal((await client.next("message")).text, "of another")
}, ONLY_MQTT_5)

scenario("a subscription says when it wants retained messages", async (world) => {
  const [publisher, client] = [await world.connect(), await world.connect()]
  await publisher.publish("s", "retained", { qos: 1, retain: true })
  let n = 0
  // What comes first after subscribing: the retained message, or the one behind it.
  const first = async (rh) => {
    await client.subscribe("s", { qos: 1, rh })
    const text = `${n++}`
    await publisher.publish("s", text)
    const message = await client.next("message")
    if (message.text === text) return false
    assert.deepEqual([message.text, message.retain], ["retained", true])
    assert.equal((await client.next("message")).text, text)
    return true
  }
  const [always, ifNew, never] = [0, 1, 2]
  assert.deepEqual([await first(never), await first(ifNew), await first(always)], [false, false, true])
  await client.unsubscribe("s")
  assert.deepEqual([await first(ifNew), await first(ifNew)], [true, false])
}, ONLY_MQTT_5)

scenario("a subscription may keep the mark of retained messages", async (world) => {
  const [publisher, client] = [await world.connect(), await world.connect()]
  await client.subscribe("s", { qos: 1, rap: true })
  for (const retain of [true, false]) {
    await publisher.publish("s", `${retain}`, { qos: 1, retain })
    assert.equal((await client.next("message")).retain, retain)
  }
}, ONLY_MQTT_5)

scenario("a client without an id is given one", async (world) => {
  const first = await world.connect({ clientId: "", properties: { sessionExpiryInterval: 3600 } })
  const { assignedClientIdentifier } = first.connack.properties
  await first.leave()
  assert.equal((await world.connect(world.persistent(assignedClientIdentifier))).connack.sessionPresent, true)
}, ONLY_MQTT_5)

scenario("a client has no more under way than it takes", async (world) => {
  const [publisher, client] = [await world.connect(), await world.connect({ properties: { receiveMaximum: 3 } })]
  let [open, most] = [0, 0]
  client.mqtt.on("packetreceive", ({ cmd }) => {
    if (cmd === "publish") most = Math.max(most, (open += 1))
  })
  client.mqtt.on("packetsend", ({ cmd }) => {
    if (cmd === "puback") open -= 1
  })
  await client.subscribe("s", { qos: 1 })
  const texts = Array.from({ length: 100 }, (_, n) => `${n}`)
  await publisher.publishAll("s", texts, { qos: 1 })
  assert.deepEqual(await client.texts(100), texts)
  assert(most <= 3, `${most} under way`)
}, ONLY_MQTT_5)

for (const qos of [1, 2]) {
  scenario(`what is not JSON is refused on a JSON stream, at quality ${qos}`, async (world) => {
    await world.create("s", "application/json")
    const publisher = await world.connect()
    await assert.rejects(publisher.publish("s", "{", { qos }), { code: PAYLOAD_FORMAT_INVALID })
    await publisher.publish("s", "{}", { qos })
    assert.deepEqual(await world.json("s"), [{}])
  }, ONLY_MQTT_5)
}

scenario("a refused message holds nothing up if its client cannot be told", async (world) => {
  await world.create("s", "application/json")
  const publisher = await world.connect()
  for (const qos of [0, 1, 2]) await publisher.publish("s", "{", { qos })
  await publisher.publish("s", "{}", { qos: 1 })
  assert.deepEqual(await world.json("s"), [{}])
}, { versions: [MQTT_3] })

scenario("a client that cannot be told that its message is refused is cut on request", async (world) => {
  await world.create("s", "application/json")
  for (const qos of [0, 1, 2]) {
    const publisher = await world.connect()
    publisher.mqtt.publish("s", "{", { qos })
    await publisher.next("close")
  }
  assert.deepEqual(await world.json("s"), [])
}, { versions: [MQTT_3], gateway: ["--mqtt-refused", "close"] })

scenario("clients publish to topics with empty levels, and not below $SYS", async (world) => {
  const client = await world.connect()
  await client.subscribe("a//b")
  await client.publish("a//b", "1", { qos: 1 })
  assert.equal((await client.next("message")).text, "1")
  await assert.rejects(client.publish("$SYS/a", "1", { qos: 1 }), { code: NOT_AUTHORIZED })
}, ONLY_MQTT_5)

scenario("the members of a group share its messages", async (world) => {
  const [one, other, publisher] = [await world.connect(), await world.connect(), await world.connect()]
  for (const member of [one, other]) assert.equal(await member.subscribe("$share/group/+", { qos: 1 }), 1)
  const all = [0, 1, 2, 3, 4, 5].map(String)
  for (const text of all) await publisher.publish(`s${text}`, text, { qos: 1 })
  const received = []
  const receive = async (member) => {
    while (received.length < all.length) received.push((await member.next("message")).text)
  }
  await Promise.race([receive(one), receive(other)])
  assert.deepEqual(received.sort(), all)
})
