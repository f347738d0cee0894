// What the client needs of its platform, a browser or Node: a clock, timers, backoff and random identifiers.
// All times are seconds.

/** Monotonic time in seconds. */
export const seconds = () => performance.now() / 1000

/**
 * Calls back after a time, or never if the time is longer than a timer of the platform can be (24.8 days).
 * @param {number | undefined} wait
 * @param {() => void} callback
 * @returns The timer, for `clearTimeout`.
 */
export const after = (wait = Infinity, callback) =>
  wait * 1000 < 2 ** 31 ? setTimeout(callback, wait * 1000) : undefined

/**
 * Resolves after a time, or when the signal is aborted.
 * @param {number} wait
 * @param {AbortSignal} [signal]
 * @returns {Promise<void>}
 */
export function sleep(wait, signal) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer)
      signal?.removeEventListener("abort", end)
      resolve()
    }
    const timer = setTimeout(end, wait * 1000)
    if (signal?.aborted) end()
    else signal?.addEventListener("abort", end)
  })
}

/**
 * Resolves when the signal is aborted.
 * @param {AbortSignal} signal
 * @returns {Promise<void>}
 */
export const aborted = (signal) =>
  new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener("abort", () => resolve(), { once: true })
  })

/**
 * Resolves with the value of a promise, or with `undefined` if the signal is aborted before.
 * @template T
 * @param {Promise<T>} promise
 * @param {AbortSignal} signal
 * @returns {Promise<T | undefined>}
 */
export function unlessAborted(promise, signal) {
  return new Promise((resolve, reject) => {
    const leave = () => resolve(undefined)
    if (signal.aborted) leave()
    signal.addEventListener("abort", leave, { once: true })
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", leave))
  })
}

/** A random identifier of 128 bits. Unlike `randomUUID` it also works in pages that were loaded over plain HTTP. */
export function identifier() {
  const bytes = crypto.getRandomValues(new Uint8Array(16))
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")
}

/** Whether tabs can share a connection: they need Web Locks, which pages have over HTTPS and on localhost. */
export const canShare = () => Boolean(globalThis.window && globalThis.navigator?.locks && globalThis.BroadcastChannel)

/** Exponential backoff: waits double up to a maximum, and up to half of each is left out at random. */
export class Backoff {
  #min
  #max
  #random
  #wait

  /**
   * @param {{ backoffMin: number, backoffMax: number }} settings
   * @param {() => number} random Returns a number from 0 to 1.
   */
  constructor({ backoffMin, backoffMax }, random = Math.random) {
    this.#min = backoffMin
    this.#max = backoffMax
    this.#random = random
    this.#wait = backoffMin
  }

  reset() {
    this.#wait = this.#min
  }

  /** The next time to wait. */
  next() {
    const wait = this.#wait * (0.5 + 0.5 * this.#random())
    this.#wait = Math.min(2 * this.#wait, this.#max)
    return wait
  }
}
