// The protocol's conformance tests at an edge of a gateway. Subscriptions belong to one gateway, so they are not among these tests.
import { runConformanceTests } from "@durable-streams/server-conformance-tests"
import { afterAll } from "vitest"
import { start } from "./gateway.js"

const further = ["--origin", "https://example.com"]
const parent = await start(undefined, further)
const edge = await start(undefined, [...further, "--upstream", parent.url])

afterAll(async () => {
  await edge.stop()
  await parent.stop()
})

runConformanceTests({ baseUrl: edge.url, longPollTimeoutMs: 2000 })
