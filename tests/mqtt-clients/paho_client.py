"""A client of paho that does what it is told, line by line, and says what happens to it, line by line.

Commands come as JSON on standard input: connect, subscribe, publish, disconnect. Events go as JSON to standard output.
"""

import json
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


def say(event, **further):
    print(json.dumps({"event": event, **further}), flush=True)


def session_expiry(seconds):
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = seconds
    return properties


class Client:
    def connect(self, host, port, version, client_id, transport, clean, will=None, token=None, certificate=None):
        is_v5 = version == "5"
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=client_id,
            # In 5 that is said with the connection.
            clean_session=None if is_v5 else clean,
            protocol=mqtt.MQTTv5 if is_v5 else mqtt.MQTTv311,
            transport=transport,
        )
        self.client.on_connect = lambda _c, _u, flags, reason, _p: say(
            "connected", reason=reason.value, sessionPresent=flags.session_present
        )
        self.client.on_subscribe = lambda _c, _u, _id, reasons, _p: say(
            "subscribed", granted=[reason.value for reason in reasons]
        )
        self.client.on_publish = lambda _c, _u, _id, reason, _p: say("published", reason=reason.value)
        self.client.on_message = lambda _c, _u, message: say(
            "message",
            topic=message.topic,
            text=message.payload.decode(),
            qos=message.qos,
            retain=bool(message.retain),
        )
        self.client.on_disconnect = lambda _c, _u, _flags, reason, _p: say("disconnected", reason=reason.value)
        if will:
            self.client.will_set(**will)
        if token:
            self.client.username_pw_set("any", token)
            self.client.tls_set(certificate)
        if transport == "websockets":
            self.client.ws_set_options(path="/mqtt")
        further = {"clean_start": clean, "properties": session_expiry(0 if clean else 3600)} if is_v5 else {}
        self.client.connect(host, port, **further)
        self.client.loop_start()

    def subscribe(self, topic, qos):
        self.client.subscribe(topic, qos)

    def publish(self, topic, payload, qos, retain=False):
        self.client.publish(topic, payload, qos, retain)

    def disconnect(self):
        self.client.disconnect()


client = Client()
for line in sys.stdin:
    command = json.loads(line)
    getattr(client, command.pop("do"))(**command)
