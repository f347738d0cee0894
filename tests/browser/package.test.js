// The npm package of the JavaScript client, as its users have it: packed, installed into an empty folder, and used in Node, in
// Chromium and in TypeScript. And the gateway serves the same files.
import assert from "node:assert/strict"
import { execFile, spawn } from "node:child_process"
import { once } from "node:events"
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { after, before, test } from "node:test"
import { promisify } from "node:util"
import { chromium } from "playwright-core"
import { startBrowser } from "./chromium.js"
import { guard } from "./guard.js"
import { append, world } from "./world.js"

const PACKAGE = new URL("../../clients/js", import.meta.url).pathname
const ROOT = new URL("../..", import.meta.url).pathname
const run = promisify(execFile)

// An empty folder with the package installed.
let app
let folder
let tarball

before(async () => {
  folder = mkdtempSync(join(tmpdir(), "package-"))
  const { stdout } = await run("npm", ["pack", "--json", "--pack-destination", folder], { cwd: PACKAGE })
  ;[tarball] = Object.values(JSON.parse(stdout))
  app = join(folder, "app")
  mkdirSync(app)
  writeFileSync(join(app, "package.json"), JSON.stringify({ private: true, type: "module" }))
  // It has no dependencies, so npm requests nothing.
  await run("npm", ["install", "--offline", "--no-audit", "--no-fund", join(folder, tarball.filename)], { cwd: app })
})

after(() => rmSync(folder, { recursive: true }))

const modules = () => readdirSync(join(PACKAGE, "src/pollgate")).map((name) => `pollgate/${name}`)

// Runs the package's own version of TypeScript, and returns its errors.
async function compile(project) {
  const compiler = join(PACKAGE, "node_modules/.bin/tsc")
  return run(compiler, ["--project", project, "--pretty", "false"]).then(() => "", ({ stdout, stderr }) => stdout + stderr)
}

test("the package has the client, its types, its README and its licenses, and nothing else", () => {
  const expected = [
    "LICENSE-APACHE", "LICENSE-MIT", "README.md", "package.json", "pollgate.d.ts", "src/pollgate.js",
    ...modules().map((name) => `src/${name}`),
  ]
  assert.deepEqual(tarball.files.map(({ path }) => path).toSorted(), expected.toSorted())
  const { dependencies } = JSON.parse(readFileSync(join(app, "node_modules/pollgate/package.json"), "utf8"))
  assert.equal(dependencies, undefined)
  for (const name of ["LICENSE-APACHE", "LICENSE-MIT"]) {
    assert.equal(readFileSync(join(PACKAGE, name), "utf8"), readFileSync(join(ROOT, name), "utf8"), name)
  }
})

test("the gateway serves the files of the package, at the same places beside each other", async (context) => {
  const { gateway } = await world(context)
  const served = async (path) => {
    const answer = await fetch(`${gateway.url}/${path}`)
    assert.equal(answer.status, 200, path)
    return answer.text()
  }
  for (const path of ["pollgate.js", ...modules()]) {
    assert.equal(await served(path), readFileSync(join(app, "node_modules/pollgate/src", path), "utf8"), path)
  }
  assert.equal(await served("pollgate.d.ts"), readFileSync(join(app, "node_modules/pollgate/pollgate.d.ts"), "utf8"))
})

test("the modules are typed, and the declarations fit them", async () => {
  assert.equal(await compile(PACKAGE), "")
})

test("a strict TypeScript project compiles against the package, and mistakes do not", async () => {
  const project = join(app, "typed")
  mkdirSync(project)
  writeFileSync(join(project, "main.ts"), TYPED)
  for (const module of ["nodenext", "esnext"]) {
    const options = {
      strict: true, noEmit: true, skipLibCheck: false, exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true,
      module, moduleResolution: module === "esnext" ? "bundler" : module, target: "es2022", lib: ["es2022", "dom"], types: [],
    }
    writeFileSync(join(project, "tsconfig.json"), JSON.stringify({ compilerOptions: options, files: ["main.ts"] }))
    assert.equal(await compile(project), "", module)
  }
})

const TYPED = `
import { Client, FORMS, GatewayError, SETTINGS, type Events, type Form, type Memory, type Message } from "pollgate"

interface Order { n: number }

const memory: Memory = JSON.parse("{}")
const client = new Client(new URL("http://127.0.0.1"), {
  forms: ["sse", "long-poll"], settings: { interval: SETTINGS.interval * 2 }, memory, share: "mine",
  headers: async () => ({ "x-key": "k" }), token: () => Promise.resolve(null),
})
const first: Form | undefined = FORMS[0]
client.addEventListener("form", ({ detail: { to, reason } }) => console.log(first, to.length, reason.length))
client.addEventListener("restart", ({ detail }: CustomEvent<Events["restart"]>) => detail.wait.toFixed())
const subscription = client.subscribe("orders", { resumeToken: "", from: "earliest" }, ({ data }: Message<Order>) => data.n)
const number: number[] = []
for await (const { stream, data } of client.subscribe<Order>(["orders"])) number.push(data.n + stream.length)
const offset: string = await client.publish("orders", { n: 1 }, { create: true })
await subscription.closed.catch((error) => error instanceof GatewayError && error.status + (error.problem?.detail ?? offset))
new Client("/", { headers: new Headers(), token: "t" }).close()
declare const pushSubscription: PushSubscription
const key: string | undefined = (await client.wakeApps())[0]?.publicKey
await client.registerDevice({ id: key ?? "phone", streams: ["orders"], pushSubscription, quiet: { from: "22:00", to: "07:00" } })
await client.registerDevice({ id: "phone", streams: { orders: null }, channels: [{ app: "sms", credential: "+31600000001" }] })
await client.unregisterDevice("phone")

// @ts-expect-error: not a form
new Client("/", { forms: ["carrier-pigeon"] })
// @ts-expect-error: a token is a string
new Client("/", { token: 1 })
// @ts-expect-error: a device has an id
client.registerDevice({ streams: "orders" })
// @ts-expect-error: there is no such option
client.subscribe("s", { cursor: "" })
// @ts-expect-error: it is read only
subscription.resumeToken = ""
// @ts-expect-error: orders have no such field
client.subscribe<Order>("orders", ({ data }) => data.name)
// @ts-expect-error: the event has no such detail
client.addEventListener("form", ({ detail }) => detail.wait)
`

test("in Node: publish, read, and go on behind the resume token", async (context) => {
  const { gateway } = await world(context)
  writeFileSync(join(app, "main.js"), `
    import { Client } from "pollgate"
    const client = new Client(process.argv[2])
    for (const n of [1, 2]) await client.publish("s", n, { create: true })
    let resumeToken = process.argv[3] ?? ""
    const got = []
    const subscription = client.subscribe("s", { resumeToken, from: "earliest" }, ({ data }) => void got.push(data))
    while (got.length < 2 || !subscription.resumeToken) await new Promise((wait) => setTimeout(wait, 10))
    client.close()
    console.log(JSON.stringify({ got, resumeToken: subscription.resumeToken }))
  `)
  const trial = async (...further) => JSON.parse((await run("node", ["main.js", gateway.url, ...further], { cwd: app })).stdout)
  const first = await trial()
  assert.deepEqual(first.got, [1, 2])
  await append(gateway, "s", 0)
  assert.deepEqual((await trial(first.resumeToken)).got, [0, 1, 2])
})

test("the example of its README goes on where it was after a reload", async (context) => {
  const { gateway } = await world(context)
  const [, example] = /```js\n(.*?)```/s.exec(readFileSync(join(app, "node_modules/pollgate/README.md"), "utf8"))
  assert(example.includes("http://127.0.0.1:4437"))
  // The storage of a page, in a file.
  writeFileSync(join(app, "storage.js"), `
    import { existsSync, readFileSync, writeFileSync } from "node:fs"
    const kept = existsSync("storage.json") ? JSON.parse(readFileSync("storage.json", "utf8")) : {}
    globalThis.localStorage = {
      getItem: (name) => kept[name] ?? null,
      setItem: (name, value) => writeFileSync("storage.json", JSON.stringify({ ...kept, [name]: value })),
    }
  `)
  writeFileSync(join(app, "example.js"), example.replace("http://127.0.0.1:4437", gateway.url))
  // What it prints until it has printed a message of each stream.
  const load = async (onOrder = () => {}) => {
    const program = spawn("node", ["--import", "./storage.js", "example.js"], { cwd: app, stdio: ["ignore", "pipe", "inherit"] })
    const exited = once(program, "exit")
    const lines = []
    for await (const line of createInterface({ input: program.stdout })) {
      lines.push(line)
      if (line.startsWith("orders")) await onOrder()
      if (["orders", "news"].every((stream) => lines.some((line) => line.startsWith(stream)))) break
    }
    program.kill("SIGKILL")
    await exited
    return lines.toSorted()
  }
  const expected = ["news 1", "orders { n: 1 }"]
  assert.deepEqual(await load(() => append(gateway, "news", 1)), expected)
  // It publishes another order. The message during which it was killed comes again, and none before it.
  assert.deepEqual(await load(), expected)
})

test("in Chromium: the installed files, on a page of another origin, with a token", async (context) => {
  // A page with an import map, and the files of the package as any server has them.
  const pages = createServer((request, response) => {
    const isModule = request.url.endsWith(".js")
    response.setHeader("content-type", isModule ? "text/javascript" : "text/html")
    if (isModule) return void response.end(readFileSync(join(app, request.url)))
    const imports = { pollgate: "/node_modules/pollgate/src/pollgate.js" }
    response.end(`<!doctype html><script type="importmap">${JSON.stringify({ imports })}</script>`)
  })
  pages.listen(0, "127.0.0.1")
  await once(pages, "listening")
  const origin = `http://127.0.0.1:${pages.address().port}`
  const { browser, close } = await startBrowser(chromium)
  context.after(async () => {
    await close()
    pages.close()
    pages.closeAllConnections()
  })
  const { gateway } = await world(context, { further: ["--origin", origin] })
  const proxy = await guard(context, gateway, ({ headers }) => (headers.authorization === "Bearer secret" ? undefined : 401))
  const page = await browser.newPage()
  await page.goto(origin)
  const read = (url, stream, options) =>
    page.evaluate(async ([url, stream, options]) => {
      const { Client } = await import("pollgate")
      const client = new Client(url, options)
      const changes = []
      client.addEventListener("form", ({ detail: { from, to, reason } }) => changes.push(`${from} ${to} ${reason}`))
      const got = []
      const subscription = client.subscribe(stream, { from: "earliest" }, ({ data }) => void got.push(data))
      const failed = await Promise.race([
        (async () => {
          // The second one arrives by the form; a poll has found the position of the stream before.
          for (const n of [1, 2]) {
            await client.publish(stream, n, { create: true })
            while (got.length < n) await new Promise((wait) => setTimeout(wait, 10))
          }
        })(),
        subscription.closed,
      ]).catch(({ name, status }) => `${name} ${status}`)
      client.close()
      return failed ?? { got, changes }
    }, [url, stream, options])
  assert.deepEqual(await read(gateway.url, "a"), { got: [1, 2], changes: ["null websocket start"] })
  // A preflight allows the token and any other field.
  assert.deepEqual(await read(proxy.url, "b", { token: "secret", headers: { "x-key": "k" } }),
    { got: [1, 2], changes: ["websocket sse not_supported"] })
  assert(proxy.requests.some(({ path }) => path.includes("live=sse")))
  assert(proxy.requests.every(({ headers }) => headers["x-key"] === "k" && headers.origin === origin))
  assert.equal(await read(proxy.url, "c", { token: "wrong" }), "GatewayError 401")
})
