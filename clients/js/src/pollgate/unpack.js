// Turns a batch of an envelope into the messages and events of a subscription. Pure: no IO and no clock.

/** @import { Message } from "../../pollgate.d.ts" */
/** @import { Batch } from "./forms.js" */

import { essenceOf } from "./http.js"

/** @typedef {["gap" | "missing" | "forbidden" | "closed", { stream: string, gap?: string }]} StreamEvent */

/** What is in one envelope for a subscription. @typedef {{ events: StreamEvent[], messages: Message[] }} Unpacked */

/**
 * Adds the events and messages of a batch.
 * @param {Batch} batch
 * @param {Unpacked} unpacked
 */
export function unpack(batch, { events, messages }) {
  const { stream, data = [], contentType = "application/json", gap, missing, forbidden, streamClosed, streamNextOffset, times } = batch
  if (gap) events.push(["gap", { stream, gap }])
  if (missing) events.push(["missing", { stream }])
  if (forbidden) events.push(["forbidden", { stream }])
  if (streamClosed) events.push(["closed", { stream }])
  const essence = essenceOf(contentType)
  const isJson = essence === "application/json"
  const isBase64 = !isJson && !essence.startsWith("text/")
  const values = isBase64 ? data.map((item) => bytesOf(String(item))) : data
  const lengths = values.map((value) => (value instanceof Uint8Array && !isJson ? value.length : 1))
  const offsets = streamNextOffset === undefined ? [] : offsetsBehind(streamNextOffset, lengths)
  values.forEach((value, index) => {
    /** @type {Message} */
    const message = { stream, contentType, data: value, offset: offsets[index] }
    const time = times?.[index]
    messages.push(typeof time === "number" ? { ...message, time: new Date(time) } : message)
  })
}

/**
 * The offset behind each message of a batch. The second half of an offset is a position, in 16 hexadecimal digits: it counts
 * the messages of a JSON stream, and the bytes of others.
 * @param {string} next The offset behind the last message.
 * @param {number[]} lengths How many positions each message takes.
 */
function offsetsBehind(next, lengths) {
  const [, epoch, digits] = /^([0-9a-f]{16}_)([0-9a-f]{16})$/.exec(next) ?? []
  if (lengths.length <= 1 || digits === undefined) return [...lengths.slice(1).map(() => undefined), next]
  let position = BigInt(`0x${digits}`)
  const backwards = [...lengths].reverse().map((length) => {
    const offset = epoch + position.toString(16).padStart(16, "0")
    position -= BigInt(length)
    return offset
  })
  return backwards.reverse()
}

/** @param {string} base64 */
const bytesOf = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0))
