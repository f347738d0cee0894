// A subscription: hands the messages of its streams to a handler or an iterator, each once and in order, and moves the resume
// token behind them.
//
// It begins with short polls of its own (*catching up*) until it is where the shared connection is, and from then on takes
// envelopes from that connection (*attached*). A stream is *aligned* if the shared connection goes on exactly where the
// subscription is in that stream. What is not aligned is polled for.

/** @import { Handler, Message, SubscribeOptions } from "../../pollgate.d.ts" */
/** @import { SharedConnection } from "./shared-connection.js" */
/** @import { PlacedBatch, SharedPosition } from "./shared-position.js" */
/** @import { Unpacked } from "./unpack.js" */

import { Failure, GatewayError, isFinal } from "./http.js"
import { Backoff, identifier, sleep } from "./platform.js"
import { parseStart } from "./settings.js"
import { joinTokens } from "./shared-position.js"
import { unpack } from "./unpack.js"

/**
 * Where a subscription is in one stream: `position` is the offset behind what was queued last, and `polledAt` is where the
 * shared connection was when a poll last reached the tail.
 * @typedef {{ aligned: boolean, position: string | null, polledAt: string | null | undefined }} StreamState
 */

/** One subscription of a client. */
export class Subscription {
  #connection
  #handler
  #from
  /** @type {Map<string, StreamState>} */
  #streams
  /** @type {(Unpacked & { resumeToken: string })[]} Envelopes that wait for the handler, with the token behind each. */
  #queue = []
  /** Messages in the queue. */
  #queued = 0
  /** Behind what the handler has taken. */
  #resumeToken
  /** Behind what was queued. */
  #received
  /** @type {string | null} For the streams that are not aligned. It wins over the token of the shared connection. */
  #ownToken
  /** Whether `#ownToken` also covers streams that are aligned, so that it may be behind. */
  #dirty = false
  /** @type {Set<string>} Streams that the token does not grant, as the caller knows. The gateway repeats it. */
  #forbidden = new Set()
  #attached = false
  #attaching = false
  #upToDate = false
  #catching = false
  #pumping = false
  /** @type {() => void} */
  #drained = () => {}
  #ended = false
  #stop = new AbortController()
  /** @type {{ resolve: () => void, reject: (error: Error) => void }} */
  #settle = { resolve: () => {}, reject: () => {} }
  /** @type {{ message?: Message, handled: () => void } | null} The iterator's message, offered or taken. */
  #offered = null
  /** @type {((result: IteratorResult<Message, undefined>) => void) | null} Resolves what the iterator waits for. */
  #waiting = null

  /**
   * @param {SharedConnection} connection
   * @param {string[]} streams
   * @param {SubscribeOptions} options
   * @param {Handler<any>} [handler]
   */
  constructor(connection, streams, options, handler) {
    const { resumeToken = "" } = options
    const from = parseStart(options, handler)
    this.id = identifier()
    this.streams = streams
    this.#connection = connection
    this.#from = from
    this.#handler = handler ?? ((/** @type {Message} */ message) => this.#offer(message))
    this.#resumeToken = this.#received = this.#ownToken = resumeToken
    this.#streams = new Map(streams.map((stream) => [stream, { aligned: false, position: null, polledAt: undefined }]))
    /** @type {Promise<void>} */
    this.closed = new Promise((resolve, reject) => (this.#settle = { resolve, reject }))
    this.closed.catch(() => {})
    this.#stop.signal.addEventListener("abort", () => this.#drained())
    connection.add(this)
    this.#catchUp()
  }

  /** Behind the last envelope whose messages the handler has all taken. */
  get resumeToken() {
    return this.#resumeToken
  }

  /**
   * Ends the subscription. The handler is not called again.
   * @param {Error} [error] Why it ended, if nobody asked for it.
   */
  close(error) {
    if (this.#ended) return
    this.#ended = true
    this.#connection.remove(this)
    this.#stop.abort(error ?? new Error("closed"))
    this.#waiting?.({ done: true, value: undefined })
    if (!error) return this.#settle.resolve()
    this.#settle.reject(error)
    this.#connection.emit("error", { subscription: this, error })
  }

  // -- Iteration: a message counts as handled when the next one is asked for.

  /**
   * @param {Message} message
   * @returns {Promise<void>}
   */
  #offer(message) {
    return new Promise((handled) => {
      if (!this.#waiting) return void (this.#offered = { message, handled })
      this.#waiting({ done: false, value: message })
      this.#waiting = null
      this.#offered = { handled }
    })
  }

  /** @returns {AsyncIterator<Message<any>, undefined>} */
  [Symbol.asyncIterator]() {
    /** @type {IteratorResult<Message, undefined>} */
    const end = { done: true, value: undefined }
    return {
      next: () => {
        if (this.#ended) return this.closed.then(() => end)
        if (this.#offered?.message) {
          const { message, handled } = this.#offered
          this.#offered = { handled }
          return Promise.resolve({ done: false, value: message })
        }
        this.#offered?.handled()
        this.#offered = null
        /** @type {Promise<IteratorResult<Message, undefined>>} */
        const next = new Promise((resolve) => (this.#waiting = resolve))
        return next.then((result) => (result.done ? this.closed.then(() => end) : result))
      },
      return: () => {
        this.#offered?.handled()
        this.close()
        return Promise.resolve(end)
      },
    }
  }

  // -- Called by the shared connection.

  /** What this subscription wants of the shared connection. */
  want() {
    const { id, streams } = this
    return { id, streams, resume: this.#ownToken, attached: this.#attached, waiting: this.#attaching }
  }

  /**
   * The shared connection has the streams of this subscription from now on.
   * @param {SharedPosition} shared
   * @param {string[]} fresh The streams that it begins where this subscription is.
   */
  attach(shared, fresh) {
    if (this.#ended || !(this.#attaching || this.#attached)) return
    if (this.streams.some((stream) => !shared.streams.has(stream))) return this.#detach()
    if (this.#attached) return
    this.#attached = true
    this.#attaching = false
    for (const [stream, state] of this.#streams) {
      const next = shared.nextOf(stream) ?? null
      state.aligned = fresh.includes(stream) || (state.position !== null && state.position === next)
      if (fresh.includes(stream)) state.position = next
    }
    this.#shrinkOwnToken(true)
    if (this.#needsPoll(shared)) this.#catchUp()
  }

  /**
   * Takes an envelope of the shared connection.
   * @param {PlacedBatch[]} batches
   * @param {SharedPosition} shared The position behind it.
   */
  receive(batches, shared) {
    if (!this.#attached) return
    if (this.#queued > this.#connection.settings.queueMax) return this.#detach()
    /** @type {Unpacked} */
    const unpacked = { events: [], messages: [] }
    for (const batch of batches) {
      const state = this.#streams.get(batch.stream)
      if (!state?.aligned) continue
      const next = batch.streamNextOffset ?? state.position
      if (batch.from !== state.position) {
        if (next !== null && state.position !== null && next <= state.position) continue
        // It does not begin where this subscription is: go back to before it, and poll from there.
        state.aligned = false
        this.#ownToken = this.#received
        this.#dirty = true
        continue
      }
      state.position = next
      unpack(batch, unpacked)
    }
    this.#enqueue(unpacked, shared)
    if (this.#needsPoll(shared)) this.#catchUp()
  }

  // -- Catching up.

  /**
   * Polls until the shared connection can go on. A subscription without a resume token thereby learns at once where "now" is:
   * a live form may be silent for seconds before it is given up, and would lose what was published meanwhile.
   */
  async #catchUp() {
    if (this.#catching) return
    this.#catching = true
    const backoff = new Backoff(this.#connection.settings)
    while (!this.#ended && (!this.#upToDate || this.#needsPoll(this.#connection.shared))) {
      await this.#whenDrained()
      if (this.#ended) break
      try {
        await this.#poll()
        backoff.reset()
      } catch (error) {
        if (this.#ended) break
        // A function of the caller has thrown.
        if (!(error instanceof Failure)) return this.close(error instanceof Error ? error : new Error(String(error)))
        if (isFinal(error)) return this.close(new GatewayError(error.status ?? 0, error.problem))
        const { reprobeMax } = this.#connection.settings
        const wait = error.retryAfter === undefined ? backoff.next() : Math.min(error.retryAfter, reprobeMax)
        this.#connection.emit(error.kind === "not_gateway" ? "not_gateway" : "restart", { wait })
        await sleep(wait, this.#stop.signal)
      }
    }
    this.#catching = false
    if (this.#ended || this.#attached) return
    this.#attaching = true
    this.#connection.attach(this)
  }

  async #poll() {
    const { shared: before } = this.#connection
    const asked = this.streams.filter((stream) => !this.#streams.get(stream)?.aligned)
    const seen = new Map(asked.map((stream) => [stream, before.nextOf(stream)]))
    const request = { streams: asked, resume: this.#ownToken, from: this.#from }
    const envelope = await this.#connection.poll(request, this.#stop.signal)
    if (this.#ended) return
    /** @type {Unpacked} */
    const unpacked = { events: [], messages: [] }
    for (const batch of envelope.batches) {
      const state = this.#streams.get(batch.stream)
      if (!state) continue
      state.position = batch.streamNextOffset ?? state.position
      unpack(batch, unpacked)
    }
    this.#ownToken = envelope.resume ?? null
    this.#dirty = false
    this.#upToDate = envelope.upToDate
    const { shared } = this.#connection
    let shrunk = false
    for (const [stream, next] of seen) {
      const state = this.#streams.get(stream)
      if (!state) continue
      if (envelope.upToDate) state.polledAt = next
      state.aligned = this.#attached && state.position !== null && state.position === shared.nextOf(stream)
      shrunk ||= state.aligned
    }
    this.#shrinkOwnToken(shrunk)
    this.#enqueue(unpacked, shared)
  }

  /**
   * Whether the shared connection has brought something for a stream that is not aligned.
   * @param {SharedPosition} shared
   */
  #needsPoll(shared) {
    if (!this.#attached) return !this.#upToDate
    if (this.#dirty) return true
    for (const [stream, { aligned, position, polledAt }] of this.#streams) {
      const next = shared.nextOf(stream) ?? null
      if (!aligned && next !== null && next !== polledAt && (position === null || next > position)) return true
    }
    return false
  }

  /**
   * Drops `#ownToken` once all streams are aligned, and marks it while it covers some that are.
   * @param {boolean} shrunk Whether streams have been aligned.
   */
  #shrinkOwnToken(shrunk) {
    const unaligned = [...this.#streams.values()].filter(({ aligned }) => !aligned).length
    if (unaligned === 0) this.#ownToken = null
    this.#dirty = unaligned > 0 && (this.#dirty || (shrunk && unaligned < this.#streams.size))
  }

  /** Leaves the shared connection and polls from where the queue ends. */
  #detach() {
    this.#attached = this.#attaching = false
    this.#upToDate = false
    this.#ownToken = this.#received
    for (const state of this.#streams.values()) state.aligned = false
    this.#connection.detach(this)
    this.#catchUp()
  }

  // -- Handing out.

  /**
   * @param {Unpacked} unpacked
   * @param {SharedPosition} shared
   */
  #enqueue({ events, messages }, shared) {
    // A dirty token may be behind the shared one, which must not win for the other streams then.
    const token = this.#dirty || !this.#attached ? this.#ownToken : joinTokens(shared.resume, this.#ownToken)
    this.#received = token || this.#received
    this.#queue.push({ events, messages, resumeToken: this.#received })
    this.#queued += messages.length
    this.#pump()
  }

  /** Calls the handler for what is queued, one message after the other. */
  async #pump() {
    if (this.#pumping) return
    this.#pumping = true
    try {
      while (this.#queue.length && !this.#ended) {
        const { events, messages, resumeToken } = this.#queue[0]
        for (const [name, detail] of events) {
          if (name === "forbidden" && this.#forbidden.has(detail.stream)) continue
          if (name === "forbidden") this.#forbidden.add(detail.stream)
          this.#connection.emit(name, { subscription: this, ...detail })
        }
        for (const message of messages) {
          this.#forbidden.delete(message.stream)
          await this.#handler(message)
          if (this.#ended) return
        }
        this.#resumeToken = resumeToken
        this.#queued -= messages.length
        this.#queue.shift()
      }
      this.#drained()
    } catch (error) {
      // The resume token stays before the envelope of the message that the handler did not take.
      this.close(error instanceof Error ? error : new Error(String(error)))
    } finally {
      this.#pumping = false
    }
  }

  /** @returns {Promise<void>} */
  #whenDrained() {
    if (!this.#queue.length) return Promise.resolve()
    return new Promise((resolve) => (this.#drained = resolve))
  }
}
