// Reads one topic over MQTT 5 in a WebSocket, as far as the page needs it. The gateway keeps the session while the connection is
// gone, so that each message arrives once (QoS 2).

const SESSION_SECONDS = 600
const KEEP_ALIVE_SECONDS = 20
const RETRY_MS = { first: 500, most: 4000 }

/** Types of packets (MQTT 5, section 2.1.2), with the flags that they have. */
const PACKET = {
  connect: 0x10, connack: 0x20, publish: 0x30, puback: 0x40, pubrec: 0x50, pubrel: 0x60, pubcomp: 0x70, subscribe: 0x82,
  suback: 0x90, pingreq: 0xc0,
}

/** Reads the topic until the page is closed. */
export class MqttReader extends EventTarget {
  #options
  #client = `page-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`
  #socket
  #rest = new Uint8Array()
  #received = new Set() // Identifiers of QoS 2 messages whose handshake is not over.
  #wait = RETRY_MS.first
  #pings
  #heard = 0

  /**
   * Dispatches `subscribed` when messages begin to arrive, and `restart` with the time until the next attempt.
   * @param {{ url: URL, topic: string, password?: string, WebSocket: typeof WebSocket, onMessage: (text: string) => void }} options
   */
  constructor(options) {
    super()
    this.#options = options
    this.#open()
  }

  #open() {
    const { url, password, WebSocket } = this.#options
    const socket = new WebSocket(url, "mqtt")
    this.#socket = socket
    this.#rest = new Uint8Array()
    this.#heard = performance.now()
    socket.binaryType = "arraybuffer"
    socket.onopen = () => {
      const properties = [0x11, ...number(SESSION_SECONDS, 4)]
      // Flags of the user name and the password.
      const [flags, credentials] = password ? [0xc0, [...text("page"), ...text(password)]] : [0, []]
      const settings = [5, flags, ...number(KEEP_ALIVE_SECONDS, 2), properties.length, ...properties]
      this.#send(PACKET.connect, [...text("MQTT"), ...settings, ...text(this.#client), ...credentials])
    }
    socket.onmessage = ({ data }) => this.#handle(new Uint8Array(data))
    socket.onclose = () => this.#retry()
    this.#pings = setInterval(() => {
      if (performance.now() - this.#heard > 1500 * KEEP_ALIVE_SECONDS) socket.close()
      else if (socket.readyState === 1) this.#send(PACKET.pingreq, [])
    }, 500 * KEEP_ALIVE_SECONDS)
  }

  #retry() {
    clearInterval(this.#pings)
    const wait = this.#wait * (0.5 + 0.5 * Math.random())
    this.#wait = Math.min(2 * this.#wait, RETRY_MS.most)
    this.dispatchEvent(new CustomEvent("restart", { detail: { wait: wait / 1000 } }))
    setTimeout(() => this.#open(), wait)
  }

  #send(type, body) {
    this.#socket.send(new Uint8Array([type, ...length(body.length), ...body]))
  }

  /** Takes bytes, which may end within a packet. */
  #handle(bytes) {
    this.#heard = performance.now()
    this.#rest = new Uint8Array([...this.#rest, ...bytes])
    for (;;) {
      const size = readLength(this.#rest, 1)
      if (!size || this.#rest.length < size.next + size.value) return
      const [first, body] = [this.#rest[0], this.#rest.slice(size.next, size.next + size.value)]
      this.#rest = this.#rest.slice(size.next + size.value)
      this.#packet(first, body)
    }
  }

  #packet(first, body) {
    switch (first & 0xf0) {
      case PACKET.connack: {
        const [flags, reason] = body
        if (reason !== 0) return this.#socket.close()
        this.#wait = RETRY_MS.first
        // A session that is still there has its subscription.
        if (flags & 1) return
        this.#received.clear()
        return this.#send(PACKET.subscribe, [0, 1, 0, ...text(this.#options.topic), 2])
      }
      case PACKET.suback:
        return void this.dispatchEvent(new Event("subscribed"))
      case PACKET.publish:
        return this.#published((first >> 1) & 3, body)
      case PACKET.pubrel & 0xf0: {
        const id = body.slice(0, 2)
        this.#received.delete(String(id))
        return this.#send(PACKET.pubcomp, id)
      }
    }
  }

  #published(qos, body) {
    let at = 2 + (body[0] << 8) + body[1]
    const id = body.slice(at, at + 2)
    if (qos > 0) at += 2
    const properties = readLength(body, at)
    const message = new TextDecoder().decode(body.slice(properties.next + properties.value))
    const isRepeated = qos === 2 && this.#received.has(String(id))
    if (qos === 2) this.#received.add(String(id))
    if (!isRepeated) this.#options.onMessage(message)
    if (qos > 0) this.#send(qos === 1 ? PACKET.puback : PACKET.pubrec, id)
  }
}

/** Encodes a number in `bytes` bytes, the highest first. */
const number = (value, bytes) => Array.from({ length: bytes }, (_, at) => (value >>> (8 * (bytes - 1 - at))) & 0xff)

const text = (value) => {
  const bytes = new TextEncoder().encode(value)
  return [...number(bytes.length, 2), ...bytes]
}

/** A variable byte integer (MQTT 5, section 1.5.5). */
function length(value) {
  const bytes = []
  do {
    bytes.push((value & 0x7f) | (value > 0x7f ? 0x80 : 0))
    value >>>= 7
  } while (value)
  return bytes
}

function readLength(bytes, at) {
  let value = 0
  for (let shift = 0; shift < 28; shift += 7) {
    const byte = bytes[at++]
    if (byte === undefined) return undefined
    value |= (byte & 0x7f) << shift
    if (!(byte & 0x80)) return { value, next: at }
  }
  throw new RangeError("a length of more than four bytes")
}
