// The protocol's conformance tests. POLLGATE_URL names the gateway.
import { runConformanceTests } from "@durable-streams/server-conformance-tests"

const baseUrl = process.env.POLLGATE_URL
if (!baseUrl) throw new Error("POLLGATE_URL is not set")

runConformanceTests({ baseUrl, longPollTimeoutMs: 2000 })
