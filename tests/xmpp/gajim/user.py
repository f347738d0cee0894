"""A user with nbxmpp, the library of Gajim, who does what the modules for publish-subscribe and service discovery can do.

Arguments: address of the server, address and password of the user, and the service. Prints what came of it, as JSON.
"""

import json
import sys
from functools import partial

from gi.repository import GLib
from nbxmpp.client import Client
from nbxmpp.const import ConnectionProtocol, ConnectionType
from nbxmpp.errors import StanzaError
from nbxmpp.protocol import JID, Presence
from nbxmpp.simplexml import Node
from nbxmpp.structs import StanzaHandler

JSON = "urn:xmpp:json:0"


class User:
    def __init__(self, server, jid, password, service):
        self.loop = GLib.MainLoop()
        self.outcome = {"events": []}
        self.service = JID.from_string(service)
        jid = JID.from_string(jid)
        self.client = Client()
        self.client.set_username(jid.localpart)
        self.client.set_domain(jid.domain)
        self.client.set_password(password)
        self.client.set_resource("gajim")
        self.client.set_custom_host(server, ConnectionProtocol.TCP, ConnectionType.PLAIN)
        self.client.subscribe("connected", self.begin)
        self.client.subscribe("connection-failed", self.failed)
        self.client.subscribe("disconnected", self.failed)
        self.client.register_handler(StanzaHandler(name="message", callback=self.heard, priority=60))
        self.client.connect()
        self.loop.run()

    def failed(self, *_):
        sys.exit(f"no connection: {self.client.get_error()}")

    def heard(self, _client, _stanza, properties):
        event = properties.pubsub_event
        if event is None:
            return
        told = {"node": event.node, "id": event.id, "deleted": event.deleted}
        told["content"] = event.item.getTagData("json") if event.item is not None else None
        self.outcome["events"].append(told)
        self.finish_if_over()

    def begin(self, *_):
        self.client.send_stanza(Presence())
        self.client.send_stanza(Presence(to=self.service))
        pubsub, disco = self.client.get_module("PubSub"), self.client.get_module("Discovery")
        item = Node("json", attrs={"xmlns": JSON}, payload=['{"n":1}'])
        service = {"jid": self.service, "callback": self.done}
        # Each with what is shown of its result.
        self.steps = [
            ("published", partial(pubsub.publish, "a/b", item, **service), lambda result: result.id),
            ("identities", partial(disco.disco_info, **service), lambda info: [[one.category, one.type] for one in info.identities]),
            ("nodes", partial(disco.disco_items, **service), lambda found: [entry.node for entry in found.items]),
            ("subscribed", partial(pubsub.subscribe, "a/b", **service), lambda result: result.node),
            ("subscriptions", partial(pubsub.get_subscriptions, **service), lambda found: [entry.node for entry in found]),
            ("published again", partial(pubsub.publish, "a/b", item, **service), lambda result: result.id),
            ("items", partial(pubsub.request_items, "a/b", 9, **service), lambda found: [one.getAttr("id") for one in found]),
            ("purged", partial(pubsub.purge, "a/b", **service), str),
            ("retracted", partial(pubsub.retract, "a/b", "x", **service), str),
            ("deleted", partial(pubsub.delete, "a/b", **service), lambda _: True),
        ]
        self.next()

    def next(self):
        if self.steps:
            self.steps[0][1]()
        self.finish_if_over()

    def done(self, task):
        name, _, shown = self.steps.pop(0)
        try:
            self.outcome[name] = shown(task.finish())
        except StanzaError as error:
            self.outcome[name] = {"error": error.condition}
        self.next()

    def finish_if_over(self):
        """The last request is answered, and the user is told what it has done, in any order."""
        if not self.steps and any(event["deleted"] for event in self.outcome["events"]):
            print(json.dumps(self.outcome))
            self.loop.quit()


User(*sys.argv[1:])
