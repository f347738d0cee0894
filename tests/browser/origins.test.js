// Pages of other origins in Chromium: one whose name resolves to the gateway (DNS rebinding), and one with a form.
import assert from "node:assert/strict"
import { after, before, test } from "node:test"
import { chromium } from "playwright-core"
import { start } from "../conformance/gateway.js"
import { startBrowser } from "./chromium.js"

let browser
let port
let close

// An attacker's DNS: both names resolve to this machine.
const RULES = "--host-resolver-rules=MAP rebind.test 127.0.0.1,MAP elsewhere.test 127.0.0.1"

// Chromium asks its user before a page of another site may reach this machine. Not every browser does.
const UNGUARDED = "--disable-features=LocalNetworkAccessChecks"

before(async () => {
  const started = await startBrowser(chromium, [RULES, UNGUARDED])
  ;({ browser, close } = started)
  port = new URL(started.origin).port
})
after(() => close?.())

const stream = (gateway) => `${gateway.url}/v1/stream/s`

// A gateway with a stream of text.
async function serve(context, further = []) {
  const gateway = await start("127.0.0.1:0", further)
  const headers = { "content-type": "text/plain" }
  assert((await fetch(stream(gateway), { method: "PUT", body: "first", headers })).ok)
  const page = await browser.newPage()
  context.after(() => Promise.all([page.close(), gateway.stop()]))
  return { gateway, page }
}

const kept = async (gateway) => (await fetch(stream(gateway))).text()

// A page of `rebind.test` that was loaded from another server, and the responses of the gateway to its requests afterwards.
async function rebound(page, address, path, options) {
  const origin = `http://rebind.test:${address.split(":").at(-1)}`
  await page.route(`${origin}/lure`, (route) => route.fulfill({ contentType: "text/html", body: "<!doctype html>" }))
  await page.goto(`${origin}/lure`)
  return page.evaluate(async ([path, options]) => {
    const answer = await fetch(path, options)
    return { status: answer.status, text: await answer.text() }
  }, [path, options])
}

test("a page whose host name resolves to the gateway is still refused", async (context) => {
  const { gateway, page } = await serve(context)
  const admin = gateway.admin.replace("http://", "")
  for (const [address, path, options] of [
    [gateway.address, "/v1/stream/s"],
    [gateway.address, "/v1/stream/s", { method: "POST", body: "evil", headers: { "content-type": "text/plain" } }],
    [gateway.address, "/v1/stream/s", { method: "DELETE" }],
    [gateway.address, "/v1/stream/new", { method: "PUT" }],
    [gateway.address, "/"],
    [admin, "/metrics"],
    [admin, "/clients"],
  ]) {
    const { status, text } = await rebound(page, address, path, options)
    assert.equal(status, 421, `${path}: ${text}`)
    assert.match(text, /--host rebind\.test/)
  }
  const socket = (path) => page.evaluate((path) => new Promise((resolve) => {
    const socket = new WebSocket(path)
    socket.onopen = () => resolve("open")
    socket.onclose = ({ code }) => resolve(code)
  }), path)
  await rebound(page, gateway.address, "/")
  assert.equal(await socket("/v1/stream/s?live=websocket&offset=-1"), 1006)
  assert.equal(await socket("/mqtt"), 1006)
  assert.equal(await kept(gateway), "first")
})

test("a name given by --host is allowed", async (context) => {
  const { gateway, page } = await serve(context, ["--host", "rebind.test"])
  const { status, text } = await rebound(page, gateway.address, "/v1/stream/s")
  assert.deepEqual({ status, text }, { status: 200, text: "first" })
  await page.goto(`http://rebind.test:${gateway.address.split(":").at(-1)}/`)
  await page.getByRole("button", { name: "Publish" }).click()
  await page.locator(".panel", { has: page.getByRole("heading", { name: "WebSocket", exact: true }) }).getByText("1: hello").waitFor()
})

// Submits a form of a page of another site without its user, and returns the response of the gateway.
async function submit(context, url, method) {
  const page = await browser.newPage()
  context.after(() => page.close())
  await page.goto(`http://elsewhere.test:${port}/`)
  const [answer] = await Promise.all([
    page.waitForResponse((answer) => answer.url().startsWith(url)),
    page.evaluate(([url, method]) => {
      document.body.innerHTML = `<form action="${url}" method="${method}" enctype="text/plain"><input name="evil" value="1"></form>`
      document.forms[0].submit()
    }, [url, method]),
  ])
  return answer.status()
}

for (const origin of [undefined, "--origin"]) {
  test(`a form of another site ${origin ? "appends if its origin is allowed" : "appends nothing"}`, async (context) => {
    const { gateway } = await serve(context, origin ? [origin, `http://elsewhere.test:${port}`] : [])
    const status = await submit(context, stream(gateway), "post")
    assert.equal(status, origin ? 204 : 403)
    assert.equal(await kept(gateway), origin ? "firstevil=1\r\n" : "first")
    // A form with the method GET is like a link.
    assert.equal(await submit(context, stream(gateway), "get"), 200)
  })

  test(`requests of a page of another site are ${origin ? "answered if its origin is allowed" : "refused"}`, async (context) => {
    const { gateway, page } = await serve(context, origin ? [origin, `http://elsewhere.test:${port}`] : [])
    await page.goto(`http://elsewhere.test:${port}/`)
    const outcomes = await page.evaluate(async (url) => {
      const settled = (promise) => promise.then((answer) => answer.status, () => "refused")
      const source = await new Promise((resolve) => {
        const source = new EventSource(`${url}?live=sse&offset=-1`)
        source.addEventListener("control", () => resolve("open"))
        source.onerror = () => resolve("refused")
      })
      return {
        source,
        get: await settled(fetch(url)),
        put: await settled(fetch(`${url}/other`, { method: "PUT" })),
        remove: await settled(fetch(`${url}/other`, { method: "DELETE" })),
      }
    }, stream(gateway))
    const all = (value, put = value, remove = value) => ({ source: value, get: value, put, remove })
    assert.deepEqual(outcomes, origin ? { ...all(200, 201, 204), source: "open" } : all("refused"))
    assert.equal(await kept(gateway), "first")
  })
}

test("an image or a script of a page of another site is not taken from the gateway", async (context) => {
  const { gateway, page } = await serve(context)
  await page.goto(`http://elsewhere.test:${port}/`)
  const loads = (tag, url) => page.evaluate(([tag, url]) => new Promise((resolve) => {
    const element = document.createElement(tag)
    element.onload = () => resolve("loaded")
    element.onerror = () => resolve("refused")
    element.src = url
    document.body.append(element)
  }), [tag, url])
  const answers = []
  page.on("response", (answer) => answers.push(answer.status()))
  assert.equal(await loads("script", `${gateway.url}/page.js`), "refused")
  assert.equal(await loads("img", `${stream(gateway)}?live=long-poll&offset=now&client=phone`), "refused")
  assert.deepEqual(answers.filter((status) => status !== 403), [])
})

test("a document in a stream runs no script on the gateway's origin", async (context) => {
  const { gateway, page } = await serve(context)
  const document = `${gateway.url}/v1/stream/document`
  const publish = (url, type) =>
    fetch(url, { method: "PUT", body: "<script>document.title = 'evil'</script>", headers: { "content-type": type } })
  assert((await publish(document, "text/html")).ok)
  // It is a download, so the page does not navigate.
  const download = page.waitForEvent("download")
  await page.goto(document).catch(() => {})
  await (await download).cancel()
  assert((await publish(`${document}/plain`, "text/plain")).ok)
  await page.goto(`${document}/plain`)
  assert.notEqual(await page.title(), "evil")
  assert.equal(await page.evaluate(() => globalThis.origin), "null")
})
