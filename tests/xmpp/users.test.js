// Programs that people use, as users of a Prosody whose component the gateway is.
import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { dirname, join } from "node:path"
import { text } from "node:stream/consumers"
import { test } from "node:test"
import { fileURLToPath } from "node:url"
import { World } from "./component.js"
import { Prosody } from "./prosody.js"
import { SERVICE } from "./server.js"

const folder = dirname(fileURLToPath(import.meta.url))

// What hangs has failed.
const options = { timeout: 60_000 }

test("nbxmpp, the library of Gajim, uses what its modules have for publish-subscribe", options, async (context) => {
  const world = await World.start(Prosody, context)
  const [host, port, jid, password] = world.server.login("alice")
  const command = [join(folder, "gajim/user.py"), `${host}:${port}`, jid, password, SERVICE]
  const python = spawn(join(folder, "gajim/.venv/bin/python"), command, { stdio: ["ignore", "pipe", "inherit"], timeout: 50_000 })
  const { published, "published again": again, events, ...outcome } = JSON.parse(await text(python.stdout))
  assert.deepEqual(outcome, {
    identities: [["pubsub", "service"]],
    nodes: ["a/b"],
    subscribed: "a/b",
    subscriptions: ["a/b"],
    items: [published, again],
    purged: { error: "feature-not-implemented" },
    retracted: { error: "feature-not-implemented" },
    deleted: true,
  })
  assert.deepEqual(events, [
    { node: "a/b", id: again, deleted: false, content: '{"n":1}' },
    { node: "a/b", id: null, deleted: true, content: null },
  ])
})

test("profanity finds the service, subscribes from its XML console, and shows what is published", options, async (context) => {
  const world = await World.start(Prosody, context)
  await world.create("a/b")
  const [host, port, jid, password] = world.server.login("alice")
  const command = [join(folder, "profanity.py"), host, port, jid, password, join(world.folder, "profanity")]
  const profanity = spawn("python3", command, { stdio: ["pipe", "pipe", "inherit"], timeout: 50_000 })
  const exited = once(profanity, "exit")
  let shown = ""
  profanity.stdout.on("data", (bytes) => (shown += bytes))
  const shows = async (wanted) => {
    while (!wanted.test(shown)) await once(profanity.stdout, "data")
    shown = ""
  }
  const types = (line) => profanity.stdin.write(`${line}\n`)
  try {
    await shows(/logged in successfully/)
    types(`/disco items ${SERVICE}`)
    await shows(/Service discovery items for streams\.localhost:[^]*streams\.localhost/)
    types("/xmlconsole")
    await shows(/XML Console/)
    types(
      `<iq id='1' type='set' to='${SERVICE}'><pubsub xmlns='http://jabber.org/protocol/pubsub'><subscribe node='a/b' jid='${jid}'/></pubsub></iq>`,
    )
    await shows(/RECV:[^]*subscription="subscribed"/)
    const offset = await world.append("a/b", '{"n":1}')
    await shows(new RegExp(`RECV:[^]*<item id="${offset}"><json xmlns="urn:xmpp:json:0">{&quot;n&quot;:1}</json>`))
  } finally {
    // Before its folder is removed, in which it writes.
    profanity.kill()
    await exited
  }
})
