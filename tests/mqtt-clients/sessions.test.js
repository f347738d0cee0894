// What is left of a client when its connection ends, in all the ways in which it can.
import assert from "node:assert/strict"
import { fewAtOnce } from "./client.js"
import { stopwatch } from "./stopwatch.js"
import { MQTT_5, scenario } from "./world.js"

const MESSAGES = 300
const NUMBERS = Array.from({ length: MESSAGES }, (_, n) => n)

// The number of messages after which the connection breaks.
const CUT_EVERY = 50

// Timers of a client that never pings.
const NO_TIMERS = { set: () => 0, clear() {} }

const PACKET_IDENTIFIER_NOT_FOUND = 0x92
const KEEP_ALIVE_TIMEOUT = 0x8d
const SESSION_TAKEN_OVER = 0x8e
const SERVER_SHUTTING_DOWN = 0x8b

for (const qos of [1, 2]) {
  scenario(`a subscriber of quality ${qos} whose connection breaks again and again misses nothing`, async (world) => {
    const relay = await world.relay()
    const options = world.persistent("subscriber", { through: relay, reconnectPeriod: 1 })
    const [publisher, subscriber] = [await world.connect(), await world.connect(options)]
    await subscriber.subscribe("s", { qos })
    const published = publisher.publishAll("s", NUMBERS.map(String), { qos })
    const numbers = []
    for (let first = true; numbers.at(-1) !== MESSAGES - 1; first = false) {
      if (!first) {
        relay.cut()
        assert.equal((await subscriber.next("connack")).sessionPresent, true)
      }
      const until = Math.min((numbers.at(-1) ?? -1) + CUT_EVERY, MESSAGES - 1)
      while ((numbers.at(-1) ?? -1) < until) numbers.push(Number((await subscriber.next("message")).text))
    }
    await published
    assert.deepEqual(qos === 2 ? numbers : [...new Set(numbers)], NUMBERS)
  })

  scenario(`a publisher of quality ${qos} whose connection breaks again and again loses nothing`, async (world) => {
    await world.create("s", "application/json")
    const relay = await world.relay()
    const publisher = await world.connect(world.persistent("publisher", { through: relay, reconnectPeriod: 1 }))
    let acknowledged = 0
    publisher.mqtt.on("packetreceive", ({ cmd }) => {
      if (cmd !== (qos === 2 ? "pubcomp" : "puback")) return
      acknowledged += 1
      if (acknowledged % CUT_EVERY === CUT_EVERY / 2) relay.cut()
    })
    // A release that is repeated because its answer was lost finds nothing to release. That is no error then
    // (MQTT 5, section 3.7.2.1), though mqtt.js takes it for one; the log says what is true.
    const isReleased = (error) => assert.equal(error.code, PACKET_IDENTIFIER_NOT_FOUND)
    await fewAtOnce(NUMBERS, (n) => publisher.publish("s", `${n}`, { qos }).catch(isReleased))
    const numbers = (await world.json("s")).sort((a, b) => a - b)
    assert.deepEqual(qos === 2 ? numbers : [...new Set(numbers)], NUMBERS)
  })
}

scenario("what comes while a client is away waits for it", async (world) => {
  const [publisher, first] = [await world.connect(), await world.connect(world.persistent("away"))]
  assert.equal(first.connack.sessionPresent, false)
  await first.subscribe("s/+")
  await publisher.publish("s/a", "1")
  assert.equal((await first.next("message")).text, "1")
  await first.leave()
  for (const text of ["2", "3"]) await publisher.publish("s/a", text)
  // A stream that did not exist when the client left.
  await publisher.publish("s/b", "4")
  const second = await world.connect(world.persistent("away"))
  assert.equal(second.connack.sessionPresent, true)
  assert.deepEqual((await second.texts(3)).sort(), ["2", "3", "4"])
})

scenario("a client that starts clean ends its session", async (world) => {
  const [publisher, first] = [await world.connect(), await world.connect(world.persistent("c"))]
  await first.subscribe("s")
  await first.leave()
  await publisher.publish("s", "1")
  const clean = await world.connect({ clientId: "c", clean: true })
  assert.equal(clean.connack.sessionPresent, false)
  await clean.subscribe("s")
  await publisher.publish("s", "2")
  assert.equal((await clean.next("message")).text, "2")
  await clean.leave()
  // And a clean session is not kept.
  assert.equal((await world.connect(world.persistent("c"))).connack.sessionPresent, false)
})

scenario("a client may end its session when it leaves", async (world) => {
  const first = await world.connect(world.persistent("c"))
  await first.leave({ properties: { sessionExpiryInterval: 0 } })
  assert.equal((await world.connect(world.persistent("c"))).connack.sessionPresent, false)
}, { versions: [MQTT_5] })

scenario("after a restart the session is not present, and the client subscribes anew and goes on", async (world) => {
  const relay = await world.relay()
  const client = await world.connect(world.persistent("c", { through: relay, reconnectPeriod: 10 }))
  await client.subscribe("s")
  await client.next("suback")
  await client.publish("s", "1")
  assert.equal((await client.next("message")).text, "1")
  await world.restart()
  assert.equal((await client.next("connack")).sessionPresent, false)
  await client.next("suback")
  await (await world.connect()).publish("s", "2")
  assert.equal((await client.next("message")).text, "2")
})

scenario("after a kill of a gateway that stores the session is present, and the client need not subscribe anew", async (world) => {
  const options = { reconnectPeriod: 10, resubscribe: false }
  const [publisher, subscriber] = [await world.connect(), await world.connect(world.persistent("c", options))]
  await subscriber.subscribe("s")
  await publisher.publish("s", "1")
  assert.equal((await subscriber.next("message")).text, "1")
  await world.restart()
  assert.equal((await subscriber.next("connack")).sessionPresent, true)
  await (await world.connect()).publish("s", "2", { qos: 2 })
  // What it has acknowledged in the last second may come again.
  const texts = await subscriber.texts(1)
  if (texts[0] === "1") texts.push((await subscriber.next("message")).text)
  assert.equal(texts.at(-1), "2")
}, { lasting: true })

scenario("publisher and subscriber of quality 2 lose and double nothing though the gateway is killed again and again", async (world) => {
  await world.create("s", "application/json")
  const options = { reconnectPeriod: 10, resubscribe: false }
  const [publisher, subscriber] = [
    await world.connect(world.persistent("publisher", options)),
    await world.connect(world.persistent("subscriber", options)),
  ]
  await subscriber.subscribe("s", { qos: 2 })
  const isReleased = (error) => assert.equal(error.code, PACKET_IDENTIFIER_NOT_FOUND)
  const publishing = fewAtOnce(NUMBERS, (n) => publisher.publish("s", `${n}`, { qos: 2 }).catch(isReleased))
  const numbers = []
  while (numbers.length < MESSAGES) {
    numbers.push(Number((await subscriber.next("message")).text))
    if (numbers.length % 100 === 50) await world.restart()
  }
  await publishing
  assert.deepEqual(numbers.toSorted((a, b) => a - b), NUMBERS)
  assert.deepEqual((await world.json("s")).sort((a, b) => a - b), NUMBERS)
}, { lasting: true })

scenario("a client that comes a second time takes the place of the first", async (world) => {
  const first = await world.connect({ clientId: "c" })
  const second = await world.connect({ clientId: "c" })
  if (world.isMqtt5) assert.equal((await first.next("disconnect")).reasonCode, SESSION_TAKEN_OVER)
  await first.next("close")
  await second.subscribe("s")
  await second.publish("s", "1")
  assert.equal((await second.next("message")).text, "1")
})

scenario("a client that comes a second time gets what it has not acknowledged the first time", async (world) => {
  const [publisher, first] = [await world.connect(), await world.connect(world.persistent("c"))]
  // It gets its message and does not get round to saying so.
  first.mqtt.handleMessage = () => {}
  await first.subscribe("s", { qos: 1 })
  await publisher.publish("s", "1")
  assert.equal((await first.next("message")).dup, false)
  const second = await world.connect(world.persistent("c"))
  assert.equal(second.connack.sessionPresent, true)
  await first.next("close")
  const again = await second.next("message")
  assert.deepEqual([again.text, again.dup], ["1", true])
  await publisher.publish("s", "2")
  const new_ = await second.next("message")
  assert.deepEqual([new_.text, new_.dup], ["2", false])
})

scenario("a client that is not heard of for one and a half times its keep alive is cut", async (world) => {
  const began = stopwatch()
  const client = await world.connect({ keepalive: 1, timerVariant: NO_TIMERS })
  if (world.isMqtt5) assert.equal((await client.next("disconnect")).reasonCode, KEEP_ALIVE_TIMEOUT)
  await client.next("close")
  assert(began.clock() >= 1500 && began.own() < 2500, `${began.clock()} ms`)
})

scenario("a client that pings stays", async (world) => {
  const client = await world.connect({ keepalive: 1, timerVariant: "native" })
  // Longer than without a ping.
  for (let pings = 0; pings < 3; pings += 1) await client.next("pingresp")
  await client.subscribe("s")
  await client.publish("s", "still here")
  assert.equal((await client.next("message")).text, "still here")
})

scenario("a gateway that drains tells its clients, and keeps what it has acknowledged", async (world) => {
  const publish = async (name) => {
    const publisher = await world.connect()
    const acknowledged = []
    let left = false
    const told = publisher.next(world.isMqtt5 ? "disconnect" : "close")
    const publishing = (async () => {
      for (let n = 0; !left; n += 1) {
        const outcome = publisher.publish(name, `${n}`).then(() => acknowledged.push(n))
        await Promise.race([outcome, told])
      }
    })()
    const packet = await told
    left = true
    if (world.isMqtt5) assert.equal(packet.reasonCode, SERVER_SHUTTING_DOWN)
    await publishing
    // The gateway may have gone by now, but not for all.
    const kept = await world.json(name).catch(() => null)
    if (kept) assert.deepEqual(kept.slice(0, acknowledged.length), acknowledged)
    return { acknowledged: acknowledged.length, checked: kept !== null }
  }
  const names = Array.from({ length: 8 }, (_, n) => `s${n}`)
  for (const name of names) await world.create(name, "application/json")
  const publishers = names.map(publish)
  const subscriber = await world.connect()
  await subscriber.subscribe("s0")
  await subscriber.texts(10)
  const drained = world.gateway.drain()
  const outcomes = await Promise.all(publishers)
  assert.equal(await drained, 0)
  assert(outcomes.every(({ acknowledged }) => acknowledged > 0))
  assert(outcomes.some(({ checked }) => checked))
}, { gateway: ["--limit", "drain_spread=1s"] })
