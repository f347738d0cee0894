// Tabs of one origin that work together: they elect a leader by a Web Lock, and talk over a BroadcastChannel. What they say
// to each other is decided in `shared-connection.js`.

/** @import { TabMessage } from "./shared-connection.js" */

import { identifier } from "./platform.js"

/**
 * Called when this tab becomes the leader, when another tab has taken the lead from it, and with messages of other tabs.
 * @typedef {{ lead: () => void, resign: () => void, message: (message: TabMessage & { peer: string }) => void }} TabHooks
 */

/** The tabs of one name, as one of them sees them. */
export class TabGroup {
  id = identifier()
  #name
  #hooks
  #channel
  #closed = false
  #close = () => {}
  /** @type {Promise<void>} Locks are held until it resolves. */
  #untilClosed = new Promise((resolve) => (this.#close = resolve))
  /** Aborts the request for the leader's lock. */
  #candidacy = new AbortController()

  /**
   * @param {string} name
   * @param {TabHooks} hooks
   */
  constructor(name, hooks) {
    this.#name = name
    this.#hooks = hooks
    this.#channel = new BroadcastChannel(name)
    this.#channel.onmessage = ({ data }) => hooks.message(data)
    // Other tabs request this lock to learn when this tab is gone.
    this.#hold(this.#lockOf(this.id), {}, () => {})
    this.#stand()
  }

  /**
   * Sends a message to all other tabs.
   * @param {TabMessage} message
   */
  post(message) {
    if (!this.#closed) this.#channel.postMessage({ ...message, peer: this.id })
  }

  /**
   * Calls back when another tab is gone.
   * @param {string} peer
   * @param {() => void} callback
   */
  whenGone(peer, callback) {
    navigator.locks.request(this.#lockOf(peer), () => {
      if (!this.#closed) callback()
    })
  }

  /** Takes the lead from a tab that does not respond. */
  takeLead() {
    this.#candidacy.abort()
    this.#stand({ steal: true })
  }

  close() {
    this.#closed = true
    this.#candidacy.abort()
    this.#close()
    this.#channel.close()
  }

  /** @param {string} peer */
  #lockOf(peer) {
    return `${this.#name} ${peer}`
  }

  /**
   * Stands for leader: becomes it when no other tab is.
   * @param {LockOptions} [options]
   */
  #stand(options) {
    this.#candidacy = new AbortController()
    const { signal } = this.#candidacy
    let led = false
    const lead = () => {
      led = true
      this.#hooks.lead()
    }
    this.#hold(this.#name, options ?? { signal }, lead).catch(() => {
      // The lock was stolen, or the request was aborted.
      if (this.#closed || !led) return
      this.#hooks.resign()
      this.#stand()
    })
  }

  /**
   * @param {string} name
   * @param {LockOptions} options
   * @param {() => void} callback Called once the lock is held.
   * @returns {Promise<void>}
   */
  #hold(name, options, callback) {
    return navigator.locks.request(name, options, () => {
      callback()
      return this.#untilClosed
    })
  }
}
