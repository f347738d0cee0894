"""Two users of a publish-subscribe service, who do the same at each one: prints what they are answered and told, as JSON.

Arguments: host and port of the server, the service, and what archive they read: that of a node of the service, or their `own` one.
Each entry is the name of a step with the XML that came, in a form in which services can be compared: with short prefixes of
namespaces, sorted attributes, and numbers instead of ids that the service has made.
"""

import asyncio
import json
import re
import sys
from xml.etree import ElementTree

import slixmpp

from slixmpp_client import CLIENT, DISCO_INFO, DISCO_ITEMS, EVENT, JSON, MAM, PUBSUB, RSM, STANZA_ID, stay_plain

OWNER = f"{PUBSUB}#owner"
FORM = "jabber:x:data"
PREFIXES = {
    CLIENT: "",
    PUBSUB: "",
    OWNER: "",
    EVENT: "",
    DISCO_INFO: "",
    DISCO_ITEMS: "",
    MAM: "",
    RSM: "",
    STANZA_ID: "",
    FORM: "",
    JSON: "",
    f"{PUBSUB}#errors": "pubsub:",
    "urn:ietf:params:xml:ns:xmpp-stanzas": "",
    "urn:xmpp:forward:0": "",
    "urn:xmpp:delay": "",
}
# Texts for people, times, and descriptions of what a service or node offers: each service has others.
LEFT_OUT = {"text", "delay", "feature", "x"}
# Elements whose children have no order.
UNORDERED = {"error", "set", "pubsub"}


class Transcript:
    """Writes XML so that it can be compared."""

    def __init__(self, service):
        self.service = service
        self.ids = {}
        self.entries = []

    def number(self, id):
        return self.ids.setdefault(id, f"#{len(self.ids) + 1}")

    def add(self, step, elements):
        self.entries.append([step, "".join(self.write(element) for element in elements)])

    def write(self, element):
        namespace, _, name = element.tag[1:].partition("}")
        if name in LEFT_OUT:
            return ""
        name = f"{PREFIXES.get(namespace, namespace + ' ')}{name}"
        attributes = {key: self.attribute(name, key, value) for key, value in sorted(element.attrib.items())}
        said = "".join(f" {key}={value}" for key, value in attributes.items() if value is not None)
        content = (element.text or "").strip()
        if name in ("first", "last"):
            content = self.number(content)
        children = [self.write(child) for child in element]
        content += "".join(sorted(children) if name in UNORDERED else children)
        return f"<{name}{said}>{content}</>" if content else f"<{name}{said}/>"

    def attribute(self, name, key, value):
        if value == self.service:
            return "SERVICE"
        # Ids of subscriptions and stanzas, and languages.
        if key in ("subid", "xml:lang", "{http://www.w3.org/XML/1998/namespace}lang") or (key == "id" and name == "message"):
            return None
        if key == "id" and name in ("item", "result", "stanza-id"):
            return self.number(value)
        return re.sub(r"/[^/]*$", "/RESOURCE", value) if key in ("to", "from") else value


class User(slixmpp.ClientXMPP):
    def __init__(self, name, password, service, transcript):
        super().__init__(name, password)
        stay_plain(self)
        self.service = service
        self.transcript = transcript
        self.told = asyncio.Queue()
        # What the last answer said of the end of its page.
        self.page_end = None
        self.ready = asyncio.get_running_loop().create_future()
        self.add_event_handler("session_start", self.begin)
        self.register_handler(
            slixmpp.xmlstream.handler.Callback(
                "all messages",
                slixmpp.xmlstream.matcher.MatchXPath(f"{{{CLIENT}}}message"),
                lambda message: self.told.put_nowait(message.xml),
            )
        )

    async def begin(self, _):
        self.send_presence()
        self.send_presence(pto=self.service)
        self.ready.set_result(None)

    async def ask(self, step, kind, payload, to=None, has_results=False):
        """Sends a request, and writes down the answer, behind the results of an archive. Returns the ids of these."""
        iq = self.make_iq(ito=to or self.service, itype=kind)
        iq.append(ElementTree.fromstring(payload))
        try:
            answer = (await iq.send(timeout=50)).xml
            self.page_end = answer.findtext(f".//{{{RSM}}}last")
        except slixmpp.exceptions.IqError as error:
            # The server may repeat the request in the error.
            answer = [child for child in error.iq.xml if child.tag == f"{{{CLIENT}}}error"]
            for failed in answer:
                failed.attrib.pop("by", None)
                failed.attrib.pop("code", None)
        results = []
        while has_results and not self.told.empty():
            result = self.told.get_nowait().find(f"{{{MAM}}}result")
            # What is forwarded is another message in each archive.
            forwarded = result[0]
            forwarded.remove(forwarded.find(f"{{{CLIENT}}}message"))
            results.append(result)
        self.transcript.add(step, results + (list(answer) or [ElementTree.Element(f"{{{CLIENT}}}nothing")]))
        return [result.get("id") for result in results]

    async def get(self, step, payload, **further):
        await self.ask(step, "get", payload, **further)

    async def set(self, step, payload, **further):
        return await self.ask(step, "set", payload, **further)

    async def hears(self, step):
        """Writes down what the user is told next."""
        self.transcript.add(step, [await asyncio.wait_for(self.told.get(), 50)])


def pubsub(content, namespace=PUBSUB):
    return f"<pubsub xmlns='{namespace}'>{content}</pubsub>"


def publish(node, content, id=None):
    named = f" id='{id}'" if id else ""
    return pubsub(f"<publish node='{node}'><item{named}><json xmlns='{JSON}'>{content}</json></item></publish>")


def paged(items, page):
    return pubsub(f"{items}<set xmlns='{RSM}'>{page}</set>")


async def steps(alice, bob):
    """What the owner of a node and a reader do."""
    options = "".join(
        f"<field var='pubsub#{name}'><value>{value}</value></field>"
        for name, value in (("persist_items", 1), ("max_items", 10), ("notify_delete", 1))
    )
    configured = f"<configure><x xmlns='{FORM}' type='submit'>{options}</x></configure>"
    await alice.set("create", pubsub(f"<create node='a'/>{configured}"))
    await alice.set("create again", pubsub("<create node='a'/>"))
    await bob.set("create without the right", pubsub("<create node='b'/>"))

    await bob.set("subscribe", pubsub("<subscribe node='a' jid='bob@localhost'/>"))
    await bob.set("subscribe again", pubsub("<subscribe node='a' jid='bob@localhost'/>"))
    await bob.set("subscribe another user", pubsub("<subscribe node='a' jid='alice@localhost'/>"))
    await bob.set("subscribe to a missing node", pubsub("<subscribe node='missing' jid='bob@localhost'/>"))
    await bob.get("subscriptions", pubsub("<subscriptions/>"))
    await bob.get("subscriptions of a node", pubsub("<subscriptions node='a'/>"))

    await alice.set("publish", publish("a", 1))
    await bob.hears("notified")
    published = next(iter(alice.transcript.ids))
    await alice.set("publish with an id", publish("a", 2, "chosen"))
    alice.transcript.entries.append(["the id", "kept" if "chosen" in alice.transcript.ids else "replaced"])
    await bob.hears("notified of the item with an id")
    await alice.set("publish a third item", publish("a", 3))
    await bob.hears("notified of the third item")
    await bob.set("publish without the right", publish("a", 9))
    await bob.set("publish to a missing node", publish("missing", 9))
    await alice.set("publish nothing", pubsub("<publish node='a'/>"))
    await alice.set("publish an empty item", pubsub("<publish node='a'><item/></publish>"))
    await alice.set("publish two payloads", pubsub("<publish node='a'><item><a xmlns='x'/><b xmlns='x'/></item></publish>"))

    await bob.get("items", pubsub("<items node='a'/>"))
    await bob.get("the last items", pubsub("<items node='a' max_items='2'/>"))
    await bob.get("a named item", pubsub(f"<items node='a'><item id='{published}'/></items>"))
    await bob.get("an unknown item", pubsub("<items node='a'><item id='unknown'/></items>"))
    await bob.get("items of a missing node", pubsub("<items node='missing'/>"))
    await bob.get("a page", paged("<items node='a'/>", "<max>2</max>"))
    await bob.get("the page behind it", paged("<items node='a'/>", f"<max>2</max><after>{bob.page_end}</after>"))
    await bob.get("a page behind an unknown item", paged("<items node='a'/>", "<max>2</max><after>unknown</after>"))

    await bob.get("the service", f"<query xmlns='{DISCO_INFO}'/>")
    await bob.get("nodes", f"<query xmlns='{DISCO_ITEMS}'/>")
    await bob.get("a node", f"<query xmlns='{DISCO_INFO}' node='a'/>")
    await bob.get("a missing node", f"<query xmlns='{DISCO_INFO}' node='missing'/>")

    await bob.set("unsubscribe another user", pubsub("<unsubscribe node='a' jid='alice@localhost'/>"))
    await bob.set("unsubscribe", pubsub("<unsubscribe node='a' jid='bob@localhost'/>"))
    await bob.set("unsubscribe again", pubsub("<unsubscribe node='a' jid='bob@localhost'/>"))
    await bob.set("unsubscribe from a missing node", pubsub("<unsubscribe node='missing' jid='bob@localhost'/>"))

    await bob.set("retract without the right", pubsub("<retract node='a'><item id='chosen'/></retract>"))
    await alice.set("retract", pubsub("<retract node='a'><item id='chosen'/></retract>"))
    await alice.get("configuration", pubsub("<configure node='missing'/>", OWNER))
    await alice.set("an unknown request", pubsub("<unknown node='a'/>"))
    await alice.set("an instant node", pubsub("<create/>"))

    await alice.set("purge", pubsub("<purge node='a'/>", OWNER))
    await bob.set("subscribe once more", pubsub("<subscribe node='a' jid='bob@localhost'/>"))
    await bob.set("delete without the right", pubsub("<delete node='a'/>", OWNER))
    await alice.set("delete", pubsub("<delete node='a'/>", OWNER))
    await bob.hears("told of the end")
    await alice.set("delete again", pubsub("<delete node='a'/>", OWNER))


async def archive_steps(alice, bob, is_own):
    """What a reader of an archive does: that of a node, or the reader's own one."""
    node, to = ("", alice.boundjid.bare) if is_own else (" node='archived'", None)
    query = lambda content: f"<query xmlns='{MAM}' queryid='q'{node}>{content}</query>"  # noqa: E731
    page = lambda content: query(f"<set xmlns='{RSM}'>{content}</set>")  # noqa: E731

    async def read(step, content):
        return await alice.set(step, content, to=to, has_results=True)

    if not is_own:
        await alice.set("", pubsub("<create node='archived'/>"))
    for number in range(4):
        if is_own:
            bob.send_message(alice.boundjid.bare, str(number), mtype="chat")
            await asyncio.wait_for(alice.told.get(), 50)
        else:
            await alice.set("", publish("archived", number))
    alice.transcript.ids.clear()
    alice.transcript.entries = [entry for entry in alice.transcript.entries if entry[0]]
    ids = await read("archive", query(""))
    await read("a page of the archive", page("<max>3</max>"))
    await read("the page of the archive behind an id", page(f"<max>3</max><after>{ids[1]}</after>"))
    await read("the last page of the archive", page("<max>3</max><before/>"))
    await read("the page of the archive before an id", page(f"<max>3</max><before>{ids[1]}</before>"))
    await read("a page of the archive behind an unknown id", page("<after>unknown</after>"))


async def main(host, port, password, service, archive):
    transcript = Transcript(service)
    users = [User(f"{name}@localhost", password, service, transcript) for name in ("alice", "bob")]
    for user in users:
        user.connect(host, int(port))
        await asyncio.wait_for(user.ready, 50)
    await steps(*users)
    await archive_steps(*users, archive == "own")
    print(json.dumps(transcript.entries))
    for user in users:
        await user.disconnect()


asyncio.run(main(*sys.argv[1:]))
