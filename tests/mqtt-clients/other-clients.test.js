// Clients that others have written, as processes of their own: mosquitto's commands and paho.
import assert from "node:assert/strict"
import { test } from "node:test"
import { fileURLToPath } from "node:url"
import { certificate, ofMosquitto, token } from "../conformance/credentials.js"
import { Child } from "./child.js"
import { PatientRelay } from "./patient-relay.js"
import { World } from "./world.js"

const PYTHON = fileURLToPath(new URL(".venv/bin/python", import.meta.url))
const PAHO_CLIENT = fileURLToPath(new URL("paho_client.py", import.meta.url))

const QUALITIES = [0, 1, 2]
const VERSIONS = ["3.1.1", "5"]
const PATIENCE = { timeout: 60_000 }

// mosquitto's own number for 3.1.1.
const mosquittoVersion = (version) => (version === "5" ? "5" : "311")

// mosquitto_sub or mosquitto_pub at the gateway.
function mosquitto(context, world, what, version, ...further) {
  const [host, port] = world.gateway.mqtt.split(":")
  const address = ["-h", host, "-p", port, "-V", mosquittoVersion(version), ...ofMosquitto]
  // Line by line, also into a pipe.
  return new Child(context, "stdbuf", "-oL", `mosquitto_${what}`, ...address, ...further)
}

// A mosquitto_sub that is subscribed: it says so when its subscription is answered.
async function mosquittoSub(context, world, version, ...further) {
  const child = mosquitto(context, world, "sub", version, "-d", ...further)
  for (let line = await child.line(); !line.startsWith("Subscribed"); line = await child.line());
  // Debugging lines come between the messages; messages are marked.
  child.message = async () => {
    for (;;) {
      const line = await child.line()
      if (line === undefined || line.startsWith("> ")) return line?.slice(2)
    }
  }
  return child
}

class Paho {
  #child
  #told = []

  static async connect(context, world, version, further = {}) {
    const paho = new Paho()
    paho.#child = new Child(context, PYTHON, PAHO_CLIENT)
    const { transport = "tcp", client_id = "", clean = true, will } = further
    const [host, port] = (transport === "tcp" ? world.gateway.mqtt : world.gateway.address).split(":")
    paho.do("connect", { host, port: Number(port), version, client_id, transport, clean, will, token, certificate })
    paho.connected = await paho.next("connected")
    assert.equal(paho.connected.reason, 0)
    return paho
  }

  do(what, further) {
    this.#child.say(JSON.stringify({ do: what, ...further }))
  }

  // The next event of a kind, whether or not it has come already.
  async next(event) {
    for (;;) {
      const index = this.#told.findIndex((told) => told.event === event)
      if (index >= 0) return this.#told.splice(index, 1)[0]
      this.#told.push(JSON.parse(await this.#child.line()))
    }
  }

  async subscribe(topic, qos) {
    this.do("subscribe", { topic, qos })
    return (await this.next("subscribed")).granted[0]
  }

  async publish(topic, payload, qos, retain = false) {
    this.do("publish", { topic, payload, qos, retain })
    return (await this.next("published")).reason
  }

  // Is gone without a word.
  kill() {
    this.#child.kill("SIGKILL")
  }
}

for (const version of VERSIONS) {
  test(`mosquitto_pub to mosquitto_sub in each quality (${version})`, PATIENCE, async (context) => {
    const world = await World.start(context)
    for (const qos of QUALITIES) {
      const format = ["-F", "> %t %q %r %p"]
      const sub = await mosquittoSub(context, world, version, "-t", `m/${qos}/#`, "-q", `${qos}`, ...format)
      const pub = mosquitto(context, world, "pub", version, "-t", `m/${qos}/a`, "-q", `${qos}`, "-l")
      for (let n = 0; n < 100; n += 1) pub.say(`message ${n}`)
      pub.finish()
      for (let n = 0; n < 100; n += 1) assert.equal(await sub.message(), `m/${qos}/a ${qos} 0 message ${n}`)
      assert.equal(await pub.exited, 0)
    }
  })

  test(`what mosquitto_pub publishes wakes a long poll (${version})`, PATIENCE, async (context) => {
    const world = await World.start(context)
    const beginning = await world.create("orders", "application/json")
    const poll = world.longPoll("orders", beginning)
    await world.pollIsHeld()
    const pub = mosquitto(context, world, "pub", version, "-t", "orders", "-q", "1", "-m", '{"n":1}')
    assert.deepEqual(await (await poll).json(), [{ n: 1 }])
    assert.equal(await pub.exited, 0)
  })

  test(`what HTTP appends reaches mosquitto_sub (${version})`, PATIENCE, async (context) => {
    const world = await World.start(context)
    await world.create("orders", "application/json")
    const sub = await mosquittoSub(context, world, version, "-t", "#", "-q", "1", "-F", "> %t %p")
    await world.append("orders", "application/json", '[{"n":1},{"n":2}]')
    for (const n of [1, 2]) assert.equal(await sub.message(), `orders {"n":${n}}`)
  })

  test(`mosquitto_sub gets what was retained, and the will of one that is killed (${version})`, PATIENCE, async (context) => {
    const world = await World.start(context)
    const retained = mosquitto(context, world, "pub", version, "-t", "s/state", "-q", "1", "-r", "-m", "on")
    assert.equal(await retained.exited, 0)
    const will = ["--will-topic", "s/will", "--will-payload", "gone", "--will-qos", "2"]
    const mortal = await mosquittoSub(context, world, version, "-t", "other", ...will)
    const sub = await mosquittoSub(context, world, version, "-t", "s/#", "-q", "2", "-F", "> %t %q %r %p")
    assert.equal(await sub.message(), "s/state 1 1 on")
    mortal.kill("SIGKILL")
    assert.equal(await sub.message(), "s/will 2 0 gone")
  })

  test(`mosquitto_sub gets what came while it was away (${version})`, PATIENCE, async (context) => {
    const world = await World.start(context)
    const further = ["-t", "s", "-q", "2", "-i", "away", "-c", "-F", "> %p"]
    if (version === "5") further.push("-x", "3600")
    const first = await mosquittoSub(context, world, version, ...further)
    first.kill("SIGTERM")
    await first.exited
    const pub = mosquitto(context, world, "pub", version, "-t", "s", "-q", "2", "-l")
    for (const text of ["1", "2", "3"]) pub.say(text)
    pub.finish()
    assert.equal(await pub.exited, 0)
    const second = await mosquittoSub(context, world, version, ...further)
    for (const text of ["1", "2", "3"]) assert.equal(await second.message(), text)
  })

  for (const transport of ["tcp", "websockets"]) {
    test(`paho publishes and subscribes in each quality (${version} over ${transport})`, PATIENCE, async (context) => {
      const world = await World.start(context)
      const [publisher, subscriber] = [
        await Paho.connect(context, world, version, { transport }),
        await Paho.connect(context, world, version, { transport }),
      ]
      for (const published of QUALITIES) {
        for (const granted of QUALITIES) {
          const topic = `p/${published}/${granted}`
          assert.equal(await subscriber.subscribe(topic, granted), granted)
          assert.equal(await publisher.publish(topic, topic, published), 0)
          const { text, qos, retain } = await subscriber.next("message")
          assert.deepEqual([text, qos, retain], [topic, Math.min(published, granted), false])
        }
      }
    })
  }

  test(`paho gets what was retained, what came while it was away, and a will (${version})`, PATIENCE, async (context) => {
    const world = await World.start(context)
    const publisher = await Paho.connect(context, world, version)
    await publisher.publish("s/state", "on", 0, true)
    const options = { client_id: "away", clean: false }
    const first = await Paho.connect(context, world, version, options)
    assert.equal(first.connected.sessionPresent, false)
    await first.subscribe("s/#", 2)
    const { text, retain } = await first.next("message")
    assert.deepEqual([text, retain], ["on", true])
    first.do("disconnect")
    assert.equal((await first.next("disconnected")).reason, 0)
    for (const n of ["1", "2"]) await publisher.publish("s/n", n, 2)
    const second = await Paho.connect(context, world, version, options)
    assert.equal(second.connected.sessionPresent, true)
    for (const n of ["1", "2"]) assert.equal((await second.next("message")).text, n)
    const will = { topic: "s/will", payload: "gone", qos: 1 }
    const mortal = await Paho.connect(context, world, version, { will })
    mortal.kill()
    assert.equal((await second.next("message")).text, "gone")
  })
}

for (const version of VERSIONS) {
  // The relay has to read the packets.
  const options = { ...PATIENCE, skip: token !== undefined }
  test(`mosquitto_sub misses and doubles nothing though the gateway is killed (${version})`, options, async (context) => {
    // mosquitto_sub of version 5 ends with a protocol error once more than 20 messages are in flight, and counts a message twice
    // that comes again after a reconnect, for ever. Of 4 messages, three reconnects leave 12, and the fourth handshake adds 4.
    const world = await World.lasting(context, ["--limit", "mqtt_in_flight_max=4"])
    const further = ["-t", "s", "-q", "2", "-i", "stays", "-c", "-F", "> %p"]
    if (version === "5") further.push("-x", "3600")
    const relay = await PatientRelay.to(context, world.gateway.mqtt, version === "5" ? 5 : 4)
    const sub = await mosquittoSub(context, { gateway: { mqtt: relay.address } }, version, ...further)
    for (let round = 0; round < 3; round += 1) {
      const pub = mosquitto(context, world, "pub", version, "-t", "s", "-q", "2", "-l")
      for (let n = 0; n < 50; n += 1) pub.say(`${round} ${n}`)
      pub.finish()
      for (let n = 0; n < 25; n += 1) assert.equal(await sub.message(), `${round} ${n}`)
      assert.equal(await pub.exited, 0)
      await world.restart()
      for (let n = 25; n < 50; n += 1) assert.equal(await sub.message(), `${round} ${n}`)
    }
  })

  test(`paho finds its session after the gateway was killed (${version})`, PATIENCE, async (context) => {
    const world = await World.lasting(context)
    const options = { client_id: "stays", clean: false }
    const [subscriber, away] = [
      await Paho.connect(context, world, version, options),
      await Paho.connect(context, world, version, { client_id: "away", clean: false }),
    ]
    for (const client of [subscriber, away]) await client.subscribe("s", 2)
    away.do("disconnect")
    await away.next("disconnected")
    await world.restart()
    assert.equal((await subscriber.next("connected")).sessionPresent, true)
    const publisher = await Paho.connect(context, world, version)
    await publisher.publish("s", "1", 2)
    assert.equal((await subscriber.next("message")).text, "1")
    await world.restart()
    const back = await Paho.connect(context, world, version, { client_id: "away", clean: false })
    assert.equal(back.connected.sessionPresent, true)
    assert.equal((await back.next("message")).text, "1")
  })
}

test("paho is told why a message is refused, and that the gateway drains", PATIENCE, async (context) => {
  const world = await World.start(context, ["--limit", "drain_spread=1s"])
  await world.create("s", "application/json")
  const client = await Paho.connect(context, world, "5")
  // At quality 2 paho 2.2.0 passes over a refusal and releases the message, so that it is told something else.
  assert.equal(await client.publish("s", "{", 1), 0x99)
  assert.equal(await client.publish("s", "{}", 1), 0)
  const drained = world.gateway.drain()
  assert.equal((await client.next("disconnected")).reason, 0x8b)
  assert.equal(await drained, 0)
})

test("mosquitto, paho and mqtt.js get each other's messages, as HTTP does", PATIENCE, async (context) => {
  const world = Object.assign(await World.start(context), { transport: "WebSocket", protocolVersion: 5 })
  await world.create("s", "application/json")
  const [paho, script] = [await Paho.connect(context, world, "3.1.1"), await world.connect()]
  const sub = await mosquittoSub(context, world, "5", "-t", "s", "-q", "2", "-F", "> %p")
  await Promise.all([paho.subscribe("s", 2), script.subscribe("s")])
  const arrives = async (value) => {
    const got = [await sub.message(), (await paho.next("message")).text, (await script.next("message")).text]
    assert.deepEqual(got, [value, value, value])
  }
  await paho.publish("s", '"paho"', 2)
  await arrives('"paho"')
  await script.publish("s", '"mqtt.js"', { qos: 2 })
  await arrives('"mqtt.js"')
  mosquitto(context, world, "pub", "5", "-t", "s", "-q", "2", "-m", '"mosquitto"')
  await arrives('"mosquitto"')
  await world.append("s", "application/json", '"http"')
  await arrives('"http"')
  assert.deepEqual(await world.json("s"), ["paho", "mqtt.js", "mosquitto", "http"])
})
