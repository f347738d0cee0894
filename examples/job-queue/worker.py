"""A worker of a job queue. It does one job at a time, and acknowledges it when it is done: worker.py NAME HOST PORT

All workers share one subscription of MQTT 5, so each job goes to one of them. Needs paho-mqtt 2.
"""

import json
import sys
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

JOBS = "$share/workers/jobs/+"

name, host, port = sys.argv[1:]


def say(text):
    print(f"{name}: {text}", flush=True)


def on_message(client, _, message):
    job = json.loads(message.payload)
    say(f"begins {job['job']}")
    # Work that takes longer than the keep-alive, 60 s, needs a thread of its own.
    time.sleep(job["seconds"])
    say(f"has done {job['job']}")
    client.ack(message.mid, message.qos)


worker = mqtt.Client(
    mqtt.CallbackAPIVersion.VERSION2, client_id=f"worker-{name}", protocol=mqtt.MQTTv5, manual_ack=True
)
worker.on_connect = lambda client, *_: client.subscribe(JOBS, qos=1)
worker.on_subscribe = lambda *_: say("waits for jobs")
worker.on_message = on_message

settings = Properties(PacketTypes.CONNECT)
# The next job comes when this one is acknowledged.
settings.ReceiveMaximum = 1
# Jobs wait for an hour while no worker is connected.
settings.SessionExpiryInterval = 3600
worker.connect(host, int(port), clean_start=False, properties=settings)
worker.loop_forever()
