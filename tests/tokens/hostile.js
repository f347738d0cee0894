// Tokens that gateways have taken and should not have, and their harmless neighbours, for one issuer and its algorithm.
import { constants, createPublicKey, generateKeyPairSync } from "node:crypto"
import { hmac, newKey, signed } from "./keys.js"

const AUDIENCE = "gate"
const REFUSED = false
const ACCEPTED = true

const now = () => Math.floor(Date.now() / 1000)
const base64 = (text) => Buffer.from(text).toString("base64url")
const json = (value) => (typeof value === "string" || Buffer.isBuffer(value) ? value : JSON.stringify(value))

// A whole token; each part is a value, or the text that is encoded in its place.
function token(key, { header = {}, claims = {}, signature = (message) => key.sign(Buffer.from(message)), encode = [base64, base64] }) {
  const message = `${encode[0](json(header))}.${encode[1](json(claims))}`
  return `${message}.${Buffer.from(signature(message)).toString("base64url")}`
}

export function issuer(algorithm) {
  const [key, second] = [newKey(algorithm, "1"), newKey(algorithm, "2")]
  return { algorithm, name: `https://${algorithm}.example`, audience: AUDIENCE, key, keys: { keys: [key.jwk, second.jwk] }, second }
}

// Cases of the form { name, token, expected }.
export function cases({ algorithm, name: iss, key, second }) {
  const header = { alg: algorithm, typ: "JWT", kid: "1" }
  const claims = { iss, aud: AUDIENCE, sub: "anna", iat: now(), exp: now() + 600, scope: "openid chat" }
  const list = []
  const add = (expected, name, parts) =>
    list.push({ name, expected, token: typeof parts === "string" ? parts : token(key, { header, claims, ...parts }) })
  const valid = token(key, { header, claims })
  const text = JSON.stringify(claims)
  const without = (object, member) => Object.fromEntries(Object.entries(object).filter(([name]) => name !== member))

  add(ACCEPTED, "harmless", valid)
  add(ACCEPTED, "of the second key", token(second, { header: { ...header, kid: "2" }, claims }))
  add(ACCEPTED, "without a key id", { header: without(header, "kid") })
  for (const typ of ["at+jwt", "jwt", "application/at+jwt"]) add(ACCEPTED, `typ ${typ}`, { header: { ...header, typ } })
  add(ACCEPTED, "without typ", { header: without(header, "typ") })
  add(ACCEPTED, "unknown header member", { header: { ...header, unknown: { a: [1] } } })
  add(ACCEPTED, "spaces in the JSON", { header: JSON.stringify(header, null, 2), claims: `\n ${text} \t` })
  for (const aud of [[AUDIENCE], ["other", AUDIENCE]]) add(ACCEPTED, `aud ${JSON.stringify(aud)}`, { claims: { ...claims, aud } })
  for (const member of ["sub", "iat"]) add(ACCEPTED, `without ${member}`, { claims: without(claims, member) })
  add(ACCEPTED, "exp with a fraction", { claims: { ...claims, exp: now() + 600.5 } })
  add(ACCEPTED, "unicode", { claims: { ...claims, sub: "Ånna\u202e☃", "\u0000é": "𝕏" } })

  // Algorithms (RFC 8725, section 3.1).
  const empty = () => ""
  const names = ["none", "None", "NONE", "nOnE", "", " ", "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
    "ES256", "ES384", "ES512", "ES256K", "EdDSA", "Ed448", "dir", "RSA-OAEP", "A128KW", algorithm.toLowerCase() + " ", ` ${algorithm}`,
    `${algorithm}\u0000`, 0, null, true, [algorithm], { alg: algorithm }]
  for (const alg of names.filter((alg) => alg !== algorithm)) {
    add(REFUSED, `alg ${JSON.stringify(alg)}`, { header: { ...header, alg } })
    add(REFUSED, `alg ${JSON.stringify(alg)} without a signature`, { header: { ...header, alg }, signature: empty })
  }
  add(REFUSED, "without alg", { header: without(header, "alg") })
  const secrets = { "an empty one": "", "a known one": "secret", "the JWK": JSON.stringify(key.jwk) }
  if (key.key) {
    const shared = createPublicKey(key.key)
    const pem = shared.export({ format: "pem", type: "spki" })
    Object.assign(secrets, { PEM: pem, "PEM without the last line feed": pem.trimEnd(), DER: shared.export({ format: "der", type: "spki" }) })
    for (const member of ["x", "y", "n"].filter((member) => key.jwk[member]))
      Object.assign(secrets, { [member]: key.jwk[member], [`${member} in bytes`]: Buffer.from(key.jwk[member], "base64url") })
  }
  for (const [what, secret] of Object.entries(secrets))
    for (const alg of ["HS256", "HS384", "HS512"])
      add(REFUSED, `${alg} with ${what} for a secret`, { header: { ...header, alg }, signature: (message) => hmac(secret, message, `sha${alg.slice(2)}`) })

  // Types, keys and extensions (RFC 8725, sections 3.10 and 3.11; RFC 7515, section 4.1.11).
  for (const typ of ["dpop+jwt", "logout+jwt", "id_token", "secevent+jwt", "JWE", "", "JWT ", "at+jwt;x", 7, null, ["JWT"]])
    add(REFUSED, `typ ${JSON.stringify(typ)}`, { header: { ...header, typ } })
  const own = newKey(algorithm, "own")
  const bySender = (members) => token(own, { header: { ...header, ...members }, claims })
  add(REFUSED, "key of the sender", bySender({}))
  add(REFUSED, "key of the sender under its id", bySender({ kid: "own" }))
  add(REFUSED, "key of the sender in jwk", bySender({ jwk: own.jwk, kid: undefined }))
  add(REFUSED, "key of the sender at a jku", bySender({ jku: "http://127.0.0.1:1/keys" }))
  for (const member of ["jwk", "jku", "x5u", "x5c"])
    for (const value of [{ jwk: key.jwk, x5c: ["MII"] }[member] ?? "https://127.0.0.1/", null, 7])
      if (value !== null) add(REFUSED, `${member} ${typeof value}`, { header: { ...header, [member]: value } })
  for (const crit of [[], ["exp"], ["unknown"], ["b64"], "exp", {}, null, 7]) add(REFUSED, `crit ${JSON.stringify(crit)}`, { header: { ...header, crit } })
  add(REFUSED, "unencoded payload", { header: { ...header, b64: false, crit: ["b64"] }, encode: [base64, (value) => value] })
  for (const kid of ["3", "", "1 ", "../../dev/null", "1' OR '1'='1", "x".repeat(2000)]) add(REFUSED, `kid ${kid.slice(0, 20)}`, { header: { ...header, kid } })
  for (const kid of [1, null, ["1"], { kid: "1" }, true]) add(REFUSED, `kid ${JSON.stringify(kid)}`, { header: { ...header, kid } })
  add(REFUSED, "second key under the first one's id", token(second, { header, claims }))

  // Two members of one name, of which readers take different ones (RFC 7515, section 5.2).
  const twice = (first, last) => `${first.slice(0, -1)},${last.slice(1)}`
  add(REFUSED, "alg twice, none first", { header: twice('{"alg":"none"}', JSON.stringify(header)) })
  add(REFUSED, "alg twice, none last", { header: twice(JSON.stringify(header), '{"alg":"none"}') })
  add(REFUSED, "kid twice", { header: twice(JSON.stringify(header), '{"kid":"1"}') })
  add(REFUSED, "an unknown header member twice", { header: twice('{"a":1,"a":2}', JSON.stringify(header)) })
  for (const [member, other] of [["exp", 1], ["iss", "https://evil.example"], ["aud", "other"], ["sub", "eve"], ["nbf", 0], ["scope", "none"], ["other", 1]]) {
    const both = { ...claims, nbf: now(), other: 0 }
    add(REFUSED, `${member} twice, the other one first`, { claims: twice(JSON.stringify({ [member]: other }), JSON.stringify(both)) })
    add(REFUSED, `${member} twice, the other one last`, { claims: twice(JSON.stringify(both), JSON.stringify({ [member]: other })) })
  }

  // JSON that some readers take.
  for (const [what, damage] of Object.entries({
    "bytes behind it": (text) => `${text}x`, "an object behind it": (text) => `${text}{}`, "a NUL behind it": (text) => `${text}\u0000`,
    "a byte order mark": (text) => `\ufeff${text}`, "a comma at the end": (text) => `${text.slice(0, -1)},}`, "a comment": (text) => `${text.slice(0, -1)}/* */}`,
    "single quotes": (text) => text.replaceAll('"', "'"), "no end": (text) => text.slice(0, -1), "a list around it": (text) => `[${text}]`,
    "quotes around it": (text) => JSON.stringify(text), "nothing": () => "", "null": () => "null", "a number": () => "7", "an empty object": () => "{}",
    "UTF-16": (text) => Buffer.from(text, "utf16le"), "no UTF-8": (text) => Buffer.from(text.replace("{", '{"\u00ff":1,'), "latin1"),
    "a form feed": (text) => `\f${text}`, "a lone surrogate": (text) => text.replace("{", '{"\\ud800":"\\udc00",'),
    "depth": (text) => text.replace("{", `{"deep":${"[".repeat(900)}${"]".repeat(900)},`),
    "NaN": (text) => text.replace("{", '{"n":NaN,'), "Infinity": (text) => text.replace("{", '{"n":-Infinity,'), "a huge number": (text) => text.replace("{", '{"n":1e999,'),
    "a leading zero": (text) => text.replace("{", '{"n":01,'), "hexadecimal": (text) => text.replace("{", '{"n":0x1,'),
  })) {
    add(REFUSED, `header with ${what}`, { header: damage(JSON.stringify(header)) })
    add(REFUSED, `claims with ${what}`, { claims: damage(text) })
  }

  // Times of other types and sizes.
  const numbers = ["soon", `${now() + 600}`, "", null, true, [now() + 600], { t: 1 }]
  for (const member of ["exp", "nbf", "iat"])
    for (const value of numbers) add(REFUSED, `${member} ${JSON.stringify(value)}`, { claims: { ...claims, [member]: value } })
  for (const number of ["-1", "0", "-0", "1e400", "1e300", "-1e300", "1" + "0".repeat(400), "9223372036854775808", "18446744073709551616", "NaN", "Infinity", "01"]) {
    const as = (member) => ({ claims: text.replace(/"(exp|iat)":\d+/, `"${member}":${number},"was_$1":0`) })
    add(REFUSED, `exp ${number.slice(0, 20)}`, { claims: text.replace(/"exp":\d+/, `"exp":${number}`) })
    if (!number.startsWith("-") && number !== "0") for (const member of ["nbf", "iat"]) add(REFUSED, `${member} ${number.slice(0, 20)}`, as(member))
  }
  for (const [member, value] of [["exp", now() - 31], ["exp", now() - 1], ["exp", now() + 100_000], ["nbf", now() + 600], ["iat", now() + 600], ["iat", now() - 90_000]])
    add(REFUSED, `${member} ${value - now()} s from now`, { claims: { ...claims, [member]: value } })
  for (const member of ["exp", "iss", "aud", "scope"]) add(member === "scope" ? undefined : REFUSED, `without ${member}`, { claims: without(claims, member) })

  // Names of other types and almost the same.
  for (const aud of [null, 7, true, {}, { gate: 1 }, [], [null], [[AUDIENCE]], [7], "", `${AUDIENCE} `, AUDIENCE.toUpperCase(), `${AUDIENCE}\u0000`, `other ${AUDIENCE}`, `${AUDIENCE},other`, "*"])
    add(REFUSED, `aud ${JSON.stringify(aud)}`, { claims: { ...claims, aud } })
  for (const aud of [[AUDIENCE, 7], [AUDIENCE, null], [AUDIENCE, [1]]]) add(REFUSED, `aud ${JSON.stringify(aud)}`, { claims: { ...claims, aud } })
  for (const other of [null, 7, [iss], { iss }, "", `${iss}/`, iss.toUpperCase(), ` ${iss}`, `${iss}\u0000`, "pollgate"])
    add(REFUSED, `iss ${JSON.stringify(other)}`, { claims: { ...claims, iss: other } })
  for (const member of ["sub", "jti"])
    for (const value of [7, null, ["anna"], {}, true]) add(REFUSED, `${member} ${JSON.stringify(value)}`, { claims: { ...claims, [member]: value } })

  // Signatures.
  const change = (how) => ({ signature: (message) => how(key.sign(Buffer.from(message))) })
  for (const [what, how] of Object.entries({
    "nothing": empty, "zeroes": (own) => Buffer.alloc(own.length), "one byte less": (own) => own.subarray(1), "the last byte missing": (own) => own.subarray(0, -1),
    "one byte more": (own) => Buffer.concat([own, Buffer.from([0])]), "a leading zero": (own) => Buffer.concat([Buffer.from([0]), own]),
    "twice": (own) => Buffer.concat([own, own]), "one bit changed": (own) => { own[own.length - 1] ^= 1; return own },
    "the first bit changed": (own) => { own[0] ^= 0x80; return own }, "backwards": (own) => own.reverse(), "ones": (own) => Buffer.alloc(own.length, 0xff),
  })) add(REFUSED, `signature: ${what}`, change(how))
  add(REFUSED, "signature of other claims", { signature: () => Buffer.from(token(key, { header, claims: { ...claims, sub: "eve" } }).split(".")[2], "base64url") })
  const by = (which, further, signer = key) => ({ signature: (message) => signed(which, signer.key, Buffer.from(message), further) })
  if (algorithm === "ES256") {
    add(REFUSED, "signature in DER", by("ES256", { dsaEncoding: "der" }))
    for (const digest of ["sha1", "sha384", "sha512"]) add(REFUSED, `signature of ${digest}`, by("ES256", { digest }))
    const n = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n
    const bytes = (number) => Buffer.from(number.toString(16).padStart(64, "0"), "hex")
    const number = (part) => BigInt(`0x${part.toString("hex")}`)
    for (const [r, s] of [[0n, 1n], [1n, 0n], [1n, 1n], [n, n], [n, 1n], [n - 1n, 1n]])
      add(REFUSED, `signature r ${r.toString(16).slice(0, 9)} s ${s.toString(16).slice(0, 9)}`, { signature: () => Buffer.concat([bytes(r), bytes(s)]) })
    add(REFUSED, "signature s + n", change((own) => {
      const s = number(own.subarray(32)) + n
      return s < 1n << 256n ? Buffer.concat([own.subarray(0, 32), bytes(s)]) : Buffer.concat([own.subarray(0, 32), Buffer.from([1]), bytes(s & ((1n << 256n) - 1n))])
    }))
    // The other root is as good: ECDSA promises no more.
    add(ACCEPTED, "signature n - s", change((own) => Buffer.concat([own.subarray(0, 32), bytes(n - number(own.subarray(32)))])))
    const p384 = newKey("ES256", "384", () => generateKeyPairSync("ec", { namedCurve: "P-384" }).privateKey)
    add(REFUSED, "signature on P-384", { header: { ...header, alg: "ES384" }, signature: (message) => signed("ES256", p384.key, Buffer.from(message), { digest: "sha384" }) })
  }
  if (algorithm === "EdDSA") {
    const order = (1n << 252n) + 27742317777372353535851937790883648493n
    const little = (part) => BigInt(`0x${Buffer.from(part).reverse().toString("hex")}`)
    add(REFUSED, "signature S + L", change((own) => Buffer.concat([own.subarray(0, 32), Buffer.from((little(own.subarray(32)) + order).toString(16).padStart(64, "0"), "hex").reverse()])))
    add(REFUSED, "signature of a point of small order", { signature: () => Buffer.concat([Buffer.from([1]), Buffer.alloc(63)]) })
  }
  if (key.jwk.kty === "RSA") {
    const other = algorithm === "RS256" ? "PS256" : "RS256"
    add(REFUSED, `signature of ${other}`, by(other))
    add(REFUSED, `signature and name of ${other}`, { ...by(other), header: { ...header, alg: other } })
    for (const digest of ["sha1", "sha384", "sha512", "md5"]) add(REFUSED, `signature of ${digest}`, by(algorithm, { digest }))
    if (algorithm === "PS256")
      for (const saltLength of [0, 20, 31, 33, constants.RSA_PSS_SALTLEN_MAX_SIGN]) add(REFUSED, `salt of ${saltLength} bytes`, by("PS256", { saltLength }))
  }

  // The form of a token (RFC 7515, sections 2 and 7.1).
  const [h, c, s] = valid.split(".")
  const parts = (...all) => all.join(".")
  for (const [what, damaged] of Object.entries({
    "nothing": "", "dots": "..", "one part": h, "two parts": parts(h, c), "no signature, but its dot": parts(h, c, ""), "four parts": parts(h, c, s, ""), "the signature twice": parts(h, c, s, s),
    "five parts": parts(h, "", "", c, s), "a dot before": `.${valid}`, "no header": parts("", c, s), "no claims": parts(h, "", s), "parts in another order": parts(c, h, s),
    "a space before": ` ${valid}`, "a space behind": `${valid} `, "a line feed behind": `${valid}\n`, "a NUL behind": `${valid}\0`, "a space in a part": parts(h, `${c.slice(0, 8)} ${c.slice(8)}`, s),
    "a line feed in a part": parts(h, `${c.slice(0, 8)}\n${c.slice(8)}`, s), "a line feed in the signature": parts(h, c, `${s.slice(0, 8)}\r\n${s.slice(8)}`),
    "padding of the header": parts(`${h}=`, c, s), "padding of the claims": parts(h, `${c}==`, s), "padding of the signature": parts(h, c, `${s}==`), "one equals sign": parts(h, c, `${s}=`),
    "an asterisk": parts(h, c, `${s.slice(0, -1)}*`), "a percent sign": parts(h, c, `%${s}`), "no ASCII": parts(h, c, `${s}é`), "a homoglyph": valid.replace("e", "е"),
    "quotes": `"${valid}"`, "the scheme": `Bearer ${valid}`, "a comma and another": `${valid},${valid}`, "percent encoded": valid.replaceAll(".", "%2E"),
    "JSON serialization": JSON.stringify({ protected: h, payload: c, signature: s }), "general JSON serialization": JSON.stringify({ payload: c, signatures: [{ protected: h, signature: s }] }),
  })) add(REFUSED, `form: ${what}`, damaged)
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
  for (const [what, part] of [["header", h], ["claims", c], ["signature", s]]) {
    if (part.length % 4 === 0) continue
    // The last character has bits that no byte takes.
    const last = alphabet[alphabet.indexOf(part.at(-1)) + 1]
    const odd = part.slice(0, -1) + last
    add(REFUSED, `form: bits behind the ${what}`, valid.replace(part, odd))
    if (what !== "signature") add(REFUSED, `form: signed bits behind the ${what}`, { encode: [base64, base64].map((encode, index) => (index === (what === "claims" ? 1 : 0) ? (value) => encode(value).slice(0, -1) + last : encode)) })
  }
  add(REFUSED, "form: alphabet of plain base64", { claims: { ...claims, x: "???>>>~~~" }, encode: [base64, (value) => Buffer.from(value).toString("base64").replace(/=+$/, "")] })
  for (const [what, index] of [["header", 0], ["claims", 1]])
    for (const [how, text] of [["padding", "="], ["a line feed", "\n"], ["a space", " "]])
      add(REFUSED, `form: signed ${how} behind the ${what}`, { encode: [base64, base64].map((encode, at) => (at === index ? (value) => encode(value) + text : encode)) })
  add(REFUSED, "form: 8193 bytes", { claims: { ...claims, x: "x".repeat(7000) } })
  return list
}

// Tokens that a valid one becomes by chance, always the same for the same token: bytes changed, left out, doubled and moved.
export function mutants(valid, count) {
  let state = 1
  const below = (limit) => (state = (state * 48271) % 0x7fffffff) % limit
  return Array.from({ length: count }, (_, index) => {
    let bytes = Buffer.from(valid)
    for (let change = below(3); change >= 0; change -= 1) {
      const [at, other] = [below(bytes.length), below(bytes.length)]
      const [from, to] = [Math.min(at, other), Math.max(at, other)]
      const how = below(5)
      if (how === 0) bytes[at] ^= 1 << below(7)
      else if (how === 1) bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1)])
      else if (how === 2) bytes = Buffer.concat([bytes.subarray(0, at), Buffer.from([0x20 + below(95)]), bytes.subarray(at)])
      else if (how === 3) bytes = Buffer.concat([bytes.subarray(0, from), bytes.subarray(to)])
      else bytes[at] = "=.+/-_ \n~A"[below(10)].charCodeAt(0)
    }
    return { name: `mutant ${index}`, token: bytes.toString("latin1"), expected: bytes.equals(Buffer.from(valid)) ? ACCEPTED : REFUSED }
  })
}
