"""A client of slixmpp that does what it is told, line by line, and says what happens to it, line by line.

Commands come as JSON on standard input. Events go as JSON to standard output: answers to commands, and notifications.
"""

import asyncio
import json
import logging
import sys
from xml.etree import ElementTree

import slixmpp
from slixmpp.exceptions import IqError, IqTimeout

PUBSUB = "http://jabber.org/protocol/pubsub"
EVENT = "http://jabber.org/protocol/pubsub#event"
RSM = "http://jabber.org/protocol/rsm"
MAM = "urn:xmpp:mam:2"
JSON = "urn:xmpp:json:0"
STANZA_ID = "urn:xmpp:sid:0"
DISCO_INFO = "http://jabber.org/protocol/disco#info"
DISCO_ITEMS = "http://jabber.org/protocol/disco#items"
CLIENT = "jabber:client"


def stay_plain(client):
    """Lets a client log in without TLS."""
    client.enable_starttls = False
    client.enable_direct_tls = False
    client.enable_plaintext = True
    client.plugin["feature_mechanisms"].unencrypted_plain = True


def say(event, **further):
    print(json.dumps({"event": event, **further}), flush=True)


def text(parent, path):
    found = parent.find(path)
    return None if found is None else found.text


def items_of(element, namespace):
    """The ids and contents of items, the content as text if it is that of a container."""
    found = []
    for item in element.iter(f"{{{namespace}}}item"):
        payload = next(iter(item), None)
        content = None if payload is None else (payload.text if len(payload) == 0 else ElementTree.tostring(payload).decode())
        found.append({"id": item.get("id"), "name": None if payload is None else payload.tag, "content": content})
    return found


def page_of(element):
    page = next(element.iter(f"{{{RSM}}}set"), None)
    return None if page is None else {"first": text(page, f"{{{RSM}}}first"), "last": text(page, f"{{{RSM}}}last")}


class Client(slixmpp.ClientXMPP):
    def __init__(self, jid, password, service, how):
        super().__init__(jid, password)
        self.announces = how == "announces"
        for plugin in ("xep_0030", "xep_0059", "xep_0060", "xep_0199"):
            self.register_plugin(plugin)
        stay_plain(self)
        if how == "resumes":
            self.register_plugin("xep_0198")
            self.add_event_handler("session_resumed", lambda _: say("resumed"))
            self.add_event_handler("disconnected", lambda _: self.connect(*self.custom_address))
        self.service = service
        self.results = []
        self.sent = []
        self.add_event_handler("session_start", self.begin)
        self.add_event_handler("disconnected", lambda reason: say("disconnected", reason=str(reason)))
        self.add_event_handler("failed_auth", lambda _: say("refused"))
        self.register_handler(
            slixmpp.xmlstream.handler.Callback(
                "all messages", slixmpp.xmlstream.matcher.MatchXPath(f"{{{CLIENT}}}message"), self.heard
            )
        )

    async def begin(self, _):
        self.send_presence()
        # Directed: the service sends notifications while it knows that the client is there.
        if self.announces:
            self.send_presence(pto=self.service)
        say("connected", jid=str(self.boundjid.full))

    def heard(self, message):
        xml = message.xml
        result = xml.find(f"{{{MAM}}}result")
        if result is not None:
            items = items_of(result, EVENT)
            self.results.append({"result": result.get("id"), "items": items})
            return
        event = xml.find(f"{{{EVENT}}}event")
        if event is not None:
            for node in event.iter(f"{{{EVENT}}}items"):
                ids = [found.get("id") for found in xml.iter(f"{{{STANZA_ID}}}stanza-id") if found.get("by") == self.service]
                say("notified", node=node.get("node"), items=items_of(event, EVENT), stanzaIds=ids)
            for node in event.iter(f"{{{EVENT}}}delete"):
                say("deleted", node=node.get("node"))

    async def request(self, kind, payload):
        """Sends a request with an XML payload, and says what it is answered."""
        iq = self.make_iq(ito=self.service, itype=kind)
        iq.append(ElementTree.fromstring(payload))
        self.results = []
        try:
            answer = await iq.send(timeout=50)
        except (IqError, IqTimeout) as error:
            failed = error.iq.xml.find(f"{{{CLIENT}}}error")
            conditions = [child.tag.split("}")[1] for child in failed] if failed is not None else []
            return {"error": conditions, "type": None if failed is None else failed.get("type")}
        xml = answer.xml
        names = [found.get("node") for found in xml.iter(f"{{{DISCO_ITEMS}}}item")]
        features = [found.get("var") for found in xml.iter(f"{{{DISCO_INFO}}}feature")]
        nodes = [found.get("node") for found in xml.iter(f"{{{PUBSUB}}}subscription")]
        fin = xml.find(f"{{{MAM}}}fin")
        return {
            "items": items_of(xml, PUBSUB),
            "page": page_of(xml),
            "nodes": names,
            "features": features,
            "subscriptions": nodes,
            "complete": None if fin is None else fin.get("complete") == "true",
            "results": self.results,
        }

    # What slixmpp's own plugins do, so that not only our XML is tried.

    async def publish(self, node, content, id=None):
        payload = ElementTree.Element(f"{{{JSON}}}json")
        payload.text = content
        answer = await self.plugin["xep_0060"].publish(self.service, node, id=id, payload=payload, timeout=50)
        item = answer.xml.find(f".//{{{PUBSUB}}}item")
        return {"id": None if item is None else item.get("id")}

    async def submit(self, node, content, id):
        """Publishes without waiting for the answer, which may be lost with the connection."""
        self.sent.append(asyncio.ensure_future(self.publish(node, content, id)))
        return {}

    async def create(self, node):
        await self.plugin["xep_0060"].create_node(self.service, node, timeout=50)
        return {}

    async def subscribe(self, node, bare=True):
        answer = await self.plugin["xep_0060"].subscribe(self.service, node, bare=bare, timeout=50)
        return {"subscription": answer["pubsub"]["subscription"]["subscription"]}

    async def unsubscribe(self, node):
        await self.plugin["xep_0060"].unsubscribe(self.service, node, bare=True, timeout=50)
        return {}

    async def ping(self):
        await self.plugin["xep_0199"].send_ping(self.service, timeout=50)
        return {}

    async def presence(self, kind=None):
        self.send_presence(pto=self.service, ptype=kind)
        return {}


async def commands(client):
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        command = json.loads(line)
        number, name = command.pop("number"), command.pop("command")
        try:
            answer = await getattr(client, name)(**command)
        except IqError as error:
            answer = {"error": [error.condition]}
        except IqTimeout:
            answer = {"error": ["timeout"]}
        say("answered", number=number, **answer)


async def main(host, port, jid, password, service, how="announces"):
    logging.basicConfig(level=logging.ERROR)
    client = Client(jid, password, service, how)
    client.connect(host, int(port))
    await commands(client)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
