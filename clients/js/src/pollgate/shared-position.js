// Where the shared connection is in its streams. Pure: no IO and no clock. The leading tab and the followers each keep a copy.

/** @import { Batch } from "./forms.js" */

/** A batch, and the offset that it begins behind. @typedef {Batch & { from: string | null }} PlacedBatch */

/** @typedef {{ resume: string, streams: [string, { next: string | null }][], fresh: FreshStreams[] }} Snapshot */

/** Streams that were added since the last full resume token, and the token with which they begin. */
/** @typedef {{ streams: string[], resume: string | null }} FreshStreams */

/**
 * Joins resume tokens: for streams that are in both, the later one wins.
 * @param {string | null} token
 * @param {string | null} later
 */
export const joinTokens = (token, later) => (token && later ? `${token}.${later}` : token || later || "")

/** Where the shared connection is in its streams. */
export class SharedPosition {
  /** The resume token behind the last envelope. */
  resume = ""
  /** @type {Map<string, { next: string | null }>} Each stream, with the offset behind its last batch. */
  streams = new Map()
  /** @type {FreshStreams[]} Streams that the resume token does not cover yet. */
  #fresh = []

  /** @param {Snapshot} snapshot */
  static from({ resume, streams, fresh }) {
    const position = new SharedPosition()
    position.resume = resume
    position.streams = new Map(streams)
    position.#fresh = fresh
    return position
  }

  /** @returns {Snapshot} */
  snapshot() {
    return { resume: this.resume, streams: [...this.streams], fresh: this.#fresh }
  }

  /**
   * The offset behind the last batch of a stream; `null` if there was none, `undefined` if the stream is not read.
   * @param {string} stream
   */
  nextOf(stream) {
    return this.streams.get(stream)?.next
  }

  /**
   * @param {string[]} streams
   * @param {string | null} resume Where they begin.
   */
  add(streams, resume) {
    for (const stream of streams) this.streams.set(stream, { next: null })
    this.#fresh = [...this.#fresh, { streams, resume }]
  }

  /** The resume token for the next request. What was added first wins, as it has been read the longest. */
  get start() {
    return [...this.#fresh.map(({ resume }) => resume).reverse(), this.resume].reduce(joinTokens, "") ?? ""
  }

  /**
   * Moves behind an envelope. Returns its batches, each with the offset that it begins behind.
   * @param {{ batches: (Batch | PlacedBatch)[], resume?: string, resumeDelta?: string }} envelope
   * @param {Iterable<string>} asked The streams that it was asked for.
   * @returns {PlacedBatch[]}
   */
  apply({ batches, resume, resumeDelta }, asked) {
    const placed = []
    for (const batch of batches) {
      const state = this.streams.get(batch.stream)
      if (!state) continue
      placed.push({ ...batch, from: "from" in batch ? batch.from : state.next })
      state.next = batch.streamNextOffset ?? state.next
    }
    if (resumeDelta) this.resume = joinTokens(this.resume, resumeDelta)
    else if (resume) this.#replace(resume, new Set(asked))
    return placed
  }

  /**
   * Takes a full resume token. It does not cover streams that were not asked for: they are dropped, unless they are fresh.
   * @param {string} resume
   * @param {Set<string>} asked
   */
  #replace(resume, asked) {
    this.resume = resume
    this.#fresh = this.#fresh.filter(({ streams }) => !streams.every((stream) => asked.has(stream)))
    const fresh = new Set(this.#fresh.flatMap(({ streams }) => streams))
    for (const stream of this.streams.keys()) {
      if (!asked.has(stream) && !fresh.has(stream)) this.streams.delete(stream)
    }
  }
}
