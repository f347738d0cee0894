// Publishes messages: one request in flight per stream, repeated until the gateway acknowledges or refuses it for good. The
// gateway recognizes a repeated request by its `Producer-Id`, `Producer-Epoch` and `Producer-Seq`, and appends it once.

/** @import { PublishOptions, Settings } from "../../pollgate.d.ts" */
/** @import { Transport } from "./http.js" */

import { GatewayError, isFinal, refusal } from "./http.js"
import { after, Backoff, identifier, sleep, unlessAborted } from "./platform.js"
import { parseStreams } from "./settings.js"

/** How long the response to an append is waited for, in seconds. */
const PUBLISH_TIMEOUT = 30

/** The largest request that joins several messages, in characters; far below what the gateway accepts. */
const BATCH_LENGTH_MAX = 256 * 1024

/** @typedef {string | Uint8Array<ArrayBuffer>} Body */

/**
 * A message that waits to be sent.
 * @typedef {object} Pending
 * @property {Body} body
 * @property {string} contentType
 * @property {boolean} create Whether to create the stream if it does not exist.
 * @property {(offset: string) => void} resolve
 * @property {(error: unknown) => void} reject
 */

/**
 * The messages of one stream that wait, and the state of the producer there.
 * @typedef {{ waiting: Pending[], sending: boolean, epoch: number, sequence: number }} Line
 */

/** Publishes the messages of one client. */
export class Publisher {
  #transport
  #settings
  #id = identifier()
  /** @type {Map<string, Line>} By the name of the stream. */
  #lines = new Map()
  #stop = new AbortController()

  /**
   * @param {Transport} transport
   * @param {Settings} settings
   */
  constructor(transport, settings) {
    this.#transport = transport
    this.#settings = settings
  }

  /**
   * Resolves with the offset behind the message. Rejects with a `GatewayError`, or with what a function of the caller throws.
   * @param {string} stream
   * @param {unknown} data
   * @param {PublishOptions} options
   * @returns {Promise<string>}
   */
  async publish(stream, data, { contentType = "application/json", create = false } = {}) {
    const [name] = parseStreams([stream])
    this.#stop.signal.throwIfAborted()
    const body = contentType === "application/json" ? JSON.stringify(data) : /** @type {Body} */ (data)
    if (body === undefined) throw new TypeError("the message is not JSON")
    const line = this.#lines.get(name) ?? { waiting: [], sending: false, epoch: 0, sequence: 0 }
    this.#lines.set(name, line)
    return new Promise((resolve, reject) => {
      line.waiting.push({ body, contentType, create, resolve, reject })
      this.#drive(name, line)
    })
  }

  /** Rejects what was not acknowledged yet. */
  close() {
    this.#stop.abort(new Error("closed"))
  }

  /**
   * Sends what waits, one request after the other.
   * @param {string} name
   * @param {Line} line
   */
  async #drive(name, line) {
    if (line.sending) return
    line.sending = true
    while (line.waiting.length) {
      const batch = nextBatch(line.waiting)
      try {
        const offset = await this.#send(name, line, batch)
        line.sequence++
        for (const { resolve } of batch) resolve(offset)
      } catch (error) {
        for (const { reject } of batch) reject(error)
      }
    }
    line.sending = false
  }

  /**
   * Sends one request until it is acknowledged.
   * @param {string} name
   * @param {Line} line
   * @param {Pending[]} batch
   */
  async #send(name, line, batch) {
    const [{ contentType, create }] = batch
    const path = name.split("/").map(encodeURIComponent).join("/")
    const target = new URL(`v1/stream/${path}${create ? "?create=1" : ""}`, this.#transport.base).href
    const body = contentType === "application/json" ? `[${batch.map(({ body }) => body).join(",")}]` : batch[0].body
    const backoff = new Backoff(this.#settings)
    for (;;) {
      const response = await this.#attempt(target, line, contentType, body)
      const offset = response?.ok && response.headers.get("stream-next-offset")
      if (offset) return offset
      if (response?.status === 409 && response.headers.has("producer-expected-seq")) {
        // The gateway has forgotten this producer, which begins a new epoch.
        line.epoch++
        line.sequence = 0
        continue
      }
      const failure = response && (await refusal(response))
      if (failure && isFinal(failure)) throw new GatewayError(failure.status ?? 0, failure.problem)
      await sleep(failure?.retryAfter ?? backoff.next(), this.#stop.signal)
    }
  }

  /**
   * Sends one request once. Returns `null` if there is no response.
   * @param {string} target
   * @param {Line} line
   * @param {string} contentType
   * @param {Body} body
   */
  async #attempt(target, line, contentType, body) {
    this.#stop.signal.throwIfAborted()
    const callersHeaders = await unlessAborted(this.#transport.headers(), this.#stop.signal)
    if (!callersHeaders) throw this.#stop.signal.reason
    const headers = {
      "content-type": contentType,
      "producer-id": this.#id,
      "producer-epoch": `${line.epoch}`,
      "producer-seq": `${line.sequence}`,
    }
    const leave = new AbortController()
    const timer = after(PUBLISH_TIMEOUT, () => leave.abort())
    const closed = () => leave.abort()
    this.#stop.signal.addEventListener("abort", closed, { once: true })
    try {
      return await this.#transport.fetch(target, callersHeaders, { method: "POST", body, headers, signal: leave.signal })
    } catch {
      return null
    } finally {
      clearTimeout(timer)
      this.#stop.signal.removeEventListener("abort", closed)
    }
  }
}

/**
 * Takes the messages of the next request: JSON values together, any other message alone.
 * @param {Pending[]} waiting
 */
function nextBatch(waiting) {
  const [{ contentType, create }] = waiting
  let [count, length] = [0, 0]
  for (const message of waiting) {
    length += message.body.length
    const isSame = message.contentType === contentType && message.create === create && contentType === "application/json"
    if (count > 0 && (!isSame || length > BATCH_LENGTH_MAX)) break
    count++
  }
  return waiting.splice(0, count)
}
