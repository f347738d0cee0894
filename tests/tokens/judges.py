"""Asks Python's libraries whether they accept tokens.

Reads lines of JSON, {"keys", "algorithm", "issuer", "audience", "tokens"}, and writes one for each: a list with an object for each
token, in which each library has the reason why it refuses the token, or null if it accepts it.
"""
import json
import sys
import time
import warnings

import jwt as pyjwt

# It warns of its own end when it is loaded, whatever the filters are.
with warnings.catch_warnings(record=True):
    from authlib.jose import JsonWebKey, JsonWebToken
from joserfc import jwt as joserfc
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry
from jwcrypto import jwk as jwcrypto_keys
from jwcrypto import jwt as jwcrypto

LEEWAY = 30
NEEDED = ["exp", "iss", "aud"]


def by_pyjwt(question, token):
    header = pyjwt.get_unverified_header(token)
    refusal = pyjwt.InvalidTokenError("no key of this id")
    for key in pyjwt.PyJWKSet.from_dict(question["keys"]).keys:
        if header.get("kid") not in (None, key.key_id):
            continue
        try:
            return pyjwt.decode(
                token,
                key,
                algorithms=[question["algorithm"]],
                audience=question["audience"],
                issuer=question["issuer"],
                leeway=LEEWAY,
                options={"require": NEEDED},
            )
        except Exception as error:
            refusal = error
    raise refusal


def options(question):
    return {
        "exp": {"essential": True},
        "iss": {"essential": True, "value": question["issuer"]},
        "aud": {"essential": True, "value": question["audience"]},
    }


def by_authlib(question, token):
    refusal = ValueError("no key")
    keys = [JsonWebKey.import_key(key) for key in question["keys"]["keys"]]

    def of_id(header, _):
        wanted = [key for key in keys if header.get("kid") in (None, key.kid)]
        if not wanted:
            raise ValueError("no key of this id")
        return wanted[current] if len(wanted) > 1 else wanted[0]

    for current in range(len(keys)):
        try:
            claims = JsonWebToken([question["algorithm"]]).decode(token, of_id, claims_options=options(question))
            return claims.validate(leeway=LEEWAY)
        except Exception as error:
            refusal = error
    raise refusal


def by_joserfc(question, token):
    refusal = ValueError("no key")
    for key in question["keys"]["keys"]:
        header = pyjwt.get_unverified_header(token)
        if header.get("kid") not in (None, key["kid"]):
            continue
        try:
            keys = KeySet.import_key_set({"keys": [key]})
            # Unknown header members must be ignored (RFC 7515, section 4), which it does not do by default.
            registry = JWSRegistry(algorithms=[question["algorithm"]], strict_check_header=False)
            decoded = joserfc.decode(token, keys, registry=registry)
            joserfc.JWTClaimsRegistry(now=int(time.time()), leeway=LEEWAY, **options(question)).validate(decoded.claims)
            return
        except Exception as error:
            refusal = error
    raise refusal


def by_jwcrypto(question, token):
    keys = jwcrypto_keys.JWKSet.from_json(json.dumps(question["keys"]))
    decoder = jwcrypto.JWT(
        algs=[question["algorithm"]],
        check_claims={"iss": question["issuer"], "aud": question["audience"], "exp": None},
    )
    decoder.leeway = LEEWAY
    decoder.deserialize(token, keys)


LIBRARIES = {"pyjwt": by_pyjwt, "authlib": by_authlib, "joserfc": by_joserfc, "jwcrypto": by_jwcrypto}


def opinions(question, token):
    """Why each library refuses a token; None if it does not."""
    told = {}
    for name, ask in LIBRARIES.items():
        try:
            ask(question, token)
            told[name] = None
        # Libraries also raise what is no error of theirs, such as UnicodeError or RecursionError.
        except Exception as error:
            told[name] = f"{type(error).__name__}: {error}"[:200]
    return told


for line in sys.stdin:
    question = json.loads(line)
    print(json.dumps([opinions(question, token) for token in question["tokens"]]), flush=True)
