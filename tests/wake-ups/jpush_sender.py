"""Sends with the official library of JPush to a fake, and prints what it made of the answers."""

import json
import sys

import jpush
from jpush import common

common.ZONES["DEFAULT"]["PUSH"] = sys.argv[1] + "/v3/"
client = jpush.JPush("a" * 24, "b" * 24)


def send(registration):
    push = client.create_push()
    push.audience = jpush.audience(jpush.registration_id(registration))
    push.message = jpush.message(msg_content="poll", extras={"pollgate": "0123456789abcdef"})
    push.options = {"time_to_live": 86400, "apns_production": True, "apns_collapse_id": "pollgate"}
    push.platform = jpush.all_
    try:
        return push.send().payload["msg_id"]
    except common.JPushFailure as failure:
        return failure.error_code


print(json.dumps([send("alive"), send("dead")]))
