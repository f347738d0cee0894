// What every client does: messages through the gateway to other clients, in each quality of service.
import assert from "node:assert/strict"
import { MQTT_3, scenario } from "./world.js"

const QUALITIES = [0, 1, 2]

scenario("each quality both ways", async (world) => {
  const [publisher, subscriber] = [await world.connect(), await world.connect()]
  for (const published of QUALITIES) {
    for (const granted of QUALITIES) {
      const topic = `by/${published}/${granted}`
      assert.equal(await subscriber.subscribe(topic, { qos: granted }), granted)
      await publisher.publish(topic, topic, { qos: published })
      const { text, qos, retain, dup, topic: told } = await subscriber.next("message")
      assert.deepEqual([told, text, qos], [topic, topic, Math.min(published, granted)])
      assert.deepEqual([retain, dup], [false, false])
    }
  }
})

for (const qos of QUALITIES) {
  scenario(`a thousand messages of quality ${qos} arrive once and in order`, async (world) => {
    const [publisher, subscriber] = [await world.connect(), await world.connect()]
    await subscriber.subscribe("many", { qos })
    const texts = Array.from({ length: 1000 }, (_, n) => `${n}`)
    await publisher.publishAll("many", [...texts, "end"], { qos })
    assert.deepEqual(await subscriber.texts(1001), [...texts, "end"])
  })
}

scenario("a client that cannot be told of a limit may have any number of messages in flight", async (world) => {
  const [publisher, subscriber] = [await world.connect(), await world.connect()]
  await subscriber.subscribe("burst", { qos: 2 })
  const texts = Array.from({ length: 1000 }, (_, n) => `${n}`)
  await Promise.all(texts.map((text) => publisher.publish("burst", text, { qos: 2 })))
  assert.deepEqual(await subscriber.texts(1000), texts)
}, { versions: [MQTT_3] })

scenario("wildcards mean streams that are there and streams that come", async (world) => {
  const [publisher, all, level] = [await world.connect(), await world.connect(), await world.connect()]
  await publisher.publish("home/hall/light", "before")
  await all.subscribe("home/#")
  // Two filters that mean the same stream: its messages come once.
  await all.subscribe("home/hall/light")
  await level.subscribe("home/+/light")
  await level.subscribe("+/hall")
  for (const topic of ["home/hall/light", "home/kitchen/light", "home/hall/door", "other/hall", "home"]) {
    await publisher.publish(topic, topic)
  }
  const topics = async (client, count) => (await client.texts(count)).sort()
  assert.deepEqual(await topics(level, 3), ["home/hall/light", "home/kitchen/light", "other/hall"])
  assert.deepEqual(await topics(all, 4), ["home", "home/hall/door", "home/hall/light", "home/kitchen/light"])
})

scenario("a wildcard in the first level does not mean topics that begin with $", async (world) => {
  const [publisher, all, own] = [await world.connect(), await world.connect(), await world.connect()]
  await all.subscribe("#")
  await own.subscribe("$own/#")
  await publisher.publish("$own/a", "hidden")
  assert.equal((await own.next("message")).text, "hidden")
  await publisher.publish("a", "seen")
  assert.equal((await all.next("message")).text, "seen")
})

scenario("after unsubscribing nothing comes", async (world) => {
  const [publisher, subscriber] = [await world.connect(), await world.connect()]
  await subscriber.subscribe(["a", "b"])
  await publisher.publish("a", "1")
  assert.equal((await subscriber.next("message")).text, "1")
  await subscriber.unsubscribe("a")
  await publisher.publish("a", "2")
  await publisher.publish("b", "3")
  assert.equal((await subscriber.next("message")).text, "3")
})

scenario("the last retained message is sent to later subscribers", async (world) => {
  const [publisher, here] = [await world.connect(), await world.connect()]
  await here.subscribe("state")
  const come = async () => {
    const client = await world.connect()
    await client.subscribe("state")
    return client
  }
  const next = async (client) => {
    const { text, retain } = await client.next("message")
    return [text, retain]
  }
  for (const text of ["on", "off"]) await publisher.publish("state", text, { qos: 1, retain: true })
  await publisher.publish("state", "passing")
  // Who was there is told of each as it comes.
  for (const text of ["on", "off", "passing"]) assert.deepEqual(await next(here), [text, false])
  const later = await come()
  assert.deepEqual(await next(later), ["off", true])
  // An empty one clears it.
  await publisher.publish("state", "", { qos: 1, retain: true })
  for (const client of [here, later]) assert.deepEqual(await next(client), ["", false])
  const latest = await come()
  await publisher.publish("state", "new")
  for (const client of [later, latest]) assert.deepEqual(await next(client), ["new", false])
})

scenario("a message of nearly the largest size arrives as it was", async (world) => {
  const [publisher, subscriber] = [await world.connect(), await world.connect()]
  await subscriber.subscribe("large")
  const payload = Buffer.alloc(1024 * 1024 - 100, "0123456789")
  for (const qos of QUALITIES) {
    await publisher.publish("large", payload, { qos })
    assert((await subscriber.next("message")).payload.equals(payload))
  }
})

scenario("what HTTP appends reaches subscribers, message by message", async (world) => {
  const subscriber = await world.connect()
  await world.create("orders", "application/json")
  await subscriber.subscribe("orders")
  await world.append("orders", "application/json", '[{"n":1},{"n":2}]')
  await world.append("orders", "application/json", '{"n":3}')
  assert.deepEqual(await subscriber.texts(3), ['{"n":1}', '{"n":2}', '{"n":3}'])
})

scenario("what a client publishes wakes a long poll", async (world) => {
  const publisher = await world.connect()
  const beginning = await world.create("orders", "application/json")
  const poll = world.longPoll("orders", beginning)
  await world.pollIsHeld()
  await publisher.publish("orders", '{"n":1}')
  assert.deepEqual(await (await poll).json(), [{ n: 1 }])
})
