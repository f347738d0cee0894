// The page of the gateway: a visitor registers the browser, closes the tab, and is woken by what is published then.
import assert from "node:assert/strict"
import { test } from "node:test"
import { firefox, notifications, PERMISSION } from "./firefox.js"
import { pushService } from "./push-service.js"
import { ask, gatewayOf, key, metric, until } from "./world.js"

// A gateway with its page in a browser.
async function open(context, permission) {
  const service = await pushService(context)
  const app = { name: "browsers", kind: "web-push", contact: "mailto:ops@gate.example", key: key(), min_interval: "0s" }
  const gateway = await gatewayOf(context, [app], ["--outbound-allow", "127.0.0.1"])
  const browser = await firefox(context, service, permission)
  const page = await browser.newPage()
  await page.goto(gateway.url)
  await page.waitForSelector("#sleep:not([hidden])")
  const stream = await page.$eval("#stream", ({ textContent }) => textContent)
  // The policy of the page forbids `waitForFunction`, which makes a function of a text.
  const said = () => page.$eval("#sleep [role=status]", ({ textContent }) => textContent)
  const says = (text) => until(`the page says: ${text}`, async () => (await said()).includes(text))
  return { service, gateway, browser, page, stream, says }
}

test("a closed tab is woken, reads from its offset, and shows what it read", { timeout: 180_000 }, async (context) => {
  const { service, gateway, browser, page, stream, says } = await open(context)
  await page.click("#sleep .start")
  await says("Registered for an hour")
  const device = await page.evaluate(() => localStorage.getItem("pollgate device"))
  const state = async () => (await ask(gateway, "GET", `/v1/devices/${device}`)).json()
  const publish = (text) => ask(gateway, "POST", `/v1/stream/${stream}`, { n: 1, text })
  const offset = (await state()).streams[stream]
  await publish("while it is open")
  await until("the tab has read it", async () => {
    const { pending, streams } = await state()
    return !pending && streams[stream] !== offset
  })
  assert.equal(service.posted.length, 0)

  // Opened now, since Firefox opens no tab while a notification is shown in a window of its own.
  const other = await browser.newPage()
  await page.close()
  await publish("while it is closed")
  await until("the wake is confirmed", async () => (await metric(gateway, 'pollgate_wake_polls_total{provider="web-push"}')) === 1)
  const expected = [{ title: "pollgate woke this browser", body: "One message, the last one: while it is closed" }]
  assert.deepEqual(await notifications(other, gateway.url), expected)
  await until("nothing is pending", async () => !(await state()).pending)
  assert.equal(service.posted.length, 1)
})

test("a browser that was registered can be forgotten", { timeout: 180_000 }, async (context) => {
  const { gateway, page, says } = await open(context)
  await page.click("#sleep .start")
  await says("Registered for an hour")
  const device = await page.evaluate(() => localStorage.getItem("pollgate device"))
  await page.click("#sleep .stop")
  await says("Not registered any more")
  assert.equal((await fetch(`${gateway.url}/v1/devices/${device}`)).status, 404)
  assert.equal(await page.evaluate(() => navigator.serviceWorker.getRegistrations().then(({ length }) => length)), 0)
})

test("a browser that refuses notifications is told so", { timeout: 180_000 }, async (context) => {
  const { page, says } = await open(context, PERMISSION.refused)
  await says("This browser refuses notifications of this page")
  assert.equal(await page.$eval("#sleep .start", ({ hidden }) => hidden), true)
})
