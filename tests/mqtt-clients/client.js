// A client of mqtt.js that queues its events until a test reads them, so that no test can miss one.
import mqtt from "mqtt"

// The gateway's limit is 100.
const AT_ONCE = 50

export class Client {
  #told = new Map()

  // Connects and waits for the answer. Nothing is done again unless `reconnectPeriod` says so.
  static async connect(url, options) {
    const client = new Client(url, options)
    client.connack = await Promise.race([client.next("connack"), client.refused()])
    return client
  }

  constructor(url, options) {
    this.mqtt = mqtt.connect(url, { reconnectPeriod: 0, ...options })
    this.mqtt.on("packetreceive", (packet) => this.#of(packet.cmd).put(packet))
    this.mqtt.on("message", (topic, payload, packet) => {
      const { qos, retain, dup, properties = {} } = packet
      this.#of("message").put({ topic, text: payload.toString(), payload, qos, retain, dup, properties })
    })
    for (const event of ["close", "error", "outgoingEmpty"]) this.mqtt.on(event, (value) => this.#of(event).put(value))
  }

  // The next message, packet (by its name in mqtt-packet), error or close, whether or not it has come already.
  next(what) {
    return this.#of(what).take()
  }

  // The texts of the next messages.
  async texts(count) {
    const texts = []
    while (texts.length < count) texts.push((await this.next("message")).text)
    return texts
  }

  async refused() {
    throw await this.next("error")
  }

  // Subscribes and returns what was granted: a quality, or a reason code.
  subscribe(filter, options = { qos: 2 }) {
    return new Promise((resolve) =>
      this.mqtt.subscribe(filter, options, (error, granted) => resolve(error ? error.packet.granted[0] : granted[0].qos)),
    )
  }

  unsubscribe(filter) {
    return this.mqtt.unsubscribeAsync(filter)
  }

  // Publishes and returns once the gateway has it, as far as the quality lets one know.
  publish(topic, payload, options = { qos: 1 }) {
    return this.mqtt.publishAsync(topic, payload, options)
  }

  publishAll(topic, texts, options) {
    return fewAtOnce(texts, (text) => this.publish(topic, text, options))
  }

  // Says good-bye.
  leave(packet) {
    return this.mqtt.endAsync(false, packet)
  }

  // Is gone without a word.
  async vanish() {
    this.mqtt.stream.destroy()
    await this.next("close")
  }

  #of(what) {
    if (!this.#told.has(what)) this.#told.set(what, new Inbox())
    return this.#told.get(what)
  }
}

// Publishes each of `texts`, fewer at once than the gateway lets a client of MQTT 5 have under way.
export async function fewAtOnce(texts, publish) {
  for (let from = 0; from < texts.length; from += AT_ONCE) {
    await Promise.all(texts.slice(from, from + AT_ONCE).map(publish))
  }
}

// Values in their order, each for one taker.
class Inbox {
  #values = []
  #takers = []

  put(value) {
    const taker = this.#takers.shift()
    if (taker) taker(value)
    else this.#values.push(value)
  }

  take() {
    if (this.#values.length > 0) return Promise.resolve(this.#values.shift())
    return new Promise((resolve) => this.#takers.push(resolve))
  }
}
