"""What no schema says: values that the gateway has issued, and fields that only some others go with."""

import random

import schemathesis
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.core import NotSet

STREAMS = ["orders", "text", "bytes", "closed", "sensors/18"]
NAME_BYTES_MAX = 512

formats = {
    "app": st.just("push"),
    "device-token": st.from_regex(r"[a-z]{8,20}", fullmatch=True),
    "element-key": st.sampled_from(["id", "/station/id"]),
    # No request deletes it.
    "existing-stream": st.just("wakes"),
    "https-url": st.from_regex(r"https://[a-z]{1,9}\.example/[a-z]{0,9}", fullmatch=True),
    "interval": st.sampled_from(["5", "5-60"]),
    "mqtt-filter": st.sampled_from(["chat/+", "sensors/#", "+/orders"]),
    # The position in a stream that does not exist.
    "resume-token": st.just("AZ0rp4cZBo_OAw"),
    "stream-path": st.sampled_from(STREAMS).map("/v1/stream/".__add__),
    "stream-pattern": st.sampled_from(["orders", "sensors/*", "**", "a/**/b"]),
}
for name, strategy in formats.items():
    schemathesis.openapi.format(name, strategy)

PRODUCER = {"Producer-Id", "Producer-Epoch", "Producer-Seq"}
FORK = {"Stream-Forked-From", "Stream-Fork-Offset", "Stream-Fork-Sub-Offset"}
BEGINNING = {"Stream-Fork-Offset": "-1", "Stream-Fork-Sub-Offset": "0"}
VIEWS = {"/overview", "/streams", "/messages"}
ORIGIN = {"Stream-Origin", "Stream-Origin-Interval", "Stream-Origin-Poll", "Stream-Origin-Key"}


def only_valid_together(case):
    """Takes parameters from a valid request that are valid each for itself, and not together."""
    headers, query = case.headers, case.query
    if not PRODUCER <= headers.keys():
        drop(headers, PRODUCER)
    if "Stream-Forked-From" not in headers:
        drop(headers, FORK)
    # Other places may lie outside the source.
    headers.update({name: value for name, value in BEGINNING.items() if name in headers})
    if "Stream-Origin" not in headers or not isinstance(case.body, NotSet):
        drop(headers, ORIGIN)
    else:
        drop(headers, FORK | {"Stream-Closed"})
    if "Stream-TTL" in headers:
        drop(headers, {"Stream-Expires-At"})
    # Only some delivery forms look at these.
    for fields, values in ((headers, {"Client-Id": "a", "Last-Event-ID": ""}), (query, {"client": "a", "cursor": "1"})):
        fields.update({name: value for name, value in values.items() if name in fields})
    if isinstance(case.body, dict) and isinstance(case.body.get("client"), str):
        case.body["client"] = "a"
    if "live" in query and "stream" in case.path_parameters:
        query.setdefault("offset", "now")
    if "device" in case.path_parameters and isinstance(case.body, dict):
        streams = case.body.get("streams") or {}
        for name in [name for name in streams if len(name.encode()) > NAME_BYTES_MAX]:
            del streams[name]
        for channel in case.body.get("channels", []):
            # The app has no subscriptions of browsers.
            channel["credential"] = "token-of-the-device"
    for parameters in (query, case.body):
        if not isinstance(parameters, dict) or not isinstance(parameters.get("stream"), list):
            continue
        streams = [name for name in parameters["stream"] if len(name.encode()) <= NAME_BYTES_MAX]
        parameters["stream"] = streams or ["orders"]
        if len(streams) > 1 and "_" in (parameters.get("from") or ""):
            del parameters["from"]
    if len(str(query.get("after", "")).encode()) > NAME_BYTES_MAX:
        del query["after"]


def drop(fields, names):
    for name in names:
        fields.pop(name, None)


def with_whole_numbers(value):
    """Writes 1.0 as 1: for JSON Schema it is an integer, for the gateway it is not."""
    if isinstance(value, dict):
        return {key: with_whole_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_whole_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@schemathesis.hook
def before_call(context, case, kwargs):
    # What operators see as it changes has no end.
    if case.operation.path in VIEWS and case.query.get("live") == "sse":
        case.query = {name: value for name, value in case.query.items() if name != "live"}
    if case.meta is None or case.meta.generation.mode != GenerationMode.POSITIVE:
        return
    # Cases may share them.
    case.headers, case.query, case.path_parameters = case.headers.copy(), dict(case.query), dict(case.path_parameters)
    case.body = [1] if case.body == [] else with_whole_numbers(case.body)
    only_valid_together(case)
    # Most requests are for a stream that exists.
    path = case.path_parameters
    chosen = random.Random(repr((path, case.query, case.body)))
    if case.operation.path == "/messages" and case.method == "POST":
        # A stream that takes any bytes.
        case.query["stream"] = "bytes"
    # A percent sign would be sent as the beginning of an escape.
    if "%" in path.get("device", ""):
        path["device"] = "phone"
    if "stream" in path and (chosen.random() < 0.8 or len(path["stream"].encode()) > NAME_BYTES_MAX):
        path["stream"] = chosen.choice(STREAMS)
