// The protocol's conformance tests, with subscriptions.
import { runConformanceTests } from "@durable-streams/server-conformance-tests"
import { afterAll } from "vitest"
import { start } from "./gateway.js"

// They ask from this origin whether its pages may send conditional requests.
const gateway = await start(undefined, ["--origin", "https://example.com", "--outbound-allow", "127.0.0.1"])
afterAll(gateway.stop)

runConformanceTests({ baseUrl: gateway.url, longPollTimeoutMs: 2000, subscriptions: true })
