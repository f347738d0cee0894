// Reads with the JavaScript client in Node and prints one JSON line for each message and event, for tests and trials.
// node reader.js URL STREAM[,STREAM…] COUNT [SETTINGS as JSON]; ends after COUNT messages, or at once when told to.
import { Client } from "../../clients/js/src/pollgate.js"
import { token } from "../conformance/credentials.js"

const [url, streams, count = "Infinity", options = "{}"] = process.argv.slice(2)
if (!streams) {
  console.error("node reader.js URL STREAM[,STREAM…] COUNT [OPTIONS as JSON]")
  process.exit(2)
}
const { resumeToken, from, ...rest } = JSON.parse(options)
const client = new Client(url, { token, ...rest })
const began = performance.now()
const say = (what) => console.log(JSON.stringify({ ms: Math.round(performance.now() - began), ...what }))

for (const event of ["form", "gap", "missing", "closed", "restart", "not_gateway", "error"]) {
  client.addEventListener(event, ({ detail: { subscription, error, ...detail } }) => {
    say({ event, ...detail, ...(error && { error: String(error) }) })
  })
}

let left = Number(count)
const subscription = client.subscribe(streams.split(","), { resumeToken, from }, ({ stream, data }) => {
  say({ stream, data })
  if (--left === 0) client.close()
})
process.once("SIGTERM", () => client.close())
await subscription.closed.catch(() => (process.exitCode = 1))
say({ event: "end", resumeToken: subscription.resumeToken, memory: client.memory() })
