// The order of the delivery forms: which one is in use, which were given up, and when those are tried again. Pure.

/** @import { Form, Settings } from "../../pollgate.d.ts" */

/** The forms that may be used, the preferred one first, and the one in use. */
export class Fallback {
  #forms
  #settings
  #random
  /** @type {Map<Form, { until: number, after: number, mute: boolean }>} The forms that were given up, and until when. */
  #given = new Map()

  /**
   * @param {readonly Form[]} forms
   * @param {Settings} settings
   * @param {() => number} random
   */
  constructor(forms, settings, random) {
    this.#forms = forms
    this.#settings = settings
    this.#random = random
    /** The form in use. */
    this.present = forms[0]
  }

  /** The preferred form. */
  get first() {
    return this.#forms[0]
  }

  /**
   * Begins with a form that is known to work, else with the preferred one. Better forms are tried later.
   * @param {Form | undefined} known
   * @param {number} now
   */
  beginWith(known, now) {
    this.present = this.#forms.find((form) => form === known) ?? this.first
    this.#given = new Map()
    for (const form of this.#betterForms()) this.#giveUntil(form, now, this.#settings.reprobeAfter, false)
  }

  /**
   * Gives a form up for a time, which doubles if that was given up before.
   * @param {Form} form
   * @param {number} now
   * @param {boolean} mute Whether it went silent.
   */
  giveUp(form, now, mute) {
    const { reprobeAfter, reprobeMax } = this.#settings
    const before = this.#given.get(form)?.after
    this.#giveUntil(form, now, before ? Math.min(2 * before, reprobeMax) : reprobeAfter, mute)
  }

  /**
   * Forgets that a form was given up.
   * @param {Form} form
   */
  restore(form) {
    this.#given.delete(form)
  }

  /**
   * The next form that was not given up.
   * @param {Form} form
   */
  after(form) {
    return this.#forms.slice(this.#forms.indexOf(form) + 1).find((later) => !this.#given.has(later))
  }

  /**
   * A better form than the present one that is to be tried again by now.
   * @param {number} now
   */
  due(now) {
    return this.#betterForms().find((form) => (this.#given.get(form)?.until ?? Infinity) <= now)
  }

  /** When a better form is tried again; never if there is none. */
  get nextDue() {
    return Math.min(...this.#betterForms().map((form) => this.#given.get(form)?.until ?? Infinity))
  }

  /**
   * Whether a form was given up because it went silent.
   * @param {Form} form
   */
  wasMute(form) {
    return this.#given.get(form)?.mute ?? false
  }

  #betterForms() {
    return this.#forms.slice(0, this.#forms.indexOf(this.present))
  }

  /** @param {Form} form @param {number} now @param {number} after Give or take 5 %. @param {boolean} mute */
  #giveUntil(form, now, after, mute) {
    this.#given.set(form, { until: now + after * (0.95 + 0.1 * this.#random()), after, mute })
  }
}
