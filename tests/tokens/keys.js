// Key pairs of the issuers, and signatures by node's own cryptography, which makes whatever it is asked for.
import { constants, createHmac, createPublicKey, generateKeyPairSync, randomBytes, sign } from "node:crypto"

const RSA = (bits) => () => generateKeyPairSync("rsa", { modulusLength: bits }).privateKey
const KINDS = {
  EdDSA: () => generateKeyPairSync("ed25519").privateKey,
  ES256: () => generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey,
  RS256: RSA(2048),
  PS256: RSA(2048),
}

export const ALGORITHMS = [...Object.keys(KINDS), "HS256"]

// A key for one algorithm: `jwk`, as the issuer publishes it, and `sign(bytes)`.
export function newKey(algorithm, kid, make = KINDS[algorithm]) {
  if (algorithm === "HS256") {
    const secret = randomBytes(32)
    const jwk = { kty: "oct", k: secret.toString("base64url"), alg: algorithm, kid }
    return { algorithm, jwk, secret, sign: (bytes) => hmac(secret, bytes) }
  }
  const key = make()
  const jwk = { ...createPublicKey(key).export({ format: "jwk" }), alg: algorithm, kid, use: "sig" }
  return { algorithm, jwk, key, sign: (bytes) => signed(algorithm, key, bytes) }
}

export const newRsaKey = (bits, algorithm, kid) => newKey(algorithm, kid, RSA(bits))

export const hmac = (secret, bytes, digest = "sha256") => createHmac(digest, secret).update(bytes).digest()

// `further` changes what the algorithm would take.
export function signed(algorithm, key, bytes, further = {}) {
  if (algorithm === "EdDSA") return sign(null, bytes, key)
  const options = {
    ES256: { dsaEncoding: "ieee-p1363" },
    RS256: { padding: constants.RSA_PKCS1_PADDING },
    PS256: { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 },
  }[algorithm]
  const { digest = "sha256", ...others } = further
  return sign(digest, bytes, { key, ...options, ...others })
}
