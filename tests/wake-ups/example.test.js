// The page of examples/push-to-wake in Firefox: a visitor registers the browser, closes the page, and is woken.
import assert from "node:assert/strict"
import { test } from "node:test"
import { serveExample } from "../browser/example.js"
import { firefox, notifications } from "./firefox.js"
import { pushService } from "./push-service.js"
import { append, ask, gatewayOf, key, metric, until } from "./world.js"

test("a page that was closed is woken, and shows what it has missed", { timeout: 180_000 }, async (context) => {
  const service = await pushService(context)
  const example = await serveExample(context, "push-to-wake")
  const app = { name: "web", kind: "web-push", contact: "mailto:ops@gate.example", key: key() }
  const gateway = await gatewayOf(context, [app], ["--outbound-allow", "127.0.0.1", "--origin", example.origin])
  example.gateway = gateway.url
  await ask(gateway, "PUT", "/v1/stream/news", [])
  await append(gateway, "before")
  const browser = await firefox(context, service)
  const page = await browser.newPage()
  await page.goto(example.origin)
  await page.click("#register")
  const state = () => page.$eval("#state", ({ textContent }) => textContent)
  await until("the page is registered", async () => (await state()).startsWith("Registered"))

  // Opened now, since Firefox opens no tab while a notification is shown in a window of its own.
  const other = await browser.newPage()
  await page.close()
  await append(gateway, { n: 1 })
  await until("the wake is confirmed", async () => (await metric(gateway, 'pollgate_wake_polls_total{provider="web-push"}')) === 1)
  assert.deepEqual(await notifications(other, example.origin), [{ title: "News in news", body: '{"n":1}' }])
  assert.equal(service.posted.length, 1)
})
