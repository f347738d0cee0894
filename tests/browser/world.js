// Helpers of the scenarios of the JavaScript client.
import { start } from "../conformance/gateway.js"
import { Relay } from "../mqtt-clients/relay.js"

// Timeouts of about a tenth of the defaults.
export const QUICK = {
  envelopeTimeout: 0.7, stableAfter: 1, reprobeAfter: 1.5, backoffMin: 0.05, backoffMax: 0.5, interval: 0.1,
  hold: 2, heartbeatMin: 1,
}

// A gateway and a relay, through which it is read.
export async function world(context, { rule, further = [], mqtt } = {}) {
  const gateway = await start("127.0.0.1:0", further, mqtt)
  const relay = await Relay.to(gateway.address, rule)
  context.after(() => Promise.all([gateway.stop(), relay.close()]))
  return { gateway, relay }
}

// Appends to a stream without the client's help; several values are several messages.
export async function append(gateway, stream, ...values) {
  const answer = await fetch(`${gateway.url}/v1/stream/${stream}?create=1`, {
    method: "POST", body: JSON.stringify(values), headers: { "content-type": "application/json" },
  })
  if (!answer.ok) throw new Error(await answer.text())
}

// Waits for a condition. If it is not met within a minute, the error names it and what `describe` resolves with.
export async function until(condition, within = 60_000, describe = () => "") {
  const end = performance.now() + within
  for (;;) {
    const value = await condition()
    if (value) return value
    if (performance.now() > end) throw new Error(`not within ${within} ms: ${condition} ${await describe()}`)
    await new Promise((wait) => setTimeout(wait, 20))
  }
}

// The numbers from 0.
export const numbers = (count) => Array.from({ length: count }, (_, n) => n)

// Appends the numbers from 0 one after the other. `stop` returns how many were appended.
export function keepAppending(gateway, streamOf, every) {
  let [count, stopped] = [0, false]
  const done = (async () => {
    while (!stopped) {
      await append(gateway, streamOf(count), count)
      count++
      await new Promise((wait) => setTimeout(wait, every))
    }
  })()
  return { soFar: () => count, stop: () => ((stopped = true), done.then(() => count)) }
}
