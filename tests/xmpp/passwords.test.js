// Users with passwords (SCRAM) over WebSocket: @xmpp/client has SCRAM-SHA-1 only, stanza SCRAM-SHA-256 too.
import assert from "node:assert/strict"
import { once } from "node:events"
import { writeFile } from "node:fs/promises"
import { join } from "node:path"
import { test } from "node:test"
import { command, DOMAIN, folderOf, gatewayOf, Online, options, PUBSUB, stanza, xml } from "./online.js"

// A gateway with users, and tokens beside them.
async function withUsers(context) {
  const folder = await folderOf(context)
  command(["keygen", join(folder, "key")])
  const rights = ["--read", "inbox/{sub}/#", "--append", "#", "--create", "#"]
  const anna = command(["user", "--name", "anna", "--sha-1", ...rights], "pencil\n")
  const bob = command(["user", "--name", "bob", ...rights], "paper\n")
  assert(!`${anna}${bob}`.includes("pencil"))
  await writeFile(join(folder, "auth.toml"), `key_file = "key"\n${anna}\n${bob}\n`)
  return { folder, gateway: await gatewayOf(context, ["--auth", join(folder, "auth.toml")]) }
}

const stanzaOf = (context, gateway, username, password) => {
  const client = stanza.createClient({
    jid: `${username}@${DOMAIN}`, password, server: DOMAIN, autoReconnect: false, transports: { websocket: gateway.xmpp, bosh: false },
  })
  context.after(() => client.disconnect())
  client.connect()
  return client
}

test("a password logs a user in, and gives the user's rights", options, async (context) => {
  const { gateway } = await withUsers(context)
  const anna = await Online.of(context, gateway, "anna", "pencil")
  assert.equal(anna.jid.split("/")[0], `anna@${DOMAIN}`)
  await anna.publish("inbox/anna/1", "1")
  await anna.publish("inbox/bob/1", "1")
  const read = (node) => anna.refused("get", xml("pubsub", { xmlns: PUBSUB }, xml("items", { node })))
  assert.deepEqual([await read("inbox/anna/1"), await read("inbox/bob/1")], [null, "item-not-found"])
  const bob = stanzaOf(context, gateway, "bob", "paper")
  await once(bob, "session:started")
  assert.equal((await bob.getItems(DOMAIN, "inbox/bob/1")).items.length, 1)
})

test("a wrong password, and a name that does not exist, are refused alike", options, async (context) => {
  const { gateway } = await withUsers(context)
  const failed = (name, password) => Online.of(context, gateway, name, password).then(() => null, ({ condition }) => condition)
  assert.equal(await failed("anna", "pen"), "not-authorized")
  assert.equal(await failed("eve", "pencil"), "not-authorized")
  const bob = stanzaOf(context, gateway, "bob", "pencil")
  await once(bob, "auth:failed")
})

test("a user who is revoked is locked out within a second", options, async (context) => {
  const { gateway } = await withUsers(context)
  const anna = await Online.of(context, gateway, "anna", "pencil")
  const ended = new Promise((resolve) => anna.xmpp.on("disconnect", resolve))
  const revoked = await fetch(`${gateway.admin}/revocations`, { method: "POST", body: '{"iss":"user:","sub":"anna"}' })
  assert(revoked.ok, `answered ${revoked.status}`)
  await ended
  assert.equal(anna.errors[0].condition, "not-authorized")
  const again = await Online.of(context, gateway, "anna", "pencil").then(() => null, ({ condition }) => condition)
  assert.equal(again, "not-authorized")
})
