// A browser without requests of its own, and a server for pages of another origin.
import { once } from "node:events"
import { createServer } from "node:http"
import { token } from "../conformance/credentials.js"

// Its profile is new each time.
const ARGUMENTS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
  // The certificate of tests/over-tls is its own authority.
  ...(token ? ["--ignore-certificate-errors"] : []),
]

// Starts the caller's `chromium` of playwright-core with further arguments. `origin` is the other origin, with an empty page
// everywhere.
export async function startBrowser(chromium, further = []) {
  const pages = createServer((_, answer) => answer.setHeader("content-type", "text/html").end("<!doctype html>"))
  pages.listen(0, "127.0.0.1")
  await once(pages, "listening")
  const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: [...ARGUMENTS, ...further] })
  const close = async () => {
    await browser.close()
    pages.close()
    pages.closeAllConnections()
  }
  return { browser, origin: `http://127.0.0.1:${pages.address().port}`, close }
}
