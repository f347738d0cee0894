// Where a scenario takes place: a gateway, clients of one version over one transport, and HTTP beside them.
import assert from "node:assert/strict"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"
import { ofMqttJs, token } from "../conformance/credentials.js"
import { start } from "../conformance/gateway.js"
import { Client } from "./client.js"
import { Relay } from "./relay.js"

// What hangs has failed. The longest scenario takes some seconds.
const PATIENCE_MS = 60_000

const TRANSPORTS = ["TCP", "WebSocket"]
export const MQTT_3 = { version: "3.1.1", protocolVersion: 4 }
export const MQTT_5 = { version: "5", protocolVersion: 5 }

// A test for each version over each transport. `lasting`: the gateway stores on disk.
export function scenario(name, run, { versions = [MQTT_3, MQTT_5], gateway = [], lasting = false } = {}) {
  for (const { version, protocolVersion } of versions) {
    for (const transport of TRANSPORTS) {
      test(`${name} (${version} over ${transport})`, { timeout: PATIENCE_MS }, async (context) => {
        const world = await (lasting ? World.lasting(context) : World.start(context, gateway))
        await run(Object.assign(world, { transport, protocolVersion }))
      })
    }
  }
}

export class World {
  #clients = []
  #relays = []
  #folder

  // A world that ends with its test. `further`: arguments of the gateway.
  static async start(context, further = []) {
    const world = new World()
    world.further = further
    world.gateway = await start("127.0.0.1:0", further, "127.0.0.1:0")
    context.after(() => world.#end())
    return world
  }

  // A world whose gateway stores on disk, which is left when it is killed.
  static async lasting(context, further = []) {
    const folder = await mkdtemp(join(tmpdir(), "pollgate-"))
    const world = await World.start(context, ["--store", folder, ...further])
    world.#folder = folder
    return world
  }

  get isMqtt5() {
    return this.protocolVersion === MQTT_5.protocolVersion
  }

  // A client that is connected; `through` a relay, if one is given.
  async connect({ through, ...options } = {}) {
    const all = { protocolVersion: this.protocolVersion, ...ofMqttJs, ...options }
    const client = await Client.connect(this.url(through), all)
    this.#clients.push(client)
    return client
  }

  // Options of a client whose session is kept for an hour.
  persistent(clientId, further) {
    return { clientId, clean: false, properties: { sessionExpiryInterval: 3600 }, ...further }
  }

  url(through) {
    const address = through?.address ?? this.#address
    const secure = token ? "s" : ""
    return this.transport === "TCP" ? `mqtt${secure}://${address}` : `ws${secure}://${address}/mqtt`
  }

  async relay() {
    const relay = await Relay.to(this.#address)
    this.#relays.push(relay)
    return relay
  }

  // Kills the gateway and starts another one at the same addresses.
  async restart() {
    const { address, mqtt } = this.gateway
    await this.gateway.stop()
    this.gateway = await start(address, this.further, mqtt)
  }

  stream(name) {
    return `${this.gateway.url}/v1/stream/${name}`
  }

  // Creates a stream by HTTP and returns the offset of its beginning.
  async create(name, type) {
    const answer = await fetch(this.stream(name), { method: "PUT", headers: { "content-type": type } })
    assert.equal(answer.status, 201)
    return answer.headers.get("stream-next-offset")
  }

  // Appends by HTTP.
  async append(name, type, body) {
    const answer = await fetch(this.stream(name), { method: "POST", headers: { "content-type": type }, body })
    assert(answer.ok, `answered ${answer.status}`)
  }

  // Waits by HTTP for what comes behind an offset.
  longPoll(name, offset) {
    return fetch(`${this.stream(name)}?live=long-poll&timeout=30&client=phone&offset=${offset}`)
  }

  // Returns once a long poll is held.
  async pollIsHeld() {
    const metrics = async () => (await fetch(`${this.gateway.admin}/metrics`)).text()
    while (!(await metrics()).includes("pollgate_held_polls 1\n"));
  }

  // What a JSON stream holds.
  async json(name) {
    const answer = await fetch(this.stream(name))
    assert.equal(answer.headers.get("stream-up-to-date"), "true")
    return answer.json()
  }

  get #address() {
    return this.transport === "TCP" ? this.gateway.mqtt : this.gateway.address
  }

  async #end() {
    await Promise.all(this.#clients.map((client) => client.mqtt.endAsync(true)))
    await Promise.all(this.#relays.map((relay) => relay.close()))
    await this.gateway.stop()
    if (this.#folder) await rm(this.#folder, { recursive: true })
  }
}
