// Tokens of other people's issuers, whose keys the gateway fetches: accepted, and no longer when the issuer has removed the key.
import assert from "node:assert/strict"
import { test } from "node:test"
import { decodeProtectedHeader } from "jose"
import { JoseIssuer, OpenIdProvider } from "./issuers.js"
import { gatewayOf } from "./world.js"

const ALGORITHMS = ["RS256", "PS256", "ES256", "EdDSA"]
const PATIENCE = { timeout: 120_000 }

const ask = (stream, token, target = "", further = {}) => {
  const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" }
  return fetch(stream + target, { headers, ...further })
}

// Asks until the gateway has the key of a token: it fetches keys half a minute after the last ones at the earliest, and says to come
// again until then.
async function askPatiently(stream, token) {
  for (;;) {
    const response = await ask(stream, token)
    if (response.status !== 503) return response
    assert.match(response.headers.get("retry-after"), /^[1-9][0-9]*$/)
    await new Promise((resolve) => setTimeout(resolve, 500))
  }
}

test("an OpenID provider's tokens give access, until the provider removes their key", PATIENCE, async (context) => {
  const providers = await Promise.all(ALGORITHMS.map((algorithm) => OpenIdProvider.start(context, algorithm, ["first", "second", "third"])))
  for (const provider of providers) provider.publish("first", "second")
  const gateway = await gatewayOf(context, providers)
  await Promise.all(providers.map(async (provider, index) => {
    const stream = `${gateway.url}/v1/stream/news/${index}`
    const first = await provider.token()
    const { typ, kid } = decodeProtectedHeader(first)
    assert.deepEqual([typ, kid], ["at+jwt", "first"])
    await askPatiently(stream, first)
    assert((await ask(stream, first, "", { method: "PUT" })).ok)
    assert((await ask(stream, first, "", { method: "POST", body: "[1]" })).ok)
    assert.equal((await ask(stream, await provider.token("https://other.example"))).status, 401)
    provider.publish("second", "first")
    const second = await provider.token()
    assert.equal(decodeProtectedHeader(second).kid, "second")

    const live = "?offset=now&live=sse"
    const [ends, goesOn] = [await ask(stream, first, live), await ask(stream, second, live)]
    const held = ask(stream, first, "?offset=now&live=long-poll&timeout=100")

    provider.publish("third", "second")
    const third = await provider.token()
    assert.equal((await ask(stream, third)).status, 503)
    assert.equal((await askPatiently(stream, third)).status, 200)
    assert.equal((await ask(stream, first)).status, 401)
    assert.equal((await ask(stream, second)).status, 200)
    assert.match(await ends.text(), /"end":"revoked"/)
    assert.equal((await held).status, 204)
    // The stream of the second key has not ended: it still brings messages.
    const reader = goesOn.body.pipeThrough(new TextDecoderStream()).getReader()
    await ask(stream, third, "", { method: "POST", body: '["last"]' })
    for (let text = ""; !text.includes("last"); ) {
      const { value, done } = await reader.read()
      assert(!done, text)
      text += value
    }
    await reader.cancel()
  }))
})

test("RSA keys of 2048, 3072 and 4096 bits verify tokens of jose", PATIENCE, async (context) => {
  const kinds = [2048, 3072, 4096].flatMap((modulusLength) => ["RS256", "PS256"].map((alg) => ({ alg, modulusLength })))
  const issuer = await JoseIssuer.start(context, kinds)
  const gateway = await gatewayOf(context, [issuer])
  const stream = `${gateway.url}/v1/stream/news`
  for (const key of issuer.pairs) {
    // The stream is missing, which only those are told who may read it.
    const { status } = await askPatiently(stream, await issuer.token(key))
    assert.equal(status, 404, key.kid)
    const other = issuer.pairs.find(({ jwk }) => jwk.alg !== key.jwk.alg)
    const forged = await issuer.token({ ...key, kid: other.kid })
    assert.equal((await ask(stream, forged)).status, 401, key.kid)
  }
})
