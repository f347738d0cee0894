// Keeps what was learned of networks from one client to the next: in the browser's localStorage unless the caller says otherwise.

/** @import { ClientOptions, Form, Memory } from "../../pollgate.d.ts" */

/** What was learned of the networks to one gateway, by clients that may use the same forms. */
export class MemoryStore {
  /** @type {ClientOptions["storage"]} `null` if nothing is kept. */
  #storage
  #key
  #given
  /** @type {string | null} What was loaded or saved last. */
  #saved = null

  /**
   * @param {ClientOptions} options
   * @param {URL} base
   * @param {readonly Form[]} forms
   */
  constructor({ memory, storage }, base, forms) {
    this.#given = memory
    this.#storage = memory ? null : storage === undefined ? localStorage() : storage
    this.#key = `pollgate ${base.href} ${forms.join(" ")}`
  }

  /**
   * What earlier clients have learned. Text that none of them has written is ignored.
   * @returns {Memory | undefined}
   */
  load() {
    if (this.#given) return this.#given
    try {
      this.#saved = this.#storage?.getItem(this.#key) ?? null
      return this.#saved === null ? undefined : JSON.parse(this.#saved)
    } catch {
      return undefined
    }
  }

  /** @param {Memory} memory */
  save(memory) {
    if (!this.#storage) return
    const text = JSON.stringify(memory)
    if (text === this.#saved) return
    this.#saved = text
    try {
      this.#storage.setItem(this.#key, text)
    } catch {
      // It is full or forbidden: the next client learns anew.
    }
  }
}

/** The page's localStorage. Workers and Node have none, and a page may not be allowed to use it. */
function localStorage() {
  try {
    return globalThis.window?.localStorage ?? null
  } catch {
    return null
  }
}
