// Publishes messages: one request in flight per stream, repeated until the gateway acknowledges or refuses it for good. The
// gateway recognizes a repeated request by its `Producer-Id`, `Producer-Epoch` and `Producer-Seq`, and appends it once.

/** @import { PublishOptions, Settings } from "../../pollgate.d.ts" */
/** @import { Transport } from "./http.js" */

import { essenceOf, GatewayError, isFinalForAppend, isOfGateway, refusal } from "./http.js"
import { after, Backoff, identifier, sleep, unlessAborted } from "./platform.js"
import { parseStreams } from "./settings.js"

/** How long the response to an append is waited for, in seconds. */
const PUBLISH_TIMEOUT = 30

/** The largest request that joins several messages, in characters; far below what the gateway accepts. */
const BATCH_LENGTH_MAX = 256 * 1024

/** Refusals that may be about one message of a batch, so that its parts are tried. */
const ABOUT_CONTENT = new Set([400, 403, 413, 422])

/** @typedef {string | Uint8Array<ArrayBuffer>} Body */

/** Too much waits to be published. It is not sent; `Client.room()` says when there is room again. */
export class QueueFullError extends Error {
  /**
   * @param {number} messages
   * @param {number} bytes
   */
  constructor(messages, bytes) {
    super(
      `${messages} messages of ${bytes} bytes wait to be published: await earlier calls of publish, or client.room(); ` +
        "publishQueueMax and publishQueueBytesMax set the bounds",
    )
    this.name = "QueueFullError"
  }
}

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
 * What came of a request. `mayBeStored`: it was refused after an attempt whose response was lost.
 * @typedef {{ offset: string } | { offset?: undefined, error: unknown, mayBeStored: boolean }} Outcome
 */

/**
 * The messages of one stream that wait, and the state of the producer there. `doubtful`: the request before was refused after
 * an attempt of it that may have been stored, so that the gateway may expect its number or the next one.
 * @typedef {{ waiting: Pending[], sending: boolean, epoch: number, sequence: number, doubtful: boolean }} Line
 */

/** Publishes the messages of one client. */
export class Publisher {
  #transport
  #settings
  #id = identifier()
  /** @type {Map<string, Line>} By the name of the stream. */
  #lines = new Map()
  /** What is not acknowledged yet. */
  #messages = 0
  #bytes = 0
  /** @type {(() => void)[]} Resolve what `room` has returned. */
  #waitingForRoom = []
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
    if (typeof contentType !== "string") throw new TypeError("`contentType` is a string")
    this.#stop.signal.throwIfAborted()
    const body = bodyOf(data, contentType)
    const size = typeof body === "string" ? body.length : body.byteLength
    const { publishQueueMax, publishQueueBytesMax } = this.#settings
    const isFull = this.#messages >= publishQueueMax || this.#bytes + size > publishQueueBytesMax
    // A message that is larger than the bound is sent alone.
    if (isFull && this.#messages > 0) throw new QueueFullError(this.#messages, this.#bytes)
    this.#messages++
    this.#bytes += size
    const line = this.#lines.get(name) ?? { waiting: [], sending: false, epoch: 0, sequence: 0, doubtful: false }
    this.#lines.set(name, line)
    try {
      return await new Promise((resolve, reject) => {
        line.waiting.push({ body, contentType, create, resolve, reject })
        this.#drive(name, line)
      })
    } finally {
      this.#messages--
      this.#bytes -= size
      if (this.#hasRoom()) for (const resolve of this.#waitingForRoom.splice(0)) resolve()
    }
  }

  /** @returns {Promise<void>} */
  room() {
    return new Promise((resolve) => {
      if (this.#hasRoom()) resolve()
      else this.#waitingForRoom.push(resolve)
    })
  }

  #hasRoom() {
    const { publishQueueMax, publishQueueBytesMax } = this.#settings
    return this.#messages <= publishQueueMax / 2 && this.#bytes <= publishQueueBytesMax / 2
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
    // What is published in one go goes out together.
    await null
    while (line.waiting.length) await this.#publish(name, line, nextBatch(line.waiting))
    line.sending = false
  }

  /**
   * Publishes messages together, or in halves if they are refused together, so that only those are rejected that are at fault.
   * @param {string} name
   * @param {Line} line
   * @param {Pending[]} batch
   */
  async #publish(name, line, batch) {
    /** @type {Outcome} */
    const outcome = await this.#send(name, line, batch).catch((error) => ({ error, mayBeStored: false }))
    if (outcome.offset !== undefined) return batch.forEach(({ resolve }) => resolve(outcome.offset))
    const { error, mayBeStored } = outcome
    const isAboutContent = error instanceof GatewayError && ABOUT_CONTENT.has(error.status)
    // Parts of what may be stored would be stored twice.
    if (batch.length === 1 || !isAboutContent || mayBeStored) return batch.forEach(({ reject }) => reject(error))
    const half = batch.length >> 1
    await this.#publish(name, line, batch.slice(0, half))
    await this.#publish(name, line, batch.slice(half))
  }

  /**
   * Sends one request until it is acknowledged or refused for good.
   * @param {string} name
   * @param {Line} line
   * @param {Pending[]} batch
   * @returns {Promise<Outcome>}
   */
  async #send(name, line, batch) {
    const [{ contentType, create }] = batch
    const path = name.split("/").map(encodeURIComponent).join("/")
    const target = new URL(`v1/stream/${path}${create ? "?create=1" : ""}`, this.#transport.base).href
    const body = isJson(contentType) ? `[${batch.map(({ body }) => body).join(",")}]` : batch[0].body
    const backoff = new Backoff(this.#settings)
    let [mayBeStored, renewed] = [false, false]
    for (;;) {
      const response = await this.#attempt(target, line, contentType, body)
      const offset = response?.ok && response.headers.get("stream-next-offset")
      if (offset) {
        line.sequence++
        line.doubtful = false
        return { offset }
      }
      const expected = response?.status === 409 ? response.headers.get("producer-expected-seq") : null
      if (expected !== null) {
        renumber(line, Number(expected))
        continue
      }
      const failure = response && (await refusal(response))
      if (failure && !renewed && this.#transport.renews(failure)) {
        renewed = true
        continue
      }
      if (failure && isFinalForAppend(failure)) {
        line.doubtful ||= mayBeStored
        if (mayBeStored) line.sequence++
        return { error: new GatewayError(failure.status ?? 0, failure.problem), mayBeStored }
      }
      mayBeStored ||= !isOfGateway(failure?.problem)
      const wait = failure?.retryAfter === undefined ? backoff.next() : Math.min(failure.retryAfter, this.#settings.reprobeMax)
      await sleep(wait, this.#stop.signal)
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
 * The gateway expects another number. Either it has not stored the request in doubt, or it has forgotten this producer, which
 * begins a new epoch then.
 * @param {Line} line
 * @param {number} expected
 */
function renumber(line, expected) {
  const isOfDoubtful = line.doubtful && expected === line.sequence - 1
  if (!isOfDoubtful) line.epoch++
  line.sequence = isOfDoubtful ? expected : 0
  line.doubtful = false
}

/** @param {string} contentType */
const isJson = (contentType) => essenceOf(contentType) === "application/json"

/**
 * The body of a message, as it goes into a request.
 * @param {unknown} data
 * @param {string} contentType
 * @returns {Body}
 */
function bodyOf(data, contentType) {
  if (isJson(contentType)) {
    const text = JSON.stringify(data)
    if (text === undefined) throw new TypeError("the message is not JSON")
    return text
  }
  if (typeof data === "string") return data
  if (data instanceof ArrayBuffer) return new Uint8Array(data)
  if (ArrayBuffer.isView(data)) return new Uint8Array(/** @type {ArrayBuffer} */ (data.buffer), data.byteOffset, data.byteLength)
  throw new TypeError(`a message of the type ${contentType} is a string or bytes`)
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
    const isSame = message.contentType === contentType && message.create === create && isJson(contentType)
    if (count > 0 && (!isSame || length > BATCH_LENGTH_MAX)) break
    count++
  }
  return waiting.splice(0, count)
}
