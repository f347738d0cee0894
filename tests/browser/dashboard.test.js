// The dashboard of the admin listener, as an operator uses it.
import assert from "node:assert/strict"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before, test } from "node:test"
import { chromium } from "playwright-core"
import { start } from "../conformance/gateway.js"
import { violations } from "./axe.js"
import { startBrowser } from "./chromium.js"
import { append, until } from "./world.js"

let browser
let origin
let close

before(async () => ({ browser, origin, close } = await startBrowser(chromium)))
after(() => close?.())

// The dashboard of a gateway, with its errors and its requests.
async function open(context, options = {}, further = []) {
  const gateway = await start("127.0.0.1:0", further)
  context.after(() => gateway.stop())
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 }, ...options })
  context.after(() => page.close())
  const [complaints, requests] = [[], []]
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && complaints.push(message.text()))
  page.on("pageerror", (error) => complaints.push(String(error)))
  page.on("request", (request) => requests.push(request.url()))
  await page.goto(gateway.admin)
  return { gateway, page, complaints, requests }
}

const streamButton = (page, name) => page.getByRole("button", { name, exact: true })

async function beyondTheEdge(page) {
  return page.evaluate(() => [...document.querySelectorAll("body *")].filter((element) => {
    const { right, width } = element.getBoundingClientRect()
    return width && right > document.documentElement.clientWidth + 1 && !element.closest("svg, .visually-hidden, .rows thead")
  }).map((element) => element.outerHTML.slice(0, 80)))
}

test("streams appear with their readers, are searched for and paged", async (context) => {
  const { gateway, page, complaints, requests } = await open(context)
  for (let at = 0; at < 30; at++) await append(gateway, `orders/${String(at).padStart(2, "0")}`, at)
  await append(gateway, "<b>bold</b>", 1)
  const poll = new AbortController()
  context.after(() => poll.abort())
  fetch(`${gateway.url}/v1/stream/orders/07?offset=now&live=long-poll&timeout=50&client=phone-7`, { signal: poll.signal }).catch(() => {})
  await page.getByRole("heading", { name: "Streams" }).waitFor()
  await streamButton(page, "<b>bold</b>").waitFor()
  const rows = page.locator("#streams tr")
  await until(async () => (await rows.count()) === 25)
  await page.getByRole("button", { name: "Next page" }).click()
  await streamButton(page, "orders/29").waitFor()
  await until(async () => (await rows.count()) === 6)
  await page.getByLabel("Name contains").fill("s/07")
  await until(async () => (await rows.count()) === 1)
  await rows.getByText("1 long poll", { exact: true }).waitFor()
  await append(gateway, "orders/07", ...Array(50).fill(1))
  await until(async () => (await rows.locator("[data-label=Kept]").innerText()).endsWith("51 messages"))
  await page.getByText("phone-7").waitFor()
  await page.getByLabel("Client id contains").fill("nobody")
  await page.getByText("No client").waitFor()
  assert.deepEqual(complaints, [])
  assert.deepEqual([...new Set(requests.map((url) => new URL(url).protocol === "data:" ? gateway.admin : new URL(url).origin))], [gateway.admin])
})

test("messages are shown as text, in pages, and published by keyboard", async (context) => {
  const { gateway, page, complaints } = await open(context)
  for (let at = 0; at < 45; at++) await append(gateway, "talk", `<img src=x onerror=alert(1)> ${at}`)
  await streamButton(page, "talk").focus()
  await page.keyboard.press("Enter")
  const dialog = page.getByRole("dialog", { name: "talk" })
  const items = dialog.getByRole("listitem")
  await until(async () => (await items.count()) === 20)
  assert.equal(await items.first().locator("pre").innerText(), '"<img src=x onerror=alert(1)> 44"')
  await dialog.getByRole("button", { name: "Earlier" }).click()
  await until(async () => (await items.first().locator("pre").innerText()).endsWith(' 24"'))
  await dialog.getByLabel("Message", { exact: true }).fill("not json")
  await page.keyboard.press("Tab")
  await page.keyboard.press("Enter")
  await dialog.getByText("not valid JSON").waitFor()
  await dialog.getByLabel("Message", { exact: true }).fill('{"n":1}')
  await page.keyboard.press("Tab")
  await page.keyboard.press("Enter")
  await dialog.getByText("Published").waitFor()
  await until(async () => (await items.first().locator("pre").innerText()) === '{"n":1}')
  assert.deepEqual(await violations(page), [])
  await page.keyboard.press("Escape")
  await dialog.waitFor({ state: "hidden" })
  // The focus is back at the stream.
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "talk")
  // The browser complains of the 400.
  assert.deepEqual(complaints.filter((text) => !text.includes("status of 400")), [])
})

test("the drain asks first, and no page of another origin starts it", async (context) => {
  const { gateway, page } = await open(context)
  const foreign = await browser.newPage()
  context.after(() => foreign.close())
  await foreign.goto(origin)
  await foreign.evaluate(async (admin) => {
    await fetch(`${admin}/drain`, { method: "POST", mode: "no-cors" })
    await fetch(`${admin}/drain`, { method: "POST", headers: { "content-type": "application/json" } }).catch(() => {})
    const form = Object.assign(document.createElement("form"), { method: "post", action: `${admin}/drain` })
    document.body.append(form)
    form.submit()
  }, gateway.admin)
  await foreign.waitForURL(`${gateway.admin}/drain`)
  assert.match(await foreign.content(), /"status":403|403/)
  await page.getByRole("button", { name: "Drain…" }).click()
  const dialog = page.getByRole("dialog", { name: "Drain this gateway?" })
  await dialog.getByRole("button", { name: "Cancel" }).click()
  assert.equal(await (await fetch(`${gateway.admin}/ready`)).text(), "ready\n")
  await page.getByRole("button", { name: "Drain…" }).click()
  await dialog.getByRole("button", { name: "Drain and end" }).click()
  await page.getByRole("status").filter({ hasText: /draining|not reached/ }).waitFor()
  await until(() => fetch(`${gateway.admin}/live`).then(() => false, () => true))
})

test("with a token, the page asks for it and keeps it for its tab alone", async (context) => {
  const folder = mkdtempSync(join(tmpdir(), "dashboard-"))
  context.after(() => rmSync(folder, { recursive: true }))
  const secret = "0123456789abcdef0123456789abcdef"
  writeFileSync(join(folder, "token"), secret)
  const { page, requests } = await open(context, {}, ["--admin-token-file", join(folder, "token")])
  await page.getByLabel("Admin token").fill("wrong")
  await page.keyboard.press("Enter")
  await page.getByText("The gateway refused this token.").waitFor()
  assert.deepEqual(await violations(page), [])
  await page.getByLabel("Admin token").fill(secret)
  await page.keyboard.press("Enter")
  await page.getByRole("heading", { name: "Streams" }).waitFor()
  await page.reload()
  await page.getByRole("heading", { name: "Streams" }).waitFor()
  assert(!requests.some((url) => url.includes(secret)))
  assert.deepEqual(await page.evaluate(() => [localStorage.length, document.cookie]), [0, ""])
  const other = await browser.newPage()
  context.after(() => other.close())
  await other.goto(page.url())
  await other.getByLabel("Admin token").waitFor()
})

for (const colorScheme of ["light", "dark"]) {
  for (const width of [1280, 390]) {
    test(`nothing is cut off and axe finds nothing on a ${colorScheme} screen ${width} pixels wide`, async (context) => {
      const { gateway, page, complaints } = await open(context, { colorScheme, viewport: { width, height: 844 } })
      await append(gateway, `a/${"long-name-".repeat(20)}`, 1)
      await page.getByRole("button", { name: /^a\/long/ }).waitFor()
      assert.deepEqual(await beyondTheEdge(page), [])
      assert.deepEqual(await violations(page), [])
      const [red] = (await page.evaluate(() => getComputedStyle(document.body).backgroundColor)).match(/\d+/)
      assert.equal(red > 128, colorScheme === "light")
      await page.keyboard.press("Tab")
      assert.equal(await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle), "solid")
      assert.deepEqual(complaints, [])
    })
  }
}
