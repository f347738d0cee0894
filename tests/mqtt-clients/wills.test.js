// A client's will: published when it is gone without a good-bye, and only then.
import assert from "node:assert/strict"
import { stopwatch } from "./stopwatch.js"
import { MQTT_5, scenario } from "./world.js"

const DISCONNECT_WITH_WILL = 0x04

const NO_TIMERS = { set: () => 0, clear() {} }

// Options of a client with a will, which is its own id.
const mortal = (clientId, { will, ...further } = {}) =>
  ({ clientId, ...further, will: { topic: "wills", payload: clientId, qos: 1, ...will } })

// Somebody who is told of wills.
async function heir(world) {
  const client = await world.connect()
  await client.subscribe("wills")
  return client
}

scenario("the will of a client that vanishes is published", async (world) => {
  const [witness, client] = [await heir(world), await world.connect(mortal("vanished"))]
  await client.vanish()
  const { text, retain, qos } = await witness.next("message")
  assert.deepEqual([text, retain, qos], ["vanished", false, 1])
})

scenario("the will of a client that takes its leave is not", async (world) => {
  const [witness, polite, other] =
    [await heir(world), await world.connect(mortal("polite")), await world.connect(mortal("other"))]
  await polite.leave()
  await other.vanish()
  assert.equal((await witness.next("message")).text, "other")
})

scenario("the will of a client that leaves with its will is published", async (world) => {
  const [witness, client] = [await heir(world), await world.connect(mortal("leaving"))]
  await client.leave({ reasonCode: DISCONNECT_WITH_WILL })
  assert.equal((await witness.next("message")).text, "leaving")
}, { versions: [MQTT_5] })

scenario("a will can be retained", async (world) => {
  const [witness, client] = [await heir(world), await world.connect(mortal("kept", { will: { retain: true } }))]
  await client.vanish()
  assert.equal((await witness.next("message")).text, "kept")
  const { text, retain } = await (await heir(world)).next("message")
  assert.deepEqual([text, retain], ["kept", true])
})

scenario("the will of a client that falls silent is published", async (world) => {
  const witness = await heir(world)
  await world.connect(mortal("silent", { keepalive: 1, timerVariant: NO_TIMERS }))
  assert.equal((await witness.next("message")).text, "silent")
})

scenario("the will of a connection whose place another one takes is published", async (world) => {
  const witness = await heir(world)
  await world.connect(mortal("twice"))
  await world.connect({ clientId: "twice" })
  assert.equal((await witness.next("message")).text, "twice")
})

// A client whose session outlives it by an hour, and whose will waits for `delay` seconds.
const delayed = (clientId, delay) =>
  mortal(clientId, {
    clean: false,
    properties: { sessionExpiryInterval: 3600 },
    will: { properties: { willDelayInterval: delay } },
  })

scenario("a will waits for its delay, and is not published if the client comes back", async (world) => {
  const [witness, back, gone] =
    [await heir(world), await world.connect(delayed("back", 1)), await world.connect(delayed("gone", 1))]
  await back.vanish()
  await gone.vanish()
  const vanished = stopwatch()
  assert.equal((await world.connect(delayed("back", 1))).connack.sessionPresent, true)
  // The other will would have come first.
  assert.equal((await witness.next("message")).text, "gone")
  assert(vanished.clock() >= 990 && vanished.own() < 3000, `${vanished.clock()} ms`)
}, { versions: [MQTT_5] })

scenario("a will does not wait longer than the session is kept", async (world) => {
  const witness = await heir(world)
  const options = delayed("short", 3600)
  const client = await world.connect({ ...options, properties: { sessionExpiryInterval: 1 } })
  await client.vanish()
  assert.equal((await witness.next("message")).text, "short")
  assert.equal((await world.connect(options)).connack.sessionPresent, false)
}, { versions: [MQTT_5] })

scenario("a will has its own properties", async (world) => {
  const witness = await heir(world)
  const properties = { contentType: "text/plain", responseTopic: "answers", userProperties: { why: "gone" } }
  const client = await world.connect(mortal("rich", { will: { properties } }))
  await client.vanish()
  const { contentType, responseTopic, userProperties } = (await witness.next("message")).properties
  assert.deepEqual({ contentType, responseTopic, userProperties: { ...userProperties } }, properties)
}, { versions: [MQTT_5] })
