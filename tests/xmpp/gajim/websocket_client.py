"""A client of nbxmpp, which Gajim is built on, over WebSocket: subscribes a node, and connects again when its connection is lost.

It says what happens to it on standard output, in lines of JSON.
"""

import json
import sys

from gi.repository import GLib
from nbxmpp.client import Client
from nbxmpp.const import ConnectionProtocol, ConnectionType
from nbxmpp.protocol import Iq
from nbxmpp.simplexml import Node
from nbxmpp.structs import StanzaHandler

PUBSUB = "http://jabber.org/protocol/pubsub"


def say(event, **further):
    print(json.dumps({"event": event, **further}), flush=True)


class Subscriber:
    def __init__(self, url, user, domain, password, node):
        self.domain, self.user, self.node = domain, user, node
        self.client = Client(log_context="test")
        self.client.set_domain(domain)
        self.client.set_username(user)
        self.client.set_password(password)
        self.client.set_resource("phone")
        self.client.set_custom_host(url, ConnectionProtocol.WEBSOCKET, ConnectionType.PLAIN)
        self.client.set_connection_types([ConnectionType.PLAIN])
        self.client.set_protocols([ConnectionProtocol.WEBSOCKET])
        self.client.subscribe("connected", self.connected)
        self.client.subscribe("resume-successful", lambda *_: say("resumed"))
        self.client.subscribe("resume-failed", lambda *_: say("not resumed"))
        self.client.subscribe("disconnected", self.again)
        self.client.subscribe("connection-failed", self.again)
        self.client.register_handler(StanzaHandler(name="message", callback=self.heard, priority=1))
        self.client.connect()

    def again(self, client, *_):
        error, condition, _text = client.get_error()
        say("disconnected", error=str(error), condition=condition)
        GLib.timeout_add(50, lambda: client.connect() and False)

    def connected(self, *_):
        say("connected", jid=str(self.client.get_bound_jid()))
        subscribe = Node("subscribe", attrs={"node": self.node, "jid": f"{self.user}@{self.domain}"})
        request = Iq("set", to=self.domain)
        request.addChild("pubsub", namespace=PUBSUB, payload=[subscribe])
        self.client.send_stanza(request, callback=lambda _, answer: say("subscribed", type=answer.getType()))

    def heard(self, _client, stanza, _properties):
        items = stanza.getTag("event").getTag("items").getTags("item")
        say("notified", contents=[item.getTag("json").getData() for item in items])


Subscriber(*sys.argv[1:])
GLib.MainLoop().run()
