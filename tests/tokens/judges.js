// Asks other people's libraries whether they accept a token, set up as their documentation says for an issuer with known keys.
import { spawn } from "node:child_process"
import { once } from "node:events"
import { text } from "node:stream/consumers"
import { fileURLToPath } from "node:url"
import { createLocalJWKSet, importJWK, jwtVerify } from "jose"

const file = (name) => fileURLToPath(new URL(name, import.meta.url))

// Why each library refuses each token: a list of objects, in which null stands for a library that accepts the token.
export async function judge({ algorithm, name: issuer, audience, keys }, tokens) {
  const python = spawn(file(".venv/bin/python"), [file("judges.py")], { stdio: ["pipe", "pipe", "inherit"] })
  python.stdin.end(`${JSON.stringify({ keys, algorithm, issuer, audience, tokens })}\n`)
  const [told, [code]] = await Promise.all([text(python.stdout), once(python, "exit")])
  if (code !== 0) throw new Error(`judges.py ended with ${code}`)
  const options = { algorithms: [algorithm], issuer, audience, clockTolerance: 30, requiredClaims: ["exp", "iss", "aud"] }
  // Its key sets hold public keys alone.
  const set = algorithm === "HS256" ? secretOf(keys) : createLocalJWKSet(keys)
  const byJose = await Promise.all(tokens.map((token) => ofJose(token, set, options)))
  return JSON.parse(told).map((opinions, index) => ({ ...opinions, jose: byJose[index] }))
}

function secretOf({ keys }) {
  return async ({ kid }) => {
    const fitting = keys.filter((key) => kid === undefined || key.kid === kid)
    if (fitting.length === 0) throw new Error("no key of this id")
    // Without a key id: the first one, by which all such tokens of the test are signed.
    return importJWK(fitting[0], "HS256")
  }
}

async function ofJose(token, keys, options) {
  try {
    await jwtVerify(token, keys, options)
    return null
  } catch (error) {
    // Without a key id it leaves to its caller which keys to try.
    if (error.code !== "ERR_JWKS_MULTIPLE_MATCHING_KEYS") return `${error}`
    let why
    for await (const key of error) {
      why = await jwtVerify(token, key, options).then(() => null, (error) => `${error}`)
      if (why === null) break
    }
    return why
  }
}
