// A gateway that knows issuers.
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { start } from "../conformance/gateway.js"

// Starts a gateway for issuers of the form { name, audience, keys } or { name, audience, jwksUrl }, which ends with the test.
// Tokens whose scope contains `chat` may read, append to and create `news` and what is below it.
export async function gatewayOf(context, issuers) {
  const folder = await mkdtemp(join(tmpdir(), "pollgate-"))
  let settings = ""
  for (const [index, { name, audience, keys, jwksUrl }] of issuers.entries()) {
    if (keys) await writeFile(join(folder, `${index}.json`), JSON.stringify(keys))
    const place = keys ? `key_file = "${index}.json"` : `jwks_url = "${jwksUrl}"`
    const rights = ["read", "append", "create"].map((right) => `${right} = ["news/#"]\n`).join("")
    settings += `[[issuer]]\nname = "${name}"\naudience = "${audience}"\n${place}\n[[issuer.rule]]\nclaim = "scope"\ncontains = "chat"\n${rights}`
  }
  await writeFile(join(folder, "auth.toml"), settings)
  const gateway = await start("127.0.0.1:0", ["--auth", join(folder, "auth.toml"), "--limit", "failed_logins_max=0"], "127.0.0.1:0")
  context.after(async () => {
    await gateway.stop()
    await rm(folder, { recursive: true })
  })
  return gateway
}
