// A client that sends BOSH requests one by one, and decides itself which ones it repeats or holds back.
import assert from "node:assert/strict"
import { Agent, request as httpRequest } from "node:http"

export const DOMAIN = "gate.example"
const HTTPBIND = "http://jabber.org/protocol/httpbind"
const XBOSH = "urn:xmpp:xbosh"
const PUBSUB = "http://jabber.org/protocol/pubsub"

export class Bosh {
  // One connection for each request that is under way.
  agent = new Agent({ keepAlive: true })
  rid = 1_000_000 + Math.floor(Math.random() * 1_000_000)
  #id = 0

  static async opened(context, url, attributes = "hold='1' wait='20'") {
    const client = new Bosh(url)
    context.after(() => client.agent.destroy())
    client.opening = await client.send(client.rid, ` to='${DOMAIN}' ver='1.6' ${attributes} content='text/xml; charset=utf-8'`)
    client.sid = client.opening.match(/ sid='([0-9a-f]{32})'/)?.[1]
    assert(client.sid, client.opening)
    return client
  }

  // A client that has logged in.
  static async loggedIn(context, url, user, password = "any", attributes = undefined) {
    const client = await Bosh.opened(context, url, attributes)
    const auth = `<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>${btoa(`\0${user}\0${password}`)}</auth>`
    assert.match(await client.next("", auth), /<success/)
    assert.match(await client.next(` xmlns:xmpp='${XBOSH}' xmpp:restart='true'`), /<bind/)
    const bound = await client.next("", "<iq xmlns='jabber:client' id='b' type='set'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>")
    client.jid = bound.match(/<jid>([^<]*)<\/jid>/)[1]
    return client
  }

  constructor(url) {
    this.url = url
  }

  // Sends a body, and returns the one of the response.
  send(rid, attributes = "", payload = "", signal = undefined) {
    const sid = this.sid ? ` sid='${this.sid}'` : ""
    const body = `<body xmlns='${HTTPBIND}' rid='${rid}'${sid}${attributes}>${payload}</body>`
    return new Promise((resolve, reject) => {
      const headers = { "content-type": "text/xml; charset=utf-8", "content-length": Buffer.byteLength(body) }
      const request = httpRequest(this.url, { method: "POST", headers, agent: this.agent, signal }, async (response) => {
        try {
          assert.equal(response.statusCode, 200)
          assert.equal(response.headers["content-type"], "text/xml; charset=utf-8")
          let text = ""
          for await (const piece of response) text += piece
          resolve(text)
        } catch (error) {
          reject(error)
        }
      })
      request.on("error", reject)
      request.end(body)
    })
  }

  // Sends the next request.
  next(attributes, payload, signal) {
    return this.send(++this.rid, attributes, payload, signal)
  }

  iq(type, child) {
    return `<iq xmlns='jabber:client' id='i${this.#id++}' type='${type}' to='${DOMAIN}'>${child}</iq>`
  }

  publication(node, json) {
    const item = `<item><json xmlns='urn:xmpp:json:0'>${json}</json></item>`
    return this.iq("set", `<pubsub xmlns='${PUBSUB}'><publish node='${node}'>${item}</publish></pubsub>`)
  }

  async subscribe(node) {
    const subscribe = `<pubsub xmlns='${PUBSUB}'><subscribe node='${node}' jid='${this.jid}'/></pubsub>`
    assert.match(await this.next("", this.iq("set", subscribe)), /subscription=["']subscribed/)
  }

  // What the archive of a node has behind an id, or at all.
  async archive(node, after = undefined) {
    const set = after ? `<set xmlns='http://jabber.org/protocol/rsm'><after>${after}</after></set>` : ""
    return itemsOf(await this.next("", this.iq("set", `<query xmlns='urn:xmpp:mam:2' node='${node}'>${set}</query>`)))
  }
}

// The items of all messages in a body: their ids and contents.
export function itemsOf(body) {
  const items = body.matchAll(/<item [^>]*id=["']([^"']*)["'][^>]*><json [^>]*>([^<]*)<\/json>/g)
  return [...items].map(([, id, content]) => ({ id, content }))
}
