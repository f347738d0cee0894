// The Durable Streams server of Node.js, with messages in memory. Arguments: port, milliseconds for which a long poll is held.
import { DurableStreamTestServer } from "@durable-streams/server"

const [port, longPollTimeout] = process.argv.slice(2).map(Number)

await new DurableStreamTestServer({ port, host: "127.0.0.1", longPollTimeout }).start()
