// Reads streams until it is stopped: asks the policy what to do, performs one attempt after another, with its timeouts, and
// tells the policy how each ended.

/** @import { EndKind, Step } from "../../pollgate.d.ts" */
/** @import { Envelope, ReadRequest } from "./forms.js" */
/** @import { End, Transport } from "./http.js" */
/** @import { Policy } from "./policy.js" */

import { read } from "./forms.js"
import { Failure, GatewayError, isFinal } from "./http.js"
import { aborted, after, seconds, sleep, unlessAborted } from "./platform.js"

/**
 * What a reader needs. `request` says what to read and is asked before each attempt; `onLearned` is called when the
 * policy may have learned something; `onFatal` takes the error that ends all
 * subscriptions, after which nothing is to be read until the next `restart`.
 * @typedef {object} ReaderOptions
 * @property {Transport} transport
 * @property {Policy} policy
 * @property {() => ReadRequest} request
 * @property {(envelope: Envelope, asked: Set<string>) => void} onEnvelope
 * @property {() => void} onLearned
 * @property {(error: Error) => void} onFatal
 */

/** Reads what it is asked for in the form that its policy chooses. */
export class Reader {
  #options
  #stopped = false
  /** Whether another token was asked for after a refusal, and nothing has come since. */
  #renewed = false
  #interrupt = new AbortController()
  /**
   * The streams that the open connection was asked for.
   * @type {Set<string>}
   */
  asked = new Set()

  /** @param {ReaderOptions} options */
  constructor(options) {
    this.#options = options
    this.#run()
  }

  /** Ends the attempt, as what to read has changed. */
  restart() {
    this.#interrupt.abort(new Failure("stopped"))
  }

  /** @param {string} [label] */
  networkChanged(label) {
    this.restart()
    this.#options.policy.networkChanged(seconds(), label)
  }

  stop() {
    this.#stopped = true
    this.restart()
  }

  async #run() {
    const { policy, request } = this.#options
    while (!this.#stopped) {
      // Subscriptions that begin at the same time share a request.
      await sleep(0.001)
      if (this.#interrupt.signal.aborted) this.#interrupt = new AbortController()
      const wanted = request()
      this.asked = new Set(wanted.streams)
      const { signal } = this.#interrupt
      const delay = policy.delay(seconds())
      if (!wanted.streams.length) await aborted(signal)
      else if (delay) await sleep(delay, signal)
      else await this.#attempt(wanted, signal)
    }
  }

  /**
   * Performs the next step of the policy.
   * @param {ReadRequest} request
   * @param {AbortSignal} signal
   */
  async #attempt(request, signal) {
    const { transport, policy, onLearned, onFatal } = this.#options
    let headers
    try {
      headers = await unlessAborted(transport.headers(), signal)
    } catch (error) {
      if (!signal.aborted) onFatal(error instanceof Error ? error : new Error(String(error)))
      return
    }
    if (!headers || signal.aborted) return
    // Only now, as the caller's functions may take long and the policy measures round trips.
    const step = policy.next(seconds())
    if (step.wait !== undefined) return
    const end = await this.#perform(step, { ...request, headers }, signal)
    if (this.#stopped) return
    const isRenewed = !this.#renewed && transport.renews(end)
    this.#renewed ||= isRenewed
    const isOver = !isRenewed && isFinal(end, step.form !== "short-poll" && policy.hasNext(step.form))
    policy.ended(seconds(), isOver || isRenewed ? { kind: "stopped" } : end)
    onLearned()
    if (isOver) onFatal(new GatewayError(end.status ?? 0, end.problem))
  }

  /**
   * Reads one response or connection, and ends it after one of the timeouts of the step.
   * @param {Exclude<Step, { wait: number }>} step
   * @param {ReadRequest & { headers: Headers }} request
   * @param {AbortSignal} signal
   * @returns {Promise<End>}
   */
  async #perform(step, request, signal) {
    const { transport, policy, onEnvelope, onLearned } = this.#options
    const leave = new AbortController()
    const give = (/** @type {EndKind} */ kind) => () => leave.abort(new Failure(kind))
    const interrupted = give("stopped")
    signal.addEventListener("abort", interrupted, { once: true })
    const first = after(step.envelopeWithin, give("no_envelope"))
    const better = after(step.leaveAfter, give("stopped"))
    let mute = after(step.muteAfter, give("mute"))
    let began = false
    const hooks = {
      bytes: () => {
        if (leave.signal.aborted) return
        clearTimeout(mute)
        mute = after(step.muteAfter, give("mute"))
        // Only bytes after the first envelope show that an idle connection stays alive.
        if (began && policy.received(seconds())) leave.abort(new Failure("stopped"))
      },
      envelope: (/** @type {Envelope} */ envelope) => {
        if (leave.signal.aborted) return
        clearTimeout(first)
        this.#renewed = false
        policy.envelope(seconds(), { upToDate: envelope.upToDate, empty: !envelope.batches.length })
        if (!began) onLearned()
        began = true
        onEnvelope(envelope, this.asked)
      },
    }
    try {
      const end = await read(transport, { ...request, ...step }, hooks, leave.signal)
      return signal.aborted ? signal.reason : end
    } catch (error) {
      if (signal.aborted) return signal.reason
      return leave.signal.aborted ? leave.signal.reason : Failure.from(error)
    } finally {
      for (const timer of [first, better, mute]) clearTimeout(timer)
      signal.removeEventListener("abort", interrupted)
    }
  }
}
