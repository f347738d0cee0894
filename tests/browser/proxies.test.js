// Proxies in front of the gateway: express with `compression`, and nginx with a cache.
import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"
import compression from "compression"
import express from "express"
import { createProxyMiddleware } from "http-proxy-middleware"
import { start } from "../conformance/gateway.js"
import { reservedPort } from "../conformance/ports.js"
import { append, until } from "./world.js"

test("a proxy that compresses passes events and lines at once", async (context) => {
  const gateway = await start()
  const app = express()
  app.use(compression())
  app.use(createProxyMiddleware({ target: gateway.url, changeOrigin: true }))
  const server = app.listen(0, "127.0.0.1")
  // The client may use an idle connection at the moment at which it would be closed.
  server.keepAliveTimeout = 0
  await once(server, "listening")
  context.after(() => (server.close(), server.closeAllConnections(), gateway.stop()))
  await append(gateway, "s", 0)
  for (const form of ["sse", "ndjson"]) {
    const headers = { "accept-encoding": "gzip, deflate, br" }
    const leave = new AbortController()
    const url = `http://127.0.0.1:${server.address().port}/v1/stream/s?offset=now&live=${form}`
    const response = await fetch(url, { headers, signal: leave.signal })
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
    // Each message has to arrive before the next one is published.
    for (const message of [11, 12, 13]) {
      await append(gateway, "s", message)
      for (let read = ""; !read.includes(`[${message}]`); ) {
        const { value, done } = await reader.read()
        assert(!done, form)
        read += value
      }
    }
    leave.abort()
  }
})

test("a cache keeps full pages and nothing that ends at the tail", async (context) => {
  const gateway = await start("127.0.0.1:0", ["--limit", "read_bytes_max=1000"])
  const folder = await mkdtemp(join(tmpdir(), "nginx-"))
  const port = await reservedPort()
  const paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `${name}_temp_path ${folder}/${name};`)
  const location = (further) => `location / { proxy_pass http://${gateway.address}; proxy_http_version 1.1; proxy_cache z;
    add_header X-Cache $upstream_cache_status; ${further} }`
  await writeFile(join(folder, "conf"), `daemon off; master_process off; pid ${folder}/pid; error_log ${folder}/error; events {}
    http { access_log off; ${paths.join(" ")} proxy_cache_path ${folder}/cache keys_zone=z:1m; server { listen 127.0.0.1:${port};
      ${location("proxy_cache_convert_head off; proxy_cache_key $request_method$request_uri;")} } }`)
  const nginx = spawn("nginx", ["-p", folder, "-c", join(folder, "conf")], { stdio: "ignore" })
  context.after(async () => {
    nginx.kill()
    await Promise.all([once(nginx, "exit"), gateway.stop()])
    await rm(folder, { recursive: true, force: true })
  })
  const text = "x".repeat(600)
  for (const _ of [1, 2, 3]) await append(gateway, "s", text)
  const through = (path, options) => fetch(`http://127.0.0.1:${port}/v1/stream/s${path}`, options)
  await until(() => through("").then(({ ok }) => ok, () => false))

  await through("?offset=-1")
  const page = await through("?offset=-1")
  assert.equal(page.headers.get("x-cache"), "HIT")
  const tail = async () => (await fetch(`${gateway.url}/v1/stream/s`, { method: "HEAD" })).headers.get("stream-next-offset")
  const offset = await tail()
  for (const count of [1, 2, 3]) {
    await append(gateway, "s", count)
    assert.equal((await (await through(`?offset=${offset}`)).json()).length, count)
    assert.equal((await through("", { method: "HEAD" })).headers.get("stream-next-offset"), await tail())
  }
  const now = await through("?offset=now")
  assert.equal(now.headers.get("stream-next-offset"), await tail())
})
