// nbxmpp, which Gajim is built on, over WebSocket: a password (SCRAM-SHA-256), and a stream that is resumed.
import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { writeFile } from "node:fs/promises"
import { dirname, join } from "node:path"
import { createInterface } from "node:readline"
import { test } from "node:test"
import { fileURLToPath } from "node:url"
import { Line } from "./line.js"
import { command, DOMAIN, folderOf, gatewayOf, options } from "./online.js"

const folder = join(dirname(fileURLToPath(import.meta.url)), "gajim")

// What the client says, one event after the other.
async function* said(child) {
  for await (const line of createInterface({ input: child.stdout })) yield JSON.parse(line)
}

test("nbxmpp logs in with a password, and goes on over a new connection", options, async (context) => {
  const home = await folderOf(context)
  const [key, settings] = [join(home, "key"), join(home, "auth.toml")]
  command(["keygen", key])
  const user = command(["user", "--name", "dora", "--read", "news"], "pencil\n")
  await writeFile(settings, `key_file = "key"\n${user}\n`)
  const authorization = `Bearer ${command(["token", "--key-file", key, "--create", "news", "--append", "news"])}`
  const gateway = await gatewayOf(context, ["--auth", settings])
  const append = (content) => gateway.append("news?create=1", content, { authorization })
  await append("0")

  const line = await Line.to(context, gateway)
  const login = [line.xmpp, "dora", DOMAIN, "pencil", "news"]
  const child = spawn(join(folder, ".venv/bin/python"), [join(folder, "websocket_client.py"), ...login], { stdio: ["ignore", "pipe", "inherit"] })
  const exited = once(child, "exit")
  context.after(() => {
    child.kill("SIGKILL")
    return exited
  })
  const events = said(child)
  const contents = []
  const until = async (wanted) => {
    for (;;) {
      const { value } = await events.next()
      if (value.event === "notified") contents.push(...value.contents)
      if (value.event === wanted) return value
    }
  }
  assert.equal((await until("connected")).jid, `dora@${DOMAIN}/phone`)
  assert.equal((await until("subscribed")).type, "result")
  for (const round of ["1", "3", "5"]) {
    await append(round)
    if (round !== "1") await until("notified")
    line.close()
    await append(`${Number(round) + 1}`)
    line.open()
    await until("resumed")
  }
  while (contents.length < 6) await until("notified")
  assert.deepEqual(contents, ["1", "2", "3", "4", "5", "6"])
})
