// The same users do the same at the publish-subscribe services of Prosody, of ejabberd, and of a gateway that is a component of Prosody.
// What they are answered and told is equal, or the difference is listed here with the section that allows it.
import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { text } from "node:stream/consumers"
import { test } from "node:test"
import { fileURLToPath } from "node:url"
import { World } from "./component.js"
import { Ejabberd } from "./ejabberd.js"
import { Prosody } from "./prosody.js"
import { OWN_SERVICE, SERVICE } from "./server.js"

const folder = dirname(fileURLToPath(import.meta.url))

// The rights that the other services give the creator of a node, and everybody.
const RIGHTS = `[[jid]]
matches = "alice@localhost"
read = ["#"]
append = ["#"]
create = ["#"]
manage = ["#"]
[[jid]]
matches = "bob@localhost"
read = ["#"]
`

// What is left out of all transcripts: what, and why.
const LEFT_OUT = [
  // Notifications of the gateway are not headlines, which RFC 6121, section 8.5.2.2, lets servers drop if a user is away: XEP-0060, "Not
  // Routing Events to Offline Storage", leaves it to the service. They have the id by which a reader goes on (XEP-0359, section 3).
  [/ type=headline/g, ""],
  [/<stanza-id [^>]*\/>/g, ""],
  // Positions and numbers of results: XEP-0059, section 2.6, wants an index only of those who offer it, and section 2.7 a count only in answer
  // to a request for it; XEP-0313, section 4.3.2, makes it optional.
  [/<count>\d+<\/>/g, ""],
  [/ index=\d+/g, ""],
  // The default of the attribute (XEP-0313, section 4.3.2).
  [/ complete=false/g, ""],
  // Names for people (XEP-0030, section 3.1).
  [/ name=[^/]*(?= type=)/g, ""],
]

// What else differs from the gateway: the step, and what a server says in it.
const DIFFERENCES = {
  Prosody: {
    // XEP-0060, section 6.1.3.1, wants bad-request and invalid-jid.
    "subscribe another user": "<error type=auth><forbidden/></>",
    // Section 7.1.3.6 only recommends further conditions.
    "publish nothing": "<error type=modify><bad-request/></>",
    "publish an empty item": "<error type=modify><bad-request/></>",
    "publish two payloads": "<error type=modify><bad-request/></>",
    // An item keeps the id that its publisher has chosen ("Node ID and Item ID Uniqueness"). The gateway's id is an offset: a log is not overwritten.
    "the id": "kept",
    // Pages are optional (section 6.5.4), and Prosody has none of items.
    "a page": "<pubsub><items node=a><item id=#1><json>1</></><item id=#2><json>2</></><item id=#3><json>3</></></></>",
    "the page behind it": "<pubsub><items node=a><item id=#1><json>1</></><item id=#2><json>2</></><item id=#3><json>3</></></></>",
    "a page behind an unknown item":
      "<pubsub><items node=a><item id=#1><json>1</></><item id=#2><json>2</></><item id=#3><json>3</></></></>",
    // An answer may say what the subscription is now (section 6.2.2).
    unsubscribe: "<pubsub><subscription jid=bob@localhost node=a subscription=none/></>",
    // The example of section 6.2.3.2 has the type cancel.
    "unsubscribe again": "<error type=modify><pubsub:not-subscribed/><unexpected-request/></>",
    // Deleting items, purging and configuring nodes are optional (sections 7.2.3.6, 8.5.3.1 and 8.2.3.1).
    "retract without the right": "<error type=auth><forbidden/></>",
    retract: "<nothing/>",
    purge: "<nothing/>",
    configuration: "<error type=cancel><item-not-found/></>",
    // RFC 6120, section 8.3.3, has both conditions.
    "an unknown request": "<error type=cancel><service-unavailable/></>",
    // Nodes without a name are optional (section 8.1.1).
    "an instant node": /^<pubsub><create node=[^ ]+\/><\/>$/,
    // The example of XEP-0059, section 2.4, has the type cancel.
    "a page of the archive behind an unknown id": "<error type=modify><item-not-found/></>",
  },
  Ejabberd: {
    // The name of a node that was asked for need not be told (XEP-0060, section 8.1.1).
    create: "<pubsub><create node=a/></>",
    // The example of section 5.6 has the name of the node at each subscription.
    "subscriptions of a node": "<pubsub><subscriptions><subscription jid=bob@localhost subscription=subscribed/></></>",
    "the id": "kept",
    // Section 7.1.3.3. The gateway does not tell those who may not create a node that it does not exist.
    "publish to a missing node": "<error type=cancel><item-not-found/></>",
    // Section 7.1.3.6 wants payload-required.
    "publish an empty item": "<error type=modify><bad-request/><pubsub:item-required/></>",
    // What is no request for a page needs no answer about a page (XEP-0059, section 2.1).
    "the last items": "<pubsub><items node=a><item id=#2><json>2</></><item id=#3><json>3</></></><set><first>#4</><last>#5</></></>",
    // Entries of a page have ids of their own (XEP-0059, section 2.2, wants any that the service understands).
    "a page": "<pubsub><items node=a><item id=#1><json>1</></><item id=#2><json>2</></></><set><first>#6</><last>#4</></></>",
    "the page behind it": "<pubsub><items node=a><item id=#3><json>3</></></><set><first>#5</><last>#5</></></>",
    // XEP-0059, section 2.4, has an error only for ids that are not in the order of the entries.
    "a page behind an unknown item": "<pubsub><items node=a/><set></></>",
    "unsubscribe again": "<error type=wait><pubsub:not-subscribed/><unexpected-request/></>",
    "retract without the right": "<error type=auth><forbidden/></>",
    retract: "<nothing/>",
    purge: "<nothing/>",
    configuration: "<error type=cancel><item-not-found/></>",
    "an instant node": /^<pubsub><create node=[^ ]+\/><\/>$/,
    "a page of the archive behind an unknown id":
      "<result id=#1 queryid=q><forwarded/></><result id=#2 queryid=q><forwarded/></><result id=#3 queryid=q><forwarded/></>" +
      "<result id=#4 queryid=q><forwarded/></><fin complete=true><set><first>#1</><last>#4</></></>",
  },
}

// What the gateway says where both servers differ from it.
const OURS = {
  "the id": "replaced",
  "publish an empty item": "<error type=modify><bad-request/><pubsub:payload-required/></>",
  "a page": "<pubsub><items node=a><item id=#1><json>1</></><item id=#2><json>2</></></><set><first>#1</><last>#2</></></>",
  "the page behind it": "<pubsub><items node=a><item id=#3><json>3</></></><set><first>#3</><last>#3</></></>",
  "a page behind an unknown item": "<error type=cancel><item-not-found/></>",
  "unsubscribe again": "<error type=cancel><pubsub:not-subscribed/><unexpected-request/></>",
  "retract without the right": "<error type=cancel><feature-not-implemented/><pubsub:unsupported feature=retract-items/></>",
  retract: "<error type=cancel><feature-not-implemented/><pubsub:unsupported feature=retract-items/></>",
  configuration: "<error type=cancel><feature-not-implemented/><pubsub:unsupported feature=config-node/></>",
  "an instant node": "<error type=modify><not-acceptable/><pubsub:nodeid-required/></>",
  purge: "<error type=cancel><feature-not-implemented/><pubsub:unsupported feature=purge-nodes/></>",
  "a page of the archive behind an unknown id": "<error type=cancel><item-not-found/></>",
}

// What the users are answered and told by a service of a server, by the steps.
async function transcript(server, service, archive) {
  const [host, port, , password] = server.login("alice")
  const command = [join(folder, "transcript.py"), host, port, password, service, archive]
  const python = spawn(join(folder, ".venv/bin/python"), command, { stdio: ["ignore", "pipe", "inherit"], timeout: 60_000 })
  const entries = JSON.parse(await text(python.stdout))
  const without = (said) => LEFT_OUT.reduce((left, [what, instead]) => left.replace(what, instead), said)
  const steps = Object.fromEntries(entries.map(([step, said]) => [step, without(said)]))
  assert.equal(Object.keys(steps).length, entries.length, "each step has a name of its own")
  return steps
}

async function ours(context) {
  const rights = await mkdtemp(join(tmpdir(), "pollgate-"))
  context.after(() => rm(rights, { recursive: true }))
  await writeFile(join(rights, "auth.toml"), RIGHTS)
  const world = await World.start(Prosody, context, ["--auth", join(rights, "auth.toml")])
  return transcript(world.server, SERVICE, "node")
}

test("users are answered and told the same by the services of Prosody and ejabberd", { timeout: 120_000 }, async (context) => {
  const expected = await ours(context)
  const alone = Object.keys(DIFFERENCES.Prosody).filter((step) => step in DIFFERENCES.Ejabberd)
  assert.deepEqual(Object.fromEntries(alone.map((step) => [step, expected[step]])), OURS)
  for (const Server of [Prosody, Ejabberd]) {
    const said = await transcript(await Server.start(context), OWN_SERVICE, "own")
    const differences = DIFFERENCES[Server.name]
    for (const [step, ours] of Object.entries(expected)) {
      const listed = differences[step]
      if (listed instanceof RegExp) assert.match(said[step], listed, `${Server.name}: ${step}`)
      else assert.equal(said[step], listed ?? ours, `${Server.name}: ${step}`)
      if (listed) assert.notEqual(said[step], ours, `${Server.name} does not differ any more: ${step}`)
    }
    assert.deepEqual(Object.keys(differences).filter((step) => !(step in said)), [], "all differences are of steps")
  }
})
