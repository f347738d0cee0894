// What a client learns of networks and remembers: which delivery form works there, how long a poll may be held, and how slow
// a WebSocket's heartbeat may be. Pure: no IO and no clock.

/** @import { Memory, Network } from "../../pollgate.d.ts" */

import { FORMS } from "./settings.js"

/** Networks beyond this are forgotten, the one that was used least recently first. */
const NETWORKS_MAX = 20

/** The client's experience with each network, most recently used first. */
export class NetworkMemory {
  /** @type {Network[]} */
  #networks

  /** @param {Memory | undefined} json What `toJSON` returned. */
  constructor(json) {
    const networks = Array.isArray(json?.networks) ? json.networks : []
    this.#networks = networks.filter((network) => typeof network?.label === "string").slice(0, NETWORKS_MAX).map(cleaned)
  }

  /**
   * Returns the record of the network with this label, and creates it if there is none. The caller updates the record.
   * @param {string} label
   */
  of(label) {
    const known = this.#networks.find((network) => network.label === label) ?? { label }
    const others = this.#networks.filter((network) => network !== known)
    this.#networks = [known, ...others].slice(0, NETWORKS_MAX)
    return known
  }

  /**
   * A copy without what is not known.
   * @returns {Memory}
   */
  toJSON() {
    return JSON.parse(JSON.stringify({ networks: this.#networks }))
  }
}

/** @satisfies {(keyof Network)[]} */
const NUMBERS = /** @type {const} */ (["hold", "holdProven", "heartbeatLo", "heartbeatHi"])

/**
 * A copy of a record, which may come from a storage, without what cannot be right.
 * @param {Network} network
 */
function cleaned({ label, form, ...rest }) {
  /** @type {Network} */
  const known = { label }
  if (form && FORMS.includes(form)) known.form = form
  for (const name of NUMBERS) if (Number.isFinite(rest[name]) && Number(rest[name]) > 0) known[name] = rest[name]
  return known
}

/** Searches the slowest heartbeat that keeps a WebSocket alive: doubles it until one fails, then bisects. */
export class HeartbeatSearch {
  #min
  #max
  /** @type {number | null} The slowest heartbeat that is known to work. */
  #lo
  /** @type {number | null} The fastest one that is known to fail. */
  #hi
  /** @type {number | null} One that failed. It counts once the fastest heartbeat has shown that the network works. */
  #doubted = null
  /** @type {[number | null, number | null] | null} Both bounds before the last failure, until that is confirmed. */
  #before = null

  /**
   * @param {{ min: number, max: number }} limits
   * @param {{ heartbeatLo?: number, heartbeatHi?: number }} known
   */
  constructor({ min, max }, { heartbeatLo, heartbeatHi } = {}) {
    this.#min = min
    this.#max = max
    this.#lo = heartbeatLo ?? null
    this.#hi = heartbeatHi ?? null
  }

  /** The slowest heartbeat that works and the fastest one that fails, as far as they are known. */
  get bounds() {
    return { heartbeatLo: this.#lo ?? undefined, heartbeatHi: this.#hi ?? undefined }
  }

  /** The heartbeat for the next connection, in whole seconds. */
  get heartbeat() {
    const [lo, hi] = [this.#lo, this.#hi]
    if (this.#doubted !== null || lo === null) return this.#min
    const near = Math.max(this.#min / 3, lo / 10, 1)
    if (lo >= this.#max || (hi !== null && hi - lo <= near)) {
      return Math.max(this.#min, Math.round(lo - Math.min(0.1 * lo, 20)))
    }
    return hi === null ? Math.min(2 * lo, this.#max) : Math.round((lo + hi) / 2)
  }

  /**
   * A connection with that heartbeat was silent for that long and lived.
   * @param {number} heartbeat
   */
  proved(heartbeat) {
    if (this.#doubted !== null && heartbeat <= this.#min) this.#fail(this.#doubted)
    this.#before = null
    this.#lo = Math.max(this.#lo ?? 0, heartbeat)
    if (this.#hi !== null && this.#hi <= this.#lo) this.#hi = null
  }

  /**
   * A connection with that heartbeat went silent for good. Returns whether the heartbeat may be the reason.
   * @param {number} heartbeat
   */
  muted(heartbeat) {
    const slower = heartbeat > this.#min
    this.#doubted = slower ? heartbeat : null
    return slower
  }

  /**
   * A connection was closed after a silence. If none has lived through a silence of that length, it is taken for what the
   * network allows, without a second try.
   * @param {number} heartbeat
   * @param {number} silence
   */
  closed(heartbeat, silence) {
    if (heartbeat <= this.#min || silence <= (this.#lo ?? 0)) return
    this.#before = [this.#lo, this.#hi]
    this.#fail(Math.max(this.#min + 1, Math.min(heartbeat, Math.round(silence))))
  }

  /** The last connection was closed by the gateway, not by the network. */
  excuse() {
    if (this.#before) [this.#lo, this.#hi] = this.#before
    this.#before = this.#doubted = null
  }

  /** @param {number} heartbeat */
  #fail(heartbeat) {
    this.#hi = heartbeat
    this.#doubted = null
    if ((this.#lo ?? 0) >= heartbeat) this.#lo = this.#min
  }
}
