// Chromium reads from the gateway in every form of browsers, from a page of the gateway's origin and of another one. With
// tests/over-tls, the page of the gateway's origin has put a token into the cookie.
import assert from "node:assert/strict"
import { after, before, test } from "node:test"
import { chromium } from "playwright-core"
import { token } from "../conformance/credentials.js"
import { start } from "../conformance/gateway.js"
import { startBrowser } from "./chromium.js"
import { install } from "./page.js"

const FORMS = ["sse", "websocket", "ndjson", "long-poll"]

let browser
let origin
let close

before(async () => ({ browser, origin, close } = await startBrowser(chromium)))
after(() => close?.())

// A gateway with a JSON stream and a page at `at`: a file of the gateway, which is an empty page, or a page of the other
// origin.
async function world(context, at, further) {
  const gateway = await start("127.0.0.1:0", further)
  const url = `${gateway.url}/v1/stream/s`
  const publish = (method, body) =>
    fetch(url, { method, body, headers: { "content-type": "application/json" } }).then(({ ok }) => assert(ok))
  await publish("PUT")
  const page = await browser.newPage()
  context.after(() => Promise.all([page.close(), gateway.stop()]))
  await page.goto(at(gateway))
  if (token) await page.evaluate(signIn, token)
  await page.evaluate(install)
  const read = (form, offset, count) =>
    page.evaluate(([form, ...args]) => globalThis.readers[form](...args), [form, url, offset, count])
  return { url, page, publish: (value) => publish("POST", JSON.stringify(value)), read }
}

// Inside of the page.
async function signIn(token) {
  const { status } = await fetch("/v1/cookie", { method: "POST", headers: { authorization: `Bearer ${token}` } })
  if (status !== 204) throw new Error(`answered ${status}`)
}

// A cookie of the gateway is not for pages of other origins, which have no TLS.
const needsNoCookie = { skip: Boolean(token) }

for (const [whose, at, further] of [
  ["of the gateway's origin", (gateway) => `${gateway.url}/page.css`, () => []],
  ["of another origin", () => origin, () => ["--origin", origin]],
]) {
  const options = whose.includes("another") ? needsNoCookie : {}
  test(`a page ${whose} reads in every form, from one to the next by the offset`, options, async (context) => {
    const { url, page, publish, read } = await world(context, at, further())
    let [offset, n] = ["-1", 0]
    for (const form of [...FORMS, ...FORMS.toReversed()]) {
      // One message is published before, two while the page reads.
      await publish({ n: n++ })
      const reading = read(form, offset, 3)
      await publish([{ n: n++ }, { n: n++ }])
      const { messages, offset: next } = await reading
      assert.deepEqual(messages, [{ n: n - 3 }, { n: n - 2 }, { n: n - 1 }], form)
      offset = next
    }
    const { appended } = await page.evaluate(([url]) => globalThis.append(url, { n: -1 }), [url])
    assert.deepEqual(await read("sse", offset, 1), { messages: [{ n: -1 }], offset: appended })
  })
}

test("a page of an origin that is not allowed reads and publishes in no form", needsNoCookie, async (context) => {
  const { url, page, publish, read } = await world(context, () => origin, [])
  await publish(1)
  for (const form of FORMS) await assert.rejects(read(form, "-1", 1), /closed with 1006|broke|Failed to fetch/, form)
  await assert.rejects(page.evaluate(([url]) => globalThis.append(url, 2), [url]), /closed with 1006/)
  assert.equal(await (await fetch(url)).text(), "[1]")
})
