// Issuers that others have written, which serve their keys at a URL. mock-jwks is not among them: its moduli are in base64, and RFC
// 7518, section 6.3.1.1, requires base64url.
import assert from "node:assert/strict"
import { once } from "node:events"
import { createServer } from "node:http"
import { exportJWK, generateKeyPair, SignJWT } from "jose"
import Provider from "oidc-provider"

const AUDIENCE = "gate"
const LIFE_SECONDS = 600

async function serve(context, answer) {
  // A client may use an idle connection at the moment at which it would be closed.
  const server = createServer({ keepAliveTimeout: 0 }, (request, response) => answer(request, response)).listen(0, "127.0.0.1")
  await once(server, "listening")
  context.after(() => {
    server.closeAllConnections()
    server.close()
  })
  return `http://127.0.0.1:${server.address().port}`
}

async function newKey(alg, kid, options) {
  const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true, ...options })
  const members = { alg, kid, use: "sig" }
  return { kid, privateKey, jwk: { ...(await exportJWK(publicKey)), ...members }, own: { ...(await exportJWK(privateKey)), ...members } }
}

// An OpenID provider, whose access tokens are JSON Web Tokens (RFC 9068) for the gateway.
export class OpenIdProvider {
  #algorithm
  #answer

  static async start(context, algorithm, kids) {
    const provider = new OpenIdProvider()
    provider.#algorithm = algorithm
    provider.name = await serve(context, (...exchange) => provider.#answer(...exchange))
    provider.pairs = Object.fromEntries(await Promise.all(kids.map(async (kid) => [kid, await newKey(algorithm, kid)])))
    return Object.assign(provider, { audience: AUDIENCE, jwksUrl: `${provider.name}/jwks` })
  }

  // Publishes keys from now on, and signs with the first one.
  publish(...kids) {
    const resource = { scope: "chat", audience: AUDIENCE, accessTokenTTL: LIFE_SECONDS, accessTokenFormat: "jwt", jwt: { sign: { alg: this.#algorithm } } }
    const provider = new Provider(this.name, {
      jwks: { keys: kids.map((kid) => this.pairs[kid].own) },
      clients: [{ client_id: "phone", client_secret: "a secret", grant_types: ["client_credentials"], redirect_uris: [], response_types: [], id_token_signed_response_alg: this.#algorithm }],
      ttl: { ClientCredentials: LIFE_SECONDS },
      features: {
        devInteractions: { enabled: false },
        clientCredentials: { enabled: true },
        resourceIndicators: { enabled: true, defaultResource: () => "https://gate.example", getResourceServerInfo: (_, name) => ({ ...resource, audience: name === "https://gate.example" ? AUDIENCE : name }) },
      },
      clientBasedCORS: () => false,
    })
    this.#answer = provider.callback()
  }

  // A token for this gateway, or for another resource.
  async token(resource = "https://gate.example") {
    const body = new URLSearchParams({ grant_type: "client_credentials", scope: "chat", resource })
    const authorization = `Basic ${Buffer.from("phone:a%20secret").toString("base64")}`
    const response = await fetch(`${this.name}/token`, { method: "POST", headers: { authorization }, body })
    assert.equal(response.status, 200, await response.clone().text())
    return (await response.json()).access_token
  }
}

// A set of keys at a URL, with tokens that `jose` signs.
export class JoseIssuer {
  static async start(context, kinds) {
    const issuer = new JoseIssuer()
    issuer.pairs = await Promise.all(kinds.map(({ alg, modulusLength }) => newKey(alg, `${alg} of ${modulusLength} bits`, { modulusLength })))
    const name = await serve(context, (_, response) => response.end(JSON.stringify({ keys: issuer.pairs.map(({ jwk }) => jwk) })))
    return Object.assign(issuer, { name, audience: AUDIENCE, jwksUrl: `${name}/keys` })
  }

  token({ kid, jwk, privateKey }) {
    const token = new SignJWT({ scope: "chat" }).setProtectedHeader({ alg: jwk.alg, typ: "at+jwt", kid })
    return token.setIssuer(this.name).setAudience(AUDIENCE).setSubject("phone").setIssuedAt().setExpirationTime("10m").sign(privateKey)
  }
}
